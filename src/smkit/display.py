"""Text for a terminal or a notebook. What a store holds may come from anybody: nothing of it is shown as it is."""

from __future__ import annotations

import html
import json
import os
import sys
import sysconfig
import traceback
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MISSING = "-"


def printable(text: str) -> str:
    """Return text with U+FFFD for what a terminal would obey: control, bidirectional and line characters."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shown(value: Any) -> str:
    """Return a JSON value on one line."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def shown_size(size: int) -> str:
    """Return a size in bytes for people: `1.5 MiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def shown_time(moment: str) -> str:
    """Return a time of a record to the minute; what is no such time as it is, printable."""
    return printable(moment[:16].replace("T", " ") if len(moment) > 19 and moment[10:11] == "T" else moment)


def width_of(text: str) -> int:
    """Return how many columns text takes in a terminal: two for most Chinese, Japanese and Korean characters."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def shortened(text: str, width: int) -> str:
    """Return text that takes at most `width` columns, cut with an ellipsis."""
    if width_of(text) <= width:
        return text
    kept = ""
    for char in text:
        if width_of(kept) + width_of(char) > width - 1:
            break
        kept += char
    return kept + "…"


def padded(text: str, width: int) -> str:
    """Return text filled up with spaces to `width` columns."""
    return text + " " * (width - width_of(text))


def aligned(rows: Sequence[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Return rows of cells as lines in columns.

    Args:
        rows: Rows of equal length, printable.
        width: The columns of the terminal; the last column, then the widest are cut to fit. None: nothing is cut.
    """
    if not rows:
        return []
    widths = [max(width_of(row[column]) for row in rows) for column in range(len(rows[0]))]
    if width is not None:
        _shrink(widths, width - 2 * (len(widths) - 1))
    lines = [
        "  ".join(padded(shortened(cell, limit), limit) for cell, limit in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    # Many columns do not fit a very narrow terminal even so.
    return lines if width is None else [shortened(line, width) for line in lines]


_NARROWEST = 8


def _shrink(widths: list[int], room: int) -> None:
    """Take from the last column, which is free text, then from the widest, until all fit or all are narrow."""
    widths[-1] = min(widths[-1], max(_NARROWEST, widths[-1] - max(0, sum(widths) - room)))
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1


class Markup(str):
    """HTML that smkit made itself, of numbers and of escaped text."""

    __slots__ = ()


def html_table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML; every cell is escaped, but those that are `Markup` already."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_fields(fields: Mapping[str, Any]) -> str:
    """Return names and values as a table of HTML.

    Args:
        fields: Name -> JSON value or `Markup`; None is left out.
    """
    rows = "".join(
        f'<tr><th style="text-align: left">{html_text(name)}</th><td style="text-align: left">{_field(value)}</td></tr>'
        for name, value in fields.items()
        if value is not None
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _field(value: Any) -> str:
    if isinstance(value, Markup):
        return value
    # Notes and reasons may have lines.
    lines = value.splitlines() if isinstance(value, str) else [value]
    return "<br>".join(html.escape(shown(line)) for line in lines)


def html_text(text: str) -> str:
    """Return text for HTML: escaped, and printable."""
    return html.escape(printable(text))


def _escaped(cell: str) -> str:
    return cell if isinstance(cell, Markup) else html.escape(cell)


def short_traceback(error: BaseException) -> list[str]:
    """Return a traceback without the frames of smkit and IPython, as lines: where the user's code was, and why.

    Causes are told too, such as the exception of a transform that is the cause of a `TransformError`.
    """
    whole = traceback.TracebackException.from_exception(error)
    left_out = 0
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        kept = _frames_to_show(part.stack)
        left_out += len(part.stack) - len(kept)
        part.stack = traceback.StackSummary.from_list(kept)
        pending += [part.__cause__, part.__context__]
    lines = "".join(whole.format()).rstrip("\n").split("\n")
    if left_out:
        lines.append(f"({left_out} frames inside smkit are left out: error.__traceback__ has them)")
    return lines


def _frames_to_show(frames: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Leave out smkit's and IPython's frames, and those of libraries that smkit called and that called it back."""
    ipython = getattr(sys.modules.get("IPython"), "__file__", None)
    smkit, notebook = _folder_of(__file__), _folder_of(ipython) if ipython else None
    libraries = tuple({sysconfig.get_path(kind) + os.sep for kind in ("stdlib", "purelib", "platlib")})
    own = [place for place, frame in enumerate(frames) if frame.filename.startswith(smkit)]
    return [
        frame
        for place, frame in enumerate(frames)
        if place not in own
        and not (notebook and frame.filename.startswith(notebook))
        and not (own and own[0] < place < own[-1] and frame.filename.startswith(libraries))
    ]


def _folder_of(file: str) -> str:
    return os.path.dirname(file) + os.sep  # noqa: PTH120 - a frame names its file as text
