"""Many files as one stream: one schema for all, the wanted columns and rows of each."""

from __future__ import annotations

from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from smkit.errors import ConfigError, SourceFormatError, did_you_mean
from smkit.sources._datafile import ByteRange, WholeFile
from smkit.sources._filters import RowFilter
from smkit.sources._partitions import check_apart, kept_files, partition_columns
from smkit.sources._schemas import common_schema
from smkit.sources.base import Stream

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from smkit.sources._datafile import DataFile, DataFiles, Format
    from smkit.sources._options import ReadOptions


_NO_PARTITIONS = pa.RecordBatch.from_arrays([], schema=pa.schema([]))


def open_files(
    opened: DataFiles, format_: Format, options: ReadOptions, batch_size: int, *, only_schema: bool = False
) -> Stream:
    """Open files, in the given order, as one stream.

    Args:
        opened: At least one file.
        format_: The format of all of them.
        options: What is wanted of them.
        batch_size: A hint.
        only_schema: Whether the rows are not wanted, so that none need be fetched ahead.

    Raises:
        ConfigError: `columns`, `column_types` or `filters` name a column that does not exist.
        SourceFormatError: A file is damaged, a column has no name, or the files do not share a schema.
    """
    columns, column_types = options.columns, options.column_types
    partitions = _NO_PARTITIONS
    numbers = list(range(len(opened.files)))
    if options.partitioning:
        partitions = partition_columns(opened.files, column_types)
        numbers = kept_files(partitions, options.filters)
    # Where no file is left, the first one says what columns there would be.
    files = [opened.files[number] for number in numbers] or opened.files[:1]
    in_files = {name: type_ for name, type_ in column_types.items() if name not in partitions.schema.names}
    heads = [(file, format_.head(file)) for file in files]
    # Of text it is known before the schema is, which bytes the rows are.
    rests = [] if only_schema or not isinstance(format_, WholeFile) else heads
    rows = ((file, ByteRange(head.end, file.size)) for file, head in rests)
    opened.will_read(chain(heads, rows), keep=True)
    schemas = [format_.schema(file, in_files) for file in files]
    for file, found in zip(files, schemas, strict=True):
        check_apart(file, found, partitions.schema)
    tested = [one.column for conditions in options.filters for one in conditions]
    chosen = None if columns is None else list(dict.fromkeys([*columns, *tested]))
    if chosen is not None and set(chosen) <= set(partitions.schema.names):
        # Only folders are asked: some column of every file must say how many rows it has.
        chosen = schemas[0].names[:1]
    stored = common_schema(files, schemas, chosen, as_text=format_.any_as_text)
    whole = pa.schema([*stored, *partitions.schema])
    for what, names in (("columns", columns or ()), ("column_types", column_types)):
        for name in names:
            if name not in whole.names:
                hint = did_you_mean(name, whole.names) or f"; columns: {', '.join(whole.names)}"
                raise ConfigError(f"{what} names {name!r}, which {files[0].name} does not have{hint}")
    schema = whole if columns is None else pa.schema([whole.field(name) for name in columns])
    _check_named(files[0], schemas[0].names, schema)
    wanted = RowFilter(options.filters, whole)
    # A column may be tested and not wanted itself.
    needed = dict.fromkeys([*schema.names, *wanted.columns])
    read = pa.schema([stored.field(name) for name in needed if name in stored.names] or [stored.field(0)])

    declared = in_files.keys() - options.inferred

    def batches() -> Generator[pa.RecordBatch, None, None]:
        if not numbers:
            return
        opened.will_read((file, range_) for file in files for range_ in format_.ranges(file, read, wanted))
        for number, file in zip(numbers, files, strict=True):
            with closing(
                format_.batches(file, read, batch_size, projected=columns is not None, declared=declared, wanted=wanted)
            ) as found:
                for batch in found:
                    rows = _with_partitions(_conform(batch, read, file), partitions.slice(number, 1))
                    yield _project(wanted.apply(rows), schema)

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


def _with_partitions(batch: pa.RecordBatch, partition: pa.RecordBatch) -> pa.RecordBatch:
    repeated = [pa.repeat(column[0], batch.num_rows) for column in partition.columns]
    return pa.RecordBatch.from_arrays([*batch.columns, *repeated], schema=pa.schema([*batch.schema, *partition.schema]))


def _project(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [batch.column(batch.schema.get_field_index(name)) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
