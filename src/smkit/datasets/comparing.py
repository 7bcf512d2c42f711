"""Comparing two versions in one pass over each, in the memory of a few hashes for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from smkit.datasets.diff import ColumnDrift, DatasetDiff, RowChanges, SplitChange
from smkit.datasets.hashing import hash_rows
from smkit.datasets.profiling import Profiler
from smkit.datasets.splits import SPLITS
from smkit.datasets.steps import columns_of, missing_in, require_columns
from smkit.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from smkit.datasets.dataset import Dataset
    from smkit.datasets.profiling import ColumnSketch

_BINS = 20
_POOLED = 1001
#: The rows are compared in so many shares, so that sorting them needs little memory.
_SHARES = 16


def compare_datasets(left: Dataset, right: Dataset, key: str | Iterable[str] | None) -> DatasetDiff:
    """Compare two versions; see `Dataset.diff`."""
    if type(right) is not type(left):
        raise ConfigError(f"diff: expected a dataset such as DatasetStore().get('houses'), got {type(right).__name__}")
    by = () if key is None else columns_of(key, "key")
    if by is None or (key is not None and not by):
        raise ConfigError(f"diff: key={key!r}: expected a column's name, or a list of names")
    for side in (left, right):
        require_columns(side.schema.empty_table(), by, f"diff: {side.ref}")
    values = [name for name in left.schema.names if name in right.schema.names and name not in by]
    before, after = (_Side(side, by, values) for side in (left, right))
    splits = tuple(
        SplitChange(split, left.rows.get(split, 0), right.rows.get(split, 0))
        for split in SPLITS
        if split in left.rows or split in right.rows
    )
    names = list(dict.fromkeys([*left.schema.names, *right.schema.names]))
    sketches = [(name, before.profiler.sketches.get(name), after.profiler.sketches.get(name)) for name in names]
    return DatasetDiff(
        left=left.ref,
        right=right.ref,
        key=by,
        rows=_match_keys(before, after)
        if by
        else _match_rows(before, after)
        if values
        else _nothing_alike(before, after),
        splits=splits,
        columns=tuple(_drift(*sketch) for sketch in sketches),
    )


class _Side:
    """One version: what is known of its columns, and hashes of its rows.

    Args:
        dataset: The version.
        key: The columns that name a row; none: all of them do.
        values: The other columns that are compared.
    """

    def __init__(self, dataset: Dataset, key: Sequence[str], values: Sequence[str]) -> None:
        self.ref = dataset.ref
        self.key = tuple(key)
        self.profiler = Profiler(dataset.schema)
        rows = sum(dataset.rows.values())
        named = key or values
        self.high, self.low = np.empty((2, rows), dtype=np.uint64)
        self.values = np.empty(rows if key else 0, dtype=np.uint64)
        self.splits = np.empty(rows if key else 0, dtype=np.uint8)
        start = 0
        for split in dataset.splits:
            for batch in dataset.batches(split=split):
                table = pa.Table.from_batches([batch])
                self.profiler.add(table)
                here = slice(start, start + table.num_rows)
                # NaN and NULL are different content; only in a key, where neither may be, they are one.
                self.high[here] = hash_rows(table, named, salt=0, nan_is_missing=False)
                self.low[here] = hash_rows(table, named, salt=1, nan_is_missing=False)
                if key:
                    self._check_key(table, start)
                    self.values[here] = hash_rows(table, values, salt=2, nan_is_missing=False)
                    self.splits[here] = SPLITS.index(split)
                start += table.num_rows

    def _check_key(self, table: pa.Table, start: int) -> None:
        missing = missing_in(table, self.key)
        if missing.any():
            raise DatasetError(
                f"diff: the key {', '.join(map(repr, self.key))} is missing in row {start + int(np.argmax(missing)):,} "
                f"of {self.ref}; compare by another key, or without one"
            )


def _shares(left: _Side, right: _Side) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]]:
    """Yield, share by share, the rows of both sides sorted by hash.

    Yields:
        The number of each row, those of the right side counted on from those of the left one; where in these a new
        hash begins; whether each is of the right side.
    """
    bits = np.uint64(64 - (_SHARES - 1).bit_length())
    for share in range(_SHARES):
        picked = [np.flatnonzero(side.high >> bits == np.uint64(share)) for side in (left, right)]
        high = np.concatenate([left.high[picked[0]], right.high[picked[1]]])
        low = np.concatenate([left.low[picked[0]], right.low[picked[1]]])
        if not len(high):
            continue
        order = np.lexsort((low, high))
        high, low = high[order], low[order]
        begins = np.ones(len(high), dtype=bool)
        begins[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        numbers = np.concatenate([picked[0], picked[1] + len(left.high)])[order]
        yield numbers, np.flatnonzero(begins), numbers >= len(left.high)


def _match_rows(left: _Side, right: _Side) -> RowChanges:
    """Count whole rows that one side has more of than the other."""
    added = removed = same = 0
    for _, begins, is_right in _shares(left, right):
        after = np.add.reduceat(is_right.astype(np.int64), begins)
        before = np.diff(np.append(begins, len(is_right))) - after
        added += int(np.maximum(after - before, 0).sum())
        removed += int(np.maximum(before - after, 0).sum())
        same += int(np.minimum(before, after).sum())
    return RowChanges(added, removed, same)


def _nothing_alike(left: _Side, right: _Side) -> RowChanges:
    return RowChanges(added=len(right.high), removed=len(left.high), same=0)


def _match_keys(left: _Side, right: _Side) -> RowChanges:
    """Match rows by key, and compare what they hold.

    Raises:
        DatasetError: A key repeats.
    """
    values = np.concatenate([left.values, right.values])
    splits = np.concatenate([left.splits, right.splits])
    added = removed = same = changed = moved = 0
    repeated = {left.ref: 0, right.ref: 0}
    for numbers, begins, is_right in _shares(left, right):
        after = np.add.reduceat(is_right.astype(np.int64), begins)
        before = np.diff(np.append(begins, len(is_right))) - after
        repeated[left.ref] += int(np.maximum(before - 1, 0).sum())
        repeated[right.ref] += int(np.maximum(after - 1, 0).sum())
        added += int((before == 0).sum())
        removed += int((after == 0).sum())
        # With unique keys each pair is two rows next to each other.
        pairs = begins[(before == 1) & (after == 1)]
        one, other = numbers[pairs], numbers[pairs + 1]
        differs = values[one] != values[other]
        changed += int(differs.sum())
        same += int((~differs).sum())
        moved += int((splits[one] != splits[other]).sum())
    for ref, count in repeated.items():
        if count:
            raise DatasetError(
                f"diff: {count:,} rows of {ref} repeat the key {', '.join(map(repr, left.key))} of another row; "
                f"compare by more columns, or without a key"
            )
    return RowChanges(added, removed, same, changed, moved)


def _drift(name: str, left: ColumnSketch | None, right: ColumnSketch | None) -> ColumnDrift:
    before, after = (side.profile() if side else None for side in (left, right))
    if left is None or right is None or left.kind != right.kind:
        return ColumnDrift(name, before, after, None)
    if left.kind in {"number", "time"}:
        # Times of other units have other numbers; their profiles still tell.
        comparable = left.kind == "number" or left.type == right.type
        distance = _distance(*_binned(left.sample, right.sample)) if comparable else None
        return ColumnDrift(name, before, after, distance)
    if left.kind == "other" or not (left.frequent.is_exact and right.frequent.is_exact):
        return ColumnDrift(name, before, after, None)
    ours, theirs = left.frequent.counts(), right.frequent.counts()
    values: list[Any] = list(dict.fromkeys([*ours, *theirs]))
    counts = (np.array([float(side.get(value, 0)) for value in values]) for side in (ours, theirs))
    new = tuple(value for value in theirs if value not in ours)
    vanished = tuple(value for value in ours if value not in theirs)
    return ColumnDrift(name, before, after, _distance(*counts), new, vanished)


def _binned(left: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count both samples in the bins that hold equal shares of the two together, each side weighing the same."""
    if not len(left) or not len(right):
        return np.empty(0), np.empty(0)
    evenly = np.linspace(0, 1, _POOLED)
    pooled = np.sort(np.concatenate([_at(side, evenly) for side in (left, right)]))
    edges = np.unique(_at(pooled, np.linspace(0, 1, _BINS + 1)[1:-1]))
    ours, theirs = (
        np.diff(np.searchsorted(side, edges, side="right"), prepend=0, append=len(side)).astype(np.float64)
        for side in (left, right)
    )
    return ours, theirs


def _at(values: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles of sorted values that are among them: between infinities there is nothing to interpolate."""
    return values[(shares * (len(values) - 1)).astype(np.intp)]


def _distance(left: NDArray[np.float64], right: NDArray[np.float64]) -> float | None:
    """Return the Jensen-Shannon distance, base 2: Endres, Schindelin, "A new metric for probability distributions"."""
    if not left.sum() or not right.sum():
        return None
    p, q = left / left.sum(), right / right.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = [np.where(side > 0, side * np.log2(side / middle), 0.0).sum() for side in (p, q)]
    return float(np.sqrt(max(0.0, sum(apart) / 2)))
