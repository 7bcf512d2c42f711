"""CSV."""

from __future__ import annotations

import math
import os
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from smkit.arrow_memory import gathered, owned_buffer
from smkit.errors import SourceFormatError
from smkit.sources._csv_explain import CSV_NULLS, check_delimiter, explained, not_utf8
from smkit.sources._csv_text import open_text
from smkit.sources._datafile import (
    BLOCK_BYTES,
    FLOAT_EXACT,
    WholeFile,
    check_header,
    declare,
    format_errors,
    greatest_float,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping
    from concurrent.futures import Future

    from smkit.sources._csv_text import CsvOptions
    from smkit.sources._datafile import DataFile
    from smkit.sources._filters import RowFilter

_SOMETHING = re.compile(rb"\S")
#: Blocks that are parsed at once.
_PARSERS = min(8, os.cpu_count() or 1)


class Csv(WholeFile):
    """CSV with a header, values quoted with `"` where needed.

    An unquoted empty value, or an unquoted `NA`, `NaN`, `NULL` or the like, is NULL; `""` is the empty string.

    Args:
        options: Delimiter and encoding.
    """

    any_as_text = True

    def __init__(self, options: CsvOptions) -> None:
        self._options = options
        #: The header of each file; files of one source mostly share theirs.
        self._names: dict[str, list[str]] = {}
        self._headers: dict[tuple[str, ...], list[str]] = {}

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Infer the types from the first block."""
        try:
            with format_errors(file), open_text(file, self._options) as text:
                blocks = text.row_blocks(BLOCK_BYTES)
                head, table = next(blocks, owned_buffer(b"")), pa.table({})
                if _SOMETHING.search(memoryview(head)):
                    table = self._parse(head, dict(declared), threads=True)
                    # A first row that is longer than a block leaves the header alone in the first one.
                    while not table.num_rows and (more := next(blocks, None)) is not None:
                        head = gathered([memoryview(head), memoryview(more)], head.size + more.size)
                        table = self._parse(head, dict(declared), threads=True)
                schema, names = table.schema, table.schema.names  # not before here are they decoded
        except SourceFormatError as error:
            raise explained(error, file, self._options, declared, declared) from error
        if not names:
            raise SourceFormatError(f"{file.name}: empty: a CSV file needs at least a header")
        check_delimiter(file, names, memoryview(head), self._options)
        check_header(file, names)
        self._names[file.name] = self._headers.setdefault(tuple(names), names)
        for field in schema:
            if pa.types.is_binary(field.type) and field.name not in declared:
                raise not_utf8(file)
        self._check_floats(file, head, table, declared)
        return schema

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
        """Parse block by block, several at once, in the schema's types."""
        del batch_size, projected, wanted  # blocks are bytes; the header was seen before
        types = dict(zip(schema.names, schema.types, strict=True))
        names = self._names[file.name]

        def parse(block: pa.Buffer, *, header: bool) -> pa.Table:
            table = self._parse(block, types, schema.names, header=None if header else names)
            self._check_floats(file, block, table, declared, header=None if header else names)
            return table

        try:
            with (
                format_errors(file),
                open_text(file, self._options) as text,
                closing(_parsed(text.row_blocks(BLOCK_BYTES), parse)) as tables,
            ):
                for table in tables:
                    yield from table.to_batches()
        except SourceFormatError as error:
            raise explained(error, file, self._options, types, declared) from error

    def _parse(
        self,
        block: pa.Buffer,
        types: dict[str, pa.DataType],
        include: list[str] | None = None,
        *,
        header: list[str] | None = None,
        threads: bool = False,
    ) -> pa.Table:
        """Parse whole rows, in this thread unless others may help; their header is their first row, unless given."""
        return pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(use_threads=threads, block_size=block.size + 1, column_names=header),
            parse_options=pa_csv.ParseOptions(delimiter=self._options.delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=types,
                include_columns=include or [],
                null_values=CSV_NULLS,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _check_floats(
        self,
        file: DataFile,
        block: pa.Buffer,
        found: pa.Table,
        declared: Collection[str],
        *,
        header: list[str] | None = None,
    ) -> None:
        """Refuse numbers that are no float: an id of 20 digits, unless a float was asked for, and 1e400."""
        peaks = {
            field.name: greatest_float(found[field.name]) for field in found.schema if pa.types.is_floating(field.type)
        }
        large = [
            name for name, peak in peaks.items() if math.isinf(peak) or (peak >= FLOAT_EXACT and name not in declared)
        ]
        if not large:
            return
        with format_errors(file):
            texts = self._parse(block, dict.fromkeys(large, pa.string()), large, header=header)
        for column in large:
            text = texts[column]
            if math.isinf(peaks[column]):
                infinite = text.filter(pc.is_inf(found[column]))
                # The word is one: `inf`, `-Infinity`.
                for value in infinite.filter(pc.match_substring_regex(infinite, r"\d")).to_pylist():
                    raise SourceFormatError(
                        f"{file.name}: column {column!r} holds {shown(value)}, which is beyond the range of a float: "
                        f"{declare(column)}"
                    )
            if column in declared:
                continue
            # Few values are that long, and the pattern is slow.
            long = text.filter(pc.greater_equal(pc.binary_length(text), 16))
            digits = long.filter(pc.match_substring_regex(long, r"^[+-]?\d{16,}$"))
            for value in digits.to_pylist():
                if abs(int(value)) > FLOAT_EXACT:
                    raise SourceFormatError(
                        f"{file.name}: column {column!r} holds {shown(int(value))}, an integer that a float would "
                        f"round: {declare(column)}, or pa.decimal128(38, 0)"
                    )


def _is_blank(block: pa.Buffer) -> bool:
    return block[0] in b"\r\n" and not block.to_pybytes().strip(b"\r\n")


def _parsed(blocks: Iterator[pa.Buffer], parse: Callable[..., pa.Table]) -> Generator[pa.Table, None, None]:
    """Parse blocks in threads, a few ahead, and yield their rows in order."""
    pool = ThreadPoolExecutor(_PARSERS, thread_name_prefix="smkit-csv")
    waiting: deque[Future[pa.Table]] = deque()
    header = True
    try:
        for block in blocks:
            # Empty lines are no rows, and pyarrow refuses a text without any.
            if header or not _is_blank(block):
                waiting.append(pool.submit(parse, block, header=header))
                header = False
            if len(waiting) > _PARSERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
