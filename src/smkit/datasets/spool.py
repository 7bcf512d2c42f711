"""The rows after all steps, kept on disk until every row was seen: nothing is published before that."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smkit.datasets.columns import cast_table, check_fits, settled, stored_table, unify_schemas, with_nulls
from smkit.datasets.staging import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Spool:
    """Rows in Arrow files of one folder: a new file whenever a column's type changes.

    Args:
        folder: An existing folder; who made it deletes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._schemas: list[pa.Schema] = []
        self._file: Any = None
        self._writer: Any = None
        self._unified: pa.Schema | None = None
        self._with_nulls: set[str] = set()
        self.rows = 0

    def append(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            StorageError: The disk is full.
        """
        if not table.num_rows:
            return  # the types of a column without values say nothing
        table = stored_table(table)
        with disk_errors(self._folder):
            if not self._schemas or table.schema != self._schemas[-1]:
                self._finish()
                path = self._folder / f"spool-{len(self._paths):05}.arrow"
                self._paths.append(path)
                self._schemas.append(table.schema)
                self._file = pa.OSFile(str(path), "wb")
                self._writer = pa.ipc.new_file(self._file, table.schema)
            self._writer.write_table(table)
        self.rows += table.num_rows
        self._with_nulls.update(with_nulls(table))

    def finish(self, like: pa.Schema | None = None) -> None:
        """Write what is left; then the rows can be read.

        Args:
            like: The schema that the rows must have; None: whatever they have.

        Raises:
            DatasetError: The rows of other types cannot have it without a change of values.
            StorageError: The disk is full.
        """
        with disk_errors(self._folder):
            self._finish()
        if self._schemas:
            self._unified = unify_schemas(self._schemas)
        if self._unified is not None and like is not None:
            check_fits(self._unified, like)
            self._unified = like
        elif self._unified is not None:
            self._unified = settled(self._unified)

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._file = self._writer = None

    def abandon(self) -> None:
        """Close the open file; what was written so far is of no use."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # on a full disk the first error is the one to tell
                self._file.close()
            self._file = self._writer = None

    @property
    def schema(self) -> pa.Schema:
        """The schema of all rows: types of different batches are unified where no value can change."""
        if self._unified is None:
            raise RuntimeError("the spool is not finished, or holds no rows")
        return self._unified

    @property
    def complete(self) -> frozenset[str]:
        """The columns of which no row lacks the value."""
        return frozenset(self.schema.names) - self._with_nulls

    def read(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows, in order, with the unified types.

        Args:
            columns: Only these columns, in this order; the others are not read from disk.

        Raises:
            DatasetError: A value does not fit the unified type, such as an integer beyond 2^53 among floats.
        """
        names = self.schema.names
        wanted = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in wanted.names])
        for path in self._paths:
            with disk_errors(self._folder), pa.OSFile(str(path)) as file:
                reader = pa.ipc.open_file(file, options=options)
                for number in range(reader.num_record_batches):
                    table = pa.Table.from_batches([reader.get_batch(number)])
                    yield cast_table(table.select(wanted.names), wanted)
