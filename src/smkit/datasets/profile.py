"""What is known of each column of a version: values, a table for a terminal, HTML for a notebook."""

from __future__ import annotations

import decimal
import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from smkit.datasets.display import shown, shown_share, svg_bars, text_table
from smkit.display import MISSING, Markup, html_table
from smkit.errors import MissingColumnError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

Kind = Literal["number", "time", "boolean", "text", "other"]


@dataclass(frozen=True)
class Lengths:
    """How many characters the texts of a column have."""

    min: int
    mean: float
    max: int


@dataclass(frozen=True)
class Histogram:
    """Counts of sampled values in bins of equal width.

    Attributes:
        low: Where the first bin begins; times are in their own units since 1970.
        high: Where the last bin ends.
        counts: The counts.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ColumnProfile:
    """What is known of one column.

    Attributes:
        name: The column.
        type: Its Arrow type.
        kind: `number`, `time`, `boolean`, `text` or `other`.
        rows: How many rows there are.
        nulls: In how many the value is missing: NULL or NaN.
        distinct: How many distinct values there are, missing ones not counted.
        distinct_is_exact: Whether that is counted (up to 16,384) or estimated, with a standard error of 0.8%.
        min: The least value: a number, or ISO 8601 text of a time (in UTC where it has a zone); None for other kinds
            and of no values.
        max: The greatest value.
        mean: Of numbers.
        std: Of numbers, the sample standard deviation.
        quartiles: Of numbers and times, the 25%, 50% and 75% quantiles, linear between values; exact up to 65,536
            rows, else those of a random sample of so many rows (fewer where there are more than 256 such columns).
        top: The most frequent values of text, booleans, integers and dates, with their counts.
        top_is_exact: Whether the counts are exact (up to 4,096 distinct values) or may be too low, by at most the
            number of rows divided by 4,096.
        lengths: Of text.
        histogram: Of the numbers and times in the sample.
    """

    name: str
    type: str
    kind: Kind
    rows: int
    nulls: int
    distinct: int
    distinct_is_exact: bool
    min: Any
    max: Any
    mean: float | None
    std: float | None
    quartiles: tuple[Any, ...]
    top: tuple[tuple[Any, int], ...]
    top_is_exact: bool
    lengths: Lengths | None
    histogram: Histogram | None

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            **{name: as_json(value) for name, value in vars(self).items()},
            "top": [{"value": as_json(value), "count": count} for value, count in self.top],
            "lengths": vars(self.lengths) if self.lengths else None,
            "histogram": as_json(vars(self.histogram)) if self.histogram else None,
        }

    def shown_distinct(self) -> str:
        """Return the number of distinct values, with a tilde where it is an estimate."""
        return f"{'' if self.distinct_is_exact else '~'}{self.distinct:,}"

    def shown_range(self) -> str:
        """Return the range of values, or of the lengths of texts, in words."""
        if self.lengths is not None:
            return f"{self.lengths.min:,} to {self.lengths.max:,} characters"
        return f"{shown(self.min)} to {shown(self.max)}" if self.min is not None else MISSING

    def shown_top(self) -> str:
        """Return the most frequent values, where any is frequent."""
        if not self.top or (self.top[0][1] <= 1 and self.rows > 1):
            return MISSING
        most = "" if self.top_is_exact else ">="
        return ", ".join(f"{shown(value, widest=16)} {most}{count:,}" for value, count in self.top)


@dataclass(frozen=True)
class DatasetProfile:
    """What is known of each column; printed, it is a table, and in a notebook an HTML table with histograms.

    Counts of rows and of missing values, ranges, means and standard deviations are exact. Distinct values, quartiles
    and most frequent values are exact for small data; `ColumnProfile` says up to where.

    Attributes:
        ref: The version.
        split: Which split; None for all rows.
        rows: How many rows there are.
        columns: The columns, in their order.
    """

    ref: str
    split: str | None
    rows: int
    columns: tuple[ColumnProfile, ...]

    def __getitem__(self, name: str) -> ColumnProfile:
        """Return what is known of one column."""
        found = {column.name: column for column in self.columns}
        if name not in found:
            hint = did_you_mean(name, found) if isinstance(name, str) else ""
            raise MissingColumnError(f"the profile of {self.ref} has no column {name!r}{hint}")
        return found[name]

    def __iter__(self) -> Iterator[ColumnProfile]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return {
            "ref": self.ref,
            "split": self.split,
            "rows": self.rows,
            "columns": [column.to_dict() for column in self.columns],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each column, indexed by its name.

        Columns: `type`, `nulls`, `distinct`, `min`, `max`, `mean`, `std`, `25%`, `50%`, `75%`, `top`, `freq`; what a
        column has none of is None or NaN.
        """
        import pandas as pd

        rows = []
        for column in self.columns:
            quartiles = column.quartiles or (None, None, None)
            top, freq = column.top[0] if column.top else (None, None)
            values = (column.type, column.nulls, column.distinct, column.min, column.max, column.mean, column.std)
            rows.append((*values, *quartiles, top, freq))
        header = ["type", "nulls", "distinct", "min", "max", "mean", "std", "25%", "50%", "75%", "top", "freq"]
        index = pd.Index([column.name for column in self.columns], name="column", dtype=object)
        frame: pd.DataFrame = pd.DataFrame(rows, columns=header, index=index)
        return frame.astype(dict.fromkeys(("mean", "std", "freq"), "float64"))

    def to_text(self, *, width: int | None = None) -> str:
        """Return the table as text.

        Args:
            width: The columns of the terminal; longer lines are cut. None: as wide as it takes.
        """
        header, rows = self._table()
        return f"{self._title()}\n\n{text_table(header, rows, width=width)}"

    def _repr_html_(self) -> str:
        """Return the table as HTML. What a dataset holds is not trusted: every cell is escaped."""
        header, rows = self._table()
        charts = [_chart(column) for column in self.columns]
        with_charts = [[row[0], chart, *row[1:]] for row, chart in zip(rows, charts, strict=True)]
        return f"<p>{html.escape(self._title())}</p>" + html_table([header[0], "", *header[1:]], with_charts)

    def _title(self) -> str:
        return f"{self.ref}{f', {self.split}' if self.split else ''}: {self.rows:,} rows, {len(self.columns)} columns"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["column", "type", "missing", "distinct", "range", "mean", "std", "quartiles", "most frequent"]
        rows = [
            [
                shown(column.name),
                shown(column.type),
                shown_share(column.nulls, column.rows),
                column.shown_distinct(),
                column.shown_range(),
                shown(column.mean),
                shown(column.std),
                ", ".join(map(shown, column.quartiles)) or MISSING,
                column.shown_top(),
            ]
            for column in self.columns
        ]
        return header, rows


def as_json(value: Any) -> Any:
    """Return a value as JSON values: text for what JSON has no type for, None for what is no finite number."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value


def _chart(column: ColumnProfile) -> Markup:
    if column.histogram is not None:
        return svg_bars(column.histogram.counts, title=f"{column.name}: {column.shown_range()}")
    if column.top and column.top[0][1] > 1:
        title = f"{column.name}: {column.shown_top()}"
        return svg_bars([count for _, count in column.top], title=title, color="#8a9a5b")
    return Markup("")
