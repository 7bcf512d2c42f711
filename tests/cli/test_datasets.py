"""Every command of `smkit datasets`, for people and for programs, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from smkit import DatasetBuilder, DatasetStore
from tests.cli.conftest import HOSTILE, Cli
from tests.datasets.conftest import TableSource


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetStore:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "root"))
    table = pa.table({"id": range(100), "price": [float(n) for n in range(100)], "note": [HOSTILE, "plain"] * 50})
    builder = DatasetBuilder("houses", TableSource(table)).clean(drop_missing="id").split(test=0.3, by="id")
    builder.build(progress=False)
    new = pa.table({"id": range(90, 120), "price": [1000.0] * 30, "note": ["new"] * 30})
    DatasetBuilder("houses", TableSource(new)).append("id").build(progress=False)
    DatasetBuilder("flats", TableSource(table.slice(0, 5))).build(format="csv", progress=False)
    return DatasetStore()


@pytest.fixture
def cli(datasets: DatasetStore) -> Cli:
    return Cli()


def damage(datasets: DatasetStore, ref: str) -> None:
    dataset = datasets.get(ref)
    path = Path(dataset.uri) / dataset.manifest.files[-1].path
    path.write_bytes(b"x" * path.stat().st_size)


def test_list_names_the_datasets(cli: Cli) -> None:
    rows = [line.split("\t") for line in cli("datasets", "list").out.splitlines()]
    assert rows[0] == ["name", "versions", "latest", "created (UTC)", "rows"]
    assert [(row[0], row[1], row[2], row[4]) for row in rows[1:]] == [
        ("flats", "1", "1", "5"),
        ("houses", "2", "2", "120"),
    ]
    assert cli("datasets", "list", "--json").json == [
        {"name": "flats", "versions": 1, "latest": 1},
        {"name": "houses", "versions": 2, "latest": 2},
    ]


def test_list_of_a_name_shows_its_versions(cli: Cli, datasets: DatasetStore) -> None:
    header, *rows = [line.split("\t") for line in cli("datasets", "list", "houses").out.splitlines()]
    assert [row[header.index("version")] for row in rows] == ["2", "1"]
    assert [row[header.index("from")] for row in rows] == ["append houses@1", "-"]
    newest, oldest = cli("datasets", "list", "houses", "--json").json
    dataset = datasets.get("houses@2")
    assert (newest["ref"], newest["rows"], newest["digest"]) == ("houses@2", dict(dataset.rows), dataset.digest)
    assert newest["parents"] == [{"ref": "houses@1", "relation": "append"}]
    assert (oldest["format"], oldest["parents"]) == ("parquet", [])


def test_an_empty_store_says_so(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_ROOT", str(tmp_path / "empty"))
    result = cli("datasets", "list")
    assert (result.out, "no datasets yet" in result.err) == ("", True)
    assert cli("datasets", "list", "--json").json == []


def test_show(cli: Cli) -> None:
    text = cli("datasets", "show", "houses").out
    for part in ("houses@2", "append of houses@2", "rows_new", "double", "hash", "part-00001.parquet", "sha256"):
        assert part in text
    assert "clean" in cli("datasets", "show", "houses@1").out
    said = cli("datasets", "show", "houses@2", "--json").json
    assert (said["ref"], said["append"]) == ("houses@2", {"key": ["id"], "rows_known": 10, "rows_new": 20})
    assert [parent["ref"] for parent in said["lineage"]] == ["houses@1"]
    assert [column["name"] for column in said["columns"]] == ["id", "price", "note"]


def test_diff(cli: Cli) -> None:
    text = cli("datasets", "diff", "houses@1", "houses@2", "--key", "id").out
    assert "rows: 20 added, 0 removed, 0 changed, 0 in another split, 100 the same (by id)" in text
    said = cli("datasets", "diff", "houses@1", "houses@2", "--json").json
    assert said["rows"] == {"added": 20, "removed": 0, "same": 100, "changed": None, "moved": None}
    both = cli("datasets", "diff", "houses@1", "houses@2", "--key", "id", "--key", "note", "--json").json
    assert both["key"] == ["id", "note"]


def test_profile(cli: Cli) -> None:
    text = cli("datasets", "profile", "houses@1").out
    assert "houses@1: 100 rows, 3 columns" in text
    said = cli("datasets", "profile", "houses", "--split", "test", "--column", "price", "--json").json
    assert (said["split"], [column["name"] for column in said["columns"]]) == ("test", ["price"])


@pytest.mark.parametrize("what", [["houses@2"], ["houses"], []])
def test_verify(cli: Cli, datasets: DatasetStore, what: list[str]) -> None:
    assert "as it was published" in cli("datasets", "verify", *what).out
    assert cli("datasets", "verify", *what, "--json").json == {"ok": True, "error": None}
    damage(datasets, "houses@2")
    assert "houses" in cli("datasets", "verify", *what, code=1).err
    said = cli("datasets", "verify", *what, "--json", code=1).json
    assert said["ok"] is False
    assert "parquet" in said["error"]
    assert cli("datasets", "verify", "flats", "--json").json["ok"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "hauses"], "did you mean 'houses'"),
        (["show", "houses@9"], "no version 9"),
        (["show", "No Name"], "is not a dataset name"),
        (["diff", "houses@1", "houses@7"], "no version 7"),
        (["diff", "houses@1", "houses@2", "--key", "di"], "there is no column 'di'"),
        (["diff", "houses@1", "houses@2", "--key", "note"], "repeat the key 'note'"),
        (["profile", "houses", "--split", "trian"], "did you mean 'train'"),
        (["profile", "houses", "--column", "prize"], "did you mean 'price'"),
        (["verify", "hauses"], "did you mean 'houses'"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_expected_error_is_one_message(cli: Cli, words: list[str], message: str, as_json: bool) -> None:
    # What no store could have is a wrong command line.
    code = 2 if message == "is not a dataset name" else 1
    result = cli("datasets", *words, *(["--json"] if as_json else []), code=code)
    assert result.out == ""
    assert result.err.startswith("smkit: error: ")
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("words", [["nothing"], ["show"], ["diff", "houses@1"], ["list", "--nothing"]])
def test_a_wrong_command_line_is_code_2(cli: Cli, words: list[str]) -> None:
    result = cli("datasets", *words, code=2)
    assert result.out == ""
    assert "Usage:" in result.err


COMMANDS = ["diff", "list", "profile", "show", "verify"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_knows_json(cli: Cli, command: str) -> None:
    text = cli("datasets", command, "--help").out
    assert f"smkit datasets {command}" in " ".join(text.partition("Example")[2].split())
    assert "--json" in text
    assert command in cli("datasets", "--help").out


def test_every_command_is_tested_here() -> None:
    from smkit.cli.datasets import app

    names = {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}
    assert names == set(COMMANDS)
