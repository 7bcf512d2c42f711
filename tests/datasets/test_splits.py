"""Splits: every row in exactly one, the same one whatever the batches; the shares and promises of each rule."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from smkit import DatasetBuilder, Settings
from smkit.datasets import splitters
from smkit.datasets.splits import SPLITS, check_splits, make_rule
from smkit.datasets.splitters import start_splitter
from smkit.errors import ConfigError, DatasetError, EmptySplitError, MissingColumnError
from tests.datasets.conftest import TableSource

if TYPE_CHECKING:
    from pathlib import Path

NONE: dict[str, Any] = {"by": None, "stratify": None, "group": None, "time": None, "validation": 0.0, "seed": 0}


def assign(table: pa.Table, *, batch_size: int = 1000, **arguments: Any) -> np.ndarray[Any, Any]:
    """The index in SPLITS of each row."""
    rule = make_rule(**{**NONE, **arguments})
    splitter = start_splitter(rule)
    batches = [table.slice(start, batch_size) for start in range(0, table.num_rows, batch_size)]
    for batch in batches:
        splitter.observe(batch.select(list(rule.columns)))
    splitter.settle(table.num_rows)
    placed = [splitter.assign(batch, number * batch_size) for number, batch in enumerate(batches)]
    return np.concatenate(placed) if placed else np.empty(0, dtype=np.uint8)


def counts(placed: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return tuple(int((placed == index).sum()) for index in range(3))


RULES: list[dict[str, Any]] = [
    {"test": 0.3},
    {"test": 0.3, "validation": 0.2, "seed": 9},
    {"test": 0.3, "by": "key"},
    {"test": 0.3, "by": ["key", "label"], "validation": 0.2},
    {"test": 0.3, "stratify": "label"},
    {"test": 0.3, "stratify": "label", "validation": 0.2},
    {"test": 0.3, "group": "key"},
    {"test": 0.3, "group": ["key", "label"], "validation": 0.2},
    {"test": 0.3, "time": "when"},
    {"test": 0.3, "time": "when", "validation": 0.2},
]


def many_rows(rows: int = 200) -> pa.Table:
    rng = np.random.default_rng(4)
    return pa.table(
        {
            "id": np.arange(rows),
            "key": rng.integers(0, 40, rows),
            "label": np.array(["a", "b", "c"])[rng.choice(3, rows, p=[0.6, 0.3, 0.1])],
            "when": pa.array(rng.integers(0, 50, rows), pa.timestamp("s")),
        }
    )


@pytest.mark.parametrize("rule", RULES, ids=str)
@given(batch_size=st.integers(1, 201))
def test_a_row_lands_in_the_same_split_whatever_the_batch_size(rule: dict[str, Any], batch_size: int) -> None:
    table = many_rows()
    assert assign(table, batch_size=batch_size, **rule).tolist() == assign(table, batch_size=200, **rule).tolist()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_row_is_lost_or_doubled(rule: dict[str, Any], settings: Settings) -> None:
    table = many_rows()
    dataset = DatasetBuilder("houses", TableSource(table), settings).split(**rule).build(batch_size=7)
    parts = [dataset.read(split)["id"].tolist() for split in dataset.splits]
    assert sorted(itertools.chain(*parts)) == list(range(200))
    assert all(part == sorted(part) for part in parts)  # each keeps the order of the source
    assert len(parts) == (3 if "validation" in rule else 2)
    assert dict(dataset.rows) == {split: len(part) for split, part in zip(dataset.splits, parts, strict=True)}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_another_seed_places_other_rows(rule: dict[str, Any]) -> None:
    table = many_rows()
    same = assign(table, **rule).tolist() == assign(table, **{**rule, "seed": 77}).tolist()
    assert same == ("time" in rule)


@given(rows=st.integers(2, 400), test=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_random_counts_are_those_of_scikit_learn(rows: int, test: float, seed: int) -> None:
    try:
        train, tested = train_test_split(range(rows), test_size=test)
    except ValueError:
        assume(False)
    assert counts(assign(pa.table({"a": range(rows)}), test=test, seed=seed)) == (len(train), 0, len(tested))


@pytest.mark.parametrize(
    ("rows", "test", "expected"),
    [(10, 0.25, 3), (100, 0.07, 8), (100, 0.1, 10), (7, 0.5, 4), (1_000_003, 0.2, 200_001)],
)
def test_counts_are_rounded_up_as_by_scikit_learn(rows: int, test: float, expected: int) -> None:
    assert len(train_test_split(range(rows), test_size=test)[1]) == expected
    assert counts(assign(pa.table({"a": np.arange(rows)}), batch_size=1 << 18, test=test))[2] == expected


@given(rows=st.integers(3, 300), test=st.floats(0.01, 0.6), validation=st.floats(0.01, 0.39))
def test_three_splits_have_exact_counts(rows: int, test: float, validation: float) -> None:
    train, validated, tested = counts(assign(pa.table({"a": range(rows)}), test=test, validation=validation))
    assert tested == min(rows, -int(-(test * rows) // 1))
    assert validated == min(rows - tested, -int(-(validation * rows) // 1))
    assert train + validated + tested == rows


def test_random_rows_are_uniform() -> None:
    placed = assign(pa.table({"a": np.arange(100_000)}), batch_size=9999, test=0.2, seed=3) == 2
    assert placed.sum() == 20_000
    tenths = placed.reshape(10, -1).sum(axis=1)
    assert abs(tenths - 2000).max() < 5 * np.sqrt(10_000 * 0.2 * 0.8)


@given(st.lists(st.integers(0, 4), min_size=20, max_size=300), st.floats(0.1, 0.5), st.integers(0, 5))
def test_stratified_splits_keep_the_proportions(labels: list[int], test: float, seed: int) -> None:
    sizes = Counter(labels)
    assume(min(sizes.values()) >= 2)
    placed = assign(pa.table({"y": labels}), test=test, stratify="y", seed=seed)
    wanted = -int(-(test * len(labels)) // 1)
    assert counts(placed)[2] == wanted
    for label, size in sizes.items():
        tested = int((placed[np.array(labels) == label] == 2).sum())
        assert abs(tested - size * wanted / len(labels)) < 1
    try:
        reference = train_test_split(labels, test_size=test, stratify=labels, random_state=0)[1]
    except ValueError:  # it wants a test row of every class
        return
    for label, number in Counter(reference).items():
        assert abs(number - int((placed[np.array(labels) == label] == 2).sum())) <= 1


def test_a_missing_class_is_a_class() -> None:
    column = pa.array([1.0, None, float("nan"), 2.0] * 20)
    placed = assign(pa.table({"y": column}), test=0.25, stratify="y", batch_size=3)
    assert [int((placed[start::4] == 2).sum()) for start in (0, 3)] == [5, 5]
    assert int((placed[1::4] == 2).sum() + (placed[2::4] == 2).sum()) == 10


def test_a_class_that_is_too_small_is_named() -> None:
    with pytest.raises(EmptySplitError, match=r"stratify='y': 1 class has fewer rows than there are splits \(2\).*'c'"):
        assign(pa.table({"y": ["a", "a", "b", "b", "c"]}), test=0.5, stratify="y")


def test_what_is_no_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitters, "_MAX_CLASSES", 5)
    five = pa.table({"y": [0, 1, 2, 3, 4] * 2})
    assert counts(assign(five, test=0.5, stratify="y", batch_size=1)) == (5, 0, 5)
    with pytest.raises(DatasetError, match="stratify='y' has more than 5 values: it is not a class"):
        assign(pa.table({"y": range(6)}), test=0.5, stratify="y", batch_size=2)
    with pytest.raises(DatasetError, match="stratify='y' has type list<item: int64>, which names no class"):
        assign(pa.table({"y": [[1], [2]]}), test=0.5, stratify="y")


@given(
    keys=st.lists(st.text(max_size=3), min_size=1, max_size=60, unique=True),
    more=st.lists(st.text(max_size=3), max_size=60),
    data=st.data(),
)
def test_a_key_keeps_its_split_when_rows_come_and_move(keys: list[str], more: list[str], data: st.DataObject) -> None:
    rule: dict[str, Any] = {"test": 0.3, "validation": 0.2, "by": "key"}
    before = dict(zip(keys, assign(pa.table({"key": keys}), **rule).tolist(), strict=True))
    grown = data.draw(st.permutations(keys + more))
    after = assign(pa.table({"key": pa.array(grown, pa.large_string())}), batch_size=7, **rule).tolist()
    for key, split in zip(grown, after, strict=True):
        assert before.get(key, split) == split


def test_a_key_keeps_its_split_when_its_type_changes() -> None:
    keys = list(range(500))
    expected = assign(pa.table({"key": pa.array(keys, pa.int64())}), test=0.2, by="key").tolist()
    for kind in (pa.int16(), pa.uint32(), pa.float64()):
        assert assign(pa.table({"key": pa.array(keys, kind)}), test=0.2, by="key").tolist() == expected


def test_a_larger_test_share_keeps_the_test_keys() -> None:
    table = pa.table({"key": range(2000)})
    small, large = (assign(table, test=share, by="key") == 2 for share in (0.1, 0.3))
    assert (large | ~small).all()
    assert 130 < small.sum() < 270
    assert 500 < large.sum() < 700


@given(
    st.lists(st.tuples(st.integers(0, 9) | st.none(), st.sampled_from("ab")), min_size=1, max_size=120),
    st.integers(0, 9),
)
def test_a_group_never_leaks(rows: list[tuple[int | None, str]], seed: int) -> None:
    table = pa.table({"g": pa.array([g for g, _ in rows], pa.int64()), "h": [h for _, h in rows]})
    for columns, keys in (("g", [g for g, _ in rows]), (["g", "h"], rows)):
        placed = assign(table, test=0.3, validation=0.2, group=columns, seed=seed, batch_size=11).tolist()
        assert len(set(zip(keys, placed, strict=True))) == len(set(keys))


def test_group_counts_are_those_of_scikit_learn() -> None:
    groups = np.random.default_rng(0).integers(0, 37, 500)
    placed = assign(pa.table({"g": groups}), test=0.22, group="g")
    reference = next(GroupShuffleSplit(1, test_size=0.22, random_state=0).split(groups, groups=groups))[1]
    assert len(set(groups[placed == 2])) == len(set(groups[reference]))


def test_many_groups_are_merged_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"g": np.random.default_rng(0).integers(0, 5000, 9000)})
    expected = assign(table, test=0.3, group="g", batch_size=9000)
    monkeypatch.setattr(splitters, "_CHUNK", 100)
    assert (assign(table, test=0.3, group="g", batch_size=50) == expected).all()
    rows = pa.table({"a": range(1234)})
    expected = assign(rows, test=0.3)
    monkeypatch.setattr(splitters, "_CHUNK", 1 << 20)
    assert (assign(rows, test=0.3) == expected).all()


@given(
    st.lists(st.integers(-5, 30), min_size=1, max_size=150),
    st.floats(0.05, 0.5),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([pa.int32(), pa.timestamp("us"), pa.date32(), pa.timestamp("s", "Asia/Shanghai")]),
)
def test_no_split_sees_its_own_future(times: list[int], test: float, validation: float, kind: pa.DataType) -> None:
    column = pa.array(times, pa.int32() if pa.types.is_date(kind) else pa.int64()).cast(kind)
    placed = assign(pa.table({"t": column}), test=test, validation=validation, time="t", batch_size=13)
    seen = [{time for time, split in zip(times, placed, strict=True) if split == index} for index in range(3)]
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if seen[earlier] and seen[later]:
            assert max(seen[earlier]) < min(seen[later])
    if len(set(times)) == len(times):
        tested = -int(-(test * len(times)) // 1)
        validated = min(len(times) - tested, -int(-(validation * len(times)) // 1))
        if len(times) - tested - validated > 0:
            assert counts(placed)[1:] == (validated, tested)


def test_rows_of_one_time_stay_together() -> None:
    placed = assign(pa.table({"t": [1, 2, 3, 3, 3, 3, 4, 5]}), test=0.5, time="t")
    assert placed.tolist() == [0, 0, 0, 0, 0, 0, 2, 2]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.array(["2026-01-31"]),
            "time='t' has type string: expected a date, a timestamp or an integer; .*to_datetime",
        ),
        (pa.array([1.5]), "time='t' has type double"),
        (
            pa.array([1, 2, None, 4, None]),
            r"time='t' is missing, first in row 2; drop such rows with .clean\(drop_missing=\['t'\]",
        ),
        (pa.array([2**64 - 1], pa.uint64()), "time='t': Integer value 18446744073709551615 not in range"),
    ],
)
def test_a_column_that_is_no_time_is_refused(column: pa.Array, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        assign(pa.table({"t": column}), test=0.5, time="t", batch_size=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": 1.0}, "test=1.0: expected a share"),
        ({"test": -0.1}, "test=-0.1: expected a share"),
        ({"test": float("nan")}, "test=nan: expected a share"),
        ({"test": True}, "test=True: expected a share"),
        ({"test": "0.2"}, "test='0.2': expected a share"),
        ({"test": 20}, "test=20: expected a share"),
        ({"test": 0.0}, "their sum must be more than 0 and less than 1"),
        ({"test": 0.6, "validation": 0.4}, "leave 0% to train on"),
        ({"test": 0.2, "seed": -1}, "seed=-1: expected an integer"),
        ({"test": 0.2, "seed": 1.5}, "seed=1.5: expected an integer"),
        ({"test": 0.2, "seed": True}, "seed=True: expected an integer"),
        ({"test": 0.2, "by": "a", "time": "b"}, "by and time are different rules: give one of"),
        ({"test": 0.2, "by": []}, r"by=\[\]: expected a column's name"),
        ({"test": 0.2, "group": ["a", "a"]}, "expected a column's name, or a list of different names"),
        ({"test": 0.2, "group": 3}, "group=3: expected a column's name"),
        ({"test": 0.2, "stratify": ["a", "b"]}, "expected one column; make one of several in a map step"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments: dict[str, Any], message: str) -> None:
    source = TableSource(pa.table({"a": [1]}))
    with pytest.raises(ConfigError, match=message):
        DatasetBuilder("houses", source).split(**arguments)
    assert source.opened == 0


def test_numbers_of_numpy_are_numbers() -> None:
    rule = make_rule(**{**NONE, "test": np.float32(0.25), "seed": np.int64(3)})
    assert rule == make_rule(**{**NONE, "test": 0.25, "seed": 3})
    assert rule.describe() == {"method": "random", "columns": [], "fractions": {"train": 0.75, "test": 0.25}, "seed": 3}


def test_shares_are_described_without_float_noise() -> None:
    described = make_rule(**{**NONE, "test": 0.2, "validation": 0.1}).describe()
    assert described["fractions"] == {"train": 0.7, "validation": 0.1, "test": 0.2}


@pytest.mark.parametrize(
    ("rows", "rule", "message"),
    [
        ([1], {"test": 0.5}, "train would be empty .train 0, test 1.; use larger shares or more rows"),
        ([1, 1, 1], {"test": 0.5, "by": "a"}, "would be empty .*few distinct keys rarely hit the shares"),
        ([1, 1, 1], {"test": 0.5, "group": "a"}, "train would be empty .*too few groups"),
        ([1, 1, 1], {"test": 0.5, "time": "a"}, "test would be empty .*too many rows share one time"),
        ([1, 2], {"test": 0.5, "validation": 0.4}, "train would be empty .train 0, validation 1, test 1."),
    ],
)
def test_a_split_that_would_be_empty_is_refused(
    rows: list[int], rule: dict[str, Any], message: str, settings: Settings, tmp_path: Path, temporary: Path
) -> None:
    with pytest.raises(EmptySplitError, match=f"dataset 'houses' was not built: .*{message}"):
        DatasetBuilder("houses", TableSource(pa.table({"a": rows})), settings).split(**rule).build()
    assert list(temporary.iterdir()) == []
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_missing_column_is_named(settings: Settings) -> None:
    source = TableSource(pa.table({"house": [1], "price": [2]}))
    for rule in ({"by": "hose"}, {"stratify": "hose"}, {"group": ["price", "hose"]}, {"time": "hose"}):
        with pytest.raises(MissingColumnError, match="split: there is no column 'hose'; did you mean 'house'"):
            DatasetBuilder("houses", source, settings).split(test=0.5, **rule).build()


def test_every_rule_sees_the_types_of_the_whole_column(settings: Settings) -> None:
    """The key is an integer in one batch and a float in the next."""
    from tests.datasets.conftest import BatchSource

    parts = pa.table({"k": pa.array([1, 2, 3])}), pa.table({"k": pa.array([3.0, 2.0, 0.5])})
    for rule in ({"by": "k", "seed": 1}, {"group": "k"}):
        dataset = DatasetBuilder("houses", BatchSource(*parts), settings).split(test=0.5, **rule).build()
        keys = [set(dataset.read(split)["k"]) for split in dataset.splits]
        assert keys[0].isdisjoint(keys[1])


def test_the_names_of_the_splits() -> None:
    assert SPLITS == ("train", "validation", "test")
    check_splits(make_rule(**{**NONE, "test": 0.1}), {"train": 1, "validation": 0, "test": 1}, "houses")


def test_a_date_of_another_width_is_a_time() -> None:
    days = [dt.date(2026, 1, day) for day in (3, 1, 2, 4)]
    for kind in (pa.date32(), pa.date64()):
        assert assign(pa.table({"t": pa.array(days, kind)}), test=0.25, time="t").tolist() == [0, 0, 0, 2]
