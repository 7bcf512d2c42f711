"""CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from smkit.errors import SourceFormatError
from smkit.sources._csv_explain import CSV_NULLS, check_delimiter, explained, not_utf8
from smkit.sources._csv_text import open_text
from smkit.sources._datafile import BLOCK_BYTES, FLOAT_EXACT, check_header, declare, format_errors, read_up_to

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from smkit.sources._csv_text import CsvOptions
    from smkit.sources._datafile import DataFile


class Csv:
    """CSV with a header, values quoted with `"` where needed.

    An unquoted empty value, or an unquoted `NA`, `NaN`, `NULL` or the like, is NULL; `""` is the empty string.

    Args:
        options: Delimiter and encoding.
    """

    def __init__(self, options: CsvOptions) -> None:
        self._options = options

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Infer the types from the first block."""
        with format_errors(file), open_text(file, self._options) as text:
            # Twice a block: the reader must find the end of the first block's last row.
            head = read_up_to(text, 2 * BLOCK_BYTES)
        if not head.strip():
            raise SourceFormatError(f"{file.name}: empty: a CSV file needs at least a header")
        try:
            with format_errors(file), self._reader(pa.BufferReader(head), dict(declared)) as reader:
                schema = reader.schema
                names = schema.names  # not before here are they decoded
        except SourceFormatError as error:
            raise explained(error, file, self._options, declared, declared) from error
        check_delimiter(file, names, head, self._options)
        check_header(file, names)
        for field in schema:
            if pa.types.is_binary(field.type) and field.name not in declared:
                raise not_utf8(file)
        floats = [field.name for field in schema if pa.types.is_floating(field.type) and field.name not in declared]
        if floats:
            self._check_big_integers(file, head, floats)
        return schema

    def batches(
        self, file: DataFile, schema: pa.Schema, batch_size: int, *, projected: bool, declared: Collection[str]
    ) -> Generator[pa.RecordBatch, None, None]:
        """Parse block by block, in the schema's types."""
        del batch_size, projected  # blocks are bytes; the header was seen before
        types = dict(zip(schema.names, schema.types, strict=True))
        try:
            with (
                format_errors(file),
                open_text(file, self._options) as text,
                pa.PythonFile(text, mode="r") as stream,
                self._reader(stream, types, schema.names) as reader,
            ):
                yield from reader
        except SourceFormatError as error:
            raise explained(error, file, self._options, types, declared) from error

    def _reader(
        self, stream: pa.NativeFile, types: dict[str, pa.DataType], include: list[str] | None = None
    ) -> pa_csv.CSVStreamingReader:
        return pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(delimiter=self._options.delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=types,
                include_columns=include or [],
                null_values=CSV_NULLS,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _check_big_integers(self, file: DataFile, head: bytes, floats: list[str]) -> None:
        """Refuse integers that inference would round: an id of 20 digits is no measurement."""
        with (
            format_errors(file),
            self._reader(pa.BufferReader(head), dict.fromkeys(floats, pa.string()), floats) as reader,
        ):
            batch = reader.read_next_batch()
        for column in floats:
            digits = batch.column(column).filter(pc.match_substring_regex(batch.column(column), r"^[+-]?\d{16,}$"))
            for value in digits.to_pylist():
                if abs(int(value)) > FLOAT_EXACT:
                    raise SourceFormatError(
                        f"{file.name}: column {column!r} holds {value}, an integer that a float would round: "
                        f"{declare(column)}, or pa.decimal128(38, 0)"
                    )
