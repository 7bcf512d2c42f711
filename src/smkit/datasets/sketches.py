"""What is remembered of a stream of values in bounded memory. All of it works on batches, never on single rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smkit.datasets.hashing import hash_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Up to so many distinct values are counted exactly; beyond, the estimate's standard error is 1 / sqrt of it: 0.8%.
DISTINCT_LIMIT = 1 << 14
#: Up to so many distinct values all frequencies are exact; beyond, each is too low by at most rows / limit.
FREQUENT_LIMIT = 1 << 12
#: Up to so many rows quantiles are exact; beyond, they are those of a random sample of so many rows.
SAMPLE_ROWS = 1 << 16
#: Of all columns of the sample together.
_SAMPLE_VALUES = 1 << 24
_SAMPLE_SEED = 20_240_229


class Moments:
    """Mean and standard deviation, merged batch by batch.

    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = 0.0
        self._squares = 0.0
        #: The sum of the infinite values: kept apart, as the difference of two means of which one is infinite says
        #: nothing.
        self._infinite = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Add values, none of them missing."""
        finite = np.isfinite(values)
        if not finite.all():
            with np.errstate(invalid="ignore"):  # of both signs
                self._infinite += float(values[~finite].sum())
            values = np.where(finite, values, 0.0)
        if not len(values):
            return
        with np.errstate(invalid="ignore", over="ignore"):
            mean = float(values.mean())
            squares = float(np.square(values - mean).sum())
            total = self.count + len(values)
            apart = mean - self._mean
            self._squares += squares + apart * apart * self.count * len(values) / total
            self._mean += apart * len(values) / total
        self.count = total

    @property
    def mean(self) -> float | None:
        """The mean, infinite or NaN where values are infinite, as by pandas; None of no values."""
        if not self.count:
            return None
        return self._mean if self._infinite == 0.0 else self._infinite

    @property
    def std(self) -> float | None:
        """The sample standard deviation, as by pandas; None of fewer than two values."""
        if self.count < 2:
            return None
        return math.sqrt(self._squares / (self.count - 1)) if self._infinite == 0.0 else math.nan


class Distinct:
    """The number of distinct values: the smallest hashes tell how densely all of them lie.

    Bar-Yossef and others, "Counting distinct elements in a data stream", RANDOM 2002.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(0, dtype=np.uint64)
        self.is_exact = True

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Add the hashes of values."""
        if not self.is_exact:
            hashes = hashes[hashes < self._hashes[-1]]
        merged = np.union1d(self._hashes, hashes)
        self.is_exact = self.is_exact and len(merged) <= DISTINCT_LIMIT
        self._hashes = merged[:DISTINCT_LIMIT]

    @property
    def count(self) -> int:
        """How many there are, an estimate unless `is_exact`."""
        if self.is_exact:
            return len(self._hashes)
        return round((DISTINCT_LIMIT - 1) / (float(self._hashes[-1]) / 2.0**64))


class Frequent:
    """The most frequent values and their counts.

    Agarwal and others, "Mergeable summaries", PODS 2012: where there are too many values, the count of the first that
    does not fit is taken off all of them.
    """

    def __init__(self) -> None:
        self._counts: pa.Table | None = None
        self.is_exact = True

    def add(self, values: pa.Array) -> None:
        """Add values, none of them missing."""
        counted = pc.value_counts(values)
        table = pa.table({"value": counted.field("values"), "count": counted.field("counts")})
        if self._counts is not None:
            merged = pa.concat_tables([self._counts, table]).group_by("value").aggregate([("count", "sum")])
            table = pa.table({"value": merged["value"], "count": merged["count_sum"]})
        if table.num_rows > FREQUENT_LIMIT:
            counts = table["count"].to_numpy()
            cut = np.partition(counts, -FREQUENT_LIMIT - 1)[-FREQUENT_LIMIT - 1]
            table = pa.table({"value": table["value"], "count": counts - cut}).filter(pa.array(counts > cut))
            self.is_exact = False
        self._counts = table

    def top(self, most: int) -> list[tuple[Any, int]]:
        """Return the most frequent values, of equally frequent ones the smaller first."""
        if self._counts is None:
            return []
        order = [("count", "descending"), ("value", "ascending")]
        rows = self._counts.sort_by(order).slice(0, most)
        return list(zip(rows["value"].to_pylist(), rows["count"].to_pylist(), strict=True))

    def counts(self) -> dict[Any, int]:
        """Return all counts that are known."""
        return dict(self.top(FREQUENT_LIMIT))


class RowSample:
    """A random sample of rows, of each the numbers of some columns: it depends on positions alone, not on batches.

    Args:
        columns: How many columns there are.
    """

    def __init__(self, columns: int) -> None:
        self._size = max(1 << 10, min(SAMPLE_ROWS, _SAMPLE_VALUES // max(1, columns)))
        self._hashes = np.empty(0, dtype=np.uint64)
        self._rows = np.empty((columns, 0))
        self._new: list[tuple[NDArray[np.uint64], NDArray[np.float64]]] = []
        self._held = 0
        self._limit = np.uint64(2**64 - 1)

    def add(self, start: int, columns: list[NDArray[np.float64]]) -> None:
        """Add rows, of which the first is row number `start`; a missing value is NaN."""
        if not columns:
            return
        hashes = hash_positions(start, len(columns[0]), _SAMPLE_SEED)
        chosen = hashes <= self._limit
        self._new.append((hashes[chosen], np.stack([column[chosen] for column in columns])))
        self._held += int(chosen.sum())
        if self._held > 2 * self._size:
            self._shrink()

    def _shrink(self) -> None:
        hashes = np.concatenate([self._hashes, *(new for new, _ in self._new)])
        rows = np.concatenate([self._rows, *(new for _, new in self._new)], axis=1)
        if len(hashes) > self._size:
            kept = np.argpartition(hashes, self._size)[: self._size]
            hashes, rows = hashes[kept], rows[:, kept]
            self._limit = hashes.max()
        self._hashes, self._rows, self._new, self._held = hashes, rows, [], len(hashes)

    def column(self, place: int) -> NDArray[np.float64]:
        """Return the sampled values of a column, without missing ones, ascending."""
        if self._new:
            self._shrink()
        values = self._rows[place]
        return np.sort(values[~np.isnan(values)])
