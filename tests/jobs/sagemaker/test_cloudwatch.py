"""Reading a job's log from CloudWatch: real streams in a real server, and a scripted one for what it never does."""

from __future__ import annotations

import time
import uuid
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from smkit.errors import AccessDenied, ServiceUnavailable
from smkit.jobs.sagemaker.cloudwatch import LOG_GROUP, JobLogs, LogPosition, console_link, log_lines


@pytest.fixture
def client(aws_env: str) -> Any:
    return boto3.client("logs", endpoint_url=aws_env, region_name="cn-northwest-1")


@pytest.fixture
def name() -> str:
    return f"job-{uuid.uuid4().hex[:12]}"


def put(client: Any, stream: str, *messages: str, at: int | None = None) -> None:
    for create, options in (
        (client.create_log_group, {"logGroupName": LOG_GROUP}),
        (client.create_log_stream, {"logGroupName": LOG_GROUP, "logStreamName": stream}),
    ):
        try:
            create(**options)
        except client.exceptions.ResourceAlreadyExistsException:  # noqa: PERF203 - it was made before
            continue
    moment = int(time.time() * 1000) if at is None else at
    events = [{"timestamp": moment, "message": message} for message in messages]
    client.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=events)


def test_streams_of_a_real_server(client: Any, name: str) -> None:
    logs = JobLogs(lambda: client)
    page = logs.read(name, None)
    assert page.data == b""
    # All in one millisecond: only their order tells them apart.
    put(client, f"{name}/algo-1-1", *[f"line {n}" for n in range(500)])
    put(client, f"{name}-2/algo-1-1", "of another job")
    page = logs.read(name, page.position)
    assert page.data.decode().splitlines() == [f"line {n}" for n in range(500)]
    assert logs.read(name, page.position).data == b""
    put(client, f"{name}/algo-1-1", "☕ later")
    time.sleep(0.01)
    put(client, f"{name}/algo-1-2", "anew")
    page = logs.read(name, page.position)
    assert page.data.decode() == "☕ later\nanew\n"
    assert logs.read(name, page.position).data == b""
    assert len(list(log_lines(logs, name))) == 502


def service_error(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetLogEvents")


class Scripted:
    """CloudWatch's promises, at their worst: pages of any size, empty ones among them; tokens that expire."""

    def __init__(self, pages: dict[str, list[list[str]]]) -> None:
        self.pages = pages
        self.expired: set[str] = set()
        self.generation = 0
        self.errors: list[Exception] = []
        self.calls = 0

    def get_paginator(self, _: str) -> Scripted:
        return self

    def paginate(self, **_: Any) -> Any:
        for number, stream in enumerate(self.pages):
            yield {"logStreams": [{"logStreamName": stream, "creationTime": number}]}

    def get_log_events(self, *, logStreamName: str, nextToken: str | None = None, **options: Any) -> Any:  # noqa: N803 - boto3's names
        assert options["startFromHead"]
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        generation, _, number = (nextToken or f"{self.generation}/0").partition("/")
        if int(generation) != self.generation:
            raise service_error("InvalidParameterException")
        pages = self.pages[logStreamName]
        if int(number) >= len(pages):
            return {"events": [], "nextForwardToken": f"{self.generation}/{number}"}
        events = [{"message": message} for message in pages[int(number)]]
        return {"events": events, "nextForwardToken": f"{self.generation}/{int(number) + 1}"}


def test_an_empty_page_is_not_the_end() -> None:
    client = Scripted({"j/a": [["1"], [], [], ["2", ""], []], "j/b": [[], ["3\n"]]})
    assert list(log_lines(JobLogs(lambda: client), "j")) == ["1", "2", "", "3"]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.lists(st.text("ab☕", max_size=3), max_size=4)), max_size=12), st.data()
)
def test_nothing_is_read_twice_or_missed(arriving: list[tuple[int, list[str]]], data: st.DataObject) -> None:
    client = Scripted({"j/a": [], "j/b": []})
    logs = JobLogs(lambda: client)
    seen = {"j/a": b"", "j/b": b""}
    position: LogPosition | None = None
    total = b""
    for stream, messages in [*arriving, (0, [])]:
        client.pages["j/b" if stream else "j/a"].append(messages)
        if data.draw(st.booleans()):
            # A day goes by, and every token with it.
            client.generation += 1
        page = logs.read("j", position)
        position = page.position
        total += page.data
    for key in seen:
        seen[key] = b"".join(f"{message}\n".encode() for page in client.pages[key] for message in page)
    assert sorted(total.splitlines()) == sorted((seen["j/a"] + seen["j/b"]).splitlines())
    assert logs.read("j", position).data == b""


def test_a_long_log_comes_in_pieces() -> None:
    client = Scripted({"j/a": [["x" * 1000] * 600 for _ in range(5)]})
    logs = JobLogs(lambda: client)
    first = logs.read("j", None)
    assert len(first.data) < 2 << 20
    assert sum(1 for _ in log_lines(logs, "j")) == 3000


def test_what_cannot_be_read_is_an_error_with_its_fix() -> None:
    client = Scripted({"j/a": [["1"]]})
    logs = JobLogs(lambda: client)
    client.errors = [service_error("AccessDeniedException")]
    with pytest.raises(AccessDenied, match="cannot read the log stream j/a"):
        logs.read("j", None)
    client.errors = [service_error("ThrottlingException")]
    with pytest.raises(ServiceUnavailable, match="try again later"):
        logs.read("j", None)
    # Somebody deleted the stream between the two calls.
    client.errors = [service_error("ResourceNotFoundException")]
    assert logs.read("j", None).data == b""
    # A first read that CloudWatch rejects is not asked for for ever.
    client.errors = [service_error("InvalidParameterException")] * 2
    calls = client.calls
    with pytest.raises(Exception, match="InvalidParameterException"):
        logs.read("j", None)
    assert client.calls == calls + 1


def test_the_link_opens_the_console_of_the_partition() -> None:
    assert console_link("a-1", "cn-northwest-1") == (
        "https://cn-northwest-1.console.amazonaws.cn/cloudwatch/home?region=cn-northwest-1#logsV2:log-groups/log-group/"
        "$252Faws$252Fsagemaker$252FTrainingJobs$3FlogStreamNameFilter$3Da-1$252F"
    )
    assert console_link("a", "eu-west-1").startswith("https://eu-west-1.console.aws.amazon.com/")
