"""The types of columns: how they are stored, and what two batches that differ have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from smkit.errors import DatasetError
from smkit.frames import plain_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}
_TIME_UNITS = ("s", "ms", "us", "ns")
#: Metadata of a field that lacks values: the type that it has where no batch has values.
_FALLBACK = b"smkit:fallback"


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which a dataset keeps a column: its values' own, whatever encodes them in memory.

    Dictionaries, views, 64-bit offsets, extensions and the names of list items would otherwise show in the bytes of the
    files. Half floats become single ones and decimals are as narrow as can be: every reader of Parquet knows those.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return stored_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return stored_type(kind.value_type)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal(kind) and kind.precision <= 38:
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_map(kind):
        return pa.map_(stored_type(kind.key_type), stored_type(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(i).name, stored_type(kind.field(i).type)) for i in range(kind.num_fields)])
    if pa.types.is_nested(kind) and kind.num_fields == 1:  # every kind of list
        return pa.list_(stored_type(kind.value_type))
    return plain_type(kind)


def stored_table(table: pa.Table) -> pa.Table:
    """Return the rows with the types in which they are stored, without metadata but that of `with_fallback`.

    Raises:
        DatasetError: A value does not fit the type.
    """
    schema = pa.schema([(field.name, stored_type(field.type)) for field in table.schema])
    return cast_table(table, pa.schema([_like(field, old) for field, old in zip(schema, table.schema, strict=True)]))


def cast_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows with the types of a schema that has the same names.

    Raises:
        DatasetError: A value would change, such as an integer beyond 2^53 among floats.
    """
    if table.schema.equals(schema, check_metadata=True):
        return table
    columns = [_cast(column, field) for field, column in zip(schema, table.columns, strict=True)]
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(
            f"column {field.name!r} has type {column.type} in one batch, and a value does not fit {field.type}, its "
            f"type over all batches: {error}; set its type in a map step, for example with astype"
        ) from None


def with_nulls(table: pa.Table) -> list[str]:
    """Return the columns in which a value is NULL; NaN is a value."""
    return [name for name, column in zip(table.column_names, table.columns, strict=True) if column.null_count]


def check_names(names: Sequence[str], what: str) -> None:
    """Refuse columns that cannot be told apart, and rows without any.

    Raises:
        DatasetError: There are none, or two share a name.
    """
    if not names:
        raise DatasetError(f"{what} has no columns")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"{what} has two columns named {', '.join(map(repr, twice))}: rename one")


def differing(first: Sequence[str], second: Sequence[str]) -> str:
    """Say in words how two lists of column names differ; `""` where they do not."""
    if list(first) == list(second):
        return ""
    missing = [name for name in first if name not in second]
    added = [name for name in second if name not in first]
    parts = [f"without {', '.join(map(repr, missing))}"] if missing else []
    parts += [f"with {', '.join(map(repr, added))}"] if added else []
    return " and ".join(parts) or f"in another order ({', '.join(second)} after {', '.join(first)})"


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables, which have the same names, as one.

    Raises:
        DatasetError: A column's types cannot be unified.
    """
    schema = unify_schemas(table.schema for table in tables)
    return pa.concat_tables([cast_table(table, schema) for table in tables])


def unify_schemas(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return the schema that holds the rows of all: columns by name, types unified where no value changes.

    Raises:
        DatasetError: A column's types cannot be unified.
    """
    schemas = iter(schemas)
    unified = next(schemas)
    for schema in schemas:
        if schema.equals(unified, check_metadata=True):
            continue
        fields = []
        for one, other in zip(unified, schema, strict=True):
            kind = unify_types(one.type, other.type)
            if kind is None:
                raise DatasetError(
                    f"column {one.name!r} has type {one.type} in one batch and {other.type} in another; "
                    f"set its type in a map step, for example with astype"
                )
            fields.append(_like(pa.field(one.name, kind), one, other))
        unified = pa.schema(fields)
    return unified


def with_fallback(field: pa.Field, kind: pa.DataType) -> pa.Field:
    """Return a field of a batch, and remember its type beside it where the batch lacks the values that would tell."""
    if not _lacks_values(field.type) or _lacks_values(kind):
        return field
    return field.with_metadata({_FALLBACK: pa.schema([("", kind)]).serialize().to_pybytes()})


def settled(schema: pa.Schema) -> pa.Schema:
    """Return the schema of all rows, without metadata: columns of which no batch had values have their fallback."""
    return pa.schema([(field.name, _settled(field)) for field in schema])


def _settled(field: pa.Field) -> pa.DataType:
    packed = (field.metadata or {}).get(_FALLBACK)
    if packed is None:
        return field.type
    [fallback] = pa.ipc.read_schema(pa.py_buffer(packed)).types
    return unify_types(field.type, fallback) or field.type


def _like(field: pa.Field, *others: pa.Field) -> pa.Field:
    """Return the field with the fallback that one of the others has, as long as it lacks values."""
    packed = next((o.metadata[_FALLBACK] for o in others if o.metadata and _FALLBACK in o.metadata), None)
    return field.with_metadata({_FALLBACK: packed}) if packed and _lacks_values(field.type) else field


def _lacks_values(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or any(_lacks_values(kind.field(i).type) for i in range(kind.num_fields))


def check_fits(schema: pa.Schema, like: pa.Schema) -> None:
    """Refuse rows that cannot be added to a version without a change to its columns.

    A column of NULLs alone fits every type, and a narrower number a wider one.

    Raises:
        DatasetError: Names, order or types differ; each is named.
    """
    if difference := differing(like.names, schema.names):
        raise DatasetError(f"the new rows do not fit the version that they are to be added to: they are {difference}")
    wrong = [
        f"{new.name!r} is {new.type} instead of {old.type}"
        for new, old in zip(schema, like, strict=True)
        if unify_types(old.type, new.type) != old.type
    ]
    if wrong:
        raise DatasetError(
            f"the new rows do not fit the version that they are to be added to: {'; '.join(wrong)}; "
            f"convert them in a map step, for example with astype"
        )


def unify_types(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds both, whichever comes first; None where there is none.

    Text never becomes a number, nor a number text, nor a decimal a float.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    return next((unify(one, other) for applies, unify in _RULES if applies(one) and applies(other)), None)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _unify_numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(one) and pa.types.is_floating(other):
        return max(one, other, key=lambda kind: kind.bit_width)
    if pa.types.is_floating(one) or pa.types.is_floating(other):
        return pa.float64()
    width = max(one.bit_width, other.bit_width)
    signed = [pa.types.is_signed_integer(kind) for kind in (one, other)]
    if all(signed) or not any(signed):
        return (_SIGNED if all(signed) else _UNSIGNED)[width]
    unsigned = other if signed[0] else one
    return _SIGNED[min(64, max(width, 2 * unsigned.bit_width))]


def _unify_decimals(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, other.scale)
    precision = scale + max(one.precision - one.scale, other.precision - other.scale)
    if precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale) if precision <= 76 else None


def _unify_timestamps(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    return pa.timestamp(max(one.unit, other.unit, key=_TIME_UNITS.index), one.tz) if one.tz == other.tz else None


def _unify_times(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return max(one, other, key=lambda kind: _TIME_UNITS.index(kind.unit))


def _unify_lists(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    items = unify_types(one.value_type, other.value_type)
    return None if items is None else pa.list_(items)


def _unify_structs(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    fields = [[kind.field(i) for i in range(kind.num_fields)] for kind in (one, other)]
    if [field.name for field in fields[0]] != [field.name for field in fields[1]]:
        return None
    members = [(a.name, unify_types(a.type, b.type)) for a, b in zip(*fields, strict=True)]
    return None if any(kind is None for _, kind in members) else pa.struct(members)


_RULES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, pa.DataType], pa.DataType | None]], ...] = (
    (_is_number, _unify_numbers),
    (pa.types.is_decimal, _unify_decimals),
    (pa.types.is_timestamp, _unify_timestamps),
    (pa.types.is_time, _unify_times),
    (pa.types.is_list, _unify_lists),
    (pa.types.is_struct, _unify_structs),
)
