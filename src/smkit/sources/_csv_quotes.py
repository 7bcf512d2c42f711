"""Quoted values of CSV that never end.

A parser reads on from an unclosed quote, over any number of rows, to the next quote or to the end of the file, and
takes them all for one value: rows are lost without an error.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import numpy as np

_QUOTE = ord('"')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _State(Enum):
    """Where in a row a block ends."""

    VALUE_START = auto()
    UNQUOTED = auto()
    QUOTED = auto()
    #: Behind a quote that closes the value, unless another one follows: then the two are one, and the value goes on.
    CLOSED = auto()


class QuoteScanner:
    """Follow the quotes of a CSV file, block by block, by the rules of RFC 4180, as pyarrow reads them.

    A quote opens a value only at its start: the one of `5" pipe` is text.

    Args:
        delimiter: What separates values; one ASCII character.
    """

    def __init__(self, delimiter: str) -> None:
        self._separators = delimiter.encode() + b"\r\n"
        self._opening = re.compile(b"[" + re.escape(self._separators) + b']"')
        separators = re.escape(self._separators)
        #: Values that are all right, each with its separator; a group for line ends. The number is limited because the
        #: matcher remembers every repetition.
        self._run = re.compile(
            b'(?:"[^"]*(?:""[^"]*)*"(?=['
            + separators
            + b'])|[^"'
            + separators
            + b"][^"
            + separators
            + b"]*(?=["
            + separators
            + b"])|(\\n|\\r(?=[^\\n]))|["
            + separators
            + b"]){1,500}"
        )
        #: By byte: whether it may stand before an opening quote and behind a closing one.
        self._beside_quotes = np.zeros(256, dtype=bool)
        self._beside_quotes[[*self._separators, _QUOTE]] = True
        self._state = _State.VALUE_START
        self._opened = 1
        self._line_feeds = self._carriage_returns = 0
        self._at_start = True
        self._row_end = 0

    @property
    def row_end(self) -> int:
        """Where in the last block its last row ends, behind the line end; 0 where no row ends in it."""
        return self._row_end

    @property
    def open_line(self) -> int | None:
        """The 1-based line on which a quoted value starts that has not ended yet."""
        return self._opened if self._state is _State.QUOTED else None

    def feed(self, block: bytes) -> int | None:
        """Follow the next block.

        Returns:
            The 1-based line on which a quoted value starts that ends on a later line with more text behind its closing
            quote: that quote was meant to open another value. None where there is no such value.
        """
        self._row_end = skipped = 0
        if self._at_start:
            skipped = len(block)
            block = block.removeprefix(_BYTE_ORDER_MARK)
            skipped -= len(block)
            self._at_start = False
        if not block:
            return None
        unclosed = None if self._follow_regular(block) else self._follow(block)
        self._line_feeds += _count(block, b"\n")
        # Old Macs' files have these alone; elsewhere the line feeds say as much.
        if not self._line_feeds:
            self._carriage_returns += _count(block, b"\r")
        if self._row_end:
            self._row_end += skipped
        return unclosed

    def _follow_regular(self, block: bytes) -> bool:
        """Follow a block in which quotes stand only around values; where others do, do nothing and return False."""
        if self._state in {_State.VALUE_START, _State.UNQUOTED} and b'"' not in block:
            self._state = self._state_behind(block)
            self._row_end = _line_end(block, 0, len(block))
            return True
        codes = np.frombuffer(block, dtype=np.uint8)
        quotes = np.flatnonzero(codes == _QUOTE)
        inside = self._state is _State.QUOTED
        opening, closing = quotes[int(inside) :: 2], quotes[int(not inside) :: 2]
        follows_quote = self._state is _State.CLOSED
        if follows_quote and not self._beside_quotes[codes[0]]:
            return False
        if opening.size and opening[0] == 0:
            if self._state is _State.UNQUOTED:
                return False
            before = opening[1:]
        else:
            before = opening
        behind = closing[:-1] if closing.size and closing[-1] == codes.size - 1 else closing
        if not (self._beside_quotes[codes[before - 1]].all() and self._beside_quotes[codes[behind + 1]].all()):
            return False
        if (quotes.size + inside) % 2:
            self._state = _State.QUOTED
        else:
            self._state = self._state_behind(block)
        if self._state in {_State.QUOTED, _State.CLOSED}:
            starts = before[codes[before - 1] != _QUOTE]
            if starts.size:
                self._opened = self._line(block, int(starts[-1]))
            elif before.size < opening.size and not follows_quote:
                self._opened = self._line(block, 0)
        self._row_end = _regular_row_end(block, quotes, inside=inside)
        return True

    def _state_behind(self, block: bytes) -> _State:
        if block[-1] == _QUOTE:
            return _State.CLOSED
        return _State.VALUE_START if block[-1] in self._separators else _State.UNQUOTED

    def _follow(self, block: bytes) -> int | None:  # noqa: PLR0912 - one branch for each state
        """Follow any block, one quote after the other."""
        # Lines are counted once, at the end: counting at every quote would take quadratic time.
        at, opened_at = 0, -1
        # Text from here on is outside quotes.
        outside = len(block) if self._state is _State.QUOTED else 0
        while at < len(block):
            run = self._run.match(block, at) if self._state is _State.VALUE_START else None
            if run is not None:
                self._row_end = max(self._row_end, _line_end(block, outside, at), run.end(1))
                at = outside = run.end()
            elif self._state is _State.QUOTED:
                quote = block.find(b'"', at)
                if quote < 0:
                    break
                at, self._state = quote + 1, _State.CLOSED
                outside = at
            elif self._state is _State.CLOSED:
                if block[at] == _QUOTE:
                    self._state, outside = _State.QUOTED, len(block)
                elif block[at] in self._separators:
                    self._state = _State.VALUE_START
                elif self._spans_lines(block, opened_at, at):
                    return self._opened if opened_at < 0 else self._line(block, opened_at)
                else:
                    self._state = _State.UNQUOTED
                at += 1
            elif self._state is _State.VALUE_START and block[at] == _QUOTE:
                self._row_end = _line_end(block, outside, at) or self._row_end
                at, opened_at, self._state, outside = at + 1, at, _State.QUOTED, len(block)
            else:
                found = self._opening.search(block, at)
                if found is None:
                    self._state = _State.VALUE_START if block[-1] in self._separators else _State.UNQUOTED
                    break
                # The quote itself is the next turn's.
                at, self._state = found.end() - 1, _State.VALUE_START
        if opened_at >= 0:
            self._opened = self._line(block, opened_at)
        self._row_end = _line_end(block, outside, len(block)) or self._row_end
        return None

    def _spans_lines(self, block: bytes, opened_at: int, at: int) -> bool:
        if opened_at < 0:
            return self._line(block, at) > self._opened
        return block.find(b"\n", opened_at, at) >= 0 or block.find(b"\r", opened_at, at) >= 0

    def _line(self, block: bytes, at: int) -> int:
        line_feeds = self._line_feeds + block.count(b"\n", 0, at)
        return 1 + (line_feeds or self._carriage_returns + block.count(b"\r", 0, at))


def _regular_row_end(block: bytes, quotes: np.ndarray, *, inside: bool) -> int:
    """Return the offset behind the last line end outside quotes, or 0, where every quote opens or closes."""
    end = _line_end(block, 0, len(block))
    if (int(np.searchsorted(quotes, end)) + inside) % 2 == 0:
        return end
    codes = np.frombuffer(block, dtype=np.uint8)
    # As in `_line_end`: carriage returns count where there are no line feeds, but for one that ends the block.
    for mark, searched in ((b"\n", codes), (b"\r", codes[:-1])):
        ends = np.flatnonzero(searched == mark[0]) + 1
        outside = ends[(np.searchsorted(quotes, ends) + inside) % 2 == 0]
        if outside.size:
            return int(outside[-1])
    return 0


def _count(block: bytes, mark: bytes) -> int:
    # numpy compares many bytes at once, bytes.count() one after the other.
    return int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == mark[0])) if mark in block else 0


def _line_end(block: bytes, start: int, stop: int) -> int:
    """Return the offset behind the last line end in a part of a block, or 0."""
    end = block.rfind(b"\n", start, stop)
    if end < 0:
        # A carriage return that ends the block may be half of a line end.
        end = block.rfind(b"\r", start, min(stop, len(block) - 1))
    return end + 1
