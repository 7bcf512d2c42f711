"""One S3 object as it was listed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from smkit.aws_errors import AWS_ERRORS, NOT_FOUND_CODES, error_code, explain_aws_error, is_passing
from smkit.errors import SourceConnectionError, SourceError, SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator


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

    def request(self, start: int, end: int) -> Any:
        """Ask for the bytes from `start` to `end` and return the body; S3 refuses where the object was replaced."""
        asked: dict[str, str] = {}
        # A request for the whole object lets botocore verify the checksum that S3 stores.
        if (start, end) != (0, self.size):
            asked["Range"] = f"bytes={start}-{end - 1}"
        answer = self.client.get_object(Bucket=self.bucket, Key=self.key, IfMatch=self.etag, **asked)
        if asked and answer.get("ContentRange") != f"bytes {start}-{end - 1}/{self.size}":
            answer["Body"].close()
            raise SourceError(
                f"{self.name}: asked for the bytes {start} to {end - 1} of {self.size}, the server sent "
                f"{answer.get('ContentRange') or 'the whole object'}: it does not support ranges"
            )
        return answer["Body"]


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
