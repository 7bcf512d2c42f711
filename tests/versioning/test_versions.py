"""Publish, find, list, reuse, prune: on both stores."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from datetime import datetime, timezone
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import ConfigError, IntegrityError, InvalidNameError, StorageError, VersionInUse, VersionNotFound
from smkit.naming import Reference, parse_reference
from smkit.storage.base import Digest, digest_of
from smkit.versioning import PendingFile, VersionLog
from smkit.versioning.maintenance import check
from tests.versioning.helpers import HookedStore, check_everything, data_folders, open_log, pending, publish, read

if TYPE_CHECKING:
    from smkit.storage import FolderStore, ObjectStore
    from smkit.versioning.versions import Reuse

TREE = Path(__file__).resolve().parents[2]


@pytest.fixture
def log(store: ObjectStore) -> VersionLog:
    return open_log(store)


@pytest.fixture
def folder_log(folder_store: FolderStore) -> VersionLog:
    return open_log(folder_store)


def ref(text: str) -> Reference:
    return parse_reference(text, "model")


# --- publish and find -------------------------------------------------------------------------------------------


def test_a_version_is_read_as_it_was_published(log: VersionLog) -> None:
    files = {"model.bin": b"\0\1\2", "deep/er/notes é.txt": b"", "a": b"x" * 100_000}
    body = {"metrics": {"rmse": 0.1, "nan": float("nan")}, "tags": ["é", None, True], "n": 10**15}
    before = datetime.now(timezone.utc)
    manifest, created = publish(log, files, body=body)
    assert created is True
    assert str(manifest) == "houses@1"
    assert [file.path for file in manifest.files] == sorted(files)
    assert read(log, manifest) == files
    # JSON has no NaN, and lists come back read-only; what publish returns is what every reader sees.
    assert manifest.body == {"metrics": {"rmse": 0.1, "nan": None}, "tags": ("é", None, True), "n": 10**15}
    assert before <= datetime.fromisoformat(manifest.created_at) <= datetime.now(timezone.utc)
    log.verify(manifest)
    assert open_log(log.store).get(ref("houses")) == manifest
    with pytest.raises(FrozenInstanceError):
        manifest.version = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        manifest.body["metrics"]["rmse"] = 1.0


def test_numbers_count_from_one_and_the_newest_lists_first(log: VersionLog) -> None:
    assert [publish(log, str(turn)).manifest.version for turn in range(12)] == list(range(1, 13))
    assert log.versions("houses") == tuple(range(12, 0, -1))
    assert log.top("houses") == 12
    assert log.get(ref("houses")).version == 12
    assert log.get(ref("houses@latest")).version == 12
    assert log.get(ref("houses@7")).version == 7
    assert publish(log, name="other").manifest.version == 1
    assert sorted(log.names()) == ["houses", "other"]


def test_no_two_versions_share_a_file(log: VersionLog) -> None:
    first, second = publish(log, "same").manifest, publish(log, "same").manifest
    assert first.content_digest == second.content_digest
    assert first.publish_id != second.publish_id
    log.store.delete([first.key_of("model.bin")])
    log.verify(second)


def test_a_version_may_have_no_files(log: VersionLog) -> None:
    manifest = publish(log, {}, body={"only": "facts"}).manifest
    assert log.get(ref("houses")) == manifest
    log.verify(manifest)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("houses@3", r"model 'houses' in .* has no version 3; versions: 2, 1"),
        ("houses@prodution", r"has no alias 'prodution'; did you mean 'production'\?; versions: 2, 1"),
        ("house", r"no model 'house' in .*; did you mean 'houses'\?"),
        ("zebra", r"no model 'zebra' in .*; known: houses"),
        ("zebra@4", r"no model 'zebra' in .*; known: houses"),
        ("zebra@production", r"no model 'zebra' in .*; known: houses"),
    ],
)
def test_what_is_not_there_is_not_found_and_says_what_is(log: VersionLog, reference: str, message: str) -> None:
    publish(log)
    publish(log)
    log.aliases.promote("houses", 1, "production")
    with pytest.raises(VersionNotFound, match=message):
        log.get(ref(reference))


def test_an_empty_store_says_so(log: VersionLog) -> None:
    assert list(log.names()) == []
    assert log.versions("houses") == ()
    assert log.top("houses") == 0
    assert log.aliases.all("houses") == {}
    with pytest.raises(VersionNotFound, match=r"no model 'houses' in .*; there is none yet"):
        log.get(ref("houses"))


def test_what_others_put_beside_is_no_name_and_no_alias(log: VersionLog) -> None:
    publish(log)
    log.aliases.promote("houses", 1, "production")
    for key in ("models/README.txt", "models/Not A Name/versions/x.json", "models/houses/aliases/.hidden/x"):
        log.store.put_if_absent(key, b"?")
    assert list(log.names()) == ["houses"]
    assert log.aliases.all("houses") == {"production": 1}


def test_what_others_put_among_the_records_is_told(log: VersionLog) -> None:
    publish(log)
    log.store.put_if_absent("models/houses/versions/notes.txt", b"?")
    with pytest.raises(
        IntegrityError, match=r"models/houses/versions/notes.txt is not a record of smkit.*move it away"
    ):
        log.versions("houses")


# --- what is refused before anything is written -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Houses", "../houses", "a/b", ".hidden", "x" * 64, "a@1"])
def test_a_name_that_breaks_the_rule_is_refused_everywhere(log: VersionLog, name: str) -> None:
    for call in (
        lambda: publish(log, name=name),
        lambda: log.get(Reference(name, 1)),
        lambda: log.get(Reference(name, "latest")),
        lambda: log.get(Reference(name, "production")),
        lambda: log.manifest(name, 1),
        lambda: log.versions(name),
        lambda: log.top(name),
        lambda: log.prune(name, 1),
        lambda: log.aliases.promote(name, 1, "production"),
        lambda: log.aliases.current(name, "production"),
        lambda: log.aliases.history(name, "production"),
        lambda: log.aliases.all(name),
    ):
        with pytest.raises(InvalidNameError, match="is not a model name"):
            call()
    assert list(log.store.scan("models")) == []


@pytest.mark.parametrize("version", [0, -1, 10**10, True, "1", 1.0])
def test_a_number_that_is_none_is_refused(log: VersionLog, version: Any) -> None:
    publish(log)
    for call in (
        lambda: log.manifest("houses", version),
        lambda: log.prune("houses", version),
        lambda: log.aliases.promote("houses", version, "production"),
    ):
        with pytest.raises(ConfigError, match="is not a number from 1 to 9999999999"):
            call()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a", "a"], "the file 'a' is listed twice"),
        (["a", "a/b"], "'a' is a file and the folder of 'a/b'"),
        (["a/b/c", "x", "a/b/c/d/e"], "'a/b/c' is a file and the folder of 'a/b/c/d/e'"),
        (["../a"], "'../a' is not a key"),
        (["/a"], "'/a' is not a key"),
        (["a//b"], "'a//b' is not a key"),
        (["caf\udce9"], "is not a key"),
    ],
)
def test_paths_that_could_not_lie_in_one_folder_are_refused(
    folder_log: VersionLog, paths: list[str], message: str
) -> None:
    files = [PendingFile(path, lambda: io.BytesIO(b"")) for path in paths]
    with pytest.raises((ConfigError, StorageError), match=message):
        folder_log.publish("houses", files, lambda stored: {}, content={}, reuse="never")
    assert not Path(folder_log.store.uri).exists()


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"x": object()}, "must be JSON .* object is not JSON serializable"),
        ({"x": {1: "a", "1": "b"}}, "cannot publish|must be JSON"),
        ({"x": "\udce9"}, "must be JSON .* surrogates not allowed"),
        ({"x": "a" * (17 << 20)}, r"has 17,8\d\d,\d\d\d bytes, at most 16,777,216 are allowed"),
        (nested(200), "nested more than 64 levels deep"),
        (nested(5000), "nested"),
    ],
    ids=["object", "two equal keys", "surrogate", "large", "deep", "very deep"],
)
def test_a_body_that_nobody_could_read_is_never_committed(
    folder_log: VersionLog, body: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        publish(folder_log, body=body)
    assert folder_log.versions("houses") == ()
    assert list(folder_log.store.scan()) == []
    assert publish(folder_log).manifest.version == 1


def test_a_reason_that_nobody_could_read_is_refused(log: VersionLog) -> None:
    publish(log)
    for why in ("\udce9", "a" * (17 << 20)):
        with pytest.raises(ConfigError):
            log.aliases.promote("houses", 1, "production", why=why)
        with pytest.raises(ConfigError):
            log.prune("houses", 1, why=why)
    assert log.aliases.all("houses") == {}
    assert log.versions("houses") == (1,)


def test_a_file_that_is_not_what_its_digest_says_is_refused(folder_log: VersionLog) -> None:
    files = [
        PendingFile("a", lambda: io.BytesIO(b"right")),
        PendingFile("b", lambda: io.BytesIO(b"changed"), Digest("0" * 64, 7)),
    ]
    with pytest.raises(IntegrityError, match="b changed between writing and publishing"):
        folder_log.publish("houses", files, lambda stored: {}, content={}, reuse="never")
    assert list(folder_log.store.scan()) == []


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt()], ids=repr)
def test_a_publish_that_fails_before_the_commit_leaves_nothing(log: VersionLog, failure: BaseException) -> None:
    def fail(*arguments: Any) -> Any:
        raise failure

    files = [PendingFile("a", lambda: io.BytesIO(b"x")), PendingFile("b", fail)]
    with pytest.raises(type(failure)):
        log.publish("houses", files, lambda stored: {}, content={}, reuse="never")
    with pytest.raises(type(failure)):
        log.publish("houses", files[:1], fail, content={}, reuse="never")
    assert list(log.store.scan()) == []


# --- reuse ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True])
def test_the_same_content_is_published_again_or_not(log: VersionLog, known: bool) -> None:
    assert publish(log, "a", known=known, reuse="latest").manifest.version == 1
    assert publish(log, "b", known=known, reuse="latest").manifest.version == 2
    again = publish(log, "b", known=known, reuse="latest", body={"ignored": True})
    assert (again.manifest.version, again.created) == (2, False)
    old = publish(log, "a", known=known, reuse="any")
    assert (old.manifest.version, old.created) == (1, False)
    assert publish(log, "a", known=known, reuse="latest").manifest.version == 3
    assert publish(log, "a", known=known, reuse="never").manifest.version == 4
    assert publish(log, "a", known=known, reuse="any", content={"schema": 2}).manifest.version == 5
    assert publish(log, "a", known=known, reuse="any", content={"schema": 2}).created is False
    assert publish(log, {"other.bin": b"a"}, known=known, reuse="any").created is True
    check_everything(log)
    # Nothing that was not published stays behind.
    assert len({info.key.split("/")[3] for info in log.store.scan("models/houses/data/")}) == 6


def test_known_content_is_found_before_anything_is_uploaded(log: VersionLog) -> None:
    publish(log, "a")
    uploads: list[str] = []
    hooked = open_log(HookedStore(log.store, lambda operation, key: uploads.append(operation)))
    assert publish(hooked, "a", known=True, reuse="any").created is False
    assert "upload" not in uploads
    assert "put" not in uploads


def test_the_body_is_made_of_what_was_stored(log: VersionLog) -> None:
    files = {"b": b"xyz", "a": b""}
    published = log.publish(
        "houses", pending(files), lambda stored: {"sizes": {f.path: f.size for f in stored}}, content={}, reuse="never"
    )
    assert published.manifest.body == {"sizes": {"a": 0, "b": 3}}
    assert published.manifest.files[1].sha256 == digest_of(io.BytesIO(b"xyz")).sha256


def test_a_pruned_version_is_not_reused(log: VersionLog) -> None:
    publish(log, "a")
    log.prune("houses", 1)
    for reuse in ("latest", "any"):
        assert publish(log, "a", reuse=reuse).manifest.version == 2


def test_a_damaged_version_is_not_reused_and_stops_nobody(log: VersionLog) -> None:
    publish(log, "a")
    key = publish(log, "b").manifest
    (manifest_key,) = [info.key for info in log.store.scan("models/houses/versions/") if info.key.endswith("8.json")]
    log.store.upload(manifest_key, io.BytesIO(b"{}"))
    with pytest.raises(IntegrityError):
        log.manifest("houses", key.version)
    assert publish(log, "b", reuse="any").manifest.version == 3
    assert publish(log, "a", reuse="any").manifest.version == 1


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("reuse", ["latest", "any"])
def test_of_two_publishers_of_the_same_content_one_makes_the_version(
    store: ObjectStore, known: bool, reuse: Reuse
) -> None:
    """The second publishes, whole, before each single operation of the first in turn."""
    steps = 0
    while True:
        steps += 1
        name = f"n{steps}"
        count = 0
        inner: list[Any] = []

        def interleave(
            operation: str, key: str, name: str = name, steps: int = steps, inner: list[Any] = inner
        ) -> None:
            nonlocal count
            count += 1
            if count == steps:
                inner.append(publish(open_log(store), "same", name=name, known=known, reuse=reuse))

        outer = publish(open_log(HookedStore(store, interleave)), "same", name=name, known=known, reuse=reuse)
        if not inner:
            break
        log = open_log(store)
        assert log.versions(name) == (1,), f"two versions, step {steps}"
        assert {outer.manifest.version, inner[0].manifest.version} == {1}
        # Who lost may say that nothing was created; who won says so.
        assert [outer.created, inner[0].created].count(True) == 1
        check_everything(log)
        assert len({info.key.split("/")[3] for info in store.scan(f"models/{name}/data/")}) == 1
    assert steps > 5


# --- many publishers at once ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sixteen_processes_publish_without_a_gap_and_without_a_loss(
    log: VersionLog, atomic_s3: str, aws_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The processes find the server by the environment, as every AWS client does.
    monkeypatch.setenv("AWS_ENDPOINT_URL", atomic_s3)
    processes, each = 16, 50
    publishers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.versioning.publisher", log.store.uri, f"p{number}", str(each)],
            cwd=TREE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for publisher in publishers:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "ready\n"
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    outputs = [publisher.communicate(timeout=500)[0] for publisher in publishers]
    assert [publisher.returncode for publisher in publishers] == [0] * processes
    acknowledged = {int(line): f"p{n}-{turn}" for n, out in enumerate(outputs) for turn, line in enumerate(out.split())}
    assert sorted(acknowledged) == list(range(1, processes * each + 1))
    assert log.versions("houses") == tuple(range(processes * each, 0, -1))
    for version, content in acknowledged.items():
        manifest = log.manifest("houses", version)
        (file,) = manifest.files
        assert read(log, manifest) == {"model.bin": content.encode()}
        assert file.sha256 == digest_of(io.BytesIO(content.encode())).sha256
    assert [info.key for info in log.store.scan("models/houses/segments/")] != []
    publish_ids = {summary.version: summary.publish_id for summary in log.summaries("houses")}
    assert sorted(publish_ids) == sorted(acknowledged)
    assert len(set(publish_ids.values())) == len(publish_ids)
    if log.store.local_path("models") is not None:  # on S3 it would only read all of it once more
        assert list(check(log, "houses", read_files=True)) == []


def test_eight_threads_publish_without_a_gap_and_without_a_loss(log: VersionLog) -> None:
    threads, each = 8, 3
    barrier = Barrier(threads)

    def work(number: int) -> dict[int, str]:
        barrier.wait(timeout=60)
        contents = [f"t{number}-{turn}" for turn in range(each)]
        return {publish(log, content).manifest.version: content for content in contents}

    with ThreadPoolExecutor(threads) as pool:
        acknowledged = {
            version: content for done in pool.map(work, range(threads)) for version, content in done.items()
        }
    assert sorted(acknowledged) == list(range(1, threads * each + 1))
    for version, content in acknowledged.items():
        assert read(log, log.manifest("houses", version)) == {"model.bin": content.encode()}
    check_everything(log)


def test_eight_threads_that_publish_the_same_make_one_version(log: VersionLog) -> None:
    barrier = Barrier(8)

    def work(number: int) -> tuple[int, bool]:
        barrier.wait(timeout=60)
        published = publish(log, "same", reuse="any")
        return published.manifest.version, published.created

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert sorted(results) == [(1, False)] * 7 + [(1, True)]
    assert log.versions("houses") == (1,)
    check_everything(log)


# --- a reply that is lost ---------------------------------------------------------------------------------------


def lossy(store: ObjectStore, part: str, *, times: int = 1, done: bool = True) -> HookedStore:
    """A store whose puts under `part` fail `times` times: after they were carried out, or instead."""
    left = times

    def fail(operation: str, key: str) -> None:
        nonlocal left
        if operation == "put" and part in key and left:
            left -= 1
            raise StorageError("the connection was lost")

    return HookedStore(store, after=fail) if done else HookedStore(store, before=fail)


@pytest.mark.parametrize("done", [True, False], ids=["reply lost", "request lost"])
def test_a_commit_that_is_lost_once_is_published_once(store: ObjectStore, done: bool) -> None:
    published = publish(open_log(lossy(store, "/versions/", done=done)))
    assert (published.manifest.version, published.created) == (1, True)
    log = open_log(store)
    assert log.versions("houses") == (1,)
    check_everything(log)


def test_a_commit_that_is_lost_for_good_is_whole_or_invisible(store: ObjectStore) -> None:
    with pytest.raises(StorageError, match="the connection was lost"):
        publish(open_log(lossy(store, "/versions/", times=2, done=False)))
    log = open_log(store)
    assert log.versions("houses") == ()
    with pytest.raises(StorageError, match="the connection was lost"):
        publish(open_log(lossy(store, "/versions/", times=2)))
    # Its files must not be tidied away: it is there.
    assert log.versions("houses") == (1,)
    check_everything(log)
    assert publish(log).manifest.version == 2


def test_a_promotion_whose_reply_is_lost_is_one_move(store: ObjectStore) -> None:
    log = open_log(store)
    publish(log)
    open_log(lossy(store, "/aliases/")).aliases.promote("houses", 1, "production")
    assert [move.version for move in log.aliases.history("houses", "production")] == [1]


@pytest.mark.parametrize("part", ["/prunes/", "/tombstones/"])
def test_a_prune_whose_reply_is_lost_is_done(store: ObjectStore, part: str) -> None:
    log = open_log(store)
    publish(log)
    open_log(lossy(store, part)).prune("houses", 1)
    assert log.versions("houses") == ()
    assert [info.key for info in store.scan("models/houses/data/")] == []


# --- verify and prune -------------------------------------------------------------------------------------------


def test_verify_names_every_file_that_is_wrong(log: VersionLog) -> None:
    manifest = publish(log, {"a": b"aaa", "b": b"bbb", "c": b"ccc", "d": b"ddd"}).manifest
    log.store.upload(manifest.key_of("a"), io.BytesIO(b"aaaa"))
    log.store.upload(manifest.key_of("b"), io.BytesIO(b"bbB"))
    log.store.delete([manifest.key_of("c")])
    with pytest.raises(IntegrityError) as caught:
        log.verify(manifest)
    assert str(caught.value).splitlines() == [
        "model houses@1 is damaged:",
        "  - a: 4 bytes instead of 3",
        "  - b: its bytes are not those that were published",
        "  - c: missing",
    ]


def test_a_pruned_version_is_gone_and_its_number_too(log: VersionLog) -> None:
    manifests = [publish(log, str(number)).manifest for number in range(3)]
    log.prune("houses", 3, why="it was trained on the wrong column")
    log.prune("houses", 1)
    assert log.versions("houses") == (2,)
    assert log.get(ref("houses")).version == 2
    with pytest.raises(
        VersionNotFound, match=r"model houses@3 was pruned by \S.* at 20.* \(it was trained on the wrong c.*versions: 2"
    ):
        log.get(ref("houses@3"))
    with pytest.raises(VersionNotFound, match="model houses@3 was pruned"):
        log.verify(manifests[2])
    with pytest.raises(VersionNotFound, match="model houses@1 was pruned"):
        log.aliases.promote("houses", 1, "production")
    tombstone = log.tombstone("houses", 3)
    assert tombstone is not None
    assert (tombstone.version, tombstone.why) == (3, "it was trained on the wrong column")
    assert log.tombstone("houses", 2) is None
    assert {info.key for info in log.store.scan("models/houses/data/")} == {manifests[1].key_of("model.bin")}
    assert publish(log, "new").manifest.version == 4
    log.prune("houses", 4)
    assert publish(log, "new").manifest.version == 5
    check_everything(log)


def test_when_all_versions_are_pruned_there_is_none(log: VersionLog) -> None:
    publish(log)
    log.prune("houses", 1)
    log.prune("houses", 1)
    assert log.versions("houses") == ()
    with pytest.raises(VersionNotFound, match="has no version; no version is left"):
        log.get(ref("houses"))
    with pytest.raises(VersionNotFound, match="has no version 2"):
        log.prune("houses", 2)


def test_a_version_that_an_alias_names_is_kept(log: VersionLog) -> None:
    publish(log)
    publish(log)
    log.aliases.promote("houses", 1, "production")
    log.aliases.promote("houses", 1, "staging")
    with pytest.raises(
        VersionInUse, match="model houses@1 is kept: the alias production, staging names it; promote an"
    ):
        log.prune("houses", 1)
    assert log.versions("houses") == (2, 1)
    assert [info.key for info in log.store.scan("models/houses/prunes/")] == []
    for alias in ("production", "staging"):
        log.aliases.promote("houses", 2, alias)
    log.prune("houses", 1)
    assert log.versions("houses") == (2,)


def test_what_a_dead_publish_left_is_never_seen(folder_log: VersionLog, folder_store: FolderStore) -> None:
    folder_store.upload("models/houses/data/" + "0" * 32 + "/model.bin", io.BytesIO(b"orphan"))
    assert list(folder_log.names()) == []
    assert publish(folder_log).manifest.version == 1
    assert len(data_folders(Path(folder_store.uri))) == 2
    check_everything(folder_log)
