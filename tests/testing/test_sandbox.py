"""The sandbox itself: its start, its end, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

import smkit
from smkit.errors import ConfigError, MissingExtraError, WaitTimeout
from smkit.testing import sandbox
from tests.testing.conftest import Jobs

pytest_plugins = ["pytester"]


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("smkit-sandbox-*")}


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("smkit-sandbox")}


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_nothing_is_left_behind(own_temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://real.example")
    environment = dict(os.environ)
    children_before, threads_before = children(), threads()
    script = """
        import os, pathlib, subprocess, sys, time
        folder = pathlib.Path(os.environ["SM_MODEL_DIR"], "locked")
        folder.mkdir()
        (folder / "file").touch()
        folder.chmod(0o500)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        print("up", flush=True)
        time.sleep(60)
    """
    with sandbox() as box:
        assert os.environ["AWS_ENDPOINT_URL"] == box.endpoint_url
        assert "AWS_PROFILE" not in os.environ
        assert "AWS_ENDPOINT_URL_S3" not in os.environ
        assert boto3.client("sts").get_caller_identity()["Account"] == box.account
        jobs = Jobs(box)
        name = jobs.create(script)
        # The group appears with the first line.
        deadline = time.monotonic() + 30
        while "up" not in (jobs.log(name) if jobs.logs.describe_log_groups()["logGroups"] else ()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(children() - children_before) >= 4
        with pytest.raises(WaitTimeout, match="InProgress after 0 s"):
            box.wait(name, timeout=0)
        begun = time.monotonic()
    assert time.monotonic() - begun < 30
    assert children() == children_before
    assert threads() == threads_before
    assert dict(os.environ) == environment
    assert leftovers() == set()


def test_an_error_inside_ends_the_sandbox_too(own_temporary_folder: Path) -> None:
    environment, before = dict(os.environ), children()
    with pytest.raises(ZeroDivisionError), sandbox():
        1 / 0  # noqa: B018 - the error is the point
    assert (dict(os.environ), children(), leftovers()) == (environment, before, set())


def test_two_sandboxes_know_nothing_of_each_other_nor_of_the_environment(shared_sandbox: Any) -> None:
    environment = dict(os.environ)
    shared_sandbox.client("s3").put_object(Bucket=shared_sandbox.bucket, Key="mine", Body=b"1")
    with sandbox(set_environment=False, region="us-east-1", account="210987654321") as box:
        assert dict(os.environ) == environment
        assert box.role == "arn:aws:iam::210987654321:role/smkit-sandbox"
        assert box.client("sts").get_caller_identity()["Account"] == "210987654321"
        assert "Contents" not in box.client("s3").list_objects_v2(Bucket=box.bucket)
        described = Jobs(box).run()
        assert described["TrainingJobStatus"] == "Completed"
        assert described["TrainingJobArn"].startswith("arn:aws:sagemaker:us-east-1:210987654321:")


def test_settings_are_the_sandboxs(shared_sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_PROFILE", "mine")
    monkeypatch.setenv("SMKIT_ROOT", "s3://real-bucket/real")
    settings = shared_sandbox.settings()
    assert isinstance(settings, smkit.Settings)
    assert (settings.backend, settings.role, settings.profile) == ("sagemaker", shared_sandbox.role, None)
    assert settings.root == f"s3://{shared_sandbox.bucket}/smkit"
    assert shared_sandbox.settings(backend="local", instance_type="ml.c5.xlarge").instance_type == "ml.c5.xlarge"
    with pytest.raises(ConfigError, match="colour"):
        shared_sandbox.settings(colour="red")


def test_the_bucket_blocks_public_access(shared_sandbox: Any) -> None:
    blocked = shared_sandbox.client("s3").get_public_access_block(Bucket=shared_sandbox.bucket)
    assert set(blocked["PublicAccessBlockConfiguration"].values()) == {True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"region": "mars"}, "region 'mars'"),
        ({"account": "12"}, "account '12'"),
        ({"port": 70000}, "port 70000"),
        ({"stop_grace": -1}, "stop_grace -1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message), sandbox(**arguments):
        raise AssertionError


def test_a_taken_port_leaves_nothing_behind(shared_sandbox: Any, own_temporary_folder: Path) -> None:
    before = children()
    with (
        pytest.raises(ConfigError, match="cannot be used: Address already in use"),
        sandbox(port=int(shared_sandbox.endpoint_url.rpartition(":")[2])),
    ):
        raise AssertionError
    assert (children(), leftovers()) == (before, set())


def test_moto_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from smkit.testing import moto_server

    found = moto_server.find_spec
    monkeypatch.setattr(moto_server, "find_spec", lambda name: None if name == "moto" else found(name))
    with pytest.raises(MissingExtraError, match=r"\(moto\): pip install 'smkit\[sandbox\]'"), sandbox():
        raise AssertionError


def test_a_killed_process_takes_its_jobs_along(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from smkit.testing import sandbox
from tests.testing.conftest import Jobs

with sandbox() as box:
    jobs = Jobs(box)
    code = "import os, pathlib, sys, time; pathlib.Path(sys.argv[2]).write_text(str(os.getpid())); time.sleep(60)"
    name = jobs.create(code, HyperParameters={"file": '"' + sys.argv[2] + '"'})
    while not os.path.exists(sys.argv[2]) or not open(sys.argv[2]).read():
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, str(program), str(root), str(tmp_path / "pid")],
        check=False,
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert result.returncode == -signal.SIGKILL
    script = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(script) and psutil.Process(script).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_fixture_of_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["smkit.testing.pytest_plugin"]')
    pytester.makepyfile(
        """
        import os
        import boto3
        import pytest

        @pytest.mark.parametrize("turn", [1, 2])
        def test_it(sagemaker_sandbox, turn):
            assert os.environ["AWS_ENDPOINT_URL"] == sagemaker_sandbox.endpoint_url
            s3 = boto3.client("s3")
            assert "Contents" not in s3.list_objects_v2(Bucket=sagemaker_sandbox.bucket)
            s3.put_object(Bucket=sagemaker_sandbox.bucket, Key="a", Body=b"1")
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=2)


def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "smkit", "sandbox", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    assert process.stdout is not None
    assert "Ctrl-C" in process.stderr.readline()
    text = ""
    while not text.endswith("\n}\n"):
        text += process.stdout.readline()
    document = json.loads(text)
    variables = document["environment"]
    assert variables["AWS_ENDPOINT_URL"] == document["endpoint_url"]
    client = boto3.client(
        "sagemaker",
        endpoint_url=document["endpoint_url"],
        region_name=variables["SMKIT_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
    assert client.list_training_jobs()["TrainingJobSummaries"] == []
    client.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    process.stdout.close()
    process.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_a_shell_can_read(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "smkit", "sandbox"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "Ctrl-C" in process.stderr.readline()
    process.terminate()
    printed, _ = process.communicate(timeout=20)
    result = subprocess.run(
        ["sh", "-c", f'{printed}\necho "$AWS_ENDPOINT_URL $SMKIT_BACKEND"'], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("http://127.0.0.1:")
    assert result.stdout.endswith(" sagemaker\n")


def test_iam_simulates_that_everything_is_allowed() -> None:
    """No permissions are checked in the sandbox, and so the doctor has nothing against passing the role."""
    with sandbox() as box:
        answer = box.client("iam").simulate_principal_policy(
            PolicySourceArn=box.role,
            ActionNames=["iam:PassRole", "s3:GetObject"],
            ResourceArns=[box.role],
        )
        assert [(one["EvalActionName"], one["EvalDecision"]) for one in answer["EvaluationResults"]] == [
            ("iam:PassRole", "allowed"),
            ("s3:GetObject", "allowed"),
        ]
        assert {one["EvalResourceName"] for one in answer["EvaluationResults"]} == {box.role}
        assert not answer["IsTruncated"]
        report = smkit.doctor(box.settings(backend="sagemaker"), timeout=20)
    assert report["pass-role"].ok, report["pass-role"]
    assert report.problems == ()
    assert report.untold == ()
