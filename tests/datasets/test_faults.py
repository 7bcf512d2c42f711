"""What goes wrong in mid-build: nothing half-made is visible, and nothing is left lying about."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from smkit import DatasetBuilder, DatasetStore, Settings
from smkit.datasets import spool, writing
from smkit.errors import StorageError, TransformError
from smkit.storage.folder import FolderStore
from tests.datasets.conftest import TableSource, files_below

if TYPE_CHECKING:
    import pandas as pd

TREE = Path(__file__).resolve().parents[2]
TABLE = pa.table({"a": range(1000), "b": [f"text {number}" for number in range(1000)]})


def start(root: Path, temporary: Path, **options: Any) -> subprocess.Popen[str]:
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.datasets.child", str(root), json.dumps(options)],
        cwd=TREE,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=120)
    return (json.loads(out.splitlines()[-1]) if process.returncode == 0 else {}), err


def stop_at(point: str, number: signal.Signals, root: Path, temporary: Path, **options: Any) -> tuple[int, str]:
    process = start(root, temporary, pause=point, **options)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "paused\n", process.communicate()[1]
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    return process.returncode, err


def files_of(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("point", ["reading", "mapping", "writing", "moving"])
def test_ctrl_c_leaves_nothing(point: str, tmp_path: Path) -> None:
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    code, err = stop_at(point, signal.SIGINT, root, temporary, batch_size=100)
    assert code == -signal.SIGINT, err
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "Exception ignored" not in err
    assert files_below(temporary) == []
    assert files_of(root) == []
    assert DatasetStore(Settings(root=root)).names() == []


def test_ctrl_c_in_the_commit_itself_leaves_nothing_visible(tmp_path: Path) -> None:
    """The write may be on its way, so the files that it names are kept; nobody sees them if it never arrives."""
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    code, err = stop_at("committing", signal.SIGINT, root, temporary)
    assert code == -signal.SIGINT, err
    assert files_below(temporary) == []
    assert {path.parent.parent.parent for path in files_of(root)} == {root / "datasets" / "houses" / "data"}
    assert [path.name for path in root.iterdir()] == ["datasets"]
    assert DatasetStore(Settings(root=root)).names() == []


@pytest.mark.parametrize("point", ["reading", "writing", "moving", "committing"])
def test_a_kill_leaves_no_visible_version(point: str, tmp_path: Path) -> None:
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    code, err = stop_at(point, signal.SIGKILL, root, temporary, batch_size=100)
    assert code == -signal.SIGKILL, err
    store = DatasetStore(Settings(root=root))
    assert (store.names(), store.versions("houses")) == ([], [])
    assert list(FolderStore(root).scan("datasets/houses/versions/")) == []
    result, err = finish(start(root, temporary))
    assert result["ref"] == "houses@1", err
    store.get("houses@1").verify()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_committed_stays(number: signal.Signals, tmp_path: Path) -> None:
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    stop_at("committed", number, root, temporary)
    dataset = DatasetStore(Settings(root=root)).get("houses@1")
    dataset.verify()
    result, _ = finish(start(root, temporary))
    assert (result["ref"], result["digest"]) == ("houses@1", dataset.digest)


def test_a_disk_too_small_for_the_spool(tmp_path: Path) -> None:
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    result, err = finish(start(root, temporary, rows=20_000, file_limit=100_000))
    assert result == {}
    assert f"StorageError: [Errno {errno.EFBIG}] cannot write to {temporary}" in err
    assert "the TMPDIR environment variable" in err
    assert "Exception ignored" not in err
    assert files_below(temporary) == []
    assert not root.exists()


def test_a_disk_too_small_for_the_parts(tmp_path: Path) -> None:
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    # A random float has 8 bytes in the spool, and some 18 as text.
    result, err = finish(start(root, temporary, rows=20_000, format="csv", file_limit=20_000 * 3 * 10))
    assert result == {}
    assert f"StorageError: [Errno {errno.EFBIG}] cannot write to {root}" in err
    assert "Exception ignored" not in err
    assert files_below(temporary) == []
    assert files_of(root) == []


def full(*arguments: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
@pytest.mark.parametrize("fails_at", [1, 2, 5])
def test_a_full_disk_while_parts_are_written(
    file_format: str, fails_at: int, settings: Settings, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = writing._HashingWriter.write, 0

    def write(self: Any, data: Any) -> int:
        nonlocal calls
        calls += 1
        return full() if calls >= fails_at else real(self, data)

    monkeypatch.setattr(writing._HashingWriter, "write", write)
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 100)
    with pytest.raises(
        StorageError, match=f"cannot write to {settings.root}.*: the disk is full; free some space"
    ) as caught:
        DatasetBuilder("houses", TableSource(TABLE), settings).split(test=0.5).build(format=file_format)
    assert caught.value.errno == errno.ENOSPC
    assert files_below(temporary) == []
    assert files_of(Path(settings.root)) == []
    monkeypatch.undo()
    assert DatasetBuilder("houses", TableSource(TABLE), settings).build().ref == "houses@1"


def test_a_full_disk_while_rows_are_spooled(
    settings: Settings, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TableSource(TABLE)

    monkeypatch.setattr(spool.pa, "OSFile", lambda path, mode="rb": full())
    with pytest.raises(StorageError, match=f"cannot write to {temporary}.*the disk is full; .*TMPDIR"):
        DatasetBuilder("houses", source, settings).build(batch_size=10)
    assert source.closed == source.opened == 1
    assert files_below(temporary) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_while_parts_are_moved(
    function: str, settings: Settings, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if function == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(
        StorageError, match=r"cannot write .*part-00000.parquet: No space left on device; free some space"
    ):
        DatasetBuilder("houses", TableSource(TABLE), settings).build()
    monkeypatch.undo()
    assert files_below(temporary) == []
    assert files_of(Path(settings.root)) == []


def test_parts_on_another_disk_are_copied(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FolderStore._move

    def move(self: FolderStore, path: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(FolderStore, "_move", move)
    copied = DatasetBuilder("houses", TableSource(TABLE), settings).build()
    copied.verify()
    monkeypatch.setattr(FolderStore, "_move", real)
    moved = DatasetBuilder("flats", TableSource(TABLE), settings).build()
    moved.verify()
    assert moved.digest == copied.digest


def test_a_store_that_cannot_be_made(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write to .*file/store"):
        DatasetBuilder("houses", TableSource(TABLE), Settings(root=tmp_path / "file" / "store")).build()
    assert files_below(temporary) == []


def test_a_source_that_fails_in_mid_way_is_closed(settings: Settings, temporary: Path) -> None:
    source = TableSource(TABLE, fail_after=3)
    builder = DatasetBuilder("houses", source, settings).clean(drop_missing=True).map(lambda frame: frame)
    with pytest.raises(ConnectionResetError, match="the server is gone"):
        builder.build(batch_size=100)
    assert (source.opened, source.closed) == (1, 1)
    assert files_below(temporary) == []
    assert not Path(settings.root).exists()


def test_a_transform_that_fails_closes_the_source_at_once(settings: Settings, temporary: Path) -> None:
    source = TableSource(TABLE)

    def fails(frame: pd.DataFrame) -> pd.DataFrame:
        raise OSError(errno.ENOSPC, "the user's own disk is full")

    with pytest.raises(TransformError, match=r"OSError: .Errno 28. the user's own disk is full") as caught:
        DatasetBuilder("houses", source, settings).map(fails).build(batch_size=100)
    # The traceback keeps every frame alive, and with it the generators: only an explicit close can have closed it.
    assert caught.value.__traceback__ is not None
    assert source.closed == 1
    assert files_below(temporary) == []


def test_an_error_of_the_source_is_not_taken_for_a_full_temporary_folder(settings: Settings) -> None:
    class Broken(TableSource):
        def batches(self, *, batch_size: int = 1) -> Any:
            raise OSError(errno.ENOSPC, "the server's disk is full")

    with pytest.raises(OSError, match="the server's disk is full") as caught:
        DatasetBuilder("houses", Broken(TABLE), settings).build()
    assert not isinstance(caught.value, StorageError)


def race(root: Path, tmp_path: Path, seeds: list[int]) -> list[dict[str, Any]]:
    gun = tmp_path / "start"
    children = [start(root, tmp_path / "temporary", seed=seed, start_at=str(gun)) for seed in seeds]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    gun.touch()
    results = [finish(child) for child in children]
    gun.unlink()
    assert [err for result, err in results if not result] == []
    return [result for result, _ in results]


def test_two_processes_that_build_the_same_make_one_version(tmp_path: Path) -> None:
    root = tmp_path / "store"
    results = race(root, tmp_path, [1, 1, 1])
    assert [result["ref"] for result in results] == ["houses@1"] * 3
    (dataset,) = DatasetStore(Settings(root=root)).versions("houses")
    dataset.verify()
    assert len(list((root / "datasets" / "houses" / "data").iterdir())) == 1


def test_two_processes_that_build_different_rows_make_two(tmp_path: Path) -> None:
    root = tmp_path / "store"
    results = race(root, tmp_path, [1, 2, 1])
    assert sorted({result["ref"] for result in results}) == ["houses@1", "houses@2"]
    assert results[0]["ref"] == results[2]["ref"]
    for dataset in DatasetStore(Settings(root=root)).versions("houses"):
        dataset.verify()


@pytest.mark.parametrize(
    ("fewer", "more"), [(600_000, 1_600_000), pytest.param(1_000_000, 4_000_000, marks=pytest.mark.slow)]
)
def test_memory_is_flat_as_rows_grow(fewer: int, more: int, tmp_path: Path) -> None:
    """A row has 160 bytes: the longer run has 160 or 480 MB more of them. Both fill row groups of every split."""
    peaks = {}
    for rows in (fewer, more):
        options = {"rows": rows, "columns": 20, "batch_size": 16_384, "name": f"rows-{rows}"}
        result, err = finish(start(tmp_path / "store", tmp_path / "temporary", **options))
        assert result, err
        peaks[rows] = result["peak"]
    # How far the threads that encode lag behind differs from run to run, by a row group or two of 20 MB.
    assert peaks[more] - peaks[fewer] < 56 << 20
