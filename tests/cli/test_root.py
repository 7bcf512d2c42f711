"""The root: the table of commands, options that hold everywhere, what a wrong word is told."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import typer

from smkit.cli import app as root
from tests.cli.conftest import Cli

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cli() -> Cli:
    return Cli()


def commands() -> dict[str, Any]:
    """Every command of the tool by its words, such as `models list`."""
    found: dict[str, Any] = {}

    def walk(words: str, command: Any) -> None:
        found[words] = command
        for name, below in getattr(command, "commands", {}).items():
            walk(f"{words} {name}".strip(), below)

    walk("", typer.main.get_command(root.app))
    return found


ALL = commands()


def test_the_table_names_what_is_there() -> None:
    for entry in root.COMMANDS.values():
        module, _, name = entry.target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        assert entry.help.endswith(".")
        assert len(entry.help) < 80


@pytest.mark.parametrize("words", ALL)
def test_every_command_has_help_and_an_example(cli: Cli, words: str) -> None:
    shown = cli(*words.split(), "--help").out
    assert shown == cli(*words.split(), "-h").out
    assert "Usage: " in shown
    command = ALL[words]
    if not hasattr(command, "commands"):
        assert "Example" in shown, words
        assert f"smkit {words}" in shown


@pytest.mark.parametrize("words", [words for words in ALL if words])
def test_every_command_takes_the_options_of_the_root_once(words: str) -> None:
    names = [name for parameter in ALL[words].params for name in parameter.opts]
    assert {"--region", "--profile", "--backend", "--root", "--debug"} <= set(names)
    assert len(names) == len(set(names))
    assert "--install-completion" not in names


@pytest.mark.parametrize("place", ["before", "between", "behind"])
def test_options_of_the_root_stand_anywhere(cli: Cli, tmp_path: Path, place: str) -> None:
    given = ["--root", str(tmp_path / "elsewhere"), "--region", "cn-north-1"]
    words = {
        "before": [*given, "models", "show", "x"],
        "between": ["models", *given, "show", "x"],
        "behind": ["models", "show", "x", *given],
    }[place]
    assert f"no model 'x' in {tmp_path / 'elsewhere'}" in cli(*words, code=1).err


def test_what_is_given_is_checked_and_wins(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_BACKEND", "sagemaker")
    assert "'eu' is not allowed" in cli("models", "list", "--region", "eu", code=2).err
    assert "backend: expected 'local' or 'sagemaker'" in cli("jobs", "list", "--backend", "moon", code=2).err
    assert "no jobs yet" in cli("jobs", "list", "--backend", "local").err


@pytest.mark.parametrize(
    ("words", "meant"), [(["modles"], "models"), (["models", "lst"], "list"), (["jobs", "atach"], "attach")]
)
def test_a_misspelt_command_gets_a_suggestion(cli: Cli, words: list[str], meant: str) -> None:
    assert f"Did you mean '{meant}'?" in cli(*words, code=2).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("infra deploy foo", "there is no template 'foo'"),
        ("infra status foo", "there is no template 'foo'"),
        ("infra deploy foundation --noncurrent-days -1", "--noncurrent-days"),
        ("init --source foo", "there is no source 'foo'"),
        ("doctor --only foo", "there is no check 'foo'"),
        ("doctor --bucket BAD", "is not a bucket name"),
        ("sandbox --account 12", "'12' is not an account: 12 digits"),
        ("datasets show BAD!", "is not a dataset name"),
        ("jobs show BAD!", "is not a job name"),
        ("env show 0.1", "0.1"),
        ("run nosuch.py", "'nosuch.py' does not exist"),
    ],
)
def test_a_value_that_is_wrong_in_itself_is_exit_code_2(cli: Cli, words: str, said: str) -> None:
    result = cli(*words.split(), code=2)
    assert (said in result.err, result.out) == (True, ""), result.err


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    for words in (["--debug", "models", "show", "x"], ["models", "show", "x", "--debug"]):
        result = subprocess.run(
            [sys.executable, "-m", "smkit", *words], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert result.returncode == 1
        assert "Traceback" in result.stderr


def seconds(*words: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_root_imports_no_command(option: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom smkit.cli import main\nsys.argv = ['smkit', sys.argv[1]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "loaded = sorted(name for name in sys.modules if name.startswith('smkit.'))\n"
        "print(loaded, [name for name in ('pydantic', 'boto3', 'numpy', 'rich') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, option], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.splitlines()[-1] == (
        "['smkit._version', 'smkit.cli', 'smkit.cli.app', 'smkit.cli.consent', 'smkit.cli.output', 'smkit.errors'] []"
    )


def test_help_is_quick() -> None:
    # Beside typer itself little is left. Of several the best, and in turns: the machine may be busy.
    tries = [(seconds("-m", "smkit", "--help"), seconds("-c", "import typer.main, typer.core")) for _ in range(3)]
    whole, typers = (min(times) for times in zip(*tries, strict=True))
    assert whole < 2 * typers + 0.05, (whole, typers)
