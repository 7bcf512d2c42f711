"""A query on its way: the transaction that it is read in, its types, and its text without parameters."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pg8000.exceptions
import pyarrow as pa

from smkit.errors import QueryError
from smkit.sources._postgres_errors import READABLE, broken_off, query_error
from smkit.sources._postgres_sql import encode_param, secret_settings, type_oid
from smkit.sources._postgres_types import Column, TypeChoices, column_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smkit.sources._postgres_sql import Query
    from smkit.sources._postgres_wire import Connection

#: How _postgres_sql reads literals, and the text formats that _postgres_types decodes, whatever the role's or the
#: database's defaults are. TimeZone stays theirs: it has a say in what the query means, for example in a cast of a
#: timestamptz to a date.
_FORMATS = {
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "3",
}
# The server writes the values into the SQL: it alone knows its quoting, its encoding and its types. format_type with
# -1 says "bpchar", where "character" would mean character(1).
_LITERALS = (
    "SELECT pg_catalog.quote_nullable(p.value), pg_catalog.format_type(p.type, -1) FROM ROWS FROM ("
    "pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.oid[])) AS p (value, type)"
)
#: So that the rows of a range come in the same order each time, also where the order of the column leaves it open:
#: scans would begin where another's is, and workers of the server deliver as they are scheduled.
_STEADY = {"synchronize_seqscans": "off", "max_parallel_workers_per_gather": "0"}
#: A session that is ahead of its reader idles in its transaction, and so does the one that holds a snapshot for others:
#: neither is forgotten, which is what the timeout is for.
_IDLE = {"idle_in_transaction_session_timeout": "0"}
SET_SETTING = "SELECT pg_catalog.set_config($1, $2, true)"
_READ_SETTING = "pg_catalog.current_setting('{}')"


@dataclass(frozen=True)
class Transaction:
    """How every transaction of one read is set up; all are read only.

    Args:
        statement_timeout: Seconds that a statement may take; None: as the server has it.
        snapshot: The name of an exported snapshot whose rows to see.
        repeatable: Whether all statements see the rows of one moment, which may be exported.
    """

    statement_timeout: float | None = None
    snapshot: str | None = None
    repeatable: bool = False

    def statements(self) -> list[str]:
        """Return the statements for an open transaction that has run no query yet; the last returns the session's PID.

        They are few, because each may be a round trip.
        """
        isolation = "ISOLATION LEVEL REPEATABLE READ, " if self.repeatable or self.snapshot else ""
        statements = [f"SET TRANSACTION {isolation}READ ONLY"]
        if self.snapshot is not None:
            statements.append(f"SET TRANSACTION SNAPSHOT '{self.snapshot}'")
        settings = dict(_FORMATS)
        if self.snapshot is not None:
            settings |= _STEADY
        if self.repeatable or self.snapshot is not None:
            settings |= _IDLE
        if self.statement_timeout is not None:
            settings["statement_timeout"] = str(math.ceil(self.statement_timeout * 1000))
        local = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in settings.items())
        return [*statements, f"SELECT pg_catalog.pg_backend_pid(), {local}"]


@dataclass(frozen=True)
class Statement:
    """SQL for the server, made of a query.

    Args:
        text: The SQL.
        prefix_length: Characters before the query's own.
    """

    text: str
    prefix_length: int


@dataclass(frozen=True)
class Range:
    """Some rows of a query, in order.

    Args:
        where: The condition that they meet; "": all.
        order: What they are sorted by; "": nothing.
    """

    where: str = ""
    order: str = ""


@dataclass(frozen=True)
class PreparedQuery:
    """A query that the server has understood.

    Args:
        query: The query; its parameters are literals that the server has written.
        params: Their values.
        columns: The columns of its rows.
    """

    query: Query
    params: Mapping[str, Any]
    columns: list[Column]

    @property
    def schema(self) -> pa.Schema:
        """The columns as Arrow's."""
        return pa.schema([(column.name, column.type) for column in self.columns])

    def statement(self, before: str, after: str) -> Statement:
        """Put the query between two texts, which open and close its parentheses."""
        # The line break ends a comment.
        return Statement(f"{before}{self.query.statement}\n{after}", len(before))

    def select(self, what: str, *, where: str = "", order: str = "", before: str = "", after: str = "") -> Statement:
        """Select from the query, whose columns are `c0`, `c1` ... there, whatever their names are.

        Args:
            what: The list of a SELECT.
            where: A condition; "": all rows.
            order: What to sort by; "": nothing. A bare `c0` is the list's there, `q.c0` the query's.
            before: SQL before the SELECT.
            after: SQL behind it.
        """
        names = ", ".join(f"c{i}" for i in range(len(self.columns)))
        condition = f" WHERE {where}" if where else ""
        sorting = f" ORDER BY {order}" if order else ""
        opening = f"{before}SELECT {what} FROM ("  # noqa: S608 - no value is among the pieces
        return self.statement(opening, f") AS q ({names}){condition}{sorting}{after}")


def begin(connection: Connection, transaction: Transaction, query: Query, params: Mapping[str, Any]) -> None:
    """Start the transaction of a read, and put secret parameters into its settings.

    Raises:
        QueryError: The server refuses a setting.
        SourceConnectionError: The connection broke off.
    """
    with server_errors(connection, query, params, prefix_length=None):
        connection.execute_simple("; ".join(["BEGIN", *transaction.statements()]))
        for setting in secret_settings(query, params).values():
            connection.execute_unnamed(SET_SETTING, setting)


def prepare(connection: Connection, query: Query, params: Mapping[str, Any], choices: TypeChoices) -> PreparedQuery:
    """Let the server find the types of columns and parameters, and write the parameters into the query.

    `COPY` takes no parameters, so the values have to be in its text. The server puts them there: they are bound to
    `quote_nullable`, which returns literals; here is nothing but pasted together what it returned. A secret is read
    from the session's setting instead, so that no statement holds it.

    Raises:
        QueryError: The server rejected the query, or it has no columns, or two of one name.
        SourceConnectionError: The connection broke off.
    """
    with server_errors(connection, query, params, prefix_length=0):
        description = connection.describe(query.statement, tuple(type_oid(params[name]) for name in query.names))
    if description.columns is None:
        raise QueryError(f"the statement returns no rows: {READABLE}")
    columns = [
        column_of(found["name"], found["type_oid"], found["type_modifier"], choices) for found in description.columns
    ]
    _check_names([column.name for column in columns])
    if len(description.parameters) != len(query.names):
        raise QueryError(
            f"PostgreSQL finds {len(description.parameters)} parameters in the query, but smkit {len(query.names)}: "
            f"write each :name outside quotes and comments"
        )
    literals: list[str] = []
    if query.names:
        secrets = secret_settings(query, params)
        values = [None if name in secrets else encode_param(name, params[name]) for name in query.names]
        arrays = (encode_param("", values), encode_param("", description.parameters))
        with server_errors(connection, query, params, prefix_length=None):
            rows = connection.execute_unnamed(_LITERALS, arrays).rows
        # A bare cast would name its column after the type, which an ORDER BY could mean; CASE is folded away.
        for name, (literal, type_name) in zip(query.names, rows, strict=True):
            value = _READ_SETTING.format(secrets[name][0]) if name in secrets else literal
            literals.append(f"(CASE WHEN true THEN {value}::{type_name} END)")
    return PreparedQuery(query.with_literals(literals), params, columns)


def check(connection: Connection, prepared: PreparedQuery, statement: Statement) -> None:
    """Let the server parse a statement made of a query, so that what it rejects points into the query.

    Raises:
        QueryError: The server rejected it.
        SourceConnectionError: The connection broke off.
    """
    with server_errors(connection, prepared.query, prepared.params, prefix_length=statement.prefix_length):
        connection.describe(statement.text)


@contextmanager
def server_errors(
    connection: Connection, query: Query, params: Mapping[str, Any], *, prefix_length: int | None
) -> Iterator[None]:
    """Turn pg8000's errors into smkit's; `prefix_length` as `query_error` has it."""
    try:
        yield
    except pg8000.exceptions.DatabaseError as error:
        # Without the cause: everything it knows is in the message, secrets masked.
        raise query_error(error.args[0], query, prefix_length=prefix_length, params=params) from None
    except (pg8000.exceptions.InterfaceError, OSError) as error:
        raise broken_off(connection.last_error.get("M") or str(error)) from None


def _check_names(names: list[str]) -> None:
    if not names:
        raise QueryError("the query has no columns: select at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise QueryError(
            f"the query has more than one column named {twice[0]!r}: give each a name of its own with AS, "
            f"instead of SELECT * over joined tables"
        )
