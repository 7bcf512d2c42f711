"""Reading the rows of one query over several connections, which all see the same moment."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from smkit.errors import ConfigError
from smkit.sources import _postgres_adbc as adbc
from smkit.sources import _postgres_copy as copy
from smkit.sources._postgres_connect import connect
from smkit.sources._postgres_prefetch import Prefetch
from smkit.sources._postgres_session import Range, Transaction, begin, check, server_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import pyarrow as pa

    from smkit.config import Settings
    from smkit.sources._postgres_connect import Target
    from smkit.sources._postgres_session import PreparedQuery
    from smkit.sources._postgres_wire import Connection

    #: The rows of a range.
    _Read = Callable[[Range], Generator[pa.RecordBatch, None, None]]

#: Rows of a range. They are the unit of the order, so they must depend on the rows alone: not on who reads them.
_RANGE_ROWS = 262_144
#: Each range runs the query, so where there would be more of them they are made larger.
_MOST_RANGES = 256
#: Bytes of all rows that wait for the turn of their range.
_AHEAD_BYTES = 64 << 20


def partition_index(control: Connection, prepared: PreparedQuery, partition_on: str) -> int:
    """Return which of the columns it is that ranges are made of.

    Raises:
        ConfigError: The query has no such column.
        QueryError: The server rejected the query, or the column's type has no order.
    """
    names = prepared.schema.names
    if partition_on not in names:
        raise ConfigError(
            f"partition_on is {partition_on!r}, but the query's columns are {', '.join(map(repr, names))}"
        )
    index: int = names.index(partition_on)
    # Finds out whether the type has an order, without running anything.
    check(control, prepared, prepared.select("*", where=f"c{index} < c{index}"))
    return index


def find_ranges(control: Connection, prepared: PreparedQuery, index: int) -> list[Range]:
    """Run the query and return ranges of a column, in order; each row is in one of them, and NULLs are in the first.

    Raises:
        QueryError: The server rejected the query.
    """
    column = f"q.c{index}"
    type_name = f"pg_catalog.format_type({prepared.columns[index].oid}, -1)"
    # The server picks the bounds and writes them as literals; %L quotes what the type's own output is. USING: the order
    # must be that of the conditions' operators, which a type's own order is not in every search_path.
    statement = prepared.select(
        f"{column} AS bound, pg_catalog.row_number() OVER (ORDER BY {column} USING <) AS n",
        where=f"{column} IS DISTINCT FROM NULL",
        before=f"SELECT pg_catalog.format('%L::%s', s.bound, {type_name}) FROM (",  # noqa: S608 - no value is among them
        after=f") AS s WHERE pg_catalog.mod(s.n, {_RANGE_ROWS}) OPERATOR(pg_catalog.=) 0 ORDER BY s.n",
    )
    with server_errors(control, prepared.query, prepared.params, prefix_length=statement.prefix_length):
        found = [str(bound) for [bound] in control.execute_simple(statement.text).rows]
    step = len(found) // _MOST_RANGES + 1
    # One value in many rows can be several bounds.
    bounds = list(dict.fromkeys(found[step - 1 :: step]))
    order = f"{column} USING <"
    if not bounds:
        return [Range("true", f"{order} NULLS FIRST")]
    first = Range(f"{column} < {bounds[0]} OR {column} IS NOT DISTINCT FROM NULL", f"{order} NULLS FIRST")
    inner = [Range(f"{column} >= {low} AND {column} < {high}", order) for low, high in pairwise(bounds)]
    return [first, *inner, Range(f"{column} >= {bounds[-1]}", order)]


def export_snapshot(control: Connection, prepared: PreparedQuery) -> str:
    """Return the name under which other transactions can see what this one sees, for as long as it is open."""
    with server_errors(control, prepared.query, prepared.params, prefix_length=None):
        [[name]] = control.execute_simple("SELECT pg_catalog.pg_export_snapshot()").rows
    return str(name)


def read_partitions(
    settings: Settings,
    target: Target,
    control: Connection,
    prepared: PreparedQuery,
    *,
    partition_on: str,
    partitions: int,
    statement_timeout: float | None,
    engine: str,
) -> Generator[pa.RecordBatch, None, None]:
    """Split a query into ranges of a column and yield their rows, one range after the other, in the column's order.

    Args:
        settings: How to connect.
        target: What `resolve` has made of them.
        control: The connection that has prepared the query, in a repeatable-read transaction.
        prepared: The query.
        partition_on: The column.
        partitions: How many connections at most read ranges ahead of their turn.
        statement_timeout: As `Transaction` has it.
        engine: `copy` or `adbc`.

    Raises:
        ConfigError: The query has no such column.
        QueryError: The server rejected the query, or the column's type has no order.
    """
    index = partition_index(control, prepared, partition_on)

    def batches() -> Generator[pa.RecordBatch, None, None]:
        ranges = find_ranges(control, prepared, index)
        transaction = Transaction(statement_timeout, snapshot=export_snapshot(control, prepared))
        count = min(partitions, len(ranges))
        with ExitStack() as stack:
            readers = Readers(settings, target, prepared, transaction, engine)
            opened = [readers.open(stack) for _ in range(count)]
            # All have taken the snapshot over: an idle transaction would only meet the server's timeout.
            with server_errors(control, prepared.query, prepared.params, prefix_length=None):
                control.execute_simple("COMMIT")
            running = [
                stack.enter_context(
                    closing(
                        Prefetch(
                            _in_turn(read, ranges[first::count]),
                            depth=_AHEAD_BYTES // count,
                            interrupt=interrupt,
                            weigh=_bytes_of,
                        )
                    )
                )
                for first, (read, interrupt) in enumerate(opened)
            ]
            for turn in range(len(ranges)):
                # Up to the end of the range: a reader's rows go on with those of another.
                yield from iter(running[turn % count].__next__, None)

    return batches()


def _in_turn(read: _Read, ranges: Sequence[Range]) -> Generator[pa.RecordBatch | None, None, None]:
    """Yield the rows of ranges that are read over one connection; None ends each."""
    for one in ranges:
        yield from read(one)
        yield None


def _bytes_of(batch: pa.RecordBatch | None) -> int:
    return 0 if batch is None else int(batch.nbytes)


@dataclass(frozen=True)
class Readers:
    """What all connections of a read have in common, and how one is opened; a stack closes it."""

    settings: Settings
    target: Target
    prepared: PreparedQuery
    transaction: Transaction
    engine: str

    def open(self, stack: ExitStack) -> tuple[_Read, Callable[[], None]]:
        """Return what reads a range, and what wakes up the thread that waits for it."""
        if self.engine == "adbc":
            session = stack.enter_context(
                adbc.open_session(self.settings, self.target, self.prepared, self.transaction)
            )
            return session.read, session.interrupt
        connection = stack.enter_context(closing(connect(self.settings, self.target)))
        begin(connection, self.transaction, self.prepared.query, self.prepared.params)
        return lambda rows: copy.read_range(connection, self.prepared, rows), connection.interrupt
