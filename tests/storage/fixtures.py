"""Both stores, for the tests of `storage` and of all that stands on it."""

from __future__ import annotations

import io
import threading
import types
import uuid
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from smkit.storage import FolderStore, ObjectStore
from smkit.storage.s3 import S3Store
from tests.faulty_proxy import FaultyProxy
from tests.fixtures_s3 import ACCESS_KEY, REGION, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


class OneAtATime:
    """moto looks whether a key exists and writes it in two steps; S3 does it in one. A lock makes moto do so too."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with self._lock:
            return list(self._app(environ, start_response))


@pytest.fixture(scope="session")
def atomic_s3() -> Iterator[str]:
    """The URL of an S3 whose conditional writes are atomic."""
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Unseekable(io.BytesIO):
    """The part of a stream that an upload may use; subclasses say what `read` does."""

    def seekable(self) -> bool:
        return False


def make_client(url: str, **options: Any) -> Any:
    """An S3 client with the retries that smkit sets."""
    config = Config(retries={"mode": "standard", "total_max_attempts": 6}, max_pool_connections=32, **options)
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=config,
    )


@pytest.fixture
def s3_client(atomic_s3: str, aws_env: str) -> Iterator[Any]:
    client = make_client(atomic_s3)
    yield client
    client.close()


@pytest.fixture
def s3_uri(s3_client: Any) -> str:
    """An empty root in a fresh bucket."""
    name = f"smkit-test-{uuid.uuid4().hex[:16]}"
    s3_client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return f"s3://{name}/project"


@pytest.fixture
def s3_store(s3_uri: str, s3_client: Any) -> S3Store:
    return S3Store(s3_uri, lambda: s3_client)


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """Each store in turn."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def proxy(atomic_s3: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(atomic_s3) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: FaultyProxy, s3_uri: str) -> Iterator[S3Store]:
    """The S3 store behind the proxy."""
    client = make_client(proxy.url, connect_timeout=5, read_timeout=5)
    yield S3Store(s3_uri, lambda: client)
    client.close()


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore's and smkit's retries follow at once."""
    instant = types.SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr("botocore.endpoint.time", instant)
    monkeypatch.setattr("smkit.storage.s3.time", instant)
    monkeypatch.setattr("smkit.storage.s3_reading.time", instant)
