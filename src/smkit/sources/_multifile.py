"""Many files as one stream: one schema for all, and every deviation named."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa

from smkit.errors import ConfigError, SourceFormatError, did_you_mean
from smkit.sources.base import Stream

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from smkit.sources._datafile import DataFile, Format

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())


def open_files(
    files: Sequence[DataFile],
    format_: Format,
    *,
    columns: Sequence[str] | None,
    column_types: Mapping[str, pa.DataType],
    batch_size: int,
) -> Stream:
    """Open files, in the given order, as one stream.

    Args:
        files: At least one.
        format_: The format of all of them.
        columns: The wanted columns in the wanted order; default: all, in the order of the first file.
        column_types: Types that the caller declares.
        batch_size: A hint.

    Raises:
        ConfigError: `columns` or `column_types` name a column that does not exist.
        SourceFormatError: A file is damaged, a column has no name, or the files do not share a schema.
    """
    schemas = [format_.schema(file, column_types) for file in files]
    whole = _common_schema(files, schemas, columns)
    for what, names in (("columns", columns or ()), ("column_types", column_types)):
        for name in names:
            if name not in whole.names:
                hint = did_you_mean(name, whole.names) or f"; columns: {', '.join(whole.names)}"
                raise ConfigError(f"{what} names {name!r}, which {files[0].name} does not have{hint}")
    schema = whole if columns is None else pa.schema([whole.field(name) for name in columns])
    _check_named(files[0], schemas[0].names, schema)

    def batches() -> Generator[pa.RecordBatch, None, None]:
        for file in files:
            with closing(
                format_.batches(file, schema, batch_size, projected=columns is not None, declared=column_types)
            ) as found:
                for batch in found:
                    yield _conform(batch, schema, file)

    return Stream(schema, batches())


def _check_named(first: DataFile, names: Sequence[str], schema: pa.Schema) -> None:
    """Refuse a column without a name, mostly the index of a frame: as a feature, it would be the number of the row."""
    if all(name.strip() for name in schema.names):
        return
    number = next((at for at, name in enumerate(names, 1) if not name.strip()), None)
    raise SourceFormatError(
        f"{first.name}: {'a column' if number is None else f'column {number}'} has no name. If it is the index of a "
        f"frame, write the file with index=False, as in df.to_csv(path, index=False); else give it a name, or choose "
        f"the others with columns=[...]"
    )


def _common_schema(files: Sequence[DataFile], schemas: Sequence[pa.Schema], columns: Sequence[str] | None) -> pa.Schema:
    """Join the schemas of all files; a column that is not wanted may differ."""
    first = schemas[0]
    types = dict(zip(first.names, first.types, strict=True))
    origin = dict.fromkeys(first.names, files[0].name)
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        wanted = set(types) | set(schema.names) if columns is None else set(columns)
        for name in sorted(wanted):
            here, before = name in schema.names, name in types
            if here != before:
                lacking, having = (files[0].name, file.name) if here else (file.name, files[0].name)
                raise SourceFormatError(
                    f"{lacking}: column {name!r} is missing, but {having} has it: all files of a source must have the "
                    f"same columns; read them as separate sources, or choose common ones with columns=[...]"
                )
            if not here:
                continue
            type_ = schema.field(name).type
            joined = _wider(types[name], type_)
            if joined is None:
                raise SourceFormatError(
                    f"{file.name}: column {name!r} is {type_}, but {types[name]} in {origin[name]}: "
                    f'declare one type for both: column_types={{"{name}": "{_suggested(types[name], type_)}"}}'
                )
            if joined != types[name]:
                types[name], origin[name] = joined, file.name
    return pa.schema(list(types.items()))


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of both exactly, or None."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for family in (_SIGNED, _UNSIGNED, _FLOATS):
        if one in family and other in family:
            return family[max(family.index(one), family.index(other))]
    return None


def _suggested(one: pa.DataType, other: pa.DataType) -> str:
    numeric = all(pa.types.is_integer(type_) or pa.types.is_floating(type_) for type_ in (one, other))
    return "float64" if numeric else "string"


def _conform(batch: pa.RecordBatch, schema: pa.Schema, file: DataFile) -> pa.RecordBatch:
    columns = []
    for field in schema:
        column = batch.column(batch.schema.get_field_index(field.name))
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise SourceFormatError(
                f"{file.name}: column {field.name!r} of type {column.type} cannot be read as {field.type}: {error}"
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)
