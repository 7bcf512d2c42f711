"""A store in a folder.

A write goes to a temporary file beside its target, is synced, and gets its name in one step: `os.link` where the name
must not exist yet (it fails if it does, on every POSIX file system and on NTFS), `os.replace` where it may.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from smkit.errors import ObjectNotFound, StorageError
from smkit.storage.base import Digest, HashingReader, ObjectInfo, check_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CHUNK = 1 << 20
_TEMPORARY = ".tmp-"


class FolderStore:
    """Objects as files under one folder, which is made on the first write.

    Args:
        root: The folder.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).expanduser().absolute()

    def __repr__(self) -> str:
        return f"FolderStore({str(self._root)!r})"

    @property
    def uri(self) -> str:
        """The folder's absolute path."""
        return str(self._root)

    def local_path(self, key: str) -> Path | None:
        """Return the object's file."""
        return self._root / check_key(key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a small object unless the key exists; of two writers at once exactly one gets True."""

        def link(temporary: Path, target: Path) -> bool:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in {errno.EPERM, errno.ENOTSUP, errno.EMLINK}:
                    raise StorageError(
                        f"{self._root}: this file system has no hard links, which publishing atomically needs; "
                        f"set `root` to a folder on another disk"
                    ) from None
                raise
            return True

        def write(file: BinaryIO) -> None:
            file.write(data)

        return self._write(key, write, link)

    def upload(self, key: str, source: BinaryIO) -> Digest:
        """Write an object of any size from a stream, in bounded memory, hashing while the bytes move."""
        reader = HashingReader(source)

        def write(file: BinaryIO) -> None:
            while chunk := reader.read(_CHUNK):
                file.write(chunk)

        def replace(temporary: Path, target: Path) -> bool:
            temporary.replace(target)
            return True

        self._write(key, write, replace)
        return reader.digest()

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read a small object whole; one larger than `max_bytes` is a `StorageError`."""
        with self.open(key) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise StorageError(
                f"{self._root / key} is larger than the {max_bytes:,} bytes that such an object may have"
            )
        return data

    def open(self, key: str) -> BinaryIO:
        """Open an object as a stream; the caller closes it."""
        path = self._root / check_key(key)
        try:
            return path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFound(errno.ENOENT, "no such object", str(path)) from None
        except OSError as error:
            raise _storage_error(error, "read", path) from error

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with `prefix`, in the order of their keys, at most `limit`."""
        folder, _, _ = prefix.rpartition("/")
        for count, info in enumerate(self._walk(folder, prefix)):
            if limit is not None and count >= limit:
                return
            yield info

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the next path part of every key under the folder `prefix`, each once, in order."""
        folder = prefix.strip("/")
        for name, is_folder in self._entries(folder):
            if not is_folder or next(self._walk(f"{folder}/{name}", ""), None) is not None:
                yield name

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key that does not exist is no error."""
        folders = set()
        for key in keys:
            path = self._root / check_key(key)
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise _storage_error(error, "delete", path) from error
            folders.add(path.parent)
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            self._remove_empty(folder)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root and self._root in folder.parents:
            # Not empty, or gone already, or made anew by a writer: all of them mean that there is nothing to tidy.
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _write(self, key: str, write: Callable[[BinaryIO], None], name_it: Callable[[Path, Path], bool]) -> bool:
        target = self._root / check_key(key)
        temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with _open_new(temporary) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            named = name_it(temporary, target)
            _sync_folder(target.parent)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise _storage_error(error, "write", target) from error
        finally:
            # After os.replace the temporary name is gone; on a full or broken disk the first error is the one to tell.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return named

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        for name, is_folder in self._entries(folder):
            key = f"{folder}/{name}" if folder else name
            if is_folder:
                # Skip whole folders that cannot hold a match.
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                try:
                    status = (self._root / key).stat()
                except FileNotFoundError:  # deleted since it was listed
                    continue
                yield ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, tz=timezone.utc))

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """Return names and whether each is a folder, in the order that the keys below them have."""
        path = self._root / check_key(folder) if folder else self._root
        try:
            with os.scandir(path) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(_TEMPORARY)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _storage_error(error, "list", path) from error
        # A folder's keys go on with "/", which sorts after "-" and ".".
        return sorted(found, key=lambda entry: entry[0] + "/" if entry[1] else entry[0])


def _open_new(path: Path) -> BinaryIO:
    """Open a new file for writing; its folder may be removed by a deleter between the two steps, so try again."""
    for _ in range(8):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return path.open("xb")
    return path.open("xb")


def _sync_folder(path: Path) -> None:
    """Make the new name itself survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(error: OSError, action: str, path: Path) -> StorageError:
    fixes = {
        errno.ENOSPC: "; free some space, or set `root` to a folder on another disk",
        errno.EDQUOT: "; the disk quota is used up: free some space, or set `root` to another folder",
        errno.EACCES: "; check the folder's owner and permissions, or set `root` to another folder",
        errno.EROFS: "; set `root` to a folder that can be written to",
    }
    fix = fixes.get(error.errno or 0, "")
    return StorageError(error.errno, f"cannot {action} {path}: {error.strerror or error}{fix}")
