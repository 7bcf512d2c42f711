"""Part files: the rows of a split in Parquet or CSV.

The size of row groups and parts is fixed, whatever the batch size, so that the same rows give the same bytes. Encoding
and hashing run in threads of their own beside the reader of the rows: Arrow and hashlib release the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from smkit.datasets.staging import disk_errors
from smkit.errors import DatasetError, WideDecimalWarning
from smkit.storage import Digest
from smkit.versioning import PendingFile

if TYPE_CHECKING:
    from collections.abc import Set
    from concurrent.futures import Future
    from pathlib import Path

Format = Literal["parquet", "csv"]

ROWS_PER_GROUP = 1 << 17
#: A whole number of row groups.
ROWS_PER_PART = 1 << 20
#: Pages, encodings and a codec that pyarrow 1.0, the oldest in a training image, reads. 2.4 would cut nanoseconds.
_PARQUET = {"version": "2.6", "data_page_version": "1.0", "compression": "zstd"}
#: Pieces of a file, of about a megabyte, that wait to be hashed.
_PIECES_AHEAD = 8


class _HashingWriter:
    """A binary file that hashes what is written to it, in a thread of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, "smkit-hash")
        self._pieces: deque[Future[None]] = deque()
        self._size = 0
        self.closed = False
        #: Whether what is still to come is of no use: a writer of Arrow writes a footer when it is closed.
        self.discard = False

    def write(self, data: Any) -> int:
        """Write bytes."""
        if not self.discard:
            self._file.write(data)
            if len(self._pieces) >= _PIECES_AHEAD:
                self._pieces.popleft().result()
            # A copy: Arrow's CSV writer uses its buffer again. `bytes` of bytes is no copy.
            self._pieces.append(self._hasher.submit(self._sha256.update, bytes(data)))
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        """Hand the bytes to the system."""
        self._file.flush()

    def tell(self) -> int:
        """Return how much was written."""
        return self._size

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._hasher.shutdown(cancel_futures=self.discard)
        self._file.close()

    def digest(self) -> Digest:
        """Return the digest of all that was written; the file must be closed."""
        return Digest(self._sha256.hexdigest(), self._size)


class PartWriter:
    """Writes the rows of one split as `<split>/part-00000.parquet` and so on.

    Args:
        folder: Where the files are written, before they are published.
        split: The split.
        schema: The schema of all parts.
        file_format: Parquet or CSV.
        complete: The columns without a NULL in any row of the build, whatever its split.
        first_part: The number of the first part.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        schema: pa.Schema,
        file_format: Format,
        *,
        complete: Set[str] = frozenset(),
        first_part: int = 0,
    ) -> None:
        self._folder = folder / split
        self._split = split
        self._schema = schema if file_format == "parquet" else _csv_schema(schema)
        self._format = file_format
        self._complete = complete
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        self._writer: Any = None
        self._sink: _HashingWriter | None = None
        self._rows_in_part = 0
        self._first_part = first_part
        self._thread = ThreadPoolExecutor(1, f"smkit-{split}")
        self._group: Future[None] | None = None
        self.rows = 0
        self.files: list[PendingFile] = []

    def append(self, table: pa.Table) -> None:
        """Add rows; they are written, by a thread, when a row group is full.

        Raises:
            StorageError: What was added before could not be written.
        """
        if not table.num_rows:
            return
        self._buffer.append(table)
        self._buffered += table.num_rows
        self.rows += table.num_rows
        while self._buffered >= ROWS_PER_GROUP:
            buffered = pa.concat_tables(self._buffer)
            self._submit(buffered.slice(0, ROWS_PER_GROUP))
            rest = buffered.slice(ROWS_PER_GROUP)
            self._buffer, self._buffered = ([rest] if rest.num_rows else []), rest.num_rows

    def finish(self) -> None:
        """Write what is left.

        Raises:
            StorageError: It could not be written.
        """
        if self._buffered:
            self._submit(pa.concat_tables(self._buffer))
            self._buffer, self._buffered = [], 0
        self._wait()
        self._thread.shutdown()
        with disk_errors(self._folder):
            self._close_part()

    def abandon(self) -> None:
        """Close the open file; what was written so far is of no use."""
        self._thread.shutdown(cancel_futures=True)
        if self._sink is not None:
            self._sink.discard = True
            # On a full disk the first error is the one to tell; it may have come from opening the writer.
            with contextlib.suppress(OSError, pa.ArrowException):
                if self._writer is not None:
                    self._writer.close()
            with contextlib.suppress(OSError):
                self._sink.close()
            self._writer = self._sink = None

    def _submit(self, table: pa.Table) -> None:
        # One group is encoded while the next one is collected; more would only take memory.
        self._wait()
        self._group = self._thread.submit(self._write_group, table)

    def _wait(self) -> None:
        if self._group is not None:
            self._group.result()
            self._group = None

    def _write_group(self, table: pa.Table) -> None:
        with disk_errors(self._folder):
            self._write(table)

    def _write(self, table: pa.Table) -> None:
        # One chunk a column: where batches ended must not show in the encoded pages.
        table = table.combine_chunks().cast(self._schema)
        if self._writer is None:
            self._open_part(table)
        if self._format == "parquet":
            self._writer.write_table(table, row_group_size=ROWS_PER_GROUP)
        else:
            self._writer.write_table(table, max_chunksize=ROWS_PER_GROUP)
        self._rows_in_part += table.num_rows
        if self._rows_in_part >= ROWS_PER_PART:
            self._close_part()

    def _open_part(self, first: pa.Table) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._part_path()
        self._sink = _HashingWriter(cast("BinaryIO", path.open("xb")))
        sink = pa.PythonFile(self._sink, mode="w")
        if self._format == "parquet":
            self._writer = pyarrow.parquet.ParquetWriter(sink, self._schema, **parquet_options(first, self._complete))
        else:
            self._writer = pyarrow.csv.CSVWriter(sink, self._schema)

    def _part_path(self) -> Path:
        return self._folder / f"part-{self._first_part + len(self.files):05}.{self._format}"

    def _close_part(self) -> None:
        if self._writer is None or self._sink is None:
            return
        path = self._part_path()
        self._writer.close()
        self._sink.close()

        def open_part() -> BinaryIO:
            return cast("BinaryIO", path.open("rb"))

        self.files.append(PendingFile(f"{self._split}/{path.name}", open_part, self._sink.digest(), local=path))
        self._writer, self._sink, self._rows_in_part = None, None, 0


def parquet_options(first: pa.Table, complete: Set[str]) -> dict[str, Any]:
    """Return the options with which pyarrow writes a part.

    Args:
        first: The first row group, each column in one chunk.
        complete: The columns without a NULL in any row of the build: of floats, zstd finds more when the first bytes of
            all values lie together, then the second ones, but pyarrow 1.0 cannot read NULLs among them.
    """
    # A dot would name the field of a struct as well.
    names = [name for name in first.column_names if name in complete and "." not in name]
    return {
        **_PARQUET,
        "use_dictionary": [name for name in first.column_names if _repeats(first.column(name))],
        "use_byte_stream_split": [name for name in names if pa.types.is_floating(first.column(name).type)],
    }


def _repeats(column: pa.ChunkedArray) -> bool:
    """Tell whether a dictionary pays: at most half of the values are distinct.

    It never does for measured numbers, nor for flags, which have one bit; of nested columns nobody knows cheaply.
    """
    kind = column.type
    no_use = (pa.types.is_floating, pa.types.is_boolean, pa.types.is_nested, pa.types.is_null)
    if any(holds(kind) for holds in no_use):
        return False
    return bool(pc.count_distinct(column).as_py() * 2 <= len(column))


def check_storable(schema: pa.Schema, file_format: Format) -> None:
    """Refuse columns that the format cannot hold.

    Raises:
        DatasetError: There is one.
    """
    for field in schema:
        if file_format == "csv" and not _fits_csv(field.type):
            raise DatasetError(
                f"column {field.name!r} has type {field.type}, which CSV cannot hold: use format='parquet', "
                f"or convert it in a map step"
            )
        if file_format == "parquet" and not _fits_parquet(field.type):
            raise DatasetError(
                f"column {field.name!r} has type {field.type}, which Parquet cannot hold: convert it in a map step"
            )


def warn_of_wide_decimals(schema: pa.Schema, name: str, *, frames: int) -> None:
    """Warn of decimals that pyarrow 1.0, the oldest in a training image, does not know: it refuses the whole file.

    Args:
        schema: That of the parts.
        name: The dataset's name.
        frames: How many calls lie between this one and the user's.
    """
    if wide := [field for field in schema if _has_wide_decimals(field.type)]:
        column = '"' + wide[0].name.replace('"', '""') + '"'
        warnings.warn(
            f"dataset {name!r}: column {wide[0].name!r} has type {wide[0].type}"
            f"{f' (and {len(wide) - 1} more columns have such)' if wide[1:] else ''}, and pyarrow 1.0 of the training "
            f"image 0.23-1 cannot read any column of a file with decimals of more than 38 digits. From PostgreSQL "
            f'select round({column}, 10)::numeric(38, 10), or read with numeric="float"; or convert it in a map step, '
            f"for example with astype(float)",
            WideDecimalWarning,
            stacklevel=1 + frames,
        )


def _has_wide_decimals(kind: pa.DataType) -> bool:
    nested = (kind.field(i).type for i in range(kind.num_fields))
    return pa.types.is_decimal256(kind) or any(map(_has_wide_decimals, nested))


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    """Return the types as text shows them: a column whose UTC offset changes with the season is hard to parse."""
    utc = [pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) and kind.tz else kind for kind in schema.types]
    return pa.schema(list(zip(schema.names, utc, strict=True)))


def _fits_csv(kind: pa.DataType) -> bool:
    plain = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_null)
    times = (pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, pa.types.is_decimal128)
    return any(holds(kind) for holds in (*plain, *times))


def _fits_parquet(kind: pa.DataType) -> bool:
    schema = pa.schema([("column", kind)])
    try:
        pyarrow.parquet.ParquetWriter(pa.BufferOutputStream(), schema, **_PARQUET).close()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True
