"""One S3 object as a file: ranged reads, resumed after a dropped connection, never a short or a mixed read."""

from __future__ import annotations

import io
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import HTTPClientError, IncompleteReadError

from smkit.aws_errors import AWS_ERRORS, NOT_FOUND_CODES, error_code, explain_aws_error, is_passing
from smkit.errors import SourceConnectionError, SourceError, SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How often in a row a body may break off without a byte read in between; botocore retries each request by itself.
_RESUMES = 4
_RESUME_PAUSE_SECONDS = 0.1
#: Errors while a body is read; botocore does not retry those.
_BROKEN_BODY = (HTTPClientError, IncompleteReadError, OSError)


@dataclass(frozen=True)
class S3Object:
    """One version of an object's content.

    Args:
        client: The S3 client.
        bucket: Its bucket.
        key: Its key.
        size: Bytes.
        etag: What S3 calls this content; a read of another content is an error.
    """

    client: Any = field(repr=False)
    bucket: str
    key: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """The URI."""
        return f"s3://{self.bucket}/{self.key}"

    @contextmanager
    def open_stream(self) -> Iterator[BinaryIO]:
        """Open for one read from front to back: one request."""
        with _ObjectReader(self, ranged=False) as reader:
            yield cast("BinaryIO", reader)

    @contextmanager
    def open_seekable(self) -> Iterator[BinaryIO]:
        """Open for reads anywhere: one request a read."""
        with _ObjectReader(self, ranged=True) as reader:
            yield cast("BinaryIO", reader)


class _ObjectReader(io.RawIOBase):
    """The bytes of an object.

    Args:
        object_: What to read.
        ranged: Ask for exactly the bytes of each read; else for all that follow, once.
    """

    def __init__(self, object_: S3Object, *, ranged: bool) -> None:
        super().__init__()
        self._object = object_
        self._ranged = ranged
        self._position = 0
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._ranged

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self._ranged:
            raise io.UnsupportedOperation("this reader goes from front to back")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._object.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer only at the object's end."""
        left = max(0, self._object.size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        parts: list[bytes] = []
        failures = 0
        while wanted:
            try:
                if self._body is None:
                    self._body = self._request(wanted)
                part: bytes = self._body.read(wanted)
                if not part:
                    raise OSError("the body ended early")
            except _BROKEN_BODY as error:
                self._close_body()
                failures += 1
                if failures > _RESUMES:
                    raise SourceConnectionError(
                        f"{self._object.name}: the connection broke off {failures} times after "
                        f"{self._position} of {self._object.size} bytes: {error}. Check the network and read again"
                    ) from error
                time.sleep(_RESUME_PAUSE_SECONDS * failures)
                continue
            failures = 0
            parts.append(part)
            self._position += len(part)
            wanted -= len(part)
        if self._ranged:
            self._close_body()
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection of the current request."""
        self._close_body()
        super().close()

    def _request(self, wanted: int) -> Any:
        """Ask for what follows; If-Match makes S3 refuse when the object was replaced since it was listed."""
        last = self._position + wanted - 1 if self._ranged else self._object.size - 1
        asked: dict[str, str] = {}
        # A request for the whole object lets botocore verify the checksum that S3 stores.
        if (self._position, last) != (0, self._object.size - 1):
            asked["Range"] = f"bytes={self._position}-{last}"
        with s3_errors(self._object.name):
            return self._object.client.get_object(
                Bucket=self._object.bucket, Key=self._object.key, IfMatch=self._object.etag, **asked
            )["Body"]

    def _close_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()


@contextmanager
def s3_errors(uri: str) -> Iterator[None]:
    """Turn boto3's errors into smkit's, with what to do about each."""
    try:
        yield
    except AWS_ERRORS as error:
        message = explain_aws_error(error, f"read {uri}")
        if error_code(error) in NOT_FOUND_CODES | {"NoSuchBucket"}:
            raise SourceNotFound(message) from error
        if is_passing(error):
            raise SourceConnectionError(message) from error
        raise SourceError(message) from error
