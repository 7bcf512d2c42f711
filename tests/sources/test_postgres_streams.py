"""Reads that end early, break or take too long: what is raised, and that nothing stays behind, with each engine."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from smkit.errors import ConfigError, MissingExtraError, QueryError, SourceConnectionError, SourceError
from smkit.sources import PostgresSource
from smkit.sources import _postgres_adbc as adbc
from smkit.sources import _postgres_partitions as partitions
from smkit.sources._postgres_connect import resolve
from smkit.sources._postgres_copy import _gather
from smkit.sources._postgres_prefetch import Prefetch
from smkit.sources._postgres_session import PreparedQuery, Transaction
from smkit.sources._postgres_sql import parse_query
from tests.sources.test_postgres_connection import sessions, wait_until, whole_story
from tests.sources.tls_proxy import make_certificates, tls_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fixtures_postgres import Postgres

MODES: dict[str, dict[str, Any]] = {
    "copy": {},
    "adbc": {"engine": "adbc"},
    "parts": {"partition_on": "g", "partitions": 3},
    "adbc-parts": {"engine": "adbc", "partition_on": "g", "partitions": 3},
}
#: More than all buffers between server and reader hold.
MANY = "SELECT g, repeat('x', 400) AS t FROM generate_series(1, 150000) g"
#: The server is busy and sends nothing.
SILENT = "SELECT g, pg_sleep(CASE WHEN g = 0 THEN 60 ELSE 0 END)::text AS s FROM (VALUES (0)) v (g)"


_LEFT = (
    "SELECT pid, state, wait_event, now() - backend_start, now() - state_change, query FROM pg_stat_activity "
    "WHERE application_name = 'smkit'"
)


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "smkit-postgres"]


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(partitions, "_RANGE_ROWS", 20_000)  # several for each connection
    return MODES[request.param]


def nothing_is_left(pg: Postgres) -> None:
    wait_until(lambda: sessions(pg) == 0, lambda: pg.run(_LEFT))
    wait_until(lambda: not reading_threads(), reading_threads)
    gc.collect()  # sockets that nobody closed would warn now


def test_stopping_early_ends_the_query_at_once(pg: Postgres, mode: dict[str, Any]) -> None:
    batches = PostgresSource(MANY, settings=pg.settings(), **mode).batches(batch_size=100)
    next(batches)
    assert sessions(pg) > 0
    batches.close()  # type: ignore[attr-defined] # a generator, which the protocol does not promise
    nothing_is_left(pg)


@pytest.mark.parametrize(("engine", "connections"), [("copy", None), ("adbc", None), ("adbc", 2)])
def test_a_thread_that_waits_for_the_server_is_woken_up(
    pg: Postgres, pg_schema: str, engine: Any, connections: int | None
) -> None:
    """Ctrl-C while nothing comes: the interrupt reaches the caller, and the query does not go on alone."""
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT {connections or -1}")
    source = PostgresSource(SILENT, settings=pg.settings(user=role, password=SecretStr("x")), engine=engine)
    is_interrupted_by_ctrl_c(pg, source.read)
    nothing_is_left(pg)
    pg.run(f"DROP ROLE {role}")


def is_interrupted_by_ctrl_c(pg: Postgres, act: Callable[[], object]) -> None:
    """Send Ctrl-C while the server is busy with what an action asks of it."""
    running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'smkit' AND wait_event = 'PgSleep'"

    def interrupt() -> None:
        wait_until(lambda: pg.run(running)[0][0] == 1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        act()
    thread.join()
    assert time.monotonic() - start < 40


@pytest.mark.parametrize("engine", ["copy", "adbc"])
def test_ctrl_c_ends_the_search_for_ranges(pg: Postgres, engine: Any) -> None:
    source = PostgresSource(SILENT, settings=pg.settings(), engine=engine, partition_on="g", partitions=2)
    is_interrupted_by_ctrl_c(pg, source.read)
    nothing_is_left(pg)


def test_a_session_that_the_server_ends_midway(pg: Postgres, mode: dict[str, Any]) -> None:
    batches = PostgresSource(MANY, settings=pg.settings(), **mode).batches(batch_size=100)
    next(batches)
    pg.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'smkit'")
    with pytest.raises(SourceConnectionError, match="broke off while the query was read") as caught:
        list(batches)
    assert pg.password not in whole_story(caught.value)
    nothing_is_left(pg)


def test_a_query_that_somebody_cancels(pg: Postgres, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # A range that has been sent whole, into buffers here or on the way, cannot be cancelled any more.
    monkeypatch.setattr(partitions, "_AHEAD_BYTES", 1 << 20)
    monkeypatch.setattr(partitions, "_RANGE_ROWS", 75_000)
    batches = PostgresSource(MANY, settings=pg.settings(), **mode).batches(batch_size=100)
    next(batches)
    pg.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'smkit'")
    with pytest.raises(QueryError, match="canceling statement due to user request") as caught:
        list(batches)
    assert caught.value.sqlstate == "57014"
    nothing_is_left(pg)


def test_a_query_that_takes_too_long(pg: Postgres, mode: dict[str, Any]) -> None:
    source = PostgresSource(SILENT, settings=pg.settings(), statement_timeout=0.2, **mode)
    with pytest.raises(QueryError, match=r"statement timeout \[57014\]\nhint: .*statement_timeout"):
        source.read()
    nothing_is_left(pg)


def test_an_error_in_a_later_row_is_no_shorter_result(pg: Postgres, mode: dict[str, Any]) -> None:
    source = PostgresSource(
        "SELECT g, 1 / (g - 99999) AS x FROM generate_series(1, 100000) g", settings=pg.settings(), **mode
    )
    with pytest.raises(QueryError, match=r"division by zero \[22012\]"):
        source.read()
    nothing_is_left(pg)


def test_the_schema_does_not_run_the_query(pg: Postgres, mode: dict[str, Any]) -> None:
    assert PostgresSource(SILENT, settings=pg.settings(), **mode).schema().names == ["g", "s"]
    nothing_is_left(pg)


def test_nothing_is_written(pg: Postgres, pg_schema: str, mode: dict[str, Any]) -> None:
    pg.run(f"CREATE SEQUENCE {pg_schema}.s")
    source = PostgresSource(f"SELECT nextval('{pg_schema}.s') AS g", settings=pg.settings(), **mode)
    with pytest.raises(QueryError, match="read-only transaction") as caught:
        source.read()
    assert caught.value.sqlstate == "25006"
    nothing_is_left(pg)


def test_the_first_rows_of_an_endless_query_come_at_once(pg: Postgres) -> None:
    batches = PostgresSource(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i % 2 = 0",
        settings=pg.settings(),
    ).batches(batch_size=5)
    assert next(batches)["i"].to_pylist() == [2, 4, 6, 8, 10]
    batches.close()  # type: ignore[attr-defined] # a generator, which the protocol does not promise
    nothing_is_left(pg)


@pytest.mark.parametrize("engine", ["copy", "adbc"])
@pytest.mark.parametrize(("sslmode", "trust"), [("verify-full", True), ("verify-ca", True), ("require", False)])
def test_each_engine_reads_and_stops_over_tls(
    pg: Postgres, tmp_path: Path, engine: Any, sslmode: str, trust: bool
) -> None:
    if pg.sslmode != "disable":
        pytest.skip("the proxy forwards to a server without TLS")
    certificates = make_certificates(tmp_path, "127.0.0.1" if sslmode == "verify-full" else "db.example.com")
    with tls_proxy(certificates, pg.host, pg.port) as port:
        settings = pg.settings(
            host="127.0.0.1", port=port, sslmode=sslmode, sslrootcert=certificates.ca if trust else None
        )
        batches = PostgresSource(MANY, settings=settings, engine=engine).batches(batch_size=10)
        assert next(batches)["g"].to_pylist() == list(range(1, 11))
        batches.close()  # type: ignore[attr-defined] # a generator, which the protocol does not promise
        nothing_is_left(pg)


def test_adbc_checks_the_certificate_itself(pg: Postgres, tmp_path: Path) -> None:
    """The first connection must not be the only one that knows whom to trust."""
    if pg.sslmode != "disable":
        pytest.skip("the proxy forwards to a server without TLS")
    (tmp_path / "other").mkdir()
    certificates, other = make_certificates(tmp_path, "127.0.0.1"), make_certificates(tmp_path / "other", "127.0.0.1")
    with tls_proxy(certificates, pg.host, pg.port) as port:
        settings = pg.settings(host="127.0.0.1", port=port, sslmode="verify-full", sslrootcert=other.ca)
        with (
            pytest.raises(SourceConnectionError, match="ADBC cannot connect") as caught,
            adbc.open_session(
                settings, resolve(settings), PreparedQuery(parse_query("SELECT 1", {}), {}, []), Transaction()
            ),
        ):
            pass
    assert pg.password not in whole_story(caught.value)


def test_adbc_that_is_not_installed(pg: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "smkit\[adbc\]"'):
        PostgresSource("SELECT 1 AS one", settings=pg.settings(), engine="adbc").read()


def test_secrets_stay_secret_with_adbc(pg: Postgres) -> None:
    source = PostgresSource(
        "SELECT g, (CASE WHEN g < 9 THEN '1' ELSE :key END)::int AS x FROM generate_series(1, 9) g",
        params={"key": SecretStr("hunter2")},
        settings=pg.settings(),
        engine="adbc",
    )
    with pytest.raises(QueryError, match=r'integer: "\*{8}"') as caught:
        source.read()
    assert "hunter2" not in whole_story(caught.value)
    assert pg.password not in whole_story(caught.value)


# --- the thread that reads ahead ---------------------------------------------------------------------------------


def count_up(made: list[int]) -> Iterator[int]:
    for i in range(100):
        made.append(i)
        yield i


def test_prefetch_keeps_order_and_stays_within_its_depth() -> None:
    made: list[int] = []
    ahead: Prefetch[int] = Prefetch(count_up(made), depth=3, interrupt=lambda: None)  # type: ignore[arg-type]
    wait_until(lambda: len(made) == 4)
    time.sleep(0.05)
    assert len(made) == 4
    assert list(ahead) == list(range(100))
    assert list(ahead) == []
    ahead.close()


def test_prefetch_raises_after_the_items_that_came_before() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ConfigError("broken")

    ahead: Prefetch[int] = Prefetch(failing(), depth=3, interrupt=lambda: None)  # type: ignore[arg-type]
    assert next(ahead) == 1
    with pytest.raises(ConfigError, match="broken"):
        next(ahead)
    ahead.close()


def test_prefetch_interrupts_only_what_still_runs() -> None:
    calls: list[str] = []
    closed = threading.Event()

    def waiting() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.set()

    ahead: Prefetch[int] = Prefetch(waiting(), depth=1, interrupt=lambda: calls.append("called"))  # type: ignore[arg-type]
    wait_until(lambda: len(ahead._made) == 1)
    ahead.close()
    assert closed.is_set()
    assert calls == ["called"]
    ahead.close()
    assert calls == ["called"]


def test_prefetch_that_another_thread_closes_is_no_shorter_result() -> None:
    ahead: Prefetch[int] = Prefetch(count_up([]), depth=1, interrupt=lambda: None)  # type: ignore[arg-type]
    assert next(ahead) == 0
    ahead.close()
    with pytest.raises(SourceError, match="ended before the last"):
        next(ahead)


def test_prefetch_closed_by_its_own_thread_does_not_wait_for_itself() -> None:
    """As the garbage collector may do."""
    closed = threading.Event()
    ready = threading.Event()

    def closing_itself() -> Iterator[int]:
        ready.wait()
        ahead.close()
        closed.set()
        yield 1

    ahead: Prefetch[int] = Prefetch(closing_itself(), depth=1, interrupt=lambda: None)  # type: ignore[arg-type]
    ready.set()
    assert closed.wait(10)
    with pytest.raises(SourceError, match="ended before the last"):
        list(ahead)


# --- memory ------------------------------------------------------------------------------------------------------

_READER = """
import resource, sys
import smkit
from pydantic import SecretStr
from smkit.sources import PostgresSource
host, port, database, user, password, sslmode, rows, mode = sys.stdin.read().split("\\0")
settings = smkit.Settings(postgres=smkit.PostgresSettings(
    host=host, port=int(port), database=database, user=user, password=SecretStr(password), sslmode=sslmode))
options = {"engine": mode.removesuffix("-parts")}
if mode.endswith("-parts"):
    # The smaller read, too, has more ranges than what is read ahead.
    from smkit.sources import _postgres_partitions
    _postgres_partitions._RANGE_ROWS = 100_000
    options |= {"partition_on": "g", "partitions": 3}
sql = "SELECT g, g * 0.5::float8 AS x, md5(g::text) AS t, now() AS moment, g % 2 = 0 AS b FROM generate_series(1, :n) g"
read = 0
for batch in PostgresSource(sql, params={"n": int(rows)}, settings=settings, **options).batches():
    read += batch.num_rows
assert read == int(rows)
if sys.platform == "linux":
    # Linux counts the memory of whoever started the program into ru_maxrss.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(status["VmHWM"].split()[0]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_megabytes(pg: Postgres, rows: int, mode: str) -> float:
    values = (pg.host, pg.port, pg.database, pg.user, pg.password, pg.sslmode, rows, mode)
    done = subprocess.run(
        [sys.executable, "-c", _READER],
        input="\0".join(map(str, values)),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / 2**20


#: Forks after the imports, which take most of the time; each child ends as a program does, in the middle of a read.
_ENDERS = """
import atexit, gc, os, sys, threading
import smkit, pandas, pyarrow.csv, adbc_driver_postgresql.dbapi
from pydantic import SecretStr
from smkit.sources import PostgresSource, _postgres_partitions
_postgres_partitions._RANGE_ROWS = 400
host, port, database, user, password, sslmode = sys.stdin.read().split("\\0")
settings = smkit.Settings(postgres=smkit.PostgresSettings(
    host=host, port=int(port), database=database, user=user, password=SecretStr(password), sslmode=sslmode))
MODES = [{}, {"engine": "adbc"}, {"partition_on": "g", "partitions": 3},
         {"engine": "adbc", "partition_on": "g", "partitions": 3}]
CASES = [(mode, end) for mode in (0, 2) for end in ("exit", "raise", "thread", "atexit", "whole")]
CASES += [(1, "exit"), (1, "atexit"), (3, "exit"), (3, "raise")]
running = {}
def wait():
    pid, status = os.wait()
    what, code = running.pop(pid), os.waitstatus_to_exitcode(status)
    print(*what, code, flush=True)
for mode, end in CASES:
    pid = os.fork()
    if pid == 0:
        break
    running[pid] = (mode, end)
    if len(running) == 2:
        wait()
else:
    while running:
        wait()
    sys.exit()
sql = "SELECT g, g * 0.5::float8 AS x, md5(g::text) AS t, now() AS moment FROM generate_series(1, 5000) g"
def batches():
    return PostgresSource(sql, settings=settings, **MODES[mode]).batches(batch_size=500)
if end == "whole":
    rows = sum(batch.num_rows for batch in batches())
    sys.exit(3 if rows == 5000 else 4)
if end == "thread":
    # It is no daemon: the interpreter waits for it, and must not cut its rows short.
    ended = []
    @atexit.register
    def tell():
        os._exit(3 if ended == [5000] else 4)
    def read():
        rows = 0
        for batch in batches():
            threading.main_thread().join()
            rows += batch.num_rows
        ended.append(rows)
    threading.Thread(target=read).start()
if end == "atexit":
    @atexit.register
    def read_late():
        global late
        late = batches()
        next(late)
        assert not [thread for thread in threading.enumerate() if thread.name == "smkit-postgres"]
if end in ("exit", "raise"):
    unclosed = batches()
    next(unclosed)
    if end == "raise":
        sys.stderr = None
        raise ValueError("uncaught")
    sys.exit(3)
"""


def test_programs_that_end_in_the_middle_of_a_read_end_well(pg: Postgres) -> None:
    """A thread that is in C++ while Python ends would abort the process."""
    done = subprocess.run(
        [sys.executable, "-c", _ENDERS],
        input="\0".join(map(str, (pg.host, pg.port, pg.database, pg.user, pg.password, pg.sslmode))),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    expected = {"exit": 3, "raise": 1, "thread": 3, "atexit": 0, "whole": 3}
    ended = [line.split() for line in done.stdout.splitlines()]
    assert len(ended) == 14, done.stderr
    assert [(mode, end, code) for mode, end, code in ended if int(code) != expected[end]] == []
    assert done.stderr == ""
    nothing_is_left(pg)


def test_memory_that_is_parsed_is_arrows_own() -> None:
    """Arrow's threads may let go of it after the reader has returned, where Python may have ended."""
    block = next(_gather(iter([[b"1,2\n"]]), b"0,1\n", 1))
    assert bytes(block) == b"0,1\n1,2\n"
    assert block.is_mutable  # Python's bytes would not be


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "adbc", "copy-parts"])
def test_memory_stays_flat(pg: Postgres, mode: str) -> None:
    """Four times the rows must not take more memory."""
    small, large = peak_megabytes(pg, 1_000_000, mode), peak_megabytes(pg, 4_000_000, mode)
    assert large <= small * 1.1, (small, large)
    assert large <= 300
