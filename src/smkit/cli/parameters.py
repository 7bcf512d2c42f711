"""What command lines say in words of their own."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from types import EllipsisType

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"([0-9]{1,6})([mhdw])")


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
