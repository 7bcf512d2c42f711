"""The shares of a query that several machines read, each over a connection of its own."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smkit.config import Settings
from smkit.errors import ConfigError, QueryError, SourceConnectionError
from smkit.sources._postgres_connect import resolve
from smkit.sources._postgres_partitions import Readers, export_snapshot, find_ranges
from smkit.sources._postgres_session import Transaction
from smkit.sources._postgres_sql import secret_settings
from smkit.sources.base import BATCH_SIZE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import pyarrow as pa

    from smkit.sources._postgres_session import PreparedQuery, Range
    from smkit.sources._postgres_sql import Query
    from smkit.sources._postgres_wire import Connection


@dataclass(frozen=True)
class PostgresShare:
    """A range of a query's rows, to be read on another machine. It holds no secret.

    Args:
        settings: How to connect, without the password: the machine that reads brings its own.
        prepared: The query.
        transaction: What to read it in; its snapshot is gone once the machine that exported it has let go of it.
        engine: `copy` or `adbc`.
        rows: Which of the rows.
    """

    settings: Settings
    prepared: PreparedQuery
    transaction: Transaction
    engine: str
    rows: Range

    def __repr__(self) -> str:
        return f"<range of PostgresSource({self.prepared.query.text!r}): {self.rows.where}>"

    def batches(self, *, batch_size: int = BATCH_SIZE) -> Generator[pa.RecordBatch, None, None]:  # noqa: ARG002 - cut anew
        """Yield the rows, in batches of any size.

        Raises:
            ConfigError: This machine has no password.
            SourceError: The query cannot be read, or the snapshot is gone.
        """
        with ExitStack() as stack:
            with _errors_of_this_machine():
                settings = _sign_in(self.settings)
                readers = Readers(settings, resolve(settings), self.prepared, self.transaction, self.engine)
                read, _ = readers.open(stack)
            yield from read(self.rows)

    def describe(self) -> dict[str, Any]:
        """Return which rows they are."""
        return {"type": "postgres", "sql": self.prepared.query.text, "range": self.rows.where}


def check_shareable(query: Query, params: dict[str, Any]) -> None:
    """Check that nothing secret would have to travel.

    Raises:
        ConfigError: A parameter is a secret.
    """
    if secrets := secret_settings(query, params):
        raise ConfigError(
            f"params[{next(iter(secrets))!r}] is a SecretStr, and a cluster's tasks hold no secrets: leave client out, "
            f"or write the query without it, for example with a view, or pass an ordinary value if it may travel"
        )


def share(
    settings: Settings,
    control: Connection,
    prepared: PreparedQuery,
    *,
    index: int,
    statement_timeout: float | None,
    engine: str,
) -> list[PostgresShare]:
    """Return shares which, one after the other, have the rows of a query; they can be read while `control` is open.

    Args:
        settings: What those who read may know of how to connect.
        control: The connection that has prepared the query, in a repeatable-read transaction.
        prepared: The query.
        index: The column whose ranges the shares are.
        statement_timeout: As `Transaction` has it.
        engine: `copy` or `adbc`.

    Raises:
        QueryError: The server rejected the query.
    """
    ranges = find_ranges(control, prepared, index)
    transaction = Transaction(statement_timeout, snapshot=export_snapshot(control, prepared))
    return [PostgresShare(settings, prepared, transaction, engine, rows) for rows in ranges]


def _sign_in(settings: Settings) -> Settings:
    """Complete the settings by the password, or the secret, of this machine."""
    own = Settings().postgres
    completed = {"password": own.password, "secret_id": settings.postgres.secret_id or own.secret_id}
    return settings.model_copy(update={"postgres": completed})


@contextmanager
def _errors_of_this_machine() -> Iterator[None]:
    """Say where a connection failed, and why it may be: other machines can do it."""
    here = f"the worker on {socket.gethostname()}"
    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            f"{here}: {error}. Workers sign in themselves, as no password is sent to them: set "
            f"SMKIT_POSTGRES__PASSWORD in the environment of every worker, or postgres.secret_id, which they read"
        ) from None
    except QueryError as error:
        if "snapshot" not in str(error):
            raise
        raise SourceConnectionError(
            f"{here}: the snapshot that all workers read is gone: {error}. Either the connection of the process that "
            f"builds has ended, or the worker was connected to another server: check that no pooler or balancer "
            f"stands between that spreads connections over servers, and build again"
        ) from None
    except SourceConnectionError as error:
        raise SourceConnectionError(f"{here}: {error}") from None
