"""Scripts that end well, in real processes."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from smkit.artifacts import ArtifactStore
from smkit.config import Settings
from smkit.errors import ConfigError, DuplicateJobError, JobNotFound, WaitTimeout
from smkit.jobs import JobRunner, TrainingJob
from smkit.jobs.local import LocalBackend
from tests.jobs.backends import script_lines
from tests.jobs.conftest import SAVE_MODEL

if TYPE_CHECKING:
    from tests.jobs.conftest import Script

GOLDEN = Path(__file__).parent / "golden"
DUMP = """
import json, os, sys
found = {"argv": sys.argv, "environment": dict(os.environ), "cwd": os.getcwd(), "files": {}}
for name in os.listdir(os.environ["SM_INPUT_CONFIG_DIR"]):
    with open(os.path.join(os.environ["SM_INPUT_CONFIG_DIR"], name)) as file:
        found["files"][name] = json.load(file)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "found.json"), "w") as file:
    json.dump(found, file)
"""


def read_model(path: str, member: str) -> Any:
    with tarfile.open(path) as tar:
        return json.load(tar.extractfile(member))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_a_real_process_finds_what_the_real_container_gives(path: Path, tmp_path: Path, script: Script) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    version = "0.23-1" if "4.0.1" in path.name else "1.2-1"
    settings = Settings(root=str(tmp_path / "store"), region="eu-west-1", framework_version=version)
    (tmp_path / "data.csv").write_text("a\n1\n")
    # What SageMaker would drop, JobSpec refuses: the rest of the golden input is the same.
    hidden = {"sagemaker_custom", "_tuning_objective_metric"}
    values = {name: value for name, value in golden["hyperparameters"].items() if name not in hidden}
    job = JobRunner(settings).run(
        script(DUMP),
        dict.fromkeys(golden["channels"], tmp_path / "data.csv"),
        hyperparameters=values,
        job_name="job-2026-01-01",
    )
    base = str(tmp_path / "store/jobs/job-2026-01-01/ml")
    text = json.dumps(golden).replace("{base}", base).replace("sagemaker_custom", "").replace('\\"\\":\\"mine\\"', "")
    golden = json.loads(text)
    found = read_model(job.model, "found.json")
    assert found["argv"] == golden["argv"]
    assert found["cwd"] == golden["cwd"]
    golden["environment"] |= {"SM_NUM_CPUS": str(os.cpu_count())}
    for name, value in golden["environment"].items():
        if name == "SM_TRAINING_ENV":
            expected = json.loads(value.replace('\\"\\":\\"mine\\"', ""))
            expected |= {"num_cpus": os.cpu_count(), "additional_framework_parameters": {}}
            assert json.loads(found["environment"][name]) == expected
        elif name == "SM_FRAMEWORK_PARAMS":
            assert found["environment"][name] == "{}"
        else:
            assert found["environment"][name] == value, name
    extra = {name for name in found["environment"] if name.startswith(("SM_", "SAGEMAKER_"))}
    assert extra <= set(golden["environment"])
    assert found["environment"]["PYTHONPATH"].split(os.pathsep)[0] == f"{base}/code"
    assert found["files"]["resourceconfig.json"] == golden["input_config"]["resourceconfig.json"]
    assert found["files"]["inputdataconfig.json"] == golden["input_config"]["inputdataconfig.json"]
    wire = found["files"]["hyperparameters.json"]
    assert wire.items() <= golden["input_config"]["hyperparameters.json"].items()
    assert set(values) <= set(wire)


def test_a_completed_job(runner: JobRunner, script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = SAVE_MODEL + (
        "import json, sys\n"
        "print('smkit metric a=1')\nprint('smkit metric a=2')\nprint('smkit metric lost=nan')\n"
        "print('rmse: 0.5 then rmse: 0.25', file=sys.stderr)\nprint('x smkit metric not=1')\n"
        "values = {'b': 3, 'a': 2.125, 'text': 'no', 'flag': True}\n"
        "json.dump(values, open(os.environ['SM_MODEL_DIR'] + '/metrics.json', 'w'))\n"
        "open(os.environ['SM_OUTPUT_DATA_DIR'] + '/plot.txt', 'w').write('p')\n"
        "sys.stdout.write('no newline at the end')\n"
    )
    job = runner.run(
        script(code), metric_definitions={"rmse": "rmse: ([0-9.]+)"}, hyperparameters={"alpha": np.float64(0.5)}
    )
    assert job.status == "Completed"
    assert job.exit_code == 0
    metrics = job.metrics
    assert np.isnan(metrics.pop("lost"))
    assert metrics == {"a": 2.125, "b": 3.0, "rmse": 0.25}
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in job.logs()).removesuffix("\n")
    folder = tmp_path / "store" / "jobs" / job.name
    with tarfile.open(job.model_archive()) as tar:
        assert tar.getnames() == ["metrics.json", "model.txt"]
        assert {member.mtime for member in tar} == {0}
    with tarfile.open(folder / "output" / "output.tar.gz") as tar:
        assert tar.getnames() == ["plot.txt"]
    assert (folder / "ml/output/success").read_bytes() == b""
    assert not (folder / "ml/input/data").exists()
    assert (folder / "ml/code/train.py").is_file()
    with tarfile.open(folder / "source" / "sourcedir.tar.gz") as tar:
        names = tar.getnames()
        assert names[0] == "smkit/__init__.py"
        assert "smkit/entrypoint/__init__.py" in names
        assert [name for name in names if not name.startswith("smkit/")] == ["train.py"]
    record = json.loads((folder / "run.json").read_text())
    assert record["schema_version"] == 1
    lineage = job.lineage()
    assert json.loads(json.dumps(lineage, allow_nan=False)) == lineage
    assert lineage["hyperparameters"] == {"alpha": 0.5}
    assert lineage["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "scikit-learn" in lineage["environment"]["packages"]
    assert lineage["created"] <= lineage["started"] <= lineage["ended"]
    assert lineage["code"]["digest"].startswith("sha256:")
    assert repr(job) == f"<TrainingJob {job.name!r}: Completed>"


def test_a_repr_never_raises(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    job = runner.run(script(SAVE_MODEL), job_name="houses-1")
    assert repr(job) == "<TrainingJob 'houses-1': Completed>"
    (tmp_path / "store/jobs/houses-1/run.json").write_text("junk")
    job = TrainingJob("houses-1", LocalBackend(tmp_path / "store/jobs"))
    assert repr(job) == "<TrainingJob 'houses-1'>"
    shutil.rmtree(tmp_path / "store/jobs/houses-1")
    assert repr(job) == "<TrainingJob 'houses-1'>"
    assert repr(runner) == f"JobRunner(backend='local', root={str(tmp_path / 'store')!r})"
    assert repr(JobRunner()) == "JobRunner()"


@pytest.mark.parametrize("wrong", ["train.py", Path("train.py"), {"root": "x"}, Settings])
def test_a_runner_takes_settings_and_nothing_else(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=rf"takes smkit\.Settings, got {type(wrong).__name__}") as caught:
        JobRunner(wrong)
    assert ("goes to run" in str(caught.value)) == isinstance(wrong, str | Path)


def test_a_runner_without_settings_loads_nothing_heavy() -> None:
    code = "import sys, smkit; smkit.JobRunner(); print({'pydantic', 'boto3', 'pandas', 'sklearn'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


TEMPLATE = """
from sklearn.linear_model import Ridge
from smkit.entrypoint import TrainingScript, hyperparameter

class Houses(TrainingScript):
    target = "y"

    class Hyperparameters:
        alpha: float = hyperparameter(1.5, min=0)
        fit_intercept: bool = True

    def build_model(self):
        return Ridge(alpha=self.hyperparameters.alpha)

if __name__ == "__main__":
    Houses.main()
"""


def test_the_lineage_says_which_defaults_the_template_used(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n2,3\n")
    given = {"fit-intercept": False}
    job = runner.run(script(TEMPLATE), {"train": tmp_path / "a.csv"}, hyperparameters=given)
    assert job.lineage()["hyperparameters"] == {"alpha": 1.5, "fit_intercept": False}
    assert read_model(job.model, "hyperparameters.json") == {"alpha": 1.5, "fit_intercept": False}
    record = json.loads((tmp_path / "store/jobs" / job.name / "run.json").read_text())
    assert record["hyperparameters"] == given
    version = ArtifactStore(runner.settings).publish("houses", job)
    assert version.hyperparameters == {"alpha": 1.5, "fit_intercept": False}


@pytest.mark.parametrize(
    ("content", "lineage", "warning"),
    [
        (b'{"alpha": 2, "extra": [1]}', {"alpha": 2, "beta": 0.5, "extra": [1]}, None),
        (b"{}", {"alpha": 1, "beta": 0.5}, None),
        (b"[1]", {"alpha": 1, "beta": 0.5}, "expected a JSON object, got list"),
        (b"{", {"alpha": 1, "beta": 0.5}, "Expecting property name"),
        (b'{"alpha": NaN}', {"alpha": 1, "beta": 0.5}, "not JSON compliant"),
        (b'{"alpha": 1e999}', {"alpha": 1, "beta": 0.5}, "not JSON compliant"),
        (b'{"alpha": "\\ud800"}', {"alpha": 1, "beta": 0.5}, "surrogates not allowed"),
        (b"\xff", {"alpha": 1, "beta": 0.5}, "can't decode"),
        (b"[" * 200_000, {"alpha": 1, "beta": 0.5}, "recursion"),
        (b" " * 2_000_000, {"alpha": 1, "beta": 0.5}, "larger than 1048576 bytes"),
    ],
)
def test_what_a_plain_script_says_it_used(
    runner: JobRunner, script: Script, tmp_path: Path, content: bytes, lineage: dict[str, Any], warning: str | None
) -> None:
    (tmp_path / "said.json").write_bytes(content)
    code = SAVE_MODEL + (
        "import shutil\nshutil.copy(os.environ['SAID'], os.environ['SM_MODEL_DIR'] + '/hyperparameters.json')\n"
    )
    job = runner.run(
        script(code), hyperparameters={"alpha": 1, "beta": 0.5}, environment={"SAID": str(tmp_path / "said.json")}
    )
    assert job.lineage()["hyperparameters"] == lineage
    record = json.loads((tmp_path / "store/jobs" / job.name / "run.json").read_text())
    assert record["hyperparameters"] == {"alpha": 1, "beta": 0.5}
    assert len(record["warnings"]) == (warning is not None)
    assert (warning or "") in "".join(record["warnings"])


def test_a_record_from_before_resolved_hyperparameters_is_readable(
    runner: JobRunner, script: Script, tmp_path: Path
) -> None:
    job = runner.run(script(SAVE_MODEL), hyperparameters={"alpha": 1})
    path = tmp_path / "store/jobs" / job.name / "run.json"
    record = json.loads(path.read_text())
    del record["resolved_hyperparameters"]
    path.write_text(json.dumps(record))
    assert job.lineage()["hyperparameters"] == {"alpha": 1}


def test_the_page_lists_every_argument_of_run() -> None:
    page = (Path(__file__).parents[2] / "docs/jobs.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| ", page.partition("| Argument |")[2].partition("\n\n")[0], re.MULTILINE)
    arguments = set(inspect.signature(JobRunner.run).parameters) - {"self"}
    assert set(listed) == arguments
    assert set(inspect.signature(JobRunner.submit).parameters) - {"self"} == arguments - {"wait"}


def test_the_same_model_gives_the_same_archive(runner: JobRunner, script: Script) -> None:
    path = script(SAVE_MODEL)
    assert runner.run(path).model_archive().read_bytes() == runner.run(path).model_archive().read_bytes()


def test_a_script_cannot_change_its_input(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    (tmp_path / "data/deep").mkdir(parents=True)
    original = tmp_path / "data/deep/a.csv"
    original.write_text("a\n1\n")
    original.chmod(0o444)
    code = SAVE_MODEL + "open(os.environ['SM_CHANNEL_TRAIN'] + '/deep/a.csv', 'a').write('2')\n"
    job = runner.run(script(code), {"train": tmp_path / "data", "one": original})
    assert original.read_text() == "a\n1\n"
    assert job.lineage()["inputs"]["train"] == {"uri": str(tmp_path / "data"), "files": 1, "bytes": 4}


class Split:
    uri = "memory://train"

    def download(self, folder: Path) -> None:
        (folder / "part.csv").write_text("a\n7\n")

    def describe(self) -> dict[str, Any]:
        return {"uri": self.uri, "dataset": "houses@1", "digest": "sha256:ab"}


class FakeDataset:
    def channels(self) -> dict[str, Split]:
        return {"train": Split(), "test": Split()}


def test_a_dataset_gives_a_channel_per_split(runner: JobRunner, script: Script) -> None:
    code = SAVE_MODEL + "print(os.environ['SM_CHANNELS'], open(os.environ['SM_CHANNEL_TEST'] + '/part.csv').read())\n"
    job = runner.run(script(code), FakeDataset())
    assert script_lines(job)[:2] == ['["test","train"] a', "7"]
    assert job.lineage()["inputs"]["test"]["dataset"] == "houses@1"


def test_submit_returns_while_the_job_runs_and_another_runner_attaches(
    runner: JobRunner, script: Script, tmp_path: Path
) -> None:
    code = SAVE_MODEL + "import time\nprint('started')\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n"
    job = runner.submit(script(code), job_name="slow")
    assert job.status == "InProgress"
    other = JobRunner(Settings(root=str(tmp_path / "store"))).attach("slow")
    with pytest.raises(WaitTimeout, match="goes on"):
        other.wait(timeout=0.1, logs=False)
    assert "started" in other.logs(follow=True)
    (tmp_path / "store/jobs/slow/ml/code/go").touch()
    assert other.wait(logs=False) is other
    assert job.status == "Completed"
    assert runner.jobs() == [job]


def test_jobs_are_listed_newest_first(runner: JobRunner, script: Script) -> None:
    assert runner.jobs() == []
    names = [runner.run(script(SAVE_MODEL), job_name=name).name for name in ("b", "c", "a")]
    jobs = runner.jobs()
    assert [job.name for job in jobs] == names[::-1]
    assert isinstance(jobs, list)
    assert (jobs[0].name, [job.name for job in jobs[1:]]) == ("a", ["c", "b"])


def test_a_list_of_jobs_is_a_table_in_a_notebook(
    runner: JobRunner, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (runner.jobs()._repr_html_(), repr(runner.jobs())) == ("<p>no jobs</p>", "<TrainingJobs: none>")
    for name in ("b", "c", "a", "d"):
        runner.run(script(SAVE_MODEL), job_name=name)
    jobs = runner.jobs()
    html = jobs._repr_html_()
    assert html.count("<tr>") == 5
    assert [html.count(f"<td>{text}</td>") for text in ("a", "Completed")] == [1, 4]
    assert "<tr><td>b</td>" in jobs[3:]._repr_html_()
    monkeypatch.setattr("smkit.jobs.listing._HTML_ROWS", 3)
    assert jobs._repr_html_().endswith("<p>and 1 more</p>")

    def fail(self: TrainingJob) -> None:
        raise JobNotFound("gone")

    monkeypatch.setattr(TrainingJob, "state", fail)
    assert jobs._repr_html_().count("not known just now") == 3
    assert repr(jobs) == "<TrainingJobs: 4, d, a, c, ...>"


def test_a_job_that_is_not_there_gets_a_suggestion(runner: JobRunner, script: Script) -> None:
    runner.run(script(SAVE_MODEL), job_name="b")
    with pytest.raises(JobNotFound, match="there is no job 'bb'"):
        runner.attach("bb")


def test_names_are_never_reused(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    runner.run(script(SAVE_MODEL), job_name="once")
    with pytest.raises(DuplicateJobError, match="job 'once' exists already"):
        runner.run(script(SAVE_MODEL), job_name="once")
    assert [path.name for path in (tmp_path / "store/jobs").iterdir()] == ["once"]


def test_unicode_paths_and_a_source_dir_with_a_package(runner: JobRunner, tmp_path: Path) -> None:
    source = tmp_path / "żółć ☕"
    (source / "package/inner").mkdir(parents=True)
    (source / "package/__init__.py").write_text("NAME = 'ż'\n", encoding="utf-8")
    (source / "package/inner/données.txt").write_text("é", encoding="utf-8")
    (source / "train.py").write_text(
        SAVE_MODEL + "import package, smkit.entrypoint\nprint(package.NAME, os.listdir('package/inner'))\n",
        encoding="utf-8",
    )
    data = tmp_path / "数据.csv"
    data.write_text("x")
    job = runner.run("train.py", {"train": data}, source_dir=source)
    assert script_lines(job) == ["ż ['données.txt']"]


def test_a_shell_script(runner: JobRunner, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/go.sh").write_text('echo "$2"; echo m > "$SM_MODEL_DIR/m"\n')
    job = runner.run("go.sh", source_dir=tmp_path / "src", hyperparameters={"text": "it's $HOME; `ls`"})
    assert script_lines(job) == ["it's $HOME; `ls`"]


def test_what_a_script_inherits(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "pip-password-1234"
    monkeypatch.setenv("SMKIT_POSTGRES__PASSWORD", "postgres-password-1234")
    monkeypatch.setenv("SM_HP_OLD", "leftover")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = Settings(root=str(tmp_path / "store"), pip_index_url=f"https://u:{secret}@mirror/simple")
    runner = JobRunner(settings)
    job = runner.run(script(DUMP), environment={"TOKEN": "token-1234", "SM_CHANNELS": "mine"})
    found = read_model(job.model, "found.json")["environment"]
    assert not [name for name in found if name.startswith("SMKIT_")]
    assert "SM_HP_OLD" not in found
    assert (found["AWS_PROFILE"], found["OMP_NUM_THREADS"], found["TOKEN"]) == ("mine", "1", "token-1234")
    assert found["SM_CHANNELS"] == "[]"
    assert found["PIP_INDEX_URL"].endswith("@mirror/simple")
    record = (tmp_path / "store/jobs" / job.name / "run.json").read_text()
    assert secret not in record
    assert "token-1234" not in record


def test_the_default_runner_reads_settings_lazily(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = JobRunner()
    monkeypatch.setenv("SMKIT_ROOT", "s3://some-bucket/project")
    job = runner.run(script(SAVE_MODEL))
    assert Path(job.model).is_relative_to(tmp_path / ".smkit/jobs")


def test_a_spec_is_made_looked_at_and_run(runner: JobRunner, script: Script) -> None:
    spec = runner.spec(script(SAVE_MODEL), hyperparameters={"alpha": 1}, instance_type="ml.c5.large", job_name="made")
    assert (spec.name, spec.instance_type, spec.plain_hyperparameters()) == ("made", "ml.c5.large", {"alpha": 1})
    job = runner.run(spec)
    assert (job.name, job.status) == ("made", "Completed")
    assert job.lineage()["instance_type"] == "ml.c5.large"
    with pytest.raises(ConfigError, match="hyperparameters, timeout: a JobSpec holds these already"):
        runner.run(spec, hyperparameters={}, timeout=3)
    with pytest.raises(DuplicateJobError):
        runner.submit(spec)


def test_options_of_sagemaker_are_checked_and_filled_in_here_too(
    tmp_path: Path, runner: JobRunner, script: Script
) -> None:
    path = script(SAVE_MODEL)
    settings = Settings(
        root=str(tmp_path), subnets=["subnet-1"], security_groups=["sg-1"], kms_key="alias/k", tags={"a": "1", "b": "1"}
    )
    spec = JobRunner(settings).spec(path, sagemaker={"tags": {"b": "2"}, "spot": True}, framework_version="1.4-2")
    assert spec.sagemaker.subnets == ("subnet-1",)
    assert spec.sagemaker.kms_key == "alias/k"
    assert dict(spec.sagemaker.tags) == {"a": "1", "b": "2"}
    assert spec.framework_version == "1.4-2"
    own = JobRunner(settings).spec(path, sagemaker={"subnets": ["subnet-2"], "security_groups": ["sg-2"]})
    assert (own.sagemaker.subnets, own.sagemaker.security_groups) == (("subnet-2",), ("sg-2",))
    with pytest.raises(ConfigError, match="'spott' is no option of SageMaker; did you mean 'spot'"):
        runner.run(path, sagemaker={"spott": True})


def test_a_check_says_what_would_go_wrong_in_the_image(runner: JobRunner, script: Script) -> None:
    report = runner.check(runner.spec(script("import xgboost\n")))
    assert "xgboost" in str(report)
    assert runner.check(runner.spec(script("import sklearn\n"))).ok


def test_a_secret_of_the_environment_stays_here(tmp_path: Path, script: Script) -> None:
    path, variables = script(SAVE_MODEL), {"DB_PASSWORD": "hunter2"}
    JobRunner(Settings(root=str(tmp_path))).run(path, environment=variables)
    remote = JobRunner(Settings(backend="sagemaker", root="s3://a-bucket"))
    with pytest.raises(ConfigError, match="environment variable 'DB_PASSWORD' looks like a secret") as caught:
        remote.spec(path, environment=variables)
    assert "hunter2" not in str(caught.value)
    index = Settings(backend="sagemaker", root="s3://a-bucket", pip_index_url="https://me:hunter2@index.example.com")
    with pytest.raises(ConfigError, match="'PIP_INDEX_URL' looks like a URL with a password") as caught:
        JobRunner(index).spec(path)
    assert "hunter2" not in str(caught.value)


def test_output_that_stdout_cannot_show(runner: JobRunner, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    runner.run(script(SAVE_MODEL + "import sys\nsys.stdout.buffer.write('é '.encode() + b'\\xff')\n"))
    assert shown.getvalue().splitlines()[-1] == b"? ?"
