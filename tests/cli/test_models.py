"""Every command of `smkit models`, for people and for programs, and what goes wrong."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from smkit.cli.parameters import parse_age, parse_expected
from tests.artifacts.helpers import fitted

if TYPE_CHECKING:
    import smkit
    from tests.cli.conftest import Cli


def damage(models: smkit.ArtifactStore, ref: str) -> None:
    path = Path(models.get(ref).uri) / "model.joblib"
    path.write_bytes(b"x" * path.stat().st_size)


def test_list_names_the_models(cli: Cli) -> None:
    rows = [line.split("\t") for line in cli("models", "list").out.splitlines()]
    assert rows[0] == ["name", "versions", "latest", "created (UTC)", "aliases"]
    assert [(row[0], row[1], row[2], row[4]) for row in rows[1:]] == [
        ("flats", "1", "1", "-"),
        ("houses", "2", "2", "production=1"),
    ]
    assert cli("models", "list", "--json").json == [
        {"name": "flats", "versions": 1, "latest": 1, "aliases": {}},
        {"name": "houses", "versions": 2, "latest": 2, "aliases": {"production": 1}},
    ]


def test_list_of_a_name_shows_its_versions(cli: Cli) -> None:
    header, *rows = [line.split("\t") for line in cli("models", "list", "houses").out.splitlines()]
    assert [row[0] for row in rows] == ["2", "1"]
    assert [row[header.index("test:rmse")] for row in rows] == ["0.4", "0.5"]
    assert [row[header.index("aliases")] for row in rows] == ["-", "production"]
    newest, oldest = cli("models", "list", "houses", "--json").json
    assert (newest["ref"], newest["metrics"], newest["aliases"]) == ("houses@2", {"test:rmse": 0.4}, [])
    assert (oldest["aliases"], oldest["hyperparameters"]["alpha"]) == (["production"], 1.0)


def test_an_empty_store_says_so(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "empty"))
    result = cli("models", "list")
    assert (result.out, "no models yet" in result.err) == ("", True)
    assert cli("models", "list", "--json").json == []
    assert not (tmp_path / "empty").exists()


def test_show(cli: Cli) -> None:
    text = cli("models", "show", "houses@production").out
    for part in ("houses@1", "production", "test:rmse", "0.5", "scikit-learn", "model.joblib", "模型"):
        assert part in text
    said = cli("models", "show", "houses@1", "--json").json
    assert (said["ref"], said["aliases"], said["metrics"]) == ("houses@1", ["production"], {"test:rmse": 0.5})
    assert [file["path"] for file in said["files"]] == ["model.joblib"]


def test_compare(cli: Cli) -> None:
    text = cli("models", "compare", "houses@1", "houses@2").out
    assert "*  test:rmse" in text
    assert "(-20.0%)" in text
    said = cli("models", "compare", "houses@1", "houses@2", "--json").json
    (line,) = [line for line in said["lines"] if line["name"] == "test:rmse"]
    assert (line["left"], line["right"], line["same"]) == (0.5, 0.4, False)


def test_promote_history_and_rollback(cli: Cli, models: smkit.ArtifactStore) -> None:
    out = cli("models", "promote", "houses@latest", "production", "--expected", "1", "--why", "better").out
    assert out == "production names houses@2 (before: houses@1)\n"
    assert cli("models", "promote", "houses@2", "production").out == "production names houses@2 already\n"
    refused = cli("models", "promote", "houses@1", "production", "--expected", "1", code=1)
    assert "it was expected to name houses@1" in refused.err
    assert refused.out == ""
    assert cli("models", "promote", "houses@1", "new", "--expected", "none", "--json").json["saw"] is None
    assert "names houses@1 (before: houses@2)" in cli("models", "rollback", "houses", "production").out
    said = cli("models", "rollback", "houses", "production", "--expected", "1", "--why", "no", "--json").json
    assert (said["name"], said["version"], said["saw"], said["why"]) == ("houses", 2, 1, "no")
    rows = cli("models", "history", "houses", "production").out.splitlines()
    assert len(rows) == 5
    assert [move["version"] for move in cli("models", "history", "houses", "production", "--json").json] == [2, 1, 2, 1]
    assert models.aliases("houses")["production"] == 2


def test_history_of_an_alias_that_never_was(cli: Cli) -> None:
    result = cli("models", "history", "houses", "staging")
    assert (result.out, "was never set" in result.err) == ("", True)
    assert cli("models", "history", "houses", "staging", "--json").json == []


@pytest.mark.parametrize("what", [["houses@1"], ["houses"], []])
def test_verify(cli: Cli, models: smkit.ArtifactStore, what: list[str]) -> None:
    assert "as it was published" in cli("models", "verify", *what).out
    assert cli("models", "verify", *what, "--json").json == {"ok": True, "error": None}
    damage(models, "houses@1")
    broken = cli("models", "verify", *what, code=1)
    assert (broken.out, "houses@1" in broken.err) == ("", True)
    said = cli("models", "verify", *what, "--json", code=1).json
    assert (said["ok"], "houses@1" in said["error"]) == (False, True)


def test_download(cli: Cli, tmp_path: Path) -> None:
    assert "houses@1: 1 file in" in cli("models", "download", "houses@production", str(tmp_path / "a")).out
    assert (tmp_path / "a" / "model.joblib").is_file()
    said = cli("models", "download", "houses", str(tmp_path / "b"), "--json").json
    assert said == {"ref": "houses@2", "folder": str(tmp_path / "b"), "files": ["model.joblib"]}


def test_prune_asks_a_person_or_for_yes(cli: Cli, models: smkit.ArtifactStore) -> None:
    models.publish("houses", fitted(4.0))
    refused = cli("models", "prune", "houses", "--keep-last", "1", code=2)
    assert "--yes" in refused.err
    assert cli("models", "prune", "houses", "--keep-last", "1", "--dry-run").out == "houses@2 would be deleted\n"
    assert len(models.versions("houses")) == 3
    assert cli("models", "prune", "houses", "--keep-last", "1", "--dry-run", "--json").json == {
        "dry_run": True,
        "pruned": ["houses@2"],
    }
    assert cli("models", "prune", "houses", "--keep-newer-than", "1d", "--yes").out == "nothing to delete\n"
    said = cli("models", "prune", "houses", "--keep-last", "1", "--yes", "--why", "old", "--json").json
    assert said == {"dry_run": False, "pruned": ["houses@2"]}
    assert [version.version for version in models.versions("houses")] == [3, 1]
    assert cli("models", "prune", "houses@3", "--yes").out == "houses@3 deleted\n"
    assert "production" in cli("models", "prune", "houses@1", "--yes", code=1).err


def test_prune_without_a_rule_is_an_error(cli: Cli) -> None:
    assert "say what to keep" in cli("models", "prune", "houses", "--yes", code=2).err


def test_gc(cli: Cli, tmp_path: Path) -> None:
    assert cli("models", "gc").out == "nothing to delete\n"
    orphan = tmp_path / "root/models/houses/data" / ("0" * 32) / "model.joblib"
    orphan.parent.mkdir()
    orphan.write_bytes(b"x")
    shown = cli("models", "gc", "houses", "--older-than", "0m")
    assert "unfinished publish" in shown.out
    assert "--delete" in shown.err
    assert orphan.exists()
    said = cli("models", "gc", "--older-than", "0m", "--delete", "--json").json
    assert (said["deleted"], [item["publish_id"] for item in said["orphans"]]) == (True, ["0" * 32])
    assert not orphan.exists()


def test_fsck(cli: Cli, models: smkit.ArtifactStore) -> None:
    assert "2 models checked" in cli("models", "fsck").out
    damage(models, "houses@2")
    assert cli("models", "fsck", "houses", "--json").json["ok"] is True
    assert "houses@2" in cli("models", "fsck", "--read-files", code=1).out
    said = cli("models", "fsck", "houses", "--read-files", "--json", code=1).json
    assert [item["where"] for item in said["damages"]] == ["houses@2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "hauses"], "did you mean 'houses'"),
        (["show", "houses@9"], "no version 9"),
        (["show", "houses@\x1b[31m"], "is not an alias"),
        (["show", "No Name"], "is not a model name"),
        (["compare", "houses@1", "houses@7"], "no version 7"),
        (["promote", "houses@9", "production"], "no version 9"),
        (["promote", "houses@1", "7"], "cannot be an alias"),
        (["rollback", "houses", "production"], "cannot be rolled back"),
        (["verify", "hauses"], "did you mean 'houses'"),
        (["download", "houses@9", "x"], "no version 9"),
        (["prune", "hauses", "--keep-last", "1", "--yes"], "did you mean 'houses'"),
        (["gc", "hauses"], "did you mean 'houses'"),
        (["fsck", "hauses"], "did you mean 'houses'"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_expected_error_is_one_message(cli: Cli, words: list[str], message: str, as_json: bool) -> None:
    # What no store could have is a wrong command line.
    code = 2 if message in {"is not an alias", "is not a model name", "cannot be an alias"} else 1
    result = cli("models", *words, *(["--json"] if as_json else []), code=code)
    assert result.out == ""
    assert result.err.startswith("smkit: error: ")
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["models", "nothing"],
        ["models", "show"],
        ["models", "list", "--nothing"],
        ["models", "gc", "--older-than", "3y"],
        ["models", "prune", "houses", "--keep-last", "0", "--yes"],
        ["models", "prune", "houses", "--keep-newer-than", "soon", "--yes"],
        ["models", "promote", "houses@1", "x", "--expected", "one"],
    ],
)
def test_a_wrong_command_line_is_code_2(cli: Cli, words: list[str]) -> None:
    result = cli(*words, code=2)
    assert result.out == ""
    assert "Usage:" in result.err


def test_wrong_settings_are_an_expected_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_REGION", "nowhere")
    assert "region" in cli("models", "list", code=2).err


COMMANDS = [
    "compare", "download", "fsck", "gc", "history", "list", "promote", "prune", "rollback", "show", "verify",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_knows_json(cli: Cli, command: str) -> None:
    text = cli("models", command, "--help").out
    assert f"smkit models {command}" in " ".join(text.partition("Example")[2].split())
    assert "--json" in text
    assert command in cli("models", "--help").out


def test_every_command_is_tested_here() -> None:
    from smkit.cli.models import app

    names = {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}
    assert names == set(COMMANDS)


def test_a_warning_is_one_message(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(self: smkit.ArtifactStore) -> list[str]:
        warnings.warn("taken from the cache \x1b[31m", UserWarning, stacklevel=2)
        return []

    monkeypatch.setattr("smkit.artifacts.ArtifactStore.names", names)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = cli("models", "list", "--json")
    assert (result.json, result.err) == ([], "smkit: warning: taken from the cache \N{REPLACEMENT CHARACTER}[31m\n")


def test_ages() -> None:
    assert [parse_age(text) for text in ("90m", "12h", "30d", " 8W ")] == [
        timedelta(minutes=90),
        timedelta(hours=12),
        timedelta(days=30),
        timedelta(weeks=8),
    ]
    for text in ("", "d", "-1d", "1.5d", "1y", "9" * 20 + "w", "٣d"):
        with pytest.raises(typer.BadParameter):
            parse_age(text)


def test_expected_versions() -> None:
    assert [parse_expected(text) for text in (None, "none", "7")] == [..., None, 7]
    for text in ("0", "-1", "x", "1.0", "٣"):
        with pytest.raises(typer.BadParameter):
            parse_expected(text)
