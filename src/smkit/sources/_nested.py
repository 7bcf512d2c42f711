"""Types of lists and structs, and how to declare one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

#: Of what the first rows of a file show: type -> the name that declares it, and its code where `pa` is pyarrow.
_LEAVES = {
    pa.null(): ("null", "pa.null()"),
    pa.bool_(): ("bool", "pa.bool_()"),
    pa.int64(): ("int64", "pa.int64()"),
    pa.float64(): ("float64", "pa.float64()"),
    pa.string(): ("string", "pa.string()"),
    pa.date32(): ("date32", "pa.date32()"),
    pa.timestamp("us"): ("timestamp[us]", 'pa.timestamp("us")'),
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


def declaration(type_: pa.DataType) -> str | None:
    """Return what `column_types` takes for a type, as Python's code; None for one that no file's first rows show."""
    if pa.types.is_nested(type_):
        return _code(type_)
    return f'"{_LEAVES[type_][0]}"' if type_ in _LEAVES else None


def _code(type_: pa.DataType) -> str | None:
    if pa.types.is_list(type_):
        value = _code(type_.value_type)
        return None if value is None else f"pa.list_({value})"
    if pa.types.is_struct(type_):
        fields = [(name, _code(field)) for name, field in fields_of(type_).items()]
        if any(code is None for _, code in fields):
            return None
        return f"pa.struct([{', '.join(f'({name!r}, {code})' for name, code in fields)}])"
    return _LEAVES[type_][1] if type_ in _LEAVES else None
