"""What `FileSource` and `S3Source` share: everything but where the bytes are."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import pandas as pd
import pyarrow as pa

from smkit.errors import ConfigError
from smkit.frames import to_pandas
from smkit.progress_bar import tqdm
from smkit.sources._formats import make_format
from smkit.sources._multifile import open_files
from smkit.sources.base import BATCH_SIZE, Stream, StreamedSource

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from smkit.sources._datafile import DataFiles
    from smkit.sources._options import ReadOptions


class _Named(Protocol):
    @property
    def name(self) -> str: ...


FileT = TypeVar("FileT", bound=_Named)

#: Columns that a frame may hold one by one; pandas warns its user of more than a hundred when he adds one.
_SEPARATE_COLUMNS = 50
#: Columns that are converted at once.
_CONVERTERS = min(4, os.cpu_count() or 1)
#: A read that is over before, in seconds, shows no progress.
_PROGRESS_DELAY = 1.0


class FilesSource(StreamedSource):
    """The rows of files.

    Args:
        options: What is wanted of them.
    """

    #: Where `describe` lists the files.
    _LISTED_AS: ClassVar[str]

    def __init__(self, options: ReadOptions) -> None:
        self._options = options

    @abstractmethod
    def _open_files(self) -> AbstractContextManager[DataFiles]:
        """Find the files, at least one; leaving the context frees what was opened."""

    @abstractmethod
    def _of_one_file(self, entry: Mapping[str, Any], options: ReadOptions) -> Self:
        """Return a source of one of the files that `describe` lists."""

    def file_by_file(self, described: Mapping[str, Any]) -> list[tuple[Self, dict[str, Any]]]:
        """Return a source of each file, in order, and the file's identity: what the description says beside its name.

        All have the columns and types that the files have together, and those that only `filters` test besides.

        Args:
            described: What `describe` returned: the files as they were then.

        Raises:
            SourceError: The files cannot be read.
        """
        options = self._options
        read = self.schema()
        tested = [one.column for conditions in options.filters for one in conditions]
        if options.columns is not None and tested:
            more = copy.copy(self)
            more._options = replace(options, columns=[*dict.fromkeys([*read.names, *tested])])
            read = more.schema()
        types = dict(zip(read.names, read.types, strict=True))
        inferred = frozenset(types) - options.column_types.keys()
        pinned = replace(options, format=described["format"], column_types=types, inferred=inferred)
        return [(self._of_one_file(entry, pinned), _identity(entry)) for entry in described[self._LISTED_AS]]

    def identities(self) -> list[dict[str, Any]]:
        """Return the identity of each file.

        Raises:
            SourceError: The files cannot be read.
        """
        return [_identity(entry) for entry in self.describe()[self._LISTED_AS]]

    def stamps(self) -> dict[str, Hashable | None]:
        """Return for each file, by name, what is another once its content is; reads none of them.

        None stands where only reading the file can tell.

        Raises:
            SourceError: The files cannot be found.
        """
        with self._open_files() as opened:
            return {file.name: file.stamp for file in opened.files}

    def schema(self) -> pa.Schema:
        """Return the columns and their types: of text, from the first rows of each file.

        Raises:
            SourceError: The source cannot be read.
        """
        with self._open_files() as opened:
            return self._stream(opened, BATCH_SIZE, only_schema=True).schema

    def read(self, *, progress: bool | None = None) -> pd.DataFrame:
        """Read all rows into memory; `smkit.frames.to_pandas` says which types they get.

        Args:
            progress: Whether a long read shows bytes and rows on stderr; default: in a terminal or a notebook.

        Raises:
            SourceError: The source cannot be read.
        """
        with self._open_files() as opened:
            stream = self._stream(opened, BATCH_SIZE)
            with closing(stream.batches), closing(_shown(stream, opened, progress)) as batches:
                columns = pa.Table.from_batches(batches, schema=stream.schema).columns
        return _to_frame(stream.schema, columns)

    @contextmanager
    def _open(self, batch_size: int) -> Iterator[Stream]:
        with self._open_files() as opened:
            yield self._stream(opened, batch_size)

    def _stream(self, opened: DataFiles, batch_size: int, *, only_schema: bool = False) -> Stream:
        format_ = make_format(self._options.format_of(opened.files), self._options.csv)
        return open_files(opened, format_, self._options, batch_size, only_schema=only_schema)


def check_distinct(files: list[FileT], what: str) -> list[FileT]:
    """Return the files unchanged.

    Raises:
        ConfigError: Two of the paths, or of the URIs (`what`), match the same one.
    """
    seen: set[str] = set()
    for file in files:
        if file.name in seen:
            raise ConfigError(f"{file.name} is matched by two of the {what}: its rows would be read twice")
        seen.add(file.name)
    return files


def _identity(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a description says of a file beside its name: the same file may have another on another machine."""
    return {name: value for name, value in entry.items() if name not in {"name", "key", "bucket"}}


def _to_frame(schema: pa.Schema, columns: list[pa.ChunkedArray]) -> pd.DataFrame:
    """Convert column by column, and let go of each: a frame and a table of the same rows need not fit side by side.

    Args:
        schema: The columns' names and types.
        columns: Their values; the list is emptied.
    """
    if not 0 < len(columns) <= _SEPARATE_COLUMNS:
        return to_pandas(pa.Table.from_arrays(columns, schema=schema))
    with ThreadPoolExecutor(min(_CONVERTERS, len(columns)), thread_name_prefix="smkit-frame") as pool:
        columns.reverse()
        converted = [pool.submit(_to_series, field, columns.pop()) for field in schema]
        series = {field.name: future.result() for field, future in zip(schema, converted, strict=True)}
    return pd.DataFrame(series, copy=False)


def _to_series(field: pa.Field, column: pa.ChunkedArray) -> pd.Series:
    return to_pandas(pa.table([column], schema=pa.schema([field])))[field.name]


def _shown(stream: Stream, opened: DataFiles, progress: bool | None) -> Generator[pa.RecordBatch, None, None]:
    """Pass the batches on and show how far the read is."""
    before, rows = opened.bytes_read, 0
    with tqdm(
        desc="read",
        total=sum(file.size for file in opened.files),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        delay=_PROGRESS_DELAY,
        # None means: only where somebody looks.
        disable=None if progress is None else not progress,
    ) as bar:
        for batch in stream.batches:
            rows += batch.num_rows
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
            bar.update(opened.bytes_read - before - bar.n)
            yield batch
        if bar.total and bar.n < bar.total:
            # Columns and row groups that were not wanted need not be read.
            bar.total = bar.n
