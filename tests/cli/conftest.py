"""A store with models that a hostile publisher had a hand in, jobs on both backends, and a way to call commands."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from typer.testing import CliRunner

import smkit
from smkit.cli.app import app
from smkit.testing import Sandbox, sandbox
from tests.artifacts.helpers import fitted
from tests.jobs.backends import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Clears the screen, turns the text red, reverses the direction of writing, ends the line.
HOSTILE = "note \x1b[2J\x1b[31m\u202e\r\x07 模型"


TRAIN = """
import json, os, sys, time
print("arguments", json.dumps(sys.argv[1:]))
print("channels", os.environ["SM_CHANNELS"])
print("variable", os.environ.get("GREETING"), flush=True)
print("smkit metric test:rmse=0.25")
if "--fail" in sys.argv:
    raise ValueError("boom")
while "--forever" in sys.argv:
    print("tick", flush=True)
    time.sleep(0.1)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w") as file:
    file.write("m")
"""


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Calls commands in this process."""

    def __call__(self, *words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, result.output + repr(result.exception)
        for char in "\x1b\u202e\r\x07":
            assert char not in result.output
        return Result(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def cli(models: smkit.ArtifactStore) -> Cli:
    return Cli()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> smkit.ArtifactStore:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "root"))
    store = smkit.ArtifactStore()
    store.publish("houses", fitted(1.0), metrics={"test:rmse": 0.5}, notes=HOSTILE, labels={"team\x1b[1m": HOSTILE})
    store.publish("houses", fitted(2.0), metrics={"test:rmse": 0.4}, notes="better")
    store.publish("flats", fitted(3.0))
    store.promote("houses@1", "production", why=HOSTILE)
    return store


@pytest.fixture(scope="session")
def cli_sandbox() -> Iterator[Sandbox]:
    with sandbox(set_environment=False, stop_grace=0.3) as running:
        yield running


@pytest.fixture(params=["local", "sagemaker"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the settings at one of the backends, with a store of the test's own."""
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "root"))
    if request.param == "sagemaker":
        use_sandbox(request.getfixturevalue("cli_sandbox"), monkeypatch)
    return str(request.param)


def use_sandbox(running: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from smkit.jobs.sagemaker.backend import SageMakerBackend

    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SMKIT_ROOT", f"s3://{running.bucket}/{uuid.uuid4().hex}")
    monkeypatch.setenv("SMKIT_REGION", running.region)
    monkeypatch.setenv("SMKIT_ROLE", running.role)
    monkeypatch.setenv("SMKIT_BACKEND", "sagemaker")
    # The sandbox is quicker than AWS.
    monkeypatch.setattr(SageMakerBackend, "watching", QUICK)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A script that says what it was given, and fails, or goes on until it is stopped, where it is told to."""
    path = tmp_path / "train.py"
    path.write_text(TRAIN, encoding="utf-8")
    return path
