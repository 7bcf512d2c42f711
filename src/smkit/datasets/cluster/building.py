"""One build on a cluster."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from smkit.datasets import writing
from smkit.datasets.cluster import tasks
from smkit.datasets.cluster.packing import pack_flags
from smkit.datasets.cluster.rows import ClusterRows
from smkit.datasets.cluster.storing import open_target, pending, write_part
from smkit.datasets.cluster.units import divide_source
from smkit.datasets.cluster.work import Work
from smkit.datasets.columns import cast_table, check_fits, settled, unify_schemas
from smkit.datasets.recipe import Built
from smkit.datasets.splits import SPLITS, check_splits
from smkit.datasets.splitters import start_splitter
from smkit.datasets.spool import Spool
from smkit.datasets.staging import temporary_folder
from smkit.datasets.steps import require_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, Future
    from numpy.typing import NDArray

    from smkit.config import Settings
    from smkit.datasets.cluster.storing import Target
    from smkit.datasets.recipe import Recipe
    from smkit.versioning import VersionLog


@contextlib.contextmanager
def build_on(client: Client, recipe: Recipe, log: VersionLog, settings: Settings) -> Iterator[Built | None]:
    """Build; the files are there until the context is left. None where there is no new row to add.

    Args:
        client: The cluster.
        recipe: What is to be built.
        log: Where it is to be published.
        settings: Those of the store.

    Raises:
        ConfigError: The client or the source is none for a cluster, or the workers have other versions.
        SmkitError: As `DatasetBuilder.build`.
    """
    with Work(client) as work, contextlib.ExitStack() as stack:
        rows = ClusterRows(work, recipe)
        # Until the last part is written: where a worker dies, its units are read again.
        reading = stack.enter_context(contextlib.ExitStack())
        read = rows.run(reading.enter_context(divide_source(recipe, settings)))
        left = sum(sum(facts.rows) for facts in rows.facts)
        if not left:
            yield None
            return
        schema = unify_schemas(one for facts in rows.facts for one in facts.schemas)
        if recipe.like is not None:
            check_fits(schema, recipe.like)
            schema = recipe.like
        schema = settled(schema)
        writing.check_storable(schema, recipe.format)
        placed = _place(rows, recipe, schema, left)
        counts = {split: int((placed == index).sum()) for index, split in enumerate(SPLITS)}
        before = recipe.rows_before
        check_splits(recipe.rule, {split: count + before.get(split, 0) for split, count in counts.items()}, recipe.name)
        complete = frozenset(schema.names).difference(*(facts.with_nulls for facts in rows.facts))
        opened = open_target(log, recipe.name, settings, schema, recipe.format, complete=complete)
        target, folder = stack.enter_context(opened)
        parts = _write(work, rows, placed, target, recipe)
        files = [pending(work.result(part), target, log, settings) for part in parts]
        reading.close()
        yield Built(schema, read, left, counts, files, folder)


def _place(rows: ClusterRows, recipe: Recipe, schema: pa.Schema, left: int) -> NDArray[np.uint8]:
    """Return the split of each row, as an index in `SPLITS`: the code of a single machine sees the rule's columns."""
    rule = recipe.rule
    require_columns(schema.empty_table(), rule.columns, "split")
    train, validation, test = (recipe.rows_before.get(split, 0) for split in SPLITS)
    splitter = start_splitter(rule, (train, validation, test))
    if not rule.columns:
        splitter.settle(left)
        everything = pa.table({"row": pa.nulls(left)})
        return splitter.assign(everything, 0)
    wanted = pa.schema([schema.field(name) for name in rule.columns])
    placed = np.empty(left, dtype=np.uint8)
    with temporary_folder() as folder:
        spool = Spool(folder)
        try:
            for segment in rows.columns(rule.columns):
                for table in segment:
                    spool.append(cast_table(table, wanted))
            spool.finish(wanted)
        finally:
            spool.abandon()
        for table in spool.read():
            splitter.observe(table)
        splitter.settle(left)
        start = 0
        for table in spool.read():
            placed[start : start + table.num_rows] = splitter.assign(table, start)
            start += table.num_rows
    return placed


def _write(
    work: Work, rows: ClusterRows, placed: NDArray[np.uint8], target: Target, recipe: Recipe
) -> list[Future[Any]]:
    """Have every part written by a worker, from the rows that the segments have of it."""
    pieces: dict[tuple[str, int], list[Future[Any]]] = {}
    start = 0
    seen = dict.fromkeys(SPLITS, 0)
    size = writing.ROWS_PER_PART
    for segment, facts in zip(rows.segments, rows.facts, strict=True):
        here = placed[start : start + sum(facts.rows)]
        start += len(here)
        packed = pack_flags(here)
        for index, split in enumerate(SPLITS):
            count = int((here == index).sum())
            first = 0
            while first < count:
                part, offset = divmod(seen[split] + first, size)
                end = min(count, first + size - offset)
                piece = work.submit(tasks.pick, segment, packed, index, (first, end), target.schema)
                pieces.setdefault((split, part), []).append(piece)
                first = end
            seen[split] += count
    before = recipe.parts_before
    return [
        work.submit(write_part, some, target, split, before.get(split, 0) + part)
        for (split, part), some in pieces.items()
    ]
