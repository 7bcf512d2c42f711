"""Jobs on SageMaker where AWS refuses, loses replies, throttles, interrupts, or somebody else interferes."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.retries.standard
import pandas as pd
import pytest

import smkit
from smkit.config import Settings
from smkit.errors import (
    AccessDenied,
    ConfigError,
    CredentialsError,
    DuplicateJobError,
    JobError,
    JobLogWarning,
    JobNotFound,
    JobRefused,
    QuotaExceeded,
    ServiceError,
    ServiceUnavailable,
    StorageError,
    TrainingFailed,
    TrainingStopped,
    UnsupportedInRegion,
)
from smkit.jobs import JobSpec, TrainingJob
from smkit.jobs.options import SageMakerOptions
from smkit.jobs.sagemaker import sdk
from smkit.jobs.sagemaker.backend import SageMakerBackend
from smkit.jobs.sagemaker.request import training_request
from smkit.testing import JobConditions, sandbox
from tests.jobs.backends import QUICK, SAVE_MODEL, Jobs, script_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.testing import Sandbox

ROOT = Path(__file__).parents[3]
ATTEMPTS = 6
CHANNELS = """
import json, pyarrow.parquet
folders = {name: os.environ["SM_CHANNEL_" + name.upper()] for name in json.loads(os.environ["SM_CHANNELS"])}
count = lambda path: pyarrow.parquet.ParquetFile(pyarrow.OSFile(path)).metadata.num_rows
found = {n: sum(count(os.path.join(f, p)) for p in os.listdir(f)) for n, f in folders.items()}
print(json.dumps(found, sort_keys=True))
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with sandbox(stop_grace=0.3) as found:
        yield found


@pytest.fixture
def aws(running: Sandbox) -> Iterator[Sandbox]:
    yield running
    running.recover()


@pytest.fixture
def jobs(aws: Sandbox, tmp_path: Path) -> Jobs:
    settings = aws.settings(backend="sagemaker", project=f"p-{uuid.uuid4().hex}")
    return Jobs(SageMakerBackend(settings, via="boto3", watching=QUICK), settings, tmp_path)


@pytest.fixture
def name() -> str:
    """A job name that no other test has."""
    return f"job-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let boto3 send a request again at once; how often it does stays as it is."""
    monkeypatch.setattr(botocore.retries.standard.ExponentialBackoff, "delay_amount", lambda *_: 0.0)


def created(aws: Sandbox, name: str) -> int:
    return sum(body["TrainingJobName"] == name for body in aws.requests("CreateTrainingJob"))


def keys(jobs: Jobs, aws: Sandbox, under: str = "") -> list[str]:
    bucket, _, prefix = jobs.settings.root.removeprefix("s3://").partition("/")
    listed = aws.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{under}")
    return [item["Key"].removeprefix(f"{prefix}/") for item in listed.get("Contents", ())]


# --- before anything is sent ------------------------------------------------------------------------------------


def test_what_must_be_set(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SAVE_MODEL)
    spec = JobSpec(name="a", entry_point=str(tmp_path / "train.py"))
    local = Settings(root=str(tmp_path / "store"), role="arn:aws-cn:iam::123456789012:role/r")
    with pytest.raises(ConfigError, match="is a folder, which SageMaker cannot read: set `bucket`"):
        SageMakerBackend(local).prepare(spec)
    with pytest.raises(ConfigError, match="is a folder"):
        list(SageMakerBackend(local).names())
    with pytest.raises(ConfigError, match="none is set: set `role`"):
        SageMakerBackend(Settings(bucket="some-bucket")).prepare(spec)
    with pytest.raises(ConfigError, match="via='both' is not allowed"):
        SageMakerBackend(local, via="both")  # type: ignore[arg-type]


@pytest.mark.skipif(sdk.has_sklearn(), reason="the SDK is here")
def test_the_sdk_must_be_there_to_be_used(jobs: Jobs, name: str) -> None:
    backend = SageMakerBackend(jobs.settings, via="sdk")
    with pytest.raises(ConfigError, match="install smkit"):
        backend.prepare(jobs.spec(SAVE_MODEL, name))


def test_prepare_gives_the_whole_request_and_changes_nothing(
    jobs: Jobs, name: str, aws: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("a\n")
    options = SageMakerOptions(spot=True, max_wait=7200, tags={"team": "pricing"}, keep_alive=None, volume_size=50)
    spec = jobs.spec(
        SAVE_MODEL,
        name,
        {"train": tmp_path / "a.csv"},
        timeout=60.5,
        sagemaker=options,
        environment={"NOTE": "secret-1"},
    )
    request = jobs.backend.prepare(spec)
    wire = training_request(request.plan)
    root = jobs.settings.root
    assert wire["OutputDataConfig"] == {"S3OutputPath": f"{root}/jobs"}
    assert (
        json.loads(wire["HyperParameters"]["sagemaker_submit_directory"])
        == f"{root}/jobs/{name}/source/sourcedir.tar.gz"
    )
    assert wire["StoppingCondition"] == {"MaxRuntimeInSeconds": 61, "MaxWaitTimeInSeconds": 7200}
    assert wire["CheckpointConfig"] == {"S3Uri": f"{root}/jobs/{name}/checkpoints"}
    uri = wire["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert uri == f"{root}/{request.uploads[0].prefix}"
    assert uri.endswith("/")
    assert keys(jobs, aws) == []
    assert created(aws, name) == 0
    assert "secret-1" not in repr(request)
    assert "secret-1" not in json.dumps(request.record)
    assert request.record["environment_variables"] == ["NOTE"]


def test_a_roles_name_is_found_in_the_callers_account(jobs: Jobs, name: str, aws: Sandbox) -> None:
    plan = jobs.backend.prepare(jobs.spec(SAVE_MODEL, name)).plan
    assert plan.role == aws.role
    by_name = jobs.settings.model_copy(update={"role": aws.role.rpartition("/")[2]})
    backend = SageMakerBackend(by_name, via="boto3", watching=QUICK)
    assert backend.prepare(jobs.spec(SAVE_MODEL, name)).plan.role == aws.role


def test_an_unknown_field_of_extra_is_refused_before_anything_is_sent(jobs: Jobs, name: str, aws: Sandbox) -> None:
    with pytest.raises(ConfigError, match="Retries"):
        jobs.start(SAVE_MODEL, name, sagemaker=SageMakerOptions(extra={"Retries": 1}))
    assert keys(jobs, aws) == []


# --- names and records ------------------------------------------------------------------------------------------


def test_a_refused_job_leaves_its_name_free(jobs: Jobs, name: str, aws: Sandbox) -> None:
    aws.exceed_quota(times=2)
    for _ in range(2):
        with pytest.raises(QuotaExceeded, match="ask for more in Service Quotas") as caught:
            jobs.start(SAVE_MODEL, name)
        assert caught.value.code == "ResourceLimitExceeded"
    job = TrainingJob(name, jobs.backend)
    assert job.status == "NotSubmitted"
    assert repr(job) == f"<TrainingJob {name!r}: NotSubmitted>"
    assert list(job.logs()) == []
    job.stop()
    with pytest.raises(JobError, match="may be submitted again under the same name"):
        job.wait()
    assert list(jobs.backend.names()) == []
    assert jobs.run(SAVE_MODEL, name, hyperparameters={"third": 3}).lineage()["hyperparameters"] == {"third": 3}
    assert list(jobs.backend.names()) == [name]
    # Of three tries each kept its record and its code.
    assert {key for key in keys(jobs, aws, "jobs") if "output" not in key} == {
        *(f"jobs/{name}/{key}" for key in ("run.json", "source/sourcedir.tar.gz", "submitted.json")),
        *(f"jobs/{name}/retry-{n}/{key}" for n in (1, 2) for key in ("run.json", "source/sourcedir.tar.gz")),
    }
    with pytest.raises(DuplicateJobError, match="exists already in SageMaker"):
        jobs.start(SAVE_MODEL, name)


def test_of_two_tries_after_a_refusal_one_gets_the_job(jobs: Jobs, name: str, aws: Sandbox) -> None:
    aws.exceed_quota(times=1)
    with pytest.raises(QuotaExceeded):
        jobs.start(SAVE_MODEL, name)
    prepared = [jobs.backend.prepare(jobs.spec(SAVE_MODEL, name, hyperparameters={"n": n})) for n in range(2)]
    jobs.backend.submit(prepared[1])
    with pytest.raises(DuplicateJobError, match="is being submitted by somebody else"):
        jobs.backend.submit(prepared[0])
    assert TrainingJob(name, jobs.backend).wait(logs=False).lineage()["hyperparameters"] == {"n": 1}


def test_a_submitter_who_comes_late_does_not_spoil_the_job_of_another(jobs: Jobs, name: str, aws: Sandbox) -> None:
    """The first has written its record and is slow; the second takes the name; then the first goes on."""
    slow = jobs.backend.prepare(jobs.spec(SAVE_MODEL + "print('first')\n", name))
    backend: Any = jobs.backend
    assert backend._records.claim(slow.folder, slow.record)
    second = jobs.start(SAVE_MODEL + "print('second')\n", name, hyperparameters={"n": 2})
    backend._records.put_source(slow.folder, slow.code.archive())
    with pytest.raises(DuplicateJobError, match="exists already in SageMaker"):
        backend._create(slow.plan)
    second.wait(logs=False)
    assert script_lines(second) == ["second"]
    assert second.lineage()["hyperparameters"] == {"n": 2}


def test_a_name_that_another_store_uses(jobs: Jobs, name: str, aws: Sandbox, tmp_path: Path) -> None:
    jobs.run(SAVE_MODEL, name)
    settings = aws.settings(backend="sagemaker", project="elsewhere")
    other = Jobs(SageMakerBackend(settings, via="boto3", watching=QUICK), settings, tmp_path)
    with pytest.raises(DuplicateJobError, match="exists already in SageMaker"):
        other.start(SAVE_MODEL, name)
    for act in (other.backend.status, other.backend.stop, other.backend.metrics):
        with pytest.raises(JobNotFound, match="is not of this store: SageMaker has one whose code is at s3://"):
            act(name)
    assert list(other.backend.names()) == []


def test_names_come_newest_first_and_page_by_page(
    jobs: Jobs, aws: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("smkit.jobs.sagemaker.backend._LIST_PAGE", 1)
    started = [jobs.start(SAVE_MODEL, f"{name}-{end}").name for end in ("b", "c", "a")]
    before = len(aws.requests("ListTrainingJobs"))
    assert list(jobs.backend.names()) == started[::-1]
    # It stops once all that the store knows of are found, whatever else the account has.
    assert len(aws.requests("ListTrainingJobs")) - before == 3
    for one in started:
        aws.wait(one)


def test_a_deleted_job_is_gone_and_its_name_stays_taken(
    jobs: Jobs, name: str, aws: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.run(SAVE_MODEL, name)
    backend = SageMakerBackend(jobs.settings, via="boto3", watching=QUICK)
    monkeypatch.setattr(backend, "_describe", lambda _: None)
    gone = TrainingJob(name, backend)
    for look in (gone.wait, lambda: gone.status, gone.stop, lambda: gone.metrics):
        with pytest.raises(JobNotFound, match="was deleted from SageMaker; what it wrote may still lie in s3://"):
            look()
    with pytest.raises(DuplicateJobError, match="though SageMaker's was deleted"):
        backend.prepare(jobs.spec(SAVE_MODEL, name))
    # Who has seen its end keeps it.
    assert job.status == "Completed"


def test_a_record_that_is_gone_or_damaged(jobs: Jobs, name: str, aws: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n")
    jobs.run(SAVE_MODEL, name, {"train": tmp_path / "a.csv"}, hyperparameters={"x": "1"})
    bucket, _, prefix = jobs.settings.root.removeprefix("s3://").partition("/")
    where = {"Bucket": bucket, "Key": f"{prefix}/jobs/{name}/run.json"}
    for damage, message in ((b"{", "is damaged"), (b'{"schema_version": 99}', "update smkit"), (b"[]", "update smkit")):
        aws.client("s3").put_object(**where, Body=damage)
        with pytest.raises(JobError, match=message):
            TrainingJob(name, SageMakerBackend(jobs.settings)).lineage()
    aws.client("s3").delete_object(**where)
    lineage = TrainingJob(name, SageMakerBackend(jobs.settings, watching=QUICK)).lineage()
    assert (lineage["hyperparameters"], lineage["entry_point"]) == ({"x": "1"}, "train.py")
    assert lineage["inputs"]["train"]["uri"].startswith(jobs.settings.root)


# --- faults of the service --------------------------------------------------------------------------------------


def test_a_lost_reply_starts_one_job(jobs: Jobs, name: str, aws: Sandbox, no_backoff: None) -> None:
    aws.lose_reply("CreateTrainingJob")
    job = jobs.start(SAVE_MODEL, name)
    assert created(aws, name) == 2
    assert job.wait(logs=False).status == "Completed"
    assert list(jobs.backend.names()) == [name]


def test_a_lost_reply_then_a_throttled_service_starts_one_job(
    jobs: Jobs, name: str, aws: Sandbox, no_backoff: None
) -> None:
    backend: Any = jobs.backend
    request = backend.prepare(jobs.spec(SAVE_MODEL, name))
    backend._records.claim(request.folder, request.record)
    backend._records.put_source(request.folder, request.code.archive())
    # This one was carried out; what boto3 says in the end, after sending it again, is that it was throttled.
    jobs.settings.client("sagemaker").create_training_job(**training_request(request.plan))
    aws.throttle("CreateTrainingJob", times=None)
    backend._create(request.plan)
    assert TrainingJob(name, backend).wait(logs=False).status == "Completed"


def test_throttling_and_failures_pass(jobs: Jobs, name: str, aws: Sandbox, no_backoff: None) -> None:
    for operation in ("CreateTrainingJob", "DescribeTrainingJob", "GetLogEvents", "DescribeLogStreams"):
        aws.throttle(operation, times=2)
        aws.break_down(operation, times=2, status=503)
    job = jobs.start(SAVE_MODEL + "print('smkit metric a=1')\n", name)
    assert job.wait(logs=False).metrics == {"a": 1.0}


@pytest.mark.parametrize("fault", ["throttle", "break_down"])
def test_a_service_that_never_answers(jobs: Jobs, name: str, aws: Sandbox, no_backoff: None, fault: str) -> None:
    getattr(aws, fault)("CreateTrainingJob", times=None)
    with pytest.raises(ServiceUnavailable, match="try again later") as caught:
        jobs.start(SAVE_MODEL, name)
    assert ("whether the job started is not known" in str(caught.value)) == (fault == "break_down")
    assert created(aws, name) == ATTEMPTS


def test_waiting_survives_an_outage(jobs: Jobs, name: str, aws: Sandbox, no_backoff: None) -> None:
    job = jobs.start(SAVE_MODEL + "import time\ntime.sleep(0.5)\nprint('smkit metric a=1')\n", name)
    aws.break_down("DescribeTrainingJob", times=3 * ATTEMPTS)
    aws.break_down("GetLogEvents", times=2 * ATTEMPTS)
    assert job.wait(logs=False).metrics == {"a": 1.0}
    assert "smkit metric a=1" in list(job.logs())


def test_an_outage_longer_than_the_callers_patience(jobs: Jobs, name: str, aws: Sandbox, no_backoff: None) -> None:
    job = jobs.start(SAVE_MODEL, name)
    aws.break_down("DescribeTrainingJob", times=None)
    with pytest.raises(ServiceUnavailable):
        job.wait(timeout=0.3, logs=False)
    aws.recover()
    job.wait(logs=False)


def test_an_expired_token(jobs: Jobs, name: str, aws: Sandbox) -> None:
    job = jobs.start(SAVE_MODEL, name)
    aws.expire_token()
    for act in (lambda: job.status, job.wait, job.stop, lambda: list(job.logs()), lambda: list(jobs.backend.names())):
        with pytest.raises(CredentialsError, match="sign in again") as caught:
            act()
        assert isinstance(caught.value, PermissionError)
        assert caught.value.code == "ExpiredTokenException"
    with pytest.raises(CredentialsError):
        jobs.backend.prepare(jobs.spec(SAVE_MODEL, f"{name}-2"))
    aws.recover()
    assert job.wait(logs=False).status == "Completed"


def test_no_credentials(jobs: Jobs, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    settings = Settings(bucket="b-of-nobody", role="arn:aws-cn:iam::123456789012:role/r")
    with pytest.raises(CredentialsError, match="no AWS credentials found; set `profile`"):
        SageMakerBackend(settings).status(name)
    with pytest.raises(CredentialsError, match="find the account of role 'r'"):
        SageMakerBackend(settings.model_copy(update={"role": "r"}))._role_arn()


def test_a_denied_start_names_the_action(jobs: Jobs, name: str, aws: Sandbox) -> None:
    aws.deny("CreateTrainingJob")
    with pytest.raises(AccessDenied, match=f"allow sagemaker:CreateTrainingJob on .*/{name} in the caller's policy"):
        jobs.start(SAVE_MODEL, name)
    assert jobs.backend.status(name).status == "NotSubmitted"


def test_a_field_and_an_instance_that_the_region_lacks(jobs: Jobs, name: str, aws: Sandbox) -> None:
    aws.reject_field("KeepAlivePeriodInSeconds")
    with pytest.raises(UnsupportedInRegion, match="leave the option or the field of `extra` out"):
        jobs.start(SAVE_MODEL, name, sagemaker=SageMakerOptions(keep_alive=60))
    with pytest.raises(UnsupportedInRegion, match="does not offer this instance: choose another"):
        jobs.start(SAVE_MODEL, name, instance_type="ml.m99.large")
    assert jobs.run(SAVE_MODEL, name).status == "Completed"


def test_a_role_that_sagemaker_cannot_take(jobs: Jobs, name: str, aws: Sandbox) -> None:
    settings = jobs.settings.model_copy(update={"role": aws.role.rpartition("/")[0] + "/nobody"})
    backend = SageMakerBackend(settings, via="boto3")
    with pytest.raises(AccessDenied, match=r"trust policy, or correct `role`"):
        backend.submit(backend.prepare(jobs.spec(SAVE_MODEL, name)))


def test_no_capacity_fails_the_job(jobs: Jobs, name: str, aws: Sandbox) -> None:
    aws.next_job(JobConditions(capacity_error=True))
    job = jobs.start(SAVE_MODEL, name)
    with pytest.raises(TrainingFailed, match="CapacityError") as caught:
        job.wait(logs=False)
    assert (caught.value.exit_code, caught.value.traceback) == (None, "")
    assert job.metrics == {}
    assert list(job.logs()) == []


def test_a_spot_interruption_shows_both_logs_and_keeps_the_checkpoint(jobs: Jobs, name: str, aws: Sandbox) -> None:
    code = SAVE_MODEL + (
        "import time\n"
        "folder = os.path.join(os.path.dirname(os.environ['SM_MODEL_DIR']), 'checkpoints')\n"
        "path = os.path.join(folder, 'step')\n"
        "if os.path.exists(path):\n    print('resumed at', open(path).read())\n"
        "else:\n    open(path, 'w').write('7')\n    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    aws.next_job(JobConditions(interrupt_after=1.0))
    job = jobs.start(code, name, sagemaker=SageMakerOptions(spot=True))
    job.wait(timeout=40, logs=False)
    lines = [line for line in job.logs() if line in {"begun", "resumed at 7"}]
    assert lines == ["begun", "resumed at 7"]
    assert f"jobs/{name}/checkpoints/step" in keys(jobs, aws)


def test_a_log_that_may_not_be_read(jobs: Jobs, name: str, aws: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    aws.deny("DescribeLogStreams")
    code = SAVE_MODEL + "import time\nprint('rmse: 0.5')\ntime.sleep(0.5)\n"
    job = jobs.start(code, name, metric_definitions={"rmse": "rmse: ([0-9.]+)"})
    with pytest.warns(JobLogWarning, match="is not shown: .*allow logs:DescribeLogStreams") as caught:
        job.wait()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.raises(AccessDenied):
        list(job.logs())
    # SageMaker found this one itself.
    assert job.metrics == {"rmse": 0.5}


def test_a_job_that_somebody_else_stops(jobs: Jobs, name: str, aws: Sandbox) -> None:
    job = jobs.start("import time\ntime.sleep(600)\n", name)
    aws.client("sagemaker").stop_training_job(TrainingJobName=name)
    with pytest.raises(TrainingFailed, match="was stopped"):
        job.wait(logs=False)


def test_a_job_that_ends_while_it_is_stopped(
    jobs: Jobs, name: str, aws: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.start(SAVE_MODEL, name)
    before = jobs.backend.status(name)
    aws.wait(name)
    real = jobs.backend.status
    answers = iter([before])
    monkeypatch.setattr(jobs.backend, "status", lambda name: next(answers, None) or real(name))
    jobs.backend.stop(name)
    assert job.status == "Completed"


def test_a_script_that_saves_no_model(jobs: Jobs, name: str) -> None:
    job = jobs.run("print('nothing')\n", name)
    assert job.status == "Completed"
    with pytest.raises(JobError, match="the script saved none into the folder that SM_MODEL_DIR names"):
        job.model_archive()
    assert job.result().model is None


# --- what is asked how often ------------------------------------------------------------------------------------


def test_a_job_that_is_over_is_asked_for_once(jobs: Jobs, name: str, aws: Sandbox) -> None:
    job = jobs.run(SAVE_MODEL, name)
    before = len(aws.requests("DescribeTrainingJob"))
    assert (job.status, job.exit_code, job.describe()["status"], job.lineage()["status"]) == (
        "Completed",
        0,
        *["Completed"] * 2,
    )
    job.stop()
    assert len(aws.requests("DescribeTrainingJob")) == before
    assert {"TrainingJobName": name} not in aws.requests("StopTrainingJob")


def test_many_threads_share_a_backend(jobs: Jobs, name: str) -> None:
    job = jobs.start(SAVE_MODEL + "print('smkit metric a=1')\n", name)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(job.result().metrics)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"a": 1.0}] * 4


def test_the_store_fails_after_sagemaker_accepted(jobs: Jobs, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = jobs.backend

    def fail(_: str) -> None:
        raise StorageError("no")

    monkeypatch.setattr(backend._records, "mark_accepted", fail)
    assert jobs.run(SAVE_MODEL, name).status == "Completed"


def test_ctrl_c_while_the_request_is_under_way_says_how_to_look(
    jobs: Jobs, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend: Any = jobs.backend

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backend, "_create", interrupt)
    with pytest.raises(KeyboardInterrupt):
        jobs.start(SAVE_MODEL, name)
    assert f"JobRunner().attach({name!r})" in capsys.readouterr().err


WAIT = """
import sys
from smkit.config import Settings
from smkit.jobs import TrainingJob
from smkit.jobs.sagemaker.backend import SageMakerBackend
from tests.jobs.backends import QUICK
if __name__ == "__main__":
    settings = Settings(root=sys.argv[1], region=sys.argv[2])
    TrainingJob(sys.argv[3], SageMakerBackend(settings, watching=QUICK)).wait()
"""


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_come_back(jobs: Jobs, name: str) -> None:
    job = jobs.start(SAVE_MODEL + "import time\nprint('up', flush=True)\ntime.sleep(3)\n", name)
    command = [sys.executable, "-c", WAIT, jobs.settings.root, jobs.settings.region, name]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert waiting.stdout is not None
    assert any(line == "up\n" for line in waiting.stdout)
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == -signal.SIGINT
    assert f"job {name!r} goes on. Attach: JobRunner().attach({name!r}).wait(); stop: JobRunner().attach(" in errors
    assert job.wait(logs=False).status == "Completed"
    assert not jobs.backend.stops_on_interrupt


@pytest.mark.skipif(not sdk.has_sklearn(), reason="needs the SageMaker SDK v2")
def test_an_estimator_of_the_sdk_trains(jobs: Jobs, name: str, aws: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n")
    backend: Any = jobs.backend
    definitions = {"rmse": "rmse: ([0-9.]+)"}
    code = SAVE_MODEL + "print('rmse: 0.5')\n"
    spec = jobs.spec(code, name, {"train": tmp_path / "a.csv"}, metric_definitions=definitions)
    estimator = backend.estimator(spec)
    assert created(aws, name) == 0
    uris = backend.prepare(spec).plan.channels
    estimator.fit(dict(uris), job_name=name, wait=False)
    assert aws.wait(name)["TrainingJobStatus"] == "Completed"
    assert list(backend.names()) == [name]
    job = TrainingJob(name, backend)
    assert job.wait(logs=False).metrics == {"rmse": 0.5}
    assert job.lineage()["code"] == {"uri": estimator.source_dir}


def test_other_refusals_keep_the_services_words(jobs: Jobs, name: str) -> None:
    with pytest.raises(ServiceError) as caught:
        jobs.start(SAVE_MODEL, name, sagemaker=SageMakerOptions(checkpoint_uri="s3://no-such-bucket/checkpoints"))
    assert type(caught.value) is ServiceError
    assert caught.value.code == "ValidationException"


def test_from_a_dataset_to_a_published_model(jobs: Jobs, name: str, aws: Sandbox) -> None:
    frame = pd.DataFrame({"x": range(20), "y": range(20)})
    source = smkit.FrameSource(frame)
    dataset = smkit.DatasetBuilder("houses", source, settings=jobs.settings).split(test=0.25).build()
    job = jobs.run(
        SAVE_MODEL + "print('smkit metric a=0.1')\n" + CHANNELS, name, dataset, hyperparameters={"alpha": 0.5}
    )
    assert json.loads(script_lines(job)[-1]) == {"test": 5, "train": 15}
    wire = next(body for body in aws.requests("CreateTrainingJob") if body["TrainingJobName"] == name)
    for channel in wire["InputDataConfig"]:
        assert channel["DataSource"]["S3DataSource"]["S3Uri"] == dataset[channel["ChannelName"]].uri + "/"
    # Nothing was copied: the dataset is in S3 already.
    assert keys(jobs, aws, "inputs") == []
    version = smkit.ArtifactStore(jobs.settings).publish("houses", job)
    assert (version.metrics, version.hyperparameters) == ({"a": 0.1}, {"alpha": 0.5})
    assert version.manifest.body["inputs"]["train"]["dataset"] == "houses@1"
    assert version.manifest.body["environment"]["python"] == "3.9"
    assert version.manifest.body["job"]["job_name"] == name


# --- the runner ---------------------------------------------------------------------------------------------------


def runner_of(jobs: Jobs, **changes: Any) -> smkit.JobRunner:
    return smkit.JobRunner(jobs.settings.model_copy(update=changes) if changes else jobs.settings)


def test_run_lists_everything_that_is_wrong_at_once(jobs: Jobs, name: str, aws: Sandbox) -> None:
    runner = runner_of(jobs, role=None, max_instance_hours=1)
    script = jobs.script("import no_such_module_at_all\n")
    with pytest.raises(JobRefused) as caught:
        runner.run(script, job_name=name, instance_type="m5", environment={"NOTE": "hunter2" * 80}, timeout=7200)
    subjects = {finding.subject for finding in caught.value.problems}
    assert subjects == {"role", "train.py:1", "instance_type", "max_instance_hours", "request"}
    assert "hunter2" not in str(caught.value)
    assert keys(jobs, aws) == []
    with pytest.raises(ConfigError, match="none is set: set `role`"):
        runner.run(script, job_name=name, check=False)


@pytest.mark.filterwarnings("ignore::smkit.errors.JobCheckWarning")
def test_a_name_that_is_taken_is_no_list_of_problems(jobs: Jobs, name: str) -> None:
    jobs.run(SAVE_MODEL, name)
    runner = runner_of(jobs)
    with pytest.raises(DuplicateJobError, match="exists already in SageMaker"):
        runner.run(jobs.script(SAVE_MODEL), job_name=name)
    with pytest.raises(JobRefused, match="2 problems"):
        runner.run(jobs.script("import no_such_module_at_all\n"), job_name=name)


def test_a_spec_that_was_made_by_hand_may_hold_no_secret(jobs: Jobs, name: str, aws: Sandbox) -> None:
    spec = jobs.spec(SAVE_MODEL, name, environment={"DB_PASSWORD": "hunter2"})
    with pytest.raises(ConfigError, match="environment variable 'DB_PASSWORD' looks like a secret") as caught:
        runner_of(jobs).run(spec, check=False)
    assert "hunter2" not in str(caught.value)
    assert created(aws, name) == 0


def test_a_misspelt_name_is_not_found_although_names_may_not_be_listed(jobs: Jobs, name: str, aws: Sandbox) -> None:
    jobs.run(SAVE_MODEL, name)
    with pytest.raises(JobNotFound, match=f"did you mean {name!r}"):
        runner_of(jobs).attach(f"{name}x")
    aws.deny("ListTrainingJobs")
    with pytest.raises(JobNotFound, match=f"there is no job '{name}x'"):
        runner_of(jobs).attach(f"{name}x")


def test_a_job_travels_to_another_process(jobs: Jobs, name: str) -> None:
    job = jobs.run("print('smkit metric a=1')\n", name)
    again = pickle.loads(pickle.dumps(job))
    assert (again.name, again.status, again.metrics) == (name, "Completed", {"a": 1.0})
    assert again._backend.watching == QUICK


def test_a_job_that_is_stopping_is_not_stopped_again(jobs: Jobs, name: str, aws: Sandbox) -> None:
    job = jobs.start("import time\ntime.sleep(600)\n", name)
    job.stop()
    assert job.status in {"Stopping", "Stopped"}
    job.stop()
    assert len([body for body in aws.requests("StopTrainingJob") if body["TrainingJobName"] == name]) == 1
    with pytest.raises(TrainingStopped):
        job.wait(logs=False)


def test_what_was_sent_twice_and_cannot_be_looked_at_is_undecided(
    jobs: Jobs, name: str, aws: Sandbox, no_backoff: None
) -> None:
    request = jobs.backend.prepare(jobs.spec(SAVE_MODEL, name))
    aws.lose_reply("CreateTrainingJob")
    aws.throttle("CreateTrainingJob", times=ATTEMPTS - 1)
    aws.throttle("DescribeTrainingJob", times=ATTEMPTS)
    with pytest.raises(ServiceUnavailable, match="whether the job started is not known"):
        jobs.backend.submit(request)
    assert runner_of(jobs).attach(name).wait(logs=False).status == "Completed"
    assert len(aws.requests("CreateTrainingJob")) >= ATTEMPTS
