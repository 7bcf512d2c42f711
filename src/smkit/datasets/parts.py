"""Reading part files back: whole, or in batches of bounded memory. Every file's SHA-256 is checked first."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from smkit.arrow_memory import reopened
from smkit.datasets.columns import cast_table
from smkit.errors import IntegrityError
from smkit.versioning.reading import open_verified

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from smkit.storage import ObjectStore
    from smkit.versioning import Manifest, StoredFile

#: Bytes that are parsed at a time; no row may be longer.
_CSV_BLOCK = 1 << 26


def read_part(
    store: ObjectStore, manifest: Manifest, file: StoredFile, schema: pa.Schema, columns: Sequence[str]
) -> pa.Table:
    """Read some columns of one file.

    Raises:
        IntegrityError: Bytes are not those that were published.
    """
    # Not by its path: by another opening the bytes could be others than those that were checked.
    with open_verified(store, manifest, file) as stream, reopened(stream) as source, _damage(manifest, file):
        if manifest.body["format"] == "parquet":
            # ParquetFile and not read_table: the latter takes folder names such as `a=1` for columns.
            with pyarrow.parquet.ParquetFile(source) as parquet:
                table = parquet.read(columns=list(columns))
        else:
            table = pyarrow.csv.read_csv(source, **_csv_options(schema))
    return _selected(table, schema, columns)


def part_batches(
    store: ObjectStore,
    manifest: Manifest,
    file: StoredFile,
    schema: pa.Schema,
    columns: Sequence[str],
    *,
    batch_size: int,
) -> Generator[pa.RecordBatch]:
    """Yield the rows of one file in batches of at most `batch_size` rows.

    Raises:
        IntegrityError: Bytes are not those that were published.
    """
    with open_verified(store, manifest, file) as stream, reopened(stream) as source:
        parquet = manifest.body["format"] == "parquet"
        batches = _parquet(source, columns, batch_size) if parquet else _csv(source, schema)
        while True:
            with _damage(manifest, file):
                batch = next(batches, None)
            if batch is None:
                return
            table = _selected(pa.Table.from_batches([batch]), schema, columns)
            yield from table.combine_chunks().to_batches(max_chunksize=batch_size)


def _parquet(source: pa.NativeFile, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    with pyarrow.parquet.ParquetFile(source) as parquet:
        # One row group after the other: asked for all of them, Arrow keeps more than one in memory.
        for group in range(parquet.num_row_groups):
            yield from parquet.iter_batches(batch_size=batch_size, row_groups=[group], columns=list(columns))


def _csv(source: pa.NativeFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pyarrow.csv.open_csv(source, **_csv_options(schema)) as reader:
        yield from reader


def _selected(table: pa.Table, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    # Arrow takes `a` for a prefix of `a.b` as well, hence the selection; Parquet has no unit of seconds.
    return cast_table(table.select(list(columns)), pa.schema([schema.field(name) for name in columns]))


@contextlib.contextmanager
def _damage(manifest: Manifest, file: StoredFile) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise IntegrityError(f"{file.path} of dataset {manifest} cannot be read: {error}") from error


def _csv_options(schema: pa.Schema) -> dict[str, object]:
    """Return how a CSV part becomes the types that were written: an empty field is missing, a quoted one empty text."""
    return {
        "read_options": pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["true"],
            false_values=["false"],
        ),
        # The only column's NULL is an empty line.
        "parse_options": pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
    }
