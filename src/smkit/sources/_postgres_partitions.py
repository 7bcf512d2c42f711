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
from smkit.sources._postgres_session import Transaction, begin, check, server_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import pyarrow as pa

    from smkit.config import Settings
    from smkit.sources._postgres_connect import Target
    from smkit.sources._postgres_session import PreparedQuery
    from smkit.sources._postgres_wire import Connection

    #: The rows of a part, and what wakes up the thread that waits for them.
    _Part = tuple[Generator[pa.RecordBatch, None, None], Callable[[], None]]

#: Batches of one partition that wait for their turn.
_DEPTH = 1


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
    """Split a query into ranges of a column and yield their rows: a batch of each range in turn.

    Args:
        settings: How to connect.
        target: What `resolve` has made of them.
        control: The connection that has prepared the query, in a repeatable-read transaction.
        prepared: The query.
        partition_on: The column.
        partitions: How many ranges at most.
        statement_timeout: As `Transaction` has it.
        engine: `copy` or `adbc`.

    Raises:
        ConfigError: The query has no such column.
        QueryError: The server rejected the query, or the column's type has no order.
    """
    names = prepared.schema.names
    if partition_on not in names:
        raise ConfigError(
            f"partition_on is {partition_on!r}, but the query's columns are {', '.join(map(repr, names))}"
        )
    index = names.index(partition_on)
    # Finds out whether the type has an order, without running anything.
    check(control, prepared, prepared.select("*", where=f"c{index} < c{index}"))

    def batches() -> Generator[pa.RecordBatch, None, None]:
        conditions = _conditions(control, prepared, index, partitions)
        with server_errors(control, prepared.query, prepared.params, prefix_length=None):
            [[name]] = control.execute_simple("SELECT pg_catalog.pg_export_snapshot()").rows
        transaction = Transaction(statement_timeout, snapshot=str(name))
        parts_of = _Parts(settings, target, prepared, transaction)
        open_part = parts_of.open_adbc if engine == "adbc" else parts_of.open_copy
        with ExitStack() as stack:
            parts = [open_part(stack, where) for where in conditions]
            # All have taken the snapshot over: an idle transaction would only meet the server's timeout.
            with server_errors(control, prepared.query, prepared.params, prefix_length=None):
                control.execute_simple("COMMIT")
            running = [
                stack.enter_context(closing(Prefetch(rows, depth=_DEPTH, interrupt=interrupt)))
                for rows, interrupt in parts
            ]
            while running:
                for part in list(running):
                    batch = next(part, None)
                    if batch is None:
                        running.remove(part)
                    else:
                        yield batch

    return batches()


def _conditions(control: Connection, prepared: PreparedQuery, index: int, partitions: int) -> list[str]:
    """Return conditions of which each row meets exactly one; NULLs are in the first part."""
    column = f"c{index}"
    type_name = f"pg_catalog.format_type({prepared.columns[index].oid}, -1)"
    # The server picks the bounds and writes them as literals; %L quotes what the type's own output is. One sort serves
    # all: percentile_disc of several fractions at once would need arrays of the type, which arrays do not have. USING:
    # the order must be that of the conditions' operators, which a type's own order is not in every search_path.
    bounds_of = [
        f"pg_catalog.percentile_disc({i / partitions!r}) WITHIN GROUP (ORDER BY {column} USING <)"
        for i in range(1, partitions)
    ]
    statement = prepared.select(
        ", ".join(
            f"CASE WHEN {bound} IS DISTINCT FROM NULL THEN pg_catalog.format('%L::%s', {bound}, {type_name}) END"
            for bound in bounds_of
        )
    )
    with server_errors(control, prepared.query, prepared.params, prefix_length=statement.prefix_length):
        [row] = control.execute_simple(statement.text).rows
    # One value in many rows can be several bounds; without any value there is none.
    bounds = list(dict.fromkeys(str(bound) for bound in row if bound is not None))
    if not bounds:
        return ["true"]
    inner = [f"{column} >= {low} AND {column} < {high}" for low, high in pairwise(bounds)]
    first = f"{column} < {bounds[0]} OR {column} IS NOT DISTINCT FROM NULL"
    return [first, *inner, f"{column} >= {bounds[-1]}"]


@dataclass(frozen=True)
class _Parts:
    """What all parts of a query have in common, and how one is opened; a stack closes it."""

    settings: Settings
    target: Target
    prepared: PreparedQuery
    transaction: Transaction

    def open_copy(self, stack: ExitStack, where: str) -> _Part:
        connection = stack.enter_context(closing(connect(self.settings, self.target)))
        begin(connection, self.transaction, self.prepared.query, self.prepared.params)
        return copy.read_part(connection, self.prepared, where=where), connection.interrupt

    def open_adbc(self, stack: ExitStack, where: str) -> _Part:
        session = stack.enter_context(adbc.open_session(self.settings, self.target, self.prepared, self.transaction))
        return session.read(where), session.interrupt
