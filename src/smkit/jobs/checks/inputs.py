"""Is there data where the channels say, and does it fit?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from smkit.aws import split_s3_uri
from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.errors import ConfigError, ObjectNotFound, SmkitError, SourceNotFound
from smkit.jobs.channels import S3Channel
from smkit.jobs.checks.calls import cannot_ask
from smkit.jobs.checks.report import Finding, problem, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smkit.config import Settings
    from smkit.jobs.channels import Channel
    from smkit.jobs.spec import JobSpec

_GB = 1_000_000_000
#: A prefix that no object's key equals is judged by this many.
_SAMPLE = 100
_REGION_HEADER = "x-amz-bucket-region"


def check_here(spec: JobSpec) -> list[Finding]:
    """Look at the inputs that lie on this machine; what lies in S3 is left alone."""
    found: list[Finding] = []
    total = 0
    for name, channel in spec.channels.items():
        if not _is_remote(channel):
            findings, size = _look(_subject(name), channel)
            found += findings
            total += size
    if spec.sagemaker.input_mode == "File" and total > spec.sagemaker.volume_size * _GB:
        what = f"{total / _GB:.1f} GB of inputs do not fit the instance's storage of {spec.sagemaker.volume_size} GB"
        found.append(problem("volume_size", what, f"set volume_size to {2 * total // _GB + 1} or more"))
    return found


def not_asked(spec: JobSpec) -> list[Finding]:
    """Say which inputs `check_here` left alone."""
    return [
        unknown(_subject(name), f"{channel.uri} was not looked at: a check for this machine uses no network")
        for name, channel in spec.channels.items()
        if _is_remote(channel)
    ]


def remote_checks(spec: JobSpec, settings: Settings) -> dict[str, Callable[[], Sequence[Finding]]]:
    """Return subject -> check, of each input that lies in S3."""
    return {
        _subject(name): partial(_check_remote, _subject(name), channel, spec, settings)
        for name, channel in spec.channels.items()
        if _is_remote(channel)
    }


def _subject(name: str) -> str:
    return f"input {name!r}"


def _is_remote(channel: Channel) -> bool:
    return channel.uri.lower().startswith("s3://")


def _look(subject: str, channel: Channel) -> tuple[list[Finding], int]:
    """Return what is wrong with an input, and its size in bytes as far as it says."""
    try:
        facts = channel.describe()
    except (SourceNotFound, ObjectNotFound, ConfigError) as error:
        return [problem(subject, str(error))], 0
    except (SmkitError, OSError) as error:
        return [unknown(subject, f"cannot be read now: {error}")], 0
    size = facts.get("bytes")
    return [], size if isinstance(size, int) else 0


def _check_remote(subject: str, channel: Channel, spec: JobSpec, settings: Settings) -> list[Finding]:
    found = [] if isinstance(channel, S3Channel) else _look(subject, channel)[0]
    if found:
        return found
    bucket, prefix = split_s3_uri(channel.uri)
    client = settings.client("s3")
    try:
        # Not describe(): it lists every object, and a prefix may hold millions.
        page = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=_SAMPLE)
    except AWS_ERRORS as error:
        if error_code(error) in {"NoSuchBucket", "404"}:
            what = f"the bucket {bucket!r} does not exist in partition {settings.partition}"
            return [problem(subject, what, "create it, or correct the URI")]
        return [cannot_ask(subject, error, f"list {channel.uri}")]
    keys = [item["Key"] for item in page.get("Contents", ()) if not item["Key"].endswith("/")]
    if not keys and not page.get("IsTruncated"):
        what = f"no object's key starts with {channel.uri}"
        found.append(problem(subject, what, "upload the data, or correct the URI"))
    elif spec.sagemaker.input_mode == "FastFile" and _is_partial(prefix, keys):
        # "For FastFile mode, partial S3 prefix is not supported", says the service, once the instance runs.
        what = f"{channel.uri} ends within the name of a file or folder, which FastFile does not allow"
        found.append(problem(subject, what, "end the URI with '/', or with a file's whole name"))
    try:
        home = region_of(client, bucket, default=settings.region)
    except AWS_ERRORS as error:
        return [*found, cannot_ask(subject, error, f"find the region of bucket {bucket}")]
    if home != settings.region:
        what = f"the bucket {bucket!r} is in {home}; SageMaker in {settings.region} reads buckets of {settings.region}"
        found.append(problem(subject, what, f"copy the data to a bucket in {settings.region}"))
    return found


def region_of(client: Any, bucket: str, *, default: str) -> str:
    """Return the region of a bucket; S3 says it even where it denies the call.

    Raises:
        BotoCoreError, ClientError: S3 says nothing.
    """
    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
        if _REGION_HEADER not in answer["ResponseMetadata"].get("HTTPHeaders", {}):
            raise
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get(_REGION_HEADER, default))


def _is_partial(prefix: str, keys: list[str]) -> bool:
    if not prefix or prefix.endswith("/"):
        return False
    return any(key != prefix and not key.startswith(prefix + "/") for key in keys)
