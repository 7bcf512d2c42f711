"""A submitted job, wherever it runs."""

from __future__ import annotations

import codecs
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smkit.errors import JobError, WaitTimeout
from smkit.jobs.failure import TAIL_LINES, training_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.jobs.backend import Backend, JobStatus, Status

_QUICK_POLL_SECONDS, _POLL_SECONDS = 0.02, 0.2
_QUICK_POLLING_SECONDS = 10.0


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

    def __repr__(self) -> str:
        try:
            return f"<TrainingJob {self.name!r}: {self.status}>"
        except Exception:  # noqa: BLE001 - a debugger shows what it can, even of a job whose record is gone
            return f"<TrainingJob {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TrainingJob) and other.name == self.name and type(other._backend) is type(self._backend)
        )

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def status(self) -> Status:
        """`InProgress`, `Completed`, `Failed`, `Stopping` or `Stopped`: SageMaker's words."""
        return self._state().status

    @property
    def exit_code(self) -> int | None:
        """The script's exit code; negative for the signal that killed it; None where there is none (yet)."""
        return self._state().exit_code

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of a job that is over; empty before.

        Of one name the last wins, in this order: lines `smkit metric <name>=<value>` of the log,
        `metric_definitions`, numbers in `metrics.json` in the model folder.
        """
        return dict(self._state().metrics)

    @property
    def model(self) -> str:
        """Path or URI of `model.tar.gz`.

        Raises:
            JobError: The job is not completed.
        """
        state = self._state()
        if state.model_uri is None:
            raise JobError(f"job {self.name!r} has no model: it is {state.status}" + _because(state))
        return state.model_uri

    def model_archive(self) -> Path:
        """Return `model.tar.gz` as a file on this machine: what is in the model folder, at the archive's root.

        Raises:
            JobError: The job is not completed, or the file is gone.
        """
        path = Path(self.model)
        if not path.is_file():
            raise JobError(f"the model of job {self.name!r} is gone: there is no file {path}")
        return path

    def lineage(self) -> dict[str, Any]:
        """Return where the model comes from, as JSON.

        `job_name`, `backend`, `status`, `entry_point`, `hyperparameters` (given, or as the script's
        `hyperparameters.json` says, defaults included), `inputs` (channel -> what the channel says of itself: a
        dataset's split gives its reference and digest), `code` (digest, git commit, dirty), `environment` (Python,
        platform, packages), `framework_version`, `instance_type`, `image`, `metrics` (finite ones: JSON has no NaN),
        `created`, `started`, `ended` (UTC, ISO 8601).
        """
        return dict(self._state().lineage)

    def describe(self) -> dict[str, Any]:
        """Return the lineage, and how the job stands: `secondary_status`, `reason`, `exit_code`, `model`, `log`."""
        state = self._state()
        return {
            **state.lineage,
            "status": state.status,
            "secondary_status": state.secondary_status,
            "reason": state.reason,
            "exit_code": state.exit_code,
            "model": state.model_uri,
            "log": state.log_location,
        }

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of the log, without line ends; bytes that are not UTF-8 become U+FFFD.

        Args:
            follow: Wait for further lines until the job is over.
        """
        rest = ""
        for text in self._log_texts(follow=follow):
            *lines, rest = (rest + text).split("\n")
            yield from lines
        if rest:
            yield rest

    def wait(self, timeout: float | None = None, *, logs: bool = True) -> TrainingJob:
        """Wait until the job is over and return it.

        Args:
            timeout: Seconds to wait; None: as long as it takes. The job itself goes on.
            logs: Show the log, from its beginning, as it comes.

        Raises:
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
                f"\njob {self.name!r} goes on. Attach: JobRunner().job({self.name!r}).wait(); "
                f"stop: JobRunner().job({self.name!r}).stop()\n"
            )
            raise

    def stop(self) -> None:
        """Ask the job to stop, with all its processes, and return at once; a job that is over stays as it is."""
        self._backend.stop(self.name)

    def _state(self) -> JobStatus:
        return self._backend.status(self.name)

    def _wait(self, timeout: float | None, *, logs: bool) -> TrainingJob:
        give_up = None if timeout is None else time.monotonic() + timeout
        for text in self._log_texts(follow=True):
            if logs:
                _show(text)
            if give_up is not None and time.monotonic() >= give_up and not self._state().is_final:
                raise WaitTimeout(f"job {self.name!r} is not over after {timeout:g} s; it goes on")
        state = self._state()
        if state.status != "Completed":
            raise training_error(self.name, state, list(deque(self.logs(), maxlen=TAIL_LINES)), log_shown=logs)
        return self

    def _log_texts(self, *, follow: bool) -> Iterator[str]:
        """Yield the log in pieces; while following, an empty piece at each look that finds nothing new."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        started = time.monotonic()
        position = 0
        while True:
            # Before the log is read: what a job writes last must not be missed.
            is_over = not follow or self._state().is_final
            while (page := self._backend.logs(self.name, position)).data:
                position = page.position
                yield decoder.decode(page.data)
            if is_over:
                break
            yield ""
            quick = time.monotonic() - started < _QUICK_POLLING_SECONDS
            time.sleep(_QUICK_POLL_SECONDS if quick else _POLL_SECONDS)
        yield decoder.decode(b"", final=True)


def _because(state: JobStatus) -> str:
    return f" ({state.reason})" if state.reason else "; wait() for it"


def _show(text: str) -> None:
    """Write to Python's own stdout, which is the one that notebooks show."""
    if not text:
        return
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
