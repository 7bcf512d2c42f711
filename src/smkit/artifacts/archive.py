"""Reading `model.tar.gz` without trusting it.

An archive comes from a job, or from a bucket that others may write to. It is never extracted: its members are read one
by one, and only regular files with plain relative names count.
"""

from __future__ import annotations

import hashlib
import itertools
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
#: tarfile holds all headers of a member in memory; honest ones have a few hundred bytes.
_MAX_HEADER_BYTES = 1 << 20
_CHUNK = 1 << 20
#: zlib's sign for a gzip header and trailer, whose checksum and length it then compares.
_GZIP_WINDOW_BITS = 31


def list_members(
    source: BinaryIO, where: str, *, keep: frozenset[str], keep_bytes: int
) -> tuple[tuple[StoredFile, ...], dict[str, bytes]]:
    """Read an archive once, to its end: the path, size and SHA-256 of every file, and the bytes of a few small ones.

    Args:
        source: The archive.
        where: Its name, for messages.
        keep: Paths of the files whose bytes are wanted.
        keep_bytes: The most bytes that such a file may have; a larger one is left out.

    Raises:
        ModelError: It is no gzipped tar, or holds what an honest one does not.
    """
    members, kept = [], {}
    for path, size, chunks in _files(source, where):
        sha256 = hashlib.sha256()
        wanted: list[bytes] | None = [] if path in keep and size <= keep_bytes else None
        for chunk in chunks:
            sha256.update(chunk)
            if wanted is not None:
                wanted.append(chunk)
        members.append(StoredFile(path, size, sha256.hexdigest()))
        if wanted is not None:
            kept[path] = b"".join(wanted)
    return tuple(sorted(members, key=lambda member: member.path)), kept


def copy_member(source: BinaryIO, path: str, where: str, out: BinaryIO) -> str:
    """Copy one file of an archive to a stream and return its SHA-256.

    Raises:
        ModelError: It is not there, or the archive is not honest up to there.
    """
    for name, _, chunks in _files(source, where):
        if name == path:
            sha256 = hashlib.sha256()
            for chunk in chunks:
                sha256.update(chunk)
                out.write(chunk)
            return sha256.hexdigest()
    raise ModelError(f"{where} holds no file {path!r}")


def _files(source: BinaryIO, where: str) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Yield path, size and bytes of each file. What a caller leaves unread of one is skipped."""
    seen: set[str] = set()
    unpacked = _Unpacked(source, where)
    with _tar_errors(where):
        archive = tarfile.TarFile(fileobj=cast("BinaryIO", unpacked), mode="r")  # reads the first header
    for count in itertools.count(1):
        with _tar_errors(where):
            member = archive.next()
        if member is None:
            break
        unpacked.begin_headers()
        if count > MAX_MEMBERS:
            raise ModelError(f"{where} has more than {MAX_MEMBERS:,} members: it is not a model archive")
        path = member.name.removeprefix("./")
        if member.isdir() and (path in {"", "."} or _is_plain(path)):
            continue
        is_file = member.isreg() and not member.issparse()
        if not is_file or member.size < 0 or not _is_plain(path) or path in seen:
            kind = "a second" if path in seen else "a" if is_file else "a link, device or sparse file, not a"
            raise ModelError(
                f"{where} holds {member.name!r}, {kind} file that a model archive does not have: expected "
                f"regular files with relative names, each once; it was not read further"
            )
        seen.add(path)
        end = unpacked.tell() + member.size
        yield path, member.size, unpacked.chunks_until(end)
        # Not left to tarfile, which would seek back by a byte.
        for _ in unpacked.chunks_until(end + -member.size % tarfile.BLOCKSIZE):
            pass
    unpacked.expect_padding()


@contextmanager
def _tar_errors(where: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except (tarfile.TarError, ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not a whole gzipped tar archive: {error}") from None


def _is_plain(path: str) -> bool:
    try:
        check_key(path)
    except StorageError:
        return False
    return True


class _Unpacked:
    """The bytes of a gzip stream as tarfile reads headers from them: forward only, and a limited number at a time.

    Not `gzip.GzipFile`, which unpacks 8 KiB at a time before Python 3.12.
    """

    def __init__(self, source: BinaryIO, where: str) -> None:
        self._source = source
        self._where = where
        self._inflate = zlib.decompressobj(_GZIP_WINDOW_BITS)
        self._piece = memoryview(b"")
        self._position = 0
        self._unpacked_bytes = 0
        self._header_bytes = 0
        self._last_header = b""

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int) -> int:  # noqa: ARG002 - what tarfile calls
        """Refuse: tarfile asks only where a header lies about what follows it."""
        raise self._not_whole("its headers contradict one another")

    def begin_headers(self) -> None:
        """Allow the headers of one more member."""
        self._header_bytes = 0

    def read(self, size: int) -> bytes:
        """Read a part of a header."""
        self._header_bytes += size
        if size < 0 or self._header_bytes > _MAX_HEADER_BYTES:
            raise ModelError(f"{self._where} has a header of {abs(size):,} bytes: it is not a model archive")
        pieces = []
        while size and (piece := self._next_piece(size)):
            pieces.append(piece)
            size -= len(piece)
        self._last_header = b"".join(pieces)
        return self._last_header

    def chunks_until(self, end: int) -> Iterator[bytes]:
        """Yield the bytes up to a position."""
        while self._position < end:
            chunk = self._next_piece(end - self._position)
            if not chunk:
                raise self._not_whole("it ends in the middle of a file")
            yield chunk

    def expect_padding(self) -> None:
        """Read to the end, and refuse what some readers would find there and others not."""
        # tarfile takes a header that is none for the end of the archive.
        piece = self._last_header
        while piece or (piece := self._next_piece(_CHUNK)):
            if piece.count(0) != len(piece):
                raise ModelError(f"{self._where} goes on after its end: it is not a model archive")
            piece = b""

    def _next_piece(self, size: int) -> bytes:
        if not self._piece:
            data = self._inflate_more()
            self._unpacked_bytes += len(data)
            if self._unpacked_bytes > MAX_TOTAL_BYTES:
                raise ModelError(
                    f"{self._where} unpacks to more than {MAX_TOTAL_BYTES:,} bytes: it is not a model archive"
                )
            if len(data) <= size:  # whole, hence without a copy
                self._position += len(data)
                return data
            self._piece = memoryview(data)
        piece, self._piece = self._piece[:size], self._piece[size:]
        self._position += len(piece)
        return bytes(piece)

    def _inflate_more(self) -> bytes:
        while True:
            packed = self._inflate.unconsumed_tail
            if self._inflate.eof:
                packed = self._next_stream()
                if not packed:
                    return b""
                self._inflate = zlib.decompressobj(_GZIP_WINDOW_BITS)
            packed = packed or self._source.read(_CHUNK)
            if not packed:
                raise self._not_whole("it ends early")
            try:
                data = self._inflate.decompress(packed, _CHUNK)
            except zlib.error as error:
                raise self._not_whole(str(error)) from None
            if data:
                return data

    def _not_whole(self, why: str) -> ModelError:
        return ModelError(f"{self._where} is not a whole gzipped tar archive: {why}")

    def _next_stream(self) -> bytes:
        """Return the start of a further gzip stream, or nothing: only zeros may follow the last, as `gzip` has it."""
        rest = self._inflate.unused_data.lstrip(b"\0")
        while not rest and (data := self._source.read(_CHUNK)):
            rest = data.lstrip(b"\0")
        return rest
