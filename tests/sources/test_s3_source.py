"""S3Source: what it picks, and what happens when S3, the network or the object misbehaves."""

from __future__ import annotations

import gzip
import io
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import smkit
from smkit.errors import ConfigError, SourceConnectionError, SourceError, SourceFormatError, SourceNotFound
from smkit.sources import S3Source
from smkit.sources._datafile import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ETAG = '"0123456789abcdef0123456789abcdef"'
ROWS = 200_000
BIG_CSV = ("a,b\n" + "".join(f"{i},{i * 7:020d}x\n" for i in range(ROWS))).encode()
# Two pieces: what types are inferred from, and the rest.
assert len(BIG_CSV) > HEAD_BYTES


@pytest.fixture
def s3(aws_env: str) -> Iterator[Any]:
    client = boto3.client("s3")
    yield client
    client.close()


def columns(source: S3Source) -> dict[str, list[Any]]:
    return pa.Table.from_batches(source.batches()).to_pydict()


# --- what is read ------------------------------------------------------------------------------------------------


def test_a_prefix_ends_at_its_slash_and_skips_what_is_no_data(s3: Any, bucket: str) -> None:
    objects = {
        "raw/": b"",
        "raw/b.csv": b"a\n2\n",
        "raw/a.csv": b"a\n1\n",
        "raw/sub/c.csv.gz": gzip.compress(b"a\n3\n"),
        "raw/_SUCCESS": b"",
        "raw/_temporary/x.csv": b"broken",
        "raw/.x.csv": b"broken",
        "raw/readme.md": b"broken",
        "raw2/x.csv": b"a\n9\n",
        "top.csv": b"a\n7\n",
    }
    for key, body in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    for uri in (f"s3://{bucket}/raw", f"s3://{bucket}/raw/"):
        assert columns(S3Source(uri)) == {"a": [1, 2, 3]}
    assert columns(S3Source(f"s3://{bucket}/top.csv")) == {"a": [7]}
    assert columns(S3Source(f"s3://{bucket}")) == {"a": [1, 2, 3, 9, 7]}


def test_more_objects_than_one_page_lists(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        s3.put_object(Bucket=bucket, Key=f"raw/{i}.csv", Body=f"a\n{i}\n".encode())
    settings = smkit.Settings()
    client = settings.client("s3")
    whole = client.get_paginator

    def two_a_page(name: str) -> Any:
        paginator = whole(name)
        paginate = paginator.paginate
        paginator.paginate = lambda **asked: paginate(**asked, PaginationConfig={"PageSize": 2})
        return paginator

    monkeypatch.setattr(client, "get_paginator", two_a_page)
    assert columns(S3Source(f"s3://{bucket}/raw", settings=settings)) == {"a": [0, 1, 2, 3, 4]}


def test_declared_types_and_projection(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a.csv", Body=b"zip,x\n00123,1\n")
    source = S3Source(f"s3://{bucket}/a.csv", column_types={"zip": "string"}, columns=["zip"])
    assert columns(source) == {"zip": ["00123"]}


def test_delimiter_and_encoding(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a.csv.gz", Body=gzip.compress("a;城市\n1;北京\n".encode("gb18030")))
    source = S3Source(f"s3://{bucket}/a.csv.gz", delimiter=";", encoding="gb18030")
    assert columns(source) == {"a": [1], "城市": ["北京"]}
    assert (source.describe()["delimiter"], source.describe()["encoding"]) == (";", "gb18030")


def test_an_unclosed_quote_loses_no_rows_in_silence(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a.csv", Body=b'a,b\n1,x\n2,"oops\n3,y\n')
    with pytest.raises(SourceFormatError, match=rf"s3://{bucket}/a\.csv: line 3: a quoted value opens here"):
        S3Source(f"s3://{bucket}/a.csv").read()


def test_what_is_no_text_gets_the_source_that_reads_it() -> None:
    with pytest.raises(ConfigError, match=r"not Path: use FileSource|not PosixPath: use FileSource"):
        S3Source(Path("a.csv"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not DataFrame: use FrameSource"):
        S3Source(pa.table({"a": [1]}).to_pandas())


def test_describe_names_each_content(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="raw/a.csv", Body=b"a\n1\n")
    uri = f"s3://{bucket}/raw"
    before = S3Source(uri).describe()
    etag = s3.head_object(Bucket=bucket, Key="raw/a.csv")["ETag"]
    assert before["objects"] == [{"key": "raw/a.csv", "size": 4, "etag": etag}]
    s3.put_object(Bucket=bucket, Key="raw/a.csv", Body=b"a\n2\n")
    assert S3Source(uri).describe() != before


def test_parquet_is_read_by_range(s3: Any, bucket: str) -> None:
    """One column of a wide file must not cost the whole file."""
    wide = pa.table({f"c{i}": [f"{i}-{row}" * 20 for row in range(2000)] for i in range(40)})
    buffer = io.BytesIO()
    pq.write_table(wide, buffer, compression="none", use_dictionary=False)
    s3.put_object(Bucket=bucket, Key="wide.parquet", Body=buffer.getvalue())
    settings = smkit.Settings()
    sizes: list[int] = []
    settings.client("s3").meta.events.register(
        "after-call.s3.GetObject", lambda parsed, **kwargs: sizes.append(parsed["ContentLength"])
    )
    source = S3Source(f"s3://{bucket}/wide.parquet", columns=["c7"], settings=settings)
    assert source.read()["c7"].tolist() == wide["c7"].to_pylist()
    assert sum(sizes) < len(buffer.getvalue()) / 4


# --- what S3 refuses ---------------------------------------------------------------------------------------------


def test_nothing_there(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="empty/", Body=b"")
    settings = smkit.Settings()
    for uri in (f"s3://{bucket}/nope.csv", f"s3://{bucket}/empty/", f"s3://{bucket}/empty"):
        for use in (S3Source.read, S3Source.schema, S3Source.describe):
            with pytest.raises(SourceNotFound, match="neither an object nor a prefix with data objects"):
                use(S3Source(uri, settings=settings))
    with pytest.raises(SourceNotFound, match=r"NoSuchBucket: .*create the bucket, or correct its name"):
        S3Source("s3://smkit-no-such-bucket/x.csv").read()


@pytest.mark.parametrize("uri", ["bucket/key", "https://bucket/key", "s3://", "s3://Bad_Bucket/x"])
def test_what_is_no_uri(uri: str) -> None:
    with pytest.raises(ConfigError):
        S3Source(uri)


def test_no_credentials(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(SourceConnectionError, match="no AWS credentials found; set `profile`"):
        S3Source("s3://some-bucket/x.csv").read()


@pytest.mark.usefixtures("aws_env")
def test_an_endpoint_that_nobody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore's pauses between its attempts
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
        with pytest.raises(SourceConnectionError, match=r"Could not connect .*; check the network, the proxy"):
            S3Source("s3://some-bucket/x.csv").read()


class FakeS3(ThreadingHTTPServer):
    """One object, and a way to answer that a test chooses."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.etag = ETAG
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.refuse: tuple[int, str] | None = None
        self.cut: Callable[[int, int], int | None] = lambda request, start: None
        self.on_get: Callable[[int], None] = lambda request: None

    def gets(self) -> list[dict[str, str]]:
        return [headers for method, headers in self.requests if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    server: FakeS3
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        fake = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        fake.requests.append((self.command, headers))
        if fake.refuse:
            self.error(*fake.refuse)
            return
        if "list-type=2" in self.path:
            self.send(b"<ListBucketResult></ListBucketResult>", 200)
            return
        if self.command == "GET":
            fake.on_get(len(fake.gets()))
        if headers.get("if-match", fake.etag) != fake.etag:
            self.error(412, "PreconditionFailed")
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        start, end = (int(found[1]), int(found[2]) + 1) if found else (0, len(fake.body))
        body = fake.body[start:end]
        cut = fake.cut(len(fake.gets()), start)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(fake.body)}"} if found else {}
        self.send(body, 206 if found else 200, {"ETag": fake.etag, **headers}, cut)

    def error(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>because of the test</Message></Error>"
        self.send(text.encode(), status, {"x-amz-bucket-region": "cn-north-1"} if status == 301 else {})

    def send(self, body: bytes, status: int, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if cut is not None:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(body if cut is None else body[:cut])
            except OSError:
                self.close_connection = True  # the reader has seen enough


@contextmanager
def fake_s3(body: bytes) -> Iterator[FakeS3]:
    server = FakeS3(body)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def broken(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with fake_s3(BIG_CSV) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("smkit.sources._s3_fetch._RESUME_PAUSE_SECONDS", 0.001)
        # botocore's own retries would only slow the test down.
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (403, "AccessDenied", SourceError, "AccessDenied: .*s3:GetObject .*s3:ListBucket"),
        (403, "InvalidAccessKeyId", SourceConnectionError, "access key is unknown in this partition"),
        (403, "SignatureDoesNotMatch", SourceConnectionError, "secret access key is wrong"),
        (400, "ExpiredToken", SourceConnectionError, "ExpiredToken"),
        (301, "PermanentRedirect", SourceError, "the bucket is in another region"),
        (503, "SlowDown", SourceConnectionError, "SlowDown: .*try again later"),
    ],
)
def test_refusals_say_what_to_do(broken: FakeS3, status: int, code: str, error: type[Exception], message: str) -> None:
    broken.refuse = (status, code)
    # A prefix: a GET, whose answer has a body with the code.
    with pytest.raises(error, match=message):
        S3Source("s3://some-bucket/raw/").read()


def test_an_object_that_may_not_be_read_is_not_called_missing(broken: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_HEAD", lambda handler: handler.error(403, "AccessDenied"))
    with pytest.raises(SourceError, match=r"does not allow it: reading needs s3:GetObject"):
        S3Source("s3://some-bucket/x.csv").read()


# --- bodies that break off ---------------------------------------------------------------------------------------


def test_a_body_that_breaks_off_is_resumed_where_it_broke(broken: FakeS3) -> None:
    broken.cut = lambda request, start: 1_500_000 if start in {0, 1_500_000} else None
    read = S3Source("s3://some-bucket/x.csv").read()
    assert read["a"].tolist() == list(range(ROWS))
    assert read["b"].iloc[-1] == f"{(ROWS - 1) * 7:020d}x"
    # The first piece was read to see the types, and is not read again.
    starts = [(0, HEAD_BYTES), (1_500_000, HEAD_BYTES), (3_000_000, HEAD_BYTES), (HEAD_BYTES, len(BIG_CSV))]
    # The rest is fetched while the types are seen.
    assert sorted(get["range"] for get in broken.gets()) == sorted(f"bytes={start}-{end - 1}" for start, end in starts)
    assert all(get["if-match"] == ETAG for get in broken.gets())


def test_a_body_that_always_breaks_off_is_an_error(broken: FakeS3) -> None:
    broken.cut = lambda request, start: max(0, 3_000_000 - start)
    with pytest.raises(SourceConnectionError, match=rf"broke off 5 times after 3000000 of {len(BIG_CSV)} bytes"):
        S3Source("s3://some-bucket/x.csv").read()


def test_an_object_replaced_while_it_is_read_is_an_error(broken: FakeS3) -> None:
    def replace(request: int) -> None:
        if request == 2:
            broken.etag = '"another"'

    broken.on_get = replace
    with pytest.raises(SourceError, match="changed while it was read"):
        S3Source("s3://some-bucket/x.csv").read()


def test_an_object_replaced_before_it_is_read_is_an_error(broken: FakeS3) -> None:
    broken.on_get = lambda request: setattr(broken, "etag", '"another"')
    with pytest.raises(SourceError, match="changed while it was read"):
        S3Source("s3://some-bucket/x.csv").read()


def test_a_broken_range_of_parquet_is_resumed(broken: FakeS3) -> None:
    buffer = io.BytesIO()
    table = pa.table({"x": range(200_000)})  # too large to be fetched whole
    pq.write_table(table, buffer, compression="none", use_dictionary=False)
    broken.body = buffer.getvalue()
    broken.cut = lambda request, start: 1000 if request % 2 else None
    source = S3Source("s3://some-bucket/x.parquet")
    assert pa.Table.from_batches(source.batches()).equals(table)
    starts = [int(get["range"].removeprefix("bytes=").partition("-")[0]) for get in broken.gets()]
    assert any(second == first + 1000 for first, second in pairwise(starts))


def test_compressed_and_json_bodies_that_break_off(broken: FakeS3) -> None:
    rows = [f"{i**7 % 2**128:032x}" for i in range(150_000)]
    for name, body in (
        ("x.jsonl", "".join(f'{{"a":"{row}"}}\n' for row in rows).encode()),
        ("x.csv.gz", gzip.compress(("a\n" + "\n".join(rows)).encode(), compresslevel=1)),
    ):
        broken.body = body
        broken.requests.clear()
        broken.cut = lambda request, start: 1_000_000 if request in {1, 2} else None
        source = S3Source(f"s3://some-bucket/{name}", column_types={"a": "string"})
        assert source.read()["a"].tolist() == rows
        # Two were cut; what was fetched to see the types is not fetched again.
        assert len(broken.gets()) == 2 + (1 if len(body) <= HEAD_BYTES else 2)


def test_a_server_that_ignores_ranges_is_an_error(broken: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(handler: Handler) -> None:
        del handler.headers["Range"]
        handler.answer()

    monkeypatch.setattr(Handler, "do_GET", whole)
    with pytest.raises(SourceError, match=r"x\.csv: asked for the bytes 0 to \d+ .*does not support ranges"):
        S3Source("s3://some-bucket/x.csv").read()


def test_a_damaged_object_is_named(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x.parquet", Body=b"PAR1 no parquet PAR1")
    with pytest.raises(SourceFormatError, match=f"s3://{bucket}/x.parquet: "):
        S3Source(f"s3://{bucket}/x.parquet").read()
