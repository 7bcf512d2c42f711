"""Rows of a DataFrame."""

from __future__ import annotations

import hashlib
import os
from contextlib import nullcontext
from os import PathLike
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from smkit.errors import ConfigError
from smkit.frames import to_arrow
from smkit.sources.base import Stream, StreamedSource

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

_DIGEST_ROWS = 65_536


class FrameSource(StreamedSource):
    """The rows of a DataFrame, as they were when the source was made.

    The source keeps a copy: what happens to the frame later does not reach it. A named index becomes columns, an
    unnamed one is dropped, categories become plain values (`smkit.frames.to_arrow`).

    Args:
        frame: The rows; column names must be unique strings, none empty.

    Raises:
        ConfigError: It is no DataFrame, or a column cannot be stored; the message names the column.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        if not isinstance(frame, pd.DataFrame):
            raise ConfigError(f"FrameSource needs a pandas DataFrame, not {type(frame).__name__}: {_fix(frame)}")
        # Arrow shares the memory of numpy columns, hence the copy.
        self._table = to_arrow(frame.copy(deep=True))
        if not all(name.strip() for name in self._table.column_names):
            raise ConfigError(
                "a column of the frame has no name: rename it, or drop it if it is the index of an earlier frame"
            )
        self._sha256: str | None = None

    def __repr__(self) -> str:
        return f"FrameSource({self._table.num_rows} rows, {self._table.num_columns} columns)"

    def describe(self) -> dict[str, Any]:
        """Return the row count, the columns and a SHA-256 of the content: equal frames describe equally."""
        if self._sha256 is None:
            self._sha256 = _digest(self._table)
        return {
            "type": "frame",
            "rows": self._table.num_rows,
            "columns": {field.name: str(field.type) for field in self._table.schema},
            "sha256": self._sha256,
        }

    def _open(self, batch_size: int) -> AbstractContextManager[Stream]:
        def batches() -> Generator[pa.RecordBatch, None, None]:
            yield from self._table.to_batches(max_chunksize=batch_size)

        return nullcontext(Stream(self._table.schema, batches()))


def _fix(value: object) -> str:
    if isinstance(value, str) and value.lower().startswith("s3://"):
        return f"use S3Source({value!r})"
    if isinstance(value, (str, PathLike)):
        return f"for files, use FileSource({os.fspath(value)!r})"
    return "wrap it, as in pd.DataFrame(...)"


def _digest(table: pa.Table) -> str:
    """Hash names, types and values.

    Arrow's own buffers would not do: what lies under a NULL, in the padding and in the offsets is undefined.
    """
    digest = hashlib.sha256()
    for field in table.schema:
        digest.update(f"{len(field.name.encode())}:{field.name}:{field.type}:{table.num_rows};".encode())
        column = table.column(field.name)
        for start in range(0, table.num_rows, _DIGEST_ROWS):
            chunk = column.slice(start, _DIGEST_ROWS)
            digest.update(pc.is_valid(chunk).to_numpy().tobytes())
            _update(digest, chunk.drop_null())
    return digest.hexdigest()


def _update(digest: Any, values: pa.ChunkedArray) -> None:
    type_ = values.type
    if pa.types.is_string(type_) or pa.types.is_binary(type_):
        digest.update(pc.binary_length(values).to_numpy().tobytes())
        for value in values.cast(pa.binary()).to_pylist():
            digest.update(value)
    elif pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_):
        digest.update(values.to_numpy().tobytes())
    elif pa.types.is_temporal(type_) and type_.bit_width in {32, 64}:
        digest.update(values.cast(pa.int32() if type_.bit_width == 32 else pa.int64()).to_numpy().tobytes())
    else:
        digest.update(repr(values.to_pylist()).encode())
