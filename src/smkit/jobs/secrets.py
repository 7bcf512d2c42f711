"""Finds what looks like a secret where it would be shown to everybody who may describe a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

# The last word decides: `token_pattern` of a vectoriser and `db_secret_id` are no secrets. Nor is a text model's
# `pad_token`.
_NAME = re.compile(
    r"""(?! (?:.*[-_.])? (?:pad|unk|mask|cls|sep|bos|eos|start|stop|end|oov|special) [-_.]? token $ )
    (?: .*pass(?:word|wd|phrase) | (?:.*[-_.])?
    (?: pwd | secret
      | (?:api|secret|access|private|account|encryption|signing) [-_.]? key
      | (?:(?:access|auth|api|bearer|session|security|refresh|id|github|gitlab|pypi|hf|slack) [-_.]? )? token
      | credentials? | connection [-_.]? string ))""",
    re.IGNORECASE | re.VERBOSE,
)
_VALUES = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a URL with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE),
    "an access token": re.compile(
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|glpat-[\w-]{20,}|pypi-[\w-]{50,}|xox[baprs]-[\w-]{10,})"
    ),
}
_HOW = (
    "everybody who may describe the job would see it. Store it in AWS Secrets Manager, pass the secret's name (such as "
    "db_secret_id), and read it in the script with boto3"
)


def refuse_secrets(values: Mapping[str, Any], what: str) -> None:
    """Refuse values that look like secrets.

    Args:
        values: Name -> JSON value; nested values are looked into.
        what: What they are, for the message: `"hyperparameter"`.

    Raises:
        ConfigError: One looks like a secret; the message names it and never shows it.
    """
    for name, value in values.items():
        for path, text in _texts(name, value):
            if kind := _kind_of(path.rpartition(".")[2], text):
                raise ConfigError(f"{what} {path!r} looks like {kind}: {_HOW}")


def _kind_of(name: str, text: str) -> str | None:
    # The ARN of a secret is how to find it, not the secret.
    if not text or text.startswith("arn:"):
        return None
    if found := next((kind for kind, pattern in _VALUES.items() if pattern.search(text)), None):
        return found
    # dbPassword, accessKey
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return "a secret, by its name" if _NAME.fullmatch(words) else None


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(f"{path}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(path, item)
