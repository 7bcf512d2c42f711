"""PostgresSource against a real server: types, parameters, what the server rejects, memory."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import uuid
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from smkit.errors import ConfigError, QueryError
from smkit.sources import PostgresSource
from smkit.sources._postgres_connect import connect, resolve
from smkit.sources._postgres_session import Transaction, begin, prepare
from smkit.sources._postgres_sql import parse_query
from smkit.sources._postgres_types import TypeChoices

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


def test_one_parameter_in_many_places_has_one_type(pg: Postgres) -> None:
    sql = "SELECT g FROM generate_series(1, 9) g WHERE g = :n AND concat(:n) = '7' LIMIT :n"
    assert table(pg, sql, n="007").to_pylist() == [{"g": 7}]


def test_parameters_stand_where_an_expression_can(pg: Postgres) -> None:
    sql = (
        "SELECT (:items)[2] AS item, date_trunc(:unit, moment) AS month, sum(n) FILTER (WHERE n > :low) AS s "
        "FROM (VALUES (timestamp '2024-02-03', 1), (timestamp '2024-02-04', 2)) v (moment, n) "
        "WHERE moment >= :since::timestamp AND n BETWEEN SYMMETRIC :high AND :low + 1 AND CAST(n AS text) ~ :pattern "
        "GROUP BY date_trunc(:unit, moment) OFFSET :skip FETCH FIRST :rows ROWS ONLY; -- done;"
    )
    params = {"unit": "month", "low": 0, "since": "2024-01-01", "high": 9, "pattern": "^[12]$", "skip": 0, "rows": 5}
    read = table(pg, sql.replace("(:items)", "(CAST(:items AS text[]))"), items=["a", ";b'"], **params)
    assert read.to_pylist() == [{"item": ";b'", "month": dt.datetime(2024, 2, 1), "s": 3}]  # noqa: DTZ001 - timestamp


def test_a_parameter_names_no_column(pg: Postgres) -> None:
    """A literal with a cast would be a column named like its type, for which ORDER BY would take it."""
    sql = "SELECT CAST(:label AS varchar), text AS x FROM (VALUES ('b'), ('a')) v (text) ORDER BY text"
    assert table(pg, sql, label="same")["x"].to_pylist() == ["a", "b"]
    sql = "SELECT :label, text AS x FROM (VALUES ('b'), ('a')) v (text) ORDER BY text"
    assert table(pg, sql, label="same").to_pylist() == [{"?column?": "same", "x": x} for x in "ab"]


def test_parameters_meet_an_index(pg: Postgres, pg_schema: str) -> None:
    """The planner must see values, as with bound parameters, not calls of functions."""
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT g AS id FROM generate_series(1, 1000) g")
    pg.run(f"CREATE FUNCTION {pg_schema}.plan(q text) RETURNS SETOF text LANGUAGE plpgsql AS "
           "$$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || q; END $$")  # fmt: skip
    with closing(connect(pg.settings(), resolve(pg.settings()))) as connection:
        params = {"ids": [3, 5], "low": 2}
        query = parse_query(f"SELECT id FROM {pg_schema}.t WHERE id = ANY(:ids) AND id > :low", params)
        begin(connection, Transaction(), query, params)
        text = prepare(connection, query, params, TypeChoices()).query.statement
    plan = table(pg, f"SELECT p FROM {pg_schema}.plan(:q) p", q=text)["p"].to_pylist()
    assert any("""id > 2""" in line and """'{3,5}'::integer[]""" in line for line in plan), plan


@pytest.mark.parametrize(
    ("column", "of_row", "value"),
    [
        ("int2", "g % 30000", 7),
        ("int4", "g", 2**40),
        ("int8", "g", 7),
        ("float8", "g", 7),
        ("float8", "g", 7.5),
        ("numeric", "g", 7),
        ("numeric", "g", 0.1),
        ("numeric", "g", Decimal("7.1")),
        ("text", "g", "7"),
        ("varchar(9)", "g", "7"),
        ("date", "DATE '2000-01-01' + g", dt.date(2001, 1, 1)),
        ("date", "DATE '2000-01-01' + g", dt.datetime(2001, 1, 1, 5)),  # noqa: DTZ001 - a timestamp
        ("timestamp", "TIMESTAMP '2000-01-01' + g * INTERVAL '1 s'", dt.datetime(2001, 1, 1)),  # noqa: DTZ001 - a timestamp
        ("timestamptz", "TIMESTAMP '2000-01-01' + g * INTERVAL '1 s'", dt.datetime(2001, 1, 1, tzinfo=UTC)),
        ("time", "TIME '00:00' + g * INTERVAL '1 s'", dt.time(5)),
        ("uuid", "md5(g::text)", uuid.UUID(UUID_TEXT)),
        ("bytea", "decode(md5(g::text), 'hex')", b"x"),
    ],
)
def test_a_parameter_of_any_type_meets_the_index(
    pg: Postgres, pg_schema: str, column: str, of_row: str, value: Any
) -> None:
    """A comparison that converts the column, not the parameter, would read the whole table."""
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT CAST({of_row} AS {column}) AS x FROM generate_series(1, 20000) g")
    pg.run(f"CREATE INDEX ON {pg_schema}.t (x)")
    pg.run(f"ANALYZE {pg_schema}.t")
    with closing(connect(pg.settings(), resolve(pg.settings()))) as connection:
        params = {"x": value}
        query = parse_query(f"SELECT x FROM {pg_schema}.t WHERE x = :x", params)
        begin(connection, Transaction(), query, params)
        text = prepare(connection, query, params, TypeChoices()).query.statement
    plan = "\n".join(row[0] for row in pg.run(f"EXPLAIN {text}"))
    assert "Index Cond: " in plan, plan


def test_a_number_beside_a_text_is_no_guess(pg: Postgres, pg_schema: str) -> None:
    pg.run(f"CREATE TABLE {pg_schema}.t AS SELECT '07' AS zip")
    sql = f"SELECT zip FROM {pg_schema}.t WHERE zip = :zip"
    with pytest.raises(QueryError, match="operator does not exist: text = integer"):
        table(pg, sql, zip=7)
    assert table(pg, sql, zip="07")["zip"].to_pylist() == ["07"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.sampled_from("\\'\"$:;E-/*{},ü\n \ufeff%")), min_size=2, max_size=4))
def test_no_text_escapes_from_its_literal(pg: Postgres, texts: list[str]) -> None:
    read = table(pg, "SELECT CAST(:a AS text) AS a, CAST(:b AS text[]) AS b -- :c", a=texts[0], b=texts)
    assert read.to_pylist() == [{"a": texts[0], "b": texts}]


def test_no_text_escapes_where_backslashes_do(pg: Postgres, pg_schema: str) -> None:
    """With standard_conforming_strings off, a backslash in an ordinary literal would escape the quote behind it."""
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        pg.run(f"ALTER ROLE {role} SET standard_conforming_strings = off")
        pg.run(f"ALTER ROLE {role} SET backslash_quote = on")
        mine = pg.settings(user=role, password=SecretStr("x"))
        for attack in ("\\' OR true --", "\\", "'\\''; SELECT 1 --", "\\\\'"):
            source = PostgresSource("SELECT CAST(:v AS text) AS v", params={"v": attack}, settings=mine)
            assert source.read()["v"].tolist() == [attack]
    finally:
        pg.run(f"DROP ROLE {role}")


#: Encodings whose second byte may be that of a backslash or of a letter.
@pytest.mark.parametrize("encoding", ["GBK", "SJIS", "BIG5"])
def test_no_text_escapes_from_an_encoding(pg: Postgres, pg_schema: str, encoding: str) -> None:
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        pg.run(f"ALTER ROLE {role} SET client_encoding = '{encoding}'")
        mine = pg.settings(user=role, password=SecretStr("x"))
        for attack in ("\u8a98' OR true --", "\u8868\\", "\u00bf\\' --", "北京'"):
            for engine in ("copy", "adbc"):
                params = {"v": attack, "s": SecretStr(attack)}
                sql = "SELECT CAST(:v AS text) AS v, CAST(:s AS text) AS s"
                source = PostgresSource(sql, params=params, settings=mine, engine=engine)  # type: ignore[arg-type]
                assert source.read().to_dict("list") == {"v": [attack], "s": [attack]}
    finally:
        pg.run(f"DROP ROLE {role}")


def test_a_very_long_value(pg: Postgres) -> None:
    text = "'\\\"北" * 300_000
    assert table(pg, "SELECT CAST(:v AS text) AS v", v=text)["v"].to_pylist() == [text]


def test_a_domain_checks_its_values(pg: Postgres, pg_schema: str) -> None:
    pg.run(f'CREATE DOMAIN {pg_schema}."od\'d; ""x" AS text CHECK (VALUE <> \'bad\')')
    sql = f'SELECT CAST(:v AS {pg_schema}."od\'d; ""x") AS v'
    assert table(pg, sql, v="'; --")["v"].to_pylist() == ["'; --"]
    assert rejection(pg, sql, v="bad").sqlstate == "23514"


@pytest.mark.parametrize("mode", ["copy", "adbc", "parts"])
def test_functions_and_types_in_the_way(pg: Postgres, pg_schema: str, mode: str) -> None:
    """What stands before pg_catalog in the search_path must not be what is called with values."""
    role = f"smkit_{pg_schema}"
    pg.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    trap = "RETURNS text LANGUAGE sql AS $$ SELECT 'trapped'::pg_catalog.text $$"
    try:
        statements = [
            f"GRANT USAGE ON SCHEMA {pg_schema} TO {role}",
            f"ALTER ROLE {role} SET search_path = {pg_schema}, pg_catalog",
            *(
                f"CREATE FUNCTION {pg_schema}.{signature} {trap}"
                for signature in (
                    "quote_nullable(text)",
                    "format_type(oid, int)",
                    "format(text, text, text)",
                    "format(text, text)",
                    "set_config(text, text, bool)",
                    "current_setting(text)",
                    "pg_export_snapshot()",
                    "row_number()",
                    "mod(int8, int8)",
                    "pg_backend_pid()",
                )
            ),
            # ADBC itself stumbles over these, when it connects.
            *(
                f"CREATE DOMAIN {pg_schema}.{name} AS pg_catalog.bool"
                for name in ("text", "oid", "float8", "int4")
                if mode != "adbc"
            ),
        ]
        pg.run("; ".join(statements))
        options: dict[str, Any] = {"partition_on": "v", "partitions": 2} if mode == "parts" else {"engine": mode}
        source = PostgresSource(
            "SELECT v, n FROM (VALUES ('x'::pg_catalog.text, 1.5), ('y', 2.5)) t (v, n) WHERE v <> :v AND v <> :s",
            params={"v": "'", "s": SecretStr("z")},
            settings=pg.settings(user=role, password=SecretStr("x")),
            **options,
        )
        assert sorted(source.read()["v"]) == ["x", "y"]
    finally:
        pg.run(f"DROP OWNED BY {role}")
        pg.run(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"x": "\udc80"}, r"params\['x'\] holds a lone surrogate"),
        ({"x": ["a", "\udc80"]}, r"params\['x'\] holds a lone surrogate"),
        ({"x": {"a": SecretStr("hunter2")}}, r"params\['x'\] is a dict, but cannot be written as JSON"),
    ],
)
def test_values_that_cannot_be_written(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        PostgresSource("SELECT :x", params=params)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("mode", ["copy", "adbc", "parts", "adbc-parts"])
def test_secrets_are_in_no_statement(pg: Postgres, mode: str) -> None:
    """Other sessions of the same role, and the server's log, see the text of statements."""
    options: dict[str, Any] = {"engine": mode.removesuffix("-parts")} if mode != "parts" else {}
    if "parts" in mode:
        options |= {"partition_on": "g", "partitions": 2}
    secrets = ["it's hunter2 \\", ""]
    source = PostgresSource(
        "SELECT g, :key AS key, CAST(:list AS text[]) AS list, (SELECT max(query) FROM pg_stat_activity "
        "WHERE application_name = 'smkit' AND query LIKE '%hunter' || '2%') AS seen FROM generate_series(1, 4) g "
        "WHERE CAST(:key AS text) = :key",
        params={"key": SecretStr(secrets[0]), "list": [SecretStr(secret) for secret in secrets]},
        settings=pg.settings(),
        **options,
    )
    rows = pa.Table.from_batches(source.batches()).to_pylist()
    assert sorted(row["g"] for row in rows) == [1, 2, 3, 4]
    assert all(row == row | {"key": secrets[0], "list": secrets, "seen": None} for row in rows)


@pytest.mark.parametrize(
    ("type_", "secret", "shown"),
    [
        ("json", "hunter two", "hunter"),
        ("int4[]", 'hun"ter\\2', "hun"),
        ("date", "hunter2", "hunter"),
        ("timestamp", "hunter2", "hunter"),
    ],
)
def test_parts_of_secrets_are_masked(pg: Postgres, type_: str, secret: str, shown: str) -> None:
    assert "********" in str(rejection(pg, f"SELECT CAST(:v AS {type_}) AS v", v=SecretStr(secret)))
    for value in (SecretStr(secret), [SecretStr(secret)]):
        assert shown not in str(rejection(pg, f"SELECT CAST(:v AS {type_}) AS v", v=value))


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
    assert rejection(pg, f"WITH d AS (DELETE FROM {pg_schema}.t RETURNING x) SELECT x FROM d").sqlstate == "25006"
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


def test_a_parameter_of_the_wrong_form_is_pointed_at(pg: Postgres) -> None:
    error = rejection(pg, "SELECT 1 AS one WHERE CAST(:d AS date) > now()", d="tomorrows")
    assert error.sqlstate == "22007"
    lines = str(error).splitlines()
    assert lines[1][lines[2].index("^") :].startswith(":d")


@pytest.mark.parametrize(
    "sql", ["SELECT 1) TO PROGRAM 'true'; --", "SELECT 1) TO STDOUT (FORMAT text", "SELECT 1 AS a\n)"]
)
def test_a_query_does_not_leave_its_parentheses(pg: Postgres, sql: str) -> None:
    assert rejection(pg, sql).sqlstate == "42601"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "abdc"}, "engine is 'abdc'.*did you mean 'adbc'"),
        ({"engine": None}, "engine is None"),
        ({"numeric": "double"}, "numeric is 'double', but must be one of 'decimal', 'float'"),
        ({"arrays": "lists"}, "arrays is 'lists'.*did you mean 'list'"),
        ({"partitions": 4}, "the two go together"),
        ({"partition_on": "id"}, "the two go together"),
        ({"partition_on": "id", "partitions": 1}, "integer from 2 to 64"),
        ({"partition_on": "id", "partitions": True}, "integer from 2 to 64"),
        ({"partition_on": 3, "partitions": 4}, "must be the name"),
        ({"statement_timeout": 0}, "statement_timeout is 0"),
        ({"statement_timeout": True}, "statement_timeout is True"),
        ({"statement_timeout": math.inf}, "statement_timeout is inf"),
        ({"statement_timeout": 3e6}, "2147483.647 at most"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PostgresSource("SELECT 1", **options)


# --- lineage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("interval", np.timedelta64(5_000_000_000, "ns"), "00:00:05"),
        ("interval", np.timedelta64(90, "m"), "01:30:00"),
        ("interval", pd.Timedelta("1 day 00:00:01.5"), "1 day 00:00:01.5"),
        ("interval[]", np.array([1_000_000_000, 2_000_000_000], "m8[ns]"), "{00:00:01,00:00:02}"),
        ("timestamp", np.datetime64("2020-01-01T00:00:00.000001000", "ns"), "2020-01-01 00:00:00.000001"),
        ("timestamp", pd.Timestamp("2020-01-01 12:00"), "2020-01-01 12:00:00"),
        ("timestamp[]", np.array(["2020-01-01", "NaT"], "M8[ns]"), '{"2020-01-01 00:00:00",NULL}'),
        ("timestamp[]", pd.Series(pd.to_datetime(["2020-01-01"])), '{"2020-01-01 00:00:00"}'),
        ("date", np.datetime64("2020-02-01"), "2020-02-01"),
        ("date", np.datetime64("2020-02"), "2020-02-01"),
        ("timestamp", pd.NaT, None),
        ("timestamp", np.datetime64("NaT", "ns"), None),
        ("int8", pd.NA, None),
        ("bytea", memoryview(b"\x00\xff"), "\\x00ff"),
    ],
)
def test_values_of_numpy_and_pandas_say_what_they_said(
    pg: Postgres, type_: str, value: Any, expected: str | None
) -> None:
    sql = f"SELECT (:p)::{type_}::text AS a"
    frame = PostgresSource(sql, params={"p": value}, settings=pg.settings()).read()
    assert [None if pd.isna(one) else one for one in frame["a"]] == [expected]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.timedelta64(1, "ns"), "would round to microseconds.*timedelta64"),
        (np.array([1, 1000], "M8[ns]"), "would round to microseconds.*datetime64"),
        (pd.Timestamp("2020-01-01 00:00:00.000000001"), "would round to microseconds"),
        (pd.Timedelta(1, "ns"), "would round to microseconds"),
        (np.timedelta64(2, "M"), "no fixed length of time"),
    ],
)
def test_what_postgres_would_round_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PostgresSource("SELECT :p", params={"p": value})


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
        "numeric": "decimal",
        "arrays": "list",
    }
    json.dumps(described, allow_nan=False)


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


@pytest.mark.parametrize(
    ("sql", "value", "expected"),
    [
        ("SELECT DATE '2020-01-01' < :p AS a", dt.datetime(2020, 1, 1, 23), True),  # noqa: DTZ001 - a timestamp
        (
            "SELECT TIMESTAMP '2020-01-01 00:00' AT TIME ZONE current_setting('TimeZone') = :p AS a",
            dt.datetime(2020, 1, 1, 5, tzinfo=dt.timezone(dt.timedelta(hours=5))),
            True,
        ),
        ("SELECT pg_typeof(TIMESTAMP '2020-01-01' - :p)::text AS a", dt.datetime(2020, 1, 1), "interval"),  # noqa: DTZ001 - a timestamp
        ("SELECT pg_typeof(:p - INTERVAL '1 day')::text AS a", dt.date(2020, 1, 2), "timestamp without time zone"),
        ("SELECT pg_typeof(:p)::text AS a", dt.time(1, 2), "time without time zone"),
        ("SELECT substring('abcdef' from :p) AS a", 2, "bcdef"),
        ("SELECT :p AS a", 5, 5),
        ("SELECT :p AS a", np.int32(5), 5),
        ("SELECT :p AS a", 2**40, 2**40),
        ("SELECT pg_typeof(:p)::text AS a", 2**70, "numeric"),
        ("SELECT :p AS a", True, True),
        ("SELECT :p AS a", b"\x00a", b"\x00a"),
        # Beside a numeric, a float is a numeric: as float8, 0.1 would be another number.
        ("SELECT 0.1::numeric = :p AS a", 0.1, True),
        ("SELECT 7::int2 = :p AS a", 7, True),
        ("SELECT 7.5::float8 > :p AS a", 7, True),
        ("SELECT 3 = ANY(:p) AS a", [1, 3], True),
        ("SELECT DATE '2020-01-01' = ANY(:p) AS a", [dt.datetime(2020, 1, 1, 23)], False),  # noqa: DTZ001 - a timestamp
        (
            "SELECT pg_typeof(:p)::text AS a",
            [dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)],
            "timestamp with time zone[]",
        ),
        ("SELECT '05'::text = ANY(:p) AS a", ["05"], True),
        ("SELECT CAST(:p AS date) = DATE '2020-01-01' AS a", dt.datetime(2020, 1, 1, 23), True),  # noqa: DTZ001 - a timestamp
    ],
)
def test_a_parameter_means_its_own_type(pg: Postgres, sql: str, value: Any, expected: Any) -> None:
    frame = PostgresSource(sql, params={"p": value}, settings=pg.settings()).read()
    assert frame["a"].tolist() == [expected]
    assert type(frame["a"].tolist()[0]) is type(expected)
