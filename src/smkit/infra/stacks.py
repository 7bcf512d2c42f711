"""A stack: planned as a change set, applied, followed, deleted."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError, InfraError, StackFailed, StackNotFound
from smkit.infra import reading, states
from smkit.infra.change_sets import execute_change_set, forget_change_set, make_change_set
from smkit.infra.inputs import (
    FoundationOptions,
    StackInputs,
    StudioOptions,
    caller_account,
    check_project,
    foundation_inputs,
    stack_name,
    studio_inputs,
)
from smkit.infra.templates import check_kind, users_of
from smkit.jobs.sagemaker.service_errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.config import Settings
    from smkit.infra.results import Plan, Resource, StackEvent, StackStatus


class Stack:
    """One of a project's stacks. Asks nobody and prints nothing: who calls `apply` or `delete` has consented.

    Args:
        settings: The project, the region, and as whom.
        kind: `foundation` or `studio`.
        poll_seconds: Seconds between two looks at an operation.

    Raises:
        ConfigError: There is no such kind.
    """

    def __init__(self, settings: Settings, kind: str, *, poll_seconds: float = 3.0) -> None:
        self.settings = settings
        self.kind = check_kind(kind)
        self.name = stack_name(settings.project, self.kind)
        self._poll_seconds = poll_seconds

    def status(self) -> StackStatus | None:
        """Return the stack as it is; None where there is none.

        Raises:
            ServiceError: CloudFormation cannot be asked.
        """
        return reading.read_stack(self._client, self.name)

    def resources(self) -> tuple[Resource, ...]:
        """Return what the stack consists of.

        Raises:
            StackNotFound: There is no such stack.
            ServiceError: CloudFormation cannot be asked.
        """
        return reading.read_resources(self._client, self._present().stack_id)

    def failures(self) -> tuple[StackEvent, ...]:
        """Return what failed in the stack's last operation, the first failure first; empty where nothing did.

        Raises:
            StackNotFound: There is no such stack.
            ServiceError: CloudFormation cannot be asked.
        """
        return reading.causes(reading.last_operation(self._client, self._present().stack_id))

    def plan(self, options: FoundationOptions | StudioOptions | None = None) -> Plan:
        """Let CloudFormation work out what would change; changes nothing.

        A plan must be applied or discarded. An empty one needs neither.

        Raises:
            BucketTaken: The bucket that would be made exists.
            ConfigError: A value is malformed, contradicts another, or names something that does not exist.
            InfraError: The stack belongs to another project, needs another stack first, or has no valid change.
            ServiceError: AWS cannot be asked, or refuses.
            StackStateError: The stack takes no change as it is; the message says what to do.
        """
        account = caller_account(self.settings)
        present = self.status()
        if present is not None:
            states.check_deployable(present, self.kind)
            check_project(self.settings, present)
        return make_change_set(
            self._client,
            self.name,
            self._inputs(options, present, account),
            creates=present is None or present.status == states.REVIEW,
            tags=self.settings.tags,
            poll_seconds=min(self._poll_seconds, 1.0),
        )

    def apply(self, plan: Plan, *, on_event: Callable[[StackEvent], None] = lambda _: None) -> StackStatus:
        """Carry a plan out and wait for the end; an interruption leaves CloudFormation at work.

        Args:
            plan: From `plan`.
            on_event: Called with each event as it comes.

        Raises:
            ServiceError: AWS cannot be asked, or refuses.
            StackFailed: It did not succeed; the message says what failed first. CloudFormation has gone back.
        """
        if plan.is_empty:
            return self._present()
        last = self._last_event(plan.stack_id)
        execute_change_set(self._client, plan)
        self._follow(plan.stack_id, last, on_event, "deployed")
        return self._present()

    def discard(self, plan: Plan) -> None:
        """Forget a plan, and the empty stack that it was made for.

        Raises:
            ServiceError: AWS cannot be asked, or refuses.
        """
        if not plan.is_empty:
            forget_change_set(self._client, self.name, plan.change_set)

    def check_deletable(self) -> StackStatus:
        """Return the stack, if it can be deleted.

        Raises:
            InfraError, ServiceError, StackNotFound, StackStateError: As `delete`.
        """
        present = self._present()
        check_project(self.settings, present)
        states.check_deletable(present, self.kind)
        if self.kind == "foundation":
            studio = Stack(self.settings, "studio").status()
            if studio is not None and studio.status != states.REVIEW:
                raise InfraError(
                    f"stack {studio.name!r} uses the policy of {self.name!r}: delete it first, with "
                    "`smkit infra delete studio`"
                )
        return present

    def delete(self, *, on_event: Callable[[StackEvent], None] = lambda _: None) -> None:
        """Delete the stack and wait for the end. The bucket, its policy and the users' home folders stay.

        Args:
            on_event: Called with each event as it comes.

        Raises:
            InfraError: The other stack needs it, or it is of another project.
            ServiceError: AWS cannot be asked, or refuses.
            StackFailed: Something could not be deleted; the message says what.
            StackNotFound: There is no such stack.
            StackStateError: An operation is under way.
        """
        present = self.check_deletable()
        last = self._last_event(present.stack_id)
        with translated(f"delete stack {self.name!r}"):
            self._client.delete_stack(StackName=present.stack_id, ClientRequestToken=f"smkit-{secrets.token_hex(8)}")
        self._follow(present.stack_id, last, on_event, "deleted")

    @property
    def _client(self) -> Any:
        return self.settings.client("cloudformation")

    def _present(self) -> StackStatus:
        present = self.status()
        if present is None:
            raise StackNotFound(
                f"there is no stack {self.name!r} in {self.settings.region}: `smkit infra deploy {self.kind}` makes it"
            )
        return present

    def _inputs(
        self, options: FoundationOptions | StudioOptions | None, present: StackStatus | None, account: str
    ) -> StackInputs:
        if self.kind == "foundation" and isinstance(options, FoundationOptions | None):
            return foundation_inputs(self.settings, options or FoundationOptions(), present, account)
        if self.kind == "studio" and isinstance(options, StudioOptions | None):
            options = options or StudioOptions()
            foundation = Stack(self.settings, "foundation").status()
            users: tuple[str, ...] = ()
            if options.users is None and present is not None and present.status != states.REVIEW:
                users = self._present_users()
            return studio_inputs(self.settings, options, foundation, users, present)
        expected = "FoundationOptions" if self.kind == "foundation" else "StudioOptions"
        raise ConfigError(f"the stack {self.kind!r} takes {expected}, got {type(options).__name__}")

    def _present_users(self) -> tuple[str, ...]:
        with translated(f"read the template of stack {self.name!r}"):
            body = self._client.get_template(StackName=self.name, TemplateStage="Original")["TemplateBody"]
        if not isinstance(body, str):
            # boto3 parses a template that is JSON, which smkit's never is.
            raise InfraError(
                f"stack {self.name!r} was deployed from another template than smkit's, so its users are not known: "
                "name them with --user"
            )
        return users_of(body)

    def _last_event(self, stack_id: str) -> str:
        return next((event.event_id for event in reading.read_events(self._client, stack_id)), "")

    def _follow(self, stack_id: str, last: str, on_event: Callable[[StackEvent], None], what: str) -> None:
        """Hand on the events after one, until the stack itself has come to an end."""
        seen: list[StackEvent] = []
        while True:
            for event in reading.events_after(self._client, stack_id, last):
                on_event(event)
                seen.append(event)
                last = event.event_id
            # The stack's status may still be that of before, its events cannot.
            ends = [event for event in seen if event.of_stack]
            if ends and not ends[-1].status.endswith("_IN_PROGRESS"):
                if ends[-1].status not in states.SUCCEEDED:
                    raise self._failure(ends[-1], seen, what)
                return
            time.sleep(self._poll_seconds)

    def _failure(self, end: StackEvent, seen: list[StackEvent], what: str) -> StackFailed:
        reasons = [f"{event.logical_id}: {event.reason or event.status}" for event in reading.causes(seen)]
        said = "; ".join(reason.rstrip(".") for reason in reasons) or end.reason or "CloudFormation does not say why"
        fix = states.how_to_leave(end.status, self.name, self.kind)
        return StackFailed(
            f"stack {self.name!r} was not {what} ({end.status}): {said}"
            + (f". {fix[0].upper()}{fix[1:]}" if fix else ""),
            stack=self.name,
            status=end.status,
            reasons=reasons,
        )
