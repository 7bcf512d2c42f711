"""Sees to it that an environment is compiled to bytecode, without anybody having to wait for it.

A job runs with PYTHONDONTWRITEBYTECODE=1, as in the image: without bytecode it would compile all that it imports at
every start. To compile a whole environment takes several times as long as to install it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from smkit.jobs.environments.compile_folder import COMPILED
from smkit.jobs.environments.programs import quiet_variables

_SCRIPT = Path(__file__).with_name("compile_folder.py")


def is_compiled(folder: Path) -> bool:
    """Whether an environment is compiled."""
    return (folder / COMPILED).exists()


def start_compiling(python: Path, folder: Path, *, lock: int) -> None:
    """Compile an environment in a process that goes on when this one ends.

    It is started where its owner asks; to somebody else, who may only use it, it stays as it is.

    Args:
        python: The environment's interpreter.
        folder: The environment's folder.
        lock: A descriptor that the process inherits.
    """
    if not os.access(folder, os.W_OK):
        return
    subprocess.run(
        [str(python), "-I", "-S", str(_SCRIPT), str(folder)],
        cwd="/",
        env=quiet_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),
        check=False,
    )
