"""What is said of an AWS error."""

from __future__ import annotations

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

from smkit.aws_errors import AWS_ERRORS, error_code, explain_aws_error


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


def test_only_a_service_has_a_code() -> None:
    assert error_code(client_error("SlowDown", "")) == "SlowDown"
    assert error_code(NoCredentialsError()) == ""
    assert error_code(ClientError({}, "GetObject")) == ""
