"""A build in a process of its own, that can be stopped at a chosen point: `python -m tests.datasets.child`.

Arguments: the store's root, and options as JSON: `rows`, `columns`, `seed`, `format`, `name`; `pause` (where to print
`paused` and wait to be killed: `reading`, `mapping`, `writing`, `moving`, `committing`, `committed`); `start_at` (a
file to wait for); `file_limit` (bytes, as by `ulimit -f`); `ids_from` (rows have a column `id` that counts from here,
and are split by it); `append` (by `id`); `diff` (two references, compared by `id` instead of a build). Prints the
reference and the peak memory as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from smkit import DatasetBuilder, DatasetStore, Settings
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

    def __init__(self, rows: int, columns: int, seed: int, *, paused: bool, ids_from: int | None) -> None:
        self.rows, self.columns, self.seed, self.paused = rows, columns, seed, paused
        self.ids_from = ids_from

    def batches(self, *, batch_size: int = 65_536) -> Iterator[pa.RecordBatch]:
        for start in range(0, self.rows, batch_size):
            if self.paused and start:
                pause()
            count = min(batch_size, self.rows - start)
            rng = np.random.default_rng((self.seed, start))
            ids = {} if self.ids_from is None else {"id": np.arange(start, start + count) + self.ids_from}
            yield pa.record_batch({**ids, **{f"c{number}": rng.random(count) for number in range(self.columns)}})

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


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(root: str, options: dict[str, Any]) -> None:
    if refs := options.get("diff"):
        rows = DatasetStore(Settings(root=root)).diff(*refs, key="id").rows
        print(json.dumps({**vars(rows), "peak": peak()}), flush=True)
        return
    point = options.get("pause")
    if point == "writing":
        # In the thread that Ctrl-C reaches, while another one writes.
        PartWriter._submit = pausing(PartWriter._submit, before=False)  # type: ignore[method-assign]
    elif point == "moving":
        FolderStore.adopt = pausing(FolderStore.adopt, before=False)  # type: ignore[method-assign]
    elif point in {"committing", "committed"}:
        put = pausing(FolderStore.put_if_absent, before=point == "committing")
        FolderStore.put_if_absent = put  # type: ignore[method-assign]
    elif point == "linking":
        os.link = pausing(os.link, before=False)
    if limit := options.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def transform(frame: pd.DataFrame) -> pd.DataFrame:
        if point == "mapping":
            pause()
        return frame

    source = RandomRows(
        options.get("rows", 1000),
        options.get("columns", 3),
        options.get("seed", 0),
        paused=point == "reading",
        ids_from=options.get("ids_from"),
    )
    builder = DatasetBuilder(options.get("name", "houses"), source, Settings(root=root))
    builder = builder.split(test=0.25, by="id" if "ids_from" in options else None)
    if options.get("append"):
        builder = builder.append("id")
    if point == "mapping":
        builder = builder.map(transform)
    if start_at := options.get("start_at"):
        print("ready", flush=True)
        while not Path(start_at).exists():
            time.sleep(0.001)
    dataset = builder.build(format=options.get("format", "parquet"), batch_size=options.get("batch_size", 65_536))
    print(json.dumps({"ref": dataset.ref, "digest": dataset.digest, "peak": peak()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
