"""Every released form of the store stays readable; `fixtures/format-<schema version>/` holds one of each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from smkit.errors import IntegrityError, VersionNotFound
from smkit.naming import parse_reference
from smkit.storage import FolderStore
from smkit.versioning import VersionLog, manifest
from tests.versioning.helpers import check_everything, open_log, publish, read

FIXTURE = Path(__file__).parent / "fixtures" / "format-1" / "store"


@pytest.fixture
def log(tmp_path: Path) -> VersionLog:
    """A copy: the checkout may be read-only, and must not be changed."""
    shutil.copytree(FIXTURE, tmp_path / "store")
    return open_log(FolderStore(tmp_path / "store"))


def test_the_first_format_is_read(log: VersionLog) -> None:
    check_everything(log)
    assert list(log.names()) == ["houses"]
    assert log.versions("houses") == (2, 1)
    first = log.get(parse_reference("houses@1", "model"))
    assert read(log, first) == {"model.bin": b"first model", "notes/readme.txt": "größer\n".encode()}
    assert first.body == {
        "metrics": {"rmse": 0.027, "mae": 1e-07, "nan": None},
        "labels": {"team": "Häuser"},
        "rows": (1, -2),
    }
    assert (first.created_by, first.created_at) == ("ada", "2026-01-01T00:00:00.000000+00:00")
    second = log.get(parse_reference("houses@production", "model"))
    assert read(log, second) == {"model.bin": b"second model"}
    assert [(move.version, move.saw, move.why) for move in log.aliases.history("houses", "production")] == [
        (2, 1, "rmse 0.02"),
        (1, None, "the first one"),
    ]
    with pytest.raises(VersionNotFound, match=r"pruned by ada at 2026-.* \(it was trained on the wrong column\)"):
        log.get(parse_reference("houses@3", "model"))


def test_the_first_format_is_written_on(log: VersionLog) -> None:
    again = publish(log, {"model.bin": b"second model"}, reuse="any")
    assert (again.manifest.version, again.created) == (2, False)
    assert publish(log, {"model.bin": b"fourth"}).manifest.version == 4
    log.aliases.promote("houses", 4, "production", expected=2)
    log.prune("houses", 2)
    check_everything(log)


def test_what_is_written_now_is_the_first_format(log: VersionLog) -> None:
    """Reading is canonical: the same bytes come out. Whoever changes the form must raise SCHEMA_VERSION."""
    for number in (1, 2, 3):
        stored = log.store.get(f"models/houses/versions/{10**10 - number}.json", max_bytes=10_000)
        assert log.manifest("houses", number).encode() == stored
    assert manifest.SCHEMA_VERSION == 1


def test_what_a_later_smkit_wrote_is_told_from_damage(log: VersionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(manifest, "SCHEMA_VERSION", 2)
        with pytest.raises(IntegrityError, match="schema_version 1; this smkit reads 2"):
            log.manifest("houses", 1)
        record = manifest.seal({"kind": "models"}, "a record")
    log.store.put_if_absent("models/houses/versions/9999999996.json", record)
    with pytest.raises(
        IntegrityError, match="schema_version 2; this smkit reads 1: a later smkit wrote it, upgrade with `pip install"
    ):
        log.manifest("houses", 4)
