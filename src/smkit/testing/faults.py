"""What a test lets go wrong: refusals and lost replies by operation, and conditions of the next job."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from smkit.errors import ConfigError
from smkit.testing.answers import ErrorAnswer, invalid, quota_exceeded
from smkit.testing.constraints import service_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ANY = "*"


@dataclass(frozen=True, kw_only=True)
class JobConditions:
    """What happens to one job, whatever its script does.

    Args:
        capacity_error: There is no instance: the job fails with `CapacityError`.
        image_pull_error: The image cannot be pulled: the job fails.
        image_pull_seconds: Seconds that the job stays in `Starting`.
        interrupt_after: Seconds of training after which the spot instance is taken away, once; the job then starts
            anew. Needs `EnableManagedSpotTraining`.

    Raises:
        ConfigError: A number of seconds is negative or not finite.
    """

    capacity_error: bool = False
    image_pull_error: bool = False
    image_pull_seconds: float = 0.0
    interrupt_after: float | None = None

    def __post_init__(self) -> None:
        for name in ("image_pull_seconds", "interrupt_after"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name} {value!r} is not allowed: a number of seconds from 0 on")


@dataclass
class Fault:
    """One thing that goes wrong.

    Args:
        operation: The operation, or `*` for each.
        left: How often still; None for ever.
        error: Returns the refusal for a request's body, or None where it does not apply; None loses the reply.
    """

    operation: str
    left: int | None
    error: Callable[[Mapping[str, Any]], ErrorAnswer | None] | None


class Faults:
    """The faults of a sandbox. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._conditions: list[JobConditions] = []

    def add(
        self,
        operation: str,
        times: int | None,
        error: Callable[[Mapping[str, Any]], ErrorAnswer | None] | None,
    ) -> None:
        """Add a fault.

        Raises:
            ConfigError: `times` is not positive.
        """
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
            raise ConfigError(f"times {times!r} is not allowed: a whole number from 1 on, or None: until recover()")
        with self._lock:
            self._faults.append(Fault(operation, times, error))

    def recover(self) -> None:
        """Forget all faults and conditions."""
        with self._lock:
            self._faults.clear()
            self._conditions.clear()

    def refusal(self, operation: str, body: Mapping[str, Any]) -> ErrorAnswer | None:
        """Return the error that this request gets, or None; uses up one of its times."""
        with self._lock:
            for fault in self._of(operation):
                if fault.error is not None and (error := fault.error(body)) is not None:
                    self._use(fault)
                    return error
        return None

    def loses_reply(self, operation: str) -> bool:
        """Tell whether the reply to this request gets lost; uses up one of its times."""
        with self._lock:
            for fault in self._of(operation):
                if fault.error is None:
                    self._use(fault)
                    return True
        return False

    def add_conditions(self, conditions: JobConditions) -> None:
        """Keep the conditions of the next job."""
        with self._lock:
            self._conditions.append(conditions)

    def take_conditions(self) -> JobConditions:
        """Return the conditions of a new job."""
        with self._lock:
            return self._conditions.pop(0) if self._conditions else JobConditions()

    def _of(self, operation: str) -> list[Fault]:
        return [fault for fault in self._faults if fault.operation in {operation, _ANY}]

    def _use(self, fault: Fault) -> None:
        if fault.left is not None:
            fault.left -= 1
            if fault.left == 0:
                self._faults.remove(fault)


class FaultControls:
    """The methods by which a test lets things go wrong.

    `operation` is that of an `X-Amz-Target` header: SageMaker's, such as `CreateTrainingJob`, and those of CloudWatch
    Logs, such as `GetLogEvents`. `times` counts requests, the retries of boto3 among them; None: until `recover`.
    """

    region: str
    account: str
    partition: str

    def __init__(self) -> None:
        self._faults = Faults()

    def throttle(self, operation: str, *, times: int | None = 1) -> None:
        """Answer `ThrottlingException`."""
        error = ErrorAnswer("ThrottlingException", "Rate exceeded")
        self._faults.add(operation, times, lambda _: error)

    def break_down(self, operation: str, *, times: int | None = 1, status: Literal[500, 502, 503, 504] = 500) -> None:
        """Answer an HTTP 5xx."""
        code = "ServiceUnavailable" if status == 503 else "InternalFailure"
        error = ErrorAnswer(code, "The request processing has failed because of an unknown error.", status)
        self._faults.add(operation, times, lambda _: error)

    def lose_reply(self, operation: str = "CreateTrainingJob", *, times: int | None = 1) -> None:
        """Do the work, then reset the connection, so that the caller never learns of it."""
        self._faults.add(operation, times, None)

    def exceed_quota(self, *, times: int | None = 1) -> None:
        """Refuse a new job with `ResourceLimitExceeded`: the account has no quota for the instance."""
        self._faults.add(
            "CreateTrainingJob",
            times,
            lambda body: quota_exceeded(str((body.get("ResourceConfig") or {}).get("InstanceType"))),
        )

    def deny(self, operation: str, *, times: int | None = None) -> None:
        """Answer `AccessDeniedException`."""
        user = f"arn:{self.partition}:iam::{self.account}:user/sandbox"
        action = f"{'sagemaker' if operation in service_model().operation_names else 'logs'}:{operation}"

        def error(body: Mapping[str, Any]) -> ErrorAnswer:
            name = body.get("TrainingJobName")
            jobs = f"arn:{self.partition}:sagemaker:{self.region}:{self.account}:training-job"
            resource = f"{jobs}/{name}" if name else "*"
            return ErrorAnswer(
                "AccessDeniedException",
                f"User: {user} is not authorized to perform: {action} on resource: {resource} because no "
                f"identity-based policy allows the {action} action",
            )

        self._faults.add(operation, times, error)

    def expire_token(self, *, times: int | None = None) -> None:
        """Answer `ExpiredTokenException` to every operation."""
        error = ErrorAnswer("ExpiredTokenException", "The security token included in the request is expired")
        self._faults.add(_ANY, times, lambda _: error)

    def reject_field(self, field: str, *, times: int | None = None) -> None:
        """Refuse a new job whose request holds a field, at any depth: the region has not launched it."""
        error = invalid(f"{field} is currently not supported in {self.region}")
        self._faults.add("CreateTrainingJob", times, lambda body: error if _holds(body, field) else None)

    def next_job(self, conditions: JobConditions) -> None:
        """Give conditions to the next job that is created."""
        self._faults.add_conditions(conditions)

    def recover(self) -> None:
        """Forget every fault, and the conditions of jobs that are still to come."""
        self._faults.recover()


def _holds(value: Any, field: str) -> bool:
    if isinstance(value, dict):
        return field in value or any(_holds(item, field) for item in value.values())
    return isinstance(value, list) and any(_holds(item, field) for item in value)
