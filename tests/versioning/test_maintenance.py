"""Orphans are found and collected, and nothing else is; damage is found, and nothing else is called so."""

from __future__ import annotations

import io
import itertools
import os
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import IntegrityError, InvalidNameError, StorageError, StoreUnreachable, VersionInUse
from smkit.storage.base import Leftover, digest_of
from smkit.storage.s3 import S3Store
from smkit.versioning import PendingFile, VersionLog, maintenance, publishing
from smkit.versioning.maintenance import (
    Orphan,
    check,
    collect,
    find_orphans,
    find_unnamed_leftovers,
    names_with_data,
)
from tests.versioning.helpers import HookedStore, check_everything, check_healthy, collect_all, open_log, publish, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.storage import FolderStore, ObjectStore

NOW = timedelta(0)
WEEK_AGO = -timedelta(days=7, minutes=1)


@pytest.fixture
def log(store: ObjectStore) -> VersionLog:
    return open_log(store)


def leave(store: ObjectStore, publish_id: str = "d" * 32, name: str = "houses", *paths: str) -> None:
    """What a publish leaves that died before its commit."""
    for path in paths or ("model.bin",):
        store.upload(f"models/{name}/data/{publish_id}/{path}", io.BytesIO(b"12345"))


class LaterClock(datetime):
    """The time in eight days."""

    @classmethod
    def now(cls, tz: Any = None) -> LaterClock:
        return super().now(tz) + timedelta(days=8)


def age(root: Path, days: float = 8) -> None:
    """Let all that lies in a folder store be this old."""
    then = datetime.now(timezone.utc).timestamp() - days * 86_400
    for path in root.rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


# --- orphans ----------------------------------------------------------------------------------------------------


def test_what_a_dead_publish_left_is_found_and_collected(log: VersionLog) -> None:
    publish(log, {"a.bin": b"a", "deep/b.bin": b"b"})
    leave(log.store, "d" * 32, "houses", "model.bin", "deep/er/x.bin")
    (orphan,) = find_orphans(log, "houses", older_than=NOW)
    assert (orphan.name, orphan.publish_id, orphan.files, orphan.size) == ("houses", "d" * 32, 2, 10)
    assert orphan.why == "unfinished publish"
    assert datetime.now(timezone.utc) - orphan.modified < timedelta(minutes=1)
    collect(log, orphan)
    assert find_orphans(log, "houses", older_than=NOW) == []
    collect(log, orphan)
    check_healthy(log)


def test_what_a_dead_prune_left_is_found_at_once(log: VersionLog) -> None:
    manifest = publish(log, {"a.bin": b"a", "b.bin": b"b"}).manifest
    publish(log)

    def die(operation: str, key: str) -> None:
        if operation == "delete":
            raise StorageError("it died")

    with pytest.raises(StorageError, match="it died"):
        open_log(HookedStore(log.store, die)).prune("houses", 1)
    (orphan,) = find_orphans(log, "houses")
    assert (orphan.publish_id, orphan.files, orphan.why) == (manifest.publish_id, 2, "pruned version")
    collect(log, orphan)
    assert find_orphans(log, "houses") == []
    check_healthy(log)


def test_a_name_without_a_version_counts_too(log: VersionLog) -> None:
    leave(log.store, name="never-published")
    publish(log)
    assert list(log.names()) == ["houses"]
    assert sorted(names_with_data(log)) == ["houses", "never-published"]
    (orphan,) = find_orphans(log, "never-published", older_than=NOW)
    collect(log, orphan)
    assert names_with_data(log) == ["houses"]


def test_a_name_that_breaks_the_rule_is_refused(log: VersionLog) -> None:
    for call in (
        lambda: find_orphans(log, "../x"),
        lambda: list(check(log, "../x")),
        lambda: collect(log, Orphan("../x", "d" * 32, 1, 1, datetime.now(timezone.utc), "unfinished publish")),
    ):
        with pytest.raises(InvalidNameError):
            call()


@pytest.mark.parametrize("publish_id", ["", ".", "..", "D" * 32, "d" * 31, "d" * 32 + "/x"])
def test_a_folder_that_is_no_publish_is_left_alone(folder_store: FolderStore, publish_id: str) -> None:
    log = open_log(folder_store)
    publish(log)
    with pytest.raises(IntegrityError, match="is no folder of a publish: it is left alone"):
        collect(log, Orphan("houses", publish_id, 1, 1, datetime.now(timezone.utc), "pruned version"))
    check_healthy(log)


def test_what_others_put_among_the_data_is_left_alone(log: VersionLog) -> None:
    publish(log)
    for path in ("notes.txt", "backup/x.bin", "DDDD/x"):
        log.store.put_if_absent(f"models/houses/data/{path}", b"?")
    assert find_orphans(log, "houses", older_than=NOW) == []


def test_by_default_what_is_younger_than_a_week_waits(folder_store: FolderStore) -> None:
    log = open_log(folder_store)
    leave(folder_store)
    assert find_orphans(log, "houses") == []
    age(Path(folder_store.uri), 6.9)
    assert find_orphans(log, "houses") == []
    age(Path(folder_store.uri), 7.1)
    assert len(find_orphans(log, "houses")) == 1
    # One file of it that is young keeps all.
    leave(folder_store, "d" * 32, "houses", "second.bin")
    assert find_orphans(log, "houses") == []


def test_on_s3_what_is_younger_than_a_week_waits(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(s3_store)
    leave(s3_store)
    assert find_orphans(log, "houses") == []
    monkeypatch.setattr(maintenance, "datetime", LaterClock)
    assert len(find_orphans(log, "houses")) == 1


# --- what must never be collected -------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", ["publish", "find"])
def test_a_publish_at_any_moment_loses_nothing(store: ObjectStore, outer: str) -> None:
    """With the default week; whole within each step of the other."""
    for step in itertools.count(1):
        name = f"n{step}"
        log = open_log(store)
        publish(log, "first", name=name)
        publish(log, "second", name=name)
        log.prune(name, 1)
        count = 0
        inner: list[object] = []

        def gc(log: VersionLog, name: str = name) -> None:
            for orphan in find_orphans(log, name):
                collect(log, orphan)

        def act(log: VersionLog, name: str = name) -> None:
            publish(log, "third", name=name)

        actions = {"publish": act, "find": gc}
        other = "find" if outer == "publish" else "publish"

        def interleave(operation: str, key: str, step: int = step, inner: list[object] = inner) -> None:
            nonlocal count
            count += 1
            if count == step:
                inner.append(actions[other](open_log(store)))  # noqa: B023 - called within this turn

        actions[outer](open_log(HookedStore(store, interleave)))
        if not inner:
            break
        assert log.versions(name) == (3, 2)
        assert read(log, log.manifest(name, 3)) == {"model.bin": b"third"}
        check_everything(log)
    assert step > 3


def test_a_version_that_is_committed_while_orphans_are_found_is_none(store: ObjectStore) -> None:
    """Also without any waiting: its files are listed, then it is committed, and then the versions are read."""
    log = open_log(store)
    publish(log, "first")
    publisher_waits, may_commit, committed = threading.Event(), threading.Event(), threading.Event()

    def before_commit(operation: str, key: str) -> None:
        if operation == "put" and "/versions/" in key:
            publisher_waits.set()
            assert may_commit.wait(60)

    def run() -> None:
        publish(open_log(HookedStore(store, before_commit)), "second")
        committed.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert publisher_waits.wait(60)

    def after_the_files(operation: str, key: str) -> None:
        if operation == "scan" and key.endswith("/data/"):
            may_commit.set()
            assert committed.wait(60)

    assert find_orphans(open_log(HookedStore(store, after=after_the_files)), "houses", older_than=NOW) == []
    thread.join()
    check_healthy(log)


def test_an_orphan_that_was_published_since_it_was_found_is_kept(log: VersionLog, store: ObjectStore) -> None:
    publish(log, "first")
    found: list[Orphan] = []

    def find(operation: str, key: str) -> None:
        if operation == "put" and "/versions/" in key:
            found.extend(find_orphans(log, "houses", older_than=NOW))

    publish(open_log(HookedStore(store, find)), "second")
    publish(log, "third")
    (orphan,) = found
    with pytest.raises(VersionInUse, match=rf"data/{orphan.publish_id}/ is kept: it is houses@2 by now"):
        collect(log, orphan)
    check_healthy(log)


def test_an_orphan_that_is_written_to_since_it_was_found_is_kept(folder_store: FolderStore) -> None:
    log = open_log(folder_store)
    leave(folder_store)
    age(Path(folder_store.uri))
    (orphan,) = find_orphans(log, "houses")
    leave(folder_store, "d" * 32, "houses", "second.bin")
    with pytest.raises(VersionInUse, match="is kept: it was written to since it was found"):
        collect(log, orphan)
    assert len(list(folder_store.scan("models/houses/data/"))) == 2


def test_a_file_that_is_taken_over_is_as_young_as_one_that_is_uploaded(
    folder_store: FolderStore, tmp_path: Path
) -> None:
    """Its own time may be old, and it waits for its commit like any other."""
    log = open_log(folder_store)
    part = tmp_path / "part.bin"
    part.write_bytes(b"old")
    os.utime(part, (0, 0))
    with part.open("rb") as stream:
        digest = digest_of(stream)
    found: list[Orphan] = []

    def body(_: object) -> dict[str, object]:
        found.extend(find_orphans(log, "houses"))
        return {}

    published = log.publish(
        "houses", [PendingFile("part.bin", lambda: part.open("rb"), digest, part)], body, content={}, reuse="never"
    )
    assert not part.exists(), "it was taken over"
    assert found == []
    assert read(log, published.manifest) == {"part.bin": b"old"}


def test_a_publish_that_took_a_week_does_not_commit(log: VersionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slept; meanwhile a collector may have removed the first files."""
    now = time.time()
    monkeypatch.setattr(publishing.time, "time", lambda: now)

    def body(_: object) -> dict[str, object]:
        nonlocal now
        now += 7 * 24 * 3600
        return {}

    with pytest.raises(StorageError, match=r"was not published: its upload began 168 hours ago.* publish again"):
        log.publish("houses", [PendingFile("a", lambda: io.BytesIO(b"x"))], body, content={}, reuse="never")
    assert log.versions("houses") == ()
    assert list(log.store.scan("models/houses/data/")) == []
    assert publish(log).manifest.version == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_where_a_manifest_was_changed_or_deleted_nothing_is_collected(log: VersionLog, number: int) -> None:
    for turn in range(3):
        publish(log, str(turn))
    log.aliases.promote("houses", 3, "production")
    leave(log.store)
    key = f"models/houses/versions/{10**10 - number}.json"
    intact = log.store.get(key, max_bytes=10_000)
    log.store.upload(key, io.BytesIO(intact.replace(b"houses", b"hoses!")))
    with pytest.raises(IntegrityError, match="is damaged"):
        find_orphans(log, "houses", older_than=NOW)
    log.store.delete([key])
    with pytest.raises(IntegrityError, match=rf"the manifest of model houses@{number} was deleted, so nobody knows"):
        find_orphans(log, "houses", older_than=NOW)
    log.store.put_if_absent(key, intact)
    assert [orphan.publish_id for orphan in collect_all(log)] == ["d" * 32]
    check_healthy(log)


def test_a_commit_that_is_in_doubt_keeps_its_files(store: ObjectStore) -> None:
    """Its reply was lost twice: the publisher reports a failure, and the version is there."""

    def lose(operation: str, key: str) -> None:
        if operation == "put" and "/versions/" in key:
            raise StorageError("the connection was lost")

    with pytest.raises(StorageError):
        publish(open_log(HookedStore(store, after=lose)), "in doubt")
    log = open_log(store)
    assert collect_all(log) == []
    assert read(log, log.manifest("houses", 1)) == {"model.bin": b"in doubt"}


# --- what unfinished writes leave -------------------------------------------------------------------------------


def test_temporary_files_of_a_folder_are_swept(folder_store: FolderStore) -> None:
    log = open_log(folder_store)
    publish(log)
    root = Path(folder_store.uri)
    (root / "models/houses/versions/.smkit-tmp-1").write_bytes(b"123")
    (root / "models/houses/data/.smkit-tmp-2").write_bytes(b"45")
    (root / ".smkit-build-x" / "deep").mkdir(parents=True)
    (root / ".smkit-build-x" / "deep" / "part.parquet").write_bytes(b"6789")
    (root / "models" / "cars").mkdir()
    (root / "models/cars/.smkit-tmp-3").write_bytes(b"other")
    assert find_orphans(log, "houses") == find_unnamed_leftovers(folder_store) == []
    age(root)
    orphans = find_orphans(log, "houses")
    assert [(orphan.files, orphan.size, orphan.why) for orphan in orphans] in (
        [(1, 3, "unfinished write"), (1, 2, "unfinished write")],
        [(1, 2, "unfinished write"), (1, 3, "unfinished write")],
    )
    (build,) = find_unnamed_leftovers(folder_store)
    assert (build.name, build.files, build.size) == ("", 1, 4)
    # One young file in it: a build is under way.
    (root / ".smkit-build-x" / "next.parquet").write_bytes(b"")
    assert find_unnamed_leftovers(folder_store) == []
    for orphan in (*orphans, build, *orphans):
        collect(log, orphan)
    assert [path.name for path in root.rglob(".smkit-*")] == [".smkit-tmp-3"]
    check_healthy(log)


def test_a_temporary_name_is_needed_to_sweep(folder_store: FolderStore) -> None:
    publish(open_log(folder_store))
    when = datetime.now(timezone.utc)
    for key in ("models", "models/houses", "../.smkit-tmp-1", "models/../.smkit-tmp-1", ".smkit-other", ""):
        with pytest.raises(StorageError, match=r"is no temporary file of a store|is not a key"):
            folder_store.sweep(Leftover(key, "", 1, 1, when))
    check_healthy(open_log(folder_store))


def test_a_link_is_removed_and_not_followed(folder_store: FolderStore, tmp_path: Path) -> None:
    log = open_log(folder_store)
    publish(log)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").write_bytes(b"mine")
    link = Path(folder_store.uri) / "models" / "houses" / ".smkit-build-link"
    link.symlink_to(tmp_path / "elsewhere")
    (orphan,) = collect_all(log)
    assert orphan.files == 1
    assert not link.is_symlink()
    assert (tmp_path / "elsewhere" / "mine.txt").read_bytes() == b"mine"


def test_unfinished_uploads_to_s3_are_aborted(s3_store: S3Store, s3_client: Any) -> None:
    log = open_log(s3_store)
    publish(log)
    bucket, _, prefix = s3_store.uri.removeprefix("s3://").partition("/")

    def start(key: str) -> None:
        upload = s3_client.create_multipart_upload(Bucket=bucket, Key=key)
        s3_client.upload_part(Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x")

    start(f"{prefix}/models/houses/data/{'d' * 32}/model.bin")
    start(f"{prefix}/models/cars/data/{'d' * 32}/model.bin")
    start("somebody/elses")
    # moto says of every upload that it was begun in 2010.
    (orphan,) = find_orphans(log, "houses")
    assert (orphan.why, orphan.name, orphan.publish_id) == ("unfinished write", "houses", "")
    collect(log, orphan)
    collect(log, orphan)
    assert find_orphans(log, "houses") == []
    left = [upload["Key"] for upload in s3_client.list_multipart_uploads(Bucket=bucket)["Uploads"]]
    assert sorted(left) == [f"{prefix}/models/cars/data/{'d' * 32}/model.bin", "somebody/elses"]


def test_a_young_upload_to_s3_is_left_alone(s3_store: S3Store) -> None:
    """moto's clock of uploads stands still, hence a client that answers for it."""

    class Paginator:
        def paginate(self, **request: Any) -> list[dict[str, Any]]:
            assert request == {"Bucket": "some-bucket", "Prefix": "project/models/houses/"}
            now = datetime.now(timezone.utc)
            ages = {"old": 8.0, "young": 6.9}
            return [
                {
                    "Uploads": [
                        {
                            "Key": f"project/models/houses/{key}",
                            "UploadId": key,
                            "Initiated": now - timedelta(days=days),
                        }
                        for key, days in ages.items()
                    ]
                },
                {},
            ]

    class Client:
        def get_paginator(self, operation: str) -> Paginator:
            assert operation == "list_multipart_uploads"
            return Paginator()

    store = S3Store("s3://some-bucket/project", Client)
    before = datetime.now(timezone.utc) - timedelta(days=7)
    found = list(maintenance._leftovers(store, "houses", "models/houses/", before))
    assert [orphan.leftover.upload_id for orphan in found if orphan.leftover] == ["old"]


# --- damage -----------------------------------------------------------------------------------------------------


def prepared(log: VersionLog) -> None:
    for turn in range(4):
        publish(log, {"a.bin": b"a" * turn, "b.bin": b"b"})
    log.aliases.promote("houses", 1, "production")
    log.aliases.promote("houses", 2, "production")
    log.prune("houses", 3)


def flip(log: VersionLog, key: str, position: int = 10) -> None:
    data = bytearray(log.store.get(key, max_bytes=100_000))
    data[position] ^= 1
    log.store.upload(key, io.BytesIO(bytes(data)))


@pytest.mark.parametrize("read_files", [False, True])
def test_a_store_that_is_whole_has_no_damage(log: VersionLog, read_files: bool) -> None:
    assert list(check(log, "houses", read_files=read_files)) == []
    prepared(log)
    assert list(check(log, "houses", read_files=read_files)) == []
    assert list(check(log, "cars", read_files=read_files)) == []


DAMAGES: dict[str, tuple[Callable[[VersionLog], object], str, str]] = {
    "manifest": (lambda log: flip(log, "models/houses/versions/9999999999.json"), "houses@1", "is damaged"),
    "pruned manifest": (lambda log: flip(log, "models/houses/versions/9999999997.json"), "houses@3", "is damaged"),
    "tombstone": (lambda log: flip(log, "models/houses/tombstones/9999999997.json"), "houses@3", "is damaged"),
    "move": (
        lambda log: flip(log, "models/houses/aliases/production/9999999999.json"),
        "alias production of houses",
        "is damaged",
    ),
    "move deleted": (
        lambda log: log.store.delete(["models/houses/aliases/production/9999999999.json"]),
        "alias production of houses",
        "is missing: moves are never deleted",
    ),
    "manifest deleted": (
        lambda log: log.store.delete(["models/houses/versions/9999999999.json"]),
        "houses@1",
        "its manifest was deleted",
    ),
    "named manifest deleted": (
        lambda log: log.store.delete([f"models/houses/versions/{10**10 - n}.json" for n in (2, 3, 4)]),
        "alias production of houses",
        "it names houses@2, which was never published",
    ),
    "file shorter": (
        lambda log: log.store.upload(log.manifest("houses", 4).key_of("a.bin"), io.BytesIO(b"a")),
        "houses@4",
        "a.bin has 1 bytes instead of 3",
    ),
    "file deleted": (
        lambda log: log.store.delete([log.manifest("houses", 4).key_of("a.bin")]),
        "houses@4",
        "a.bin is missing",
    ),
    "too large": (
        lambda log: log.store.upload("models/houses/versions/9999999999.json", io.BytesIO(b" " * (17 << 20))),
        "houses@1",
        "is larger than the",
    ),
    "foreign": (
        lambda log: log.store.put_if_absent("models/houses/versions/notes.txt", b"?"),
        "models/houses",
        "notes.txt is not a record of smkit",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_found_without_reading_the_files(log: VersionLog, case: str) -> None:
    act, where, what = DAMAGES[case]
    prepared(log)
    act(log)
    found = list(check(log, "houses"))
    assert any(damage.where == where and what in damage.what for damage in found), found
    assert all(str(damage) == f"{damage.where}: {damage.what}" for damage in found)


def test_one_flipped_bit_in_a_file_is_found_by_reading_it(log: VersionLog) -> None:
    prepared(log)
    flip(log, log.manifest("houses", 4).key_of("b.bin"), 0)
    assert list(check(log, "houses")) == []
    (damage,) = check(log, "houses", read_files=True)
    assert damage.where == "houses@4"
    assert "b.bin: its bytes are not those that were published" in damage.what


def test_all_damage_is_told_at_once(log: VersionLog) -> None:
    prepared(log)
    for case in ("manifest", "move", "file deleted"):
        DAMAGES[case][0](log)
    assert [damage.where for damage in check(log, "houses")] == ["houses@4", "houses@1", "alias production of houses"]


@pytest.mark.parametrize("read_files", [False, True])
def test_what_is_published_and_pruned_meanwhile_is_no_damage(folder_store: FolderStore, read_files: bool) -> None:
    lock = threading.Lock()
    for step in itertools.count(1):
        log = open_log(folder_store)
        name = f"n{step}"
        for turn in range(3):
            publish(log, str(turn), name=name)
        log.aliases.promote(name, 1, "production")
        count = 0

        def meddle(operation: str, key: str, step: int = step, name: str = name, log: VersionLog = log) -> None:
            nonlocal count
            with lock:
                count += 1
                due = count == step
            if due:
                publish(log, "new", name=name)
                log.aliases.promote(name, 4, "production")
                log.prune(name, 2)
                log.prune(name, 1)

        hooked = open_log(HookedStore(folder_store, meddle))
        assert [str(damage) for damage in check(hooked, name, read_files=read_files)] == []
        if count < step:
            break
    assert step > 10


def test_a_store_that_does_not_answer_is_no_damage(folder_store: FolderStore) -> None:
    publish(open_log(folder_store))

    def gone(operation: str, key: str) -> None:
        if operation == "get":
            raise StoreUnreachable("no network")

    with pytest.raises(StoreUnreachable, match="no network"):
        list(check(open_log(HookedStore(folder_store, gone)), "houses"))
