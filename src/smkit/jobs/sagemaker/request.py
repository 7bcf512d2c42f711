"""A plan as the CreateTrainingJob request: field for field what the SDK's `SKLearn.fit` sends, without the SDK.

Only what was asked for is sent: the China API rejects fields that it has not launched yet.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError, did_you_mean
from smkit.jobs import contract
from smkit.jobs.sagemaker.limits import broken_limits, service_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.jobs.sagemaker.plan import TrainingPlan

#: The channel that brings the code to a container without network, and where it lies there.
CODE_CHANNEL = "code"
_CODE_IN_CONTAINER = f"/opt/ml/input/data/{CODE_CHANNEL}/sourcedir.tar.gz"

#: Field of the request -> what sets it, for those that smkit may send itself.
_OWN_FIELDS = {
    "AlgorithmSpecification": "framework_version, image_uri, input_mode or metric_definitions",
    "CheckpointConfig": "checkpoint_uri",
    "EnableManagedSpotTraining": "spot",
    "EnableNetworkIsolation": "network_isolation",
    "Environment": "environment",
    "HyperParameters": "hyperparameters",
    "InputDataConfig": "the channels",
    "OutputDataConfig": "the settings' root and kms_key",
    "ResourceConfig": "instance_type, volume_size, keep_alive or kms_key",
    "RoleArn": "the setting role",
    "StoppingCondition": "timeout or max_wait",
    "Tags": "tags",
    "TrainingJobName": "the job's name",
    "VpcConfig": "subnets and security_groups",
}
# `_validate_not_gpu_instance_type` of the SDK's SKLearn: both ways of asking refuse the same instances.
_REFUSED_INSTANCES = frozenset(
    f"ml.{family}.{size}" for family in ("p2", "p3") for size in ("xlarge", "8xlarge", "16xlarge")
)
# `volume_size_supported` of the SDK's utils: these have disks of their own, which encrypt themselves.
_FAMILIES_WITH_DISKS = ("g5", "g6", "p5", "trn1")


def training_request(plan: TrainingPlan, model: Any = None) -> dict[str, Any]:
    """Spell a plan as the arguments of boto3's `create_training_job`.

    Args:
        plan: What is asked for.
        model: botocore's model of SageMaker, as a client has it; default: read from disk, once.

    Raises:
        ConfigError: A field of `extra` is smkit's own, unknown, or not what the API takes; the instance is one that
            scikit-learn cannot use; a channel has the name of the code's; a hyperparameter is not JSON; or a value
            breaks a limit of the API, such as 512 characters of an environment variable.
    """
    check_plan(plan)
    channels = dict(plan.channels)
    submit_directory = plan.source_uri
    if plan.network_isolation:
        # The container cannot reach S3, so the code comes as data does.
        channels[CODE_CHANNEL] = plan.source_uri
        submit_directory = _CODE_IN_CONTAINER
    config = contract.input_config(
        plan.hyperparameters,
        channels,
        job_name=plan.name,
        region=plan.region,
        entry_point=plan.entry_point,
        submit_directory=submit_directory,
        instance_type=plan.instance_type,
    )
    request: dict[str, Any] = {
        "TrainingJobName": plan.name,
        "RoleArn": plan.role,
        "AlgorithmSpecification": {"TrainingImage": plan.image_uri, "TrainingInputMode": plan.input_mode},
        "HyperParameters": dict(config.hyperparameters),
        "OutputDataConfig": _without_none(S3OutputPath=plan.output_uri, KmsKeyId=plan.kms_key),
        "ResourceConfig": _without_none(
            InstanceType=plan.instance_type,
            InstanceCount=1,
            VolumeSizeInGB=plan.volume_size,
            VolumeKmsKeyId=volume_key(plan),
            KeepAlivePeriodInSeconds=plan.keep_alive,
        ),
        "StoppingCondition": _without_none(MaxRuntimeInSeconds=plan.max_run, MaxWaitTimeInSeconds=plan.max_wait),
    }
    if plan.metric_definitions:
        request["AlgorithmSpecification"]["MetricDefinitions"] = metric_list(plan)
    if channels:
        request["InputDataConfig"] = [_channel(name, uri) for name, uri in channels.items()]
    if plan.environment:
        request["Environment"] = dict(plan.environment)
    if plan.subnets:
        request["VpcConfig"] = {"Subnets": list(plan.subnets), "SecurityGroupIds": list(plan.security_groups)}
    if plan.network_isolation:
        request["EnableNetworkIsolation"] = True
    if plan.spot:
        request["EnableManagedSpotTraining"] = True
    if plan.checkpoint_uri is not None:
        request["CheckpointConfig"] = {"S3Uri": plan.checkpoint_uri}
    if plan.tags:
        request["Tags"] = tag_list(plan)
    request |= copy.deepcopy(dict(plan.extra))
    _check_limits(request, model)
    return request


def check_plan(plan: TrainingPlan) -> None:
    """Refuse what one of the two ways of asking could not send.

    Raises:
        ConfigError: As `training_request`.
    """
    if plan.instance_type in _REFUSED_INSTANCES:
        raise ConfigError(
            f"instance_type {plan.instance_type!r} has GPUs, which scikit-learn does not use: choose a CPU instance, "
            "such as 'ml.m5.xlarge' or 'ml.c5.4xlarge'"
        )
    if plan.network_isolation and CODE_CHANNEL in plan.channels:
        raise ConfigError(
            f"the channel {CODE_CHANNEL!r} is taken: with network_isolation it brings the code itself; rename yours"
        )
    _check_extra(plan.extra)


def volume_key(plan: TrainingPlan) -> str | None:
    """Return the key of the instance's volume, or None: instances with disks of their own take none.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html, VolumeKmsKeyId
    """
    family = plan.instance_type.removeprefix("ml.").partition(".")[0]
    has_disks = "d" in family or family.startswith(_FAMILIES_WITH_DISKS)
    return None if has_disks else plan.kms_key


def metric_list(plan: TrainingPlan) -> list[dict[str, str]]:
    """Return the metric definitions in the API's words."""
    return [{"Name": name, "Regex": pattern} for name, pattern in plan.metric_definitions.items()]


def tag_list(plan: TrainingPlan) -> list[dict[str, str]]:
    """Return the tags in the API's words."""
    return [{"Key": key, "Value": value} for key, value in plan.tags.items()]


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _check_limits(request: dict[str, Any], model: Any) -> None:
    """Refuse what the service would refuse once everything is uploaded."""
    broken = [
        # A newer instance than this boto3 knows is for the service to judge.
        f"{item}; it is set by {_OWN_FIELDS.get(str(item.path[0]), 'extra')}"
        for item in broken_limits("CreateTrainingJob", request, model)
        if item.kind != "enum"
    ]
    if broken:
        raise ConfigError("SageMaker would refuse the job: " + ". ".join(broken))


def _check_extra(extra: Mapping[str, Any]) -> None:
    if not extra:
        return
    for name in extra:
        if setter := _OWN_FIELDS.get(name):
            raise ConfigError(f"extra[{name!r}] is a field that smkit sends itself: set {setter} instead")
    from botocore.validate import ParamValidator

    shape = service_model().operation_model("CreateTrainingJob").input_shape
    for name, value in extra.items():
        if name not in shape.members:
            free = [field for field in shape.members if field not in _OWN_FIELDS]
            raise ConfigError(
                f"extra[{name!r}] is no field of CreateTrainingJob that boto3 {version('boto3')} knows"
                f"{did_you_mean(name, free)}; fields are {', '.join(free)}. A newer field needs a newer boto3"
            )
        report = ParamValidator().validate(value, shape.members[name])
        if report.has_errors():
            raise ConfigError(f"extra[{name!r}] is not what CreateTrainingJob takes: {report.generate_report()}")
