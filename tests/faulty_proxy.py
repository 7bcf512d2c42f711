"""An HTTP proxy that fails on purpose, to stand between a client and a real test server.

::

    with FaultyProxy(upstream) as proxy:
        proxy.add(LoseReply(), method="PUT")               # the next PUT is carried out, its reply is lost
        proxy.add(Answer(503, "SlowDown"), times=2)        # the next two requests are not carried out
        proxy.add(CutBody(1000), method="GET", path="/part-0")

Each rule fires `times` times, for the requests that it matches; the first rule that matches wins. A request that no
rule matches passes unchanged. `proxy.requests` keeps all that arrived.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


@dataclass(frozen=True)
class LoseRequest:
    """Close the connection before the server sees the request."""


@dataclass(frozen=True)
class LoseReply:
    """Let the server carry the request out, then close the connection without an answer."""


@dataclass(frozen=True)
class Answer:
    """Answer with an S3 error; the server does not see the request."""

    status: int
    code: str


@dataclass(frozen=True)
class CutBody:
    """Send the headers and this many bytes of the body, then end: `reset` the connection, or close it in order."""

    after: int
    reset: bool = True


@dataclass(frozen=True)
class DropHeaders:
    """Remove headers from the request, as if the server did not know them."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Before:
    """Call something before the request is passed on: change an object, or wait."""

    act: Callable[[], object]


Fault = LoseRequest | LoseReply | Answer | CutBody | DropHeaders | Before


@dataclass(frozen=True)
class Request:
    """One request that arrived, with its headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class _Rule:
    fault: Fault
    method: str
    path: str
    times: int
    fired: int = field(default=0)

    def matches(self, request: Request) -> bool:
        return self.fired < self.times and self.method in {"", request.method} and self.path in request.path


class FaultyProxy:
    """The proxy; `url` is what the client is given."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self._upstream = (parts.hostname, parts.port or 80)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.requests: list[Request] = []

        class Handler(_Handler):
            proxy = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> FaultyProxy:
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
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def add(self, fault: Fault, *, method: str = "", path: str = "", times: int = 1) -> None:
        """Add a rule for requests of a method whose path and query contain `path`."""
        with self._lock:
            self._rules.append(_Rule(fault, method, path, times))

    def count(self, method: str, path: str = "") -> int:
        with self._lock:
            return sum(1 for request in self.requests if request.method == method and path in request.path)

    def _fault_for(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for rule in self._rules:
                if rule.matches(request):
                    rule.fired += 1
                    return rule.fault
        return None

    def _forward(self, request: Request, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _OF_ONE_HOP}
            connection.request(request.method, request.path, body=body or None, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()


# RFC 9110, section 7.6.1; the length is that of the body as it is sent on.
_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        # A client that gives up, or that was cut off, is what this proxy is for.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        body = self._body()
        fault = self.proxy._fault_for(request)
        if isinstance(fault, Before):
            fault.act()
        if isinstance(fault, DropHeaders):
            kept = {name: value for name, value in request.headers.items() if name not in fault.names}
            request = Request(request.method, request.path, kept)
        if isinstance(fault, LoseRequest):
            self._end(reset=False)
            return
        if isinstance(fault, Answer):
            text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>made up</Message></Error>".encode()
            self._reply(fault.status, [("Content-Type", "application/xml")], text, len(text))
            return
        status, headers, answer = self.proxy._forward(request, body)
        if isinstance(fault, LoseReply):
            self._end(reset=False)
        elif isinstance(fault, CutBody):
            self._reply(status, headers, answer[: fault.after], len(answer))
            self._end(reset=fault.reset)
        else:
            self._reply(status, headers, answer, len(answer))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the names are the base class's

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes, stated: int) -> None:
        self.send_response_only(status)
        length = str(stated)
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in _OF_ONE_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _end(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            # A linger time of zero makes close send RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: `requests` has it all."""
