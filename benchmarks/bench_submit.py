"""From `import` to the job accepted: smkit without the SDK and through it, against the SDK's own `SKLearn.fit`.

python benchmarks/bench_submit.py    (with `smkit[sagemaker]` installed)

Every run is a fresh process that packs and uploads the same script, and sends one CreateTrainingJob, to an endpoint of
this machine. smkit also writes its record and looks whether the input is there; what `JobRunner.check` asks of the
account, which the SDK does not ask, is left out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from timing import medians, report

RUNS = 9
ROLE = "arn:aws-cn:iam::123456789012:role/Train"
REGION = "cn-northwest-1"

SMKIT = f"""
import smkit
settings = smkit.Settings(backend="sagemaker", region="{REGION}", bucket="prices", role="{ROLE}")
smkit.JobRunner(settings).submit(
    "train.py", {{"train": "s3://prices/train/"}}, hyperparameters={{"depth": 3}}, check=False
)
"""
# As where no SDK is installed: smkit only asks whether it could be imported.
WITHOUT_SDK = f"import sys; sys.modules['sagemaker'] = None\n{SMKIT}"
SDK_ALONE = f"""
import boto3
import sagemaker
from sagemaker.sklearn import SKLearn
session = sagemaker.Session(boto3.Session(region_name="{REGION}"), default_bucket="prices")
SKLearn(
    entry_point="train.py", framework_version="1.2-1", role="{ROLE}", instance_type="ml.m5.large",
    output_path="s3://prices/jobs", code_location="s3://prices/jobs", hyperparameters={{"depth": 3}},
    disable_profiler=True, debugger_hook_config=False, sagemaker_session=session,
).fit({{"train": "s3://prices/train/"}}, wait=False)
"""
LISTING = (
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>'
    "<KeyCount>1</KeyCount><Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;0&quot;</ETag>"
    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
)
IDENTITY = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    "<Arn>arn:aws-cn:iam::123456789012:user/bench</Arn><UserId>U</UserId><Account>123456789012</Account>"
    "</GetCallerIdentityResult></GetCallerIdentityResponse>"
)


class Endpoint(ThreadingHTTPServer):
    """As much of SageMaker, STS and S3 as a submission needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.accepted: set[str] = set()
        self.objects: dict[str, bytes] = {"/prices/train/a.csv": b"0"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it each answer waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    server: Endpoint

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def do_POST(self) -> None:
        body = self._body()
        if "X-Amz-Target" not in self.headers:
            # STS, for the SDK's telemetry.
            return self._answer(200, IDENTITY.encode())
        request: dict[str, Any] = json.loads(body)
        name, operation = request.get("TrainingJobName", ""), self.headers.get("X-Amz-Target")
        if operation == "SageMaker.CreateTrainingJob":
            self.server.accepted.add(name)
            arn = f"arn:aws-cn:sagemaker:{REGION}:123456789012:training-job/{name}"
            return self._answer(200, json.dumps({"TrainingJobArn": arn}).encode())
        error = {"__type": "ValidationException", "message": "Requested resource not found."}
        return self._answer(400, json.dumps(error).encode())

    def do_PUT(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        if self.headers.get("If-None-Match") and path in self.server.objects:
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.server.objects[path] = body
        return self._answer(200, ETag='"0"')

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if "list-type" in query:
            prefix = query.get("prefix", [""])[0]
            found = [key for key in self.server.objects if key.startswith(f"/prices/{prefix}")]
            listing = LISTING.format(key=found[0].removeprefix("/prices/")) if found else "<ListBucketResult/>"
            return self._answer(200, listing.encode())
        if url.path in self.server.objects:
            return self._answer(200, self.server.objects[url.path], ETag='"0"')
        return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.server.objects.pop(urlsplit(self.path).path, None)
        self._answer(204)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def main() -> None:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    commands = {
        name: [sys.executable, "-W", "ignore", "-c", code]
        for name, code in {"smkit": WITHOUT_SDK, "smkit + SDK": SMKIT, "SDK alone": SDK_ALONE}.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text("print('trained')\n", encoding="utf-8")
        nothing = str(Path(folder) / "nothing")
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "AKIABENCHBENCHBENCH1",
            "AWS_SECRET_ACCESS_KEY": "opens-nothing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": nothing,
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
            "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
        }
        times = medians(commands, runs=RUNS, cwd=folder)
    server.shutdown()
    expected = len(commands) * (RUNS + 1)
    if len(server.accepted) != expected:
        sys.exit(f"{len(server.accepted)} jobs were accepted, not {expected}")
    for name, seconds in times.items():
        print(f"{name:<12} {seconds * 1000:7.0f} ms")
    report("smkit without the SDK / the SDK alone", times["smkit"] / times["SDK alone"], 0.25)
    report("smkit through the SDK / the SDK alone", times["smkit + SDK"] / times["SDK alone"], 1.05)


if __name__ == "__main__":
    main()
