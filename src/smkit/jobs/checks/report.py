"""What a check found: findings with their fixes, in one list."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from smkit.errors import JobRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

Level = Literal["problem", "warning", "unknown"]
_ORDER: tuple[Level, ...] = ("problem", "warning", "unknown")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Args:
        level: `problem`: the job would fail. `warning`: it may fail, or surprise. `unknown`: could not be checked.
        subject: What it is about, such as `train.py:3` or `role`.
        what: What is wrong, or why it could not be checked.
        fix: What to do; "" where there is nothing to do.
    """

    level: Level
    subject: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.subject}: {self.what}"
        return printable(f"{text}; {self.fix}" if self.fix else text)

    def to_dict(self) -> dict[str, str]:
        """Return the fields."""
        return {"level": self.level, "subject": self.subject, "what": self.what, "fix": self.fix}


@dataclass(frozen=True)
class CheckReport(Sequence[Finding]):
    """Everything that a check found: problems first, then warnings, then what could not be checked.

    A sequence of `Finding`. Whether it is "true" would be ambiguous (a clean report is an empty one): ask `ok`.

    Args:
        job_name: The job that was checked.
        findings: What was found; equal findings are kept once.
    """

    job_name: str
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        # sorted is stable: within a level the order of the checks stays.
        ordered = sorted(dict.fromkeys(self.findings), key=lambda finding: _ORDER.index(finding.level))
        object.__setattr__(self, "findings", tuple(ordered))

    @property
    def ok(self) -> bool:
        """Whether there is no problem; there may be warnings, and what could not be checked."""
        return not self.problems

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What would make the job fail."""
        return self._of("problem")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What may make it fail, or surprise."""
        return self._of("warning")

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """What could not be checked, and why."""
        return self._of("unknown")

    def __bool__(self) -> bool:
        raise TypeError("a CheckReport is neither true nor false: ask report.ok, or len(report) for all findings")

    def __len__(self) -> int:
        return len(self.findings)

    @overload
    def __getitem__(self, index: int) -> Finding: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...

    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self.findings[index]

    def __str__(self) -> str:
        lines = [f"job {self.job_name!r}: {self._summary()}"]
        lines += [f"  {finding.level:<8} {_indented(str(finding))}" for finding in self.findings]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = (
            (finding.level, printable(finding.subject), printable(finding.what), printable(finding.fix))
            for finding in self.findings
        )
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
        head = f"<p>job <code>{html.escape(self.job_name)}</code>: {self._summary()}</p>"
        if not rows:
            return head
        return f"{head}<table><tr><th>level</th><th>subject</th><th>what</th><th>fix</th></tr>{rows}</table>"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "job_name": self.job_name,
            "ok": self.ok,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def raise_for_problems(self) -> None:
        """Do nothing where there is no problem.

        Raises:
            JobRefused: There is one; the message lists all of them with their fixes.
        """
        if problems := self.problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            listed = "\n".join(f"  {number}. {_indented(str(item))}" for number, item in enumerate(problems, start=1))
            raise JobRefused(f"job {self.job_name!r} was not started: {count}\n{listed}", problems)

    def _of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)

    def _summary(self) -> str:
        names = {"problem": "problem", "warning": "warning", "unknown": "thing not checked"}
        counts = [(len(self._of(level)), names[level]) for level in _ORDER]
        if not self.findings:
            return "nothing found"
        plurals = {"thing not checked": "things not checked"}
        return ", ".join(
            f"{count} {name if count == 1 else plurals.get(name, name + 's')}" for count, name in counts if count
        )


def printable(text: str) -> str:
    """Return text without what a terminal would obey: names come from files, and reasons from services."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _indented(text: str) -> str:
    return text.replace("\n", "\n           ")


def problem(subject: str, what: str, fix: str = "") -> Finding:
    """Return a finding that makes the job fail."""
    return Finding("problem", subject, what, fix)


def warning(subject: str, what: str, fix: str = "") -> Finding:
    """Return a finding that may make the job fail, or surprise."""
    return Finding("warning", subject, what, fix)


def unknown(subject: str, what: str, fix: str = "") -> Finding:
    """Return what could not be checked."""
    return Finding("unknown", subject, what, fix)


def merge(job_name: str, parts: Iterable[Iterable[Finding]]) -> CheckReport:
    """Return one report of the findings of several checks."""
    return CheckReport(job_name, tuple(finding for part in parts for finding in part))
