"""Parquet: only the columns and the row groups that are wanted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from smkit.frames import plain_type
from smkit.sources._datafile import ByteRange, check_header, format_errors
from smkit.sources._filters import Statistics

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping

    from smkit.sources._datafile import DataFile
    from smkit.sources._filters import RowFilter


#: Bytes of one read of a column.
_BUFFER_BYTES = 4 << 20
#: What pyarrow reads from a file's end at first; of small files, all: sooner than a second request is answered.
_FOOTER_BYTES, _SMALL_FILE_BYTES = 64 << 10, 1 << 20
#: Row groups that are read together: small ones up to the first number, a single one up to the second.
_PORTION_BYTES, _LARGEST_PORTION_BYTES = 16 << 20, 128 << 20
#: Ranges closer than this are read as one: cheaper than another request.
_GAP_BYTES = 128 << 10
#: Footers are kept between the look at the schemas and the reading, up to this many column chunks.
_KEPT_CHUNKS = 200_000


class _Portion(NamedTuple):
    """Row groups that are read together, and the bytes that they need."""

    row_groups: list[int]
    ranges: list[ByteRange]

    @property
    def size(self) -> int:
        return sum(one.size for one in self.ranges)


class Parquet:
    """Parquet; dictionary encoding and pandas' unnamed index are left behind.

    An instance is for one read: it keeps footers.
    """

    any_as_text = True

    def __init__(self) -> None:
        self._footers: dict[str, pq.FileMetaData] = {}
        self._kept_chunks = 0

    def head(self, file: DataFile) -> ByteRange:
        """Return the end of the file, where the footer is."""
        wanted = file.size if file.size <= _SMALL_FILE_BYTES else _FOOTER_BYTES
        return ByteRange(file.size - wanted, file.size)

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Read the footer."""
        schema = self._footer(file).schema.to_arrow_schema()
        check_header(file, schema.names)
        # Names of columns; a RangeIndex is a dict there, without a column.
        index = (schema.pandas_metadata or {}).get("index_columns", ())
        return pa.schema(
            [
                (field.name, declared.get(field.name, plain_type(field.type)))
                for field in schema
                if not (field.name in index and re.fullmatch(r"__index_level_\d+__", field.name))
            ]
        )

    def ranges(self, file: DataFile, schema: pa.Schema, wanted: RowFilter) -> Iterator[ByteRange]:
        """Yield the wanted columns of the row groups that may hold wanted rows."""
        for portion in self._portions(file, schema, wanted):
            if portion.size <= _LARGEST_PORTION_BYTES:
                yield from portion.ranges

    def batches(
        self,
        file: DataFile,
        schema: pa.Schema,
        batch_size: int,
        *,
        projected: bool,
        declared: Collection[str],
        wanted: RowFilter,
    ) -> Generator[pa.RecordBatch, None, None]:
        """Decode row group after row group."""
        del projected, declared  # the footer was seen before
        footer = self._footer(file)
        for portion in self._portions(file, schema, wanted):
            fetched = portion.ranges if portion.size <= _LARGEST_PORTION_BYTES else []
            with (
                format_errors(file),
                file.open_ranges(fetched) as raw,
                # What is at hand needs no buffer.
                pq.ParquetFile(
                    raw, metadata=footer, buffer_size=0 if fetched else _BUFFER_BYTES, pre_buffer=False
                ) as parquet,
            ):
                yield from parquet.iter_batches(
                    batch_size=batch_size, row_groups=portion.row_groups, columns=schema.names
                )

    def _footer(self, file: DataFile) -> pq.FileMetaData:
        found = self._footers.get(file.name)
        if found is None:
            with format_errors(file), file.open_ranges([]) as raw:
                found = pq.read_metadata(raw)
            chunks = found.num_row_groups * found.num_columns
            if self._kept_chunks + chunks <= _KEPT_CHUNKS:
                self._kept_chunks += chunks
                self._footers[file.name] = found
        return found

    def _portions(self, file: DataFile, schema: pa.Schema, wanted: RowFilter) -> Iterator[_Portion]:
        footer = self._footer(file)
        stored = footer.schema.to_arrow_schema()
        leaves = _leaves(stored)
        chosen = [leaf for name in schema.names for leaf in leaves[name]]
        pending = _Portion([], [])
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            # A column that stands in the folders' names is not in the file.
            tested = [name for name in wanted.columns if name in leaves]
            known = {name: _statistics(group, leaves[name], stored, schema, name) for name in tested}
            if not wanted.may_hold(known):
                continue
            ranges = [_range(group.column(leaf)) for leaf in chosen]
            if pending.row_groups and pending.size + sum(one.size for one in ranges) > _PORTION_BYTES:
                yield pending
                pending = _Portion([], [])
            pending = _Portion([*pending.row_groups, number], _joined([*pending.ranges, *ranges]))
        if pending.row_groups:
            yield pending


def _leaves(schema: pa.Schema) -> dict[str, list[int]]:
    """Return by column the numbers of its Parquet columns: a struct has one for each of its fields."""
    leaves: dict[str, list[int]] = {}
    start = 0
    for field in schema:
        count = _count_leaves(field.type)
        leaves[field.name] = list(range(start, start + count))
        start += count
    return leaves


def _count_leaves(type_: pa.DataType) -> int:
    if pa.types.is_struct(type_):
        return sum(_count_leaves(type_.field(at).type) for at in range(type_.num_fields))
    if pa.types.is_map(type_):
        return _count_leaves(type_.key_type) + _count_leaves(type_.item_type)
    return _count_leaves(type_.value_type) if pa.types.is_nested(type_) else 1


def _range(chunk: pq.ColumnChunkMetaData) -> ByteRange:
    start = chunk.data_page_offset
    # Some writers say 0 where there is no dictionary.
    if chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    return ByteRange(start, start + chunk.total_compressed_size)


def _joined(ranges: list[ByteRange]) -> list[ByteRange]:
    joined: list[ByteRange] = []
    for one in sorted(ranges):
        if joined and one.start - joined[-1].end <= _GAP_BYTES:
            joined[-1] = ByteRange(joined[-1].start, max(joined[-1].end, one.end))
        else:
            joined.append(one)
    return joined


def _statistics(
    group: pq.RowGroupMetaData, leaves: list[int], stored: pa.Schema, schema: pa.Schema, name: str
) -> Statistics:
    known = group.column(leaves[0]).statistics
    if known is None:
        return Statistics(group.num_rows, None, None, None)
    here, there = plain_type(stored.field(name).type), schema.field(name).type
    bounds: list[pa.Scalar | None] = [None, None]
    if known.has_min_max and _keeps_order(here, there):
        bounds = [_bound(value, here, there) for value in (known.min, known.max)]
    return Statistics(group.num_rows, known.null_count if known.has_null_count else None, *bounds)


def _keeps_order(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Say whether values are in the same order after the cast: numbers as text are not."""
    if stored == wanted:
        return True
    if pa.types.is_integer(stored) and pa.types.is_integer(wanted):
        return True
    floats = pa.types.is_floating(stored) and pa.types.is_floating(wanted)
    return bool(floats and wanted.bit_width >= stored.bit_width)


def _bound(value: object, stored: pa.DataType, wanted: pa.DataType) -> pa.Scalar | None:
    try:
        return pa.scalar(value, stored).cast(wanted)
    # A bound that cannot be expressed is none; the rows themselves are cast, and complained of, when they are read.
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None
