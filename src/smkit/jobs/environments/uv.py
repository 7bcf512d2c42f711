"""Finds uv: the one on PATH, else the one that was installed as a package of this Python."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The first with `UV_DEFAULT_INDEX` and `UV_INDEX` and all the options used here.
_OLDEST = (0, 5)
_SECONDS = 30


@dataclass(frozen=True)
class Uv:
    """A uv that was run.

    Args:
        path: The program.
        version: Such as `0.9.1`.
    """

    path: Path
    version: str


def find_uv() -> Uv | None:
    """Return uv; None where there is none, or none that is new enough."""
    for path in _candidates():
        try:
            done = subprocess.run(
                [path, "--version"],
                env=quiet_variables(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            # Such as a shim of pyenv or asdf whose program is not installed.
            continue
        match = re.match(r"uv (\d+)\.(\d+)\S*", done.stdout)
        if match is not None and (int(match[1]), int(match[2])) >= _OLDEST:
            return Uv(Path(path), match[0].partition(" ")[2])
    return None


def quiet_variables(kept: Iterable[str] = ()) -> dict[str, str]:
    """Return this process's variables without those that change what uv, pip or a Python does.

    Args:
        kept: Variables that are kept all the same.
    """
    dropped = ("PYTHON", "PIP_", "_PIP", "UV_", "VIRTUAL_ENV", "CONDA_", "__PYVENV")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(dropped)}


def _candidates() -> list[str]:
    found = [shutil.which("uv")]
    # Not installed, or without its program.
    with contextlib.suppress(ImportError, AttributeError, FileNotFoundError):
        found.append(os.fspath(import_module("uv").find_uv_bin()))
    return [path for path in found if path is not None]
