"""A hyperparameter's value: from JSON, or from the text of a command line, to the annotated type."""

from __future__ import annotations

import ast
import json
import sys
import typing
from typing import Any, Callable

BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NONE = type(None)
_SUPPORTED_TYPES = "int, float, bool, str, Optional, Union, List, Dict[str, ...] and Any"


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type alone."""
    is_union = getattr(kind, "__origin__", None) is typing.Union or type(kind).__name__ == "UnionType"
    return tuple(kind.__args__) if is_union else (kind,)


def type_name(kind: Any) -> str:
    """Return a type as its user wrote it."""
    if kind is _NONE:
        return "null"
    if hasattr(kind, "__origin__") or not isinstance(kind, type):
        return str(kind).replace("typing.", "")
    return kind.__name__


def convert(value: Any, kind: Any, path: str) -> Any:
    """Return a JSON value as the annotated type.

    Raises:
        ValueError: It does not fit, or the type is not supported; the message starts with `path`.
    """
    members = _members(kind)
    if value is None and _NONE in members:
        return None
    # The very type first: 1.0 for Union[int, float] stays a float.
    candidates = sorted((each for each in members if each is not _NONE), key=lambda each: type(value) is not each)
    for member in candidates if len(candidates) > 1 else ():
        try:
            return convert(value, member, path)
        except ValueError:  # noqa: PERF203 - trying each member is what a union means
            continue
    single = candidates[0] if len(candidates) == 1 else None
    origin = getattr(single, "__origin__", None) or single
    # Without arguments, List of Python 3.7 and 3.8 shows type variables.
    arguments = [Any if isinstance(arg, typing.TypeVar) else arg for arg in getattr(single, "__args__", None) or ()]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if single is Any or (origin in {bool, str} and type(value) is origin):
        return value
    if origin is int and is_number and (isinstance(value, int) or value.is_integer()):
        return int(value)
    if origin is float and is_number and (isinstance(value, float) or _is_exact(value)):
        return float(value)
    if origin is list and isinstance(value, list):
        item = (arguments or [Any])[0]
        return [convert(each, item, f"{path}[{position}]") for position, each in enumerate(value)]
    if origin is dict and isinstance(value, dict) and (arguments or [str])[0] in {str, Any}:
        item = (arguments or [str, Any])[1]
        return {key: convert(each, item, f"{path}.{key}") for key, each in value.items()}
    hint = "" if origin in {bool, int, float, str, list, dict, None} else f"; use one of {_SUPPORTED_TYPES}"
    if origin is float and is_number:
        hint = "; no float is this number: write int, or send a float"
    raise ValueError(f"{path}: expected {type_name(kind)}, got {value!r} ({type(value).__name__}){hint}")


def _is_exact(number: int) -> bool:
    """Whether a float holds a whole number: those beyond 2**53 not all do, and none beyond 1.8e308."""
    return abs(number) <= sys.float_info.max and int(float(number)) == number


def _read_literal(text: str) -> Any:
    """Read JSON, a Python literal (the container writes `str(value)`) or a number; else return the text."""
    readers: tuple[Callable[[str], Any], ...] = (
        json.loads,
        lambda literal: json.loads(json.dumps(ast.literal_eval(literal))),
        float,
    )
    for read in readers:
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # noqa: PERF203 - form by form
            continue
    return text


def convert_text(text: str, kind: Any, path: str) -> Any:
    """Return what a command-line argument stands for: `True`, `1e-07`, `[1, 2]`, `a=1,b=2`, the empty text for None."""
    members = _members(kind)
    if _NONE in members and (not text or (str not in members and text in {"None", "null"})):
        return None
    if bool in members and text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    value = text if set(members) <= {str, _NONE} else _read_literal(text)
    if float in members and int not in members and type(value) is int and abs(value) <= sys.float_info.max:
        # By hand, 123456789012345678901 is rounded as Python rounds 1e30.
        value = float(value)
    if isinstance(value, str) and dict in {getattr(member, "__origin__", member) for member in members}:
        pairs = [pair.partition("=") for pair in text.split(",")]
        if all(equals for _, equals, _ in pairs):
            value = {key: _read_literal(each) for key, _, each in pairs}
    try:
        return convert(value, kind, path)
    except ValueError:
        return convert(text, kind, path)
