"""The cache of downloads: bounded, shared, checked; and what can be read again without the network."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from smkit.errors import (
    IntegrityError,
    ObjectNotFound,
    OfflineWarning,
    StorageError,
    StoreUnreachable,
    VersionNotFound,
)
from smkit.naming import Reference
from smkit.storage.s3 import S3Store
from smkit.versioning import cache as cache_module
from smkit.versioning.cache import evict
from smkit.versioning.reading import open_verified
from tests.faulty_proxy import Answer, CutBody, FaultyProxy
from tests.storage.fixtures import make_client
from tests.versioning.helpers import open_log, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.storage import FolderStore, ObjectStore
    from smkit.versioning import Manifest, VersionLog

TREE = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "smkit" / "objects"


def kept(cache: Path) -> dict[str, int]:
    """The files of the cache by name, with their sizes."""
    return {path.name: path.stat().st_size for path in cache.rglob("*") if path.is_file()}


class Remote:
    """A version of S3 with ten files of 1,000 bytes, behind a proxy that counts and fails."""

    def __init__(self, store: S3Store, proxy: FaultyProxy) -> None:
        self.store, self.proxy = store, proxy
        self.log = open_log(store)
        self.manifest = publish(self.log, {f"{n}.bin": bytes([n]) * 1000 for n in range(10)}).manifest

    def open(self, number: int, *, max_bytes: int = 1 << 20) -> BinaryIO:
        return open_verified(self.store, self.manifest, self.manifest.files[number], max_bytes=max_bytes)

    def read(self, number: int, *, max_bytes: int = 1 << 20) -> bytes:
        with self.open(number, max_bytes=max_bytes) as stream:
            return stream.read()

    def digest(self, number: int) -> str:
        return self.manifest.files[number].sha256

    def downloads(self) -> int:
        return self.proxy.count("GET", "/data/")


@pytest.fixture
def remote(proxied: S3Store, proxy: FaultyProxy, no_backoff: None) -> Remote:
    return Remote(proxied, proxy)


# --- open_verified ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [1 << 20, 10], ids=["cached", "larger than the cache"])
def test_a_file_is_a_stream_that_can_seek(store: ObjectStore, max_bytes: int) -> None:
    log = open_log(store)
    manifest = publish(log, {"a.bin": b"0123456789" * 10, "empty.bin": b""}).manifest
    for file, data in zip(manifest.files, (b"0123456789" * 10, b""), strict=True):
        with open_verified(store, manifest, file, max_bytes=max_bytes) as stream:
            assert stream.tell() == 0
            assert stream.seekable()
            assert stream.read() == data
            stream.seek(3)
            assert stream.read(4) == data[3:7]
            assert stream.seek(0, io.SEEK_END) == len(data)
        assert stream.closed


@pytest.mark.parametrize("max_bytes", [1 << 20, 10], ids=["cached", "larger than the cache"])
@pytest.mark.parametrize("data", [b"other bytes", b"", b"x" * 99, b"x" * 101, b"y" + b"x" * 99])
def test_damaged_bytes_are_never_handed_out(store: ObjectStore, cache: Path, data: bytes, max_bytes: int) -> None:
    log = open_log(store)
    manifest = publish(log, {"a.bin": b"x" * 100}).manifest
    store.upload(manifest.key_of("a.bin"), io.BytesIO(data))
    with pytest.raises(IntegrityError, match=r"a.bin of models houses@1 is damaged"):
        open_verified(store, manifest, manifest.files[0], max_bytes=max_bytes)
    assert kept(cache) == {}


def test_a_file_that_is_gone_is_not_found(store: ObjectStore) -> None:
    log = open_log(store)
    manifest = publish(log).manifest
    store.delete([manifest.key_of("model.bin")])
    with pytest.raises(ObjectNotFound):
        open_verified(store, manifest, manifest.files[0])


def test_what_was_checked_is_what_is_read(remote: Remote, cache: Path) -> None:
    """By another opening of the same name the bytes could be others."""
    remote.read(0)
    with remote.open(0) as stream:
        path = cache / remote.digest(0)[:2] / remote.digest(0)
        path.unlink()
        path.write_bytes(b"evil")
        assert stream.read() == b"\0" * 1000


def test_a_damaged_copy_is_downloaded_again(remote: Remote, cache: Path) -> None:
    remote.read(0)
    path = cache / remote.digest(0)[:2] / remote.digest(0)
    for data in (b"", b"\0" * 999, b"\0" * 999 + b"x", b"\0" * 1001):
        path.write_bytes(data)
        assert remote.read(0) == b"\0" * 1000
    assert remote.downloads() == 5
    assert path.read_bytes() == b"\0" * 1000


@pytest.mark.parametrize("max_bytes", [1 << 20, 10])
def test_a_dropped_download_goes_on_or_leaves_nothing(remote: Remote, cache: Path, max_bytes: int) -> None:
    remote.proxy.add(CutBody(300), method="GET", path="/data/")
    assert remote.read(0, max_bytes=max_bytes) == b"\0" * 1000
    remote.proxy.add(CutBody(0, reset=False), method="GET", path="/data/", times=100)
    with pytest.raises(StorageError, match="kept dropping"):
        remote.read(1, max_bytes=max_bytes)
    assert set(kept(cache)) <= {remote.digest(0)}


# --- the bound --------------------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first(remote: Remote, cache: Path) -> None:
    for number in range(3):
        remote.read(number, max_bytes=3000)
        # Older by a second each time, so that no coarse clock makes two equal.
        for path in cache.rglob("*"):
            if path.is_file():
                used = path.stat().st_mtime - 1
                os.utime(path, (used, used))
    assert set(kept(cache)) == {remote.digest(number) for number in (0, 1, 2)}
    remote.read(0, max_bytes=3000)
    assert remote.downloads() == 3
    remote.read(3, max_bytes=3000)
    assert set(kept(cache)) == {remote.digest(number) for number in (0, 2, 3)}
    remote.read(4, max_bytes=3999)
    assert set(kept(cache)) == {remote.digest(number) for number in (0, 3, 4)}


def test_the_bound_holds_after_each_insertion(remote: Remote, cache: Path) -> None:
    for turn in range(30):
        assert remote.read(turn * 7 % 10, max_bytes=2500) == bytes([turn * 7 % 10]) * 1000
        assert sum(kept(cache).values()) <= 2500


def test_a_smaller_bound_takes_effect_with_the_next_insertion(remote: Remote, cache: Path) -> None:
    for number in range(9):
        remote.read(number)
    remote.read(9, max_bytes=1000)
    assert set(kept(cache)) == {remote.digest(9)}


def test_a_file_larger_than_the_bound_is_not_kept(remote: Remote, cache: Path) -> None:
    remote.read(0, max_bytes=1000)
    with remote.open(1, max_bytes=999) as stream:
        assert kept(cache) == {remote.digest(0): 1000}
        assert stream.read() == b"\1" * 1000
    assert remote.read(1, max_bytes=999) == b"\1" * 1000
    assert remote.downloads() == 3


def test_a_file_that_is_evicted_stays_readable(remote: Remote, cache: Path) -> None:
    with remote.open(0, max_bytes=1000) as first:
        first.read(10)
        with remote.open(1, max_bytes=1000) as second:
            assert set(kept(cache)) == {remote.digest(1)}
            assert first.read() == b"\0" * 990
            assert second.read() == b"\1" * 1000


def test_downloads_that_died_are_removed_after_a_day(remote: Remote, cache: Path) -> None:
    remote.read(0)
    dead, young = cache / "ab" / ".smkit-tmp-1", cache / "ab" / ".smkit-tmp-2"
    dead.parent.mkdir()
    for path in (dead, young):
        path.write_bytes(b"x" * 5000)
    then = time.time() - 25 * 3600
    os.utime(dead, (then, then))
    remote.read(1, max_bytes=2000)
    # The young one belongs to somebody; it does not count, so nothing else has to go for it.
    assert set(kept(cache)) == {remote.digest(0), remote.digest(1), young.name}


def test_what_cannot_be_removed_is_skipped(
    remote: Remote, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        remote.read(number)
        time.sleep(0.02)
    original = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == remote.digest(0):
            raise PermissionError(13, "Permission denied")
        original(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    evict(2000)
    assert set(kept(cache)) == {remote.digest(0), remote.digest(2)}
    assert "cannot be removed from the cache of downloads: Permission denied" in caplog.text


def test_nothing_else_in_the_folder_is_touched(remote: Remote, cache: Path) -> None:
    other = cache.parent / "somebody-elses.bin"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"x" * 10_000)
    remote.read(0, max_bytes=1000)
    assert other.exists()


@pytest.mark.slow
def test_eight_processes_share_a_tiny_cache(
    s3_store: S3Store, atomic_s3: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(open_log(s3_store), {f"f{n}": f"f{n}".encode() * 20_000 for n in range(6)})
    monkeypatch.setenv("AWS_ENDPOINT_URL", atomic_s3)
    command = [sys.executable, "-m", "tests.versioning.cache_reader", s3_store.uri]
    bound = 100_000
    readers = [
        subprocess.Popen([*command, str(n), str(bound)], cwd=TREE, stdout=subprocess.PIPE, text=True) for n in range(8)
    ]
    outputs = [reader.communicate(timeout=120)[0] for reader in readers]
    assert outputs == ["done\n"] * 8
    found = kept(cache)
    assert not [name for name in found if name.startswith(".smkit-")]
    assert 0 < sum(found.values()) <= bound


# --- offline ----------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(s3_uri: str) -> Iterator[VersionLog]:
    """The log of the same store, where nobody answers."""
    client = make_client("http://127.0.0.1:9", connect_timeout=1)
    yield open_log(S3Store(s3_uri, lambda: client))
    client.close()


@pytest.fixture
def online(s3_store: S3Store) -> VersionLog:
    log = open_log(s3_store)
    for number in range(3):
        publish(log, f"content {number}")
    return log


def get_offline(log: VersionLog, version: int) -> Manifest:
    with pytest.warns(OfflineWarning, match=rf"model houses@{version} is taken from the cache") as caught:
        manifest = log.get(Reference("houses", version))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return manifest


@pytest.mark.usefixtures("no_backoff")
def test_a_version_that_was_read_before_is_read_again_offline(online: VersionLog, offline: VersionLog) -> None:
    manifest = online.get(Reference("houses", 2))
    with open_verified(online.store, manifest, manifest.files[0]) as stream:
        assert stream.read() == b"content 1"
    found = get_offline(offline, 2)
    assert found == manifest
    with open_verified(offline.store, found, found.files[0]) as stream:
        assert stream.read() == b"content 1"
    with pytest.raises(StoreUnreachable, match="check the network"):
        offline.get(Reference("houses", 1))


@pytest.mark.usefixtures("no_backoff")
def test_what_latest_or_an_alias_named_is_found_by_its_number(online: VersionLog, offline: VersionLog) -> None:
    online.aliases.promote("houses", 1, "production")
    online.get(Reference("houses", "latest"))
    online.get(Reference("houses", "production"))
    for version in ("latest", "production"):
        with pytest.raises(
            StoreUnreachable,
            match=rf"what houses@{version} names can be told only by the store.* exact version.*houses@3.*here: 3, 1",
        ):
            offline.get(Reference("houses", version))
    assert get_offline(offline, 3) == online.manifest("houses", 3)
    assert get_offline(offline, 1) == online.manifest("houses", 1)


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(
    "notice",
    [
        lambda log: log.get(Reference("houses", 2)),
        lambda log: log.versions("houses"),
        lambda log: log.get(Reference("houses", "latest")),
    ],
    ids=["get", "versions", "latest"],
)
def test_a_version_that_was_seen_as_pruned_stays_pruned(
    online: VersionLog, offline: VersionLog, s3_client: object, s3_uri: str, notice: object
) -> None:
    online.get(Reference("houses", 2))
    # By a log that knows nothing of this machine's cache.
    original = cache_module.ManifestCache.forget
    try:
        cache_module.ManifestCache.forget = lambda *arguments: None  # type: ignore[method-assign]
        online.prune("houses", 2)
    finally:
        cache_module.ManifestCache.forget = original  # type: ignore[method-assign]
    get_offline(offline, 2)
    assert callable(notice)
    try:
        notice(online)
    except VersionNotFound as error:
        assert "was pruned" in str(error)  # noqa: PT017 - the other ways do not raise
    with pytest.raises(StoreUnreachable):
        offline.get(Reference("houses", 2))


@pytest.mark.usefixtures("no_backoff")
def test_who_prunes_a_version_forgets_it(online: VersionLog, offline: VersionLog) -> None:
    online.get(Reference("houses", 2))
    online.prune("houses", 2)
    with pytest.raises(StoreUnreachable):
        offline.get(Reference("houses", 2))


@pytest.mark.parametrize(
    ("answer", "message"),
    [(Answer(403, "AccessDenied"), "AccessDenied"), (Answer(503, "SlowDown"), "SlowDown")],
    ids=repr,
)
def test_a_store_that_answers_is_believed(remote: Remote, answer: Answer, message: str) -> None:
    remote.log.get(Reference("houses", 1))
    remote.proxy.add(answer, method="GET", times=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StorageError, match=message):
            remote.log.get(Reference("houses", 1))


def test_a_version_that_is_not_there_is_not_found_in_the_cache(online: VersionLog) -> None:
    online.get(Reference("houses", 2))
    online.store.delete(["models/houses/versions/9999999998.json"])
    with pytest.raises(VersionNotFound):
        online.get(Reference("houses", 2))


@pytest.mark.usefixtures("no_backoff")
def test_another_store_kind_or_name_is_another_version(online: VersionLog, offline: VersionLog, cache: Path) -> None:
    online.get(Reference("houses", 2))
    client = make_client("http://127.0.0.1:9", connect_timeout=1)
    with pytest.raises(StoreUnreachable):
        open_log(S3Store(f"{online.store.uri}-2", lambda: client)).get(Reference("houses", 2))
    client.close()
    (kept_manifest,) = (cache.parent / "manifests").rglob("*.json")
    other = kept_manifest.parent.parent / "cars" / "2.json"
    other.parent.mkdir()
    other.write_bytes(kept_manifest.read_bytes())
    with pytest.raises(StoreUnreachable):
        offline.get(Reference("cars", 2))


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("data", [b"", b"{}\n", b" " * (17 << 20)], ids=["empty", "no record", "too large"])
def test_a_damaged_manifest_is_not_used_and_made_anew(
    online: VersionLog, offline: VersionLog, cache: Path, data: bytes
) -> None:
    online.get(Reference("houses", 2))
    (kept_manifest,) = (cache.parent / "manifests").rglob("*.json")
    intact = kept_manifest.read_bytes()
    for damaged in (data, intact.replace(b'"size": 9', b'"size": 8')):
        kept_manifest.write_bytes(damaged)
        with pytest.raises(StoreUnreachable):
            offline.get(Reference("houses", 2))
    online.get(Reference("houses", 2))
    assert kept_manifest.read_bytes() == intact
    get_offline(offline, 2)


@pytest.mark.usefixtures("no_backoff")
def test_nothing_is_decided_offline(online: VersionLog, offline: VersionLog) -> None:
    """A promotion, a prune or a publish that went by the cache could act on what is long gone."""
    for number in (1, 2, 3):
        online.get(Reference("houses", number))
    for call in (
        lambda: offline.aliases.promote("houses", 2, "production"),
        lambda: offline.aliases.rollback("houses", "production"),
        lambda: offline.prune("houses", 2),
        lambda: offline.manifest("houses", 2),
        lambda: offline.versions("houses"),
        lambda: offline.summaries("houses"),
        lambda: publish(offline, "content 1", reuse="any"),
        lambda: offline.verify(online.manifest("houses", 2)),
    ):
        with pytest.raises(StoreUnreachable):
            call()


def test_a_folder_store_keeps_no_manifest(folder_store: FolderStore, cache: Path) -> None:
    log = open_log(folder_store)
    publish(log)
    log.get(Reference("houses", 1))
    assert not cache.parent.exists()


def test_a_cache_that_cannot_be_written_fails_nothing(
    online: VersionLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert online.get(Reference("houses", 2)).version == 2
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert online.get(Reference("houses", 2)).version == 2
    assert online.versions("houses") == (3, 2, 1)
    online.prune("houses", 1)


def test_manifests_count_and_go_like_files(remote: Remote, cache: Path) -> None:
    remote.log.get(Reference("houses", 1))
    (kept_manifest,) = (cache.parent / "manifests").rglob("*.json")
    os.utime(kept_manifest, (0, 0))
    for number in range(3):
        remote.read(number, max_bytes=2000)
    assert not kept_manifest.exists()
