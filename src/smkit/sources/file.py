"""Rows of files on this machine."""

from __future__ import annotations

import glob
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from smkit.errors import ConfigError, SourceError, SourceFormatError, SourceNotFound
from smkit.sources._formats import FORMATS, check_column_types, check_csv, check_format, format_of, make_format
from smkit.sources._multifile import open_files
from smkit.sources.base import Stream, StreamedSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from smkit.sources._csv_text import CsvOptions


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine.

    Args:
        path: Where it is.
        name: The path as messages and lineage show it.
    """

    path: Path
    name: str

    @contextmanager
    def open_stream(self) -> Iterator[BinaryIO]:
        """Open the raw bytes."""
        with self.path.open("rb") as stream:
            yield stream

    open_seekable = open_stream


class FileSource(StreamedSource):
    """The rows of CSV, Parquet or JSON lines files, in the order of their names.

    The extension says the format: `.csv`, `.parquet` or `.pq`, `.jsonl`, `.ndjson` or `.json`, the text formats also
    compressed (`.csv.gz`, `.bz2`, `.zst`, `.lz4`). All files must have the same columns; a column without a value in
    one file takes its type from the others, and narrow numbers widen.

    Args:
        path: A file, a folder (every data file in it and below, but for names that start with `_` or `.`), or a glob
            such as `"raw/2026-*.csv"`; `**` crosses folders.
        format: `"csv"`, `"parquet"` or `"jsonl"`, where the extension does not say it.
        column_types: Types that inference from the first rows would get wrong, as pyarrow types or their names:
            `{"zip": "string"}`.
        columns: The columns to read, in this order; default: all.
        delimiter: What separates the values of CSV: one ASCII character, such as `";"` or a tab.
        encoding: The encoding of CSV, a name that Python knows: `"gb18030"`, `"latin-1"`, `"utf-16"`.

    Raises:
        ConfigError: `path` is none, `format`, `columns`, a column type, `delimiter` or `encoding` is none, or one of
            the last two is given for another format.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - the word that pandas and pyarrow use
        column_types: Mapping[str, pa.DataType | str] | None = None,
        columns: Sequence[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
    ) -> None:
        self._path = _check_path(path)
        self._format = check_format(format)
        self._column_types = check_column_types(column_types)
        self._columns = check_columns(columns)
        self._csv = check_csv(delimiter, encoding, self._format)

    def __repr__(self) -> str:
        return f"FileSource({str(self._path)!r})"

    def describe(self) -> dict[str, Any]:
        """Return the path, and each file's name, size in bytes and SHA-256: the same bytes describe equally.

        Raises:
            SourceNotFound: No file matches.
            SourceError: A file cannot be read.
        """
        files = self._files()
        format_ = one_format(self._format, files)
        return {
            "type": "file",
            "path": self._path.as_posix(),
            "format": format_,
            **options(self._columns, self._column_types, self._csv if format_ == "csv" else None),
            "files": [{"name": file.name, **_digest(file)} for file in files],
        }

    @contextmanager
    def _open(self, batch_size: int) -> Iterator[Stream]:
        files = self._files()
        yield open_files(
            files,
            make_format(one_format(self._format, files), self._csv),
            columns=self._columns,
            column_types=self._column_types,
            batch_size=batch_size,
        )

    def _files(self) -> list[LocalFile]:
        path = self._path
        if path.is_file():
            return [LocalFile(path, path.as_posix())]
        if path.is_dir():
            below = (entry.relative_to(path) for entry in path.rglob("*") if entry.is_file())
            names = [name.as_posix() for name in below if is_data(name.as_posix(), self._format)]
            files = [LocalFile(path / name, (path / name).as_posix()) for name in sorted(names)]
            kinds = "data file (.csv, .parquet, .jsonl)" if self._format is None else f"{self._format} file"
            missing = f"{path}: the folder has no {kinds}"
        else:
            found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            matches = sorted(Path(name) for name in found)
            files = [LocalFile(match, match.as_posix()) for match in matches if match.is_file()]
            missing = f"{path}: no such file or folder" if not glob.has_magic(str(path)) else f"{path}: no file matches"
        if not files:
            raise SourceNotFound(f"{missing} (working folder: {Path.cwd()})")
        return files


def is_data(name: str, format_: str | None) -> bool:
    """Say whether a file below a folder holds rows, by its path: hidden ones and other formats do not.

    Args:
        name: Path below the folder.
        format_: The format that the caller gave; then a name without any extension counts too.
    """
    if any(part.startswith(("_", ".")) for part in name.split("/")):
        return False
    found = format_of(name)
    if format_ is None:
        return found is not None
    return found == format_ or (found is None and "." not in name.rpartition("/")[2])


def one_format(given: str | None, files: Iterable[Any]) -> str:
    """Return the format of all files.

    Raises:
        SourceFormatError: The extensions do not say it, or say several.
    """
    if given is not None:
        return given
    first: dict[str | None, str] = {}
    for file in files:
        first.setdefault(format_of(file.name), file.name)
    if None in first:
        raise SourceFormatError(
            f"{first[None]}: the extension says no format: pass format=, one of {', '.join(FORMATS)}"
        )
    if len(first) > 1:
        seen = ", ".join(f"{format_} ({name})" for format_, name in first.items())
        raise SourceFormatError(
            f"files of several formats: {seen}: pass format= to read one of them, or a narrower path"
        )
    return cast("str", next(iter(first)))


def check_columns(columns: Sequence[str] | None) -> list[str] | None:
    """Return the wanted columns as a list.

    Raises:
        ConfigError: They are not one or more different names.
    """
    if columns is None:
        return None
    if isinstance(columns, str) or not columns or len(set(columns)) < len(columns):
        raise ConfigError(f"columns is {columns!r}, but must be a list of one or more different column names")
    return list(columns)


def options(
    columns: Sequence[str] | None, column_types: Mapping[str, pa.DataType], csv: CsvOptions | None
) -> dict[str, Any]:
    """Return, for the lineage, what the caller asked for beside the place; `csv` where that is the format."""
    return {
        "columns": None if columns is None else list(columns),
        "column_types": {name: str(type_) for name, type_ in column_types.items()},
        **({} if csv is None else {"delimiter": csv.delimiter, "encoding": csv.encoding}),
    }


def _check_path(path: object) -> Path:
    if isinstance(path, str) and path.lower().startswith("s3://"):
        raise ConfigError(f"FileSource reads files of this machine, but {path!r} is in S3: use S3Source({path!r})")
    if not isinstance(path, (str, PathLike)):
        fix = (
            "use FrameSource(frame)"
            if hasattr(path, "columns")
            else "pass a file, a folder or a glob such as 'raw/*.csv'"
        )
        raise ConfigError(f"FileSource needs a path, not {type(path).__name__}: {fix}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"'{path}' is no path: {error}") from None


def _digest(file: LocalFile) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    try:
        with file.open_stream() as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise SourceError(f"{file.name}: cannot be read: {error}") from error
    return {"size": size, "sha256": digest.hexdigest()}
