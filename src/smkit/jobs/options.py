"""What a job asks of SageMaker beyond the script and its data; a job on this machine leaves it aside."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from smkit.aws import split_s3_uri
from smkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

InputMode = Literal["File", "FastFile"]

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
_MAX_VOLUME_GB = 16_384
_MAX_WARM_POOL_SECONDS = 6 * 3600
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StoppingCondition.html
_MAX_SECONDS = 28 * 24 * 3600
_MAX_TAGS = 50
_EXTRA_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AlgorithmSpecification.html, TrainingImage
_IMAGE = re.compile(r"[a-z0-9.-]+(:[0-9]+)?/[a-z0-9._/-]+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class SageMakerOptions:
    """Options of a job on SageMaker. Every value is checked here, without I/O.

    Args:
        volume_size: Storage of the instance, in GB.
        spot: Use spare capacity at a lower price. The job may be interrupted and started anew: write checkpoints.
        max_wait: Seconds to wait for spot capacity and for the job together, at least its `timeout`; needs `spot`.
        checkpoint_uri: `s3://` prefix that `/opt/ml/checkpoints` is kept in step with; a job that is started anew, or a
            later one with the same prefix, finds there what was written. Default: with `spot`, one of the job's own.
        keep_alive: Seconds for which the instance waits for the next job of the same shape (a warm pool).
        subnets: Subnet ids; needs `security_groups`. Default: those of the settings.
        security_groups: Security group ids; needs `subnets`. Default: those of the settings.
        kms_key: Key for the volume and what the job writes. Default: that of the settings.
        network_isolation: Cut the container off from every network, S3 included: SageMaker itself moves the data.
        input_mode: `File` copies the channels before the script starts; `FastFile` streams them while it reads.
        image_uri: Container image instead of the one of `framework_version`.
        tags: Tags of the job, over those of the settings.
        extra: Further top-level fields of CreateTrainingJob, in its own words, such as `{"RetryStrategy":
            {"MaximumRetryAttempts": 2}}`. A field that smkit sends itself is refused.

    Raises:
        ConfigError: A value breaks its rule, or contradicts another.
    """

    volume_size: int = 30
    spot: bool = False
    max_wait: float | None = None
    checkpoint_uri: str | None = None
    keep_alive: int | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    kms_key: str | None = None
    network_isolation: bool = False
    input_mode: InputMode = "File"
    image_uri: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_count("volume_size", self.volume_size, 1, _MAX_VOLUME_GB, "GB")
        if self.max_wait is not None and not self.spot:
            raise ConfigError("max_wait is how long to wait for spot capacity: set spot=True too, or leave it out")
        if self.max_wait is not None:
            object.__setattr__(self, "max_wait", check_seconds("max_wait", self.max_wait))
        if self.keep_alive is not None:
            _check_count("keep_alive", self.keep_alive, 1, _MAX_WARM_POOL_SECONDS, "seconds")
            if self.spot:
                raise ConfigError("keep_alive and spot exclude each other: SageMaker keeps no spot instance warm")
        if self.checkpoint_uri is not None:
            split_s3_uri(self.checkpoint_uri)
        for name, prefix in {"subnets": "subnet-", "security_groups": "sg-"}.items():
            object.__setattr__(self, name, _check_ids(name, prefix, getattr(self, name)))
        if bool(self.subnets) != bool(self.security_groups):
            raise ConfigError("subnets and security_groups go together: set both, or neither")
        if self.input_mode not in {"File", "FastFile"}:
            raise ConfigError(f"input_mode {self.input_mode!r} is not allowed: expected 'File' or 'FastFile'")
        if self.image_uri is not None and not _IMAGE.fullmatch(self.image_uri):
            raise ConfigError(
                f"image_uri {self.image_uri!r} is not an image: expected '<registry>/<repository>:<tag>' or "
                "'...@sha256:<digest>'"
            )
        object.__setattr__(self, "tags", MappingProxyType(_check_tags(self.tags)))
        object.__setattr__(self, "extra", MappingProxyType(_check_extra(self.extra)))

    def __hash__(self) -> int:
        return hash((self.volume_size, self.spot, self.subnets, self.image_uri))

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and sent to another process, which read-only mappings cannot."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return (partial(type(self), **values | {"tags": dict(self.tags), "extra": dict(self.extra)}), ())

    @classmethod
    def of(cls, value: SageMakerOptions | Mapping[str, Any] | None) -> Self | SageMakerOptions:
        """Return the options that a caller gave, as they are or as a mapping of their names.

        Raises:
            ConfigError: It is neither, or a name is unknown.
        """
        if value is None:
            return cls()
        if isinstance(value, SageMakerOptions):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"sagemaker is a {type(value).__name__}: expected smkit.SageMakerOptions, or a mapping such as "
                "{'spot': True}"
            )
        known = [item.name for item in fields(cls)]
        for name in value:
            if name not in known:
                raise ConfigError(
                    f"{name!r} is no option of SageMaker{did_you_mean(str(name), known)}; "
                    f"options are {', '.join(known)}"
                )
        return cls(**value)


def check_seconds(name: str, value: object) -> float:
    """Return a number of seconds; a `timedelta` becomes its seconds.

    Raises:
        ConfigError: It is not a positive number, or longer than the 28 days that SageMaker allows.
    """
    seconds = getattr(value, "total_seconds", None)
    number = seconds() if callable(seconds) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise ConfigError(f"{name} {value!r} is not allowed: a positive number of seconds, or a timedelta")
    if number > _MAX_SECONDS:
        raise ConfigError(f"{name} is {number:g} s; SageMaker allows at most {_MAX_SECONDS} s, 28 days")
    return float(number)


def _check_count(name: str, value: object, least: int, most: int, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} {value!r} is not allowed: expected {least} to {most} {unit}")


def _check_ids(name: str, prefix: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ConfigError(f"{name}={values!r}: expected a list such as ['{prefix}0123456789abcdef0']")
    ids = tuple(values)
    for text in ids:
        if not isinstance(text, str) or not text.startswith(prefix):
            raise ConfigError(f"{name}: {text!r} is not allowed: expected ids such as '{prefix}0123456789abcdef0'")
    return ids


def _check_tags(tags: object) -> dict[str, str]:
    if not isinstance(tags, Mapping):
        raise ConfigError(f"tags is a {type(tags).__name__}: expected a mapping such as {{'team': 'pricing'}}")
    if len(tags) > _MAX_TAGS:
        raise ConfigError(f"{len(tags)} tags; SageMaker takes at most {_MAX_TAGS}")
    for key, value in tags.items():
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Tag.html
        right = isinstance(key, str) and isinstance(value, str)
        if not right or not 1 <= len(key) <= 128 or key.lower().startswith("aws:") or len(value) > 256:
            raise ConfigError(
                f"tag {key!r} is not allowed: a key has 1 to 128 characters and does not begin with 'aws:', its value "
                "is text of at most 256"
            )
    return dict(tags)


def _check_extra(extra: object) -> dict[str, Any]:
    if not isinstance(extra, Mapping):
        raise ConfigError(f"extra is a {type(extra).__name__}: expected a mapping of fields of CreateTrainingJob")
    for name in extra:
        if not isinstance(name, str) or not _EXTRA_NAME.fullmatch(name):
            raise ConfigError(
                f"extra[{name!r}]: expected the name of a field of CreateTrainingJob, such as 'RetryStrategy'"
            )
    return dict(extra)
