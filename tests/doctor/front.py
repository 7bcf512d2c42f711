"""An HTTP server between smkit and moto that answers some calls itself, as AWS would and moto does not."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True)
class Call:
    """One request: `sts:GetCallerIdentity`, or `s3:PUT /bucket/key?query`; unsigned ones have the service `-`."""

    name: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """An answer of its own."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def query_error(status: int, code: str, message: str = "made up") -> Answer:
    """An error as STS, IAM and S3 write it."""
    return Answer(
        status, f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    )


def s3_error(status: int, code: str) -> Answer:
    return Answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up</Message></Error>")


def json_error(status: int, code: str, message: str = "made up") -> Answer:
    return Answer(status, f'{{"__type": "{code}", "message": "{message}"}}')


def simulated(decision: str, missing: str = "") -> Answer:
    """What IAM's simulator answers."""
    keys = f"<MissingContextValues><member>{missing}</member></MissingContextValues>" if missing else ""
    return Answer(
        200,
        "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>"
        "<EvaluationResults><member><EvalActionName>iam:PassRole</EvalActionName>"
        f"<EvalDecision>{decision}</EvalDecision>{keys}</member></EvaluationResults>"
        "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>",
    )


@dataclass
class Front:
    """The server. `rules` are asked in turn; the first answer that is not None is given."""

    upstream: str
    rules: list[Callable[[Call], Answer | None]] = field(default_factory=list)
    #: Seconds by which the Date of every answer is ahead.
    clock_offset: float = 0.0
    calls: list[Call] = field(default_factory=list)

    def answer(self, name: str, answer: Answer, *, header: str = "") -> None:
        """Answer the calls whose name matches the pattern, and that have the header if one is named."""
        self.rules.insert(
            0,
            lambda call: answer if re.fullmatch(name, call.name) and (not header or header in call.headers) else None,
        )

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def __enter__(self) -> Front:
        class Handler(_Handler):
            front = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    front: Front
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self._name(headers, body), headers)
        self.front.calls.append(call)
        answer = next((found for rule in self.front.rules if (found := rule(call)) is not None), None)
        if answer is not None:
            self._reply(answer.status, answer.headers, answer.body.encode())
            return
        parts = urlsplit(self.front.upstream)
        upstream = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        try:
            kept = {name: value for name, value in headers.items() if name not in _OF_ONE_HOP}
            upstream.request(self.command, self.path, body=body or None, headers=kept)
            reply = upstream.getresponse()
            self._reply(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            upstream.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the names are the base class's

    def _name(self, headers: dict[str, str], body: bytes) -> str:
        scope = re.search(r"Credential=[^/]+/[^/]+/[^/]+/([^/]+)/", headers.get("authorization", ""))
        service = scope[1] if scope else "-"
        if target := headers.get("x-amz-target"):
            return f"{service}:{target.rpartition('.')[2]}"
        if service in {"sts", "iam"}:
            return f"{service}:{parse_qs(body.decode())['Action'][0]}"
        return f"{service}:{self.command} {self.path}"

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {*_OF_ONE_HOP, "date"}:
                self.send_header(name, value)
        self.send_header("Date", formatdate(self._now(), usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _now(self) -> float:
        import time

        return time.time() + self.front.clock_offset

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""
