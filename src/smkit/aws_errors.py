"""What AWS errors mean and how to fix them, in one place."""

from __future__ import annotations

import re

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

#: What boto3 raises when a call fails.
AWS_ERRORS = (BotoCoreError, ClientError)

NOT_FOUND_CODES = frozenset({"404", "NoSuchKey", "NotFound"})

_OTHER_PARTITION = "the access key is unknown in this partition: keys of aws do not work in aws-cn, nor the reverse"
_NO_CREDENTIALS = "set `profile`, run `aws configure`, or give the machine a role"
_DENIED = "the caller's policy does not allow it"
_DENIED_BY_S3 = (
    "the caller's policy, or the bucket's, does not allow it: reading needs s3:GetObject and s3:ListBucket, writing "
    "s3:PutObject, and data under a KMS key kms:Decrypt and kms:GenerateDataKey"
)
_REGION = "the bucket is in another region: set `region` to the bucket's"
_BUSY = "the service is busy or failing: try again later"
_FAILING = "the service, or a proxy on the way, is failing: try again later"
_FIXES = {
    "NoSuchBucket": "create the bucket, or correct its name; no partition sees the buckets of another",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "AllAccessDisabled": "the account is closed or suspended",
    "ExpiredToken": "the session has expired: sign in again",
    "ExpiredTokenException": "the session has expired: sign in again",
    "InvalidAccessKeyId": _OTHER_PARTITION,
    "InvalidClientTokenId": _OTHER_PARTITION,
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "ResourceNotFoundException": "it does not exist in this region and account",
    "AccessDeniedException": _DENIED,
    "PreconditionFailed": "the object changed while it was read: try again",
    "SlowDown": "S3 asks to slow down: try again later, or write less at once",
    "ServiceUnavailable": _BUSY,
    "InternalError": _BUSY,
    # Without a body that says more.
    **dict.fromkeys(("500", "502", "503", "504"), _FAILING),
    "RequestTimeout": "the connection is too slow or was interrupted: try again",
    "InvalidToken": "the session token is malformed or of another partition: sign in again",
    "InvalidObjectState": "the object is archived: restore it first",
    "NotImplemented": "this server lacks an operation of S3 that smkit needs, such as conditional writes",
    "QuotaExceeded": "the storage is full: free some space",
    "KMS.DisabledException": "the KMS key is disabled",
    "KMS.NotFoundException": "the KMS key does not exist in this region",
}

#: Services that speak XML all say AccessDenied; an error names its operation, not its service.
_OF_S3 = re.compile(r"Bucket|Object|MultipartUpload|UploadPart|PublicAccessBlock")

#: The service answered that it does not know the caller.
_CREDENTIALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken"}
    | {"SignatureDoesNotMatch", "TokenRefreshRequired"}
)
#: The service gave no answer, or was not asked.
_NO_ANSWER = (
    BotoConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)


def error_code(error: Exception) -> str:
    """Return the service's error code, or `""` where the call did not reach the service."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def is_passing(error: Exception) -> bool:
    """Whether the same call may succeed later, or once the network or the credentials are mended."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
        return status >= 500 or error_code(error) in _CREDENTIALS
    return isinstance(error, _NO_ANSWER)


def is_of_s3(operation: str) -> bool:
    """Whether an operation is one of S3's, of those that smkit uses."""
    return _OF_S3.search(operation) is not None


def explain_aws_error(error: Exception, what: str) -> str:
    """Say what failed, why, and how to fix it.

    Args:
        error: What boto3 raised.
        what: What was tried: `"read s3://bucket/key"`.
    """
    if isinstance(error, ClientError):
        code = error_code(error)
        message = str(error.response.get("Error", {}).get("Message", "")).rstrip(".")
        fix = _FIXES.get(code, "")
        if fix == _DENIED and is_of_s3(error.operation_name):
            fix = _DENIED_BY_S3
        home = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
        if fix == _REGION and home:
            fix += f", {home}"
        said = f"{code}: {message}" if message and message != code else code
        return f"cannot {what}: {said}" + (f"; {fix}" if fix else "")
    if isinstance(error, NoCredentialsError):
        return f"cannot {what}: no AWS credentials found; {_NO_CREDENTIALS}"
    if isinstance(error, (PartialCredentialsError, CredentialRetrievalError)):
        return f"cannot {what}: {str(error).rstrip('.')}; {_NO_CREDENTIALS}"
    if isinstance(error, (TokenRetrievalError, UnauthorizedSSOTokenError, SSOTokenLoadError)):
        return f"cannot {what}: the single sign-on session has expired; run `aws sso login`"
    if isinstance(error, (HTTPClientError, BotoConnectionError)):
        return f"cannot {what}: {str(error).rstrip('.')}; check the network, the proxy and `region`"
    return f"cannot {what}: {error}"
