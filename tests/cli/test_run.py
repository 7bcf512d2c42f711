"""`smkit run`: every option, both backends, the project's own scripts, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

import smkit
from tests.cli.conftest import Cli

if TYPE_CHECKING:
    from pathlib import Path

# The packages here are not those of the image, which a check of a job on SageMaker says.
pytestmark = pytest.mark.filterwarnings("always::smkit.errors.JobCheckWarning")

DATASET = """
import helper
import pandas as pd

import smkit

print("building")


def build(settings):
    frame = pd.read_csv("rows.csv")
    return smkit.DatasetBuilder(helper.NAME, smkit.FrameSource(frame), settings=settings).split(test=0.2).build()
"""


@pytest.fixture
def cli() -> Cli:
    return Cli()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "root"))


@pytest.fixture
def project(tmp_path: Path, train: Path) -> Path:
    """A project whose scripts the conventions find."""
    (tmp_path / "smkit.toml").touch()
    (tmp_path / "rows.csv").write_text("a\n" + "\n".join(map(str, range(10))), encoding="utf-8")
    (tmp_path / "helper.py").write_text("NAME = 'houses'\n", encoding="utf-8")
    (tmp_path / "dataset.py").write_text(DATASET, encoding="utf-8")
    return train.parent


def test_a_job_runs_is_published_and_promoted(backend: str, cli: Cli, train: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x\n1\n", encoding="utf-8")
    shown = cli(
        "run", str(train), "-i", "train=data.csv", "-p", "alpha=0.5", "-p", 'text="5"', "-p", "word=five",
        "--name", f"a-{backend}", "--env", "GREETING=hello", "--publish", "houses", "--promote", "staging",
        "--timeout", "10m",
    )  # fmt: skip
    assert 'arguments ["--alpha", "0.5", "--text", "5", "--word", "five"]' in shown.out
    assert 'channels ["train"]' in shown.out
    assert "variable hello" in shown.out
    assert f"smkit: job a-{backend} is Completed" in shown.err
    assert "test:rmse=0.25" in shown.err
    assert "published as houses@1, which 'staging' names now" in shown.err
    model = smkit.ArtifactStore().get("houses@staging")
    assert (model.version, model.metrics) == (1, {"test:rmse": 0.25})
    assert model.hyperparameters == {"alpha": 0.5, "text": "5", "word": "five"}
    job = smkit.JobRunner().attach(f"a-{backend}")
    assert job.lineage()["backend"] == backend


def test_a_failed_job_says_why_without_a_traceback_of_smkit(backend: str, cli: Cli, train: Path) -> None:
    shown = cli("run", str(train), "-p", "fail=true", "--name", f"f-{backend}", code=1)
    assert 'raise ValueError("boom")' in shown.out
    assert f"smkit: error: job 'f-{backend}': the script failed: ValueError: boom [script-error]" in shown.err
    assert "Traceback (most recent call last):" in shown.err
    assert "The whole log: " in shown.err
    assert "smkit/jobs/" not in shown.err.replace("smkit/jobs/supervisor", "")


def test_json_is_the_jobs_facts_and_the_log_goes_to_stderr(backend: str, cli: Cli, train: Path) -> None:
    good = cli("run", str(train), "--json", "--name", f"j-{backend}")
    assert (good.json["status"], good.json["metrics"], good.json["failure"]) == ("Completed", {"test:rmse": 0.25}, None)
    assert "arguments []" in good.err
    bad = cli("run", str(train), "--json", "-p", "fail=true", "--name", f"k-{backend}", code=1)
    assert (bad.json["status"], bad.json["failure"]["cause"], bad.json["published"]) == ("Failed", "script-error", None)


def test_without_waiting_only_the_name_is_written(backend: str, cli: Cli, train: Path) -> None:
    shown = cli("run", str(train), "--no-wait", "--name", f"n-{backend}")
    assert shown.out == f"n-{backend}\n"
    told = cli("run", str(train), "--no-wait", "--json", "--name", f"m-{backend}").json
    assert (told["job_name"], told["published"]) == (f"m-{backend}", None)
    attached = cli("jobs", "attach", f"n-{backend}", "--publish", "later")
    assert "arguments []" in attached.out
    assert "published as later@1" in attached.err
    assert cli("run", str(train), "--name", f"n-{backend}", code=1).err.count("names are never reused") == 1


def test_a_dry_run_starts_nothing(backend: str, cli: Cli, train: Path) -> None:
    words = ["run", str(train), "--dry-run", "-p", "alpha=1", "--env", "GREETING=hidden", "--spot", "--tag", "a=b"]
    shown = cli(*words, "--name", "dry")
    assert "nothing found" in shown.out or "warning" in shown.out
    assert "alpha  1" in shown.out
    assert "hidden" not in shown.out + shown.err
    found = cli(*words, "--json").json
    assert found["check"]["ok"]
    assert found["job"]["hyperparameters"] == {"alpha": 1}
    assert "train.py" in found["job"]["code"]["files"]
    if backend == "sagemaker":
        assert found["request"]["EnableManagedSpotTraining"] is True
        assert {"Key": "a", "Value": "b"} in found["request"]["Tags"]
    else:
        assert found["request"] is None
    assert smkit.JobRunner().jobs() == []
    train.write_text("import nosuchmodule\n", encoding="utf-8")
    assert "nosuchmodule" in cli(*words, code=1).out


@pytest.mark.usefixtures("local")
def test_a_dataset_is_found_by_its_reference(cli: Cli, train: Path) -> None:
    import pandas as pd

    source = smkit.FrameSource(pd.DataFrame({"a": range(10)}))
    smkit.DatasetBuilder("houses", source).split(test=0.2).build(progress=False)
    shown = cli("run", str(train), "--dataset", "houses@latest", "-i", f"extra={train}", "--name", "d")
    assert 'channels ["extra","test","train"]' in shown.out
    inputs = smkit.JobRunner().attach("d").lineage()["inputs"]
    assert inputs["train"]["dataset"] == "houses@1"
    assert "no dataset 'hauses'" in cli("run", str(train), "--dataset", "hauses", code=1).err
    clash = cli("run", str(train), "--dataset", "houses", "-i", f"train={train}", code=2)
    assert "channel 'train' is a split of the dataset already" in clash.err


@pytest.mark.usefixtures("project")
def test_without_a_script_the_projects_own_are_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    shown = cli("run", "--name", "a")
    assert 'channels ["test","train"]' in shown.out
    assert "building" not in shown.out
    assert "smkit: dataset.py gave houses@1" in shown.err
    assert smkit.DatasetStore().names() == ["houses"]
    # A script that is named, or travels with its folder, has the same dataset beside it.
    assert 'channels ["test","train"]' in cli("run", "../train.py", "--name", "b").out
    assert 'channels ["test","train"]' in cli("run", "--source-dir", "..", "--name", "s").out
    assert 'channels ["extra"]' in cli("run", "../train.py", "-i", "extra=../train.py", "--name", "i").out
    assert (
        'channels ["test","train"]' in cli("run", "../train.py", "--dataset-script", "../dataset.py", "--name", "c").out
    )
    assert os.getcwd() == str(below)  # noqa: PTH109 - the folder as the process has it
    assert "dataset.py is not run" in cli("run", "--dry-run").err


@pytest.mark.parametrize("text", ["def load():\n    return 1\n", "def build(:\n"])
def test_a_module_that_is_called_dataset_is_not_run(cli: Cli, project: Path, text: str) -> None:
    (project / "dataset.py").write_text(text, encoding="utf-8")
    shown = cli("run", "train.py")
    assert "channels []" in shown.out
    assert "dataset.py gave" not in shown.err


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("x = 1\n", 2, "defines no function build: write def build(settings"),
        ("def build(settings):\n    return 3\n", 2, "returned int: return a dataset"),
        ("def build(settings):\n    return helper.gone\n", 1, "NameError: name 'helper' is not defined"),
        ("import smkit\nraise smkit.SmkitError('as told')\n", 1, "smkit: error: as told"),
        (None, 2, "does not exist: expected a script that defines def build"),
    ],
)
def test_what_a_dataset_script_can_do_wrong(cli: Cli, project: Path, text: str | None, code: int, said: str) -> None:
    path = project / "dataset.py"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    shown = cli("run", "train.py", "--dataset-script", "dataset.py", code=code)
    assert said in shown.err
    assert "smkit/cli" not in shown.err
    assert smkit.JobRunner().jobs() == []


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is no train.py in"),
        (["t.py", "-p", "alpha"], "'alpha' has no name and value: write it as alpha=0.5"),
        (["t.py", "-i", "=x"], "'=x' has no name and value: write it as train=data/train.csv"),
        (["t.py", "--timeout", "soon"], "'soon' is not a duration"),
        (["t.py", "--env", "NO_SUCH_VARIABLE"], "'NO_SUCH_VARIABLE' is not set in this shell"),
        (["t.py", "--promote", "staging"], "--promote needs --publish"),
        (["t.py", "--publish", "houses", "--no-wait"], "--publish needs the job's end"),
        (["t.py", "--dataset", "a", "--dataset-script", "b.py"], "exclude each other"),
        (["t.py", "--params-file", "p.yaml"], "read from a .json or a .toml file"),
        (["t.py", "--params-file", "p.json"], "cannot read p.json: No such file"),
        (["t.py", "--datset", "a"], "No such option: --datset"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(cli: Cli, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "t.py").write_text("", encoding="utf-8")
    assert said in cli("run", *words, code=2).err
    assert smkit.JobRunner().jobs() == []


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch.py"], "entry_point 'nosuch.py' does not exist"),
        (["t.py", "--publish", "Big Name"], "'Big Name' is not a model name"),
        (["t.py", "-p", "password=x"], "looks like a secret"),
        (["t.py", "--metric", "a=("], "is not a regular expression"),
        (["t.py", "--max-wait", "1h"], "max_wait is how long to wait for spot capacity: set spot=True too"),
        (["t.py", "-d", "houses:1"], "did you mean 'houses@1'?"),
    ],
)
def test_what_the_library_refuses_is_exit_code_2_too(cli: Cli, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "t.py").write_text("", encoding="utf-8")
    shown = cli("run", *words, code=2)
    assert shown.err.startswith("smkit: error: ")
    assert said in shown.err
    assert smkit.JobRunner().jobs() == []


@pytest.mark.usefixtures("local")
def test_code_travels_and_a_secret_stays_in_the_shell(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, shared = tmp_path / "src", tmp_path / "shared"
    for folder in (source, shared):
        folder.mkdir()
    (source / "train.py").write_text(
        "import os\nimport shared.words\nprint(shared.words.HELLO, len(os.environ['DB_PASSWORD']))\n"
        "open(os.environ['SM_MODEL_DIR'] + '/model', 'w').close()\n",
        encoding="utf-8",
    )
    (shared / "words.py").write_text("HELLO = 'hello'\n", encoding="utf-8")
    monkeypatch.setenv("DB_PASSWORD", "hunter2!")
    shown = cli("run", "--source-dir", str(source), "--dependency", str(shared), "-e", "DB_PASSWORD", "--name", "s")
    assert "hello 8" in shown.out
    assert "hunter2" not in shown.out + shown.err
    assert "hunter2" not in (tmp_path / "root" / "jobs" / "s" / "run.json").read_text(encoding="utf-8")


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("name", ["p.json", "p.toml"])
def test_hyperparameters_come_from_a_file_and_the_command_line_wins(cli: Cli, tmp_path: Path, name: str) -> None:
    text = '{"alpha": 1, "deep": {"a": [1]}}' if name == "p.json" else "alpha = 1\ndeep = {a = [1]}\n"
    (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "t.py").write_text("", encoding="utf-8")
    found = cli("run", "t.py", "--params-file", name, "-p", "alpha=2", "-p", "beta=null", "--dry-run", "--json").json
    assert found["job"]["hyperparameters"] == {"alpha": 2, "deep": {"a": [1]}, "beta": None}


def started(words: list[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "smkit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.usefixtures("local")
def test_ctrl_c_stops_a_job_of_this_machine(train: Path) -> None:
    with started(["run", str(train), "-p", "forever=true", "--name", "c"]) as process:
        assert process.stdout is not None
        assert any("tick" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "job 'c' was stopped" in err
    assert "Traceback" not in err
    assert smkit.JobRunner().attach("c").status == "Stopped"


def test_a_real_process_fails_with_exit_code_1(tmp_path: Path) -> None:
    script = tmp_path / "t.py"
    script.write_text(
        textwrap.dedent("""\
        def inner():
            raise KeyError("gone")
        inner()
    """),
        encoding="utf-8",
    )
    with started(["run", "t.py", "--root", "r", "--json"], cwd=tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(out)["failure"]["traceback"].endswith("KeyError: 'gone'")
    assert "KeyError: 'gone'" in err
    assert (tmp_path / "r" / "jobs").is_dir()
