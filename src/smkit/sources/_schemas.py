"""One schema for the files of a source; every difference between them named."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from smkit.errors import SourceFormatError
from smkit.sources._nested import declaration, union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smkit.sources._datafile import DataFile

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
_DECIMAL_DIGITS = 38
#: Differences that one message lists.
_SHOWN = 50


#: All files get the column, or none: no type mends that.
_MISSING = (
    "all files of a source must have the same columns; read them as separate sources, or choose common ones "
    "with columns=[...]"
)


class _Difference(NamedTuple):
    """What is wrong, and the types that differ."""

    text: str
    column: str
    types: tuple[pa.DataType, pa.DataType] | None


def common_schema(
    files: Sequence[DataFile], schemas: Sequence[pa.Schema], columns: Sequence[str] | None, *, as_text: bool
) -> pa.Schema:
    """Join the schemas of all files.

    Args:
        files: At least one.
        schemas: Theirs.
        columns: The columns that are wanted; the others may differ. Default: all.
        as_text: Whether any value can be read as text, where that is declared.

    Raises:
        SourceFormatError: The files differ; all differences of all files are listed.
    """
    first, name = schemas[0], files[0].name
    types = dict(zip(first.names, first.types, strict=True))
    origin = dict.fromkeys(first.names, name)
    found: list[_Difference] = []
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        here = dict(zip(schema.names, schema.types, strict=True))
        for column in dict.fromkeys([*first.names, *schema.names]) if columns is None else columns:
            if column not in types and column not in here:
                continue
            if column not in here:
                found.append(_Difference(f"{file.name}: column {column!r} is missing, but {name} has it", column, None))
            elif column not in types:
                found.append(_Difference(f"{name}: column {column!r} is missing, but {file.name} has it", column, None))
            else:
                before, type_ = types[column], here[column]
                joined = wider(before, type_)
                if joined is None:
                    text = f"{file.name}: column {column!r} is {type_}, but {before} in {origin[column]}"
                    found.append(_Difference(text, column, (before, type_)))
                elif joined != before:
                    types[column], origin[column] = joined, file.name
    if found:
        raise SourceFormatError(_message(found, as_text=as_text))
    return pa.schema(list(types.items()))


def wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of both exactly, or None."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for family in (_SIGNED, _UNSIGNED, _FLOATS):
        if one in family and other in family:
            return family[max(family.index(one), family.index(other))]
    if {one in _SIGNED, other in _SIGNED} == {True, False} and {one in _UNSIGNED, other in _UNSIGNED} == {True, False}:
        signed, unsigned = (one, other) if one in _SIGNED else (other, one)
        # A sign takes one bit.
        return next(
            (
                type_
                for type_ in _SIGNED
                if type_.bit_width > unsigned.bit_width <= 32 and type_.bit_width >= signed.bit_width
            ),
            None,
        )
    if pa.types.is_decimal128(one) and pa.types.is_decimal128(other):
        scale = max(one.scale, other.scale)
        digits = max(one.precision - one.scale, other.precision - other.scale) + scale
        return pa.decimal128(digits, scale) if digits <= _DECIMAL_DIGITS else None
    if pa.types.is_list(one) and pa.types.is_list(other):
        value = wider(one.value_type, other.value_type)
        return None if value is None else pa.list_(value)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _wider_struct(one, other)
    return None


def _wider_struct(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    fields, others = ([type_.field(at) for at in range(type_.num_fields)] for type_ in (one, other))
    if [field.name for field in fields] != [field.name for field in others]:
        return None
    joined = [(a.name, wider(a.type, b.type)) for a, b in zip(fields, others, strict=True)]
    return None if any(type_ is None for _, type_ in joined) else pa.struct(joined)


def declarable(one: pa.DataType, other: pa.DataType, *, as_text: bool) -> pa.DataType | None:
    """Return the type to declare where the values of both shall be read, even if it rounds them, or None.

    Args:
        one: A type.
        other: Another.
        as_text: Whether any value by itself can be read as text. Of lists and structs there is none.
    """
    joined = union(one, other, _joined_leaf)
    nested = pa.types.is_nested(one) or pa.types.is_nested(other)
    return pa.string() if joined is None and as_text and not nested else joined


def _joined_leaf(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    joined = wider(one, other)
    return pa.float64() if joined is None and _is_number(one) and _is_number(other) else joined


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_))


def _message(found: Sequence[_Difference], *, as_text: bool) -> str:
    fixes = [_MISSING] if any(one.types is None for one in found) else []
    wanted: dict[str, pa.DataType | None] = {}
    for one in found:
        if one.types is not None:
            type_ = declarable(*one.types, as_text=as_text)
            before = wanted.get(one.column, type_)
            hopeless = before is None or type_ is None
            wanted[one.column] = None if hopeless else declarable(before, type_, as_text=as_text)
    codes = {column: None if type_ is None else declaration(type_) for column, type_ in wanted.items()}
    declared = ", ".join(f'"{column}": {code}' for column, code in codes.items() if code is not None)
    if declared:
        rounds = " (float64 rounds whole numbers beyond 2**53)" if "float64" in declared else ""
        fixes.append(f"declare one type for all: column_types={{{declared}}}{rounds}")
    apart = ", ".join(repr(column) for column, code in codes.items() if code is None)
    if apart:
        fixes.append(f"no type holds all values of {apart}: write them alike, or read the files as separate sources")
    fix = "; ".join(fixes)
    if len(found) == 1:
        return f"{found[0].text}: {fix}"
    shown = [f"  {one.text}" for one in found[:_SHOWN]]
    if len(found) > _SHOWN:
        shown.append(f"  and {len(found) - _SHOWN} more")
    return "\n".join([f"the files of this source differ in {len(found)} places:", *shown, fix])
