"""`partitioning="hive"`: columns that stand in the names of folders."""

from __future__ import annotations

import datetime as dt
import io
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import smkit
from smkit.errors import ConfigError, SourceFormatError
from smkit.sources import FileSource, S3Source

if TYPE_CHECKING:
    from pathlib import Path


def encode(table: pa.Table, format_: str) -> bytes:
    if format_ == "parquet":
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()
    frame = table.to_pandas()
    text: str = frame.to_csv(index=False) if format_ == "csv" else frame.to_json(orient="records", lines=True)
    return text.encode()


def write(root: Path, folders: str, format_: str = "csv", **columns: list[Any]) -> Path:
    path = root / folders / f"part-0.{format_}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pa.table(columns or {"a": [1]}), format_))
    return path


def rows(source: FileSource | S3Source) -> dict[str, list[Any]]:
    return pa.Table.from_batches(source.batches(), schema=source.schema()).to_pydict()


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_folders_become_columns_behind_those_of_the_files(tmp_path: Path, format_: str) -> None:
    write(tmp_path, "year=2025/month=12", format_, a=[1, 2])
    write(tmp_path, "year=2026/month=01", format_, a=[3])
    source = FileSource(tmp_path, partitioning="hive")
    assert source.schema() == pa.schema([("a", pa.int64()), ("year", pa.int64()), ("month", pa.int64())])
    assert rows(source) == {"a": [1, 2, 3], "year": [2025, 2025, 2026], "month": [12, 12, 1]}
    assert source.read().to_dict("list") == rows(source)
    assert rows(FileSource(tmp_path)) == {"a": [1, 2, 3]}
    assert source.describe()["partitioning"] == "hive"


def test_types_of_folders(tmp_path: Path) -> None:
    write(tmp_path, "n=-1/day=2026-01-31/text=1/odd=2026-02-30/big=9223372036854775808")
    write(tmp_path, "n=007/day=2024-02-29/text=x%2Fy%3D%20z/odd=2026-02-01/big=1")
    write(tmp_path, "/".join(f"{name}=__HIVE_DEFAULT_PARTITION__" for name in ("n", "day", "text", "odd", "big")))
    found = FileSource(tmp_path, partitioning="hive", columns=["n", "day", "text", "odd", "big"])
    table = pa.Table.from_batches(found.batches())
    assert table.schema.types == [pa.int64(), pa.date32(), pa.string(), pa.string(), pa.string()]
    assert sorted(table.to_pylist(), key=str) == [
        {"n": -1, "day": dt.date(2026, 1, 31), "text": "1", "odd": "2026-02-30", "big": "9223372036854775808"},
        {"n": 7, "day": dt.date(2024, 2, 29), "text": "x/y= z", "odd": "2026-02-01", "big": "1"},
        dict.fromkeys(["n", "day", "text", "odd", "big"]),
    ]
    declared = FileSource(tmp_path, partitioning="hive", column_types={"n": "string", "big": "float64"}, columns=["n"])
    assert set(rows(declared)["n"]) == {"-1", "007", None}


def test_a_dataset_of_pyarrow(tmp_path: Path) -> None:
    table = pa.table({"a": range(6), "kind": ["x", None, "ä/ö", "x", "", "y z"], "n": [1, 1, 2, 2, None, 3]})
    kept = table.filter(pa.compute.not_equal(pa.compute.fill_null(table["kind"], "-"), ""))
    ds.write_dataset(kept, tmp_path, format="parquet", partitioning=["kind", "n"], partitioning_flavor="hive")
    read = pa.Table.from_batches(FileSource(tmp_path, partitioning="hive").batches())
    assert read.sort_by("a").to_pylist() == kept.to_pylist()


def test_filters_and_columns_of_both_kinds(tmp_path: Path) -> None:
    for year in (2024, 2025, 2026):
        write(tmp_path, f"year={year}", "parquet", a=[1, 2, 3], b=["x", "y", "z"])

    def read(**options: Any) -> list[tuple[Any, ...]]:
        return list(zip(*rows(FileSource(tmp_path, partitioning="hive", **options)).values(), strict=True))

    assert read(filters=[("year", ">", 2024), ("a", "=", 2)]) == [(2, "y", 2025), (2, "y", 2026)]
    assert read(filters=[[("year", "=", 2024)], [("a", "=", 3)]], columns=["b"]) == [
        ("x",),
        ("y",),
        ("z",),
        ("z",),
        ("z",),
    ]
    assert read(columns=["year"], filters=[("year", "not in", [2025])]) == [(2024,)] * 3 + [(2026,)] * 3
    assert read(columns=["year", "a"], filters=[("b", "=", "x")]) == [(2024, 1), (2025, 1), (2026, 1)]
    assert read(filters=[("year", "=", 1999)]) == []
    assert FileSource(tmp_path, partitioning="hive", filters=[("year", "=", 1999)]).schema().names == ["a", "b", "year"]
    with pytest.raises(ConfigError, match="'year' is int64 and cannot be compared with 'x'"):
        read(filters=[("year", "=", "x")])
    with pytest.raises(ConfigError, match=r"names 'yeer'.*did you mean 'year'"):
        read(columns=["yeer"])


def test_null_folders_are_filtered_as_null(tmp_path: Path) -> None:
    write(tmp_path, "k=1", a=[1])
    write(tmp_path, "k=__HIVE_DEFAULT_PARTITION__", a=[2])
    found = {value: FileSource(tmp_path, partitioning="hive", filters=[("k", "=", value)]) for value in (1, None)}
    assert {value: rows(source) for value, source in found.items()} == {
        1: {"a": [1], "k": [1]},
        None: {"a": [2], "k": [None]},
    }


def test_files_whose_folders_are_ruled_out_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, "year=2026", "parquet", a=[1])
    (tmp_path / "year=2025").mkdir()
    (tmp_path / "year=2025" / "broken.parquet").write_bytes(b"broken")
    with pytest.raises(SourceFormatError, match="broken"):
        FileSource(tmp_path, partitioning="hive").read()
    assert rows(FileSource(tmp_path, partitioning="hive", filters=[("year", "=", 2026)])) == {"a": [1], "year": [2026]}


def test_objects_that_are_ruled_out_are_not_fetched(aws_env: str, bucket: str) -> None:
    del aws_env
    client = boto3.client("s3")
    for month in range(1, 13):
        body = encode(pa.table({"a": [month]}), "parquet")
        client.put_object(Bucket=bucket, Key=f"raw/month={month:02}/x.parquet", Body=body)
    client.close()
    settings = smkit.Settings()
    fetched: list[str] = []
    settings.client("s3").meta.events.register(
        "before-parameter-build.s3.GetObject", lambda params, **kwargs: fetched.append(params["Key"])
    )
    source = S3Source(f"s3://{bucket}/raw", partitioning="hive", filters=[("month", "in", [3, 11])], settings=settings)
    assert source.read().to_dict("list") == {"a": [3, 11], "month": [3, 11]}
    assert set(fetched) == {"raw/month=03/x.parquet", "raw/month=11/x.parquet"}


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_a_column_in_the_file_and_in_its_folder(tmp_path: Path, format_: str) -> None:
    write(tmp_path, "year=2026", format_, year=[2025], a=[1])
    with pytest.raises(SourceFormatError, match=r"part-0\.\w+: column 'year' is in the file and in the name of its"):
        FileSource(tmp_path, partitioning="hive").read()


def test_folders_that_differ(tmp_path: Path) -> None:
    write(tmp_path, "a=1/b=2")
    write(tmp_path, "a=1/c=2")
    with pytest.raises(
        SourceFormatError, match=r"c=2/part-0\.csv: its folders name 'a', 'c', but those of .* 'a', 'b'"
    ):
        FileSource(tmp_path, partitioning="hive").read()


def test_folders_that_are_no_partitions(tmp_path: Path) -> None:
    path = write(tmp_path, "2026")
    with pytest.raises(SourceFormatError, match=r'partitioning is "hive", but no folder of this path is a name=value'):
        FileSource(tmp_path, partitioning="hive").read()
    with pytest.raises(ConfigError, match="partitioning is 'Hive', but must be \"hive\""):
        FileSource(path, partitioning="Hive")
    nested = write(tmp_path, "k=1/k=2")
    with pytest.raises(SourceFormatError, match="two of its folders name the partition column 'k'"):
        FileSource(nested, partitioning="hive").read()


def test_a_declared_type_that_a_folder_does_not_fit(tmp_path: Path) -> None:
    write(tmp_path, "zip=00501")
    write(tmp_path, "zip=none")
    assert set(rows(FileSource(tmp_path, partitioning="hive"))["zip"]) == {"00501", "none"}
    with pytest.raises(SourceFormatError, match=r"zip=none/part-0\.csv: the folder says zip=none, which is no int64"):
        FileSource(tmp_path, partitioning="hive", column_types={"zip": "int64"}).read()
