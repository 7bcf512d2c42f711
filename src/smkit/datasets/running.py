"""What the steps of one pass over rows share, and where a step starts that sees only a stretch of the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smkit.datasets.checking import SchemaCheck


@dataclass
class Run:
    """One pass of rows through steps.

    Attributes:
        batch: The number of the source's batch that is under way: all steps pull one batch at a time.
        checks: The schema checks of the pass.
    """

    batch: int = 0
    checks: list[SchemaCheck] = field(default_factory=list)


@dataclass(frozen=True)
class Start:
    """What came before the rows that a step sees.

    Attributes:
        rows: How many rows it was given before.
        columns: The columns that it returned for them; None where there were none.
    """

    rows: int = 0
    columns: tuple[str, ...] | None = None


BEGINNING = Start()
