"""How jobs end before their script does: stops, time limits, spot interruptions."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from smkit.errors import ConfigError
from smkit.testing import JobConditions, sandbox
from tests.testing.conftest import Jobs

if TYPE_CHECKING:
    from pathlib import Path

SLOW = """
    import os, pathlib, signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[2], "sigterm").touch())
    pathlib.Path(os.environ["SM_MODEL_DIR"], "so-far.txt").write_text("half")
    pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "report.txt").write_text("half")
    pathlib.Path(sys.argv[2], "pid").write_text(str(os.getpid()))
    pathlib.Path(sys.argv[2], "ready").touch()
    time.sleep(60)
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_stopped_job_keeps_what_it_saved(jobs: Jobs, tmp_path: Path) -> None:
    name = jobs.create(SLOW, HyperParameters={"folder": json.dumps(str(tmp_path))})
    wait_for(tmp_path / "ready")
    begun = time.monotonic()
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    described = jobs.sagemaker.describe_training_job(TrainingJobName=name)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopping", "Stopping")
    described = jobs.box.wait(name)
    assert time.monotonic() - begun >= 0.3
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "FailureReason" not in described
    assert [item["Status"] for item in described["SecondaryStatusTransitions"]][-4:] == [
        "Training", "Stopping", "Uploading", "Stopped",
    ]  # fmt: skip
    assert jobs.unpacked(name) == {"so-far.txt": "half"}
    assert jobs.unpacked(name, "output") == {"report.txt": "half"}
    assert not (tmp_path / "sigterm").exists()
    assert not is_running(int((tmp_path / "pid").read_text()))
    with pytest.raises(ClientError, match="rejected because the training job is in status Stopped"):
        jobs.sagemaker.stop_training_job(TrainingJobName=name)


def test_a_script_that_ends_after_the_stop_is_not_killed(tmp_path: Path) -> None:
    with sandbox(set_environment=False, stop_grace=30) as box:
        jobs = Jobs(box)
        code = SLOW.replace(
            "time.sleep(60)",
            """
    while not pathlib.Path(sys.argv[2], "end").exists():
        time.sleep(0.01)
    print("my own end")
""",
        )
        name = jobs.create(code, HyperParameters={"folder": json.dumps(str(tmp_path))})
        wait_for(tmp_path / "ready")
        jobs.sagemaker.stop_training_job(TrainingJobName=name)
        (tmp_path / "end").touch()
        assert box.wait(name)["SecondaryStatus"] == "Stopped"
        assert "my own end" in jobs.log(name)
        assert jobs.unpacked(name) == {"so-far.txt": "half"}


def test_a_job_runs_no_longer_than_it_may(jobs: Jobs, tmp_path: Path) -> None:
    described = jobs.run(
        SLOW,
        HyperParameters={"folder": json.dumps(str(tmp_path))},
        StoppingCondition={"MaxRuntimeInSeconds": 1},
    )
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert described["SecondaryStatusTransitions"][-1]["StatusMessage"] == (
        "Training job runtime exceeded MaxRuntimeInSeconds provided"
    )
    assert "FailureReason" not in described


CHECKPOINTED = """
    import os, pathlib, sys, time
    folder = pathlib.Path(sys.argv[2])
    assert folder == pathlib.Path(os.environ["CHECKPOINTS"]), os.environ["CHECKPOINTS"]
    assert folder == pathlib.Path(os.environ["SM_MODEL_DIR"]).parent / "checkpoints"
    done = folder / "epochs" / "done.txt"
    start = int(done.read_text()) if done.exists() else 0
    print("starting at epoch", start)
    if not start:
        done.parent.mkdir()
        done.write_text("7")
        time.sleep(60)
    pathlib.Path(os.environ["SM_MODEL_DIR"], "model").write_text(f"from epoch {start}")
"""


def test_an_interrupted_spot_job_goes_on_from_its_checkpoint(jobs: Jobs) -> None:
    name = jobs.new_name()
    uri = f"s3://{jobs.box.bucket}/{name}/checkpoints"
    jobs.create(
        CHECKPOINTED,
        TrainingJobName=name,
        HyperParameters={"checkpoints": '"/opt/ml/checkpoints"'},
        Environment={"CHECKPOINTS": "/opt/ml/checkpoints"},
        CheckpointConfig={"S3Uri": uri},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
    )
    deadline = time.monotonic() + 30
    while not jobs.s3.list_objects_v2(Bucket=jobs.box.bucket, Prefix=f"{name}/checkpoints/")["KeyCount"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    jobs.box.interrupt(name)
    described = jobs.box.wait(name)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    assert [item["Status"] for item in described["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Interrupted",
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    assert jobs.unpacked(name) == {"model": "from epoch 7"}
    stored = jobs.s3.get_object(Bucket=jobs.box.bucket, Key=f"{name}/checkpoints/epochs/done.txt")
    assert stored["Body"].read() == b"7"
    streams = jobs.streams(name)
    assert len(streams) == 2
    starts = [line for stream in streams for line in (event["message"] for event in jobs.events(stream))]
    assert [line for line in starts if line.startswith("starting at")] == [
        "starting at epoch 0",
        "starting at epoch 7",
    ]


def test_an_interruption_can_be_planned(jobs: Jobs) -> None:
    jobs.box.next_job(JobConditions(interrupt_after=0.2))
    described = jobs.run(
        "import time; time.sleep(0.5)",
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
    )
    assert described["TrainingJobStatus"] == "Completed"
    assert [item["Status"] for item in described["SecondaryStatusTransitions"]].count("Interrupted") == 1


def test_only_a_spot_job_loses_its_instance(jobs: Jobs) -> None:
    name = jobs.run()["TrainingJobName"]
    with pytest.raises(ConfigError, match="no spot job"):
        jobs.box.interrupt(name)
    with pytest.raises(LookupError, match="no training job 'nobody'"):
        jobs.box.interrupt("nobody")


def test_a_job_starts_from_the_checkpoints_of_another(jobs: Jobs) -> None:
    uri = jobs.put("older/epochs/done.txt", "3").removesuffix("/epochs/done.txt")
    described = jobs.run(
        CHECKPOINTED,
        HyperParameters={"checkpoints": "/opt/ml/checkpoints/"},
        Environment={"CHECKPOINTS": "/opt/ml/checkpoints"},
        CheckpointConfig={"S3Uri": uri, "LocalPath": "/opt/ml/checkpoints/"},
    )
    assert described["TrainingJobStatus"] == "Completed", jobs.log(described["TrainingJobName"])[-8:]
    assert jobs.unpacked(described["TrainingJobName"]) == {"model": "from epoch 3"}


def test_a_spot_job_waits_no_longer_than_it_may(jobs: Jobs) -> None:
    jobs.box.next_job(JobConditions(image_pull_seconds=60))
    described = jobs.run(
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1},
    )
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
