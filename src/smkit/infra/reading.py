"""What CloudFormation says of a stack."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.infra.results import Change, Resource, StackEvent, StackStatus
from smkit.jobs.sagemaker.service_errors import service_error, translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_GONE = re.compile(r"does not exist", re.IGNORECASE)
#: What CloudFormation says of the resources that it gave up because another one failed.
_CONSEQUENCE = re.compile(r"cancelled", re.IGNORECASE)
_STACK = "AWS::CloudFormation::Stack"
_BEGINNINGS = frozenset({"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "IMPORT_IN_PROGRESS"})


def read_stack(client: Any, stack: str) -> StackStatus | None:
    """Return a stack, by its name or ARN; None where there is none.

    Raises:
        ServiceError: CloudFormation cannot be asked.
    """
    try:
        found = client.describe_stacks(StackName=stack)["Stacks"][0]
    except AWS_ERRORS as error:
        if error_code(error) == "ValidationError" and _GONE.search(str(error)):
            return None
        raise service_error(error, f"read stack {stack!r}") from error
    return StackStatus(
        name=found["StackName"],
        stack_id=found["StackId"],
        status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        outputs={item["OutputKey"]: item["OutputValue"] for item in found.get("Outputs", ())},
        parameters={item["ParameterKey"]: item.get("ParameterValue", "") for item in found.get("Parameters", ())},
        updated=found.get("LastUpdatedTime") or found["CreationTime"],
    )


def read_resources(client: Any, stack: str) -> tuple[Resource, ...]:
    """Return what a stack consists of.

    Raises:
        ServiceError: CloudFormation cannot be asked.
    """
    with translated(f"list the resources of stack {stack!r}"):
        pages = client.get_paginator("list_stack_resources").paginate(StackName=stack)
        return tuple(
            Resource(
                item["LogicalResourceId"],
                item["ResourceType"],
                item.get("PhysicalResourceId", ""),
                item["ResourceStatus"],
            )
            for page in pages
            for item in page["StackResourceSummaries"]
        )


def read_events(client: Any, stack: str) -> Iterator[StackEvent]:
    """Yield the events of a stack, by its name or ARN, the newest first.

    Raises:
        ServiceError: CloudFormation cannot be asked.
    """
    with translated(f"read the events of stack {stack!r}"):
        for page in client.get_paginator("describe_stack_events").paginate(StackName=stack):
            for item in page["StackEvents"]:
                kind, name = item.get("ResourceType", ""), item.get("LogicalResourceId", "")
                yield StackEvent(
                    event_id=item["EventId"],
                    time=item["Timestamp"],
                    logical_id=name,
                    type=kind,
                    status=item.get("ResourceStatus", ""),
                    reason=item.get("ResourceStatusReason", ""),
                    of_stack=kind == _STACK and name == item["StackName"],
                )


def events_after(client: Any, stack: str, last: str) -> list[StackEvent]:
    """Return the events after one, the oldest first.

    Raises:
        ServiceError: CloudFormation cannot be asked.
    """
    new = []
    for event in read_events(client, stack):
        if event.event_id == last:
            break
        new.append(event)
    return new[::-1]


def last_operation(client: Any, stack: str) -> list[StackEvent]:
    """Return the events of a stack's last operation, the oldest first.

    Raises:
        ServiceError: CloudFormation cannot be asked.
    """
    events = []
    for event in read_events(client, stack):
        events.append(event)
        if event.of_stack and event.status in _BEGINNINGS:
            break
    return events[::-1]


def causes(events: Iterable[StackEvent]) -> tuple[StackEvent, ...]:
    """Return the failures of resources, without those that others brought about."""
    failed = [event for event in events if event.is_failure and not event.of_stack]
    return tuple([event for event in failed if not _CONSEQUENCE.search(event.reason)] or failed)


def change_of(item: dict[str, Any]) -> Change:
    """Return one change of a change set."""
    change = item.get("ResourceChange", {})
    return Change(
        action=change.get("Action", ""),
        logical_id=change.get("LogicalResourceId", ""),
        type=change.get("ResourceType", ""),
        physical_id=change.get("PhysicalResourceId", ""),
        replacement=change.get("Replacement", ""),
        scope=tuple(change.get("Scope", ())),
        afterwards=change.get("PolicyAction", ""),
    )
