"""`smkit jobs`: what `JobRunner` knows of jobs, on the command line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smkit.cli.completion import job_names, job_statuses, model_names
from smkit.cli.job_output import check_publishing, facts, see_through
from smkit.cli.output import write_fields, write_json, write_message, write_table, write_text
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.jobs import JobRunner, TrainingJob
    from smkit.jobs.backend import JobStatus

app = typer.Typer(
    name="jobs",
    help="List, show, follow, stop and wait for jobs, on this machine or on SageMaker.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_LOOKS_AT_ONCE = 8

_Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="A job's name.", autocompletion=job_names)]


def _runner(context: typer.Context) -> JobRunner:
    from smkit.jobs import JobRunner

    return JobRunner(settings_of(context))


@app.command("list")
def list_jobs(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Show at most so many.")] = 20,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only jobs that stand so: InProgress, Completed, Failed, Stopping, Stopped or NotSubmitted; may be "
            "repeated.",
            autocompletion=job_statuses,
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """List the jobs of the store, newest first.

    Examples: smkit jobs list; smkit jobs list --status Failed --limit 5; smkit jobs list --backend sagemaker --json
    """
    wanted = _check_statuses(status or [])
    found = (
        (job, state)
        for job, state in _states(_runner(context).jobs())
        if not wanted or (state is not None and state.status in wanted)
    )
    chosen = list(islice(found, limit))
    if as_json:
        write_json([_brief(job, state) for job, state in chosen])
        return
    if not chosen:
        write_message("no such jobs" if wanted else "no jobs yet: start one with smkit run")
        return
    write_table(["name", "status", "created (UTC)", "duration", "script"], [_row(job, state) for job, state in chosen])


def _check_statuses(given: list[str]) -> set[str]:
    from typing import get_args

    from smkit.errors import did_you_mean
    from smkit.jobs.backend import Status

    known = {status.lower(): status for status in get_args(Status)}
    for one in given:
        if one.lower() not in known:
            hint = did_you_mean(one, known.values())
            raise typer.BadParameter(f"{one!r} is no status: {', '.join(known.values())}{hint}")
    return {known[one.lower()] for one in given}


def _states(jobs: list[TrainingJob]) -> Iterator[tuple[TrainingJob, JobStatus | None]]:
    """Yield the jobs with their states, several looked at at once; None where a job cannot be looked at."""
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        # In small groups: a caller that has enough pays for no further look.
        for start in range(0, len(jobs), _LOOKS_AT_ONCE):
            group = jobs[start : start + _LOOKS_AT_ONCE]
            yield from zip(group, pool.map(_look, group), strict=True)


def _look(job: TrainingJob) -> JobStatus | None:
    from smkit.errors import CredentialsError, JobError

    try:
        return job.state()
    except CredentialsError:
        raise
    except JobError as error:
        # One job that is damaged, or was deleted meanwhile, hides no other.
        write_message(f"smkit: warning: {error}")
        return None


def _brief(job: TrainingJob, state: JobStatus | None) -> dict[str, Any]:
    lineage = state.lineage if state is not None else {}
    return {
        "name": job.name,
        "status": None if state is None else state.status,
        "secondary_status": None if state is None else state.secondary_status,
        "reason": None if state is None else state.reason,
        "backend": lineage.get("backend"),
        "entry_point": lineage.get("entry_point"),
        "instance_type": lineage.get("instance_type"),
        "created": lineage.get("created"),
        "started": lineage.get("started"),
        "ended": lineage.get("ended"),
        "billable_seconds": None if state is None else state.billable_seconds,
    }


def _row(job: TrainingJob, state: JobStatus | None) -> list[str]:
    from smkit.display import MISSING, shown, shown_time
    from smkit.jobs.job_display import shown_duration

    if state is None:
        return [job.name, "unknown", MISSING, MISSING, MISSING]
    created = state.lineage.get("created")
    return [
        job.name,
        state.status,
        shown_time(created) if created else MISSING,
        shown_duration(state.started, state.ended) or MISSING,
        shown(state.lineage.get("entry_point")),
    ]


@app.command()
def show(context: typer.Context, name: _Name, as_json: _Json = False) -> None:
    """Show everything that is known of a job, and of one that failed why.

    Example: smkit jobs show train-20260721-101500-123-ab12
    """
    from smkit.display import shown_time

    job = _runner(context).attach(name)
    failure = job.explain_failure() if job.status in {"Failed", "Stopped"} else None
    known = facts(job, failure)
    if as_json:
        write_json(known)
        return
    times = {key: shown_time(known[key]) if known.get(key) else None for key in ("created", "started", "ended")}
    write_fields(
        {
            "job": name,
            "status": known["status"],
            "secondary status": known["secondary_status"],
            "reason": known["reason"],
            "created (UTC)": times["created"],
            "started (UTC)": times["started"],
            "ended (UTC)": times["ended"],
            "billable seconds": known["billable_seconds"],
            "exit code": known["exit_code"],
            "backend": known.get("backend"),
            "script": known.get("entry_point"),
            "instance type": known.get("instance_type"),
            "framework version": known.get("framework_version"),
            "image": known.get("image"),
            "model": known["model"],
            "log": known["log"],
        }
    )
    for title in ("metrics", "hyperparameters", "inputs", "code", "environment"):
        if known.get(title):
            write_text(f"\n{title}")
            write_fields({f"  {key}": value for key, value in known[title].items()})
    if failure is not None:
        write_text(f"\nwhy it {'failed' if known['status'] == 'Failed' else 'stopped'}\n{failure}")


@app.command()
def logs(
    context: typer.Context,
    name: _Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
) -> None:
    """Write a job's log, as the script wrote it.

    Examples: smkit jobs logs train-1; smkit jobs logs -f train-1
    """
    job = _runner(context).attach(name)
    for line in job.logs(follow=follow):
        # Not write_text: a log is the script's own, as with docker logs. echo flushes, so that a pipe gets it at once.
        typer.echo(line)


@app.command()
def stop(context: typer.Context, name: _Name, as_json: _Json = False) -> None:
    """Ask a job to stop, and return at once; a job that is over stays as it is.

    Example: smkit jobs stop train-1
    """
    job = _runner(context).attach(name)
    before = job.status
    job.stop()
    status = job.status
    if as_json:
        write_json({"name": name, "status": status})
    elif before in {"InProgress", "Stopping"}:
        write_text(f"{name}: {status}")
    else:
        write_text(f"{name} was over already: {status}")


@app.command()
def attach(
    context: typer.Context,
    name: _Name,
    *,
    publish: Annotated[
        str | None,
        typer.Option(
            "--publish",
            metavar="MODEL",
            help="Publish the model under this name, once the job is completed.",
            autocompletion=model_names,
        ),
    ] = None,
    promote: Annotated[
        str | None,
        typer.Option("--promote", metavar="ALIAS", help="Let this alias name what was published."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Wait for a job, showing its log from the beginning; a job that failed is exit code 1.

    Ctrl-C ends the waiting, not the job.

    Examples: smkit jobs attach train-1; smkit jobs attach train-1 --publish houses --promote production
    """
    check_publishing(publish, promote)
    runner = _runner(context)
    job = runner.attach(name)
    see_through(job.wait, runner.settings, model=publish, alias=promote, as_json=as_json)
