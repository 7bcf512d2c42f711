"""A build in a process of its own, that can be stopped at a chosen point: `python -m tests.datasets.child`.

Arguments: the store's root, and options as JSON: `rows`, `columns`, `seed`, `format`, `name`; `pause` (where to print
`paused` and wait to be killed: `reading`, `mapping`, `writing`, `moving`, `committing`, `committed`); `start_at` (a
file to wait for); `file_limit` (bytes, as by `ulimit -f`). Prints the reference and the peak memory as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from smkit import DatasetBuilder, Settings
from smkit.datasets.writing import PartWriter
from smkit.storage.folder import FolderStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd


def pause() -> None:
    print("paused", flush=True)
    time.sleep(60)


class RandomRows:
    """Rows made as they are asked for, so that the source holds no memory."""

    def __init__(self, rows: int, columns: int, seed: int, *, paused: bool) -> None:
        self.rows, self.columns, self.seed, self.paused = rows, columns, seed, paused

    def batches(self, *, batch_size: int = 65_536) -> Iterator[pa.RecordBatch]:
        for start in range(0, self.rows, batch_size):
            if self.paused and start:
                pause()
            count = min(batch_size, self.rows - start)
            rng = np.random.default_rng((self.seed, start))
            yield pa.record_batch({f"c{number}": rng.random(count) for number in range(self.columns)})

    def describe(self) -> dict[str, Any]:
        return {"type": "random", "seed": self.seed}


def pausing(function: Callable[..., Any], *, before: bool, calls: int = 1) -> Callable[..., Any]:
    made = 0

    def paused(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if before and made == calls:
            pause()
        result = function(*arguments, **options)
        if not before and made == calls:
            pause()
        return result

    return paused


def main(root: str, options: dict[str, Any]) -> None:
    point = options.get("pause")
    if point == "writing":
        PartWriter._write = pausing(PartWriter._write, before=False)  # type: ignore[method-assign]
    elif point == "moving":
        FolderStore.adopt = pausing(FolderStore.adopt, before=False)  # type: ignore[method-assign]
    elif point in {"committing", "committed"}:
        put = pausing(FolderStore.put_if_absent, before=point == "committing")
        FolderStore.put_if_absent = put  # type: ignore[method-assign]
    if limit := options.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def transform(frame: pd.DataFrame) -> pd.DataFrame:
        if point == "mapping":
            pause()
        return frame

    source = RandomRows(
        options.get("rows", 1000), options.get("columns", 3), options.get("seed", 0), paused=point == "reading"
    )
    builder = DatasetBuilder(options.get("name", "houses"), source, Settings(root=root)).split(test=0.25)
    if point == "mapping":
        builder = builder.map(transform)
    if start_at := options.get("start_at"):
        print("ready", flush=True)
        while not Path(start_at).exists():
            time.sleep(0.001)
    dataset = builder.build(format=options.get("format", "parquet"), batch_size=options.get("batch_size", 65_536))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"ref": dataset.ref, "digest": dataset.digest, "peak": peak}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
