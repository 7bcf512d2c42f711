"""One pass over the rows of a version: what is worth knowing of each column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smkit.datasets.hashing import hash_rows
from smkit.datasets.profile import ColumnProfile, DatasetProfile, Histogram, Kind, Lengths
from smkit.datasets.sketches import Distinct, Frequent, Moments, RowSample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from smkit.datasets.dataset import Dataset

_TOP = 5
_BINS = 20
#: A fraction of a second that is none.
_ZEROS = re.compile(r"\.0+(?=Z?$)")


def profile_dataset(dataset: Dataset, split: str | None, columns: Sequence[str]) -> DatasetProfile:
    """Summarise columns of a version, or of one of its splits."""
    schema = dataset.schema
    profiler = Profiler(pa.schema([schema.field(name) for name in columns]))
    for batch in dataset.batches(split=split, columns=columns):
        profiler.add(pa.Table.from_batches([batch]))
    return DatasetProfile(
        ref=dataset.ref,
        split=split,
        rows=profiler.rows,
        columns=tuple(sketch.profile() for sketch in profiler.sketches.values()),
    )


class Profiler:
    """Learns of every column, batch by batch.

    Args:
        schema: The columns.
    """

    def __init__(self, schema: pa.Schema) -> None:
        measured = [field.name for field in schema if kind_of(field.type) in {"number", "time"}]
        self._measured = measured
        self._sample = RowSample(len(measured))
        self.sketches = {
            field.name: ColumnSketch(
                field, self._sample, measured.index(field.name) if field.name in measured else None
            )
            for field in schema
        }
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Add rows; the table has the columns of the schema."""
        numbers = {name: sketch.add(table.select([name])) for name, sketch in self.sketches.items()}
        self._sample.add(self.rows, [numbers[name] for name in self._measured])
        self.rows += table.num_rows


class ColumnSketch:
    """What is known of one column.

    Args:
        field: The column.
        sample: The sample of all columns' numbers.
        place: Which of them are this column's; None where it has none.
    """

    def __init__(self, field: pa.Field, sample: RowSample, place: int | None) -> None:
        self.name = field.name
        self.type = field.type
        self.kind = kind_of(field.type)
        self.rows = 0
        self.nulls = 0
        self.moments = Moments()
        self.frequent = Frequent()
        self._distinct = Distinct()
        self._sample = sample
        self._place = place
        self._lengths = Moments()
        self._length_range: list[int] = []
        self._range: list[pa.Scalar] = []

    def add(self, table: pa.Table) -> NDArray[np.float64]:
        """Add a table of this column alone; return its values as numbers, NaN where there is none."""
        column = table.column(0).combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no rows, or in an older pyarrow
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], self.type)
        missing = pc.is_null(column, nan_is_null=pa.types.is_floating(self.type)).to_numpy(zero_copy_only=False)
        there = pa.array(~missing)
        values = column.filter(there) if missing.any() else column
        self.rows += len(column)
        self.nulls += int(missing.sum())
        if len(values):
            self._distinct.add(hash_rows(pa.table({self.name: values}), [self.name]))
            if _can_be_counted(self.type):
                self.frequent.add(values)
            if self.kind == "text":
                self._measure_lengths(values)
        if self._place is None:
            return np.empty(0)
        self._widen(values)
        numbers = as_numbers(values)
        if self.kind == "number":
            self.moments.add(numbers)
        if not missing.any():
            return numbers
        padded = np.full(len(column), np.nan)
        padded[~missing] = numbers
        return padded

    def _measure_lengths(self, values: pa.Array) -> None:
        lengths = pc.utf8_length(values).to_numpy(zero_copy_only=False)
        self._lengths.add(lengths.astype(np.float64))
        known = [*self._length_range, int(lengths.min()), int(lengths.max())]
        self._length_range = [min(known), max(known)]

    def _widen(self, values: pa.Array) -> None:
        if not len(values):
            return
        # Arrow does not order durations.
        is_duration = pa.types.is_duration(self.type)
        ends = pc.min_max(values.cast(pa.int64()) if is_duration else values)
        found = [ends[name].cast(self.type) if is_duration else ends[name] for name in ("min", "max")]
        if self._range:
            low, high = self._range
            found = [
                low if pc.less_equal(low, found[0]).as_py() else found[0],
                high if pc.greater_equal(high, found[1]).as_py() else found[1],
            ]
        self._range = found

    @property
    def sample(self) -> NDArray[np.float64]:
        """A sample of the values as numbers, ascending; none for other kinds."""
        return np.empty(0) if self._place is None else self._sample.column(self._place)

    def profile(self) -> ColumnProfile:
        """Return the summary."""
        sample = self.sample
        low, high = (_plain(end) for end in self._range) if self._range else (None, None)
        return ColumnProfile(
            name=self.name,
            type=str(self.type),
            kind=self.kind,
            rows=self.rows,
            nulls=self.nulls,
            distinct=self._distinct.count,
            distinct_is_exact=self._distinct.is_exact,
            min=low,
            max=high,
            mean=self.moments.mean,
            std=self.moments.std,
            quartiles=tuple(self._quantiles(sample)),
            top=tuple((_plain_value(value), count) for value, count in self.frequent.top(_TOP)),
            top_is_exact=self.frequent.is_exact,
            lengths=Lengths(self._length_range[0], self._lengths.mean or 0.0, self._length_range[1])
            if self._length_range
            else None,
            histogram=_histogram(sample),
        )

    def _quantiles(self, sample: NDArray[np.float64]) -> list[Any]:
        if not len(sample):
            return []
        # Of halves, whose differences no float is too small for.
        scale = 1.0 if _has_finite_range(sample) else 0.5
        with np.errstate(invalid="ignore"):
            quartiles = np.quantile(sample * scale, [0.25, 0.5, 0.75]) / scale
        if self.kind == "number":
            return [float(value) for value in quartiles]
        return [_plain(moment) for moment in _moments(quartiles, self.type)]


def kind_of(kind: pa.DataType) -> Kind:
    """Return which summary a type gets."""
    types = pa.types
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind):
        return "time"
    return "text" if types.is_string(kind) else "other"


def as_numbers(values: pa.Array) -> NDArray[np.float64]:
    """Return numbers, or times in their own units, as floats: beyond 2^53 rounded."""
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.int32() if values.type.bit_width == 32 else pa.int64())
    floats: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats


def _moments(numbers: NDArray[np.float64], kind: pa.DataType) -> list[pa.Scalar]:
    whole = pa.array(np.round(numbers).astype(np.int64))
    if kind.bit_width == 32:
        whole = whole.cast(pa.int32())
    return list(whole.cast(kind))


def _can_be_counted(kind: pa.DataType) -> bool:
    countable = (pa.types.is_boolean, pa.types.is_string, pa.types.is_integer, pa.types.is_date)
    return any(holds(kind) for holds in countable)


def _plain(scalar: pa.Scalar) -> Any:
    """Return numbers as such; times as ISO 8601 text, as not every year fits Python's types."""
    if pa.types.is_temporal(scalar.type):
        if pa.types.is_duration(scalar.type):
            return f"{scalar.value} {scalar.type.unit}"
        if pa.types.is_timestamp(scalar.type) and scalar.type.tz:
            scalar = scalar.cast(pa.timestamp(scalar.type.unit, "UTC"))
        return _ZEROS.sub("", str(scalar.cast(pa.string()).as_py()))
    return scalar.as_py()


def _plain_value(value: Any) -> Any:
    return value if isinstance(value, (str, bool, int, float)) else str(value)


def _has_finite_range(ascending: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(ascending[-1] - ascending[0]))


def _histogram(sample: NDArray[np.float64]) -> Histogram | None:
    finite = sample[np.isfinite(sample)]
    if not len(finite) or not _has_finite_range(finite):
        return None
    low, high = float(finite[0]), float(finite[-1])
    if low == high:
        return Histogram(low, high, (len(finite),))
    # By hand: numpy refuses bins that are narrower than the floats around them are apart.
    places = np.minimum(((finite - low) / (high - low) * _BINS).astype(np.intp), _BINS - 1)
    return Histogram(low, high, tuple(int(count) for count in np.bincount(places, minlength=_BINS)))
