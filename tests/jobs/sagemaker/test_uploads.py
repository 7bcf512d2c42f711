"""Local data in S3, once, over a real HTTP S3."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
import tqdm.auto

from smkit.config import Settings
from smkit.errors import ConfigError, IntegrityError, ObjectNotFound, StorageError
from smkit.jobs.channels import Channel, LocalChannel, S3Channel
from smkit.jobs.sagemaker import uploads
from smkit.jobs.sagemaker.uploads import LocalInput, locate, upload_inputs
from smkit.storage import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.storage import ObjectStore


@pytest.fixture
def settings(aws_env: str, bucket: str) -> Settings:
    return Settings(root=f"s3://{bucket}/p")


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


class Counting:
    """A store that counts its uploads, and calls something before each."""

    def __init__(self, store: ObjectStore, before: Any = None) -> None:
        self._store = store
        self._before = before
        self.uploaded: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upload(self, key: str, source: BinaryIO) -> Any:
        self.uploaded.append(key)
        if self._before is not None:
            self._before(key)
        return self._store.upload(key, source)


def located(channels: dict[str, Channel], settings: Settings) -> tuple[dict[str, str], tuple[LocalInput, ...]]:
    return locate(channels, settings.root, lambda: settings.client("s3"))


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_data_goes_up_once_wherever_it_lies(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    write(tmp_path / "one", a="1", deep__b="2", empty="")
    write(tmp_path / "two", a="1", deep__b="2", empty="")
    counting = Counting(store)
    uris, found = located({"x": LocalChannel(tmp_path / "one"), "y": LocalChannel(tmp_path / "two")}, settings)
    assert uris["x"] == uris["y"] == f"{settings.root}/inputs/{found[0].sha256}/"
    upload_inputs(found, counting)  # type: ignore[arg-type]
    assert sorted(counting.uploaded) == [f"{found[0].prefix}{name}" for name in ("a", "deep/b", "empty")]
    assert [item.key for item in store.scan("inputs/")] == [found[0].marker, *sorted(counting.uploaded)]
    manifest = json.loads(store.get(found[0].marker, max_bytes=10_000))
    assert [file["path"] for file in manifest["files"]] == ["a", "deep/b", "empty"]
    upload_inputs(located({"x": LocalChannel(tmp_path / "two")}, settings)[1], counting)  # type: ignore[arg-type]
    assert len(counting.uploaded) == 3
    # Another name, or another content, is other data.
    digests = {found[0].sha256}
    write(tmp_path / "two", a="3")
    digests.add(located({"x": LocalChannel(tmp_path / "two")}, settings)[1][0].sha256)
    digests.add(located({"x": LocalChannel(tmp_path / "one" / "a")}, settings)[1][0].sha256)
    assert len(digests) == 3


def test_what_was_interrupted_goes_on_where_it_was(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    write(tmp_path / "data", **{f"f{n}": str(n) for n in range(6)})
    _, found = located({"x": LocalChannel(tmp_path / "data")}, settings)

    def break_at_4(key: str) -> None:
        if key.endswith("f4"):
            raise StorageError("the connection is gone")

    with pytest.raises(StorageError, match="is gone"):
        upload_inputs(found, Counting(store, break_at_4))  # type: ignore[arg-type]
    assert found[0].marker not in [item.key for item in store.scan("inputs/")]
    there = len(list(store.scan(found[0].prefix)))
    counting = Counting(store)
    upload_inputs(found, counting)  # type: ignore[arg-type]
    assert len(counting.uploaded) == 6 - there
    assert len(list(store.scan(found[0].prefix))) == 6


@pytest.mark.parametrize("size", [100, 40 << 20], ids=["small", "in parts"])
@pytest.mark.parametrize("change", ["content", "longer", "shorter"])
def test_a_file_that_changes_never_becomes_an_object(
    settings: Settings, store: ObjectStore, tmp_path: Path, size: int, change: str
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * size)
    _, found = located({"train": LocalChannel(path)}, settings)

    def spoil(_: str) -> None:
        with path.open("r+b") as file:
            if change == "shorter":
                file.truncate(size - 1)
            else:
                file.seek(size if change == "longer" else size - 1)
                file.write(b"y")

    with pytest.raises(IntegrityError, match=r"channel 'train': .*a\.bin changed since the job was prepared"):
        upload_inputs(found, Counting(store, spoil))  # type: ignore[arg-type]
    assert list(store.scan("inputs/")) == []
    path.write_bytes(b"x" * size)
    upload_inputs(found, store)
    assert [item.size for item in store.scan(found[0].prefix)] == [size]


def test_uploaders_at_once(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    write(tmp_path / "data", **{f"f{n}": str(n) for n in range(5)})
    barrier = threading.Barrier(3)
    errors: list[Exception] = []

    def go() -> None:
        try:
            _, found = located({"x": LocalChannel(tmp_path / "data")}, settings)
            barrier.wait()
            upload_inputs(found, store)
        except Exception as error:  # noqa: BLE001 - a thread's error is looked at below
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(list(store.scan("inputs/"))) == 6


def test_a_foreign_object_is_not_given_to_the_script(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    _, found = located({"x": LocalChannel(write(tmp_path / "data", a="1"))}, settings)
    upload_inputs(found, store)
    store.put_if_absent(f"{found[0].prefix}b", b"2")
    with pytest.raises(IntegrityError, match=r"inputs/.*/b is no file of the data"):
        upload_inputs(found, store)


class Split:
    uri = "/somewhere/houses/data/1/train"

    def __init__(self) -> None:
        self.downloads: list[Path] = []

    def download(self, folder: Path) -> None:
        self.downloads.append(folder)
        (folder / "part.csv").write_text("a\n")

    def describe(self) -> dict[str, Any]:
        return {"uri": self.uri}


def test_a_channel_that_downloads_itself(settings: Settings, store: ObjectStore) -> None:
    split = Split()
    _, found = located({"train": split}, settings)
    assert isinstance(split, Channel)
    upload_inputs(found, store)
    assert [item.key for item in store.scan(found[0].prefix)] == [f"{found[0].prefix}part.csv"]
    folder = split.downloads[0]
    assert folder.is_dir()
    del found
    assert not folder.exists()


class CloudSplit(Split):
    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri = uri


def test_what_is_in_s3_stays_there(settings: Settings, store: ObjectStore) -> None:
    for key in ("d/train/a", "d/train-2/b", "d/one.csv"):
        store.put_if_absent(key, b"x")
    root = settings.root
    plain = S3Channel(f"S3{root[2:]}/d/train", lambda: settings.client("s3"))
    channels = {"plain": plain, "split": CloudSplit(f"{root}/d/train"), "one": CloudSplit(f"{root}/d/one.csv")}
    uris, found = located(channels, settings)
    # A bare prefix means what SageMaker means by it; a split is a folder, and its neighbour is not delivered.
    assert uris == {"plain": f"{root}/d/train", "split": f"{root}/d/train/", "one": f"{root}/d/one.csv"}
    assert found == ()
    with pytest.raises(ObjectNotFound, match="no object's key starts with"):
        located({"x": CloudSplit(f"{root}/nothing")}, settings)


def test_a_name_that_no_key_can_have(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a\\b.csv").write_text("x")
    with pytest.raises(ConfigError, match=r"channel 'train': .* cannot be the name of an object"):
        located({"train": LocalChannel(tmp_path / "data")}, settings)


def test_the_key_of_the_settings_encrypts_the_data(settings: Settings, tmp_path: Path) -> None:
    key = "arn:aws-cn:kms:cn-northwest-1:123456789012:key/12345678-1234-1234-1234-123456789012"
    settings = settings.model_copy(update={"kms_key": key})
    store = open_store(settings)
    _, found = located({"x": LocalChannel(write(tmp_path / "data", a="1"))}, settings)
    upload_inputs(found, store)
    bucket = settings.root.removeprefix("s3://").partition("/")[0]
    head = settings.client("s3").head_object(Bucket=bucket, Key=f"p/{found[0].prefix}a")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_large_data_shows_how_far_it_is(
    settings: Settings, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[dict[str, Any]] = []
    counts: list[int] = []

    class Bar(tqdm.auto.tqdm):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            bars.append(options)
            super().__init__(**options)

        def update(self, n: float = 1) -> Any:
            counts.append(int(n))
            return super().update(n)

    monkeypatch.setattr("smkit.progress_bar.tqdm", Bar)
    monkeypatch.setattr(uploads, "_BAR_BYTES", 1000)
    for name, size in {"small": 999, "large": 5000}.items():
        (tmp_path / name).write_bytes(b"x" * size)
        counts.clear()
        upload_inputs(located({"x": LocalChannel(tmp_path / name)}, settings)[1], store)
        assert sum(counts) == size
    assert [(bar["total"], bar["disable"]) for bar in bars] == [(999, True), (5000, None)]
