"""What the tests of datasets share."""

from __future__ import annotations

import datetime as dt
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from smkit import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import distributed
    import pyarrow as pa


class TableSource:
    """The rows of an Arrow table; counts how often it was opened and closed."""

    def __init__(self, table: pa.Table, *, fail_after: int | None = None) -> None:
        self.table = table
        self.fail_after = fail_after
        self.opened = 0
        self.closed = 0

    def batches(self, *, batch_size: int = 65_536) -> Iterator[pa.RecordBatch]:
        self.opened += 1
        try:
            for number, batch in enumerate(self.table.combine_chunks().to_batches(max_chunksize=batch_size)):
                if self.fail_after is not None and number >= self.fail_after:
                    raise ConnectionResetError("the server is gone")
                yield batch
        finally:
            self.closed += 1

    def describe(self) -> dict[str, Any]:
        return {"type": "table", "rows": self.table.num_rows}


class BatchSource:
    """Exactly these batches, whatever the batch size."""

    def __init__(self, *tables: pa.Table) -> None:
        self.tables = tables

    def batches(self, *, batch_size: int = 65_536) -> Iterator[pa.RecordBatch]:
        for table in self.tables:
            yield from table.combine_chunks().to_batches()

    def describe(self) -> dict[str, Any]:
        return {"type": "batches"}


@pytest.fixture(scope="module")
def client(cluster: distributed.LocalCluster) -> Iterator[distributed.Client]:
    """A client of the module's cluster."""
    from distributed import Client

    with Client(cluster, set_as_default=False) as connected:
        yield connected


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Settings, Settings]:
    """One store for what is built alone, and one for what a cluster builds."""
    return Settings(root=tmp_path / "alone"), Settings(root=tmp_path / "together")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "store")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def files_below(folder: Path) -> list[str]:
    """Every file and folder below, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def wall(*parts: int) -> dt.datetime:
    """A time on a clock of no zone, as columns without a time zone hold."""
    return dt.datetime(*parts)  # type: ignore[arg-type] # noqa: DTZ001 - that is what it is
