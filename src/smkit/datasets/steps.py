"""The steps between a source and a dataset: each turns a stream of Arrow tables into another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smkit.datasets.checking import SchemaCheck
from smkit.datasets.hashing import SeenRows
from smkit.datasets.running import BEGINNING
from smkit.errors import ConfigError, MissingColumnError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from smkit.datasets.running import Run, Start
    from smkit.datasets.schema import Schema


class Step(Protocol):
    """One step. It keeps no state between runs: a builder may be built twice, or by two threads."""

    def run(self, tables: Iterator[pa.Table], run: Run, start: Start = BEGINNING) -> Generator[pa.Table]:
        """Yield what becomes of the tables; a schema check that this step runs is appended to `run.checks`.

        Every table that comes in has the same column names, and so must every table that goes out.
        """

    def describe(self) -> dict[str, Any]:
        """Return the step as JSON values, for the manifest."""


@dataclass(frozen=True)
class Clean:
    """Drop rows with missing values, then rows that repeat an earlier one.

    Attributes:
        drop_missing: Columns in which a missing value drops the row; None for all columns.
        drop_duplicates: Columns that make two rows equal; None for all columns.
    """

    drop_missing: tuple[str, ...] | None
    drop_duplicates: tuple[str, ...] | None

    def run(
        self,
        tables: Iterator[pa.Table],
        run: Run,  # noqa: ARG002 - the protocol's
        start: Start = BEGINNING,  # noqa: ARG002 - the protocol's
    ) -> Generator[pa.Table]:
        """Yield the rows that stay."""
        seen: SeenRows | None = None
        for table in tables:
            kept = without(table, missing_in(table, self._existing(self.drop_missing, table)))
            columns = self.identifying(kept)
            if columns:
                seen = seen or SeenRows(columns)
                kept = without(kept, ~seen.add(kept))
            yield kept

    def identifying(self, table: pa.Table) -> Sequence[str]:
        """Return the columns that make two rows equal; none where rows may repeat.

        Raises:
            MissingColumnError: One of them is not there.
        """
        return self._existing(self.drop_duplicates, table)

    def _existing(self, columns: tuple[str, ...] | None, table: pa.Table) -> Sequence[str]:
        if columns is None:
            return list(table.column_names)
        require_columns(table, columns, "clean")
        return columns

    def describe(self) -> dict[str, Any]:
        """Return the step as JSON values."""

        def shown(columns: tuple[str, ...] | None) -> Any:
            return "all" if columns is None else list(columns)

        return {
            "step": "clean",
            "drop_missing": shown(self.drop_missing),
            "drop_duplicates": shown(self.drop_duplicates),
        }


@dataclass(frozen=True)
class Check:
    """Check the rows as they are at this point; nothing is changed.

    Attributes:
        schema: What they must be.
        repeats: Whether values that repeat are looked for; that needs all rows.
    """

    schema: Schema
    repeats: bool = True

    def run(
        self,
        tables: Iterator[pa.Table],
        run: Run,
        start: Start = BEGINNING,  # noqa: ARG002 - the protocol's
    ) -> Generator[pa.Table]:
        """Yield the tables unchanged; the builder asks the check when all rows have passed."""
        check = SchemaCheck(self.schema)
        run.checks.append(check)
        for table in tables:
            check.feed(table, repeats=self.repeats)
            yield table

    def describe(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        return {"step": "check", "schema": self.schema.describe()}


def columns_of(value: bool | str | Iterable[str], argument: str) -> tuple[str, ...] | None:
    """Return the columns that an argument names: True is all of them (None), False is none.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(value, bool):
        return None if value else ()
    try:
        columns = (value,) if isinstance(value, str) else tuple(value)
    except TypeError:
        columns = (None,)  # type: ignore[assignment]
    if not all(isinstance(column, str) for column in columns):
        raise ConfigError(f"{argument}={value!r}: expected True, False, a column's name or a list of names")
    return columns


def require_columns(table: pa.Table, columns: Iterable[str], what: str) -> None:
    """Refuse a step that names a column that is not there.

    Raises:
        MissingColumnError: There is one.
    """
    there = table.column_names
    for column in columns:
        if column not in there:
            raise MissingColumnError(
                f"{what}: there is no column {column!r}{did_you_mean(column, there)}; there are {', '.join(there)}"
            )


def missing_in(table: pa.Table, columns: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rows miss a value in any of the columns, shape (rows,)."""
    missing = np.zeros(table.num_rows, dtype=bool)
    for name in columns:
        column = table.column(name)
        # Arrow tells NaN from NULL; for pandas both are missing.
        if column.null_count or pa.types.is_floating(column.type):
            missing |= pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)).to_numpy()
    return missing


def without(table: pa.Table, dropped: NDArray[np.bool_]) -> pa.Table:
    """Return the rows that are not dropped."""
    return table.filter(pa.array(~dropped)) if dropped.any() else table
