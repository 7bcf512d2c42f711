"""A model that lies in S3 already, such as the output of a training job."""

from __future__ import annotations

import contextlib
import errno
import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from smkit.aws import split_s3_uri
from smkit.aws_errors import AWS_ERRORS, NOT_FOUND_CODES, error_code, explain_aws_error
from smkit.errors import ConfigError, ModelError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_RANGE_BYTES = 16 << 20
_ATTEMPTS = 5


def is_s3_uri(source: object) -> bool:
    """Tell whether something to publish is named by an S3 URI."""
    return isinstance(source, str) and source.lower().startswith("s3://")


@dataclass(frozen=True)
class RemoteFile:
    """One object of S3 as it was when it was found.

    Attributes:
        uri: `s3://bucket/key`.
        etag: Its ETag: what is read is read on the condition that it still has it.
        size: In bytes.
        client: Returns the S3 client.
    """

    uri: str
    etag: str
    size: int
    client: Callable[[], Any]

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.uri.rpartition("/")[2]

    def open(self) -> BinaryIO:
        """Open it as a stream.

        The stream raises `StorageError` where the object was changed or deleted since, or cannot be read.
        """
        return cast("BinaryIO", io.BufferedReader(_Ranges(self), buffer_size=1 << 20))

    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to `stop`; a dropped connection is tried again.

        Raises:
            StorageError: The object was changed or deleted since, or cannot be read.
        """
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
        from urllib3.exceptions import HTTPError

        dropped = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, HTTPError, ConnectionError)
        bucket, key = split_s3_uri(self.uri)
        problem: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.05 * 2**attempt)
            try:
                answer = self.client().get_object(
                    Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=self.etag
                )
                with contextlib.closing(answer["Body"]) as body:
                    data: bytes = body.read()
            except dropped as error:
                problem = error
                continue
            except AWS_ERRORS as error:
                raise _storage_error(error, self.uri) from error
            if len(data) == stop - start:
                return data
        raise StorageError(
            f"cannot read {self.uri}: the connection kept dropping after {start:,} of {self.size:,} bytes; try again"
        ) from problem


def find_remote(uri: str, client: Callable[[], Any]) -> RemoteFile:
    """Return the object that a URI names.

    Raises:
        ConfigError: It is no URI of one object.
        ModelError: There is no such object.
        StorageError: S3 cannot be asked.
    """
    bucket, key = split_s3_uri(uri)
    if not key or key.endswith("/"):
        raise ConfigError(
            f"cannot publish {uri!r}: expected the URI of one object, such as {uri.rstrip('/')}/model.tar.gz"
        )
    try:
        answer = client().head_object(Bucket=bucket, Key=key)
    except AWS_ERRORS as error:
        if error_code(error) in NOT_FOUND_CODES:
            raise ModelError(f"there is no object {uri} to publish") from None
        raise _storage_error(error, uri) from error
    return RemoteFile(uri, answer["ETag"], int(answer["ContentLength"]), client)


def _storage_error(error: Exception, uri: str) -> StorageError:
    if error_code(error) in NOT_FOUND_CODES:
        return StorageError(errno.ENOENT, "the object was deleted while it was read", uri)
    return StorageError(explain_aws_error(error, f"read {uri}"))


class _Ranges(io.RawIOBase):
    """The bytes of an object, range by range, each once."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._position = 0
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece and self._position < self._file.size:
            stop = min(self._position + _RANGE_BYTES, self._file.size)
            self._piece = memoryview(self._file.read_range(self._position, stop))
            self._position = stop
        piece, self._piece = self._piece[: len(buffer)], self._piece[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
