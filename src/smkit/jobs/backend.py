"""What a job needs of the place where it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.jobs.spec import JobSpec

RequestT = TypeVar("RequestT")

#: SageMaker's words: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
Status = Literal["InProgress", "Completed", "Failed", "Stopping", "Stopped"]
FINAL_STATUSES = frozenset({"Completed", "Failed", "Stopped"})


@dataclass(frozen=True)
class JobStatus:
    """What a backend knows of a job at one moment.

    Args:
        status: SageMaker's `TrainingJobStatus`.
        secondary_status: SageMaker's `SecondaryStatus`, such as `Training` or `MaxRuntimeExceeded`.
        reason: Why the job failed or stopped, else "".
        exit_code: The script's exit code; negative for the signal that killed it; None where there is none.
        log_location: Where a person finds the log.
        model_uri: Where `model.tar.gz` lies, once the job is completed.
        metrics: The metrics, once the job is over.
        lineage: Everything that a model's manifest keeps of the job; JSON values.
    """

    status: Status
    secondary_status: str
    reason: str
    exit_code: int | None
    log_location: str
    model_uri: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self.status in FINAL_STATUSES


class LogPage(NamedTuple):
    """Part of a log: its bytes, and the position where the next part starts."""

    data: bytes
    position: int


class Backend(Protocol[RequestT]):
    """A place where jobs run."""

    def prepare(self, spec: JobSpec) -> RequestT:
        """Return the whole request; nothing is started, written or paid for."""

    def submit(self, request: RequestT) -> None:
        """Start the job and return.

        Raises:
            DuplicateJobError: The name is taken.
        """

    def status(self, name: str) -> JobStatus:
        """Return the state of a job, whichever process submitted it.

        Raises:
            JobNotFound: No job has this name.
        """

    def logs(self, name: str, position: int = 0) -> LogPage:
        """Return the log from a position on: at most a few megabytes, nothing where there is no more yet."""

    def stop(self, name: str) -> None:
        """Ask a job to stop and return; a job that is over stays as it is."""
