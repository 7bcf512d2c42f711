"""What the shell offers for names: datasets, models, jobs.

A shell that completes a word shows nothing else. So nothing here raises or prints, and a store that does not answer
is not waited for.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from typing import TYPE_CHECKING

import typer  # noqa: TC002 - typer finds the parameters by their types, at run time

from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from smkit.config import Settings
    from smkit.versioning import VersionLog

_SECONDS = 3.0
_MOST_JOBS = 50


def dataset_refs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the datasets whose name begins so; behind an `@` the versions."""
    return _quietly(ctx, incomplete, lambda settings: _refs(settings, "datasets", incomplete))


def model_refs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the models whose name begins so; behind an `@` the aliases and versions."""
    return _quietly(ctx, incomplete, lambda settings: _refs(settings, "models", incomplete))


def dataset_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the datasets whose name begins so."""
    return _quietly(ctx, incomplete, lambda settings: _log(settings, "datasets").names())


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the models whose name begins so."""
    return _quietly(ctx, incomplete, lambda settings: _log(settings, "models").names())


def job_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the newest jobs whose name begins so."""
    return _quietly(ctx, incomplete, _jobs)[:_MOST_JOBS]


def job_statuses(incomplete: str) -> list[str]:
    """Return the words for how a job stands that begin so."""
    from typing import get_args

    from smkit.jobs.backend import Status

    return [status for status in get_args(Status) if status.lower().startswith(incomplete.lower())]


def _log(settings: Settings, kind: str) -> VersionLog:
    # Not the stores, whose import takes longer than a shell's user likes to wait.
    from smkit.storage import open_store
    from smkit.versioning import VersionLog

    return VersionLog(open_store(settings), kind, kind.removesuffix("s"))


def _refs(settings: Settings, kind: str, incomplete: str) -> Iterable[str]:
    log = _log(settings, kind)
    name, at, _ = incomplete.partition("@")
    names = [one for one in log.names() if one.startswith(name)]
    # bash breaks words at an @: where only one name is left, all of it is offered.
    if not at and len(names) != 1:
        return names
    name = name if at else names[0]
    aliases = log.aliases.all(name) if kind == "models" else {}
    return [*names, f"{name}@latest", *(f"{name}@{word}" for word in (*aliases, *log.versions(name)))]


def _jobs(settings: Settings) -> Iterable[str]:
    from smkit.jobs import JobRunner

    return (job.name for job in JobRunner(settings).jobs())


def _quietly(context: typer.Context, incomplete: str, find: Callable[[Settings], Iterable[str]]) -> list[str]:
    found: list[str] = []

    def look() -> None:
        try:
            found.extend(name for name in find(settings_of(context)) if name.startswith(incomplete))
        except Exception:  # noqa: BLE001 - a shell that completes a word has no place for an error
            return

    with open(os.devnull, "w", encoding="utf-8") as nowhere, warnings.catch_warnings():  # noqa: PTH123 - no path of ours
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            thread = threading.Thread(target=look, daemon=True)
            thread.start()
            thread.join(_SECONDS)
    return list(found)
