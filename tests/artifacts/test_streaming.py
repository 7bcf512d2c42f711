"""A `model.tar.gz` is read once, while it is stored; a hostile one never becomes a version."""

from __future__ import annotations

import collections
import gzip
import io
import random
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

import smkit
from smkit.artifacts import archive as archive_module
from smkit.artifacts import publishing
from smkit.artifacts.archive import list_members
from smkit.artifacts.inspection import InspectedStream
from smkit.errors import ModelError, StorageError
from tests.artifacts.helpers import inspecting_threads, model_bytes, packed, special

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["folder", "s3"])
def models(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> smkit.ArtifactStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        return smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))
    request.getfixturevalue("aws_env")
    return smkit.ArtifactStore(smkit.Settings(bucket=request.getfixturevalue("bucket")))


def pax(data: bytes) -> bytes:
    """The blocks of an extended header with these records."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % 512)


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n"
    size = len(text) + 2
    return f"{size if len(str(size)) == 2 else size + 1}{text}".encode()


def plain(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % 512)


END = b"\0" * 1024
SPARSE = tarfile.TarInfo("model.joblib")
SPARSE.type = tarfile.GNUTYPE_SPARSE
GIANT = tarfile.TarInfo("pax")
GIANT.type, GIANT.size = tarfile.XHDTYPE, 1 << 33

HOSTILE = {
    "parent": packed(("../model.joblib", b"x")),
    "absolute": packed(("/model.joblib", b"x")),
    "symlink": packed(special("model.joblib", tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": packed(special("model.joblib", tarfile.LNKTYPE, "/etc/passwd")),
    "device": packed(special("model.joblib", tarfile.CHRTYPE)),
    "fifo": packed(special("model.joblib", tarfile.FIFOTYPE)),
    "sparse": gzip.compress(SPARSE.tobuf(tarfile.GNU_FORMAT) + END),
    "hostile after a good one": packed(("model.joblib", model_bytes()), ("../x", b"x")),
    "giant header": gzip.compress(pax(b"\0" * (4 << 20)) + END),
    "giant header without its bytes": gzip.compress(GIANT.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096),
    "a thousand headers": gzip.compress(pax(record("comment", "x")) * 2000 + plain("model.joblib", b"x") + END),
    "negative size": gzip.compress(pax(record("size", "-99999")) + plain("model.joblib", b"x") + END),
    "size that is no number": gzip.compress(pax(record("size", "many")) + plain("model.joblib", b"x") + END),
    "size beyond the end": gzip.compress(pax(record("size", "99999")) + plain("model.joblib", b"x") + END),
    "truncated": packed(("model.joblib", random.Random(0).randbytes(50_000)))[:-2000],
    "without its checksum": packed(("model.joblib", b"x" * 5000))[:-4],
    "a wrong checksum": packed(("model.joblib", b"x" * 5000))[:-8] + b"\1\2\3\4\5\6\7\x08",
    "more after the end": gzip.compress(plain("model.joblib", b"x") + END + plain("../x", b"x")),
    "garbage after the gzip": packed(("model.joblib", b"x")) + b"garbage",
    "empty file": b"",
    "no gzip": b"not gzip",
    "no tar": gzip.compress(b"not tar"),
    "no member": packed(),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_aborted(models: smkit.ArtifactStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.tar\.gz"):
        models.publish("houses", path)
    assert models.names() == []
    _, log = models._open()
    assert [info.key for info in log.store.scan("models/")] == []
    assert inspecting_threads() == []


def test_a_tar_bomb_is_aborted_early(
    models: smkit.ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MAX_TOTAL_BYTES", 1 << 20)
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(("model.joblib", b"\0" * (64 << 20))))
    with pytest.raises(ModelError, match="unpacks to more than"):
        models.publish("houses", path)
    assert models.names() == []
    assert inspecting_threads() == []


def test_a_header_bomb_takes_no_memory() -> None:
    bomb = io.BytesIO(gzip.compress(pax(b"\0" * (64 << 20))))
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="header"):
            list_members(bomb, "bomb", keep=frozenset(), keep_bytes=0)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20, (3 << 20) + 1])
def test_what_an_honest_archive_holds_is_listed(tar_format: int, size: int) -> None:
    import hashlib

    data = random.Random(size).randbytes(size)
    name = "deep/" * 20 + "model.joblib" if tar_format != tarfile.USTAR_FORMAT else "model.joblib"
    source = io.BytesIO(packed(("a.txt", b"a" * 512), (name, data), ("z.txt", b"z"), tar_format=tar_format))
    members, kept = list_members(source, "it", keep=frozenset({"z.txt"}), keep_bytes=10)
    assert [(member.path, member.size) for member in members] == [("a.txt", 512), (name, size), ("z.txt", 1)]
    assert members[1].sha256 == hashlib.sha256(data).hexdigest()
    assert kept == {"z.txt": b"z"}
    assert source.read() == b""


def test_several_gzip_streams_and_zeros_after_them_are_one_archive() -> None:
    whole = gzip.decompress(packed(("model.joblib", model_bytes())))
    source = io.BytesIO(gzip.compress(whole[:700]) + gzip.compress(whole[700:]) + b"\0" * 5000)
    members, _ = list_members(source, "it", keep=frozenset(), keep_bytes=0)
    assert [member.path for member in members] == ["model.joblib"]


class CountingFile(io.FileIO):
    """Counts the bytes that are read from it."""

    read_bytes = 0

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        CountingFile.read_bytes += count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        CountingFile.read_bytes += len(data)
        return data


def test_an_archive_is_read_once(models: smkit.ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(("model.joblib", random.Random(0).randbytes(20 << 20)), ("metrics.json", b'{"a": 1}')))
    monkeypatch.setattr(publishing, "_open", CountingFile)
    CountingFile.read_bytes = 0
    version = models.publish("houses", path)
    assert CountingFile.read_bytes == path.stat().st_size
    assert version.metrics == {"a": 1}
    assert [member["path"] for member in version.manifest.body["members"]] == ["metrics.json", "model.joblib"]
    assert inspecting_threads() == []


@given(
    data=st.binary(max_size=2000),
    reads=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    wants=st.lists(st.integers(1, 300), min_size=1, max_size=20),
)
def test_the_inspection_sees_what_the_reader_sees(data: bytes, reads: list[int], wants: list[int]) -> None:
    seen = bytearray()

    def inspect(stream: BinaryIO) -> None:
        number = 0
        while piece := stream.read(wants[number % len(wants)]):
            seen.extend(piece)
            number += 1

    read = bytearray()
    with InspectedStream(io.BytesIO(data), inspect) as stream:
        number = 0
        while piece := stream.read(reads[number % len(reads)]):
            read += piece
            number += 1
    assert bytes(read) == bytes(seen) == data
    assert inspecting_threads() == []


def test_a_reader_that_knows_the_length_need_not_read_the_empty_end() -> None:
    seen = []
    with InspectedStream(io.BytesIO(b"abc"), lambda stream: seen.append(stream.read(10))) as stream:
        assert stream.read(3) == b"abc"
    assert seen == [b"abc"]


def test_a_reader_that_stops_early_is_an_error() -> None:
    with (
        pytest.raises(StorageError, match="stopped reading before the end"),
        InspectedStream(io.BytesIO(b"abc"), lambda stream: stream.read(10)) as stream,
    ):
        stream.read(2)
    assert inspecting_threads() == []


def test_an_error_of_the_inspection_reaches_the_reader_whichever_way() -> None:
    def refuse(stream: BinaryIO) -> None:
        stream.read(1)
        raise ModelError("refused")

    stream = InspectedStream(io.BytesIO(b"x" * (64 << 20)), refuse)
    with pytest.raises(ModelError, match="refused"), stream:
        collections.deque(iter(lambda: stream.read(1 << 20), b""), maxlen=0)
    with (
        pytest.raises(ModelError, match="refused"),
        InspectedStream(io.BytesIO(b"x"), refuse) as short,
    ):
        short.read(1)
    assert inspecting_threads() == []


def test_a_failed_reader_stops_the_inspection_where_it_is() -> None:
    begun = threading.Event()

    def wait(stream: BinaryIO) -> None:
        begun.set()
        while stream.read(10):
            pass

    def fail(stream: InspectedStream) -> None:
        with stream:
            stream.read(10)
            begun.wait()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(InspectedStream(io.BytesIO(b"x" * 100), wait))
    assert inspecting_threads() == []


def test_a_slow_inspection_holds_the_reader_back() -> None:
    ahead = []
    source = io.BytesIO(b"x" * (64 << 20))

    def slow(stream: BinaryIO) -> None:
        seen = 0
        while piece := stream.read(1 << 20):
            seen += len(piece)
            time.sleep(0.002)
            ahead.append(source.tell() - seen)

    with InspectedStream(source, slow) as stream:
        while stream.read(1 << 20):
            pass
    assert max(ahead) <= 10 << 20


CHILD = """
import os, sys, threading, psutil, smkit
from pathlib import Path
root, path = sys.argv[1:]
models = smkit.ArtifactStore(smkit.Settings(root=root))
models.publish("warm-up", Path(path).with_name("small.tar.gz"))
process = psutil.Process()
before = process.memory_info().rss
peak, over = [before], threading.Event()
def watch():
    while not over.wait(0.005):
        peak[0] = max(peak[0], process.memory_info().rss)
thread = threading.Thread(target=watch)
thread.start()
models.publish("houses", path)
over.set(); thread.join()
print(peak[0] - before)
"""


def test_a_big_archive_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    (tmp_path / "small.tar.gz").write_bytes(packed(("model.joblib", b"x")))
    big = tmp_path / "big.tar.gz"
    info = tarfile.TarInfo("model.joblib")
    info.size = 300 << 20
    block = random.Random(0).randbytes(1 << 20)
    with gzip.open(big, "wb", compresslevel=0) as out:
        out.write(info.tobuf())
        for _ in range(300):
            out.write(block)
        out.write(END)
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "root"), str(big)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert int(result.stdout) < 64 << 20


INTERRUPTED = """
import sys, threading, time, smkit
from smkit.artifacts import publishing

class Slow:
    def __init__(self, file): self._file = file
    def read(self, size):
        print("reading", flush=True)
        time.sleep(0.05)
        return self._file.read(4096)
    def close(self): self._file.close()

opened = publishing._open
publishing._open = lambda path: Slow(opened(path))
models = smkit.ArtifactStore(smkit.Settings(root=sys.argv[1]))
try:
    models.publish("houses", sys.argv[2])
except KeyboardInterrupt:
    names = [thread.name for thread in threading.enumerate()]
    files = [info.key for info in models._open()[1].store.scan()]
    print("interrupted", models.names(), names, files, flush=True)
"""


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_ctrl_c_in_mid_publish_leaves_no_version_and_no_thread(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = str(tmp_path / "root")
    if where == "s3":
        request.getfixturevalue("aws_env")
        root = f"s3://{request.getfixturevalue('bucket')}/project"
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(("model.joblib", random.Random(0).randbytes(300_000))))
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), root, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child:
        for _ in range(5):
            assert child.stdout.readline() == "reading\n"
        child.send_signal(signal.SIGINT)
        lines = [line for line in child.stdout if line != "reading\n"]
    assert lines == ["interrupted [] ['MainThread'] []\n"]
    assert child.returncode == 0


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*: Is a directory"):
        publishing._open(tmp_path)
