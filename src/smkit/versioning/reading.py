"""Reading the files of a version: nothing is handed out before its SHA-256 was checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, cast

from smkit.errors import IntegrityError, StorageError
from smkit.storage.base import BLOCK_BYTES, RESERVED
from smkit.versioning.cache import CACHE_BYTES, cache_folder, evict, temporary_in, touch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from smkit.storage.base import ObjectStore
    from smkit.versioning.manifest import Manifest, StoredFile

#: Larger pieces fall out of the processor's cache between reading and hashing.
_CHUNK = 1 << 18
#: More would compete for the memory's bandwidth.
_MAX_THREADS = 8


def open_verified(
    store: ObjectStore, manifest: Manifest, file: StoredFile, *, max_bytes: int = CACHE_BYTES
) -> BinaryIO:
    """Open a file of a version as a stream that can seek, at its start; its bytes were checked through this handle.

    A file of a folder store is read where it lies. One of S3 is downloaded into a cache by digest, which is checked
    again on every use, or, where it is larger than the cache may be, into a temporary file without a name.

    Args:
        store: Where it lies.
        manifest: The version.
        file: One of its files.
        max_bytes: How large the cache of downloads may be; what was not used for longest goes first.

    Raises:
        IntegrityError: The bytes are not those that were published.
        ObjectNotFound: The file is gone.
        StorageError: The store cannot be read, or the cache not be written.
    """
    if store.local_path(manifest.key_of(file.path)) is not None:
        return _checked(store.open(manifest.key_of(file.path)), manifest, file)
    cached = cache_folder() / file.sha256[:2] / file.sha256
    # A copy that is missing, damaged or unreadable is made anew; what keeps that from working is an error there.
    with contextlib.suppress(IntegrityError, OSError):
        stream = _checked(cached.open("rb"), manifest, file)
        touch(cached)
        return stream
    try:
        return _download(store, manifest, file, cached, max_bytes)
    except _CannotWrite as error:
        raise StorageError(
            error.errno,
            f"{error.strerror}; it is in the cache of downloads: make it writable, or set XDG_CACHE_HOME to a folder "
            f"that is",
        ) from error


def _checked(stream: BinaryIO, manifest: Manifest, file: StoredFile) -> BinaryIO:
    try:
        if file.blocks:
            check_blocks(stream.fileno(), manifest, file)
        else:
            _check(stream, None, manifest, file)
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _download(store: ObjectStore, manifest: Manifest, file: StoredFile, cached: Path, max_bytes: int) -> BinaryIO:
    with store.open(manifest.key_of(file.path)) as source, contextlib.ExitStack() as undo, _writing(cached):
        cached.parent.mkdir(parents=True, exist_ok=True)
        if file.size > max_bytes:
            # Beside the cache and not in the system's folder, which may lie in memory.
            unnamed = tempfile.TemporaryFile(dir=cached.parent)  # noqa: SIM115 - it is handed out open
            out = undo.enter_context(cast("BinaryIO", unnamed))
            _check(source, out, manifest, file)
        else:
            temporary = temporary_in(cached.parent)
            undo.callback(_remove, temporary)
            out = undo.enter_context(temporary.open("x+b"))
            _check(source, out, manifest, file)
            out.flush()
            temporary.replace(cached)
            evict(max_bytes)
        out.seek(0)
        undo.pop_all()
    return out


def _remove(path: Path) -> None:
    # After a failure the folder may not even be reachable; the first error is the one to tell.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


class _CannotWrite(StorageError):
    """The local target failed, not the store."""


def copy(store: ObjectStore, manifest: Manifest, file: StoredFile, target: Path) -> None:
    """Copy a file's published bytes to `target`, which appears only once they are whole and checked.

    Raises:
        IntegrityError: The bytes are not those that were published.
        ObjectNotFound: The file is gone.
        StorageError: The store cannot be read, or the target not be written.
    """
    temporary = target.parent / f"{RESERVED}tmp-{uuid.uuid4().hex}"
    with store.open(manifest.key_of(file.path)) as stream, _writing(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as out:
                _check(stream, out, manifest, file)
            temporary.replace(target)
        finally:
            # After a failure the folder may not even be reachable; the first error is the one to tell.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def copy_all(store: ObjectStore, manifest: Manifest, folder: Path, *, under: str = "") -> None:
    """Copy the files of the folder `under` into `folder`, by the rest of their paths.

    All appear or none does: they are checked beside their targets first. On a failure, what was in the folder before is
    as it was.

    Raises:
        IntegrityError: Bytes are not those that were published.
        ObjectNotFound: A file is gone.
        StorageError: The store cannot be read, or the folder not be written.
    """
    prefix = f"{under.removesuffix('/')}/" if under else ""
    wanted = [file for file in manifest.files if file.path.startswith(prefix)]
    if not wanted:
        return
    staging = folder / f"{RESERVED}tmp-{uuid.uuid4().hex}"
    new, old = staging / "new", staging / "old"
    with _folders_removed_on_failure() as made:
        with _writing(folder):
            for path in (folder, staging, new, old):
                _make_folder(path, made)
        try:
            for number, file in enumerate(wanted):
                copy(store, manifest, file, new / str(number))
            with _writing(folder):
                targets = [folder / file.path[len(prefix) :] for file in wanted]
                for target in targets:
                    _make_folder(target.parent, made)
                _swap_in(new, old, targets)
        except BaseException:
            # Not what is in `old`: that is a file which could not be moved back.
            shutil.rmtree(new, ignore_errors=True)
            raise
    shutil.rmtree(staging, ignore_errors=True)


def _swap_in(new: Path, old: Path, targets: list[Path]) -> None:
    """Move the new files, which are named by number, into place; on a failure, move those back that were there."""
    begun: list[tuple[Path, Path, Path]] = []
    try:
        for number, target in enumerate(targets):
            replacement, backup = new / str(number), old / str(number)
            begun.append((target, replacement, backup))
            if target.is_symlink() or target.is_file():
                target.replace(backup)
            replacement.replace(target)
    except BaseException:
        for target, replacement, backup in reversed(begun):
            if backup.is_symlink() or backup.exists():
                backup.replace(target)
            elif not replacement.exists():
                target.unlink()
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder; add those that were not there to `made`, outermost first."""
    for path in [path for path in reversed((folder, *folder.parents)) if not path.is_dir()]:
        path.mkdir(exist_ok=True)
        made.append(path)


@contextlib.contextmanager
def _folders_removed_on_failure() -> Iterator[list[Path]]:
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in reversed(made):
            # Somebody else may have put a file there meanwhile, which is not ours to remove.
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn an error of the local file system into one that names the target; the store's own pass."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise _CannotWrite(error.errno, f"cannot write {target}: {error.strerror or error}") from error


def check_blocks(descriptor: int, manifest: Manifest, file: StoredFile) -> None:
    """Check a local file against the digests of its blocks, several at once.

    Raises:
        IntegrityError: The bytes are not those that were published.
        OSError: The file cannot be read.
    """
    if os.fstat(descriptor).st_size != file.size:
        raise _damaged(manifest, file)

    def is_right(number: int) -> bool:
        sha256 = hashlib.sha256()
        start, stop = number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, file.size)
        # By position: the descriptor's own is shared by the threads.
        while start < stop and (chunk := os.pread(descriptor, min(_CHUNK, stop - start), start)):
            sha256.update(chunk)
            start += len(chunk)
        return sha256.hexdigest() == file.blocks[number]

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        try:
            right = all(pool.map(is_right, range(len(file.blocks))))
        finally:
            pool.shutdown(cancel_futures=True)
    if not right:
        raise _damaged(manifest, file)


def _check(stream: BinaryIO, out: BinaryIO | None, manifest: Manifest, file: StoredFile) -> None:
    """Hash a stream to its end, copying it on the way, and compare."""
    sha256, size = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK):
        sha256.update(chunk)
        size += len(chunk)
        if size > file.size:
            break
        if out is not None:
            out.write(chunk)
    if size != file.size or sha256.hexdigest() != file.sha256:
        raise _damaged(manifest, file)


def _damaged(manifest: Manifest, file: StoredFile) -> IntegrityError:
    return IntegrityError(
        f"{file.path} of {manifest.kind} {manifest} is damaged: its bytes are not those that were published"
    )
