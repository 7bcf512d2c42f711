"""Rolling back, pruning, collecting and checking."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest

import smkit
from smkit.errors import AliasConflict, ConfigError, IntegrityError, VersionInUse, VersionNotFound
from tests.artifacts.helpers import fitted


@pytest.fixture(params=["folder", "s3"])
def models(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> smkit.ArtifactStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        store = smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))
    else:
        request.getfixturevalue("aws_env")
        store = smkit.ArtifactStore(smkit.Settings(bucket=request.getfixturevalue("bucket")))
    for alpha in (1.0, 2.0, 3.0, 4.0, 5.0):
        store.publish("houses", fitted(alpha))
    return store


def numbers(models: smkit.ArtifactStore) -> list[int]:
    return [version.version for version in models.versions("houses")]


def damage(models: smkit.ArtifactStore, ref: str) -> None:
    version = models.get(ref)
    _, log = models._open()
    import io

    log.store.upload(version.manifest.key_of("model.joblib"), io.BytesIO(b"x" * version.size))


def test_an_alias_goes_back(models: smkit.ArtifactStore) -> None:
    models.promote("houses@1", "production")
    models.promote("houses@3", "production")
    with pytest.raises(AliasConflict):
        models.rollback("houses", "production", expected=2)
    move = models.rollback("houses", "production", why="wrong units", expected=3)
    assert (move.version, move.saw, move.why) == (1, 3, "wrong units")
    assert models.aliases("houses") == {"production": 1}
    assert [m.version for m in models.history("houses", "production")] == [1, 3, 1]


def test_what_was_named_first_cannot_go_back(models: smkit.ArtifactStore) -> None:
    models.promote("houses@1", "production")
    with pytest.raises(VersionNotFound, match="cannot be rolled back"):
        models.rollback("houses", "production")


def test_prune_keeps_the_newest_and_what_is_named(models: smkit.ArtifactStore) -> None:
    models.promote("houses@1", "production")
    would = models.prune("houses", keep_last=2, dry_run=True)
    assert [version.ref for version in would] == ["houses@3", "houses@2"]
    assert numbers(models) == [5, 4, 3, 2, 1]
    assert models.prune("houses", keep_last=2, why="old") == would
    assert numbers(models) == [5, 4, 1]
    with pytest.raises(VersionNotFound, match="old"):
        models.get("houses@3")
    assert models.prune("houses", keep_last=2) == []


def test_prune_keeps_what_either_rule_keeps(models: smkit.ArtifactStore) -> None:
    assert models.prune("houses", keep_last=1, keep_newer_than=timedelta(hours=1), dry_run=True) == []
    time.sleep(0.01)
    assert len(models.prune("houses", keep_newer_than=timedelta(milliseconds=1), dry_run=True)) == 5
    assert len(models.prune("houses", keep_last=2, keep_newer_than=timedelta(milliseconds=1), dry_run=True)) == 3


def test_one_version_is_pruned(models: smkit.ArtifactStore) -> None:
    models.promote("houses@2", "production")
    assert [version.ref for version in models.prune("houses@3")] == ["houses@3"]
    assert models.prune(models.get("houses@4"), dry_run=True)
    for dry_run in (True, False):
        with pytest.raises(VersionInUse, match="production"):
            models.prune("houses@2", dry_run=dry_run)
    assert numbers(models) == [5, 4, 2, 1]
    # A prune that died is finished by another one.
    assert [version.ref for version in models.prune("houses@3")] == ["houses@3"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "say what to keep"),
        ({"keep_last": 0}, "number of versions from 1"),
        ({"keep_last": True}, "number of versions from 1"),
        ({"keep_newer_than": timedelta(0)}, "above zero"),
    ],
)
def test_rules_of_pruning_are_checked(models: smkit.ArtifactStore, rules: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        models.prune("houses", **rules)  # type: ignore[arg-type]
    assert len(numbers(models)) == 5


def test_one_version_takes_no_rules_and_must_exist(models: smkit.ArtifactStore) -> None:
    with pytest.raises(ConfigError, match="leave them out"):
        models.prune("houses@1", keep_last=1)
    for missing in ("hauses", "houses@9"):
        with pytest.raises(VersionNotFound):
            models.prune(missing, **({} if "@" in missing else {"keep_last": 1}))


def test_gc_shows_then_deletes_what_nobody_needs(models: smkit.ArtifactStore) -> None:
    import io

    _, log = models._open()
    orphan = f"models/houses/data/{'0' * 32}/model.joblib"
    log.store.upload(orphan, io.BytesIO(b"x" * 10))
    assert models.gc() == []
    (found,) = models.gc(older_than=timedelta(0))
    assert (found.name, found.publish_id, found.files, found.size) == ("houses", "0" * 32, 1, 10)
    assert [info.key for info in log.store.scan(orphan)] == [orphan]
    assert models.gc("houses", older_than=timedelta(0), dry_run=False) == [found]
    assert [info.key for info in log.store.scan(orphan)] == []
    models.verify()
    with pytest.raises(ConfigError):
        models.gc(older_than=timedelta(days=-1))
    with pytest.raises(VersionNotFound):
        models.gc("hauses")


def test_verify_lists_all_damage(models: smkit.ArtifactStore) -> None:
    models.verify()
    models.verify("houses")
    models.verify("houses@1")
    for ref in ("houses@2", "houses@4"):
        damage(models, ref)
    models.verify("houses@1")
    with pytest.raises(IntegrityError, match="houses@2"):
        models.verify("houses@2")
    for what in ("houses", None):
        with pytest.raises(IntegrityError) as caught:
            models.verify(what)
        assert "houses@2" in str(caught.value)
        assert "houses@4" in str(caught.value)
        assert "houses@1" not in str(caught.value)
    with pytest.raises(VersionNotFound):
        models.verify("hauses")


def test_fsck_reports(models: smkit.ArtifactStore) -> None:
    whole = models.fsck(read_files=True)
    assert whole
    assert whole.ok
    assert "1 model checked (every file was read): no damage" in str(whole)
    damage(models, "houses@2")
    assert models.fsck("houses")  # sizes are as they were
    report = models.fsck("houses", read_files=True)
    assert not report
    assert [item.where for item in report.damages] == ["houses@2"]
    assert "houses@2" in repr(report)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False


def test_fsck_sees_a_damaged_manifest_and_goes_on(tmp_path: Path) -> None:
    models = smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))
    for alpha in (1.0, 2.0):
        models.publish("houses", fitted(alpha))
    models.publish("flats", fitted())
    manifest = tmp_path / "root/models/houses/versions/9999999999.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"a", b"b"))
    (Path(models.get("houses@2").uri) / "model.joblib").unlink()
    report = models.fsck()
    assert report.names == ("flats", "houses")
    assert {item.where.partition("@")[0] for item in report.damages} == {"houses"}
    assert len(report.damages) >= 2
