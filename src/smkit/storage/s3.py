"""A store in an S3 bucket.

Put-if-absent is `PutObject` with `If-None-Match: *`
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html): 412 means that the key exists, 409 that
another conditional request was under way and nothing is decided yet. Some S3-compatible servers ignore the header, so
the first such write of a store asks the server once.
"""

from __future__ import annotations

import errno
import io
import itertools
import random
import time
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import HTTPClientError

from smkit.aws import split_s3_uri
from smkit.aws_errors import AWS_ERRORS, NOT_FOUND_CODES, error_code, explain_aws_error
from smkit.errors import IntegrityError, ObjectNotFound, StorageError, StoreUnreachable
from smkit.storage.base import (
    RESERVED,
    Digest,
    HashingReader,
    Leftover,
    ObjectInfo,
    check_key,
    check_prefix,
    digest_of,
    is_key,
)
from smkit.storage.s3_reading import ResumingStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from smkit.storage.base import RemoteObject

_PROBE = f"{RESERVED}probe"
_CONFLICT_ATTEMPTS = 12
_DELETE_BATCH = 1000  # the most that DeleteObjects takes
_LIST_PAGE = 1000  # the most that ListObjectsV2 gives
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html: at most 10,000 parts. A stream whose length is not
# known ends at 10,000 parts of the smallest size.
_PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
_PARTS_AT_ONCE = 4


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
        """Write a small object unless the key exists. Of writers at once at most one gets True.

        Raises:
            StorageError: The server ignores `If-None-Match`, or the write failed. After a lost connection the object
                may have been written all the same.
        """
        check_key(key)
        if self._conditions_hold is None:
            # The second put must be refused, whichever way the first one ended.
            self._conditions_hold = not self._put_if_absent(_PROBE, b"") or not self._put_if_absent(_PROBE, b"")
        if not self._conditions_hold:
            raise StorageError(
                f"{self.uri}: this server ignores 'If-None-Match: *', so two writers could overwrite each other's "
                f"versions; use Amazon S3, or a server that supports conditional writes, or a folder"
            )
        return self._put_if_absent(key, data)

    def _put_if_absent(self, key: str, data: bytes) -> bool:
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                self._client().put_object(
                    Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*", **self._encryption
                )
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
        from boto3.exceptions import Boto3Error
        from boto3.s3.transfer import TransferConfig

        target = self._at(key)
        transfer = TransferConfig(
            multipart_threshold=_PART_BYTES,
            multipart_chunksize=_part_bytes(source),
            max_concurrency=_PARTS_AT_ONCE,
            # The other client, taken by itself on some instances, may read the stream in its own order.
            preferred_transfer_client="classic",
        )
        # The parts of a stream that cannot seek wait in memory.
        transfer.max_in_memory_upload_chunks = _PARTS_AT_ONCE
        reader = HashingReader(source)
        try:
            self._client().upload_fileobj(
                reader, target["Bucket"], target["Key"], ExtraArgs=dict(self._encryption), Config=transfer
            )
        except (*AWS_ERRORS, Boto3Error) as error:
            raise self._error(error, "write", key) from error
        return reader.digest()

    def copy(self, key: str, source: RemoteObject, size: int) -> Digest | None:
        """Copy an object of `size` bytes within S3; None where that is refused. See `CopyingStore`."""
        from smkit.storage.s3_copying import SourceChanged, copy_object

        try:
            copied, sha256 = copy_object(self._client(), self._at(key), source, size, self._encryption)
        except SourceChanged:
            raise IntegrityError(
                f"{source.uri} changed since it was looked at: it no longer has the ETag {source.etag}; publish what "
                f"is there now, or find out who wrote it"
            ) from None
        except AWS_ERRORS as error:
            raise self._error(error, f"copy {source.uri} to", key) from error
        if not copied:
            return None
        if sha256 is not None:
            return Digest(sha256, size)
        # S3 does not tell the SHA-256 of what was copied in parts, nor does every other server: read the copy.
        with self.open(key) as stream:
            return digest_of(stream)

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield the uploads in parts under a folder that are not finished; S3 keeps and bills their parts."""
        check_prefix(prefix)
        paginator = self._client().get_paginator("list_multipart_uploads")
        try:
            for page in paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for upload in page.get("Uploads", ()):
                    key = upload["Key"].removeprefix(self._prefix)
                    if is_key(key):
                        yield Leftover(key, upload["UploadId"], 1, 0, upload["Initiated"])
        except AWS_ERRORS as error:
            raise self._error(error, "list the unfinished uploads of", prefix) from error

    def sweep(self, leftover: Leftover) -> None:
        """Abort an unfinished upload; S3 deletes its parts."""
        try:
            self._client().abort_multipart_upload(**self._at(leftover.key), UploadId=leftover.upload_id)
        except AWS_ERRORS as error:
            if error_code(error) != "NoSuchUpload":
                raise self._error(error, "abort the upload of", leftover.key) from error

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

        return cast("BinaryIO", io.BufferedReader(ResumingStream(self._name(key), request), buffer_size=1 << 20))

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with `prefix`, in the order of their keys, at most `limit`."""
        check_prefix(prefix)
        yield from itertools.islice(self._objects(prefix, page_size=min(limit or _LIST_PAGE, _LIST_PAGE)), limit)

    def _objects(self, prefix: str, page_size: int) -> Iterator[ObjectInfo]:
        for page in self._pages(prefix, PaginationConfig={"PageSize": page_size}):
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                if is_key(key):
                    yield ObjectInfo(key, entry["Size"], entry["LastModified"])

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the next path part of every key under the folder `prefix`, each once, in the order of the keys."""
        folder = check_prefix(f"{prefix.removesuffix('/')}/") if prefix else ""
        for page in self._pages(folder, Delimiter="/"):
            # The server merges both by key; a folder's name keeps its slash until they are.
            found = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
            found += [entry["Key"] for entry in page.get("Contents", ())]
            names = (name.removeprefix(self._prefix + folder).removesuffix("/") for name in sorted(found))
            yield from (name for name in names if is_key(name))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key that does not exist is no error."""
        pending = [self._prefix + check_key(key) for key in keys]
        for start in range(0, len(pending), _DELETE_BATCH):
            batch = [{"Key": key} for key in pending[start : start + _DELETE_BATCH]]
            try:
                answer = self._client().delete_objects(Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True})
            except AWS_ERRORS as error:
                raise self._error(error, "delete objects under", "") from error
            # Some servers report an object that is gone already.
            if errors := [item for item in answer.get("Errors", ()) if item.get("Code") not in NOT_FOUND_CODES]:
                first = errors[0]
                raise StorageError(
                    f"cannot delete {len(errors)} of {len(batch)} objects under {self.uri}; the first, "
                    f"{first.get('Key')}: {first.get('Code')}: {first.get('Message')}"
                )

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        paginator = self._client().get_paginator("list_objects_v2")
        try:
            yield from paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix, **options)
        except AWS_ERRORS as error:
            raise self._error(error, "list", prefix) from error

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _error(self, error: Exception, action: str, key: str) -> StorageError:
        if error_code(error) in NOT_FOUND_CODES:
            return ObjectNotFound(errno.ENOENT, "no such object", self._name(key))
        kind = StoreUnreachable if isinstance(error, (HTTPClientError, BotoConnectionError)) else StorageError
        return kind(explain_aws_error(error, f"{action} {self._name(key)}"))


def _part_bytes(source: BinaryIO) -> int:
    """Return how large the parts must be so that their number suffices."""
    try:
        if not source.seekable():
            return _PART_BYTES
        position = source.tell()
        left = source.seek(0, io.SEEK_END) - position
        source.seek(position)
    except OSError as error:
        raise StorageError(error.errno, f"cannot read what is to be stored: {error.strerror or error}") from error
    return max(_PART_BYTES, -(-left // _MAX_PARTS))
