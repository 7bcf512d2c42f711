"""Tables on their way between machines.

As IPC streams, for a pickled slice of an Arrow array takes the whole array with it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The rows of a stretch of the source: its batches, and the number of each among all batches. Plain lists and bytes,
#: whose size Dask can tell, so that it moves them to disk in time.
Segment = tuple[list[bytes], list[int]]


def pack(table: pa.Table) -> bytes:
    """Return a table as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(data: bytes) -> pa.Table:
    """Return the table, which shares the memory of the bytes."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def pack_flags(flags: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """Return small numbers, one for each row, as few bytes: they travel with the task."""
    return zlib.compress(flags.astype(np.uint8).tobytes(), 1)


def unpack_flags(data: bytes) -> NDArray[np.uint8]:
    """Return the numbers."""
    return np.frombuffer(zlib.decompress(data), dtype=np.uint8)
