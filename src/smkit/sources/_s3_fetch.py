"""Ranges of objects, fetched ahead of their reader by several threads, in order and in bounded memory."""

from __future__ import annotations

import random
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from botocore.exceptions import HTTPClientError, IncompleteReadError

from smkit.errors import SourceConnectionError, SourceError
from smkit.sources._s3_object import S3Object, s3_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

#: Requests under way at once; the pool of the client has 32 connections, for all that share it.
THREADS = 8
#: Bytes that are under way, or have arrived and wait for their reader.
WINDOW_BYTES = 96 << 20
#: How often in a row a body may break off without a byte read in between; botocore retries each request by itself.
_RESUMES = 4
_RESUME_PAUSE_SECONDS = 0.1
_READ_BYTES = 1 << 20
#: Errors while a body is read; botocore does not retry those.
_BROKEN_BODY = (HTTPClientError, IncompleteReadError, OSError)


class Piece(NamedTuple):
    """Bytes of an object from `start` up to, but not including, `end`; one request."""

    object: S3Object
    start: int
    end: int


class Fetcher:
    """The requests of one read.

    Its threads live until it is closed. Closing interrupts what is under way: a body at once, a request that has no
    answer yet when that comes.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._closed = threading.Event()
        self._bodies: set[Any] = set()
        self._lock = threading.Lock()
        self._planned: Iterator[Piece] = iter(())
        self._next: Piece | None = None
        self._under_way: deque[tuple[Piece, Future[bytearray]]] = deque()
        self._bytes_under_way = 0
        #: Of the plan before.
        self._left_over: list[tuple[Piece, Future[bytearray]]] = []

    def plan(self, pieces: Iterator[Piece]) -> None:
        """Fetch these ahead, in this order; what was planned before and is not among the next of them is dropped."""
        self._left_over += self._under_way
        self._under_way.clear()
        self._bytes_under_way = 0
        self._planned, self._next = pieces, None

    def get(self, piece: Piece) -> bytearray:
        """Return the bytes of a piece: one that is under way, or any other, which is then fetched now.

        Raises:
            SourceError: S3 refused, or the object changed.
            SourceConnectionError: The connection kept breaking off.
        """
        self._submit()
        number = next((at for at, (planned, _) in enumerate(self._under_way) if planned == piece), None)
        if number is None:
            return self._fetch(piece)
        _, future = self._under_way[number]
        del self._under_way[number]
        self._bytes_under_way -= piece.end - piece.start
        self._submit()
        return future.result()

    def close(self) -> None:
        """Stop all threads and wait for their end."""
        self._closed.set()
        self.plan(iter(()))
        self._submit()
        with self._lock:
            for body in self._bodies:
                # urllib3 can interrupt a reader since 2.3; before, it ends at the next byte or at its timeout.
                interrupt = getattr(getattr(body, "_raw_stream", None), "shutdown", None)
                if interrupt is not None:
                    _interrupt(interrupt)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        """Start what fits into the window; at least one piece, however large."""
        while self._fits():
            piece, self._next = cast("Piece", self._next), None
            self._under_way.append((piece, self._taken_over(piece) or self._started(piece)))
            self._bytes_under_way += piece.end - piece.start
        for _, future in self._left_over:
            future.cancel()
        self._left_over.clear()

    def _fits(self) -> bool:
        if self._next is None:
            self._next = next(self._planned, None)
        if self._next is None:
            return False
        size = self._next.end - self._next.start
        return not self._under_way or self._bytes_under_way + size <= WINDOW_BYTES

    def _taken_over(self, piece: Piece) -> Future[bytearray] | None:
        """Return the request of the plan before for the same piece."""
        for number, (planned, future) in enumerate(self._left_over):
            if planned == piece:
                del self._left_over[number]
                return future
        return None

    def _started(self, piece: Piece) -> Future[bytearray]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="smkit-s3-read")
        return self._pool.submit(self._fetch, piece)

    def _fetch(self, piece: Piece) -> bytearray:
        data = bytearray(piece.end - piece.start)
        done = failures = 0
        while done < len(data):
            try:
                done = self._fill(data, done, piece)
            except _Broken as broken:  # noqa: PERF203 - the loop is the retry
                failures = 1 if broken.done > done else failures + 1
                done = broken.done
                if failures > _RESUMES:
                    raise SourceConnectionError(
                        f"{piece.object.name}: the connection broke off {failures} times after "
                        f"{piece.start + done} of {piece.object.size} bytes: {broken.cause}. "
                        f"Check the network and read again"
                    ) from broken.cause
                # Full jitter: the threads that one outage stopped must not all come back at once.
                pause = _RESUME_PAUSE_SECONDS * 2**failures
                self._closed.wait(random.uniform(pause / 2, pause))  # noqa: S311 - not for security
        return data

    def _fill(self, data: bytearray, done: int, piece: Piece) -> int:
        """Read what is missing in one request; return how much is there.

        Raises:
            _Broken: The body ended before.
        """
        self._check_open(piece)
        with s3_errors(piece.object.name):
            body = piece.object.request(piece.start + done, piece.end)
        with self._lock:
            self._bodies.add(body)
        try:
            while done < len(data):
                self._check_open(piece)
                part = body.read(min(_READ_BYTES, len(data) - done))
                if not part:
                    raise OSError("the body ended early")
                data[done : done + len(part)] = part
                done += len(part)
            if len(data) == piece.object.size:
                # botocore compares the checksum of a whole object when it sees the end.
                with s3_errors(piece.object.name):
                    body.read(1)
        except _BROKEN_BODY as error:
            raise _Broken(done, error) from error
        finally:
            with self._lock:
                self._bodies.discard(body)
            body.close()
        return done

    def _check_open(self, piece: Piece) -> None:
        if self._closed.is_set():
            raise SourceError(f"{piece.object.name}: the read was given up")


class _Broken(Exception):
    """A body ended early.

    Attributes:
        done: Bytes that are there.
        cause: Why.
    """

    def __init__(self, done: int, cause: Exception) -> None:
        super().__init__(done, cause)
        self.done = done
        self.cause = cause


def _interrupt(shutdown: Any) -> None:
    try:
        shutdown()
    # It has ended by itself meanwhile, or is encrypted in a way that cannot be interrupted: then it ends later.
    except (OSError, RuntimeError, ValueError, AttributeError):
        return
