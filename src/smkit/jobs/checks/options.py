"""Do the options of a job fit one another, and the limits that the team set itself?"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from smkit.aws import parse_arn, partition_of
from smkit.errors import ConfigError
from smkit.jobs.checks.report import Finding, problem, warning

if TYPE_CHECKING:
    from smkit.config import Settings
    from smkit.jobs.channels import Channel
    from smkit.jobs.spec import JobSpec
    from smkit.jobs.staging import StagedCode

#: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html, InputDataConfig
_MAX_CHANNELS = 20
#: As long as real ones.
_SOME_IMAGE = "registry.example.com/image:tag"
_SOME_ROLE = "arn:aws:iam::000000000000:role/role"
_INSTANCE = re.compile(r"ml\.(?P<family>[a-z][a-z0-9-]*)\.(?P<size>[a-z0-9-]+)")
_ACCELERATED = re.compile(r"(p|g|trn|inf|dl)[0-9]+[a-z0-9-]*")
_ECR = re.compile(r"[0-9]{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/")


def check_options(spec: JobSpec, settings: Settings) -> list[Finding]:
    """Return what is wrong with what SageMaker is asked for; nothing is read."""
    return [
        *_check_instance(spec),
        *_check_hours(spec, settings),
        *_check_homes(spec, settings),
        *_check_store(settings),
        *_check_channels(spec),
    ]


def check_request(spec: JobSpec, settings: Settings, code: StagedCode) -> list[Finding]:
    """Return what SageMaker would refuse of the request itself, such as what is too long; nothing is sent."""
    from smkit.jobs.sagemaker.planning import make_plan
    from smkit.jobs.sagemaker.request import training_request

    if not settings.root.startswith("s3://"):
        return []
    role = settings.role if settings.role and settings.role.startswith("arn:") else _SOME_ROLE
    # Whether the image exists is another question.
    image_uri = spec.sagemaker.image_uri or _SOME_IMAGE
    asked = replace(spec, sagemaker=replace(spec.sagemaker, image_uri=image_uri))
    channels = {name: _where(channel, settings.root) for name, channel in list(spec.channels.items())[:_MAX_CHANNELS]}
    try:
        plan = make_plan(asked, settings, code, channels, root=settings.root, folder=spec.name, role=role)
        training_request(plan)
    except ConfigError as error:
        return [problem("request", str(error))]
    return []


def _where(channel: Channel, root: str) -> str:
    return channel.uri if channel.uri.startswith("s3://") else f"{root}/inputs/{'0' * 64}/"


def worst_case_hours(spec: JobSpec) -> float:
    """Return the most instance-hours that a job can be billed for: it runs until it is stopped, then is kept warm."""
    return ((spec.max_wait or spec.max_run) + (spec.sagemaker.keep_alive or 0)) / 3600


def _check_instance(spec: JobSpec) -> list[Finding]:
    match = _INSTANCE.fullmatch(spec.instance_type)
    if match is None:
        what = f"{spec.instance_type!r} is not an instance of SageMaker"
        return [problem("instance_type", what, "name one such as 'ml.m5.large'")]
    if _ACCELERATED.fullmatch(match["family"]):
        what = (
            f"{spec.instance_type} has accelerators, which scikit-learn does not use, and costs several times as much"
        )
        return [warning("instance_type", what, "choose a CPU instance such as 'ml.m5.xlarge' or 'ml.c5.2xlarge'")]
    return []


def _check_hours(spec: JobSpec, settings: Settings) -> list[Finding]:
    limit = settings.max_instance_hours
    hours = worst_case_hours(spec)
    if limit is None or hours <= limit:
        return []
    running = f"max_wait {spec.max_wait} s" if spec.max_wait else f"timeout {spec.max_run} s"
    warm = f" + keep_alive {spec.sagemaker.keep_alive} s" if spec.sagemaker.keep_alive else ""
    what = f"the job may cost {hours:.3g} instance-hours at worst ({running}{warm}); the settings allow {limit:g}"
    return [problem("max_instance_hours", what, "pass a shorter timeout, or raise max_instance_hours")]


def _check_homes(spec: JobSpec, settings: Settings) -> list[Finding]:
    """Partitions and regions share nothing: what is named must be of the job's own."""
    found = []
    options, region = spec.sagemaker, settings.region
    if spec.region != region:
        found.append(problem("region", f"the job says {spec.region!r}, the settings {region!r}", "make them equal"))
    if options.kms_key and options.kms_key.startswith("arn:"):
        try:
            arn = parse_arn(options.kms_key)
        except ConfigError as error:
            found.append(problem("kms_key", str(error)))
        else:
            if (arn.partition, arn.region) != (partition_of(region), region):
                what = f"{options.kms_key!r} is of {arn.region} ({arn.partition}), the job of {region}"
                found.append(problem("kms_key", what, "use a key of the job's region"))
    if options.image_uri and (match := _ECR.match(options.image_uri)) and match["region"] != region:
        what = f"{options.image_uri!r} lies in {match['region']}; SageMaker in {region} pulls from {region} only"
        found.append(problem("image_uri", what, f"push the image to a repository in {region}"))
    return found


def _check_store(settings: Settings) -> list[Finding]:
    if settings.root.startswith("s3://"):
        return []
    what = f"the store is the folder {settings.root!r}; SageMaker reads and writes S3 only"
    return [problem("root", what, "set bucket (SMKIT_BUCKET)")]


def _check_channels(spec: JobSpec) -> list[Finding]:
    if len(spec.channels) <= _MAX_CHANNELS:
        return []
    what = f"{len(spec.channels)} channels; SageMaker takes at most {_MAX_CHANNELS}"
    return [problem("inputs", what, "put several files into one channel")]
