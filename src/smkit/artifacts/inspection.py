"""Looking into a stream while somebody else reads it, so that a large file is read once."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, cast

from smkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: How far the reader may be ahead of the inspection. One read more may come on top.
_AHEAD_BYTES = 8 << 20


class InspectedStream:
    """A stream that also shows what is read from it to a function in a thread.

    The thread starts with the first read and has ended once the stream is closed. An error of the function is raised to
    whoever reads, or, where all was read already, to whoever closes. Left by an exception, the stream stops the
    function where it is.

    Args:
        source: What is read; closed with this.
        inspect: Reads a stream of the same bytes to its end. Bytes that it leaves unread are dropped.
    """

    def __init__(self, source: BinaryIO, inspect: Callable[[BinaryIO], object]) -> None:
        self._source = source
        self._inspect = inspect
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._ahead: deque[bytes] = deque()
        self._ahead_bytes = 0
        self._is_whole = self._is_over = self._is_stopped = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False: the function sees every byte once."""
        return False

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes.

        Raises:
            OSError: The source cannot be read.
            Exception: What the function raised.
        """
        if size == 0:
            return b""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="smkit-inspection", daemon=True)
            self._thread.start()
        data = self._source.read(size)
        if data:
            self._show(data)
        else:
            self._finish()
        return data

    def __enter__(self) -> InspectedStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stop()

    def close(self) -> None:
        """Wait until the function has seen everything.

        Raises:
            StorageError: Whoever read this did not read to the end.
            Exception: What the function raised.
        """
        try:
            # Who knows the length need not read the empty end.
            if self._thread is not None and not self._is_whole:
                if self._source.read(1):
                    raise StorageError("the store stopped reading before the end of the file: publish it again")
                self._finish()
        finally:
            self._stop()

    def _show(self, data: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ahead_bytes < _AHEAD_BYTES or self._is_over)
            if not self._is_over:
                self._ahead.append(data)
                self._ahead_bytes += len(data)
                self._changed.notify_all()
        self._raise_error()

    def _finish(self) -> None:
        with self._changed:
            self._is_whole = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_over)
        self._raise_error()

    def _stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._source.close()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._inspect(cast("BinaryIO", _Shown(self._take)))
        except BaseException as error:  # noqa: BLE001 - raised where the stream is read, in the other thread
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._ahead.clear()
                self._changed.notify_all()

    def _take(self) -> bytes:
        """Return the next bytes that were read, nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ahead or self._is_whole or self._is_stopped)
            if self._is_stopped:
                raise _Stopped
            if not self._ahead:
                return b""
            data = self._ahead.popleft()
            self._ahead_bytes -= len(data)
            self._changed.notify_all()
            return data


class _Stopped(Exception):
    """Ends the function where it is; nobody handles it."""


class _Shown:
    """The stream that the function reads."""

    def __init__(self, take: Callable[[], bytes]) -> None:
        self._take = take
        self._piece = memoryview(b"")

    def read(self, size: int) -> bytes:
        if not self._piece:
            data = self._take()
            if len(data) <= size:  # whole, hence without a copy
                return data
            self._piece = memoryview(data)
        piece, self._piece = self._piece[:size], self._piece[size:]
        return bytes(piece)
