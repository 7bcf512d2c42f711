"""The state of one training job, as DescribeTrainingJob tells it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from smkit.testing.constraints import service_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.testing.faults import JobConditions

FINAL = frozenset({"Completed", "Failed", "Stopped"})
MAX_REASON = 1024
_MESSAGES = {
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
}


class TrainingJob:
    """One job. Safe to use from several threads.

    Args:
        request: The body of CreateTrainingJob.
        arn: The job's ARN.
        conditions: What happens to it.
    """

    def __init__(self, request: Mapping[str, Any], arn: str, conditions: JobConditions) -> None:
        self.request = request
        self.name: str = request["TrainingJobName"]
        self.arn = arn
        self.conditions = conditions
        self.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()}
        self.created = time.time()
        self.stop_requested = threading.Event()
        self.interrupt_requested = threading.Event()
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._status = "InProgress"
        self._reason: str | None = None
        self._model: str | None = None
        self._metrics: dict[str, tuple[float, float]] = {}
        self._started: float | None = None
        self._ended: float | None = None
        self._modified = self.created
        self._resources: dict[str, Any] = dict(request["ResourceConfig"])
        self._warm = bool(self._resources.get("KeepAlivePeriodInSeconds"))
        self._transitions: list[dict[str, Any]] = []
        self.enter("Starting", "Starting the training job")

    @property
    def status(self) -> str:
        """`TrainingJobStatus`."""
        return self._status

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self._status in FINAL

    def enter(self, secondary: str, message: str) -> None:
        """Go on to a secondary status; the same one again changes its message only."""
        with self._lock:
            self._enter(secondary, message)

    def start(self) -> None:
        """Note that the instance is there: what follows is billed."""
        with self._lock:
            self._started = self._started or time.time()
            self._enter("Downloading", "Downloading input data")

    def stopping(self) -> None:
        """Note that the job is being stopped."""
        with self._lock:
            if self._status == "InProgress":
                self._status = "Stopping"
                self._enter("Stopping", "Stopping the training job")

    def measure(self, name: str, value: float) -> None:
        """Keep the last value of a metric."""
        with self._lock:
            self._metrics[name] = (value, time.time())

    def end(self, secondary: str, *, reason: str | None = None, model: str | None = None) -> None:
        """End the job.

        Args:
            secondary: `Completed`, `Failed`, or why it is `Stopped`.
            reason: Why it failed; cut as the service does.
            model: URI of the model.
        """
        with self._lock:
            self._status = secondary if secondary in FINAL else "Stopped"
            self._reason = None if reason is None else reason[:MAX_REASON]
            self._model = model
            self._enter(secondary, _MESSAGES[secondary])
            self._ended = self._transitions[-1]["EndTime"] = self._modified
        self.over.set()

    def set_keep_alive(self, seconds: int) -> None:
        """Change how long the instance is kept after the job."""
        with self._lock:
            self._resources["KeepAlivePeriodInSeconds"] = seconds
            self._modified = time.time()

    @property
    def warm_pool(self) -> str | None:
        """Status of the instance that is kept, or None where none was asked for."""
        if not self._warm or self._status not in FINAL:
            return None
        return "Available" if self._resources.get("KeepAlivePeriodInSeconds") else "Terminated"

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob."""
        members = service_model().operation_model("DescribeTrainingJob").output_shape.members
        with self._lock:
            answer: dict[str, Any] = {
                "EnableNetworkIsolation": False,
                "EnableInterContainerTrafficEncryption": False,
                "EnableManagedSpotTraining": False,
                **{name: value for name, value in self.request.items() if name in members},
                "ResourceConfig": self._resources,
                "TrainingJobArn": self.arn,
                "TrainingJobStatus": self._status,
                "SecondaryStatus": self._transitions[-1]["Status"],
                "SecondaryStatusTransitions": [dict(transition) for transition in self._transitions],
                "CreationTime": self.created,
                "LastModifiedTime": self._modified,
                "TrainingStartTime": self._started,
                "TrainingEndTime": self._ended,
                "FailureReason": self._reason,
                "ModelArtifacts": None if self._model is None else {"S3ModelArtifacts": self._model},
                "FinalMetricDataList": [
                    {"MetricName": name, "Value": value, "Timestamp": at} for name, (value, at) in self._metrics.items()
                ]
                or None,
            }
            if self._started is not None and self._ended is not None:
                seconds = max(1, round(self._ended - self._started))
                answer |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
            if (pool := self.warm_pool) is not None:
                answer["WarmPoolStatus"] = {"Status": pool}
        return {name: value for name, value in answer.items() if value is not None}

    def summary(self) -> dict[str, Any]:
        """Return the job's entry in ListTrainingJobs."""
        whole = self.describe()
        members = service_model().shape_for("TrainingJobSummary").members
        return {name: value for name, value in whole.items() if name in members}

    def _enter(self, secondary: str, message: str) -> None:
        now = time.time()
        self._modified = now
        if self._transitions and self._transitions[-1]["Status"] == secondary:
            self._transitions[-1]["StatusMessage"] = message
            return
        if self._transitions:
            self._transitions[-1]["EndTime"] = now
        self._transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
