"""pandas to Arrow and back."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.errors import ConfigError
from smkit.frames import plain_type, to_arrow, to_pandas

TABLE = pa.table(
    {
        "int_null": [1, None, 2**53 + 1],
        "int": pa.array([1, 2, 3], pa.int32()),
        "bool_null": [True, None, False],
        "text": ["a", None, ""],
        "decimal": pa.array([Decimal("1.50"), None, Decimal("-0.05")], pa.decimal128(3, 2)),
        "date": [dt.date(2024, 1, 1), None, dt.date(1, 1, 1)],
        "time": [dt.time(1, 2, 3), None, dt.time(0)],
        "utc": pa.array([1, None, 2], pa.timestamp("us", "UTC")),
        "shanghai": pa.array([1, None, 2], pa.timestamp("s", "Asia/Shanghai")),
        "list": [[1, None], None, []],
        "struct": [{"a": 1}, None, {"a": None}],
        "bytes": [b"a\0", None, b""],
        "float": [1.5, None, -0.0],
        "duration": pa.array([1, 2, None], pa.duration("ms")),
    }
)


def test_a_table_survives_the_way_to_pandas_and_back() -> None:
    assert to_arrow(to_pandas(TABLE)).equals(TABLE)


def test_types_in_pandas() -> None:
    frame = to_pandas(TABLE)
    assert frame["int_null"].dtype == pd.Int64Dtype()
    assert frame["int_null"][2] == 2**53 + 1
    assert frame["int"].dtype == np.dtype("int32")
    assert frame["bool_null"].dtype == pd.BooleanDtype()
    assert frame["text"].dtype == pd.Series(["a"]).dtype
    assert pd.isna(frame["text"][1])
    assert frame["text"][2] == ""
    assert frame["decimal"][0] == Decimal("1.50")
    assert frame["date"][0] == dt.date(2024, 1, 1)
    assert str(frame["utc"].dtype) == "datetime64[us, UTC]"
    assert frame["list"][0] == [1, None]
    assert frame["bytes"][2] == b""
    assert isinstance(frame.index, pd.RangeIndex)


@pytest.mark.parametrize("width", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_keep_their_width_and_their_nulls(width: str) -> None:
    table = pa.table({"x": pa.array([1, None], width)})
    frame = to_pandas(table)
    assert str(frame["x"].dtype).lower() == width
    assert to_arrow(frame).equals(table)


def test_null_and_nan_floats_are_one_in_pandas_and_null_in_arrow() -> None:
    frame = to_pandas(pa.table({"x": pa.array([1.0, None, float("nan")])}))
    assert frame["x"].isna().tolist() == [False, True, True]
    assert to_arrow(frame)["x"].to_pylist() == [1.0, None, None]


def test_dictionaries_and_categories_become_plain_values() -> None:
    table = pa.table({"x": pa.array(["a", None, "b"]).dictionary_encode()})
    assert to_arrow(to_pandas(table)).schema.field("x").type == pa.string()
    assert to_arrow(pd.DataFrame({"x": pd.Categorical([3, None, 4])}))["x"].to_pylist() == [3, None, 4]


def test_large_types_become_plain_ones() -> None:
    large = pa.struct([("a", pa.large_list(pa.large_string())), ("b", pa.large_binary())])
    assert plain_type(large) == pa.struct([("a", pa.list_(pa.string())), ("b", pa.binary())])


def test_no_pandas_metadata_in_the_schema() -> None:
    assert to_arrow(pd.DataFrame({"a": [1]})).schema.metadata is None


def test_a_named_index_becomes_columns_and_an_unnamed_one_is_dropped() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    assert to_arrow(frame[frame["a"] > 1]).column_names == ["a"]
    counted = to_arrow(frame.groupby("a").size().to_frame("n"))
    assert counted.column_names == ["a", "n"]
    half_named = pd.MultiIndex.from_tuples([(1, 2), (3, 4), (5, 6)], names=["k", None])
    assert to_arrow(frame.set_axis(half_named)).to_pydict() == {"k": [1, 3, 5], "a": [1, 2, 3]}


def test_an_index_named_like_a_column_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'a' names both a column and a level of the index"):
        to_arrow(pd.DataFrame({"a": [1]}, index=pd.Index([5], name="a")))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([1, "x"], r"int \(1\), str \('x'\)"),
        ([1, 2.5], r"int \(1\), float \(2.5\).*float64"),
        ([True, 1], r"bool \(True\), int \(1\)"),
        ([dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 5, tzinfo=dt.timezone.utc)], r"date \(2024-01-01\), datetime"),
        ([[1], "x"], "list"),
        ([2**70, 1], "too large"),
        (["\ud800"], "surrogates"),
        ([object()], "object"),
    ],
)
def test_object_columns_that_cannot_be_stored_are_named(values: list[object], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)column 'bad'.*{named}"):
        to_arrow(pd.DataFrame({"good": [1] * len(values), "bad": pd.Series(values, dtype=object)}))


def test_missing_values_do_not_make_a_column_mixed() -> None:
    frame = pd.DataFrame({"a": pd.Series(["x", None, float("nan"), pd.NA, pd.NaT], dtype=object)})
    assert to_arrow(frame)["a"].to_pylist() == ["x", None, None, None, None]


@pytest.mark.parametrize("series", [pd.period_range("2024", periods=2), pd.interval_range(0, 2)])
def test_types_that_files_do_not_have_are_named(series: pd.Index) -> None:
    with pytest.raises(ConfigError, match=r"column 'p' has dtype .*astype\(str\)"):
        to_arrow(pd.DataFrame({"p": series}))


@pytest.mark.parametrize(
    ("columns", "message"), [([1, 2], "column name 1 is int"), (["a", "a"], "more than once: a"), ([None, "b"], "None")]
)
def test_column_names_are_unique_strings(columns: list[object], message: str) -> None:
    frame = pd.DataFrame([[1, 2]])
    frame.columns = pd.Index(columns, dtype=object)
    with pytest.raises(ConfigError, match=message):
        to_arrow(frame)


def test_to_pandas_refuses_names_used_twice() -> None:
    with pytest.raises(ConfigError, match="more than once: a"):
        to_pandas(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))


def test_a_given_schema_decides() -> None:
    schema = pa.schema([("a", pa.decimal128(10, 2)), ("b", pa.string()), ("c", pa.float64())])
    frame = pd.DataFrame({"a": [Decimal("1.5"), None], "b": pd.Series([None, None], dtype=object), "c": [1, 2]})
    assert to_arrow(frame, schema=schema).schema.equals(schema)
    with pytest.raises(ConfigError, match=r"column 'c' .* cannot become int8"):
        to_arrow(pd.DataFrame({"c": [300]}), schema=pa.schema([("c", pa.int8())]))
    with pytest.raises(ConfigError, match="columns are"):
        to_arrow(frame, schema=pa.schema([("a", pa.int64())]))


def test_empty_tables_keep_rows_and_types() -> None:
    assert to_pandas(TABLE.slice(0, 0)).shape == (0, TABLE.num_columns)
    assert to_pandas(pa.table({"a": [1, 2]}).select([])).shape == (2, 0)


VALUES = {
    "i": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "f": (pa.float64(), st.floats(allow_nan=False)),
    "b": (pa.bool_(), st.booleans()),
    "s": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
    "d": (pa.date32(), st.dates()),
    "t": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(dt.timezone.utc))),
    "y": (pa.binary(), st.binary(max_size=8)),
}


@given(st.data())
def test_any_table_survives(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 6))
    columns = {
        name: pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), type_)
        for name, (type_, values) in VALUES.items()
    }
    table = pa.table(columns)
    assert to_arrow(to_pandas(table), schema=table.schema).equals(table)
