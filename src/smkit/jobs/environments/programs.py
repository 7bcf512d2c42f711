"""Programs that are asked something: uv and Pythons, undisturbed by what the caller set for others."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SECONDS = 60


def quiet_variables(kept: Iterable[str] = ()) -> dict[str, str]:
    """Return this process's variables without those that change what uv, pip or a Python does.

    Args:
        kept: Variables that are kept all the same.
    """
    dropped = ("PYTHON", "PIP_", "_PIP", "UV_", "VIRTUAL_ENV", "CONDA_", "__PYVENV")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(dropped)}


def answer_of(
    command: Sequence[str], *, variables: Mapping[str, str] | None = None, kept: Iterable[str] = ()
) -> str | None:
    """Run a program and return what it wrote to stdout, or None.

    None stands for all that makes the program useless here: it is not there, a shim without its program, for another
    processor, does not know the option, hangs as on a lock in a shared folder.

    Args:
        command: The program and its arguments, absolute where they are paths: it runs in `/`, where no project's file
            tells it what to do.
        variables: Set for it.
        kept: Variables of this process that it gets though they change what it does.
    """
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env=quiet_variables(kept) | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return None
    return done.stdout
