"""Runs checks side by side, each in a thread, each for a few seconds at most, none before those that it needs."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from botocore.parsers import ResponseParserError

from smkit.aws_errors import AWS_ERRORS, explain_aws_error
from smkit.diagnosis.findings import Check, Finding, cannot_tell, no_answer, problem, skipped
from smkit.display import printable, shortened
from smkit.errors import SmkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from smkit.diagnosis.context import Context

#: Seconds beyond a check's time: a call that gives up by itself says what it was.
_GRACE = 0.5


def run_checks(checks: Iterable[Check], context: Context, *, finished: Callable[[Check, Finding, float], None]) -> None:
    """Run checks; each one ends, with a finding, once `context.timeout` is over.

    A thread that gets no answer is left behind. It is a daemon, so that it does not hold up the end of the process.

    Args:
        checks: Those to run; what they need must be among them.
        context: What they are given.
        finished: Told of each as it ends, in this thread: the check, the finding, the seconds that it took.
    """
    waiting = {check.id: check for check in checks}
    running: dict[str, tuple[Check, float]] = {}
    findings: dict[str, Finding] = {}
    answers: SimpleQueue[tuple[str, Finding]] = SimpleQueue()
    allowed = context.timeout + _GRACE

    def settle(check: Check, finding: Finding, seconds: float = 0.0) -> None:
        findings[check.id] = finding
        finished(check, finding, seconds)

    while waiting or running:
        ready = [check for check in waiting.values() if findings.keys() >= {*check.needs, *check.after, *check.behind}]
        for check in ready:
            del waiting[check.id]
            if reason := _obstacle(check, context, findings):
                settle(check, skipped(reason))
            else:
                running[check.id] = (check, time.monotonic())
                _start(check, context, answers)
        if ready:
            continue
        if not running:
            raise RuntimeError(f"the checks {sorted(waiting)} wait for one another, or for some that are not run")
        try:
            first = min(started for _, started in running.values())
            answer = answers.get(timeout=max(0.0, first + allowed - time.monotonic()))
        except Empty:
            for check, started in list(running.values()):
                if time.monotonic() >= started + allowed:
                    del running[check.id]
                    settle(check, no_answer(context.timeout), time.monotonic() - started)
            continue
        # An answer that came too late is dropped: it was reported that there is none.
        if answer[0] in running:
            check, started = running.pop(answer[0])
            settle(check, answer[1], time.monotonic() - started)


def _obstacle(check: Check, context: Context, findings: dict[str, Finding]) -> str:
    """Return why a check cannot or need not run."""
    if "settings" in check.needs and findings["settings"].outcome != "ok":
        return "needs settings"
    if reason := check.not_for(context):
        return reason
    missing = [name for name in check.needs if findings[name].outcome != "ok"]
    missing += [name for name in check.after if findings[name].outcome == "problem"]
    return f"needs {', '.join(missing)}" if missing else ""


def _start(check: Check, context: Context, answers: SimpleQueue[tuple[str, Finding]]) -> None:
    def run() -> None:
        answers.put((check.id, _ask(check, context)))

    # Not a pool: the interpreter would wait at its end for a pool's call that has no answer.
    threading.Thread(target=run, name=f"smkit-doctor-{check.id}", daemon=True).start()


def _ask(check: Check, context: Context) -> Finding:
    try:
        return check.run(context)
    except SmkitError as error:
        # Every message of smkit says the fix itself.
        said, _, fix = str(error).partition("; ")
        return problem(said, fix)
    except AWS_ERRORS as error:
        return cannot_tell(explain_aws_error(error, f"check {check.title}"))
    except ResponseParserError as error:
        # Not one of botocore's errors of AWS.
        return cannot_tell(
            f"what answers is not AWS: {shortened(printable(str(error)), 200)}",
            "try again; if it stays so, check the proxy, and whether the network wants a sign-in first",
        )
    except OSError as error:
        return cannot_tell(f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - one check that fails itself must not take the others' findings away
        return cannot_tell(f"the check itself failed: {type(error).__name__}: {error}", "report it as a bug of smkit")
