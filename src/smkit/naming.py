"""The naming rules, checked before any work, and references such as `houses@3`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from smkit.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Callable

# Lower case only: a folder on macOS and Windows does not tell `Houses` from `houses`, S3 does.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# A number is at most what a version's key can count (see `smkit.versioning`): ten digits.
_VERSION = re.compile(r"0*[1-9][0-9]{0,9}")
# TrainingJobName in https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
_JOB_NAME = re.compile(r"(?=.{1,63}$)[a-zA-Z0-9](-*[a-zA-Z0-9])*")
# ChannelName in https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Channel.html
_CHANNEL = re.compile(r"[A-Za-z0-9.\-_]{1,64}")

# `v1` reads like version 1; MLflow reserves such aliases too.
_LIKE_VERSION = re.compile(r"[vV]0*([1-9][0-9]{0,9})")
# How Docker, MLflow and others write a version.
_OTHER_REFERENCE = re.compile(r"(?P<name>[^@:/=#]+)[:/=#]+(?P<version>[^@:/=#]+)")

LATEST = "latest"


class Reference(NamedTuple):
    """A name and what follows the `@`: a version number or an alias."""

    name: str
    version: int | str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def check_name(name: str, what: str) -> str:
    """Return a dataset's or model's name unchanged.

    Args:
        name: The name.
        what: What it names, for the message: `"dataset"`.

    Raises:
        InvalidNameError: The name is not 1 to 63 lower-case letters, digits, `-` and `_`, a letter or digit first.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidNameError(
            f"{name!r} is not {_a(what)} name: 1 to 63 lower-case letters, digits, '-' and '_', "
            f"the first a letter or digit{_suggest(name, _is_name)}"
        )
    return name


def check_alias(alias: str) -> str:
    """Return an alias unchanged.

    Raises:
        InvalidNameError: The alias breaks the rule of names, is a number or reads like one (`v1`), or is `latest`,
            which is always the newest version.
    """
    if not isinstance(alias, str) or not _NAME.fullmatch(alias):
        raise InvalidNameError(
            f"{alias!r} is not an alias: 1 to 63 lower-case letters, digits, '-' and '_', "
            f"the first a letter or digit{_suggest(alias, _is_alias)}"
        )
    if not _is_alias(alias):
        raise InvalidNameError(
            f"{alias!r} cannot be an alias: 'latest' is always the newest version, and a number, also after a 'v', is "
            f"a version's own; "
            f"use a word such as 'production'"
        )
    return alias


def check_job_name(name: str) -> str:
    """Return a job's name unchanged; the rule is SageMaker's, for every backend.

    Raises:
        InvalidNameError: The name is not 1 to 63 letters, digits and `-`, a letter or digit first and last.
    """
    if not isinstance(name, str) or not _JOB_NAME.fullmatch(name):
        raise InvalidNameError(
            f"{name!r} is not a job name: 1 to 63 letters, digits and '-', the first and last a letter or digit "
            f"(SageMaker's rule){_suggest(name, _is_job_name)}"
        )
    return name


def check_channel(name: str) -> str:
    """Return a channel's name unchanged; the rule is SageMaker's, for every backend.

    Raises:
        InvalidNameError: The name is not 1 to 64 letters, digits, `.`, `-` and `_`, or is `.` or `..`.
    """
    if not isinstance(name, str) or not _is_channel(name):
        raise InvalidNameError(
            f"{name!r} is not a channel name: 1 to 64 letters, digits, '.', '-' and '_' "
            f"(SageMaker's rule){_suggest(name, _is_channel)}"
        )
    return name


def parse_reference(text: str, what: str) -> Reference:
    """Split `houses@3`, `houses@latest`, `houses@production`; `houses` alone means the latest.

    Raises:
        InvalidNameError: A part breaks its rule.
    """
    if not isinstance(text, str):
        raise InvalidNameError(
            f"{text!r} is not {_a(what)} reference: expected 'name@3', 'name@latest' or 'name@alias'"
        )
    name, at, version = text.partition("@")
    meant = _reference_meant(text)
    if meant:
        raise InvalidNameError(f"{text!r} is not {_a(what)} reference: did you mean {meant!r}?")
    check_name(name, what)
    if not at or version == LATEST:
        return Reference(name, LATEST)
    if _VERSION.fullmatch(version):
        return Reference(name, int(version))
    if version.isdigit():
        raise InvalidNameError(f"{text!r} is not {_a(what)} reference: versions count from 1 to 9999999999")
    return Reference(name, check_alias(version))


def _reference_meant(text: str) -> str | None:
    """Return what `houses:3` and `houses@v3` would be as a reference, or None."""
    found = _OTHER_REFERENCE.fullmatch(text)
    name, at, version = text.partition("@")
    if found is not None:
        name, version = found["name"], found["version"]
    elif not at:
        return None
    like = _LIKE_VERSION.fullmatch(version)
    if found is None and like is None:
        return None
    version = like[1] if like else version
    right = _VERSION.fullmatch(version) or version == LATEST or _is_alias(version)
    return f"{name}@{version}" if right and _is_name(name) else None


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text))


def _is_alias(text: str) -> bool:
    return _is_name(text) and text != LATEST and not text.isdigit() and not _LIKE_VERSION.fullmatch(text)


def _is_job_name(text: str) -> bool:
    return bool(_JOB_NAME.fullmatch(text))


def _is_channel(text: str) -> bool:
    return bool(_CHANNEL.fullmatch(text)) and text not in {".", ".."}


def _a(what: str) -> str:
    return f"{'an' if what[:1] in 'aeiou' else 'a'} {what}"


def _suggest(name: object, is_valid: Callable[[str], bool]) -> str:
    """Return `"; 'x' would do"` for the nearest string that the rule allows, or nothing."""
    if not isinstance(name, str):
        return ""
    kept = name if is_valid("a_b") else name.replace("_", "-")
    separator = "_" if "_" in kept else "-"
    near = re.sub(r"[^A-Za-z0-9_-]+", separator, kept).strip("-_")[:63].strip("-_")
    # Only where the capitals themselves break the rule.
    near = near if is_valid(near) else near.lower()
    return f"; {near!r} would do" if is_valid(near) else ""
