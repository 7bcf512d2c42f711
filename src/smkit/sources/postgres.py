"""Rows of a PostgreSQL query."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from smkit.config import Settings
from smkit.sources._postgres_connect import connect
from smkit.sources._postgres_read import open_query
from smkit.sources._postgres_sql import check_params, describe_param, parse_query
from smkit.sources.base import Stream, StreamedSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class PostgresSource(StreamedSource):
    """The rows of a query.

    Every read opens a connection, runs the query in a read-only transaction, and closes the connection. Rows are
    streamed from a server-side cursor. Types are kept: `docs/sources.md` has the table.

    Args:
        sql: One `SELECT`, `VALUES`, `TABLE` or `WITH ... SELECT`. Values come in as `:name`: the server binds them,
            they never become part of the text.
        params: A value for each `:name`: text, numbers, booleans, dates and times, bytes, UUIDs, dicts for json, None,
            and lists for `= ANY(:name)`. A `pydantic.SecretStr` is masked in messages and in the lineage.
        settings: How to connect (`settings.postgres`); default: `Settings()`, made on the first read.

    Raises:
        ConfigError: A `:name` has no value, a value has no `:name`, or a value has no SQL type.
    """

    def __init__(self, sql: str, *, params: Mapping[str, Any] | None = None, settings: Settings | None = None) -> None:
        self._params = check_params(params)
        self._query = parse_query(sql, self._params)
        self._settings = settings

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
        }

    @contextmanager
    def _open(self, batch_size: int) -> Iterator[Stream]:
        with closing(connect(self._connection_settings())) as connection:
            yield open_query(connection, self._query, self._params, batch_size=batch_size)

    def _connection_settings(self) -> Settings:
        if self._settings is None:
            self._settings = Settings()
        return self._settings
