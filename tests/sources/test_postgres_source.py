"""PostgresSource against a real server: types, parameters, what the server rejects, memory."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import tracemalloc
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from smkit.errors import ConfigError, QueryError, SourceFormatError
from smkit.sources import PostgresSource
from smkit.sources._postgres_types import UNCONSTRAINED_NUMERIC

if TYPE_CHECKING:
    from tests.fixtures_postgres import Postgres

UTC = dt.timezone.utc
#: PostgreSQL's timestamp has no time zone.
MICROSECOND = dt.datetime(2024, 1, 1, microsecond=1)  # noqa: DTZ001 - as the type is
UUID_TEXT = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
#: Texts that a sloppy encoder of arrays would change.
TRICKY = ["null", "NULL", None, 'q"\\', "", "a,b", "{}", " x "]


def table(pg: Postgres, sql: str, **params: Any) -> pa.Table:
    source = PostgresSource(sql, params=params, settings=pg.settings())
    batches = list(source.batches())
    return pa.Table.from_batches(batches, schema=source.schema())


# --- types -------------------------------------------------------------------------------------------------------

TYPES: list[tuple[str, pa.DataType, list[tuple[str, Any]]]] = [
    ("int2", pa.int16(), [("-32768", -32768), ("32767", 32767)]),
    ("int4", pa.int32(), [("-2147483648", -(2**31))]),
    ("int8", pa.int64(), [("9007199254740993", 2**53 + 1), ("-9223372036854775808", -(2**63))]),
    ("oid", pa.int64(), [("4294967295", 2**32 - 1)]),
    ("float4", pa.float32(), [("0.1", np.float32(0.1)), ("-Infinity", -math.inf)]),
    ("float8", pa.float64(), [("0.1", 0.1), ("1e-320", 1e-320), ("Infinity", math.inf)]),
    ("numeric(10,2)", pa.decimal128(10, 2), [("12345678.90", Decimal("12345678.90")), ("-0.01", Decimal("-0.01"))]),
    ("numeric(38,0)", pa.decimal128(38, 0), [("9" * 38, Decimal("9" * 38))]),
    ("numeric(60,30)", pa.decimal256(60, 30), [("1." + "3" * 30, Decimal("1." + "3" * 30))]),
    ("numeric(200,3)", pa.string(), [("9" * 100, "9" * 100 + ".000")]),
    ("numeric", UNCONSTRAINED_NUMERIC, [("0.1", Decimal("0.1")), ("9" * 38, Decimal("9" * 38))]),
    ("bool", pa.bool_(), [("true", True), ("false", False)]),
    ("text", pa.string(), [("", ""), ("北京\t\n\\N 'q\"", "北京\t\n\\N 'q\""), ("NULL", "NULL")]),
    ("varchar(5)", pa.string(), [("abc", "abc")]),
    ("char(5)", pa.string(), [("abc", "abc  ")]),
    ("name", pa.string(), [("abc", "abc")]),
    ("date", pa.date32(), [("2024-02-29", dt.date(2024, 2, 29)), ("9999-12-31", dt.date.max)]),
    ("time", pa.time64("us"), [("12:34:56.7", dt.time(12, 34, 56, 700000)), ("00:00", dt.time(0))]),
    ("timestamp", pa.timestamp("us"), [("2024-01-01 00:00:00.000001", MICROSECOND)]),
    (
        "timestamptz",
        pa.timestamp("us", "UTC"),
        [
            ("2024-01-01 08:00+08", dt.datetime(2024, 1, 1, tzinfo=UTC)),
            ("1900-01-01 00:00:00.5+00", dt.datetime(1900, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)),
        ],
    ),
    ("interval", pa.string(), [("1 mon 2 days 03:00", "1 mon 2 days 03:00:00")]),
    ("uuid", pa.string(), [(UUID_TEXT.upper(), UUID_TEXT)]),
    ("json", pa.string(), [('{"a":  1}', '{"a":  1}')]),
    ("jsonb", pa.string(), [('{"a":  1}', '{"a": 1}')]),
    ("bytea", pa.binary(), [(r"\x00ff", b"\x00\xff"), ("", b"")]),
    ("inet", pa.string(), [("10.0.0.1/8", "10.0.0.1/8")]),
    ("int4range", pa.string(), [("[1,5)", "[1,5)")]),
    ("int4[]", pa.list_(pa.int32()), [("{1,NULL,-3}", [1, None, -3]), ("{}", []), ("[0:1]={1,2}", [1, 2])]),
    ("int8[]", pa.list_(pa.int64()), [("{9007199254740993}", [2**53 + 1])]),
    ("float8[]", pa.list_(pa.float64()), [("{1.5,Infinity}", [1.5, math.inf])]),
    ("bool[]", pa.list_(pa.bool_()), [("{t,f,NULL}", [True, False, None])]),
    ("numeric(6,2)[]", pa.list_(pa.decimal128(6, 2)), [("{1.5,NULL}", [Decimal("1.50"), None])]),
    ("text[]", pa.list_(pa.string()), [(r'{a,"NULL",NULL,"","b\"c\\d,{}"}', ["a", "NULL", None, "", 'b"c\\d,{}'])]),
    ("date[]", pa.list_(pa.date32()), [("{2024-01-01}", [dt.date(2024, 1, 1)])]),
    (
        "timestamptz[]",
        pa.list_(pa.timestamp("us", "UTC")),
        [('{"2024-01-01 00:00+00"}', [dt.datetime(2024, 1, 1, tzinfo=UTC)])],
    ),
    ("bytea[]", pa.list_(pa.binary()), [(r'{"\\x00ff"}', [b"\x00\xff"])]),
    ("uuid[]", pa.list_(pa.string()), [(f"{{{UUID_TEXT}}}", [UUID_TEXT])]),
]  # fmt: skip


@pytest.mark.parametrize(("pg_type", "arrow", "values"), TYPES, ids=[name for name, _, _ in TYPES])
def test_types_are_kept(pg: Postgres, pg_schema: str, pg_type: str, arrow: pa.DataType, values: list[Any]) -> None:
    pg.run(f"CREATE TABLE {pg_schema}.t (n int4, x {pg_type})")
    for n, (text, _) in enumerate([*values, (None, None)]):
        pg.run(f"INSERT INTO {pg_schema}.t VALUES (:n, CAST(:x AS text)::{pg_type})", n=n, x=text)
    read = table(pg, f"SELECT x FROM {pg_schema}.t ORDER BY n")
    assert read.schema == pa.schema([("x", arrow)])
    assert read["x"].to_pylist() == [*(value for _, value in values), None]
    empty = table(pg, f"SELECT x FROM {pg_schema}.t WHERE false")
    assert empty.schema == read.schema
    assert empty.num_rows == 0


def test_nan_is_kept_in_arrow_and_nan_in_pandas(pg: Postgres) -> None:
    sql = "SELECT x::float8 FROM (VALUES ('NaN'), (NULL), ('1')) v (x)"
    read = table(pg, sql)["x"].to_pylist()
    assert math.isnan(read[0])
    assert read[1:] == [None, 1.0]
    assert PostgresSource(sql, settings=pg.settings()).read()["x"].isna().tolist() == [True, True, False]


def test_big_integers_beside_null_in_pandas(pg: Postgres) -> None:
    frame = PostgresSource("SELECT x FROM (VALUES (9007199254740993), (NULL)) v (x)", settings=pg.settings()).read()
    assert frame["x"].dtype == pd.Int64Dtype()
    assert frame["x"][0] == 2**53 + 1


def test_enums_domains_and_composites(pg: Postgres, pg_schema: str) -> None:
    pg.run(f"CREATE TYPE {pg_schema}.mood AS ENUM ('sad', 'ok')")
    pg.run(f"CREATE DOMAIN {pg_schema}.price AS numeric(8,2)")
    sql = f"SELECT 'ok'::{pg_schema}.mood AS m, 1.5::{pg_schema}.price AS p, ROW(1, 'a') AS r"
    assert table(pg, sql).to_pydict() == {"m": ["ok"], "p": [Decimal("1.50")], "r": ["(1,a)"]}
    assert table(pg, sql).schema.field("p").type == pa.decimal128(8, 2)


def test_numeric_with_a_scale_beyond_its_precision(pg: Postgres) -> None:
    if int(pg.run("SHOW server_version_num")[0][0]) < 150000:
        pytest.skip("PostgreSQL 15 brought it")
    read = table(pg, "SELECT 12345::numeric(3,-2) AS a, 0.0012::numeric(2,4) AS b")
    assert read.to_pydict() == {"a": [Decimal(12300)], "b": [Decimal("0.0012")]}


def test_a_time_zone_of_the_database_changes_no_instant(pg: Postgres, pg_schema: str) -> None:
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        for name, value in {
            "TimeZone": "Asia/Shanghai",
            "DateStyle": "German",
            "IntervalStyle": "sql_standard",
            "bytea_output": "escape",
            "extra_float_digits": "-5",
        }.items():
            pg.run(f"ALTER ROLE {role} SET {name} = '{value}'")
        sql = (
            "SELECT timestamptz '1900-06-01 00:00+00' AS old, timestamptz '2024-01-01 00:00:00.25+00' AS new, "
            "date '2024-01-02' AS d, (timestamptz '2024-01-01 20:00+00')::date AS local, "
            r"'\x00'::bytea AS b, 0.1::float8 AS f, interval '1 day' AS i"
        )
        mine = pg.settings(user=role, password=SecretStr("x"))
        [row] = pa.Table.from_batches(PostgresSource(sql, settings=mine).batches()).to_pylist()
    finally:
        pg.run(f"DROP ROLE {role}")
    assert row == {
        "old": dt.datetime(1900, 6, 1, tzinfo=UTC),
        "new": dt.datetime(2024, 1, 1, 0, 0, 0, 250000, tzinfo=UTC),
        "d": dt.date(2024, 1, 2),
        "local": dt.date(2024, 1, 2),  # what the query means is the database's business
        "b": b"\x00",
        "f": 0.1,
        "i": "1 day",
    }


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("date 'infinity'", r"'infinity' is no date32.*NULLIF\(.*'infinity'"),
        ("timestamp '-infinity'", r"'-infinity' is no timestamp\[us\].*NULLIF"),
        ("timestamptz 'infinity'", "'infinity' is no timestamp"),
        ("date '0044-03-15 BC'", "only the years 1 to 9999"),
        ("timestamp '10000-01-01'", "only the years 1 to 9999"),
        ("timestamptz '10000-01-01 00:00+00'", "only the years 1 to 9999"),
        ("time '24:00'", "times here end at"),
        ("'NaN'::numeric", r"'NaN' is no decimal256.*NULLIF\(\"x\", 'NaN'\), or \"x\"::float8"),
        ("CAST('NaN' AS numeric(5,2))", "'NaN' is no decimal"),
        ("10^60::numeric", r"is no decimal256.*\"x\"::float8"),
        ("1e-50::numeric", r"is no decimal256.*round\(\"x\""),
        ("'{{1,2},{3,4}}'::int4[]", "only arrays of one dimension"),
        ("'{infinity}'::date[]", "array_to_json"),
    ],
)
def test_values_without_a_counterpart_name_column_value_and_fix(pg: Postgres, expression: str, message: str) -> None:
    sql = f"SELECT g, CASE WHEN g = 2 THEN {expression} END AS x FROM generate_series(1, 3) g"
    with pytest.raises(SourceFormatError, match=f"column 'x': PostgreSQL's .*{message}"):
        table(pg, sql)


PG_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "float8": st.floats(allow_nan=False),
    "float4": st.floats(allow_nan=False, width=32),
    "numeric(20,5)": st.decimals(-(10**14), 10**14, places=5),
    "numeric": st.decimals(-(10**30), 10**30, places=20),
    "bool": st.booleans(),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "bytea": st.binary(),
    "text[]": st.lists(st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"))),
    "int8[]": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    "float8[]": st.lists(st.none() | st.floats(allow_nan=False)),
    "date[]": st.lists(st.none() | st.dates()),
    "bytea[]": st.lists(st.none() | st.binary()),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_comes_back_as_it_was_bound(pg: Postgres, data: st.DataObject) -> None:
    row = {f"c{i}": data.draw(st.none() | values, label=name) for i, (name, values) in enumerate(PG_VALUES.items())}
    sql = "SELECT " + ", ".join(f"CAST(:c{i} AS {name}) AS c{i}" for i, name in enumerate(PG_VALUES))
    [read] = table(pg, sql, **row).to_pylist()
    assert read == row


# --- parameters --------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("text", "'; DROP TABLE houses; --", "'; DROP TABLE houses; --"),
        ("text", ":other $1 %s %(x)s {}", ":other $1 %s %(x)s {}"),
        ("text", "", ""),
        ("text", None, None),
        ("text", SecretStr("hidden"), "hidden"),
        ("text", Colour.RED, "red"),
        ("int8", np.int64(2**53 + 1), 2**53 + 1),
        ("bool", np.bool_(True), True),
        ("float8", np.float64(1.5), 1.5),
        ("timestamptz", pd.Timestamp("2024-01-01 08:00", tz="Asia/Shanghai"), dt.datetime(2024, 1, 1, tzinfo=UTC)),
        ("interval", dt.timedelta(days=1, seconds=2, microseconds=3), "1 day 00:00:02.000003"),
        ("interval", dt.timedelta(seconds=-1), "-1 days +23:59:59"),
        ("uuid", uuid.UUID(int=1), str(uuid.UUID(int=1))),
        ("jsonb", {"a": [1, None]}, '{"a": [1, null]}'),
        ("text[]", TRICKY, TRICKY),
        ("int4[]", (1, 2), [1, 2]),
        ("int8[]", np.array([1, 2]), [1, 2]),
    ],
)  # fmt: skip
def test_parameters_are_bound_as_values(pg: Postgres, type_: str, value: Any, expected: Any) -> None:
    assert table(pg, f"SELECT CAST(:v AS {type_}) AS v", v=value)["v"].to_pylist() == [expected]


@pytest.mark.parametrize(
    "attack", ["x'; DELETE FROM {s}.t; --", "x' OR '1'='1", "\\'; DELETE FROM {s}.t; --", "x\0' OR 1=1"]
)
def test_injection_finds_nothing_and_changes_nothing(pg: Postgres, pg_schema: str, attack: str) -> None:
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT 'x' AS v")
    sql = f"SELECT v FROM {pg_schema}.t WHERE v = :v"
    params = {"v": attack.format(s=pg_schema)}
    if "\0" in attack:
        with pytest.raises(QueryError, match="invalid byte sequence"):
            table(pg, sql, **params)
    else:
        assert table(pg, sql, **params).num_rows == 0
    assert table(pg, sql, v="x").num_rows == 1


def test_a_list_of_values(pg: Postgres) -> None:
    sql = "SELECT g FROM generate_series(1, 10) g WHERE g = ANY(:ids) ORDER BY g"
    assert table(pg, sql, ids=[3, 5, 99])["g"].to_pylist() == [3, 5]


def test_a_parameter_of_unknown_type_is_called_by_its_name(pg: Postgres) -> None:
    with pytest.raises(QueryError, match=r"parameter :since \[42P18\]\nhint: .*CAST\(:name AS date\)"):
        table(pg, "SELECT 1 AS one WHERE :since IS NULL", since=None)


def test_values_without_an_sql_type_are_refused_when_the_source_is_made() -> None:
    with pytest.raises(ConfigError, match=r"params\['x'\] is a object"):
        PostgresSource("SELECT :x", params={"x": object()})
    with pytest.raises(ConfigError, match="must be a dict"):
        PostgresSource("SELECT :x", params=[1])  # type: ignore[arg-type]


def test_later_changes_of_params_do_not_reach_the_source(pg: Postgres) -> None:
    params: dict[str, Any] = {"ids": [1, 2]}
    source = PostgresSource("SELECT unnest(CAST(:ids AS int4[])) AS x", params=params, settings=pg.settings())
    params["ids"].append(3)
    assert source.read()["x"].tolist() == [1, 2]


# --- what the server rejects -------------------------------------------------------------------------------------


def rejection(pg: Postgres, sql: str, **params: Any) -> QueryError:
    with pytest.raises(QueryError) as caught:
        table(pg, sql, **params)
    assert caught.value.__cause__ is None
    return caught.value


def test_an_error_points_into_the_users_own_sql(pg: Postgres) -> None:
    sql = (
        "SELECT a, b FROM\n  (SELECT 1 AS a, :long_name::int AS b, ':x' AS é) q\n\tWHERE é <> :y AND prcie > :long_name"
    )
    error = rejection(pg, sql, long_name=1, y="z")
    assert error.sqlstate == "42703"
    assert error.position is not None
    assert sql[error.position - 1 :].startswith("prcie")
    lines = str(error).splitlines()
    assert lines[1] == "line 3: \tWHERE é <> :y AND prcie > :long_name"
    assert lines[2].index("^") == lines[1].index("prcie")
    assert lines[2][8] == "\t"


def test_an_error_in_a_very_long_line_shows_the_place(pg: Postgres) -> None:
    sql = "SELECT " + ", ".join(f"{i} AS c{i}" for i in range(200)) + ", nope, " + ", ".join("1" * 300)
    lines = str(rejection(pg, sql)).splitlines()
    assert len(lines[1]) < 120
    assert lines[1][lines[2].index("^") :].startswith("nope")


def test_an_error_at_the_end(pg: Postgres) -> None:
    lines = str(rejection(pg, "SELECT (1 + ")).splitlines()
    assert lines[1:3] == ["line 1: SELECT (1 + ", " " * len("line 1: SELECT (1 + ") + "^"]


def test_the_servers_hint_is_passed_on(pg: Postgres, pg_schema: str) -> None:
    pg.run(f"CREATE TABLE {pg_schema}.t (price int4)")
    assert 'hint: Perhaps you meant to reference the column "t.price"' in str(
        rejection(pg, f"SELECT prices FROM {pg_schema}.t")
    )


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO {s}.t VALUES (2)",
        "-- why\n/* not */ UPDATE {s}.t SET x = 2",
        "DELETE FROM {s}.t",
        "EXPLAIN SELECT 1",
        "SET x = 1",
        "SELECT 1; DELETE FROM {s}.t",
    ],
)
def test_only_queries_are_read(pg: Postgres, pg_schema: str, sql: str) -> None:
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT 1 AS x")
    assert "only SELECT, VALUES, TABLE and WITH ... SELECT can be read" in str(rejection(pg, sql.format(s=pg_schema)))
    assert pg.run(f"SELECT x FROM {pg_schema}.t") == [[1]]


def test_queries_that_would_write_are_rejected(pg: Postgres, pg_schema: str) -> None:
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT 1 AS x")
    pg.run(f"CREATE SEQUENCE {pg_schema}.s")
    assert rejection(pg, f"WITH d AS (DELETE FROM {pg_schema}.t RETURNING x) SELECT x FROM d").sqlstate == "0A000"
    error = rejection(pg, f"SELECT nextval('{pg_schema}.s')")
    assert error.sqlstate == "25006"
    assert "hint: sources read in a read-only transaction" in str(error)
    assert pg.run(f"SELECT x FROM {pg_schema}.t") == [[1]]


@pytest.mark.parametrize(
    "sql", ["SELECT 1 AS x;", "VALUES (1)", "WITH w AS (SELECT 1 AS x) SELECT x FROM w", "(SELECT 1 AS x) -- end"]
)
def test_all_forms_of_queries_are_read(pg: Postgres, sql: str) -> None:
    assert table(pg, sql).num_rows == 1


def test_an_error_in_a_later_row(pg: Postgres) -> None:
    batches = PostgresSource("SELECT 1/(g-50) AS x FROM generate_series(1, 99) g", settings=pg.settings()).batches(
        batch_size=10
    )
    assert next(batches).num_rows == 10
    with pytest.raises(QueryError, match=r"division by zero \[22012\]"):
        list(batches)


@pytest.mark.parametrize("sql", ["SELECT 1 AS a, 2 AS a", "SELECT 1, 2"])
def test_columns_need_names_of_their_own(pg: Postgres, sql: str) -> None:
    assert "more than one column named" in str(rejection(pg, sql))
    assert "AS" in str(rejection(pg, sql))


def test_a_query_without_columns(pg: Postgres) -> None:
    assert "no columns" in str(rejection(pg, "SELECT"))


def test_secret_parameters_are_masked_everywhere(pg: Postgres) -> None:
    secret = "hunter2-is-no-date"
    params = {"d": SecretStr(secret), "more": [SecretStr(secret)]}
    sql = "SELECT CAST(:d AS date) AS d, CAST(:more AS text[]) AS m"
    source = PostgresSource(sql, params=params, settings=pg.settings())
    with pytest.raises(QueryError, match=r'invalid input syntax for type date: "\*{8}"') as caught:
        source.read()
    assert secret not in str(caught.value) + json.dumps(source.describe()) + repr(source)


# --- lineage and memory ------------------------------------------------------------------------------------------


def test_describe_needs_no_server(pg: Postgres) -> None:
    params = {
        "since": dt.date(2024, 1, 1),
        "rate": Decimal("1.5"),
        "nan": float("nan"),
        "ids": (1, np.int64(2)),
        "key": SecretStr("s"),
        "blob": b"\xff",
    }
    sql = "SELECT :since, :rate, :nan, :ids, :key, :blob"
    described = PostgresSource(sql, params=params, settings=pg.settings(host="db.invalid", port=1)).describe()
    assert described == {
        "type": "postgres",
        "host": "db.invalid",
        "port": 1,
        "database": pg.database,
        "secret_id": None,
        "sql": sql,
        "params": {
            "since": "2024-01-01",
            "rate": "1.5",
            "nan": "nan",
            "ids": [1, 2],
            "key": "********",
            "blob": "\\xff",
        },
    }
    json.dumps(described, allow_nan=False)


def test_memory_stays_flat(pg: Postgres) -> None:
    """Four times the rows must not take more memory."""

    def peak(rows: int) -> int:
        sql = "SELECT g, repeat(md5(g::text), 4) AS t FROM generate_series(1, :rows) g"
        pa.default_memory_pool().release_unused()
        tracemalloc.start()
        arrow = 0
        for batch in PostgresSource(sql, params={"rows": rows}, settings=pg.settings()).batches(batch_size=5000):
            arrow = max(arrow, pa.total_allocated_bytes())
            del batch
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return python + arrow

    peak(6000)  # imports and caches
    assert peak(80_000) < peak(20_000) * 1.2


def test_rows_come_from_a_server_side_cursor(pg: Postgres) -> None:
    """The first rows of an endless query must not wait for the last."""
    batches = PostgresSource(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i % 2 = 0",
        settings=pg.settings(),
    ).batches(batch_size=5)
    assert next(batches)["i"].to_pylist() == [2, 4, 6, 8, 10]
    batches.close()  # type: ignore[attr-defined] # a generator, which the protocol does not promise


def test_text_of_a_database_in_another_encoding(pg: Postgres, pg_schema: str) -> None:
    name = f"latin_{pg_schema}"
    pg.run(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        source = PostgresSource("SELECT 'é' || chr(233) AS x", settings=pg.settings(database=name))
        assert source.read()["x"].tolist() == ["éé"]
    finally:
        pg.run(f"DROP DATABASE {name}")


def test_text_that_is_no_utf8_in_a_database_that_does_not_check(pg: Postgres, pg_schema: str) -> None:
    name = f"ascii_{pg_schema}"
    pg.run(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        source = PostgresSource(r"SELECT E'\xe9' AS x", settings=pg.settings(database=name))
        with pytest.raises(QueryError, match=r"0xe9 \[22021\]\nhint: .*::bytea"):
            source.read()
        readable = r"SELECT E'\xe9'::bytea AS x"
        assert PostgresSource(readable, settings=pg.settings(database=name)).read()["x"].tolist() == [b"\xe9"]
    finally:
        pg.run(f"DROP DATABASE {name}")
