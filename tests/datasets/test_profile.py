"""What is known of each column, against pandas; and datasets as sources, with their lineage."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import smkit
from smkit import Dataset, DatasetBuilder, DatasetStore, Settings
from smkit.datasets import sketches
from smkit.errors import ConfigError, IntegrityError, MissingColumnError, VersionNotFound
from tests.datasets.conftest import TableSource, wall

HOSTILE = '<img src=x onerror="alert(1)">\x1b[2J'


def build(table: pa.Table, settings: Settings, name: str = "houses") -> Dataset:
    return DatasetBuilder(name, TableSource(table), settings).build()


@hypothesis_settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.none() | st.floats(-1e9, 1e9, width=32), min_size=1, max_size=60),
    kind=st.sampled_from([pa.float64(), pa.float32(), pa.int64(), pa.int16(), pa.decimal128(20, 2)]),
)
def test_numbers_are_described_as_by_pandas(
    values: list[Any], kind: pa.DataType, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(root=tmp_path_factory.mktemp("store"))
    if not pa.types.is_floating(kind):
        values = [None if value is None else round(value) % 30_000 for value in values]
    array = pa.array(values, pa.float64()).cast(kind)
    column = build(pa.table({"x": array}), settings).profile()["x"]
    series = pd.Series(array.to_pylist(), dtype="float64")
    expected = series.describe()
    assert column.rows - column.nulls == expected["count"]
    assert column.distinct == series.nunique()
    said = [column.mean, column.std, column.min, *(column.quartiles or [None] * 3), column.max]
    numbers = [np.nan if one is None else float(one) for one in said]
    np.testing.assert_allclose(
        numbers, expected[["mean", "std", "min", "25%", "50%", "75%", "max"]], rtol=1e-9, atol=1e-6
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("odd", [[np.inf], [-np.inf, -np.inf], [np.inf, -np.inf]])
def test_infinite_values_count_whatever_the_batches(odd: list[float], rows: int) -> None:
    values = np.array([1.0, odd[0], 2.5, *odd[1:], 4.0])
    moments = sketches.Moments()
    for start in range(0, len(values), rows):
        moments.add(values[start : start + rows])
    with np.errstate(invalid="ignore"):
        expected = pd.Series(values).agg(["mean", "std"])
    np.testing.assert_array_equal(np.array([moments.mean, moments.std], dtype=float), expected)


@pytest.fixture
def dataset(settings: Settings) -> Dataset:
    table = pa.table(
        {
            "id": range(1000),
            "price": [None if number % 10 == 0 else float(number) for number in range(1000)],
            "big": pa.array([2**53 + 1 + number for number in range(1000)]),
            "city": ["Yinchuan"] * 600 + ["中卫"] * 300 + [HOSTILE] * 99 + [None],
            "new": [True] * 700 + [False] * 300,
            "sold": [wall(2025, 1, 1) + dt.timedelta(hours=number) for number in range(1000)],
            "seen": pa.array(range(1000), pa.timestamp("ms", "Asia/Shanghai")),
            "day": [dt.date(2025, 1, 1 + number % 20) for number in range(1000)],
            "at": pa.array([dt.time(number % 24) for number in range(1000)], pa.time32("s")),
            "took": pa.array(range(1000), pa.duration("s")),
            "tax": [decimal.Decimal(number) / 4 for number in range(1000)],
            "tags": [["a"] * (number % 3) for number in range(1000)],
            "nothing": pa.nulls(1000),
        }
    )
    return DatasetBuilder("houses", TableSource(table), settings).split(test=0.25).build()


def test_every_kind_of_column(dataset: Dataset) -> None:
    found = dataset.profile()
    assert (found.rows, len(found), [column.name for column in found]) == (1000, 13, dataset.schema.names)
    assert (found["price"].nulls, found["price"].distinct) == (100, 900)
    assert (found["big"].min, found["big"].max) == (2**53 + 1, 2**53 + 1000)
    assert found["city"].top == (("Yinchuan", 600), ("中卫", 300), (HOSTILE, 99))
    assert (found["city"].nulls, found["city"].distinct) == (1, 3)
    lengths = found["city"].lengths
    assert lengths is not None
    assert (lengths.min, lengths.max) == (2, len(HOSTILE))
    assert lengths.mean == pytest.approx((8 * 600 + 2 * 300 + len(HOSTILE) * 99) / 999)
    assert found["new"].top == ((True, 700), (False, 300))
    assert (found["sold"].min, found["sold"].max) == ("2025-01-01 00:00:00", "2025-02-11 15:00:00")
    assert found["sold"].quartiles[1] == "2025-01-21 19:30:00"
    assert (found["seen"].min, found["seen"].max) == ("1970-01-01 00:00:00Z", "1970-01-01 00:00:00.999Z")
    assert (found["day"].min, found["day"].max, found["day"].distinct) == ("2025-01-01", "2025-01-20", 20)
    assert found["at"].max == "23:00:00"
    assert (found["took"].min, found["took"].max) == ("0 s", "999 s")
    assert (found["tax"].max, found["tax"].mean) == (decimal.Decimal("249.75"), pytest.approx(124.875))
    assert (found["tags"].kind, found["tags"].distinct, found["tags"].min) == ("other", 3, None)
    assert (found["nothing"].nulls, found["nothing"].distinct, found["nothing"].quartiles) == (1000, 0, ())
    histogram = found["id"].histogram
    assert histogram is not None
    assert (histogram.low, histogram.high, histogram.counts) == (0.0, 999.0, (50,) * 20)


def test_a_split_and_some_columns(dataset: Dataset) -> None:
    found = dataset["test"].profile(columns=["price", "city"])
    assert (found.split, found.rows, [column.name for column in found]) == ("test", 250, ["price", "city"])
    assert found["price"].mean == pytest.approx(dataset.read("test")["price"].mean())
    with pytest.raises(VersionNotFound, match="no split 'tset', only train, test; did you mean 'test'"):
        dataset.profile("tset")
    with pytest.raises(MissingColumnError, match="did you mean 'price'"):
        dataset.profile(columns=["prices"])
    with pytest.raises(MissingColumnError, match="did you mean 'price'"):
        dataset.profile()["prise"]


def test_shown_to_people_and_to_programs(dataset: Dataset) -> None:
    found = dataset.profile()
    text = str(found)
    for part in (
        "houses@1: 1,000 rows, 13 columns",
        "2025-01-01 00:00:00 to 2025-02-11 15:00:00",
        "Yinchuan 600",
        "10%",
    ):
        assert part in text
    assert "\x1b" not in text
    assert all(len(line) <= 60 for line in found.to_text(width=60).splitlines())
    html = found._repr_html_()
    assert "<img" not in html
    assert "\x1b" not in html
    assert html.count("<svg") == html.count("</svg>") >= 9
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    price = next(column for column in said["columns"] if column["name"] == "price")
    assert (price["nulls"], price["quartiles"][1], price["histogram"]["low"]) == (100, 500.0, 1.0)
    frame = found.to_frame()
    assert frame.loc["price", "50%"] == 500.0
    assert (frame.loc["city", "top"], frame.loc["city", "freq"]) == ("Yinchuan", 600)
    assert list(frame.index) == dataset.schema.names


def test_a_hostile_column_name_is_escaped(settings: Settings) -> None:
    found = build(pa.table({HOSTILE: [1, 2, 2]}), settings).profile()
    assert "<img" not in found._repr_html_()
    assert "\x1b" not in str(found)


def test_infinities_have_no_histogram_and_are_no_json(settings: Settings) -> None:
    found = build(
        pa.table({"x": [float("inf"), 1.0, 2.0], "y": [float("-inf"), float("inf"), 0.0]}), settings
    ).profile()
    assert found["x"].max == float("inf")
    json.dumps(found.to_dict(), allow_nan=False)
    assert "inf" in str(found)
    assert "<table>" in found._repr_html_()


def test_a_range_that_no_float_holds_has_quartiles(settings: Settings) -> None:
    column = build(pa.table({"x": [1e308, -1.7e308, 1.7e308, 0.0]}), settings).profile()["x"]
    np.testing.assert_allclose(column.quartiles, [-0.425e308, 0.5e308, 1.175e308], rtol=1e-12)
    assert (column.min, column.max, column.histogram) == (-1.7e308, 1.7e308, None)


def test_large_data_is_estimated(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limits lowered, so that 50,000 rows are large."""
    monkeypatch.setattr(sketches, "DISTINCT_LIMIT", 1024)
    monkeypatch.setattr(sketches, "FREQUENT_LIMIT", 64)
    monkeypatch.setattr(sketches, "SAMPLE_ROWS", 4096)
    rng = np.random.default_rng(0)
    numbers = rng.normal(0, 1, 50_000)
    texts = np.where(rng.random(50_000) < 0.3, "common", rng.integers(0, 10_000, 50_000).astype(str))
    table = pa.table({"x": numbers, "t": texts})
    one = build(table, settings)
    found = one.profile()
    assert not found["x"].distinct_is_exact
    assert abs(found["x"].distinct / 50_000 - 1) < 0.15  # five standard errors
    assert str(found).count("~") >= 2
    # The rank of a quantile of 4,096 sampled rows has a standard error of 0.8%.
    for share, value in zip((0.25, 0.5, 0.75), found["x"].quartiles, strict=True):
        assert abs((numbers < value).mean() - share) < 0.04
    assert found["x"].mean == pytest.approx(numbers.mean())
    (top, count), *_ = found["t"].top
    assert top == "common"
    assert not found["t"].top_is_exact
    assert (texts == "common").sum() - 50_000 / 64 <= count <= (texts == "common").sum()


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_a_dataset_is_a_source(file_format: Any, settings: Settings) -> None:
    table = pa.table({"id": range(100), "t": ["", "x", None, "y"] * 25})
    first = DatasetBuilder("houses", TableSource(table), settings).split(test=0.2, by="id").build(format=file_format)
    second = DatasetBuilder("flats", first, settings).build(batch_size=7)
    assert second.read_arrow().equals(first.read_arrow())
    third = DatasetBuilder("tests", second, settings).map(lambda frame: frame).build()
    test = DatasetBuilder("tests", first["test"], settings).build()
    assert test.read_arrow().equals(first.read_arrow("test"))
    assert [(parent.ref, parent.relation, parent.digest, parent.uri) for parent in second.parents] == [
        ("houses@1", "source", first.digest, first.uri)
    ]
    assert first.parents == first.lineage() == ()
    assert [(parent.ref, parent.child) for parent in third.lineage()] == [
        ("flats@1", "tests@1"),
        ("houses@1", "flats@1"),
    ]
    source = test.manifest.body["source"]
    assert (source["type"], source["dataset"], source["split"]) == ("dataset", "houses@1", "test")
    assert [batch.num_rows for batch in second.batches(batch_size=40)] == [40, 40, 20]
    assert next(second.batches(columns=["t", "id"])).schema.names == ["t", "id"]


def test_lineage_of_many_appends_and_of_what_was_pruned(settings: Settings, tmp_path: Any) -> None:
    other = Settings(root=tmp_path / "other")
    far = build(pa.table({"id": [0]}), other)
    last = DatasetBuilder("houses", far, settings).build()
    for number in range(1, 6):
        table = pa.table({"id": [number]})
        last = DatasetBuilder("houses", TableSource(table), settings).append("id").build()
    last._log.prune("houses", 3)
    both = DatasetBuilder("houses", last, settings).map(lambda f: f + 100).append("id").build()
    assert {(parent.ref, parent.relation) for parent in both.parents} == {
        ("houses@6", "append"),
        ("houses@6", "source"),
    }
    assert [parent.ref for parent in last.lineage()] == [
        "houses@5",
        "houses@4",
        "houses@3",
        "houses@2",
        "houses@1",
        "houses@1",
    ]
    assert last.lineage()[-1].uri == far.uri
    assert both.lineage()[0].ref == "houses@6"


def test_a_damaged_dataset_is_no_source(settings: Settings) -> None:
    first = build(pa.table({"id": range(10)}), settings)
    path = first._log.store.local_path(first.manifest.key_of(first.manifest.files[0].path))
    assert path is not None
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IntegrityError, match="is damaged"):
        DatasetBuilder("flats", first, settings).build()
    with pytest.raises(IntegrityError, match="is damaged"):
        first.profile()


def test_a_class_is_no_source(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="expected a source"):
        DatasetBuilder("flats", Dataset, settings)  # type: ignore[arg-type]


def test_a_store_reads_its_settings_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "one"))
    build(pa.table({"id": [1]}), Settings())
    store = DatasetStore()
    assert store.names() == ["houses"]
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "two"))
    calls: list[Any] = []
    real = smkit.datasets.store.open_store
    monkeypatch.setattr("smkit.datasets.store.open_store", lambda settings: calls.append(settings) or real(settings))
    assert store.get("houses").ref == "houses@1"
    assert [one.ref for one in store.versions("houses")] == ["houses@1"]
    assert calls == []


def test_verify_of_everything(settings: Settings) -> None:
    store = DatasetStore(settings)
    store.verify()
    first = build(pa.table({"id": range(10)}), settings)
    build(pa.table({"id": range(11)}), settings, "flats")
    store.verify()
    store.verify("houses")
    store.verify("houses@1")
    with pytest.raises(VersionNotFound, match="did you mean 'houses'"):
        store.verify("hauses")
    path = first._log.store.local_path(first.manifest.key_of(first.manifest.files[0].path))
    assert path is not None
    path.unlink()
    store.verify("flats")
    for what in (None, "houses", "houses@1"):
        with pytest.raises(IntegrityError, match=r"train/part-00000.parquet"):
            store.verify(what)
