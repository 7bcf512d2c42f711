"""A small evaluator of IAM policies: what the reference says of one account, with the operators that smkit uses.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from typing import Any

Context = dict[str, str]


def is_allowed(policies: list[dict[str, Any]], action: str, resource: str, context: Context | None = None) -> bool:
    """Whether the policies together allow an action: some statement allows it and none denies it."""
    matching = [
        statement["Effect"]
        for policy in policies
        for statement in policy["Statement"]
        if _applies(statement, action, resource, context or {})
    ]
    return "Allow" in matching and "Deny" not in matching


def is_denied(policies: list[dict[str, Any]], action: str, resource: str, context: Context | None = None) -> bool:
    """Whether a statement denies an action explicitly."""
    return any(
        statement["Effect"] == "Deny" and _applies(statement, action, resource, context or {})
        for policy in policies
        for statement in policy["Statement"]
    )


def _applies(statement: dict[str, Any], action: str, resource: str, context: Context) -> bool:
    return (
        any(_like(pattern.lower(), action.lower()) for pattern in as_list(statement["Action"]))
        and any(_like(_filled(pattern, context), resource) for pattern in as_list(statement["Resource"]))
        and all(
            _holds(operator, key, as_list(values), context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, key: str, values: list[str], context: Context) -> bool:
    found = next((value for name, value in context.items() if name.lower() == key.lower()), None)
    if operator == "Null":
        return (found is None) == (values == ["true"])
    if operator.endswith("IfExists"):
        if found is None:
            return True
        operator = operator.removesuffix("IfExists")
    values = [_filled(value, context) for value in values]
    if operator == "ArnNotEquals":
        return found is None or not any(_like(value, found) for value in values)
    if found is None:
        return False
    if operator in {"StringEquals", "Bool"}:
        return found in values
    if operator in {"StringLike", "ArnLike", "ArnEquals"}:
        return any(_like(value, found) for value in values)
    raise AssertionError(f"the evaluator does not know {operator}")


def _filled(pattern: str, context: Context) -> str:
    """Fill in policy variables; one without a value matches nothing."""
    return re.sub(r"\$\{([a-z]+:[A-Za-z]+)\}", lambda match: context.get(match[1], "\0"), pattern)


def _like(pattern: str, text: str) -> bool:
    parts = [{"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern]
    return re.fullmatch("".join(parts), text, flags=re.DOTALL) is not None


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
