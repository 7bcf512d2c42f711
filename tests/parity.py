"""Parity environments for tests, each built once in a run of the suite, however many processes run it.

`SMKIT_TEST_CACHE` names a folder in which they stay from run to run. By default they lie in a temporary folder, which
the last process that used it deletes; where it could not, the next run does.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from smkit.errors import ParityEnvironmentError
from smkit.jobs.environments import ensure_built, locate

if TYPE_CHECKING:
    from smkit.jobs.environments import Environment

_PREFIX = f"smkit-tests-{os.getuid()}-"
_LOCK = "lock"


def parity_environment(name: str) -> Environment:
    """Return an environment, built; skip the test where its Python is not on this machine.

    Args:
        name: Such as `1.2-1` or `1.2-1[toolkits]`.
    """
    try:
        environment = locate(name, folder=parity_cache() / "smkit" / "environments")
    except ParityEnvironmentError as error:
        pytest.skip(f"environment {name}: {error}")
    return ensure_built(environment, progress=False)


@functools.cache
def parity_cache() -> Path:
    """Return the folder to set `XDG_CACHE_HOME` to where the code under test finds the environments itself."""
    if given := os.environ.get("SMKIT_TEST_CACHE"):
        return Path(given).resolve()
    temporary = Path(tempfile.gettempdir()).resolve()
    for path in temporary.glob(f"{_PREFIX}*"):
        _delete_unless_used(path)
    # The same for all processes of a run under xdist.
    folder = temporary / f"{_PREFIX}{os.environ.get('PYTEST_XDIST_TESTRUNUID') or uuid.uuid4().hex}"
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        # Another process may have deleted it between the two.
        if (folder / _LOCK).exists() and os.path.samestat(os.fstat(lock), (folder / _LOCK).stat()):
            break
        os.close(lock)
    atexit.register(_leave, folder, lock)
    return folder


def _leave(folder: Path, lock: int) -> None:
    os.close(lock)
    _delete_unless_used(folder)


def _delete_unless_used(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # in the making, deleted meanwhile
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
