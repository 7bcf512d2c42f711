"""A cluster that reads a query gives what a single machine gives, byte for byte, and holds no password."""

from __future__ import annotations

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest
from pydantic import SecretStr

from smkit import Column, Dataset, DatasetBuilder, DatasetStore, PostgresSource, Schema, Settings
from smkit.datasets.cluster.units import divide_source, for_workers
from smkit.datasets.cluster.work import Work
from smkit.datasets.recipe import Recipe
from smkit.errors import ConfigError, EmptyResultError, QueryError, SourceConnectionError
from smkit.sources import _postgres_partitions as partitions
from tests.datasets.clusters import record_tasks, started_cluster, variables_of_workers
from tests.datasets.conftest import files_below
from tests.datasets.test_cluster import BATCH, assert_same, houses, per_area
from tests.sources.test_postgres_connection import sessions, wait_until, whole_story

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import distributed
    import pandas as pd

    from smkit.sources.postgres import Engine
    from tests.fixtures_postgres import Postgres

PASSWORD = "SMKIT_POSTGRES__PASSWORD"
HOUSES = (
    "SELECT CASE WHEN g % 40 > 0 THEN (g * 7919) % 701 END AS key, g % 400 AS id, "
    "CASE WHEN g % 9 > 0 THEN sqrt(g) END AS area, (g * 31) % 8999 + 1 AS price, md5(g::text) AS name FROM {} g"
)


@pytest.fixture(scope="module")
def cluster(pg: Postgres) -> Iterator[distributed.LocalCluster]:
    """Workers that sign in by their own environment; this process has no such variable."""
    with started_cluster({PASSWORD: pg.password}) as started:
        yield started


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_RANGE_ROWS", 150)


@pytest.fixture
def table(pg: Postgres, pg_schema: str) -> str:
    pg.run(f"CREATE TABLE {pg_schema}.houses AS {HOUSES.format('generate_series(1, 1000)')}")
    return f"{pg_schema}.houses"


def source_of(pg: Postgres, sql: str, partitions: int = 3, **options: Any) -> PostgresSource:
    return PostgresSource(sql, settings=pg.settings(), partition_on="key", partitions=partitions, **options)


def everything(builder: DatasetBuilder) -> DatasetBuilder:
    return (
        builder.clean(drop_missing=["area"], drop_duplicates=["id"])
        .map(lambda rows: rows[rows["price"] > 100])
        .map(lambda rows: rows.assign(per_area=rows["price"] / rows["area"]))
        .check(Schema({"id": Column("int32", unique=True), "price": Column("int32", min=0)}))
        .split(test=0.2, validation=0.1)
    )


@pytest.mark.parametrize("engine", ["copy", "adbc"])
def test_the_bytes_of_a_single_machine(
    pg: Postgres, table: str, engine: Engine, roots: tuple[Settings, Settings], client: Any
) -> None:
    digests = set()
    for count in (2, 5):
        source = source_of(pg, f"SELECT * FROM {table} WHERE price > :low", count, engine=engine, params={"low": 9})
        fresh = [settings.model_copy(update={"root": f"{settings.root}-{count}"}) for settings in roots]
        built = assert_same(lambda there, of=source: everything(houses(of)(there)), fresh[0], fresh[1], client)
        assert isinstance(built, Dataset)
        assert built.splits == ("train", "validation", "test")
        digests.add(built.digest)
    assert len(digests) == 1
    wait_until(lambda: sessions(pg) == 0)


@pytest.mark.parametrize("where", ["false", "id = 7 AND price = 218", "key IS NULL", "key = 5"])
def test_few_rows(pg: Postgres, table: str, where: str, roots: tuple[Settings, Settings], client: Any) -> None:
    built = assert_same(houses(source_of(pg, f"SELECT * FROM {table} WHERE {where}")), *roots, client)
    assert isinstance(built, EmptyResultError if where == "false" else Dataset), built


def test_an_error_of_the_server_is_the_same(
    pg: Postgres, table: str, roots: tuple[Settings, Settings], client: Any
) -> None:
    sql = f"SELECT key,\n 1 / (key - 650) AS x FROM {table}"
    assert isinstance(assert_same(houses(source_of(pg, sql)), *roots, client), QueryError)
    broken = assert_same(houses(source_of(pg, f"SELECT key, prcie FROM {table}")), *roots, client)
    assert isinstance(broken, QueryError)
    assert broken.position == 13
    wait_until(lambda: sessions(pg) == 0)


def test_all_workers_see_one_moment(
    pg: Postgres, table: str, roots: tuple[Settings, Settings], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer commits before each range is read."""
    source = source_of(pg, f"SELECT * FROM {table}", 2)
    alone = houses(source)(roots[0]).build(batch_size=BATCH)
    submit, written = Work.submit, []

    def write_first(self: Work, task: Any, *arguments: Any, **options: Any) -> Any:
        if task.__name__ == "read_unit":
            written.append(1)
            pg.run(f"INSERT INTO {table} SELECT * FROM {table} LIMIT 20")
            pg.run(f"UPDATE {table} SET price = price + 1")
        return submit(self, task, *arguments, **options)

    monkeypatch.setattr(Work, "submit", write_first)
    together = houses(source)(roots[1]).build(batch_size=BATCH, client=client)
    assert len(written) == 7
    assert together.manifest.files == alone.manifest.files


def reads_under_way(cluster: Any) -> int:
    tasks = [str(state.key) for worker in cluster.scheduler.workers.values() for state in worker.processing]
    return sum(key.startswith("smkit-read_unit") for key in tasks)


def test_no_more_connections_than_partitions(
    pg: Postgres, table: str, roots: tuple[Settings, Settings], cluster: Any, client: Any
) -> None:
    running: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            running.append(reads_under_way(cluster))

    watching = threading.Thread(target=watch)
    watching.start()
    sql = f"SELECT *, pg_sleep(0.001)::text AS s FROM {table}"
    try:
        houses(source_of(pg, sql, 2))(roots[1]).build(client=client)
    finally:
        done.set()
        watching.join()
    assert max(running) in {1, 2}


@pytest.mark.parametrize("when", ["while reading", "afterwards"])
def test_a_worker_that_is_killed_changes_nothing(
    pg: Postgres, table: str, when: str, roots: tuple[Settings, Settings], cluster: Any, client: Any, tmp_path: Path
) -> None:
    """Its ranges are read again, of the same moment, by another worker."""
    marker = tmp_path / "killed"
    sql = f"SELECT *, pg_sleep(0.002)::text AS s FROM {table}" if when == "while reading" else f"SELECT * FROM {table}"

    def dangerous(rows: pd.DataFrame) -> pd.DataFrame:
        if when == "afterwards" and os.environ.get(PASSWORD) and 600 in set(rows["key"]) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    def make(settings: Settings) -> DatasetBuilder:
        return houses(source_of(pg, sql))(settings).map(dangerous).clean(drop_duplicates=["price"]).split(test=0.2)

    alone = make(roots[0]).build(batch_size=BATCH)
    pids = client.run(os.getpid)

    def kill() -> None:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'smkit' AND wait_event = 'PgSleep'"
        wait_until(lambda: pg.run(busy)[0][0] > 0)
        pg.run(f"DELETE FROM {table} WHERE id % 2 = 0")
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        marker.touch()

    killer = threading.Thread(target=kill)
    if when == "while reading":
        killer.start()
    together = make(roots[1]).build(batch_size=BATCH, client=client)
    if when == "while reading":
        killer.join()
    assert marker.exists()
    assert together.manifest.files == alone.manifest.files
    client.wait_for_workers(2, timeout=30)
    wait_until(lambda: sessions(pg) == 0)


def test_a_snapshot_that_is_gone(
    pg: Postgres, table: str, roots: tuple[Settings, Settings], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, ended = Work.submit, set()

    def end_first(self: Work, task: Any, *arguments: Any, **options: Any) -> Any:
        if task.__name__ == "read_unit" and engine not in ended:
            ended.add(engine)
            pg.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'smkit'")
            wait_until(lambda: sessions(pg) == 0)
        return submit(self, task, *arguments, **options)

    monkeypatch.setattr(Work, "submit", end_first)
    for engine in ("copy", "adbc"):
        with pytest.raises(SourceConnectionError, match=r"the worker on .*: the snapshot .* is gone"):
            houses(source_of(pg, f"SELECT * FROM {table}", engine=engine))(roots[1]).build(client=client)
    assert DatasetStore(roots[1]).names() == []


def test_a_worker_without_a_password(pg: Postgres, table: str, roots: tuple[Settings, Settings], client: Any) -> None:
    build = functools.partial(houses(source_of(pg, f"SELECT * FROM {table}"))(roots[1]).build, client=client)
    with (
        variables_of_workers(client, {PASSWORD: None}),
        pytest.raises(ConfigError, match=r"the worker on .*asks for a password.*in the environment of every wor"),
    ):
        build()
    with (
        variables_of_workers(client, {PASSWORD: "wrong"}),
        pytest.raises(SourceConnectionError, match=r"the worker on .*password authentication failed"),
    ):
        build()
    wait_until(lambda: sessions(pg) == 0)


def test_what_is_sent_holds_no_password(
    pg: Postgres, table: str, roots: tuple[Settings, Settings], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(pg, f"SELECT * FROM {table} WHERE price > :low", params={"low": 1234})
    recipe = Recipe("houses", source, None, source.describe(), (), None, None, "parquet", 10, False)  # type: ignore[arg-type]
    with divide_source(recipe, roots[1]) as division:
        assert len(division.units) > 3
        for pickler in (pickle, cloudpickle):
            sent = pickler.dumps(division.units)
            assert pg.password.encode() not in sent
            assert pg.host.encode() in sent
            assert b"1234" in sent  # an ordinary value travels
    tasks = record_tasks(monkeypatch)
    houses(source)(roots[1]).map(per_area).build(client=client)
    assert sum(b"PostgresShare" in task for task in tasks) == len(division.units)
    assert not [task for task in tasks if pg.password.encode() in task]


@pytest.fixture
def in_secret(pg: Postgres, put_secret: Callable[[str, str], None], request: pytest.FixtureRequest) -> Settings:
    """Settings that find all of the database in a secret of Secrets Manager."""
    fields = {"username": pg.user, "password": pg.password, "host": pg.host, "port": pg.port, "dbname": pg.database}
    put_secret(request.node.name, json.dumps(fields))
    return Settings(postgres={"secret_id": request.node.name, "sslmode": pg.sslmode})


def test_workers_read_the_secret_themselves(
    pg: Postgres,
    table: str,
    in_secret: Settings,
    roots: tuple[Settings, Settings],
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, tasks = str(in_secret.postgres.secret_id), record_tasks(monkeypatch)
    source = PostgresSource(f"SELECT * FROM {table}", settings=in_secret, partition_on="key", partitions=3)
    signed_in = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with variables_of_workers(client, {**signed_in, PASSWORD: None}):
        built = assert_same(houses(source), *roots, client)
    assert isinstance(built, Dataset), built
    shares = [task for task in tasks if b"PostgresShare" in task]
    assert shares
    assert all(name.encode() in task for task in shares)
    assert not [task for task in tasks if pg.password.encode() in task]
    # What this process knows of the secret, the workers do not.
    endpoint = {variable: "http://127.0.0.1:9" for variable in signed_in if "ENDPOINT" in variable}
    assert endpoint
    unreached = {**signed_in, **endpoint, PASSWORD: None, "AWS_MAX_ATTEMPTS": "1"}
    with (
        variables_of_workers(client, unreached),
        pytest.raises(
            SourceConnectionError, match=rf"the worker on .*: the secret '{name}' .* cannot be read"
        ) as caught,
    ):
        houses(source)(roots[1]).build(client=client)
    assert pg.password not in whole_story(caught.value)
    wait_until(lambda: sessions(pg) == 0)


INTERRUPTED = """
import json, sys
import distributed
from smkit import DatasetBuilder, PostgresSource, Settings
address, root, sql, postgres = json.loads(sys.argv[1])
source = PostgresSource(sql, settings=Settings(postgres=postgres), partition_on="key", partitions=2)
with distributed.Client(address, set_as_default=False) as client:
    DatasetBuilder("houses", source, Settings(root=root)).split(test=0.2).build(client=client, progress=False)
"""


def test_ctrl_c_leaves_nothing(
    pg: Postgres, table: str, roots: tuple[Settings, Settings], cluster: Any, client: Any
) -> None:
    sql = f"SELECT *, pg_sleep(0.005)::text AS s FROM {table}"
    reached = pg.settings().postgres.model_dump(mode="json", exclude_unset=True) | {"password": pg.password}
    what = json.dumps([cluster.scheduler_address, str(roots[1].root), sql, reached])
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, what], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: reads_under_way(cluster) > 0 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert pg.password not in errors
    assert DatasetStore(roots[1]).names() == []
    # Workers finish the range that they are at, and begin no other.
    wait_until(lambda: sessions(pg) == 0)
    wait_until(lambda: not [key for key in map(str, cluster.scheduler.tasks) if key.startswith("smkit-")])
    built = assert_same(houses(source_of(pg, f"SELECT * FROM {table}")), *roots, client)
    assert isinstance(built, Dataset), built
    assert built.ref == "houses@1"
    assert [name for name in files_below(Path(roots[1].root)) if "build" in name] == []


def test_a_secret_names_where_the_password_is(pg: Postgres) -> None:
    """The name goes along, and what the secret alone knows stays open."""
    there = for_workers(pg.settings(port=None, secret_id="db/houses"), database=True).postgres
    assert (there.host, there.secret_id, there.password) == (pg.host, "db/houses", None)
    assert "port" not in there.model_fields_set


def test_what_cannot_be_shared_is_refused(pg: Postgres, roots: tuple[Settings, Settings], client: Any) -> None:
    plain = PostgresSource("SELECT 1 AS key", settings=pg.settings())
    with pytest.raises(ConfigError, match=r'cannot be read by a cluster.*Pass partition_on.*partition_on="id"'):
        houses(plain)(roots[1]).build(client=client)
    secret = source_of(pg, "SELECT 1 AS key WHERE 'x' <> :token", params={"token": SecretStr("hunter2")})
    with pytest.raises(ConfigError, match=r"params\['token'\] is a SecretStr.*hold no secrets") as caught:
        houses(secret)(roots[1]).build(client=client)
    assert "hunter2" not in str(caught.value)
    wait_until(lambda: sessions(pg) == 0)
