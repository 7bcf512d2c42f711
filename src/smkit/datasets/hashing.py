"""Hashes of rows that depend on the values alone: not on the batch, the process, the machine or the library's version.

Splits by key stand on them, so changing one moves rows between splits: a test pins their values.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from smkit.datasets.columns import stored_type
from smkit.errors import DatasetError

if TYPE_CHECKING:
    import decimal
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MISSING = np.uint64(0x9E3779B97F4A7C15)
#: Keeps what is no 64-bit integer apart from what is.
_NO_INTEGER = 0x5851F42D4C957F2D
#: SipHash takes 16 bytes; the two keys give two independent halves of a 128-bit hash.
_TEXT_KEYS = ("smkit-row-hash-0", "smkit-row-hash-1")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MS_PER_DAY = 86_400_000


def mix(values: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Scramble 64-bit values; a bijection, so different values stay different.

    SplitMix64's finaliser: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed: NDArray[np.uint64] = values + np.uint64(
        (salt * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    )
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def hash_positions(start: int, count: int, seed: int) -> NDArray[np.uint64]:
    """Return a pseudo-random, distinct 64-bit value for each row number from `start`, shape (count,)."""
    return mix(np.arange(start, start + count, dtype=np.uint64), seed)


def hash_rows(
    table: pa.Table, columns: Sequence[str], salt: int = 0, *, nan_is_missing: bool = True
) -> NDArray[np.uint64]:
    """Hash the values of some columns, shape (rows,).

    Equal values hash alike whatever their type's width: 1 as int8, int64, float or true, 0.0 and -0.0, decimals of
    different scale, times of different units; so a key keeps its hash when the source's types change.

    Args:
        table: The rows.
        columns: The columns that count, in this order.
        salt: Gives an independent hash of the same rows; even and odd salts hash text with different keys.
        nan_is_missing: Whether NaN and NULL are one value, as for pandas; else every NaN equals every other.

    Raises:
        DatasetError: A column has a type that cannot be compared, such as a calendar interval.
    """
    combined = np.zeros(table.num_rows, dtype=np.uint64)
    for position, name in enumerate(columns):
        chunks = [_hash(chunk, salt, name, nan_is_missing) for chunk in table.column(name).chunks]
        combined = mix(combined ^ np.concatenate([np.empty(0, dtype=np.uint64), *chunks]), salt + position)
    return combined


def _hash(array: pa.Array, salt: int, name: str, nan_is_missing: bool) -> NDArray[np.uint64]:
    kind = stored_type(array.type)
    if array.type != kind:
        array = array.cast(kind)
    hashed = mix(_bits(array, salt, name, nan_is_missing), salt)
    missing = pc.is_null(array, nan_is_null=nan_is_missing and pa.types.is_floating(kind))
    return np.where(missing.to_numpy(zero_copy_only=False), _MISSING, hashed)


def _bits(array: pa.Array, salt: int, name: str, nan_is_missing: bool) -> NDArray[np.uint64]:
    """Return 64 bits of each value; whatever for missing ones."""
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), dtype=np.uint64)
    if pa.types.is_floating(kind):
        return _float_bits(array.cast(pa.float64()).fill_null(0.0).to_numpy(), salt)
    if pa.types.is_uint64(kind):
        large: NDArray[np.uint64] = array.fill_null(0).to_numpy()
        return np.where(large >> np.uint64(63) == 1, mix(large, salt + _NO_INTEGER), large)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return _unsigned(_integers(array))
    if pa.types.is_temporal(kind):
        return _temporal_bits(array, salt, name)
    if pa.types.is_decimal(kind):
        return _decimal_bits(array, salt)
    if pa.types.is_struct(kind):
        combined = np.zeros(len(array), dtype=np.uint64)
        for position, child in enumerate(array.flatten()):
            combined = mix(combined ^ _hash(child, salt, name, nan_is_missing), salt + position)
        return combined
    if pa.types.is_map(kind):
        pairs = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
        return _list_bits(array.offsets.to_numpy(), pairs, salt, name, nan_is_missing)
    if pa.types.is_list(kind):
        return _list_bits(array.offsets.to_numpy(), array.values, salt, name, nan_is_missing)
    return _text_bits(array, salt)


def _float_bits(values: NDArray[np.float64], salt: int) -> NDArray[np.uint64]:
    values = np.where(np.isnan(values), np.nan, values)  # NaN has many bit patterns
    whole = (values == np.floor(values)) & (values >= -(2.0**63)) & (values < 2.0**63)
    integers = _unsigned(np.where(whole, values, 0.0).astype(np.int64))
    return np.where(whole, integers, mix(np.ascontiguousarray(values).view(np.uint64), salt + _NO_INTEGER))


def _temporal_bits(array: pa.Array, salt: int, name: str) -> NDArray[np.uint64]:
    kind = array.type
    if pa.types.is_interval(kind):
        raise DatasetError(f"column {name!r} has type {kind}, whose values have no order and no equality")
    if pa.types.is_date64(kind):
        return _unsigned(_integers(array) // _MS_PER_DAY)
    if pa.types.is_date(kind):
        return _unsigned(_integers(array))
    per_second = _PER_SECOND[kind.unit]
    # Not as nanoseconds in 64 bits, which end in the year 2262.
    seconds, rest = np.divmod(_integers(array), per_second)
    return mix(_unsigned(seconds), salt) + _unsigned(rest * (10**9 // per_second))


def _decimal_bits(array: pa.Array, salt: int) -> NDArray[np.uint64]:
    """Hash the 256-bit integer that a value is at a scale of 38, whatever the scale of its column."""
    if pa.types.is_decimal256(array.type):
        raw = b"".join(_scaled(value) for value in array.fill_null(0).to_pylist())
        limbs = np.frombuffer(raw, dtype="<u8").reshape(-1, 4)
    else:
        array = array.fill_null(0).cast(pa.decimal256(76, 38))
        limbs = np.frombuffer(array.buffers()[1], dtype="<u8").reshape(-1, 4)[array.offset : array.offset + len(array)]
    combined = np.zeros(len(array), dtype=np.uint64)
    for position in range(4):
        combined = mix(combined ^ limbs[:, position].astype(np.uint64), salt + position)
    return combined


def _scaled(value: decimal.Decimal) -> bytes:
    exact = Fraction(value) * 10**38
    if exact.denominator > 1 or abs(exact) >= 2**255:  # no value of a narrower type equals it
        return hashlib.sha256(str(exact).encode()).digest()
    return int(exact).to_bytes(32, "little", signed=True)


def _list_bits(
    offsets: NDArray[np.int32], items: pa.Array, salt: int, name: str, nan_is_missing: bool
) -> NDArray[np.uint64]:
    """Add up the hashes of a list's items, each with its place in the list."""
    offsets = offsets.astype(np.int64)
    lengths = np.diff(offsets)
    hashed = _hash(items.slice(offsets[0], offsets[-1] - offsets[0]), salt, name, nan_is_missing)
    offsets -= offsets[0]
    places = np.arange(len(hashed)) - np.repeat(offsets[:-1], lengths)
    terms = mix(hashed ^ mix(_unsigned(places), salt), salt + 1)
    sums = np.concatenate((np.zeros(1, dtype=np.uint64), np.cumsum(terms, dtype=np.uint64)))
    return sums[offsets[1:]] - sums[offsets[:-1]] + _unsigned(lengths)


def _text_bits(array: pa.Array, salt: int) -> NDArray[np.uint64]:
    if pa.types.is_binary(array.type) or pa.types.is_fixed_size_binary(array.type):
        array = pa.array([None if value is None else value.hex() for value in array.to_pylist()], pa.string())
    # Each distinct text once: making Python strings of them costs more than the hash.
    encoded = array.cast(pa.string()).fill_null("").dictionary_encode()
    texts = np.asarray(encoded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
    hashed: NDArray[np.uint64] = pd.util.hash_array(texts, hash_key=_TEXT_KEYS[salt % 2], categorize=False)
    each: NDArray[np.uint64] = hashed[encoded.indices.to_numpy()]
    return each


def _integers(array: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_date32(array.type) or pa.types.is_time32(array.type):
        array = array.cast(pa.int32())
    values: NDArray[np.int64] = array.cast(pa.int64()).fill_null(0).to_numpy()
    return values


def _unsigned(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(values, dtype=np.int64).view(np.uint64)


def row_hashes(table: pa.Table, columns: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the two independent halves of a 128-bit hash of each row, shape (rows,) each."""
    return hash_rows(table, columns, salt=0), hash_rows(table, columns, salt=1)


class SeenRows:
    """The 128-bit hashes of the rows seen so far: 16 bytes a row, in sorted runs that are merged as they grow."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]] = []

    def add(self, table: pa.Table) -> NDArray[np.bool_]:
        """Remember the rows and return which were not seen before, shape (rows,); of equal rows the first is new."""
        return self.add_hashed(*row_hashes(table, self._columns))

    def add_hashed(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """As `add`, for rows of which only `row_hashes` is known."""
        # Stable, hence the first of equal rows comes first.
        order = np.argsort(high, kind="stable")
        if _collide(high[order], low[order]):
            order = np.lexsort((low, high))
        high, low = high[order], low[order]
        first = np.ones(len(high), dtype=bool)
        first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        for run_high, run_low in self._runs:
            first &= ~_contains(run_high, run_low, high, low)
        if first.any():
            self._runs.append((high[first], low[first]))
            self._merge()
        is_new = np.zeros(len(first), dtype=bool)
        is_new[order] = first
        return is_new

    def contains(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows were seen before, shape (rows,)."""
        high, low = row_hashes(table, self._columns)
        found = np.zeros(len(high), dtype=bool)
        for run_high, run_low in self._runs:
            found |= _contains(run_high, run_low, high, low)
        return found

    def _merge(self) -> None:
        """Keep each run at most half as long as the one before it, so that there are few."""
        while len(self._runs) > 1 and len(self._runs[-1][0]) * 2 > len(self._runs[-2][0]):
            (high_b, low_b), (high_a, low_a) = self._runs.pop(), self._runs.pop()
            at_b = np.searchsorted(high_a, high_b, side="right") + np.arange(len(high_b))
            from_a = np.ones(len(high_a) + len(high_b), dtype=bool)
            from_a[at_b] = False
            high, low = np.empty((2, len(from_a)), dtype=np.uint64)
            high[from_a], high[at_b] = high_a, high_b
            low[from_a], low[at_b] = low_a, low_b
            self._runs.append((high, low))


def _collide(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> bool:
    """Tell whether different rows have the same high half; the halves are sorted by the high one."""
    return bool(((high[1:] == high[:-1]) & (low[1:] != low[:-1])).any())


def _contains(
    run_high: NDArray[np.uint64], run_low: NDArray[np.uint64], high: NDArray[np.uint64], low: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Return which pairs (high, low) are in the run, which is sorted by high."""
    found = np.zeros(len(high), dtype=bool)
    at = np.searchsorted(run_high, high)
    pending = np.arange(len(high))
    # Different rows with the same high half are next to each other; there is hardly ever more than one.
    while len(pending):
        index = at[pending]
        inside = index < len(run_high)
        pending, index = pending[inside], index[inside]
        same_high = run_high[index] == high[pending]
        pending, index = pending[same_high], index[same_high]
        hit = run_low[index] == low[pending]
        found[pending[hit]] = True
        pending = pending[~hit]
        at[pending] += 1
    return found
