"""S3Source when much is under way at once: order, bounds, faults, and an early end."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import smkit
from smkit.errors import ConfigError, SourceConnectionError, SourceError, SourceNotFound
from smkit.sources import S3Source
from smkit.sources._s3_fetch import Fetcher, Piece
from smkit.sources._s3_object import S3Object
from tests.faulty_proxy import Answer, Before, CutBody, FaultyProxy, LoseReply, LoseRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faulty_proxy import Fault


@pytest.fixture
def s3(aws_env: str) -> Iterator[Any]:
    client = boto3.client("s3")
    yield client
    client.close()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smkit.sources._s3_files.PIECE_BYTES", 10_000)
    monkeypatch.setattr("smkit.sources._s3_files.HEAD_BYTES", 10_000)
    monkeypatch.setattr("smkit.sources._datafile.HEAD_BYTES", 10_000)
    monkeypatch.setattr("smkit.sources._s3_fetch.WINDOW_BYTES", 60_000)
    monkeypatch.setattr("smkit.sources._s3_fetch._RESUME_PAUSE_SECONDS", 0.001)


@pytest.fixture
def proxy(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(aws_env) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        # botocore's pauses between its attempts; the fetcher waits on an event.
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield proxy


def encode(table: pa.Table, format_: str) -> bytes:
    buffer = io.BytesIO()
    if format_ == "parquet":
        pq.write_table(table, buffer, row_group_size=500, compression="none", use_dictionary=False)
        return buffer.getvalue()
    text = (
        table.to_pandas().to_csv(index=False)
        if "csv" in format_
        else table.to_pandas().to_json(lines=True, orient="records")
    )
    return gzip.compress(text.encode()) if format_.endswith("gz") else text.encode()


def put_parts(client: Any, bucket: str, format_: str, *, files: int = 5, rows: int = 3000) -> pa.Table:
    table = pa.table({"a": range(files * rows), "b": [f"{i * 2654435761 % 2**32:032x}" for i in range(files * rows)]})
    for number in range(files):
        part = table.slice(number * rows, rows)
        client.put_object(Bucket=bucket, Key=f"raw/part-{number}.{format_}", Body=encode(part, format_))
    return table


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("smkit-s3-read")]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("format_", ["csv", "csv.gz", "jsonl", "parquet"])
def test_many_pieces_of_many_files_arrive_in_order(s3: Any, bucket: str, format_: str) -> None:
    table = put_parts(s3, bucket, format_)
    source = S3Source(f"s3://{bucket}/raw", column_types={"b": "string"})
    batches = source.batches(batch_size=700)
    assert pa.Table.from_batches(batches).equals(table)
    assert reading_threads() == []


FAULTS: list[Callable[[], Fault]] = [
    lambda: Answer(503, "SlowDown"),
    lambda: CutBody(3000),
    lambda: CutBody(0),
    lambda: CutBody(9999, reset=False),
    LoseRequest,
    LoseReply,
]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("format_", ["csv", "parquet"])
@pytest.mark.parametrize("fault", FAULTS, ids=["503", "reset", "reset-at-once", "short", "lost", "lost-reply"])
def test_a_fault_costs_time_and_no_rows(
    s3: Any, bucket: str, proxy: FaultyProxy, format_: str, fault: Callable[[], Fault]
) -> None:
    table = put_parts(s3, bucket, format_, files=3, rows=1500)
    for part in (0, 1, 2):
        proxy.add(fault(), method="GET", path=f"part-{part}", times=2)
    assert pa.Table.from_batches(S3Source(f"s3://{bucket}/raw", column_types={"b": "string"}).batches()).equals(table)
    # Each file was hit, and everything that was read was read of the content that was listed.
    assert all(rule.fired == 2 for rule in proxy._rules)
    gets = [request for request in proxy.requests if request.method == "GET" and "part-" in request.path]
    assert all("if-match" in request.headers for request in gets)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("fault", "message"),
    [(Answer(503, "SlowDown"), "SlowDown: .*try again later"), (CutBody(0), "broke off 5 times after 0 of")],
)
def test_what_does_not_pass_is_a_typed_error_that_names_the_object(
    s3: Any, bucket: str, proxy: FaultyProxy, fault: Fault, message: str
) -> None:
    put_parts(s3, bucket, "csv", files=3)
    proxy.add(fault, method="GET", path="part-2", times=10_000)
    with pytest.raises(SourceConnectionError, match=rf"part-2\.csv: .*{message}"):
        S3Source(f"s3://{bucket}/raw", column_types={"b": "string"}).read()
    assert reading_threads() == []


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_an_object_that_is_replaced_between_its_ranges(s3: Any, bucket: str, proxy: FaultyProxy, format_: str) -> None:
    put_parts(s3, bucket, format_, files=2)
    source = S3Source(f"s3://{bucket}/raw", column_types={"b": "string"})
    batches = source.batches(batch_size=100)
    proxy.add(
        Before(lambda: s3.put_object(Bucket=bucket, Key=f"raw/part-1.{format_}", Body=b"a,b\n1,x\n")),
        method="GET",
        path=f"part-0.{format_}",
    )
    with pytest.raises(SourceError, match=rf"part-1\.{format_}: PreconditionFailed.*changed while it was read"):
        for _ in batches:
            pass
    assert reading_threads() == []


@pytest.mark.usefixtures("small_pieces")
def test_an_object_that_is_deleted_meanwhile(s3: Any, bucket: str, proxy: FaultyProxy) -> None:
    put_parts(s3, bucket, "csv", files=2)
    delete = Before(lambda: s3.delete_object(Bucket=bucket, Key="raw/part-1.csv"))
    proxy.add(delete, method="GET", path="part-0.csv")
    with pytest.raises(SourceNotFound, match=r"part-1\.csv"):
        S3Source(f"s3://{bucket}/raw", column_types={"b": "string"}).read()


@pytest.mark.usefixtures("small_pieces")
def test_nothing_is_fetched_twice(s3: Any, bucket: str, proxy: FaultyProxy) -> None:
    put_parts(s3, bucket, "csv", files=3)
    S3Source(f"s3://{bucket}/raw", column_types={"b": "string"}).read()
    asked = [(r.path, r.headers.get("range")) for r in proxy.requests if r.method == "GET" and "part-" in r.path]
    assert len(asked) == len(set(asked))


# --- the window, and an early end --------------------------------------------------------------------------------


class Stalling(ThreadingHTTPServer):
    """Answers a range with its bytes; of `stalls` on, with the first half of them and then nothing."""

    daemon_threads = True

    def __init__(self, stalls: int) -> None:
        super().__init__(("127.0.0.1", 0), StallingHandler)
        self.stalls = stalls
        self.starts: list[int] = []
        self.stalled = threading.Event()
        self.release = threading.Event()


class StallingHandler(BaseHTTPRequestHandler):
    server: Stalling
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        start, end = (int(text) for text in self.headers["Range"].removeprefix("bytes=").split("-"))
        self.server.starts.append(start)
        self.send_response_only(206)
        self.send_header("Content-Length", str(end + 1 - start))
        self.send_header("Content-Range", f"bytes {start}-{end}/{2**30}")
        self.end_headers()
        body = bytes([start // 1000 % 256]) * (end + 1 - start)
        if start >= self.server.stalls:
            self.wfile.write(body[: len(body) // 2])
            self.server.stalled.set()
            self.server.release.wait(30)
        else:
            self.wfile.write(body)


@pytest.fixture
def stalling(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Stalling]]:
    running: list[Stalling] = []

    def run(stalls: int) -> Stalling:
        server = Stalling(stalls)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        running.append(server)
        return server

    yield run
    for server in running:
        server.release.set()
        server.shutdown()
        server.server_close()


def stalling_object() -> S3Object:
    return S3Object(smkit.Settings().client("s3"), "some-bucket", "x", 2**30, '"etag"')


def test_no_more_is_fetched_than_the_window_holds(
    stalling: Callable[[int], Stalling], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smkit.sources._s3_fetch.WINDOW_BYTES", 5000)
    server = stalling(2**30)
    one = stalling_object()
    pieces = [Piece(one, start, start + 1000) for start in range(0, 100_000, 1000)]
    fetcher = Fetcher()
    try:
        fetcher.plan(iter(pieces))
        for number, piece in enumerate(pieces[:20]):
            assert fetcher.get(piece) == bytes([number]) * 1000
        deadline = time.monotonic() + 10
        while len(server.starts) < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # Twenty that were taken, and the five that may wait.
        assert sorted(server.starts) == [piece.start for piece in pieces[:25]]
    finally:
        fetcher.close()


def test_a_piece_that_was_not_planned_is_fetched_now(stalling: Callable[[int], Stalling]) -> None:
    stalling(2**30)
    one = stalling_object()
    fetcher = Fetcher()
    try:
        fetcher.plan(iter([Piece(one, 0, 1000), Piece(one, 1000, 2000)]))
        assert fetcher.get(Piece(one, 7000, 7010)) == bytes([7]) * 10
        assert fetcher.get(Piece(one, 0, 1000)) == bytes([0]) * 1000
    finally:
        fetcher.close()


def test_a_new_plan_takes_over_what_is_under_way_and_drops_the_rest(stalling: Callable[[int], Stalling]) -> None:
    server = stalling(2**30)
    one = stalling_object()
    pieces = [Piece(one, start, start + 1000) for start in range(0, 4000, 1000)]
    fetcher = Fetcher()
    try:
        fetcher.plan(iter(pieces))
        assert fetcher.get(pieces[0]) == bytes([0]) * 1000
        fetcher.plan(iter(pieces[2:]))
        assert [fetcher.get(piece) for piece in pieces[2:]] == [bytes([2]) * 1000, bytes([3]) * 1000]
        assert sorted(server.starts) == sorted(set(server.starts))
        assert not fetcher._left_over
    finally:
        fetcher.close()


def test_a_schema_costs_the_front_of_each_file(s3: Any, bucket: str, proxy: FaultyProxy) -> None:
    put_parts(s3, bucket, "csv", files=3)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("_s3_files", "_datafile"):
            patch.setattr(f"smkit.sources.{module}.HEAD_BYTES", 10_000)
        patch.setattr("smkit.sources._csv.BLOCK_BYTES", 5_000)
        S3Source(f"s3://{bucket}/raw", column_types={"b": "string"}).schema()
    ranges = [request.headers.get("range") for request in proxy.requests if "part-" in request.path]
    assert ranges == ["bytes=0-9999"] * 3


def test_closing_interrupts_what_is_under_way(stalling: Callable[[int], Stalling]) -> None:
    server = stalling(1000)
    one = stalling_object()
    fetcher = Fetcher()
    fetcher.plan(Piece(one, start, start + 1000) for start in range(0, 100_000, 1000))
    assert fetcher.get(Piece(one, 0, 1000)) == bytes(1000)
    assert server.stalled.wait(10)
    before = time.monotonic()
    fetcher.close()
    assert time.monotonic() - before < 10  # the server would keep them for 30 s
    assert reading_threads() == []


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_an_iterator_that_is_closed_early_leaves_no_thread(s3: Any, bucket: str, format_: str) -> None:
    put_parts(s3, bucket, format_)
    batches = S3Source(f"s3://{bucket}/raw", column_types={"b": "string"}).batches(batch_size=10)
    next(batches)
    assert reading_threads()
    batches.close()  # type: ignore[attr-defined] # a generator, which the protocol does not promise
    assert reading_threads() == []


# --- what a source names -----------------------------------------------------------------------------------------


def test_globs_and_lists(s3: Any, bucket: str) -> None:
    keys = ["raw/2025-12.csv", "raw/2026-01.csv", "raw/2026-02.csv", "raw/sub/2026-03.csv", "raw/.2026.csv", "b[1].csv"]
    for number, key in enumerate(keys):
        s3.put_object(Bucket=bucket, Key=key, Body=f"a\n{number}\n".encode())

    settings = smkit.Settings()

    def read(*names: str) -> list[int]:
        uris = [f"s3://{bucket}/{name}" for name in names]
        rows: list[int] = S3Source(uris if len(uris) > 1 else uris[0], settings=settings).read()["a"].tolist()
        return rows

    assert read("raw/2026-*.csv") == [1, 2]
    assert read("raw/202[56]-?[12].csv") == [0, 1, 2]
    assert read("raw/[!x]*.csv") == [0, 1, 2]
    assert read("raw/**/*.csv") == [0, 1, 2, 3]
    assert read("raw/sub", "raw/2026-01.csv") == [3, 1]
    assert read("b[1].csv") == [5]  # the key itself, before a glob
    with pytest.raises(SourceNotFound, match="no object matches"):
        read("raw/2024-*.csv")
    with pytest.raises(ConfigError, match="matched by two of the URIs"):
        read("raw/2026-*.csv", "raw/2026-01.csv")
    uris = [f"s3://{bucket}/raw/sub", f"s3://{bucket}/raw/2026-01.csv"]
    described = S3Source(uris, settings=settings).describe()
    assert described["uri"] == uris
    assert [found["key"] for found in described["objects"]] == ["raw/sub/2026-03.csv", "raw/2026-01.csv"]


@pytest.mark.parametrize("uris", [[], ["s3://bucket/a.csv", "/a.csv"], ["s3://bucket/a.csv", 1]])
def test_lists_that_are_none(uris: Any) -> None:
    with pytest.raises(ConfigError):
        S3Source(uris)


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv.gz", "csv", "parquet"])
def test_memory_stays_flat_over_a_larger_prefix(
    s3: Any, bucket: str, aws_env: str, tmp_path: Path, format_: str
) -> None:
    """The peak of a whole process, over four times the files."""
    rows = 50_000
    table = pa.table({"a": range(rows), "b": [f"{i * 2654435761 % 2**32:064x}" for i in range(rows)]})
    body = encode(table, format_)
    for number in range(24):
        s3.put_object(Bucket=bucket, Key=f"many/part-{number:02}.{format_}", Body=body)
        if number < 6:
            s3.put_object(Bucket=bucket, Key=f"few/part-{number:02}.{format_}", Body=body)
    script = textwrap.dedent(
        f"""
        import resource, sys
        import smkit
        from smkit.sources import _s3_fetch, _s3_files
        # Smaller than the smaller prefix: what is ahead of the reader must not hide what grows.
        _s3_fetch.WINDOW_BYTES = _s3_files._KEPT_BYTES = 8 << 20
        source = smkit.S3Source("s3://{bucket}/" + sys.argv[1], column_types={{"b": "string"}})
        rows = sum(batch.num_rows for batch in source.batches(batch_size=10_000))
        print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        """
    )

    def peak(prefix: str, files: int) -> int:
        command = [sys.executable, "-c", script, prefix]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ))
        count, kilobytes = (int(text) for text in done.stdout.split())
        assert count == files * rows
        return kilobytes

    with ThreadPoolExecutor(2) as pool:
        few, many = pool.map(peak, ("few", "many"), (6, 24))
    assert many < few * 1.15 + 20_000
