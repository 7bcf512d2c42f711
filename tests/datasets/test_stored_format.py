"""Datasets that were published in stored format 1 stay readable: `fixtures/format-1` is never written again."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path

import pyarrow as pa
import pytest

from smkit import Dataset, DatasetBuilder, DatasetStore, Settings
from tests.datasets.conftest import TableSource, files_below, wall

FIXTURE = Path(__file__).parent / "fixtures" / "format-1"
D = decimal.Decimal
ROWS = pa.table(
    {
        "house": pa.array(["h-1", "h-2", 'h "3"', "北京,4", "", "h\n6", "h-7", "h-8"]),
        "price": pa.array([1.5, 0.1, 1e300, None, 0.0, 2.0, 3.0, 5e-324]),
        "rooms": pa.array([1, None, 2**53 + 1, 4, 5, 6, 7, -8]),
        "new": pa.array([True, False, None, True, True, False, None, True]),
        "area": pa.array([D("10.50"), None, D("-0.01"), D("4.00"), D("5.00"), D("6.00"), D("7.00"), D("99999999.99")]),
        "sold": pa.array([dt.date(1969, 12, day) for day in range(24, 32)]),
        "seen": pa.array([wall(2026, 1, 31, 9, 30, 0, number) for number in range(8)], pa.timestamp("us", "UTC")),
    }
)
KEPT = ROWS.filter(ROWS["price"].is_valid())


@pytest.fixture(params=[1, 2], ids=["parquet", "csv"])
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return DatasetStore(Settings(root=FIXTURE)).get(f"houses@{request.param}")


def test_the_bytes_are_those_that_were_published(dataset: Dataset) -> None:
    before = files_below(FIXTURE)
    dataset.verify()
    assert files_below(FIXTURE) == before


def test_the_rows_come_back(dataset: Dataset) -> None:
    read = dataset.read_arrow()
    if dataset.version == 1:
        assert dict(dataset.rows) == {"train": 3, "validation": 2, "test": 2}
        assert read.schema == KEPT.schema
        assert read.sort_by("seen").equals(KEPT)
    else:
        assert dict(dataset.rows) == {"train": 7}
        assert read.drop_columns(["dearer"]).equals(KEPT)
        assert read["dearer"].to_pylist() == [price * 2 for price in KEPT["price"].to_pylist()]


def test_the_manifest_is_understood(dataset: Dataset) -> None:
    assert dataset.name == "houses"
    assert dataset.manifest.created_by == "somebody"
    assert dataset.manifest.body["format"] == {1: "parquet", 2: "csv"}[dataset.version]
    assert [step["step"] for step in dataset.manifest.body["steps"]] == ["clean", "check", "map"][: dataset.version + 1]
    assert dataset.schema.names[: len(ROWS.schema.names)] == ROWS.schema.names


def test_a_key_is_still_in_the_split_where_it_was(tmp_path: Path) -> None:
    stored = DatasetStore(Settings(root=FIXTURE)).get("houses@1")
    builder = DatasetBuilder("houses", TableSource(ROWS), Settings(root=tmp_path / "store")).clean(drop_missing="price")
    built = builder.split(test=0.25, validation=0.25, by="house").build()
    for split in ("train", "validation", "test"):
        assert built.read_arrow(split).equals(stored.read_arrow(split))
