"""columns= and filters=: the right rows in every format, and of Parquet no byte too many."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import smkit
from smkit.errors import ConfigError
from smkit.sources import FileSource, S3Source
from smkit.sources._filters import RowFilter, Statistics, check_filters

if TYPE_CHECKING:
    from pathlib import Path

OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
COMPARED = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
TABLE = pa.table(
    {
        "id": pa.array([1, 2, 3, 4, 5, 6], pa.int64()),
        "price": pa.array([0.5, None, 2.5, -1.0, None, 9.0], pa.float64()),
        "city": pa.array(["a", "b", None, "a", "", "c"], pa.string()),
    }
)


def write(folder: Path, table: pa.Table, format_: str, **options: Any) -> Path:
    path = folder / f"x.{format_}"
    if format_ == "parquet":
        pq.write_table(table, path, **options)
    elif format_ == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        lines = [
            ",".join("" if value is None else f'"{value}"' if isinstance(value, str) else str(value) for value in row)
            for row in zip(*table.to_pydict().values(), strict=True)
        ]
        path.write_text("\n".join([",".join(table.column_names), *lines]) + "\n")
    return path


def ids(path: Path, filters: Any) -> list[int]:
    rows: list[int] = FileSource(path, columns=["id"], filters=filters).read()["id"].tolist()
    return rows


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([("price", ">", 0)], [1, 3, 6]),
        ([("price", "!=", 0.5)], [3, 4, 6]),
        ([("price", "=", None)], [2, 5]),
        ([("price", "!=", None)], [1, 3, 4, 6]),
        ([("city", "==", "a")], [1, 4]),
        ([("city", "=", "")], [5]),
        ([("city", "in", ["a", None])], [1, 3, 4]),
        ([("city", "not in", ["a"])], [2, 5, 6]),
        ([("city", "not in", {"a", None})], [2, 5, 6]),
        ([("city", "in", [])], []),
        ([("price", ">", 0), ("city", "=", "a")], [1]),
        ([[("price", ">", 0), ("city", "=", "a")], [("id", ">=", 6)]], [1, 6]),
        ([("id", ">", 4.5)], [5, 6]),
        ([("id", "<", 10**30)], [1, 2, 3, 4, 5, 6]),
        ([("id", "=", 1.5)], []),
        ([("id", "!=", 1.5)], [1, 2, 3, 4, 5, 6]),
        ([("id", "in", (1, 2.5, 10**30, np.int64(3)))], [1, 3]),
        ([("id", ">", 100)], []),
    ],
)
def test_rows_are_those_that_fulfil_the_conditions(
    tmp_path: Path, format_: str, filters: Any, expected: list[int]
) -> None:
    path = write(tmp_path, TABLE, format_, **({"row_group_size": 2} if format_ == "parquet" else {}))
    assert ids(path, filters) == expected
    whole = FileSource(path, filters=filters)
    assert whole.read()["id"].tolist() == expected
    assert whole.schema() == FileSource(path).schema()


def test_a_tested_column_that_is_not_wanted_is_not_passed_on(tmp_path: Path) -> None:
    path = write(tmp_path, TABLE, "parquet")
    source = FileSource(path, columns=["city", "id"], filters=[("price", ">", 0)])
    assert source.schema().names == ["city", "id"]
    assert [batch.schema.names for batch in source.batches()] == [["city", "id"]]


@pytest.mark.parametrize(
    ("type_", "values", "condition", "expected"),
    [
        (pa.date32(), [dt.date(2024, 1, 1), dt.date(2025, 1, 1)], (">", dt.date(2024, 6, 1)), 1),
        (pa.date32(), [dt.date(2024, 1, 1), dt.date(2025, 1, 1)], ("=", "2025-01-01"), 1),
        (pa.timestamp("ns"), [0, 10**18], (">=", dt.datetime(2000, 1, 1)), 1),  # noqa: DTZ001 - as the column
        (pa.timestamp("us", "UTC"), [0, 10**15], ("<", dt.datetime(2000, 1, 1, tzinfo=dt.timezone.utc)), 1),
        (pa.decimal128(9, 2), [Decimal("1.10"), Decimal("2.00")], (">", 1.5), 1),
        (pa.decimal128(9, 2), [Decimal("1.10"), Decimal("2.00")], ("=", Decimal("1.1")), 1),
        (pa.bool_(), [True, False], ("=", np.bool_(True)), 1),
        (pa.int8(), [1, 2], ("<", 200), 2),
        (pa.uint8(), [1, 2], (">", -1), 2),
        (pa.int64(), [2**53, 2**53 + 1], (">", float(2**53)), 1),
        (pa.binary(), [b"a", b"b"], ("=", b"b"), 1),
    ],
)
def test_values_take_the_type_of_their_column(
    tmp_path: Path, type_: pa.DataType, values: list[Any], condition: tuple[str, Any], expected: int
) -> None:
    table = pa.table({"x": pa.array(values, type_)})
    path = write(tmp_path, table, "parquet", row_group_size=1)
    assert len(FileSource(path, filters=[("x", *condition)]).read()) == expected


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ("price > 0", "filters is 'price > 0'"),
        ([], r"filters is \[\]"),
        ([()], "filters holds"),
        ([("price", ">")], "a condition is"),
        ([("price", "~", 1)], "'~' is no operator"),
        ([("price", ">", None)], "NULL has no order"),
        ([("city", "in", "abc")], "pass a list of values"),
    ],
)
def test_filters_of_the_wrong_shape_fail_before_any_work(filters: Any, message: str) -> None:
    for source in (FileSource, S3Source):
        with pytest.raises(ConfigError, match=message):
            source("s3://bucket/x.csv" if source is S3Source else "x.csv", filters=filters)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (("prize", ">", 0), "names 'prize'.*did you mean 'price'"),
        (("price", ">", "x"), "'price' is double and cannot be compared with 'x'"),
        (("id", "=", "1"), "'id' is int64 and cannot be compared with '1'"),
        (("id", "=", True), "'id' is int64 and cannot be compared"),
        (("id", "<", math.nan), "no finite number"),
        (("city", "=", 1), "'city' is string and cannot be compared with 1"),
    ],
)
def test_conditions_that_do_not_fit_the_columns(tmp_path: Path, condition: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FileSource(write(tmp_path, TABLE, "parquet"), filters=[condition]).schema()


def test_the_filters_are_part_of_the_lineage(tmp_path: Path) -> None:
    path = write(tmp_path, TABLE, "parquet")
    described = FileSource(path, filters=[("id", "in", {3, 1}), ("price", ">", np.float64(1))]).describe()
    assert described["filters"] == [[["id", "in", [1, 3]], ["price", ">", 1.0]]]
    assert json.loads(json.dumps(described)) == described
    assert "filters" not in FileSource(path).describe()


NOON = dt.datetime(2026, 1, 1, 12)  # noqa: DTZ001 - as the columns
HALF = NOON + dt.timedelta(microseconds=500_000)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
@pytest.mark.parametrize("bound", [HALF, pd.Timestamp(HALF), np.datetime64(HALF), "2026-01-01 12:00:00.5"])
@pytest.mark.parametrize(
    ("operator", "expected"),
    [("<", [1]), ("<=", [1]), (">", [2]), (">=", [2]), ("=", []), ("!=", [1, 2]), ("in", []), ("not in", [1, 2])],
)
def test_a_bound_between_two_values_of_the_columns_unit(
    tmp_path: Path, format_: str, bound: Any, operator: str, expected: list[int]
) -> None:
    times = pa.array([NOON, NOON + dt.timedelta(seconds=1)], pa.timestamp("s"))
    options = {"row_group_size": 1} if format_ == "parquet" else {}
    path = write(tmp_path, pa.table({"id": [1, 2], "at": times}), format_, **options)
    assert ids(path, [("at", operator, [bound] if "in" in operator else bound)]) == expected


@pytest.mark.parametrize(
    ("type_", "values", "condition", "expected"),
    [
        (pa.timestamp("us"), [0, 1], ("<", pd.Timestamp(1)), 1),
        (pa.timestamp("us"), [0, 1], (">=", pd.Timestamp(1)), 1),
        (pa.timestamp("ns"), [1_500, 2_500], (">", pd.Timestamp(1_500)), 1),
        (pa.time64("us"), [1, 2], ("<", "00:00:00.000002"), 1),
        (pa.time64("ns"), [1_001, 1_002], ("<", "00:00:00.000001002"), 1),
        (pa.duration("s"), [1, 2], ("<", dt.timedelta(seconds=1, milliseconds=500)), 1),
        (pa.duration("ns"), [1, 2], ("<", np.timedelta64(2, "ns")), 1),
        (pa.date32(), [0, 1], ("<", dt.datetime(1970, 1, 1, 23)), 1),  # noqa: DTZ001 - as the column
        (pa.timestamp("s", "Asia/Shanghai"), [0, 3600], ("<", "1970-01-01 08:30"), 1),
        (pa.timestamp("s", "Asia/Shanghai"), [0, 3600], ("<", "1970-01-01 00:30Z"), 1),
    ],
)
def test_dates_and_times_are_compared_exactly(
    tmp_path: Path, type_: pa.DataType, values: list[int], condition: tuple[str, Any], expected: int
) -> None:
    path = write(tmp_path, pa.table({"x": pa.array(values, type_)}), "parquet", row_group_size=1)
    assert sum(batch.num_rows for batch in FileSource(path, filters=[("x", *condition)]).batches()) == expected


@pytest.mark.parametrize(
    ("value", "equal"), [(0.0, [1, 2]), (-0.0, [1, 2]), (math.nan, []), (1.5, [4])], ids=["zero", "-zero", "nan", "1.5"]
)
def test_equality_and_lists_agree(tmp_path: Path, value: float, equal: list[int]) -> None:
    table = pa.table({"id": [1, 2, 3, 4], "x": pa.array([0.0, -0.0, math.nan, 1.5], pa.float64())})
    path = write(tmp_path, table, "parquet")
    others = [one for one in (1, 2, 3, 4) if one not in equal]
    assert ids(path, [("x", "=", value)]) == ids(path, [("x", "in", [value])]) == equal
    assert ids(path, [("x", "!=", value)]) == ids(path, [("x", "not in", [value])]) == others


# --- pruning -----------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.lists(st.one_of(st.none(), st.integers(-5, 5), st.just(math.nan)), min_size=1, max_size=6),
    st.sampled_from([*OPERATORS, "in", "not in"]),
    st.one_of(st.integers(-6, 6), st.sampled_from([0.5, -5.5])),
    st.booleans(),
)
def test_pruning_never_loses_a_row(values: list[Any], operator: str, value: Any, integers: bool) -> None:
    """The reference compares one value after the other."""
    if integers:
        values = [None if one is None or math.isnan(one) else int(one) for one in values]
    table = pa.table({"x": pa.array(values, pa.int64() if integers else pa.float64())})

    def wanted(one: Any) -> bool:
        if operator in {"in", "not in"}:
            return one is not None and ((one == value) == (operator == "in"))
        return one is not None and COMPARED[operator](one, value)

    test = (("x", operator, [value]) if operator in {"in", "not in"} else ("x", operator, value),)
    bound = RowFilter(check_filters(test), table.schema)
    batch = table.to_batches()[0]
    expected = [one for one in values if wanted(one)]
    assert [repr(one) for one in bound.apply(batch).column(0).to_pylist()] == [
        repr(one if integers else float(one)) for one in expected
    ]
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    known = pq.read_metadata(buffer).row_group(0).column(0).statistics
    bounds = [pa.scalar(one, table.schema.types[0]) if known.has_min_max else None for one in (known.min, known.max)]
    if expected:
        assert bound.may_hold({"x": Statistics(len(values), known.null_count, *bounds)})


def counted(uri: str, **options: Any) -> tuple[S3Source, list[int]]:
    own = smkit.Settings()
    sizes: list[int] = []
    own.client("s3").meta.events.register(
        "after-call.s3.GetObject", lambda parsed, **kwargs: sizes.append(parsed["ContentLength"])
    )
    return S3Source(uri, settings=own, **options), sizes


@pytest.fixture
def big(aws_env: str, bucket: str) -> tuple[str, pq.FileMetaData]:
    """Ten row groups of three columns, none of which compresses."""
    rows = 200_000
    rng = np.random.default_rng(0)
    table = pa.table({"id": range(rows), "noise": rng.random(rows), "more": rng.random(rows)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", use_dictionary=False, row_group_size=rows // 10)
    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key="big.parquet", Body=buffer.getvalue())
    client.close()
    return f"s3://{bucket}/big.parquet", pq.read_metadata(buffer)


def test_only_the_wanted_columns_are_fetched(big: tuple[str, pq.FileMetaData]) -> None:
    uri, footer = big
    source, sizes = counted(uri, columns=["noise"])
    assert len(source.read()) == footer.num_rows
    needed = sum(footer.row_group(i).column(1).total_compressed_size for i in range(10))
    assert needed <= sum(sizes) <= needed + (64 << 10)


def test_only_the_wanted_row_groups_are_fetched(big: tuple[str, pq.FileMetaData]) -> None:
    uri, footer = big
    source, sizes = counted(uri, columns=["id", "noise"], filters=[("id", ">=", 50_000), ("id", "<", 50_010)])
    assert source.read()["id"].tolist() == list(range(50_000, 50_010))
    needed = sum(footer.row_group(2).column(i).total_compressed_size for i in (0, 1))
    assert needed <= sum(sizes) <= needed + (64 << 10)
    source, sizes = counted(uri, filters=[("id", ">", 10**9)])
    assert len(source.read()) == 0
    assert sum(sizes) <= 64 << 10


def test_a_cast_that_changes_the_order_prunes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, pa.table({"x": [9, 10, 11]}), "parquet", row_group_size=1)
    assert FileSource(path, column_types={"x": "string"}, filters=[("x", "<", "11")]).read()["x"].tolist() == ["10"]


def test_files_without_statistics_are_filtered_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, TABLE, "parquet", row_group_size=2, write_statistics=False)
    assert ids(path, [("price", ">", 0)]) == [1, 3, 6]


def test_structs_and_lists_beside_the_tested_column(tmp_path: Path) -> None:
    table = pa.table(
        {
            "s": [{"a": i, "b": [{"c": i}]} for i in range(10)],
            "m": pa.array([[("k", i)] for i in range(10)], pa.map_(pa.string(), pa.int64())),
            "a.b": [i * 10 for i in range(10)],
            "id": range(10),
        }
    )
    path = write(tmp_path, table, "parquet", row_group_size=2)
    assert ids(path, [("a.b", ">=", 80)]) == [8, 9]
    read = pa.Table.from_batches(FileSource(path, filters=[("id", "=", 5)]).batches())
    assert read.to_pylist() == table.slice(5, 1).to_pylist()
    with pytest.raises(ConfigError, match="'s', which is struct"):
        FileSource(path, filters=[("s", "=", 1)]).read()
