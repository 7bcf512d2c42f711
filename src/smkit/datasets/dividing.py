"""From the spool to part files: every row goes to its split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from smkit.datasets.splits import SPLITS, SplitRule, check_splits
from smkit.datasets.splitters import start_splitter
from smkit.datasets.steps import require_columns
from smkit.datasets.writing import Format, PartWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from smkit.datasets.spool import Spool

_NONE: dict[str, int] = {}


def divide(
    spool: Spool,
    rule: SplitRule,
    folder: Path,
    file_format: Format,
    name: str,
    *,
    rows_before: Mapping[str, int] = _NONE,
    parts_before: Mapping[str, int] = _NONE,
) -> dict[str, PartWriter]:
    """Write the rows of each split; return the finished writers.

    Args:
        spool: All rows.
        rule: Which row goes where.
        folder: Where the parts are written.
        file_format: Parquet or CSV.
        name: The dataset's name, for messages.
        rows_before: How many rows each split has already, in a version that is appended to.
        parts_before: How many parts each split has already.

    Raises:
        MissingColumnError: The rule names a column that is not there.
        EmptySplitError: A split would be empty.
        StorageError: The disk is full.
    """
    require_columns(spool.schema.empty_table(), rule.columns, "split")
    train, validation, test = (rows_before.get(split, 0) for split in SPLITS)
    splitter = start_splitter(rule, (train, validation, test))
    if rule.columns:
        for table in spool.read(rule.columns):
            splitter.observe(table)
    splitter.settle(spool.rows)
    writers = {
        split: PartWriter(
            folder, split, spool.schema, file_format, complete=spool.complete, first_part=parts_before.get(split, 0)
        )
        for split in SPLITS
    }
    try:
        start = 0
        for table in spool.read():
            placed = splitter.assign(table, start)
            counts = np.bincount(placed, minlength=len(SPLITS))
            for index, writer in enumerate(writers.values()):
                if counts[index] == table.num_rows:
                    writer.append(table)
                elif counts[index]:
                    writer.append(table.filter(pa.array(placed == index)))
            start += table.num_rows
        rows = {split: writer.rows + rows_before.get(split, 0) for split, writer in writers.items()}
        check_splits(rule, rows, name)
        for writer in writers.values():
            writer.finish()
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise
    return writers
