"""Would the account run this job? Each question is one call or two; none changes anything that can be seen."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from smkit.aws import parse_arn, split_s3_uri
from smkit.aws_errors import AWS_ERRORS, error_code, explain_aws_error
from smkit.errors import ConfigError, did_you_mean
from smkit.jobs.checks.calls import cannot_ask, is_denied
from smkit.jobs.checks.inputs import region_of
from smkit.jobs.checks.network import check_network
from smkit.jobs.checks.report import Finding, problem, unknown, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smkit.config import Settings
    from smkit.jobs.spec import JobSpec

#: The same in every partition, aws-cn too.
_SERVICE = "sagemaker.amazonaws.com"
_ECR = re.compile(r"(?P<account>[0-9]{12})\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/(?P<name>[^:@]+)(?P<tag>.*)")
_MISSING_IMAGE = frozenset({"ImageNotFoundException", "RepositoryNotFoundException"})
_MISSING_BUCKET = frozenset({"NoSuchBucket", "404", "NotFound"})


@dataclass(frozen=True)
class Caller:
    """Whose credentials are used.

    Args:
        account: Account number.
        partition: Partition of the credentials.
    """

    account: str
    partition: str


def identify(settings: Settings) -> tuple[Caller | None, list[Finding]]:
    """Ask STS who the caller is; None where nothing else need be asked, since the credentials do not work."""
    try:
        identity = settings.client("sts").get_caller_identity()
    except ConfigError as error:
        return None, [problem("credentials", str(error))]
    except AWS_ERRORS as error:
        said = explain_aws_error(error, "sign in")
        if _has_answer(error):
            return None, [problem("credentials", said)]
        return None, [unknown("account", f"nothing in the account was checked: {said}")]
    arn = parse_arn(identity["Arn"])
    caller = Caller(str(identity["Account"]), arn.partition)
    if arn.partition != settings.partition:
        what = (
            f"the credentials are of partition {arn.partition}, region {settings.region!r} is of {settings.partition}: "
            "accounts, buckets and roles of one partition do not exist in another"
        )
        return None, [problem("credentials", what, f"set profile to one of {settings.partition}, or change region")]
    return caller, []


def _has_answer(error: Exception) -> bool:
    """Whether the credentials are at fault, not the network."""
    from botocore.exceptions import ConnectionError as BotoConnectionError
    from botocore.exceptions import HTTPClientError

    return not isinstance(error, HTTPClientError | BotoConnectionError) and not is_denied(error)


def account_checks(spec: JobSpec, settings: Settings, caller: Caller) -> dict[str, Callable[[], Sequence[Finding]]]:
    """Return subject -> check, of everything that the account is asked."""
    checks: dict[str, Callable[[], Sequence[Finding]]] = {
        "role": lambda: check_role(settings, caller),
        "image": lambda: check_image(spec, settings, caller),
        "job_name": lambda: check_name(spec, settings),
        "instance_type": lambda: check_instance(spec, settings),
    }
    if settings.root.startswith("s3://"):
        checks["bucket"] = lambda: check_bucket(settings, caller)
    if key := spec.sagemaker.kms_key or settings.kms_key:
        checks["kms_key"] = lambda: check_key(key, settings)
    network = spec.sagemaker if spec.sagemaker.subnets else settings
    if network.subnets:
        checks["network"] = lambda: check_network(network.subnets, network.security_groups, settings)
    return checks


def check_role(settings: Settings, caller: Caller) -> list[Finding]:
    """Does the execution role exist, in this account, and may SageMaker assume it?"""
    if settings.role is None:
        what = "no execution role is set: SageMaker acts as this role when it reads data and writes the model"
        return [problem("role", what, "set role (SMKIT_ROLE), an ARN or a name")]
    name = settings.role
    if name.startswith("arn:"):
        arn = parse_arn(name)
        if arn.account != caller.account:
            what = f"{settings.role!r} is of account {arn.account}, the credentials are of {caller.account}"
            return [problem("role", what, "use a role of the account, or a profile of the role's")]
        # arn:aws-cn:iam::123456789012:role/some/path/name
        name = arn.resource.rpartition("/")[2]
    try:
        role = settings.client("iam").get_role(RoleName=name)["Role"]
    except AWS_ERRORS as error:
        if error_code(error) == "NoSuchEntity":
            return [
                problem("role", f"there is no role {name!r} in account {caller.account}", "create it, or correct it")
            ]
        return [cannot_ask("role", error, f"read the role {name}")]
    if not _is_trusted(role.get("AssumeRolePolicyDocument", {})):
        what = f"the trust policy of {name!r} does not let SageMaker assume the role"
        return [problem("role", what, f"allow the service {_SERVICE} the action sts:AssumeRole in its trust policy")]
    return []


def _is_trusted(policy: Any) -> bool:
    """Whether a trust policy allows SageMaker; its conditions are not judged."""
    statements = policy.get("Statement", []) if isinstance(policy, dict) else []
    return any(_allows_sagemaker(statement) for statement in _as_list(statements))


def _allows_sagemaker(statement: dict[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    services = principal.get("Service", []) if isinstance(principal, dict) else principal
    actions = [str(action).lower() for action in _as_list(statement.get("Action", []))]
    return (
        statement.get("Effect") == "Allow"
        and bool({_SERVICE, "*"} & set(_as_list(services)))
        and any(fnmatchcase("sts:assumerole", action) for action in actions)
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_bucket(settings: Settings, caller: Caller) -> list[Finding]:
    """Does the store's bucket exist, in the job's region and the caller's account, and may the caller write to it?"""
    bucket, prefix = split_s3_uri(settings.root)
    client = settings.client("s3")
    try:
        home = region_of(client, bucket, default=settings.region)
    except AWS_ERRORS as error:
        if error_code(error) in _MISSING_BUCKET:
            what = f"the bucket {bucket!r} does not exist in partition {settings.partition}"
            return [problem("bucket", what, "create it, or correct its name")]
        return [cannot_ask("bucket", error, f"find the bucket {bucket}")]
    if home != settings.region:
        what = f"the bucket {bucket!r} is in {home}, the job in {settings.region}; SageMaker needs them in one region"
        return [problem("bucket", what, f"set region to {home!r}, or use a bucket in {settings.region}")]
    if _is_foreign(client, bucket, caller.account):
        what = f"the bucket {bucket!r} belongs to another account than the caller's, {caller.account}"
        fix = "use a bucket of your own: the code and the model of each job are written there, for its owner to change"
        return [problem("bucket", what, fix)]
    # An upload that is begun and aborted needs the permission to write, and the key's, and leaves nothing behind.
    folder = f"{prefix.rstrip('/')}/jobs".lstrip("/")
    place = {
        "Bucket": bucket,
        "Key": f"{folder}/.check-{secrets.token_hex(8)}",
        "ExpectedBucketOwner": caller.account,
    }
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms_key} if settings.kms_key else {}
    try:
        upload = client.create_multipart_upload(**place, **encryption)["UploadId"]
    except AWS_ERRORS as error:
        said = explain_aws_error(error, f"write to {settings.root}/jobs")
        if is_denied(error):
            where = f"arn:{settings.partition}:s3:::{bucket}/{folder}/*"
            fix = (
                f"allow s3:PutObject on {where} to the caller, and under a KMS key kms:GenerateDataKey and kms:Decrypt"
            )
            return [problem("bucket", said, fix)]
        if error_code(error).startswith("KMS."):
            return [problem("bucket", said, "enable the key, or set kms_key or the bucket's default to another")]
        return [cannot_ask("bucket", error, f"write to {settings.root}/jobs")]
    try:
        client.abort_multipart_upload(**place, UploadId=upload)
    except AWS_ERRORS as error:
        said = explain_aws_error(error, "abort an upload")
        what = f"an empty upload of the key {place['Key']!r} stays begun: {said}"
        return [warning("bucket", what, "let a lifecycle rule of the bucket abort unfinished uploads")]
    return []


def _is_foreign(client: Any, bucket: str, account: str) -> bool:
    """Whether S3 shows a bucket, but not as one of the account; where it shows none, the write will tell."""
    try:
        client.head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
    except AWS_ERRORS as error:
        if not is_denied(error):
            return False
    else:
        return False
    try:
        client.head_bucket(Bucket=bucket)
    except AWS_ERRORS:
        return False
    return True


def check_key(key: str, settings: Settings) -> list[Finding]:
    """Does the KMS key exist in the region, and is it usable?"""
    try:
        facts = settings.client("kms").describe_key(KeyId=key)["KeyMetadata"]
    except AWS_ERRORS as error:
        if error_code(error) in {"NotFoundException", "InvalidArnException"}:
            return [problem("kms_key", f"there is no key {key!r} in {settings.region}", "create it, or correct it")]
        return [cannot_ask("kms_key", error, f"read the key {key}")]
    if not facts.get("Enabled", False):
        return [problem("kms_key", f"the key {key!r} is {facts.get('KeyState', 'not enabled')}", "enable it")]
    if facts.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
        what = f"the key {key!r} is asymmetric ({facts['KeySpec']}); S3 and SageMaker encrypt with symmetric keys only"
        return [problem("kms_key", what, "use a symmetric key")]
    return []


def check_image(spec: JobSpec, settings: Settings, caller: Caller) -> list[Finding]:
    """Is there an image to train in, and one to serve the model from?"""
    if spec.sagemaker.image_uri is not None:
        return _check_own_image(spec.sagemaker.image_uri, settings, caller)
    from smkit.jobs.sagemaker.images import has_inference_image, training_image

    try:
        training_image(spec.framework_version, settings.region)
    except ConfigError as error:
        return [problem("framework_version", str(error))]
    if not has_inference_image(spec.framework_version, settings.region):
        what = f"{spec.framework_version!r} has an image for training in {settings.region}, but none for endpoints"
        fix = "choose another framework_version if an endpoint shall serve the model; loading it with smkit works"
        return [warning("framework_version", what, fix)]
    return []


def _check_own_image(uri: str, settings: Settings, caller: Caller) -> list[Finding]:
    match = _ECR.fullmatch(uri)
    if match is None or match["account"] != caller.account:
        return [unknown("image_uri", f"{uri!r} is in another registry than the account's own, which is not asked")]
    tag = match["tag"]
    wanted = {"imageDigest": tag[1:]} if tag.startswith("@") else {"imageTag": tag[1:] or "latest"}
    try:
        settings.client("ecr").describe_images(repositoryName=match["name"], imageIds=[wanted])
    except AWS_ERRORS as error:
        if error_code(error) in _MISSING_IMAGE:
            return [problem("image_uri", f"there is no image {uri!r}", "push it, or correct the name and the tag")]
        return [cannot_ask("image_uri", error, f"find the image {uri}")]
    return []


def check_name(spec: JobSpec, settings: Settings) -> list[Finding]:
    """Is the job's name free? SageMaker never lets one be used again."""
    from smkit.jobs.sagemaker.service_errors import is_not_found

    try:
        settings.client("sagemaker").describe_training_job(TrainingJobName=spec.name)
    except AWS_ERRORS as error:
        if is_not_found(error):
            return []
        return [cannot_ask("job_name", error, "look for a job of this name")]
    what = f"a training job {spec.name!r} exists in {settings.region}; names are never free again"
    return [problem("job_name", what, "leave job_name out, or choose another")]


def check_instance(spec: JobSpec, settings: Settings) -> list[Finding]:
    """Is the instance one that boto3's description of SageMaker knows? Asks no service."""
    known = settings.client("sagemaker").meta.service_model.shape_for("TrainingInstanceType").enum
    if spec.instance_type in known:
        return []
    what = f"boto3 knows no instance {spec.instance_type!r} for training{did_you_mean(spec.instance_type, known)}"
    return [warning("instance_type", what, "correct it; if it is a new one, SageMaker itself will tell")]
