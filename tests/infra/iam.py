"""A small evaluator of IAM policies: what the reference says of one account, with the operators that smkit uses.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html

A service tells IAM only the condition keys that an action supports. So a key that an action does not support is absent
from its every request, and a condition on it never holds, or always with `IfExists`.
"""

from __future__ import annotations

import re
from typing import Any

Context = dict[str, str]

_OF_EVERY_S3_ACTION = frozenset(
    {"s3:authType", "s3:ResourceAccount", "s3:signatureAge", "s3:signatureversion", "s3:TlsVersion"}
    | {"s3:x-amz-content-sha256"}
)
_OF_A_SPACE = frozenset({"sagemaker:OwnerUserProfileArn", "sagemaker:SpaceSharingType"})
_OF_AN_INTERFACE = frozenset(
    {"ec2:AvailabilityZone", "ec2:NetworkInterfaceID", "ec2:Region", "ec2:ResourceTag/*", "ec2:Subnet", "ec2:Vpc"}
)
#: Action -> the condition keys of its service that it supports, by the Service Authorization Reference. `aws:` keys are
#: everywhere. https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
CONDITION_KEYS = {
    "cloudwatch:PutMetricData": frozenset({"cloudwatch:namespace"}),
    "ec2:CreateNetworkInterfacePermission": _OF_AN_INTERFACE
    | {"ec2:AuthorizedService", "ec2:AuthorizedUser", "ec2:Permission"},
    "ec2:DeleteNetworkInterface": _OF_AN_INTERFACE,
    "ec2:DeleteNetworkInterfacePermission": _OF_AN_INTERFACE,
    "iam:PassRole": frozenset({"iam:AssociatedResourceArn", "iam:PassedToService"}),
    "kms:CreateGrant": frozenset(
        {"kms:CallerAccount", "kms:EncryptionContext:*", "kms:EncryptionContextKeys", "kms:GrantConstraintType"}
        | {"kms:GranteePrincipal", "kms:GrantIsForAWSResource", "kms:GrantOperations", "kms:RetiringPrincipal"}
        | {"kms:ViaService"}
    ),
    "s3:*": _OF_EVERY_S3_ACTION,
    "s3:DeleteObject": _OF_EVERY_S3_ACTION | {"s3:if-match"},
    "s3:DeleteObjectVersion": _OF_EVERY_S3_ACTION | {"s3:versionid"},
    "s3:ListBucket": _OF_EVERY_S3_ACTION | {"s3:delimiter", "s3:max-keys", "s3:prefix"},
    "s3:ListBucketMultipartUploads": _OF_EVERY_S3_ACTION,
    "s3:PutObject": _OF_EVERY_S3_ACTION | {"s3:if-match", "s3:if-none-match", "s3:ObjectCreationOperation"},
    "sagemaker:AddTags": frozenset({"sagemaker:TaggingAction"}),
    "sagemaker:CreateApp": _OF_A_SPACE,
    "sagemaker:CreateSpace": _OF_A_SPACE,
    "sagemaker:DeleteApp": _OF_A_SPACE,
    "sagemaker:DeleteSpace": _OF_A_SPACE,
    "sagemaker:DescribeApp": frozenset(),
    "sagemaker:DescribeSpace": frozenset(),
    "sagemaker:UpdateSpace": _OF_A_SPACE,
}


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


def unsupported_conditions(policy: dict[str, Any]) -> list[str]:
    """Return `Sid: action key` of each condition on a key that its action does not support, or is not known to."""
    return [
        f"{statement['Sid']}: {action} {key}"
        for statement in policy["Statement"]
        for action in as_list(statement["Action"])
        for keys in statement.get("Condition", {}).values()
        for key in keys
        if not _supports(action, key)
    ]


def _supports(action: str, key: str) -> bool:
    known = CONDITION_KEYS.get(action, frozenset())
    return key.lower().startswith("aws:") or any(_like(one.lower(), key.lower()) for one in known)


def _applies(statement: dict[str, Any], action: str, resource: str, context: Context) -> bool:
    return (
        any(_like(pattern.lower(), action.lower()) for pattern in as_list(statement["Action"]))
        and any(_like(_filled(pattern, context), resource) for pattern in as_list(statement["Resource"]))
        and all(
            _holds(operator, key, as_list(values), context, action)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, key: str, values: list[str], context: Context, action: str) -> bool:
    told = context if _supports(action, key) else {}
    found = next((value for name, value in told.items() if name.lower() == key.lower()), None)
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
