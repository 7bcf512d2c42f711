"""What AWS says, as the errors that a caller can tell apart, each with its fix."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    TokenRetrievalError,
)

from smkit.errors import (
    AccessDenied,
    CredentialsError,
    QuotaExceeded,
    ServiceError,
    ServiceUnavailable,
    UnsupportedInRegion,
)
from smkit.jobs.sagemaker.service_errors import is_not_found, is_undecided, service_error

ENUM = (
    "1 validation error detected: Value 'ml.m99.large' at 'resourceConfig.instanceType' failed to satisfy constraint: "
    "Member must satisfy enum value set: [ml.m5.large]"
)
DENIED = "User: arn:aws-cn:iam::1:user/u is not authorized to perform: sagemaker:CreateTrainingJob on resource: arn:job"
PASS_ROLE = (
    "User: arn:aws-cn:iam::1:user/u is not authorized to perform: iam:PassRole on resource: arn:aws-cn:iam::1:role/r"
)


def client_error(code: str, message: str = "no", status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "CreateTrainingJob")


@pytest.mark.parametrize(
    ("error", "kind", "fix"),
    [
        (client_error("ThrottlingException"), ServiceUnavailable, "try again later"),
        (client_error("RequestLimitExceeded"), ServiceUnavailable, "try again later"),
        (client_error("InternalFailure", status=500), ServiceUnavailable, "try again later"),
        (client_error("SomethingNew", status=502), ServiceUnavailable, "try again later"),
        (EndpointConnectionError(endpoint_url="https://x"), ServiceUnavailable, "check the network"),
        (ConnectTimeoutError(endpoint_url="https://x"), ServiceUnavailable, "check the network"),
        (client_error("ExpiredTokenException"), CredentialsError, "sign in again"),
        (client_error("ExpiredToken", status=403), CredentialsError, "sign in again"),
        (client_error("UnrecognizedClientException"), CredentialsError, "of another partition"),
        (client_error("InvalidClientTokenId", status=403), CredentialsError, "keys of aws do not work in aws-cn"),
        (client_error("SignatureDoesNotMatch", status=403), CredentialsError, "secret access key is wrong"),
        (NoCredentialsError(), CredentialsError, "set `profile`"),
        (TokenRetrievalError(provider="sso", error_msg="x"), CredentialsError, "run `aws sso login`"),
        (client_error("AccessDeniedException", DENIED), AccessDenied, "allow sagemaker:CreateTrainingJob on arn:job"),
        (client_error("AccessDeniedException", PASS_ROLE), AccessDenied, "allow iam:PassRole on arn:aws-cn:"),
        (client_error("AccessDeniedException"), AccessDenied, "the caller's policy does not allow it"),
        (client_error("ResourceLimitExceeded"), QuotaExceeded, "Service Quotas"),
        (client_error("ValidationException", ENUM), UnsupportedInRegion, "choose another instance_type"),
        (client_error("ValidationException", "Warm pools are currently not supported in cn-northwest-1."),
         UnsupportedInRegion, "leave the option or the field of `extra` out"),
        (client_error("ValidationException", "Could not assume role arn:r. Please ensure that the role exists"),
         AccessDenied, "trust policy"),
        (client_error("ValidationException", "The specified image 1.dkr.ecr/x:y was not found"),
         UnsupportedInRegion, "choose another framework_version or image_uri"),
        (client_error("ValidationException", "1 validation error detected"), ServiceError, "1 validation error"),
        (client_error("SomethingNew"), ServiceError, "SomethingNew"),
    ],
)  # fmt: skip
def test_each_has_its_type_and_its_fix(error: Exception, kind: type[ServiceError], fix: str) -> None:
    found = service_error(error, "start job 'a'")
    assert type(found) is kind
    assert str(found).startswith("cannot start job 'a': ")
    assert fix in str(found)
    assert found.code == (error.response["Error"]["Code"] if isinstance(error, ClientError) else "")


def test_what_is_not_there_is_told_from_what_is_wrong() -> None:
    assert is_not_found(client_error("ValidationException", "Requested resource not found."))
    assert is_not_found(client_error("ResourceNotFoundException"))
    assert not is_not_found(client_error("ValidationException", "image not found"))
    assert not is_not_found(NoCredentialsError())


def test_what_may_have_been_carried_out_all_the_same() -> None:
    assert is_undecided(client_error("InternalFailure", status=500))
    assert is_undecided(ReadTimeoutError(endpoint_url="https://x"))
    assert not is_undecided(client_error("ValidationException"))
    assert not is_undecided(NoCredentialsError())
