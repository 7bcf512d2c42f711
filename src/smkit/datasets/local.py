"""Building in this process: one pass over the rows, in bounded memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from smkit.datasets.checking import found, violation_error
from smkit.datasets.dividing import divide
from smkit.datasets.recipe import Built, rows_of
from smkit.datasets.running import Run
from smkit.datasets.spool import Spool
from smkit.datasets.staging import parts_folder, temporary_folder
from smkit.datasets.writing import check_storable
from smkit.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import pyarrow as pa

    from smkit.datasets.appending import Appending
    from smkit.datasets.recipe import Recipe
    from smkit.datasets.steps import Step
    from smkit.storage import ObjectStore


@contextlib.contextmanager
def build_here(recipe: Recipe, store: ObjectStore) -> Iterator[Built | None]:
    """Build; the files are there until the context is left. None where there is no new row to add.

    Raises:
        SmkitError: As `DatasetBuilder.build`.
    """
    with temporary_folder() as folder:
        spool = Spool(folder)
        read = _fill(spool, recipe)
        if not spool.rows:
            yield None
            return
        check_storable(spool.schema, recipe.format)
        with parts_folder(store, folder) as parts:
            writers = divide(
                spool,
                recipe.rule,
                parts,
                recipe.format,
                recipe.name,
                rows_before=recipe.rows_before,
                parts_before=recipe.parts_before,
            )
            rows = {split: writer.rows for split, writer in writers.items()}
            files = [file for writer in writers.values() for file in writer.files]
            yield Built(spool.schema, read, spool.rows, rows, files, parts)


def _fill(spool: Spool, recipe: Recipe) -> int:
    """Run the steps over all batches into the spool; return how many rows the source gave."""
    read = 0
    run = Run()
    bar = recipe.bar()

    def tables() -> Generator[pa.Table]:
        nonlocal read
        with contextlib.closing(rows_of(recipe.source, recipe.batch_size)) as rows:
            for number, table in enumerate(rows):
                run.batch = number
                read += table.num_rows
                bar.update(table.num_rows)
                yield table

    with contextlib.ExitStack() as stack:
        stack.enter_context(bar)
        stack.callback(spool.abandon)
        stream = tables()
        stack.callback(stream.close)
        steps: list[Step | Appending] = [*recipe.steps, *([recipe.adding] if recipe.adding else [])]
        for step in steps:
            stream = step.run(stream, run)
            stack.callback(stream.close)
        try:
            for table in stream:
                spool.append(table)
            spool.finish(recipe.like)
        except DatasetError as error:
            # Bad rows often break a later step: the rule that they break says more than the step's failure.
            if violations := found(run.checks[::-1]):
                raise violation_error(violations, recipe.name) from error
            raise
    # Before what is wrong with the rows, which may be rows that nobody meant.
    recipe.check_unchanged()
    # Generators start from the last: its check comes first.
    recipe.check(run.checks[::-1], read=read, left=spool.rows)
    return read
