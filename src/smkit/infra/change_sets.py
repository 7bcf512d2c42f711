"""Change sets: made, read and forgotten, so that none is left behind."""

from __future__ import annotations

import re
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.errors import InfraError
from smkit.infra.reading import change_of, read_stack
from smkit.infra.results import Plan
from smkit.infra.states import REVIEW
from smkit.jobs.sagemaker.service_errors import is_undecided, service_error, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.infra.inputs import StackInputs

#: The roles have no names of their own.
_CAPABILITIES = ("CAPABILITY_IAM",)
_NO_CHANGES = re.compile(r"didn't contain changes|No updates are to be performed", re.IGNORECASE)
_DONE = frozenset({"CREATE_COMPLETE", "FAILED"})


def make_change_set(
    client: Any, stack: str, inputs: StackInputs, *, creates: bool, tags: Mapping[str, str], poll_seconds: float
) -> Plan:
    """Let CloudFormation work out a change. On an error, and on Ctrl-C, nothing of it is left.

    Args:
        client: CloudFormation's.
        stack: The stack's name.
        inputs: What it is made from.
        creates: Whether there is no stack yet.
        tags: Tags of the stack and of its resources.
        poll_seconds: Seconds between two looks.

    Raises:
        InfraError: CloudFormation finds the change invalid.
        ServiceError: CloudFormation cannot be asked, or refuses.
    """
    # Chosen here, so that it can be found and forgotten even where the reply is lost.
    name = f"smkit-{secrets.token_hex(8)}"
    request: dict[str, Any] = {
        "StackName": stack,
        "ChangeSetName": name,
        "ClientToken": name,
        "ChangeSetType": "CREATE" if creates else "UPDATE",
        "TemplateBody": inputs.template,
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in inputs.parameters.items()],
        "Capabilities": list(_CAPABILITIES),
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    if inputs.imports:
        request["ImportExistingResources"] = True
    unchanged = Plan(stack, "", "", creates, (), inputs.parameters)
    try:
        try:
            made = client.create_change_set(**request)
        except AWS_ERRORS as error:
            if _NO_CHANGES.search(str(error)):
                return unchanged
            raise service_error(error, f"plan stack {stack!r}") from error
        found = _read(client, stack, made["Id"], poll_seconds)
    except BaseException as error:
        if _may_have_been_made(error):
            _forget_on_the_way_out(client, stack, name)
        raise
    if found["Status"] == "CREATE_COMPLETE":
        changes = tuple(map(change_of, found["Changes"]))
        return Plan(stack, made["StackId"], made["Id"], creates, changes, inputs.parameters)
    forget_change_set(client, stack, made["Id"])
    reason = str(found.get("StatusReason", "")).rstrip(".")
    if _NO_CHANGES.search(reason):
        return unchanged
    raise InfraError(f"cannot plan stack {stack!r}: {reason or 'CloudFormation does not say why'}")


def execute_change_set(client: Any, plan: Plan) -> None:
    """Begin to carry a plan out; one that is refused is forgotten.

    Raises:
        ServiceError: CloudFormation refuses, or it is not known whether it has begun.
    """
    try:
        client.execute_change_set(
            ChangeSetName=plan.change_set,
            # Sent twice for a lost reply, it is carried out once.
            ClientRequestToken=f"smkit-{secrets.token_hex(8)}",
            # A creation that fails must leave no bucket behind: it is empty, and in the way of the next try.
            RetainExceptOnCreate=plan.creates,
        )
    except AWS_ERRORS as error:
        if isinstance(error, ClientError) and not is_undecided(error):
            _forget_on_the_way_out(client, plan.stack_name, plan.change_set)
        raise service_error(error, f"deploy stack {plan.stack_name!r}") from error


def forget_change_set(client: Any, stack: str, change_set: str) -> None:
    """Delete a change set, and a stack that was never made because of it.

    Args:
        client: CloudFormation's.
        stack: The stack's name.
        change_set: Its ARN, or its name.

    Raises:
        ServiceError: CloudFormation cannot be asked, or refuses.
    """
    with translated(f"forget the plan of stack {stack!r}"):
        try:
            client.delete_change_set(StackName=stack, ChangeSetName=change_set)
        except ClientError as error:
            if error_code(error) not in {"ChangeSetNotFound", "ChangeSetNotFoundException"}:
                raise
        present = read_stack(client, stack)
        if present is None or present.status != REVIEW:
            return
        listed = client.list_change_sets(StackName=present.stack_id)["Summaries"]
        # Somebody else may be looking at a plan of theirs for the same stack.
        if not [item for item in listed if item.get("StackId") == present.stack_id]:
            client.delete_stack(StackName=present.stack_id)


def _may_have_been_made(error: BaseException) -> bool:
    """Tell an error after which a change set may be there from a plain refusal."""
    cause = error.__cause__
    refused = isinstance(cause, ClientError) and cause.operation_name == "CreateChangeSet" and not is_undecided(cause)
    return not refused


def _forget_on_the_way_out(client: Any, stack: str, change_set: str) -> None:
    """Clean up after an error, which an error of the cleaning must not replace."""
    try:
        forget_change_set(client, stack, change_set)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the error under way matters more
        warnings.warn(f"the plan {change_set!r} of stack {stack!r} may be left behind: {error}", stacklevel=4)


def _read(client: Any, stack: str, change_set: str, poll_seconds: float) -> dict[str, Any]:
    """Wait until CloudFormation has worked a change set out; return it with all its changes."""
    while True:
        with translated(f"read the plan of stack {stack!r}"):
            found: dict[str, Any] = client.describe_change_set(ChangeSetName=change_set)
            if found["Status"] in _DONE:
                page = found
                found["Changes"] = list(found.get("Changes", ()))
                while page.get("NextToken"):
                    page = client.describe_change_set(ChangeSetName=change_set, NextToken=page["NextToken"])
                    found["Changes"] += page.get("Changes", ())
                return found
        time.sleep(poll_seconds)
