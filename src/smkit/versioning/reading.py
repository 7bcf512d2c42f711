"""Reading the files of a version: nothing is handed out before its SHA-256 was checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from smkit.errors import IntegrityError, StorageError

if TYPE_CHECKING:
    from smkit.storage.base import ObjectStore
    from smkit.versioning.manifest import Manifest, StoredFile

_CHUNK = 1 << 20


def cache_folder() -> Path:
    """Return where files of remote stores are kept: `$XDG_CACHE_HOME/smkit`, by default `~/.cache/smkit`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "smkit" / "objects"


def fetch(store: ObjectStore, manifest: Manifest, file: StoredFile) -> Path:
    """Return a local file that holds the published bytes. Do not change it: others read it too.

    A file of a folder store is checked where it lies; one of S3 is downloaded into a cache by digest, which is checked
    again on every use.

    Raises:
        IntegrityError: The bytes are not those that were published.
        ObjectNotFound: The file is gone.
    """
    local = store.local_path(manifest.key_of(file.path))
    if local is not None:
        with store.open(manifest.key_of(file.path)) as stream:
            _check(stream, None, manifest, file)
        return local
    cached = cache_folder() / file.sha256[:2] / file.sha256
    if cached.is_file():
        with contextlib.suppress(IntegrityError), cached.open("rb") as stream:
            _check(stream, None, manifest, file)
            return cached
    copy(store, manifest, file, cached)
    return cached


def copy(store: ObjectStore, manifest: Manifest, file: StoredFile, target: Path) -> None:
    """Copy a file's published bytes to `target`, which appears only once they are whole and checked.

    Raises:
        IntegrityError: The bytes are not those that were published.
        ObjectNotFound: The file is gone.
        StorageError: The target cannot be written.
    """
    temporary = target.parent / f".tmp-{uuid.uuid4().hex}"
    with store.open(manifest.key_of(file.path)) as stream:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as out:
                _check(stream, out, manifest, file)
            temporary.replace(target)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(error.errno, f"cannot write {target}: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def copy_all(store: ObjectStore, manifest: Manifest, folder: Path, *, under: str = "") -> None:
    """Copy the files whose paths start with `under` into a folder, by the rest of their paths; all or none appear.

    Raises:
        IntegrityError: Bytes are not those that were published.
        StorageError: The folder cannot be written.
    """
    made: list[Path] = []
    try:
        for file in manifest.files:
            if file.path.startswith(under):
                target = folder / file.path[len(under) :]
                made.append(target)
                copy(store, manifest, file, target)
    except BaseException:
        for target in made:
            target.unlink(missing_ok=True)
        raise


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
        raise IntegrityError(
            f"{file.path} of {manifest.kind} {manifest} is damaged: its bytes are not those that were published"
        )
