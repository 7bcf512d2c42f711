"""What smkit knows of AWS as such: partitions, ARNs, S3 URIs, and the one session that every call goes through."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from smkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import boto3
    from botocore.exceptions import ProfileNotFound

#: Region prefix -> partition, longest first. https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
_PARTITIONS = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("us-iso-", "aws-iso"),
    ("eu-isoe-", "aws-iso-e"),
    ("eusc-", "aws-eusc"),
)
_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):(?P<service>[a-z0-9-]+):(?P<region>[a-z0-9-]*):(?P<account>[0-9]{12}|aws|):(?P<resource>.+)"
)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"(?!xn--)(?!.*\.\.)(?![0-9]+(\.[0-9]+){3}$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Arn(NamedTuple):
    """The parts of an Amazon Resource Name; `region` and `account` may be empty."""

    partition: str
    service: str
    region: str
    account: str
    resource: str


def partition_of(region: str) -> str:
    """Return the partition that a region belongs to: `aws-cn` for `cn-northwest-1`."""
    return next((partition for prefix, partition in _PARTITIONS if region.startswith(prefix)), "aws")


def parse_arn(text: str) -> Arn:
    """Split an ARN.

    Raises:
        ConfigError: `text` is not an ARN.
    """
    match = _ARN.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is not an ARN: expected 'arn:<partition>:<service>:<region>:<account>:<resource>'")
    return Arn(**match.groupdict())


def check_bucket(name: str) -> str:
    """Return a bucket's name unchanged.

    Raises:
        ConfigError: S3 would not accept the name.
    """
    if not _BUCKET.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a bucket name: 3 to 63 lower-case letters, digits, '-' and '.', without 's3://' or a path"
        )
    return name


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/some/key` into the bucket and the key, which may be empty.

    Raises:
        ConfigError: The URI is not one of S3.
    """
    scheme, _, rest = uri.partition("://")
    if scheme.lower() != "s3" or not rest:
        raise ConfigError(f"{uri!r} is not an S3 URI: expected 's3://<bucket>/<key>'")
    bucket, _, key = rest.partition("/")
    return check_bucket(bucket), key


class Clients:
    """The one session and its clients, made on first use.

    boto3 clients may be shared between threads, but making them from one session may not, hence the lock. A copy
    sent to another process starts empty there, and so does a forked child: sockets do not travel.
    """

    def __init__(self, region: str, profile: str | None) -> None:
        self._region = region
        self._profile = profile
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.RLock()
        self._session: boto3.Session | None = None
        self._clients: dict[str, Any] = {}
        self._process = os.getpid()

    def _forget_if_forked(self) -> None:
        # The parent's lock may have been held by one of its other threads, so it is replaced, not taken.
        if self._process != os.getpid():
            self._start_empty()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Clients, (self._region, self._profile))

    def __deepcopy__(self, memo: dict[int, Any]) -> Clients:
        return Clients(self._region, self._profile)

    def session(self) -> boto3.Session:
        """Return the session.

        Raises:
            ConfigError: The profile does not exist, or the AWS configuration files cannot be parsed.
        """
        import boto3
        from botocore.exceptions import ConfigParseError, ProfileNotFound

        self._forget_if_forked()
        with self._lock:
            if self._session is None:
                try:
                    self._session = boto3.Session(region_name=self._region, profile_name=self._profile)
                except ProfileNotFound as error:
                    raise ConfigError(_unknown_profile(self._profile, error)) from None
                except ConfigParseError as error:
                    raise ConfigError(f"the AWS configuration cannot be read: {error}; correct the file") from None
            return self._session

    def client(self, service: str) -> Any:
        """Return the client of a service, such as `"s3"`.

        Raises:
            ConfigError: As `session`; or boto3 knows no such service.
        """
        from botocore.config import Config
        from botocore.exceptions import UnknownServiceError

        self._forget_if_forked()
        with self._lock:
            if service not in self._clients:
                # Adaptive would slow all callers for one throttled prefix; standard retries 5xx, 429 and lost
                # connections with backoff.
                config = Config(retries={"mode": "standard", "total_max_attempts": 6}, max_pool_connections=32)
                # Any: the types of boto3-stubs, where installed, accept literal service names only.
                session: Any = self.session()
                try:
                    self._clients[service] = session.client(service, config=config)
                except UnknownServiceError:
                    hint = did_you_mean(service, session.get_available_services())
                    raise ConfigError(f"boto3 knows no service {service!r}{hint}") from None
            return self._clients[service]


def _unknown_profile(profile: str | None, error: ProfileNotFound) -> str:
    """Say where the unknown profile was named, and which ones there are."""
    import botocore.session

    name = profile or error.kwargs["profile"]
    # botocore's session lists the profiles even where AWS_PROFILE names none of them; boto3's raises.
    known = ", ".join(botocore.session.Session().available_profiles) or "none"
    source = "" if profile else " (from AWS_PROFILE)"
    return (
        f"the AWS profile {name!r}{source} does not exist; known profiles: {known}. "
        f"Create it with `aws configure --profile {name}`"
    )
