"""Reading files: checked each time, cached by digest, all or nothing."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import IntegrityError, ObjectNotFound, StorageError
from smkit.versioning.cache import cache_folder
from smkit.versioning.reading import copy, copy_all, open_verified
from tests.faulty_proxy import CutBody, FaultyProxy
from tests.versioning.helpers import open_log, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.storage import FolderStore, ObjectStore
    from smkit.storage.s3 import S3Store
    from smkit.versioning import Manifest, StoredFile, VersionLog

FILES = {"train/a.bin": b"aaa", "train/b.bin": b"b" * 3_000_000, "test/a.bin": b"", "test/deep/c.bin": b"ccc"}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "smkit" / "objects"


@pytest.fixture
def log(store: ObjectStore) -> VersionLog:
    return open_log(store)


@pytest.fixture
def manifest(log: VersionLog) -> Manifest:
    return publish(log, FILES).manifest


def files_under(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() for name, path in found.items() if path.is_file()}


def damage(log: VersionLog, manifest: Manifest, path: str, data: bytes = b"other bytes") -> None:
    log.store.upload(manifest.key_of(path), io.BytesIO(data))


def fetch(store: ObjectStore, manifest: Manifest, file: StoredFile) -> Path:
    """Read a file through; return where it lies on this machine."""
    with open_verified(store, manifest, file) as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == file.sha256
    return store.local_path(manifest.key_of(file.path)) or cache_folder() / file.sha256[:2] / file.sha256


# --- open_verified ----------------------------------------------------------------------------------------------------


def test_a_file_is_fetched(log: VersionLog, manifest: Manifest) -> None:
    for file in manifest.files:
        assert fetch(log.store, manifest, file).read_bytes() == FILES[file.path]


def test_a_folders_file_is_read_where_it_lies(folder_store: FolderStore, cache: Path) -> None:
    log = open_log(folder_store)
    manifest = publish(log).manifest
    assert fetch(folder_store, manifest, manifest.files[0]) == folder_store.local_path(manifest.key_of("model.bin"))
    assert not cache.exists()


@pytest.mark.parametrize("data", [b"other bytes", b"", b"aab", b"aaaa", b"a" * 100_000])
def test_damaged_bytes_are_never_handed_out(log: VersionLog, manifest: Manifest, cache: Path, data: bytes) -> None:
    file = next(file for file in manifest.files if file.path == "train/a.bin")
    damage(log, manifest, "train/a.bin", data)
    with pytest.raises(IntegrityError, match=r"train/a.bin of models houses@1 is damaged"):
        fetch(log.store, manifest, file)
    assert not cache.exists() or files_under(cache) == {}


def test_a_file_that_is_gone_is_not_found(log: VersionLog, manifest: Manifest, cache: Path) -> None:
    log.store.delete([manifest.key_of("train/a.bin")])
    file = next(file for file in manifest.files if file.path == "train/a.bin")
    with pytest.raises(ObjectNotFound):
        fetch(log.store, manifest, file)
    assert not cache.exists() or files_under(cache) == {}


class Remote:
    """A published file of S3 behind a proxy that counts and fails."""

    def __init__(self, store: S3Store, proxy: FaultyProxy) -> None:
        self.store, self.proxy = store, proxy
        self.log = open_log(store)
        self.manifest = publish(self.log, {"model.bin": b"x" * 2_500_000}).manifest
        self.file = self.manifest.files[0]

    def fetch(self) -> Path:
        return fetch(self.store, self.manifest, self.file)

    def downloads(self) -> int:
        return self.proxy.count("GET", "/data/")


@pytest.fixture
def remote(proxied: S3Store, proxy: FaultyProxy, no_backoff: None) -> Remote:
    return Remote(proxied, proxy)


def test_a_file_of_s3_is_downloaded_once(remote: Remote, cache: Path) -> None:
    path = remote.fetch()
    assert path == cache / remote.file.sha256[:2] / remote.file.sha256
    assert path.read_bytes() == b"x" * 2_500_000
    assert remote.fetch() == path
    assert remote.downloads() == 1
    # The same content under another name is the same file.
    other = publish(remote.log, {"other.bin": b"x" * 2_500_000}, name="other").manifest
    assert fetch(remote.store, other, other.files[0]) == path
    assert remote.downloads() == 1


@pytest.mark.parametrize("data", [b"", b"y" * 2_500_000, b"x" * 2_499_999, b"x" * 2_500_001])
def test_a_damaged_copy_in_the_cache_is_replaced(remote: Remote, data: bytes) -> None:
    path = remote.fetch()
    path.write_bytes(data)
    assert remote.fetch().read_bytes() == b"x" * 2_500_000
    assert remote.downloads() == 2


def test_a_dropped_download_goes_on(remote: Remote) -> None:
    remote.proxy.add(CutBody(1_000_000), method="GET", path="/data/")
    assert remote.fetch().read_bytes() == b"x" * 2_500_000


def test_a_download_that_fails_leaves_nothing_in_the_cache(remote: Remote, cache: Path) -> None:
    remote.proxy.add(CutBody(0, reset=False), method="GET", path="/data/", times=100)
    with pytest.raises(StorageError, match="the connection kept dropping"):
        remote.fetch()
    assert files_under(cache) == {}


def test_a_cache_that_cannot_be_made(remote: Remote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        StorageError, match=r"cannot write .*/file/smkit/objects/.*; it is in the cache.* XDG_CACHE_HOME"
    ):
        remote.fetch()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_cache_that_may_not_be_written_to(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o555)
    with pytest.raises(StorageError, match=r"Permission denied; it is in the cache of downloads: make it writable, or"):
        remote.fetch()


def test_a_copy_in_the_cache_that_may_not_be_read_is_replaced(remote: Remote) -> None:
    path = remote.fetch()
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read any file")
    assert remote.fetch().read_bytes() == b"x" * 2_500_000


def test_a_folder_in_the_place_of_the_copy_is_told(remote: Remote, cache: Path) -> None:
    (cache / remote.file.sha256[:2] / remote.file.sha256 / "x").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"Is a directory; it is in the cache of downloads"):
        remote.fetch()


def test_the_cache_is_where_the_desktop_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / ".cache" / "smkit" / "objects"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/x")
    assert cache_folder() == Path("/var/cache/x/smkit/objects")


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(StorageError, match="no home folder to keep a cache in; set XDG_CACHE_HOME"):
        cache_folder()


READER = """
import sys
from smkit import Settings
from smkit.naming import parse_reference
from smkit.storage import open_store
from smkit.versioning import VersionLog
from smkit.versioning.cache import cache_folder
from smkit.versioning.reading import open_verified

log = VersionLog(open_store(Settings(root=sys.argv[1])), "models", "model")
manifest = log.get(parse_reference("houses", "model"))
for turn in range(10):
    file = manifest.files[0]
    with open_verified(log.store, manifest, file) as stream:
        assert stream.read() == b"z" * 1_000_000
    path = cache_folder() / file.sha256[:2] / file.sha256
    if turn % 3 == int(sys.argv[2]) % 3:
        path.unlink(missing_ok=True)
print("done")
"""


def test_many_processes_share_the_cache(
    s3_store: S3Store, atomic_s3: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(open_log(s3_store), {"model.bin": b"z" * 1_000_000})
    monkeypatch.setenv("AWS_ENDPOINT_URL", atomic_s3)
    command = [sys.executable, "-c", READER, s3_store.uri]
    readers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(4)]
    outputs = [reader.communicate(timeout=120)[0] for reader in readers]
    assert outputs == ["done\n"] * 4
    assert not [name for name in files_under(cache) if ".smkit-tmp-" in name]


# --- copy -------------------------------------------------------------------------------------------------------


def test_a_copy_appears_whole(log: VersionLog, manifest: Manifest, tmp_path: Path) -> None:
    for file in manifest.files:
        copy(log.store, manifest, file, tmp_path / "out" / file.path)
    assert files_under(tmp_path / "out") == FILES


def test_a_copy_that_fails_leaves_the_target_as_it_was(log: VersionLog, manifest: Manifest, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.bin"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    damage(log, manifest, "train/a.bin")
    file = next(file for file in manifest.files if file.path == "train/a.bin")
    with pytest.raises(IntegrityError):
        copy(log.store, manifest, file, target)
    assert files_under(tmp_path / "out") == {"a.bin": b"mine"}


# --- copy_all ---------------------------------------------------------------------------------------------------


def test_all_files_are_copied(log: VersionLog, manifest: Manifest, tmp_path: Path) -> None:
    copy_all(log.store, manifest, tmp_path / "new" / "out")
    assert files_under(tmp_path / "new" / "out") == FILES
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == ["test", "train"]


@pytest.mark.parametrize("under", ["train", "train/"])
def test_the_files_of_one_folder_are_copied(log: VersionLog, manifest: Manifest, tmp_path: Path, under: str) -> None:
    copy_all(log.store, manifest, tmp_path / "out", under=under)
    assert files_under(tmp_path / "out") == {"a.bin": FILES["train/a.bin"], "b.bin": FILES["train/b.bin"]}


@pytest.mark.parametrize("under", ["tra", "nothing/", "train/a.bin"])
def test_a_part_of_a_name_is_no_folder(log: VersionLog, manifest: Manifest, tmp_path: Path, under: str) -> None:
    copy_all(log.store, manifest, tmp_path / "out", under=under)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_replaced_or_left_alone(log: VersionLog, manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "train").mkdir(parents=True)
    (out / "train" / "a.bin").write_bytes(b"old")
    (out / "mine.txt").write_bytes(b"mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not to be written through")
    (out / "train" / "b.bin").symlink_to(elsewhere)
    copy_all(log.store, manifest, out)
    assert files_under(out) == {**FILES, "mine.txt": b"mine"}
    assert elsewhere.read_bytes() == b"not to be written through"


FAILURES: dict[str, Callable[[VersionLog, Manifest, Path], None]] = {
    "a damaged file": lambda log, manifest, out: damage(log, manifest, "train/b.bin"),
    "a missing file": lambda log, manifest, out: log.store.delete([manifest.key_of("train/a.bin")]),
    "a folder in the way": lambda log, manifest, out: (out / "train" / "b.bin" / "x").mkdir(parents=True),
    "a file in the way": lambda log, manifest, out: (out / "train").symlink_to(__file__),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_the_folder_as_it_was(
    log: VersionLog, manifest: Manifest, tmp_path: Path, failure: str, existing: bool
) -> None:
    out = tmp_path / "some" / "out"
    if existing:
        (out / "test" / "deep").mkdir(parents=True)
        (out / "test" / "a.bin").write_bytes(b"old")
        (out / "test" / "deep" / "mine.txt").write_bytes(b"mine")
    if "in the way" in failure:
        out.mkdir(parents=True, exist_ok=True)
    FAILURES[failure](log, manifest, out)
    before = sorted((str(path), path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))
    with pytest.raises((IntegrityError, StorageError)):
        copy_all(log.store, manifest, out)
    assert sorted((str(path), path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("step", range(12))
def test_a_move_that_fails_is_undone(
    folder_store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The disk fails at one rename, whichever it is."""
    log = open_log(folder_store)
    manifest = publish(log, FILES).manifest
    out = tmp_path / "out"
    copy_all(log.store, publish(log, dict.fromkeys(FILES, b"old")).manifest, out)
    (out / "test" / "a.bin").unlink()
    before = files_under(out)
    original, count = Path.replace, 0

    def replace(source: Path, target: Any) -> Path:
        nonlocal count
        count += 1
        if count == step + 1:
            raise OSError(5, "Input/output error")
        return original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        if step < 11:
            with pytest.raises(StorageError, match=r"cannot write .*/out.*Input/output error"):
                copy_all(log.store, manifest, out)
            assert files_under(out) == before
        else:
            copy_all(log.store, manifest, out)
            assert files_under(out) == FILES
            assert count == 11


def test_many_downloads_into_one_folder_at_once_end_whole(log: VersionLog, manifest: Manifest, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        copies = [
            pool.submit(copy, log.store, manifest, file, tmp_path / "out" / file.path) for file in manifest.files * 4
        ]
    for done in copies:
        done.result()
    assert files_under(tmp_path / "out") == FILES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_target_that_may_not_be_written_to(folder_store: FolderStore, tmp_path: Path) -> None:
    log = open_log(folder_store)
    manifest = publish(log).manifest
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(StorageError, match=r"cannot write .*/out: Permission denied"):
        copy_all(log.store, manifest, tmp_path / "out")
    with pytest.raises(StorageError, match=r"cannot write .*/out/x: Permission denied"):
        copy(log.store, manifest, manifest.files[0], tmp_path / "out" / "x")
