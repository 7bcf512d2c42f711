"""What this machine keeps of remote stores: files by their digest, and manifests.

So what was read once can be read again without the network. One bound holds for both; what was not used for longest
goes first. Everything is checked each time it is read, so the cache may be changed, damaged or deleted at any time, by
any process.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from smkit.errors import IntegrityError, StorageError
from smkit.storage.base import RESERVED
from smkit.versioning.manifest import MAX_RECORD_BYTES, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from smkit.storage.base import ObjectStore

#: How large the cache may grow, in bytes.
CACHE_BYTES = 10 << 30
#: A download that was not written to for so long has died.
_DEAD_SECONDS = 24 * 3600
_TEMPORARY = f"{RESERVED}tmp-"

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return where files of remote stores are kept: `$XDG_CACHE_HOME/smkit`, by default `~/.cache/smkit`.

    Raises:
        StorageError: The user has no home folder and the variable is not set.
    """
    return _root() / "objects"


def temporary_in(folder: Path) -> Path:
    """Return a new name in a folder, which `evict` knows for that of an unfinished file."""
    return folder / f"{_TEMPORARY}{uuid.uuid4().hex}"


def evict(max_bytes: int) -> None:
    """Delete what was not used for longest until the cache is no larger than `max_bytes`; call it after an insertion.

    A file that a reader has open stays readable to it. A file that cannot be deleted counts, and is skipped.
    """
    entries = sorted(_entries(), key=lambda entry: entry.used)
    total = sum(entry.size for entry in entries)
    dead = time.time_ns() - _DEAD_SECONDS * 10**9
    for entry in entries:
        unfinished = entry.path.name.startswith(_TEMPORARY)
        if unfinished and entry.used >= dead:
            # Somebody is writing it; it has not been inserted yet.
            total -= entry.size
        elif unfinished:
            total -= _delete(entry)
    for entry in entries:
        if total <= max_bytes:
            return
        if not entry.path.name.startswith(_TEMPORARY):
            total -= _delete(entry)


def touch(path: Path) -> None:
    """Say that a file was just used."""
    # It may be read-only, another user's or just evicted: then it goes a little too early.
    with contextlib.suppress(OSError):
        os.utime(path)


class _Entry(NamedTuple):
    path: Path
    size: int
    used: int  # st_mtime_ns


def _delete(entry: _Entry) -> int:
    """Delete a file; return how many bytes that freed."""
    try:
        entry.path.unlink(missing_ok=True)
    except OSError as error:
        _logger.warning("%s cannot be removed from the cache of downloads: %s", entry.path, error.strerror)
        return 0
    return entry.size


def _entries() -> Iterator[_Entry]:
    root = _root()
    for folder in (root / "objects", root / "manifests"):
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                # Somebody else may have evicted it since it was listed.
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    yield _Entry(path, status.st_size, status.st_mtime_ns)


def _root() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # "All paths must be absolute": the XDG Base Directory Specification
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            raise StorageError(
                "there is no home folder to keep a cache in; set XDG_CACHE_HOME to a folder that can be written to"
            ) from None
    return base / "smkit"


class ManifestCache:
    """The manifests that were read from a remote store; of a store on this machine none.

    Keeping one is a convenience: where it fails, that is logged, and the caller goes on.

    Args:
        store: Where they come from.
        kind: `datasets` or `models`.
    """

    def __init__(self, store: ObjectStore, kind: str) -> None:
        self._store = store
        self._kind = kind

    def keep(self, manifest: Manifest) -> None:
        """Remember a manifest that was just read from the store."""
        if not self._is_remote():
            return
        try:
            path = self._path(manifest.name, manifest.version)
            data = manifest.encode()
            if _content(path) == data:
                touch(path)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_in(path.parent)
            try:
                temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            _logger.info("%s cannot be read offline later: its manifest was not kept: %s", manifest, error)

    def find(self, name: str, version: int) -> Manifest | None:
        """Return a manifest that was kept; None where there is none, or it was changed since."""
        if not self._is_remote():
            return None
        try:
            path = self._path(name, version)
            data = _content(path)
        except OSError as error:
            _logger.info("%s@%s cannot be read from the cache: %s", name, version, error)
            return None
        if data is None:
            return None
        touch(path)
        try:
            return Manifest.decode(data, kind=self._kind, name=name, version=version, where=str(path))
        except IntegrityError as error:
            _logger.warning("a damaged copy in the cache is not used: %s", error)
            return None

    def numbers(self, name: str) -> list[int]:
        """Return the versions of a name that were kept, newest first."""
        if not self._is_remote():
            return []
        try:
            found = [path.stem for path in self._folder(name).glob("*.json")]
        except OSError:  # no home folder: then nothing was kept
            return []
        return sorted((int(stem) for stem in found if stem.isascii() and stem.isdigit()), reverse=True)

    def forget(self, name: str, versions: Iterable[int]) -> None:
        """Drop versions that were pruned."""
        gone = set(versions)
        for version in self.numbers(name) if gone else ():
            if version in gone:
                try:
                    self._path(name, version).unlink(missing_ok=True)
                except OSError as error:
                    _logger.warning("%s@%s was pruned but stays in the cache: %s", name, version, error)

    def _is_remote(self) -> bool:
        return self._store.local_path(self._kind) is None

    def _folder(self, name: str) -> Path:
        store = hashlib.sha256(self._store.uri.encode()).hexdigest()
        return _root() / "manifests" / store / self._kind / name

    def _path(self, name: str, version: int) -> Path:
        return self._folder(name) / f"{version}.json"


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_RECORD_BYTES + 1)
    except FileNotFoundError:
        return None
