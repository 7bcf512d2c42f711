"""One sandbox for all tests of this folder, driven with plain boto3; each test has job names of its own."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config

from smkit.testing import Sandbox, sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "/aws/sagemaker/TrainingJobs"
_numbers = itertools.count(1)


def packed(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Jobs:
    """Creates jobs on a sandbox and reads what became of them."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        # One attempt: a fault reaches the test.
        self.sagemaker: Any = box.session().client(
            "sagemaker", endpoint_url=box.endpoint_url, config=Config(retries={"total_max_attempts": 1})
        )
        self.s3: Any = box.client("s3")
        self.logs: Any = box.client("logs")

    def new_name(self) -> str:
        return f"job-{next(_numbers)}"

    def request(self, code: str | dict[str, Any] = "", /, **changes: Any) -> dict[str, Any]:
        """A valid request; `changes` replace its members, None removes one."""
        name = changes.pop("TrainingJobName", None) or self.new_name()
        key = f"{name}/source/sourcedir.tar.gz"
        files = {"train.py": code} if isinstance(code, str) else code
        self.s3.put_object(Bucket=self.box.bucket, Key=key, Body=packed(files))
        hyperparameters = {
            "sagemaker_program": json.dumps(next(iter(files))),
            "sagemaker_submit_directory": json.dumps(f"s3://{self.box.bucket}/{key}"),
            **changes.pop("HyperParameters", {}),
        }
        request = {
            "TrainingJobName": name,
            "HyperParameters": hyperparameters,
            "AlgorithmSpecification": {"TrainingImage": self.box.image(), "TrainingInputMode": "File"},
            "RoleArn": self.box.role,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.box.bucket}/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 120},
            **changes,
        }
        return {member: value for member, value in request.items() if value is not None}

    def create(self, code: str | dict[str, Any] = "", /, **changes: Any) -> str:
        request = self.request(code, **changes)
        self.sagemaker.create_training_job(**request)
        return str(request["TrainingJobName"])

    def run(self, code: str | dict[str, Any] = "", /, **changes: Any) -> dict[str, Any]:
        """Run a job to its end and return what DescribeTrainingJob says."""
        name = self.create(code, **changes)
        self.box.wait(name, timeout=150)
        described: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return described

    def channel(self, name: str, uri: str, data_type: str = "S3Prefix") -> dict[str, Any]:
        return {
            "ChannelName": name,
            "DataSource": {"S3DataSource": {"S3DataType": data_type, "S3Uri": uri}},
        }

    def put(self, key: str, text: str) -> str:
        self.s3.put_object(Bucket=self.box.bucket, Key=key, Body=text.encode())
        return f"s3://{self.box.bucket}/{key}"

    def uploaded(self, name: str) -> set[str]:
        answer = self.s3.list_objects_v2(Bucket=self.box.bucket, Prefix=f"out/{name}/output/")
        return {item["Key"].rpartition("/")[2] for item in answer.get("Contents", ())}

    def unpacked(self, name: str, archive: str = "model") -> dict[str, str]:
        key = f"out/{name}/output/{archive}.tar.gz"
        data = self.s3.get_object(Bucket=self.box.bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {
                member.name: tar.extractfile(member).read().decode() for member in tar.getmembers() if member.isfile()
            }

    def streams(self, name: str) -> list[str]:
        answer = self.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")
        return [stream["logStreamName"] for stream in answer["logStreams"]]

    def events(self, stream: str) -> list[dict[str, Any]]:
        found, token = [], None
        while True:
            extra = {"nextToken": token} if token else {}
            page = self.logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True, **extra)
            found += page["events"]
            if page["nextForwardToken"] == token:
                return found
            token = page["nextForwardToken"]

    def log(self, name: str) -> list[str]:
        return [event["message"] for stream in self.streams(name) for event in self.events(stream)]


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    with sandbox(set_environment=False, stop_grace=0.3) as running:
        yield running


@pytest.fixture(scope="session")
def shared_jobs(shared_sandbox: Sandbox) -> Jobs:
    return Jobs(shared_sandbox)


@pytest.fixture
def box(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    yield shared_sandbox
    shared_sandbox.recover()


@pytest.fixture
def jobs(box: Sandbox, shared_jobs: Jobs) -> Jobs:
    return shared_jobs
