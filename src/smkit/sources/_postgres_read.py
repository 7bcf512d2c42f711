"""The reading engine: a server-side cursor, fetched piece by piece."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pg8000.exceptions
import pyarrow as pa

from smkit.errors import QueryError, SourceConnectionError
from smkit.sources._postgres_errors import query_error
from smkit.sources._postgres_sql import encode_param
from smkit.sources._postgres_types import Column, column_of
from smkit.sources.base import Stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from smkit.sources._postgres_connect import Connection
    from smkit.sources._postgres_sql import Query

_DECLARE = "DECLARE smkit_rows NO SCROLL CURSOR FOR "
#: The text formats that _postgres_types decodes, whatever the role's or the database's defaults are. TimeZone stays
#: theirs: it has a say in what the query means, for example in a cast of a timestamptz to a date.
_BEGIN = "; ".join(
    (
        "BEGIN READ ONLY",
        "SET LOCAL client_encoding = 'UTF8'",
        "SET LOCAL DateStyle = 'ISO'",
        "SET LOCAL IntervalStyle = 'postgres'",
        "SET LOCAL bytea_output = 'hex'",
        "SET LOCAL extra_float_digits = 3",
        # All rows will be read: without this, plans are chosen that reach the first tenth fast.
        "SET LOCAL cursor_tuple_fraction = 1.0",
    )
)
#: Rows of one fetch at most: Python holds them as text until they are decoded.
_FETCH_ROWS = 10_000


def open_query(connection: Connection, query: Query, params: Mapping[str, Any], *, batch_size: int) -> Stream:
    """Start a query in a read-only transaction of its own.

    Raises:
        QueryError: The server rejected it, or it has no columns, or two of one name.
        SourceConnectionError: The connection broke off.
    """
    values = [encode_param(name, params[name]) for name in query.names]
    with _server_errors(connection, query, params, prefix_length=0):
        connection.execute_simple(_BEGIN)
    with _server_errors(connection, query, params, prefix_length=len(_DECLARE)):
        connection.execute_unnamed(_DECLARE + query.statement, values)
        # Describes the columns, and moves nothing.
        described = connection.execute_simple("FETCH FORWARD 0 FROM smkit_rows").columns
    columns = [column_of(found["name"], found["type_oid"], found["type_modifier"]) for found in described]
    _check_names([column.name for column in columns])
    schema = pa.schema([(column.name, column.type) for column in columns])
    return Stream(schema, _fetch(connection, query, params, columns, min(batch_size, _FETCH_ROWS)))


def _fetch(
    connection: Connection, query: Query, params: Mapping[str, Any], columns: list[Column], size: int
) -> Generator[pa.RecordBatch, None, None]:
    schema = pa.schema([(column.name, column.type) for column in columns])
    while True:
        with _server_errors(connection, query, params, prefix_length=0):
            rows = connection.execute_simple(f"FETCH FORWARD {size} FROM smkit_rows").rows
        if rows:
            texts = zip(*rows, strict=True)
            arrays = [column.decode(text) for column, text in zip(columns, texts, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        if len(rows) < size:
            return


def _check_names(names: list[str]) -> None:
    if not names:
        raise QueryError("the query has no columns: select at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise QueryError(
            f"the query has more than one column named {twice[0]!r}: give each a name of its own with AS, "
            f"instead of SELECT * over joined tables"
        )


@contextmanager
def _server_errors(
    connection: Connection, query: Query, params: Mapping[str, Any], *, prefix_length: int
) -> Iterator[None]:
    try:
        yield
    except pg8000.exceptions.DatabaseError as error:
        # Without the cause: everything it knows is in the message, secrets masked.
        raise query_error(error.args[0], query, prefix_length=prefix_length, params=params) from None
    except (pg8000.exceptions.InterfaceError, OSError) as error:
        reason = connection.last_error.get("M") or str(error)
        raise SourceConnectionError(
            f"the connection to PostgreSQL broke off while the query was read: {reason}. "
            f"Nothing of it was kept: read again"
        ) from None
