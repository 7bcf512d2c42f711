"""The rows of one build on a cluster, from the source to the last step. They stay with the workers."""

from __future__ import annotations

from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from smkit.datasets.checking import SchemaCheck, found, violation_error
from smkit.datasets.cluster import tasks
from smkit.datasets.cluster.packing import pack_flags, unpack
from smkit.datasets.cluster.stages import stages_of
from smkit.datasets.columns import differing
from smkit.datasets.hashing import SeenRows
from smkit.datasets.running import BEGINNING, Run, Start
from smkit.datasets.steps import Check, Clean
from smkit.errors import DatasetError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Future
    from numpy.typing import NDArray

    from smkit.datasets.appending import Appending
    from smkit.datasets.cluster.stages import Stage
    from smkit.datasets.cluster.tasks import Facts
    from smkit.datasets.cluster.units import Division
    from smkit.datasets.cluster.work import Work
    from smkit.datasets.recipe import Recipe

#: The rows of a table, as a column that no key can be named like.
_POSITION = "position in the batch of {}"


class ClusterRows:
    """Takes the rows through the steps.

    Args:
        work: The cluster.
        recipe: What is to be built.
    """

    def __init__(self, work: Work, recipe: Recipe) -> None:
        self._work = work
        self._recipe = recipe
        self._versions = tasks.versions()
        self._keeps: list[bytes | None] = []
        self._checks: dict[int, SchemaCheck] = {}
        #: One for each segment, in the order of the rows.
        self.segments: list[Future[Any]] = []
        self.facts: list[Facts] = []

    def run(self, division: Division) -> int:
        """Read the source and run all steps; return how many rows the source gave.

        Raises:
            SmkitError: As `DatasetBuilder.build`.
        """
        with self._recipe.bar() as bar:
            bar.set_postfix_str("reading", refresh=False)
            read = 0
            for facts in self._read(division):
                read += sum(facts.rows)
                bar.update(sum(facts.rows))
            self._check_columns()
            self._number(joined=division.joined)
            stages = stages_of(self._recipe.steps)
            try:
                for number, stage in enumerate(stages, 1):
                    bar.set_postfix_str(f"stage {number} of {len(stages)}")
                    last = stage is stages[-1] and self._recipe.adding is None
                    self._run_stage(stage, last=last)
                if self._recipe.adding is not None:
                    self._add(self._recipe.adding)
            except DatasetError as error:
                # Bad rows often break a later step: the rule that they break says more than the step's failure.
                if violations := found(self._in_order()):
                    raise violation_error(violations, self._recipe.name) from error
                raise
        left = sum(sum(facts.rows) for facts in self.facts)
        self._recipe.check(self._in_order(), read=read, left=left)
        return read

    def columns(self, names: Sequence[str], needed_by: str | None = None) -> Iterator[list[pa.Table]]:
        """Yield some columns of each segment, batch by batch."""
        futures = [self._work.submit(tasks.columns_of, one, list(names), needed_by) for one in self.segments]
        for place, future in enumerate(futures):
            yield [unpack(data) for data in self._work.result(future)]
            futures[place] = None

    def _replace(self, segments: list[Future[Any]]) -> None:
        self.segments = segments
        self._keeps = [None] * len(segments)

    def _read(self, division: Division) -> Iterator[Facts]:
        """Have the units read, not more at once than may be; yield their facts, in order, as soon as they are known."""
        segments: list[Future[Any]] = []
        told: deque[Future[Any]] = deque()
        self.facts = []
        for unit in division.units:
            if len(told) == division.readers:
                self.facts.append(self._work.result(told.popleft()))
                yield self.facts[-1]
            segments.append(self._work.submit(tasks.read_unit, unit, self._recipe.batch_size, self._versions))
            told.append(self._work.submit(tasks.facts_of, segments[-1]))
        self._replace(segments)
        while told:
            self.facts.append(self._work.result(told.popleft()))
            yield self.facts[-1]

    def _told(self) -> Iterator[Facts]:
        """Yield the facts of each segment, in order, as soon as they are known."""
        self.facts = []
        futures = [self._work.submit(tasks.facts_of, one) for one in self.segments]
        for future in futures:
            self.facts.append(self._work.result(future))
            yield self.facts[-1]

    def _in_order(self) -> list[SchemaCheck]:
        return [self._checks[place] for place in sorted(self._checks)]

    def _check_columns(self) -> None:
        named = [facts.columns for facts in self.facts if facts.columns is not None]
        for columns in named[1:]:
            if difference := differing(named[0], columns):
                raise SourceError(f"{self._recipe.source!r} changes its columns between batches: {difference}")

    def _number(self, *, joined: bool) -> None:
        """Cut and number the batches as on a single machine: what a step is given must not depend on the files."""
        size = self._recipe.batch_size
        if not joined:
            firsts = [0, *accumulate(len(facts.rows) for facts in self.facts)]
            pairs = zip(self.segments, firsts, strict=False)
            self._replace([self._work.submit(tasks.renumber, one, first) for one, first in pairs])
            return
        counts = [sum(facts.rows) for facts in self.facts]
        ends = list(accumulate(counts))
        cut = []
        for place, (count, end) in enumerate(zip(counts, ends, strict=True)):
            number = -(-(end - count) // size)
            skip = number * size - (end - count)
            if skip >= count:
                continue  # all its rows belong to a batch that began before
            missing = -(count - skip) % size
            following = []
            for later in range(place + 1, len(counts)):
                rows = min(missing, counts[later])
                if rows:
                    following.append(self._work.submit(tasks.first_rows, self.segments[later], rows))
                    missing -= rows
            cut.append(self._work.submit(tasks.recut, self.segments[place], skip, following, size, number))
        self._replace(cut)

    def _run_stage(self, stage: Stage, *, last: bool) -> None:
        inputs = [[one] for one in self.segments]
        keeps = [[keep] for keep in self._keeps]
        if stage.together:
            inputs, keeps = [self.segments], [self._keeps]
        pairs = list(zip(inputs, keeps, strict=True))
        beginning = [BEGINNING] * len(stage.steps)

        def start(place: int, starts: Sequence[Start]) -> Future[Any]:
            return self._work.submit(
                tasks.run_steps, *pairs[place], stage.steps, starts, last=last, expected=self._versions
            )

        self._replace([start(place, beginning) for place in range(len(pairs))])
        entered = [0] * len(stage.steps)
        returned: list[tuple[str, ...] | None] = [None] * len(stage.steps)
        for place, facts in enumerate(self._told()):
            if facts.failure is not None or _differ(returned, facts.returned):
                # A step tells of batches and rows as one that has seen all before them.
                starts = [Start(rows, columns) for rows, columns in zip(entered, returned, strict=True)]
                self.segments[place] = start(place, starts)
                again = self._work.submit(tasks.facts_of, self.segments[place])
                facts = self._work.result(again)  # noqa: PLW2901 - told again
                self.facts[place] = facts
            for number, check in zip(stage.checks, facts.checks, strict=True):
                if number in self._checks:
                    self._checks[number].extend(check)
                else:
                    self._checks[number] = check
            if facts.failure is not None:
                raise facts.failure.error from facts.failure.cause
            entered = [sum(pair) for pair in zip(entered, facts.entered, strict=True)]
            returned = [before or now for before, now in zip(returned, facts.returned, strict=True)]
        if isinstance(stage.waits_for, Clean):
            self._drop_duplicates(stage.waits_for)
        elif isinstance(stage.waits_for, Check):
            self._find_repeats(stage.place, stage.waits_for)

    def _drop_duplicates(self, clean: Clean) -> None:
        seen = SeenRows(())
        futures = [self._work.submit(tasks.hashes_of, one, clean) for one in self.segments]
        for place, future in enumerate(futures):
            new = [seen.add_hashed(high, low) for high, low in self._work.result(future)]
            futures[place] = None
            self._keep(place, new)

    def _keep(self, place: int, flags: list[NDArray[np.bool_]]) -> None:
        joined = np.concatenate([np.empty(0, dtype=bool), *flags])
        self._keeps[place] = None if joined.all() else pack_flags(joined)

    def _find_repeats(self, place: int, check: Check) -> None:
        repeats = SchemaCheck(check.schema)
        for segment in self.columns(check.schema.unique):
            for table in segment:
                repeats.feed_repeats(table)
        if place in self._checks:
            self._checks[place].add_repeats(repeats)

    def _add(self, adding: Appending) -> None:
        """Let the rows pass whose keys are new: the code of a single machine sees the keys, batch by batch."""
        position = _POSITION.format(adding.key)
        sizes: list[tuple[int, int]] = []

        def keys() -> Iterator[pa.Table]:
            for place, segment in enumerate(self.columns(adding.key, "append")):
                for table in segment:
                    sizes.append((place, table.num_rows))
                    yield table.append_column(position, pa.array(np.arange(table.num_rows)))

        flags: list[list[NDArray[np.bool_]]] = [[] for _ in self.segments]
        for added in adding.run(keys(), Run()):
            place, rows = sizes[-1]
            new = np.zeros(rows, dtype=bool)
            new[added.column(position).to_numpy()] = True
            flags[place].append(new)
        for place, kept in enumerate(flags):
            self._keep(place, kept)
        last = stages_of(())[0]
        self._run_stage(last, last=True)


def _differ(before: Sequence[tuple[str, ...] | None], now: Sequence[tuple[str, ...] | None]) -> bool:
    pairs = zip(before, now, strict=True)
    return any(one is not None and other is not None and one != other for one, other in pairs)
