"""Building and reading back: the same rows give the same bytes, and every value comes back."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import hashlib
import io
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smkit import Dataset, DatasetBuilder, DatasetStore, FileSource, FrameSource, S3Source, Settings
from smkit.datasets import writing
from smkit.errors import (
    ConfigError,
    DatasetError,
    EmptyResultError,
    IntegrityError,
    InvalidNameError,
    MissingColumnError,
    SourceError,
    VersionNotFound,
    WideDecimalWarning,
)
from tests.datasets.conftest import BatchSource, TableSource, files_below, wall

if TYPE_CHECKING:
    from collections.abc import Callable

D = decimal.Decimal
UTC = dt.timezone.utc
TEXT = [
    "",
    " ",
    "NA",
    "null",
    "a,b",
    'say "hi"',
    "two\nlines",
    "cr\r\nlf",
    "\r",
    "北京",
    "😀",
    "'",
    "\\n",
    "\x00",
    None,
]


def build(source: Any, settings: Settings, **kwargs: Any) -> Dataset:
    if isinstance(source, pa.Table):
        source = TableSource(source)
    return DatasetBuilder("houses", source, settings).build(**kwargs)


def instants(kind: pa.DataType, *values: int | None) -> pa.Array:
    return pa.array(values, pa.int64()).cast(kind)


PLAIN: dict[str, pa.Array] = {
    "text": pa.array(TEXT),
    "int64 beyond 2^53": pa.array([2**53 + 1, None, -(2**63), 2**63 - 1]),
    "int8": pa.array([-128, 127, None], pa.int8()),
    "uint64": pa.array([0, 2**64 - 1, None], pa.uint64()),
    "bool": pa.array([True, False, None]),
    "float64": pa.array([0.1, -0.0, 1e300, 5e-324, float("inf"), float("-inf"), None]),
    "float32": pa.array([0.1, 3.4e38, None], pa.float32()),
    "decimal": pa.array([D("0.10"), D("-12345678901234567890.12"), None]),
    "date": pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31), None]),
    "timestamp[s]": instants(pa.timestamp("s"), -1, 0, 1769851800, None),
    "timestamp[ns]": instants(pa.timestamp("ns"), -1, 1, 1769851800123456789, None),
    "timestamptz": instants(pa.timestamp("us", "Asia/Shanghai"), -1, 1, 1769851800123456, None),
    "timestamptz offset": instants(pa.timestamp("ms", "+05:30"), -1, 1769851800123, None),
    "time": pa.array([dt.time(0, 0, 0, 1), dt.time(23, 59, 59), None], pa.time64("us")),
    "time[s]": pa.array([dt.time(0, 0, 1), dt.time(23, 59, 59), None], pa.time32("s")),
    "null": pa.nulls(3),
}
NESTED: dict[str, pa.Array] = {
    "binary": pa.array([b"", b"\x00\xff", None]),
    "fixed binary": pa.array([b"ab", b"\x00\x00", None], pa.binary(2)),
    "list": pa.array([[1, None], [], None]),
    "list of struct": pa.array([[{"a": 1, "b": "x"}], [None], None]),
    "struct": pa.array([{"a": [1.5], "b": None}, {"a": None, "b": {"c": 1}}, None]),
    "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "duration": pa.array([1, -1, None], pa.int64()).cast(pa.duration("us")),
    "decimal256": pa.array([D(10) ** 50, None], pa.decimal256(60, 3)),
}


@pytest.mark.filterwarnings("ignore::smkit.errors.WideDecimalWarning")
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("file_format", "name"),
    [("parquet", name) for name in {**PLAIN, **NESTED}] + [("csv", name) for name in PLAIN],
)
def test_every_type_comes_back(file_format: str, name: str, alone: bool, settings: Settings) -> None:
    column = {**PLAIN, **NESTED}[name]
    table = pa.table({name: column} if alone else {"id": range(len(column)), name: column})
    dataset = build(table, settings, format=file_format, batch_size=2)
    read = dataset.read_arrow("train")
    assert read.schema == dataset.schema == table.schema
    assert read.equals(table)
    assert dataset.rows == {"train": len(column)}


def test_nan_is_kept_in_both_formats(settings: Settings) -> None:
    table = pa.table({"x": [1.0, float("nan"), None]})
    for file_format in ("parquet", "csv"):
        (one, nan, missing) = build(table, settings, format=file_format).read_arrow()["x"].to_pylist()
        assert (one, missing) == (1.0, None)
        assert nan != nan


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.text(),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.booleans(),
            st.none() | st.datetimes(wall(1700, 1, 1), wall(2200, 1, 1)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_rows_come_back(rows: list[Any], file_format: str, settings: Settings) -> None:
    kinds = [pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", "UTC")]
    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    table = pa.table(arrays, names=["t", "i", "f", "b", "w"])
    assert build(table, settings, format=file_format, batch_size=3).read_arrow().equals(table)


NAMES = ["a b", "a.b", "a", "ü", "北京", 'q"q', "a,b", "x\ny", "", " lead", "SELECT", "a=1", "part-00000", "1"]


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_odd_column_names_come_back(file_format: str, settings: Settings) -> None:
    table = pa.table({name: [number, None] for number, name in enumerate(NAMES)})
    dataset = build(table, settings, format=file_format)
    assert dataset.read_arrow().equals(table)
    for name in NAMES:
        assert dataset.read(columns=[name]).columns.tolist() == [name]
    assert dataset.read_arrow("train", columns=["a=1", "a"]).column_names == ["a=1", "a"]


def test_frames_come_back_as_they_were(settings: Settings) -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", "", None],
            "count": pd.array([1, None, 2**60 + 1], "Int64"),
            "flag": pd.array([True, None, False], "boolean"),
            "price": [0.5, None, 2.0],
            "when": pd.to_datetime(["2026-01-31", None, "2026-02-01"]).tz_localize("Asia/Shanghai"),
            "kind": pd.Categorical(["x", "y", "x"]),
        },
        index=[7, 5, 3],
    )
    dataset = build(FrameSource(frame), settings)
    read = dataset.read("train")
    assert read.index.tolist() == [0, 1, 2]
    expected = frame.reset_index(drop=True).astype({"kind": read["kind"].dtype})
    pd.testing.assert_frame_equal(read, expected)


def test_what_csv_cannot_hold_is_refused(settings: Settings) -> None:
    for name, column in NESTED.items():
        with pytest.raises(
            DatasetError, match=f"column '{name}' has type .*, which CSV cannot hold: use format='parquet'"
        ):
            build(pa.table({name: column}), settings, format="csv")
    with pytest.raises(DatasetError, match="column 'x' has type month_day_nano_interval, which Parquet cannot hold"):
        build(pa.table({"x": pa.array([pa.MonthDayNano([1, 2, 3])])}), settings)
    assert DatasetStore(settings).names() == []


def test_a_csv_row_may_be_long(settings: Settings) -> None:
    table = pa.table({"id": [1, 2], "text": ["x" * 3_000_000, "y"]})
    assert build(table, settings, format="csv").read_arrow().equals(table)


def test_csv_is_what_a_training_script_expects(settings: Settings, tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "city": ["a", None], "flag": [True, False], "price": [0.5, None]})
    split = build(table, settings, format="csv")["train"]
    split.download(tmp_path / "channel")
    assert (tmp_path / "channel" / "part-00000.csv").read_text() == (
        '"id","city","flag","price"\n1,"a",true,0.5\n2,,false,\n'
    )
    read = pd.read_csv(tmp_path / "channel" / "part-00000.csv")
    assert read["flag"].dtype == bool
    assert read["price"].isna().tolist() == [False, True]


def test_instants_in_csv_are_utc(settings: Settings) -> None:
    table = pa.table({"when": instants(pa.timestamp("s", "Europe/Berlin"), 1_767_225_600, 1_782_864_000)})
    dataset = build(table, settings, format="csv")
    (path,) = Path(dataset["train"].uri).iterdir()
    assert path.read_text().splitlines() == ['"when"', "2026-01-01 00:00:00Z", "2026-07-01 00:00:00Z"]
    assert pd.read_csv(path, parse_dates=["when"])["when"].dt.tz is not None
    assert dataset.read_arrow().equals(table)


def varied(rows: int = 5000) -> pa.Table:
    rng = np.random.default_rng(2)
    return pa.table(
        {
            "id": np.arange(rows),
            "price": pa.array(rng.random(rows), mask=rng.random(rows) < 0.1),
            "city": pa.array([f"city {number % 97}" if number % 13 else None for number in range(rows)]),
            "tags": pa.array([[number % 3] * (number % 4) for number in range(rows)]),
            "when": pa.array(rng.integers(0, 10**9, rows), pa.timestamp("ms")),
        }
    )


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_the_bytes_do_not_depend_on_how_the_rows_came(
    file_format: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 512)
    monkeypatch.setattr(writing, "ROWS_PER_PART", 1024)
    table = varied()
    table = table if file_format == "parquet" else table.drop_columns(["tags"])
    chunks = pa.concat_tables([table.slice(0, 1), table.slice(1, 1999), table.slice(2000)])
    encoded = table.set_column(2, "city", table["city"].dictionary_encode())
    large = table.set_column(2, "city", table["city"].cast(pa.large_string()))
    described = table.replace_schema_metadata({"pandas": "{}", "note": "x"})
    required = table.cast(
        pa.schema(
            [
                pa.field(field.name, field.type, nullable=field.name not in {"id", "when"}, metadata={"a": "b"})
                for field in table.schema
            ]
        )
    )
    sources = [TableSource(each) for each in (chunks, encoded, large, described, required)]
    sources += [BatchSource(encoded.slice(0, 100), table.slice(100))]
    if file_format == "parquet":
        element = pa.list_(pa.field("element", pa.int64(), nullable=True))
        sources.append(TableSource(table.set_column(3, "tags", table["tags"].cast(element))))
    made = {build(source, settings, format=file_format).digest for source in sources}
    made |= {
        build(table, settings, format=file_format, batch_size=size).digest
        for size in (1, 7, 511, 512, 513, 5000, 10**6)
    }
    assert len(made) == 1
    assert [dataset.version for dataset in DatasetStore(settings).versions("houses")] == [1]


def test_the_bytes_do_not_depend_on_the_index_of_pandas(settings: Settings) -> None:
    frame = pd.DataFrame({"a": range(100), "b": [f"{number}" for number in range(100)]})
    moved = frame.set_index(pd.Index(range(900, 1000)))
    assert build(FrameSource(frame), settings).digest == build(FrameSource(moved), settings).digest


def test_parts_and_row_groups_have_fixed_sizes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 100)
    monkeypatch.setattr(writing, "ROWS_PER_PART", 300)
    table = varied(750)
    dataset = build(table, settings, batch_size=64)
    files = [pyarrow.parquet.ParquetFile(path) for path in sorted(Path(dataset["train"].uri).iterdir())]
    groups = [[file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)] for file in files]
    assert groups == [[100, 100, 100], [100, 100, 100], [100, 50]]
    assert dataset.read_arrow().equals(table)
    text = build(table.drop_columns(["tags"]), settings, format="csv", batch_size=64)
    assert [file.path for file in text.manifest.files] == [f"train/part-0000{n}.csv" for n in range(3)]
    assert text.read_arrow().equals(table.drop_columns(["tags"]))


def test_an_exact_number_of_parts_leaves_no_empty_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 100)
    monkeypatch.setattr(writing, "ROWS_PER_PART", 300)
    assert len(build(varied(600), settings).manifest.files) == 2


def test_parquet_is_what_pyarrow_1_0_reads(settings: Settings) -> None:
    """Data pages of version 1, and only the encodings and the codec that pyarrow 1.0 knows (it was tried)."""
    table = pa.table({name.replace(" ", "_"): column.slice(0, 2) for name, column in {**PLAIN, **NESTED}.items()})
    dataset = build(table.drop_columns(["decimal256"]), settings)
    (path,) = Path(dataset["train"].uri).iterdir()
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    assert metadata.format_version in {"2.6", "2.4"}
    for number in range(metadata.num_columns):
        column = metadata.row_group(0).column(number)
        assert column.compression == "ZSTD"
        allowed = {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}
        # Of these it cannot read NULLs.
        if column.physical_type in {"FLOAT", "DOUBLE"} and column.statistics.null_count == 0:
            allowed.add("BYTE_STREAM_SPLIT")
        assert set(column.encodings) <= allowed
    assert b"pandas" not in (metadata.metadata or {})


def test_types_that_only_new_readers_know_are_stored_as_plain_ones(settings: Settings) -> None:
    table = pa.table(
        {
            "half": pa.array(np.array([1.5, 2.5], np.float16)),
            "large": pa.array(["a", None], pa.large_string()),
            "fixed": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
            "coded": pa.array(["a", None]).dictionary_encode(),
            "items": pa.array([["a"], None], pa.large_list(pa.large_string())),
            "pair": pa.array([{"x": b"1"}, None], pa.struct([("x", pa.large_binary())])),
        }
    )
    dataset = build(table, settings)
    assert [str(kind) for kind in dataset.schema.types] == [
        "float",
        "string",
        "list<item: int8>",
        "string",
        "list<item: string>",
        "struct<x: binary>",
    ]
    assert dataset.read_arrow().to_pylist() == table.to_pylist()


def test_the_bytes_of_floats_are_split_where_no_row_lacks_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the NULL is: in another split or part, or in rows that no step leaves."""
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 100)
    monkeypatch.setattr(writing, "ROWS_PER_PART", 200)
    numbers = np.random.default_rng(0).normal(size=1000)
    gap = np.arange(1000) == 999
    table = pa.table(
        {
            "id": range(1000),
            "a": numbers,
            "b": numbers.astype("f4"),
            "late": pa.array(numbers, mask=gap),
            "dropped": pa.array(numbers, mask=np.arange(1000) == 0),
            "x.y": numbers,
            "x": pa.array([{"y": None}] * 1000, pa.struct([("y", pa.float64())])),
        }
    )
    builder = DatasetBuilder("houses", TableSource(table), settings).clean(drop_missing="dropped").split(test=0.3)
    versions = [builder.build(batch_size=size) for size in (7, 64, 1000)]
    assert len({version.digest for version in versions}) == 1
    for file in versions[0].manifest.files:
        group = pyarrow.parquet.ParquetFile(Path(versions[0].uri) / file.path).metadata.row_group(0)
        columns = [group.column(number) for number in range(group.num_columns)]
        split = [column.path_in_schema for column in columns if "BYTE_STREAM_SPLIT" in column.encodings]
        assert split == ["a", "b", "dropped"]
    assert versions[0].read_arrow().sort_by("id").equals(table.slice(1))


@pytest.mark.parametrize(
    "kind", [pa.decimal256(76, 38), pa.list_(pa.decimal256(39, 2)), pa.struct([("x", pa.decimal256(39, 2))])], ids=str
)
def test_decimals_that_the_oldest_image_cannot_read_are_warned_of(kind: pa.DataType, settings: Settings) -> None:
    table = pa.table({"id": [1], "mean": pa.nulls(1, kind), "n": pa.nulls(1, pa.decimal256(40, 0))})
    fix = r"round\(\"mean\", 10\)::numeric\(38, 10\), or read with numeric=\"float\""
    with pytest.warns(WideDecimalWarning, match=rf"'mean' has type .*and 1 more columns.*0\.23-1.*{fix}") as caught:
        dataset = DatasetBuilder("houses", TableSource(table), settings).build()
    assert caught[0].filename == __file__
    assert dataset.read_arrow().equals(table)
    narrow = table.select(["id"]).append_column("mean", pa.nulls(1, pa.decimal128(38, 10)))
    DatasetBuilder("flats", TableSource(narrow), settings).build()  # a warning would be an error


@pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 18, reason="this pyarrow cannot cast views")
def test_views_are_stored_as_plain_text(settings: Settings) -> None:
    dataset = build(pa.table({"view": pa.array(["a", None], pa.string_view())}), settings)
    assert dataset.read_arrow().equals(pa.table({"view": ["a", None]}))


def test_the_manifest_says_everything(settings: Settings) -> None:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(z=frame["price"] * 2)

    builder = DatasetBuilder("houses", TableSource(varied(1000)), settings)
    dataset = builder.clean(drop_missing="price").map(change).split(test=0.25, by="id", seed=5).build()
    manifest = dataset.manifest
    assert (manifest.kind, manifest.name, manifest.version, dataset.ref) == ("datasets", "houses", 1, "houses@1")
    body = json.loads(manifest.encode())["body"]
    assert body["format"] == "parquet"
    assert body["schema"][:2] == [{"name": "id", "type": "int64"}, {"name": "price", "type": "double"}]
    assert pa.ipc.read_schema(pa.py_buffer(base64.b64decode(body["arrow_schema"]))) == dataset.schema
    assert body["source"] == {"type": "table", "rows": 1000, "rows_read": 1000}
    assert body["steps"][0] == {"step": "clean", "drop_missing": ["price"], "drop_duplicates": []}
    assert body["steps"][1]["function"] == "test_the_manifest_says_everything.<locals>.change"
    assert len(body["steps"][1]["code_sha256"]) == 64
    fractions = {"train": 0.75, "test": 0.25}
    assert body["split"] == {"method": "hash", "columns": ["id"], "fractions": fractions, "seed": 5}
    assert body["environment"]["packages"]["pyarrow"] == pa.__version__
    total = 0
    for file in manifest.files:
        data = (Path(dataset.uri) / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        split = file.path.partition("/")[0]
        assert body["splits"][split] == {"rows": dataset.rows[split], "bytes": file.size}
        total += pyarrow.parquet.read_metadata(io.BytesIO(data)).num_rows
    assert total == sum(dataset.rows.values()) == int(varied(1000)["price"].is_valid().to_numpy().sum())


def test_the_same_content_is_the_same_version(settings: Settings) -> None:
    table = varied(300)
    one = build(table, settings)
    assert build(BatchSource(table), settings) == one  # another source, another day: the same rows
    other = build(table.slice(1), settings)
    assert (other.version, other.digest != one.digest) == (2, True)
    assert build(table, settings).version == 1
    assert build(table.drop_columns(["tags"]), settings, format="csv").version == 3
    assert build(table.rename_columns(["i", *table.column_names[1:]]), settings).version == 4
    again = DatasetBuilder("flats", TableSource(table), settings).build()
    assert (again.ref, again.digest) == ("flats@1", one.digest)
    assert again != one
    split = DatasetBuilder("houses", TableSource(table), settings).split(test=0.5).build()
    assert split.version == 5
    assert len(files_below(Path(str(settings.root)) / "datasets" / "houses" / "data")) == 5 * 3 + 2
    assert len({one, build(table, settings), other}) == 2


@pytest.mark.parametrize("damage", ["changed", "missing", "shorter"])
def test_a_damaged_version_is_built_anew(damage: str, settings: Settings) -> None:
    builder = DatasetBuilder("houses", TableSource(pa.table({"x": range(50)})), settings).split(test=0.2)
    first = builder.build()
    part = next((Path(first.uri) / "train").iterdir())
    whole = part.read_bytes()
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(whole[:-1] + (bytes([whole[-1] ^ 1]) if damage == "changed" else b""))

    again = builder.build()
    assert (again.ref, again.digest) == ("houses@2", first.digest)
    again.verify()
    assert builder.build().ref == "houses@2"


def test_a_builder_shows_what_it_will_do(settings: Settings) -> None:
    def double(rows: pd.DataFrame) -> pd.DataFrame:
        return rows * 2

    builder = DatasetBuilder("houses", FrameSource(pd.DataFrame({"x": [1]})), settings)
    shown = repr(builder.clean(drop_missing=True).map(double).split(test=0.5))
    assert shown.startswith("<DatasetBuilder houses: FrameSource(")
    assert re.search(r"-> clean -> map \S*double -> split random>$", shown)


def test_a_builder_is_a_value(settings: Settings) -> None:
    base = DatasetBuilder("houses", TableSource(varied(100)), settings)
    split = base.split(test=0.5)
    cleaned = base.clean(drop_missing=True)
    assert base.build().splits == ("train",)
    assert split.build().splits == ("train", "test")
    assert cleaned.build().rows["train"] < 100
    assert split.build() == split.build()


def test_reading(settings: Settings, tmp_path: Path) -> None:
    dataset = DatasetBuilder("houses", TableSource(varied(100)), settings).split(test=0.2, validation=0.1).build()
    assert dataset.splits == ("train", "validation", "test")
    assert repr(dataset) == "<Dataset houses@1: train 70, validation 10, test 20 rows>"
    assert repr(dataset["test"]) == "<DatasetSplit houses@1['test']: 20 rows>"
    assert len(dataset.read()) == 100
    assert len(dataset.read("test")) == len(dataset["test"].read()) == 20
    assert dataset.read("test", columns=["price", "id"]).columns.tolist() == ["price", "id"]
    assert dataset["test"].read(columns=("id",)).shape == (20, 1)
    channels = dataset.channels()
    assert list(channels) == ["train", "validation", "test"]
    assert channels["test"].describe() == {
        "dataset": "houses@1",
        "digest": dataset.digest,
        "split": "test",
        "rows": 20,
        "uri": f"{dataset.uri}/test",
    }
    assert dataset.describe() == {
        "dataset": "houses@1",
        "digest": dataset.digest,
        "uri": dataset.uri,
        "rows": {"train": 70, "validation": 10, "test": 20},
    }
    json.dumps(dataset.describe())
    channels["test"].download(str(tmp_path / "in" / "test"))
    assert files_below(tmp_path / "in") == ["test", "test/part-00000.parquet"]
    for bad in ("tset", "Train", 0, None):
        with pytest.raises(VersionNotFound, match=r"dataset houses@1 has no split .*, only train, validation, test"):
            dataset[bad]  # type: ignore[index]
    with pytest.raises(VersionNotFound, match="did you mean 'test'"):
        dataset.read("tset")
    with pytest.raises(MissingColumnError, match="houses@1 has no column 'prise'; did you mean 'price'"):
        dataset.read(columns=["prise"])
    for wrong in ("price", []):
        with pytest.raises(ConfigError, match=r"expected a list of at least one column, such as .'id'."):
            dataset.read(columns=wrong)


def test_a_changed_byte_is_found(settings: Settings) -> None:
    dataset = DatasetBuilder("houses", TableSource(varied(100)), settings).split(test=0.2).build()
    dataset.verify()
    path = Path(dataset["test"].uri) / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert len(dataset.read("train")) == 80
    for action in (dataset.verify, dataset.read, dataset["test"].read):
        with pytest.raises(IntegrityError, match=r"test/part-00000.parquet"):
            action()
    path.unlink()
    with pytest.raises(IntegrityError, match=r"test/part-00000.parquet: missing"):
        dataset.verify()


def test_the_store_finds_datasets(settings: Settings) -> None:
    store = DatasetStore(settings)
    assert (store.names(), store.versions("houses")) == ([], [])
    first, second = build(varied(10), settings), build(varied(20), settings)
    DatasetBuilder("flats", TableSource(varied(10)), settings).build()
    assert store.names() == ["flats", "houses"]
    versions = store.versions("houses")
    assert versions == [second, first]
    assert isinstance(versions, list)
    html = versions._repr_html_()
    assert html.count("<tr>") == 3
    assert html.index("<td>houses@2</td>") < html.index("<td>houses@1</td>")
    assert "train 20" in html
    assert "houses@2" not in versions[1:]._repr_html_()
    assert store.versions("nosuch")._repr_html_() == "<p>no versions</p>"
    assert store.get("houses") == store.get("houses@latest") == store.get("houses@2") == second
    assert store.get("houses@1").read().equals(first.read())
    with pytest.raises(VersionNotFound, match="did you mean 'houses'"):
        store.get("house")
    with pytest.raises(VersionNotFound, match="no version 3"):
        store.get("houses@3")
    with pytest.raises(InvalidNameError):
        store.get("Houses@1")
    with pytest.raises(InvalidNameError):
        store.versions("../x")


@pytest.mark.parametrize("name", ["Houses", "", "a b", "../x", "ä", "a" * 64, None, "-x", "houses@1"])
def test_a_bad_name_is_refused_before_any_work(name: Any) -> None:
    with pytest.raises(InvalidNameError, match="is not a dataset name"):
        DatasetBuilder(name, object())  # type: ignore[arg-type]


def test_the_constructor_does_no_work_and_checks_its_arguments(tmp_path: Path) -> None:
    source = TableSource(varied(10))
    DatasetBuilder("houses", source).clean(drop_missing=True).map(lambda frame: frame).split(test=0.5)
    assert source.opened == 0
    assert files_below(tmp_path) == []
    with pytest.raises(ConfigError, match=r"got DataFrame|FrameSource.frame."):
        DatasetBuilder("houses", pd.DataFrame({"a": [1]}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected a source such as smkit.FileSource"):
        DatasetBuilder("houses", "houses.csv")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected a source such as"):
        DatasetBuilder("houses", FrameSource)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected smkit.Settings, got str"):
        DatasetBuilder("houses", source, "store")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "xlsx"}, "format='xlsx': expected one of parquet, csv"),
        ({"batch_size": 0}, "batch_size=0: expected a positive number of rows"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
    ],
)
def test_bad_arguments_of_build_are_refused_before_any_work(
    arguments: dict[str, Any], message: str, settings: Settings
) -> None:
    source = TableSource(varied(10))
    with pytest.raises(ConfigError, match=message):
        DatasetBuilder("houses", source, settings).build(**arguments)
    assert source.opened == 0


def test_an_empty_result_is_refused(settings: Settings, temporary: Path, tmp_path: Path) -> None:
    empty = pa.table({"a": pa.array([], pa.int64())})
    for source in (TableSource(empty), BatchSource(), BatchSource(empty)):
        with pytest.raises(EmptyResultError, match="dataset 'houses' was not built: the source has no rows: <"):
            build(source, settings)
    nothing = DatasetBuilder("houses", TableSource(varied(10)), settings).map(lambda frame: frame[frame["id"] < 0])
    with pytest.raises(EmptyResultError, match="of 10 rows the steps left none"):
        nothing.build()
    assert files_below(temporary) == []
    assert not (tmp_path / "store").exists()


class Describes(TableSource):
    def __init__(self, described: Any) -> None:
        super().__init__(pa.table({"a": [1]}))
        self.described = described

    def describe(self) -> Any:
        return self.described


def test_a_source_that_breaks_its_promise_is_refused(settings: Settings) -> None:
    class Tables(TableSource):
        def batches(self, *, batch_size: int = 1) -> Any:
            return iter([self.table])

    with pytest.raises(SourceError, match=r"yields Table, expected pyarrow.RecordBatch"):
        build(Tables(varied(3)), settings)
    with pytest.raises(SourceError, match="changes its columns between batches: without 'a' and with 'b'"):
        build(BatchSource(pa.table({"a": [1]}), pa.table({"b": [1]})), settings)
    with pytest.raises(DatasetError, match="has two columns named 'a': rename one"):
        build(pa.table([[1], [2]], names=["a", "a"]), settings)
    with pytest.raises(DatasetError, match="has no columns"):
        build(BatchSource(pa.table({"a": [1]}).select([])), settings)
    for described in ({"when": dt.date(2026, 1, 1)}, ["x"], None):
        source = Describes(described)
        with pytest.raises(ConfigError, match=r"Describes.describe\(\) must return a dict of JSON values"):
            build(source, settings)
        assert source.opened == 0


def test_progress_is_shown_on_demand(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    build(varied(100), settings)
    assert capsys.readouterr() == ("", "")
    build(varied(100), settings, progress=True, batch_size=10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "houses: 100 rows" in captured.err


def test_s3_holds_the_same_dataset(aws_env: str, bucket: str, settings: Settings, temporary: Path) -> None:
    remote = Settings(root=f"s3://{bucket}/project")
    builder = DatasetBuilder("houses", TableSource(varied(300)))
    local = DatasetBuilder("houses", TableSource(varied(300)), settings).split(test=0.5).build()
    stored = DatasetBuilder("houses", TableSource(varied(300)), remote).split(test=0.5).build()
    assert builder.settings is None
    assert (stored.digest, stored.uri.partition("/data/")[0]) == (
        local.digest,
        f"s3://{bucket}/project/datasets/houses",
    )
    assert stored.read("test").equals(local.read("test"))
    stored.verify()
    assert DatasetBuilder("houses", TableSource(varied(300)), remote).split(test=0.5).build() == stored
    assert files_below(temporary) == []


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_files_that_change_between_lineage_and_rows_are_refused(
    kind: str, aws_env: str, bucket: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = boto3.client("s3", region_name="cn-northwest-1")
    folder = tmp_path / "raw"
    folder.mkdir()

    def write(name: str, text: str | None) -> None:
        if kind == "s3":
            s3.delete_object(Bucket=bucket, Key=f"raw/{name}") if text is None else s3.put_object(
                Bucket=bucket, Key=f"raw/{name}", Body=text.encode()
            )
        elif text is None:
            (folder / name).unlink()
        else:
            # A copy that keeps its time, as by `cp -p`, shows in nothing but its bytes.
            (folder / name).write_text(text)
            os.utime(folder / name, ns=(10**18, 10**18))

    for name in ("a.csv", "c.csv"):
        write(name, "x\n1\n")
    source = FileSource(folder) if kind == "file" else S3Source(f"s3://{bucket}/raw/", settings=settings)
    describe = type(source).describe
    changes: list[tuple[str, str | None]] = [("a.csv", "x\n2\n"), ("b.csv", "x\n3\n"), ("c.csv", None)]

    def describe_and_change(self: Any) -> dict[str, Any]:
        described = describe(self)
        while changes:
            write(*changes.pop())
        return described

    monkeypatch.setattr(type(source), "describe", describe_and_change)
    builder = DatasetBuilder("houses", source, settings)
    with pytest.raises(SourceError, match=r"raw.* changed while dataset 'houses' was built") as caught:
        builder.build()
    for words in ("a.csv has other content", "b.csv is new", "c.csv is gone", "build again when nobody writes them"):
        assert words in str(caught.value)
    assert DatasetStore(settings).names() == []
    dataset = builder.build()
    assert dataset.read()["x"].tolist() == [2, 3]
    assert len(dataset.manifest.body["source"]["files" if kind == "file" else "objects"]) == 2


@pytest.mark.parametrize("keeps_time", [False, True])
def test_files_are_read_for_lineage_once_and_a_change_is_found_all_the_same(
    keeps_time: bool, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raw.csv"
    path.write_text("x\n1\n")
    written = path.stat().st_mtime_ns
    described: list[dict[str, Any]] = []
    then: list[Callable[[], None]] = []
    describe = FileSource.describe

    def describe_then(self: FileSource) -> dict[str, Any]:
        described.append(describe(self))
        while then:
            then.pop()()
        return described[-1]

    def rewrite() -> None:
        path.write_text("x\n2\n")
        if keeps_time:
            os.utime(path, ns=(written, written))

    monkeypatch.setattr(FileSource, "describe", describe_then)
    builder = DatasetBuilder("houses", FileSource(path), settings)
    builder.build()
    assert len(described) == 2  # so fresh a file could be written again without another time
    monkeypatch.setattr("smkit.sources.file._SAME_TIME_NS", 50_000_000)
    time.sleep(0.1)
    builder.build()
    assert len(described) == 3
    then.append(path.touch)
    builder.build()  # another time, the same bytes
    assert len(described) == 5
    time.sleep(0.1)
    then.append(rewrite)
    with pytest.raises(SourceError, match=r"raw\.csv has other content"):
        builder.build()
