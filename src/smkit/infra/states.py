"""CloudFormation's statuses: in which a stack takes changes, and how to leave the others.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smkit.errors import StackStateError

if TYPE_CHECKING:
    from smkit.infra.results import StackStatus

#: A change set was made and never carried out: there is no stack yet.
REVIEW = "REVIEW_IN_PROGRESS"
#: Its creation failed: it has no resources, takes no change, and can only be deleted.
ONLY_DELETABLE = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"})
#: An operation ended as it should.
SUCCEEDED = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE", "DELETE_COMPLETE"})

_SEE = "`{command} status {kind}` shows what failed"
_DELETE_FIRST = "its first creation failed: delete it with `{command} delete {kind}`, then deploy again"
_FIXES = {
    "ROLLBACK_COMPLETE": _DELETE_FIRST,
    "ROLLBACK_FAILED": f"{_DELETE_FIRST}; {_SEE}",
    "CREATE_FAILED": _DELETE_FIRST,
    "UPDATE_FAILED": "an update was stopped halfway: run `aws cloudformation rollback-stack --stack-name {name}`",
    "UPDATE_ROLLBACK_FAILED": (
        "an update failed, and so did going back: mend what failed, then run `aws cloudformation "
        f"continue-update-rollback --stack-name {{name}}`; {_SEE}"
    ),
    "DELETE_FAILED": (
        "a resource could not be deleted: mend what failed (a policy is deleted once nobody has it attached, a Studio "
        f"domain once its apps are), then run `{{command}} delete {{kind}}` again; {_SEE}"
    ),
    "IMPORT_ROLLBACK_FAILED": f"an import failed, and so did going back: see the stack in the console; {_SEE}",
}


def is_broken(status: str) -> bool:
    """Whether somebody has to do something about the stack."""
    return status in _FIXES


def is_busy(status: str) -> bool:
    """Whether an operation is under way."""
    return status.endswith("_IN_PROGRESS") and status != REVIEW


def how_to_leave(status: str, name: str, kind: str) -> str:
    """Return what to do about a stack that takes no change; "" where it takes one."""
    if is_busy(status):
        return f"an operation is under way: wait, and look with `smkit infra status {kind}`"
    return _FIXES.get(status, "").format(name=name, kind=kind, command="smkit infra")


def check_deployable(stack: StackStatus, kind: str) -> None:
    """Refuse a stack that takes no change.

    Raises:
        StackStateError: It takes none; the message says what to do.
    """
    if fix := how_to_leave(stack.status, stack.name, kind):
        raise StackStateError(
            f"stack {stack.name!r} is in {stack.status} and takes no change: {fix}",
            stack=stack.name,
            status=stack.status,
        )


def check_deletable(stack: StackStatus, kind: str) -> None:
    """Refuse a stack to which something is being done.

    Raises:
        StackStateError: An operation is under way.
    """
    if is_busy(stack.status):
        raise StackStateError(
            f"stack {stack.name!r} is in {stack.status}: {how_to_leave(stack.status, stack.name, kind)}",
            stack=stack.name,
            status=stack.status,
        )
