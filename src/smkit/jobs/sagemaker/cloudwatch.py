"""A training job's log, read from CloudWatch: no line twice, none left out.

SageMaker writes a stream `<job>/algo-1-<epoch>` for each machine that a job ran on: an interrupted spot job has
several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from smkit.aws import partition_of
from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.jobs.backend import LogPage
from smkit.jobs.sagemaker.service_errors import is_not_found, service_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_PAGE_BYTES = 1 << 20
#: Partition -> host of the console.
_CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


@dataclass(frozen=True)
class StreamPosition:
    """How far one stream was read.

    Args:
        token: CloudWatch's token of what comes next.
        events: How many events were read: should the token expire, after 24 hours, they are skipped from the head.
    """

    token: str
    events: int


@dataclass(frozen=True)
class LogPosition:
    """How far a job's log was read: stream -> position."""

    streams: tuple[tuple[str, StreamPosition], ...] = ()


class JobLogs:
    """Reads the logs of training jobs.

    Args:
        client: Returns the CloudWatch Logs client.
    """

    def __init__(self, client: Callable[[], Any]) -> None:
        self._client = client

    def read(self, name: str, position: LogPosition | None) -> LogPage:
        """Return the log from a position on; nothing where there is no more yet, or no log.

        Raises:
            ServiceError: CloudWatch cannot be read.
        """
        known = dict(position.streams) if position else {}
        pieces: list[bytes] = []
        size = 0
        for stream in self._streams(name):
            for events, reached in self._pages(stream, known.get(stream)):
                known[stream] = reached
                # What the script wrote may hold line ends; that of the line itself is cut off.
                lines = [event["message"].removesuffix("\n") + "\n" for event in events]
                pieces += [line.encode("utf-8", "replace") for line in lines]
                size += sum(map(len, lines))
                if size >= _PAGE_BYTES:
                    return LogPage(b"".join(pieces), LogPosition(tuple(known.items())))
        return LogPage(b"".join(pieces), LogPosition(tuple(known.items())))

    def _streams(self, name: str) -> list[str]:
        """Return the names of the job's streams, the oldest first."""
        found: list[tuple[int, str]] = []
        try:
            paginator = self._client().get_paginator("describe_log_streams")
            for page in paginator.paginate(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/"):
                found += [(stream.get("creationTime", 0), stream["logStreamName"]) for stream in page["logStreams"]]
        except AWS_ERRORS as error:
            # The first job of an account makes the group, with its first line.
            if is_not_found(error):
                return []
            raise service_error(error, f"find the log of job {name!r}") from error
        return [stream for _, stream in sorted(found)]

    def _pages(
        self, stream: str, position: StreamPosition | None
    ) -> Iterator[tuple[list[dict[str, Any]], StreamPosition]]:
        """Yield the events page by page, to the end of what there is."""
        token, count, skipped = (position.token, position.events, 0) if position else (None, 0, 0)
        while True:
            options = {"nextToken": token} if token else {}
            try:
                page = self._client().get_log_events(
                    logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **options
                )
            except AWS_ERRORS as error:
                if is_not_found(error):
                    return
                if token and error_code(error) == "InvalidParameterException":
                    token, skipped = None, count
                    continue
                raise service_error(error, f"read the log stream {stream}") from error
            events = page["events"]
            skipping = min(skipped, len(events))
            skipped -= skipping
            events = events[skipping:]
            count += len(events)
            # An empty page is not the end: CloudWatch looks for a while only, and hands out a token to go on with.
            if (reached := page["nextForwardToken"]) == token:
                if events:
                    yield events, StreamPosition(reached, count)
                return
            token = reached
            yield events, StreamPosition(token, count)


def log_lines(logs: JobLogs, name: str) -> Iterator[str]:
    """Yield the lines of a whole log, without their ends.

    Raises:
        ServiceError: CloudWatch cannot be read.
    """
    position: LogPosition | None = None
    while (page := logs.read(name, position)).data:
        position = page.position
        yield from page.data.decode("utf-8", "replace").removesuffix("\n").split("\n")


def console_link(name: str, region: str) -> str:
    """Return where a person reads the log in the AWS console."""
    host = _CONSOLES.get(partition_of(region), "console.aws.amazon.com")

    # The console decodes twice, and has `$` for `%`.
    def part(text: str) -> str:
        return quote(quote(text, safe=""), safe="").replace("%", "$")

    filtered = f"$3FlogStreamNameFilter$3D{part(name + '/')}"
    return f"https://{region}.{host}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{part(LOG_GROUP)}{filtered}"
