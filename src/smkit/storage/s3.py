"""A store in an S3 bucket.

Put-if-absent is `PutObject` with `If-None-Match: *`
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html): 412 means that the key exists, 409 that
another conditional request was under way and nothing is decided yet. Some S3-compatible servers ignore the header, so
the first such write of a store asks the server once.
"""

from __future__ import annotations

import io
import random
import time
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from smkit.aws import split_s3_uri
from smkit.aws_errors import AWS_ERRORS, NOT_FOUND_CODES, error_code, explain_aws_error
from smkit.errors import ObjectNotFound, StorageError
from smkit.storage.base import Digest, HashingReader, ObjectInfo, check_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_PROBE_KEY = ".smkit-probe"
_CONFLICT_ATTEMPTS = 12
_READ_ATTEMPTS = 5
_DELETE_BATCH = 1000  # the most that DeleteObjects takes


class S3Store:
    """Objects under one prefix of a bucket.

    Args:
        uri: `s3://bucket` or `s3://bucket/prefix`.
        client: Returns the S3 client; called on first use.
        kms_key: KMS key id or ARN for what is written; default: the bucket's own encryption.
    """

    def __init__(self, uri: str, client: Callable[[], Any], *, kms_key: str | None = None) -> None:
        self._bucket, prefix = split_s3_uri(uri)
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._client = client
        self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        self._conditions_hold: bool | None = None

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    @property
    def uri(self) -> str:
        """The root, without a slash at the end."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def local_path(self, key: str) -> Path | None:
        """Return None: the bytes are remote."""
        check_key(key)
        return None

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a small object unless the key exists; of two writers at once exactly one gets True.

        Raises:
            StorageError: The server ignores `If-None-Match`, or the write failed. After a lost connection the object
                may have been written all the same.
        """
        if self._conditions_hold is None:
            # True either way the first put ends: what counts is that a second one is refused.
            self._put_if_absent(_PROBE_KEY, b"")
            self._conditions_hold = not self._put_if_absent(_PROBE_KEY, b"")
        if not self._conditions_hold:
            raise StorageError(
                f"{self.uri}: this server ignores 'If-None-Match: *', so two writers could overwrite each other's "
                f"versions; use Amazon S3, or a server that supports conditional writes, or a folder"
            )
        return self._put_if_absent(key, data)

    def _put_if_absent(self, key: str, data: bytes) -> bool:
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                self._client().put_object(**self._at(key), Body=data, IfNoneMatch="*", **self._encryption)
            except AWS_ERRORS as error:  # noqa: PERF203 - the loop is the retry
                code = error_code(error)
                if code in {"PreconditionFailed", "412"}:
                    return False
                if code not in {"ConditionalRequestConflict", "409"}:
                    raise self._error(error, "write", key) from error
                # Full jitter: the two that met must not meet again.
                time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))  # noqa: S311 - not for security
            else:
                return True
        raise StorageError(f"cannot write {self._name(key)}: other writers kept conflicting; try again")

    def upload(self, key: str, source: BinaryIO) -> Digest:
        """Write an object of any size from a stream, in bounded memory, hashing while the bytes move."""
        from boto3.exceptions import S3UploadFailedError

        reader = HashingReader(source)
        target = self._at(key)
        try:
            self._client().upload_fileobj(reader, target["Bucket"], target["Key"], ExtraArgs=dict(self._encryption))
        except (*AWS_ERRORS, S3UploadFailedError) as error:
            raise self._error(error, "write", key) from error
        return reader.digest()

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read a small object whole; one larger than `max_bytes` is a `StorageError`."""
        with self.open(key) as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise StorageError(f"{self._name(key)} is larger than the {max_bytes:,} bytes that such an object may have")
        return data

    def open(self, key: str) -> BinaryIO:
        """Open an object as a stream, which goes on where it was when the connection drops."""

        def request(**options: str) -> dict[str, Any]:
            try:
                return cast("dict[str, Any]", self._client().get_object(**self._at(key), **options))
            except AWS_ERRORS as error:
                raise self._error(error, "read", key) from error

        return cast("BinaryIO", io.BufferedReader(_ResumingStream(self._name(key), request), buffer_size=1 << 20))

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with `prefix`, in the order of their keys, at most `limit`."""
        for page in self._pages(prefix, limit=limit):
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                yield ObjectInfo(key, entry["Size"], entry["LastModified"])

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the next path part of every key under the folder `prefix`, each once, in order."""
        folder = prefix.strip("/") + "/" if prefix.strip("/") else ""
        for page in self._pages(folder, Delimiter="/"):
            names = [entry["Prefix"].rstrip("/") for entry in page.get("CommonPrefixes", ())]
            names += [entry["Key"] for entry in page.get("Contents", ())]
            yield from sorted(name.removeprefix(self._prefix + folder) for name in names)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key that does not exist is no error."""
        pending = [self._prefix + check_key(key) for key in keys]
        for start in range(0, len(pending), _DELETE_BATCH):
            batch = [{"Key": key} for key in pending[start : start + _DELETE_BATCH]]
            try:
                answer = self._client().delete_objects(Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True})
            except AWS_ERRORS as error:
                raise self._error(error, "delete objects under", "") from error
            if errors := answer.get("Errors"):
                first = errors[0]
                raise StorageError(
                    f"cannot delete {len(errors)} of {len(batch)} objects under {self.uri}; the first, "
                    f"{first.get('Key')}: {first.get('Code')}: {first.get('Message')}"
                )

    def _pages(self, prefix: str, *, limit: int | None = None, **options: str) -> Iterator[dict[str, Any]]:
        paging = {} if limit is None else {"MaxItems": limit, "PageSize": min(limit, 1000)}
        paginator = self._client().get_paginator("list_objects_v2")
        pages = paginator.paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, PaginationConfig=paging, **options
        )
        try:
            yield from pages
        except AWS_ERRORS as error:
            raise self._error(error, "list", prefix) from error

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _error(self, error: Exception, action: str, key: str) -> StorageError:
        if error_code(error) in NOT_FOUND_CODES:
            return ObjectNotFound(2, "no such object", self._name(key))
        return StorageError(explain_aws_error(error, f"{action} {self._name(key)}"))


class _ResumingStream(io.RawIOBase):
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
        return True

    def readinto(self, buffer: Any) -> int:
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
                    self._body = self._request(Range=f"bytes={self._position}-", IfMatch=self._etag)["Body"]
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

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        self._drop_body()
        super().close()
