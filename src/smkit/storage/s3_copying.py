"""Copying an object within S3: the bytes never come to this machine.

One request copies up to 5 GB (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html), and S3 tells the
SHA-256 of the copy; what is larger is copied in parts, each on the condition that the source is still the same.
"""

from __future__ import annotations

import base64
import binascii
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from smkit.aws import split_s3_uri
from smkit.aws_errors import error_code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.storage.base import RemoteObject

_MOST_AT_ONCE = 5 * 10**9
#: Ten thousand of them are 5 TB, the most that an object can have.
_PART_BYTES = 1 << 29
_PARTS_AT_ONCE = 4
_CHANGED = frozenset({"PreconditionFailed", "412"})


class SourceChanged(Exception):
    """The source has another ETag by now."""


def copy_object(
    client: Any, target: Mapping[str, str], source: RemoteObject, size: int, encryption: Mapping[str, str]
) -> tuple[bool, str | None]:
    """Copy an object; return whether it was copied, and the lower-case hex SHA-256 of the copy if S3 told it.

    Args:
        client: The S3 client.
        target: `Bucket` and `Key`.
        source: What to copy.
        size: Its size in bytes.
        encryption: The arguments that encrypt what is written.

    Raises:
        SourceChanged: It has another ETag by now.
        BotoCoreError: S3 cannot be reached.
        ClientError: S3 failed, which is no refusal.
    """
    bucket, key = split_s3_uri(source.uri)
    condition = {"CopySource": {"Bucket": bucket, "Key": key}, "CopySourceIfMatch": source.etag}
    try:
        if size > _MOST_AT_ONCE:
            _copy_parts(client, target, condition, size, encryption)
            return True, None
        answer = client.copy_object(**target, **condition, **encryption, ChecksumAlgorithm="SHA256")
    except ClientError as error:
        if error_code(error) in _CHANGED:
            raise SourceChanged from error
        if _is_refusal(error):
            return False, None
        raise
    return True, _sha256_of(answer.get("CopyObjectResult", {}))


def _copy_parts(
    client: Any, target: Mapping[str, str], condition: Mapping[str, Any], size: int, encryption: Mapping[str, str]
) -> None:
    upload = {**target, "UploadId": client.create_multipart_upload(**target, **encryption)["UploadId"]}

    def copy_part(number: int) -> dict[str, Any]:
        first = (number - 1) * _PART_BYTES
        last = min(first + _PART_BYTES, size) - 1
        answer = client.upload_part_copy(
            **upload, **condition, PartNumber=number, CopySourceRange=f"bytes={first}-{last}"
        )
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    try:
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            parts = [pool.submit(copy_part, number) for number in range(1, -(-size // _PART_BYTES) + 1)]
            try:
                listed = [part.result() for part in parts]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": listed})
    except BaseException:
        client.abort_multipart_upload(**upload)
        raise


def _is_refusal(error: ClientError) -> bool:
    """Tell whether S3 will not copy: not allowed, not known, not there, from another region; 5xx is no answer."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return bool(400 <= status < 500 or status == 501)


def _sha256_of(result: Mapping[str, Any]) -> str | None:
    """Return the checksum of the whole copy; one of its parts' checksums, which ends in their number, says nothing."""
    if result.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    try:
        checksum = base64.b64decode(result.get("ChecksumSHA256", ""), validate=True)
    except binascii.Error:
        return None
    return checksum.hex() if len(checksum) == 32 else None
