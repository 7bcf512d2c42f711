"""What differs between two versions, against a naive computation with pandas."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smkit import Dataset, DatasetBuilder, DatasetStore, Settings
from smkit.datasets import sketches
from smkit.datasets.diff import DatasetDiff, RowChanges
from smkit.errors import ConfigError, DatasetError, IntegrityError, MissingColumnError, VersionNotFound
from tests.datasets.conftest import TableSource

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def build(table: pa.Table, settings: Settings, name: str = "houses", **split: Any) -> Dataset:
    builder = DatasetBuilder(name, TableSource(table), settings)
    return (builder.split(**split) if split else builder).build()


VALUE = st.none() | st.integers(-2, 2) | st.sampled_from([2**53 + 1])
ROWS = st.lists(st.tuples(VALUE, st.sampled_from(["a", "b", "", None])), min_size=1, max_size=30)


def table_of(rows: list[Any]) -> pa.Table:
    return pa.table({"n": pa.array([row[0] for row in rows], pa.int64()), "t": pa.array([row[1] for row in rows])})


@hypothesis_settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=ROWS, right=ROWS)
def test_whole_rows_are_counted_as_by_a_multiset(
    left: list[Any], right: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(root=tmp_path_factory.mktemp("store"))
    schema = pa.schema([("n", pa.int64()), ("t", pa.string())])
    before, after = (build(table_of(rows).cast(schema), settings, name) for rows, name in ((left, "l"), (right, "r")))
    ours, theirs = Counter(left), Counter(right)
    assert before.diff(after).rows == RowChanges(
        added=(theirs - ours).total(), removed=(ours - theirs).total(), same=(ours & theirs).total()
    )


KEYED = st.dictionaries(st.integers(0, 30), st.tuples(st.floats(allow_nan=False), st.text(max_size=2)), min_size=1)


@hypothesis_settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=KEYED, right=KEYED, kept=st.sets(st.integers(0, 30)))
def test_rows_with_a_key_are_matched_as_by_pandas(
    left: dict[int, Any], right: dict[int, Any], kept: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(root=tmp_path_factory.mktemp("store"))
    right |= {key: left[key] for key in kept & left.keys()}

    def frame(rows: dict[int, Any]) -> pd.DataFrame:
        values = [(key, *value) for key, value in rows.items()]
        return pd.DataFrame(values, columns=["key", "x", "t"]).astype({"key": "int64", "x": "float64"})

    def version(rows: dict[int, Any], name: str) -> Dataset:
        schema = pa.schema([("key", pa.int64()), ("x", pa.float64()), ("t", pa.string())])
        return build(pa.Table.from_pandas(frame(rows), schema=schema, preserve_index=False), settings, name)

    rows = version(left, "left").diff(version(right, "right"), key="key").rows
    merged = frame(left).merge(frame(right), on="key", how="outer", indicator=True)
    both = merged[merged["_merge"] == "both"]
    changed = int(((both["x_x"] != both["x_y"]) | (both["t_x"] != both["t_y"])).sum())
    assert rows == RowChanges(
        added=int((merged["_merge"] == "right_only").sum()),
        removed=int((merged["_merge"] == "left_only").sum()),
        same=len(both) - changed,
        changed=changed,
        moved=0,
    )


@pytest.fixture
def versions(settings: Settings) -> tuple[Dataset, Dataset]:
    rng = np.random.default_rng(0)
    before = pa.table(
        {
            "id": range(1000),
            "price": rng.normal(100, 10, 1000),
            "area": rng.normal(50, 5, 1000),
            "city": [["a", HOSTILE][number % 2] for number in range(1000)],
            "new": [number % 4 == 0 for number in range(1000)],
            "sold": [dt.datetime(2025, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(hours=n) for n in range(1000)],
            "year": pa.array([2000] * 1000, pa.int32()),
            "tax": [decimal.Decimal("1.50")] * 1000,
        }
    )
    after = pa.table(
        {
            "id": range(100, 1300),
            "price": np.concatenate([before["price"].to_numpy()[100:], rng.normal(200, 10, 300)]),
            "area": rng.normal(50, 5, 1200),
            "city": ["a", "c"] * 600,
            "new": [True] * 1200,
            "sold": [dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(hours=n) for n in range(1200)],
            "year": pa.array([2000] * 1200, pa.int64()),
            "rooms": [None, 3] * 600,
        }
    )
    return build(before, settings, test=0.2, by="id"), build(after, settings, test=0.2, by="id")


def test_everything_that_differs_is_told(versions: tuple[Dataset, Dataset], settings: Settings) -> None:
    before, after = versions
    found = DatasetStore(settings).diff("houses@1", "houses", key="id")
    assert found.rows == RowChanges(added=300, removed=100, same=0, changed=900, moved=0)
    assert {one.split: (one.left, one.right) for one in found.splits} == {
        split: (before.rows[split], after.rows[split]) for split in ("train", "test")
    }
    assert {column.name: column.schema_change for column in found.columns if column.schema_change} == {
        "year": "type",
        "tax": "removed",
        "rooms": "added",
    }
    distances = {column.name: column.distance for column in found.columns}
    assert distances["tax"] is distances["rooms"] is None
    assert distances["year"] == 0
    assert distances["sold"] == 1
    assert distances["area"] is not None
    assert distances["price"] is not None
    assert distances["area"] < 0.15 < 0.3 < distances["price"] < 1
    assert (found["city"].new, found["city"].vanished) == (("c",), (HOSTILE,))
    assert found["new"].vanished == (False,)
    assert found["rooms"].right is not None
    assert found["rooms"].right.nulls == 600
    assert not found.is_same


def test_the_distance_is_that_of_scipy(settings: Settings) -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    left = build(pa.table({"c": ["a"] * 6 + ["b"] * 3 + ["c"]}), settings, "left")
    right = build(pa.table({"c": ["a"] * 1 + ["b"] * 3 + ["d"]}), settings, "right")
    expected = distance.jensenshannon([6, 3, 1, 0], [1, 3, 0, 1], base=2)
    assert left.diff(right)["c"].distance == pytest.approx(expected)


def test_a_version_and_itself_are_the_same(versions: tuple[Dataset, Dataset]) -> None:
    for key in (None, "id", ["id", "city"]):
        found = versions[0].diff(versions[0], key=key)
        assert found.is_same
        assert (found.rows.added, found.rows.removed, found.rows.same) == (0, 0, 1000)
        assert {column.distance for column in found.columns} == {0.0}


def test_rows_that_change_their_split_are_told(settings: Settings) -> None:
    table = pa.table({"id": range(200)})
    before = build(table, settings, "a", test=0.5, by="id")
    after = build(table, settings, "b", test=0.5, by="id", seed=1)
    assert before.diff(after).rows == RowChanges(0, 0, 200)
    rows = before.diff(after, key="id").rows
    in_train = [set(side.read("train")["id"]) for side in (before, after)]
    assert rows == RowChanges(0, 0, 200, 0, moved=len(in_train[0] ^ in_train[1]))
    assert rows.moved
    assert not before.diff(after, key="id").is_same


def test_columns_that_only_one_side_has_do_not_make_rows_differ(settings: Settings) -> None:
    before = build(pa.table({"id": [1, 2], "x": [1.0, 2.0]}), settings, "a")
    after = build(pa.table({"id": [1, 2], "y": ["p", "q"]}), settings, "b")
    assert before.diff(after, key="id").rows == RowChanges(0, 0, 2, 0, 0)
    nothing = build(pa.table({"z": [1, 2, 3]}), settings, "c")
    assert before.diff(nothing).rows == RowChanges(added=3, removed=2, same=0)


def test_missing_and_odd_values(settings: Settings) -> None:
    left = pa.table({"x": [float("inf"), float("-inf"), None, float("nan")], "l": [[1], None, [2], []]})
    right = pa.table({"x": [float("inf"), 1.0, 2.0, None], "l": [[1], [3], [2], []]})
    found = build(left, settings, "a").diff(build(right, settings, "b"))
    assert found.rows == RowChanges(added=3, removed=3, same=1)
    assert found["x"].distance is not None
    nulls = build(pa.table({"x": pa.nulls(3, pa.float64()), "l": [[1]] * 3}), settings, "c")
    assert nulls.diff(build(right, settings, "b"))["x"].distance is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_nan_is_not_null(settings: Settings) -> None:
    nan = float("nan")
    kind = pa.list_(pa.float64())

    def version(x: float | None, items: list[float | None], name: str) -> Dataset:
        return build(pa.table({"id": [1, 2], "x": [0.5, x], "l": pa.array([[0.5], items], kind)}), settings, name)

    before = version(nan, [nan], "a")
    for after in (version(None, [nan], "b"), version(nan, [None], "c")):
        assert before.digest != after.digest
        whole, keyed = before.diff(after), before.diff(after, key="id")
        assert whole.rows == RowChanges(added=1, removed=1, same=1)
        assert keyed.rows == RowChanges(0, 0, 1, changed=1, moved=0)
        assert not whole.is_same
        assert not keyed.is_same
    # The bits of a NaN say nothing.
    other = np.frombuffer(np.array([0x7FF8_0000_0000_0001], dtype="u8").tobytes(), dtype="f8")[0]
    assert before.diff(version(other, [nan], "d")).is_same


def test_too_many_texts_are_not_compared(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "FREQUENT_LIMIT", 10)
    found = build(pa.table({"t": [str(n) for n in range(11)]}), settings, "a").diff(
        build(pa.table({"t": [str(n) for n in range(5)]}), settings, "b")
    )
    assert (found["t"].distance, found["t"].new, found["t"].vanished) == (None, (), ())


def test_shown_to_people_and_to_programs(versions: tuple[Dataset, Dataset]) -> None:
    found = versions[0].diff(versions[1], key="id")
    text = str(found)
    for part in (
        "houses@1 -> houses@2",
        "300 added, 100 removed, 900 changed, 0 in another split, 0 the same (by id)",
        "year is int64 instead of int32; tax decimal128(3, 2) removed; rooms int64 added",
    ):
        assert part in text
    assert "\x1b" not in text
    assert all(len(line) <= 40 for line in found.to_text(width=40).splitlines()[4:])
    html = found._repr_html_()
    assert "<script" not in html
    assert "&lt;script" in html
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (said["left"], said["right"], said["key"], said["same"]) == ("houses@1", "houses@2", ["id"], False)
    assert said["rows"]["changed"] == 900
    frame = found.to_frame()
    assert frame.loc["price", "mean_right"] == pytest.approx(versions[1].read()["price"].mean())
    assert frame.loc["rooms", "nulls_right"] == 600
    assert frame.loc["rooms", "nulls_left"] is pd.NA
    assert list(frame.index) == [column.name for column in found.columns]


def test_what_cannot_be_compared(versions: tuple[Dataset, Dataset], settings: Settings) -> None:
    before, after = versions
    with pytest.raises(MissingColumnError, match="diff: houses@2: there is no column 'tax'"):
        before.diff(after, key="tax")
    with pytest.raises(DatasetError, match="rows of houses@1 repeat the key 'city' of another row; compare by more"):
        before.diff(after, key="city")
    with pytest.raises(DatasetError, match="the key 'rooms' is missing in row 0 of houses@2"):
        after.diff(after, key="rooms")
    with pytest.raises(ConfigError, match=r"expected a dataset such as .*, got str"):
        before.diff("houses@2")  # type: ignore[arg-type]
    for key in (True, [], 3):
        with pytest.raises(ConfigError, match="key="):
            before.diff(after, key=key)  # type: ignore[arg-type]
    with pytest.raises(VersionNotFound, match="no version 9"):
        DatasetStore(settings).diff("houses@1", "houses@9")
    with pytest.raises(MissingColumnError, match="neither houses@1 nor houses@2 has a column 'cty'; did you mean"):
        before.diff(after)["cty"]


def test_damage_is_found(versions: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    path = (
        tmp_path / "store/datasets/houses/data" / versions[1].manifest.publish_id / versions[1].manifest.files[0].path
    )
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IntegrityError, match="is damaged"):
        versions[0].diff(versions[1])


def test_csv_and_parquet_are_compared_by_value(settings: Settings) -> None:
    table = pa.table({"id": range(10), "x": [number / 3 for number in range(10)], "t": ["", None] * 5})
    one = DatasetBuilder("a", TableSource(table), settings).build(format="csv")
    other = DatasetBuilder("b", TableSource(table), settings).build()
    assert one.diff(other, key="id").is_same


def test_on_s3(aws_env: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = Settings(root=f"s3://{bucket}/project", region="cn-northwest-1")
    build(pa.table({"id": range(100)}), settings)
    DatasetBuilder("houses", TableSource(pa.table({"id": range(90, 120)})), settings).append("id").build()
    found: DatasetDiff = DatasetStore(settings).diff("houses@1", "houses@2", key="id")
    assert found.rows == RowChanges(20, 0, 100, 0, 0)
