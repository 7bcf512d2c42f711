"""Jobs in the Python and packages of an image, and what `requirements.txt` and `setup.py` change of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from smkit.config import Settings
from smkit.errors import ConfigError, DuplicateJobError, ParityEnvironmentError, TrainingFailed
from smkit.jobs import JobRunner, local, local_request
from smkit.jobs.containers import ContainerImage, image
from smkit.jobs.environments import ensure_built
from smkit.jobs.environments.bytecode import is_compiled
from smkit.jobs.environments.locking import out_of_use
from smkit.jobs.launching import why_no_private_mount
from smkit.jobs.layers import Layer, this_interpreter
from smkit.jobs.local import LocalBackend
from tests.jobs.backends import script_lines
from tests.jobs.conftest import SAVE_MODEL
from tests.parity import parity_environment

if TYPE_CHECKING:
    from smkit.jobs.environments import Environment
    from tests.jobs.conftest import Script

WHO = """
import json, os, platform, subprocess, sys
import numpy
print(json.dumps({"python": platform.python_version(), "numpy": numpy.__version__, "prefix": sys.prefix,
                  "on path": subprocess.check_output(["python", "--version"]).decode().split()[1],
                  "variables": dict(os.environ)}))
"""


def built(name: str, monkeypatch: pytest.MonkeyPatch) -> Environment:
    environment = parity_environment(name)
    # <cache>/smkit/environments/<folder>
    monkeypatch.setenv("XDG_CACHE_HOME", str(environment.folder.parents[2]))
    return environment


def runner_in(name: str, tmp_path: Path, **settings: Any) -> JobRunner:
    return JobRunner(Settings(root=str(tmp_path / "store"), **settings), environment=name)


@pytest.mark.parametrize("name", ["1.2-1", "0.23-1"])
def test_a_job_runs_in_the_images_python(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    environment = built(name, monkeypatch)
    monkeypatch.setenv("VIRTUAL_ENV", "/of/this/python")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    runner = runner_in(name, tmp_path)
    job = runner.run(script(SAVE_MODEL + WHO), environment={"PYTHONHASHSEED": "7"})
    wanted = image(name)
    (line,) = job.logs()
    found = json.loads(line)
    assert found["python"].startswith(f"{wanted.python[0]}.{wanted.python[1]}.")
    assert found["on path"] == found["python"]
    assert found["numpy"] == wanted.packages["numpy"]
    # What the script changes of it is thrown away.
    assert found["prefix"] == str(tmp_path / "store/jobs" / job.name / "environment")
    assert not Path(found["prefix"]).exists()
    assert {"VIRTUAL_ENV", "PYTHONOPTIMIZE"}.isdisjoint(found["variables"])
    assert found["variables"]["PYTHONHASHSEED"] == "7"
    lineage = job.lineage()
    assert lineage["framework_version"] == name
    assert lineage["environment"]["name"] == name
    assert lineage["environment"]["digest"] == f"sha256:{environment.digest}"
    assert lineage["environment"]["python"] == found["python"]
    assert lineage["environment"]["packages"]["scikit-learn"] == wanted.packages["scikit-learn"]
    assert json.loads(json.dumps(lineage)) == lineage
    assert environment.is_built


CHANGE = """
import stat, numpy
status = os.stat(numpy.__file__)
for change in (
    lambda: os.chmod(numpy.__file__, stat.S_IMODE(status.st_mode) | 0o200),
    lambda: open(numpy.__file__, "a"),
    lambda: os.unlink(numpy.__file__),
):
    try:
        change()
        print("changed")
    except OSError as error:
        print(error.strerror)
"""


@pytest.mark.parametrize("name", ["1.2-1", "0.23-1"])
def test_a_job_cannot_change_what_others_share(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    environment = built(name, monkeypatch)
    if reason := why_no_private_mount(tmp_path, "/opt/ml"):
        pytest.skip(f"no mounts of one's own here: {reason}")
    job = runner_in(name, tmp_path).run(script(SAVE_MODEL + CHANGE))
    assert list(job.logs()) == ["Read-only file system"] * 3
    assert environment.changes == ()
    ensure_built(environment, compiled=True)
    assert is_compiled(environment.folder)


def test_nobody_removes_an_environment_under_a_running_job(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = built("1.2-1", monkeypatch)
    code = SAVE_MODEL + "import time\nprint('up', flush=True)\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n"
    job = runner_in("1.2-1", tmp_path).submit(script(code))
    assert "up" in job.logs(follow=True)
    with out_of_use(environment.folder) as unused:
        assert not unused
    (tmp_path / "store/jobs" / job.name / "ml/code/go").touch()
    assert job.wait(logs=False).status == "Completed"


def test_the_settings_name_the_environment_and_the_runner_overrules(tmp_path: Path, script: Script) -> None:
    settings = Settings(root=str(tmp_path), local_environment="0.23-1", framework_version="1.4-2")
    path = script("pass")
    assert JobRunner(settings).environment == "0.23-1"
    assert JobRunner(settings).spec(path).framework_version == "0.23-1"
    assert JobRunner(settings, "1.2-1[toolkits]").spec(path).framework_version == "1.2-1"
    assert JobRunner(settings, "host").spec(path).framework_version == "1.4-2"
    assert repr(JobRunner(environment="1.2-1")) == "JobRunner(environment='1.2-1')"
    remote = Settings(root="s3://a-bucket", backend="sagemaker", local_environment="0.23-1", framework_version="1.4-2")
    assert JobRunner(remote).spec(path).framework_version == "1.4-2"


def test_a_job_is_of_the_image_that_it_runs_in(tmp_path: Path, script: Script) -> None:
    runner = runner_in("1.2-1", tmp_path)
    wrong = r"framework_version '1\.4-2', and would run in the environment '1\.2-1', which is that of another image"
    with pytest.raises(ConfigError, match=wrong):
        runner.run(script("pass"), framework_version="1.4-2")
    spec = runner_in("host", tmp_path).spec(script("pass"), framework_version="1.4-2")
    with pytest.raises(ConfigError, match=wrong):
        runner.run(spec)
    assert runner.spec(script("pass"), framework_version="1.2-1").framework_version == "1.2-1"
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("1.2-2", "1.2-1"),
        ("", "environment"),
        (
            {"A": "b"},
            r"environment is a dict: .*; variables for the script go to run: JobRunner\(\)\.run\(",
        ),
        (Path("venv"), "environment is a PosixPath: expected 'host' or the name of an image"),
    ],
)
def test_an_environment_that_is_none(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobRunner(environment=wrong)


def test_sagemaker_runs_jobs_in_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "environment='1.2-1' says what runs the jobs of this machine, and the settings have backend='sagemaker'"
    with pytest.raises(ConfigError, match=wrong):
        JobRunner(Settings(backend="sagemaker", root="s3://a-bucket"), environment="1.2-1")
    later = JobRunner(environment="1.2-1")
    monkeypatch.setenv("SMKIT_BACKEND", "sagemaker")
    monkeypatch.setenv("SMKIT_ROOT", "s3://a-bucket")
    with pytest.raises(ConfigError, match=wrong):
        later.jobs()


def test_a_missing_python_is_told_before_anything_is_written(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 3.8, which is not the Python of these tests.
    for name in ("HOME", "PYENV_ROOT", "XDG_CACHE_HOME", "XDG_DATA_HOME", "PATH"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    with pytest.raises(ParityEnvironmentError, match=r"Python 3\.8 is not on this machine.*Install it: "):
        runner_in("1.0-1", tmp_path).submit(script("pass"))
    assert not (tmp_path / "store").exists()


def test_an_environment_that_cannot_be_built_leaves_the_name_free(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(environment: Environment, *, index_url: str | None) -> Environment:
        asked.append((str(environment.name), index_url))
        raise ParityEnvironmentError("no network")

    environment = built("1.2-1", monkeypatch)
    monkeypatch.setattr(local, "ensure_built", fail)
    runner = runner_in("1.2-1", tmp_path, pip_index_url="https://mirror.example.cn/simple")
    with pytest.raises(ParityEnvironmentError, match="no network"):
        runner.submit(script("pass"), job_name="a")
    assert asked == [(str(environment.name), "https://mirror.example.cn/simple")]
    assert runner.jobs() == []
    assert not (tmp_path / "store").exists()
    # Nor is anything built for a name that is taken.
    runner_in("host", tmp_path).run(script(SAVE_MODEL), job_name="a")
    with pytest.raises(DuplicateJobError):
        runner.submit(script("pass"), job_name="a")
    assert len(asked) == 1


# --- this Python ------------------------------------------------------------------------------------------------


def test_another_python_than_the_images_is_said_in_one_line(runner: JobRunner, script: Script) -> None:
    job = runner.run(script(SAVE_MODEL), framework_version="0.23-1", metric_definitions={"number": r"([0-9]+\.[0-9]+)"})
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (line,) = job.logs()
    assert line == (
        f"smkit: this job runs under Python {python} and scikit-learn {metadata.version('scikit-learn')}; the image "
        '0.23-1 has Python 3.7 and scikit-learn 0.23.2: to run under these, JobRunner(environment="0.23-1") '
        "or smkit run --environment 0.23-1"
    )
    assert job.metrics == {}
    assert job.lineage()["environment"]["python"].startswith(python)


def test_the_line_is_only_there_where_something_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_request.host_notice("1.3-1") == ""
    alike = ContainerImage("1.2-1", sys.version_info[:2], {"scikit-learn": metadata.version("scikit-learn")}, "")
    monkeypatch.setattr(local_request, "image", lambda _: alike)
    assert local_request.host_notice("1.2-1") == ""
    other = ContainerImage("1.2-1", sys.version_info[:2], {"scikit-learn": "0.1"}, "")
    monkeypatch.setattr(local_request, "image", lambda _: other)
    assert "scikit-learn 0.1" in local_request.host_notice("1.2-1")


# --- what is installed ------------------------------------------------------------------------------------------


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> str:
    """Write a wheel by hand, so that pip needs neither a network nor a build backend; return its name."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file.replace("INFO", info), text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.name


USE = """
import json, subprocess, sys
import joblib, numpy, space.tiny, tinypkg
print(json.dumps({
    "joblib": [joblib.__version__, joblib.__file__], "numpy": numpy.__file__, "tiny": tinypkg.VALUE,
    "by .pth": "/added/by/pth" in sys.path, "tool": subprocess.check_output(["tiny-tool"]).decode().split(),
    "prefix": sys.prefix,
}))
"""


@pytest.mark.parametrize("name", ["host", "1.2-1", "0.23-1"])
def test_requirements_are_installed_as_in_the_image_and_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    environment = None if name == "host" else built(name, monkeypatch)
    source = tmp_path / "src"
    source.mkdir()
    files = {
        "tinypkg.py": "VALUE = 42\ndef main():\n    import joblib\n    print('tool', joblib.__version__)\n",
        "space/tiny.py": "",
        "tiny.pth": "/added/by/pth\nimport sys; sys.path.append('/added/by/pth')\n",
        "INFO/entry_points.txt": "[console_scripts]\ntiny-tool = tinypkg:main\n",
    }
    wheels = [
        wheel(source, "tinypkg", "1.5", files),
        wheel(source, "joblib", "99.0", {"joblib/__init__.py": "__version__ = '99.0'\n"}),
    ]
    # By the container's path, and what is there already.
    (source / "requirements.txt").write_text(f"./{wheels[0]}\n/opt/ml/code/{wheels[1]}\nnumpy\nscikit-learn>=0.1\n")
    (source / "train.py").write_text(SAVE_MODEL + USE)
    before = metadata.version("joblib")
    job = runner_in(name, tmp_path).run("train.py", source_dir=source, environment={"PIP_NO_INDEX": "1"})
    lines = script_lines(job)
    found = json.loads(lines[-1])
    layer = tmp_path / "store/jobs" / job.name / "environment"
    assert found["prefix"] == str(layer)
    assert found["joblib"][0] == "99.0"
    assert Path(found["joblib"][1]).is_relative_to(layer)
    assert not Path(found["numpy"]).is_relative_to(layer)
    assert (found["tiny"], found["by .pth"], found["tool"]) == (42, True, ["tool", "99.0"])
    assert sum(line.startswith("Requirement already satisfied: numpy") for line in lines) >= 1
    packages = job.lineage()["environment"]["packages"]
    assert (packages["tinypkg"], packages["joblib"]) == ("1.5", "99.0")
    assert packages["scikit-learn"] == (
        metadata.version("scikit-learn") if environment is None else image(name).packages["scikit-learn"]
    )
    assert not layer.exists()
    if environment is None:
        assert metadata.version("joblib") == before
        with pytest.raises(metadata.PackageNotFoundError):
            metadata.version("tinypkg")
    else:
        assert environment.is_built
        assert environment.built.packages["joblib"] == image(name).packages["joblib"]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["1.2-1", "0.23-1"])
def test_a_project_with_setup_py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment = built(name, monkeypatch)
    source = tmp_path / "src"
    (source / "houses").mkdir(parents=True)
    (source / "houses/__init__.py").write_text("")
    (source / "houses/prices.py").write_text("PRICE = 3\n")
    setup = (
        "from setuptools import setup\nsetup(name='houses', version='2.0', packages=['houses'], py_modules=['train'])\n"
    )
    (source / "setup.py").write_text(setup)
    (source / "requirements.txt").write_text(f"./{wheel(source, 'tinypkg', '1.5', {'tinypkg.py': 'VALUE = 42'})}\n")
    code = "import sys, tinypkg, houses.prices\nprint(tinypkg.VALUE, houses.prices.PRICE, __name__, sys.argv[1:])\n"
    (source / "train.py").write_text(SAVE_MODEL + code)
    # setuptools is the environment's: nothing is fetched.
    variables = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    job = runner_in(name, tmp_path).run("train.py", source_dir=source, environment=variables, hyperparameters={"a": 1})
    assert script_lines(job)[-1] == "42 3 __main__ ['-a', '1']"
    packages = job.lineage()["environment"]["packages"]
    assert (packages["houses"], packages["tinypkg"]) == ("2.0", "1.5")
    assert environment.is_built


def test_python_in_a_shell_script_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = built("1.2-1", monkeypatch)
    source = tmp_path / "src"
    source.mkdir()
    name = wheel(source, "tinypkg", "1.5", {"tinypkg.py": "VALUE = 42"})
    (source / "go.sh").write_text(
        "set -e\npython --version\npython3.9 -c 'import numpy; print(numpy.__version__)'\n"
        # What a script installs by itself must not stay.
        f"pip install --quiet --no-index ./{name}\npython -c 'import tinypkg; print(tinypkg.VALUE)'\n"
        'echo "$@"; touch "$SM_MODEL_DIR/m"; ls /opt/ml\n'
    )
    job = runner_in("1.2-1", tmp_path).run("go.sh", source_dir=source, hyperparameters={"alpha": "it's"})
    lines = list(job.logs())
    version = job.lineage()["environment"]["python"]
    assert lines == [f"Python {version}", "1.24.1", "42", "--alpha it's", "code", "input", "model", "output"]
    assert environment.is_built


def test_python_in_a_shell_script_is_this_one_under_host(
    runner: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/go.sh").write_text(
        'touch "$SM_MODEL_DIR/m"; python -c "import sys, smkit, numpy; print(sys.version)"'
    )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    job = runner.run("go.sh", source_dir=tmp_path / "src")
    assert sys.version.splitlines()[0] in script_lines(job)[0]


def test_a_project_that_pip_cannot_install(runner: JobRunner, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('broken')\n")
    (source / "train.py").write_text("print('must not run')\n")
    with pytest.raises(TrainingFailed, match=r"InstallModuleError: pip could not install .* \(exit code 1\)") as caught:
        runner.run("train.py", source_dir=source, environment={"PIP_NO_INDEX": "1"})
    assert caught.value.exit_code == 1
    job = runner.attach(caught.value.job_name)
    log = list(job.logs())
    # pip 23 says `error: metadata-generation-failed`, a later one `ERROR: Failed to build ...`.
    assert any(line.startswith(("ERROR: ", "error: ")) for line in log)
    assert "must not run" not in log
    assert "python -m pip install ." in job.describe()["reason"]


def test_a_layer_over_this_python(tmp_path: Path) -> None:
    layer = Layer(tmp_path / "żółć ☕" / "layer", this_interpreter())
    layer.make()
    code = "import sys, smkit, numpy; print([sys.prefix, sys.base_prefix, numpy.__version__])"
    found = subprocess.check_output([str(layer.python), "-c", code], env={"LC_ALL": "C", "PYTHONUTF8": "1"}, text=True)
    assert found.strip() == str([str(layer.folder), sys.base_prefix, np.__version__])
    assert layer.search_path[0] == os.fspath(layer.folder / "bin")


def test_names_of_packages_are_compared_as_pip_compares_them() -> None:
    from smkit.jobs.supervisor import with_packages

    known = {"scikit-learn": "1.2", "ruamel.yaml": "1", "numpy": "1"}
    assert with_packages(known, {"Scikit_Learn": "2", "ruamel-yaml": "3"}) == {
        "numpy": "1", "Scikit_Learn": "2", "ruamel-yaml": "3",
    }  # fmt: skip


def test_a_backend_names_its_environment_and_does_nothing_yet(tmp_path: Path, script: Script) -> None:
    with pytest.raises(ConfigError, match=r"1\.2-1"):
        LocalBackend(tmp_path / "jobs", "1.2-1[toolkit]")
    request = LocalBackend(tmp_path / "jobs", "host").prepare(runner_in("host", tmp_path).spec(script("pass")))
    assert (request.environment, request.layer) == (None, None)
    assert not (tmp_path / "jobs").exists()
