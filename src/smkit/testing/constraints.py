"""What the service says of a request that botocore's model of SageMaker does not allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smkit.jobs.sagemaker.limits import broken_limits, service_model
from smkit.testing.answers import ErrorAnswer, invalid

if TYPE_CHECKING:
    from smkit.jobs.sagemaker.limits import BrokenLimit

__all__ = ["check_request", "must_not_be_null", "service_model"]


def check_request(operation: str, body: dict[str, Any]) -> None:
    """Check a request against the model.

    Raises:
        ErrorAnswer: A constraint is broken; all broken ones are listed, as the service does.
    """
    broken = list(broken_limits(operation, body))
    for item in broken:
        if item.kind == "type":
            raise ErrorAnswer("SerializationException", f"{_path(item) or 'the request'}: expected a {item.limit}")
    if broken:
        count = f"{len(broken)} validation error{'s' if len(broken) > 1 else ''} detected"
        raise invalid(f"{count}: {'; '.join(map(_said, broken))}")


def must_not_be_null(path: str) -> ErrorAnswer:
    """Return the error for a member that the service needs."""
    return invalid(f"1 validation error detected: {_failed('null', path, 'Member must not be null')}")


def _said(item: BrokenLimit) -> str:
    if item.kind == "null":
        return _failed("null", _path(item), "Member must not be null")
    limit = ", ".join(item.limit) if item.kind == "enum" else item.limit
    constraint = {
        "least": f"Member must have {item.measure} greater than or equal to {limit}",
        "most": f"Member must have {item.measure} less than or equal to {limit}",
        "enum": f"Member must satisfy enum value set: [{limit}]",
        "pattern": f"Member must satisfy regular expression pattern: {limit}",
    }[item.kind]
    return _failed(f"'{item.value}'", _path(item), constraint)


def _path(item: BrokenLimit) -> str:
    return ".".join(map(_part, item.path))


def _part(part: str | int) -> str:
    if isinstance(part, int):
        return f"{part}.member"
    # A map's key stays as it is.
    return part[1:-1] if part.startswith("[") else part[:1].lower() + part[1:]


def _failed(value: str, path: str, constraint: str) -> str:
    return f"Value {value} at '{path}' failed to satisfy constraint: {constraint}"
