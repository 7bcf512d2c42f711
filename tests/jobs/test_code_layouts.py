"""Code in more than one file, run as jobs: packages, dependencies, a project with setup.py, shell scripts."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import uuid
from typing import TYPE_CHECKING

import pytest

from smkit.config import Settings
from smkit.jobs import JobRunner
from smkit.jobs.sagemaker.backend import SageMakerBackend
from smkit.jobs.staging import stage
from smkit.storage import open_store
from smkit.testing import sandbox
from tests.jobs.backends import QUICK, SAVE_MODEL, Jobs, script_lines
from tests.jobs.checking import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from smkit.testing import Sandbox

ALIEN = "import rules, house.rooms\nprint(rules.RULE, house.rooms.count())\n"


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    return JobRunner(Settings(root=str(tmp_path / "store")))


@pytest.fixture
def shared(tmp_path: Path) -> list[Path]:
    """A package and a module that lie outside the script's folder, as those that a team shares do."""
    (tmp_path / "shared/house/data").mkdir(parents=True)
    (tmp_path / "shared/house/__init__.py").write_text("from .rooms import count\n")
    (tmp_path / "shared/house/rooms.py").write_text(
        "from pathlib import Path\n\nfrom . import walls\n\n"
        "def count():\n    return walls.WALLS + len(Path(__file__).with_name('data').joinpath('a.csv').read_text())\n"
    )
    (tmp_path / "shared/house/walls.py").write_text("WALLS = 4\n")
    (tmp_path / "shared/house/data/a.csv").write_text("12")
    (tmp_path / "shared/house/data/huge.csv").write_text("1" * 1000)
    (tmp_path / "shared/house/.smkitignore").write_text("huge.csv\n")
    (tmp_path / "shared/rules.py").write_text("RULE = 'none'\n")
    return [tmp_path / "shared/house", tmp_path / "shared/rules.py"]


def test_a_package_with_relative_imports(runner: JobRunner, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("train.py", SAVE_MODEL + "from model.fit import run\nrun()\n")
    project.write("model/__init__.py")
    project.write("model/fit.py", "from . import features\nfrom .inner.deep import up\n\ndef run():\n    print(up())\n")
    project.write("model/features.py", "N = 3\n")
    project.write("model/inner/__init__.py")
    project.write("model/inner/deep.py", "from ..features import N\n\ndef up():\n    return N + 1\n")
    job = runner.run("train.py", source_dir=project.folder)
    assert script_lines(job) == ["4"]


def test_an_entry_point_in_a_folder_finds_its_neighbours_and_the_root(runner: JobRunner, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("jobs/train.py", SAVE_MODEL + "import beside, above\nprint(beside.WHERE, above.WHERE, os.getcwd())\n")
    project.write("jobs/beside.py", "WHERE = 'jobs'\n")
    project.write("above.py", "WHERE = 'root'\n")
    job = runner.run("jobs/train.py", source_dir=project.folder)
    assert script_lines(job)[-1].startswith("jobs root /")
    assert script_lines(job)[-1].endswith("/ml/code")


@pytest.mark.parametrize("alone", [True, False])
def test_dependencies_can_be_imported(runner: JobRunner, tmp_path: Path, shared: list[Path], alone: bool) -> None:
    project = Project(tmp_path).write("train.py", SAVE_MODEL + ALIEN)
    entry_point = str(project.folder / "train.py") if alone else "train.py"
    spec = runner.spec(entry_point, source_dir=None if alone else project.folder, dependencies=shared)
    assert runner.check(spec).ok
    job = runner.run(spec)
    assert script_lines(job) == ["none 6"]
    code = job.lineage()["code"]
    assert code["dependencies"] == [str(path) for path in shared]
    assert code["digest"] == f"sha256:{stage(spec).digest}"
    archive = tmp_path / "store/jobs" / job.name / "source/sourcedir.tar.gz"
    with tarfile.open(archive) as tar:
        assert {name for name in tar.getnames() if not name.startswith("smkit/")} == {
            "train.py", "rules.py", "house/__init__.py", "house/rooms.py", "house/walls.py", "house/data/a.csv",
        }  # fmt: skip


def test_a_check_follows_imports_into_dependencies(runner: JobRunner, tmp_path: Path, shared: list[Path]) -> None:
    project = Project(tmp_path).write("train.py", SAVE_MODEL + ALIEN)
    (tmp_path / "shared/rules.py").write_text("import module_that_nobody_has\n")
    spec = runner.spec(project.folder / "train.py", dependencies=shared)
    assert [item.subject for item in runner.check(spec).problems] == ["rules.py:1"]
    without = runner.check(runner.spec(project.folder / "train.py", dependencies=shared[:1]))
    assert [item.subject for item in without.problems] == ["train.py:3"]


def test_requirements_may_be_a_dependency(runner: JobRunner, tmp_path: Path) -> None:
    """At the root of the code, the toolkit installs it; here it asks for nothing."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/requirements.txt").write_text("# nothing\n")
    (tmp_path / "train.py").write_text(SAVE_MODEL + "print(os.path.isfile('requirements.txt'))\n")
    job = runner.run(str(tmp_path / "train.py"), dependencies=[tmp_path / "shared/requirements.txt"])
    assert script_lines(job)[-1] == "True"


def test_a_shell_script_runs_python_with_what_it_was_given(
    runner: JobRunner, tmp_path: Path, shared: list[Path]
) -> None:
    project = Project(tmp_path)
    project.write("train.py", SAVE_MODEL + ALIEN + "import sys\nprint(sys.argv[1:])\n")
    project.write("go.sh", f'#!/bin/sh\nset -e\n"{sys.executable}" train.py "$@"\n')
    given = {"text": "it's 2 > 1", "n": [1, 2]}
    job = runner.run("go.sh", source_dir=project.folder, dependencies=shared, hyperparameters=given)
    assert script_lines(job)[-2:] == ["none 6", repr(["-n", "[1, 2]", "--text", "it's 2 > 1"])]


@pytest.fixture(scope="module")
def aws() -> Iterator[Sandbox]:
    with sandbox(stop_grace=0.3) as running:
        yield running


def test_on_sagemaker_the_same_bytes_run(aws: Sandbox, tmp_path: Path, shared: list[Path], runner: JobRunner) -> None:
    settings = aws.settings(backend="sagemaker", project=f"p-{uuid.uuid4().hex}")
    jobs = Jobs(SageMakerBackend(settings, via="boto3", watching=QUICK), settings, tmp_path)
    there = jobs.run(SAVE_MODEL + ALIEN, f"layout-{uuid.uuid4().hex[:8]}", dependencies=shared)
    assert "none 6" in script_lines(there)
    archive = open_store(settings).get(f"jobs/{there.name}/source/sourcedir.tar.gz", max_bytes=1 << 20)
    here = runner.run(str(tmp_path / "train.py"), dependencies=shared)
    local = (tmp_path / "store/jobs" / here.name / "source/sourcedir.tar.gz").read_bytes()
    assert hashlib.sha256(archive).hexdigest() == hashlib.sha256(local).hexdigest()
    assert there.lineage()["code"] == here.lineage()["code"]
    assert json.dumps(there.lineage()["code"]["dependencies"]) == json.dumps([str(path) for path in shared])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "house/data/huge.csv" not in tar.getnames()
