"""How much longer is building a dataset than the bare Parquet writes that it contains?

    python benchmarks/bench_dataset_build.py [--rows 1000000] [--repeat 5] [--folder .] [--limit 2.0] [--only split]

The bare writes are the same part files, byte for byte, written by pyarrow alone: rows of the split already in memory,
same row groups, compression and options, synced to the same disk. The build reads the source in batches, spools,
splits, writes, hashes, syncs and commits. Both run in turn in one process; the ratio is that of the medians. Exits
with 1 where the plain build's ratio is above the limit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from smkit import Column, Dataset, DatasetBuilder, Schema, Settings
from smkit.datasets import writing
from smkit.datasets.columns import with_nulls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class TableSource:
    """Rows that are in memory already, so that reading costs nothing."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def batches(self, *, batch_size: int = 65_536) -> Iterator[pa.RecordBatch]:
        yield from self._table.to_batches(max_chunksize=batch_size)

    def describe(self) -> dict[str, Any]:
        return {"type": "benchmark"}


def make_rows(rows: int) -> pa.Table:
    """Twelve columns as houses have them: numbers, keys, dates, flags and text."""
    rng = np.random.default_rng(0)
    cities = np.array(["Beijing", "Chongqing", "Shanghai", "Yinchuan", "Zhongwei"])
    return pa.table(
        {
            "house_id": np.arange(rows),
            "price": rng.lognormal(14, 0.5, rows),
            "area": rng.normal(90, 25, rows),
            "latitude": rng.uniform(20, 50, rows),
            "longitude": rng.uniform(80, 130, rows),
            "income": pa.array(rng.normal(8, 2, rows), mask=rng.random(rows) < 0.05),
            "rooms": rng.integers(1, 7, rows),
            "year": rng.integers(1950, 2026, rows).astype(np.int32),
            "new": rng.random(rows) < 0.1,
            "city": cities[rng.integers(0, len(cities), rows)],
            "street": pa.array([f"street {number}" for number in rng.integers(0, 50_000, rows)]),
            "sold": pa.array(rng.integers(1_500_000_000, 1_760_000_000, rows), pa.timestamp("s")).cast(
                pa.timestamp("us")
            ),
        }
    )


def timed(work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    start = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - start


def write_bare(parts: dict[str, pa.Table], complete: frozenset[str], folder: Path) -> None:
    folder.mkdir()
    for name, table in parts.items():
        path = folder / name.replace("/", "-")
        with path.open("xb") as file:
            pyarrow.parquet.write_table(
                table,
                file,
                row_group_size=writing.ROWS_PER_GROUP,
                **writing.parquet_options(table.slice(0, writing.ROWS_PER_GROUP).combine_chunks(), complete),
            )
            file.flush()
            os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure")
    parser.add_argument("--limit", type=float, default=2.0)
    parser.add_argument("--only", help="measure only the build of this label")
    options = parser.parse_args()
    table = make_rows(options.rows)
    complete = frozenset(table.column_names).difference(with_nulls(table))
    schema = Schema({"price": Column("float64", min=0), "rooms": Column("int", min=1, max=9), "city": Column("string")})

    def plain(name: str, settings: Settings) -> DatasetBuilder:
        return DatasetBuilder(name, TableSource(table), settings).split(test=0.2)

    builders: dict[str, Callable[[str, Settings], DatasetBuilder]] = {
        "split": plain,
        "split by key": lambda name, settings: plain(name, settings).split(test=0.2, by="house_id"),
        "check, split": lambda name, settings: plain(name, settings).check(schema),
        "drop duplicates, split": lambda name, settings: plain(name, settings).clean(drop_duplicates="house_id"),
    }
    print(f"{options.rows:,} rows x {table.num_columns} columns, median of {options.repeat}; ratio to the bare writes")
    worst = 0.0
    for label, make in builders.items():
        if options.only not in (None, label):
            continue
        with tempfile.TemporaryDirectory(prefix="smkit-bench-", dir=options.folder) as folder:
            settings = Settings(root=Path(folder) / "store")
            first = make("warm-up", settings).build(progress=False)
            parts = {
                file.path: pyarrow.parquet.read_table(Path(first.uri) / file.path) for file in first.manifest.files
            }
            parts = {path: part.combine_chunks() for path, part in parts.items()}
            builds, bares, ratios = [], [], []
            for run in range(options.repeat):
                builder = make(f"run-{run}", settings)
                bares.append(timed(write_bare, parts, complete, Path(folder) / f"bare-{run}"))
                builds.append(timed(builder.build, progress=False))
                ratios.append(builds[-1] / bares[-1])
            check_same_bytes(first, Path(folder) / "bare-0")
        build, bare = statistics.median(builds), statistics.median(bares)
        ratio = build / bare
        worst = max(worst, ratio if label == "split" else 0.0)
        print(
            f"{label:24} build {build:6.3f} s   bare {bare:6.3f} s   {ratio:5.2f}x   "
            f"(run by run {min(ratios):.2f}x to {max(ratios):.2f}x)"
        )
    return int(worst > options.limit)


def check_same_bytes(dataset: Dataset, bare: Path) -> None:
    for file in dataset.manifest.files:
        data = (bare / file.path.replace("/", "-")).read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise SystemExit(f"{file.path}: the bare write gives other bytes: the comparison would be unfair")


if __name__ == "__main__":
    sys.exit(main())
