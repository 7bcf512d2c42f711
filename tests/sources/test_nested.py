"""Lists and structs that differ, above all in JSON lines: the place is named, and the advice reads the files."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smkit.errors import SourceFormatError
from smkit.sources import FileSource
from smkit.sources._nested import declaration

if TYPE_CHECKING:
    from pathlib import Path

SMALL_BLOCK = 1 << 14


def advised(message: str) -> dict[str, Any]:
    """Return what a reader who copies the advice passes."""
    code = re.search(r"column_types=(\{.*?\})(?: \(|;|$)", message)
    assert code is not None, message
    types: dict[str, Any] = eval(code[1], {"pa": pa})
    return types


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows_of(path: Path, **options: Any) -> list[Any]:
    return pa.Table.from_batches(FileSource(path, **options).batches()).to_pylist()


@pytest.mark.parametrize(
    ("first", "last", "read", "message"),
    [
        (
            {"x": 1},
            {"x": 1.5},
            {"x": 1.5},
            "field 'a.x' is 1.5, but is read as int64, the type that its first rows show",
        ),
        ({"x": 1}, {"x": 1, "y": "z"}, {"x": 1, "y": "z"}, "field 'a.y' is new, the first lines do not have it"),
        ([1], [1, 2.5], [1.0, 2.5], "field 'a[1]' is 2.5, but is read as int64"),
        ({"x": [{"y": 1}]}, {"x": [{"z": True}]}, {"x": [{"y": None, "z": True}]}, "field 'a.x[0].z' is new"),
        ({"x": None}, {"x": {"y": 1}}, {"x": {"y": 1}}, "field 'a.x' is {'y': 1}, but is read as null"),
    ],
)
def test_a_later_line_that_differs_is_named_and_its_advice_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: object, last: object, read: object, message: str
) -> None:
    monkeypatch.setattr("smkit.sources._jsonl.BLOCK_BYTES", SMALL_BLOCK)
    count = SMALL_BLOCK // 8
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*[{"a": first}] * count, {"a": last}))
    with pytest.raises(SourceFormatError, match=rf"a\.jsonl: line {count + 1}: {re.escape(message)}") as caught:
        FileSource(path).read()
    assert rows_of(path, column_types=advised(str(caught.value)))[count:] == [{"a": read}]


@pytest.mark.parametrize(
    ("first", "last", "shown"),
    [({"x": 1}, "text", "'a' is 'text'"), ({"x": 1}, {"x": "t"}, "'a.x' is 't'"), ({"x": 1}, [1], "'a' is [1]")],
)
def test_what_no_type_holds_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: object, last: object, shown: str
) -> None:
    monkeypatch.setattr("smkit.sources._jsonl.BLOCK_BYTES", SMALL_BLOCK)
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*[{"a": first}] * (SMALL_BLOCK // 8), {"a": last}))
    with pytest.raises(SourceFormatError, match=rf"{re.escape(shown)}.*no type holds all values of 'a': write them"):
        FileSource(path).read()


def test_files_whose_objects_differ_read_as_advised(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"a": {"x": 1}, "b": [1]}))
    (tmp_path / "b.jsonl").write_text(lines({"a": {"x": 1, "y": "z"}, "b": [0.5]}))
    (tmp_path / "c.jsonl").write_text(lines({"a": {"z": [True]}, "b": []}))
    with pytest.raises(
        SourceFormatError, match="column 'a' is struct<x: int64, y: string>, but struct<x: int64>"
    ) as one:
        FileSource(tmp_path).read()
    assert "float64 rounds whole numbers beyond 2**53" in str(one.value)
    types = advised(str(one.value))
    assert rows_of(tmp_path, column_types=types) == [
        {"a": {"x": 1, "y": None, "z": None}, "b": [1.0]},
        {"a": {"x": 1, "y": "z", "z": None}, "b": [0.5]},
        {"a": {"x": None, "y": None, "z": [True]}, "b": []},
    ]


def test_files_that_no_type_joins_are_no_riddle(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"a": {"x": 1}, "n": 1, "t": 1}))
    (tmp_path / "b.jsonl").write_text(lines({"a": {"x": "t"}, "n": 1, "t": "1"}))
    (tmp_path / "c.jsonl").write_text(lines({"a": {"x": 1}, "n": 0.5, "t": 1}))
    with pytest.raises(SourceFormatError) as caught:
        FileSource(tmp_path).read()
    message = str(caught.value)
    assert "no type holds all values of 'a', 't': write them alike, or read the files as separate sources" in message
    assert advised(message) == {"n": "float64"}


LEAVES = [
    pa.null(), pa.bool_(), pa.int8(), pa.int32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string(),
    pa.large_string(), pa.binary(), pa.date32(), pa.date64(), pa.timestamp("us"), pa.timestamp("ns", "Asia/Shanghai"),
    pa.decimal128(10, 2), pa.decimal256(50, 3),
]  # fmt: skip


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_a_declaration_is_the_type(leaf: pa.DataType) -> None:
    nested = pa.list_(pa.struct([("x", leaf), ("it's", pa.list_(leaf))]))
    assert eval(str(declaration(nested)), {"pa": pa}) == nested


def test_structs_of_parquet_files_read_as_advised(tmp_path: Path) -> None:
    small, more = pa.array([{"x": 1}], pa.struct([("x", pa.int32())])), [("x", pa.int32()), ("y", pa.int16())]
    pq.write_table(pa.table({"a": small}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": pa.array([{"x": 2, "y": 3}], pa.struct(more))}), tmp_path / "b.parquet")
    with pytest.raises(SourceFormatError) as caught:
        FileSource(tmp_path).read()
    types = advised(str(caught.value))
    assert types == {"a": pa.struct(more)}
    assert rows_of(tmp_path, column_types=types) == [{"a": {"x": 1, "y": None}}, {"a": {"x": 2, "y": 3}}]
