"""What is to be built, and what came of it, whoever builds it: this process or a cluster."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyarrow as pa

from smkit.datasets.checking import found, violation_error
from smkit.datasets.columns import check_names, differing, stored_table
from smkit.errors import EmptyResultError, SourceError
from smkit.progress_bar import tqdm

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
    from pathlib import Path

    from smkit.datasets.appending import Appending
    from smkit.datasets.checking import SchemaCheck
    from smkit.datasets.splits import SplitRule
    from smkit.datasets.steps import Step
    from smkit.datasets.writing import Format
    from smkit.versioning import PendingFile


#: Changed files that an error names.
_SHOWN = 3


class RowSource(Protocol):
    """What a dataset is built from: smkit's sources, or anything of this shape."""

    def batches(self, *, batch_size: int = ...) -> Iterator[pa.RecordBatch]:
        """Yield the rows, at most `batch_size` at a time."""

    def describe(self) -> dict[str, Any]:
        """Return where the rows come from, as JSON values without secrets."""


@dataclass(frozen=True)
class Recipe:
    """What is to be built.

    Attributes:
        name: The dataset's name.
        source: Where the rows come from.
        stamps: What told, before it described itself, that a file of it is another; None where it has no files.
        described: How the source describes itself.
        steps: What happens to the rows.
        rule: Which row goes where.
        adding: What they are added to; None where a build stands alone.
        format: Parquet or CSV.
        batch_size: Rows of a batch.
        progress: Whether to show a progress bar; None: on a terminal or in a notebook.
    """

    name: str
    source: RowSource
    stamps: Mapping[str, Hashable | None] | None
    described: Mapping[str, Any]
    steps: tuple[Step, ...]
    rule: SplitRule
    adding: Appending | None
    format: Format
    batch_size: int
    progress: bool | None

    @property
    def grows(self) -> bool:
        """Whether there is a version that rows are added to."""
        return self.adding is not None and self.adding.parent is not None

    @property
    def like(self) -> pa.Schema | None:
        """The schema that the rows must have; None: whatever they have."""
        return self.adding.parent.schema if self.adding and self.adding.parent else None

    @property
    def rows_before(self) -> Mapping[str, int]:
        """How many rows each split has already, in a version that is added to."""
        return self.adding.rows_before if self.adding else {}

    @property
    def parts_before(self) -> Mapping[str, int]:
        """How many parts each split has already."""
        return self.adding.parts_before if self.adding else {}

    def bar(self) -> tqdm:
        """Return a progress bar that counts rows."""
        # tqdm's disable=None means: only where somebody looks.
        disabled = None if self.progress is None else not self.progress
        return tqdm(desc=self.name, unit=" rows", unit_scale=True, disable=disabled)

    def check_unchanged(self) -> None:
        """Compare the files of the source with those that it described before they were read.

        Between the two anybody may have written them, and the lineage would tell of other bytes than the rows came
        from.

        Raises:
            SourceError: Some are others now; they are named.
        """
        # What else describes itself need not say the same twice.
        if self.stamps is None or (None not in self.stamps.values() and self.stamps == stamps_of(self.source)):
            return
        before, after = _files_in(self.described), _files_in(self.source.describe())
        changes = [f"{name} is gone" for name in before if name not in after]
        changes += [f"{name} is new" for name in after if name not in before]
        changes += [f"{name} has other content" for name in before if name in after and before[name] != after[name]]
        if changes:
            more = f" and {len(changes) - _SHOWN:,} more" if len(changes) > _SHOWN else ""
            raise SourceError(
                f"{self.source!r} changed while dataset {self.name!r} was built from it: "
                f"{'; '.join(changes[:_SHOWN])}{more}. Its lineage would name other files than its rows came from: "
                f"build again when nobody writes them"
            )

    def check(self, checks: Sequence[SchemaCheck], *, read: int, left: int) -> None:
        """Judge what came of all rows.

        Raises:
            SchemaViolationError: Rows break a schema.
            EmptyResultError: No rows came, or none were left.
        """
        if violations := found(checks):
            raise violation_error(violations, self.name)
        if self.grows:
            return  # a day without new rows is no error
        if not read:
            raise EmptyResultError(f"dataset {self.name!r} was not built: the source has no rows: {self.source!r}")
        if not left:
            raise EmptyResultError(f"dataset {self.name!r} was not built: of {read:,} rows the steps left none")


@dataclass(frozen=True)
class Built:
    """What came of it, not published yet.

    Attributes:
        schema: The columns.
        read: How many rows the source gave.
        left: How many of them the steps left.
        rows: How many of these each split has.
        files: The parts.
        folder: A folder for files that are published with them.
    """

    schema: pa.Schema
    read: int
    left: int
    rows: Mapping[str, int]
    files: Sequence[PendingFile]
    folder: Path


def stamps_of(source: RowSource) -> Mapping[str, Hashable | None] | None:
    """Return for each file of a source, by name, what is another once its content is; None where it has no files.

    Raises:
        SourceError: The files cannot be found.
    """
    stamps = getattr(source, "stamps", None)
    return cast("Mapping[str, Hashable | None]", stamps()) if callable(stamps) else None


def _files_in(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a source of files says of each, by name."""
    listed = described.get("files") or described.get("objects") or ()
    return {"/".join(filter(None, [one.get("bucket"), one.get("name", one.get("key"))])): one for one in listed}


def rows_of(source: RowSource, batch_size: int) -> Generator[pa.Table]:
    """Yield the source's batches; every one has the same columns, under different names.

    Raises:
        SourceError: It yields something else.
        DatasetError: The columns cannot be told apart.
    """
    columns: list[str] | None = None
    batches = source.batches(batch_size=batch_size)
    with contextlib.ExitStack() as stack:
        # Closed here and not by the garbage collector: a source may hold a connection.
        if (close := getattr(batches, "close", None)) is not None:
            stack.callback(close)
        for batch in batches:
            if not isinstance(batch, pa.RecordBatch):
                raise SourceError(f"{source!r} yields {type(batch).__name__}, expected pyarrow.RecordBatch")
            if columns is None:
                columns = batch.schema.names
                check_names(columns, f"{source!r}")
            elif difference := differing(columns, batch.schema.names):
                raise SourceError(f"{source!r} changes its columns between batches: {difference}")
            yield stored_table(pa.Table.from_batches([batch]))
