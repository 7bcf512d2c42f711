"""What DescribeTrainingJob says of a job, in smkit's words."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from smkit.environment import PACKAGES
from smkit.errors import ConfigError
from smkit.jobs import contract
from smkit.jobs.backend import JobStatus
from smkit.jobs.containers import image
from smkit.jobs.sagemaker.cloudwatch import console_link
from smkit.jobs.sagemaker.request import CODE_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINEAGE = (
    "entry_point",
    "hyperparameters",
    "inputs",
    "code",
    "framework_version",
    "instance_type",
    "image",
    "created",
)
# The toolkit's own words first: "exit code" is that of the container, 1 whatever the script's was.
# https://github.com/aws/sagemaker-training-toolkit, src/sagemaker_training/errors.py
_EXIT_CODES = (re.compile(r"\bExitCode (-?\d+)"), re.compile(r"\bexit code:? (\d+)", re.IGNORECASE))


def source_of(description: Mapping[str, Any]) -> str:
    """Return the URI of a job's code, or ""; it says which submission the job is."""
    wire = description.get("HyperParameters") or {}
    uri = str(contract.decode_hyperparameters(wire).get("sagemaker_submit_directory", ""))
    if uri.startswith("s3://"):
        return uri
    # Without a network the code comes as a channel.
    return _channels(description).get(CODE_CHANNEL, "")


def job_status(description: Mapping[str, Any], record: Mapping[str, Any], region: str) -> JobStatus:
    """Return the state of a job.

    Args:
        description: What DescribeTrainingJob answered.
        record: The job's record, or what `described_record` returned.
        region: The region.
    """
    name, status = description["TrainingJobName"], description["TrainingJobStatus"]
    reason = _reason(description)
    started, ended = _utc(description.get("TrainingStartTime")), _utc(description.get("TrainingEndTime"))
    model = description.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    lineage = {
        "schema_version": record.get("schema_version", 1),
        "job_name": name,
        "backend": "sagemaker",
        "status": status,
        **{key: record.get(key) for key in _LINEAGE},
        "environment": image_environment(record.get("framework_version"), custom=bool(record.get("custom_image"))),
        "created": _text(_utc(description.get("CreationTime"))) or record.get("created"),
        "started": _text(started),
        "ended": _text(ended),
    }
    return JobStatus(
        status=status,
        secondary_status=description.get("SecondaryStatus", status),
        reason=reason,
        exit_code=0 if status == "Completed" else _exit_code(reason),
        log_location=console_link(name, region),
        model_uri=model if status == "Completed" else None,
        lineage=lineage,
        started=started,
        ended=ended,
        billable_seconds=description.get("BillableTimeInSeconds"),
    )


def not_submitted(name: str, record: Mapping[str, Any], region: str) -> JobStatus:
    """Return the state of a job that has a record, and that SageMaker does not know."""
    lineage = {
        "schema_version": record["schema_version"],
        "job_name": name,
        "backend": "sagemaker",
        "status": "NotSubmitted",
        **{key: record.get(key) for key in _LINEAGE},
        "environment": image_environment(record.get("framework_version"), custom=bool(record.get("custom_image"))),
        "started": None,
        "ended": None,
    }
    return JobStatus(
        status="NotSubmitted",
        secondary_status="NotSubmitted",
        reason="SageMaker has no such job: it was refused, or whoever submitted it is still at it, or was killed; "
        "it may be submitted again under the same name",
        exit_code=None,
        log_location=console_link(name, region),
        lineage=lineage,
    )


def final_metrics(description: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that SageMaker itself found in the log, by the job's `metric_definitions`."""
    return {item["MetricName"]: float(item["Value"]) for item in description.get("FinalMetricDataList") or ()}


def image_environment(framework_version: str | None, *, custom: bool) -> dict[str, Any] | None:
    """Return what the image of a version contains as far as a model depends on it; None where that is not known."""
    if framework_version is None or custom:
        return None
    try:
        found = image(framework_version)
    except ConfigError:
        return None
    packages = {name: found.packages[name] for name in PACKAGES if name in found.packages}
    return {"python": ".".join(map(str, found.python)), "platform": None, "packages": packages}


def described_record(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what SageMaker itself remembers of a job that has no record, or whose record somebody deleted."""
    wire = description.get("HyperParameters") or {}
    channels = {name: uri for name, uri in _channels(description).items() if name != CODE_CHANNEL}
    algorithm = description.get("AlgorithmSpecification", {})
    return {
        "entry_point": contract.decode_hyperparameters(wire).get("sagemaker_program"),
        "hyperparameters": contract.script_hyperparameters(wire),
        "inputs": {name: {"uri": uri} for name, uri in channels.items()},
        "code": {"uri": source_of(description)},
        "instance_type": description.get("ResourceConfig", {}).get("InstanceType"),
        "image": algorithm.get("TrainingImage"),
        "custom_image": True,
        "metric_definitions": {item["Name"]: item["Regex"] for item in algorithm.get("MetricDefinitions") or ()},
    }


def _channels(description: Mapping[str, Any]) -> dict[str, str]:
    return {
        channel["ChannelName"]: channel.get("DataSource", {}).get("S3DataSource", {}).get("S3Uri", "")
        for channel in description.get("InputDataConfig") or ()
    }


def _reason(description: Mapping[str, Any]) -> str:
    if description.get("FailureReason"):
        return str(description["FailureReason"])
    if description["TrainingJobStatus"] not in {"Failed", "Stopped"}:
        return ""
    secondary = description.get("SecondaryStatus")
    if secondary == "MaxRuntimeExceeded":
        seconds = description.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
        return f"the job ran longer than its timeout of {seconds} s"
    if secondary == "MaxWaitTimeExceeded":
        seconds = description.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds")
        return f"waiting for spot capacity and running took longer than max_wait, {seconds} s"
    if description["TrainingJobStatus"] == "Stopped":
        return "a stop was requested"
    said = [item.get("StatusMessage") for item in description.get("SecondaryStatusTransitions") or ()]
    return next((text for text in reversed(said) if text), "SageMaker gives no reason")


def _exit_code(reason: str) -> int | None:
    for pattern in _EXIT_CODES:
        if found := pattern.search(reason):
            return int(found[1])
    return None


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(timezone.utc)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
