"""`smkit init`: what it writes where, what it says, and its exit codes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import smkit
from smkit.cli.app import app
from smkit.project import create
from tests.cli.conftest import Result

if TYPE_CHECKING:
    from pathlib import Path


def init(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["init", *words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return Result(result.exit_code, result.stdout, result.stderr)


def test_it_names_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    result = init("my houses")
    assert result.out.splitlines() == sorted(
        str(path.relative_to(tmp_path / "my houses")) for path in (tmp_path / "my houses").rglob("*") if path.is_file()
    )
    assert result.err.splitlines() == [
        f"smkit: the project 'my-houses' of region cn-northwest-1 is in {tmp_path}/my houses",
        "smkit: next: cd 'my houses' && smkit run",
    ]


def test_it_takes_the_working_folder(tmp_path: Path) -> None:
    assert init().err.endswith("\nsmkit: next: smkit run\n")
    assert (tmp_path / "train.py").is_file()


def test_json_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    result = init("--json", "--name", "prices")
    facts = result.json
    assert list(facts) == ["folder", "name", "region", "written", "unchanged", "kept"]
    assert (facts["folder"], facts["name"], facts["unchanged"], facts["kept"]) == (
        str(tmp_path),
        "prices",
        [],
        ["README.md"],
    )
    assert "train.py" in facts["written"]


def test_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    written = init("--json").json["written"]
    result = init()
    assert (result.out, result.err) == ("", f"smkit: nothing to do: {tmp_path} has every file of a project\n")
    again = json.loads(init("--json").out)
    assert (again["written"], again["unchanged"]) == ([], written)


@pytest.mark.parametrize("words", [("--region", "eu-central-1", "init"), ("init", "--region", "eu-central-1")])
def test_the_region_stands_before_or_behind_the_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--source", "s3"])
    assert result.exit_code == 0, result.output
    assert smkit.Settings().region == "eu-central-1"
    assert "S3Source" in (tmp_path / "dataset.py").read_text()


def test_what_is_the_users_own_is_kept_and_named(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    (tmp_path / "README.md").write_text("mine")
    assert init().err.splitlines()[:2] == [
        "smkit: left as they are: .gitignore, README.md",
        "smkit: .smkit/ and .env should stand in .gitignore",
    ]
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--name", "My Houses"), 2, "'My Houses' is not a project name: 1 to 63 lower-case letters, digits"),
        (("--source", "file"), 2, "there is no source 'file'; did you mean 'files'?; sources are files, s3, postgres"),
        (("--region", "ningxia"), 2, "region 'ningxia' is not allowed"),
        (("notes.txt",), 1, "notes.txt is not a folder"),
        (("taken",), 1, "has train.py already, with another content; nothing was written"),
    ],
)
def test_an_error_is_one_message_and_writes_nothing(
    tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "train.py").touch()
    before = sorted(tmp_path.rglob("*"))
    result = init(*words, code=code)
    assert result.out == ""
    assert result.err.startswith("smkit: error: ")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_repository_of_git_is_left_alone(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", "."], check=True)
    before = {path: path.read_bytes() for path in (tmp_path / ".git").rglob("*") if path.is_file()}
    init()
    assert {path: path.read_bytes() for path in (tmp_path / ".git").rglob("*") if path.is_file()} == before
    untracked = subprocess.run(["git", "status", "--porcelain"], check=True, capture_output=True, text=True)
    assert [line for line in untracked.stdout.splitlines() if not line.startswith("?? ")] == []


def test_a_folder_s_control_characters_do_not_reach_the_terminal() -> None:
    result = init("a\x1b[2Jb")
    assert "\x1b" not in result.out + result.err
    assert create("a\x1b[2Jb").name == "a-2jb"
