"""Turns a failed job into an error that shows what the script itself said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from smkit.errors import TrainingFailed, TrainingStopped, TrainingTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smkit.jobs.backend import JobStatus

#: Lines of the log that are searched for a traceback.
TAIL_LINES = 2000
#: The log's first line where this machine's Python is not the image's: nothing that the script said.
HOST_NOTICE = "smkit: this job runs under "
_SHOWN_LINES = 20
#: What the training template prints of a wrong hyperparameter, channel or column.
_SCRIPT_ERROR = re.compile(r"\S+: error:( |$)")
#: What the image's `train` logs before its own traceback.
_TOOLKITS_REPORT = re.compile(r"^\S+ \S+ sagemaker[\w.-]+ +ERROR +Reporting training FAILURE\s*$")
_TOOLKITS_EXIT_CODE = re.compile(r"^ExitCode (-?[0-9]+)$")
_TOO_LONG = frozenset({"MaxRuntimeExceeded", "MaxWaitTimeExceeded"})
_HEADS = ("Traceback (most recent call last):", "  + Exception Group Traceback (most recent call last):")
_LINKS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


def training_error(name: str, status: JobStatus, tail: Sequence[str], *, log_shown: bool) -> TrainingFailed:
    """Return the error for a job that ended as `Failed` or `Stopped`.

    Args:
        name: The job.
        status: Its final state.
        tail: The last lines of its log.
        log_shown: Whether the caller has seen the log: then the message repeats only what went wrong.
    """
    tail, toolkits = split_toolkits_report(tail)
    exit_code = status.exit_code if status.exit_code is not None else _reported_exit_code(toolkits)
    traceback = find_traceback(tail, exit_code)
    kind: type[TrainingFailed] = TrainingFailed
    if status.status == "Stopped":
        kind = TrainingTimeout if status.secondary_status in _TOO_LONG else TrainingStopped
    if log_shown:
        shown = find_cause(tail, traceback) if status.status == "Failed" else []
    else:
        shown = traceback.splitlines() if traceback else list(tail)[-_SHOWN_LINES:]
    how = "was stopped" if status.status == "Stopped" else "failed"
    head = f"job {name!r} {how}: {_in_one_line(status.reason, exit_code)}"
    parts = [head, *shown, f"The whole log: {status.log_location}"]
    return kind(
        "\n".join(parts),
        job_name=name,
        exit_code=exit_code,
        traceback=traceback,
        log_path=status.log_location,
    )


def split_toolkits_report(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a log into what the script said and what SageMaker's toolkit reports after a failure.

    The report ends with a traceback of the toolkit's own, which says nothing of the script.
    """
    starts = [number for number, line in enumerate(lines) if _TOOLKITS_REPORT.search(line)]
    end = starts[-1] if starts else len(lines)
    return list(lines[:end]), list(lines[end:])


def find_cause(tail: Sequence[str], traceback: str) -> list[str]:
    """Return what went wrong, in the script's own words: an exception, a list of problems, or the log's last line.

    Args:
        tail: The last lines of the log.
        traceback: The traceback in it, or "".
    """
    if traceback:
        lines = traceback.splitlines()
        start = max(number for number, line in enumerate(lines) if line.startswith(_HEADS))
        # An exception group has a margin.
        bare = [re.sub(r"^  \| ", "", line) for line in lines[start + 1 :]]
        # A traceback that was only logged, before the template's own message, is not the cause.
        wrong = [number for number, line in enumerate(bare) if _SCRIPT_ERROR.match(line)]
        heads = [number for number, line in enumerate(bare) if line.strip() and not line.startswith(" ")]
        first = next(iter([*wrong[-1:], *heads]), None)
        return [] if first is None else bare[first : first + _SHOWN_LINES]
    errors = [number for number, line in enumerate(tail) if _SCRIPT_ERROR.match(line)]
    if errors and len(tail) - errors[-1] <= _SHOWN_LINES:
        return list(tail[errors[-1] :])
    return [line for line in tail if line.strip() and not line.startswith(HOST_NOTICE)][-1:]


def find_traceback(lines: Sequence[str], exit_code: int | None) -> str:
    """Return the last traceback of a log with those it is chained to, or "".

    A traceback that the script only logged, and went on, is not the cause of its end: one that many more lines
    follow counts only where the interpreter itself ended with it, which is exit code 1.
    """
    starts = [number for number, line in enumerate(lines) if line.startswith(_HEADS)]
    if not starts or (exit_code is not None and exit_code <= 0):
        return ""
    start = starts[-1]
    end = next(
        (n for n in range(start + 1, len(lines)) if lines[n].strip() and not lines[n].startswith(" ")), len(lines)
    )
    following = len(lines) - end - 1
    if following > (200 if exit_code == 1 else _SHOWN_LINES):
        return ""
    for earlier in reversed(starts[:-1]):
        if start < 2 or lines[start - 2] not in _LINKS:
            break
        start = earlier
    return "\n".join(lines[start:]).rstrip()


def _reported_exit_code(report: Sequence[str]) -> int | None:
    return next((int(found[1]) for line in report if (found := _TOOLKITS_EXIT_CODE.match(line))), None)


def _in_one_line(reason: str, exit_code: int | None) -> str:
    """Return a reason without the toolkit's traceback, which SageMaker cuts before it comes to the point."""
    kind, _, text = reason.partition(": ")
    if "\n" not in reason or not text.lstrip().startswith(("framework error", "ExecuteUserScriptError")):
        return reason
    return f"{kind}: the script failed" if exit_code is None else f"{kind}: the script exited with code {exit_code}"
