"""What it means when a call to AWS fails, as a finding."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from smkit.aws_errors import error_code, explain_aws_error
from smkit.diagnosis.findings import Finding, cannot_tell, no_answer, problem
from smkit.jobs.checks.calls import is_denied

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What services answer to a caller whom they do not know.
_UNKNOWN_CALLER = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken"}
    | {"SignatureDoesNotMatch", "UnrecognizedClientException", "IncompleteSignature", "RequestTimeTooSkewed"}
)


def failed_call(error: Exception, what: str, *, seconds: float, action: str = "") -> Finding:
    """Return the finding for a call that failed.

    Args:
        error: What boto3 raised.
        what: What was tried: `"list the jobs"`.
        seconds: How long an answer was waited for.
        action: The IAM action that it takes.
    """
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return no_answer(seconds, f"cannot {what}")
    if is_denied(error):
        return cannot_tell(
            f"the caller may not {what} ({error_code(error)})", f"allow {action}, to let smkit look" if action else ""
        )
    said, _, fix = explain_aws_error(error, what).partition("; ")
    if error_code(error) in _UNKNOWN_CALLER:
        return problem(said, fix or "sign in again, or set `profile`")
    return cannot_tell(said, fix)


def unreachable(error: Exception, url: str, *, seconds: float) -> Finding:
    """Return the finding for a request that no server answered: by name, by network, by proxy or by TLS.

    Args:
        error: What botocore's HTTP session raised.
        url: Where the request went.
        seconds: How long an answer was waited for.
    """
    causes = list(_causes(error))
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return no_answer(seconds, f"{url} cannot be reached; in a private subnet it needs a NAT or a VPC endpoint")
    if isinstance(error, ProxyConnectionError):
        return problem(
            f"the proxy on the way to {url} does not answer", "correct HTTPS_PROXY, or name the host in NO_PROXY"
        )
    if isinstance(error, SSLError) or any(isinstance(cause, ssl.SSLError) for cause in causes):
        reason = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), error)
        return problem(
            f"TLS with {url} fails: {reason}",
            "where a proxy re-signs the traffic, set AWS_CA_BUNDLE to the PEM file of its CA; else check this "
            "machine's clock and its CA certificates",
        )
    if _is_name_failure(causes):
        return problem(
            f"the host name of {url} cannot be resolved",
            "check the network and the DNS; a host that only a proxy can resolve needs HTTPS_PROXY; check `region`",
        )
    if isinstance(error, ConnectionClosedError):
        return problem(f"{url} closes the connection without an answer", "check the proxy and the firewall between")
    if isinstance(error, (EndpointConnectionError, HTTPClientError)):
        refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        why = "the connection is refused" if refused else str(error).rstrip(".")
        return problem(f"{url} cannot be reached: {why}", "check the network, the proxy and AWS_ENDPOINT_URL")
    return cannot_tell(f"{url}: {type(error).__name__}: {error}")


def _is_name_failure(causes: list[BaseException]) -> bool:
    return any(
        isinstance(cause, socket.gaierror)
        # urllib3 1.26 keeps no gaierror; 2 has a class for it.
        or type(cause).__name__ == "NameResolutionError"
        for cause in causes
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that it was made of, once each."""
    seen: set[int] = set()
    found: list[object] = [error]
    while found:
        item = found.pop()
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        found += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
        found.append(getattr(item, "kwargs", {}).get("error"))
