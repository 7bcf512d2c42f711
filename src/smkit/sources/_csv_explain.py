"""What is wrong with a CSV file, in the words of its author: line, column, value and fix, where pyarrow has few."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from smkit.errors import SourceFormatError
from smkit.sources._csv_text import LONG_ROW, numbered_rows, open_text
from smkit.sources._datafile import declare, decompressed, of_type, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from smkit.sources._csv_text import CsvOptions
    from smkit.sources._datafile import DataFile

#: Unquoted, these are NULL in CSV; pyarrow's list, which is nearly pandas', fixed here whatever version is installed.
CSV_NULLS = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
]

_DELIMITERS = (",", ";", "\t", "|")
#: A file's first line that is one value in quotes.
_QUOTED_LINE = re.compile(rb'(?:\xef\xbb\xbf)?[\r\n]*"(?:[^"\r\n]|"")*"(?:[\r\n]|\Z)')
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def explained(
    error: SourceFormatError,
    file: DataFile,
    options: CsvOptions,
    types: Mapping[str, pa.DataType],
    declared: Collection[str],
) -> SourceFormatError:
    """Return an error that says more than pyarrow's.

    Args:
        error: What was raised.
        file: It is read again, up to the place in question.
        options: How the file is written.
        types: The columns' types.
        declared: The columns whose type the caller gave.
    """
    text = str(error)
    if isinstance(error.__cause__, UnicodeDecodeError) or "invalid UTF8" in text:
        return not_utf8(file)
    if "straddling object" in text or LONG_ROW in text:
        return _of_long_row(error, file, options)
    ragged = re.search(r"Expected (\d+) columns?, got (\d+)", text)
    if ragged:
        return _of_ragged_row(file, options, int(ragged[1]), int(ragged[2]))
    misfit = re.search(r"In CSV column #(\d+): (?:Row #\d+: )?(.*)", text, flags=re.DOTALL)
    if misfit:
        return _of_misfit(error, file, options, types, declared, index=int(misfit[1]), detail=misfit[2])
    return error


def check_delimiter(file: DataFile, names: list[str], head: memoryview, options: CsvOptions) -> None:
    """Refuse a header of one column that holds another delimiter, unless the header is in quotes.

    Args:
        file: The file.
        names: Its columns.
        head: Its first bytes, in UTF-8.
        options: How the file is written, as far as the caller knows.
    """
    if len(names) != 1:
        return
    if not _QUOTED_LINE.match(head):
        other = _other_delimiter(names[0], options)
        if other:
            raise _wrong_delimiter(file, names[0], other)


def not_utf8(file: DataFile) -> SourceFormatError:
    """Say which line is no UTF-8, and how to name the encoding."""
    with decompressed(file) as stream:
        head = stream.read(2)
    if head in _UTF16_MARKS:
        return SourceFormatError(f'{file.name}: not UTF-8 but UTF-16: pass encoding="utf-16"')
    with decompressed(file) as stream:
        line = next((number for number, text in enumerate(_lines(stream), 1) if not _is_utf8(text)), None)
    return SourceFormatError(
        f'{file.name}: {_at(line)}not UTF-8: pass the encoding that the file was saved in, such as encoding="gb18030" '
        f'(Chinese; GBK too) or encoding="latin-1" (Western Europe), or convert the file'
    )


def _of_long_row(error: SourceFormatError, file: DataFile, options: CsvOptions) -> SourceFormatError:
    """Find the unclosed quote that makes a row longer than a block, if there is one."""
    try:
        with open_text(file, options) as text:
            while text.read(1 << 20):
                pass
    except SourceFormatError as unclosed:
        return unclosed
    return error


def _of_ragged_row(file: DataFile, options: CsvOptions, expected: int, got: int) -> SourceFormatError:
    header: list[str] = []
    line = None
    for number, row in _rows(file, options):
        header = header or row
        if len(row) == got != expected:
            line = number
            break
    if expected == 1 and header:
        other = _other_delimiter(header[0], options)
        if other:
            return _wrong_delimiter(file, header[0], other)
    fix = f"quote values that hold the delimiter {options.delimiter!r}, or pass another delimiter="
    if got < expected:
        fix = f"write every value, an empty one too, between delimiters {options.delimiter!r}"
    return SourceFormatError(
        f"{file.name}: {_at(line)}{got} {_columns(got)}, but the header has {expected} {_columns(expected)}: {fix}"
    )


def _of_misfit(
    error: SourceFormatError,
    file: DataFile,
    options: CsvOptions,
    types: Mapping[str, pa.DataType],
    declared: Collection[str],
    *,
    index: int,
    detail: str,
) -> SourceFormatError:
    """Say which value of a column is not of its type."""
    quoted = re.search(r"'(.*)'$", detail, flags=re.DOTALL)
    value = quoted[1] if quoted else None
    # A quoted "NA" is a value and an unquoted one is none; Python's parser does not tell them apart.
    findable = value is not None and value.strip() not in CSV_NULLS
    column, line = None, None
    for number, row in _rows(file, options):
        if column is None:
            column = row[index]  # the header
        elif findable and len(row) > index and row[index] == value:
            line = number
        if line is not None or not findable:
            break
    if column is None:
        return error
    type_ = types.get(column)
    fits_float = type_ is not None and pa.types.is_integer(type_) and value is not None and _is_number(value)
    held = f"is {shown(value)}" if value is not None else f"has a value that does not fit ({shown(detail)})"
    return SourceFormatError(
        f"{file.name}: {_at(line)}column {column!r} {held}, but is read as "
        f"{of_type(type_, declared=column in declared)}: "
        + ("correct the value, or " if column in declared else "")
        + declare(column, '"float64"' if fits_float else '"string"')
    )


def _rows(file: DataFile, options: CsvOptions) -> Iterator[tuple[int, list[str]]]:
    with open_text(file, options) as text:
        yield from numbered_rows(text, options.delimiter)


def _other_delimiter(header: str, options: CsvOptions) -> str | None:
    counts = {mark: header.count(mark) for mark in _DELIMITERS if mark != options.delimiter}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else None


def _wrong_delimiter(file: DataFile, header: str, other: str) -> SourceFormatError:
    shown = '"\\t"' if other == "\t" else f'"{other}"'
    return SourceFormatError(
        f"{file.name}: the header is one column, {header!r}: pass delimiter={shown}, "
        f"or write the name in quotes if there is only one"
    )


def _lines(stream: pa.NativeFile | BinaryIO) -> Iterator[bytes]:
    """Yield the lines of bytes that may be no text."""
    rest = b""
    while block := stream.read(1 << 20):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _at(line: int | None) -> str:
    return "" if line is None else f"line {line}: "


def _columns(number: int) -> str:
    return "column" if number == 1 else "columns"
