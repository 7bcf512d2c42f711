"""Checking rows against a schema, and what is reported where they break it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from smkit import bounds
from smkit.datasets.columns import unify_types
from smkit.datasets.hashing import SeenRows
from smkit.datasets.schema import Violation, shown
from smkit.errors import SchemaViolationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smkit.datasets.schema import Column, Schema

#: Rows that a violation shows.
_SAMPLES = 5


class SchemaCheck:
    """One check of one stream of rows: fed batch by batch, asked at the end.

    A stream may be checked in stretches, side by side: `extend` puts what they found together.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._row = 0
        self._batch = 0
        self._violations: dict[tuple[str, str], Violation] = {}
        #: The batch, the place of the column and that of the rule: violations are listed as one pass meets them.
        self._met: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._seen = {name: SeenRows([name]) for name in schema.unique}
        self._types: dict[str, pa.DataType | None] = {}
        #: The batch in which each type was met first.
        self._kinds: dict[str, dict[pa.DataType, int]] = {}
        self._conflicts: set[tuple[str, str]] = set()
        self._incomparable: dict[str, Violation] = {}

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What was broken so far."""
        # One batch may hold integers where the whole column holds floats: only the unified type counts.
        wrong = {
            name: Violation(name, f"has type {kind}, expected {self._schema.columns[name].dtype}")
            for name, kind in self._types.items()
            if kind is not None and not self._schema.columns[name].accepts(kind)
        }
        broken = [self._violations[key] for key in sorted(self._violations, key=self._met.__getitem__)]
        return (*broken, *({**self._incomparable, **wrong}).values())

    def feed(self, table: pa.Table, *, repeats: bool = True) -> None:
        """Check the next rows; `repeats` says whether also for values that repeat."""
        if self._schema.strict:
            for name in table.column_names:
                if name not in self._schema.columns:
                    self._broken(name, "is not in the schema, which is strict")
        for name, column in self._schema.columns.items():
            if name not in table.column_names:
                there = ", ".join(table.column_names)
                self._broken(name, f"is missing{did_you_mean(name, table.column_names)}; there are {there}")
            else:
                self._note_type(name, table.column(name).type, self._batch)
                self._feed_column(name, column, table.column(name))
                if repeats:
                    self._feed_unique(name, column, table)
        self._row += table.num_rows
        self._batch += 1

    def feed_repeats(self, table: pa.Table) -> None:
        """Look only for values that repeat; columns that the schema does not want unique may be left out."""
        for name in self._schema.unique:
            if name in table.column_names:
                self._feed_unique(name, self._schema.columns[name], table)
        self._row += table.num_rows
        self._batch += 1

    def extend(self, later: SchemaCheck) -> None:
        """Take over what a check of the rows that follow has found, other than values that repeat."""
        self._take(later, self._row, self._batch)
        for name, kinds in later._kinds.items():
            for kind, batch in kinds.items():
                self._note_type(name, kind, self._batch + batch)
        for name, violation in later._incomparable.items():
            self._incomparable.setdefault(name, violation)
        self._row += later._row
        self._batch += later._batch

    def add_repeats(self, repeats: SchemaCheck) -> None:
        """Take over what `feed_repeats` of another check found in the same rows."""
        self._take(repeats, 0, 0)

    def _take(self, other: SchemaCheck, rows: int, batches: int) -> None:
        for key, violation in other._violations.items():
            if key in other._conflicts:  # with types before, it may be another
                continue
            batch, place, rank = other._met[key]
            mine = self._violations.setdefault(key, Violation(*key))
            self._met.setdefault(key, (batches + batch, place, rank))
            mine.count += violation.count
            wanted = _SAMPLES - len(mine.samples)
            mine.samples.extend((rows + row, value) for row, value in violation.samples[:wanted])

    def _note_type(self, name: str, kind: pa.DataType, batch: int) -> None:
        self._kinds.setdefault(name, {}).setdefault(kind, batch)
        before = self._types.setdefault(name, kind)
        if before is None or before == kind:
            return
        self._types[name] = unify_types(before, kind)
        if self._types[name] is None:
            rule = f"has type {before} in some batches and {kind} in others"
            self._broken(name, rule, batch=batch, rank=0)
            self._conflicts.add((name, rule))

    def _feed_column(self, name: str, column: Column, values: pa.ChunkedArray) -> None:
        missing = _missing(values)
        if not column.nullable:
            self._rows(name, "is missing, and the column is not nullable", missing, values)
        if pa.types.is_null(values.type):
            return
        # Missing values are the rule's above, not that of the following.
        try:
            if column.min is not None:
                broken = bounds.less(values, column.min).fill_null(False)
                self._rows(name, f"is less than {column.min!r}", pc.and_not(broken, missing), values)
            if column.max is not None:
                broken = bounds.greater(values, column.max).fill_null(False)
                self._rows(name, f"is greater than {column.max!r}", pc.and_not(broken, missing), values)
            if column.allowed is not None:
                allowed = tuple(column.allowed)
                strange = pc.invert(pc.or_(bounds.one_of(values, allowed), missing))
                self._rows(name, f"is not one of {shown(list(allowed))}", strange, values)
        except bounds.IncomparableError as error:
            self._incomparable.setdefault(name, Violation(name, str(error)))

    def _feed_unique(self, name: str, column: Column, table: pa.Table) -> None:
        values = table.column(name)
        if column.unique and not pa.types.is_null(values.type):
            repeated = pa.chunked_array([pa.array(~self._seen[name].add(table))])
            repeated = pc.and_not(repeated, _missing(values))
            self._rows(name, "repeats an earlier value, and the column is unique", repeated, values, rank=2)

    def _rows(self, name: str, rule: str, broken: pa.ChunkedArray, values: pa.ChunkedArray, *, rank: int = 1) -> None:
        count = pc.sum(broken).as_py() or 0
        if not count:
            return
        violation = self._broken(name, rule, rank=rank)
        violation.count += count
        wanted = _SAMPLES - len(violation.samples)
        if wanted > 0:
            positions = pc.indices_nonzero(broken)[:wanted]
            samples = zip(positions.to_pylist(), values.take(positions).to_pylist(), strict=True)
            violation.samples.extend((self._row + position, value) for position, value in samples)

    def _broken(self, name: str, rule: str, *, batch: int | None = None, rank: int = 1) -> Violation:
        names = list(self._schema.columns)
        place = names.index(name) if name in names else -1  # columns that should not be there come first
        self._met.setdefault((name, rule), (self._batch if batch is None else batch, place, rank))
        return self._violations.setdefault((name, rule), Violation(name, rule))


def _missing(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_null(values, nan_is_null=pa.types.is_floating(values.type))


def violation_error(violations: Sequence[Violation], name: str) -> SchemaViolationError:
    """Return one error that lists all violations."""
    rules = "1 rule" if len(violations) == 1 else f"{len(violations)} rules"
    lines = "\n".join(f"  - {violation}" for violation in violations)
    return SchemaViolationError(
        f"dataset {name!r} was not built: the rows break {rules} of its schema\n{lines}", violations
    )


def found(checks: Sequence[SchemaCheck]) -> list[Violation]:
    """Return what all checks found, in the order of the checks."""
    return [violation for check in checks for violation in check.violations]
