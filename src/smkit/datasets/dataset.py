"""An immutable dataset version, and one split of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from smkit.datasets.columns import cast_table
from smkit.datasets.splits import SPLITS
from smkit.errors import ConfigError, IntegrityError, MissingColumnError, VersionNotFound, did_you_mean
from smkit.frames import to_pandas
from smkit.versioning.reading import copy_all, open_verified

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from smkit.versioning import Manifest, StoredFile, VersionLog

#: Bytes that are parsed at a time; no row may be longer.
_CSV_BLOCK = 1 << 26


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
        tables = [self._read_file(file, schema, wanted) for name in splits for file in self._files(name)]
        return pa.concat_tables(tables).combine_chunks()

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

    def _read_file(self, file: StoredFile, schema: pa.Schema, columns: list[str]) -> pa.Table:
        # The stream and not a path: by another opening the bytes could be others than those that were checked.
        with open_verified(self._log.store, self.manifest, file) as stream:
            try:
                if self.manifest.body["format"] == "parquet":
                    # ParquetFile and not read_table: the latter takes folder names such as `a=1` for columns.
                    with pyarrow.parquet.ParquetFile(stream) as parquet:
                        table = parquet.read(columns=columns)
                else:
                    table = _read_csv(stream, schema)
            except pa.ArrowInvalid as error:
                raise IntegrityError(f"{file.path} of dataset {self.ref} cannot be read: {error}") from error
        # Arrow takes `a` for a prefix of `a.b` as well, hence the selection; Parquet has no unit of seconds.
        return cast_table(table.select(columns), pa.schema([schema.field(name) for name in columns]))

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


def _read_csv(stream: BinaryIO, schema: pa.Schema) -> pa.Table:
    """Read a CSV part back to the types that were written: an empty field is missing, a quoted one is empty text."""
    options = pyarrow.csv.ConvertOptions(
        column_types=schema,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["true"],
        false_values=["false"],
    )
    return pyarrow.csv.read_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK),
        convert_options=options,
        # The only column's NULL is an empty line.
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
    )
