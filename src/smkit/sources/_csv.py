"""CSV."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from smkit.errors import SourceFormatError
from smkit.sources._datafile import (
    BLOCK_BYTES,
    FLOAT_EXACT,
    check_header,
    declare,
    decompressed,
    format_errors,
    read_up_to,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from smkit.sources._datafile import DataFile


#: Unquoted, these are NULL in CSV; pyarrow's list, which is nearly pandas', fixed here whatever version is installed.
_CSV_NULLS = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Csv:
    """CSV with a header, in UTF-8, values quoted with `"` where needed.

    An unquoted empty value, or an unquoted `NA`, `NaN`, `NULL` or the like, is NULL; `""` is the empty string.
    """

    _parse = pa_csv.ParseOptions(newlines_in_values=True)

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Infer the types from the first block."""
        with format_errors(file), decompressed(file) as stream:
            # Twice a block: the reader must find the end of the first block's last row.
            head = read_up_to(stream, 2 * BLOCK_BYTES)
        if not head.strip():
            raise SourceFormatError(f"{file.name}: empty: a CSV file needs at least a header")
        try:
            with format_errors(file), self._reader(pa.BufferReader(head), dict(declared)) as reader:
                schema = reader.schema
        except SourceFormatError as error:
            raise self._explained(error, pa.BufferReader(head), declared) from error
        check_header(file, schema.names)
        for field in schema:
            if pa.types.is_binary(field.type) and field.name not in declared:
                raise SourceFormatError(f"{file.name}: column {field.name!r} is not UTF-8: convert the file to UTF-8")
        floats = [field.name for field in schema if pa.types.is_floating(field.type) and field.name not in declared]
        if floats:
            self._check_big_integers(file, head, floats)
        return schema

    def batches(
        self, file: DataFile, schema: pa.Schema, batch_size: int, *, projected: bool
    ) -> Generator[pa.RecordBatch, None, None]:
        """Parse block by block, in the schema's types."""
        del batch_size, projected  # blocks are bytes; the header was seen before
        types = dict(zip(schema.names, schema.types, strict=True))
        try:
            with (
                format_errors(file),
                decompressed(file) as stream,
                self._reader(stream, types, schema.names) as reader,
            ):
                yield from reader
        except SourceFormatError as error:
            with decompressed(file) as stream:
                raise self._explained(error, stream, types) from error

    def _reader(
        self, stream: pa.NativeFile, types: dict[str, pa.DataType], include: list[str] | None = None
    ) -> pa_csv.CSVStreamingReader:
        return pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=self._parse,
            convert_options=pa_csv.ConvertOptions(
                column_types=types,
                include_columns=include or [],
                null_values=_CSV_NULLS,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _explained(
        self, error: SourceFormatError, stream: pa.NativeFile, types: Mapping[str, pa.DataType]
    ) -> SourceFormatError:
        """Say which column does not fit the type that the first block showed, and how to declare another."""
        match = re.search(r"CSV column #(\d+)", str(error))
        if match is None:
            return error
        with self._reader(stream, {}) as reader:
            column = reader.schema.names[int(match[1])]
        value = re.search(r"invalid value '(.*?)'", str(error))
        fits_float = pa.types.is_integer(types[column]) and value is not None and _is_number(value[1])
        return SourceFormatError(
            f"{error}. Column {column!r} is read as {types[column]}, which its first rows or column_types say: "
            f"{declare(column, 'float64' if fits_float else 'string')}"
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
