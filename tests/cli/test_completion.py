"""What the shell offers, through the protocol that the installed scripts speak, and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import smkit
from smkit.cli import completion
from smkit.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path


def request(line: str) -> dict[str, str]:
    """Return the variables by which an installed script asks for the last word of a line."""
    words = len(line.split(" "))
    return {"_SMKIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(words - 1)}


def complete(line: str) -> tuple[list[str], str]:
    """Return what is offered for the last word of a line, as zsh and fish would pass it, and what else is said."""
    result = CliRunner().invoke(app, [], prog_name="smkit", env=request(line))
    assert result.exit_code == 0
    return result.stdout.split(), result.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("smkit mod", ["models"]),
        ("smkit models pru", ["prune"]),
        ("smkit run --datas", ["--dataset", "--dataset-script"]),
        ("smkit jobs list --status F", ["Failed"]),
        ("smkit models show f", ["flats", "flats@latest", "flats@1"]),
        ("smkit models show houses@p", ["houses@production"]),
        ("smkit models history hou", ["houses"]),
        ("smkit models show nosuch", []),
    ],
)
def test_words_and_names_are_offered(models: smkit.ArtifactStore, line: str, offered: list[str]) -> None:
    assert models.names() == ["flats", "houses"]
    assert complete(line) == (offered, "")


def test_jobs_and_datasets_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Path) -> None:
    import pandas as pd

    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "root"))
    smkit.DatasetBuilder("rows", smkit.FrameSource(pd.DataFrame({"a": [1]}))).build(progress=False)
    smkit.JobRunner().run(str(train), job_name="job-a")
    assert complete("smkit jobs show job") == (["job-a"], "")
    assert complete("smkit run train.py -d ro")[0] == ["rows", "rows@latest", "rows@1"]
    # A root on the line counts.
    monkeypatch.delenv("SMKIT_ROOT")
    assert complete(f"smkit --root {tmp_path / 'root'} datasets show ro")[0] == ["rows", "rows@latest", "rows@1"]
    assert complete("smkit datasets show ro") == ([], "")


@pytest.mark.parametrize(
    "environment",
    [
        {"SMKIT_REGION": "nonsense"},
        {"SMKIT_BACKEND": "sagemaker"},
        {"SMKIT_ROOT": "s3://bucket/x", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x"},
    ],
)
def test_what_goes_wrong_is_silent(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(completion, "_SECONDS", 0.5)
    for line in ("smkit models show h", "smkit jobs show h"):
        assert complete(line) == ([], "")


def test_a_process_says_nothing_else(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "smkit"],
        env={**os.environ, **request("smkit models show h"), "SMKIT_REGION": "nonsense"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


def test_a_store_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    monkeypatch.setattr(completion, "_SECONDS", 0.1)
    monkeypatch.setattr(completion, "_jobs", lambda _: iter([time.sleep(2) or "late"]))
    command = typer.main.get_command(typer.Typer(callback=lambda: None))
    start = time.monotonic()
    assert completion.job_names(typer.Context(command), "") == []
    assert time.monotonic() - start < 1.9


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_the_shell_is_written(shell: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "smkit", "--show-completion", shell],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert result.returncode == 0
    assert "_SMKIT_COMPLETE=complete_" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.usefixtures("models")
def test_bash_completes(tmp_path: Path) -> None:
    command = tmp_path / "smkit"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m smkit "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    script = (
        'eval "$(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 smkit --show-completion bash)"\n'
        "COMP_WORDS=(smkit models show hou); COMP_CWORD=3\n"
        '_smkit_completion smkit\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.split() == ["houses", "houses@latest", "houses@production", "houses@2", "houses@1"]
