"""Finds a Python of a given version: this one, uv's, pyenv's, or one on PATH.

Every candidate is run before it is believed: pyenv puts a `python3.9` on PATH that only says that there is no 3.9.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.errors import ParityEnvironmentError
from smkit.jobs.environments.programs import answer_of
from smkit.jobs.environments.uv import find_uv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.jobs.containers import Python
    from smkit.jobs.environments.uv import Uv

#: The oldest Python of the latest uv; an older uv offers those of the images that are older still.
_OLDEST_OFFERED = (3, 8)
_OLDER_UV = "0.6.0"
# Of a virtual environment the Python below it, which stays when the virtual environment is deleted.
_PROBE = (
    "import json, platform, sys\n"
    "print(json.dumps([platform.python_implementation(), platform.python_version(), "
    "getattr(sys, '_base_executable', '') or sys.executable]))"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that was run.

    Args:
        path: Its file, links resolved.
        version: Its exact version, such as `3.9.18`.
    """

    path: Path
    version: str


def find_interpreter(python: Python) -> Interpreter:
    """Return a CPython of this version.

    Raises:
        ParityEnvironmentError: There is none; the message says the command that installs one.
    """
    found = search_interpreter(python)
    if found is None:
        version = f"{python[0]}.{python[1]}"
        raise ParityEnvironmentError(
            f"Python {version} is not on this machine (looked at: the Python that runs smkit, uv's, pyenv's, and "
            f"python{version} on PATH). Install it: {install_command(python)}"
        )
    return found


def search_interpreter(python: Python) -> Interpreter | None:
    """Return a CPython of this version; None where there is none."""
    if sys.version_info[:2] == python and platform.python_implementation() == "CPython":
        own = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
        if own.is_file():
            return Interpreter(own, platform.python_version())
    return next((found for path in _candidates(python) if (found := _run(path, python)) is not None), None)


def install_command(python: Python) -> str:
    """Return the one command that installs a Python of this version, by what is there to install it."""
    version = f"{python[0]}.{python[1]}"
    uv = find_uv()
    if uv is not None and _is_offered(uv, version):
        return f"{_shown(uv)} python install {version}"
    if shutil.which("pyenv") is not None:
        return f"pyenv install {version}"
    # What an older uv installs, a later one finds.
    older = "" if python >= _OLDEST_OFFERED else f"tool run uv@{_OLDER_UV} "
    if uv is not None:
        return f"{_shown(uv)} {older}python install {version}"
    here = shlex.quote(sys.executable)
    return f"{here} -m pip install uv && {here} -m uv {older}python install {version}"


def _shown(uv: Uv) -> str:
    """Return how a user calls uv."""
    if shutil.which("uv") == os.fspath(uv.path):
        return "uv"
    # A package of this Python, whose folder of programs is not on PATH.
    return f"{shlex.quote(sys.executable)} -m uv"


def _is_offered(uv: Uv, version: str) -> bool:
    """Return whether uv would install a Python of this version: its list is part of the program."""
    listing = [str(uv.path), "python", "list", "--only-downloads", "--all-versions", "--no-config"]
    listed = answer_of(listing, variables={"UV_OFFLINE": "1"})
    if listed is None:
        # One from before this option.
        return tuple(int(part) for part in version.split(".")) >= _OLDEST_OFFERED
    return f"cpython-{version}." in listed


def _candidates(python: Python) -> Iterator[Path]:
    version = f"{python[0]}.{python[1]}"
    name = f"python{version}"
    yield from _of_uv(version)
    # The newest first: 3.9.18 before 3.9.9; then 3.9-dev.
    versions = sorted(_pyenv_root().glob(f"versions/{version}[.-]*/bin/{name}"), key=_patch, reverse=True)
    yield from versions
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(folder):  # noqa: PTH117 - "" means the working folder, which must not decide
            yield Path(folder) / name


def _of_uv(version: str) -> Iterator[Path]:
    uv = find_uv()
    if uv is None:
        return
    found = answer_of(
        [str(uv.path), "python", "find", "--no-project", f"cpython@{version}"],
        variables={"UV_PYTHON_PREFERENCE": "only-managed", "UV_PYTHON_DOWNLOADS": "never"},
        kept=["UV_PYTHON_INSTALL_DIR"],
    )
    if found is not None:
        yield Path(found.strip())


def _pyenv_root() -> Path:
    # As pyenv itself decides.
    return Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))  # noqa: PTH111 - never raises


def _patch(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parts[-3].split(".") if part.isdecimal())


def _run(path: Path, python: Python) -> Interpreter | None:
    if not os.access(path, os.X_OK):
        return None
    answer = answer_of([str(path), "-I", "-S", "-c", _PROBE])
    if answer is None:
        return None
    try:
        implementation, version, base = json.loads(answer)
    except ValueError:
        # Not a Python at all: the next one, then.
        return None
    if implementation != "CPython" or tuple(int(part) for part in version.split(".")[:2]) != python:
        return None
    return Interpreter(Path(base).resolve(), version)
