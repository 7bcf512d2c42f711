"""Checks of the way to AWS: proxies, endpoints, and the clock that signatures depend on."""

from __future__ import annotations

import os
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smkit.diagnosis.calls import unreachable
from smkit.diagnosis.findings import Finding, cannot_tell, ok, problem
from smkit.diagnosis.masking import PROXY_VARIABLES

if TYPE_CHECKING:
    from smkit.diagnosis.context import Context

#: Seconds. A signature is refused after 5 to 15 minutes, by the service.
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
CLOCK_ADVICE = 60.0
CLOCK_PROBLEM = 300.0
_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})


def check_proxies(_: Context) -> Finding:
    """Are the proxies of the environment well-formed?"""
    found = {name.upper(): value for name, value in os.environ.items() if name.upper() in PROXY_VARIABLES and value}
    if not found:
        return ok("none set")
    shown = []
    for name, value in sorted(found.items()):
        # Like "proxy:3128", which curl and botocore take for http.
        url = value if "://" in value else f"http://{value}"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        # The text is not repeated: it may hold a password.
        if not host or parts.scheme.lower() not in _SCHEMES:
            return problem(f"{name} is not the URL of a proxy", "write http://host:port, a login quoted as in URLs")
        shown.append(f"{name}={parts.scheme}://{host}" + (f":{port}" if port else ""))
    direct = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    return ok(", ".join(shown) + (f"; not for {direct}" if direct else ""))


def check_reach(context: Context, service: str) -> Finding:
    """Does the service's endpoint answer at all? Nothing is signed, so no credentials are needed."""
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import BotoCoreError, HTTPClientError
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    try:
        session, client = _unsigned(context, service)
    except ValueError as error:
        return problem(f"no client for {service}: {error}", "correct AWS_ENDPOINT_URL, or endpoint_url of the profile")
    url = str(client.meta.endpoint_url)
    bundle = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    http = URLLib3Session(
        verify=bundle or True, proxies=get_environ_proxies(url), timeout=(context.timeout, context.timeout)
    )
    began = time.time()
    try:
        answer = http.send(AWSRequest(method="HEAD", url=url, headers={}).prepare())
    except (BotoCoreError, HTTPClientError, OSError) as error:
        return unreachable(error, url, seconds=context.timeout)
    finally:
        http.close()
        client.close()
    took = time.time() - began
    _note_clock(context, service, answer.headers.get("Date"), began + took / 2)
    return ok(f"{url} answers in {took * 1000:.0f} ms")


def _unsigned(context: Context, service: str) -> tuple[Any, Any]:
    """Return a session of its own, of the same profile, and a client that looks for no credentials."""
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    session: Any = botocore.session.Session(profile=context.settings.profile)
    return session, session.create_client(
        service, region_name=context.settings.region, config=Config(signature_version=UNSIGNED)
    )


def _note_clock(context: Context, service: str, date: str | None, moment: float) -> None:
    if date:
        try:
            context.clock_offsets[service] = parsedate_to_datetime(date).timestamp() - moment
        except ValueError:
            return  # a server that writes no date of RFC 9110 says nothing about the clock


def check_clock(context: Context) -> Finding:
    """Does this machine's clock agree with AWS's?"""
    if not context.clock_offsets:
        return cannot_tell("no server told its time")
    # A Date has whole seconds, and one server may be wrong: the smallest difference is the one that is sure.
    offset = min(context.clock_offsets.values(), key=abs)
    if abs(offset) <= CLOCK_ADVICE:
        return ok(f"within {max(1, round(abs(offset)))} s of AWS")
    direction = "behind" if offset > 0 else "ahead of"
    text = f"this machine's clock is {abs(offset):.0f} s {direction} AWS's"
    fix = "let the system keep its time by NTP (on Linux: timedatectl set-ntp true)"
    if abs(offset) > CLOCK_PROBLEM:
        return problem(f"{text}: signatures are refused after five minutes or more", fix)
    return ok(text, fix)
