"""`smkit jobs`: every command, on both backends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import smkit
from tests.cli.conftest import Cli, use_sandbox

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.testing import Sandbox


@pytest.fixture
def cli() -> Cli:
    return Cli()


def start(train: Path, name: str, *, wait: bool = True, **hyperparameters: Any) -> smkit.TrainingJob:
    job = smkit.JobRunner().submit(str(train), job_name=name, hyperparameters=hyperparameters, check=False)
    while wait and job.status == "InProgress":
        time.sleep(0.1)
    return job


def test_jobs_are_listed_shown_and_read(backend: str, cli: Cli, train: Path) -> None:
    assert "no jobs yet" in cli("jobs", "list").err
    assert cli("jobs", "list", "--json").json == []
    good, bad = f"good-{backend}", f"bad-{backend}"
    start(train, good, alpha=0.5)
    start(train, bad, fail=True)
    rows = [line.split("\t") for line in cli("jobs", "list").out.splitlines()]
    assert rows[0] == ["name", "status", "created (UTC)", "duration", "script"]
    assert [row[:2] + row[4:] for row in rows[1:]] == [[bad, "Failed", "train.py"], [good, "Completed", "train.py"]]
    found = cli("jobs", "list", "--json", "--limit", "1").json
    assert [(one["name"], one["status"], one["backend"]) for one in found] == [(bad, "Failed", backend)]
    assert [one["name"] for one in cli("jobs", "list", "--status", "completed", "--json").json] == [good]
    assert "no such jobs" in cli("jobs", "list", "--status", "Stopped").err

    shown = cli("jobs", "show", good).out
    for part in ("Completed", "metrics", "test:rmse", "0.25", "hyperparameters", "alpha", "digest", "billable"):
        assert part in shown
    facts = cli("jobs", "show", good, "--json").json
    assert (facts["metrics"], facts["failure"], facts["hyperparameters"]) == ({"test:rmse": 0.25}, None, {"alpha": 0.5})
    failed = cli("jobs", "show", bad)
    assert "why it failed" in failed.out
    assert "ValueError: boom" in failed.out
    assert cli("jobs", "show", bad, "--json").json["failure"]["cause"] == "script-error"

    assert "arguments" in cli("jobs", "logs", good).out
    assert cli("jobs", "logs", "-f", good).out == cli("jobs", "logs", good).out
    assert cli("jobs", "attach", bad, code=1).err.count("ValueError: boom") >= 1
    assert cli("jobs", "attach", good, "--json").json["status"] == "Completed"
    assert cli("jobs", "stop", good).out == f"{good} was over already: Completed\n"
    for command in ("show", "logs", "stop", "attach"):
        assert "did you mean" in cli("jobs", command, good[:-1], code=1).err


def test_a_job_is_followed_and_stopped(backend: str, cli: Cli, train: Path) -> None:
    name = f"long-{backend}"
    job = start(train, name, wait=False, forever=True)
    stopping: list[str] = []

    def stop_once_it_ticks() -> None:
        # Its own look at the log: the follower's output is captured.
        assert any("tick" in line for line in job.logs(follow=True))
        job.stop()
        stopping.append(job.status)

    thread = threading.Thread(target=stop_once_it_ticks)
    thread.start()
    followed = cli("jobs", "logs", "-f", name).out
    thread.join()
    assert "tick" in followed
    assert stopping[0] in {"Stopping", "Stopped"}
    assert cli("jobs", "stop", name).out == f"{name} was over already: Stopped\n"
    assert "was stopped" in cli("jobs", "attach", name, code=1).err
    assert "why it stopped" in cli("jobs", "show", name).out


def test_a_follower_gets_each_line_as_it_is_written(
    cli: Cli, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "root"))
    start(train, "long", wait=False, forever=True)
    with subprocess.Popen(
        [sys.executable, "-m", "smkit", "jobs", "logs", "-f", "long"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any("tick" in line for line in process.stdout)
        assert cli("jobs", "stop", "long", "--json").json["status"] in {"Stopping", "Stopped"}
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_ctrl_c_leaves_a_job_on_sagemaker_alone(
    cli: Cli, cli_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, train: Path
) -> None:
    use_sandbox(cli_sandbox, monkeypatch)
    words = ["run", str(train), "--no-check", "-p", "forever=true", "--name", "ctrl-c"]
    with subprocess.Popen(
        [sys.executable, "-m", "smkit", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any("tick" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "job 'ctrl-c' goes on." in err
    assert "smkit jobs attach ctrl-c" in err
    assert "Traceback" not in err
    assert cli("jobs", "list", "--status", "InProgress", "--json").json[0]["name"] == "ctrl-c"
    cli("jobs", "stop", "ctrl-c")


def test_one_damaged_job_hides_no_other(cli: Cli, tmp_path: Path, train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "root"))
    start(train, "whole")
    start(train, "gone")
    found = smkit.JobRunner().jobs()
    states = dict.fromkeys(job.name for job in found)
    (tmp_path / "root" / "jobs" / "gone" / "lock").unlink()
    assert list(states) == ["gone", "whole"]

    def status(self: Any, name: str, look: Any = smkit.jobs.local.LocalBackend.status) -> Any:
        if name == "gone":
            raise smkit.errors.JobError("run.json is damaged")
        return look(self, name)

    monkeypatch.setattr("smkit.jobs.local.LocalBackend.status", status)
    listed = cli("jobs", "list")
    assert [line.split("\t")[:2] for line in listed.out.splitlines()[1:]] == [
        ["gone", "unknown"],
        ["whole", "Completed"],
    ]
    assert "smkit: warning: run.json is damaged" in listed.err
    assert cli("jobs", "list", "--json").json[0]["status"] is None


def test_a_wrong_status_is_named(cli: Cli) -> None:
    shown = cli("jobs", "list", "--status", "faild", code=2).err
    assert "did you mean 'Failed'?" in shown


def test_a_profile_that_does_not_exist_is_one_message(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    words = ["jobs", "list", "--backend", "sagemaker", "--root", "s3://bucket/x", "--profile", "nosuch"]
    shown = cli(*words, code=2).err
    assert shown.startswith("smkit: error: the AWS profile 'nosuch' does not exist")
