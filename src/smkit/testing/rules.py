"""What the service checks of CreateTrainingJob beside the model's constraints, and what the sandbox cannot run."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from botocore.exceptions import ClientError

from smkit.aws import parse_arn, partition_of, split_s3_uri
from smkit.errors import ConfigError
from smkit.testing.answers import invalid
from smkit.testing.constraints import must_not_be_null

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smkit.testing.moto_server import MotoServer

_SAGEMAKER = "sagemaker.amazonaws.com"
_REPOSITORY = "sagemaker-scikit-learn"
#: Host of ECR: https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z.]+)/(?P<name>[^:@]+):(?P<tag>[\w.-]+)"
)
_SUFFIXES = {
    "aws-cn": "amazonaws.com.cn",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
}
_TAG = re.compile(r"(?P<version>[0-9][\w.-]*)-cpu-py3")
_MAX_RUNTIME_SECONDS = 28 * 24 * 3600


def image_host_suffix(region: str) -> str:
    """Return how the registry's host ends: `amazonaws.com.cn` in China."""
    return _SUFFIXES.get(partition_of(region), "amazonaws.com")


def framework_version(image: str) -> str | None:
    """Return the tag of the scikit-learn image without `-cpu-py3`, or None for any other image."""
    match = _IMAGE.fullmatch(image)
    if match is None or match["name"] != _REPOSITORY:
        return None
    tag = _TAG.fullmatch(match["tag"])
    return tag["version"] if tag else None


class CreationRules:
    """Checks a request for a new job against the account.

    Args:
        moto: Where roles and buckets are.
        region: The sandbox's region.
        account: The sandbox's account.
        is_allowed_image: Whether an image that is not AWS's own scikit-learn image may be used.
    """

    def __init__(self, moto: MotoServer, region: str, account: str, is_allowed_image: Callable[[str], bool]) -> None:
        self._moto = moto
        self._region = region
        self._account = account
        self._is_allowed_image = is_allowed_image

    def check(self, body: Mapping[str, Any]) -> None:
        """Check a request that meets the model's constraints.

        Raises:
            ErrorAnswer: The service would refuse it, or the sandbox cannot run it.
        """
        for member in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
            if body.get(member) is None:
                raise must_not_be_null(member[0].lower() + member[1:])
        self._check_algorithm(body["AlgorithmSpecification"])
        self._check_resources(body)
        self._check_times(body)
        self._check_role(body["RoleArn"])
        self._check_channels(body)
        if body["OutputDataConfig"].get("CompressionType", "GZIP") != "GZIP":
            raise invalid("the sandbox uploads archives only: leave out OutputDataConfig.CompressionType")
        for where, uri in (
            ("output data config", body["OutputDataConfig"]["S3OutputPath"]),
            ("checkpoint config", (body.get("CheckpointConfig") or {}).get("S3Uri")),
        ):
            if uri is not None:
                self._check_bucket(where, uri)

    def _check_algorithm(self, algorithm: Mapping[str, Any]) -> None:
        if algorithm.get("AlgorithmName"):
            raise invalid("the sandbox runs no marketplace algorithm: pass TrainingImage")
        image = algorithm.get("TrainingImage")
        if image is None:
            raise must_not_be_null("algorithmSpecification.trainingImage")
        if not self._is_allowed_image(image):
            match = _IMAGE.fullmatch(image)
            if match is None or match["suffix"] != image_host_suffix(self._region) or match["region"] != self._region:
                raise invalid(
                    f"Invalid TrainingImage {image!r}: expected <account>.dkr.ecr.{self._region}."
                    f"{image_host_suffix(self._region)}/<repository>:<tag>"
                )
            if framework_version(image) is None:
                raise invalid(
                    f"the sandbox runs scikit-learn images ({_REPOSITORY}:<version>-cpu-py3), not {image!r}; "
                    "allow_image(...) accepts others, which run in this Python all the same"
                )
        if algorithm["TrainingInputMode"] == "Pipe":
            raise invalid("the sandbox has no Pipe mode: use File or FastFile")
        if algorithm.get("ContainerEntrypoint") or algorithm.get("ContainerArguments"):
            raise invalid("the sandbox runs the toolkit's entry point: leave out ContainerEntrypoint")
        for definition in algorithm.get("MetricDefinitions") or ():
            _check_regex(definition["Name"], definition["Regex"])

    def _check_resources(self, body: Mapping[str, Any]) -> None:
        resources = body["ResourceConfig"]
        if resources.get("InstanceGroups") or resources.get("InstancePreferences"):
            raise invalid("the sandbox has no instance groups: pass InstanceType and InstanceCount")
        for member in ("InstanceType", "InstanceCount", "VolumeSizeInGB"):
            if resources.get(member) is None:
                raise must_not_be_null(f"resourceConfig.{member[0].lower()}{member[1:]}")
        if resources["InstanceCount"] != 1:
            raise invalid(f"the sandbox has one instance for a job, not {resources['InstanceCount']}")
        if resources["VolumeSizeInGB"] < 1:
            raise invalid(
                "1 validation error detected: Value '0' at 'resourceConfig.volumeSizeInGB' failed to satisfy "
                "constraint: Member must have value greater than or equal to 1"
            )
        if resources.get("KeepAlivePeriodInSeconds") and body.get("EnableManagedSpotTraining"):
            raise invalid("KeepAlivePeriodInSeconds is not supported when EnableManagedSpotTraining is set to true")

    @staticmethod
    def _check_times(body: Mapping[str, Any]) -> None:
        condition = body["StoppingCondition"]
        runtime = condition.get("MaxRuntimeInSeconds", 24 * 3600)
        wait = condition.get("MaxWaitTimeInSeconds")
        if runtime > _MAX_RUNTIME_SECONDS:
            raise invalid(f"Invalid MaxRuntimeInSeconds. It must be at most {_MAX_RUNTIME_SECONDS}")
        if not body.get("EnableManagedSpotTraining"):
            if wait is not None:
                raise invalid(
                    "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
                )
        elif wait is None or wait < runtime:
            raise invalid(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )

    def _check_role(self, arn: str) -> None:
        try:
            role = parse_arn(arn)
        except ConfigError:
            raise invalid(f"RoleArn: {arn} is not an ARN") from None
        if role.partition != partition_of(self._region) or role.account != self._account:
            raise invalid("RoleArn: Cross-account pass role is not allowed.")
        try:
            answer = self._moto.client("iam").get_role(RoleName=role.resource.rpartition("/")[2])
            trusted = _trusts_sagemaker(answer["Role"]["AssumeRolePolicyDocument"])
        except ClientError:
            trusted = False
        if not trusted:
            raise invalid(
                f"Could not assume role {arn}. Please ensure that the role exists and allows principal '{_SAGEMAKER}' "
                "to assume the role."
            )

    def _check_channels(self, body: Mapping[str, Any]) -> None:
        seen: set[str] = set()
        for channel in body.get("InputDataConfig") or ():
            name = channel["ChannelName"]
            if name in seen:
                raise invalid(f"Duplicate channel name {name} in InputDataConfig: channel names must be unique")
            seen.add(name)
            source = channel["DataSource"].get("S3DataSource")
            if source is None or source["S3DataType"] not in {"S3Prefix", "ManifestFile"}:
                raise invalid(f"the sandbox reads channels of S3Prefix and ManifestFile only, not channel {name}")
            if channel.get("InputMode") == "Pipe":
                raise invalid("the sandbox has no Pipe mode: use File or FastFile")
            self._check_objects(source["S3Uri"], body["RoleArn"])

    def _check_objects(self, uri: str, role: str) -> None:
        bucket, prefix = _bucket_and_key(uri)
        try:
            found = self._moto.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["KeyCount"]
        except ClientError:
            found = 0
        if not found:
            raise invalid(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({self._region}), that objects exist under that S3 prefix, and that "
                f'the role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
            )

    def _check_bucket(self, where: str, uri: str) -> None:
        bucket, _ = _bucket_and_key(uri)
        try:
            self._moto.client("s3").head_bucket(Bucket=bucket)
        except ClientError:
            raise invalid(
                f'The S3 bucket "{bucket}" given in the {where} does not exist or cannot be accessed. Please ensure '
                f"that it exists in the selected region ({self._region})."
            ) from None


def _check_regex(metric: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise invalid(f"Invalid regular expression for metric {metric}: {pattern} ({error})") from None


def _bucket_and_key(uri: str) -> tuple[str, str]:
    try:
        return split_s3_uri(uri)
    except ConfigError:
        raise invalid(f"Invalid S3 URI {uri!r}: expected s3://<bucket>/<key>") from None


def _trusts_sagemaker(document: Any) -> bool:
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    for statement in policy.get("Statement", ()):
        principal = statement.get("Principal")
        services = principal.get("Service", ()) if isinstance(principal, dict) else ()
        if statement.get("Effect") == "Allow" and _SAGEMAKER in ([services] if isinstance(services, str) else services):
            return True
    return False
