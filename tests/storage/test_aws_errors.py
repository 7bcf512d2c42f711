"""What is said of an AWS error."""

from __future__ import annotations

import botocore.session
import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ProxyConnectionError,
    SSLError,
    UnauthorizedSSOTokenError,
    UnknownEndpointError,
)

from smkit.aws_errors import AWS_ERRORS, error_code, explain_aws_error, is_of_s3


def client_error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            client_error("PermanentRedirect", "Go there."),
            "Go there; the bucket is in another region",
        ),
        (client_error("301", "Moved Permanently"), "301: Moved Permanently; the bucket is in another region"),
        (client_error("404", "404"), "cannot read x: 404"),
        (client_error("NobodyKnows", ""), "cannot read x: NobodyKnows"),
        (NoCredentialsError(), "no AWS credentials found; set `profile`"),
        (CredentialRetrievalError(provider="sso", error_msg="gone"), "from sso: gone; set `profile`"),
        (UnauthorizedSSOTokenError(), "run `aws sso login`"),
        (
            SSLError(endpoint_url="https://s3", error=OSError("bad certificate")),
            "check the network, the proxy and `region`",
        ),
        (ProxyConnectionError(proxy_url="http://proxy:3128"), '"http://proxy:3128"; check the network, the proxy'),
        (UnknownEndpointError(service_name="s3", region_name="x"), "construct an endpoint for s3 in region x"),
    ],
)
def test_an_error_says_what_was_tried_what_happened_and_what_to_do(error: Exception, expected: str) -> None:
    assert isinstance(error, AWS_ERRORS)
    message = explain_aws_error(error, "read x")
    assert message.startswith("cannot read x: ")
    assert expected in message


@pytest.mark.parametrize("code", ["AccessDenied", "403"])
@pytest.mark.parametrize(
    "operation",
    ["GetObject", "HeadBucket", "ListObjectsV2", "CreateMultipartUpload", "UploadPart", "GetPublicAccessBlock"],
)
def test_s3_denies_what_the_callers_or_the_buckets_policy_does_not_allow(code: str, operation: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "no"}}, operation)
    assert "reading needs s3:GetObject" in explain_aws_error(error, "read x")


@pytest.mark.parametrize(
    "operation", ["CreateChangeSet", "DescribeStacks", "GetRole", "SimulatePrincipalPolicy", "GetCallerIdentity"]
)
def test_other_services_say_access_denied_too(operation: str) -> None:
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)
    assert explain_aws_error(error, "ask") == "cannot ask: AccessDenied: no; the caller's policy does not allow it"


def test_every_service_is_told_from_s3_by_its_operation() -> None:
    # Those that answer AccessDenied as S3 does: all that speak XML.
    session = botocore.session.get_session()
    s3 = session.get_service_model("s3")
    asked = {"DeleteObjects", "CopyObject", "ListMultipartUploads", "AbortMultipartUpload", "UploadPartCopy"}
    assert asked | {"GetBucketPolicy", "HeadObject"} <= {name for name in s3.operation_names if is_of_s3(name)}
    for service in ("cloudformation", "iam", "sts"):
        assert [name for name in session.get_service_model(service).operation_names if is_of_s3(name)] == []


def test_only_a_service_has_a_code() -> None:
    assert error_code(client_error("SlowDown", "")) == "SlowDown"
    assert error_code(NoCredentialsError()) == ""
    assert error_code(ClientError({}, "GetObject")) == ""
