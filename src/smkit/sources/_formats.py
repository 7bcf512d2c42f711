"""The formats by name, and what a file's extension says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from smkit.errors import ConfigError, did_you_mean
from smkit.frames import plain_type
from smkit.sources._csv import Csv
from smkit.sources._csv_text import CsvOptions
from smkit.sources._datafile import extension, split_codec
from smkit.sources._jsonl import JsonLines
from smkit.sources._parquet import Parquet

if TYPE_CHECKING:
    from smkit.sources._datafile import Format

FORMATS = ("csv", "jsonl", "parquet")

_EXTENSIONS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}

#: What Python, numpy and pandas call a type -> the name to write.
_MEANT: dict[str | type, str] = {
    int: "int64",
    float: "float64",
    str: "string",
    bool: "bool",
    bytes: "binary",
    dt.date: "date32",
    dt.datetime: "timestamp[us]",
    "int": "int64",
    "float": "float64",
    "object": "string",
    "datetime": "timestamp[us]",
    "datetime64[ns]": "timestamp[ns]",
    "datetime64[us]": "timestamp[us]",
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


def check_csv(delimiter: str, encoding: str, format_: str | None) -> CsvOptions:
    """Return how CSV files are written.

    Raises:
        ConfigError: The delimiter or the encoding is none, or the format is known to be another.
    """
    options = CsvOptions(delimiter, encoding)
    if format_ is not None:
        make_format(format_, options)
    return options


def make_format(name: str, csv: CsvOptions) -> Format:
    """Return the reader of a format.

    Raises:
        ConfigError: `csv` differs from the defaults, but the format is another.
    """
    if name == "csv":
        return Csv(csv)
    for option, default in (("delimiter", CsvOptions.delimiter), ("encoding", CsvOptions.encoding)):
        if getattr(csv, option) != default:
            raise ConfigError(
                f"{option} is {getattr(csv, option)!r}, but the format is {name}: {option} is for CSV alone"
            )
    return JsonLines() if name == "jsonl" else Parquet()


def check_column_types(column_types: Mapping[str, pa.DataType | str] | None) -> dict[str, pa.DataType]:
    """Return declared types as pyarrow's.

    Raises:
        ConfigError: A type is neither a pyarrow type nor the name of one.
    """
    if column_types is not None and not isinstance(column_types, Mapping):
        raise ConfigError(
            f"column_types is {type(column_types).__name__}, but must map columns to types: "
            f'column_types={{"zip": "string"}}'
        )
    return {column: _check_type(column, type_) for column, type_ in (column_types or {}).items()}


def _check_type(column: str, type_: pa.DataType | str) -> pa.DataType:
    if isinstance(type_, pa.DataType):
        return plain_type(type_)
    meant = _MEANT.get(type_) if isinstance(type_, (str, type)) else None
    # Before pyarrow, to whom "float" is 32 bits wide.
    if meant is None and isinstance(type_, str):
        try:
            return plain_type(pa.type_for_alias(type_))
        except ValueError:
            pass  # told below, as for everything else that is no type
    fix = (
        f"write {meant!r}"
        if meant
        else "it must be a pyarrow type or the name of one, such as 'string', 'int64', 'float64', 'bool', 'date32', "
        "'timestamp[us]' or pa.decimal128(10, 2)"
    )
    raise ConfigError(f"column_types[{column!r}] is {type_!r}: {fix}")
