"""What a user's function returns, as a table: columns keep the types that they came with, where they can.

pandas has objects where Arrow has decimals, dates, times, bytes and lists. What type those are of is inferred from the
values, and so may change with every batch and every day: decimals are as narrow as their digits, integers in lists have
64 bits, and of a column without values nothing is known. Hence an object column of a name that the function was given
keeps the type that it was given with, as long as its values are of that kind and none changes. A column without values
might be of any: the other batches decide, and only where none has a value, the type that it was given with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smkit.datasets.columns import unify_types, with_fallback
from smkit.frames import to_arrow

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


def returned_table(frame: pd.DataFrame, given: pa.Schema) -> pa.Table:
    """Convert the frame that a function returned.

    Args:
        frame: What it returned.
        given: The columns of what it was given.

    Raises:
        ConfigError: As `smkit.frames.to_arrow`.
    """
    table = to_arrow(frame)
    fields, columns = [], []
    for field, inferred in zip(table.schema, table.columns, strict=True):
        values = _objects(frame, field.name) if field.name in given.names else None
        if values is None:
            fields.append(field)
            columns.append(inferred)
            continue
        kind = given.field(field.name).type
        columns.append(_kept(values, kind, inferred))
        fields.append(with_fallback(pa.field(field.name, columns[-1].type), kind))
    return pa.table(columns, schema=pa.schema(fields))


def _objects(frame: pd.DataFrame, name: str) -> list[Any] | None:
    """Return the values of a column of Python objects, missing ones as None; None where pandas knows a type."""
    column = frame[name] if name in frame.columns else frame.index.get_level_values(name).to_series()
    if column.dtype != object:
        return None
    return [None if missing else value for value, missing in zip(column, column.isna(), strict=True)]


def _kept(values: list[Any], given: pa.DataType, inferred: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    # Inferred anew, because NaN in a list is NULL to `to_arrow`.
    column = pa.array(values) if pa.types.is_nested(inferred.type) else inferred
    kind = _joined(given, column.type)
    if kind == column.type:
        return column
    try:
        kept = column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column
    # Arrow refuses what does not fit, but rounds to single floats.
    rounds = "float" in str(kind) and repr(kept.cast(column.type).to_pylist()) != repr(column.to_pylist())
    return column if rounds else kept


def _joined(given: pa.DataType, inferred: pa.DataType) -> pa.DataType:
    """Return the type to try: the given one where the values are of its kind, else the inferred one."""
    if pa.types.is_decimal(given) and pa.types.is_decimal(inferred):
        return unify_types(given, inferred) or inferred
    if pa.types.is_list(given) and pa.types.is_list(inferred):
        return pa.list_(_joined(given.value_type, inferred.value_type))
    if pa.types.is_struct(given) and pa.types.is_struct(inferred):
        fields = {given.field(i).name: given.field(i).type for i in range(given.num_fields)}
        found = [inferred.field(i) for i in range(inferred.num_fields)]
        return pa.struct([(one.name, _joined(fields.get(one.name, one.type), one.type)) for one in found])
    if pa.types.is_timestamp(given) and pa.types.is_timestamp(inferred):
        return given if given.tz == inferred.tz else inferred
    return given if any(is_of(given) and is_of(inferred) for is_of in _KINDS) else inferred


_KINDS: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_time,
)
