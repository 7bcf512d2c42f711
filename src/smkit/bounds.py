"""Comparing a column's values with values that a person wrote: numbers, dates, ISO 8601 text.

Filters of sources and bounds of schemas compare by these rules.

Arrow would cast one side to the type of the other, which fails or rounds near the ends of a type. Here a bound becomes
an exact number of the column's own units, so that no value is rounded before it is compared.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - wall time, as in columns without a time zone
_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class IncomparableError(ValueError):
    """A value that a person wrote cannot be compared with a column's type."""

    def __init__(self, value: Any, kind: pa.DataType, why: str = "") -> None:
        self.why = why
        super().__init__(f"{value!r} cannot be compared with {kind}{why and ': ' + why}")


def less(values: pa.ChunkedArray, bound: Any) -> pa.ChunkedArray:
    """Return which values are less than the bound; NULL where a value is NULL.

    Raises:
        IncomparableError: The bound is of another kind than the column.
    """
    return _compare(values, plain(bound), pc.less, math.ceil)


def greater(values: pa.ChunkedArray, bound: Any) -> pa.ChunkedArray:
    """Return which values are greater than the bound; NULL where a value is NULL.

    Raises:
        IncomparableError: The bound is of another kind than the column.
    """
    return _compare(values, plain(bound), pc.greater, math.floor)


def one_of(values: pa.ChunkedArray, allowed: Sequence[Any]) -> pa.ChunkedArray:
    """Return which values are listed; NULL counts as not listed.

    Raises:
        IncomparableError: A listed value is of another kind than the column.
    """
    kind = values.type
    listed = [plain(value) for value in allowed]
    if has_units(kind):
        exact = [units(value, kind) for value in listed]
        values = as_integers(values)
        low, high = limits_of(values.type)
        # What is no whole number of units, or beyond the type, equals no value.
        kind, listed = values.type, [int(x) for x in exact if x.denominator == 1 and low <= x <= high]
    elif pa.types.is_floating(kind):
        listed = floats_like([_float(value, kind) for value in listed])
    elif pa.types.is_decimal(kind):
        scale = kind.scale
        exact_texts = [_decimal(value, kind) for value in listed]
        kept = [value for value in exact_texts if _scale(value) <= scale and value.adjusted() < kind.precision - scale]
        listed = kept
    else:
        wanted = str if pa.types.is_string(kind) else bool if pa.types.is_boolean(kind) else bytes
        for value in listed:
            if not isinstance(value, wanted) or pa.types.is_nested(kind):
                raise IncomparableError(value, kind)
    return pc.is_in(values, value_set=pa.array(listed, type=kind))


def _compare(values: pa.ChunkedArray, bound: Any, comparison: Any, whole: Callable[[Fraction], int]) -> pa.ChunkedArray:
    kind = values.type
    if isinstance(bound, float) and math.isinf(bound) and (pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        return _all(values, (comparison is pc.less) == (bound > 0))
    if has_units(kind):
        # v < 2.5 is v < 3, and v > 2.5 is v > 2, for whole v.
        limit = whole(units(bound, kind))
        integers = as_integers(values)
        low, high = limits_of(integers.type)
        if not low <= limit <= high:
            return _all(values, (comparison is pc.less) == (limit > high))
        return comparison(integers, pa.scalar(limit, type=integers.type))
    if pa.types.is_floating(kind):
        return comparison(values.cast(pa.float64()), pa.scalar(_float(bound, kind)))
    if pa.types.is_decimal(kind):
        exact = _decimal(bound, kind)
        scale = max(kind.scale, _scale(exact))
        if scale > 38 or exact.adjusted() >= 38 or kind.precision - kind.scale > 38:
            raise IncomparableError(bound, kind, "more than 76 digits would be needed")
        common = pa.decimal256(76, scale)
        return comparison(values.cast(common), pa.scalar(exact, type=common))
    if pa.types.is_string(kind) and isinstance(bound, str):
        return comparison(values, pa.scalar(bound, type=kind))
    raise IncomparableError(bound, kind)


def plain(value: Any) -> Any:
    """Return a value of numpy as Python's or pandas'; in nanoseconds, numpy itself would make an integer of it."""
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    if isinstance(value, np.timedelta64):
        return pd.Timedelta(value)
    return value.item() if isinstance(value, np.generic) else value


def floats_like(values: Sequence[float]) -> list[float]:
    """Return the floats that equal one of these: zeros of both signs where one is; NaN equals nothing.

    Arrow's `is_in` looks for the same bits.
    """
    return [same for value in values if not math.isnan(value) for same in ((0.0, -0.0) if value == 0 else (value,))]


def _all(values: pa.ChunkedArray, answer: bool) -> pa.ChunkedArray:
    return values.is_valid() if answer else pc.invert(pc.or_kleene(values.is_valid(), True))


def has_units(kind: pa.DataType) -> bool:
    """Say whether values are whole numbers of some unit: integers, dates, times, durations."""
    return pa.types.is_integer(kind) or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))


def as_integers(values: Any) -> Any:
    """Return an array, or one value, of a type with units as integers of them."""
    if pa.types.is_date64(values.type):
        values = values.cast(pa.date32())
    if pa.types.is_integer(values.type):
        return values
    return values.cast(pa.int32() if values.type.bit_width == 32 else pa.int64())


def limits_of(kind: pa.DataType) -> tuple[int, int]:
    """Return the least and the greatest value of a type of integers."""
    limits = np.iinfo(kind.to_pandas_dtype())
    return int(limits.min), int(limits.max)


def units(value: Any, kind: pa.DataType) -> Fraction:
    """Return a bound as an exact number of the column's units: integers, days, or seconds' parts.

    Raises:
        IncomparableError: The bound is of another kind than the column.
    """
    if pa.types.is_integer(kind):
        if isinstance(value, bool) or not isinstance(value, (int, float, decimal.Decimal)):
            raise IncomparableError(value, kind)
        try:
            return Fraction(value)
        except (OverflowError, ValueError):
            raise IncomparableError(value, kind, "it is no finite number") from None
    if pa.types.is_time(kind):
        return _seconds_of_time(value, kind) * _PER_SECOND[kind.unit]
    if pa.types.is_duration(kind):
        if not isinstance(value, dt.timedelta):
            raise IncomparableError(value, kind, "expected a timedelta")
        return _seconds(value) * _PER_SECOND[kind.unit]
    moment = _moment(value, kind)
    if pa.types.is_date(kind):
        return moment / 86_400
    return moment * _PER_SECOND[kind.unit]


def _seconds_of_time(value: Any, kind: pa.DataType) -> Fraction:
    if isinstance(value, str):
        # Not by Python, which forgets the digits behind the sixth.
        found = _TIME.fullmatch(value)
        hours, minutes, seconds = (int(part or 0) for part in found.groups()[:3]) if found else (24, 0, 0)
        if found is None or hours > 23 or minutes > 59 or seconds > 59:
            raise IncomparableError(value, kind, "expected a time such as '09:30:00'")
        return hours * 3600 + minutes * 60 + seconds + Fraction(int((found[4] or "").ljust(9, "0")), 10**9)
    if not isinstance(value, dt.time) or value.tzinfo is not None:
        raise IncomparableError(value, kind, "expected a time without a zone")
    return _seconds(dt.datetime.combine(_EPOCH, value) - _EPOCH)


def _moment(value: Any, kind: pa.DataType) -> Fraction:
    """Return the seconds since 1970: of wall time for a column without a zone, else of UTC."""
    original = value
    if isinstance(value, str):
        try:
            # pandas reads what Python 3.10 does not, but guesses where text is not ISO 8601.
            value = pd.Timestamp(value) if _ISO_8601.fullmatch(value) else None
        except ValueError:
            value = None
        if value is None:
            raise IncomparableError(original, kind, "expected a date or time as in ISO 8601, '2026-01-31'")
    if not isinstance(value, dt.date) or value is pd.NaT:
        raise IncomparableError(original, kind)
    nanoseconds = Fraction(getattr(value, "nanosecond", 0), 10**9)
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)
    if not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    zone = getattr(kind, "tz", None)
    if value.tzinfo is not None:
        if zone is None:
            raise IncomparableError(original, kind, "the column has no time zone, so give a time without one")
        value = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
    elif zone is not None:
        # A time without a zone is meant on the column's own clock.
        if offset := _OFFSET.fullmatch(zone):
            seconds = int(f"{offset[1]}1") * (int(offset[2]) * 3600 + int(offset[3]) * 60)
            return _seconds(value - _EPOCH) - seconds + nanoseconds
        wall = pa.scalar(value, type=pa.timestamp("us"))
        utc = pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="earliest")
        return Fraction(utc.cast(pa.int64()).as_py(), 10**6) + nanoseconds
    return _seconds(value - _EPOCH) + nanoseconds


def _seconds(value: dt.timedelta) -> Fraction:
    whole = value.days * 86_400 + value.seconds
    return whole + Fraction(value.microseconds, 10**6) + Fraction(getattr(value, "nanoseconds", 0), 10**9)


def _float(value: Any, kind: pa.DataType) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, decimal.Decimal)):
        raise IncomparableError(value, kind)
    try:
        return float(value)
    except OverflowError:
        raise IncomparableError(value, kind, "it is beyond any float") from None


def _decimal(value: Any, kind: pa.DataType) -> decimal.Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, decimal.Decimal)):
        raise IncomparableError(value, kind)
    # The shortest text of a float is what was written: 0.1, not 0.1000000000000000055.
    exact = decimal.Decimal(str(value)) if isinstance(value, float) else decimal.Decimal(value)
    if not exact.is_finite():
        raise IncomparableError(value, kind)
    return exact


def _scale(value: decimal.Decimal) -> int:
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
