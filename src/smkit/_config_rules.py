"""What a setting may be; each rule's error says the value, what is allowed and how to fix it.

pydantic calls the rules. Those that take a `ValidationInfo` check a value against the settings declared above it.
"""

from __future__ import annotations

import json
import re
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import AfterValidator

from smkit._config_layers import project_folder
from smkit.aws import parse_arn, partition_of, split_s3_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationInfo

    from smkit.config import PostgresSettings

# https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html
_ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")
_ROLE_RESOURCE = re.compile(r"role/[\x21-\x7e]+")
REGION = re.compile(r"[a-z]{2,5}(-[a-z]+)+-[0-9]{1,2}")
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
FRAMEWORK_VERSION = re.compile(r"[0-9]+\.[0-9]+-[0-9]+(-[a-z0-9]+)*")
LOCAL_ENVIRONMENT = re.compile(rf"host|{FRAMEWORK_VERSION.pattern}(\[toolkits\])?")
# The bucket that SageMaker makes for an account says where it is.
_SAGEMAKER_BUCKET = re.compile(r"sagemaker-(?P<region>[a-z0-9-]+)-[0-9]{12}")


def rule(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    """A pattern whose error says in words what is allowed; pydantic's own would show the pattern."""

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text!r} is not allowed: expected {expected}")
        return text

    return AfterValidator(check)


def split_commas(value: object) -> object:
    """Accept `a,b` and a JSON list for a tuple given as text, as in an environment variable."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{value!r} is not a JSON list ({error.msg}): expected 'a,b' or '[\"a\", \"b\"]'") from None


def ids(prefix: str) -> AfterValidator:
    """Ids of one kind of resource: subnets and security groups are easily swapped."""

    def check(texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            if not text.startswith(prefix):
                raise ValueError(f"{text!r} is not allowed: expected ids such as '{prefix}0123456789abcdef0'")
        return texts

    return AfterValidator(check)


def _check_home(arn_text: str, service: str, what: str, info: ValidationInfo) -> str:
    """Return an ARN's resource; the ARN must be of the service and of the region's partition: they share nothing."""
    arn = parse_arn(arn_text)
    if arn.service != service:
        raise ValueError(f"{arn_text!r} is an ARN of {arn.service!r}, not of {service!r}: expected {what}")
    region = info.data.get("region")  # absent where the region itself is invalid
    if region is None:
        return arn.resource
    if arn.partition != partition_of(region):
        raise ValueError(
            f"{arn_text!r} belongs to partition {arn.partition}, but region {region!r} belongs to "
            f"{partition_of(region)}: use {what} of {partition_of(region)}, or set region to one of {arn.partition}"
        )
    if arn.region and arn.region != region:
        raise ValueError(f"{arn_text!r} belongs to region {arn.region!r}, but region is {region!r}: make them equal")
    return arn.resource


def check_role(role: str, info: ValidationInfo) -> str:
    if role.startswith("arn:"):
        if not _ROLE_RESOURCE.fullmatch(_check_home(role, "iam", "a role", info)) or not parse_arn(role).account:
            raise ValueError(f"{role!r} is not a role: expected 'arn:<partition>:iam::<account>:role/<name>'")
    elif not _ROLE_NAME.fullmatch(role):
        raise ValueError(
            f"{role!r} is not a role: expected its ARN, or its name of 1 to 64 letters, digits and '_+=,.@-'"
        )
    return role


def check_kms_key(key: str, info: ValidationInfo) -> str:
    if key.startswith("arn:"):
        _check_home(key, "kms", "a KMS key", info)
    return key


def bucket_name(value: object, info: ValidationInfo) -> object:
    """Accept a bucket's ARN for its name."""
    return _check_home(value, "s3", "a bucket", info) if isinstance(value, str) and value.startswith("arn:") else value


def check_bucket_home(bucket: str, info: ValidationInfo) -> str:
    match = _SAGEMAKER_BUCKET.fullmatch(bucket)
    region = info.data.get("region")
    if match and region is not None and partition_of(match["region"]) != partition_of(region):
        raise ValueError(
            f"bucket {bucket!r} is of region {match['region']!r}, partition {partition_of(match['region'])}, but "
            f"region {region!r} belongs to {partition_of(region)}: use a bucket of the region's partition"
        )
    return bucket


def default_root(values: dict[str, Any]) -> str:
    if values.get("bucket"):
        return f"s3://{values['bucket']}/{values.get('project', 'smkit')}"
    return str(project_folder() / ".smkit")


def path_text(value: object) -> object:
    return fspath(value) if isinstance(value, PathLike) else value


def absolute(path: Path) -> Path:
    """Make a path absolute: a program may change its working folder after it made the settings."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"'{path}' is not allowed: {error}".rstrip(".")) from None


def check_root(root: str, info: ValidationInfo) -> str:
    if not root:
        raise ValueError("'' is not allowed: expected a folder or 's3://<bucket>/<prefix>'")
    if "://" not in root:
        return str(absolute(Path(root)))
    if not root.lower().startswith("s3://"):
        raise ValueError(f"{root!r} is not allowed: expected a folder or 's3://<bucket>/<prefix>'")
    root_bucket, key = split_s3_uri(root)
    check_bucket_home(root_bucket, info)
    bucket = info.data.get("bucket")
    if bucket and bucket != root_bucket:
        raise ValueError(f"root {root!r} and bucket {bucket!r} name different buckets: set one of them")
    key = key.strip("/")
    return f"s3://{root_bucket}/{key}" if key else f"s3://{root_bucket}"


def check_security_groups(groups: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    subnets = info.data.get("subnets")  # absent where they are invalid themselves
    if subnets is not None and bool(subnets) != bool(groups):
        raise ValueError("subnets and security_groups go together: set both, or neither")
    return groups


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Tag.html
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or key.lower().startswith("aws:") or len(value) > 256:
            raise ValueError(
                f"tag {key!r} is not allowed: a key has 1 to 128 characters and does not begin with 'aws:', "
                "its value has at most 256"
            )
    return tags


def check_host(host: str) -> str:
    if "@" in host or "://" in host:
        # The text is not repeated: a URL may hold the password.
        raise ValueError("expected a host name or address, not a URL: set user, password and database on their own")
    return host


def check_secret_home(postgres: PostgresSettings, info: ValidationInfo) -> PostgresSettings:
    """Check a secret given as an ARN."""
    if postgres.secret_id and postgres.secret_id.startswith("arn:"):
        _check_home(postgres.secret_id, "secretsmanager", "a secret", info)
    return postgres
