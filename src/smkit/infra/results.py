"""What is known of a stack, and of a change to it."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclasses keep the annotations for readers
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - as above


@dataclass(frozen=True)
class StackStatus:
    """A stack as it is.

    Args:
        name: Its name.
        stack_id: Its ARN, which stays its own after it is deleted.
        status: In CloudFormation's words, such as `UPDATE_COMPLETE`.
        reason: Why, or "".
        outputs: Name -> value.
        parameters: Name -> value.
        updated: When it was last changed.
    """

    name: str
    stack_id: str
    status: str
    reason: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    updated: datetime


@dataclass(frozen=True)
class Resource:
    """A resource of a stack.

    Args:
        logical_id: Its name in the template.
        type: Such as `AWS::S3::Bucket`.
        physical_id: Its own name or ARN.
        status: In CloudFormation's words.
    """

    logical_id: str
    type: str
    physical_id: str
    status: str


@dataclass(frozen=True)
class Change:
    """What a plan does to one resource.

    Args:
        action: `Add`, `Modify`, `Remove`, `Import` or `Dynamic` (known only while it is done).
        logical_id: The resource's name in the template.
        type: Such as `AWS::S3::Bucket`.
        physical_id: Its own name, "" where it does not exist yet.
        replacement: Of a modification: `True` (a new resource takes its place), `False`, `Conditional`; else "".
        scope: What is modified, such as `Properties` and `Tags`.
        afterwards: What becomes of what is removed or replaced: `Delete`, `Retain`, ...; "" where it is not said.
    """

    action: str
    logical_id: str
    type: str
    physical_id: str = ""
    replacement: str = ""
    scope: tuple[str, ...] = ()
    afterwards: str = ""

    @property
    def loses_resource(self) -> bool:
        """Whether a resource is removed or may be replaced."""
        return self.action == "Remove" or self.replacement in {"True", "Conditional"}


@dataclass(frozen=True)
class Plan:
    """A change that CloudFormation has worked out and not made: a change set.

    Args:
        stack_name: The stack.
        stack_id: Its ARN; "" where nothing would change.
        change_set: ARN of the change set; "" where nothing would change.
        creates: Whether the stack would be made.
        changes: What would be done, resource by resource.
        parameters: The parameters that it would be made with.
    """

    stack_name: str
    stack_id: str
    change_set: str
    creates: bool
    changes: tuple[Change, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether the stack is already what it should be."""
        return not self.change_set


@dataclass(frozen=True)
class StackEvent:
    """Something that happened to a stack or to one of its resources.

    Args:
        event_id: Its own id.
        time: When.
        logical_id: The resource's name in the template; of the stack itself, the stack's.
        type: Such as `AWS::S3::Bucket`.
        status: Such as `CREATE_FAILED`.
        reason: Why, or "".
        of_stack: Whether it happened to the stack itself.
    """

    event_id: str
    time: datetime
    logical_id: str
    type: str
    status: str
    reason: str
    of_stack: bool

    @property
    def is_failure(self) -> bool:
        """Whether something failed."""
        return self.status.endswith("_FAILED")
