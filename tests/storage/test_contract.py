"""One contract, two stores."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smkit.config import Settings
from smkit.errors import ObjectNotFound, StorageError
from smkit.storage import FolderStore, ObjectStore, open_store
from smkit.storage.base import digest_of, is_key
from smkit.storage.s3 import S3Store
from tests.storage.fixtures import Unseekable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 1 << 20


class Stream(Unseekable):
    """Bytes that are made as they are read, fewer than asked for, from a stream that cannot seek.

    It remembers how it was read.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size
        self.sha256 = hashlib.sha256()
        self.given = 0
        self.largest_request = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            assert not self._left, "the whole stream was asked for at once"
            return b""
        self.largest_request = max(self.largest_request, size)
        size = min(size, 1_000_000)
        # An odd rhythm, so that no part starts like another.
        data = (b"%07d" % self._left * (size // 7 + 1))[: min(size, self._left)]
        self._left -= len(data)
        self.given += len(data)
        self.sha256.update(data)
        return data


# --- put_if_absent ----------------------------------------------------------------------------------------------


def test_the_first_put_wins_and_the_second_changes_nothing(store: ObjectStore) -> None:
    assert store.put_if_absent("a/b", b"first") is True
    assert store.put_if_absent("a/b", b"second") is False
    assert store.get("a/b", max_bytes=100) == b"first"
    assert [info.key for info in store.scan()] == ["a/b"]


def test_of_eight_threads_exactly_one_gets_each_key(store: ObjectStore) -> None:
    rounds, threads = 10, 8
    barrier = Barrier(threads)

    def race(number: int) -> list[int]:
        won = []
        for key in range(rounds):
            barrier.wait(timeout=60)
            if store.put_if_absent(f"race/{key}", str(number).encode()):
                won.append(key)
        return won

    with ThreadPoolExecutor(threads) as pool:
        wins = list(pool.map(race, range(threads)))
    assert sorted(key for won in wins for key in won) == list(range(rounds))
    for number, won in enumerate(wins):
        for key in won:
            assert store.get(f"race/{key}", max_bytes=10) == str(number).encode()


def test_of_eight_processes_exactly_one_gets_each_key(folder_store: FolderStore) -> None:
    keys = 40
    command = [sys.executable, str(Path(__file__).with_name("racer.py")), folder_store.uri]
    racers = [
        subprocess.Popen([*command, str(n), str(keys)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 8
    assert sorted(int(line) for output in outputs for line in output.split()) == list(range(keys))
    for number, output in enumerate(outputs):
        for key in output.split():
            assert folder_store.get(f"race/{key}", max_bytes=10) == str(number).encode()


# --- upload, get, open ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB + 1, 20 * MIB, 35 * MIB + 3], ids=lambda size: f"{size} bytes")
def test_an_upload_of_any_size_has_its_digest(store: ObjectStore, size: int) -> None:
    source = Stream(size)
    digest = store.upload("data/x.bin", source)
    assert digest[:2] == (source.sha256.hexdigest(), size)
    assert source.largest_request <= 16 * MIB
    with store.open("data/x.bin") as stream:
        assert digest_of(stream) == digest
    (info,) = store.scan("data/")
    assert (info.key, info.size) == ("data/x.bin", size)
    assert abs(info.modified - datetime.now(timezone.utc)) < timedelta(minutes=5)


def test_an_upload_of_a_file_starts_where_the_file_stands(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(4)
        digest = store.upload("x", file)
    assert digest[:2] == (hashlib.sha256(b"456789").hexdigest(), 6)
    assert store.get("x", max_bytes=10) == b"456789"


def test_an_upload_replaces(store: ObjectStore) -> None:
    store.upload("a", io.BytesIO(b"old and longer"))
    store.upload("a", io.BytesIO(b"new"))
    assert store.get("a", max_bytes=10) == b"new"


def test_a_source_that_cannot_be_read_is_not_called_a_store_that_cannot_be_written(store: ObjectStore) -> None:
    class Broken(Unseekable):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="cannot read what is to be stored: Input/output error") as caught:
        store.upload("a/b", Broken())
    assert caught.value.errno == 5
    assert list(store.scan()) == []


def test_get_refuses_what_is_larger_than_its_limit(store: ObjectStore) -> None:
    store.put_if_absent("a", b"x" * 1000)
    assert store.get("a", max_bytes=1000) == b"x" * 1000
    with pytest.raises(StorageError, match="a is larger than the 999 bytes"):
        store.get("a", max_bytes=999)


def test_a_stream_is_read_in_any_way(store: ObjectStore) -> None:
    data = bytes(range(256)) * 10_000
    store.upload("a", io.BytesIO(data))
    with store.open("a") as stream:
        assert stream.readable()
        assert stream.read(3) == data[:3]
        assert stream.read(2 * MIB) == data[3 : 2 * MIB + 3]
        assert stream.read() == data[2 * MIB + 3 :]
        assert stream.read(1) == b""
    with store.open("a") as stream:
        assert b"".join(iter(lambda: stream.read(99_999), b"")) == data
    with store.open("a") as stream:
        assert stream.read() == data


def test_an_empty_object_is_read_as_such(store: ObjectStore) -> None:
    store.put_if_absent("a", b"")
    assert store.get("a", max_bytes=0) == b""
    with store.open("a") as stream:
        assert stream.read() == b""


@pytest.mark.parametrize("key", ["a", "a/b/c", "a/b.txt/c", "a/b"], ids=str)
def test_what_is_not_there_is_not_found(store: ObjectStore, key: str) -> None:
    store.put_if_absent("a/b.txt", b"")
    store.put_if_absent("a/b/d", b"")
    with pytest.raises(ObjectNotFound, match="no such object") as caught:
        store.get(key, max_bytes=10)
    assert str(caught.value).endswith(f"/{key}'")
    with pytest.raises(ObjectNotFound):
        store.open(key)


# --- scan, children, delete: two stores against a dict ----------------------------------------------------------

PARTS = st.text(st.sampled_from("ab-./0 ~+%&é中😀".replace("/", "")), min_size=1, max_size=3).filter(is_key)
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def without_folders(keys: Iterable[str]) -> set[str]:
    """The keys of which none is the folder of another."""
    found = set(keys)
    return {key for key in found if not any(other.startswith(f"{key}/") for other in found)}


@pytest.fixture
def empty_pair(tmp_path: Path, s3_uri: str, s3_client: Any) -> Callable[[], list[ObjectStore]]:
    def make() -> list[ObjectStore]:
        name = uuid.uuid4().hex
        return [FolderStore(tmp_path / name), S3Store(f"{s3_uri}/{name}", lambda: s3_client)]

    return make


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_both_stores_list_as_a_dict_does(empty_pair: Callable[[], list[ObjectStore]], data: st.DataObject) -> None:
    model = {
        key: key.encode() for key in without_folders(data.draw(st.lists(KEYS, min_size=1, max_size=10), label="keys"))
    }
    gone = data.draw(st.sets(st.sampled_from(sorted(model))), label="gone")
    prefixes = sorted({key[:end] for key in model for end in range(len(key) + 1)} - {"", "/"})
    prefix = data.draw(st.sampled_from(["", *prefixes]), label="prefix")
    limit = data.draw(st.none() | st.integers(0, 12), label="limit")
    stores = empty_pair()
    for store in stores:
        for number, (key, value) in enumerate(model.items()):
            if number % 2:
                assert store.put_if_absent(key, value) is True
            else:
                store.upload(key, io.BytesIO(value))
        store.delete(gone)
        store.delete([*gone, "never/was/there"])
    left = sorted(set(model) - gone)
    for store in stores:
        assert [(info.key, info.size) for info in store.scan()] == [(key, len(model[key])) for key in left]
        assert [info.key for info in store.scan(prefix)] == [key for key in left if key.startswith(prefix)]
        assert [info.key for info in store.scan(prefix, limit=limit)] == [
            key for key in left if key.startswith(prefix)
        ][:limit]
        folders = {"", *("/".join(key.split("/")[:depth]) for key in model for depth in range(1, key.count("/") + 1))}
        for folder in sorted(folders):
            start = f"{folder}/" if folder else ""
            expected = list(dict.fromkeys(key[len(start) :].split("/")[0] for key in left if key.startswith(start)))
            assert list(store.children(folder)) == expected
            if folder:
                assert list(store.children(start)) == expected
        for key in left:
            assert store.get(key, max_bytes=100) == model[key]


def test_a_listing_and_a_deletion_take_as_many_requests_as_they_need(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smkit.storage.s3._LIST_PAGE", 7)
    monkeypatch.setattr("smkit.storage.s3._DELETE_BATCH", 6)
    keys = [f"many/{number:02}" for number in range(23)]
    for key in keys:
        s3_store.put_if_absent(key, b"x")
    assert [info.key for info in s3_store.scan("many/")] == keys
    assert [info.key for info in s3_store.scan("many/", limit=15)] == keys[:15]
    assert list(s3_store.children("many")) == [key.removeprefix("many/") for key in keys]
    s3_store.delete(keys)
    assert list(s3_store.scan()) == []


def test_an_empty_store_lists_nothing(store: ObjectStore) -> None:
    assert list(store.scan()) == []
    assert list(store.scan("a/b")) == []
    assert list(store.children("")) == []
    assert list(store.children("a")) == []
    store.delete([])
    store.delete(["a/b"])


def test_deleting_a_folder_deletes_nothing(store: ObjectStore) -> None:
    store.put_if_absent("a/b/c", b"x")
    store.delete(["a/b", "a/b/c/d"])
    assert store.get("a/b/c", max_bytes=1) == b"x"


def test_a_listing_shows_neither_the_stores_own_files_nor_what_is_no_key(store: ObjectStore) -> None:
    store.put_if_absent("a/b", b"x")
    if isinstance(store, FolderStore):
        root = Path(store.uri)
        (root / "a" / ".smkit-tmp-123").write_bytes(b"half")
        (root / "a" / "back\\slash").write_bytes(b"")
        (root / "a" / "empty").mkdir()
        (root / "a" / "dangling").symlink_to(root / "nowhere")
    else:
        bucket, prefix = store.uri.removeprefix("s3://").split("/", 1)
        client = store._client()  # type: ignore[attr-defined]
        for key in ("a/", "a//c", "a/back\\slash", ""):  # consoles make "a/" to show an empty folder
            client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"")
    assert [info.key for info in store.scan()] == ["a/b"]
    assert [info.key for info in store.scan("a/", limit=1)] == ["a/b"]
    assert list(store.children("")) == ["a"]
    assert [name for name in store.children("a") if name != "dangling"] == ["b"]


# --- keys -------------------------------------------------------------------------------------------------------

UNSAFE = [
    "",
    "/",
    "/x",
    "x/",
    "../x",
    "a/../x",
    "a/..",
    "..",
    ".",
    "a//b",
    "a/./b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\x85b",
    "\udce9",
    ".smkit-probe",
    "a/.smkit-tmp-1/b",
    "x" * 1025,
    "é" * 513,
]


@pytest.mark.parametrize("key", UNSAFE, ids=lambda key: ascii(key[:20]))
def test_an_unsafe_key_is_refused_by_every_method(store: ObjectStore, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put_if_absent(key, b""),
        lambda: store.upload(key, io.BytesIO(b"")),
        lambda: store.get(key, max_bytes=1),
        lambda: store.open(key),
        lambda: store.delete(["a", key]),
        lambda: store.local_path(key),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="is not a key"):
            call()


@pytest.mark.parametrize("prefix", ["/x", "../x", "a/../b", "a//b", "a/./b", "a\\b/c", "\x00/a"], ids=ascii)
def test_an_unsafe_prefix_is_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(StorageError, match="is not a key"):
        list(store.scan(prefix))
    with pytest.raises(StorageError, match="is not a key"):
        list(store.children(prefix))


def test_an_unsafe_key_among_others_deletes_none_of_them(store: ObjectStore) -> None:
    store.put_if_absent("a", b"x")
    with pytest.raises(StorageError, match="is not a key"):
        store.delete(["a", "../a"])
    assert store.get("a", max_bytes=1) == b"x"


# --- opening ----------------------------------------------------------------------------------------------------


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    folder = open_store(Settings(root=str(tmp_path / "here")))
    assert repr(folder) == f"FolderStore({str(tmp_path / 'here')!r})"
    assert folder.local_path("a/b") == tmp_path / "here" / "a" / "b"
    assert not (tmp_path / "here").exists()
    remote = open_store(Settings(bucket="some-bucket", project="houses"))
    assert repr(remote) == "S3Store('s3://some-bucket/houses')"
    assert remote.local_path("a/b") is None


def test_a_store_may_be_a_whole_bucket(s3_uri: str, s3_client: Any) -> None:
    store = S3Store(s3_uri.rsplit("/", 1)[0], lambda: s3_client)
    assert store.put_if_absent("a/b", b"x") is True
    assert [info.key for info in store.scan()] == ["a/b"]
    assert list(store.children("")) == ["a"]
    assert store.uri == s3_uri.rsplit("/", 1)[0]
