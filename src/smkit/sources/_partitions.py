"""Columns that stand in the names of folders, as Hive and Spark write them: `year=2026/month=01/part-0.parquet`."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from smkit.errors import ConfigError, SourceFormatError
from smkit.sources._datafile import declare
from smkit.sources._filters import RowFilter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smkit.sources._datafile import DataFile
    from smkit.sources._filters import Condition

#: What Hive and Spark write for NULL.
_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"-?\d{1,19}", flags=re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", flags=re.ASCII)


def check_partitioning(partitioning: str | None) -> str | None:
    """Return it unchanged.

    Raises:
        ConfigError: It is neither None nor "hive".
    """
    if partitioning not in {None, "hive"}:
        raise ConfigError(
            f'partitioning is {partitioning!r}, but must be "hive" (folders such as year=2026 become columns) or None'
        )
    return partitioning


def partition_columns(files: Sequence[DataFile], declared: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Return what the folders' names say: a column for each name, a row for each file.

    A column is int64 or date32 if all its values are such, else text; a declared type comes before that.

    Args:
        files: At least one.
        declared: The types that the caller gave.

    Raises:
        SourceFormatError: A file lies in no such folder, or in folders of other names than the first; or a value is not
            of its declared type.
    """
    found = [_folders(file.name) for file in files]
    names = list(found[0])
    if not names:
        raise SourceFormatError(
            f'{files[0].name}: partitioning is "hive", but no folder of this path is a name=value such as year=2026'
        )
    for file, values in zip(files, found, strict=True):
        if values.keys() != found[0].keys():
            raise SourceFormatError(
                f"{file.name}: its folders name {_listed(values)}, but those of {files[0].name} name {_listed(names)}: "
                f"all files of a source must have the same partition columns"
            )
    columns = {name: _typed(files, name, [values[name] for values in found], declared.get(name)) for name in names}
    return pa.RecordBatch.from_pydict(columns)


def kept_files(partitions: pa.RecordBatch, filters: Sequence[Sequence[Condition]]) -> list[int]:
    """Return the numbers of the files that may hold wanted rows, going by their folders alone."""
    known = [[one for one in conditions if one.column in partitions.schema.names] for conditions in filters]
    # One alternative without a condition on folders lets all of them through.
    if not known or not all(known):
        return list(range(partitions.num_rows))
    wanted = RowFilter(known, partitions.schema)
    numbers = pa.array(range(partitions.num_rows), pa.int64())
    # The column has a name that no condition uses: theirs are those of the folders.
    numbered = pa.RecordBatch.from_arrays(
        [*partitions.columns, numbers], names=[*partitions.schema.names, "/".join(partitions.schema.names) + "/"]
    )
    kept: list[int] = wanted.apply(numbered).columns[-1].to_pylist()
    return kept


def check_apart(file: DataFile, schema: pa.Schema, partitions: pa.Schema) -> None:
    """Refuse a column that is both in a file and in the name of its folder: the two may say different things."""
    both = next((name for name in partitions.names if name in schema.names), None)
    if both is not None:
        raise SourceFormatError(
            f"{file.name}: column {both!r} is in the file and in the name of its folder: read without "
            f'partitioning="hive" to take that of the file, or write the file without it'
        )


def _folders(path: str) -> dict[str, str | None]:
    """Return the names and values in the folders of a path, outermost first."""
    found: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        name, mark, value = folder.partition("=")
        if not (name and mark):
            continue
        name = unquote(name)
        if name in found:
            raise SourceFormatError(f"{path}: two of its folders name the partition column {name!r}")
        found[name] = None if value == _NULL else unquote(value)
    return found


def _typed(files: Sequence[DataFile], name: str, values: list[str | None], declared: pa.DataType | None) -> pa.Array:
    if declared is None:
        return _inferred(values)
    text = pa.array(values, pa.string())
    try:
        return text.cast(declared)
    except pa.ArrowException:
        for file, value in zip(files, values, strict=True):
            try:
                pa.array([value], pa.string()).cast(declared)
            except pa.ArrowException as error:  # noqa: PERF203 - the loop looks for the one that fails
                raise SourceFormatError(
                    f"{file.name}: the folder says {name}={value}, which is no {declared}: {declare(name)}"
                ) from error
        raise


def _inferred(values: list[str | None]) -> pa.Array:
    said = [value for value in values if value is not None]
    if said and all(_INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63 for value in said):
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    if said and all(_DATE.fullmatch(value) for value in said):
        try:
            return pa.array([None if value is None else dt.date.fromisoformat(value) for value in values], pa.date32())
        except ValueError:  # a day that no calendar has: text, like everything else
            pass
    return pa.array(values, pa.string())


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "no partition column"
