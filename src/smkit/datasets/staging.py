"""Where a build's files lie before they are published."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.errors import SmkitError, StorageError
from smkit.storage.base import RESERVED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.storage import ObjectStore

_OTHER_FOLDER = "the TMPDIR environment variable for temporary files, `root` for the store"
_FIXES = {
    errno.ENOSPC: f"the disk is full; free some space, or choose another disk: {_OTHER_FOLDER}",
    errno.EDQUOT: f"the disk quota is used up; free some space, or choose another disk: {_OTHER_FOLDER}",
    errno.EFBIG: f"the file is larger than this disk or `ulimit -f` allows; choose another disk: {_OTHER_FOLDER}",
    errno.EACCES: f"permission denied; choose a folder that you may write to: {_OTHER_FOLDER}",
    errno.EROFS: f"the file system is read-only; choose a folder that can be written to: {_OTHER_FOLDER}",
}


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for this build in the system's temporary folder, and delete it at the end.

    Raises:
        StorageError: It cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(Path(tempfile.gettempdir())):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="smkit-"))
        yield Path(folder)


@contextlib.contextmanager
def parts_folder(store: ObjectStore, fallback: Path) -> Iterator[Path]:
    """Make a folder for finished parts: inside a store on this machine, so that they need not be copied, else fallback.

    Raises:
        StorageError: It cannot be made.
    """
    if store.local_path("datasets") is None:
        yield fallback
        return
    root = Path(store.uri)
    with contextlib.ExitStack() as stack:
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            # A reserved name: should a crash leave the folder, no listing shows it.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{RESERVED}build-", dir=root))
        yield Path(folder)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the system's error about a file of smkit's own into one that says where, and what to do.

    Raises:
        StorageError: The folder cannot be written or read.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, SmkitError):
            raise
        reason = _FIXES.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(error.errno, f"cannot write to {folder}: {reason}") from error
