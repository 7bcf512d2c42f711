"""What a job needs of the place where it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from smkit.jobs.spec import JobSpec

RequestT = TypeVar("RequestT")

#: SageMaker's words: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
#: and `NotSubmitted`: the store has a record of the job, SageMaker has no job.
Status = Literal["InProgress", "Completed", "Failed", "Stopping", "Stopped", "NotSubmitted"]
FINAL_STATUSES = frozenset({"Completed", "Failed", "Stopped"})


@dataclass(frozen=True)
class JobStatus:
    """What a backend knows of a job at one moment.

    Args:
        status: SageMaker's `TrainingJobStatus`, or `NotSubmitted`.
        secondary_status: SageMaker's `SecondaryStatus`, such as `Training` or `MaxRuntimeExceeded`.
        reason: Why the job failed or stopped, else "".
        exit_code: The script's exit code; negative for the signal that killed it; None where there is none.
        log_location: Where a person finds the log.
        model_uri: Where `model.tar.gz` lies, once the job is completed.
        lineage: Everything that a model's manifest keeps of the job, but for the metrics; JSON values.
        started: When the script's machine was ready, UTC.
        ended: When the job was over, UTC.
        billable_seconds: Seconds that are paid for: 0 on this machine, None where it is not known yet.
    """

    status: Status
    secondary_status: str
    reason: str
    exit_code: int | None
    log_location: str
    model_uri: str | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None
    billable_seconds: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self.status in FINAL_STATUSES


class LogPage(NamedTuple):
    """Part of a log: its bytes, and the position where the next part starts, which only the backend understands."""

    data: bytes
    position: Any


@dataclass(frozen=True)
class Watching:
    """How to wait for a backend's jobs.

    Args:
        first_poll: Seconds between the first two looks.
        slowest_poll: Seconds between two looks in the end; in between, the pauses grow by a half each.
        quick_for: Seconds for which the pauses do not grow.
        settling: Seconds after a job's end in which lines of its log may still arrive.
        last_line: Part of the line that ends the log of a job that went well; "" where there is none.
        announces_phases: Whether a phase lasts so long that a log file should say so too, not only a terminal.
    """

    first_poll: float
    slowest_poll: float
    quick_for: float = 0.0
    settling: float = 0.0
    last_line: str = ""
    announces_phases: bool = False


class Backend(Protocol[RequestT]):
    """A place where jobs run."""

    #: Whether Ctrl-C in `run` stops the job.
    stops_on_interrupt: ClassVar[bool]

    @property
    def watching(self) -> Watching:
        """How to wait for its jobs."""

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

    def metrics(self, name: str) -> Mapping[str, float]:
        """Return the metrics of a job that is over; empty before."""

    def logs(self, name: str, position: Any = None) -> LogPage:
        """Return the log from a position on, None for its start.

        At most a few megabytes; nothing where there is no more yet.
        """

    def stop(self, name: str) -> None:
        """Ask a job to stop and return; a job that is over stays as it is."""

    def names(self) -> Iterable[str]:
        """Return the names of the jobs, the newest first."""
