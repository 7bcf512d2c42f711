"""What command lines say in words of their own."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import EllipsisType

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"([0-9]{1,6})([mhdw])")
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9})s)?")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]+)?")


def parse_age(text: str) -> timedelta:
    """Read `30d`: a number of minutes (m), hours (h), days (d) or weeks (w).

    Raises:
        BadParameter: It is none.
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not an age: a number and m, h, d or w, such as 12h, 30d or 8w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_expected(text: str | None) -> int | EllipsisType | None:
    """Read the version that an alias is believed to name: a number, `none`, or nothing said.

    Raises:
        BadParameter: It is none of these.
    """
    if text is None:
        return ...
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise typer.BadParameter(f"{text!r} is not a version: expected a number, such as 3, or none")
    return int(text)


def parse_duration(text: str | None) -> float | None:
    """Read `3600`, which is seconds, or `1h30m`: days (d), hours (h), minutes (m) and seconds (s), in this order.

    Raises:
        BadParameter: It is neither.
    """
    if text is None:
        return None
    plain = text.strip().lower()
    if _SECONDS.fullmatch(plain):
        return float(plain)
    match = _DURATION.fullmatch(plain)
    if match is None or not plain:
        raise typer.BadParameter(f"{text!r} is not a duration: seconds, such as 5400, or such as 90m, 1h30m or 2d")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


def parse_pairs(texts: Iterable[str] | None, example: str) -> dict[str, str]:
    """Read `name=value` texts; of one name the last counts.

    Args:
        texts: The texts.
        example: A right one, for the message.

    Raises:
        BadParameter: One has no name, or no `=`.
    """
    pairs = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} has no name and value: write it as {example}")
        pairs[name] = value
    return pairs


def parse_hyperparameters(texts: Iterable[str] | None, file: Path | None) -> dict[str, Any]:
    """Read hyperparameters: those of a file, and over them `name=value` texts.

    A value is JSON where it can be read as JSON, else text: `5` is a number, `"5"` and `five` are text.

    Raises:
        BadParameter: A text has no name, or the file cannot be read.
    """
    given = {} if file is None else _read_table(file)
    return given | {name: _value(text) for name, text in parse_pairs(texts, "alpha=0.5").items()}


def _value(text: str) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        # NaN and Infinity, which Python's parser would take.
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


def _read_table(path: Path) -> dict[str, Any]:
    if path.suffix.lower() not in {".json", ".toml"}:
        raise typer.BadParameter(f"{path}: hyperparameters are read from a .json or a .toml file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text) if path.suffix.lower() == ".json" else _toml().loads(text)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        # Both parsers, and a file that is not UTF-8.
        raise typer.BadParameter(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(values, dict):
        raise typer.BadParameter(f"{path} holds a {type(values).__name__}: expected an object of names and values")
    return values


def _toml() -> Any:
    # pydantic-settings brings tomli to Python 3.10.
    return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def parse_environment(texts: Iterable[str] | None) -> dict[str, str]:
    """Read environment variables: `NAME=value`, or `NAME`, which takes the value that it has in this shell.

    The second form keeps a secret out of the list of processes and of the shell's history.

    Raises:
        BadParameter: A variable has no name, or no value here.
    """
    variables = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name:
            raise typer.BadParameter("an environment variable has no name: write it as NAME=value, or NAME")
        if not equals:
            if name not in os.environ:
                raise typer.BadParameter(f"{name!r} is not set in this shell: export it, or write {name}=value")
            value = os.environ[name]
        variables[name] = value
    return variables
