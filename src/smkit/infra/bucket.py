"""Is the name of the bucket that a stack would make still free?

A stack keeps its bucket when it is deleted, so a second creation would fail halfway: it is better known before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from botocore.exceptions import ClientError

from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.errors import BucketTaken, ConfigError
from smkit.jobs.sagemaker.service_errors import service_error

if TYPE_CHECKING:
    from smkit.config import Settings

#: `free`; `ours` (in this account and region); `elsewhere` (ours, in another region); `foreign` (or not for us to see).
BucketOwner = Literal["free", "ours", "elsewhere", "foreign"]

_REGION_HEADER = "x-amz-bucket-region"


def owner_of(bucket: str, account: str, settings: Settings) -> tuple[BucketOwner, str]:
    """Return whose a bucket is, and its region, "" where S3 does not say it.

    Raises:
        ServiceError: S3 cannot be asked.
    """
    try:
        answer = settings.client("s3").head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
    except AWS_ERRORS as error:
        if error_code(error) in {"404", "NoSuchBucket", "NotFound"}:
            return "free", ""
        # HEAD has no body: its status is all that S3 says.
        home = _region(error.response) if isinstance(error, ClientError) else ""
        if error_code(error) in {"403", "AccessDenied", "Forbidden"}:
            return "foreign", home
        if error_code(error) in {"301", "PermanentRedirect"}:
            return "elsewhere", home
        raise service_error(error, f"look for the bucket {bucket}") from error
    home = _region(answer)
    return ("ours" if home in {"", settings.region} else "elsewhere"), home


def _region(answer: object) -> str:
    metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    return str(metadata.get("HTTPHeaders", {}).get(_REGION_HEADER, ""))


def check_free(bucket: str, account: str, settings: Settings) -> None:
    """Refuse a bucket that CloudFormation could not make.

    Raises:
        BucketTaken: It exists.
        ServiceError: S3 cannot be asked.
    """
    owner, home = owner_of(bucket, account, settings)
    if owner == "ours":
        raise BucketTaken(
            f"the bucket {bucket!r} exists already in this account, and no stack of this project has it: to use it and "
            "leave it as it is, say --existing-bucket use; to let the stack keep it, as after a deleted foundation, "
            "--existing-bucket import; else choose another name: in the settings if they name this one, or with "
            "--bucket"
        )
    if owner == "elsewhere":
        raise BucketTaken(
            f"the bucket {bucket!r} exists already, in region {home or 'unknown'}, not in {settings.region}: choose "
            "another name with --bucket, or set region to the bucket's"
        )
    if owner == "foreign":
        raise BucketTaken(
            f"the bucket {bucket!r} exists already, and account {account} does not own it or the caller may not see it "
            "(s3:ListBucket): choose another name with --bucket; names are shared by all accounts of a partition"
        )


def check_present(bucket: str, account: str, settings: Settings) -> None:
    """Refuse a bucket that should exist, in this account and region, and does not.

    Raises:
        ConfigError: It does not.
        ServiceError: S3 cannot be asked.
    """
    owner, home = owner_of(bucket, account, settings)
    if owner == "free":
        raise ConfigError(
            f"there is no bucket {bucket!r} in partition {settings.partition}: correct the name, or leave "
            "--existing-bucket out to have it made"
        )
    if owner == "elsewhere":
        raise ConfigError(
            f"the bucket {bucket!r} is in region {home or 'unknown'}, not in {settings.region}; SageMaker needs the "
            "bucket in its own region: set region, or choose another bucket"
        )
    if owner == "foreign":
        raise ConfigError(
            f"account {account} does not own the bucket {bucket!r}, or the caller may not see it (s3:ListBucket): the "
            "store's bucket must be the account's own; a bucket of another account can be one of --read-bucket"
        )
