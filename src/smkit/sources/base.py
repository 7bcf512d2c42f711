"""What a source is, and what all sources of smkit share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from smkit.errors import ConfigError
from smkit.frames import to_pandas

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager

    import pandas as pd

#: Rows of a batch, unless the caller wants another number.
BATCH_SIZE = 65_536


@runtime_checkable
class Source(Protocol):
    """Rows from somewhere; whatever has these methods can feed a `DatasetBuilder`.

    A source describes where rows are; it holds no connection. Every call reads afresh, so one source can be read twice
    and by two threads.
    """

    def read(self) -> pd.DataFrame:
        """Read all rows into memory."""

    def batches(self, *, batch_size: int = BATCH_SIZE) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, in bounded memory; every batch has the same schema.

        Each batch has `batch_size` rows, the last one fewer; a source without rows yields none. Closing the iterator
        early frees files and connections.
        """

    def schema(self) -> pa.Schema:
        """Return the columns and their types without reading all rows."""

    def describe(self) -> dict[str, Any]:
        """Return the lineage: what was read, as values that JSON has; never a password."""


class Stream(NamedTuple):
    """Rows on their way: their schema, and batches of any size."""

    schema: pa.Schema
    batches: Generator[pa.RecordBatch, None, None]


class StreamedSource(ABC):
    """A `Source` made of one method that opens a stream, and of `describe`."""

    @abstractmethod
    def _open(self, batch_size: int) -> AbstractContextManager[Stream]:
        """Open a stream; `batch_size` is a hint. Leaving the context frees what was opened."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the lineage: what was read, as values that JSON has; never a password."""

    def schema(self) -> pa.Schema:
        """Return the columns and their types without reading all rows.

        Raises:
            SourceError: The source cannot be read.
        """
        with self._open(1) as stream, closing(stream.batches):
            return stream.schema

    def batches(self, *, batch_size: int = BATCH_SIZE) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, in bounded memory; every batch has the same schema.

        Args:
            batch_size: Rows of each batch but the last, which may have fewer.

        Raises:
            ConfigError: `batch_size` is not a positive integer.
            SourceError: The source cannot be read; raised while iterating.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size!r}, but must be a positive integer: rows of a batch")
        return self._batches(batch_size)

    def read(self) -> pd.DataFrame:
        """Read all rows into memory; `smkit.frames.to_pandas` says which types they get.

        Raises:
            SourceError: The source cannot be read.
        """
        with self._open(BATCH_SIZE) as stream, closing(stream.batches):
            return to_pandas(pa.Table.from_batches(stream.batches, schema=stream.schema))

    def _batches(self, batch_size: int) -> Iterator[pa.RecordBatch]:
        with self._open(batch_size) as stream, closing(stream.batches):
            yield from _resize(stream, batch_size)


def _resize(stream: Stream, batch_size: int) -> Iterator[pa.RecordBatch]:
    """Cut and join batches until each has `batch_size` rows."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in stream.batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, batch_size - rows)
            start += piece.num_rows
            rows += piece.num_rows
            pending.append(piece)
            if rows == batch_size:
                yield _join(pending, stream.schema)
                pending, rows = [], 0
    if pending:
        yield _join(pending, stream.schema)


def _join(pieces: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if len(pieces) == 1:
        return pieces[0]
    columns = [pa.concat_arrays([piece.column(i) for piece in pieces]) for i in range(len(schema))]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
