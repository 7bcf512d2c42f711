"""The two locks of an environment, beside it: `<root>/.locks/<folder>.build` and `<folder>.use`.

Both are flock's, which end with the last process that has the descriptor, however it ends. The files stay: to delete
one that somebody may be about to lock would give two the same lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_POLL_SECONDS = 0.1
#: How long somebody who only looks whether an environment is built may be in the way of its builder.
_BRIEF_SECONDS = 3.0


@contextlib.contextmanager
def build_lock(folder: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold the lock of those who build or remove an environment; yield its descriptor.

    Args:
        folder: The environment's folder.
        on_wait: Called once where somebody else holds it.

    Raises:
        OSError: The lock cannot be made.
    """
    descriptor = _open(folder, "build")
    try:
        # Not a blocking flock: Python would not see a Ctrl-C handler's exception before it got the lock.
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            on_wait()
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                time.sleep(_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def try_build_lock(folder: Path) -> Iterator[int | None]:
    """Hold the lock of those who build or remove an environment; yield None at once where somebody else holds it.

    Raises:
        OSError: The lock cannot be made.
    """
    descriptor = _open(folder, "build")
    try:
        yield descriptor if _try_lock(descriptor, fcntl.LOCK_EX) else None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def use_lock(folder: Path) -> Iterator[int]:
    """Share the lock of those who run something in an environment; yield its descriptor.

    Raises:
        OSError: The lock cannot be made.
    """
    descriptor = _open(folder, "use")
    try:
        while not _try_lock(descriptor, fcntl.LOCK_SH):
            time.sleep(_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def out_of_use(folder: Path) -> Iterator[bool]:
    """Keep everybody from using an environment; yield False where somebody is using it.

    Raises:
        OSError: The lock cannot be made.
    """
    descriptor = _open(folder, "use")
    try:
        give_up = time.monotonic() + _BRIEF_SECONDS
        while not (locked := _try_lock(descriptor, fcntl.LOCK_EX)) and time.monotonic() < give_up:
            time.sleep(_POLL_SECONDS)
        yield locked
    finally:
        os.close(descriptor)


def _open(folder: Path, kind: str) -> int:
    path = folder.parent / ".locks" / f"{folder.name}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
