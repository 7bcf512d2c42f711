"""What `smkit run` and `smkit jobs` tell of a job, and how a job that failed ends a command."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import typer

from smkit.cli.output import write_json, write_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.artifacts import ModelVersion
    from smkit.config import Settings
    from smkit.errors import TrainingFailed
    from smkit.jobs import TrainingJob
    from smkit.jobs.explain import FailureExplanation


def check_publishing(model: str | None, alias: str | None, *, waits: bool = True) -> None:
    """Refuse, before a job starts, what could not be published after it.

    Raises:
        BadParameter: The options contradict each other.
        InvalidNameError: The model's name or the alias breaks its rule.
    """
    from smkit.naming import check_alias, check_name

    if alias is not None and model is None:
        raise typer.BadParameter("--promote needs --publish MODEL: what else would the alias name?")
    if model is not None and not waits:
        raise typer.BadParameter(
            "--publish needs the job's end: leave --no-wait out, or later: smkit jobs attach NAME --publish MODEL"
        )
    if model is not None:
        check_name(model, "model")
    if alias is not None:
        check_alias(alias)


def see_through(
    wait: Callable[[], TrainingJob],
    settings: Settings,
    *,
    model: str | None,
    alias: str | None,
    as_json: bool,
) -> None:
    """Wait for a job, publish its model, and say how it went.

    Args:
        wait: Waits for the job, showing its log, and returns it.
        settings: Where jobs and models are.
        model: Publish the job's model under this name.
        alias: Let this alias name the new version.
        as_json: Write the facts as JSON; then the log goes to stderr.

    Raises:
        Exit: The job failed or was stopped: exit code 1.
        SmkitError: The job could not be started or watched, or its model not be published.
    """
    from smkit.errors import TrainingFailed

    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            job = wait()
    except TrainingFailed as error:
        _tell_failure(error, settings, as_json=as_json)
        raise typer.Exit(1) from None
    version = None if model is None else _publish(job, settings, model, alias)
    if as_json:
        write_json(facts(job) | {"published": None if version is None else version.ref})
        return
    _tell_end(job)
    if version is not None:
        named = f", which {alias!r} names now" if alias else ""
        write_message(f"smkit: published as {version.ref}{named}")


def _tell_end(job: TrainingJob) -> None:
    from smkit.display import shown
    from smkit.jobs.job_display import shown_duration

    state = job.state()
    took = shown_duration(state.started, state.ended)
    metrics = ", ".join(f"{name}={shown(value)}" for name, value in job.metrics.items())
    write_message(f"smkit: job {job.name} is {state.status}{f' after {took}' if took else ''}")
    for line in (metrics, f"model {state.model_uri}" if state.model_uri else ""):
        if line:
            write_message(f"smkit: {line}")


def _publish(job: TrainingJob, settings: Settings, model: str, alias: str | None) -> ModelVersion:
    from smkit.artifacts import ArtifactStore
    from smkit.errors import SmkitError

    store = ArtifactStore(settings)
    try:
        version = store.publish(model, job)
    except SmkitError:
        write_message(
            f"smkit: job {job.name} is over and its model is kept; once the reason is gone: "
            f"smkit jobs attach {job.name} --publish {model}"
        )
        raise
    if alias is not None:
        store.promote(version, alias, why=f"job {job.name}")
    return version


def _tell_failure(error: TrainingFailed, settings: Settings, *, as_json: bool) -> None:
    from smkit.errors import SmkitError
    from smkit.jobs import JobRunner

    job = JobRunner(settings).attach(error.job_name)
    try:
        told = job.explain_failure()
    except SmkitError as reason:
        # Why it failed is worth more than why that cannot be explained.
        write_message(f"smkit: error: {error}\n(no more is known: {reason})")
        return
    if as_json:
        write_json(facts(job, told) | {"published": None})
    # The log, which holds the traceback, was shown just above.
    seen = not as_json and sys.stdout.isatty() and sys.stderr.isatty()
    write_message(f"smkit: error: {dataclasses.replace(told, traceback='') if seen else told}")


def facts(job: TrainingJob, failure: FailureExplanation | None = None) -> dict[str, Any]:
    """Return everything that is known of a job, as JSON values."""
    return {**job.describe(), "failure": None if failure is None else dataclasses.asdict(failure)}
