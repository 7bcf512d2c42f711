"""What AWS says about a job, as the typed errors of smkit, each with its fix."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from smkit.aws_errors import AWS_ERRORS, error_code, explain_aws_error, is_passing
from smkit.errors import (
    AccessDenied,
    CredentialsError,
    QuotaExceeded,
    ServiceError,
    ServiceUnavailable,
    UnsupportedInRegion,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
_BUSY = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"}
    | {"ServiceUnavailable", "ServiceUnavailableException", "InternalFailure", "InternalServerException"}
)
#: Beside those that `aws_errors` knows: what the services that speak JSON say of credentials.
_UNKNOWN_CALLER = frozenset({"UnrecognizedClientException", "IncompleteSignature", "MissingAuthenticationToken"})
_NO_ANSWER = (BotoConnectionError, HTTPClientError)

_ACTION = re.compile(r"not authorized to perform: (?P<action>[a-z0-9-]+:[A-Za-z]+)(?: on resource: (?P<resource>\S+))?")
_NOT_IN_REGION = re.compile(r"(?:is|are) (?:currently )?not (?:currently )?(?:supported|available)\b", re.IGNORECASE)
_INSTANCE_ENUM = re.compile(r"at '[^']*instanceType' failed to satisfy constraint", re.IGNORECASE)
_NO_IMAGE = re.compile(r"(?:image|repository)\b.*(?:does not exist|not found|invalid)", re.IGNORECASE | re.DOTALL)


def service_error(error: Exception, what: str) -> ServiceError:
    """Return the typed error for what boto3 raised.

    Args:
        error: One of `AWS_ERRORS`.
        what: What was tried: `"start job 'a'"`.
    """
    code = error_code(error)
    said = explain_aws_error(error, what)
    kind, fix = _classify(error, code)
    return kind(said + (f"; {fix}" if fix and fix not in said else ""), code=code)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what boto3 raises inside into typed errors.

    Raises:
        ServiceError: A call failed.
    """
    try:
        yield
    except AWS_ERRORS as error:
        raise service_error(error, what) from error


def is_not_found(error: Exception) -> bool:
    """Tell whether SageMaker or CloudWatch says that it has no such job, group or stream."""
    code = error_code(error)
    if code in {"ResourceNotFound", "ResourceNotFoundException"}:
        return True
    # DescribeTrainingJob and StopTrainingJob say so in words only: "Requested resource not found."
    return code == "ValidationException" and "resource not found" in _message(error).lower()


def is_undecided(error: Exception) -> bool:
    """Tell whether a request may have been carried out, although its caller got an error."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0) >= 500
    return isinstance(error, _NO_ANSWER)


def was_repeated(error: Exception) -> bool:
    """Tell whether boto3 sent the request more than once: the answer is the last one's, not the first one's."""
    return isinstance(error, ClientError) and bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _classify(error: Exception, code: str) -> tuple[type[ServiceError], str]:
    message = _message(error)
    if code in _BUSY:
        return ServiceUnavailable, "the service asks to slow down or is failing: try again later"
    if code in _UNKNOWN_CALLER:
        return CredentialsError, "the credentials are unknown, or of another partition: sign in again, or set `profile`"
    if code in _DENIED:
        return AccessDenied, _how_to_allow(message)
    if code == "ResourceLimitExceeded":
        return QuotaExceeded, (
            "ask for more in Service Quotas (Amazon SageMaker, '<instance> for training job usage'; spot has a quota "
            "of its own), wait for other jobs to end, or choose another instance_type"
        )
    if code == "ValidationException":
        return _classify_invalid(message)
    if isinstance(error, ClientError) and is_passing(error):
        answered = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        return (ServiceUnavailable, "try again later") if answered >= 500 else (CredentialsError, "sign in again")
    if isinstance(error, _NO_ANSWER):
        return ServiceUnavailable, ""
    if is_passing(error):
        return CredentialsError, ""
    return ServiceError, ""


def _classify_invalid(message: str) -> tuple[type[ServiceError], str]:
    if _INSTANCE_ENUM.search(message):
        return UnsupportedInRegion, "the region does not offer this instance: choose another instance_type"
    if _NOT_IN_REGION.search(message):
        return UnsupportedInRegion, "the region has not launched this: leave the option or the field of `extra` out"
    if "could not assume role" in message.lower():
        return AccessDenied, (
            "the execution role must exist and trust the service: allow sts:AssumeRole to sagemaker.amazonaws.com in "
            "its trust policy, or correct `role`"
        )
    if _NO_IMAGE.search(message):
        return UnsupportedInRegion, "the image is not in this region: choose another framework_version or image_uri"
    return ServiceError, ""


def _how_to_allow(message: str) -> str:
    found = _ACTION.search(message)
    if found is None:
        return "the caller's policy does not allow it"
    on = f" on {found['resource']}" if found["resource"] else ""
    return f"allow {found['action']}{on} in the caller's policy"


def _message(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Message", "")) if isinstance(error, ClientError) else ""
