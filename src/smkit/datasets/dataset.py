"""An immutable dataset version, and one split of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smkit.datasets.lineage import ancestors_of, parents_of
from smkit.datasets.parts import part_batches, read_part
from smkit.datasets.splits import SPLITS
from smkit.errors import ConfigError, MissingColumnError, VersionNotFound, did_you_mean
from smkit.frames import to_pandas
from smkit.versioning.reading import copy_all

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    import pandas as pd

    from smkit.datasets.diff import DatasetDiff
    from smkit.datasets.lineage import Parent
    from smkit.datasets.profile import DatasetProfile
    from smkit.versioning import Manifest, StoredFile, VersionLog


@dataclass(frozen=True, eq=False)
class Dataset:
    """One version of a dataset. Made by `DatasetBuilder.build` and found again by `DatasetStore.get`.

    Two are equal where they are the same version in the same store.

    Attributes:
        manifest: What was published: schema, row counts, files with digests, source, steps.
    """

    manifest: Manifest
    _log: VersionLog

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {rows:,}" for split, rows in self.rows.items())
        return f"<Dataset {self.ref}: {counts} rows>"

    def _repr_html_(self) -> str:
        from smkit.datasets.dataset_display import dataset_html

        return dataset_html(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def name(self) -> str:
        """The name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The version number, from 1."""
        return self.manifest.version

    @property
    def ref(self) -> str:
        """The reference, such as `houses@1`."""
        return str(self.manifest)

    @property
    def digest(self) -> str:
        """The content digest: equal for equal schema, splits and bytes."""
        return self.manifest.content_digest

    @property
    def uri(self) -> str:
        """Where the files lie: a folder or an `s3://` prefix."""
        return f"{self._log.store.uri}/{self.manifest.key_of('')}".rstrip("/")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, of `train`, `validation` and `test` those that there are."""
        return tuple(self.rows)

    @property
    def rows(self) -> Mapping[str, int]:
        """The number of rows of each split."""
        splits = self.manifest.body["splits"]
        return MappingProxyType({split: splits[split]["rows"] for split in SPLITS if split in splits})

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema."""
        data = base64.b64decode(self.manifest.body["arrow_schema"])
        return pa.ipc.read_schema(pa.py_buffer(data))

    def __getitem__(self, split: str) -> DatasetSplit:
        """Return one split, which is a channel that a job can be given."""
        if not isinstance(split, str) or split not in self.rows:
            hint = did_you_mean(split, self.rows) if isinstance(split, str) else ""
            raise VersionNotFound(f"dataset {self.ref} has no split {split!r}, only {', '.join(self.splits)}{hint}")
        return DatasetSplit(self, split)

    def read(self, split: str | None = None, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read one split, or all of them one after the other, into memory. Every file's SHA-256 is checked first.

        Args:
            split: The split; None for all.
            columns: Only these columns, in this order.

        Raises:
            IntegrityError: Bytes are not those that were published.
            VersionNotFound: There is no such split.
            MissingColumnError: There is no such column.
        """
        return to_pandas(self.read_arrow(split, columns=columns))

    def read_arrow(self, split: str | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        """As `read`, as an Arrow table."""
        schema = self.schema
        wanted = schema.names if columns is None else self._check_columns(columns, schema)
        splits = self.splits if split is None else (self[split].name,)
        store = self._log.store
        files = [file for name in splits for file in self._files(name)]
        tables = [read_part(store, self.manifest, file, schema, wanted) for file in files]
        return pa.concat_tables(tables).combine_chunks()

    def batches(
        self, *, batch_size: int = 65_536, split: str | None = None, columns: Sequence[str] | None = None
    ) -> Generator[pa.RecordBatch]:
        """Yield the rows in bounded memory, split after split; every file's SHA-256 is checked before its first row.

        This makes a dataset a source: `DatasetBuilder("flats", dataset)`.

        Args:
            batch_size: The most rows of a batch.
            split: The split; None for all.
            columns: Only these columns, in this order.

        Raises:
            IntegrityError: Bytes are not those that were published.
            VersionNotFound: There is no such split.
            MissingColumnError: There is no such column.
        """
        schema = self.schema
        wanted = schema.names if columns is None else self._check_columns(columns, schema)
        for name in self.splits if split is None else (self[split].name,):
            for file in self._files(name):
                yield from part_batches(self._log.store, self.manifest, file, schema, wanted, batch_size=batch_size)

    def _check_columns(self, columns: Sequence[str], schema: pa.Schema) -> list[str]:
        if isinstance(columns, str) or not columns:
            raise ConfigError(
                f"columns={columns!r}: expected a list of at least one column, such as {schema.names[:1]}"
            )
        for column in columns:
            if column not in schema.names:
                hint = did_you_mean(column, schema.names) if isinstance(column, str) else ""
                raise MissingColumnError(
                    f"dataset {self.ref} has no column {column!r}{hint}; it has {', '.join(schema.names)}"
                )
        return list(columns)

    def _files(self, split: str) -> list[StoredFile]:
        return [file for file in self.manifest.files if file.path.startswith(f"{split}/")]

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The dataset versions that this one was made from: appended to, or read as its source."""
        return parents_of(self.manifest)

    def lineage(self) -> tuple[Parent, ...]:
        """Return the parents, their parents and so on, the nearest first.

        Raises:
            IntegrityError: A manifest was changed.
        """
        return ancestors_of(self._log, self.manifest)

    def profile(self, split: str | None = None, *, columns: Sequence[str] | None = None) -> DatasetProfile:
        """Summarise each column: missing and distinct values, range, mean, quartiles, most frequent values.

        One pass in bounded memory; see `DatasetProfile` for what is exact.

        Args:
            split: The split; None for all rows.
            columns: Only these columns.

        Raises:
            IntegrityError: Bytes are not those that were published.
            VersionNotFound: There is no such split.
            MissingColumnError: There is no such column.
        """
        from smkit.datasets.profiling import profile_dataset

        names = self.schema.names if columns is None else self._check_columns(columns, self.schema)
        return profile_dataset(self, split, names)

    def diff(self, other: Dataset, *, key: str | Iterable[str] | None = None) -> DatasetDiff:
        """Compare with a version that came after: schema, rows of each split, rows added and removed, drift.

        Args:
            other: The version after; it may have another name.
            key: Columns that name a row, so that changed rows are told from added and removed ones. Without it a
                changed row is one removed and one added.

        Raises:
            ConfigError: `other` is no dataset.
            MissingColumnError: A key column is not in both.
            DatasetError: The key repeats or is missing in a row.
            IntegrityError: Bytes are not those that were published.
        """
        from smkit.datasets.comparing import compare_datasets

        return compare_datasets(self, other, key)

    def channels(self) -> dict[str, DatasetSplit]:
        """Return each split by its name: what a training job is given."""
        return {split: self[split] for split in self.splits}

    def verify(self) -> None:
        """Read every file and compare it with the manifest.

        Raises:
            IntegrityError: Files are missing or changed; all of them are listed.
        """
        self._log.verify(self.manifest)

    def describe(self) -> dict[str, Any]:
        """Return what a job or a model should remember of its dataset."""
        return {"dataset": self.ref, "digest": self.digest, "uri": self.uri, "rows": dict(self.rows)}


@dataclass(frozen=True)
class DatasetSplit:
    """One split of a dataset version; a channel of a training job.

    Attributes:
        dataset: The version.
        name: The split.
    """

    dataset: Dataset
    name: str

    def __repr__(self) -> str:
        return f"<DatasetSplit {self.dataset.ref}[{self.name!r}]: {self.dataset.rows[self.name]:,} rows>"

    @property
    def uri(self) -> str:
        """Where the files lie: a folder or an `s3://` prefix."""
        return f"{self.dataset.uri}/{self.name}"

    def read(self, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the split into memory; see `Dataset.read`."""
        return self.dataset.read(self.name, columns=columns)

    def batches(self, *, batch_size: int = 65_536, columns: Sequence[str] | None = None) -> Generator[pa.RecordBatch]:
        """Yield the rows in bounded memory; see `Dataset.batches`."""
        return self.dataset.batches(batch_size=batch_size, split=self.name, columns=columns)

    def profile(self, *, columns: Sequence[str] | None = None) -> DatasetProfile:
        """Summarise each column; see `Dataset.profile`."""
        return self.dataset.profile(self.name, columns=columns)

    def download(self, folder: str | Path) -> None:
        """Copy the files into a folder, which is made if need be; each is checked against its SHA-256 on the way.

        Raises:
            IntegrityError: Bytes are not those that were published; nothing is left in the folder then.
        """
        copy_all(self.dataset._log.store, self.dataset.manifest, Path(folder), under=f"{self.name}/")

    def describe(self) -> dict[str, Any]:
        """Return what a job should remember of its channel."""
        return {
            "dataset": self.dataset.ref,
            "digest": self.dataset.digest,
            "split": self.name,
            "rows": self.dataset.rows[self.name],
            "uri": self.uri,
        }
