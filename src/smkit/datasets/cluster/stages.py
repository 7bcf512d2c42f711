"""Where the steps of a build must wait for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smkit.datasets.steps import Check, Clean
from smkit.datasets.transforms import Map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smkit.datasets.steps import Step


@dataclass(frozen=True)
class Stage:
    """Steps that look at one batch at a time, and what then looks at all rows.

    Attributes:
        steps: What workers do side by side.
        checks: Which of the build's steps the schema checks among them are.
        waits_for: The step that then needs all rows; None after the last stage.
        place: Which of the build's steps that is.
        together: Whether the first step is given all rows at once, on one worker.
    """

    steps: tuple[Step, ...]
    checks: tuple[int, ...]
    waits_for: Clean | Check | None
    place: int
    together: bool


def stages_of(steps: Sequence[Step]) -> list[Stage]:
    """Cut steps into stages; there is always a last one, which may have no steps."""
    stages: list[Stage] = []
    pending: list[tuple[int, Step]] = []
    together = False

    def cut(waits_for: Clean | Check | None, place: int) -> None:
        nonlocal together
        checks = tuple(number for number, step in pending if isinstance(step, Check))
        stages.append(Stage(tuple(step for _, step in pending), checks, waits_for, place, together))
        pending.clear()
        together = False

    for number, step in enumerate(steps):
        if isinstance(step, Clean):
            pending.append((number, Clean(step.drop_missing, ())))
            if step.drop_duplicates != ():
                cut(step, number)
        elif isinstance(step, Check):
            pending.append((number, Check(step.schema, repeats=False)))
            if step.schema.unique:
                cut(step, number)
        else:
            if isinstance(step, Map) and step.per == "dataset":
                if pending:
                    cut(None, number)
                together = True
            pending.append((number, step))
    cut(None, len(steps))
    return stages
