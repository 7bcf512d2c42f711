"""Sends a job's log to CloudWatch Logs while it grows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
_BATCH_EVENTS = 10_000
_BATCH_BYTES = 1_048_576
_EVENT_OVERHEAD_BYTES = 26
_EVENT_CHARACTERS = 60_000  # four bytes each at most: below an event's limit of 256 KB
_READ_BYTES = 1 << 20
#: SageMaker writes a tab as #011, an escape as #033; this is why its metric regexes say #011.
_CONTROL = {code: f"#{code:03o}" for code in (*range(32), 127)}


class LogStream:
    """One stream, fed from a file that grows. Used by one thread.

    Args:
        client: A CloudWatch Logs client.
        path: The file.
        job_name: The job's name; the stream is made with its first line.
        on_line: Called with each line that was sent.
    """

    def __init__(self, client: Any, path: Path, job_name: str, on_line: Callable[[str], None]) -> None:
        self._client = client
        self._path = path
        self._job_name = job_name
        self._name = ""
        self._on_line = on_line
        self._position = 0
        self._rest = b""
        self._last = 0

    def send(self, *, final: bool = False) -> None:
        """Send the lines that are whole; with `final` also the last, which may lack its end."""
        while data := self._read():
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._put(lines)
        if final and self._rest:
            self._put([self._rest])
            self._rest = b""

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read(_READ_BYTES)
        self._position += len(data)
        return data

    def _put(self, lines: list[bytes]) -> None:
        texts = [text for line in lines for text in _event_texts(line)]
        for batch in _batches(texts):
            # Never back in time, or readers would sort the lines anew.
            self._last = max(self._last, int(time.time() * 1000))
            self._make()
            self._client.put_log_events(
                logGroupName=LOG_GROUP,
                logStreamName=self._name,
                logEvents=[{"timestamp": self._last, "message": text} for text in batch],
            )
        for text in texts:
            self._on_line(text)

    def _make(self) -> None:
        if self._name:
            return
        _create(self._client.create_log_group, logGroupName=LOG_GROUP)
        epoch = int(time.time())
        # A job that starts anew within a second gets a stream of its own all the same.
        while not _create(
            self._client.create_log_stream,
            logGroupName=LOG_GROUP,
            logStreamName=(name := f"{self._job_name}/algo-1-{epoch}"),
        ):
            epoch += 1
        self._name = name


def _create(operation: Callable[..., Any], **names: str) -> bool:
    """Create a group or a stream; tell whether it is new."""
    try:
        operation(**names)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
            raise
        return False
    return True


def _event_texts(line: bytes) -> list[str]:
    text = line.decode("utf-8", "replace").translate(_CONTROL)
    # CloudWatch takes no empty event.
    return [text[start : start + _EVENT_CHARACTERS] for start in range(0, len(text), _EVENT_CHARACTERS)] or [" "]


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        weight = len(text.encode()) + _EVENT_OVERHEAD_BYTES
        if batch and (len(batch) == _BATCH_EVENTS or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += weight
    if batch:
        yield batch
