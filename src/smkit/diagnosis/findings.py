"""What one check is, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.diagnosis.context import Context

Outcome = Literal["ok", "problem", "cannot tell", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        outcome: `ok`; `problem`: something will fail; `cannot tell`: no answer, or no permission to ask; `skipped`: it
            does not apply, or what it needs is missing.
        text: One line.
        fix: What to do; with `ok`, an advice.
    """

    outcome: Outcome
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """One question.

    Args:
        id: Its name, such as `bucket`.
        group: The heading that it stands under.
        title: What is asked, in a few words.
        run: Asks.
        needs: Checks that must be `ok` first.
        after: Checks that must be over first and have found no problem.
        behind: Checks that must be over first, whatever they found.
        not_for: Returns why the settings do not call for the check; "" where they do. Called without a network.
    """

    id: str
    group: str
    title: str
    run: Callable[[Context], Finding] = field(repr=False)
    needs: tuple[str, ...] = ("settings",)
    after: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    not_for: Callable[[Context], str] = field(default=lambda _: "", repr=False)


def ok(text: str, advice: str = "") -> Finding:
    """Return that all is well, perhaps with an advice."""
    return Finding("ok", text, advice)


def problem(text: str, fix: str = "") -> Finding:
    """Return what will fail, and how to mend it."""
    return Finding("problem", text, fix)


def cannot_tell(text: str, fix: str = "") -> Finding:
    """Return that there was no answer."""
    return Finding("cannot tell", text, fix)


def skipped(text: str) -> Finding:
    """Return why nothing was asked."""
    return Finding("skipped", text)


def no_answer(seconds: float, what: str = "") -> Finding:
    """Return that nothing came within the time that a check has."""
    return cannot_tell(
        f"no answer in {seconds:g} s" + (f": {what}" if what else ""),
        "check the network, the proxy and the firewall, or allow more time with `timeout`",
    )
