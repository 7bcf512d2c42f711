"""A store with models that a hostile publisher had a hand in, and a way to call the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from typer.testing import CliRunner

import smkit
from smkit.cli.app import app
from tests.artifacts.helpers import fitted

if TYPE_CHECKING:
    from pathlib import Path

#: Clears the screen, turns the text red, reverses the direction of writing, ends the line.
HOSTILE = "note \x1b[2J\x1b[31m\u202e\r\x07 模型"


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
