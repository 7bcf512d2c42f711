"""FileSource: CSV, JSON lines and Parquet, one file and many, whole and damaged."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import hashlib
import io
import os
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smkit.errors import ConfigError, SourceError, SourceFormatError, SourceNotFound
from smkit.sources import FileSource
from smkit.sources._csv_quotes import QuoteScanner

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def columns(path: Any, **options: Any) -> dict[str, list[Any]]:
    return pa.Table.from_batches(FileSource(path, **options).batches()).to_pydict()


def parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


#: Bytes of a block in the tests that need several of them.
SMALL_BLOCK = 1 << 16


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smkit.sources._csv.BLOCK_BYTES", SMALL_BLOCK)
    monkeypatch.setattr("smkit.sources._jsonl.BLOCK_BYTES", SMALL_BLOCK)


def long(header: str, row: str, last: str) -> str:
    """A text whose last row lies behind the block that types are inferred from."""
    return header + row * (SMALL_BLOCK // len(row) + 2) + last


# --- CSV ---------------------------------------------------------------------------------------------------------


def test_csv_tells_null_from_the_empty_string(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'n,s\n1,""\n,\n3,NA\n4,"NA"\n')
    assert columns(path) == {"n": [1, None, 3, 4], "s": ["", None, None, "NA"]}


def test_csv_types(tmp_path: Path) -> None:
    text = "i,f,b,d,t,s\n9007199254740993,1.5,true,2024-01-02,2024-01-02 03:04:05,北京\n"
    assert columns(write(tmp_path, "a.csv", "\ufeff" + text)) == {
        "i": [9007199254740993],
        "f": [1.5],
        "b": [True],
        "d": [dt.date(2024, 1, 2)],
        "t": [dt.datetime(2024, 1, 2, 3, 4, 5)],  # noqa: DTZ001 - the text says no time zone
        "s": ["北京"],
    }


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("at", [0, 250_000])
def test_csv_cells_that_are_longer_than_a_block(tmp_path: Path, quoted: bool, at: int) -> None:
    cell = ("x" if not quoted else 'x\n""y"",') * (20 << 20 >> (3 * quoted))
    rows = [f"{i},z" for i in range(300_000)]
    rows[at] = f'{at},"{cell}"' if quoted else f"{at},{cell}"
    path = write(tmp_path, "a.csv", "\n".join(["a,b", *rows]))
    read = FileSource(path).read()
    assert read["a"].tolist() == list(range(300_000))
    assert read["b"][at] == cell.replace('""', '"')
    assert (read["b"].drop(at) == "z").all()


@pytest.mark.parametrize(("name", "row"), [("a.csv", "1,{}"), ("a.jsonl", '{{"a":"{}"}}')])
def test_rows_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: str) -> None:
    for module in ("_csv_text", "_jsonl"):
        monkeypatch.setattr(f"smkit.sources.{module}.LONGEST_ROW_BYTES", 8 << 20)
    path = write(tmp_path, name, "a,b\n" * name.endswith("csv") + row.format("x" * (30 << 20)))
    with pytest.raises(SourceFormatError, match=rf"{name}: .*longer than the limit of 8 MiB"):
        FileSource(path).read()


def test_a_long_value_is_not_shown_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a,b\n1," + "x" * 100_000 + "\n")
    with pytest.raises(SourceFormatError, match=r"line 2: column 'b' is 'x+\.\.\. \(100,002 characters\)") as caught:
        FileSource(path, column_types={"b": "int64"}).read()
    assert len(str(caught.value)) < 1000


def test_csv_line_breaks_in_quotes(tmp_path: Path) -> None:
    assert columns(write(tmp_path, "a.csv", 'a,b\n1,"x\ny"\r\n2,"z"\n')) == {"a": [1, 2], "b": ["x\ny", "z"]}


def test_declared_types_and_projection(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "zip,price,day\n00123,1.10,2024-01-02\n")
    types = {"zip": "string", "price": pa.decimal128(10, 2), "day": "string"}
    assert columns(path, column_types=types) == {"zip": ["00123"], "price": [Decimal("1.10")], "day": ["2024-01-02"]}
    source = FileSource(path, column_types=types, columns=["day", "zip"])
    assert source.schema() == pa.schema([("day", pa.string()), ("zip", pa.string())])
    assert source.read().to_dict("list") == {"day": ["2024-01-02"], "zip": ["00123"]}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("value", "fix"), [("2.5", "float64"), ("x", "string")])
def test_csv_inference_that_fails_later_says_the_fix(tmp_path: Path, value: str, fix: str) -> None:
    path = write(tmp_path, "a.csv", long("a,price\n", "1,2\n", f"1,{value}\n"))
    with pytest.raises(SourceFormatError, match=rf'a\.csv: .*\'{value}\'.*column_types={{"price": "{fix}"}}'):
        FileSource(path).read()
    with pytest.raises(SourceFormatError, match="'price'"):
        FileSource(path, columns=["price"]).read()
    assert FileSource(path, column_types={"price": fix}).read()["price"].iloc[-1] == (2.5 if fix == "float64" else "x")


def test_csv_declared_type_that_does_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a,b\n1,x\n")
    with pytest.raises(SourceFormatError, match=r"a\.csv: line 2: column 'b' is 'x', but is read as int64, as"):
        FileSource(path, column_types={"b": "int64"}).schema()


@pytest.mark.usefixtures("small_blocks")
def test_csv_values_after_a_block_of_nulls(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", long("a,b\n", "1,\n", "1,7\n"))
    with pytest.raises(SourceFormatError, match=r"'b' is '7', but is read as null, the type that its first rows show"):
        FileSource(path).read()
    assert FileSource(path, column_types={"b": "int64"}).read()["b"].iloc[-1] == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 columns, but the header has 2 columns: quote values that hold"),
        ("a,a\n1,2\n", "column 'a' appears more than once"),
        ("name\né\n".encode("latin-1"), r'line 2: not UTF-8: .*encoding="gb18030".*encoding="latin-1"'),
        ("é,b\n1,2\n".encode("latin-1"), 'line 1: not UTF-8: .*encoding="gb18030"'),
        ("a\tb\n1\t2\n".encode("utf-16"), 'UTF-16: pass encoding="utf-16"'),
        ("a,b\n1,2\n\n1\n", "line 4: 1 column, but the header has 2 columns: write every value"),
        ("a;b\n1;2\n", "the header is one column, 'a;b': pass delimiter=\";\""),
        ("a;b\n1,5;2\n", "the header is one column, 'a;b': pass delimiter=\";\""),
        ("a\tb\n1\t2\n", r'pass delimiter="\\t"'),
        (",a\n0,1\n", "column 1 has no name.*index=False"),
        ("a,b,\n1,2,\n", "column 3 has no name"),
        ("a,,\n1,2,\n", "column 2 has no name"),
        (
            "id,x\n12345678901234567890123,1\n",
            r"'id' holds 12345678901234567890123.*column_types=\{\"id\": \"string\"\}",
        ),
    ],
)
def test_csv_that_cannot_be_read_exactly(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(SourceFormatError, match=rf"a\.csv: .*{message}"):
        FileSource(write(tmp_path, "a.csv", content)).read()


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([f"{i},x" for i in range(5000)], 1001),
        ([f'{i},"x{i}"' for i in range(5000)], 1001),
        ([f'{i},"a ""b"" \r\n c"' for i in range(5000)], 1001 + 999),
        ([f'{i},5" pipe' for i in range(5000)], 1001),
        ([f'"{i}",x' for i in range(5000)], 1001),
    ],
    ids=["to-the-end", "to-the-next-quote", "behind-line-breaks", "behind-text-with-quotes", "to-the-next-row"],
)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_an_unclosed_quote_is_no_value_of_many_rows(tmp_path: Path, name: str, rows: list[str], line: int) -> None:
    rows = [*rows]
    rows[999] = '1000,"oops'
    content = "\n".join(["a,b", *rows, ""]).encode()
    if name.endswith("gz"):
        content = gzip.compress(content[:5000]) + gzip.compress(content[5000:])
    path = write(tmp_path, name, content)
    for use in (FileSource.schema, FileSource.read):
        with pytest.raises(SourceFormatError, match=rf"{name}: line {line}: a quoted value .* close its quote"):
            use(FileSource(path))


def test_two_unclosed_quotes_do_not_make_up_for_each_other(tmp_path: Path) -> None:
    rows = [f"{i},x" for i in range(5000)]
    rows[999], rows[1999] = '999,"oops', '1999,"oops'
    path = write(tmp_path, "a.csv", "\n".join(["a,b", *rows]))
    with pytest.raises(SourceFormatError, match="line 1001: a quoted value opens here"):
        FileSource(path).read()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rows_behind", [10, 300_000])
def test_an_unclosed_quote_behind_the_first_block(tmp_path: Path, rows_behind: int) -> None:
    head = long("a,b\n", '1,"z"\n', '1,"oops\n')
    path = write(tmp_path, "a.csv", head + "2,y\n" * rows_behind)
    with pytest.raises(SourceFormatError, match=rf"line {head.count(chr(10))}: a quoted value opens here"):
        FileSource(path).read()


@pytest.mark.parametrize(
    "text",
    [
        'a,b\n5" pipe,x\n',
        'a,b\n"x ""y""","z\r\n"""""\n',
        '\ufeff"a","b"\n"1","\n"',
        'a,b\n1,"x"y\n2,z\n',
        'a\n"x"\n"\'"\n',
    ],
)
def test_quotes_that_are_all_right(tmp_path: Path, text: str) -> None:
    read = FileSource(write(tmp_path, "a.csv", text), column_types={"a": "string"}).read()
    assert len(read) == len(pd.read_csv(io.StringIO(text.removeprefix("\ufeff")), keep_default_na=False))


@given(st.text('"",\na', max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_the_scanner_sees_the_same_however_the_text_is_cut(text: str, cuts: list[int]) -> None:
    """The reference looks at one character after the other."""
    content = text.encode()

    def outcome(pieces: list[bytes]) -> tuple[int | None, int | None]:
        scanner = QuoteScanner(",")
        for piece in pieces:
            if (line := scanner.feed(piece)) is not None:
                return line, None
        return None, scanner.open_line

    state, line, opened, expected = "start", 1, 0, None
    for char in text:
        if state == "quoted":
            state = "closed" if char == '"' else "quoted"
        elif state == "closed" and char == '"':
            state = "quoted"
        elif state == "closed" and char == "a" and line > opened:
            expected = opened
            break
        elif state == "start" and char == '"':
            state, opened = "quoted", line
        else:
            state = "start" if char in ",\n" else "plain"
        line += char == "\n"
    want = (expected, None) if expected else (None, opened if state == "quoted" else None)
    bounds = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    assert outcome([content[start:end] for start, end in pairwise(bounds)]) == want
    assert outcome([content]) == want


@given(st.text('"",\n\ra', max_size=40), st.lists(st.integers(0, 40), max_size=4))
@example(text='a","""\n', cuts=[])
def test_the_scanner_finds_row_ends_outside_quotes(text: str, cuts: list[int]) -> None:
    """A text may be cut in two only where a row ends: the reference looks at one character after the other."""
    content = text.encode()
    ends, state = set(), "start"
    for at, char in enumerate(text):
        if state == "quoted":
            state = "closed" if char == '"' else "quoted"
        elif char == '"' and state in {"start", "closed"}:
            state = "quoted"
        else:
            state = "start" if char in ",\n\r" else "plain"
            if char in "\n\r" and text[at : at + 2] != "\r\n":
                ends.add(at + 1)
    bounds = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    scanner = QuoteScanner(",")
    for start, end in pairwise(bounds):
        if scanner.feed(content[start:end]) is not None:
            return  # an unclosed quote, which is refused
        if scanner.row_end:
            assert start + scanner.row_end in ends


@pytest.mark.parametrize("quoted", ["{}", '"{}"', '"{},\n{}"', '5" {}', '"{}""",'.rstrip(",")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last_end", [True, False])
def test_csv_rows_are_the_same_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quoted: str, end: str, last_end: bool
) -> None:
    values = [quoted.replace("{}", str(i * 37)) for i in range(500)]
    content = "\ufeff" + end.join(["id,v", *(f"{i},{value}" for i, value in enumerate(values))]) + end * last_end
    path = write(tmp_path, "a.csv", content)
    whole = columns(path, column_types={"v": "string"})
    assert whole["id"] == list(range(500))
    for size in (64, 101, 1000):
        monkeypatch.setattr("smkit.sources._csv.BLOCK_BYTES", size)
        # What types are inferred from is not what this is about.
        assert columns(path, column_types={"id": "int64", "v": "string"}) == whole


@pytest.mark.parametrize("row", ['{i},"x ""y""",5" pipe', '"{i}",""x"","z"'])
def test_odd_quotes_do_not_take_quadratic_time(tmp_path: Path, row: str) -> None:
    text = "a,b,c\n" + "".join(row.format(i=i) + "\n" for i in range(100_000))
    path = write(tmp_path, "a.csv", text)
    assert len(FileSource(path, column_types={"a": "string"}).read()) == 100_000


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "latin-1", "utf-8-sig"])
def test_csv_of_another_encoding(tmp_path: Path, encoding: str) -> None:
    city = "café" if encoding == "latin-1" else "北京"
    rows = SMALL_BLOCK // 4
    text = f"n\t{city}\n" + f'1\t"{city}"\n' * rows
    path = write(tmp_path, "a.csv", text.encode(encoding))
    source = FileSource(path, delimiter="\t", encoding=encoding, columns=[city])
    assert source.read()[city].value_counts().to_dict() == {city: rows}
    assert source.describe()["encoding"] == encoding


def test_csv_that_is_not_in_the_encoding_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a\n北京\n".encode("gb18030") + b"\xff\xff\n")
    with pytest.raises(SourceFormatError, match=r"a\.csv: line 3: the text is not gb18030"):
        FileSource(path, encoding="gb18030").read()


def test_a_declared_text_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"a,b\n1,x\n2,\xff\n")
    with pytest.raises(SourceFormatError, match=r"a\.csv: line 3: not UTF-8: pass the encoding"):
        FileSource(path, column_types={"b": "string"}).read()


def test_one_column_in_quotes_may_hold_a_delimiter(tmp_path: Path) -> None:
    assert columns(write(tmp_path, "a.csv", '"a;b"\n1\n')) == {"a;b": [1]}


def test_a_column_without_a_name_can_be_left_out(tmp_path: Path) -> None:
    pd.DataFrame({"a": [5, 6]}).to_csv(tmp_path / "a.csv")
    assert columns(tmp_path / "a.csv", columns=["a"]) == {"a": [5, 6]}


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b'{"":1,"a":2}\n'), ("a.parquet", parquet(pa.table({"": [1], "a": [2]})))],
)
def test_a_column_without_a_name_is_refused_in_every_format(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(SourceFormatError, match=rf"{name}: column 1 has no name"):
        FileSource(write(tmp_path, name, content)).read()


def test_options_of_csv_are_refused_for_other_formats(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"a":1}\n')
    with pytest.raises(ConfigError, match="delimiter is ';', but the format is jsonl"):
        FileSource(path, delimiter=";").read()
    with pytest.raises(ConfigError, match="encoding is 'gbk', but the format is parquet"):
        FileSource("x", format="parquet", encoding="gbk")


def test_what_is_no_path_gets_the_source_that_reads_it() -> None:
    with pytest.raises(ConfigError, match=r"not DataFrame: use FrameSource"):
        FileSource(pd.DataFrame({"a": [1]}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not int: pass a file, a folder or a glob"):
        FileSource(["a.csv", 1])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"empty list: pass at least one file"):
        FileSource([])
    with pytest.raises(ConfigError, match=r"use S3Source\('s3://bucket/a\.csv'\)"):
        FileSource("s3://bucket/a.csv")


def test_csv_big_integers_can_be_declared(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "id\n12345678901234567890123\n")
    declared = {"id": pa.decimal128(38, 0)}
    assert columns(path, column_types=declared) == {"id": [Decimal(12345678901234567890123)]}


def test_csv_of_a_header_only_has_columns_and_no_rows(tmp_path: Path) -> None:
    source = FileSource(write(tmp_path, "a.csv", "a,b\n"))
    assert list(source.batches()) == []
    assert list(source.read().columns) == ["a", "b"]


# --- compression -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.jsonl.gz", "A.CSV.GZ"])
def test_compressed_text(tmp_path: Path, name: str) -> None:
    text = b"a\n1\n2\n" if "csv" in name.lower() else b'{"a":1}\n{"a":2}\n'
    pack = bz2.compress if name.endswith("bz2") else gzip.compress
    assert columns(write(tmp_path, name, pack(text))) == {"a": [1, 2]}


def test_gzip_of_several_members(tmp_path: Path) -> None:
    content = gzip.compress(b"a\n1\n") + gzip.compress(b"2\n")
    assert columns(write(tmp_path, "a.csv.gz", content)) == {"a": [1, 2]}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_truncated_compressed_file_is_no_short_read(tmp_path: Path, name: str) -> None:
    # Random text, so that the cut is behind the block that the schema comes from.
    noise = np.random.default_rng(0).bytes(2 * SMALL_BLOCK).hex()
    rows = [noise[i : i + 100] for i in range(0, len(noise), 100)]
    text = "a\n" + "\n".join(rows) if "csv" in name else "\n".join(f'{{"a":"{row}"}}' for row in rows)
    path = write(tmp_path, name, gzip.compress(text.encode(), compresslevel=1)[:-1000])
    with pytest.raises(SourceFormatError, match=rf"{name}.*[Tt]runcated"):
        FileSource(path, column_types={"a": "string"}).read()


def test_what_is_no_gzip(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"a\.csv\.gz"):
        FileSource(write(tmp_path, "a.csv.gz", b"a\n1\n")).read()


# --- JSON lines --------------------------------------------------------------------------------------------------


def test_jsonl_types_nulls_and_missing_fields(tmp_path: Path) -> None:
    text = (
        '{"b":"2024-01-01","a":1,"l":[1,null],"s":{"x":"2024-01-01"}}\n\n'
        '{"a":null,"b":""}\n{"b":null,"a":9007199254740993}'
    )
    path = write(tmp_path, "a.jsonl", text)
    assert columns(path) == {
        "b": ["2024-01-01", "", None],
        "a": [1, None, 9007199254740993],
        "l": [[1, None], None, None],
        "s": [{"x": "2024-01-01"}, None, None],
    }


def test_jsonl_keeps_the_order_of_columns_beside_declared_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '{"a":1,"day":"2024-01-01"}\n')
    source = FileSource(path, column_types={"day": "timestamp[s]", "late": "int64"})
    assert source.schema() == pa.schema([("a", pa.int64()), ("day", pa.timestamp("s")), ("late", pa.int64())])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("last", "message"),
    [
        ('{"a":1.5}\n', r'"a": "float64"'),
        ('{"a":"x"}\n', r"'a' is 'x'.*write all its values as JSON strings"),
        ('{"a":true}\n', r"column 'a' is True"),
        ('{"a":1,"z":3}\n', r"column 'z' is new.*\"z\": \"int64\""),
        ('{"a":1,"z":null}\n', r"column 'z' is new.*\"z\": \"string\""),
        ('{"a":1,"t":5}', r"'t' is 5.*write all its values as JSON strings"),
        ('{"a":', "is not JSON"),
        ("[1]\n", "is not a JSON object"),
    ],
)
def test_jsonl_that_deviates_later_names_line_column_and_fix(tmp_path: Path, last: str, message: str) -> None:
    text = long("", '{"a":1,"t":"2024-01-01"}\n', last)
    path = write(tmp_path, "a.jsonl", text)
    line = text.rstrip("\n").count("\n") + 1
    with pytest.raises(
        SourceFormatError, match=rf"a\.jsonl: line {line}:? .*{message}|a\.jsonl: line {line}: .*{message}"
    ):
        FileSource(path).read()


@pytest.mark.usefixtures("small_blocks")
def test_jsonl_new_fields_can_be_declared_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", long("", '{"a":1}\n', '{"a":1,"z":3}\n'))
    assert FileSource(path, column_types={"z": "int64"}).read()["z"].iloc[-1] == 3
    assert list(FileSource(path, columns=["a"]).read().columns) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ('[{"a":1}]', r"JSON array.*jq -c"),
        ('{"a":12345678901234567890123}', "12345678901234567890123, an integer that a float would round"),
        (b'{"a":"\xe9"}', "line 1 is not JSON in UTF-8"),
        ('{"a":1,"a":2}', "twice"),
        ('\n{"a":1} {"a":2}\n', r"line 2 is not one JSON object .*one object a line is expected.*jq -c"),
        ('{\n  "a": 1\n}\n', "line 1 is not one JSON object"),
        ('{"a":0.5}\n{"a":1234567890123456} {"a":12345678901234567}\n', "line 2 is not one JSON object"),
    ],
)
def test_jsonl_that_cannot_be_read_exactly(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(SourceFormatError, match=rf"a\.jsonl: .*{message}"):
        FileSource(write(tmp_path, "a.jsonl", content)).read()


@pytest.mark.usefixtures("small_blocks")
def test_jsonl_lines_longer_than_a_block(tmp_path: Path) -> None:
    text = "x" * (SMALL_BLOCK + 10)
    path = write(tmp_path, "a.jsonl", f'{{"a":"{text}"}}\n{{"a":"y"}}\n')
    assert columns(path) == {"a": [text, "y"]}


# --- Parquet -----------------------------------------------------------------------------------------------------


def test_parquet_keeps_types_and_drops_encodings(tmp_path: Path) -> None:
    table = pa.table(
        {
            "c": pa.array(["a", "b"]).dictionary_encode(),
            "l": pa.array(["x", None], pa.large_string()),
            "d": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
            "t": pa.array([1, None], pa.timestamp("ns", "UTC")),
        }
    )
    source = FileSource(write(tmp_path, "a.parquet", parquet(table)))
    plain = [("c", pa.string()), ("l", pa.string()), ("d", pa.decimal128(9, 2)), ("t", pa.timestamp("ns", "UTC"))]
    assert source.schema().equals(pa.schema(plain), check_metadata=True)
    assert pa.Table.from_batches(source.batches()).to_pydict() == table.to_pydict()


def test_parquet_of_pandas_loses_an_unnamed_index_and_keeps_a_named_one(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    frame[frame["a"] > 1].to_parquet(tmp_path / "unnamed.pq")
    frame.set_axis(pd.Index([7, 8, 9], name="k")).to_parquet(tmp_path / "named.pq")
    assert FileSource(tmp_path / "unnamed.pq").read().to_dict("list") == {"a": [2, 3]}
    assert FileSource(tmp_path / "named.pq").read().to_dict("list") == {"a": [1, 2, 3], "k": [7, 8, 9]}


def test_parquet_declared_types_are_checked_casts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.parquet", parquet(pa.table({"x": [1, 300]})))
    assert columns(path, column_types={"x": "float64"}) == {"x": [1.0, 300.0]}
    with pytest.raises(SourceFormatError, match=r"a\.parquet: column 'x' of type int64 cannot be read as int8"):
        FileSource(path, column_types={"x": "int8"}).read()


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1", parquet(pa.table({"x": range(1000)}))[:-20]])
def test_damaged_parquet(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceFormatError, match=r"a\.parquet: "):
        FileSource(write(tmp_path, "a.parquet", content)).read()


# --- several files -----------------------------------------------------------------------------------------------


def test_a_folder_in_the_order_of_names_without_hidden_and_foreign_files(tmp_path: Path) -> None:
    for name, content in {
        "b.csv": "a\n2\n",
        "a.csv": "a\n1\n",
        "sub/c.csv.gz": gzip.compress(b"a\n3\n"),
        "_SUCCESS": "",
        ".part.csv": "broken",
        "_tmp/x.csv": "broken",
        "README.md": "broken",
    }.items():
        write(tmp_path, f"data/{name}", content)
    assert columns(tmp_path / "data") == {"a": [1, 2, 3]}


def test_a_glob(tmp_path: Path) -> None:
    for month in (1, 2, 3):
        write(tmp_path, f"raw/2026-0{month}.csv", f"a\n{month}\n")
    assert columns(tmp_path / "raw" / "2026-0[12].csv") == {"a": [1, 2]}
    assert columns(str(tmp_path / "**" / "*-03.csv")) == {"a": [3]}


def test_types_of_several_files_are_joined_where_nothing_is_lost(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "a,b\n,x\n")
    write(tmp_path, "b.csv", "b,a\ny,5\n")
    assert columns(tmp_path) == {"a": [None, 5], "b": ["x", "y"]}
    for name, width in (("a", pa.int32()), ("b", pa.int64()), ("c", pa.int8())):
        write(tmp_path, f"wide/{name}.parquet", parquet(pa.table({"x": pa.array([1], width)})))
    assert FileSource(tmp_path / "wide").schema() == pa.schema([("x", pa.int64())])


def test_types_of_several_files_that_would_lose_something_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "price\n1\n")
    write(tmp_path, "b.csv", "price\n1.5\n")
    with pytest.raises(
        SourceFormatError, match=r"b\.csv: column 'price' is double, but int64 in .*a\.csv: .*\"price\": \"float64\""
    ):
        FileSource(tmp_path).read()
    assert columns(tmp_path, column_types={"price": "float64"}) == {"price": [1.0, 1.5]}


def test_columns_that_one_file_lacks_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "a,b\n1,2\n")
    write(tmp_path, "b.csv", "a\n1\n")
    with pytest.raises(SourceFormatError, match=r"b\.csv: column 'b' is missing, but .*a\.csv has it"):
        FileSource(tmp_path).read()
    assert columns(tmp_path, columns=["a"]) == {"a": [1, 1]}


def test_several_formats_need_a_choice(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "a\n1\n")
    write(tmp_path, "b.jsonl", '{"a":2}\n')
    with pytest.raises(SourceFormatError, match=r"several formats: csv .*jsonl"):
        FileSource(tmp_path).read()
    assert columns(tmp_path, format="jsonl") == {"a": [2]}


# --- what is not there, and arguments ----------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("nope.csv", "no such file or folder"),
        (tmp_path / "*.csv", "no file matches"),
        (tmp_path / "empty", "the folder has no data file"),
    ):
        for use in (FileSource.read, FileSource.schema, FileSource.describe):
            with pytest.raises(SourceNotFound, match=message):
                use(FileSource(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a\n1\n")
    path.chmod(0)
    for use in (FileSource.read, FileSource.describe):
        with pytest.raises(SourceError, match="Permission denied"):
            use(FileSource(path))


def test_an_unknown_extension_needs_a_format(tmp_path: Path) -> None:
    path = write(tmp_path, "export.txt", "a\n1\n")
    with pytest.raises(SourceFormatError, match=r"export\.txt: the extension says no format: pass format="):
        FileSource(path).read()
    assert columns(path, format="csv") == {"a": [1]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "cvs"}, "unknown format 'cvs'; did you mean 'csv'"),
        ({"column_types": {"a": "strng"}}, r"column_types\['a'\] is 'strng'"),
        ({"column_types": {"a": str}}, r"column_types\['a'\] is <class 'str'>: write 'string'"),
        ({"column_types": {"a": float}}, r"column_types\['a'\] is <class 'float'>: write 'float64'"),
        ({"column_types": {"a": "float"}}, r"column_types\['a'\] is 'float': write 'float64'"),
        ({"column_types": {"a": "int"}}, r"column_types\['a'\] is 'int': write 'int64'"),
        ({"column_types": {"a": None}}, r"column_types\['a'\] is None: it must be a pyarrow type"),
        ({"column_types": ["a"]}, "column_types is list, but must map columns to types"),
        ({"delimiter": ";;"}, "delimiter is ';;'"),
        ({"delimiter": "\n"}, "one ASCII character"),
        ({"delimiter": "，"}, "one ASCII character"),
        ({"encoding": "gb"}, "encoding is 'gb'"),
        ({"encoding": "base64"}, "encoding is 'base64'"),
        ({"encoding": None}, "encoding is None"),
        ({"columns": "a"}, "columns is 'a'"),
        ({"columns": []}, r"columns is \[\]"),
        ({"columns": ["a", "a"]}, "different"),
    ],
)
def test_bad_arguments_fail_before_any_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FileSource("x.csv", **options)


@pytest.mark.parametrize("options", [{"columns": ["prize"]}, {"column_types": {"prize": "string"}}])
def test_columns_that_do_not_exist_are_named(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"names 'prize'.*did you mean 'price'"):
        FileSource(write(tmp_path, "a.csv", "price\n1\n"), **options).read()


def test_describe_names_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a\n1\n")
    before = FileSource(path).describe()
    assert before["files"] == [{"name": path.as_posix(), "size": 4, "sha256": hashlib.sha256(b"a\n1\n").hexdigest()}]
    os.utime(path, (1, 1))
    assert FileSource(path).describe() == before
    path.write_text("a\n2\n")
    assert FileSource(path).describe() != before


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_memory_stays_flat(tmp_path: Path, format_: str) -> None:
    """Four times the rows must not take more memory."""
    text = pa.array([f"{i:064d}" for i in range(20_000)])
    small = pa.table({"i": range(20_000), "s": text})

    def content(table: pa.Table) -> bytes:
        if format_ == "parquet":
            return parquet(table, row_group_size=10_000)
        rows = zip(table["i"].to_pylist(), table["s"].to_pylist(), strict=True)
        if format_ == "csv":
            return ("i,s\n" + "".join(f'{i},"{s}"\n' for i, s in rows)).encode()
        return "".join(f'{{"i":{i},"s":"{s}"}}\n' for i, s in rows).encode()

    def arrow_peak(path: Path) -> int:
        pa.default_memory_pool().release_unused()
        peak = 0
        for batch in FileSource(path).batches(batch_size=1000):
            peak = max(peak, pa.total_allocated_bytes() + batch.nbytes)
        return peak

    paths = [write(tmp_path, f"{n}.{format_}", content(pa.concat_tables([small] * n))) for n in (4, 16)]
    few, many = (arrow_peak(path) for path in paths)
    assert many < few * 1.5 + (4 << 20)


# --- numbers that are no float -----------------------------------------------------------------------------------

ROUNDED = "9007199254740993"


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_a_large_integer_behind_the_first_block_is_not_rounded(tmp_path: Path, format_: str) -> None:
    values = ["1.5", *["0.25"] * 1_100_000, ROUNDED]
    text = "x\n" + "\n".join(values) if format_ == "csv" else "\n".join(f'{{"x":{value}}}' for value in values)
    path = write(tmp_path, f"x.{format_}", text + "\n")
    with pytest.raises(SourceFormatError, match=f"column 'x' holds {ROUNDED}, an integer that a float would round"):
        columns(path)
    [(pinned, _)] = FileSource(path).file_by_file(FileSource(path).describe())
    with pytest.raises(SourceFormatError, match=ROUNDED):
        list(pinned.batches())
    assert columns(path, column_types={"x": "float64"})["x"][-1] == float(ROUNDED)


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        ('{"a":{"id":%s}}\n{"a":{"id":1.5}}', "a.id"),
        ('{"a":[%s,1.5]}', "a"),
        ('{"a":[{"b":[1.5]},{"b":[%s]}]}', "a.b"),
        ('{"a":[null,{"b":0.5}]}\n{"a":null}\n{"a":[{"b":1.5},{"b":-%s}]}', "a.b"),
    ],
)
def test_a_large_integer_inside_is_not_rounded(tmp_path: Path, rows: str, column: str) -> None:
    with pytest.raises(SourceFormatError, match=f"column '{column}' holds -?{ROUNDED}, an integer that"):
        columns(write(tmp_path, "x.jsonl", f"{rows % ROUNDED}\n"))


@pytest.mark.parametrize("options", [{}, {"column_types": {"x": "float64"}}])
def test_csv_beyond_the_range_of_a_float_is_no_infinity(tmp_path: Path, options: Any) -> None:
    with pytest.raises(SourceFormatError, match="'-1e400', which is beyond the range of a float"):
        columns(write(tmp_path, "x.csv", "x\n1.5\n-1e400\n"), **options)
    assert columns(write(tmp_path, "y.csv", "x\n1.5\ninf\n1e20\n"), **options)["x"] == [1.5, float("inf"), 1e20]
