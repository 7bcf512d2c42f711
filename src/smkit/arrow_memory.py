"""Bytes for Arrow to read, without an object of Python behind them.

Arrow's threads may let go of what they read shortly after the reader has returned. Of an object of Python they could do
so only with the interpreter's lock, and where the program ends in that moment, waiting for the lock aborts it
("terminate called without an active exception", https://github.com/apache/arrow/issues/36389).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable


def owned_buffer(data: bytes | memoryview) -> pa.Buffer:
    """Return a copy of some bytes in memory of Arrow's own."""
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return buffer


def gathered(parts: Iterable[bytes | memoryview], size: int) -> pa.Buffer:
    """Return the first `size` bytes of some parts, one after the other, in memory of Arrow's own."""
    buffer = pa.allocate_buffer(size)
    view, at = memoryview(buffer).cast("B"), 0
    for part in parts:
        taken = memoryview(part).cast("B")[: size - at]
        view[at : at + len(taken)] = taken
        at += len(taken)
    return buffer


def reopened(stream: BinaryIO) -> pa.NativeFile:
    """Return Arrow's own handle of the very file that is open in a stream, at its start, whatever its path names."""
    try:
        return pa.OSFile(f"/dev/fd/{stream.fileno()}")
    except FileNotFoundError:
        # A container without /proc.
        return pa.PythonFile(stream, mode="r")
