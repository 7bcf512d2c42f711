"""`smkit run --dry-run`: what would be sent, and what a check finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from smkit.cli.output import write_fields, write_json, write_text

if TYPE_CHECKING:
    from smkit.jobs import JobRunner, JobSpec

_HIDDEN = "********"


def show_dry_run(runner: JobRunner, spec: JobSpec, *, as_json: bool) -> None:
    """Write the job, for SageMaker the whole request, and what the check finds.

    Raises:
        ConfigError: The script, the code or an input is not there.
        Exit: The check found problems: exit code 1.
    """
    report = runner.check(spec)
    job = _job(spec, runner.settings.backend)
    request = _request(runner, spec) if runner.settings.backend == "sagemaker" and report.ok else None
    if as_json:
        write_json({"job": job, "request": request, "check": report.to_dict()})
    else:
        nested = {name: values for name, values in job.items() if isinstance(values, dict) and values}
        write_fields({name: value for name, value in job.items() if name not in nested})
        for name, values in nested.items():
            write_text(f"\n{name}")
            write_fields({f"  {key}": value for key, value in values.items()})
        if request is not None:
            write_text(f"\nCreateTrainingJob\n{json.dumps(request, indent=2)}")
        write_text(f"\n{report}")
    if not report.ok:
        raise typer.Exit(1)


def _job(spec: JobSpec, backend: str) -> dict[str, Any]:
    from smkit.jobs.staging import stage

    code = stage(spec)
    return {
        "name": spec.name,
        "backend": backend,
        "entry_point": code.entry_point,
        "code": {**code.describe(), "files": sorted(code.files)},
        "inputs": {name: channel.describe() for name, channel in spec.channels.items()},
        "hyperparameters": spec.plain_hyperparameters(),
        "metric_definitions": dict(spec.metric_definitions),
        "environment": dict.fromkeys(sorted(spec.environment), _HIDDEN),
        "timeout": spec.timeout,
        "framework_version": spec.framework_version,
        "instance_type": spec.instance_type,
    }


def _request(runner: JobRunner, spec: JobSpec) -> dict[str, Any]:
    from smkit.jobs.sagemaker.backend import SageMakerBackend
    from smkit.jobs.sagemaker.request import training_request

    request = training_request(SageMakerBackend(runner.settings).prepare(spec).plan)
    # As everywhere, the values of variables are not shown.
    given = request.get("Environment", {})
    return request | ({"Environment": dict.fromkeys(given, _HIDDEN)} if given else {})
