"""Types of lists and structs, and how to declare one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

_SPELLED = {
    pa.null(): "pa.null()",
    pa.bool_(): "pa.bool_()",
    pa.int32(): "pa.int32()",
    pa.int64(): "pa.int64()",
    pa.float32(): "pa.float32()",
    pa.float64(): "pa.float64()",
    pa.string(): "pa.string()",
    pa.date32(): "pa.date32()",
    pa.timestamp("us"): 'pa.timestamp("us")',
}


def fields_of(type_: pa.StructType) -> dict[str, pa.DataType]:
    """Return name -> type of a struct's fields."""
    return {field.name: field.type for field in (type_.field(at) for at in range(type_.num_fields))}


def union(
    one: pa.DataType, other: pa.DataType, leaf: Callable[[pa.DataType, pa.DataType], pa.DataType | None]
) -> pa.DataType | None:
    """Return the type with the fields of both, or None where there is none.

    Args:
        one: A type.
        other: Another.
        leaf: What joins types that are no lists and no structs.
    """
    if pa.types.is_list(one) and pa.types.is_list(other):
        value = union(one.value_type, other.value_type, leaf)
        return None if value is None else pa.list_(value)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields, others = fields_of(one), fields_of(other)
        joined = {
            name: union(fields[name], others[name], leaf)
            if name in fields and name in others
            else fields.get(name, others.get(name))
            for name in [*fields, *(name for name in others if name not in fields)]
        }
        return None if any(type_ is None for type_ in joined.values()) else pa.struct(list(joined.items()))
    return leaf(one, other)


def spelled(type_: pa.DataType) -> str | None:
    """Return a type as Python's code, where `pa` is pyarrow; None for one that no file's first rows show."""
    if pa.types.is_list(type_):
        value = spelled(type_.value_type)
        return None if value is None else f"pa.list_({value})"
    if pa.types.is_struct(type_):
        fields = [(name, spelled(field)) for name, field in fields_of(type_).items()]
        if any(code is None for _, code in fields):
            return None
        return f"pa.struct([{', '.join(f'({name!r}, {code})' for name, code in fields)}])"
    return _SPELLED.get(type_)
