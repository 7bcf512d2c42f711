"""What every backend does alike: this machine, SageMaker through boto3, SageMaker through the SDK."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import (
    ConfigError,
    DuplicateJobError,
    JobError,
    JobNotFound,
    TrainingFailed,
    TrainingStopped,
    TrainingTimeout,
    WaitTimeout,
)
from smkit.jobs import TrainingJob
from smkit.jobs.folding import ContainerFold
from smkit.jobs.local import LocalBackend
from smkit.jobs.sagemaker import sdk
from smkit.jobs.sagemaker.backend import SageMakerBackend
from smkit.testing import sandbox
from tests.jobs.backends import QUICK, SAVE_MODEL, Jobs, script_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from smkit.testing import Sandbox


@pytest.fixture(scope="module")
def aws() -> Iterator[Sandbox]:
    with sandbox(stop_grace=0.3) as running:
        yield running


def jobs_of(kind: str, aws: Sandbox, tmp_path: Path) -> Jobs:
    if kind == "local":
        settings = aws.settings(backend="local", root=str(tmp_path / "store"))
        return Jobs(LocalBackend(tmp_path / "store" / "jobs"), settings, tmp_path)
    if kind == "sdk" and not sdk.has_sklearn():
        pytest.skip(f"needs the SageMaker SDK v2, found {sdk.sdk_version() or 'none'}")
    # A project of its own for each test: the account's jobs are the same, the store's are not.
    settings = aws.settings(backend="sagemaker", project=f"p-{uuid.uuid4().hex}")
    return Jobs(
        SageMakerBackend(
            settings,
            via=kind,  # type: ignore[arg-type]
            watching=QUICK,
        ),
        settings,
        tmp_path,
    )


@pytest.fixture(params=["local", "boto3", "sdk"])
def jobs(request: pytest.FixtureRequest, aws: Sandbox, tmp_path: Path) -> Jobs:
    """Every way to start a job."""
    return jobs_of(request.param, aws, tmp_path)


@pytest.fixture(params=["local", "boto3"])
def placed(request: pytest.FixtureRequest, aws: Sandbox, tmp_path: Path) -> Jobs:
    """Every place where a job runs: once it is started, it does not matter who spelled the request."""
    return jobs_of(request.param, aws, tmp_path)


@pytest.fixture
def name() -> str:
    """A job name that no other test has."""
    return f"job-{uuid.uuid4().hex[:12]}"


def model_members(job: TrainingJob, jobs: Jobs) -> dict[str, bytes]:
    archive = job.model_archive()
    if isinstance(archive, str):
        bucket, _, key = archive.removeprefix("s3://").partition("/")
        data = jobs.settings.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    else:
        data = archive.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


def test_a_job_from_start_to_end(jobs: Jobs, name: str) -> None:
    code = (
        SAVE_MODEL + "print('smkit metric a=1')\nprint('smkit metric a=0.1')\nprint('rmse: 0.5')\nprint('rmse: 0.25')\n"
    )
    job = jobs.start(code, name, metric_definitions={"rmse": "rmse: ([0-9.]+)"}, hyperparameters={"alpha": 0.5})
    assert job.wait(logs=False) is job
    assert (job.status, job.exit_code) == ("Completed", 0)
    assert job.metrics == {"a": 0.1, "rmse": 0.25}
    assert model_members(job, jobs) == {"model.txt": b"m"}
    assert job.model == str(job.model_archive())
    assert script_lines(job) == ["smkit metric a=1", "smkit metric a=0.1", "rmse: 0.5", "rmse: 0.25"]
    lineage = job.lineage()
    assert json.loads(json.dumps(lineage, allow_nan=False)) == lineage
    assert set(lineage) == {
        *("schema_version", "job_name", "backend", "status", "entry_point", "hyperparameters", "inputs", "code"),
        *("environment", "framework_version", "instance_type", "image", "metrics", "created", "started", "ended"),
    }
    assert (lineage["hyperparameters"], lineage["metrics"]) == ({"alpha": 0.5}, job.metrics)
    assert lineage["created"] <= lineage["started"] <= lineage["ended"]
    assert lineage["code"]["digest"].startswith("sha256:")
    assert {"python", "packages"} <= set(lineage["environment"])
    result = job.result()
    assert (result.name, result.status, result.metrics, result.model) == (name, "Completed", job.metrics, job.model)
    assert result.duration is not None
    assert 0 < result.duration.total_seconds() < 30
    assert isinstance(result.billable_seconds, int)
    assert job.billable_seconds == result.billable_seconds == job.describe()["billable_seconds"]
    hash(result)
    job.stop()
    assert job.status == "Completed"


def test_an_exception_is_the_scripts_own(jobs: Jobs, name: str) -> None:
    code = """
        print("before")
        def inner():
            raise KeyError("first")
        try:
            inner()
        except KeyError as error:
            raise ValueError("x") from error
        """
    job = jobs.start(code, name)
    with pytest.raises(TrainingFailed) as caught:
        job.wait(logs=False)
    error = caught.value
    assert type(error) is TrainingFailed
    assert (error.job_name, error.exit_code, job.status) == (name, 1, "Failed")
    assert error.traceback.splitlines()[0] == "Traceback (most recent call last):"
    assert "KeyError: 'first'" in error.traceback
    assert error.traceback.endswith("ValueError: x")
    assert "exited with code 1" in str(error).splitlines()[0]
    assert error.traceback in str(error)
    assert "ExecuteUserScriptError" not in str(error)
    with pytest.raises(JobError, match="has no model: it is Failed"):
        job.model_archive()
    with pytest.raises(TrainingFailed):
        job.result()


def test_an_exit_code_is_told(placed: Jobs, name: str) -> None:
    job = placed.start("import sys\nprint('nothing to do')\nsys.exit(3)\n", name)
    with pytest.raises(TrainingFailed, match=r"exited with code 3\n(.*\n)*nothing to do\n") as caught:
        job.wait(logs=False)
    assert (caught.value.exit_code, caught.value.traceback) == (3, "")


def test_a_stop(placed: Jobs, name: str) -> None:
    job = placed.start("import time\nprint('up', flush=True)\ntime.sleep(600)\n", name)
    assert any(line == "up" for line in job.logs(follow=True))
    assert job.status == "InProgress"
    with pytest.raises(WaitTimeout, match="it goes on"):
        job.wait(timeout=0.2, logs=False)
    job.stop()
    assert job.status in {"Stopping", "Stopped"}
    with pytest.raises(TrainingStopped, match="was stopped: a stop was requested"):
        job.wait(logs=False)
    assert job.status == "Stopped"
    job.stop()


def test_a_timeout(placed: Jobs, name: str) -> None:
    job = placed.start("import time\ntime.sleep(600)\n", name, timeout=1)
    with pytest.raises(TrainingTimeout, match="longer than its timeout of 1 s"):
        job.wait(logs=False)
    state = job.describe()
    assert (state["status"], state["secondary_status"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_name_is_used_once(jobs: Jobs, name: str) -> None:
    prepared = [jobs.backend.prepare(jobs.spec(SAVE_MODEL, name)) for _ in range(3)]
    won: list[int] = []
    lost: list[DuplicateJobError] = []

    def submit(number: int) -> None:
        try:
            jobs.backend.submit(prepared[number])
            won.append(number)
        except DuplicateJobError as error:
            lost.append(error)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 2)
    assert name in str(lost[0])
    assert TrainingJob(name, jobs.backend).wait(logs=False).status == "Completed"
    with pytest.raises(DuplicateJobError, match="names are never reused"):
        jobs.start(SAVE_MODEL, name)
    assert list(jobs.backend.names()) == [name]


ATTACH = """
import sys
from smkit.config import Settings
from smkit.jobs import TrainingJob
from smkit.jobs.local import LocalBackend
from smkit.jobs.sagemaker.backend import SageMakerBackend
from pathlib import Path
if sys.argv[1] == "local":
    backend = LocalBackend(Path(sys.argv[2]))
else:
    backend = SageMakerBackend(Settings(root=sys.argv[2], region=sys.argv[4]))
job = TrainingJob(sys.argv[3], backend)
print(job.wait(logs=False).status, job.metrics["a"], job.lineage()["hyperparameters"], job.model)
"""


def test_attaching_from_another_process(placed: Jobs, name: str) -> None:
    job = placed.start(
        SAVE_MODEL + "import time\ntime.sleep(0.3)\nprint('smkit metric a=0.5')\n", name, hyperparameters={"x": 1}
    )
    kind = "local" if isinstance(placed.backend, LocalBackend) else "sagemaker"
    where = str(placed.backend.folder) if isinstance(placed.backend, LocalBackend) else placed.settings.root
    command = [sys.executable, "-c", ATTACH, kind, where, name, placed.settings.region]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found == f"Completed 0.5 {{'x': 1}} {job.model}\n"


def test_the_log_is_whole(placed: Jobs, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = SAVE_MODEL + (
        "import sys, time\n"
        "for i in range(5000):\n"
        "    print(f'line {i} ż☕')\n"
        "    if i % 1000 == 0:\n"
        "        sys.stdout.flush(); time.sleep(0.05)\n"
        "sys.stdout.write('half a '); sys.stdout.flush(); time.sleep(0.2); sys.stdout.write('line')\n"
    )
    job = placed.start(code, name)
    capsys.readouterr()
    job.wait()
    shown = capsys.readouterr().out.splitlines()
    expected = [f"line {i} ż☕" for i in range(5000)]
    assert [line for line in shown if line.startswith("line ")] == expected
    lines = list(job.logs())
    assert [line for line in lines if line.startswith("line ")] == expected
    # SageMaker's toolkit goes on in the line that the script did not end.
    assert [line[:11] for line in lines if line.startswith("half")] == ["half a line"]
    fold = ContainerFold()
    assert (fold.feed("\n".join(lines)) + fold.close()).splitlines() == shown


class Split:
    """A channel that is neither a file nor in S3, such as a split of a dataset in a folder."""

    uri = "memory://train"

    def download(self, folder: Path) -> None:
        (folder / "part.csv").write_text("a\n7\n")

    def describe(self) -> dict[str, Any]:
        return {"uri": self.uri, "dataset": "houses@1", "digest": "sha256:ab"}


LIST = (
    SAVE_MODEL
    + """
import json
found = {}
for channel in json.loads(os.environ["SM_CHANNELS"]):
    base = os.environ["SM_CHANNEL_" + channel.upper()]
    found[channel] = {
        os.path.relpath(os.path.join(folder, file), base): open(os.path.join(folder, file)).read()
        for folder, _, files in os.walk(base) for file in files
    }
print(json.dumps(found, sort_keys=True))
"""
)


def test_inputs_of_every_kind(jobs: Jobs, name: str, aws: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/deep/a.csv").write_text("a\n1\n")
    (tmp_path / "data/żółć.csv").write_text("b\n2\n")
    prefix = f"elsewhere/{name}"
    for key, text in {"train/x.csv": "x", "train-2/y.csv": "y"}.items():
        aws.client("s3").put_object(Bucket=aws.bucket, Key=f"{prefix}/{key}", Body=text.encode())
    inputs = {
        "file": tmp_path / "data/deep/a.csv",
        "folder": tmp_path / "data",
        "cloud": f"s3://{aws.bucket}/{prefix}/train/",
        "split": Split(),
    }
    job = jobs.run(LIST, name, inputs)
    assert json.loads(script_lines(job)[-1]) == {
        "file": {"a.csv": "a\n1\n"},
        "folder": {"deep/a.csv": "a\n1\n", "żółć.csv": "b\n2\n"},
        "cloud": {"x.csv": "x"},
        "split": {"part.csv": "a\n7\n"},
    }
    described = job.lineage()["inputs"]
    assert described["split"]["dataset"] == "houses@1"
    assert described["folder"]["uri"] == str(tmp_path / "data")
    assert (described["folder"]["files"], described["cloud"]["files"]) == (2, 1)


def test_hyperparameters_arrive_as_they_were_given(jobs: Jobs, name: str) -> None:
    values = {
        "none": None, "flag": True, "int": 3, "float": 1e-07, "text": 'it\'s "5" $HOME; ☕ \\n', "empty": "",
        "list": [1, [True, None], "a b"], "dict": {"b": {"c": 1.5}, "a": []}, "with-dash": 2, "x": "1",
    }  # fmt: skip
    job = jobs.run(SAVE_MODEL + "print(os.environ['SM_HPS'])\n", name, hyperparameters=values)
    assert json.loads(script_lines(job)[-1]) == values
    assert job.lineage()["hyperparameters"] == values


def test_what_is_not_there(jobs: Jobs, name: str, tmp_path: Path) -> None:
    job = TrainingJob(name, jobs.backend)
    for look in (lambda: job.status, job.stop, lambda: list(job.logs()), lambda: job.metrics, job.wait):
        with pytest.raises(JobNotFound, match=name):
            look()
    assert list(jobs.backend.names()) == []
    (tmp_path / "empty").mkdir()
    for bad in ({"train": tmp_path / "missing.csv"}, {"train": tmp_path / "empty"}):
        with pytest.raises(FileNotFoundError):
            jobs.start(SAVE_MODEL, name, bad)
    with pytest.raises(JobError, match="SyntaxError"):
        jobs.start("def (", name)
    with pytest.raises(ConfigError, match="does not exist"):
        jobs.backend.prepare(jobs.spec(SAVE_MODEL, name, entry_point="nowhere.py"))
    assert list(jobs.backend.names()) == []
