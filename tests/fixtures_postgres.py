"""Fixtures: a real PostgreSQL, started once, or the one that SMKIT_TEST_PG_DSN names."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pg8000.native
import pytest
from pydantic import SecretStr

import smkit
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Postgres:
    """How to reach the server of the tests."""

    host: str
    port: int
    database: str
    user: str
    password: str
    sslmode: str = "disable"

    def settings(self, **overrides: Any) -> smkit.Settings:
        """Settings that reach the server; `overrides` are fields of `PostgresSettings`, None meaning "not given"."""
        values: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "user": self.user,
            "password": SecretStr(self.password),
            "sslmode": self.sslmode,
        }
        values.update(overrides)
        given = {name: value for name, value in values.items() if value is not None}
        return smkit.Settings(postgres=smkit.PostgresSettings(**given))

    def run(self, sql: str, **params: Any) -> list[list[Any]]:
        """Run one statement on a connection of its own, committed, and return the rows, if it has any."""
        connection = pg8000.native.Connection(
            self.user,
            host=self.host,
            port=self.port,
            database=self.database,
            password=self.password,
            timeout=30,
            ssl_context=None if self.sslmode == "disable" else True,
        )
        try:
            return connection.run(sql, **params) or []
        finally:
            connection.close()


@pytest.fixture(scope="session")
def pg() -> Iterator[Postgres]:
    """A PostgreSQL server that lives as long as the test session."""
    dsn = os.environ.get("SMKIT_TEST_PG_DSN")
    if dsn:
        parts = urlsplit(dsn)
        yield Postgres(
            host=parts.hostname or "localhost",
            port=parts.port or 5432,
            database=unquote(parts.path.lstrip("/")) or "postgres",
            user=unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
            sslmode=parse_qs(parts.query).get("sslmode", ["disable"])[0],
        )
        return
    server = PostgresServer()
    server.start()
    try:
        yield Postgres(server.host, server.port, server.database, server.user, server.password)
    finally:
        server.stop()


@pytest.fixture
def pg_schema(pg: Postgres) -> Iterator[str]:
    """The name of a fresh, empty schema, to be written before a table's name."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    pg.run(f"CREATE SCHEMA {name}")
    try:
        yield name
    finally:
        pg.run(f"DROP SCHEMA {name} CASCADE")
