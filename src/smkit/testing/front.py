"""The sandbox's HTTP server: answers SageMaker's training operations and IAM's simulator, hands the rest to moto."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import struct
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from smkit.testing.answers import ErrorAnswer
from smkit.testing.simulator import simulate

if TYPE_CHECKING:
    from smkit.testing.faults import Faults
    from smkit.testing.service import TrainingService

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade", "content-length"})
_JSON = "application/x-amz-json-1.1"


class RequestLog:
    """The parsed bodies of what was received, by operation. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[tuple[str, dict[str, Any]]] = []

    def add(self, operation: str, body: dict[str, Any]) -> None:
        """Keep one."""
        with self._lock:
            self._entries.append((operation, body))

    def of(self, operation: str) -> tuple[dict[str, Any], ...]:
        """Return those of one operation, the first received first."""
        with self._lock:
            return tuple(body for name, body in self._entries if name == operation)


class Front(ThreadingHTTPServer):
    """The server; `serve_forever` runs in a thread.

    Args:
        port: The port on 127.0.0.1; 0: a free one.
        moto_port: moto's.
        service: Answers the training operations.
        faults: What goes wrong.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = False  # so that closing the server joins the threads of its connections
    request_queue_size = 128

    def __init__(self, port: int, moto_port: int, service: TrainingService, faults: Faults) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.moto_port = moto_port
        self.service = service
        self.faults = faults
        self.log = RequestLog()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="smkit-sandbox", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving, drop the connections and join every thread."""
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # noqa: PERF203 - the other side was faster
                    continue
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep the connection, so that `close` finds it."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection: without a word where a reply is to get lost."""
        with self._lock:
            self._connections.discard(request)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show what went wrong, unless the client only went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet
    server: Front

    def answer(self) -> None:
        """Answer one request."""
        body = self._read_body()
        service, _, operation = self.headers.get("X-Amz-Target", "").rpartition(".")
        if service:
            self._answer_operation(service, operation, body)
        elif self._is_form() and (simulated := simulate(body)) is not None:
            self._send(200, {"Content-Type": "text/xml"}, simulated)
        else:
            self._pass_on(body)

    def __getattr__(self, name: str) -> Any:
        # The base class looks for do_GET, do_PUT and so on.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def handle_expect_100(self) -> bool:
        """Ask for the body at once."""
        passed = super().handle_expect_100()
        self.wfile.flush()
        return passed

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Write no access log."""

    def _is_form(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue
        return b"".join(parts)

    def _answer_operation(self, service: str, operation: str, data: bytes) -> None:
        try:
            body = json.loads(data or b"{}")
        except ValueError as error:
            self._send_error(ErrorAnswer("SerializationException", str(error)))
            return
        if not isinstance(body, dict):
            self._send_error(ErrorAnswer("SerializationException", "the request is no JSON object"))
            return
        self.server.log.add(operation, body)
        refusal = self.server.faults.refusal(operation, body)
        if refusal is not None:
            self._send_error(refusal)
            return
        loses_reply = self.server.faults.loses_reply(operation)
        if service != "SageMaker" or not self.server.service.answers(operation, body):
            self._pass_on(data, loses_reply=loses_reply)
            return
        try:
            answer = self.server.service.answer(operation, body)
        except ErrorAnswer as error:
            self._send_error(error)
            return
        except Exception as error:  # noqa: BLE001 - told to the caller, as a service does
            self._send_error(
                ErrorAnswer("InternalFailure", f"the sandbox failed: {type(error).__name__}: {error}", 500)
            )
            return
        if loses_reply:
            self._reset()
        else:
            self._send(200, {}, b"" if answer is None else json.dumps(answer).encode())

    def _send_error(self, error: ErrorAnswer) -> None:
        content = json.dumps({"__type": error.code, "message": error.message}).encode()
        self._send(error.status, {"x-amzn-ErrorType": error.code}, content)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in {"x-amzn-RequestId": str(uuid.uuid4()), "Content-Type": _JSON, **headers}.items():
            self.send_header(name, value)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _pass_on(self, body: bytes, *, loses_reply: bool = False) -> None:
        moto = http.client.HTTPConnection("127.0.0.1", self.server.moto_port)
        try:
            moto.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    moto.putheader(name, value)
            if body or self.command in {"PUT", "POST", "PATCH"}:
                moto.putheader("Content-Length", str(len(body)))
            moto.putheader("Connection", "close")
            try:
                moto.endheaders(body or None)
                response = moto.getresponse()
            except OSError as error:
                self._send_error(ErrorAnswer("ServiceUnavailable", f"moto does not answer: {error}", 503))
                return
            if loses_reply:
                response.read()
                self._reset()
                return
            self._hand_back(response)
        finally:
            moto.close()

    def _hand_back(self, response: http.client.HTTPResponse) -> None:
        length = response.getheader("Content-Length")
        content = response.read() if length is None else b""
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if response.status not in {204, 304}:
            self.send_header("Content-Length", length if length is not None else str(len(content)))
        self.end_headers()
        if length is None:
            self.wfile.write(content)
        else:
            shutil.copyfileobj(response, self.wfile, 1 << 20)
        self.wfile.flush()

    def _reset(self) -> None:
        """Close the connection so that the other side sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
