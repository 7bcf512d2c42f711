"""Both ways of asking send the same request; and the SDK's brings nothing of its own along."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

import smkit
from smkit.config import Settings
from smkit.errors import ConfigError, MissingExtraError
from smkit.jobs.sagemaker import sdk
from smkit.jobs.sagemaker.images import training_image
from smkit.jobs.sagemaker.request import training_request, volume_key

from .endpoint import Endpoint, running_endpoint
from .fixtures_sdk import PROMISED, needs_sdk, quiet_sdk
from .plans import KEY, REGION, plan_of, plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.jobs.sagemaker.plan import TrainingPlan

__all__ = ["quiet_sdk"]

TREE = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint that every client reaches, STS's and S3's too; this machine's own AWS settings are hidden."""
    with running_endpoint() as running, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "SAGEMAKER_", "MLFLOW_"))]:
            patch.delenv(name)
        nothing = str(tmp_path_factory.mktemp("aws") / "nothing")
        for name, value in environment_of(running, nothing).items():
            patch.setenv(name, value)
        yield running


def environment_of(endpoint: Endpoint, nothing: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "test-secret-key-that-opens-nothing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
    }


@pytest.fixture(scope="module")
def settings(endpoint: Endpoint) -> Settings:
    return Settings(region=REGION, root="s3://prices/smkit")


@pytest.fixture(autouse=True)
def _fresh_endpoint(request: pytest.FixtureRequest) -> None:
    """Each test begins with an empty endpoint that accepts."""
    if "endpoint" in request.fixturenames or "settings" in request.fixturenames:
        endpoint: Endpoint = request.getfixturevalue("endpoint")
        endpoint.take()
        endpoint.refuse_with = None


def sent_by_the_sdk(plan: TrainingPlan, settings: Settings, endpoint: Endpoint) -> Any:
    sdk.submit_with_sdk(plan, settings)
    return only_request(endpoint)


def sent_by_boto3(plan: TrainingPlan, settings: Settings, endpoint: Endpoint) -> Any:
    settings.client("sagemaker").create_training_job(**training_request(plan))
    return only_request(endpoint)


def only_request(endpoint: Endpoint) -> Any:
    (request,) = endpoint.take()
    assert request.operation == "CreateTrainingJob"
    return request.json()


# --- what is installed ---------------------------------------------------------------------------------------------


def test_the_promised_sdk_is_installed() -> None:
    """So that the comparisons below are never skipped unseen: `pip install smkit[test]` brings the SDK v2."""
    version = sdk.sdk_version()
    assert (version or "none").partition(".")[0] == PROMISED, f"SMKIT_TEST_SDK={PROMISED}, but {version} is installed"
    assert sdk.has_sklearn() is (PROMISED == "2")


@pytest.mark.parametrize(
    ("version", "usable"),
    [("2.257.7", True), ("2.232.0", True), ("2.232", True), ("2.300.dev0", True), ("2.231.9", False), ("2.99.0", False),
     ("3.0.0", False), ("3.27.0rc1", False), ("10.1", False), ("1.72.0", False)],
)  # fmt: skip
def test_only_a_version_with_sklearn_counts(monkeypatch: pytest.MonkeyPatch, version: str, usable: bool) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"sagemaker": version}[name])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: {"sagemaker": object()}[name])
    assert sdk.sdk_version() == version
    assert sdk.has_sklearn() is usable


def test_a_version_that_is_no_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.27.0")
    message = re.escape('at least 2.232, and version 3.27.0 is installed: pip install "smkit[sagemaker]". Jobs run')
    with pytest.raises(MissingExtraError, match=message):
        sdk.make_estimator(plan_of(), Settings(region=REGION))


def test_without_the_sdk_the_message_says_that_jobs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert sdk.sdk_version() is None
    assert not sdk.has_sklearn()
    with pytest.raises(
        MissingExtraError, match=r'and none is installed: pip install "smkit\[sagemaker\]"\. Jobs run wi'
    ):
        sdk.submit_with_sdk(plan_of(), Settings(region=REGION))


WITHOUT_SDK = """
import sys
sys.modules["sagemaker"] = None
from smkit.config import Settings
from smkit.errors import MissingExtraError
from smkit.jobs.sagemaker import sdk
from smkit.jobs.sagemaker.request import training_request
from tests.jobs.sagemaker.plans import REGION, plan_of

plan, settings = plan_of(hyperparameters={"depth": 3}), Settings(region=REGION)
assert not sdk.has_sklearn()
try:
    sdk.make_estimator(plan, settings)
except MissingExtraError as error:
    print(error)
settings.client("sagemaker").create_training_job(**training_request(plan))
"""


def run_python(code: str, endpoint: Endpoint, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    package = Path(smkit.__file__).parent.parent
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(package), str(TREE)]),
        **environment_of(endpoint, str(tmp_path / "nothing")),
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120,
    )  # fmt: skip


def test_a_job_is_sent_without_the_sdk(endpoint: Endpoint, settings: Settings, tmp_path: Path) -> None:
    run = run_python(WITHOUT_SDK, endpoint, tmp_path)
    assert run.stderr == ""
    assert "Jobs run without it" in run.stdout
    assert only_request(endpoint) == training_request(plan_of(hyperparameters={"depth": 3}))


# --- the same request ----------------------------------------------------------------------------------------------


@needs_sdk
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans())
def test_both_ways_send_the_same_request(plan: TrainingPlan, settings: Settings, endpoint: Endpoint) -> None:
    ours = sent_by_boto3(plan, settings, endpoint)
    assert sent_by_the_sdk(plan, settings, endpoint) == ours
    assert ours == training_request(plan)


FULL = plan_of(
    hyperparameters={"text": "123", "number": 123, "nested": {"städte": ["北京", None, 1e-07, True]}},
    channels={"train": "s3://prices/data/train/", "test": "s3://prices/data/test/"},
    spot=True,
    max_run=60,
    max_wait=90,
    checkpoint_uri="s3://prices/checkpoints",
    subnets=("subnet-1",),
    security_groups=("sg-1",),
    kms_key=KEY,
    environment={"A": "1"},
    tags={"team": "pricing"},
    metric_definitions={"rmse": "rmse=([0-9.]+)"},
    extra={"RetryStrategy": {"MaximumRetryAttempts": 2}},
)
CHANGES: dict[str, Any] = {
    "name": "prices-2",
    "role": "arn:aws-cn:iam::123456789012:role/Other",
    "image_uri": training_image("1.9-0", REGION),
    "entry_point": "other.py",
    "source_uri": "s3://prices/other/sourcedir.tar.gz",
    "hyperparameters": {**FULL.hyperparameters, "text": 123},
    "channels": {"train": "s3://prices/data/train/", "test": "s3://prices/data/test"},
    "output_uri": "s3://prices/other",
    "instance_type": "ml.m5.xlarge",
    "volume_size": 31,
    "max_run": 61,
    "spot": False,
    "max_wait": 91,
    "checkpoint_uri": None,
    "keep_alive": 60,
    "subnets": ("subnet-2",),
    "security_groups": ("sg-2",),
    "kms_key": None,
    "network_isolation": True,
    "input_mode": "FastFile",
    "environment": {"A": "2"},
    "tags": {"team": "sales"},
    "metric_definitions": {"rmse": "rmse: ([0-9.]+)"},
    "extra": {"RetryStrategy": {"MaximumRetryAttempts": 3}},
}


def test_the_changes_cover_every_field() -> None:
    # The region is the session's; framework_version is said by the image.
    assert {field.name for field in dataclasses.fields(FULL)} - set(CHANGES) == {"region", "framework_version"}


@needs_sdk
@pytest.mark.parametrize("field", CHANGES)
def test_each_field_reaches_the_wire_both_ways(field: str, settings: Settings, endpoint: Endpoint) -> None:
    changed = dataclasses.replace(FULL, **{field: CHANGES[field]})
    before = sent_by_the_sdk(FULL, settings, endpoint)
    after = sent_by_the_sdk(changed, settings, endpoint)
    assert after != before
    assert after == sent_by_boto3(changed, settings, endpoint)


@needs_sdk
def test_volume_keys_are_left_out_where_the_sdk_leaves_them_out(quiet_sdk: None, settings: Settings) -> None:
    from sagemaker.utils import instance_supports_kms

    model = settings.client("sagemaker").meta.service_model
    for instance_type in model.shape_for("TrainingInstanceType").enum:
        takes_key = volume_key(plan_of(kms_key=KEY, instance_type=instance_type)) == KEY
        assert takes_key is instance_supports_kms(instance_type), instance_type


@needs_sdk
def test_the_same_instances_are_refused(quiet_sdk: None, settings: Settings) -> None:
    from sagemaker.sklearn.estimator import _validate_not_gpu_instance_type

    def is_refused_by(check: Any, argument: Any) -> bool:
        try:
            check(argument)
        except ValueError:
            return True
        return False

    instance_types = settings.client("sagemaker").meta.service_model.shape_for("TrainingInstanceType").enum
    refused = [name for name in instance_types if is_refused_by(_validate_not_gpu_instance_type, name)]
    assert refused
    for name in instance_types:
        assert is_refused_by(training_request, plan_of(instance_type=name)) is (name in refused), name
    with pytest.raises(ConfigError, match="has GPUs"):
        sdk.make_estimator(plan_of(instance_type=refused[0]), settings)


@needs_sdk
def test_a_malformed_extra_is_refused_before_the_sdk_is_asked(settings: Settings, endpoint: Endpoint) -> None:
    with pytest.raises(ConfigError, match="set subnets and security_groups instead"):
        sdk.submit_with_sdk(plan_of(extra={"VpcConfig": {}}), settings)
    assert endpoint.take() == []


# --- what the SDK would find around it -----------------------------------------------------------------------------


@needs_sdk
def test_files_of_sdk_defaults_do_not_apply(
    settings: Settings, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {
        "SchemaVersion": "1.0",
        "SageMaker": {
            "TrainingJob": {
                "EnableNetworkIsolation": True,
                "VpcConfig": {"Subnets": ["subnet-9"], "SecurityGroupIds": ["sg-9"]},
                "OutputDataConfig": {"KmsKeyId": KEY},
                "Environment": {"FROM": "the file"},
                "Tags": [{"Key": "from", "Value": "the file"}],
            },
            "PythonSDK": {"Modules": {"Session": {"DefaultS3Bucket": "other"}}},
        },
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(defaults), encoding="utf-8")
    monkeypatch.setenv("SAGEMAKER_USER_CONFIG_OVERRIDE", str(file))
    assert sent_by_the_sdk(plan_of(), settings, endpoint) == training_request(plan_of())
    assert sdk.make_estimator(plan_of(), settings).sagemaker_session.default_bucket() == "prices"
    assert endpoint.take() == []


@needs_sdk
def test_a_studio_project_adds_no_tags(settings: Settings, endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / ".sagemaker-code-config").write_text(
        json.dumps({"sagemakerProjectId": "p-1", "sagemakerProjectName": "studio"}), encoding="utf-8"
    )
    for plan in (plan_of(), plan_of(tags={"team": "pricing"})):
        assert sent_by_the_sdk(plan, settings, endpoint) == training_request(plan)
    sdk.make_estimator(plan_of(), settings).fit(wait=False, job_name="by-hand")
    assert {tag["Key"] for tag in only_request(endpoint)["Tags"]} >= {"sagemaker:project-id"}


@needs_sdk
def test_a_tracking_server_makes_nobody_wait(
    settings: Settings, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    plan = plan_of(network_isolation=True)
    assert sent_by_the_sdk(plan, settings, endpoint) == training_request(plan)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"


# --- quiet, and nothing left behind --------------------------------------------------------------------------------

QUIET = """
import logging, os, sys
from smkit.config import Settings
from smkit.jobs.sagemaker import sdk
from tests.jobs.sagemaker.plans import REGION, plan_of

if os.environ.get("LOG"):
    logging.basicConfig(level=logging.DEBUG, format="%(name)s")
    logging.getLogger("sagemaker").setLevel(logging.INFO)
settings = Settings(region=REGION)
plan = plan_of(environment={"PIP_INDEX_URL": "https://user:hunter2@mirror.example/simple"})
sdk.submit_with_sdk(plan, settings)
assert logging.getLogger("sagemaker").level == (logging.INFO if os.environ.get("LOG") else logging.NOTSET)
assert logging.getLogger("sagemaker.config").level == logging.NOTSET
assert "SAGEMAKER_SUPPRESS_V2_WARNING" not in os.environ
assert os.environ.get("LOG") or (logging.root.level, logging.root.handlers) == (logging.WARNING, [])
import boto3
assert boto3.DEFAULT_SESSION is None
"""


@needs_sdk
def test_nothing_is_printed_one_request_is_sent_and_telemetry_is_off(endpoint: Endpoint, tmp_path: Path) -> None:
    """Telemetry goes around boto3, to S3 under a fixed host: so any connection but the endpoint's is an error."""
    guard = """
import socket
real_connect = socket.socket.connect
def connect(self, address):
    if address[0] != "127.0.0.1":
        print("CONNECT", address)
        raise OSError("no network")
    return real_connect(self, address)
real_lookup = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if host != "127.0.0.1":
        print("LOOKUP", host)
        raise OSError("no network")
    return real_lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
"""
    # The guard does see what it guards against: the SDK's own fit, where its telemetry is on, unlike in China.
    on = """
settings, plan = Settings(region="us-east-1"), plan_of(name="prices-2")
sdk.submit_with_sdk(plan, settings)
print("from here on the SDK's own", flush=True)
from sagemaker.sklearn import SKLearn
SKLearn.fit(sdk.make_estimator(plan, settings), wait=False)
"""
    run = run_python(guard + QUIET + on, endpoint, tmp_path)
    ours, _, theirs = run.stdout.partition("from here on the SDK's own\n")
    assert (run.returncode, ours) == (0, ""), run.stderr
    assert "LOOKUP sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com" in theirs
    names = [
        request.json()["TrainingJobName"] for request in endpoint.take() if request.operation == "CreateTrainingJob"
    ]
    assert names[:2] == ["prices-1", "prices-2"]


@needs_sdk
def test_nothing_is_said_on_stderr_and_nothing_else_is_sent(endpoint: Endpoint, tmp_path: Path) -> None:
    run = run_python(QUIET, endpoint, tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert only_request(endpoint)["TrainingJobName"] == "prices-1"


ERROR_OF_THE_PROGRAM = f"""{QUIET}
raise SystemError("of the program")
"""


@needs_sdk
def test_errors_of_the_program_are_shown_as_ever(endpoint: Endpoint, tmp_path: Path) -> None:
    """sagemaker-core alone has rich draw boxes round them, on stdout."""
    run = run_python(ERROR_OF_THE_PROGRAM, endpoint, tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("Traceback (most recent call last):\n")
    assert run.stderr.endswith("\nSystemError: of the program\n")


@needs_sdk
def test_the_users_logging_stays_as_it_was_and_sees_no_request(endpoint: Endpoint, tmp_path: Path) -> None:
    run = run_python(QUIET, endpoint, tmp_path, LOG="1")
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert "botocore" in run.stderr
    assert [line for line in run.stderr.splitlines() if line.startswith("sagemaker")] == []


@needs_sdk
def test_the_clients_are_the_settings(settings: Settings, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    estimator = sdk.make_estimator(plan_of(), settings)
    session = estimator.sagemaker_session
    assert session.boto_session is settings.session()
    assert session.sagemaker_client is settings.client("sagemaker")
    assert boto3.DEFAULT_SESSION is None
    assert endpoint.take() == []


@needs_sdk
def test_no_second_session_is_made(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all none of the default profile, which may not exist."""
    sdk.make_estimator(plan_of(), settings)

    def second_session(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a second session")

    monkeypatch.setattr(boto3, "Session", second_session)
    monkeypatch.setattr(boto3, "setup_default_session", second_session)
    sdk.submit_with_sdk(plan_of(), settings)


@needs_sdk
def test_a_default_session_of_the_user_stays(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    own = boto3.Session(region_name="us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", own)
    sdk.make_estimator(plan_of(), settings)
    assert boto3.DEFAULT_SESSION is own


# --- the estimator -------------------------------------------------------------------------------------------------


@needs_sdk
def test_an_estimator_goes_on_with_the_sdk(quiet_sdk: None, settings: Settings, endpoint: Endpoint) -> None:
    from sagemaker.sklearn import SKLearn

    estimator = sdk.make_estimator(FULL, settings)
    assert isinstance(estimator, SKLearn)
    assert estimator.framework_version == "1.2-1"
    estimator.fit(dict(FULL.channels), wait=False, job_name=FULL.name)
    assert only_request(endpoint) == training_request(FULL)
    estimator.fit({"train": "s3://prices/other/"}, wait=False)
    again = only_request(endpoint)
    assert re.fullmatch(r"prices-1-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-\d{3}", again["TrainingJobName"])
    assert again["RetryStrategy"] == {"MaximumRetryAttempts": 2}
    assert again["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://prices/other/"
    assert again["HyperParameters"]["sagemaker_submit_directory"] == f'"{FULL.source_uri}"'


@needs_sdk
def test_the_plan_is_not_changed(settings: Settings) -> None:
    before = dataclasses.asdict(FULL)
    sdk.submit_with_sdk(FULL, settings)
    assert dataclasses.asdict(FULL) == before


# --- faults --------------------------------------------------------------------------------------------------------


@needs_sdk
def test_a_refusal_is_boto3s_own_error(
    settings: Settings, endpoint: Endpoint, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.refuse_with = ("ValidationException", "RetryStrategy is currently not supported in cn-northwest-1")
    with pytest.raises(ClientError, match="currently not supported in cn-northwest-1") as caught:
        sdk.submit_with_sdk(plan_of(), settings)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert len(endpoint.take()) == 1
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("sagemaker")] == []
    assert logging.getLogger("sagemaker").level == logging.NOTSET


@needs_sdk
def test_ctrl_c_is_not_swallowed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**request: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(settings.client("sagemaker"), "create_training_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sdk.submit_with_sdk(plan_of(), settings)


@needs_sdk
def test_an_sdk_that_cannot_be_imported_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "has_sklearn", lambda: True)
    monkeypatch.setitem(sys.modules, "sagemaker.sklearn", None)
    with pytest.raises(MissingExtraError, match=r"is installed but cannot be imported: .*sagemaker\.sklearn.* Install"):
        sdk.make_estimator(plan_of(), settings)


@needs_sdk
def test_threads_submit_side_by_side(endpoint: Endpoint) -> None:
    settings = Settings(region=REGION)
    before = os.environ.copy()
    start = threading.Barrier(8)

    def submit(number: int) -> None:
        start.wait()
        sdk.submit_with_sdk(
            plan_of(name=f"job-{number}", extra={"RetryStrategy": {"MaximumRetryAttempts": number + 1}}), settings
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(submit, range(8)))
    sent = {request.json()["TrainingJobName"]: request.json()["RetryStrategy"] for request in endpoint.take()}
    assert sent == {f"job-{number}": {"MaximumRetryAttempts": number + 1} for number in range(8)}
    assert logging.getLogger("sagemaker").level == logging.NOTSET
    assert os.environ.copy() == before
