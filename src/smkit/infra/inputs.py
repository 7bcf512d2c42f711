"""What a stack is made of: its template, and its parameters from settings, options and what the stack has already.

Settings are declared: what they say is applied. An option that is not given (None) stays as the stack has it, so that a
second deployment without options changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 - dataclasses keep the annotations for readers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from smkit.aws import check_bucket, parse_arn, split_s3_uri
from smkit.errors import ConfigError, CredentialsError, InfraError
from smkit.infra.bucket import check_free, check_present
from smkit.infra.states import REVIEW
from smkit.infra.templates import Kind, read_template
from smkit.jobs.sagemaker.images import REGIONS
from smkit.jobs.sagemaker.service_errors import translated

if TYPE_CHECKING:
    from smkit.config import Settings
    from smkit.infra.results import StackStatus

_KEY_ARN = re.compile(r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")
# Secrets Manager ends a secret's ARN with six characters of its own; a name without them finds the secret too.
_WHOLE_SECRET_ARN = re.compile(r"arn:.*-[A-Za-z0-9]{6}")
_ANY_SUFFIX = "-??????"
_MAX_TEMPLATE_BYTES = 51_200


@dataclass(frozen=True)
class FoundationOptions:
    """What a foundation can be told beside the settings. None: as the stack has it, or the default.

    Args:
        bucket: Bucket of the store. Default: the settings', else `smkit-<project>-<account>-<region>`.
        existing_bucket: The bucket exists already: `use` leaves it as it is, `import` gives it to the stack.
        read_buckets: Names of further buckets that jobs and callers may read; `()` for none.
        write_buckets: Names of further buckets that they may read and write; `()` for none.
        noncurrent_days: Days after which deleted and overwritten objects are gone for good; 0: never. Default: 180.
        break_glass_role: ARN of the one role that may delete a published record; "" for none.
        permissions_boundary: ARN of the permissions boundary of the role; "" for none.
    """

    bucket: str | None = None
    existing_bucket: Literal["use", "import"] | None = None
    read_buckets: tuple[str, ...] | None = None
    write_buckets: tuple[str, ...] | None = None
    noncurrent_days: int | None = None
    break_glass_role: str | None = None
    permissions_boundary: str | None = None


@dataclass(frozen=True)
class StudioOptions:
    """What a Studio domain can be told beside the settings. None: as the stack has it, or the default.

    Args:
        users: Names of the user profiles; `()` for none.
        permissions_boundary: ARN of the permissions boundary of the role; "" for none. Default: the foundation's.
    """

    users: tuple[str, ...] | None = None
    permissions_boundary: str | None = None


@dataclass(frozen=True)
class StackInputs:
    """What a change set is made from.

    Args:
        template: YAML.
        parameters: Name -> value, of every parameter.
        imports: Whether resources that exist already are taken over.
    """

    template: str
    parameters: Mapping[str, str]
    imports: bool = False


def stack_name(project: str, kind: Kind) -> str:
    """Return the name of a project's stack; a stack's name has no underscores."""
    return f"smkit-{project.replace('_', '-')}-{kind}"


def caller_account(settings: Settings) -> str:
    """Return the caller's account number.

    Raises:
        CredentialsError: There are no credentials, or they are of another partition than the region.
        ServiceError: STS cannot be asked.
    """
    with translated("sign in"):
        identity = settings.client("sts").get_caller_identity()
    partition = parse_arn(identity["Arn"]).partition
    if partition != settings.partition:
        raise CredentialsError(
            f"the credentials are of partition {partition}, region {settings.region!r} is of {settings.partition}: set "
            f"profile to one of {settings.partition}, or change region"
        )
    return str(identity["Account"])


def check_project(settings: Settings, present: StackStatus | None) -> None:
    """Refuse the stack of another project: `a_b` and `a-b` share a stack's name.

    Raises:
        InfraError: It is of another project.
    """
    owner = present.parameters.get("Project") if present else None
    if present is not None and owner is not None and owner != settings.project:
        raise InfraError(
            f"stack {present.name!r} belongs to project {owner!r}, not to {settings.project!r}: rename one of the "
            "projects; '-' and '_' are the same in a stack's name"
        )


def foundation_inputs(
    settings: Settings, options: FoundationOptions, present: StackStatus | None, account: str
) -> StackInputs:
    """Work out what the foundation is made from.

    Raises:
        BucketTaken: The bucket that would be made exists.
        ConfigError: A value is malformed, contradicts another, or names something that does not exist.
        ServiceError: AWS cannot be asked.
    """
    if settings.region not in REGIONS:
        raise ConfigError(
            f"region {settings.region!r} has no scikit-learn images, which the role is to pull: use one of "
            f"{', '.join(REGIONS)}"
        )
    kept = _kept(present)
    bucket, prefix = _store(settings, options, kept, account)
    managed = {"use": "false", "import": "true"}.get(options.existing_bucket or "", kept.get("ManageBucket", "true"))
    has_it_already = kept.get("BucketName") == bucket and kept.get("ManageBucket") == "true"
    if managed == "false" or (options.existing_bucket == "import" and not has_it_already):
        check_present(bucket, account, settings)
    elif not has_it_already:
        check_free(bucket, account, settings)
    parameters = {
        "Project": settings.project,
        "BucketName": bucket,
        "Prefix": prefix,
        "ManageBucket": managed,
        "KmsKeyArn": _key_arn(settings),
        "NoncurrentVersionDays": _days(options.noncurrent_days, kept),
        "BreakGlassRoleArn": _arn(options.break_glass_role, "iam", kept.get("BreakGlassRoleArn", ""), settings),
        "PermissionsBoundaryArn": _arn(
            options.permissions_boundary, "iam", kept.get("PermissionsBoundaryArn", ""), settings
        ),
        "ReadBucketArns": _bucket_arns(options.read_buckets, kept.get("ReadBucketArns", ""), settings),
        "ReadWriteBucketArns": _bucket_arns(options.write_buckets, kept.get("ReadWriteBucketArns", ""), settings),
        "SubnetArns": _ec2_arns("subnet", settings.subnets, settings),
        "SecurityGroupArns": _ec2_arns("security-group", settings.security_groups, settings),
        "DatabaseSecretArn": _secret_arn(settings, account),
    }
    return StackInputs(_checked(read_template("foundation")), parameters, imports=options.existing_bucket == "import")


def studio_inputs(
    settings: Settings,
    options: StudioOptions,
    foundation: StackStatus | None,
    present_users: tuple[str, ...],
    present: StackStatus | None,
) -> StackInputs:
    """Work out what the Studio domain is made from.

    Raises:
        ConfigError: A value is malformed, or settings are missing.
        InfraError: The foundation is not there.
        ServiceError: AWS cannot be asked.
    """
    if foundation is None or "CallerPolicyArn" not in foundation.outputs:
        raise InfraError(
            f"there is no stack {stack_name(settings.project, 'foundation')!r} with the policy of Studio's users: "
            "run `smkit infra deploy foundation` first"
        )
    if not settings.subnets:
        raise ConfigError(
            "a Studio domain lies in a VPC: set subnets (SMKIT_SUBNETS) and security_groups (SMKIT_SECURITY_GROUPS). "
            "The subnets must be private, with a NAT gateway or endpoints for S3, SageMaker, STS and CloudWatch Logs"
        )
    kept = _kept(present)
    boundary = kept.get("PermissionsBoundaryArn", foundation.parameters.get("PermissionsBoundaryArn", ""))
    parameters = {
        "Project": settings.project,
        "DomainName": f"smkit-{settings.project.replace('_', '-')}".rstrip("-")[:63].rstrip("-"),
        "VpcId": _network_of(settings),
        "SubnetIds": ",".join(settings.subnets),
        "SecurityGroupIds": ",".join(settings.security_groups),
        "CallerPolicyArn": foundation.outputs["CallerPolicyArn"],
        "KmsKeyArn": _key_arn(settings),
        "PermissionsBoundaryArn": _arn(options.permissions_boundary, "iam", boundary, settings),
    }
    users = present_users if options.users is None else options.users
    return StackInputs(_checked(read_template("studio", users=users)), parameters)


def _kept(present: StackStatus | None) -> Mapping[str, str]:
    """Return the parameters of a stack that exists; one that is only planned has nothing to keep."""
    return present.parameters if present is not None and present.status != REVIEW else {}


def _store(settings: Settings, options: FoundationOptions, kept: Mapping[str, str], account: str) -> tuple[str, str]:
    """Return the bucket and the prefix of the store."""
    if settings.root.startswith("s3://"):
        bucket, prefix = split_s3_uri(settings.root)
        if options.bucket not in {None, bucket}:
            raise ConfigError(
                f"the store of the settings is {settings.root!r}, and --bucket says {options.bucket!r}: change bucket "
                "and root in the settings first, or leave --bucket out"
            )
        if not prefix:
            raise ConfigError(
                f"the store {settings.root!r} is a whole bucket: give it a prefix, such as "
                f"{settings.root}/{settings.project}, so that the role can be kept to it"
            )
        if set(prefix) & set("*?$"):
            raise ConfigError(
                f"the store {settings.root!r} has a character that means something else in a policy: leave '*', '?' "
                "and '$' out of its prefix"
            )
        return bucket, prefix
    # Here only where `root` is a folder: a bucket in the settings makes the root one in S3.
    bucket = options.bucket or settings.bucket or kept.get("BucketName") or ""
    if not bucket:
        bucket = f"smkit-{settings.project.replace('_', '-')}-{account}-{settings.region}"
        if len(bucket) > 63:
            raise ConfigError(
                f"the bucket's name {bucket!r} would have more than 63 characters: choose one with --bucket"
            )
    return check_bucket(bucket), settings.project


def _key_arn(settings: Settings) -> str:
    """Return the ARN of the settings' key; a policy knows no key by its id or alias."""
    key = settings.kms_key
    if key is None or _KEY_ARN.fullmatch(key):
        return key or ""
    with translated(f"find the KMS key {key}"):
        return str(settings.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"])


def _days(given: int | None, kept: Mapping[str, str]) -> str:
    if given is None:
        return kept.get("NoncurrentVersionDays", "180")
    if not 0 <= given <= 36500:
        raise ConfigError(f"noncurrent_days={given} is not allowed: expected 0 (keep for ever) to 36500")
    return str(given)


def _arn(given: str | None, service: str, kept: str, settings: Settings) -> str:
    if given is None:
        return kept
    if given:
        arn = parse_arn(given)
        if arn.service != service or arn.partition != settings.partition:
            raise ConfigError(
                f"{given!r} is not allowed: expected an ARN of {service} in partition {settings.partition}"
            )
    return given


def _bucket_arns(given: tuple[str, ...] | None, kept: str, settings: Settings) -> str:
    if given is None:
        return kept
    return ",".join(f"arn:{settings.partition}:s3:::{check_bucket(name)}" for name in dict.fromkeys(given))


def _ec2_arns(kind: str, ids: tuple[str, ...], settings: Settings) -> str:
    # Any account: a subnet that is shared by RAM belongs to another one.
    return ",".join(f"arn:{settings.partition}:ec2:{settings.region}:*:{kind}/{one}" for one in ids)


def _secret_arn(settings: Settings, account: str) -> str:
    secret = settings.postgres.secret_id
    if secret is None or _WHOLE_SECRET_ARN.fullmatch(secret):
        return secret or ""
    if secret.startswith("arn:"):
        return secret + _ANY_SUFFIX
    return f"arn:{settings.partition}:secretsmanager:{settings.region}:{account}:secret:{secret}{_ANY_SUFFIX}"


def _network_of(settings: Settings) -> str:
    with translated("read the subnets"):
        subnets = settings.client("ec2").describe_subnets(SubnetIds=list(settings.subnets))["Subnets"]
    networks = {str(subnet["VpcId"]) for subnet in subnets}
    if len(networks) != 1:
        raise ConfigError(
            f"the subnets {', '.join(settings.subnets)} lie in several VPCs, {', '.join(sorted(networks))}: choose "
            "all of one"
        )
    return networks.pop()


def _checked(template: str) -> str:
    size = len(template.encode())
    if size > _MAX_TEMPLATE_BYTES:
        raise ConfigError(
            f"the template has {size} bytes, CloudFormation takes {_MAX_TEMPLATE_BYTES}: have fewer users in one domain"
        )
    return template
