"""The engine `copy`: the server writes CSV, Arrow parses it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pg8000.exceptions
import pyarrow as pa
import pyarrow.csv

from smkit.arrow_memory import owned_buffer
from smkit.errors import SourceFormatError
from smkit.sources._postgres_prefetch import Prefetch
from smkit.sources._postgres_session import check, server_errors

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from smkit.sources._postgres_session import PreparedQuery, Range, Statement
    from smkit.sources._postgres_types import Column
    from smkit.sources._postgres_wire import Connection

_TO_STDOUT = ") TO STDOUT (FORMAT csv)"
#: Bytes of CSV that are parsed at once; a longer row is parsed alone.
_BLOCK_BYTES = 4 << 20
#: Rows of a block where all blocks must be the same in every read.
_STEADY_ROWS = 65_536
#: Blocks that wait to be parsed: one more is being received, and one parsed.
_DEPTH = 2


def read_rows(
    connection: Connection, prepared: PreparedQuery, *, batch_size: int
) -> Generator[pa.RecordBatch, None, None]:
    """Run a query and yield its rows; a thread receives while the caller's parses.

    Args:
        connection: Its transaction has begun.
        prepared: The query.
        batch_size: Rows after which a batch is wanted, though it may have more.

    Raises:
        QueryError: The server rejected it; raised at once where running it is not needed for that.
    """
    statement = prepared.statement("COPY (", _TO_STDOUT)
    check(connection, prepared, statement)

    def batches() -> Generator[pa.RecordBatch, None, None]:
        blocks = _receive(connection, prepared, statement, rows=batch_size, steady=False)
        with closing(Prefetch(blocks, depth=_DEPTH, interrupt=connection.interrupt)) as received:
            yield from _parse(received, prepared)

    return batches()


def read_range(connection: Connection, prepared: PreparedQuery, rows: Range) -> Generator[pa.RecordBatch, None, None]:
    """Yield the rows of a range, in the caller's thread; batches are cut at the same rows in every read."""
    statement = prepared.select("*", where=rows.where, order=rows.order, before="COPY (", after=_TO_STDOUT)
    blocks = _receive(connection, prepared, statement, rows=_STEADY_ROWS, steady=True)
    yield from _parse(blocks, prepared)


def _receive(
    connection: Connection, prepared: PreparedQuery, statement: Statement, *, rows: int, steady: bool
) -> Generator[pa.Buffer, None, None]:
    """Yield the rows as CSV, with a header line and whole rows in each block."""
    # With a header, a byte order mark at the start of the first value is no longer at the start of the block, where
    # Arrow drops it.
    header = ",".join(str(i) for i in range(len(prepared.columns))).encode() + b"\n"
    gather = _gather_steadily if steady else _gather
    with server_errors(connection, prepared.query, prepared.params, prefix_length=statement.prefix_length):
        yield from gather(connection.copy_out(statement.text), header, rows)


def _gather(chunks: Iterable[list[bytes]], header: bytes, rows: int) -> Generator[pa.Buffer, None, None]:
    """Join rows until there are enough, whichever way the network has cut them."""
    block, size = [header], 0
    try:
        for chunk in chunks:
            block += chunk
            size += sum(map(len, chunk))
            if len(block) > rows or size >= _BLOCK_BYTES:
                yield _join(block)
                block, size = [header], 0
    except pg8000.exceptions.DatabaseError:
        # The rows before the error come before it.
        if len(block) > 1:
            yield _join(block)
        raise
    if len(block) > 1:
        yield _join(block)


def _gather_steadily(chunks: Iterable[list[bytes]], header: bytes, rows: int) -> Generator[pa.Buffer, None, None]:
    """Join rows until there are enough; where a block ends depends on the rows alone."""
    block, size = [header], 0
    for chunk in chunks:
        for row in chunk:
            block.append(row)
            size += len(row)
            if len(block) > rows or size >= _BLOCK_BYTES:
                yield _join(block)
                block, size = [header], 0
    if len(block) > 1:
        yield _join(block)


def _join(pieces: list[bytes]) -> pa.Buffer:
    return owned_buffer(b"".join(pieces))


def _parse(blocks: Iterable[pa.Buffer], prepared: PreparedQuery) -> Generator[pa.RecordBatch, None, None]:
    columns, schema = prepared.columns, prepared.schema
    types = [column.csv_type for column in columns]
    for block in blocks:
        try:
            table = _read_csv(block, types)
            right = all(column.is_right(table.column(i)) for i, column in enumerate(columns) if types[i] == column.type)
        except pa.ArrowInvalid:
            right = False
        if not right:
            # Some value has no counterpart, or Arrow's reader does not know its form while the decoder does, such as
            # an offset with seconds. The decoders tell.
            types = [pa.string()] * len(columns)
            table = _read_csv_as_text(block, types)
        arrays = [
            _decode(column, type_, table.column(i))
            for i, (column, type_) in enumerate(zip(columns, types, strict=True))
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _decode(column: Column, parsed: pa.DataType, values: pa.ChunkedArray) -> pa.Array:
    array = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    return array if parsed == column.type and not pa.types.is_string(parsed) else column.decode(array)


def _read_csv(block: pa.Buffer, types: list[pa.DataType]) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(block),
        # One block, so that no row is cut; threads share its columns.
        read_options=pyarrow.csv.ReadOptions(block_size=block.size + 1),
        # An empty line is a row whose only column is NULL.
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={str(i): type_ for i, type_ in enumerate(types)},
            # The server writes NULL as nothing, and an empty text as "".
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )


def _read_csv_as_text(block: pa.Buffer, types: list[pa.DataType]) -> pa.Table:
    try:
        return _read_csv(block, types)
    except pa.ArrowInvalid as error:
        raise SourceFormatError(f"the rows that PostgreSQL sent cannot be read: {error}") from error
