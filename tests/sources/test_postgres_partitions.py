"""Reads over several connections: every row once, of one moment, in the order of the column."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from smkit.errors import ConfigError, QueryError
from smkit.sources import PostgresSource
from smkit.sources import _postgres_partitions as partitions
from smkit.sources._postgres_prefetch import Prefetch
from tests.sources.test_postgres_connection import wait_until
from tests.sources.test_postgres_streams import nothing_is_left

if TYPE_CHECKING:
    from smkit.sources.postgres import Engine
    from tests.fixtures_postgres import Postgres


@pytest.fixture(params=["copy", "adbc"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_RANGE_ROWS", 20)


def rows_of(batches: Any) -> list[tuple[Any, ...]]:
    return [tuple(map(repr, row.values())) for batch in batches for row in batch.to_pylist()]


ORDERABLE = {
    "int8": "(g * 3)::int8",
    "float8": "CASE g % 10 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-0.0' ELSE sqrt(g) END::float8",
    "numeric": "g / 7.0",
    "text": r"chr(945 + g % 20) || '''\' || g",
    "char(4)": "(g % 50)::text::char(4)",
    "timestamptz": "timestamptz '2024-01-01 00:00+05' + g * interval '1 hour'",
    "interval": "g * interval '1 hour'",
    "uuid": "md5(g::text)::uuid",
    "bool": "g % 3 = 0",
    "bytea": "decode(md5(g::text), 'hex')",
    "int4[]": "ARRAY[g % 5, g]",
    "one value": "42",
    "inet": "'10.0.0.0'::inet + g",
}


@pytest.mark.parametrize("expression", ORDERABLE.values(), ids=ORDERABLE)
def test_every_row_is_read_once(pg: Postgres, expression: str) -> None:
    sql = (
        f'SELECT g AS n, CASE WHEN g % 9 > 0 THEN {expression} END AS "a ""key" '
        "FROM generate_series(1, 500) g WHERE g <= :n"
    )
    whole = PostgresSource(sql, params={"n": 450}, settings=pg.settings())
    parts = PostgresSource(sql, params={"n": 450}, settings=pg.settings(), partition_on='a "key', partitions=3)
    read = rows_of(parts.batches(batch_size=64))
    assert len(read) == 450
    assert Counter(read) == Counter(rows_of(whole.batches()))


@pytest.mark.parametrize("rows", [262_144, 9_000, 13])
@pytest.mark.parametrize("count", [2, 5])
def test_rows_come_in_the_order_of_the_column(
    pg: Postgres, pg_schema: str, engine: Engine, count: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reads them, over however many connections: NULLs, then the values."""
    monkeypatch.setattr(partitions, "_RANGE_ROWS", rows)
    pg.run(
        f"CREATE TABLE {pg_schema}.t AS SELECT CASE WHEN g % 1000 > 0 THEN ((g * 7919) % 100003)::numeric END AS k, "
        f"repeat('x', g % 50) AS t FROM generate_series(1, 40000) g"
    )
    sql = f"SELECT k, t FROM {pg_schema}.t"
    source = PostgresSource(sql, settings=pg.settings(), partition_on="k", partitions=count, engine=engine)
    first, second = (pa.Table.from_batches(source.batches(batch_size=7000)) for _ in range(2))
    assert first.equals(second)
    whole = pa.Table.from_batches(PostgresSource(f"{sql} ORDER BY k NULLS FIRST, t", settings=pg.settings()).batches())
    # Of rows with the same value the server decides, so those without one may be anywhere among themselves.
    assert first["k"].equals(whole["k"])
    assert first["t"].slice(40).equals(whole["t"].slice(40))
    assert sorted(first["t"].to_pylist()) == sorted(whole["t"].to_pylist())
    nothing_is_left(pg)


def test_equal_values_come_in_the_same_order_over_any_number_of_connections(pg: Postgres, pg_schema: str) -> None:
    """The table is larger than what scans of PostgreSQL share: one would begin where another is."""
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT g, g % 3 AS k, repeat('x', 900) t FROM generate_series(1, 20000) g")
    sql = f"SELECT g, k FROM {pg_schema}.t"
    read = [
        pa.Table.from_batches(
            PostgresSource(sql, settings=pg.settings(), partition_on="k", partitions=count).batches(batch_size=500)
        )
        for count in (2, 3, 3, 7)
    ]
    assert all(one.equals(read[0]) for one in read[1:])


def test_ranges_grow_where_there_would_be_too_many(pg: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    find_ranges = partitions.find_ranges

    def find_and_count(*args: Any) -> Any:
        ranges = find_ranges(*args)
        found.append(len(ranges))
        return ranges

    monkeypatch.setattr(partitions, "find_ranges", find_and_count)
    monkeypatch.setattr(partitions, "_MOST_RANGES", 4)
    for rows in (10, 79, 80, 99, 1000):
        source = PostgresSource(
            f"SELECT g FROM generate_series(1, {rows}) g", settings=pg.settings(), partition_on="g", partitions=3
        )
        assert list(source.read()["g"]) == list(range(1, rows + 1))
    assert found == [1, 4, 3, 3, 4]


def test_rows_that_wait_for_their_turn_are_limited(
    pg: Postgres, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes rows: what the connections read ahead stays below the limit, but for a batch of each."""
    monkeypatch.setattr(partitions, "_RANGE_ROWS", 20_000)
    monkeypatch.setattr(partitions, "_AHEAD_BYTES", 6 << 20)
    waiting: list[Prefetch[Any]] = []

    class Watched(Prefetch[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            waiting.append(self)

    monkeypatch.setattr(partitions, "Prefetch", Watched)
    source = PostgresSource(
        "SELECT g, repeat('x', 1000) AS t FROM generate_series(1, 100000) g",
        settings=pg.settings(),
        partition_on="g",
        partitions=3,
        engine=engine,
    )
    batches = source.batches(batch_size=100)
    next(batches)

    def sizes() -> list[int]:
        return [sum(0 if one is None else one.nbytes for one in list(ahead._made)) for ahead in waiting]

    wait_until(lambda: all(size >= 2 << 20 for size in sizes()), sizes)
    time.sleep(0.3)
    assert all(size < 8 << 20 for size in sizes()), sizes()
    batches.close()  # type: ignore[attr-defined] # a generator, which the protocol does not promise
    nothing_is_left(pg)


def test_an_order_that_the_search_path_does_not_know(pg: Postgres, pg_schema: str) -> None:
    """The type's own order is not that of `<` where its operators are elsewhere: the ranges must still be disjoint."""
    name = f"{pg_schema}.backwards"
    statements = [f"CREATE TYPE {name} AS (t text)"]
    for i, (symbol, operator) in enumerate({"<": ">", "<=": ">=", "=": "=", ">=": "<=", ">": "<"}.items()):
        statements += [
            (
                f"CREATE FUNCTION {pg_schema}.f{i}({name}, {name}) RETURNS bool IMMUTABLE LANGUAGE sql "
                f"AS $$ SELECT ($1).t {operator} ($2).t $$"
            ),
            f"CREATE OPERATOR {pg_schema}.{symbol} (LEFTARG={name}, RIGHTARG={name}, FUNCTION={pg_schema}.f{i})",
        ]
    operators = ", ".join(
        f"OPERATOR {i} {pg_schema}.{symbol}" for i, symbol in enumerate(("<", "<=", "=", ">=", ">"), 1)
    )
    statements += [
        (
            f"CREATE FUNCTION {pg_schema}.compare({name}, {name}) RETURNS int IMMUTABLE LANGUAGE sql "
            f"AS $$ SELECT CASE WHEN ($1).t = ($2).t THEN 0 WHEN ($1).t > ($2).t THEN -1 ELSE 1 END $$"
        ),
        (
            f"CREATE OPERATOR CLASS {pg_schema}.backwards_ops DEFAULT FOR TYPE {name} USING btree AS {operators}, "
            f"FUNCTION 1 {pg_schema}.compare({name}, {name})"
        ),
    ]
    pg.run("; ".join(statements))
    sql = f"SELECT ROW(g::text)::{name} AS k, g FROM generate_series(1, 40) g"
    source = PostgresSource(sql, settings=pg.settings(), partition_on="k", partitions=3)
    assert sorted(source.read()["g"]) == list(range(1, 41))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.lists(st.none() | st.integers(-3, 3), max_size=30), count=st.integers(2, 4))
def test_any_distribution_of_keys(pg: Postgres, keys: list[int | None], count: int) -> None:
    sql = "SELECT k, n FROM unnest(CAST(:keys AS int4[])) WITH ORDINALITY u (k, n)"
    source = PostgresSource(sql, params={"keys": keys}, settings=pg.settings(), partition_on="k", partitions=count)
    read = [(row["k"], row["n"]) for batch in source.batches() for row in batch.to_pylist()]
    assert sorted(read, key=lambda row: row[1]) == [(key, n) for n, key in enumerate(keys, 1)]


def test_all_parts_see_one_moment(
    pg: Postgres, pg_schema: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer commits before each part is opened."""
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT g AS id, 0 AS generation FROM generate_series(1, 300) g")
    opened = 0

    def write_first(open_part: Any) -> Any:
        def wrapper(*args: Any) -> Any:
            nonlocal opened
            opened += 1
            pg.run(f"UPDATE {pg_schema}.t SET generation = generation + 1")
            pg.run(f"INSERT INTO {pg_schema}.t SELECT g, 99 FROM generate_series(1, 300) g")
            return open_part(*args)

        return wrapper

    monkeypatch.setattr(partitions.Readers, "open", write_first(partitions.Readers.open))
    source = PostgresSource(
        f"SELECT * FROM {pg_schema}.t", settings=pg.settings(), partition_on="id", partitions=3, engine=engine
    )
    frame = source.read()
    assert opened == 3
    assert sorted(frame["id"]) == list(range(1, 301))
    assert set(frame["generation"]) == {0}


def test_a_failure_in_one_part_ends_the_others(pg: Postgres, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_RANGE_ROWS", 30_000)
    sql = "SELECT g AS k, 1 / (g - 190000) AS x, repeat('x', 500) AS t FROM generate_series(1, 200000) g"
    source = PostgresSource(sql, settings=pg.settings(), partition_on="k", partitions=3, engine=engine)
    with pytest.raises(QueryError, match="division by zero"):
        for _ in source.batches():
            pass
    nothing_is_left(pg)


def test_a_connection_too_many_ends_the_others(pg: Postgres, pg_schema: str) -> None:
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 3")
    try:
        source = PostgresSource(
            "SELECT g AS k FROM generate_series(1, 100) g",
            settings=pg.settings(user=role, password=SecretStr("x")),
            partition_on="k",
            partitions=5,
        )
        with pytest.raises(ConnectionError, match="too many connections"):
            source.read()
        nothing_is_left(pg)
    finally:
        pg.run(f"DROP ROLE {role}")


def test_a_column_that_the_query_does_not_have(pg: Postgres) -> None:
    source = PostgresSource("SELECT 1 AS a, 2 AS b", settings=pg.settings(), partition_on="c", partitions=2)
    with pytest.raises(ConfigError, match="partition_on is 'c', but the query's columns are 'a', 'b'"):
        source.schema()


def test_a_column_without_an_order(pg: Postgres) -> None:
    source = PostgresSource("SELECT '{}'::json AS j", settings=pg.settings(), partition_on="j", partitions=2)
    with pytest.raises(QueryError, match="json"):
        source.schema()


def test_no_rows_at_all(pg: Postgres, engine: Engine) -> None:
    source = PostgresSource(
        "SELECT 1 AS k WHERE false", settings=pg.settings(), partition_on="k", partitions=4, engine=engine
    )
    assert list(source.batches()) == []
    assert source.read().shape == (0, 1)


def test_a_slow_reader_is_no_forgotten_transaction(pg: Postgres, pg_schema: str, engine: Engine) -> None:
    """A connection that has read ahead idles in its transaction until rows are taken."""
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    pg.run(f"ALTER ROLE {role} SET idle_in_transaction_session_timeout = '100ms'")
    try:
        source = PostgresSource(
            "SELECT g FROM generate_series(1, 1000) g",
            settings=pg.settings(user=role, password=SecretStr("x")),
            partition_on="g",
            partitions=2,
            engine=engine,
        )
        read = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(partitions, "_AHEAD_BYTES", 64)
            for number, batch in enumerate(source.batches(batch_size=100)):
                read += batch.num_rows
                time.sleep(0.6 if number == 2 else 0)
        assert read == 1000
    finally:
        pg.run(f"DROP ROLE {role}")
