"""Schemas: every violation of every row is found once, counted, and shown with its row."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit import Column, DatasetBuilder, Schema, Settings
from smkit.datasets.checking import SchemaCheck
from smkit.datasets.schema import Violation
from smkit.errors import ConfigError, SchemaViolationError
from tests.datasets.conftest import TableSource, wall

D = decimal.Decimal
UTC = dt.timezone.utc
SHANGHAI = dt.timezone(dt.timedelta(hours=8))


def violations(column: Column | dict[str, Column], *tables: Any, strict: bool = False) -> list[str]:
    """What is broken, in words; a table may be given as the array of its only column, `x`."""
    schema = Schema({"x": column} if isinstance(column, Column) else column, strict=strict)
    check = SchemaCheck(schema)
    for table in tables:
        check.feed(table if isinstance(table, pa.Table) else pa.table({"x": table}))
    return [str(violation) for violation in check.violations]


def broken_rows(column: Column, array: pa.Array) -> list[int]:
    check = SchemaCheck(Schema({"x": column}))
    check.feed(pa.table({"x": array}))
    return sorted({row for violation in check.violations for row, _ in violation.samples})


TYPES: list[tuple[pa.DataType, set[str]]] = [
    (pa.int8(), {"int8", "int", "number"}),
    (pa.int64(), {"int64", "int", "number"}),
    (pa.uint16(), {"uint16", "int", "number"}),
    (pa.float32(), {"float32", "float", "number"}),
    (pa.float64(), {"float64", "float", "number"}),
    (pa.bool_(), {"bool"}),
    (pa.string(), {"string"}),
    (pa.large_string(), {"string"}),
    (pa.binary(), {"binary"}),
    (pa.date32(), {"date"}),
    (pa.timestamp("ns"), {"datetime"}),
    (pa.timestamp("us", "UTC"), {"datetime"}),
    (pa.time64("us"), {"time"}),
    (pa.decimal128(10, 2), {"decimal", "number"}),
    (pa.list_(pa.int64()), set()),
]
DTYPES = sorted(set().union(*(names for _, names in TYPES)))


@pytest.mark.parametrize(("kind", "names"), TYPES, ids=[str(kind) for kind, _ in TYPES])
def test_each_type_has_its_names(kind: pa.DataType, names: set[str]) -> None:
    assert {name for name in DTYPES if Column(name).accepts(kind)} == names
    assert Column().accepts(kind)
    wrong = next(name for name in DTYPES if name not in names)
    assert violations(Column(wrong, nullable=True), pa.array([None], kind)) == [f"x: has type {kind}, expected {wrong}"]


def test_all_violations_come_at_once_with_counts_and_rows(settings: Settings) -> None:
    table = pa.table(
        {
            "id": [1, 2, 2, 4, 4, 4],
            "price": [1.0, -1.0, None, float("nan"), -2.0, 900.0],
            "city": ["a", "b", "c", "d", "a", "e"],
            "extra": [0] * 6,
            "rooms": ["1"] * 6,
        }
    )
    schema = Schema(
        {
            "id": Column("int64", unique=True),
            "price": Column("float64", min=0, max=100),
            "city": Column("string", allowed=["a", "b"]),
            "rooms": Column("int"),
            "sold": Column("date"),
        },
        strict=True,
    )
    source = TableSource(table)
    with pytest.raises(SchemaViolationError) as caught:
        DatasetBuilder("houses", source, settings).check(schema).build(batch_size=2)
    assert str(caught.value).splitlines() == [
        "dataset 'houses' was not built: the rows break 8 rules of its schema",
        "  - extra: is not in the schema, which is strict",
        "  - price: is less than 0: 2 rows (1: -1.0, 4: -2.0)",
        "  - sold: is missing; there are id, price, city, extra, rooms",
        "  - id: repeats an earlier value, and the column is unique: 3 rows (2: 2, 4: 4, 5: 4)",
        "  - price: is missing, and the column is not nullable: 2 rows (2: None, 3: nan)",
        "  - city: is not one of ['a', 'b']: 3 rows (2: 'c', 3: 'd', 5: 'e')",
        "  - price: is greater than 100: 1 row (5: 900.0)",
        "  - rooms: has type string, expected int",
    ]
    first = caught.value.violations[1]
    assert isinstance(first, Violation)
    assert (first.column, first.count, first.samples) == ("price", 2, [(1, -1.0), (4, -2.0)])
    assert source.closed == source.opened == 1


@given(st.lists(st.integers(-3, 3) | st.none(), max_size=40), st.integers(1, 41))
def test_counts_and_rows_do_not_depend_on_batches(values: list[int | None], batch_size: int) -> None:
    array = pa.array(values, pa.int64())
    column = Column("int64", min=-2, max=2, allowed=[-1, 0, 1, 3], unique=True)
    batches = [array.slice(start, batch_size) for start in range(0, len(array), batch_size)]
    assert sorted(violations(column, *batches)) == sorted(violations(column, array)) or not values
    check = SchemaCheck(Schema({"x": column}))
    for batch in batches:
        check.feed(pa.table({"x": batch}))
    found = {violation.rule.split(",")[0]: violation for violation in check.violations}
    expected = {
        "is missing": [row for row, value in enumerate(values) if value is None],
        "is less than -2": [row for row, value in enumerate(values) if value is not None and value < -2],
        "is greater than 2": [row for row, value in enumerate(values) if value is not None and value > 2],
        "is not one of [-1": [row for row, value in enumerate(values) if value in (-3, -2, 2)],
        "repeats an earlier value": [
            row for row, value in enumerate(values) if value is not None and value in values[:row]
        ],
    }
    assert set(found) == {rule for rule, rows in expected.items() if rows}
    for rule, violation in found.items():
        assert violation.count == len(expected[rule])
        assert violation.samples == [(row, values[row]) for row in expected[rule][:5]]


BOUNDS: list[tuple[pa.Array, Any, list[int], list[int]]] = [
    # column, bound, rows below, rows above
    (pa.array([1, 2, 3]), 2, [0], [2]),
    (pa.array([1, 2, 3]), 2.5, [0, 1], [2]),
    (pa.array([1, 2, 3]), D("2"), [0], [2]),
    (pa.array([1, 2, 3]), np.int16(2), [0], [2]),
    (pa.array([2**53, 2**53 + 1, 2**53 + 2]), 2**53 + 1, [0], [2]),
    (pa.array([2**53 + 1]), 0.5, [], [0]),
    (pa.array([-(2**63), 2**63 - 1]), 0, [0], [1]),
    (pa.array([0, 2**64 - 1], pa.uint64()), -1, [], [0, 1]),
    (pa.array([0, 2**64 - 1], pa.uint64()), 2**64 - 1, [0], []),
    (pa.array([1, 127], pa.int8()), 300, [0, 1], []),
    (pa.array([1, 127], pa.int8()), -300, [], [0, 1]),
    (pa.array([1, 2]), math.inf, [0, 1], []),
    (pa.array([1, 2]), -math.inf, [], [0, 1]),
    (pa.array([0.5, 1.5, float("inf"), float("-inf")]), 1, [0, 3], [1, 2]),
    (pa.array([0.5, 1.5], pa.float32()), 1.0, [0], [1]),
    (pa.array([0.1, 0.2]), D("0.1"), [], [1]),
    (pa.array([D("0.10"), D("0.20")]), 0.1, [], [1]),
    (pa.array([D("0.10"), D("0.20")]), D("0.1000001"), [0], [1]),
    (pa.array([D("-5"), D("5")], pa.decimal128(38, 0)), 0, [0], [1]),
    (pa.array([D("1.5")]), math.inf, [0], []),
    (pa.array(["a", "b", "ä"]), "b", [0], [2]),
    (pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)]), dt.date(2026, 1, 2), [0], []),
    (pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)]), "2026-01-01", [], [1]),
    (pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)]), wall(2026, 1, 1, 12), [0], [1]),
    (pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)], pa.date64()), "2026-01-01", [], [1]),
    (pa.array([wall(2026, 1, 1), wall(2026, 1, 2)], pa.timestamp("s")), dt.date(2026, 1, 2), [0], []),
    (pa.array([0, 1], pa.int64()).cast(pa.timestamp("ns")), pd.Timestamp("1970-01-01 00:00:00.000000001"), [0], []),
    (pa.array([0, 1], pa.int64()).cast(pa.timestamp("ns")), np.datetime64("1970-01-01"), [], [1]),
    (pa.array([0, 1], pa.int64()).cast(pa.timestamp("s")), "1970-01-01T00:00:00.5", [0], [1]),
    (pa.array([0], pa.int64()).cast(pa.timestamp("ns")), "9999-12-31", [0], []),
    (pa.array([0], pa.int64()).cast(pa.timestamp("ns")), dt.date(1, 1, 1), [], [0]),
    (pa.array([0, 1], pa.int64()).cast(pa.timestamp("us", "UTC")), "1970-01-01T08:00:00+08:00", [], [1]),
    (pa.array([0, 1], pa.int64()).cast(pa.timestamp("us", "UTC")), "1970-01-01T00:00:00Z", [], [1]),
    (pa.array([-1, 0], pa.int64()).cast(pa.timestamp("us", "Asia/Shanghai")), "1970-01-01T08:00", [0], []),
    (pa.array([-1, 0], pa.int64()).cast(pa.timestamp("us", "+08:00")), wall(1970, 1, 1, 8), [0], []),
    (pa.array([0], pa.int64()).cast(pa.timestamp("us", "Asia/Shanghai")), dt.date(1970, 1, 1), [], [0]),
    (pa.array([0, 5], pa.int64()).cast(pa.timestamp("s", "UTC")), dt.datetime(1970, 1, 1, 8, tzinfo=SHANGHAI), [], [1]),
    (pa.array([dt.time(9), dt.time(10)], pa.time32("s")), "09:30", [0], [1]),
    (pa.array([dt.time(9), dt.time(10)], pa.time64("ns")), dt.time(9), [], [1]),
    (pa.array([1, 2], pa.int64()).cast(pa.duration("s")), dt.timedelta(seconds=1.5), [0], [1]),
]


@pytest.mark.parametrize(("array", "bound", "below", "above"), BOUNDS, ids=[f"{a.type} {b!r}" for a, b, _, _ in BOUNDS])
def test_bounds_are_exact(array: pa.Array, bound: Any, below: list[int], above: list[int]) -> None:
    assert broken_rows(Column(min=bound), array) == below
    assert broken_rows(Column(max=bound), array) == above
    with_null = pa.concat_arrays([pa.nulls(1, array.type), array])
    assert broken_rows(Column(min=bound, nullable=True), with_null) == [row + 1 for row in below]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.integers(-(2**65), 2**65) | st.floats(allow_nan=False, allow_infinity=False) | st.fractions().map(float),
)
def test_integers_compare_as_in_python(values: list[int], bound: float) -> None:
    array = pa.array(values, pa.int64())
    assert broken_rows(Column(min=bound), array) == [row for row, value in enumerate(values) if value < bound]
    assert broken_rows(Column(max=bound), array) == [row for row, value in enumerate(values) if value > bound]


@pytest.mark.parametrize(
    ("array", "bound", "message"),
    [
        (pa.array(["a"]), 0, "x: 0 cannot be compared with string"),
        (pa.array([1]), "a", "x: 'a' cannot be compared with int64"),
        (pa.array([True]), 0, "x: 0 cannot be compared with bool"),
        (pa.array([1]), True, "x: True cannot be compared with int64"),
        (pa.array([[1]]), 0, "x: 0 cannot be compared with list<item: int64>"),
        (pa.array([dt.date(2026, 1, 1)]), "1/2/2026", "expected a date or time as in ISO 8601"),
        (
            pa.array([wall(2026, 1, 1)]),
            "2026-01-01T00:00Z",
            "the column has no time zone, so give a time without",
        ),
        (pa.array([wall(2026, 1, 1)]), 5, "x: 5 cannot be compared with timestamp"),
        (pa.array([dt.time(9)]), "noon", "expected a time such as '09:30:00'"),
        (pa.array([dt.time(9)]), dt.time(9, tzinfo=UTC), "expected a time without a zone"),
        (pa.array([1.5]), 10**400, "it is beyond any float"),
        (pa.array([D("1.5")]), D("1e-50"), "more than 76 digits"),
    ],
)
def test_a_bound_of_another_kind_is_a_violation(array: pa.Array, bound: Any, message: str) -> None:
    for column in (Column(min=bound), Column(max=bound)):
        (found,) = violations(column, array)
        assert message in found


@pytest.mark.parametrize(
    ("array", "allowed", "rows"),
    [
        (pa.array([1, 2, 3]), [1, 3], [1]),
        (pa.array([1, 2, 3], pa.int8()), [1, 300, 2.5, D("3")], [1]),
        (pa.array([0.1, 0.2, float("nan")]), [0.1], [1, 2]),
        (pa.array([0.1, 0.2], pa.float32()), [0.1], [1]),
        (pa.array(["a", "b", ""]), {"a": 1, "": 2}.keys(), [1]),
        (pa.array([True, False]), [True], [1]),
        (pa.array([b"a", b"b"]), [b"a"], [1]),
        (pa.array([D("1.50"), D("2.00")]), [D("1.5"), D("2.001"), 10**30], [1]),
        (pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)]), ["2026-01-01"], [1]),
        (pa.array([wall(2026, 1, 1), wall(2026, 1, 2)]), [dt.date(2026, 1, 1)], [1]),
        (pa.array(["a", "b"]).dictionary_encode().cast(pa.string()), ("a",), [1]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_allowed_values(array: pa.Array, allowed: Any, rows: list[int]) -> None:
    assert broken_rows(Column(allowed=allowed), array) == rows


@pytest.mark.parametrize(
    ("array", "allowed"),
    [
        (pa.array([1]), ["1"]),
        (pa.array(["1"]), [1]),
        (pa.array([True]), [1]),
        (pa.array([[1]]), [[1]]),
        (pa.array([1.5]), [True]),
        (pa.array([1]), [math.inf]),
    ],
)
def test_allowed_values_of_another_kind_are_a_violation(array: pa.Array, allowed: Any) -> None:
    (found,) = violations(Column(allowed=allowed), array)
    assert "cannot be compared with" in found


def test_missing_values() -> None:
    nan = pa.array([1.0, float("nan"), None])
    (found,) = violations(Column("float64", min=0, max=2, allowed=[1.0], unique=True), nan)
    assert found == "x: is missing, and the column is not nullable: 2 rows (1: nan, 2: None)"
    assert violations(Column("float64", nullable=True, min=0, max=2, allowed=[1.0, None], unique=True), nan) == []
    nulls = pa.array([None, None], pa.null())
    assert violations(Column("float64", nullable=True, min=0, allowed=[1.0], unique=True), nulls) == []
    assert violations(Column("float64", min=0), nulls) == [
        "x: is missing, and the column is not nullable: 2 rows (0: None, 1: None)"
    ]
    typed = pa.array([None, None], pa.string())
    assert violations(Column("string", nullable=True, allowed=["a"], unique=True), typed) == []


def test_a_frame_without_rows_breaks_only_its_columns() -> None:
    empty = pa.table({"x": pa.array([], pa.float64())})
    assert violations({"x": Column("float64", min=0, unique=True, allowed=[1.0])}, empty) == []
    assert violations({"y": Column()}, empty) == ["y: is missing; there are x"]
    assert violations({"xx": Column()}, pa.table({"xxx": [1]})) == [
        "xx: is missing; did you mean 'xxx'?; there are xxx"
    ]


def test_the_type_that_counts_is_the_whole_columns() -> None:
    integers, floats, nothing = pa.array([1, 2]), pa.array([0.5]), pa.array([None], pa.null())
    assert violations(Column("float64", nullable=True, max=9), integers, floats, nothing) == []
    assert violations(Column("int64", nullable=True), integers, floats, nothing) == [
        "x: has type double, expected int64"
    ]
    assert violations(Column("int64"), integers, pa.array(["a"])) == [
        "x: has type int64 in some batches and string in others"
    ]
    assert violations(Column(unique=True), integers, pa.array([2.0])) == [
        "x: repeats an earlier value, and the column is unique: 1 row (2: 2.0)"
    ]


def test_long_values_are_cut() -> None:
    (found,) = violations(Column(allowed=[str(number) for number in range(999)]), pa.array(["x" * 10_000]))
    assert len(found) < 600
    assert "..." in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "flaot64"}, "dtype='flaot64' is not a column type; did you mean 'float64'.*; allowed: binary, bool"),
        ({"dtype": float}, "dtype=<class 'float'> is not a column type; allowed"),
        ({"nullable": "yes"}, "nullable='yes': expected True or False"),
        ({"unique": 1}, "unique=1: expected True or False"),
        ({"allowed": "ab"}, "allowed='ab': expected a list of values"),
        ({"allowed": 3}, "allowed=3: expected a list of values"),
        ({"allowed": []}, "allowed=.*no value could be right"),
        ({"allowed": ["a", None]}, "lists a missing value, but nullable=False: say nullable=True"),
        ({"min": float("nan")}, "min=nan: every comparison with it is false"),
        ({"max": pd.NaT}, "max=NaT: every comparison with it is false"),
        ({"min": 3, "max": 2}, "min=3 is greater than max=2: no value could be right"),
        ({"dtype": "int64", "min": "a"}, "min='a' does not fit dtype='int64'"),
        ({"dtype": "date", "max": "31.1.2026"}, "max='31.1.2026' does not fit dtype='date': .*ISO 8601"),
        ({"dtype": "string", "allowed": [1]}, r"allowed=\[1\] does not fit dtype='string'|does not fit dtype='string'"),
        ({"dtype": "bool", "min": 0}, "min=0 does not fit dtype='bool'"),
    ],
)
def test_a_column_that_contradicts_itself_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Column(**arguments)


def test_a_datetime_bound_may_have_a_zone_or_none() -> None:
    Column("datetime", min="2026-01-01", max="2026-12-31T00:00:00+08:00")
    Column("datetime", allowed=[dt.datetime(2026, 1, 1, tzinfo=UTC)])


def test_a_schema_is_a_mapping_of_columns(settings: Settings) -> None:
    with pytest.raises(
        ConfigError, match=r"schema of 'x': expected a name and a smkit.Column, got str; .*Column\('float64'"
    ):
        Schema({"x": "float64"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"expected a mapping of names to smkit.Column, got list"):
        Schema([Column()])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"check: expected a smkit.Schema, got dict"):
        DatasetBuilder("houses", TableSource(pa.table({"x": [1]})), settings).check({"x": Column()})  # type: ignore[arg-type]


def test_a_schema_describes_itself_in_json() -> None:
    schema = Schema(
        {
            "a": Column("int64", min=0, max=np.int64(9), unique=True),
            "b": Column("datetime", nullable=True, min=dt.date(2026, 1, 31), allowed=["2026-01-31", None]),
            "c": Column(min=-math.inf, max=D("1.50")),
            "d": Column(),
        },
        strict=True,
    )
    assert json.loads(json.dumps(schema.describe(), allow_nan=False)) == {
        "columns": {
            "a": {"dtype": "int64", "min": 0, "max": 9, "unique": True},
            "b": {"dtype": "datetime", "nullable": True, "min": "2026-01-31", "allowed": ["2026-01-31"]},
            "c": {"min": "-inf", "max": "1.50"},
            "d": {},
        },
        "strict": True,
    }
    assert repr(Schema({"x": Column("int")})).startswith("Schema({'x': Column(dtype='int'")


def test_violations_are_told_even_where_a_later_step_breaks_on_them(settings: Settings) -> None:
    builder = (
        DatasetBuilder("houses", TableSource(pa.table({"x": [1, 0, 2]})), settings)
        .check(Schema({"x": Column(min=1)}))
        .map(lambda frame: frame.assign(y=[1 // value for value in frame["x"]]))
    )
    with pytest.raises(SchemaViolationError, match="x: is less than 1: 1 row") as caught:
        builder.build()
    assert "ZeroDivisionError" in str(caught.value.__cause__)


def test_two_checks_are_reported_together(settings: Settings) -> None:
    builder = (
        DatasetBuilder("houses", TableSource(pa.table({"x": [1.0, None, 3.0]})), settings)
        .check(Schema({"x": Column(max=2, nullable=True)}))
        .clean(drop_missing=True)
        .check(Schema({"x": Column(max=2)}))
    )
    with pytest.raises(SchemaViolationError) as caught:
        builder.build()
    assert [violation.samples for violation in caught.value.violations] == [[(2, 3.0)], [(1, 3.0)]]


@given(
    stretches=st.lists(
        st.lists(
            st.sampled_from(
                [
                    pa.table({"x": [1, 2, 9], "y": ["a", None, "b"]}),
                    pa.table({"x": [0.5, None], "y": ["c", "a"]}),
                    pa.table({"x": ["text"], "z": ["b"]}),
                    pa.table({"x": pa.nulls(2), "y": ["a", "a"]}),
                    pa.table({"x": pa.array([], pa.int64()), "y": pa.array([], pa.string())}),
                ]
            ),
            max_size=4,
        ),
        max_size=4,
    )
)
def test_stretches_checked_side_by_side_tell_what_one_pass_tells(stretches: list[list[pa.Table]]) -> None:
    schema = Schema({"y": Column("string", unique=True), "x": Column("int64", max=5, unique=True)}, strict=True)
    alone, together, repeats = SchemaCheck(schema), SchemaCheck(schema), SchemaCheck(schema)
    for stretch in stretches:
        part = SchemaCheck(schema)
        for table in stretch:
            alone.feed(table)
            part.feed(table, repeats=False)
            repeats.feed_repeats(table)
        together.extend(pickle.loads(pickle.dumps(part)))
    together.add_repeats(repeats)
    assert list(map(str, together.violations)) == list(map(str, alone.violations))
