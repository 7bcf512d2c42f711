"""Conditions on rows: checked, turned into the column's type, held against rows and against Parquet's statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from smkit import bounds
from smkit.errors import ConfigError, did_you_mean

#: What `filters=` takes: conditions that all hold, or a list of such lists, of which one holds; as pandas and pyarrow.
Filters: TypeAlias = Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]]

_COMPARE = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_OPERATORS = (*_COMPARE, "in", "not in")
_EXAMPLE = 'filters=[("price", ">", 0)]'


class Condition(NamedTuple):
    """What one column must hold.

    Args:
        column: Its name.
        operator: One of `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`.
        value: What it is compared with; a tuple for the last two. None is NULL.
    """

    column: str
    operator: str
    value: Any


class Statistics(NamedTuple):
    """What is known of a column's values in some rows; None where it is not."""

    rows: int
    nulls: int | None
    least: pa.Scalar | None
    greatest: pa.Scalar | None


def check_filters(filters: Filters | None) -> list[list[Condition]]:
    """Return the alternatives, each a list of conditions; none where every row is wanted.

    Raises:
        ConfigError: They are not of that shape, or an operator is unknown.
    """
    if filters is None:
        return []
    if isinstance(filters, (str, bytes)) or not isinstance(filters, Sequence) or not filters:
        raise ConfigError(f"filters is {filters!r}, but must be a list of conditions: {_EXAMPLE}")
    # A tuple with a name in front is a condition; everything else that is in the list is an alternative.
    alternatives: Any = [filters] if _is_condition(filters[0]) else filters
    return [_check_alternative(alternative) for alternative in alternatives]


def describe_filters(alternatives: Iterable[Iterable[Condition]]) -> list[list[list[Any]]]:
    """Return the conditions as values that JSON has."""
    return [[[one.column, one.operator, _as_json(one.value)] for one in conditions] for conditions in alternatives]


class RowFilter:
    """Conditions whose values have the types of their columns.

    A NULL fulfils no condition but those that name None: `("a", "=", None)`, `("a", "in", [1, None])`.

    Args:
        alternatives: A row is wanted if it fulfils all conditions of one of them.
        schema: The columns and their types.

    Raises:
        ConfigError: A column does not exist or cannot be compared, or a value is not of its column's type.
    """

    def __init__(self, alternatives: Iterable[Iterable[Condition]], schema: pa.Schema) -> None:
        self._alternatives = [[_bound(one, schema) for one in conditions] for conditions in alternatives]

    @property
    def columns(self) -> list[str]:
        """The columns that the conditions name, each once."""
        return list(dict.fromkeys(test.column for tests in self._alternatives for test in tests))

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that are wanted."""
        wanted = None
        for tests in self._alternatives:
            mask = None
            for test in tests:
                found = test.mask(batch.column(batch.schema.get_field_index(test.column)))
                mask = found if mask is None else pc.and_(mask, found)
            wanted = mask if wanted is None else pc.or_(wanted, mask)
        return batch if wanted is None or pc.all(wanted, min_count=0).as_py() else batch.filter(wanted)

    def may_hold(self, statistics: dict[str, Statistics]) -> bool:
        """Say whether any of the rows that these statistics describe, by column, can be wanted."""
        return not self._alternatives or any(
            all(test.column not in statistics or test.may_hold(statistics[test.column]) for test in tests)
            for tests in self._alternatives
        )


class _Test(NamedTuple):
    """A condition in the type of its column.

    Args:
        column: Its name.
        operator: As in `Condition`; `always` and `never` for values that the type cannot hold.
        values: What is compared with: one, but for `in` and `not in`; integers where the type has units.
        null: Whether None is among them.
    """

    column: str
    operator: str
    values: pa.Array
    null: bool

    def mask(self, column: pa.Array) -> pa.Array:
        """Say for each value whether it fulfils the condition; no NULLs in the answer."""
        valid = pc.is_valid(column)
        if self.values is not None and bounds.has_units(column.type):
            column = bounds.as_integers(column)
        if self.operator == "in":
            found = pc.and_(pc.is_in(column, value_set=self.values), valid)
            return pc.or_(found, pc.is_null(column)) if self.null else found
        if self.operator == "not in":
            return pc.and_(pc.invert(pc.is_in(column, value_set=self.values)), valid)
        if self.null:
            return pc.is_null(column) if self.operator == "=" else valid
        if self.operator in {"always", "never"}:
            return valid if self.operator == "always" else pc.and_(valid, pa.scalar(value=False))
        return pc.fill_null(_COMPARE[self.operator](column, self.values[0]), fill_value=False)

    def may_hold(self, known: Statistics) -> bool:
        """Say whether one of the values may fulfil the condition."""
        if self.null and self.operator in {"=", "in"} and known.nulls != 0:
            return True
        if known.nulls == known.rows:
            return False
        least, greatest = (
            bounds.as_integers(edge) if edge is not None and bounds.has_units(edge.type) else edge
            for edge in (known.least, known.greatest)
        )
        if self.operator in {"=", "in"}:
            return any(_within(value, least, greatest) for value in self.values)
        if self.operator in {"<", "<="} and least is not None:
            return bool(_COMPARE[self.operator](least, self.values[0]).as_py())
        if self.operator in {">", ">="} and greatest is not None:
            return bool(_COMPARE[self.operator](greatest, self.values[0]).as_py())
        # `!=` and `not in` are fulfilled by NaN, which statistics leave out.
        return self.operator != "never"


def _within(value: pa.Scalar, least: pa.Scalar | None, greatest: pa.Scalar | None) -> bool:
    return not (
        (least is not None and pc.less(value, least).as_py())
        or (greatest is not None and pc.greater(value, greatest).as_py())
    )


def _is_condition(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and isinstance(value[0], str)


def _check_alternative(conditions: Any) -> list[Condition]:
    if isinstance(conditions, str) or not isinstance(conditions, Sequence) or not conditions:
        raise ConfigError(f"filters holds {conditions!r}, but must be a list of conditions: {_EXAMPLE}")
    return [_check_condition(condition) for condition in conditions]


def _check_condition(condition: Any) -> Condition:
    if not _is_condition(condition) or len(condition) != 3:
        raise ConfigError(f"filters holds {condition!r}, but a condition is (column, operator, value): {_EXAMPLE}")
    column, operator, value = condition
    operator = "=" if operator == "==" else operator
    if operator not in _OPERATORS:
        raise ConfigError(f"filters: {operator!r} is no operator; operators: {', '.join(_OPERATORS)}")
    if operator in {"in", "not in"}:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise ConfigError(f"filters: {column!r} {operator} {value!r}: pass a list of values")
        # A set's order differs from run to run, and what is read must describe equally.
        value = tuple(sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value)
    elif value is None and operator not in {"=", "!="}:
        raise ConfigError(f"filters: {column!r} {operator} None: NULL has no order; use '=' or '!='")
    return Condition(column, operator, value)


def _bound(condition: Condition, schema: pa.Schema) -> _Test:
    column, operator, given = condition
    if column not in schema.names:
        hint = did_you_mean(column, schema.names) or f"; columns: {', '.join(schema.names)}"
        raise ConfigError(f"filters names {column!r}, which the files do not have{hint}")
    type_ = schema.field(column).type
    if pa.types.is_nested(type_):
        raise ConfigError(f"filters names {column!r}, which is {type_}: only plain values can be compared")
    several = operator in {"in", "not in"}
    values = [value for value in (given if several else (given,)) if value is not None]
    null = len(values) < (len(given) if several else 1)
    if pa.types.is_null(type_):
        return _Test(column, operator, pa.array([], type_), null) if null else _Test(column, "never", None, null)
    values = [bounds.plain(value) for value in values]
    try:
        if bounds.has_units(type_):
            return _unit_test(column, operator, values, type_, null=null)
        # One by one: in a list, pyarrow would look at the first value alone.
        found = [_scalar(value, type_).as_py() for value in values]
    except bounds.IncomparableError as error:
        raise _incomparable(condition, type_, error.why) from error
    except (pa.ArrowException, OverflowError, TypeError, ValueError, ArithmeticError) as error:
        raise _incomparable(condition, type_, str(error)) from error
    if several and pa.types.is_floating(type_):
        found = bounds.floats_like(found)
    return _Test(column, operator, pa.array(found, type_), null)


def _incomparable(condition: Condition, type_: pa.DataType, why: str) -> ConfigError:
    return ConfigError(
        f"filters: {condition.column!r} is {type_} and cannot be compared with {condition.value!r}{why and ': ' + why}"
    )


def _unit_test(column: str, operator: str, values: list[Any], type_: pa.DataType, *, null: bool) -> _Test:
    """Compare whole numbers of a unit exactly: a float would round large ones, a coarse unit cut the value short."""
    exact = [bounds.units(value, type_) for value in values]
    integers = bounds.as_integers(pa.array([], type_)).type
    low, high = bounds.limits_of(integers)
    if operator in {"<", "<=", ">", ">="}:
        if operator in {"<", "<="}:
            bound = math.ceil(exact[0]) - 1 if operator == "<" else math.floor(exact[0])
            answer = "never" if bound < low else "always" if bound >= high else "<="
        else:
            bound = math.floor(exact[0]) + 1 if operator == ">" else math.ceil(exact[0])
            answer = "never" if bound > high else "always" if bound <= low else ">="
        return _Test(column, answer, pa.array([min(max(bound, low), high)], integers), null)
    possible = [int(value) for value in exact if value.denominator == 1 and low <= value <= high]
    if operator in {"=", "!="} and not possible and not null:
        return _Test(column, "never" if operator == "=" else "always", pa.array([], integers), null)
    return _Test(column, operator, pa.array(possible, integers), null)


def _scalar(value: Any, type_: pa.DataType) -> pa.Scalar:
    if pa.types.is_boolean(type_) != isinstance(value, bool):
        raise TypeError(f"it is {type(value).__name__}")
    if pa.types.is_decimal(type_) and isinstance(value, float):
        value = Decimal(repr(value))
    return pa.scalar(value, type_)


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    value = bounds.plain(value)
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
