"""What the doctor found, for people, notebooks and programs."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from smkit._version import __version__
from smkit.display import html_table, padded, width_of
from smkit.errors import ProblemsFound, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from smkit.diagnosis.findings import Outcome

SCHEMA_VERSION = 1
SYMBOLS: Mapping[str, str] = MappingProxyType({"ok": "✓", "problem": "✗", "cannot tell": "?", "skipped": "-"})
ASCII_SYMBOLS: Mapping[str, str] = MappingProxyType({**SYMBOLS, "ok": "+", "problem": "x"})
#: A terminal narrower than this is not wrapped to: a word a line is no easier to read.
_NARROWEST = 60


@dataclass(frozen=True)
class CheckResult:
    """What one check found. No field holds a secret or a control character.

    Args:
        id: The check's name, such as `bucket`.
        group: The heading that it stands under.
        title: What was asked.
        outcome: `ok`, `problem`, `cannot tell` (no answer, or no permission to ask) or `skipped` (it does not apply, or
            what it needs is missing).
        finding: What was found, in one line.
        fix: What to do; with `ok`, an advice; "" where there is nothing to do.
        seconds: How long it took.
    """

    id: str
    group: str
    title: str
    outcome: Outcome
    finding: str
    fix: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return self.outcome == "ok"

    def __str__(self) -> str:
        return f"{self.id}: {self.outcome}: {self.finding}" + (f"; {self.fix}" if self.fix else "")


@dataclass(frozen=True, repr=False)
class DoctorReport:
    """Everything that the doctor found, in the order of the catalogue.

    Iterating gives the results, `report["bucket"]` the one of a check. Whether a report is "true" would be ambiguous:
    ask `ok`.

    Args:
        results: One per check that was asked for, or that one of these needs.
        seconds: How long all of it took.
    """

    results: tuple[CheckResult, ...]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is no problem; there may be things that could not be told."""
        return not self.problems

    @property
    def problems(self) -> tuple[CheckResult, ...]:
        """What will fail, each with its fix."""
        return self._of("problem")

    @property
    def untold(self) -> tuple[CheckResult, ...]:
        """What could not be told, for want of an answer or of a permission."""
        return self._of("cannot tell")

    def raise_for_problems(self) -> None:
        """Do nothing where there is no problem.

        Raises:
            ProblemsFound: There is one; the message lists all of them with their fixes.
        """
        if self.problems:
            listed = "\n".join(f"  - {result}" for result in self.problems)
            raise ProblemsFound(
                f"smkit doctor found {_counted(len(self.problems), 'problem')}:\n{listed}", self.problems
            )

    def __iter__(self) -> Iterator[CheckResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __contains__(self, check: object) -> bool:
        return any(check in (result, result.id) for result in self.results)

    def __bool__(self) -> bool:
        raise TypeError("a DoctorReport is neither true nor false: ask report.ok")

    def __getitem__(self, check: str) -> CheckResult:
        found = next((result for result in self.results if result.id == check), None)
        if found is None:
            ids = [result.id for result in self.results]
            raise KeyError(f"no check {check!r} was run{did_you_mean(str(check), ids)}; run were {', '.join(ids)}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, with the `schema_version` of their form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "smkit_version": __version__,
            "ok": self.ok,
            "seconds": self.seconds,
            "checks": [asdict(result) for result in self.results],
        }

    def to_text(
        self,
        *,
        width: int | None = None,
        symbols: Mapping[str, str] = SYMBOLS,
        style: Callable[[str, Outcome], str] = lambda text, _: text,
    ) -> str:
        """Return the report as a table, group by group.

        Args:
            width: Columns to wrap to; None: one line per finding.
            symbols: Outcome -> the sign before the title.
            style: Colours the sign.
        """
        lines: list[str] = []
        column = max((width_of(result.title) for result in self.results), default=0)
        for group, members in groupby(self.results, key=lambda result: result.group):
            lines += ["", group] if lines else [group]
            for titles, result in _with_skipped_together(list(members)):
                sign = style(symbols[result.outcome], result.outcome)
                lines += _entry(sign, titles, result, column, width)
        return "\n".join([*lines, "", self.summary])

    @property
    def summary(self) -> str:
        """The counts, in one line."""
        skipped = len(self._of("skipped"))
        parts = [_counted(len(self.problems), "problem"), f"{len(self._of('ok'))} ok"]
        parts += [f"{len(self.untold)} cannot be told"] if self.untold else []
        parts += [f"{skipped} skipped"] if skipped else []
        return f"{', '.join(parts)} ({self.seconds:.1f} s)"

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (SYMBOLS[result.outcome], ", ".join(titles), result.finding, result.fix)
            for _, members in groupby(self.results, key=lambda result: result.group)
            for titles, result in _with_skipped_together(list(members))
        ]
        return f"<p>smkit doctor: {self.summary}</p>" + html_table(("", "check", "finding", "fix"), rows)

    def _of(self, outcome: Outcome) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.outcome == outcome)


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def _with_skipped_together(members: Sequence[CheckResult]) -> Iterator[tuple[list[str], CheckResult]]:
    """Yield results with their titles; neighbours that were skipped for one reason count as one."""
    for (outcome, _), same in groupby(members, key=lambda result: (result.outcome, result.finding)):
        results = list(same)
        if outcome == "skipped":
            yield [result.title for result in results], results[0]
        else:
            yield from (([result.title], result) for result in results)


def _entry(sign: str, titles: list[str], result: CheckResult, column: int, width: int | None) -> list[str]:
    indent = " " * (4 + column + 2)
    wide = width if width is None else max(width, _NARROWEST + len(indent))
    if len(titles) == 1:
        lines = _wrapped(result.finding, f"  {sign} {padded(titles[0], column)}  ", indent, wide, len(indent))
    else:
        lines = _wrapped(f"{', '.join(titles)}: {result.finding}", f"  {sign} ", "    ", wide, 4)
    if result.fix:
        label = "advice" if result.outcome == "ok" else "fix"
        lines += _wrapped(f"{label}: {result.fix}", indent, indent, wide, len(indent))
    return lines


def _wrapped(text: str, first: str, rest: str, width: int | None, used: int) -> list[str]:
    # `used`, not len(first): colours take no columns.
    pieces = textwrap.wrap(text, width - used, break_on_hyphens=False, break_long_words=False) if width else [text]
    return [f"{first if number == 0 else rest}{piece}" for number, piece in enumerate(pieces or [""])]
