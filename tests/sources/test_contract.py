"""One suite for every source: whatever the rows come from, they are the same rows."""

from __future__ import annotations

import datetime as dt
import gc
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

import smkit
from smkit.errors import ConfigError
from smkit.frames import to_pandas
from smkit.sources import FileSource, FrameSource, PostgresSource, S3Source, Source

if TYPE_CHECKING:
    from tests.fixtures_postgres import Postgres

ROWS = 25
TABLE = pa.table(
    {
        "id": pa.array(range(2**60, 2**60 + ROWS), pa.int64()),
        "rooms": pa.array([None if i % 7 == 3 else 2**53 + i for i in range(ROWS)], pa.int64()),
        "price": pa.array([None if i % 5 == 4 else i + 0.25 for i in range(ROWS)], pa.float64()),
        "sold": pa.array([i % 2 == 0 for i in range(ROWS)], pa.bool_()),
        "city": pa.array([None if i % 6 == 1 else ("" if i % 6 == 2 else f'北京 "{i}",\n') for i in range(ROWS)]),
    }
)
DATES = pa.array([None if i % 4 == 0 else dt.date(2024, 1, 1 + i) for i in range(ROWS)], pa.date32())
#: JSON has no dates, hence beside the table.
DATED = TABLE.append_column("day", DATES)

KINDS = [
    "frame",
    *(
        f"{place}-{format_}"
        for place in ("file", "folder", "s3", "s3-prefix")
        for format_ in ("csv", "parquet", "jsonl")
    ),
    "postgres",
]


def encode(table: pa.Table, format_: str) -> bytes:
    buffer = io.BytesIO()
    if format_ == "csv":
        pa_csv.write_csv(table, buffer)
    elif format_ == "parquet":
        pq.write_table(table, buffer, row_group_size=7)
    else:
        for row in table.to_pylist():
            buffer.write(json.dumps(row).encode() + b"\n")
    return buffer.getvalue()


def parts(table: pa.Table) -> dict[str, pa.Table]:
    return {"part-0": table.slice(0, 10), "part-1": table.slice(10, 1), "part-2": table.slice(11)}


def literal(value: Any) -> str:
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


class Case:
    def __init__(self, source: Source, table: pa.Table) -> None:
        self.source = source
        self.table = table


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    place, _, format_ = request.param.rpartition("-") if "-" in request.param else (request.param, "", "")
    table = TABLE if format_ == "jsonl" else DATED
    if place == "frame":
        return Case(FrameSource(to_pandas(table)), table)
    if place == "file":
        path = tmp_path / f"houses.{format_}"
        path.write_bytes(encode(table, format_))
        return Case(FileSource(path), table)
    if place == "folder":
        (tmp_path / "data" / "_tmp").mkdir(parents=True)
        (tmp_path / "data" / "_tmp" / f"hidden.{format_}").write_bytes(b"not a table")
        for name, part in parts(table).items():
            (tmp_path / "data" / f"{name}.{format_}").write_bytes(encode(part, format_))
        return Case(FileSource(tmp_path / "data"), table)
    if place == "postgres":
        return Case(*postgres(request, table))
    request.getfixturevalue("aws_env")
    bucket = request.getfixturevalue("bucket")
    client = boto3.client("s3")
    if place == "s3":
        client.put_object(Bucket=bucket, Key=f"raw/houses.{format_}", Body=encode(table, format_))
        uri = f"s3://{bucket}/raw/houses.{format_}"
    else:
        client.put_object(Bucket=bucket, Key="raw/", Body=b"")
        client.put_object(Bucket=bucket, Key=f"raw/.hidden.{format_}", Body=b"not a table")
        client.put_object(Bucket=bucket, Key=f"rawer/other.{format_}", Body=b"not a table")
        for name, part in parts(table).items():
            client.put_object(Bucket=bucket, Key=f"raw/{name}.{format_}", Body=encode(part, format_))
        uri = f"s3://{bucket}/raw"
    client.close()
    return Case(S3Source(uri, settings=smkit.Settings()), table)


def postgres(request: pytest.FixtureRequest, table: pa.Table) -> tuple[Source, pa.Table]:
    pg: Postgres = request.getfixturevalue("pg")
    schema: str = request.getfixturevalue("pg_schema")
    pg.run(f"CREATE TABLE {schema}.houses (id int8, rooms int8, price float8, sold bool, city text, day date)")
    rows = ", ".join(f"({', '.join(literal(value) for value in row.values())})" for row in table.to_pylist())
    pg.run(f"INSERT INTO {schema}.houses VALUES {rows}")
    sql = f"SELECT * FROM {schema}.houses WHERE id >= :first ORDER BY id"
    return PostgresSource(sql, params={"first": 0}, settings=pg.settings()), table


def test_is_a_source(case: Case) -> None:
    assert isinstance(case.source, Source)


def test_read_gives_the_rows_with_their_types(case: Case) -> None:
    pd.testing.assert_frame_equal(case.source.read(), to_pandas(case.table))


def test_schema_is_that_of_the_rows(case: Case) -> None:
    assert case.source.schema().equals(case.table.schema, check_metadata=True)


def test_batches_are_the_rows_in_order_and_of_the_size(case: Case) -> None:
    for batch_size in (1, 7, 10, ROWS, 1000):
        batches = list(case.source.batches(batch_size=batch_size))
        sizes = [batch.num_rows for batch in batches]
        assert all(size == batch_size for size in sizes[:-1])
        assert 0 < sizes[-1] <= batch_size
        assert all(batch.schema.equals(case.table.schema, check_metadata=True) for batch in batches)
        assert pa.Table.from_batches(batches).equals(case.table)


def test_the_default_batch_size_reads_all(case: Case) -> None:
    assert sum(batch.num_rows for batch in case.source.batches()) == ROWS


def test_reads_twice_and_interleaved(case: Case) -> None:
    first, second = case.source.batches(batch_size=3), case.source.batches(batch_size=3)
    for one, other in zip(first, second, strict=True):
        assert one.equals(other)
    pd.testing.assert_frame_equal(case.source.read(), case.source.read())


def test_a_batch_size_is_a_positive_integer(case: Case) -> None:
    wrong: list[Any] = [0, -1, 2.5, True, "10", None]
    for batch_size in wrong:
        with pytest.raises(ConfigError, match="batch_size"):
            case.source.batches(batch_size=batch_size)


def test_describe_is_deterministic_json(case: Case) -> None:
    described = case.source.describe()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert case.source.describe() == described
    assert described["type"] in {"frame", "file", "s3", "postgres"}


def test_describe_and_repr_hold_no_secret(case: Case, request: pytest.FixtureRequest) -> None:
    shown = json.dumps(case.source.describe()) + repr(case.source) + str(vars(case.source))
    for secret in (os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_ACCESS_KEY_ID")):
        assert secret is None or secret not in shown
    if "pg" in request.fixturenames:
        assert request.getfixturevalue("pg").password not in shown


def test_stopping_early_frees_everything(case: Case) -> None:
    batches = case.source.batches(batch_size=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined] # a generator, which the protocol does not promise
    # What is left open would be a ResourceWarning now, and that an error.
    gc.collect()
    assert case.source.read().shape[0] == ROWS


def test_making_one_does_no_io(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a constructor touched the outside")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("boto3.Session", refuse)
    FileSource("/nowhere/*.csv", column_types={"zip": "string"})
    S3Source("s3://bucket/key.csv")
    PostgresSource("SELECT :x::int", params={"x": 1})
