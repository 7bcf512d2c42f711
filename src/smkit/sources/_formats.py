"""The formats by name, and what a file's extension says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from smkit.errors import ConfigError, did_you_mean
from smkit.frames import plain_type
from smkit.sources._csv import Csv
from smkit.sources._datafile import extension, split_codec
from smkit.sources._jsonl import JsonLines
from smkit.sources._parquet import Parquet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.sources._datafile import Format

FORMATS: dict[str, Format] = {"csv": Csv(), "jsonl": JsonLines(), "parquet": Parquet()}

_EXTENSIONS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


def format_of(name: str) -> str | None:
    """Return the format that a name's extension says, looking through a compression's, or None."""
    stem, codec = split_codec(name)
    found = _EXTENSIONS.get(extension(stem))
    # Parquet compresses inside; from a compressed file nothing could be read by range.
    return None if codec and found == "parquet" else found


def check_format(name: str | None) -> str | None:
    """Return a format's name unchanged.

    Raises:
        ConfigError: It is no format.
    """
    if name is not None and name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}{did_you_mean(name, FORMATS)}; formats: {', '.join(FORMATS)}")
    return name


def check_column_types(column_types: Mapping[str, pa.DataType | str] | None) -> dict[str, pa.DataType]:
    """Return declared types as pyarrow's.

    Raises:
        ConfigError: A type is neither a pyarrow type nor the name of one.
    """
    checked: dict[str, pa.DataType] = {}
    for column, type_ in (column_types or {}).items():
        if isinstance(type_, pa.DataType):
            checked[column] = plain_type(type_)
            continue
        try:
            checked[column] = plain_type(pa.type_for_alias(type_))
        except (ValueError, TypeError):
            raise ConfigError(
                f"column_types[{column!r}] is {type_!r}, but must be a pyarrow type or the name of one, "
                f"such as 'string', 'int64', 'float64', 'bool', 'date32', 'timestamp[us]' or pa.decimal128(10, 2)"
            ) from None
    return checked
