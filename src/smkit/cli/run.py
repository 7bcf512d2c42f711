"""`smkit run`: what `JobRunner.run` does, on the command line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smkit.cli.completion import dataset_refs, model_names
from smkit.cli.job_output import check_publishing, facts, see_through
from smkit.cli.output import write_json, write_message, write_text
from smkit.cli.parameters import parse_duration, parse_environment, parse_hyperparameters, parse_pairs
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.config import Settings

_SCRIPT, _DATASET_SCRIPT = "train.py", "dataset.py"


def run(
    context: typer.Context,
    script: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCRIPT",
            help="The training script; with --source-dir, a path inside it. Left out: train.py in the project's "
            "folder. Without --dataset and --input it gets what build(settings) of a dataset.py beside it returns.",
        ),
    ] = None,
    *,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="REF",
            help="The dataset: houses@3, or houses (the latest); a channel for each split.",
            autocompletion=dataset_refs,
        ),
    ] = None,
    dataset_script: Annotated[
        Path | None,
        typer.Option(
            "--dataset-script", metavar="FILE", help="A script whose build(settings) returns the dataset; run first."
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="CHANNEL=PATH", help="A file, a folder or an s3:// URI; may be repeated."
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="A hyperparameter: JSON where it reads as JSON, else text; '\"5\"' is the text 5. May be repeated.",
        ),
    ] = None,
    params_file: Annotated[
        Path | None, typer.Option("--params-file", metavar="FILE", help="Hyperparameters: a .json or .toml file.")
    ] = None,
    source_dir: Annotated[
        Path | None, typer.Option("--source-dir", metavar="FOLDER", help="Its content travels with the script.")
    ] = None,
    dependency: Annotated[
        list[Path] | None,
        typer.Option(
            "--dependency", metavar="PATH", help="A file or folder that travels along, to import; may be repeated."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The job's name; default: a new one.")] = (
        None
    ),
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="DURATION", help="Stop the job then: seconds, or such as 90m or 1h30m."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="NAME=REGEX", help="A metric in the log; one group holds its value. May be repeated."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            metavar="NAME[=VALUE]",
            help="A variable for the script; NAME alone passes this shell's on. May be repeated.",
        ),
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option("--instance-type", metavar="TYPE", help="The instance, such as ml.m5.large.")
    ] = None,
    framework_version: Annotated[
        str | None, typer.Option("--framework-version", metavar="TAG", help="Tag of the scikit-learn image: 1.2-1.")
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            metavar="NAME",
            help="What runs a job on this machine: host, or the Python and packages of an image: 1.2-1.",
        ),
    ] = None,
    spot: Annotated[
        bool | None, typer.Option("--spot/--no-spot", help="SageMaker: spare capacity at a lower price.")
    ] = None,
    max_wait: Annotated[
        str | None,
        typer.Option("--max-wait", metavar="DURATION", help="SageMaker: longest wait for spot capacity and the job."),
    ] = None,
    checkpoint_uri: Annotated[
        str | None,
        typer.Option("--checkpoint-uri", metavar="URI", help="SageMaker: where /opt/ml/checkpoints is kept."),
    ] = None,
    volume_size: Annotated[
        int | None, typer.Option("--volume-size", metavar="GB", help="SageMaker: the instance's storage.")
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option("--keep-alive", metavar="DURATION", help="SageMaker: keep the instance for the next job."),
    ] = None,
    input_mode: Annotated[
        str | None, typer.Option("--input-mode", metavar="MODE", help="SageMaker: File, or FastFile, which streams.")
    ] = None,
    image_uri: Annotated[
        str | None, typer.Option("--image-uri", metavar="URI", help="SageMaker: an image of your own.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="SageMaker: a tag; may be repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end and show the log.")] = True,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Before a job that costs money, look for what would fail.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent and what a check finds; start nothing.")
    ] = False,
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
        str | None, typer.Option("--promote", metavar="ALIAS", help="Let this alias name what was published.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the job's facts as one JSON document; its log goes to stderr.")
    ] = False,
) -> None:
    """Run a training script to its end, and show its log.

    Ctrl-C stops a job on this machine; one on SageMaker goes on. A job that failed is exit code 1.

    Examples, one to a line:

    smkit run

    smkit run train.py --dataset houses@latest -p alpha=0.5

    smkit run train.py -i train=data/train.csv --publish houses

    smkit run train.py -d houses --backend sagemaker --spot --dry-run
    """
    from smkit.jobs import JobRunner

    check_publishing(publish, promote, waits=wait)
    settings = settings_of(context, local_environment=environment)
    entry_point, by_convention = _entry_point(script, source_dir)
    runner = JobRunner(settings)
    spec_on = partial(
        runner.spec,
        entry_point,
        source_dir=source_dir,
        dependencies=dependency,
        hyperparameters=parse_hyperparameters(param, params_file),
        job_name=name,
        timeout=parse_duration(timeout),
        metric_definitions=parse_pairs(metric, "rmse='rmse=([0-9.]+)'"),
        environment=parse_environment(env),
        instance_type=instance_type,
        framework_version=framework_version,
        sagemaker=_without_none(
            spot=spot,
            max_wait=parse_duration(max_wait),
            checkpoint_uri=checkpoint_uri,
            volume_size=volume_size,
            keep_alive=None if keep_alive is None else int(parse_duration(keep_alive) or 0),
            input_mode=input_mode,
            image_uri=image_uri,
            tags=parse_pairs(tag, "team=pricing") or None,
        ),
    )
    if dataset is None and dataset_script is None and not inputs:
        dataset_script = by_convention
    if dry_run:
        from smkit.cli.dry_run import show_dry_run

        if dataset_script is not None:
            write_message(f"smkit: {dataset_script.name} is not run: the job would get its dataset too")
        show_dry_run(runner, spec_on(_channels(dataset, None, inputs, settings)), as_json=as_json)
        return
    # What is wrong with the rest is said before a dataset is built.
    spec_on(None)
    spec = spec_on(_channels(dataset, dataset_script, inputs, settings))
    if wait:
        see_through(lambda: runner.run(spec, check=check), settings, model=publish, alias=promote, as_json=as_json)
        return
    job = runner.submit(spec, check=check)
    if as_json:
        write_json(facts(job) | {"published": None})
        return
    write_text(job.name)
    write_message(f"smkit: it goes on; its log: smkit jobs logs -f {job.name}; wait: smkit jobs attach {job.name}")


def _entry_point(script: Path | None, source_dir: Path | None) -> tuple[Path, Path | None]:
    """Return the script, and the dataset script beside it, if there is one."""
    from smkit._config_layers import project_folder
    from smkit.cli.dataset_script import defines_build

    if script is not None or source_dir is not None:
        entry_point = script or Path(_SCRIPT)
        beside = (source_dir or Path()) / entry_point.parent / _DATASET_SCRIPT
        # A dataset.py may as well be a module of the script's own.
        return entry_point, beside if defines_build(beside) else None
    folder = project_folder()
    entry_point, beside = folder / _SCRIPT, folder / _DATASET_SCRIPT
    if not entry_point.is_file():
        raise typer.BadParameter(f"name a script, such as smkit run train.py: there is no {_SCRIPT} in {folder}")
    return entry_point, beside if beside.is_file() else None


def _channels(
    dataset: str | None, dataset_script: Path | None, inputs: list[str] | None, settings: Settings
) -> Mapping[str, Any] | None:
    """Return the channels: those of the dataset, and those that were named."""
    if dataset is not None and dataset_script is not None:
        raise typer.BadParameter("--dataset and --dataset-script exclude each other: a job has one dataset")
    channels: dict[str, Any] = {}
    if dataset is not None:
        from smkit.datasets import DatasetStore

        channels |= DatasetStore(settings).get(dataset).channels()
    if dataset_script is not None:
        from smkit.cli.dataset_script import build_dataset

        channels |= build_dataset(dataset_script.absolute(), settings).channels()
    named = parse_pairs(inputs, "train=data/train.csv")
    if both := [channel for channel in named if channel in channels]:
        raise typer.BadParameter(f"channel {both[0]!r} is a split of the dataset already: name the input otherwise")
    return channels | named or None


def _without_none(**values: Any) -> dict[str, Any] | None:
    return {name: value for name, value in values.items() if value is not None} or None
