"""Which row goes where.

Every rule assigns a row by its position or its values, never by its batch, so that the same rows land in the same
splits whatever the batch size. The rows are seen twice: `observe` learns what the rule needs (class counts, groups,
times), `assign` then places them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smkit.datasets.hashing import hash_positions, hash_rows, mix
from smkit.errors import DatasetError, EmptySplitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from smkit.datasets.splits import SplitRule

_MAX_CLASSES = 10_000
_CHUNK = 1 << 20


class Splitter(Protocol):
    """One run of a rule over one stream of rows. The tables hold the rule's columns, with the same types throughout."""

    def observe(self, table: pa.Table) -> None:
        """Learn from the next rows."""

    def settle(self, rows: int) -> None:
        """All rows were observed: decide."""

    def assign(self, table: pa.Table, start: int) -> NDArray[np.uint8]:
        """Return for each row, of which the first is row number `start`, the index of its split in `SPLITS`."""


def start_splitter(rule: SplitRule, before: tuple[int, int, int] = (0, 0, 0)) -> Splitter:
    """Return a fresh splitter for one build.

    Args:
        rule: The rule.
        before: How many rows train, validate and test already: of a version that is appended to.
    """
    if rule.method == "random":
        return _Random(rule, before)
    kinds: dict[str, type[_Whole | _ByHash | _ByGroup | _Stratified | _ByTime]] = {
        "none": _Whole,
        "hash": _ByHash,
        "stratified": _Stratified,
        "group": _ByGroup,
        "time": _ByTime,
    }
    return kinds[rule.method](rule)


class _Whole:
    def __init__(self, rule: SplitRule) -> None:
        self._rule = rule

    def observe(self, table: pa.Table) -> None:
        pass

    def settle(self, rows: int) -> None:
        pass

    def assign(self, table: pa.Table, start: int) -> NDArray[np.uint8]:  # noqa: ARG002 - the protocol's
        return np.zeros(table.num_rows, dtype=np.uint8)


class _Random(_Whole):
    """The rows with the smallest pseudo-random values are the test rows, the next the validation rows: exact counts."""

    _limits = (0, 0)

    def __init__(self, rule: SplitRule, before: tuple[int, int, int]) -> None:
        super().__init__(rule)
        self._before = before
        self._first = sum(before)

    def _wanted(self, rows: int) -> tuple[int, int]:
        """Return how many of the new rows test and validate: the shares are exact over old and new rows together."""
        tests, validations = _counts(self._rule, self._first + rows)
        test = min(rows, max(0, tests - self._before[2]))
        return test, min(rows - test, max(0, validations - self._before[1]))

    def settle(self, rows: int) -> None:
        """Find the values of the last test and validation rows, in the memory of a histogram of the 16 highest bits."""
        test, validation = self._wanted(rows)
        histogram = np.zeros(1 << 16, dtype=np.int64)
        for values in self._values(rows):
            histogram += np.bincount((values >> np.uint64(48)).astype(np.int64), minlength=1 << 16)
        below = np.cumsum(histogram)
        counts = (test, test + validation)
        buckets = [int(np.searchsorted(below, count)) for count in counts]
        inside: list[list[NDArray[np.uint64]]] = [[], []]
        for values in self._values(rows):
            top = values >> np.uint64(48)
            for kept, bucket in zip(inside, buckets, strict=True):
                kept.append(values[top == np.uint64(bucket)])
        limits = [0, 0]
        for index, (count, bucket) in enumerate(zip(counts, buckets, strict=True)):
            left = count - (int(below[bucket - 1]) if bucket else 0)
            if count:
                limits[index] = int(np.sort(np.concatenate(inside[index]))[left - 1]) + 1
        self._limits = (limits[0], limits[1])

    def _values(self, rows: int) -> Iterator[NDArray[np.uint64]]:
        for start in range(0, rows, _CHUNK):
            yield hash_positions(self._first + start, min(_CHUNK, rows - start), self._rule.seed)

    def assign(self, table: pa.Table, start: int) -> NDArray[np.uint8]:
        return _place(hash_positions(self._first + start, table.num_rows, self._rule.seed), self._limits)


class _ByHash(_Whole):
    """A key's hash decides alone, so that a key keeps its split as the data grows; the shares are approximate."""

    def assign(self, table: pa.Table, start: int) -> NDArray[np.uint8]:  # noqa: ARG002 - the protocol's
        _, validation, test = self._rule.fractions
        return _place(_hash_keys(table, self._rule), (int(test * 2**64), int((test + validation) * 2**64)))


class _ByGroup(_Whole):
    """Whole groups: the groups with the smallest pseudo-random values test. Shares are of the groups."""

    def __init__(self, rule: SplitRule) -> None:
        super().__init__(rule)
        self._groups = np.empty(0, dtype=np.uint64)
        self._new: list[NDArray[np.uint64]] = []
        self._limits = (0, 0)

    def observe(self, table: pa.Table) -> None:
        self._new.append(np.unique(_hash_keys(table, self._rule)))
        # Merged when as many are new as are known, not at every batch: n log n work in all.
        if sum(map(len, self._new)) > max(len(self._groups), _CHUNK):
            self._merge()

    def _merge(self) -> None:
        self._groups, self._new = np.unique(np.concatenate([self._groups, *self._new])), []

    def settle(self, rows: int) -> None:  # noqa: ARG002 - the protocol's
        self._merge()
        test, validation = _counts(self._rule, len(self._groups))
        bounds = [int(self._groups[count - 1]) + 1 if count else 0 for count in (test, test + validation)]
        self._limits = (bounds[0], bounds[1])

    def assign(self, table: pa.Table, start: int) -> NDArray[np.uint8]:  # noqa: ARG002 - the protocol's
        return _place(_hash_keys(table, self._rule), self._limits)


class _Stratified(_Whole):
    """As random, within each class; the counts of the classes add up to the exact counts of the splits."""

    def __init__(self, rule: SplitRule) -> None:
        super().__init__(rule)
        (self._column,) = rule.columns
        self._codes_of: dict[Any, int] = {}
        self._codes: list[NDArray[np.uint16]] = []
        self._placed = np.empty(0, dtype=np.uint8)

    def observe(self, table: pa.Table) -> None:
        column = table.column(self._column)
        if pa.types.is_nested(column.type):
            raise DatasetError(f"stratify={self._column!r} has type {column.type}, which names no class")
        for chunk in column.chunks:
            encoded = pc.dictionary_encode(chunk, null_encoding="encode")
            classes = [_class_of(value) for value in encoded.dictionary.to_pylist()]
            if len(self._codes_of) + len(set(classes) - self._codes_of.keys()) > _MAX_CLASSES:
                raise DatasetError(
                    f"stratify={self._column!r} has more than {_MAX_CLASSES:,} values: it is not a class; "
                    f"stratify by a class, or split by another rule"
                )
            codes = [self._codes_of.setdefault(value, len(self._codes_of)) for value in classes]
            self._codes.append(np.array(codes, dtype=np.uint16)[encoded.indices.to_numpy()])

    def settle(self, rows: int) -> None:
        codes = np.concatenate([np.empty(0, dtype=np.uint16), *self._codes])
        self._codes = []
        sizes = np.bincount(codes, minlength=len(self._codes_of))
        wanted = sum(share > 0 for share in self._rule.fractions)
        if small := [value for value, code in self._codes_of.items() if sizes[code] < wanted]:
            classes = f"{len(small)} classes have" if len(small) > 1 else "1 class has"
            raise EmptySplitError(
                f"stratify={self._column!r}: {classes} fewer rows than there are splits "
                f"({wanted}), such as {small[0]!r}: drop them, merge them, or split by another rule"
            )
        test, validation = _counts(self._rule, rows)
        tests = _apportion(sizes, test)
        validations = _apportion(sizes - tests, validation)
        self._placed = np.zeros(rows, dtype=np.uint8)
        by_class = np.lexsort((hash_positions(0, rows, self._rule.seed), codes))
        ends = np.cumsum(sizes)
        for start, tested, validated in zip(ends - sizes, tests, validations, strict=True):
            self._placed[by_class[start : start + tested]] = 2
            self._placed[by_class[start + tested : start + tested + validated]] = 1

    def assign(self, table: pa.Table, start: int) -> NDArray[np.uint8]:
        return self._placed[start : start + table.num_rows]


class _ByTime(_Whole):
    """The oldest rows train, the newest test; rows of one time stay together, so that no split sees its own future."""

    def __init__(self, rule: SplitRule) -> None:
        super().__init__(rule)
        (self._column,) = rule.columns
        self._times: list[NDArray[np.int64]] = []
        self._rows = 0
        self._cuts = np.zeros(2, dtype=np.int64)

    def observe(self, table: pa.Table) -> None:
        column = table.column(self._column)
        kind = column.type
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)):
            raise DatasetError(
                f"time={self._column!r} has type {kind}: expected a date, a timestamp or an integer; "
                f"convert it in a map step, for example with pandas.to_datetime"
            )
        if column.null_count:
            first = self._rows + pc.index(column.is_null(), True).as_py()
            raise DatasetError(
                f"time={self._column!r} is missing, first in row {first:,}; "
                f"drop such rows with .clean(drop_missing=[{self._column!r}])"
            )
        self._times.append(self._values(table))
        self._rows += table.num_rows

    def _values(self, table: pa.Table) -> NDArray[np.int64]:
        column = table.column(self._column)
        if pa.types.is_date32(column.type):
            column = column.cast(pa.int32())
        try:
            values: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise DatasetError(f"time={self._column!r}: {error}") from None
        return values

    def settle(self, rows: int) -> None:
        times = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *self._times]))
        self._times = []
        test, validation = _counts(self._rule, rows)
        last_trained = max(rows - test - validation - 1, 0)
        self._cuts = times[[last_trained, max(rows - test - 1, 0) if validation else last_trained]]

    def assign(self, table: pa.Table, start: int) -> NDArray[np.uint8]:  # noqa: ARG002 - the protocol's
        return np.searchsorted(self._cuts, self._values(table), side="left").astype(np.uint8)


def _hash_keys(table: pa.Table, rule: SplitRule) -> NDArray[np.uint64]:
    return mix(hash_rows(table, rule.columns), rule.seed)


def _place(values: NDArray[np.uint64], limits: tuple[int, int]) -> NDArray[np.uint8]:
    """Return 2 (test) below the first limit, 1 (validation) below the second, else 0 (train)."""
    placed = np.zeros(len(values), dtype=np.uint8)
    for limit, split in ((limits[1], 1), (limits[0], 2)):
        if limit > 0:
            placed[values <= np.uint64(limit - 1)] = split
    return placed


def _counts(rule: SplitRule, rows: int) -> tuple[int, int]:
    """Return how many of the rows (or groups) test and validate: rounded up, as by scikit-learn's train_test_split."""
    _, validation, test = rule.fractions
    tests = min(rows, math.ceil(test * rows))
    return tests, min(rows - tests, math.ceil(validation * rows))


def _apportion(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share `total` among classes in proportion to their sizes: the largest remainders get what rounding leaves."""
    shares, remainders = np.divmod(sizes * total, max(int(sizes.sum()), 1))
    order = np.argsort(-remainders, kind="stable")
    shares[order[: total - int(shares.sum())]] += 1
    return shares


def _class_of(value: Any) -> Any:
    """Return a value that a dict can hold; a missing one is a class of its own, be it NULL or NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, (str, int, float, bool)) else str(value)
