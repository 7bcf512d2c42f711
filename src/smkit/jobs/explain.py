"""Says why a job failed, in words that help: what happened, the script's own traceback, and what to do."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smkit.errors import ConfigError
from smkit.jobs.causes import EXCEPTIONS, LOG, PIP, PIP_FAILED, REASONS, SMKIT_IN_CONTAINER, Cause
from smkit.jobs.containers import distribution_of, image
from smkit.jobs.failure import find_cause, find_traceback, split_toolkits_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from smkit.jobs.backend import JobStatus
    from smkit.jobs.causes import Rule

#: The end of the log, where pip's and a shell's last words stand.
_LAST_LINES = 80
_SHOWN_TRACEBACK_LINES = 60
#: As many problems of a list as one sentence can hold.
_SUMMARY_PROBLEMS = 3
_TIMEOUT = "pass a longer timeout, or a faster instance_type; the script can save checkpoints and go on from them"
_EXIT_CODE = re.compile(r"^ExitCode (-?[0-9]+)", re.MULTILINE)


@dataclass(frozen=True)
class FailureExplanation:
    """Why a job failed.

    Args:
        job_name: The job.
        summary: What happened, in one sentence.
        cause: The kind of cause, for programs.
        traceback: The script's own traceback, or "".
        fix: What to do; "" where only the script's author can tell.
        log_location: Where the whole log lies.
    """

    job_name: str
    summary: str
    cause: Cause
    traceback: str
    fix: str
    log_location: str

    def __str__(self) -> str:
        lines = [f"job {self.job_name!r}: {self.summary} [{self.cause}]"]
        if self.traceback:
            lines += ["", *self._shown_traceback(), ""]
        if self.fix:
            lines.append(f"What to do: {self.fix}")
        lines.append(f"The whole log: {self.log_location}")
        return "\n".join(_printable(line) for line in lines)

    def _repr_html_(self) -> str:
        name, summary = _escaped(self.job_name), _escaped(self.summary)
        parts = [f"<p>job <code>{name}</code>: <b>{summary}</b> ({_escaped(self.cause)})</p>"]
        if self.traceback:
            shown = "\n".join(_printable(line) for line in self._shown_traceback())
            parts.append(f"<pre>{html.escape(shown)}</pre>")
        if self.fix:
            parts.append(f"<p>What to do: {_escaped(self.fix)}</p>")
        location = _escaped(self.log_location)
        is_link = self.log_location.startswith("https://")
        parts.append(f'<p>The whole log: <a href="{location}">{location}</a></p>' if is_link else f"<p>{location}</p>")
        return "".join(parts)

    def _shown_traceback(self) -> list[str]:
        """The exception stands last, so a long traceback loses its middle."""
        lines = self.traceback.splitlines()
        if len(lines) <= _SHOWN_TRACEBACK_LINES:
            return lines
        half = _SHOWN_TRACEBACK_LINES // 2
        return [*lines[:half], f"  ... {len(lines) - 2 * half} lines left out ...", *lines[-half:]]


def explain(
    name: str, status: JobStatus, tail: Sequence[str], *, framework_version: str | None = None
) -> FailureExplanation:
    """Explain a job that ended as `Failed` or `Stopped`.

    Args:
        name: The job.
        status: Its final state.
        tail: The last lines of its log.
        framework_version: The image that it ran in; default: what its lineage says.
    """
    script, toolkits = split_toolkits_report(tail)
    exit_code = _exit_code(status, toolkits)
    traceback = find_traceback(script, exit_code) if status.status == "Failed" else ""
    version = framework_version or status.lineage.get("framework_version")
    cause, summary, fix = (
        _of_status(status)
        or _of_reason(status)
        or _of_pip(script, status, toolkits)
        or _of_traceback(script, traceback, version)
        or _of_exit_code(exit_code)
        or _of_log(script)
        or _of_script(script, traceback, status)
    )
    return FailureExplanation(name, summary, cause, traceback, fix, status.log_location)


_Verdict = tuple[Cause, str, str]


def _of_status(status: JobStatus) -> _Verdict | None:
    if status.secondary_status == "MaxRuntimeExceeded":
        return "max-runtime", f"the job ran longer than its timeout: {status.reason}", _TIMEOUT
    if status.secondary_status == "MaxWaitTimeExceeded":
        fix = "pass a longer max_wait, or spot=False; with checkpoint_uri the next run can go on where this one was"
        return "max-wait", f"waiting for spot capacity and running took longer than max_wait: {status.reason}", fix
    if status.secondary_status == "Interrupted":
        return "spot-interrupted", "AWS took the spot instance back", "run again, with checkpoint_uri or spot=False"
    if status.status == "Stopped":
        return "stopped", f"the job was stopped: {status.reason}", ""
    return None


def _of_reason(status: JobStatus) -> _Verdict | None:
    """Read SageMaker's reason, unless it only repeats what the script did."""
    kind, _, text = status.reason.partition(":")
    if kind == "AlgorithmError":
        # What a script printed may hold any of these words; of the container's own only memory is worth a look.
        return _match((rule for rule in REASONS if rule.cause == "out-of-memory"), text[:200])
    return _match(REASONS, status.reason, said=status.reason)


def _of_pip(script: Sequence[str], status: JobStatus, toolkits: Sequence[str]) -> _Verdict | None:
    last = "\n".join(script[-_LAST_LINES:])
    if not PIP_FAILED.search("\n".join((status.reason, *toolkits, *script[-5:]))):
        return None
    unknown: _Verdict = (
        "requirements",
        "pip could not install requirements.txt",
        "pip's own words stand at the end of the log",
    )
    return _match(PIP, last) or unknown


def _of_traceback(script: Sequence[str], traceback: str, version: str | None) -> _Verdict | None:
    if not traceback:
        return None
    said = "\n".join(find_cause(script, traceback))
    # A module of a package that the container has in another version: first, since it is a missing module too.
    verdict = _match((rule for rule in EXCEPTIONS if rule.cause == "version-mismatch"), said) or _match(
        EXCEPTIONS, said
    )
    if verdict is None:
        return None
    cause, summary, fix = verdict
    module = re.search(r"No module named '?([\w.]+)", said)
    if cause == "missing-module" and module is not None:
        fix = _how_to_get(module[1], version)
    return cause, f"{summary}: {said.splitlines()[0]}" if cause != "missing-module" else summary, fix


def _of_exit_code(exit_code: int | None) -> _Verdict | None:
    if exit_code in {137, -9}:
        summary = "the script was killed (SIGKILL), which is how Linux ends what needs more memory than there is"
        fix = "choose an instance_type with more memory, or read the data in parts (chunksize, fewer columns, float32)"
        return "out-of-memory", summary, fix
    if exit_code in {139, -11}:
        fix = "look for compiled packages of contradicting versions, such as a numpy that requirements.txt replaces"
        return "script-error", "the script crashed inside compiled code (SIGSEGV)", fix
    if exit_code in {126, 127}:
        fix = "name what the image has; in a shell script, python is called python3"
        return "shell", f"a command was not found, or may not be executed (exit code {exit_code})", fix
    return None


def _of_log(script: Sequence[str]) -> _Verdict | None:
    return _match(LOG, "\n".join(line for line in script[-5:] if line.strip()))


def _of_script(script: Sequence[str], traceback: str, status: JobStatus) -> _Verdict:
    said = find_cause(script, traceback)
    if not said:
        return "unknown", status.reason or "neither the service nor the log says why", ""
    if traceback or ": error:" in said[0]:
        return "script-error", f"the script failed: {_head_of(said)}", ""
    return "unknown", f"{status.reason}; the log ends with: {said[-1]}", ""


def _head_of(said: Sequence[str]) -> str:
    """Return the line that says what went wrong, with the list that it only announces."""
    if not said[0].endswith(": error:"):
        return said[0]
    problems = [line.strip().removeprefix("- ") for line in said[1:] if line.strip()]
    left_out = len(problems) - _SUMMARY_PROBLEMS
    more = [f"and {left_out} more"] if left_out > 0 else []
    return f"{said[0]} {'; '.join([*problems[:_SUMMARY_PROBLEMS], *more])}".rstrip()


def _match(rules: Iterable[Rule], text: str, *, said: str = "") -> _Verdict | None:
    for rule in rules:
        if found := rule.pattern.search(text):
            summary = rule.summary.format(**{key: value or "" for key, value in found.groupdict().items()})
            return rule.cause, f"{summary}: {said}" if said and said not in summary else summary, rule.fix
    return None


def _how_to_get(module: str, version: str | None) -> str:
    top = module.partition(".")[0]
    if top == "smkit":
        return SMKIT_IN_CONTAINER
    if version is not None:
        try:
            if top in image(version).stdlib:
                return f"the Python of the image {version} lacks this part of the standard library"
        except ConfigError:
            # An image whose content is not known: the rest holds for it too.
            version = None
    distribution = distribution_of(module)
    if distribution is not None:
        return f"add the line {distribution!r} to requirements.txt in source_dir"
    return (
        "if it is a file of yours, pass the folder that holds it as source_dir; else add the package that brings it to "
        "requirements.txt there"
    )


def _exit_code(status: JobStatus, toolkits: Sequence[str]) -> int | None:
    """The toolkit's word counts: the container's own exit code is 1 whatever the script's was."""
    found = _EXIT_CODE.search("\n".join(toolkits))
    return int(found[1]) if found else status.exit_code


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in line)


def _escaped(text: str) -> str:
    return html.escape(_printable(text))
