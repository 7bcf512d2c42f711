"""Reading `model.tar.gz` without trusting it.

An archive comes from a job, or from a bucket that others may write to. It is never extracted: its members are read one
by one, and only regular files with plain relative names count.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from smkit.errors import ModelError, StorageError
from smkit.storage.base import check_key
from smkit.versioning import StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MEMBERS = 10_000
MAX_TOTAL_BYTES = 64 << 30
#: tarfile reads extended headers whole; an honest one has a few hundred bytes.
_MAX_READ = 1 << 20
_CHUNK = 1 << 20


def list_members(
    source: BinaryIO, where: str, *, keep: frozenset[str], keep_bytes: int
) -> tuple[tuple[StoredFile, ...], dict[str, bytes]]:
    """Read an archive once: the path, size and SHA-256 of every file, and the bytes of a few small ones.

    Args:
        source: The archive.
        where: Its name, for messages.
        keep: Paths of the files whose bytes are wanted.
        keep_bytes: The most bytes that such a file may have; a larger one is left out.

    Raises:
        ModelError: It is no gzipped tar, or holds what an honest one does not.
    """
    members, kept = [], {}
    for path, stream in _files(source, where):
        sha256, size, chunks = hashlib.sha256(), 0, []
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            if path in keep and size <= keep_bytes:
                chunks.append(chunk)
        members.append(StoredFile(path, size, sha256.hexdigest()))
        if path in keep and size <= keep_bytes:
            kept[path] = b"".join(chunks)
    return tuple(sorted(members, key=lambda member: member.path)), kept


@contextmanager
def open_member(source: BinaryIO, path: str, where: str) -> Iterator[BinaryIO]:
    """Open one file of an archive as a stream.

    Raises:
        ModelError: It is not there, or the archive is not honest up to there.
    """
    for name, stream in _files(source, where):
        if name == path:
            yield stream
            return
    raise ModelError(f"{where} holds no file {path!r}")


def _files(source: BinaryIO, where: str) -> Iterator[tuple[str, BinaryIO]]:
    seen: set[str] = set()
    try:
        with (
            gzip.GzipFile(fileobj=source, mode="rb") as unpacked,
            tarfile.open(fileobj=cast("BinaryIO", _Capped(unpacked, where)), mode="r|") as archive,
        ):
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise ModelError(f"{where} has more than {MAX_MEMBERS:,} members: it is not a model archive")
                path = member.name.removeprefix("./")
                if member.isdir() and (path in {"", "."} or _is_plain(path)):
                    continue
                if not member.isreg() or not _is_plain(path) or path in seen:
                    kind = "a second" if path in seen else "a" if member.isreg() else "a link or device, not a"
                    raise ModelError(
                        f"{where} holds {member.name!r}, {kind} file that a model archive does not have: expected "
                        f"regular files with relative names, each once; it was not read further"
                    )
                seen.add(path)
                stream = archive.extractfile(member)
                if stream is not None:
                    yield path, cast("BinaryIO", stream)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ModelError(f"{where} is not a whole gzipped tar archive: {error}") from None


def _is_plain(path: str) -> bool:
    try:
        check_key(path)
    except StorageError:
        return False
    return True


class _Capped:
    """A stream that stops a tar bomb: it gives a limited number of bytes, and little at a time."""

    def __init__(self, source: gzip.GzipFile, where: str) -> None:
        self._source = source
        self._where = where
        self._left = MAX_TOTAL_BYTES

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _MAX_READ:
            raise ModelError(f"{self._where} has a header of {size:,} bytes: it is not a model archive")
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ModelError(f"{self._where} unpacks to more than {MAX_TOTAL_BYTES:,} bytes: it is not a model archive")
        return data
