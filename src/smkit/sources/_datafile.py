"""What the readers of all formats share: where bytes come from, and errors that name the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol

import pyarrow as pa

from smkit.errors import SourceError, SourceFormatError, SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping
    from contextlib import AbstractContextManager
    from io import RawIOBase

#: Bytes parsed at a time; types are inferred from the first block.
BLOCK_BYTES = 4 << 20

#: The largest integer up to which a float holds every integer.
FLOAT_EXACT = 2**53


_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class DataFile(Protocol):
    """A file or an object: a name for messages, and its bytes."""

    @property
    def name(self) -> str:
        """How messages and lineage call it; its extensions say the format and the compression."""

    def open_stream(self) -> AbstractContextManager[BinaryIO]:
        """Open the raw bytes, to be read once, front to back."""

    def open_seekable(self) -> AbstractContextManager[BinaryIO]:
        """Open the raw bytes for reads anywhere."""


class Format(Protocol):
    """How the bytes of one format become batches."""

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Return the file's columns; `declared` types are the caller's, the others the file's or inferred."""

    def batches(
        self, file: DataFile, schema: pa.Schema, batch_size: int, *, projected: bool, declared: Collection[str]
    ) -> Generator[pa.RecordBatch, None, None]:
        """Yield the columns of `schema`, in its types where the format can read them as such.

        Unless `projected`, the file is expected to have no other columns. The types of the `declared` columns are the
        caller's, which messages say.
        """


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
def decompressed(file: DataFile) -> Iterator[pa.NativeFile]:
    """Open the bytes behind the compression that the name says."""
    codec = split_codec(file.name)[1]
    with file.open_stream() as raw, pa.PythonFile(raw, mode="r") as stream:
        if codec is None:
            yield stream
        else:
            with pa.CompressedInputStream(stream, codec) as decompressed:
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


def declare(column: str, type_: str = "string") -> str:
    """Return the advice that helps where inference was wrong."""
    return f'declare its type: column_types={{"{column}": "{type_}"}}'


def of_type(type_: pa.DataType | None, *, declared: bool) -> str:
    """Name a column's type and who said it."""
    return f"{type_}, {'as column_types declares' if declared else 'the type that its first rows show'}"
