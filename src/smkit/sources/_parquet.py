"""Parquet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from smkit.frames import plain_type
from smkit.sources._datafile import check_header, format_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from smkit.sources._datafile import DataFile


#: Bytes of one read of a column.
_BUFFER_BYTES = 4 << 20


class Parquet:
    """Parquet; dictionary encoding and pandas' unnamed index are left behind."""

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Read the footer."""
        with format_errors(file), file.open_seekable() as raw:
            schema = pq.read_schema(raw)
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

    def batches(
        self, file: DataFile, schema: pa.Schema, batch_size: int, *, projected: bool, declared: Collection[str]
    ) -> Generator[pa.RecordBatch, None, None]:
        """Decode row group after row group."""
        del projected, declared  # the footer was seen before
        with (
            format_errors(file),
            file.open_seekable() as raw,
            pq.ParquetFile(raw, buffer_size=_BUFFER_BYTES) as parquet,
        ):
            yield from parquet.iter_batches(batch_size=batch_size, columns=schema.names)
