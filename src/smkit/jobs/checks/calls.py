"""Runs checks side by side, each in a thread, and waits for all of them a few seconds at most."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from smkit.aws_errors import AWS_ERRORS, error_code, explain_aws_error
from smkit.jobs.checks.report import Finding, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Check = Callable[[], Sequence[Finding]]

#: What the services answer to a caller who may not ask.
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedException", "403", "Forbidden"}
    | {"AuthorizationError", "NotAuthorized", "AuthorizationErrorException"}
)


def run_together(checks: Mapping[str, Check], seconds: float) -> list[Finding]:
    """Run checks at the same time, and return what they found in their own order.

    Args:
        checks: Subject -> check. What one cannot ask becomes an `unknown` of its subject.
        seconds: How long to wait for all of them; what has no answer by then is `unknown`.
    """
    results: dict[str, Sequence[Finding]] = {}
    errors: dict[str, BaseException] = {}
    done: SimpleQueue[str] = SimpleQueue()

    def run(subject: str, check: Check) -> None:
        try:
            results[subject] = _ask(subject, check)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread, below
            errors[subject] = error
        done.put(subject)

    for subject, check in checks.items():
        # Daemons, not a pool: the interpreter would wait at its end for a pool's call that has no answer.
        threading.Thread(target=run, args=(subject, check), name=f"smkit-check-{subject}", daemon=True).start()
    give_up = time.monotonic() + seconds
    waiting = set(checks)
    while waiting and (ended := _next(done, give_up - time.monotonic())) is not None:
        waiting.discard(ended)
    if errors:
        raise next(iter(errors.values()))
    found: list[Finding] = []
    for subject in checks:
        if subject in waiting:
            found.append(unknown(subject, f"no answer within {seconds:g} s", "check the network, or try again"))
        else:
            found.extend(results[subject])
    return found


def _next(done: SimpleQueue[str], seconds: float) -> str | None:
    try:
        return done.get(timeout=max(0.0, seconds))
    except Empty:
        return None


def _ask(subject: str, check: Check) -> Sequence[Finding]:
    try:
        return check()
    except AWS_ERRORS as error:
        return [cannot_ask(subject, error)]


def cannot_ask(subject: str, error: Exception, what: str = "check it") -> Finding:
    """Return the finding for a call that was denied, or failed.

    Args:
        subject: What was looked at.
        error: What boto3 raised.
        what: What was tried.
    """
    if error_code(error) in DENIED:
        return unknown(subject, f"not checked: the caller may not ask ({_action(error)})")
    return unknown(subject, explain_aws_error(error, what))


def is_denied(error: Exception) -> bool:
    """Whether a service answered that the caller may not."""
    return error_code(error) in DENIED


def _action(error: Exception) -> str:
    operation = getattr(error, "operation_name", "")
    return f"{operation}: {error_code(error)}" if operation else error_code(error)
