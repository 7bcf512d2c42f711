from __future__ import annotations

import io
import itertools
import json
import os
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smkit.testing.cloudwatch import _batches
from tests.testing.conftest import GROUP, Jobs

if TYPE_CHECKING:
    from smkit.testing import Sandbox

GOLDEN = sorted((Path(__file__).parent.parent / "jobs" / "golden").glob("*.json"))

REPORT = """
    import json, os, pathlib, sys
    base = os.environ["SM_MODEL_DIR"].removesuffix("/model")
    config = {path.name: json.loads(path.read_text()) for path in pathlib.Path(base, "input/config").iterdir()}
    text = json.dumps({"argv": sys.argv, "cwd": os.getcwd(), "environment": dict(os.environ), "config": config})
    pathlib.Path(base, "model", "report.json").write_text(text.replace(base, "{base}"))
"""

FIT = """
    import argparse, csv, os
    import joblib
    from sklearn.linear_model import Ridge

    parser = argparse.ArgumentParser()
    parser.add_argument("--alpha", type=float)
    alpha = parser.parse_args().alpha
    with open(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "houses.csv")) as file:
        rows = [[float(value) for value in row] for row in csv.reader(file)]
    model = Ridge(alpha=alpha).fit([row[:1] for row in rows], [row[1] for row in rows])
    print(f"coefficient={model.coef_[0]:.3f};")
    joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
"""


def report_of(jobs: Jobs, name: str) -> dict[str, Any]:
    return json.loads(jobs.unpacked(name)["report.json"])


def test_a_real_model_is_trained(jobs: Jobs, tmp_path: Path) -> None:
    import tarfile

    import joblib

    uri = jobs.put("houses/houses.csv", "1,2\n2,4\n3,6\n")
    described = jobs.run(
        FIT,
        HyperParameters={"alpha": "0.0"},
        InputDataConfig=[jobs.channel("train", uri.rpartition("/")[0])],
        AlgorithmSpecification={
            "TrainingImage": jobs.box.image(),
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "coefficient", "Regex": r"coefficient=([0-9.]+);"}],
        },
    )
    name = described["TrainingJobName"]
    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Completed"
    assert "FailureReason" not in described
    model_uri = described["ModelArtifacts"]["S3ModelArtifacts"]
    assert model_uri == f"s3://{jobs.box.bucket}/out/{name}/output/model.tar.gz"
    data = jobs.s3.get_object(Bucket=jobs.box.bucket, Key=model_uri.split("/", 3)[3])["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (tmp_path / "model.joblib").write_bytes(tar.extractfile("model.joblib").read())
    assert joblib.load(tmp_path / "model.joblib").predict([[10.0]])[0] == pytest.approx(20.0)
    (metric,) = described["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("coefficient", 2.0)
    assert jobs.uploaded(name) == {"model.tar.gz"}


def test_the_life_of_a_job_is_told_as_the_service_does(jobs: Jobs) -> None:
    described = jobs.run()
    transitions = described["SecondaryStatusTransitions"]
    assert [item["Status"] for item in transitions] == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    assert transitions[2]["StatusMessage"] == "Training image download completed. Training in progress."
    for earlier, later in itertools.pairwise(transitions):
        assert earlier["StartTime"] <= earlier["EndTime"] == later["StartTime"]
    assert described["CreationTime"] <= described["TrainingStartTime"] < described["TrainingEndTime"]
    assert described["TrainingEndTime"] == transitions[-1]["EndTime"] == described["LastModifiedTime"]
    assert described["TrainingTimeInSeconds"] == described["BillableTimeInSeconds"] == 1
    assert described["ResourceConfig"] == {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
    assert described["TrainingJobArn"].startswith("arn:aws-cn:sagemaker:cn-northwest-1:123456789012:training-job/")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_script_gets_what_the_real_toolkit_gives(jobs: Jobs, path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    version = "0.23-1" if "4.0.1" in path.name else "1.2-1"
    wire = golden["input_config"]["hyperparameters.json"]
    uri = jobs.put("golden/data.csv", "1")
    name = jobs.new_name()
    submit_directory = f"s3://{jobs.box.bucket}/{name}/source/sourcedir.tar.gz"
    described = jobs.run(
        REPORT,
        TrainingJobName=name,
        HyperParameters={**wire, "sagemaker_submit_directory": json.dumps(submit_directory)},
        InputDataConfig=[jobs.channel(channel, uri) for channel in golden["channels"]] or None,
        AlgorithmSpecification={"TrainingImage": jobs.box.image(version), "TrainingInputMode": "File"},
    )
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    report = report_of(jobs, name)
    assert report["argv"] == golden["argv"]
    assert report["cwd"] == golden["cwd"]
    expected = dict(golden["environment"])
    training_env = json.loads(expected.pop("SM_TRAINING_ENV")) | {
        "module_dir": submit_directory,
        "num_cpus": os.cpu_count(),
    }
    expected |= {"SM_MODULE_DIR": submit_directory, "SM_NUM_CPUS": str(os.cpu_count())}
    given = report["environment"]
    assert json.loads(given.pop("SM_TRAINING_ENV")) == training_env
    assert {variable: value for variable, value in given.items() if variable.startswith("SM_")} == {
        variable: value for variable, value in expected.items() if variable.startswith("SM_")
    }
    assert given["PYTHONPATH"].split(":")[0] == "{base}/code"
    config = report["config"]
    config["hyperparameters.json"]["sagemaker_submit_directory"] = json.dumps("{base}/code")
    assert config == golden["input_config"]


def test_the_script_sees_its_own_world(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-real-one")
    monkeypatch.setenv("SMKIT_BUCKET", "the-real-one")
    monkeypatch.setenv("SOME_SECRET", "the-real-one")
    described = jobs.run(REPORT, Environment={"COLOUR": "red", "SM_MODEL_DIR": "/nowhere", "LC_ALL": "C"})
    given = report_of(jobs, described["TrainingJobName"])["environment"]
    assert given["COLOUR"] == "red"
    assert given["SM_MODEL_DIR"] == "{base}/model"
    # The image's give way to the job's.
    assert (given["LC_ALL"], given["PYTHONUNBUFFERED"]) == ("C", "1")
    assert given["AWS_ENDPOINT_URL"] == jobs.box.endpoint_url
    assert given["TRAINING_JOB_NAME"] == described["TrainingJobName"]
    assert given["TRAINING_JOB_ARN"] == described["TrainingJobArn"]
    assert "the-real-one" not in given.values()


def test_a_script_can_use_the_sandbox_itself(jobs: Jobs) -> None:
    code = f"""
        import boto3
        boto3.client("s3").put_object(Bucket={jobs.box.bucket!r}, Key="from-the-script", Body=b"hello")
    """
    assert jobs.run(code)["TrainingJobStatus"] == "Completed"
    answer = jobs.s3.get_object(Bucket=jobs.box.bucket, Key="from-the-script")
    assert answer["Body"].read() == b"hello"


def test_channels_are_prefixes_files_and_manifests(jobs: Jobs) -> None:
    jobs.put("parts/part-1.csv", "1")
    jobs.put("parts/deep/part-2.csv", "2")
    folder = f"s3://{jobs.box.bucket}/parts"
    manifest = jobs.put("manifest.json", json.dumps([{"prefix": f"{folder}/"}, "deep/part-2.csv"]))
    code = """
        import json, os
        found = {}
        for name in json.loads(os.environ["SM_CHANNELS"]):
            top = os.environ[f"SM_CHANNEL_{name.upper()}"]
            found[name] = sorted(
                os.path.relpath(os.path.join(folder, file), top) for folder, _, files in os.walk(top) for file in files
            )
        open(os.path.join(os.environ["SM_MODEL_DIR"], "found.json"), "w").write(json.dumps(found))
    """
    described = jobs.run(
        code,
        InputDataConfig=[
            jobs.channel("folder", folder),
            jobs.channel("file", f"{folder}/part-1.csv") | {"InputMode": "FastFile", "ContentType": "text/csv"},
            jobs.channel("manifest", manifest, "ManifestFile"),
        ],
    )
    assert json.loads(jobs.unpacked(described["TrainingJobName"])["found.json"]) == {
        "folder": ["deep/part-2.csv", "part-1.csv"],
        "file": ["part-1.csv"],
        "manifest": ["deep/part-2.csv"],
    }


def test_output_has_an_archive_of_its_own(jobs: Jobs) -> None:
    code = """
        import os
        for variable in ("SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR"):
            open(os.path.join(os.environ[variable], "what.txt"), "w").write(variable)
    """
    name = jobs.run(code)["TrainingJobName"]
    assert jobs.uploaded(name) == {"model.tar.gz", "output.tar.gz"}
    assert jobs.unpacked(name) == {"what.txt": "SM_MODEL_DIR"}
    assert jobs.unpacked(name, "output") == {"what.txt": "SM_OUTPUT_DATA_DIR"}


def test_a_script_that_saves_no_model_completes_without_one(jobs: Jobs) -> None:
    code = """
        import os
        open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "report.txt"), "w").write("fine")
    """
    described = jobs.run(code)
    assert described["TrainingJobStatus"] == "Completed"
    assert described["ModelArtifacts"]["S3ModelArtifacts"].endswith("/output/model.tar.gz")
    assert jobs.uploaded(described["TrainingJobName"]) == {"output.tar.gz"}


def test_a_failing_script(jobs: Jobs) -> None:
    code = """
        import os
        for variable in ("SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR"):
            open(os.path.join(os.environ[variable], "what.txt"), "w").write(variable)
        raise SystemExit({"sorry": 1}["not there"])
    """
    described = jobs.run(code, HyperParameters={"alpha": "0.5"})
    name = described["TrainingJobName"]
    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Failed"
    reason = described["FailureReason"]
    assert reason.startswith("AlgorithmError: framework error: \nTraceback (most recent call last):\n")
    assert len(reason) == 1024
    assert "KeyError" not in reason
    assert "ModelArtifacts" not in described
    assert jobs.uploaded(name) == {"output.tar.gz"}
    text = "\n".join(jobs.log(name))
    own = text.index("KeyError: 'not there'")
    assert own < text.index("ERROR    Reporting training FAILURE") < text.index("ExecuteUserScriptError:\nExitCode 1\n")
    assert text.endswith('train.py --alpha 0.5"')


def test_the_exit_code_of_a_script_is_in_the_log_only(jobs: Jobs) -> None:
    described = jobs.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert described["TrainingJobStatus"] == "Failed"
    assert "ExitCode -9" in "\n".join(jobs.log(described["TrainingJobName"])).splitlines()


def test_a_shell_script_is_run_as_a_command(jobs: Jobs) -> None:
    described = jobs.run({"train.sh": '#!/bin/sh\necho "$@" > "$SM_MODEL_DIR/said"\n'}, HyperParameters={"b": '"x y"'})
    assert described["TrainingJobStatus"] == "Completed", jobs.log(described["TrainingJobName"])
    assert jobs.unpacked(described["TrainingJobName"]) == {"said": "-b x y\n"}


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("greeting.py", "WORD = 'hello'\n")
        info = "greeting-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def test_requirements_are_installed_first(jobs: Jobs) -> None:
    described = jobs.run(
        {
            "train.py": "import greeting, os; open(os.environ['SM_MODEL_DIR'] + '/m', 'w').write(greeting.WORD)",
            "requirements.txt": "./greeting-1.0-py3-none-any.whl\n",
            "greeting-1.0-py3-none-any.whl": wheel(),
        },
        Environment={"PIP_NO_INDEX": "1"},
    )
    assert described["TrainingJobStatus"] == "Completed", jobs.log(described["TrainingJobName"])[-5:]
    assert jobs.unpacked(described["TrainingJobName"]) == {"m": "hello"}


def test_requirements_that_cannot_be_installed_fail_the_job(jobs: Jobs) -> None:
    described = jobs.run({"train.py": "", "requirements.txt": "./nothing-here\n"}, Environment={"PIP_NO_INDEX": "1"})
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("AlgorithmError: framework error: ")
    log = "\n".join(jobs.log(described["TrainingJobName"]))
    assert "nothing-here" in log
    assert "InstallRequirementsError" in log


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"sagemaker_submit_directory": '"s3://smkit-sandbox/no/such.tar.gz"'}, "HeadObject operation: Not Found"),
        ({"sagemaker_submit_directory": "5"}, "must name the script"),
        ({"sagemaker_program": '"other.py"'}, "other.py"),
    ],
)
def test_code_that_is_not_there_fails_the_job(jobs: Jobs, hyperparameters: dict[str, str], message: str) -> None:
    described = jobs.run("", HyperParameters=hyperparameters)
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("AlgorithmError: framework error: ")
    assert message in "\n".join(jobs.log(described["TrainingJobName"]))


def test_a_model_that_cannot_be_packed_fails_the_job(jobs: Jobs) -> None:
    described = jobs.run("import os; os.symlink('/etc/hostname', os.environ['SM_MODEL_DIR'] + '/link')")
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: Artifact upload failed:")


def test_a_long_log_arrives_whole_and_in_order(jobs: Jobs) -> None:
    code = """
        for number in range(5000):
            print("line", number)
        print("x" * 150_000)
        print("tab\\there", end="")
    """
    name = jobs.run(code)["TrainingJobName"]
    (stream,) = jobs.streams(name)
    events = jobs.events(stream)
    own = [event["message"] for event in events if event["message"].startswith("line ")]
    assert own == [f"line {number}" for number in range(5000)]
    assert sum(event["message"].startswith("tab#011here") for event in events) == 1
    assert "".join(text for event in events if set(text := event["message"]) == {"x"}) == "x" * 150_000
    times = [event["timestamp"] for event in events]
    assert times == sorted(times)
    assert stream.startswith(f"{name}/algo-1-")


def test_lines_are_sent_in_batches_that_cloudwatch_takes() -> None:
    texts = [f"{number} {'é' * (number % 700)}" for number in range(30_000)]
    batches = list(_batches(texts))
    assert [text for batch in batches for text in batch] == texts
    for batch in batches:
        assert 0 < len(batch) <= 10_000
        assert sum(len(text.encode()) + 26 for text in batch) <= 1_048_576
    assert [len(batch) for batch in _batches(["x"] * 10_001)] == [10_000, 1]


def test_the_log_grows_while_the_job_runs(jobs: Jobs) -> None:
    uri = jobs.put("in/a", "1")
    code = """
        import time
        print("first words")
        time.sleep(30)
    """
    name = jobs.create(code, InputDataConfig=[jobs.channel("train", uri)])
    deadline = time.monotonic() + 20
    while "first words" not in (jobs.log(name) if has_group(jobs) else ()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert jobs.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training"
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    jobs.box.wait(name)


def has_group(jobs: Jobs) -> bool:
    return bool(jobs.logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"])


def test_the_last_value_of_a_metric_counts(jobs: Jobs) -> None:
    definitions = [
        {"Name": "loss", "Regex": "loss=([0-9.eE+-]+|nan)"},
        {"Name": "tabbed", "Regex": "#011score:([0-9.]+)"},
        {"Name": "never", "Regex": "never=([0-9]+)"},
        {"Name": "words", "Regex": "words=([a-z]+)"},
    ]
    described = jobs.run(
        r'print("loss=3 loss=2.5\nloss=1e-3\n\tscore:7\nwords=many\nloss=nan")',
        AlgorithmSpecification={
            "TrainingImage": jobs.box.image(),
            "TrainingInputMode": "File",
            "MetricDefinitions": definitions,
        },
    )
    found = {metric["MetricName"]: metric["Value"] for metric in described["FinalMetricDataList"]}
    assert found == {"loss": pytest.approx(0.001), "tabbed": 7.0}


def test_jobs_run_at_the_same_time(jobs: Jobs, tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    code = """
        import pathlib, sys, time
        folder = pathlib.Path(sys.argv[2])
        (folder / sys.argv[4]).touch()
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
    """
    (tmp_path / "met").mkdir()
    names = [
        jobs.create(code, HyperParameters={"folder": json.dumps(str(tmp_path / "met")), "me": json.dumps(me)})
        for me in ("one", "two")
    ]
    assert [jobs.box.wait(name)["TrainingJobStatus"] for name in names] == ["Completed", "Completed"]


def test_the_rest_of_aws_is_motos(box: Sandbox) -> None:
    assert box.client("sts").get_caller_identity()["Account"] == "123456789012"
    role = box.client("iam").get_role(RoleName="smkit-sandbox")["Role"]
    assert role["Arn"] == box.role == "arn:aws-cn:iam::123456789012:role/smkit-sandbox"
    s3 = box.client("s3")
    body = bytes(range(256)) * 4_000
    s3.put_object(Bucket=box.bucket, Key="große Datei/ü", Body=body, Metadata={"colour": "red"})
    answer = s3.get_object(Bucket=box.bucket, Key="große Datei/ü")
    assert answer["Body"].read() == body
    assert answer["Metadata"] == {"colour": "red"}
    assert s3.head_object(Bucket=box.bucket, Key="große Datei/ü")["ContentLength"] == len(body)
    ranged = s3.get_object(Bucket=box.bucket, Key="große Datei/ü", Range="bytes=1-3")
    assert ranged["Body"].read() == b"\1\2\3"
    sagemaker = box.client("sagemaker")
    assert sagemaker.list_models()["Models"] == []
