"""Every type comes out of PostgreSQL as it is, the same with each engine."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

import smkit
from smkit.errors import SourceFormatError
from smkit.sources import PostgresSource
from smkit.sources._postgres_types import UNCONSTRAINED_NUMERIC

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from smkit.sources.postgres import Engine
    from tests.fixtures_postgres import Postgres

UTC = dt.timezone.utc
#: PostgreSQL's timestamp has no time zone.
MICROSECOND = dt.datetime(2024, 1, 1, microsecond=1)  # noqa: DTZ001 - as the type is
FIRST = dt.datetime.min  # noqa: DTZ901 - as the type is
LAST = dt.datetime.max  # noqa: DTZ901 - as the type is
UUID_TEXT = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


ENGINES = ["copy", "adbc"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.param  # type: ignore[no-any-return]


def table(pg: Postgres, engine: Engine, sql: str, **params: Any) -> pa.Table:
    return rows_of(PostgresSource(sql, params=params, settings=pg.settings(), engine=engine))


def rows_of(source: PostgresSource) -> pa.Table:
    batches = list(source.batches())
    return pa.Table.from_batches(batches, schema=None if batches else source.schema())


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
    (
        "date",
        pa.date32(),
        [("2024-02-29", dt.date(2024, 2, 29)), ("9999-12-31", dt.date.max), ("0001-01-01", dt.date.min)],
    ),
    (
        "time",
        pa.time64("us"),
        [("12:34:56.7", dt.time(12, 34, 56, 700000)), ("00:00", dt.time(0)), ("23:59:59.999999", dt.time.max)],
    ),
    (
        "timestamp",
        pa.timestamp("us"),
        [
            ("2024-01-01 00:00:00.000001", MICROSECOND),
            ("9999-12-31 23:59:59.999999", LAST),
            ("0001-01-01", FIRST),
        ],
    ),
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
    ("inet", pa.string(), [("10.0.0.1/8", "10.0.0.1/8"), ("10.0.0.1", "10.0.0.1")]),
    ("timetz", pa.string(), [("12:34:56.7+08", "12:34:56.7+08")]),
    ("money", pa.string(), [("-1.5", "-$1.50")]),
    ('"char"', pa.string(), [("x", "x")]),
    ("bit(3)", pa.string(), [("101", "101")]),
    ("xid", pa.string(), [("7", "7")]),
    ("point", pa.string(), [("(1,2.5)", "(1,2.5)")]),
    ("regclass", pa.string(), [("pg_class", "pg_class")]),
    ("tsvector", pa.string(), [("a b", "'a' 'b'")]),
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


def test_types_are_kept(pg: Postgres, engine: Engine) -> None:
    """One query for all types, a column each: the values, then NULLs down to the length of the longest."""
    columns, joins = [], []
    texts: dict[str, str] = {}
    for i, (pg_type, _, values) in enumerate(TYPES):
        listed = ", ".join(f"({n}, CAST(:x{i}_{n} AS text)::{pg_type})" for n in range(len(values)))
        texts |= {f"x{i}_{n}": text for n, (text, _) in enumerate(values)}
        columns.append(f"c{i}")
        joins.append(f"LEFT JOIN (VALUES {listed}) t{i} (n, c{i}) ON t{i}.n = g")
    longest = max(len(values) for _, _, values in TYPES)
    sql = f"SELECT {', '.join(columns)} FROM generate_series(0, {longest}) g {' '.join(joins)} ORDER BY g"
    read = table(pg, engine, sql, **texts)
    found = {pg_type: (read.schema.types[i], read[i].to_pylist()) for i, (pg_type, _, _) in enumerate(TYPES)}
    assert found == {
        pg_type: (arrow, [value for _, value in values] + [None] * (longest + 1 - len(values)))
        for pg_type, arrow, values in TYPES
    }


def test_a_query_without_rows_has_the_same_types(pg: Postgres, engine: Engine) -> None:
    listed = ", ".join(f"NULL::{pg_type} AS c{i}" for i, (pg_type, _, _) in enumerate(TYPES))
    read = table(pg, engine, f"SELECT {listed} WHERE false")
    assert read.num_rows == 0
    assert read.schema.types == [arrow for _, arrow, _ in TYPES]


def test_nan_is_kept_in_arrow_and_nan_in_pandas(pg: Postgres, engine: Engine) -> None:
    sql = "SELECT x::float8 FROM (VALUES ('NaN'), (NULL), ('1')) v (x)"
    read = table(pg, engine, sql)["x"].to_pylist()
    assert math.isnan(read[0])
    assert read[1:] == [None, 1.0]
    assert PostgresSource(sql, settings=pg.settings(), engine=engine).read()["x"].isna().tolist() == [True, True, False]


def test_big_integers_beside_null_in_pandas(pg: Postgres, engine: Engine) -> None:
    frame = PostgresSource(
        "SELECT x FROM (VALUES (9007199254740993), (NULL)) v (x)", settings=pg.settings(), engine=engine
    ).read()
    assert frame["x"].dtype == pd.Int64Dtype()
    assert frame["x"][0] == 2**53 + 1


def test_enums_domains_and_composites(pg: Postgres, engine: Engine, pg_schema: str) -> None:
    pg.run(f"CREATE TYPE {pg_schema}.mood AS ENUM ('sad', 'ok')")
    pg.run(f"CREATE DOMAIN {pg_schema}.price AS numeric(8,2)")
    sql = f"SELECT 'ok'::{pg_schema}.mood AS m, 1.5::{pg_schema}.price AS p, ROW(1, 'a') AS r"
    assert table(pg, engine, sql).to_pydict() == {"m": ["ok"], "p": [Decimal("1.50")], "r": ["(1,a)"]}
    assert table(pg, engine, sql).schema.field("p").type == pa.decimal128(8, 2)
    bound = table(
        pg, engine, f"SELECT CAST(:m AS {pg_schema}.mood) AS m, CAST(:p AS {pg_schema}.price) AS p", m="sad", p=2
    )
    assert bound.to_pylist() == [{"m": "sad", "p": Decimal("2.00")}]


def test_numeric_with_a_scale_beyond_its_precision(pg: Postgres, engine: Engine) -> None:
    if int(pg.run("SHOW server_version_num")[0][0]) < 150000:
        pytest.skip("PostgreSQL 15 brought it")
    read = table(pg, engine, "SELECT 12345::numeric(3,-2) AS a, 0.0012::numeric(2,4) AS b")
    assert read.to_pydict() == {"a": [Decimal(12300)], "b": [Decimal("0.0012")]}


def test_a_time_zone_of_the_database_changes_no_instant(pg: Postgres, engine: Engine, pg_schema: str) -> None:
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
        [row] = pa.Table.from_batches(PostgresSource(sql, settings=mine, engine=engine).batches()).to_pylist()
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


NUMERICS = ["0.1", "-0", "1e-400", "NaN", "Infinity", "-Infinity", "9007199254740993", "1.7976931348623157e308"]


def test_numeric_as_float(pg: Postgres, engine: Engine) -> None:
    if int(pg.run("SHOW server_version_num")[0][0]) < 140000:
        pytest.skip("PostgreSQL 14 brought infinity")
    for texts in (NUMERICS, [text for text in NUMERICS if "Infinity" not in text]):
        sql = (
            "SELECT x, ARRAY[x, NULL] AS list, 2.50::numeric(80,2) AS wide, ARRAY[0.5]::numeric(3,1)[] AS short, "
            "7 AS n FROM (SELECT CAST(t AS numeric) FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY u (t, i) "
            "ORDER BY i) v (x)"
        )
        params = {"texts": [*texts, None]}
        source = PostgresSource(sql, params=params, settings=pg.settings(), engine=engine, numeric="float")
        read = rows_of(source)
        assert source.schema() == read.schema
        assert read.schema.types == [
            pa.float64(),
            pa.list_(pa.float64()),
            pa.float64(),
            pa.list_(pa.float64()),
            pa.int32(),
        ]
        expected = [float(text) for text in texts]
        np.testing.assert_array_equal(read["x"].to_pylist()[:-1], expected)
        np.testing.assert_array_equal([x[0] for x in read["list"].to_pylist()[:-1]], expected)
        assert read["x"][-1].as_py() is None
        assert read["list"][-1].as_py() == [None, None]
        assert set(read["wide"].to_pylist()) == {2.5}
        assert read["short"].to_pylist() == [[0.5]] * len(params["texts"])


@pytest.mark.parametrize(
    "expression", ["'1e400'::numeric", "'-1e400'::numeric", "ARRAY['Infinity', '1e400']::numeric[]"]
)
def test_a_numeric_beyond_the_floats_is_no_infinity(pg: Postgres, engine: Engine, expression: str) -> None:
    source = PostgresSource(f"SELECT {expression} AS x", settings=pg.settings(), engine=engine, numeric="float")
    with pytest.raises(
        SourceFormatError, match=r"column 'x': PostgreSQL's '.*'.*(beyond the range of a float|counterpart)"
    ):
        source.read()


def test_numerics_become_the_nearest_float(pg: Postgres, engine: Engine) -> None:
    random = np.random.default_rng(7)
    digits = ["".join(map(str, random.integers(0, 10, size))) for size in random.integers(1, 45, 500)]
    texts = [f"-{text}.{text[::-1]}" if i % 2 else f"{text}{'0' * (i % 200)}" for i, text in enumerate(digits)]
    sql = "SELECT CAST(t AS numeric) AS x FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY u (t, i) ORDER BY i"
    options: dict[str, Any] = {"settings": pg.settings(), "engine": engine, "numeric": "float"}
    read = rows_of(PostgresSource(sql, params={"texts": texts}, **options))
    assert read["x"].to_pylist() == [float(text) for text in texts]


ARRAY_TEXTS = [
    ("int4[]", "{1,NULL,-3}"),
    ("int4[]", "{}"),
    ("int4[]", "[0:1]={1,2}"),
    ("int4[]", "{{1,2},{3,NULL}}"),
    ("text[]", r'{a,"NULL",NULL,"","b\"c\\d,{} "}'),
    ("text[]", '{{"a,b"},{"}"}}'),
    ("numeric(6,2)[]", "{1.50,NaN}"),
    ("date[]", "{infinity,2024-01-01}"),
    ("timestamp[]", '{"2024-01-01 00:00:00"}'),
    ("bytea[]", r'{"\\x00ff"}'),
    ("bool[]", "{t,f}"),
    ("float8[]", "{0.1,Infinity}"),
]


def test_arrays_as_text(pg: Postgres, engine: Engine) -> None:
    columns = ", ".join(f"CAST(CAST(:x{i} AS text) AS {name}) AS c{i}" for i, (name, _) in enumerate(ARRAY_TEXTS))
    params = {f"x{i}": text for i, (_, text) in enumerate(ARRAY_TEXTS)}
    sql = f"SELECT {columns}, NULL::int4[] AS missing"
    source = PostgresSource(sql, params=params, settings=pg.settings(), engine=engine, arrays="text")
    read = rows_of(source)
    assert set(read.schema.types) == {pa.string()}
    assert source.schema() == read.schema
    assert list(read.to_pylist()[0].values()) == [*(text for _, text in ARRAY_TEXTS), None]


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
def test_values_without_a_counterpart_name_column_value_and_fix(
    pg: Postgres, engine: Engine, expression: str, message: str
) -> None:
    sql = f"SELECT g, CASE WHEN g = 2 THEN {expression} END AS x FROM generate_series(1, 3) g"
    with pytest.raises(SourceFormatError, match=f"column 'x': PostgreSQL's .*{message}"):
        table(pg, engine, sql)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
LETTERS = st.text("abc \"'\\,{}é", max_size=5)
INT8 = st.integers(-(2**63), 2**63 - 1)
JSON = st.lists(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text("ab", max_size=3), max_size=3)
#: A value of each type of the table in docs/sources.md; what is text here, as psql shows it.
PG_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": INT8,
    "oid": st.integers(0, 2**32 - 1),
    "float8": st.floats(),
    "float4": st.floats(width=32),
    "numeric(20,5)": st.decimals(-(10**14), 10**14, places=5),
    "numeric(38,0)": st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
    "numeric(60,30)": st.decimals(-(10**20), 10**20, places=30),
    "numeric(200,3)": st.integers(1, 9).map(lambda digit: f"{digit}" * 90 + ".125"),
    "numeric": st.decimals(-(10**30), 10**30, places=20),
    "bool": st.booleans(),
    "text": TEXTS,
    "varchar(5)": LETTERS,
    "char(5)": LETTERS.map(lambda text: text.ljust(5)),
    "name": LETTERS,
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "interval": st.sampled_from(["1 mon 2 days 03:00:00", "1 year 2 mons", "3 days", "-04:05:06", "00:00:01.5"]),
    "uuid": st.uuids().map(str),
    "json": JSON.map(json.dumps),
    "jsonb": JSON.map(json.dumps),
    "bytea": st.binary(max_size=20),
    "inet": st.sampled_from(["10.0.0.1", "10.0.0.1/8", "::1"]),
    "mood": st.sampled_from(["sad", "ok", "so-so"]),
    "int4range": st.sampled_from(["[1,5)", "empty", "(,3)"]),
    **{
        f"{name}[]": st.lists(st.none() | values, max_size=3)
        for name, values in {
            "int4": st.integers(-(2**31), 2**31 - 1),
            "int8": INT8,
            "float4": st.floats(width=32),
            "float8": st.floats(),
            "numeric(6,2)": st.decimals(-9999, 9999, places=2),
            "bool": st.booleans(),
            "text": TEXTS,
            "date": st.dates(),
            "time": st.times(),
            "timestamptz": st.datetimes(timezones=st.just(UTC)),
            "bytea": st.binary(max_size=20),
            "uuid": st.uuids().map(str),
        }.items()
    },
}


def literal(value: Any) -> str | None:
    """The text that the server takes for a value, whatever its type."""
    if isinstance(value, list):
        items = [literal(item) for item in value]
        quoted = ['"{}"'.format(re.sub(r'(["\\\\])', r"\\\1", item)) if item is not None else "NULL" for item in items]
        return f"{{{','.join(quoted)}}}"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return None if value is None else str(value)


def comparable(value: Any) -> Any:
    """NaN equals itself, zero has a sign, and a decimal has no scale."""
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return repr(value) if isinstance(value, float) else Fraction(value) if isinstance(value, Decimal) else value


@st.composite
def many_rows(draw: st.DrawFn, columns: Mapping[str, st.SearchStrategy[Any]]) -> dict[str, list[Any]]:
    """Rows of a few values of each type and of NULLs: many rows of values each would take long to draw."""
    pools = {name: draw(st.lists(values, max_size=4), label=name) for name, values in columns.items()}
    random = draw(st.randoms(use_true_random=False))
    rows = draw(st.integers(1, 30))
    return {name: [random.choice([*pool, None]) for _ in range(rows)] for name, pool in pools.items()}


def check_round_trip(
    pg: Postgres, engine: Engine, mood: str, folder: Path, columns: dict[str, list[Any]], **options: Any
) -> None:
    """Server, source, builder, files: the same types and values, also through a map that changes nothing."""
    names = {name: f"c{i}" for i, name in enumerate(columns)}
    casts = [f"CAST({short} AS {name.replace('mood', mood)}) AS {short}" for name, short in names.items()]
    arrays = [f"CAST(:{short} AS text[])" for short in names.values()]
    sql = (
        f"SELECT {', '.join(casts)} FROM unnest({', '.join(arrays)}) WITH ORDINALITY u ({', '.join(names.values())}, n)"
    )
    params = {names[name]: [literal(value) for value in values] for name, values in columns.items()}
    source = PostgresSource(f"{sql} ORDER BY n", params=params, settings=pg.settings(), engine=engine, **options)
    schema = source.schema()
    store = smkit.Settings(root=folder)
    builder = smkit.DatasetBuilder("types", source, store)
    mapped = smkit.DatasetBuilder("mapped", source, store).map(lambda rows: rows)
    for name, one in {"plain": builder, "mapped": mapped}.items():
        read = one.build(batch_size=8).read_arrow()
        assert read.schema == schema
        for pg_type, column in zip(columns, read.columns, strict=True):
            expected = columns[pg_type]
            if name == "mapped":  # pandas has one value for the two
                expected = [None if isinstance(value, float) and math.isnan(value) else value for value in expected]
            assert comparable(column.to_pylist()) == comparable(expected), pg_type


HEALTH = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture
def mood(pg: Postgres, pg_schema: str) -> str:
    pg.run(f"CREATE TYPE {pg_schema}.mood AS ENUM ('sad', 'ok', 'so-so')")
    return f"{pg_schema}.mood"


@pytest.mark.filterwarnings("ignore::smkit.errors.WideDecimalWarning")
@pytest.mark.parametrize("examples", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_datasets_hold_what_the_server_does(
    pg: Postgres, engine: Engine, mood: str, examples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=HEALTH)
    @given(columns=many_rows(PG_VALUES))
    def check(columns: dict[str, list[Any]]) -> None:
        check_round_trip(pg, engine, mood, tmp_path_factory.mktemp("store"), columns)

    check()


@pytest.mark.parametrize("examples", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_datasets_hold_numerics_as_floats(
    pg: Postgres, engine: Engine, examples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    infinite = int(pg.run("SHOW server_version_num")[0][0]) >= 140000
    # A numeric zero has no sign.
    numbers = st.floats(allow_infinity=infinite).map(lambda value: value or 0.0)
    types = {"numeric": numbers, "numeric[]": st.lists(st.none() | numbers, max_size=3)}
    small = {"numeric(9,2)": st.integers(-(10**6), 10**6).map(float), "int4": st.integers(0, 9)}

    @settings(max_examples=examples, deadline=None, suppress_health_check=HEALTH)
    @given(columns=many_rows({**types, **small}))
    def check(columns: dict[str, list[Any]]) -> None:
        check_round_trip(pg, engine, "", tmp_path_factory.mktemp("store"), columns, numeric="float")

    check()


def test_texts_that_a_csv_reader_would_change(pg: Postgres, engine: Engine) -> None:
    """A byte order mark, empty lines, what COPY's own end looks like, quotes, and NULL beside the empty text."""
    texts = ["\ufeffa", None, "", "\\.", "\n", "\r\n", '"', ",", '"",\n', " x ", "NULL", "null", "NA", "\u2028", "\t"]
    sql = "SELECT x FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY u (x, n) ORDER BY n"
    assert table(pg, engine, sql, texts=texts)["x"].to_pylist() == texts
    beside = table(pg, engine, f"SELECT q.x, 1 AS one FROM ({sql}) q", texts=texts)
    assert beside["x"].to_pylist() == texts


def test_columns_of_nothing_but_null(pg: Postgres, engine: Engine) -> None:
    """One column of NULLs is a line of nothing for each row."""
    for type_ in ("int4", "text", "int4[]"):
        read = table(pg, engine, f"SELECT NULL::{type_} AS x FROM generate_series(1, 3)")
        assert read["x"].to_pylist() == [None, None, None]


def test_a_row_of_nulls_is_not_null(pg: Postgres, engine: Engine) -> None:
    assert table(pg, engine, "SELECT ROW(NULL, NULL) AS r")["r"].to_pylist() == ["(,)"]


def test_rows_that_are_larger_than_a_block(pg: Postgres, engine: Engine) -> None:
    sql = "SELECT g AS n, repeat(E'x\\n', g * 5000000) AS t, NULL AS x, decode(repeat('00', 3000000), 'hex') AS b "
    read = table(pg, engine, sql + "FROM generate_series(0, 2) g")
    assert read["t"].to_pylist() == ["", "x\n" * 5_000_000, "x\n" * 10_000_000]
    assert read["b"].to_pylist() == [bytes(3_000_000)] * 3


def test_many_columns_of_names_that_have_to_be_quoted(pg: Postgres, engine: Engine) -> None:
    names = [f'q"{i}, ü' for i in range(500)]
    quoted = ", ".join('{} AS "{}"'.format(i, name.replace('"', '""')) for i, name in enumerate(names))
    assert table(pg, engine, f"SELECT {quoted}").to_pylist() == [dict(zip(names, range(500), strict=True))]


def test_offsets_with_seconds_and_without_in_one_column(pg: Postgres, pg_schema: str, engine: Engine) -> None:
    """Arrow's reader cannot parse the first form; the decoder must take over without changing the others."""
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        pg.run(f"ALTER ROLE {role} SET TimeZone = 'Asia/Shanghai'")
        sql = (
            "SELECT g AS n, g / 4.0::float8 AS f, '' AS e, CASE WHEN g % 2 = 0 THEN timestamptz '1900-06-01 00:00+00' "
            "ELSE timestamptz '2024-01-01 00:00+00' END AS t FROM generate_series(1, 5) g"
        )
        source = PostgresSource(sql, settings=pg.settings(user=role, password=SecretStr("x")), engine=engine)
        read = pa.Table.from_batches(source.batches())
    finally:
        pg.run(f"DROP ROLE {role}")
    old, new = dt.datetime(1900, 6, 1, tzinfo=UTC), dt.datetime(2024, 1, 1, tzinfo=UTC)
    assert read["t"].to_pylist() == [new, old, new, old, new]
    assert read["n"].to_pylist() == [1, 2, 3, 4, 5]
    assert read["f"].to_pylist() == [0.25, 0.5, 0.75, 1.0, 1.25]
    assert read["e"].to_pylist() == [""] * 5


def test_batches_of_any_size_hold_the_same_rows(pg: Postgres, engine: Engine) -> None:
    sql = "SELECT g AS n, md5(g::text) AS t, CASE WHEN g % 7 = 0 THEN g END AS x FROM generate_series(1, 20000) g"
    whole = table(pg, engine, sql)
    for size in (1, 777, 20_000, 99_999):
        rows = 200 if size == 1 else 20_000
        source = PostgresSource(f"{sql} LIMIT {rows}", settings=pg.settings(), engine=engine)
        batches = list(source.batches(batch_size=size))
        assert [batch.num_rows for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert pa.Table.from_batches(batches).equals(whole.slice(0, rows))
