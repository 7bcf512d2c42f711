"""Rows of files on this machine."""

from __future__ import annotations

import glob
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from smkit.errors import ConfigError, SourceError, SourceFormatError, SourceNotFound
from smkit.sources._formats import FORMATS, check_column_types, check_format, format_of
from smkit.sources._multifile import open_files
from smkit.sources.base import Stream, StreamedSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa


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

    Raises:
        ConfigError: `format`, `columns` or a column type is none.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - the word that pandas and pyarrow use
        column_types: Mapping[str, pa.DataType | str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._path = Path(path).expanduser()
        self._format = check_format(format)
        self._column_types = check_column_types(column_types)
        self._columns = check_columns(columns)

    def __repr__(self) -> str:
        return f"FileSource({str(self._path)!r})"

    def describe(self) -> dict[str, Any]:
        """Return the path, and each file's name, size in bytes and SHA-256: the same bytes describe equally.

        Raises:
            SourceNotFound: No file matches.
            SourceError: A file cannot be read.
        """
        files = self._files()
        return {
            "type": "file",
            "path": self._path.as_posix(),
            "format": one_format(self._format, files),
            **options(self._columns, self._column_types),
            "files": [{"name": file.name, **_digest(file)} for file in files],
        }

    @contextmanager
    def _open(self, batch_size: int) -> Iterator[Stream]:
        files = self._files()
        yield open_files(
            files,
            FORMATS[one_format(self._format, files)],
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


def options(columns: Sequence[str] | None, column_types: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """Return, for the lineage, what the caller asked for beside the place."""
    return {
        "columns": None if columns is None else list(columns),
        "column_types": {name: str(type_) for name, type_ in column_types.items()},
    }


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
