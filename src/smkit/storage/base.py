"""What smkit needs of a place where bytes live."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from smkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path


class ObjectInfo(NamedTuple):
    """One line of a listing: the key, the size in bytes, the time of the last write in UTC."""

    key: str
    size: int
    modified: datetime


class Digest(NamedTuple):
    """What was written: lower-case hex SHA-256 and the size in bytes."""

    sha256: str
    size: int


class ObjectStore(Protocol):
    """A flat space of keys under one root. Keys use `/`, are relative, and sort by code point.

    Every write is atomic: a reader sees the whole object or none. Errors are `ObjectNotFound` and `StorageError`.
    """

    @property
    def uri(self) -> str:
        """The root: a folder's path or `s3://bucket/prefix`."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a small object unless the key exists; of two writers at once exactly one gets True."""

    def upload(self, key: str, source: BinaryIO) -> Digest:
        """Write an object of any size from a stream, in bounded memory, hashing while the bytes move."""

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read a small object whole; one larger than `max_bytes` is a `StorageError`."""

    def open(self, key: str) -> BinaryIO:
        """Open an object as a stream; the caller closes it."""

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with `prefix`, in the order of their keys, at most `limit`."""

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the next path part of every key under the folder `prefix`, each once, in order."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key that does not exist is no error."""

    def local_path(self, key: str) -> Path | None:
        """Return where the object's bytes lie on this machine, or None where the store is remote."""


def check_key(key: str) -> str:
    """Return a key unchanged.

    Manifests come from a bucket that others may write to, so a key is never trusted to stay under the root.

    Raises:
        StorageError: The key is empty, absolute, or has an empty, `.` or `..` part, a backslash or a control character.
    """
    parts = key.split("/")
    if any(part in {"", ".", ".."} for part in parts) or any(ord(char) < 32 or char == "\\" for char in key):
        raise StorageError(f"{key!r} is not a key: expected relative parts joined by '/', none of them '.' or '..'")
    return key


class HashingReader:
    """A stream that hashes what passes through it. It cannot seek, so that no byte is hashed twice or skipped."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        data = self._source.read(size)
        self._sha256.update(data)
        self._size += len(data)
        return data

    def digest(self) -> Digest:
        """Return the digest of all that was read so far."""
        return Digest(self._sha256.hexdigest(), self._size)
