"""How the values of a dataset are shown, in a terminal or a notebook."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from smkit.display import MISSING, Markup, aligned, printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDEST = 40


def shown(value: Any, *, widest: int = _WIDEST) -> str:
    """Return a value on one line, shortened, with U+FFFD for what a terminal would obey."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10**6 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = value if isinstance(value, str) else str(value)
    return shortened(printable(text[: 4 * widest]), widest)


def shown_share(part: int, whole: int) -> str:
    """Return a share in percent; a part that is not nothing is never 0%."""
    if not part or not whole:
        return "0%"
    percent = 100 * part / whole
    return f"{percent:.3g}%" if percent >= 0.01 else "<0.01%"


def shown_change(left: int, right: int) -> str:
    """Return two counts as one text: once where they are equal."""
    return f"{left:,}" if left == right else f"{left:,} -> {right:,}"


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> str:
    """Return a table as lines of text; columns that are empty throughout are left out.

    Args:
        header: The names of the columns.
        rows: Rows of printable cells, as many as the header has.
        width: The columns of the terminal; longer lines are cut. None: as wide as it takes.
    """
    rows = list(rows)
    kept = [place for place in range(len(header)) if any(row[place] not in ("", MISSING) for row in rows) or not place]
    lines = aligned([[row[place] for place in kept] for row in (header, *rows)])
    return "\n".join(lines if width is None else [shortened(line, width) for line in lines])


def svg_bars(counts: Sequence[float], *, title: str, color: str = "#4878a8") -> Markup:
    """Return a small inline bar chart.

    Args:
        counts: The heights.
        title: What a mouse that rests on it is told.
        color: Of the bars.
    """
    width, height, tallest = 6 * len(counts), 28, max(counts, default=0) or 1
    bars = "".join(
        f'<rect x="{6 * place}" y="{height - bar:.1f}" width="5" height="{bar:.1f}"/>'
        for place, bar in enumerate(height * count / tallest for count in counts)
    )
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" fill="{color}">'
        f"<title>{html.escape(title)}</title>{bars}</svg>"
    )
