"""What is written is what is read, whatever the values; and how far a read is."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smkit.errors import SourceFormatError
from smkit.sources import FileSource
from smkit.sources._csv_explain import CSV_NULLS

TYPES = {"n": pa.int64(), "x": pa.float64(), "b": pa.bool_(), "t": pa.string()}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "b": st.none() | st.booleans(),
            "t": st.none() | TEXT | st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "NA", "null", " ", "北京\n"]),
        }
    ).map(lambda row: {name: row[name] for name in TYPES}),
    min_size=1,
    max_size=20,
)
CODECS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    """By hand: Python's writer cannot tell NULL from the empty string before 3.12."""

    def value(one: Any) -> str:
        if isinstance(one, str):
            return '"' + one.replace('"', '""') + '"'
        return "" if one is None else repr(one).lower()

    return "\n".join([",".join(TYPES), *(",".join(map(value, row.values())) for row in rows)]).encode()


def jsonl_of(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(TYPES)), buffer, row_group_size=3)
    return buffer.getvalue()


@settings(max_examples=40)
@given(ROWS, st.sampled_from(sorted(CODECS)), st.integers(1, 7), st.booleans())
def test_values_survive(rows: list[dict[str, Any]], codec: str, batch_size: int, several: bool) -> None:
    expected = {name: [row[name] for row in rows] for name in TYPES}
    with tempfile.TemporaryDirectory() as folder:
        cut = len(rows) // 2 if several else 0
        for encode, ending in ((csv_of, f"csv{codec}"), (jsonl_of, f"jsonl{codec}"), (parquet_of, "parquet")):
            for number, part in enumerate([rows[:cut], rows[cut:]]):
                if part:
                    content = encode(part)
                    packed = content if encode is parquet_of else CODECS[codec](content)
                    Path(folder, f"{number}.{ending}").write_bytes(packed)
            source = FileSource(f"{folder}/*.{ending}", column_types=TYPES)
            batches = source.batches(batch_size=batch_size)
            assert pa.Table.from_batches(batches, pa.schema(TYPES)).to_pydict() == expected


@given(st.lists(st.sampled_from([*CSV_NULLS, "x", "NAN", "None"]), min_size=1, max_size=8), st.booleans())
def test_only_unquoted_nulls_are_null(values: list[str], quoted: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = [f'1,"{value}"' if quoted else f"1,{value}" for value in values]
        Path(folder, "a.csv").write_text("\n".join(["a,b", *lines]))
        read = pa.Table.from_batches(FileSource(f"{folder}/a.csv", column_types={"b": "string"}).batches())
    assert read["b"].to_pylist() == [None if value in CSV_NULLS and not quoted else value for value in values]


def test_python_s_own_csv_writer(tmp_path: Path) -> None:
    rows = [["1", 'say "hi"'], ["2", "a,b\r\nc"], ["3", " x "]]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "t"], *rows])
    assert FileSource(tmp_path / "a.csv").read()["t"].tolist() == [row[1] for row in rows]


@pytest.mark.parametrize("codec", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_a_truncated_archive_is_named(tmp_path: Path, codec: str, format_: str) -> None:
    rows = [f"{i * 2654435761 % 2**32:032x}" for i in range(20_000)]
    text = "a\n" + "\n".join(rows) if format_ == "csv" else "\n".join(f'{{"a":"{row}"}}' for row in rows)
    packed = CODECS[codec](text.encode())
    for cut in (len(packed) // 2, len(packed) - 5):
        path = tmp_path / f"a.{format_}{codec}"
        path.write_bytes(packed[:cut])
        with pytest.raises(SourceFormatError, match=rf"a\.{format_}\{codec}: "):
            FileSource(path, column_types={"a": "string"}).read()


# --- progress ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["csv", "csv.gz", "parquet"])
def test_progress_counts_bytes_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    rows = [{"n": i, "x": i / 7, "b": True, "t": f"{i * 2654435761 % 2**32:032x}"} for i in range(5000)]
    for number in range(3):
        content = parquet_of(rows) if format_ == "parquet" else csv_of(rows)
        (tmp_path / f"{number}.{format_}").write_bytes(gzip.compress(content) if format_ == "csv.gz" else content)
    monkeypatch.setattr("smkit.sources._files._PROGRESS_DELAY", 0)
    source = FileSource(tmp_path)
    source.read()
    assert capsys.readouterr().err == ""  # nobody looks: stderr is no terminal
    source.read(progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "15,000 rows" in last
    assert "100%" in last
    source.read(progress=False)
    assert capsys.readouterr().err == ""
