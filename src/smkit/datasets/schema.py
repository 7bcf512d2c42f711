"""What the rows must be, and what is reported where they are not."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from smkit.datasets import bounds
from smkit.datasets.columns import unify_types
from smkit.datasets.hashing import SeenRows
from smkit.errors import ConfigError, SchemaViolationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        shown = ", ".join(f"{number}: {_shown(value)}" for number, value in self.samples)
        more = ", ..." if self.count > len(self.samples) else ""
        return f"{self.column}: {self.rule}: {self.count:,} {rows} ({shown}{more})"


class SchemaCheck:
    """One check of one stream of rows: fed batch by batch, asked at the end."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._row = 0
        self._violations: dict[tuple[str, str], Violation] = {}
        self._seen = {name: SeenRows([name]) for name, column in schema.columns.items() if column.unique}
        self._types: dict[str, pa.DataType | None] = {}
        self._incomparable: dict[str, Violation] = {}

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What was broken so far."""
        # One batch may hold integers where the whole column holds floats: only the unified type counts.
        wrong = {
            name: Violation(name, f"has type {kind}, expected {self._schema.columns[name].dtype}")
            for name, kind in self._types.items()
            if kind is not None and not self._schema.columns[name].accepts(kind)
        }
        return (*self._violations.values(), *({**self._incomparable, **wrong}).values())

    def feed(self, table: pa.Table) -> None:
        """Check the next rows."""
        if self._schema.strict:
            for name in table.column_names:
                if name not in self._schema.columns:
                    self._broken(name, "is not in the schema, which is strict")
        for name, column in self._schema.columns.items():
            if name not in table.column_names:
                there = ", ".join(table.column_names)
                self._broken(name, f"is missing{did_you_mean(name, table.column_names)}; there are {there}")
            else:
                self._note_type(name, table.column(name).type)
                self._feed_column(name, column, table)
        self._row += table.num_rows

    def _note_type(self, name: str, kind: pa.DataType) -> None:
        before = self._types.setdefault(name, kind)
        if before is None or before == kind:
            return
        self._types[name] = unify_types(before, kind)
        if self._types[name] is None:
            self._broken(name, f"has type {before} in some batches and {kind} in others")

    def _feed_column(self, name: str, column: Column, table: pa.Table) -> None:
        values = table.column(name)
        missing = pc.is_null(values, nan_is_null=pa.types.is_floating(values.type))
        if not column.nullable:
            self._rows(name, "is missing, and the column is not nullable", missing, values)
        if pa.types.is_null(values.type):
            return
        # Missing values are the rule's above, not that of the following.
        try:
            if column.min is not None:
                broken = bounds.less(values, column.min).fill_null(False)
                self._rows(name, f"is less than {column.min!r}", pc.and_not(broken, missing), values)
            if column.max is not None:
                broken = bounds.greater(values, column.max).fill_null(False)
                self._rows(name, f"is greater than {column.max!r}", pc.and_not(broken, missing), values)
            if column.allowed is not None:
                allowed = tuple(column.allowed)
                strange = pc.invert(pc.or_(bounds.one_of(values, allowed), missing))
                self._rows(name, f"is not one of {_shown(list(allowed))}", strange, values)
        except bounds.IncomparableError as error:
            self._incomparable.setdefault(name, Violation(name, str(error)))
        if column.unique:
            repeated = pa.chunked_array([pa.array(~self._seen[name].add(table))])
            repeated = pc.and_not(repeated, missing)
            self._rows(name, "repeats an earlier value, and the column is unique", repeated, values)

    def _rows(self, name: str, rule: str, broken: pa.ChunkedArray, values: pa.ChunkedArray) -> None:
        count = pc.sum(broken).as_py() or 0
        if not count:
            return
        violation = self._broken(name, rule)
        violation.count += count
        wanted = _SAMPLES - len(violation.samples)
        if wanted > 0:
            positions = pc.indices_nonzero(broken)[:wanted]
            samples = zip(positions.to_pylist(), values.take(positions).to_pylist(), strict=True)
            violation.samples.extend((self._row + position, value) for position, value in samples)

    def _broken(self, name: str, rule: str) -> Violation:
        return self._violations.setdefault((name, rule), Violation(name, rule))


def violation_error(violations: Sequence[Violation], name: str) -> SchemaViolationError:
    """Return one error that lists all violations."""
    rules = "1 rule" if len(violations) == 1 else f"{len(violations)} rules"
    lines = "\n".join(f"  - {violation}" for violation in violations)
    return SchemaViolationError(
        f"dataset {name!r} was not built: the rows break {rules} of its schema\n{lines}", violations
    )


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _shown(value: Any) -> str:
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
