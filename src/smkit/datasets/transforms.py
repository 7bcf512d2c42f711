"""Functions of the user that change the rows."""

from __future__ import annotations

import functools
import hashlib
import inspect
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pandas as pd

from smkit.datasets.columns import cast_table, concat, differing, settled
from smkit.datasets.returned import returned_table
from smkit.datasets.running import BEGINNING
from smkit.errors import DatasetError, TransformError
from smkit.frames import to_pandas

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import CodeType

    import pyarrow as pa

    from smkit.datasets.running import Run, Start

_SINGLE_ROWS = 8


@dataclass(frozen=True)
class Map:
    """Let a function of the user change the rows.

    Attributes:
        function: DataFrame in, DataFrame out.
        per: `batch`: called for each batch, must treat each row by itself. `dataset`: called once with all rows, which
            must fit in memory.
        file: The file that the function was written in, for messages; None where there is none. A function travels to
            the workers of a cluster without it.
    """

    function: Callable[[pd.DataFrame], pd.DataFrame]
    per: Literal["batch", "dataset"]
    file: str | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", getattr(self._code, "co_filename", None))

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        inner = _without_partial(self.function)
        return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)

    def run(self, tables: Iterator[pa.Table], run: Run, start: Start = BEGINNING) -> Generator[pa.Table]:
        """Yield the function's results; it is never called without rows."""
        if self.per == "dataset":
            collected = [table for table in tables if table.num_rows]
            tables = iter([concat(collected)] if collected else [])
            run.batch = 0
        columns = None if start.columns is None else list(start.columns)
        first_row = start.rows
        for table in tables:
            number = run.batch
            if not table.num_rows:
                continue
            result = self._call(table, number, first_row)
            if columns is None:
                columns = result.column_names
            elif difference := differing(columns, result.column_names):
                self._fail(
                    f"it returned other columns than for the batches before: {difference}; "
                    f"let it return the same columns, in the same order, for every batch",
                    table,
                    number,
                    first_row,
                )
            # The first batch may be too uniform to tell, and every batch would double the work: 0, 1, 3, 7, 15 ...
            if self.per == "batch" and number & (number + 1) == 0:
                self._check_rowwise(table, result, number, first_row)
            first_row += table.num_rows
            yield result

    def describe(self) -> dict[str, Any]:
        """Return the step as JSON values; the code is there by digest."""
        return {"step": "map", "function": self.name, "per": self.per, "code_sha256": code_digest(self.function)}

    def _call(self, table: pa.Table, batch: int, first_row: int) -> pa.Table:
        try:
            frame = self.function(to_pandas(table))
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises is told with its batch
            problem = f"{type(error).__name__}: {error}{self._place(error)}"
            self._fail(problem, table, batch, first_row, error)
        if not isinstance(frame, pd.DataFrame):
            hint = "; did you forget to return the frame?" if frame is None else ""
            self._fail(f"it returned {type(frame).__name__}, expected a DataFrame{hint}", table, batch, first_row)
        if frame.columns.empty:
            self._fail("it returned a frame without columns", table, batch, first_row)
        try:
            return returned_table(frame, settled(table.schema))
        except ValueError as error:
            self._fail(str(error), table, batch, first_row, error)

    def _fail(
        self, problem: str, table: pa.Table, batch: int, first_row: int, cause: Exception | None = None
    ) -> NoReturn:
        rows = (first_row, first_row + table.num_rows - 1)
        raise TransformError(
            f"transform {self.name!r} failed in batch {batch}, rows {rows[0]:,} to {rows[1]:,}: {problem}",
            step=self.name,
            batch=batch,
            rows=rows,
        ) from cause

    def _place(self, error: Exception) -> str:
        """Return the last line of the user's own file in the traceback: deeper ones are pandas'."""
        lines = traceback.extract_tb(error.__traceback__)[1:]  # the first is the call here
        here = getattr(self._code, "co_filename", None)
        own = [line for line in lines if line.filename == here]
        if own:
            return f" ({self.file}, line {own[-1].lineno})"
        return f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""

    @property
    def _code(self) -> CodeType | None:
        return getattr(inspect.unwrap(_without_partial(self.function)), "__code__", None)

    def _check_rowwise(self, table: pa.Table, whole: pa.Table, batch: int, first_row: int) -> None:
        """Compare the result for a batch with the results for parts of it.

        A function that subtracts a mean, or draws random numbers, would silently depend on where a batch ends. Halves
        find what looks at all rows, single rows what looks at neighbours.
        """
        if table.num_rows < 2:
            return
        middle = table.num_rows // 2
        halves = [table.slice(0, middle), table.slice(middle)]
        reason = self._difference(halves, table, whole)
        if not reason:
            head = table.slice(0, _SINGLE_ROWS)
            singles = [head.slice(row, 1) for row in range(head.num_rows)]
            reason = self._difference(singles, head, whole if head.num_rows == table.num_rows else None)
        if reason:
            rows = (first_row, first_row + table.num_rows - 1)
            raise TransformError(
                f"transform {self.name!r} gives other results for parts of batch {batch} (rows {rows[0]:,} to "
                f"{rows[1]:,}) than for all of it ({reason}): the dataset would depend on the batch size. Let each row "
                f"depend on itself alone, or see all rows at once with map(..., per='dataset')",
                step=self.name,
                batch=batch,
                rows=rows,
            )

    def _difference(self, parts: list[pa.Table], table: pa.Table, expected: pa.Table | None) -> str:
        """Say in words how the results for parts differ from that for all rows; `""` where they do not."""
        try:
            if expected is None:
                expected = self._call(table, 0, 0)
            results = [self._call(part, 0, 0) for part in parts]
            for result in results:
                if difference := differing(expected.column_names, result.column_names):
                    return f"it is {difference}"
            # What a part leaves no rows of has no types worth comparing.
            joined = concat([*(result for result in results if result.num_rows), expected.slice(0, 0)])
            pd.testing.assert_frame_equal(
                to_pandas(joined), to_pandas(cast_table(expected, joined.schema)), check_dtype=False
            )
        except TransformError as error:
            return str(error).partition(": ")[2]
        except (AssertionError, DatasetError) as error:
            return str(error).splitlines()[0]
        return ""


def code_digest(function: Callable[..., Any]) -> str | None:
    """Return the SHA-256 of a function's source, or of its byte code where there is no source.

    None for a built-in or a compiled function, which have neither.
    """
    inner = inspect.unwrap(_without_partial(function))
    if not (inspect.isfunction(inner) or inspect.ismethod(inner)):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - the code of a callable object, not whether it is one
    code = getattr(inner, "__code__", None)
    if code is None:
        return None
    try:
        text = inspect.getsource(inner)
    except (OSError, TypeError):
        text = repr(_fingerprint(code))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _fingerprint(code: CodeType) -> tuple[Any, ...]:
    """Return what a function's code does, without the file and the lines that it came from."""
    return (code.co_code, code.co_names, code.co_varnames, [_constant(value) for value in code.co_consts])


def _constant(value: Any) -> Any:
    if inspect.iscode(value):
        return _fingerprint(value)
    # A set of texts has another order in every process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value
