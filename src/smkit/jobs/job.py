"""A submitted job, wherever it runs."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smkit.errors import JobError, ServiceError, ServiceUnavailable, StoreUnreachable, WaitTimeout
from smkit.jobs.failure import TAIL_LINES, training_error
from smkit.jobs.job_display import Seen, job_html, look_briefly
from smkit.jobs.log_reader import PATIENCE_SECONDS, LogReader, warn_of_log
from smkit.jobs.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smkit.jobs.backend import Backend, JobStatus, Status
    from smkit.jobs.explain import FailureExplanation

_SLOWER = 1.5


@dataclass(frozen=True)
class TrainingResult:
    """What a completed job gave.

    Args:
        name: The job's name.
        status: `Completed`.
        metrics: Metric name -> value.
        model: Path or URI of `model.tar.gz`; None where the job saved no model.
        billable_seconds: Seconds that are paid for: 0 on this machine, None where the service does not say.
        started: When the script's machine was ready, UTC.
        ended: When the job was over, UTC.
    """

    name: str
    status: Status
    metrics: Mapping[str, float] = field(hash=False)
    model: str | None
    billable_seconds: int | None
    started: datetime | None
    ended: datetime | None

    @property
    def duration(self) -> timedelta | None:
        """Time from `started` to `ended`."""
        return None if self.started is None or self.ended is None else self.ended - self.started


class _Look(NamedTuple):
    """What one look at a job found: its state, and what its log had beside what was seen before."""

    state: JobStatus
    text: str


class TrainingJob:
    """A job by its name: to watch, to stop, and to publish.

    `name`, `model_archive()` and `lineage()` are what `ArtifactStore.publish` asks of a thing it publishes.

    Args:
        name: The job's name.
        backend: Where it runs.
    """

    def __init__(self, name: str, backend: Backend[Any]) -> None:
        self.name = name
        self._backend = backend
        self._seen: Seen | None = None
        self._known_metrics: dict[str, float] = {}

    def __repr__(self) -> str:
        state = look_briefly(self.state, self._seen)
        return f"<TrainingJob {self.name!r}>" if state is None else f"<TrainingJob {self.name!r}: {state.status}>"

    def _repr_html_(self) -> str:
        return job_html(self.name, look_briefly(self.state, self._seen), self._cheap_metrics)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a job be sent to another process, which looks for itself."""
        return (type(self), (self.name, self._backend))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TrainingJob) and other.name == self.name and type(other._backend) is type(self._backend)
        )

    def __hash__(self) -> int:
        return hash(self.name)

    def state(self) -> JobStatus:
        """Look at the job once: its status, times, reason, exit code and lineage, all of the same moment.

        Raises:
            JobNotFound: The job is gone.
            ServiceError: The service cannot be asked.
        """
        state = self._backend.status(self.name)
        self._seen = Seen(time.monotonic(), state)
        return state

    @property
    def status(self) -> Status:
        """`InProgress`, `Completed`, `Failed`, `Stopping` or `Stopped`: SageMaker's words."""
        return self.state().status

    @property
    def exit_code(self) -> int | None:
        """The script's exit code; negative for the signal that killed it; None where there is none (yet)."""
        return self.state().exit_code

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of a job that is over; empty before.

        Of one name the last wins, in this order: lines `smkit metric <name>=<value>` of the log,
        `metric_definitions`, and on this machine numbers in `metrics.json` in the model folder.
        """
        self._known_metrics = dict(self._backend.metrics(self.name))
        return dict(self._known_metrics)

    @property
    def billable_seconds(self) -> int | None:
        """Seconds that are paid for: 0 on this machine; on SageMaker None until they are known."""
        return self.state().billable_seconds

    @property
    def model(self) -> str:
        """Path or URI of `model.tar.gz`.

        Raises:
            JobError: The job is not completed.
        """
        state = self.state()
        if state.model_uri is None:
            raise JobError(f"job {self.name!r} has no model: {_because(state)}")
        return state.model_uri

    def model_archive(self) -> Path | str:
        """Return `model.tar.gz`: a file on this machine, or the `s3://` URI of the one that SageMaker wrote.

        What is in the model folder is at the archive's root.

        Raises:
            JobError: The job is not completed, or the file is gone.
        """
        model = self.model
        if model.startswith("s3://"):
            return model
        path = Path(model)
        if not path.is_file():
            raise JobError(f"the model of job {self.name!r} is gone: there is no file {path}")
        return path

    def lineage(self) -> dict[str, Any]:
        """Return where the model comes from, as JSON.

        `job_name`, `backend`, `status`, `entry_point`, `hyperparameters` (given, or, on this machine, as the script's
        `hyperparameters.json` says, defaults included), `inputs` (channel -> what the channel says of itself: a
        dataset's split gives its reference and digest), `code` (digest, git commit, dirty), `environment` (Python,
        platform, packages; on SageMaker those of the image, None where they are not known), `framework_version`,
        `instance_type`, `image`, `metrics` (finite ones: JSON has no NaN), `created`, `started`, `ended` (UTC, ISO
        8601).
        """
        return self._lineage(self.state())

    def describe(self) -> dict[str, Any]:
        """Return the lineage, and how the job stands.

        Beside the lineage: `secondary_status`, `reason`, `exit_code`, `model`, `log`, `billable_seconds`.
        """
        state = self.state()
        return {
            **self._lineage(state),
            "status": state.status,
            "secondary_status": state.secondary_status,
            "reason": state.reason,
            "exit_code": state.exit_code,
            "model": state.model_uri,
            "log": state.log_location,
            "billable_seconds": state.billable_seconds,
        }

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of the log, without line ends; bytes that are not UTF-8 become U+FFFD.

        Args:
            follow: Wait for further lines until the job is over.
        """
        rest = ""
        for _, text in self._follow(None) if follow else self._whole_log():
            *lines, rest = (rest + text).split("\n")
            yield from lines
        if rest:
            yield rest

    def wait(self, timeout: float | None = None, *, logs: bool = True) -> TrainingJob:
        """Wait until the job is over and return it.

        Args:
            timeout: Seconds to wait; None: as long as it takes. The job itself goes on.
            logs: Show the log, from its beginning, as it comes, and a line that says how the job stands.

        Raises:
            JobError: The job was never submitted, or is gone.
            ServiceError: The service cannot be asked; where it does not answer, it is asked for ten minutes.
            TrainingFailed: The script failed. `traceback` holds its own traceback; the message does too where the
                log was not shown, else it ends with the exception.
            TrainingTimeout: The script ran longer than the job's timeout.
            TrainingStopped: The job was stopped.
            WaitTimeout: The job is not over after `timeout` seconds.
        """
        try:
            return self._wait(timeout, logs=logs)
        except KeyboardInterrupt:
            sys.stderr.write(
                f"\njob {self.name!r} goes on. Attach: JobRunner().attach({self.name!r}).wait(); "
                f"stop: JobRunner().attach({self.name!r}).stop(); in a terminal: smkit jobs attach {self.name}\n"
            )
            raise

    def result(self, timeout: float | None = None) -> TrainingResult:
        """Wait, showing nothing, until the job is over, and return what it gave.

        Args:
            timeout: Seconds to wait; None: as long as it takes. The job itself goes on.

        Raises:
            TrainingFailed: As `wait`; and everything else that `wait` raises.
        """
        self.wait(timeout, logs=False)
        state = self.state()
        return TrainingResult(
            name=self.name,
            status=state.status,
            metrics=self.metrics,
            model=state.model_uri,
            billable_seconds=state.billable_seconds,
            started=state.started,
            ended=state.ended,
        )

    def explain_failure(self) -> FailureExplanation:
        """Say why a job failed or was stopped, and what to do; print it to read it.

        Raises:
            JobError: The job did not fail.
        """
        from smkit.jobs.explain import explain

        state = self.state()
        if state.status not in {"Failed", "Stopped"}:
            raise JobError(f"there is no failure to explain: job {self.name!r} is {state.status}")
        try:
            tail = list(deque(self.logs(), maxlen=TAIL_LINES))
        except ServiceError as error:
            warn_of_log(self.name, error, frames=2)
            tail = []
        return explain(self.name, state, tail, framework_version=state.lineage.get("framework_version"))

    def stop(self) -> None:
        """Ask the job to stop, with all its processes, and return at once; a job that is over stays as it is."""
        self._backend.stop(self.name)
        # What was seen before is no longer so, however fresh.
        self._seen = None

    def _cheap_metrics(self, state: JobStatus) -> dict[str, float]:
        """Return the metrics that cost no request: on SageMaker they are read out of the log."""
        return self.metrics if state.lineage.get("backend") == "local" else self._known_metrics

    def _lineage(self, state: JobStatus) -> dict[str, Any]:
        metrics = {name: value for name, value in self.metrics.items() if math.isfinite(value)}
        return {**state.lineage, "metrics": metrics}

    def _wait(self, timeout: float | None, *, logs: bool) -> TrainingJob:
        until = None if timeout is None else time.monotonic() + timeout
        announces = self._backend.watching.announces_phases
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        rest = ""
        with Progress(self.name, announces_phases=announces, quiet=not logs) as progress:
            for state, text in self._follow(until, needs_log=False):
                # That it is over is said below what it wrote.
                if not (state.is_final and text):
                    progress.update(state)
                if logs:
                    progress.write(text)
                *lines, rest = (rest + text).split("\n")
                tail += lines
                if until is not None and time.monotonic() >= until and not state.is_final:
                    raise WaitTimeout(f"job {self.name!r} is not over after {timeout:g} s; it goes on")
        if state.status != "Completed":
            raise training_error(self.name, state, [*tail, rest] if rest else list(tail), log_shown=logs)
        return self

    def _follow(self, until: float | None, *, needs_log: bool = True) -> Iterator[_Look]:
        """Yield what each look finds, until the job is over; at least one look comes with its last state.

        Args:
            until: When the caller gives up, in `time.monotonic()`'s seconds: no pause lasts longer.
            needs_log: Raise where the log cannot be read; else warn once, and go on without it.
        """
        watching = self._backend.watching
        log = LogReader(self._backend, self.name, required=needs_log)
        started = time.monotonic()
        pause = watching.first_poll
        settled: float | None = None
        while True:
            # Before the log is read: what a job writes last must not be missed.
            state = self._state_in_patience(until)
            for text in log.read():
                yield _Look(state, text)
            yield _Look(state, "")
            now = time.monotonic()
            if state.is_final:
                settled = now + _left(watching.settling, state) if settled is None else settled
                # A log that is out of reach just now may hold why the job failed.
                if log.is_complete or (now >= settled and not log.is_awaited(until)):
                    break
            if now - started >= watching.quick_for:
                pause = min(pause * _SLOWER, watching.slowest_poll)
            limits = [until - now] if until is not None else []
            if settled is not None and settled > now:
                limits.append(settled - now)
            time.sleep(max(0.0, min([pause, *limits])))
        yield _Look(state, log.close())

    def _whole_log(self) -> Iterator[_Look]:
        state = self.state()
        log = LogReader(self._backend, self.name, required=True)
        for text in log.read(patient=False):
            yield _Look(state, text)
        yield _Look(state, log.close())

    def _state_in_patience(self, until: float | None) -> JobStatus:
        """Return the state; a service that does not answer is asked again for a while."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                state = self.state()
            except (ServiceUnavailable, StoreUnreachable):
                now = time.monotonic()
                pause = self._backend.watching.slowest_poll
                if now + pause >= give_up or (until is not None and now + pause >= until):
                    raise
                time.sleep(pause)
                continue
            if state.status == "NotSubmitted":
                raise JobError(f"job {self.name!r} is not running: {state.reason}")
            return state


def _left(seconds: float, state: JobStatus) -> float:
    """Return how much is left of the seconds after a job's end."""
    if state.ended is None:
        return seconds
    since = (datetime.now(timezone.utc) - state.ended).total_seconds()
    # The clocks of two machines differ.
    return min(seconds, max(0.0, seconds - since))


def _because(state: JobStatus) -> str:
    if state.status == "Completed":
        return "the script saved none into the folder that SM_MODEL_DIR names"
    return f"it is {state.status}" + (f" ({state.reason})" if state.reason else "; wait() for it")
