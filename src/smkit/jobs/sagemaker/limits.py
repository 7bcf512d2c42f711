"""What botocore's model of SageMaker says of a request: required members, lengths, ranges, enums and patterns.

botocore itself checks only types, required members and minimal lengths; the service checks everything, once the data
and the code are uploaded.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": (int, float),
}
_UNICODE_CLASS = re.compile(r"\\p\{(\w+)\}")
#: What of a class of Unicode is ASCII: enough for most values, and quicker than looking through all of Unicode.
_ASCII = {"Alnum": "a-zA-Z0-9", "L": "a-zA-Z", "N": "0-9", "Z": " "}


class BrokenLimit(NamedTuple):
    """One member of a request that the model does not allow.

    Attributes:
        path: Its members in the API's words: `("Environment", "[NAME]")`; a list's are numbered from 1.
        kind: `type`, `null`, `least`, `most`, `enum` or `pattern`.
        limit: What is allowed: the type, the bound, the values or the pattern.
        measure: `length` or `value`: what the bound is of.
        value: What was given.
    """

    path: tuple[str | int, ...]
    kind: str
    limit: Any
    measure: str
    value: Any

    def __str__(self) -> str:
        """Say what is wrong; the value may be secret, and is not shown."""
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)[1:]
        where = where.replace(".[", "[")
        has = (
            f"{len(self.value)} long" if self.measure == "length" and self.kind in {"least", "most"} else "not allowed"
        )
        rule = {
            "type": f"expected a {self.limit}",
            "null": "it must be set",
            "least": f"expected at least {self.limit}",
            "most": f"expected at most {self.limit}",
            "enum": f"expected one of {self.limit}",
            "pattern": f"expected the pattern {self.limit}",
        }[self.kind]
        return f"{where} is {has}: {rule}"


@functools.cache
def service_model() -> Any:
    """Return botocore's model of SageMaker; made without a client, hence without credentials."""
    from botocore.loaders import create_loader
    from botocore.model import ServiceModel

    model = create_loader(os.environ.get("AWS_DATA_PATH")).load_service_model("sagemaker", "service-2")
    return ServiceModel(model, "sagemaker")


def broken_limits(operation: str, body: dict[str, Any], model: Any = None) -> Iterator[BrokenLimit]:
    """Yield what the model does not allow in a request; nothing of the inside of what has another type.

    Args:
        operation: The operation.
        body: The request.
        model: As a client has it; default: `service_model()`.
    """
    return _of((model or service_model()).operation_model(operation).input_shape, body, ())


def _of(shape: Any, value: Any, path: tuple[str | int, ...]) -> Iterator[BrokenLimit]:
    expected = _TYPES.get(shape.type_name)
    if expected is not None and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        yield BrokenLimit(path, "type", shape.type_name, "value", value)
        return
    yield from _of_itself(shape, value, path)
    if shape.type_name == "structure":
        for name in shape.required_members:
            if value.get(name) is None:
                yield BrokenLimit((*path, name), "null", None, "value", None)
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _of(member, value[name], (*path, name))
    elif shape.type_name == "list":
        for number, item in enumerate(value, 1):
            yield from _of(shape.member, item, (*path, number))
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _of(shape.key, key, (*path, "key"))
            yield from _of(shape.value, item, (*path, f"[{key}]"))


def _of_itself(shape: Any, value: Any, path: tuple[str | int, ...]) -> Iterator[BrokenLimit]:
    rules = shape.metadata
    if shape.type_name in {"string", "list", "map"}:
        measure, size = "length", len(value)
    elif shape.type_name in {"integer", "long", "float", "double"}:
        measure, size = "value", value
    else:
        return
    if "min" in rules and size < rules["min"]:
        yield BrokenLimit(path, "least", rules["min"], measure, value)
    if "max" in rules and size > rules["max"]:
        yield BrokenLimit(path, "most", rules["max"], measure, value)
    if rules.get("enum") and value not in rules["enum"]:
        yield BrokenLimit(path, "enum", rules["enum"], measure, value)
    if "pattern" in rules and not _matches(rules["pattern"], value):
        yield BrokenLimit(path, "pattern", rules["pattern"], measure, value)


def _matches(pattern: str, value: str) -> bool:
    return _compiled(pattern, is_ascii=value.isascii()).fullmatch(value) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str, *, is_ascii: bool) -> re.Pattern[str]:
    # Java's patterns: ASCII digits and letters, and classes of Unicode, which Python's `re` does not know.
    def characters(match: re.Match[str]) -> str:
        known = _ASCII.get(match[1]) if is_ascii or match[1] == "Alnum" else None
        return known or _characters(match[1])

    return re.compile(_UNICODE_CLASS.sub(characters, pattern), re.ASCII)


@functools.lru_cache(maxsize=16)
def _characters(name: str) -> str:
    """Return what stands for a class of Unicode, such as `L`, inside a character class."""
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith(name):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
