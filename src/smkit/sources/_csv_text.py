"""The text of a CSV file: in UTF-8 whatever its encoding, every quoted value whole, every row with its line."""

from __future__ import annotations

import codecs
import csv
import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from smkit.arrow_memory import gathered
from smkit.errors import ConfigError, SourceFormatError
from smkit.sources._csv_quotes import QuoteScanner
from smkit.sources._datafile import LONGEST_ROW_BYTES, decompressed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from smkit.sources._datafile import DataFile

LONG_ROW = "a row is longer than the limit"


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file is written.

    Args:
        delimiter: What separates values: one ASCII character.
        encoding: The text's encoding, a name that Python knows.

    Raises:
        ConfigError: One of them is none.
    """

    delimiter: str = ","
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        mark = self.delimiter
        if not isinstance(mark, str) or len(mark) != 1 or not mark.isascii() or mark in '"\r\n\0':
            raise ConfigError(
                f'delimiter is {mark!r}, but must be one ASCII character other than a quote, such as "," ";" "|" "\\t"'
            )
        try:
            "a".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, TypeError, ValueError):
            raise ConfigError(
                f'encoding is {self.encoding!r}, but must be one that Python knows, such as "utf-8", "gb18030", '
                f'"latin-1" or "utf-16"'
            ) from None

    @property
    def is_utf8(self) -> bool:
        """Whether the bytes can be parsed as they are."""
        return codecs.lookup(self.encoding).name in {"utf-8", "utf-8-sig"}


class CsvText(io.RawIOBase):
    """The text of a CSV file as a stream of UTF-8, from front to back.

    Args:
        name: What messages call the file.
        stream: Its bytes, decompressed.
        options: How it is written.
    """

    def __init__(self, name: str, stream: pa.NativeFile | BinaryIO, options: CsvOptions) -> None:
        super().__init__()
        self._name = name
        self._stream = stream
        self._options = options
        self._decoder = None if options.is_utf8 else codecs.getincrementaldecoder(options.encoding)()
        self._quotes = QuoteScanner(options.delimiter)
        self._line = 1
        self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; none at the end.

        Raises:
            SourceFormatError: The bytes are not in the encoding, or a quoted value does not end.
        """
        if size < 0:
            return self.readall()
        if not self._ready:
            self._ready = self._next(size)
        part, self._ready = self._ready[:size], self._ready[size:]
        return part

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        part = self.read(len(view))
        view[: len(part)] = part
        return len(part)

    def row_blocks(self, size: int) -> Iterator[pa.Buffer]:
        """Yield whole rows, about `size` bytes at a time, in memory of Arrow's own; more where a row is longer.

        Raises:
            SourceFormatError: As `read`; or a row is too long.
        """
        parts: list[bytes] = []
        total = end = 0
        while part := self._next(size):
            if self._quotes.row_end:
                end = total + self._quotes.row_end
            parts.append(part)
            total += len(part)
            if total >= size and end:
                # Of millions of bytes, one copy and no other.
                block, behind = gathered(parts, end), total - end
                rest = b"".join(parts)[end:] if behind > len(part) else part[len(part) - behind :]
                parts, total, end = [rest], behind, 0
                yield block
            elif total > LONGEST_ROW_BYTES:
                raise SourceFormatError(f"{self._name}: {LONG_ROW} of {LONGEST_ROW_BYTES >> 20} MiB")
        if total:
            yield gathered(parts, total)

    def _next(self, size: int) -> bytes:
        while True:
            raw: bytes = self._stream.read(size)
            text = raw if self._decoder is None else self._decode(self._decoder, raw)
            line = self._quotes.feed(text)
            if line is None and not raw:
                line = self._quotes.open_line
            if line is not None:
                raise SourceFormatError(
                    f"{self._name}: line {line}: a quoted value opens here and does not end: close its quote; "
                    'a quote inside a quoted value is written twice ("")'
                )
            # A decoder may keep the beginning of a character until the rest of it comes.
            if text or not raw:
                return text

    def _decode(self, decoder: codecs.IncrementalDecoder, raw: bytes) -> bytes:
        try:
            text = decoder.decode(raw, final=not raw)
            encoded = text.encode()
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self._options.encoding, errors="replace")
            raise self._undecodable(self._line + before.count("\n"), error.reason) from None
        except UnicodeError as error:  # surrogates, which some encodings can write
            raise self._undecodable(self._line, str(error)) from None
        self._line += text.count("\n")
        return encoded

    def _undecodable(self, line: int, reason: str) -> SourceFormatError:
        return SourceFormatError(
            f"{self._name}: line {line}: the text is not {self._options.encoding} ({reason}): pass the encoding that "
            f"the file was saved in"
        )


@contextmanager
def open_text(file: DataFile, options: CsvOptions) -> Iterator[CsvText]:
    """Open the text of a file, decompressed."""
    with decompressed(file) as stream, CsvText(file.name, stream, options) as text:
        yield text


def numbered_rows(text: CsvText, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row, the header first, with the 1-based line on which it starts; empty lines are no rows.

    Slower than pyarrow, which tells no line: for messages. Ends early at what Python's parser refuses, such as a value
    of more than 128 KiB.
    """
    lines = io.TextIOWrapper(io.BufferedReader(text), encoding="utf-8-sig", errors="replace", newline="")
    reader = csv.reader(lines, delimiter=delimiter)
    start = 1
    while True:
        try:
            row = next(reader)
        except (StopIteration, csv.Error):
            return
        if row:
            yield start, row
        start = reader.line_num + 1
