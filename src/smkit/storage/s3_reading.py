"""Reading an object of S3 as a stream that survives dropped connections."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

from smkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_ATTEMPTS = 5


class ResumingStream(io.RawIOBase):
    """The bytes of one object. A dropped connection is resumed with a range, on the same ETag only."""

    def __init__(self, name: str, request: Callable[..., dict[str, Any]]) -> None:
        self._name = name
        self._request = request
        self._position = 0
        self._body: Any = None
        answer = request()
        self._etag = answer["ETag"]
        self._size = int(answer["ContentLength"])
        self._body = answer["Body"]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes, 0 at the end.

        Raises:
            StorageError: The connection kept dropping.
        """
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
        from urllib3.exceptions import HTTPError

        dropped = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, HTTPError, ConnectionError)
        problem: Exception | None = None
        for attempt in range(_READ_ATTEMPTS):
            if self._position >= self._size:
                return 0
            if attempt:
                time.sleep(0.05 * 2**attempt)
            try:
                if self._body is None:
                    self._body = self._resume()
                data = self._body.read(len(buffer))
            except dropped as error:
                problem = error
                data = b""
            if data:
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
            # An early end without an error is a dropped connection too: ask for the rest.
            self._drop_body()
        cause = f": {problem}" if problem else ""
        raise StorageError(
            f"cannot read {self._name}: the connection kept dropping after {self._position:,} of {self._size:,} "
            f"bytes{cause}; try again"
        ) from problem

    def _resume(self) -> Any:
        answer = self._request(Range=f"bytes={self._position}-", IfMatch=self._etag)
        part = f"bytes {self._position}-{self._size - 1}/{self._size}"
        if answer.get("ContentRange") != part:
            answer["Body"].close()
            raise StorageError(
                f"cannot read {self._name}: the connection dropped, and asked for the rest the server sent "
                f"{answer.get('ContentRange') or 'the whole object'} instead of {part}; try again"
            )
        return answer["Body"]

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        """Give the connection back."""
        self._drop_body()
        super().close()
