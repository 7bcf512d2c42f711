"""What a folder does when the disk, the file system or another process gets in the way."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import ObjectNotFound, StorageError
from smkit.storage import FolderStore
from tests.storage.fixtures import Unseekable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRITES: dict[str, Callable[[FolderStore], object]] = {
    "put_if_absent": lambda store: store.put_if_absent("a/b", b"x" * 100_000),
    "upload": lambda store: store.upload("a/b", io.BytesIO(b"x" * 100_000)),
}


@pytest.fixture(params=sorted(WRITES))
def write(request: pytest.FixtureRequest) -> Callable[[FolderStore], object]:
    return WRITES[request.param]


def files_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"only root may mount a file system, and not in every container: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_a_disk_that_is_really_full(tiny_disk: Path, write: Callable[[FolderStore], object]) -> None:
    store = FolderStore(tiny_disk / "store")
    with pytest.raises(StorageError, match=r"cannot write .*/a/b: No space left on device; free some space") as caught:
        write(store)
    assert caught.value.errno == errno.ENOSPC
    assert files_under(tiny_disk) == []
    assert store.put_if_absent("a/b", b"small") is True


@pytest.mark.parametrize("method", ["put", "upload"])
def test_a_file_larger_than_the_limit(tmp_path: Path, method: str) -> None:
    root = tmp_path / "store"
    script = Path(__file__).with_name("full_disk.py")
    result = subprocess.run(
        [sys.executable, str(script), str(root), method], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.startswith(f"{errno.EFBIG} [Errno {errno.EFBIG}] cannot write {root / 'a' / 'b'}: ")
    assert "File too large; the file is larger than" in result.stdout
    assert files_under(root) == []


FAILURES = [
    ("smkit.storage.folder.os.fsync", errno.EIO, "Input/output error"),
    ("smkit.storage.folder.os.fsync", errno.ENOSPC, "No space left on device; free some space"),
    ("smkit.storage.folder.os.fsync", errno.EDQUOT, "the disk quota is used up"),
    ("smkit.storage.folder.os.link", errno.ENOSPC, "No space left on device; free some space"),
    ("smkit.storage.folder.os.link", errno.EROFS, "set `root` to a folder that can be written to"),
]


@pytest.mark.parametrize(("function", "number", "message"), FAILURES)
def test_an_error_of_the_system_is_explained_and_leaves_nothing(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch, function: str, number: int, message: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(function, fail)
        with pytest.raises(StorageError, match=f"cannot write .*/a/b: .*{message}") as caught:
            folder_store.put_if_absent("a/b", b"x")
    assert caught.value.errno == number
    assert files_under(Path(folder_store.uri)) == []
    assert folder_store.put_if_absent("a/b", b"x") is True


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK], ids=errno.errorcode.get)
def test_a_file_system_without_hard_links(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("smkit.storage.folder.os.link", link)
        with pytest.raises(StorageError, match=r"no hard links, .* set `root` to a folder on another disk"):
            folder_store.put_if_absent("a/b", b"x")
    assert files_under(Path(folder_store.uri)) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path, write: Callable[[FolderStore], object]) -> None:
    root = tmp_path / "store"
    store = FolderStore(root)
    store.put_if_absent("x", b"")
    root.chmod(0o555)
    try:
        with pytest.raises(StorageError, match=r"cannot write .*/a/b: Permission denied; check the folder's owner"):
            write(store)
        with pytest.raises(StorageError, match=r"cannot delete .*/x: Permission denied; check the folder's owner"):
            store.delete(["x"])
    finally:
        root.chmod(0o755)
    assert files_under(root) == ["x"]


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put_if_absent("a/b", b"")
    (tmp_path / "store" / "a").chmod(0)
    if os.access(tmp_path / "store" / "a", os.R_OK):
        pytest.skip("root may read any folder")
    try:
        with pytest.raises(StorageError, match=r"cannot list .*/a: Permission denied; check the folder's owner"):
            list(store.scan())
        with pytest.raises(StorageError, match=r"cannot read .*/a/b: Permission denied; check the folder's owner"):
            store.get("a/b", max_bytes=1)
    finally:
        (tmp_path / "store" / "a").chmod(0o755)


def test_a_read_only_file_system(tiny_disk: Path, write: Callable[[FolderStore], object]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True, capture_output=True)
    with pytest.raises(StorageError, match=r"Read-only file system; set `root` to a folder that can be written to"):
        write(FolderStore(tiny_disk / "store"))


def test_a_disk_that_fails_while_it_is_read(folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_store.put_if_absent("a/b", b"x")
    stream = folder_store.open("a/b")
    # A descriptor that was opened for writing only fails as a broken disk does: inside read.
    broken = os.open(Path(folder_store.uri) / "a" / "b", os.O_WRONLY)
    os.dup2(broken, stream.fileno())
    os.close(broken)
    for size in (1, -1):
        with pytest.raises(StorageError, match=r"cannot read .*/a/b: Bad file descriptor"):
            stream.read(size)
    stream.close()


@pytest.mark.parametrize("key", ["file/b", "file/b/c"])
def test_a_file_where_a_folder_is_needed(
    folder_store: FolderStore, write: Callable[[FolderStore], object], key: str
) -> None:
    folder_store.put_if_absent("file", b"x")
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        folder_store.put_if_absent(key, b"")
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        folder_store.upload(key, io.BytesIO())


def test_a_folder_where_the_object_should_lie(
    folder_store: FolderStore, write: Callable[[FolderStore], object]
) -> None:
    folder_store.put_if_absent("a/b/c", b"x")
    with pytest.raises(StorageError, match=r"cannot write .*/a/b: (it is a folder|Is a directory)"):
        write(folder_store)
    assert files_under(Path(folder_store.uri)) == ["a/b/c"]


def test_a_root_that_is_a_file(tmp_path: Path, write: Callable[[FolderStore], object]) -> None:
    (tmp_path / "file").write_text("x")
    store = FolderStore(tmp_path / "file")
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        write(store)
    assert list(store.scan()) == []
    with pytest.raises(ObjectNotFound):
        store.get("a", max_bytes=1)


def test_an_interrupt_leaves_no_temporary_file(folder_store: FolderStore) -> None:
    class Interrupted(Unseekable):
        _reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self._reads += 1
            if self._reads > 1:
                raise KeyboardInterrupt
            return b"x" * (size or 0)

    with pytest.raises(KeyboardInterrupt):
        folder_store.upload("a/b", Interrupted())
    assert files_under(Path(folder_store.uri)) == []


def test_writers_and_tidying_deleters_do_not_trip_over_one_another(folder_store: FolderStore) -> None:
    """Each deletion removes the emptied folders, in which the other threads are about to write."""
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(150):
                key = f"a/b/c/{number}-{turn}"
                if turn % 2:
                    assert folder_store.put_if_absent(key, b"x") is True
                else:
                    folder_store.upload(key, io.BytesIO(b"x"))
                assert folder_store.get(key, max_bytes=1) == b"x"
                list(folder_store.scan("a/"))
                list(folder_store.children("a"))
                folder_store.delete([key])
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list(Path(folder_store.uri).iterdir()) == []


def test_a_folder_is_made_again_when_a_deleter_takes_it_away(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race above, made certain: the folder vanishes between mkdir and open, three times."""
    original = Path.open
    stolen: list[Path] = []

    def open_after_theft(path: Path, mode: str = "r", *arguments: Any) -> Any:
        if mode == "xb" and len(stolen) < 3:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
                path.parent.parent.rmdir()
            stolen.append(path)
        return original(path, mode, *arguments)

    monkeypatch.setattr(Path, "open", open_after_theft)
    assert folder_store.put_if_absent("a/b/c", b"x") is True
    assert len(stolen) == 3
    assert files_under(Path(folder_store.uri)) == ["a/b/c"]


def test_every_folder_up_to_the_root_is_synced_after_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be had in a test; that the file system was told in the right order can be seen."""
    events: list[str] = []
    fsync, link, replace = os.fsync, os.link, Path.replace

    def where(path: str) -> str:
        return os.path.relpath(path, tmp_path).replace("\\", "/").partition(".smkit-tmp-")[0] or "."

    def note_fsync(descriptor: int) -> None:
        events.append(f"sync {where(str(Path(f'/proc/self/fd/{descriptor}').readlink()))}")
        fsync(descriptor)

    def note_link(source: Path, target: Path) -> None:
        events.append("name")
        link(source, target)

    def note_replace(source: Path, target: Path) -> Path:
        events.append("name")
        return replace(source, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only Linux tells the path of a descriptor")
    monkeypatch.setattr("smkit.storage.folder.os.fsync", note_fsync)
    monkeypatch.setattr("smkit.storage.folder.os.link", note_link)
    monkeypatch.setattr(Path, "replace", note_replace)
    store = FolderStore(tmp_path / "new" / "store")
    after_naming = ["name", "sync new/store/a/b", "sync new/store/a", "sync new/store"]
    store.put_if_absent("a/b/c", b"x")
    # The root's own name, and the one above it, are new too.
    assert events == ["sync .", "sync new", "sync new/store/a/b/", *after_naming]
    events.clear()
    store.upload("a/b/d", io.BytesIO(b"x"))
    assert events == ["sync new/store/a/b/", *after_naming]
    events.clear()
    # The name is taken, perhaps by a writer that has not synced it yet.
    assert store.put_if_absent("a/b/c", b"x") is False
    assert events == ["sync new/store/a/b/", *after_naming]


def test_a_file_system_that_cannot_sync_folders(folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(descriptor):  # noqa: PTH112 - a descriptor has no Path
            raise OSError(errno.EINVAL, "Invalid argument")
        original(descriptor)

    monkeypatch.setattr("smkit.storage.folder.os.fsync", fsync)
    assert folder_store.put_if_absent("a/b", b"x") is True


# --- taking a finished file over --------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = tmp_path / "finished"
    path.write_bytes(b"new")
    return path


def test_a_file_is_taken_over(folder_store: FolderStore, finished: Path) -> None:
    folder_store.put_if_absent("a/b", b"old")
    assert folder_store.adopt("a/b", finished) is True
    assert folder_store.get("a/b", max_bytes=10) == b"new"
    assert not finished.exists()
    assert files_under(Path(folder_store.uri)) == ["a/b"]


def test_a_file_of_another_disk_is_left_alone(folder_store: FolderStore, tiny_disk: Path) -> None:
    (tiny_disk / "x").write_bytes(b"x")
    assert folder_store.adopt("a/b", tiny_disk / "x") is False
    assert (tiny_disk / "x").read_bytes() == b"x"
    assert list(folder_store.scan()) == []


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", ".smkit-probe"])
def test_a_file_is_not_taken_over_under_an_unsafe_key(folder_store: FolderStore, finished: Path, key: str) -> None:
    with pytest.raises(StorageError, match="is not a key"):
        folder_store.adopt(key, finished)
    assert finished.read_bytes() == b"new"


def test_a_file_that_is_not_there_cannot_be_taken_over(folder_store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*/a/b: No such file or directory"):
        folder_store.adopt("a/b", tmp_path / "nothing")
    assert list(folder_store.scan()) == []


def test_the_names_of_a_taken_over_file_are_synced(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only Linux tells the path of a descriptor")
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), tmp_path))
        fsync(descriptor)

    monkeypatch.setattr("smkit.storage.folder.os.fsync", note)
    assert FolderStore(tmp_path / "store").adopt("a/b", finished) is True
    assert synced == ["finished", ".", "store/a", "store"]
