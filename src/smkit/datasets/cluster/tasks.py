"""What the workers run.

Every task gives the same result when it runs again, on whichever worker: Dask repeats the tasks whose results died with
a worker. So no task changes anything, but for the part files, of which a repeated task writes the same bytes.
"""

from __future__ import annotations

import pickle
import platform
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smkit.datasets.cluster.packing import Segment, pack, unpack, unpack_flags
from smkit.datasets.cluster.units import Unit, open_unit
from smkit.datasets.columns import cast_table, stored_table, with_nulls
from smkit.datasets.hashing import row_hashes
from smkit.datasets.recipe import rows_of
from smkit.datasets.running import Run, Start
from smkit.datasets.steps import Clean, Step, require_columns
from smkit.environment import package_version
from smkit.errors import ConfigError, SmkitError, SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from smkit.datasets.checking import SchemaCheck

_PACKAGES = ("smkit", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Failure:
    """An error that a step raised, and its cause where that can travel."""

    error: SmkitError
    cause: BaseException | None


@dataclass
class Facts:
    """What is told of a segment; its rows stay with the worker.

    Attributes:
        rows: The rows of each batch.
        columns: The columns; None where there is no batch.
        schemas: The types that batches with rows have, in the order in which they come.
        with_nulls: The columns in which a value is NULL.
        entered: How many rows each step was given.
        returned: The columns that each step returned; None where it returned none.
        checks: What each schema check found, in the order of the steps.
        failure: The error that ended it early.
    """

    rows: list[int] = field(default_factory=list)
    columns: tuple[str, ...] | None = None
    schemas: list[pa.Schema] = field(default_factory=list)
    with_nulls: set[str] = field(default_factory=set)
    entered: list[int] = field(default_factory=list)
    returned: list[tuple[str, ...] | None] = field(default_factory=list)
    checks: list[SchemaCheck] = field(default_factory=list)
    failure: Failure | None = None


Result = tuple[Segment, Facts]


class _Writer:
    """Collects the batches of a segment."""

    def __init__(self) -> None:
        self._batches: list[bytes] = []
        self._numbers: list[int] = []
        self.facts = Facts()

    def add(self, table: pa.Table, number: int) -> None:
        self._batches.append(pack(table))
        self._numbers.append(number)
        self.facts.rows.append(table.num_rows)
        self.facts.columns = self.facts.columns or tuple(table.column_names)
        if table.num_rows and table.schema not in self.facts.schemas:
            self.facts.schemas.append(table.schema)
        self.facts.with_nulls.update(with_nulls(table))

    def result(self) -> Result:
        return (self._batches, self._numbers), self.facts


def versions() -> dict[str, str | None]:
    """Return the versions that must be the same on all machines, lest bytes differ or what is sent cannot be read."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: package_version(name) for name in _PACKAGES}}


def _check_versions(expected: dict[str, str | None]) -> None:
    here = versions()
    other = [name for name in here if here[name] != expected[name]]
    if other:
        differing = [f"{name} {here[name]} instead of {expected[name]}" for name in other]
        raise ConfigError(
            f"the worker on {socket.gethostname()} has {', '.join(differing)}: install the same versions on all "
            f"machines; the bytes of a dataset depend on them"
        )


def facts_of(result: Result) -> Facts:
    """Return what is told of a segment."""
    return result[1]


def read_unit(unit: Unit, batch_size: int, expected: dict[str, str | None]) -> Result:
    """Read the rows of one unit."""
    _check_versions(expected)
    try:
        source = open_unit(unit)
    except SourceNotFound as error:
        raise SourceNotFound(
            f"{error}: the worker on {socket.gethostname()} does not see it; every worker must find the files under "
            f"the same path, or read them from S3"
        ) from error
    writer = _Writer()
    for number, table in enumerate(rows_of(source, batch_size)):
        writer.add(table if unit.columns is None else table.select(list(unit.columns)), number)
    return writer.result()


def first_rows(result: Result, rows: int) -> bytes:
    """Return the first rows of a segment."""
    return pack(_join(result[0][0], rows))


def recut(result: Result, skip: int, following: Sequence[bytes], batch_size: int, number: int) -> Result:
    """Cut the rows of a segment as the batches of the whole source would be.

    Args:
        result: The rows, in any batches.
        skip: How many of them belong to a batch that began before.
        following: The rows of other segments that the last batch goes on with.
        batch_size: Rows of a batch.
        number: That of the first batch.
    """
    tables = [table for table in map(unpack, [*result[0][0], *following]) if table.num_rows]
    table = pa.concat_tables(tables).slice(skip)
    writer = _Writer()
    for start in range(0, table.num_rows, batch_size):
        writer.add(table.slice(start, batch_size).combine_chunks(), number)
        number += 1
    return writer.result()


def renumber(result: Result, first: int) -> Result:
    """Number the batches from `first` on."""
    (batches, _), facts = result
    return (batches, list(range(first, first + len(batches)))), facts


def run_steps(
    results: Sequence[Result],
    keeps: Sequence[bytes | None],
    steps: Sequence[Step],
    starts: Sequence[Start],
    *,
    last: bool,
    expected: dict[str, str | None],
) -> Result:
    """Run steps over the batches of a segment, or of several.

    Args:
        results: The segments.
        keeps: Which rows of each are left; None for all.
        steps: What happens to them; a step that must see all rows only as the first, and with all segments.
        starts: Where each step starts.
        last: Whether nothing but storing comes after these steps.
        expected: The versions that must run here.
    """
    _check_versions(expected)
    writer = _Writer()
    facts = writer.facts
    facts.entered = [0] * len(steps)
    facts.returned = [None] * len(steps)
    run = Run()

    def source() -> Generator[pa.Table]:
        for result, keep in zip(results, keeps, strict=True):
            for number, table in _kept(result, keep):
                run.batch = number
                yield table

    def watched(step: int, tables: Generator[pa.Table]) -> Generator[pa.Table]:
        for table in tables:
            if step:
                facts.returned[step - 1] = facts.returned[step - 1] or tuple(table.column_names)
            if step < len(steps):
                facts.entered[step] += table.num_rows
            yield table

    stream = source()
    for index, (step, start) in enumerate(zip(steps, starts, strict=True)):
        stream = step.run(watched(index, stream), run, start)
    try:
        for table in watched(len(steps), stream):
            if not last:
                writer.add(table, run.batch)
            elif table.num_rows:
                writer.add(stored_table(table), run.batch)
    except SmkitError as error:
        facts.failure = Failure(error, _portable(error.__cause__))
    # The last step starts first, as it asks the one before it for rows.
    facts.checks = run.checks[::-1]
    return writer.result()


def _portable(cause: BaseException | None) -> BaseException | None:
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: S301 - our own bytes of a moment ago
    except Exception:  # noqa: BLE001 - an exception of any class may fail to be pickled in any way
        return None
    return cause


def _kept(result: Result, keep: bytes | None) -> Generator[tuple[int, pa.Table]]:
    flags = None if keep is None else unpack_flags(keep).astype(bool)
    start = 0
    for data, number in zip(*result[0], strict=True):
        table = unpack(data)
        if flags is not None:
            wanted = flags[start : start + table.num_rows]
            start += table.num_rows
            table = table if wanted.all() else table.filter(pa.array(wanted))
        yield number, table


def hashes_of(result: Result, clean: Clean) -> list[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Return hashes of the rows of each batch, by which duplicates are found."""
    tables = map(unpack, result[0][0])
    return [row_hashes(table, clean.identifying(table)) for table in tables]


def columns_of(result: Result, columns: Sequence[str], needed_by: str | None) -> list[bytes]:
    """Return some columns of each batch; those that are not there are left out unless a step needs them."""
    packed = []
    for table in map(unpack, result[0][0]):
        if needed_by is not None:
            require_columns(table, columns, needed_by)
        packed.append(pack(table.select([name for name in columns if name in table.column_names])))
    return packed


def pick(result: Result, placed: bytes, split: int, rows: tuple[int, int], schema: pa.Schema) -> bytes:
    """Return rows of one split: of those of the segment, from one number up to but not another."""
    first, end = rows
    flags = unpack_flags(placed) == split
    tables, start, seen = [], 0, 0
    for data, height in zip(result[0][0], result[1].rows, strict=True):
        wanted = flags[start : start + height]
        count = int(wanted.sum())
        if count and seen < end and seen + count > first:
            table = unpack(data).filter(pa.array(wanted))
            low = max(first - seen, 0)
            tables.append(cast_table(table.slice(low, min(end - seen, count) - low), schema))
        start, seen = start + height, seen + count
    return pack(pa.concat_tables(tables))


def _join(batches: Sequence[bytes], rows: int) -> pa.Table:
    tables: list[Any] = []
    left = rows
    for data in batches:
        if left <= 0:
            break
        table = unpack(data)
        tables.append(table)
        left -= table.num_rows
    return pa.concat_tables(tables).slice(0, rows)
