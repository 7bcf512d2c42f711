"""Types of lists and structs, and how to declare one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

#: What pyarrow writes of a type -> what it calls it, where these differ.
_NAMES = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date32",
    "date64[ms]": "date64",
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
        if len(fields) != one.num_fields or len(others) != other.num_fields:
            return None  # two fields of one name
        joined = {
            name: union(fields[name], others[name], leaf)
            if name in fields and name in others
            else fields.get(name, others.get(name))
            for name in [*fields, *(name for name in others if name not in fields)]
        }
        return None if any(type_ is None for type_ in joined.values()) else pa.struct(list(joined.items()))
    return leaf(one, other)


def declaration(type_: pa.DataType) -> str | None:
    """Return what `column_types` takes for a type, as Python's code where `pa` is pyarrow; None for a rare one."""
    return _code(type_) if pa.types.is_nested(type_) else f'"{_NAMES.get(str(type_), str(type_))}"'


def _code(type_: pa.DataType) -> str | None:
    if pa.types.is_list(type_):
        value = _code(type_.value_type)
        return None if value is None else f"pa.list_({value})"
    if pa.types.is_struct(type_):
        fields = [(name, _code(field)) for name, field in fields_of(type_).items()]
        if any(code is None for _, code in fields):
            return None
        return f"pa.struct([{', '.join(f'({name!r}, {code})' for name, code in fields)}])"
    if pa.types.is_timestamp(type_):
        return f"pa.timestamp({type_.unit!r}{f', {type_.tz!r}' if type_.tz else ''})"
    if pa.types.is_decimal(type_):
        return f"pa.{type_}"
    if pa.types.is_boolean(type_):
        return "pa.bool_()"
    name = _NAMES.get(str(type_), str(type_))
    return f"pa.{name}()" if name.isidentifier() else None
