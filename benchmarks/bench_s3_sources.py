"""Reading Parquet and CSV prefixes of S3 with `S3Source` against awswrangler, in one run.

    python benchmarks/bench_s3_sources.py [--files 8] [--rows 500000] [--runs 5] [--server remote|moto|static]

awswrangler needs an environment of its own (`pip install awswrangler`); both read the same objects of the same server
into a DataFrame, in turn, in one process. The ratio is that of the medians. Exits with 1 where a target is missed.

The server is a process of its own, of three kinds:

- `remote` (the default) answers GET, HEAD and LIST of a folder as S3 does over a network: each answer starts after
  100 ms and each connection carries 85 MB/s, the numbers that AWS gives for planning
  (https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html and
  optimizing-performance-design-patterns.html: 100 to 200 ms; one request for each 85 to 90 MB/s). Of 2 cores of one
  machine, shared with the server, the parsers alone would decide otherwise.
- `static` is the same without delays: what the readers themselves cost.
- `moto` is moto's server, which spends more time on a request than either reader.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TARGET = 1.5
FIRST_BYTE_SECONDS = 0.1
CONNECTION_BYTES_PER_SECOND = 85e6
BUCKET = "smkit-bench"


class StaticS3(BaseHTTPRequestHandler):
    """GET with ranges, HEAD, and LIST in one page, of the files below the working folder."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    remote = False

    def do_GET(self) -> None:
        if self.remote:
            time.sleep(FIRST_BYTE_SECONDS)
        url = urlsplit(self.path)
        if "list-type" in parse_qs(url.query):
            self.list(parse_qs(url.query).get("prefix", [""])[0])
        else:
            self.object(unquote(url.path).removeprefix(f"/{BUCKET}/"))

    do_HEAD = do_GET  # noqa: N815 - the name is the base class's

    def list(self, prefix: str) -> None:
        found = sorted(path for path in Path().rglob("*") if path.is_file() and path.as_posix().startswith(prefix))
        entries = "".join(
            f"<Contents><Key>{escape(path.as_posix())}</Key><Size>{path.stat().st_size}</Size>"
            f"<ETag>{etag(path)}</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for path in found
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()
        self.head(200, {"Content-Type": "application/xml", "Content-Length": len(body)})
        self.wfile.write(body)

    def object(self, key: str) -> None:
        path = Path(key)
        if not path.is_file():
            self.head(404, {"Content-Length": 0})
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(size, int(asked[2] or size) + 1)) if asked else (0, size)
        shown = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if asked else {}
        base = {"Content-Length": end - start, "ETag": etag(path), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        self.head(206 if asked else 200, {**base, **shown, "Accept-Ranges": "bytes"})
        if self.command == "GET":
            self.wfile.flush()
            begun, begin = time.monotonic(), start
            portion = 1 << 20 if self.remote else end - start
            with path.open("rb") as file:
                while start < end and (
                    sent := os.sendfile(self.connection.fileno(), file.fileno(), start, min(portion, end - start))
                ):
                    start += sent
                    if self.remote:
                        time.sleep(max(0.0, begun + (start - begin) / CONNECTION_BYTES_PER_SECOND - time.monotonic()))

    def head(self, status: int, headers: Mapping[str, Any]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class RemoteS3(StaticS3):
    """As far away as S3."""

    remote = True


class StaticServer(ThreadingHTTPServer):
    #: Of more connections at once than the default, five, the system drops some, and tries again seconds later.
    request_queue_size = 128
    daemon_threads = True


def etag(path: Path) -> str:
    return f'"{hashlib.md5(path.as_posix().encode()).hexdigest()}"'


@contextmanager
def server(kind: str, folder: Path) -> Iterator[str]:
    """Run a server in its own process; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = [sys.executable, str(Path(__file__).resolve()), "--server", kind, "--serve", str(port)]
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        moto if kind == "moto" else own, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait(30)


def write(folder: Path, files: int, rows: int) -> None:
    """Write the same rows as Parquet and as CSV: integers, floats, text, a date, some of them NULL."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    for number in range(files):
        price = rng.random(rows).round(4)
        price[rng.random(rows) < 0.05] = np.nan
        frame = pd.DataFrame(
            {
                "id": np.arange(number * rows, (number + 1) * rows),
                "rooms": rng.integers(1, 9, rows),
                **{f"f{i}": rng.random(rows).round(6) for i in range(6)},
                "price": price,
                "city": rng.choice(["Yinchuan", "Beijing", "Ningxia", "Shanghai"], rows),
                "street": [f"{i} Long Street" for i in rng.integers(0, 1_000_000, rows)],
                "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 365, rows), unit="D"),
            }
        )
        for name in ("parquet", "csv"):
            (folder / name).mkdir(exist_ok=True)
        frame.to_parquet(folder / "parquet" / f"part-{number:04d}.parquet", row_group_size=rows // 4)
        frame.to_csv(folder / "csv" / f"part-{number:04d}.csv", index=False)


def medians(works: Mapping[str, Callable[[], Any]], *, runs: int) -> dict[str, float]:
    """Run each in turn, after one round that is not counted; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if number:
                times[name].append(time.perf_counter() - start)
    for name, values in times.items():
        print(f"  {name:28} {statistics.median(values):7.3f} s   ({min(values):.3f} to {max(values):.3f})")
    return {name: statistics.median(values) for name, values in times.items()}


def compare(runs: int) -> bool:
    import awswrangler as wr

    import smkit

    settings = smkit.Settings(bucket=BUCKET)
    uri = f"s3://{BUCKET}"
    wanted, rows = ["id", "price"], [("price", ">", 0.5)]
    works: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "parquet": (
            lambda: smkit.S3Source(f"{uri}/parquet/", settings=settings).read(),
            lambda: wr.s3.read_parquet(f"{uri}/parquet/"),
        ),
        "parquet, 2 columns": (
            lambda: smkit.S3Source(f"{uri}/parquet/", columns=wanted, filters=rows, settings=settings).read(),
            lambda: wr.s3.read_parquet(f"{uri}/parquet/", columns=wanted).query("price > 0.5"),
        ),
        "csv": (
            lambda: smkit.S3Source(f"{uri}/csv/", settings=settings).read(),
            lambda: wr.s3.read_csv(f"{uri}/csv/"),
        ),
    }
    for name, (own, other) in works.items():
        if own().shape != other().shape:
            raise SystemExit(f"{name}: the two read different rows")
    flat = {
        f"{name}: {who}": work
        for name, pair in works.items()
        for who, work in zip(("smkit", "awswrangler"), pair, strict=True)
    }
    times = medians(flat, runs=runs)
    met = True
    for name in works:
        ratio = times[f"{name}: awswrangler"] / times[f"{name}: smkit"]
        met = met and ratio >= TARGET
        verdict = "ok" if ratio >= TARGET else "MISSED"
        print(f"{name}: {ratio:.2f} times as fast as awswrangler (target: at least {TARGET}) {verdict}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rows", type=int, default=500_000, help="of each file")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--server", choices=("remote", "static", "moto"), default="remote")
    parser.add_argument("--folder", type=Path, default=None, help="for the data; default: the system's temporary one")
    parser.add_argument("--serve", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        handler = RemoteS3 if options.server == "remote" else StaticS3
        StaticServer(("127.0.0.1", options.serve), handler).serve_forever()
    with tempfile.TemporaryDirectory(prefix="smkit-bench-", dir=options.folder) as name:
        folder = Path(name)
        write(folder, options.files, options.rows)
        sizes = {kind: sum(p.stat().st_size for p in (folder / kind).iterdir()) >> 20 for kind in ("parquet", "csv")}
        print(f"{options.files} files of {options.rows:,} rows; MB: {sizes}; server: {options.server}")
        with server(options.server, folder) as url:
            os.environ |= {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_DEFAULT_REGION": "cn-northwest-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
            if options.server == "moto":
                upload(folder)
            return int(not compare(options.runs))


def upload(folder: Path) -> None:
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": client.meta.region_name})
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())
    client.close()


if __name__ == "__main__":
    sys.exit(main())
