"""Rows of a PostgreSQL query."""

from __future__ import annotations

import math
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from smkit.config import Settings
from smkit.errors import ConfigError, did_you_mean
from smkit.sources import _postgres_adbc as adbc
from smkit.sources import _postgres_copy as copy
from smkit.sources._postgres_connect import connect, resolve
from smkit.sources._postgres_partitions import partition_index, read_partitions
from smkit.sources._postgres_session import Transaction, begin, prepare
from smkit.sources._postgres_shares import PostgresShare, check_shareable, share
from smkit.sources._postgres_sql import check_params, describe_param, parse_query
from smkit.sources._postgres_types import Arrays, Numeric, TypeChoices
from smkit.sources.base import Stream, StreamedSource

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    import pyarrow as pa

    from smkit.sources._postgres_connect import Target
    from smkit.sources._postgres_session import PreparedQuery
    from smkit.sources._postgres_wire import Connection

T = TypeVar("T")
Engine = Literal["copy", "adbc"]
#: The longest statement_timeout of PostgreSQL, in seconds: 2^31 - 1 ms.
_MAX_TIMEOUT = 2_147_483.647
#: Each partition is a connection and a process of the server.
_MAX_PARTITIONS = 64


class PostgresSource(StreamedSource):
    """The rows of a query.

    Every read opens a connection, runs the query in a read-only transaction, and closes the connection. Rows are
    streamed with `COPY`, in bounded memory: a thread receives them while the caller's decodes what it has. Types are
    kept, the same with each engine: `docs/sources.md` has the table.

    Args:
        sql: One `SELECT`, `VALUES`, `TABLE` or `WITH ... SELECT`. Values come in as `:name`: they are bound, and
            what quoting COPY needs is done by the server.
        params: A value for each `:name`: text, numbers, booleans, dates and times, bytes, UUIDs, dicts for json, None,
            and lists for `= ANY(:name)`. A `pydantic.SecretStr` is masked in messages and in the lineage.
        settings: How to connect (`settings.postgres`); default: `Settings()`, made on the first read.
        engine: `copy`, or `adbc`, which reads the binary format and needs `pip install "smkit[adbc]"`.
        numeric: What `numeric` becomes: `decimal`, exact, where NaN and what does not fit are errors; or `float`, the
            nearest one, with NaN and infinity, where a finite number beyond the range of a float is an error.
        arrays: What arrays become: `list`, where several dimensions are an error; or `text`, as psql shows them.
        partition_on: A column of the query, of any type that has an order, and best with an index and no repeats. The
            server splits the rows into ranges of it, which several connections read, all seeing the same moment. Rows
            come in the column's order, NULLs first. The query runs once for the bounds and once for each range, so it
            must mean the same rows each time.
        partitions: How many connections read ranges at once, 2 to 64; the rows and their order do not depend on it.
        statement_timeout: Seconds after which the server gives the query up, waiting for a slow reader included;
            default: the server's setting.

    Raises:
        ConfigError: A `:name` has no value, a value has no `:name`, a value has no SQL type, or an option is not
            allowed.
    """

    def __init__(
        self,
        sql: str,
        *,
        params: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
        engine: Engine = "copy",
        numeric: Numeric = "decimal",
        arrays: Arrays = "list",
        partition_on: str | None = None,
        partitions: int | None = None,
        statement_timeout: float | None = None,
    ) -> None:
        self._params = check_params(params)
        self._query = parse_query(sql, self._params)
        self._settings = settings
        self._engine = _check_choice("engine", engine, get_args(Engine))
        self._choices = TypeChoices(
            _check_choice("numeric", numeric, get_args(Numeric)), _check_choice("arrays", arrays, get_args(Arrays))
        )
        self._partition_on, self._partitions = _check_partitions(partition_on, partitions)
        self._statement_timeout = _check_timeout(statement_timeout)

    def __repr__(self) -> str:
        return f"PostgresSource({self._query.text!r})"

    def describe(self) -> dict[str, Any]:
        """Return server, database, SQL and parameters, without connecting; secrets are masked.

        What only the secret of `postgres.secret_id` knows is None here, next to the secret's name.
        """
        given = self._connection_settings().postgres
        return {
            "type": "postgres",
            "host": given.host,
            "port": given.port if given.secret_id is None or "port" in given.model_fields_set else None,
            "database": given.database,
            "secret_id": given.secret_id,
            "sql": self._query.text,
            "params": {name: describe_param(value) for name, value in self._params.items()},
            "numeric": self._choices.numeric,
            "arrays": self._choices.arrays,
        }

    @property
    def settings(self) -> Settings:
        """How to connect: the settings that were given, else `Settings()`."""
        return self._connection_settings()

    @property
    def readers(self) -> int:
        """How many may read its shares at once."""
        return self._partitions

    @contextmanager
    def shares(self, settings: Settings) -> Iterator[list[PostgresShare]]:
        """Yield sources which, one after the other, have the rows, for other machines to read.

        All see the moment at which this was called, which a transaction holds for as long as the context is open.

        Args:
            settings: What those machines may know of how to connect.

        Raises:
            ConfigError: There is no `partition_on`, or a parameter is a secret.
            SourceError: The source cannot be read.
        """
        if self._partition_on is None:
            raise ConfigError(
                f"{self!r} cannot be read by a cluster: without an order each worker would have rows of its own "
                f"choice. Pass partition_on, a column best without repeats, and partitions, how many workers read at "
                f'once: for example partition_on="id", partitions=8'
            )
        check_shareable(self._query, self._params)
        with self._prepare(Transaction(self._statement_timeout, repeatable=True)) as (_, control, prepared):
            index = partition_index(control, prepared, self._partition_on)
            yield share(
                settings,
                control,
                prepared,
                index=index,
                statement_timeout=self._statement_timeout,
                engine=self._engine,
            )

    @contextmanager
    def _prepare(self, transaction: Transaction) -> Iterator[tuple[Target, Connection, PreparedQuery]]:
        """Open a connection, start the transaction and let the server understand the query."""
        if self._engine == "adbc":
            adbc.require_driver()
        settings = self._connection_settings()
        target = resolve(settings)
        with closing(connect(settings, target)) as connection:
            try:
                begin(connection, transaction, self._query, self._params)
                yield target, connection, prepare(connection, self._query, self._params, self._choices)
            except (KeyboardInterrupt, SystemExit):
                # A server that is busy, such as with the search for ranges, does not see that nobody waits for it.
                connection.interrupt()
                raise

    @contextmanager
    def _open(self, batch_size: int) -> Iterator[Stream]:
        transaction = Transaction(self._statement_timeout, repeatable=self._partition_on is not None)
        settings = self._connection_settings()
        with self._prepare(transaction) as (target, connection, prepared):
            batches: Generator[pa.RecordBatch, None, None]
            if self._partition_on is not None:
                batches = read_partitions(
                    settings,
                    target,
                    connection,
                    prepared,
                    partition_on=self._partition_on,
                    partitions=self._partitions,
                    statement_timeout=self._statement_timeout,
                    engine=self._engine,
                )
            elif self._engine == "adbc":
                batches = adbc.read_rows(settings, target, connection, prepared, transaction)
            else:
                batches = copy.read_rows(connection, prepared, batch_size=batch_size)
            yield Stream(prepared.schema, batches)

    def _connection_settings(self) -> Settings:
        if self._settings is None:
            self._settings = Settings()
        return self._settings


def _check_choice(name: str, value: T, allowed: tuple[str, ...]) -> T:
    if value not in allowed:
        hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
        raise ConfigError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}{hint}")
    return value


def _check_partitions(partition_on: str | None, partitions: int | None) -> tuple[str | None, int]:
    if partition_on is None and partitions is None:
        return None, 1
    if partition_on is None or partitions is None:
        raise ConfigError(
            f"partition_on is {partition_on!r} and partitions is {partitions!r}, but the two go together: "
            f'for example partition_on="id", partitions=8'
        )
    if not isinstance(partition_on, str):
        raise ConfigError(f"partition_on is {partition_on!r}, but must be the name of one of the query's columns")
    if isinstance(partitions, bool) or not isinstance(partitions, int) or not 2 <= partitions <= _MAX_PARTITIONS:
        raise ConfigError(f"partitions is {partitions!r}, but must be an integer from 2 to {_MAX_PARTITIONS}")
    return partition_on, partitions


def _check_timeout(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    number = not isinstance(seconds, bool) and isinstance(seconds, (int, float)) and math.isfinite(seconds)
    if not number or not 0 < seconds <= _MAX_TIMEOUT:
        raise ConfigError(f"statement_timeout is {seconds!r}, but must be seconds: more than 0, {_MAX_TIMEOUT} at most")
    return seconds
