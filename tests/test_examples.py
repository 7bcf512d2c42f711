"""The examples run as they stand, each in a process of its own, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import smkit

if TYPE_CHECKING:
    from tests.postgres_server import PostgresServer

EXAMPLES = Path(__file__).parents[1] / "examples"


#: The image has another scikit-learn than this machine, which the check of a job says, and loading its model.
OTHER_VERSIONS = ("-W", "default:job 'train:UserWarning", "-W", "default:blog@1 was trained with:UserWarning")


def run(*arguments: str, folder: Path, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_quickstart_goes_the_whole_path_twice(tmp_path: Path) -> None:
    for _ in range(2):
        done = run(str(EXAMPLES / "quickstart.py"), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert re.search(r"^dataset      diabetes@1: 353 train, 89 test rows$", done.stdout, re.MULTILINE)
        assert re.search(r"^smkit metric test:rmse=5\d\.\d+$", done.stdout, re.MULTILINE)
        # The second run trains again, and finds that dataset and model are there already.
        assert re.search(r"^model        diabetes@1: test rmse 5\d\.\d\d, r2 0\.4\d+$", done.stdout, re.MULTILINE)
        assert re.search(r"^predictions  \d+ \(was \d+\), ", done.stdout, re.MULTILINE)
    settings = smkit.Settings(root=str(tmp_path / ".smkit"))
    version = smkit.ArtifactStore(settings).get("diabetes@production")
    version.verify()
    dataset = smkit.DatasetStore(settings).get("diabetes@1")
    dataset.verify()
    assert version.inputs["train"]["dataset"] == "diabetes@1"
    assert version.inputs["train"]["digest"] == dataset.digest
    assert version.hyperparameters == {"alpha": 0.5}
    assert version.code["digest"]
    assert [feature["name"] for feature in version.signature["features"]][:2] == ["age", "sex"]
    assert len(smkit.JobRunner(settings).jobs()) == 2


@pytest.mark.parametrize("sandbox", [False, True], ids=["here", "in the sandbox"])
@pytest.mark.parametrize("template", [False, True], ids=["plain script", "template"])
def test_the_blogs_flow(tmp_path: Path, template: bool, sandbox: bool) -> None:
    options = [*(["--template"] if template else []), *(["--sandbox"] if sandbox else [])]
    done = run(*OTHER_VERSIONS, str(EXAMPLES / "blog" / "run.py"), *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    fit = re.search(r"^blog@1: y = (\S+) X1 \+ (\S+) X2 \+ (\S+)$", done.stdout, re.MULTILINE)
    assert fit, done.stdout
    # y = X1 + X2 + noise
    assert [float(part) for part in fit.groups()] == pytest.approx([1, 1, 0], abs=0.05)
    name = "test:mse" if template else "mse"
    mse = re.search(rf"^  {name} = (\S+)$", done.stdout, re.MULTILINE)
    assert mse, done.stdout
    assert float(mse[1]) == pytest.approx(0.01, abs=0.003)  # the variance of the noise


def test_on_sagemaker_goes_the_whole_path_in_the_sandbox(tmp_path: Path) -> None:
    done = run(str(EXAMPLES / "on_sagemaker.py"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^dataset      s3://\S+$", done.stdout, re.MULTILINE)
    assert re.search(r"^job          train-\S+: Completed, billed for \d+ s$", done.stdout, re.MULTILINE)
    assert re.search(r"^model        diabetes@1: test rmse 5\d\.\d\d$", done.stdout, re.MULTILINE)
    assert re.search(r"^predictions  \d+, \d+, \d+$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == [], "all of it lies in the sandbox's bucket"


def test_postgres(tmp_path: Path, pg: PostgresServer) -> None:
    variables = {
        "SMKIT_POSTGRES__HOST": pg.host,
        "SMKIT_POSTGRES__PORT": str(pg.port),
        "SMKIT_POSTGRES__DATABASE": pg.database,
        "SMKIT_POSTGRES__USER": pg.user,
        "SMKIT_POSTGRES__PASSWORD": pg.password,
        "SMKIT_POSTGRES__SSLMODE": "disable",
    }
    done = run(str(EXAMPLES / "postgres.py"), folder=tmp_path, variables=variables)
    assert done.returncode == 0, done.stderr
    (name,) = smkit.DatasetStore(smkit.Settings(root=str(tmp_path / ".smkit"))).names()
    assert name in done.stdout
    assert pg.password not in done.stdout + done.stderr


def test_postgres_without_settings_says_what_to_set(tmp_path: Path) -> None:
    done = run(str(EXAMPLES / "postgres.py"), folder=tmp_path)
    assert done.returncode == 2
    assert "SMKIT_POSTGRES__HOST" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
