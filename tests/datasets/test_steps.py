"""`clean` and `map`: what they change, and how they say that they cannot."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import itertools
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit import DatasetBuilder, Settings
from smkit.datasets.running import Run
from smkit.datasets.steps import Clean
from smkit.datasets.transforms import Map, code_digest
from smkit.errors import ConfigError, DatasetError, EmptyResultError, MissingColumnError, TransformError
from smkit.frames import to_pandas
from tests.datasets.conftest import BatchSource, TableSource

if TYPE_CHECKING:
    from collections.abc import Callable

NAN = float("nan")


def clean(table: pa.Table, batch_size: int = 100, **arguments: Any) -> pa.Table:
    step = Clean(**{"drop_missing": (), "drop_duplicates": (), **arguments})
    batches = (table.slice(start, batch_size) for start in range(0, table.num_rows, batch_size))
    return pa.concat_tables(step.run(batches, Run()))


def build(
    table: pa.Table, function: Callable[..., Any], settings: Settings, *, batch_size: int = 3, **kwargs: Any
) -> Any:
    return DatasetBuilder("houses", TableSource(table), settings).map(function, **kwargs).build(batch_size=batch_size)


def test_missing_values_drop_rows() -> None:
    table = pa.table({"a": [1, None, 3, 4], "b": [1.0, 2.0, NAN, None], "c": ["", "x", None, "y"]})
    assert clean(table, drop_missing=("a",))["a"].to_pylist() == [1, 3, 4]
    assert clean(table, drop_missing=("b",))["a"].to_pylist() == [1, None]
    assert clean(table, drop_missing=("a", "c"))["a"].to_pylist() == [1, 4]
    assert clean(table, drop_missing=None)["a"].to_pylist() == [1]
    assert clean(pa.table({"n": pa.nulls(3)}), drop_missing=None).num_rows == 0


@given(
    st.lists(st.tuples(st.integers(0, 3) | st.none(), st.sampled_from([0.0, -0.0, 1.5, NAN, None])), max_size=60),
    st.integers(1, 61),
)
def test_cleaning_is_that_of_pandas(rows: list[tuple[int | None, float | None]], batch_size: int) -> None:
    frame = pd.DataFrame({"a": pd.array([a for a, _ in rows], "Int64"), "b": [b for _, b in rows]}, dtype=None)
    frame["b"] = frame["b"].astype("float64")
    table = pa.table({"i": range(len(rows)), "a": pa.array(frame["a"]), "b": pa.array(frame["b"])})
    for arguments, expected in (
        ({"drop_missing": ("b",)}, frame.dropna(subset=["b"])),
        ({"drop_duplicates": ("a", "b")}, frame.drop_duplicates()),
        ({"drop_duplicates": ("b",)}, frame.drop_duplicates(subset=["b"])),
        ({"drop_missing": ("a", "b"), "drop_duplicates": ("a",)}, frame.dropna().drop_duplicates(subset=["a"])),
    ):
        if rows:
            assert clean(table, batch_size, **arguments)["i"].to_pylist() == expected.index.tolist()


def test_duplicates_are_found_across_batches_and_types(settings: Settings) -> None:
    source = BatchSource(pa.table({"x": [1, 2]}), pa.table({"x": [2.0, 3.0, 1.0]}), pa.table({"x": pa.nulls(2)}))
    dataset = DatasetBuilder("houses", source, settings).clean(drop_duplicates=True).build()
    assert dataset.read_arrow()["x"].to_pylist() == [1.0, 2.0, 3.0, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"clean\(\) does nothing: give drop_missing= or drop_duplicates="),
        ({"drop_missing": []}, "does nothing"),
        ({"drop_missing": 3}, "drop_missing=3: expected True, False, a column's name or a list of names"),
        ({"drop_duplicates": ["a", 1]}, "expected True, False, a column's name"),
        ({"drop_missing": None}, "drop_missing=None: expected True"),
    ],
)
def test_bad_arguments_of_clean_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DatasetBuilder("houses", TableSource(pa.table({"a": [1]}))).clean(**arguments)


def test_clean_names_the_missing_column(settings: Settings) -> None:
    source = TableSource(pa.table({"price": [1]}))
    for arguments in ({"drop_missing": "prise"}, {"drop_duplicates": ["price", "prise"]}):
        with pytest.raises(
            MissingColumnError, match=r"clean: there is no column 'prise'; did you mean 'price'.*there are price"
        ):
            DatasetBuilder("houses", source, settings).clean(**arguments).build()


def test_map_changes_the_rows(settings: Settings) -> None:
    table = pa.table({"a": range(10), "b": [None, 1, 2, 3, 4, 5, 6, 7, 8, 9]})

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        assert isinstance(frame.index, pd.RangeIndex)
        assert frame["b"].dtype in ("int64", "Int64")
        frame["half"] = frame["a"] / 2
        return frame[frame["a"] % 2 == 0].drop(columns="b")

    read = build(table, change, settings).read()
    pd.testing.assert_frame_equal(read, pd.DataFrame({"a": [0, 2, 4, 6, 8], "half": [0.0, 1, 2, 3, 4]}))


def test_map_may_change_its_frame_in_place(settings: Settings) -> None:
    table = pa.table({"a": [1.0, 2.0, 3.0], "b": [1, 2, 3], "c": ["x", "y", "z"]})

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame["a"] > 1, "a"] = 0.0
        frame.iloc[0, 1] = 9
        frame["b"] += 1
        frame.loc[0, "c"] = "w"
        return frame

    source = TableSource(table)
    dataset = DatasetBuilder("houses", source, settings).map(change, per="dataset").build()
    assert dataset.read().to_dict("list") == {"a": [1.0, 0.0, 0.0], "b": [10, 3, 4], "c": ["w", "y", "z"]}
    assert source.table == pa.table({"a": [1.0, 2.0, 3.0], "b": [1, 2, 3], "c": ["x", "y", "z"]})


def test_map_may_return_more_rows(settings: Settings) -> None:
    table = pa.table({"a": [1, 2, 3, 4], "tags": [["x", "y"], ["z"], ["x"], ["y", "z"]]})
    read = build(table, lambda frame: frame.explode("tags"), settings, batch_size=2).read()
    assert read["tags"].tolist() == ["x", "y", "z", "x", "y", "z"]
    assert read["a"].tolist() == [1, 1, 2, 3, 4, 4]


def test_map_per_dataset_sees_all_rows_once(settings: Settings) -> None:
    calls = []

    def standardise(frame: pd.DataFrame) -> pd.DataFrame:
        calls.append(len(frame))
        return frame.assign(z=frame["a"] - frame["a"].mean())

    dataset = build(pa.table({"a": range(10)}), standardise, settings, per="dataset")
    assert dataset.read()["z"].tolist() == [value - 4.5 for value in range(10)]
    assert calls == [10]


def test_map_is_not_called_without_rows(settings: Settings) -> None:
    def fails_on_empty(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(first=frame["a"].iloc[0] * 0 + frame["a"])

    source = TableSource(pa.table({"a": pa.array([None, None, None, 4, 5, 6])}))
    builder = DatasetBuilder("houses", source, settings).clean(drop_missing=True)
    for per in ("batch", "dataset"):
        assert builder.map(fails_on_empty, per=per).build(batch_size=3).read()["first"].tolist() == [4, 5, 6]
    nothing = DatasetBuilder("none", TableSource(pa.table({"a": pa.nulls(6)})), settings).clean(drop_missing=True)
    for per in ("batch", "dataset"):
        with pytest.raises(EmptyResultError, match="of 6 rows the steps left none"):
            nothing.map(fails_on_empty, per=per).build(batch_size=3)


def raises_late(frame: pd.DataFrame) -> pd.DataFrame:
    if (frame["a"] == 7).any():
        raise KeyError("no such house")
    return frame


def test_a_transform_that_raises_tells_batch_and_rows(settings: Settings) -> None:
    source = TableSource(pa.table({"a": range(10)}))
    with pytest.raises(TransformError) as caught:
        DatasetBuilder("houses", source, settings).map(raises_late).build(batch_size=3)
    line = raises_late.__code__.co_firstlineno + 2
    assert str(caught.value) == (
        f"transform 'raises_late' failed in batch 2, rows 6 to 8: KeyError: 'no such house' ({__file__}, line {line})"
    )
    assert (caught.value.step, caught.value.batch, caught.value.rows) == ("raises_late", 2, (6, 8))
    assert isinstance(caught.value.__cause__, KeyError)
    assert source.closed == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_line_is_the_users_even_where_pandas_raises(settings: Settings) -> None:
    with pytest.raises(TransformError, match=rf"KeyError: 'nope' \({__file__}, line \d+\)"):
        build(pa.table({"a": [1]}), lambda frame: frame[["nope"]] if False else frame.pop("nope"), settings)
    with pytest.raises(
        TransformError, match="transform 'len' failed in batch 0, rows 0 to 0: it returned int, expected"
    ):
        build(pa.table({"a": [1]}), len, settings)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda frame: None, "it returned NoneType, expected a DataFrame; did you forget to return the frame?"),
        (lambda frame: frame["a"], "it returned Series, expected a DataFrame"),
        (lambda frame: frame.to_numpy(), "it returned ndarray"),
        (lambda frame: frame[[]], "it returned a frame without columns"),
        (lambda frame: frame.rename(columns={"a": 1}), "column name 1 is int, but must be a string"),
        (lambda frame: pd.concat([frame, frame], axis=1), "column names must be unique"),
        (lambda frame: frame.assign(b=[1, "x"] * (len(frame) // 2)), "column 'b' mixes kinds of values: int .1., str"),
    ],
)
def test_a_transform_that_returns_a_wrong_thing(function: Any, message: str, settings: Settings) -> None:
    with pytest.raises(TransformError, match=f"transform .* failed in batch 0, rows 0 to 3: .*{message}"):
        build(pa.table({"a": [1, 2, 3, 4]}), function, settings, batch_size=4, per="dataset")


def test_a_transform_that_changes_its_columns_between_batches(settings: Settings) -> None:
    table = pa.table({"a": range(9)})

    def adds(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(late=1) if (frame["a"] > 5).any() else frame

    def drops(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(b=1)[["b"]] if (frame["a"] > 5).any() else frame.assign(b=1)

    def reorders(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(b=1)[["b", "a"] if (frame["a"] > 5).any() else ["a", "b"]]

    for function, how in ((adds, "with 'late'"), (drops, "without 'a'"), (reorders, "in another order")):
        with pytest.raises(
            TransformError, match=f"batch 2, rows 6 to 8: it returned other columns .*: {how}"
        ) as caught:
            build(table, function, settings)
        assert caught.value.batch == 2


COUNTER = itertools.count()


@pytest.mark.parametrize(
    "function",
    [
        lambda frame: frame.assign(z=frame["a"] - frame["a"].mean()),
        lambda frame: frame.assign(z=frame["a"] / frame["a"].max()),
        lambda frame: frame.assign(z=range(len(frame))),
        lambda frame: frame.assign(z=frame["a"].shift()),
        lambda frame: frame.assign(z=frame["a"].diff().fillna(0)),
        lambda frame: frame.assign(z=len(frame)),
        lambda frame: frame.assign(z=np.random.default_rng().random(len(frame))),
        lambda frame: frame.assign(z=np.random.default_rng(0).random(len(frame))),
        lambda frame: frame.assign(z=next(COUNTER)),
        lambda frame: frame.assign(z=frame.groupby("g")["a"].transform("sum")),
        lambda frame: frame.sort_values("a", ascending=False),
        lambda frame: frame.drop_duplicates("g"),
        lambda frame: frame.head(3),
        lambda frame: frame.groupby("g", as_index=False).sum(),
        lambda frame: pd.get_dummies(frame, columns=["g"]),
        lambda frame: frame.assign(z=pd.qcut(frame["a"], 4, labels=False)),
        lambda frame: frame.assign(z=frame["g"].astype("category").cat.codes),
    ],
)
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_a_transform_that_depends_on_the_batch_is_refused(function: Any, batch_size: int, settings: Settings) -> None:
    table = pa.table({"a": [value * value % 17 for value in range(40)], "g": sorted("abcd" * 10)})
    with pytest.raises(TransformError, match=r"(?s)would depend on the batch size.*per='dataset'|other columns"):
        build(table, function, settings, batch_size=batch_size)


@pytest.mark.parametrize(
    "function",
    [
        lambda frame: frame,
        lambda frame: frame[frame["a"] > 3],
        lambda frame: frame.assign(z=np.where(frame["b"].isna(), None, "x")),
        lambda frame: frame.assign(z=frame["b"].fillna(0) / 3),
        lambda frame: frame.assign(z=pd.to_datetime(frame["a"], unit="D")),
        lambda frame: frame.assign(z=[[value] * (value % 3) for value in frame["a"]]),
        lambda frame: frame.assign(z=[{"k": value} for value in frame["a"]]),
        lambda frame: frame.assign(z=pd.to_numeric(frame["a"].where(frame["a"] % 2 == 0))),
        lambda frame: frame.set_index("a"),
    ],
)
def test_a_transform_that_treats_each_row_alone_is_accepted(function: Any, settings: Settings) -> None:
    table = pa.table({"a": range(6, 46), "b": [None, 1.5, 2.0, None] * 10})
    digests = {build(table, function, settings, batch_size=size).digest for size in (2, 7, 1000)}
    assert len(digests) == 1


def test_types_that_differ_between_batches_are_unified(settings: Settings) -> None:
    def parse(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(z=pd.to_numeric(frame["text"]), d=[decimal_of(text) for text in frame["text"]])

    def decimal_of(text: str) -> Any:
        import decimal

        return decimal.Decimal(text)

    table = pa.table({"text": ["1", "2", "300.25", "4", "5.5", "6"]})
    for size in (1, 2, 6):
        dataset = build(table, parse, settings, batch_size=size)
        assert dataset.version == 1
        assert dataset.schema.field("z").type == pa.float64()
        assert dataset.schema.field("d").type == pa.decimal128(5, 2)


D = decimal.Decimal
#: What PostgreSQL's types become, each with values that are narrower than it, and what is missing.
TYPED = {
    "price": pa.array([D("12.34"), None, D("0.50"), D("1.00")], pa.decimal128(10, 2)),
    "mean": pa.array([D("1." + "3" * 38), D("0.5"), None, None], pa.decimal256(76, 38)),
    "rooms": pa.array([[1, None], [], None, [2]], pa.list_(pa.int32())),
    "marks": pa.array([[0.5], None, [NAN, None], []], pa.list_(pa.float32())),
    "taxes": pa.array([[D("1.5")], None, [], [None]], pa.list_(pa.decimal128(6, 2))),
    "empty": pa.array([[], None, [], [None]], pa.list_(pa.int64())),
    "sold": pa.array([None] * 4, pa.date32()),
    "text": pa.array([None] * 4, pa.string()),
    "raw": pa.array([b"\x00", None, b"", b"a"], pa.binary()),
    "at": pa.array([dt.time(1, 2, 3), None, dt.time(0), dt.time(23)], pa.time64("us")),
    "opens": pa.array([dt.time(1, 2, 3), None, dt.time(0), dt.time(23)], pa.time32("s")),
    "seen": pa.array([None, None, dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), None], pa.timestamp("us", "UTC")),
    "days": pa.array([[dt.date(2026, 1, 1)], [None], None, []], pa.list_(pa.date32())),
    "small": pa.array([1, None, 3, 4], pa.int16()),
    "whole": pa.array([1, 2, 3, 4], pa.int32()),
    "half": pa.array([0.5, None, 1.5, 2.5], pa.float32()),
    "new": pa.array([None] * 4, pa.bool_()),
    "pair": pa.array(
        [{"x": 1, "y": None}, None, {"x": None, "y": None}, None], pa.struct([("x", pa.int8()), ("y", pa.date32())])
    ),
}


@pytest.mark.filterwarnings("ignore::smkit.errors.WideDecimalWarning")
@pytest.mark.parametrize("function", [lambda frame: frame, lambda frame: frame.set_index("price")])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_map_keeps_the_types_of_what_it_does_not_change(function: Any, batch_size: int, settings: Settings) -> None:
    table = pa.table(TYPED)
    for per in ("batch", "dataset"):
        builder = DatasetBuilder("houses", TableSource(table), settings).map(function, per=per).map(function, per=per)
        read = builder.build(batch_size=batch_size).read_arrow()
        assert read.schema == table.schema
        assert repr(read.to_pylist()) == repr(table.to_pylist())


def test_a_mapped_dataset_grows_by_values_of_any_size(settings: Settings) -> None:
    def day(number: int, price: str, sold: dt.date | None) -> pa.Table:
        kinds = {"id": pa.int64(), "price": pa.decimal128(10, 2), "sold": pa.date32(), "items": pa.list_(pa.int32())}
        values = {"id": number, "price": D(price), "sold": sold, "items": [] if sold is None else [number]}
        return pa.table({name: pa.array([values[name]], kind) for name, kind in kinds.items()})

    for number, (price, sold) in enumerate([("1.50", None), ("12345678.90", dt.date(2026, 1, 1)), ("0.01", None)]):
        source = TableSource(day(number, price, sold))
        grown = DatasetBuilder("houses", source, settings).map(lambda frame: frame).append("id").build()
    assert grown.ref == "houses@3"
    assert grown.read_arrow()["price"].to_pylist() == [D("1.50"), D("12345678.90"), D("0.01")]


def test_map_changes_types_where_values_are_others(settings: Settings) -> None:
    """Whichever values are missing in a batch, or in the parts of one that are tried out."""
    table = pa.table(
        {
            "price": pa.array([D("1.25"), D("2.50"), D("3.75"), None], pa.decimal128(4, 2)),
            "text": ["1.5", None, None, "20.25"],
            "tags": pa.array([[], None, ["2026-01-01"], []], pa.list_(pa.string())),
            "seen": pa.array([0, 1, 2, 3], pa.timestamp("us")),
            "items": pa.array([[1], [], None, [2]], pa.list_(pa.int32())),
            "marks": pa.array([[0.5], [], None, [1.5]], pa.list_(pa.float32())),
            "opens": pa.array([dt.time(1), None, dt.time(2), dt.time(3)], pa.time32("s")),
        }
    )

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(
            price=[None if value is None else value * 1000 + D("0.001") for value in frame["price"]],
            text=[D(value) if isinstance(value, str) else None for value in frame["text"]],
            tags=[value and [dt.date.fromisoformat(item) for item in value] for value in frame["tags"]],
            seen=frame["seen"].dt.date,
            items=[value and [item + 2**40 for item in value] for value in frame["items"]],
            marks=[value and [item + 0.1 for item in value] for value in frame["marks"]],
            opens=[value and value.replace(microsecond=5) for value in frame["opens"]],
        )

    digests = set()
    for batch_size in (1, 2, 3, 100):
        dataset = build(table, change, settings, batch_size=batch_size)
        digests.add(dataset.digest)
    assert len(digests) == 1
    expected = change(to_pandas(table))
    assert dataset.read_arrow().to_pydict() == {
        name: [None if value is pd.NaT else value for value in expected[name]] for name in expected
    }
    assert dict(zip(dataset.schema.names, map(str, dataset.schema.types), strict=True)) == {
        "price": "decimal128(7, 3)",
        "text": "decimal128(4, 2)",
        "tags": "list<item: date32[day]>",
        "seen": "date32[day]",
        "items": "list<item: int64>",
        "marks": "list<item: double>",
        "opens": "time64[us]",
    }


def test_values_that_no_common_type_holds_are_refused(settings: Settings) -> None:
    large = BatchSource(pa.table({"x": [2**53 + 1]}), pa.table({"x": [0.5]}))
    with pytest.raises(
        DatasetError,
        match="column 'x' has type int64 in one batch, and a value does not fit double, its type over all batches",
    ):
        DatasetBuilder("houses", large, settings).build()
    mixed = BatchSource(pa.table({"x": [1]}), pa.table({"x": ["a"]}))
    with pytest.raises(
        DatasetError, match="column 'x' has type int64 in one batch and string in another; set its type"
    ):
        DatasetBuilder("houses", mixed, settings).build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("not a function",), "map: expected a function from DataFrame to DataFrame, got str"),
        ((len, "row"), "map: per='row': expected 'batch' or 'dataset'"),
    ],
)
def test_bad_arguments_of_map_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    builder = DatasetBuilder("houses", TableSource(pa.table({"a": [1]})))
    with pytest.raises(ConfigError, match=message):
        builder.map(arguments[0], **({"per": arguments[1]} if len(arguments) > 1 else {}))


def first(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(z=1)


def second(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(z=2)


class Scale:
    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame * self.by

    def method(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame / self.by


def test_the_code_of_a_transform_is_known_by_digest() -> None:
    assert code_digest(first) == code_digest(first) != code_digest(second)
    assert code_digest(functools.partial(functools.partial(first))) == code_digest(first)
    assert code_digest(functools.wraps(first)(lambda frame: second(frame.copy()))) == code_digest(first)
    assert code_digest(Scale(2)) == code_digest(Scale.__call__) != code_digest(Scale(2).method)
    assert code_digest(len) is None
    assert code_digest(np.log1p) is None
    assert [Map(function, "batch").name for function in (first, Scale(2), functools.partial(first), len)] == [
        "first",
        "Scale",
        "first",
        "len",
    ]


def test_code_without_source_has_the_same_digest_in_every_process() -> None:
    script = """
from smkit.datasets.transforms import code_digest
def make(body):
    space = {}
    source = f"def f(x):\\n    inner = lambda: {body}\\n    return x in {{'a', 'b', 'c'}}"
    exec(compile(source, "<made>", "exec"), space)
    return space["f"]
print(code_digest(make("1")), code_digest(make("2")))
"""
    results = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    (one,) = results
    assert len(set(one.split())) == 2
