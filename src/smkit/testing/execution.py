"""Takes one job through its life, in a thread of its own."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.aws import split_s3_uri
from smkit.testing.cloudwatch import LogStream
from smkit.testing.container import Container, JobFailed, Platform

if TYPE_CHECKING:
    from smkit.testing.records import TrainingJob

_LOOK_SECONDS = 0.02
_SEND_SECONDS = 0.2
_INTERRUPTED = "Interrupted"
_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
    "Please retry using a different ML instance type or after some time."
)
_IMAGE_PULL = (
    "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are incorrect."
)


class _Ended(Exception):
    """The job was stopped before it ran.

    Args:
        secondary: Why.
    """

    def __init__(self, secondary: str) -> None:
        super().__init__(secondary)
        self.secondary = secondary


class Execution(threading.Thread):
    """The thread of one job.

    Args:
        job: The job.
        platform: The sandbox's.
    """

    def __init__(self, job: TrainingJob, platform: Platform) -> None:
        super().__init__(name=f"smkit-sandbox-{job.name}", daemon=True)
        self._job = job
        self._platform = platform
        self._metrics = [
            (definition["Name"], re.compile(definition["Regex"]))
            for definition in job.request["AlgorithmSpecification"].get("MetricDefinitions") or ()
        ]
        condition = job.request["StoppingCondition"]
        self._max_runtime: float = condition.get("MaxRuntimeInSeconds", 24 * 3600)
        self._wait_deadline = job.created + condition.get("MaxWaitTimeInSeconds", math.inf)

    def run(self) -> None:
        """Run the job to its end."""
        # Not the job's name alone: once deleted, it may be used again at once.
        folder = Path(tempfile.mkdtemp(prefix=f"{self._job.name}-", dir=self._platform.folder))
        try:
            self._provision()
            attempt = 0
            while self._attempt(Container(self._job, self._platform, folder / str(attempt)), attempt):
                attempt += 1
        except _Ended as ended:
            self._job.stopping()
            self._job.end(ended.secondary)
        except JobFailed as failure:
            self._job.end("Failed", reason=failure.reason)
        except Exception as error:  # noqa: BLE001 - a job must end, whatever happens, and say why
            self._job.end("Failed", reason=f"InternalServerError: the sandbox failed: {type(error).__name__}: {error}")
        finally:
            # What a script made undeletable goes with the sandbox.
            shutil.rmtree(folder, ignore_errors=True)

    def _provision(self) -> None:
        conditions = self._job.conditions
        self._job.enter("Starting", "Preparing the instances for training")
        if conditions.capacity_error:
            raise JobFailed(_CAPACITY)
        ready = time.monotonic() + conditions.image_pull_seconds
        while time.monotonic() < ready:
            self._raise_if_ended()
            self._job.stop_requested.wait(min(_LOOK_SECONDS, max(0.0, ready - time.monotonic())))
        if conditions.image_pull_error:
            raise JobFailed(_IMAGE_PULL)

    def _raise_if_ended(self) -> None:
        if self._job.stop_requested.is_set() or self._platform.closing.is_set():
            raise _Ended("Stopped")
        if time.time() >= self._wait_deadline:
            raise _Ended("MaxWaitTimeExceeded")

    def _attempt(self, container: Container, number: int) -> bool:
        """Run the script once; tell whether the job has to start anew."""
        container.folder.mkdir(parents=True)
        if number:
            self._job.enter("Starting", "Preparing the instances for training")
        self._raise_if_ended()
        self._job.start()
        container.fill()
        self._raise_if_ended()
        self._job.enter("Training", "Training image download completed. Training in progress.")
        stream = LogStream(self._platform.client("logs"), container.log, self._job.name, self._read_metrics)
        try:
            container.start()
            how = self._watch(container, stream, number)
            reason = None if how else container.result()
        finally:
            container.destroy()
            stream.send(final=True)
        if container.checkpoints is not None:
            container.checkpoints.copy()
        if how == _INTERRUPTED:
            self._job.interrupt_requested.clear()
            self._job.enter(_INTERRUPTED, "Training job interrupted: the spot instance was taken away")
            return True
        self._job.enter("Uploading", "Uploading generated training model")
        model = self._upload(container, with_model=reason is None)
        self._job.end(how or ("Completed" if reason is None else "Failed"), reason=reason, model=model)
        return False

    def _watch(self, container: Container, stream: LogStream, number: int) -> str | None:
        """Wait for the script's end; return why it was ended, None where it ended by itself."""
        begun = time.monotonic()
        interrupt_after = self._job.conditions.interrupt_after
        interrupt_at = begun + interrupt_after if interrupt_after is not None and number == 0 else math.inf
        send_at, kill_at = begun, math.inf
        how: str | None = None
        while not container.wait(_LOOK_SECONDS):
            now = time.monotonic()
            if now >= send_at:
                stream.send()
                if container.checkpoints is not None:
                    container.checkpoints.copy()
                send_at = now + _SEND_SECONDS
            if how is None:
                interrupted = now >= interrupt_at or self._job.interrupt_requested.is_set()
                how = self._why_to_end(now - begun, interrupted=interrupted)
                if how is not None:
                    # Nobody waits for the script of an instance that is gone.
                    at_once = how == _INTERRUPTED or self._platform.closing.is_set()
                    # Not from `now`: sending the log and the checkpoints may have taken a while.
                    kill_at = now if at_once else time.monotonic() + self._platform.stop_grace
                    if how != _INTERRUPTED:
                        self._job.stopping()
            if now >= kill_at or (kill_at < math.inf and self._platform.closing.is_set()):
                container.kill()
                kill_at = math.inf
        return how

    def _why_to_end(self, seconds: float, *, interrupted: bool) -> str | None:
        if self._job.stop_requested.is_set() or self._platform.closing.is_set():
            return "Stopped"
        if time.time() >= self._wait_deadline:
            return "MaxWaitTimeExceeded"
        if seconds >= self._max_runtime:
            return "MaxRuntimeExceeded"
        return _INTERRUPTED if interrupted else None

    def _read_metrics(self, line: str) -> None:
        for name, pattern in self._metrics:
            for match in pattern.finditer(line):
                try:
                    value = float(match[1] if pattern.groups else match[0])
                except (TypeError, ValueError):
                    continue
                if math.isfinite(value):
                    self._job.measure(name, value)

    def _upload(self, container: Container, *, with_model: bool) -> str | None:
        """Upload what the job left; return the model's URI, which the service tells even where there is no model."""
        bucket, prefix = split_s3_uri(self._job.request["OutputDataConfig"]["S3OutputPath"])
        folder = "/".join(part for part in (prefix.strip("/"), self._job.name, "output") if part)
        for name, archive in container.archives().items():
            if name == "model" and not with_model:
                continue
            with archive.open("rb") as file:
                self._platform.client("s3").put_object(Bucket=bucket, Key=f"{folder}/{name}.tar.gz", Body=file)
        return f"s3://{bucket}/{folder}/model.tar.gz" if with_model else None
