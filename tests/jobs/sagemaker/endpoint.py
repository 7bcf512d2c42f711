"""An endpoint that takes every request and remembers it: what went over the wire, byte for byte."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class WireRequest(NamedTuple):
    """One request, as received."""

    method: str
    path: str
    operation: str
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Endpoint:
    """The running endpoint.

    Attributes:
        url: For AWS_ENDPOINT_URL.
        requests: What was received.
        refuse_with: Code and message of the error that answers CreateTrainingJob, or None.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[WireRequest] = []
        self.refuse_with: tuple[str, str] | None = None

    def take(self) -> list[WireRequest]:
        """Return what was received since the last call."""
        taken, self.requests[:] = list(self.requests), []
        return taken


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Without it each answer waits for the client's delayed acknowledgement.
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            operation = self.headers.get("X-Amz-Target", "").removeprefix("SageMaker.")
            endpoint.requests.append(WireRequest(self.command, self.path, operation, body))
            status, payload = 200, {"TrainingJobArn": "arn:aws-cn:sagemaker:cn-northwest-1:123456789012:training-job/j"}
            if endpoint.refuse_with:
                code, message = endpoint.refuse_with
                status, payload = 400, {"__type": code, "message": message}
            text = json.dumps(payload).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
