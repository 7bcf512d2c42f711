"""Rows of files on this machine."""

from __future__ import annotations

import copy
import glob
import hashlib
import io
import time
from contextlib import contextmanager
from os import PathLike, fstat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pyarrow as pa

from smkit.errors import ConfigError, SourceError, SourceNotFound
from smkit.sources._files import FilesSource, check_distinct
from smkit.sources._options import ReadOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from typing_extensions import Self

    from smkit.sources._datafile import ByteRange, DataFile
    from smkit.sources._filters import Filters

#: Changes that are nearer to one another may bear the same time: FAT has two seconds, others a tick of the kernel.
_SAME_TIME_NS = 2_000_000_000


class FileSource(FilesSource):
    """The rows of CSV, Parquet or JSON lines files, in the order of their names.

    The extension says the format: `.csv`, `.parquet` or `.pq`, `.jsonl`, `.ndjson` or `.json`, the text formats also
    compressed (`.csv.gz`, `.bz2`, `.zst`, `.lz4`). All files must have the same columns; a column without a value in
    one file takes its type from the others, and narrow numbers widen.

    Args:
        path: A file, a folder (every data file in it and below, but for names that start with `_` or `.`), or a glob
            such as `"raw/2026-*.csv"`; `**` crosses folders. Or a list of such, read in the list's order.
        format: `"csv"`, `"parquet"` or `"jsonl"`, where the extension does not say it.
        column_types: Types that inference from the first rows would get wrong, as pyarrow types or their names:
            `{"zip": "string"}`.
        columns: The columns to read, in this order; default: all. Of Parquet, the others are not read.
        filters: The rows to read: `[("price", ">", 0), ("city", "in", ["Yinchuan"])]`, conditions that all hold, or a
            list of such lists, of which one holds. Operators: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`. A NULL
            fulfils no condition but those that name None: `("price", "!=", None)`. Of Parquet, row groups whose
            statistics rule them out are not read.
        delimiter: What separates the values of CSV: one ASCII character, such as `";"` or a tab.
        encoding: The encoding of CSV, a name that Python knows: `"gb18030"`, `"latin-1"`, `"utf-16"`.
        partitioning: `"hive"` makes columns of folders such as `year=2026/month=01`, all those of the path: int64 or
            date32 where all values are such, else text, unless `column_types` says otherwise. Files whose folders
            `filters` rule out are not opened. Default: the names of folders mean nothing.

    Raises:
        ConfigError: `path` is none; `format`, `columns`, a column type, a filter, `delimiter`, `encoding` or
            `partitioning` is none; or `delimiter` or `encoding` is given for another format than CSV.
    """

    _LISTED_AS = "files"

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        format: str | None = None,  # noqa: A002 - the word that pandas and pyarrow use
        column_types: Mapping[str, pa.DataType | str] | None = None,
        columns: Sequence[str] | None = None,
        filters: Filters | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
        partitioning: str | None = None,
    ) -> None:
        self._several = isinstance(path, (list, tuple))
        self._paths = [_check_path(one) for one in (cast("Sequence[object]", path) if self._several else [path])]
        if not self._paths:
            raise ConfigError("FileSource got an empty list: pass at least one file, folder or glob")
        super().__init__(
            ReadOptions.checked(
                format_=format,
                column_types=column_types,
                columns=columns,
                filters=filters,
                delimiter=delimiter,
                encoding=encoding,
                partitioning=partitioning,
            )
        )

    def __repr__(self) -> str:
        names = [str(path) for path in self._paths]
        return f"FileSource({names if self._several else names[0]!r})"

    def describe(self) -> dict[str, Any]:
        """Return the path, and each file's name, size in bytes and SHA-256: the same bytes describe equally.

        Raises:
            SourceNotFound: No file matches.
            SourceError: A file cannot be read.
        """
        files = self._find()
        format_ = self._options.format_of(files)
        paths = [path.as_posix() for path in self._paths]
        return {
            "type": "file",
            "path": paths if self._several else paths[0],
            "format": format_,
            **self._options.describe(format_),
            "files": [{"name": file.name, **_digest(file)} for file in files],
        }

    def _of_one_file(self, entry: Mapping[str, Any], options: ReadOptions) -> Self:
        one = copy.copy(self)
        one._several, one._options = False, options
        one._paths = [Path(entry["name"]).absolute()]
        return one

    @contextmanager
    def _open_files(self) -> Iterator[LocalFiles]:
        yield LocalFiles(self._find())

    def _find(self) -> list[LocalFile]:
        return check_distinct([file for path in self._paths for file in self._find_at(path)], "paths")

    def _find_at(self, path: Path) -> list[LocalFile]:
        if path.is_file():
            return [LocalFile(path)]
        if path.is_dir():
            below = (entry.relative_to(path) for entry in path.rglob("*") if entry.is_file())
            names = sorted(name.as_posix() for name in below if self._options.is_data(name.as_posix()))
            files = [LocalFile(path / name) for name in names]
            wanted = self._options.format
            kinds = "data file (.csv, .parquet, .jsonl)" if wanted is None else f"{wanted} file"
            missing = f"{path}: the folder has no {kinds}"
        else:
            found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            files = [LocalFile(match) for match in sorted(Path(name) for name in found) if match.is_file()]
            missing = f"{path}: no such file or folder" if not glob.has_magic(str(path)) else f"{path}: no file matches"
        if not files:
            raise SourceNotFound(f"{missing} (working folder: {Path.cwd()})")
        return files


class LocalFile:
    """A file of this machine, as it is when this is made.

    Args:
        path: Where it is.

    Raises:
        SourceError: It cannot be looked at.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.as_posix()
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise SourceNotFound(f"{self.name}: the file is gone") from error
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be read: {error}") from error
        self._seen = _content_of(status)
        self.size = self._seen[0]
        self.bytes_read = 0
        # The time of the inode cannot be set, as `cp -p` sets that of the content.
        self.stamp = None if _is_fresh(status) else (*self._seen, status.st_ctime_ns, status.st_ino)

    @contextmanager
    def open_stream(self) -> Iterator[BinaryIO]:
        """Open the raw bytes."""
        with self.path.open("rb", buffering=0) as raw:
            self._check_unchanged(raw.fileno())
            yield cast("BinaryIO", _Counted(raw, self))
            self._check_unchanged(raw.fileno())

    @contextmanager
    def open_ranges(self, ranges: Sequence[ByteRange]) -> Iterator[BinaryIO]:
        """Open for reads anywhere, without Python between pyarrow and the file."""
        with pa.OSFile(str(self.path)) as raw:
            self._check_unchanged(raw.fileno())
            yield cast("BinaryIO", raw)
            self._check_unchanged(raw.fileno())
        self.bytes_read += sum(one.size for one in ranges)

    def _check_unchanged(self, descriptor: int) -> None:
        if _content_of(fstat(descriptor)) != self._seen:
            raise SourceError(f"{self.name}: the file changed while it was read: read again when nobody writes it")


class LocalFiles:
    """The files of one read, in order.

    Args:
        files: The files.
    """

    def __init__(self, files: Sequence[LocalFile]) -> None:
        self.files = files

    @property
    def bytes_read(self) -> int:
        """Bytes that were read so far."""
        return sum(file.bytes_read for file in self.files)

    def will_read(self, plan: Iterable[tuple[DataFile, ByteRange]], *, keep: bool = False) -> None:
        """Do nothing: the system reads ahead."""


class _Counted(io.RawIOBase):
    """Count what is read."""

    def __init__(self, raw: io.FileIO, file: LocalFile) -> None:
        super().__init__()
        self._raw = raw
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size) or b""
        self._file.bytes_read += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        self._file.bytes_read += count
        return count


def _is_fresh(status: os.stat_result) -> bool:
    """Tell whether a file changed so lately that its next change could bear the same time; or in the future."""
    return time.time_ns() - status.st_ctime_ns < _SAME_TIME_NS


def _content_of(status: os.stat_result) -> tuple[int, int]:
    """Return what differs after a write: size and time."""
    return status.st_size, status.st_mtime_ns


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
