"""Files of one source that differ: what is joined, and what is said of the rest."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smkit.errors import SourceFormatError
from smkit.sources import FileSource, S3Source
from smkit.sources._schemas import wider

if TYPE_CHECKING:
    from pathlib import Path

INT, FLOAT, TEXT = pa.int64(), pa.float64(), pa.string()


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        (pa.null(), TEXT, TEXT),
        (pa.int32(), INT, INT),
        (pa.uint8(), pa.uint32(), pa.uint32()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint32(), pa.int8(), INT),
        (pa.uint16(), INT, INT),
        (pa.uint64(), INT, None),
        (pa.float32(), FLOAT, FLOAT),
        (INT, FLOAT, None),
        (INT, TEXT, None),
        (INT, pa.bool_(), None),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.timestamp("us"), pa.timestamp("ns"), None),
        (pa.decimal128(9, 2), pa.decimal128(10, 4), pa.decimal128(11, 4)),
        (pa.decimal128(38, 0), pa.decimal128(38, 10), None),
        (pa.list_(pa.null()), pa.list_(INT), pa.list_(INT)),
        (pa.list_(INT), pa.list_(TEXT), None),
        (pa.struct([("x", pa.null())]), pa.struct([("x", TEXT)]), pa.struct([("x", TEXT)])),
        (pa.struct([("x", INT)]), pa.struct([("y", INT)]), None),
    ],
)
def test_types_are_joined_only_where_nothing_is_lost(one: Any, other: Any, joined: Any) -> None:
    assert wider(one, other) == joined
    assert wider(other, one) == joined


def write(folder: Path, **tables: dict[str, pa.Array]) -> Path:
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def test_joined_types_hold_the_values_of_all(tmp_path: Path) -> None:
    write(
        tmp_path,
        a={"n": pa.array([250], pa.uint8()), "d": pa.array([Decimal("1.25")], pa.decimal128(5, 2))},
        b={"n": pa.array([-5], pa.int8()), "d": pa.array([Decimal("1.0625")], pa.decimal128(6, 4))},
        c={"n": pa.array([None], pa.null()), "d": pa.array([None], pa.null())},
    )
    table = pa.Table.from_batches(FileSource(tmp_path).batches())
    assert table.schema.types == [pa.int16(), pa.decimal128(7, 4)]
    assert table.to_pydict() == {"n": [250, -5, None], "d": [Decimal("1.25"), Decimal("1.0625"), None]}


def drifting(folder: Path) -> Path:
    return write(
        folder,
        a={"id": pa.array([1]), "price": pa.array([1]), "city": pa.array(["x"])},
        b={"id": pa.array([1]), "price": pa.array([1.5]), "extra": pa.array([1])},
        c={"id": pa.array(["1"]), "price": pa.array([2]), "city": pa.array(["x"])},
    )


EXPECTED = [
    r"differ in 4 places:",
    r"b\.parquet: column 'price' is double, but int64 in .*a\.parquet",
    r"b\.parquet: column 'city' is missing, but .*a\.parquet has it",
    r"a\.parquet: column 'extra' is missing, but .*b\.parquet has it",
    r"c\.parquet: column 'id' is string, but int64 in .*a\.parquet",
    r'column_types=\{"price": "float64", "id": "string"\}',
    r"columns=\[\.\.\.\]",
]


def test_all_differences_are_in_one_error_before_any_row(tmp_path: Path) -> None:
    source = FileSource(drifting(tmp_path))
    for use in (source.read, source.schema, lambda: next(iter(source.batches(batch_size=1)))):
        with pytest.raises(SourceFormatError) as caught:
            use()
        for line in EXPECTED:
            assert caught.match(line)


def test_objects_of_s3_that_differ(aws_env: str, bucket: str, tmp_path: Path) -> None:
    client = boto3.client("s3")
    for path in drifting(tmp_path).iterdir():
        client.put_object(Bucket=bucket, Key=f"raw/{path.name}", Body=path.read_bytes())
    client.close()
    with pytest.raises(SourceFormatError) as caught:
        S3Source(f"s3://{bucket}/raw").read()
    for line in EXPECTED:
        assert caught.match(line)
    assert f"s3://{bucket}/raw/b.parquet: column 'price'" in str(caught.value)


def test_what_the_message_says_to_declare_mends_it(tmp_path: Path) -> None:
    source = FileSource(drifting(tmp_path), columns=["id", "price"], column_types={"price": "float64", "id": "string"})
    assert source.read().to_dict("list") == {"id": ["1", "1", "1"], "price": [1.0, 1.5, 2.0]}


def test_a_column_that_only_a_filter_names_must_be_in_all_files(tmp_path: Path) -> None:
    source = FileSource(drifting(tmp_path), columns=["id"], column_types={"id": "string"}, filters=[("city", "=", "x")])
    with pytest.raises(SourceFormatError, match=r"b\.parquet: column 'city' is missing"):
        source.read()


def test_a_message_of_very_many_differences_ends(tmp_path: Path) -> None:
    write(tmp_path, a={f"c{i}": pa.array([1]) for i in range(200)}, b={f"c{i}": pa.array(["x"]) for i in range(200)})
    with pytest.raises(SourceFormatError, match="differ in 200 places") as caught:
        FileSource(tmp_path).read()
    assert "and 150 more" in str(caught.value)


def test_a_file_that_is_written_while_it_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": range(100)}), buffer, row_group_size=10)
    for name, content in (("a.parquet", buffer.getvalue()), ("a.csv", b"a\n" + b"1\n" * 100)):
        path = tmp_path / name
        path.write_bytes(content)
        source = FileSource(path)
        batches = source.batches(batch_size=1)
        next(batches)
        path.write_bytes(content + b"\n")
        with pytest.raises(Exception, match=rf"{name}: the file changed while it was read"):
            list(batches)
