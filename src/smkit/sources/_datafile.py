"""What the readers of all formats share: where bytes come from, and errors that name the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from smkit.errors import SourceError, SourceFormatError, SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from io import RawIOBase

    from smkit.sources._filters import RowFilter

#: Bytes parsed at a time; types are inferred from the first block.
BLOCK_BYTES = 4 << 20
#: Bytes at the front of a text file that hold its first block, unless its encoding is wider than UTF-8.
HEAD_BYTES = BLOCK_BYTES

#: In memory a row is whole, in several copies; a longer one is mostly a quote or a bracket that nobody closed.
LONGEST_ROW_BYTES = 256 << 20

#: The largest integer up to which a float holds every integer.
FLOAT_EXACT = 2**53

_SHOWN_CHARACTERS = 100

_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class ByteRange(NamedTuple):
    """Bytes of a file from `start` up to, but not including, `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.end - self.start


class DataFile(Protocol):
    """A file or an object: a name for messages, and its bytes."""

    @property
    def name(self) -> str:
        """How messages and lineage call it; its extensions say the format and the compression."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def stamp(self) -> Hashable | None:
        """What is another once the content is another, without reading it; None where only reading it can tell."""

    def open_stream(self) -> AbstractContextManager[BinaryIO]:
        """Open the raw bytes, to be read once, front to back."""

    def open_ranges(self, ranges: Sequence[ByteRange]) -> AbstractContextManager[BinaryIO]:
        """Open the raw bytes for reads anywhere, of which those in `ranges` will be wanted."""


class DataFiles(Protocol):
    """The files of one read, in order, and what was read of them so far."""

    @property
    def files(self) -> Sequence[DataFile]:
        """The files."""

    @property
    def bytes_read(self) -> int:
        """Bytes that were read so far, before decompression."""

    def will_read(self, plan: Iterable[tuple[DataFile, ByteRange]], *, keep: bool = False) -> None:
        """Say what is read next, in order, so that it can be fetched ahead; what was planned before is dropped.

        Args:
            plan: Files, and of each what is read.
            keep: Whether the same bytes are read again later.
        """


class Format(Protocol):
    """How the bytes of one format become batches.

    Attributes:
        any_as_text: Whether a column that is declared as text holds any value that is no list and no struct.
    """

    any_as_text: bool

    def head(self, file: DataFile) -> ByteRange:
        """Return what `schema` reads of a file, at first."""

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Return the file's columns; `declared` types are the caller's, the others the file's or inferred."""

    def ranges(self, file: DataFile, schema: pa.Schema, wanted: RowFilter) -> Iterable[ByteRange]:
        """Yield what `batches` reads of a file, in order."""

    def batches(
        self,
        file: DataFile,
        schema: pa.Schema,
        batch_size: int,
        *,
        projected: bool,
        declared: Collection[str],
        wanted: RowFilter,
    ) -> Generator[pa.RecordBatch, None, None]:
        """Yield the columns of `schema`, in its types where the format can read them as such.

        Unless `projected`, the file is expected to have no other columns. The types of the `declared` columns are the
        caller's, which messages say. Rows that are not `wanted` may be left out where that saves reading them.
        """


class WholeFile:
    """What the text formats read: a file from front to back."""

    def head(self, file: DataFile) -> ByteRange:
        """Return what types are inferred from."""
        return ByteRange(0, min(file.size, HEAD_BYTES))

    def ranges(self, file: DataFile, schema: pa.Schema, wanted: RowFilter) -> Iterable[ByteRange]:
        """Return the whole file: where a row is shows only when it is parsed."""
        del schema, wanted
        return [ByteRange(0, file.size)]


def extension(name: str) -> str:
    """Return the last extension in lower case, with its dot, or ""."""
    base = name.rpartition("/")[2]
    return f".{base.rpartition('.')[2].lower()}" if "." in base else ""


def split_codec(name: str) -> tuple[str, str | None]:
    """Split a compression's extension off and return the codec that it means."""
    codec = _CODECS.get(extension(name))
    return (name.rpartition(".")[0], codec) if codec else (name, None)


@contextmanager
def format_errors(file: DataFile, hint: str = "") -> Iterator[None]:
    """Turn pyarrow's errors into ones that name the file."""
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceNotFound(f"{file.name}: the file is gone") from error
    except OSError as error:
        # The system's errors have a number; pyarrow's for damaged bytes are OSError without one.
        if error.errno:
            raise SourceError(f"{file.name}: cannot be read: {error}") from error
        raise SourceFormatError(f"{file.name}: {error}{hint}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise SourceFormatError(f"{file.name}: {error}{hint}") from error


@contextmanager
def decompressed(file: DataFile) -> Iterator[pa.NativeFile | BinaryIO]:
    """Open the bytes behind the compression that the name says."""
    codec = split_codec(file.name)[1]
    with file.open_stream() as raw:
        if codec is None:
            yield raw
        else:
            with (
                pa.PythonFile(raw, mode="r") as stream,
                pa.CompressedInputStream(stream, codec) as decompressed,
            ):
                yield decompressed


def read_up_to(stream: pa.NativeFile | BinaryIO | RawIOBase, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: a single read of a compressed stream may return less."""
    parts = []
    while size > 0:
        part = stream.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def check_header(file: DataFile, names: list[str]) -> None:
    """Refuse a name that appears twice; no name at all is refused later, unless other columns were chosen."""
    twice = sorted({name for name in names if name.strip() and names.count(name) > 1})
    if twice:
        raise SourceFormatError(f"{file.name}: column {twice[0]!r} appears more than once: rename one of them")


def greatest_float(column: pa.ChunkedArray) -> float:
    """Return the greatest absolute value of the floats in a column, nested ones too; 0 where there are none."""
    if pa.types.is_floating(column.type):
        ends = pc.min_max(column).as_py()
        return float(max(abs(ends["min"] or 0), abs(ends["max"] or 0)))
    if pa.types.is_list(column.type):
        return greatest_float(pc.list_flatten(column))
    if pa.types.is_struct(column.type):
        return max(map(greatest_float, column.flatten()), default=0)
    return 0


def declare(column: str, code: str = '"string"') -> str:
    """Return the advice that helps where inference was wrong; `code` is how the type is written."""
    return f'declare its type: column_types={{"{column}": {code}}}'


def shown(value: object) -> str:
    """Return how a message shows a value, which may be of any length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(text):,} characters)"


def of_type(type_: pa.DataType | None, *, declared: bool) -> str:
    """Name a column's type and who said it."""
    return f"{type_}, {'as column_types declares' if declared else 'the type that its first rows show'}"
