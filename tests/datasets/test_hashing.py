"""Hashes of rows: stable for ever, equal for equal values, and what duplicates stand on."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.datasets import hashing
from smkit.datasets.hashing import SeenRows, hash_positions, hash_rows
from smkit.errors import DatasetError
from tests.datasets.conftest import wall

D = decimal.Decimal
UTC = dt.timezone.utc


def hash_of(values: Any, kind: pa.DataType | None = None, salt: int = 0) -> list[int]:
    column = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)
    return [int(value) for value in hash_rows(pa.table({"x": column}), ["x"], salt)]


# Changing one of these moves rows between the splits of every dataset that was ever split by a key.
GOLDEN: list[tuple[Any, pa.DataType, int]] = [
    (None, pa.null(), 0x6E789E6AA1B965F4),
    (1, pa.int8(), 0x5E41AB087439611E),
    (-1, pa.int32(), 0x5DC20AA7B2A27137),
    (2**63 - 1, pa.int64(), 0x69C9D98A86C5CD1E),
    (2**64 - 1, pa.uint64(), 0xDD9AD07C0A233882),
    (True, pa.bool_(), 0x5E41AB087439611E),
    (0.1, pa.float32(), 0x42B98151B1FC4CDA),
    (0.1, pa.float64(), 0x9ABB46CA3E6212DE),
    (-0.0, pa.float64(), 0xA706DD2F4D197E6F),
    (float("nan"), pa.float64(), 0x6E789E6AA1B965F4),
    (float("inf"), pa.float64(), 0xA3F83137423D04BF),
    (1e300, pa.float64(), 0x0C9E004561C4AD01),
    ("", pa.string(), 0x7ABD2A7B6F9499CD),
    ("house-17", pa.string(), 0x58D1270D52951E37),
    ("北京", pa.large_string(), 0xF27253CD125AF8F2),
    ("a", pa.dictionary(pa.int8(), pa.string()), 0xCECAD4617104D54E),
    (b"\x00\xff", pa.binary(), 0x57566E5A1C2177B6),
    (b"ab", pa.binary(2), 0x929832640537E85F),
    (D("12.50"), pa.decimal128(10, 2), 0x6C1614A9B0D49E56),
    (D("-1e-30"), pa.decimal256(60, 30), 0x37E491D7C717F93F),
    (D("1e60"), pa.decimal256(76, 0), 0x5DF975D1BDF30B36),
    (dt.date(1969, 12, 31), pa.date32(), 0x5DC20AA7B2A27137),
    (dt.date(2026, 1, 31), pa.date64(), 0x54CD98B5B4F590CE),
    (dt.time(9, 30), pa.time32("s"), 0x2F58D2D9283E8142),
    (dt.time(9, 30, 0, 1), pa.time64("us"), 0x7B1DEEF531514DB4),
    (wall(2026, 1, 31, 9, 30, 0, 1), pa.timestamp("us"), 0x989CA164BDC28231),
    (wall(2026, 1, 31, 9, 30), pa.timestamp("s"), 0x492C1ECF8A6CF89C),
    (dt.datetime(2026, 1, 31, 9, 30, tzinfo=UTC), pa.timestamp("ns", "Asia/Shanghai"), 0x492C1ECF8A6CF89C),
    (dt.timedelta(days=-1, microseconds=1), pa.duration("us"), 0xB81ED903B860521D),
    ([1, None], pa.list_(pa.int64()), 0xDA03355A65032486),
    ([], pa.list_(pa.string()), 0xA706DD2F4D197E6F),
    ([0.5, 1.5], pa.list_(pa.float32(), 2), 0xAD190973489EA8DD),
    ({"a": 1, "b": "x"}, pa.struct([("a", pa.int64()), ("b", pa.string())]), 0xBC076BA87265A89C),
    ([("k", 1)], pa.map_(pa.string(), pa.int64()), 0x582F403086AC0554),
]
MANY = [0x4CFB668CF95FD348, 0x77A3E18634CAF571]
OTHER_ORDER = [0xC3E077C110210621, 0x9AD7DF4C421157FF]
OTHER_SALT = [0x786F492BB803434C, 0x17989DAD7D1EE4E4]
POSITIONS = [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0x975835DE1C9756CE, 0x1D0B14E4DB018FED]
POSITION_SEED_42 = 0x07DC930B302278A8


@pytest.mark.parametrize(("value", "kind", "expected"), GOLDEN, ids=[f"{kind} {value!r}" for value, kind, _ in GOLDEN])
def test_the_hash_of_a_value_never_changes(value: Any, kind: pa.DataType, expected: int) -> None:
    assert hash_of([value], kind) == [expected]


def test_the_hash_of_several_columns_never_changes() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None], "c": [0.5, float("nan")]})
    assert hash_rows(table, ["a", "b", "c"]).tolist() == MANY
    assert hash_rows(table, ["c", "a", "b"]).tolist() == OTHER_ORDER
    assert hash_rows(table, ["a", "b", "c"], salt=1).tolist() == OTHER_SALT


def test_the_values_of_positions_never_change() -> None:
    assert hash_positions(0, 3, 0).tolist() == POSITIONS[:3]
    assert hash_positions(2, 2, 0).tolist() == POSITIONS[2:]
    assert hash_positions(0, 1, 42).tolist() == [POSITION_SEED_42]


@pytest.mark.parametrize(
    "alike",
    [
        [pa.array([1], kind) for kind in (pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64())]
        + [pa.array([True])],
        [pa.array([0.0]), pa.array([-0.0]), pa.array([0]), pa.array([False])],
        [pa.array([0.5], pa.float32()), pa.array([0.5], pa.float64())],
        [
            pa.array([None], pa.null()),
            pa.array([None], pa.int64()),
            pa.array([None], pa.string()),
            pa.array([float("nan")]),
        ],
        [pa.array([D("1.5")]), pa.array([D("1.500")]), pa.array([D("1.5")], pa.decimal256(50, 7))],
        [pa.array(["ab"]), pa.array(["ab"], pa.large_string()), pa.array(["ab"]).dictionary_encode()],
        [pa.array([b"ab"]), pa.array([b"ab"], pa.large_binary()), pa.array([b"ab"], pa.binary(2))],
        [pa.array([1_000_000_000], pa.int64()).cast(pa.timestamp("ns"))]
        + [pa.array([number]).cast(pa.timestamp(unit)) for unit, number in (("s", 1), ("ms", 1000), ("us", 10**6))],
        [pa.array([dt.date(2020, 1, 2)], pa.date32()), pa.array([dt.date(2020, 1, 2)], pa.date64())],
        [pa.array([60], pa.int32()).cast(pa.time32("s")), pa.array([60 * 10**9]).cast(pa.time64("ns"))],
        [pa.array([[1, 2]]), pa.array([[1, 2]], pa.large_list(pa.int8())), pa.array([[1, 2]], pa.list_(pa.int64(), 2))],
    ],
)
def test_equal_values_of_different_types_hash_alike(alike: list[pa.Array]) -> None:
    assert len({hash_of(array)[0] for array in alike}) == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, "", " ", "a", "A", "None", "nan"], pa.string()),
        ([None, 0, 1, -1, 2**63 - 1, -(2**63)], pa.int64()),
        ([0, 1, 2**63, 2**64 - 1], pa.uint64()),
        ([None, 0.0, 0.1, 1.0, 1e300, float("inf"), float("-inf"), 5e-324], pa.float64()),
        ([None, b"", b"\x00", b"\x00\x00"], pa.binary()),
        ([None, [], [None], [0], [0, 0], [1, 2], [2, 1], [[]][0] + [3]], pa.list_(pa.int64())),
        (
            [None, {"a": None, "b": 1}, {"a": 1, "b": None}, {"a": 1, "b": 1}],
            pa.struct([("a", pa.int8()), ("b", pa.int8())]),
        ),
        ([None, [], [("a", 1)], [("a", 2)], [("b", 1)], [("a", 1), ("b", 1)]], pa.map_(pa.string(), pa.int8())),
        ([None, D("0"), D("0.01"), D("-0.01"), D("100")], pa.decimal128(10, 2)),
        ([None, 0, 1, -1, 10**9], pa.timestamp("us", "Asia/Shanghai")),
        ([None, 0, 1, -1], pa.duration("ns")),
    ],
)
def test_different_values_hash_differently(values: list[Any], kind: pa.DataType) -> None:
    for salt in (0, 1):
        hashes = hash_of(values, kind, salt)
        assert len(set(hashes)) == len(values)


def test_a_column_has_a_place() -> None:
    table = pa.table({"a": [1], "b": [2]})
    assert hash_rows(table, ["a", "b"]) != hash_rows(table, ["b", "a"])
    assert hash_rows(pa.table({"a": ["x"], "b": ["y"]}), ["a", "b"]) != hash_rows(
        pa.table({"a": ["y"], "b": ["x"]}), ["a", "b"]
    )


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3, 4, 5]),
        pa.array([0.5, None, float("nan"), 4.0, -0.0]),
        pa.array(["a", None, "", "ü", "a"]),
        pa.array([D("1.5"), None, D("2.25"), D("0"), D("1")]),
        pa.array([[1], None, [], [2, 3], [None]]),
        pa.array([{"a": [1]}, None, {"a": None}, {"a": []}, {"a": [2, 3]}]),
        pa.array([[("a", 1)], None, [], [("b", 2), ("c", 3)], [("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([b"a", None, b"", b"b", b"c"]),
        pa.array(["a", None, "b", "a", "c"]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_where_a_row_lies_in_memory_does_not_matter(array: pa.Array) -> None:
    whole = hash_of(array)
    assert hash_of(array.slice(1, 3)) == whole[1:4]
    assert hash_of(pa.chunked_array([array.slice(0, 2), array.slice(2, 0), array.slice(2)])) == whole
    assert hash_of(array.slice(0, 0)) == []
    assert hash_of(pa.chunked_array([], array.type)) == []


def test_a_calendar_interval_cannot_be_hashed() -> None:
    column = pa.array([pa.MonthDayNano([1, 2, 3])])
    with pytest.raises(DatasetError, match="'x' has type month_day_nano_interval"):
        hash_of(column)


@given(st.lists(st.lists(st.tuples(st.integers(0, 3) | st.none(), st.sampled_from(["", "a", None])), max_size=8)))
def test_seen_rows_are_those_of_a_set(batches: list[list[tuple[int | None, str | None]]]) -> None:
    seen, known = SeenRows(["a", "b"]), set()
    for rows in batches:
        table = pa.table(
            {"a": pa.array([a for a, _ in rows], pa.int64()), "b": pa.array([b for _, b in rows], pa.string())}
        )
        expected = []
        for row in rows:
            expected.append(row not in known)
            known.add(row)
        assert seen.add(table).tolist() == expected


@given(st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=12))
def test_rows_whose_high_halves_collide_are_told_apart(batches: list[list[int]]) -> None:
    real = hashing.hash_rows

    def colliding(table: pa.Table, columns: Any, salt: int = 0) -> Any:
        return real(table, columns, salt) % np.uint64(3) if salt == 0 else real(table, columns, salt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "hash_rows", colliding)
        seen, known = SeenRows(["a"]), set()
        for numbers in batches:
            expected = [number not in known and number not in numbers[:place] for place, number in enumerate(numbers)]
            known.update(numbers)
            assert seen.add(pa.table({"a": pa.array(numbers, pa.int64())})).tolist() == expected
        assert sum(len(run) for run, _ in seen._runs) == len(known)
        assert all(len(long) >= 2 * len(short) for (long, _), (short, _) in itertools.pairwise(seen._runs))
