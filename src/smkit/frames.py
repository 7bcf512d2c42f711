"""pandas to Arrow and back, without a silent change of type.

pandas alone would turn integers with a NULL into floats, decimals of mixed scale into whatever the first value was, and
remember its index in the file's metadata. Every table of smkit crosses between the two through these functions.
"""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from smkit.errors import ConfigError

#: Arrow type -> the pandas type that can hold NULL beside it.
_NULLABLE: dict[pa.DataType, Any] = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}

#: What `pandas.api.types.infer_dtype` says of object columns that surely hold one kind of value; "date" and "datetime"
#: are not among them, because it says so of a mix of the two.
_ONE_KIND = frozenset({"string", "bytes", "integer", "floating", "boolean", "decimal", "time", "timedelta", "empty"})

#: Kinds of value in the order in which they are tried: a bool is an int, a datetime is a date, to isinstance.
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("bool", (bool, np.bool_)),
    ("int", (int, np.integer)),
    ("float", (float, np.floating)),
    ("list", (list, tuple, np.ndarray)),
    ("datetime", (dt.datetime, np.datetime64)),
    ("date", (dt.date,)),
)


def to_pandas(table: pa.Table | pa.RecordBatch) -> pd.DataFrame:
    """Convert to a frame with a fresh `RangeIndex`.

    Integers without NULLs become numpy integers of the same width, with NULLs pandas' nullable ones (`Int64`);
    booleans likewise (`bool`, `boolean`). Text takes the installed pandas' default (object on 2.x, `str` on 3.x):
    NULL is missing, the empty string stays. Decimals, dates, times and bytes are objects; timestamps keep their unit
    and time zone. Lists and structs are lists and dicts. In float columns NULL and NaN are both NaN, because pandas
    has one value for the two.

    Args:
        table: Rows; dictionary-encoded columns come back as their plain values.

    Raises:
        ConfigError: Two columns share a name.
    """
    _check_unique(table.schema.names)
    text = _default_string_dtype()
    series = {name: _to_series(column, text) for name, column in zip(table.schema.names, table.columns, strict=True)}
    frame: pd.DataFrame = pd.DataFrame(
        series, index=pd.RangeIndex(table.num_rows), columns=pd.Index(list(series), dtype=text)
    )
    return frame


def to_arrow(frame: pd.DataFrame, *, schema: pa.Schema | None = None) -> pa.Table:
    """Convert to a table whose schema depends on the data alone, not on the pandas version.

    The inverse of `to_pandas`, but that NaN becomes NULL. A named index becomes columns before the others, as
    `reset_index` does; an unnamed one, such as filtering leaves, is dropped. Categories become their plain values. The
    schema carries no pandas metadata.

    Args:
        frame: Rows; column names must be unique strings.
        schema: The wanted columns and types; default: inferred from the frame's.

    Raises:
        ConfigError: A column name is no string or is used twice, an object column mixes kinds of values, or a column
            does not fit `schema`; the message names the column.
    """
    frame = _index_to_columns(frame)
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(
                f"column name {name!r} is {type(name).__name__}, but must be a string: "
                f"rename it, for example frame.columns = frame.columns.map(str)"
            )
    _check_unique(names)
    if schema is not None and schema.names != names:
        raise ConfigError(f"the frame's columns are {names}, but the schema's are {schema.names}")
    types = [None] * len(names) if schema is None else schema.types
    columns = [_to_column(name, frame.iloc[:, i], types[i]) for i, name in enumerate(names)]
    if not names:
        return pa.table({})
    # The types say everything: nullability is not inferred, and metadata is left out.
    return pa.table(columns, schema=pa.schema([(name, c.type) for name, c in zip(names, columns, strict=True)]))


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return the type without its encoding: no dictionary, no 64-bit offsets, no views; nested types too."""
    if pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    if pa.types.is_large_string(type_) or str(type_) == "string_view":
        return pa.string()
    if pa.types.is_large_binary(type_) or str(type_) == "binary_view":
        return pa.binary()
    if pa.types.is_large_list(type_) or pa.types.is_list(type_):
        return pa.list_(plain_type(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([(type_.field(i).name, plain_type(type_.field(i).type)) for i in range(type_.num_fields)])
    return type_


def _default_string_dtype() -> Any:
    """Return what the installed pandas makes of text."""
    return pd.Series(["text"]).dtype


def _to_series(column: pa.ChunkedArray | pa.Array, text: Any) -> pd.Series:
    type_ = plain_type(column.type)
    if type_ != column.type:
        column = column.cast(type_)
    if pa.types.is_nested(type_):
        # pyarrow would make numpy arrays, in which integers beside a NULL are floats.
        values = np.empty(len(column), dtype=object)
        values[:] = column.to_pylist()
        objects: pd.Series = pd.Series(values, dtype=object)
        return objects
    mapper = None
    if pa.types.is_string(type_) and not pd.api.types.is_object_dtype(text):
        # Spelled out, because a pyarrow older than pandas 3 would still make objects.
        mapper = {pa.string(): text}.get
    elif column.null_count:
        mapper = _NULLABLE.get
    series: pd.Series = column.to_pandas(date_as_object=True, types_mapper=mapper)
    return series


def _index_to_columns(frame: pd.DataFrame) -> pd.DataFrame:
    named = [level for level in frame.index.names if level is not None]
    if not named:
        return frame
    clash = [level for level in named if level in frame.columns]
    if clash:
        raise ConfigError(
            f"{clash[0]!r} names both a column and a level of the index: drop one, "
            f"for example frame.reset_index(drop=True)"
        )
    unnamed = [position for position, level in enumerate(frame.index.names) if level is None]
    flat: pd.DataFrame = (frame.reset_index(level=unnamed, drop=True) if unnamed else frame).reset_index()
    return flat


def _check_unique(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"column names must be unique, but these are used more than once: {', '.join(twice)}")


def _to_column(name: str, series: pd.Series, type_: pa.DataType | None) -> pa.ChunkedArray | pa.Array:
    if series.dtype == object and type_ is None:
        _check_one_kind(name, series)
    if isinstance(series.dtype, (pd.PeriodDtype, pd.IntervalDtype, pd.SparseDtype)):
        raise ConfigError(
            f"column {name!r} has dtype {series.dtype}, which files do not have: convert it, for example with "
            f"{'.sparse.to_dense()' if isinstance(series.dtype, pd.SparseDtype) else '.astype(str)'}"
        )
    try:
        column = pa.array(series, from_pandas=True)
        if type_ is None:
            type_ = plain_type(column.type)
        elif series.dtype == object:
            column = pa.array(series, type=type_, from_pandas=True)
        return column if column.type == type_ else column.cast(type_)
    # pyarrow raises its own errors, and Python's for what Python objects cannot be converted to.
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        wanted = "an Arrow type" if type_ is None else f"{type_}"
        raise ConfigError(f"column {name!r} of dtype {series.dtype} cannot become {wanted}: {error}") from error


def _check_one_kind(name: str, series: pd.Series) -> None:
    """Refuse mixed values: pyarrow would turn ints beside floats, and datetimes beside dates, into the other."""
    if pd.api.types.infer_dtype(series, skipna=True) in _ONE_KIND:
        return
    first_of: dict[str, Any] = {}
    for value in series[series.notna()]:
        kind = next((kind for kind, types in _KINDS if isinstance(value, types)), type(value).__name__)
        first_of.setdefault(kind, value)
    if len(first_of) > 1:
        seen = ", ".join(f"{kind} ({_shown(value)})" for kind, value in first_of.items())
        raise ConfigError(
            f"column {name!r} mixes kinds of values: {seen}. Convert it to one type, "
            f'for example frame["{name}"].astype("{"float64" if set(first_of) <= {"int", "float"} else "str"}")'
        )


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, (decimal.Decimal, dt.date, dt.time)) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
