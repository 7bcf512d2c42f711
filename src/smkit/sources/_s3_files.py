"""The objects of one read as files: what is read next is under way already."""

from __future__ import annotations

import bisect
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from smkit.sources._datafile import HEAD_BYTES, ByteRange
from smkit.sources._s3_fetch import Fetcher, Piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from smkit.sources._datafile import DataFile
    from smkit.sources._s3_object import S3Object

#: Bytes of one request, at most. https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html
#: advises 8 to 16 MB; every request more costs money and, in S3 and in its test servers, time.
PIECE_BYTES = 16 << 20
#: Bytes that were fetched to see the schemas and are kept for the rows.
_KEPT_BYTES = 64 << 20


class S3Files:
    """The objects of one read, in order.

    Args:
        objects: The objects.
    """

    def __init__(self, objects: Iterable[S3Object]) -> None:
        self.files: Sequence[S3File] = [S3File(one, self) for one in objects]
        self.bytes_read = 0
        self._fetcher = Fetcher()
        self._keeping = False
        self._kept: dict[str, list[tuple[int, memoryview]]] = {}
        self._kept_bytes = 0
        self._handed_out: set[tuple[str, ByteRange]] = set()

    def will_read(self, plan: Iterable[tuple[DataFile, ByteRange]], *, keep: bool = False) -> None:
        """Fetch this ahead; see `DataFiles`."""
        self._keeping = keep
        self._fetcher.plan(
            Piece(file.object, part.start, part.end)
            for file, range_ in plan
            if isinstance(file, S3File)
            for part in pieces_of(range_)
            # The plan is drawn from while it is read: what was kept may have been handed out by then.
            if self._find_kept(file.object, part) is None and (file.name, part) not in self._handed_out
        )

    def get(self, object_: S3Object, part: ByteRange) -> memoryview:
        """Return bytes of an object; at once where they were fetched ahead."""
        kept = self._find_kept(object_, part)
        if kept is not None:
            if not self._keeping:
                self._forget(object_, part)
            return kept
        data = memoryview(self._fetcher.get(Piece(object_, part.start, part.end)))
        if self._keeping and self._kept_bytes + len(data) <= _KEPT_BYTES:
            self._kept.setdefault(object_.name, []).append((part.start, data))
            self._kept_bytes += len(data)
        return data

    def close(self) -> None:
        """Stop what is under way."""
        self._fetcher.close()
        self._kept.clear()

    def _forget(self, object_: S3Object, part: ByteRange) -> None:
        """Let go of what is read for the last time."""
        self._handed_out.add((object_.name, part))
        self._kept[object_.name] = [
            (start, data) for start, data in self._kept[object_.name] if (start, len(data)) != (part.start, part.size)
        ]

    def _find_kept(self, object_: S3Object, part: ByteRange) -> memoryview | None:
        for start, data in self._kept.get(object_.name, ()):
            if start <= part.start and part.end <= start + len(data):
                return data[part.start - start : part.end - start]
        return None


class S3File:
    """An object of a read.

    Args:
        object_: What it is.
        files: The read.
    """

    def __init__(self, object_: S3Object, files: S3Files) -> None:
        self.object = object_
        self._files = files

    @property
    def name(self) -> str:
        """The URI."""
        return self.object.name

    @property
    def size(self) -> int:
        """Bytes."""
        return self.object.size

    @property
    def stamp(self) -> str:
        """The ETag."""
        return self.object.etag

    @contextmanager
    def open_stream(self) -> Iterator[BinaryIO]:
        """Open for one read from front to back."""
        with _Stream(self.object, self._files) as reader:
            yield cast("BinaryIO", reader)

    @contextmanager
    def open_ranges(self, ranges: Sequence[ByteRange]) -> Iterator[BinaryIO]:
        """Open for reads anywhere; what lies outside `ranges` costs one request a read."""
        parts = [part for range_ in ranges for part in pieces_of(range_)]
        fetched = [(part.start, self._files.get(self.object, part)) for part in parts]
        self._files.bytes_read += sum(part.size for part in parts)
        with _Ranges(self.object, self._files, fetched) as reader:
            yield cast("BinaryIO", reader)


def pieces_of(range_: ByteRange) -> Iterator[ByteRange]:
    """Cut a range into what one request fetches."""
    start = range_.start
    while start < range_.end:
        # The front is what types are inferred from: a piece of its own, that it is not fetched twice.
        size = PIECE_BYTES if start else HEAD_BYTES
        yield ByteRange(start, min(start + size, range_.end))
        start += size


class _Reader(io.RawIOBase):
    def __init__(self, object_: S3Object, files: S3Files) -> None:
        super().__init__()
        self._object = object_
        self._files = files
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes; fewer at the end, or at that of a piece where the stream has one."""
        raise NotImplementedError


class _Stream(_Reader):
    """The bytes of an object from front to back."""

    def __init__(self, object_: S3Object, files: S3Files) -> None:
        super().__init__(object_, files)
        self._pieces = pieces_of(ByteRange(0, object_.size))
        self._piece = memoryview(b"")

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        if not self._piece:
            part = next(self._pieces, None)
            if part is None:
                return b""
            self._piece = self._files.get(self._object, part)
            self._files.bytes_read += part.size
        data, self._piece = bytes(self._piece[:size]), self._piece[size:]
        self._position += len(data)
        return data


class _Ranges(_Reader):
    """An object of which some parts are at hand."""

    def __init__(self, object_: S3Object, files: S3Files, fetched: list[tuple[int, memoryview]]) -> None:
        super().__init__(object_, files)
        self._starts = [start for start, _ in fetched]
        self._parts = [part for _, part in fetched]

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._object.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._object.size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            part = self._at_hand(wanted)
            if not part:
                part = self._files.get(self._object, ByteRange(self._position, self._position + wanted))
            parts.append(part)
            self._position += len(part)
            wanted -= len(part)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def _at_hand(self, wanted: int) -> memoryview:
        at = bisect.bisect_right(self._starts, self._position) - 1
        if at < 0:
            return memoryview(b"")
        offset = self._position - self._starts[at]
        return self._parts[at][offset : offset + wanted]
