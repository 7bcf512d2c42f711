"""The files of a new project as text: that they are valid, clean and agree with smkit."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

import smkit
from smkit.cli.app import app
from smkit.infra.settings_file import SettingsFile
from smkit.jobs.staging import stage
from smkit.project import SOURCES, create
from smkit.project.rendering import render, requirement

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RENDERED = {source: render(project="prices", region="cn-north-1", source=source) for source in SOURCES}
#: Each file once; those of `dataset.py` differ by the source.
TEXTS = sorted({(path, content.decode()) for files in RENDERED.values() for path, content in files.items()})


def text(path: str) -> str:
    return RENDERED["files"][path].decode()


def test_a_project_has_the_same_files_whatever_the_source() -> None:
    assert {tuple(files) for files in RENDERED.values()} == {tuple(sorted(RENDERED["files"]))}
    differ = {path for path in RENDERED["files"] if len({files[path] for files in RENDERED.values()}) > 1}
    assert differ == {"dataset.py"}


@pytest.mark.parametrize(("path", "content"), TEXTS)
def test_a_file_is_tidy(path: str, content: str) -> None:
    assert content.endswith("\n")
    assert not content.endswith("\n\n")
    assert "${" not in content
    assert [line for line in content.splitlines() if line != line.rstrip() or "\t" in line] == []


@pytest.mark.parametrize(("path", "content"), [(path, text) for path, text in TEXTS if path.endswith(".py")])
def test_python_is_valid_and_typed(path: str, content: str) -> None:
    tree = ast.parse(content, feature_version=(3, 10))
    # What black and ruff allow, unless told otherwise.
    assert [line for line in content.splitlines() if len(line) > 88] == []
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            untyped = [name.arg for name in node.args.args if name.annotation is None and name.arg != "self"]
            assert (node.returns is not None, untyped) == (True, []), node.name


def test_the_script_is_valid_in_the_oldest_image() -> None:
    ast.parse(text("train.py"), feature_version=(3, 7))


@pytest.mark.parametrize("source", SOURCES)
def test_sources_differ_in_where_the_rows_come_from_alone(source: str) -> None:
    def shared(content: str) -> list[str]:
        statements = [ast.unparse(node) for node in ast.parse(content).body]
        return [found for found in statements if found.startswith(("SCHEMA = ", "def builder("))]

    assert len(shared(text("dataset.py"))) == 2
    assert shared(RENDERED[source]["dataset.py"].decode()) == shared(text("dataset.py"))


def test_the_settings_are_those_that_were_asked_for() -> None:
    assert tomllib.loads(text("smkit.toml")) == {"region": "cn-north-1", "project": "prices"}


def test_every_setting_that_is_suggested_exists(tmp_path: Path) -> None:
    suggested = re.sub(r"^# (?=\[|\w+ = )", "", text("smkit.toml"), flags=re.MULTILINE)
    assert len(tomllib.loads(suggested)) == 9
    (tmp_path / "smkit.toml").write_text(suggested)
    settings = smkit.Settings()
    assert (settings.backend, settings.local_environment) == ("sagemaker", "1.2-1")
    assert settings.postgres.database == "houses"


def test_deploying_brings_its_settings_into_the_file(tmp_path: Path) -> None:
    create(tmp_path)
    wanted = {"region": "cn-northwest-1", "bucket": "prices-1", "role": "prices-training"}
    SettingsFile.plan(smkit.Settings(), wanted).write()
    settings = smkit.Settings()
    assert (settings.bucket, settings.role, settings.project) == ("prices-1", "prices-training", settings.project)
    assert create(tmp_path).kept == ("smkit.toml",)


def test_the_packages_are_those_of_a_distribution() -> None:
    found: dict[str, Any] = tomllib.loads(text("pyproject.toml"))
    assert found["project"]["name"] == "prices-training"
    assert found["project"]["dependencies"] == [requirement(smkit.__version__)]
    assert "tool" in found, "and no [tool.smkit], whose settings smkit.toml has"
    assert "smkit" not in found["tool"]


@pytest.mark.parametrize(
    ("version", "compatible", "incompatible"),
    [
        ("0.1.0", ["0.1.0", "0.1.9"], ["0.0.9", "0.2.0", "1.0.0"]),
        ("0.9.2.dev0", ["0.9.2.dev0", "0.9.2"], ["0.9.1", "0.10.0"]),
        ("1.4.2", ["1.4.2", "1.5.0"], ["1.4.1", "2.0.0"]),
        ("2.0.0rc1", ["2.0.0rc1", "2.1.0"], ["1.9.0", "3.0.0"]),
    ],
)
def test_the_requirement_takes_what_is_compatible(version: str, compatible: list[str], incompatible: list[str]) -> None:
    allowed = SpecifierSet(requirement(version).removeprefix("smkit"))
    assert [one for one in [*compatible, *incompatible] if allowed.contains(one, prereleases=True)] == compatible


def test_what_is_secret_or_of_one_machine_stays_out_of_git() -> None:
    lines = text(".gitignore").splitlines()
    assert {".smkit/", ".env", ".venv/", "__pycache__/"} <= set(lines)


def test_a_job_that_takes_the_folder_along_takes_little(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / "features.py").write_text("")
    code = stage(smkit.JobRunner().spec("train.py", source_dir=tmp_path))
    travelling = {path for path in code.files if not path.startswith("smkit/")}
    assert travelling == {"train.py", "features.py", ".gitignore"}


def commands() -> list[str]:
    """The commands of smkit that the files name: lines of the README, and words in backquotes."""
    lines = [line.partition("  #")[0].strip() for line in text("README.md").splitlines() if line.startswith("smkit ")]
    quoted = [found for _, content in TEXTS for found in re.findall(r"`(smkit [^`\n]+)`", content)]
    assert len(lines) > 5
    return sorted({*lines, *quoted})


@pytest.mark.parametrize("command", commands())
def test_the_commands_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    names = [word for word in words if not word.startswith("-")]
    options = [word for word in words if word.startswith("-")]
    for path in (names[:2], names[:1]):
        result = CliRunner().invoke(app, [*path, "--help"])
        if result.exit_code == 0:
            break
    root = CliRunner().invoke(app, ["--help"]).output
    assert result.exit_code == 0, result.output
    assert [option for option in options if option not in result.output + root] == []


def test_the_notebook_is_stored_clean() -> None:
    notebook = nbformat.reads(text("notebook.ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) + "\n" == text("notebook.ipynb")
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        assert cell.source == cell.source.strip() != "", cell.id
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id
