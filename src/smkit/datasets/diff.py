"""What differs between two versions: values, a table for a terminal, HTML for a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smkit.datasets.display import shown, shown_change, shown_share, text_table
from smkit.datasets.profile import as_json
from smkit.display import MISSING, html_table
from smkit.errors import MissingColumnError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from smkit.datasets.profile import ColumnProfile

_CATEGORIES = 3


@dataclass(frozen=True)
class RowChanges:
    """How many rows are in one version only, or differ.

    Attributes:
        added: Rows that only the version after has.
        removed: Rows that only the version before has.
        same: Rows that both have.
        changed: Rows whose key both have, with other values; None without a key.
        moved: Rows whose key both have, in another split; None without a key.
    """

    added: int
    removed: int
    same: int
    changed: int | None = None
    moved: int | None = None


@dataclass(frozen=True)
class SplitChange:
    """The rows of one split in both versions."""

    split: str
    left: int
    right: int


@dataclass(frozen=True)
class ColumnDrift:
    """One column in both versions.

    Attributes:
        name: The column.
        left: What is known of it in the version before; None where it has no such column.
        right: What is known of it in the version after.
        distance: The Jensen-Shannon distance of its values, from 0 (alike) to 1 (nothing in common), base 2, as by
            `scipy.spatial.distance.jensenshannon`: of numbers and times over 20 bins of equal frequency, of texts and
            booleans over their values. None where the column is in one version only, has other kinds of value, no
            values, or more than 4,096 texts.
        new: Values of a text or boolean column that only the version after has, the most frequent first.
        vanished: Such values that only the version before has.
    """

    name: str
    left: ColumnProfile | None
    right: ColumnProfile | None
    distance: float | None
    new: tuple[Any, ...] = ()
    vanished: tuple[Any, ...] = ()

    @property
    def schema_change(self) -> str:
        """`added`, `removed`, `type` or `""`."""
        if self.left is None or self.right is None:
            return "added" if self.left is None else "removed"
        return "" if self.left.type == self.right.type else "type"

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON values."""
        return {
            "name": self.name,
            "schema_change": self.schema_change,
            "distance": self.distance,
            "new": as_json(self.new),
            "vanished": as_json(self.vanished),
            "left": self.left.to_dict() if self.left else None,
            "right": self.right.to_dict() if self.right else None,
        }


@dataclass(frozen=True)
class DatasetDiff:
    """What differs between two versions; printed, it is a table, and in a notebook an HTML table.

    Attributes:
        left: The version before.
        right: The version after.
        key: The columns that name a row; none: rows are compared as a whole.
        rows: Rows added, removed, changed. Rows are compared by the columns that both versions have, by 128-bit hashes;
            NaN and NULL are two values.
        splits: The rows of each split.
        columns: Every column of either version.
    """

    left: str
    right: str
    key: tuple[str, ...]
    rows: RowChanges
    splits: tuple[SplitChange, ...]
    columns: tuple[ColumnDrift, ...]

    def __getitem__(self, name: str) -> ColumnDrift:
        """Return one column."""
        found = {column.name: column for column in self.columns}
        if name not in found:
            hint = did_you_mean(name, found) if isinstance(name, str) else ""
            raise MissingColumnError(f"neither {self.left} nor {self.right} has a column {name!r}{hint}")
        return found[name]

    @property
    def is_same(self) -> bool:
        """Whether both have the same columns, rows and splits: by value, in any order; NaN is not NULL."""
        apart = self.rows.added or self.rows.removed or self.rows.changed or self.rows.moved
        splits = any(split.left != split.right for split in self.splits)
        return not (apart or splits or any(column.schema_change for column in self.columns))

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return the diff as JSON values."""
        return {
            "left": self.left,
            "right": self.right,
            "key": list(self.key),
            "same": self.is_same,
            "rows": dict(vars(self.rows)),
            "splits": {one.split: {"left": one.left, "right": one.right} for one in self.splits},
            "columns": [column.to_dict() for column in self.columns],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each column, indexed by its name.

        Columns: `schema_change`, `distance`, then `type`, `nulls`, `distinct`, `mean`, `std`, `min`, `50%`, `max`, each
        with `_left` and `_right`.
        """
        import pandas as pd

        rows = []
        for column in self.columns:
            row: dict[str, Any] = {"schema_change": column.schema_change, "distance": column.distance}
            sides = {"left": column.left, "right": column.right}
            for name in ("type", "nulls", "distinct", "mean", "std", "min", "50%", "max"):
                for side, profile in sides.items():
                    row[f"{name}_{side}"] = None if profile is None else _fact(profile, name)
            rows.append(row)
        index = pd.Index([column.name for column in self.columns], name="column", dtype=object)
        frame: pd.DataFrame = pd.DataFrame(rows, index=index)
        floats = [f"{name}_{side}" for name in ("mean", "std") for side in ("left", "right")]
        counts = [f"{name}_{side}" for name in ("nulls", "distinct") for side in ("left", "right")]
        return frame.astype(dict.fromkeys(("distance", *floats), "float64") | dict.fromkeys(counts, "Int64"))

    def to_text(self, *, width: int | None = None) -> str:
        """Return the diff as text; what drifted most comes first.

        Args:
            width: The columns of the terminal; longer lines are cut. None: as wide as it takes.
        """
        header, rows = self._table()
        return "\n".join([*self._summary(), "", text_table(header, rows, width=width)])

    def _repr_html_(self) -> str:
        """Return the diff as HTML. What a dataset holds is not trusted: every cell is escaped."""
        header, rows = self._table()
        return "".join(f"<div>{html.escape(line)}</div>" for line in self._summary()) + html_table(header, rows)

    def _summary(self) -> list[str]:
        rows = self.rows
        counts = [f"{rows.added:,} added", f"{rows.removed:,} removed", f"{rows.same:,} the same"]
        if rows.changed is not None and rows.moved is not None:
            counts[2:2] = [f"{rows.changed:,} changed", f"{rows.moved:,} in another split"]
        by = f" (by {', '.join(map(shown, self.key))})" if self.key else ""
        splits = ", ".join(f"{one.split} {shown_change(one.left, one.right)}" for one in self.splits)
        lines = [f"{self.left} -> {self.right}", f"rows: {', '.join(counts)}{by}", f"splits: {splits}"]
        schema = [_shown_schema(column) for column in self.columns if column.schema_change]
        return [*lines, f"columns: {'; '.join(schema)}"] if schema else lines

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["column", "distance", "missing", "distinct", "mean", "std", "median", "range", "new", "vanished"]
        order = sorted(self.columns, key=lambda column: -1.0 if column.distance is None else -1.0 - column.distance)
        return header, [_row(column) for column in order]


def _fact(profile: ColumnProfile, name: str) -> Any:
    if name == "50%":
        return profile.quartiles[1] if profile.quartiles else None
    return getattr(profile, name)


def _shown_schema(column: ColumnDrift) -> str:
    left, right = (shown(side.type) if side else "" for side in (column.left, column.right))
    name = shown(column.name)
    if column.schema_change == "type":
        return f"{name} is {right} instead of {left}"
    return f"{name} {left or right} {column.schema_change}"


def _row(column: ColumnDrift) -> list[str]:
    sides = [side for side in (column.left, column.right) if side is not None]

    def change(texts: list[str]) -> str:
        return texts[0] if len(set(texts)) == 1 else " -> ".join(texts)

    return [
        shown(column.name),
        MISSING if column.distance is None else f"{column.distance:.3f}",
        change([shown_share(side.nulls, side.rows) for side in sides]),
        change([side.shown_distinct() for side in sides]),
        change([shown(side.mean) for side in sides]),
        change([shown(side.std) for side in sides]),
        change([shown(_fact(side, "50%")) for side in sides]),
        change([side.shown_range() for side in sides]),
        _shown_values(column.new),
        _shown_values(column.vanished),
    ]


def _shown_values(values: tuple[Any, ...]) -> str:
    if not values:
        return MISSING
    listed = ", ".join(shown(value, widest=16) for value in values[:_CATEGORIES])
    return listed + (f" and {len(values) - _CATEGORIES:,} more" if len(values) > _CATEGORIES else "")
