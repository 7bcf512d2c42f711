"""`smkit.doctor`: which checks to run, and the report of what they found."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from smkit.aws import check_bucket, split_s3_uri
from smkit.diagnosis.catalogue import FURTHER_BUCKET, catalogue
from smkit.diagnosis.context import Context
from smkit.diagnosis.findings import Check, Finding, problem
from smkit.diagnosis.machine import describe_settings
from smkit.diagnosis.report import CheckResult, DoctorReport
from smkit.diagnosis.scheduling import run_checks
from smkit.display import printable, shortened
from smkit.errors import ConfigError, did_you_mean
from smkit.storage import check_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from smkit.config import Settings

DEFAULT_TIMEOUT = 5.0
#: Columns of a finding: what a server says may be a whole page.
_LONGEST = 2000


def doctor(
    settings: Settings | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    checks: Iterable[str] | None = None,
    buckets: Iterable[str] = (),
    write: bool = True,
) -> DoctorReport:
    """Ask this machine, AWS and the database whether smkit will work, all at once and for seconds only.

    Only what the settings use is asked: with a store in a folder, `backend="local"` and no role, no byte goes over a
    network.
    Nothing is changed, but for one empty object that a store in S3 gets sooner or later anyway; see `write`.

    Args:
        settings: The settings; default: those of the environment and of the project's files. If these cannot be read,
            that is the first problem of the report.
        timeout: Seconds that each check may take; the checks run side by side.
        checks: Ids of the checks to run, beside those that they need and those of `buckets`; default: all.
        buckets: Further buckets that data comes from, each a name or an `s3://` URI; each gets a check
            `bucket:<name>`, or `bucket:<name>/<prefix>`.
        write: Whether to try a write: in a folder, a temporary folder that is removed again; in a bucket, the empty
            object `<root>/.smkit-probe`, put if it is absent, as the store itself does at its first publish.

    Raises:
        ConfigError: An argument is none of these, or no check has one of the ids.
    """
    given = check_settings(settings)
    return examine(
        lambda: _default_settings() if given is None else given,
        timeout=timeout,
        checks=checks,
        buckets=buckets,
        write=write,
    )


def _default_settings() -> Settings:
    from smkit.config import Settings

    return Settings()


def examine(
    read: Callable[[], Settings],
    *,
    timeout: float,
    checks: Iterable[str] | None,
    buckets: Iterable[str],
    write: bool,
) -> DoctorReport:
    """Do what `doctor` does, with settings that are still to be read.

    Raises:
        ConfigError: As `doctor`; not where the settings cannot be read.
    """
    began = time.monotonic()
    _check_timeout(timeout)
    asked = _names("checks", checks)
    further = dict(_bucket_and_prefix(name) for name in _names("buckets", buckets))
    found, origin = _read(read)
    context = Context(found, timeout=timeout, write=write, buckets=further, asked=asked)
    every = (Check("settings", "This machine", "settings", lambda _: origin, needs=()), *catalogue(context))
    named = [*asked, *(f"{FURTHER_BUCKET}{name}" for name in further)]
    chosen = _chosen(every, named) if checks is not None else every
    results: dict[str, CheckResult] = {}

    def finished(check: Check, finding: Finding, seconds: float) -> None:
        results[check.id] = CheckResult(
            check.id,
            check.group,
            check.title,
            finding.outcome,
            _one_line(context, finding.text),
            _one_line(context, finding.fix),
            round(seconds, 3),
        )

    try:
        run_checks(chosen, context, finished=finished)
    finally:
        context.close()
    return DoctorReport(tuple(results[check.id] for check in chosen), round(time.monotonic() - began, 3))


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise ConfigError(f"timeout {timeout!r} is not allowed: expected seconds, more than 0, such as 5")


def _names(argument: str, names: Iterable[str] | None) -> list[str]:
    found = [names] if isinstance(names, str) else list(names or ())
    if strange := [name for name in found if not isinstance(name, str)]:
        raise ConfigError(f"{argument}: {strange[0]!r} is not a name: expected texts, such as ['bucket']")
    return list(dict.fromkeys(found))


def _bucket_and_prefix(name: str) -> tuple[str, tuple[str, str]]:
    bucket, prefix = split_s3_uri(name) if "://" in name else (check_bucket(name), "")
    return (f"{bucket}/{prefix}" if prefix else bucket), (bucket, prefix)


def _read(read: Callable[[], Settings]) -> tuple[Settings | None, Finding]:
    """Return the settings and what there is to say of them."""
    try:
        settings = read()
    except ConfigError as error:
        heading, _, listed = str(error).partition("\n")
        said = "; ".join(line.strip().removeprefix("- ") for line in listed.splitlines())
        return None, problem(said or heading, "correct each where it says that it came from")
    return settings, describe_settings(settings)


def _chosen(every: Sequence[Check], asked: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks asked for, and all that they need, in the order of the catalogue."""
    known = {check.id: check for check in every}
    wanted: set[str] = set()
    pending = list(asked)
    while pending:
        name = pending.pop()
        if name not in known:
            raise ConfigError(f"there is no check {name!r}{did_you_mean(name, known)}; checks are {', '.join(known)}")
        if name not in wanted:
            wanted.add(name)
            check = known[name]
            pending += [*check.needs, *check.after, *check.behind]
    return tuple(check for check in every if check.id in wanted)


def _one_line(context: Context, text: str) -> str:
    """Return text without secrets, line breaks and what a terminal would obey."""
    # The secrets first: one with a line break in it, or cut in two, would no longer be found.
    return shortened(printable(" ".join(context.secrets.hide(text).split())), _LONGEST)
