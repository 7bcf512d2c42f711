"""A store in a folder.

A write goes to a temporary file beside its target, is synced, and gets its name in one step: `os.link` where the name
must not exist yet (it fails if it does, on every POSIX file system), `os.replace` where it may. Then every folder from
the target up to the root is synced: a name survives a power cut only if the names of its folders do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import shutil
import stat
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from smkit.errors import ObjectNotFound, StorageError
from smkit.storage.base import RESERVED, Digest, HashingReader, Leftover, ObjectInfo, check_key, check_prefix, is_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CHUNK = 1 << 20
_TEMPORARY = f"{RESERVED}tmp-"
#: A file that is being written, and a folder where a build collects its parts.
_TEMPORARIES = (_TEMPORARY, f"{RESERVED}build-")
#: Each try loses only to a deleter that tidies the folder away in that very moment.
_OPEN_ATTEMPTS = 100
#: What a file system without hard links answers; EMLINK where it allows one link, which the file has already.
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


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
        """Write a small object unless the key exists. Of writers at once at most one gets True."""

        def link(temporary: Path, target: Path) -> bool:
            try:
                # The function, not Path.hardlink_to, whose arguments are the other way round.
                os.link(temporary, target)
            except FileExistsError:
                if target.is_dir():
                    raise StorageError(errno.EISDIR, f"cannot write {target}: it is a folder") from None
                return False
            except OSError as error:
                if error.errno in _NO_HARD_LINKS:
                    raise StorageError(
                        error.errno,
                        f"cannot write {target}: this file system has no hard links, which publishing atomically "
                        f"needs; set `root` to a folder on another disk",
                    ) from error
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

    def adopt(self, key: str, path: Path) -> bool:
        """Move a file under a key, replacing an object that has it; False where it lies on another disk."""
        target = self._root / check_key(key)
        try:
            # As of a file that was just uploaded: a collector must not take it for one that has waited for a week.
            os.utime(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self._move(path, target)
            self._sync_folders(target.parent)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise _storage_error(error, "write", target) from error
        return True

    def _move(self, path: Path, target: Path) -> None:
        """Rename; a deleter may remove the target's folder, while it is empty, between the two steps."""
        self._make_root()
        for _ in range(_OPEN_ATTEMPTS):
            _make_folders(target.parent)
            try:
                path.replace(target)
            except FileNotFoundError:
                if not path.exists():
                    raise
            else:
                return
        path.replace(target)

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
            return cast("BinaryIO", io.BufferedReader(_ObjectFile(path)))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFound(errno.ENOENT, "no such object", str(path)) from None
        except OSError as error:
            raise _storage_error(error, "read", path) from error

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with `prefix`, in the order of their keys, at most `limit`."""
        folder, _, _ = check_prefix(prefix).rpartition("/")
        yield from itertools.islice(self._walk(folder, prefix), limit)

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the next path part of every key under the folder `prefix`, each once, in the order of the keys."""
        folder = prefix.removesuffix("/")
        check_prefix(f"{folder}/" if folder else "")
        for name, is_folder in self._entries(folder):
            if not is_folder or next(self._walk(f"{folder}/{name}" if folder else name, ""), None) is not None:
                yield name

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key that does not exist is no error."""
        folders = set()
        for path in [self._root / check_key(key) for key in keys]:
            try:
                path.unlink(missing_ok=True)
            except (NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                if path.is_dir() and not path.is_symlink():  # macOS says EPERM
                    continue
                raise _storage_error(error, "delete", path) from error
            folders.add(path.parent)
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            self._remove_empty(folder)

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield the temporary files and folders under a folder; those of a write that is under way are among them."""
        folder, _, _ = check_prefix(prefix).rpartition("/")
        for parent, folders, names in os.walk(self._root / folder):
            for name in [name for name in (*folders, *names) if name.startswith(_TEMPORARIES)]:
                path = Path(parent, name)
                # Its writer may have finished since it was listed.
                with contextlib.suppress(FileNotFoundError):
                    yield self._leftover(path)
            # What lies in a temporary folder is counted with it.
            folders[:] = sorted(name for name in folders if is_key(name))

    def _leftover(self, path: Path) -> Leftover:
        files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
        found = [file.lstat() for file in files]
        regular = [status for status in found if not stat.S_ISDIR(status.st_mode)]
        return Leftover(
            path.relative_to(self._root).as_posix(),
            "",
            len(regular),
            sum(status.st_size for status in regular),
            datetime.fromtimestamp(max(status.st_mtime for status in found), tz=timezone.utc),
        )

    def sweep(self, leftover: Leftover) -> None:
        """Remove a temporary file or folder; one that is gone already is no error."""
        folder, _, name = leftover.key.rpartition("/")
        if folder:
            check_key(folder)
        if not name.startswith(_TEMPORARIES):
            raise StorageError(f"{leftover.key!r} is no temporary file of a store")
        path = self._root / folder / name
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _storage_error(error, "delete", path) from error
        self._remove_empty(path.parent)

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
            with self._open_new(temporary) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            named = name_it(temporary, target)
            # Also where the name was taken: whoever took it may not have come to this line yet.
            self._sync_folders(target.parent)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise _storage_error(error, "write", target) from error
        finally:
            # After os.replace the temporary name is gone; on a full or broken disk the first error is the one to tell.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return named

    def _open_new(self, path: Path) -> BinaryIO:
        """Open a new file for writing; a deleter may remove its folder, while it is empty, between the two steps."""
        self._make_root()
        for _ in range(_OPEN_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):
                _make_folders(path.parent)
                return path.open("xb")
        return path.open("xb")

    def _make_root(self) -> None:
        # Above the root nothing is synced later, and nothing tidies.
        for folder in [folder for folder in reversed((self._root, *self._root.parents)) if not folder.exists()]:
            folder.mkdir(exist_ok=True)
            with contextlib.suppress(PermissionError):  # it may be entered but not listed: then it cannot be opened
                _sync_folder(folder.parent)

    def _sync_folders(self, folder: Path) -> None:
        while folder != self._root:
            _sync_folder(folder)
            folder = folder.parent
        _sync_folder(self._root)

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
                except FileNotFoundError:  # deleted since it was listed, or a link that leads nowhere
                    continue
                except OSError as error:
                    raise _storage_error(error, "list", self._root / key) from error
                yield ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, tz=timezone.utc))

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """Return names and whether each is a folder, in the order that the keys below them have."""
        path = self._root / folder
        try:
            with os.scandir(path) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries if is_key(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _storage_error(error, "list", path) from error
        # A folder's keys go on with "/", which sorts after "-" and ".".
        return sorted(found, key=lambda entry: entry[0] + "/" if entry[1] else entry[0])


class _ObjectFile(io.FileIO):
    """A file whose errors say that the store failed, and which object it was."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise _storage_error(error, "read", self._path) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise _storage_error(error, "read", self._path) from error


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it.

    A deleter may take away what pathlib has just found to exist, which it then takes for a file: so try again.
    """
    for _ in range(_OPEN_ATTEMPTS):
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # a deleter has emptied and removed it since: there is no name left to keep
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; there is nothing more that could be done.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def _storage_error(error: OSError, action: str, path: Path) -> StorageError:
    fixes = {
        errno.ENOSPC: "; free some space, or set `root` to a folder on another disk",
        errno.EDQUOT: "; the disk quota is used up: free some space, or set `root` to another folder",
        errno.EFBIG: "; the file is larger than the file system or `ulimit -f` allows",
        errno.EACCES: "; check the folder's owner and permissions, or set `root` to another folder",
        errno.EPERM: "; check the folder's owner and permissions, or set `root` to another folder",
        errno.EROFS: "; set `root` to a folder that can be written to",
        errno.ENOTDIR: "; a file lies where a folder is needed",
        errno.EEXIST: "; a file lies where a folder is needed",
        errno.ENAMETOOLONG: "; use shorter file names",
    }
    fix = fixes.get(error.errno or 0, "")
    return StorageError(error.errno, f"cannot {action} {path}: {error.strerror or error}{fix}")
