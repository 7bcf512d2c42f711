"""Publishing, loading and listing models, each against the bare thing that it contains, in one run.

    python benchmarks/bench_models.py [--megabytes 1024] [--runs 5] [--versions 10000] [--folder .]

- publish: a file, and a `model.tar.gz` that is also looked into, against `boto3.upload_file` of the same file to the
  same server.
- load: a model from the cache of downloads, with its SHA-256 checked, against `joblib.load` of the same file.
- list: all versions with their metrics, against one GET each in sixteen threads; LIST and GET requests are counted.

The server is moto's, in a process of its own. What is compared runs in turn; the ratio is that of the medians. Exits
with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import report

import smkit
from smkit.versioning.manifest import Manifest, StoredFile, freeze, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PUBLISH_TARGET, LOAD_TARGET = 1.1, 1.3
BUCKET = "smkit-bench"


@contextmanager
def server() -> Iterator[str]:
    """Run moto's S3 server in its own process; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def medians(works: Mapping[str, Callable[[], Any]], *, runs: int, between: Callable[[], Any]) -> dict[str, float]:
    """Run each in turn, after one round that is not counted; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if number:
                times[name].append(time.perf_counter() - start)
            between()
    for name, values in times.items():
        print(f"  {name:24} {statistics.median(values):7.3f} s   ({min(values):.3f} to {max(values):.3f})")
    return {name: statistics.median(values) for name, values in times.items()}


def bench_publish(settings: smkit.Settings, folder: Path, megabytes: int, runs: int) -> bool:
    print(f"publish {megabytes:,} MB")
    models, client = smkit.ArtifactStore(settings), settings.client("s3")
    plain, archive = folder / "model.joblib", folder / "model.tar.gz"
    with plain.open("wb") as out:
        for _ in range(megabytes):
            out.write(os.urandom(1 << 20))
    # A model's arrays hardly compress; level 1 is what SageMaker's own archives cost to unpack.
    with tarfile.open(archive, "w:gz", compresslevel=1) as out:
        out.add(plain, "model.joblib")

    def clear() -> None:
        found = [info.key for info in models._open()[1].store.scan()]
        models._open()[1].store.delete(found)
        client.delete_object(Bucket=BUCKET, Key="bare")

    times = medians(
        {
            "upload_file": lambda: client.upload_file(str(plain), BUCKET, "bare"),
            "publish": lambda: models.publish("file", plain, force=True),
            "upload_file, tar.gz": lambda: client.upload_file(str(archive), BUCKET, "bare"),
            "publish, tar.gz": lambda: models.publish("archive", archive, force=True),
        },
        runs=runs,
        between=clear,
    )
    ratios = {
        "publish a file": times["publish"] / times["upload_file"],
        "publish a model.tar.gz": times["publish, tar.gz"] / times["upload_file, tar.gz"],
    }
    for name, ratio in ratios.items():
        report(name, ratio, PUBLISH_TARGET)
    return max(ratios.values()) <= PUBLISH_TARGET


def bench_load(settings: smkit.Settings, folder: Path, runs: int) -> bool:
    import joblib
    import numpy as np
    from sklearn.ensemble import ExtraTreesRegressor

    rng = np.random.default_rng(0)
    rows, target = rng.random((20_000, 5)), rng.random(20_000)
    forest = ExtraTreesRegressor(n_estimators=37, n_jobs=-1, random_state=0).fit(rows, target)
    path = folder / "forest" / "model.joblib"
    path.parent.mkdir()
    joblib.dump(forest, path)
    print(f"load a forest of {path.stat().st_size >> 20:,} MB from the cache")
    models = smkit.ArtifactStore(settings)
    version = models.publish("forest", path)
    models.load(version, allow_pickle=True)
    times = medians(
        {
            "joblib.load": lambda: joblib.load(path),
            "load": lambda: models.load(version, allow_pickle=True),
            "load, by reference": lambda: models.load("forest@1", allow_pickle=True),
        },
        runs=runs * 3,
        between=lambda: None,
    )
    ratio = times["load"] / times["joblib.load"]
    report("load from the cache", ratio, LOAD_TARGET)
    report("load from the cache, by reference", times["load, by reference"] / times["joblib.load"], LOAD_TARGET)
    return ratio <= LOAD_TARGET


def bench_list(settings: smkit.Settings, count: int) -> bool:
    models = smkit.ArtifactStore(settings)
    _, log = models._open()

    def write(number: int) -> None:
        file = StoredFile("model.joblib", 1000 + number, f"{number:064x}")
        body = {
            "metrics": {"test:rmse": 1 / number, "test:r2": 0.5},
            "hyperparameters": {"alpha": number / 100, "solver": "auto"},
            "environment": {"python": "3.11.7", "packages": {"scikit-learn": "1.9.1"}},
            "notes": "",
        }
        manifest = Manifest(
            "models", "many", number, uuid.uuid4().hex, f"{number:064x}", utc_now(), "bench", (file,), freeze(body)
        )
        log.store.put_if_absent(log._key("many", number), manifest.encode())

    print(f"list {count:,} versions with their metrics (writing them first)")
    write(1)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(2, count + 1)))
    # As the publish that fills a block does.
    for top in range(100, count + 1, 100):
        log.segments.write_due("many", top)

    requests: list[str] = []
    settings.client("s3").meta.events.register("before-call.s3", lambda model, **_: requests.append(model.name))

    def one_each() -> list[Any]:
        with ThreadPoolExecutor(16) as pool:
            return [m.body["metrics"] for m in pool.map(lambda n: log.manifest("many", n), log.versions("many"))]

    def listed() -> list[Any]:
        return [version.metrics for version in models.versions("many")]

    found = {}
    for name, work in (("versions()", listed), ("one GET each", one_each)):
        requests.clear()
        start = time.perf_counter()
        metrics = work()
        found[name] = time.perf_counter() - start
        if len(metrics) != count or metrics[0]["test:r2"] != 0.5:
            raise SystemExit(f"{name} gave {len(metrics)} versions, not {count}")
        lists, gets = requests.count("ListObjectsV2"), requests.count("GetObject")
        print(f"  {name:24} {found[name]:7.3f} s   {lists} LIST, {gets} GET")
    start = time.perf_counter()
    models.versions("many").to_frame()
    print(f"  {'versions().to_frame()':24} {time.perf_counter() - start:7.3f} s")
    print(f"list: {found['one GET each'] / found['versions()']:.0f} times as fast as one GET each")
    return found["versions()"] < found["one GET each"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smkit-bench-", dir=options.folder) as name, server() as url:
        folder = Path(name)
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_EC2_METADATA_DISABLED": "true",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        settings = smkit.Settings(bucket=BUCKET)
        settings.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": settings.region}
        )
        met = [
            bench_load(settings, folder, options.runs),
            bench_publish(settings, folder, options.megabytes, options.runs),
            bench_list(settings, options.versions),
        ]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
