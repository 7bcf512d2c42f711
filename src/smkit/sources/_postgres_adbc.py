"""The engine `adbc`: Arrow's driver reads PostgreSQL's binary format, in C."""

from __future__ import annotations

import contextlib
import importlib
import math
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import pg8000.exceptions
import pyarrow as pa
import pyarrow.compute as pc

from smkit.errors import MissingExtraError, SourceConnectionError, SourceError, SourceFormatError
from smkit.sources._postgres_connect import LIBPQ_KEEPALIVE, connect
from smkit.sources._postgres_errors import broken_off, query_error
from smkit.sources._postgres_prefetch import Prefetch
from smkit.sources._postgres_session import SET_SETTING, Range, check
from smkit.sources._postgres_sql import mask_secrets, secret_settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from smkit.config import Settings
    from smkit.sources._postgres_connect import Target
    from smkit.sources._postgres_session import PreparedQuery, Statement, Transaction
    from smkit.sources._postgres_types import Column
    from smkit.sources._postgres_wire import Connection

#: OIDs of the types that ADBC reads as they are: bool, bytea, int8, int2, int4, text, float4, float8, bpchar, varchar,
#: date, time, timestamp, timestamptz. It has no numeric, and of others another idea than the engine `copy`.
_NATIVE = frozenset({16, 17, 20, 21, 23, 25, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184})
#: The bounds between which a value has a counterpart, in the type's own unit: the years 1 to 9999, and one day. ADBC
#: itself passes infinity, years before and behind, and 24:00 on as numbers without meaning.
_DAY_US = 86_400_000_000
_BOUNDS = {1082: (-719_162, 2_932_896), 1083: (0, _DAY_US - 1)} | dict.fromkeys(
    (1114, 1184), (-719_162 * _DAY_US, 2_932_897 * _DAY_US - 1)
)
#: Bytes of a batch, about.
_BATCH_BYTES = 4 << 20
_DEPTH = 2
_ALL_ROWS = Range()
#: libpq's names of the fields of an error -> the protocol's.
_FIELDS = {
    "PG_DIAG_MESSAGE_PRIMARY": "M",
    "PG_DIAG_SQLSTATE": "C",
    "PG_DIAG_MESSAGE_DETAIL": "D",
    "PG_DIAG_MESSAGE_HINT": "H",
    "PG_DIAG_STATEMENT_POSITION": "P",
}


def require_driver() -> Any:
    """Return ADBC's module for PostgreSQL.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("adbc_driver_postgresql.dbapi")
    except ImportError as error:
        raise MissingExtraError('engine="adbc" needs ADBC\'s driver: run `pip install "smkit[adbc]"`') from error


def read_rows(
    settings: Settings, target: Target, control: Connection, prepared: PreparedQuery, transaction: Transaction
) -> Generator[pa.RecordBatch, None, None]:
    """Run a query over a connection of ADBC's own and yield its rows; a thread reads ahead.

    Args:
        settings: How to connect.
        target: What `resolve` has made of them.
        control: The connection that has prepared the query; it is no longer in its transaction then.
        prepared: The query.
        transaction: What to read it in.

    Raises:
        QueryError: The server rejected it; raised at once where running it is not needed for that.
    """
    check(control, prepared, _statement(prepared, _ALL_ROWS))
    control.execute_simple("COMMIT")

    def batches() -> Generator[pa.RecordBatch, None, None]:
        with open_session(settings, target, prepared, transaction) as session:
            rows = session.read(_ALL_ROWS)
            with closing(Prefetch(rows, depth=_DEPTH, interrupt=session.interrupt)) as received:
                yield from received

    return batches()


class Session:
    """A connection of ADBC in the transaction of a read."""

    def __init__(self, settings: Settings, target: Target, prepared: PreparedQuery, connection: Any, pid: int) -> None:
        self._settings = settings
        self._target = target
        self._prepared = prepared
        self._connection = connection
        self._pid = pid

    def read(self, rows: Range) -> Generator[pa.RecordBatch, None, None]:
        """Yield the rows of a range."""
        # ADBC's own reader, which keeps the server's error code; pyarrow's makes an OSError of it.
        reader_type = importlib.import_module("adbc_driver_manager._reader").AdbcRecordBatchReader
        statement = _statement(self._prepared, rows)
        with (
            _driver_errors(self._prepared, statement),
            closing(self._connection.cursor()) as cursor,
        ):
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
            cursor.execute(statement.text)
            handle = cursor.fetch_arrow()  # releases the rows when it is collected
            with closing(reader_type._import_from_c(handle.address)) as reader:
                for batch in reader:
                    if batch.num_rows:
                        yield _convert(batch, self._prepared)

    def interrupt(self) -> None:
        """End the session on the server, which wakes up whoever reads from it."""
        try:
            with closing(connect(self._settings, self._target)) as connection:
                connection.execute_simple(f"SELECT pg_catalog.pg_terminate_backend({self._pid})")
        except (SourceConnectionError, pg8000.exceptions.Error):
            # The server may take no more connections. libpq's own request needs none of them; it is the second choice,
            # because it goes over no TLS before PostgreSQL 17. Without a server at all, the reading thread has noticed.
            with contextlib.suppress(importlib.import_module("adbc_driver_manager").Error):
                self._connection.adbc_cancel()


@contextmanager
def open_session(
    settings: Settings, target: Target, prepared: PreparedQuery, transaction: Transaction
) -> Iterator[Session]:
    """Open a connection and start the transaction.

    Raises:
        SourceConnectionError: The server cannot be reached, is not the one expected, or refuses.
    """
    driver = require_driver()
    nothing = prepared.statement("", "")
    with ExitStack() as stack:
        connection = _connection_or_error(driver, settings, target, prepared)
        if isinstance(connection, SourceError):
            raise connection
        stack.enter_context(closing(connection))
        with _driver_errors(prepared, nothing), closing(connection.cursor()) as cursor:
            for setting in transaction.statements():
                cursor.execute(setting)
            pid = cursor.fetchone()[0]
            for secret in secret_settings(prepared.query, prepared.params).values():
                cursor.execute(SET_SETTING, secret)
        yield Session(settings, target, prepared, connection, int(pid))


def _connection_or_error(driver: Any, settings: Settings, target: Target, prepared: PreparedQuery) -> Any:
    """Return the error instead of raising it: the driver's frames have the password among their variables."""
    error_type = importlib.import_module("adbc_driver_manager").Error
    try:
        return driver.connect(_connection_string(settings, target))
    except error_type as error:
        return _translate(error, prepared, prepared.statement("", ""), target)


def _connection_string(settings: Settings, target: Target) -> str:
    given = settings.postgres
    values: dict[str, object] = {
        "host": target.host,
        "port": target.port,
        "dbname": target.database,
        "user": target.user,
        "password": "" if target.password is None else target.password.get_secret_value(),
        "sslmode": given.sslmode,
        # libpq takes whole seconds, two at least.
        "connect_timeout": max(2, math.ceil(given.connect_timeout)),
        "application_name": "smkit",
        "gssencmode": "disable",
        **LIBPQ_KEEPALIVE,
    }
    if given.sslmode.startswith("verify"):
        values["sslrootcert"] = given.sslrootcert or _system_roots()
    # https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE
    quoted = {name: str(value).replace("\\", r"\\").replace("'", r"\'") for name, value in values.items()}
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())


def _system_roots() -> str:
    """Return the file of the CAs that Python trusts, so that both connections trust the same."""
    import ssl

    # The driver's own OpenSSL may look elsewhere than the system's: "system" is the last resort.
    return ssl.get_default_verify_paths().cafile or "system"


def _statement(prepared: PreparedQuery, rows: Range) -> Statement:
    what = ", ".join(_selected(column, i) for i, column in enumerate(prepared.columns))
    return prepared.select(what, where=rows.where, order=rows.order)


def _selected(column: Column, i: int) -> str:
    if column.oid in _NATIVE:
        return f"c{i}"
    # What psql shows, as a cast to text is not for all types; IS NULL would be true for a row of NULLs.
    return f"CASE WHEN c{i} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', c{i}) END AS c{i}"


def _convert(batch: pa.RecordBatch, prepared: PreparedQuery) -> pa.RecordBatch:
    arrays = []
    for column, array in zip(prepared.columns, batch.columns, strict=True):
        if column.oid not in _NATIVE:
            arrays.append(column.decode(array))
            continue
        if array.type != column.type:
            raise SourceFormatError(
                f"column {column.name!r}: ADBC reads {array.type}, but it must be {column.type}: "
                f'read with engine="copy"'
            )
        if column.oid in _BOUNDS:
            _check_bounds(column, array)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=prepared.schema)


def _check_bounds(column: Column, array: pa.Array) -> None:
    low, high = _BOUNDS[column.oid]
    numbers = array.view(pa.int32() if column.oid == 1082 else pa.int64())
    found = pc.min_max(numbers).as_py()
    if found["min"] is None or (low <= found["min"] and found["max"] <= high):
        return
    bad = found["min"] if found["min"] < low else found["max"]
    raise SourceFormatError(column.explain(_text_of(column, bad)))


def _text_of(column: Column, number: int) -> str:
    """Say a number without a counterpart as PostgreSQL would, where that is simple."""
    if column.oid == 1083:
        return "24:00:00"
    bits, since_2000 = (32, 10_957) if column.oid == 1082 else (64, 10_957 * _DAY_US)
    # ADBC adds the days between 2000 and 1970, over the edge of the type.
    original = (number - since_2000 + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
    if original == (1 << bits - 1) - 1:
        return "infinity"
    if original == -(1 << bits - 1):
        return "-infinity"
    # Before the days were added: the sum may have gone over the edge.
    return "a year before 1" if original + since_2000 < 0 else "a year behind 9999"


@contextmanager
def _driver_errors(prepared: PreparedQuery, statement: Statement) -> Iterator[None]:
    """Turn ADBC's errors into smkit's."""
    error_type = importlib.import_module("adbc_driver_manager").Error
    try:
        yield
    except error_type as error:
        # Without the cause: its message holds the whole statement.
        raise _translate(error, prepared, statement) from None


def _translate(error: Any, prepared: PreparedQuery, statement: Statement, target: Target | None = None) -> SourceError:
    """Return smkit's error; `target` while connecting."""
    fields = {
        _FIELDS[name]: value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for name, value in _details(error)
        if name in _FIELDS
    }
    said = mask_secrets(str(error).partition("\n")[0], prepared.params)
    if target is not None:
        if target.password is not None and target.password.get_secret_value():
            said = said.replace(target.password.get_secret_value(), "********")
        return SourceConnectionError(f"PostgreSQL at {target}: ADBC cannot connect: {said}")
    code = fields.get("C") or getattr(error, "sqlstate", None) or ""
    if not code or code.startswith(("08", "57P")):
        return broken_off(fields.get("M") or said)
    fields.setdefault("M", said)
    return query_error(
        {**fields, "C": code}, prepared.query, prefix_length=statement.prefix_length, params=prepared.params
    )


def _details(error: Any) -> list[tuple[str, Any]]:
    return [
        (name.decode() if isinstance(name, bytes) else name, value)
        for name, value in getattr(error, "details", None) or []
    ]
