"""What the rows must be, and what is reported where they are not."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from smkit import bounds
from smkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

_SAMPLES = 5

_Bound = int | float | decimal.Decimal | dt.date | dt.datetime | dt.time | dt.timedelta | str

#: Groups of types that are easier to ask for than one exact Arrow type.
_GROUPS: dict[str, Callable[[pa.DataType], bool]] = {
    "bool": pa.types.is_boolean,
    "date": pa.types.is_date,
    "datetime": pa.types.is_timestamp,
    "decimal": pa.types.is_decimal,
    "float": pa.types.is_floating,
    "int": pa.types.is_integer,
    "number": lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind),
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "time": pa.types.is_time,
}
_EXACT = {
    **{f"int{bits}": getattr(pa, f"int{bits}")() for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": getattr(pa, f"uint{bits}")() for bits in (8, 16, 32, 64)},
    "float32": pa.float32(),
    "float64": pa.float64(),
    "binary": pa.binary(),
}
#: A type of each group: where a bound fits none of them, it fits no column of the group.
_SAMPLES_OF: dict[str, tuple[pa.DataType, ...]] = {
    "bool": (pa.bool_(),),
    "date": (pa.date32(),),
    "datetime": (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    "decimal": (pa.decimal128(38, 9),),
    "float": (pa.float64(),),
    "int": (pa.int64(),),
    "number": (pa.float64(),),
    "string": (pa.string(),),
    "time": (pa.time64("us"),),
    **{name: (kind,) for name, kind in _EXACT.items()},
}


@dataclass(frozen=True)
class Column:
    """What a column must be.

    Args:
        dtype: Its type: an exact one (`int64`, `float64`, `uint8`, `binary`, ...) or a group (`int`, `float`, `number`,
            `bool`, `string`, `date`, `datetime`, `time`, `decimal`); None for any.
        nullable: Whether values may be missing; NaN counts as missing.
        min: The least allowed value. For dates and times also ISO 8601 text; one without a time zone is meant on the
            column's own clock. Text compares by code points.
        max: The greatest allowed value, as `min`.
        allowed: The allowed values, each as `min`.
        unique: Whether every value must differ from every other in the whole dataset; missing values may repeat.

    Raises:
        ConfigError: The type does not exist, or a bound contradicts it or the other bound.
    """

    dtype: str | None = None
    nullable: bool = False
    min: _Bound | None = None
    max: _Bound | None = None
    allowed: Iterable[Any] | None = None
    unique: bool = False

    def __post_init__(self) -> None:
        if self.dtype is not None and (not isinstance(self.dtype, str) or self.dtype not in _SAMPLES_OF):
            hint = did_you_mean(self.dtype, _SAMPLES_OF) if isinstance(self.dtype, str) else ""
            raise ConfigError(
                f"dtype={self.dtype!r} is not a column type{hint}; allowed: {', '.join(sorted(_SAMPLES_OF))}"
            )
        for name in ("nullable", "unique"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected True or False")
        self._check_allowed()
        for name in ("min", "max"):
            if (bound := getattr(self, name)) is not None:
                self._check_bound(name, bound)
        self._check_order()

    def _check_allowed(self) -> None:
        if self.allowed is None:
            return
        if isinstance(self.allowed, (str, bytes)) or not isinstance(self.allowed, Iterable):
            raise ConfigError(f"allowed={self.allowed!r}: expected a list of values")
        allowed = tuple(self.allowed)
        if not allowed:
            raise ConfigError("allowed=[]: no value could be right; leave it out, or list the values")
        present = tuple(value for value in allowed if not _is_missing(value))
        if len(present) < len(allowed) and not self.nullable:
            raise ConfigError(f"allowed={list(allowed)!r} lists a missing value, but nullable=False: say nullable=True")
        object.__setattr__(self, "allowed", present)
        self._fits("allowed", allowed, lambda values: bounds.one_of(values, present))

    def _check_bound(self, name: str, bound: Any) -> None:
        if _is_missing(bound):
            raise ConfigError(f"{name}={bound!r}: every comparison with it is false; leave it out instead")
        self._fits(name, bound, lambda values: bounds.less(values, bound))

    def _fits(self, name: str, value: Any, compare: Callable[[pa.ChunkedArray], Any]) -> None:
        """Refuse a value that no column of the wanted type can be compared with."""

        def problem(kind: pa.DataType) -> str:
            try:
                compare(pa.chunked_array([], type=kind))
            except bounds.IncomparableError as error:
                return str(error)
            return ""

        problems = [problem(kind) for kind in _SAMPLES_OF[self.dtype]] if self.dtype else []
        if problems and all(problems):
            raise ConfigError(f"{name}={value!r} does not fit dtype={self.dtype!r}: {problems[0]}")

    def _check_order(self) -> None:
        if self.min is None or self.max is None:
            return
        with contextlib.suppress(TypeError):  # such as a date and ISO text: they are compared when a column is there
            if self.min > self.max:  # type: ignore[operator]
                raise ConfigError(f"min={self.min!r} is greater than max={self.max!r}: no value could be right")

    def accepts(self, kind: pa.DataType) -> bool:
        """Return whether a column of this Arrow type is of the wanted type; one of NULLs alone has any type."""
        if self.dtype is None or pa.types.is_null(kind):
            return True
        if self.dtype in _EXACT:
            return bool(kind == _EXACT[self.dtype])
        return _GROUPS[self.dtype](kind)

    def describe(self) -> dict[str, Any]:
        """Return what differs from the defaults as JSON values."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: _plain(value) for name, value in given.items() if value is not None and value is not False}


class Schema:
    """What the rows of a dataset must be.

    Args:
        columns: What each column must be.
        strict: Whether columns that are not listed are violations.

    Raises:
        ConfigError: It is not a mapping of names to `Column`.
    """

    def __init__(self, columns: Mapping[str, Column], *, strict: bool = False) -> None:
        if not isinstance(columns, Mapping):
            raise ConfigError(f"expected a mapping of names to smkit.Column, got {type(columns).__name__}")
        for name, column in columns.items():
            if not isinstance(name, str) or not isinstance(column, Column):
                raise ConfigError(
                    f"schema of {name!r}: expected a name and a smkit.Column, got {type(column).__name__}; "
                    f"for example smkit.Column('float64', min=0)"
                )
        self.columns = MappingProxyType(dict(columns))
        self.strict = strict

    def __repr__(self) -> str:
        return f"Schema({dict(self.columns)!r}, strict={self.strict})"

    def __reduce__(self) -> Any:
        """Survive the way to a worker process: a mapping proxy cannot be pickled."""
        return partial(Schema, strict=self.strict), (dict(self.columns),)

    @property
    def unique(self) -> tuple[str, ...]:
        """The columns whose values may not repeat."""
        return tuple(name for name, column in self.columns.items() if column.unique)

    def describe(self) -> dict[str, Any]:
        """Return the schema as JSON values."""
        return {"columns": {name: column.describe() for name, column in self.columns.items()}, "strict": self.strict}


@dataclass
class Violation:
    """One rule that rows break.

    Attributes:
        column: The column.
        rule: The rule, in words.
        count: How many rows break it; 0 for a missing column or a wrong type.
        samples: The first rows that break it: 0-based row number, as the check saw the rows, and value.
    """

    column: str
    rule: str
    count: int = 0
    samples: list[tuple[int, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.count:
            return f"{self.column}: {self.rule}"
        rows = "row" if self.count == 1 else "rows"
        examples = ", ".join(f"{number}: {shown(value)}" for number, value in self.samples)
        more = ", ..." if self.count > len(self.samples) else ""
        return f"{self.column}: {self.rule}: {self.count:,} {rows} ({examples}{more})"


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def shown(value: Any) -> str:
    """Return a value as messages show it: shortened."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 120
    shortened.maxlist = 20
    return shortened.repr(value)


def _plain(value: Any) -> Any:
    """Return a JSON value; infinity is none."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return value if isinstance(value, (bool, int, float, str)) else str(value)
