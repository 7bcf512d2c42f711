"""Copies within S3: on the condition of the ETag, encrypted, checked; uploads where they are refused."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import ConfigError, IntegrityError, StorageError, StoreUnreachable
from smkit.storage import s3_copying
from smkit.storage.base import CopyingStore, Digest, RemoteObject
from smkit.storage.s3 import S3Store
from smkit.versioning import PendingFile
from tests.faulty_proxy import Answer, FaultyProxy, LoseReply, LoseRequest
from tests.storage.fixtures import make_client
from tests.versioning.helpers import open_log, read

if TYPE_CHECKING:
    from smkit.storage import FolderStore

pytestmark = pytest.mark.usefixtures("no_backoff")

DATA = bytes(range(256)) * 4000
DIGEST = Digest(hashlib.sha256(DATA).hexdigest(), len(DATA))


@pytest.fixture
def source(s3_client: Any, s3_uri: str) -> RemoteObject:
    """An object of the same bucket, outside the store."""
    bucket = s3_uri.removeprefix("s3://").partition("/")[0]
    answer = s3_client.put_object(Bucket=bucket, Key="jobs/a b+é/model.tar.gz", Body=DATA)
    return RemoteObject(f"s3://{bucket}/jobs/a b+é/model.tar.gz", answer["ETag"])


def read_key(store: S3Store, key: str = "a/b") -> bytes:
    return store.get(key, max_bytes=10 << 20)


def test_a_copy_is_what_its_source_is(s3_store: S3Store, source: RemoteObject) -> None:
    assert isinstance(s3_store, CopyingStore)
    assert s3_store.copy("a/b", source, len(DATA)) == DIGEST
    assert read_key(s3_store) == DATA


def test_a_copy_brings_no_byte_here(proxied: S3Store, proxy: FaultyProxy, source: RemoteObject) -> None:
    proxied.copy("a/b", source, len(DATA))
    (request,) = proxy.requests
    assert request.method == "PUT"
    assert request.headers["x-amz-copy-source-if-match"] == source.etag
    assert request.headers["x-amz-checksum-algorithm"] == "SHA256"


def test_a_server_that_tells_no_checksum_is_read(
    proxied: S3Store, proxy: FaultyProxy, source: RemoteObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_copying, "_sha256_of", lambda result: None)
    assert proxied.copy("a/b", source, len(DATA)) == DIGEST
    assert proxy.count("GET", "/a/b") == 1


@pytest.mark.parametrize(
    ("result", "sha256"),
    [
        ({"ChecksumSHA256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}, hashlib.sha256(b"hello").hexdigest()),
        ({"ChecksumSHA256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=", "ChecksumType": "COMPOSITE"}, None),
        ({"ChecksumSHA256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=-3"}, None),
        ({"ChecksumSHA256": "aGVsbG8="}, None),
        ({"ChecksumCRC32": "NhCmhg=="}, None),
        ({}, None),
    ],
)
def test_only_a_checksum_of_the_whole_is_believed(result: dict[str, str], sha256: str | None) -> None:
    assert s3_copying._sha256_of(result) == sha256


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the object were larger than 5 GB."""
    monkeypatch.setattr(s3_copying, "_MOST_AT_ONCE", 1000)
    monkeypatch.setattr(s3_copying, "_PART_BYTES", 300_000)
    # S3 takes parts from 5 MiB on, but for the last.
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)


@pytest.mark.usefixtures("small_parts")
def test_a_large_object_is_copied_in_parts(proxied: S3Store, proxy: FaultyProxy, source: RemoteObject) -> None:
    assert proxied.copy("a/b", source, len(DATA)) == DIGEST
    assert read_key(proxied) == DATA
    parts = [request for request in proxy.requests if "partNumber=" in request.path]
    assert sorted(request.headers["x-amz-copy-source-range"] for request in parts) == [
        "bytes=0-299999",
        "bytes=300000-599999",
        "bytes=600000-899999",
        "bytes=900000-1023999",
    ]
    assert {request.headers["x-amz-copy-source-if-match"] for request in parts} == {source.etag}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(412, "PreconditionFailed"), IntegrityError),
        (Answer(500, "InternalError"), StorageError),
        (Answer(403, "AccessDenied"), None),
    ],
    ids=repr,
)
def test_a_copy_in_parts_that_fails_leaves_no_parts(
    proxied: S3Store, proxy: FaultyProxy, source: RemoteObject, answer: Answer, error: type[Exception] | None
) -> None:
    proxy.add(answer, method="PUT", path="partNumber=3", times=100)
    if error is None:
        assert proxied.copy("a/b", source, len(DATA)) is None
    else:
        with pytest.raises(error):
            proxied.copy("a/b", source, len(DATA))
    assert list(proxied.leftovers()) == []
    assert list(proxied.scan()) == []


@pytest.mark.parametrize("fault", [LoseRequest(), LoseReply(), Answer(503, "SlowDown")], ids=repr)
def test_a_copy_that_fails_once_is_sent_again(
    proxied: S3Store, proxy: FaultyProxy, source: RemoteObject, fault: Any
) -> None:
    proxy.add(fault, method="PUT")
    assert proxied.copy("a/b", source, len(DATA)) == DIGEST


def test_a_source_that_changed_is_refused(proxied: S3Store, proxy: FaultyProxy, source: RemoteObject) -> None:
    """moto ignores the condition, hence the answer that S3 gives."""
    proxy.add(Answer(412, "PreconditionFailed"), method="PUT")
    with pytest.raises(
        IntegrityError, match=rf"{source.uri.split('+')[0]}.* changed since it was looked at: it no longer"
    ):
        proxied.copy("a/b", source, len(DATA))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(403, "AccessDenied"),
        Answer(404, "NoSuchKey"),
        Answer(501, "NotImplemented"),
        Answer(400, "InvalidRequest"),
    ],
    ids=repr,
)
def test_a_refusal_is_no_error(proxied: S3Store, proxy: FaultyProxy, source: RemoteObject, answer: Answer) -> None:
    proxy.add(answer, method="PUT", times=100)
    assert proxied.copy("a/b", source, len(DATA)) is None


def test_a_failure_is_an_error(proxied: S3Store, proxy: FaultyProxy, source: RemoteObject) -> None:
    proxy.add(Answer(500, "InternalError"), method="PUT", times=100)
    with pytest.raises(StorageError, match=r"cannot copy s3://.* to s3://.*/a/b: InternalError"):
        proxied.copy("a/b", source, len(DATA))
    client = make_client("http://127.0.0.1:9", connect_timeout=1)
    with pytest.raises(StoreUnreachable):
        S3Store("s3://some-bucket", lambda: client).copy("a/b", source, 1)
    client.close()


def test_a_copy_is_encrypted_with_the_stores_key(proxy: FaultyProxy, s3_uri: str, source: RemoteObject) -> None:
    client = make_client(proxy.url)
    S3Store(s3_uri, lambda: client, kms_key="alias/houses").copy("a/b", source, len(DATA))
    (request,) = proxy.requests
    assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/houses"
    client.close()


# --- publishing -------------------------------------------------------------------------------------------------


def pending(source: RemoteObject, digest: Digest | None = DIGEST, data: bytes = DATA) -> PendingFile:
    return PendingFile("model.tar.gz", lambda: io.BytesIO(data), digest, remote=source)


def test_publishing_copies_what_lies_in_s3(proxied: S3Store, proxy: FaultyProxy, source: RemoteObject) -> None:
    def never() -> Any:
        raise AssertionError("it is not read")

    log = open_log(proxied)
    file = PendingFile("model.tar.gz", never, DIGEST, remote=source)
    manifest = log.publish("houses", [file], lambda stored: {}, content={}, reuse="never").manifest
    assert read(log, manifest) == {"model.tar.gz": DATA}
    log.verify(manifest)


def test_publishing_uploads_where_the_copy_is_refused(
    proxied: S3Store, proxy: FaultyProxy, source: RemoteObject
) -> None:
    proxy.add(Answer(403, "AccessDenied"), method="PUT", path="/data/")
    log = open_log(proxied)
    manifest = log.publish("houses", [pending(source)], lambda stored: {}, content={}, reuse="never").manifest
    assert read(log, manifest) == {"model.tar.gz": DATA}


def test_publishing_to_a_folder_reads_the_stream(folder_store: FolderStore, source: RemoteObject) -> None:
    log = open_log(folder_store)
    manifest = log.publish("houses", [pending(source)], lambda stored: {}, content={}, reuse="never").manifest
    assert read(log, manifest) == {"model.tar.gz": DATA}


@pytest.mark.parametrize("told", [True, False], ids=["checksum", "read"])
def test_a_copy_that_is_not_what_its_digest_says_is_never_committed(
    s3_store: S3Store, source: RemoteObject, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:
        monkeypatch.setattr(s3_copying, "_sha256_of", lambda result: None)
    log = open_log(s3_store)
    wrong = Digest("0" * 64, len(DATA))
    with pytest.raises(IntegrityError, match=r"does not hold the bytes of model.tar.gz that it should"):
        log.publish("houses", [pending(source, wrong)], lambda stored: {}, content={}, reuse="never")
    assert log.versions("houses") == ()
    assert list(s3_store.scan()) == []


def test_a_copy_needs_a_digest(s3_store: S3Store, source: RemoteObject) -> None:
    with pytest.raises(ConfigError, match=r"model.tar.gz is to be copied from s3://.*: give its digest too"):
        open_log(s3_store).publish("houses", [pending(source, None)], lambda stored: {}, content={}, reuse="never")
    assert list(s3_store.scan()) == []


def test_a_copy_that_is_published_already_is_not_made(
    proxied: S3Store, proxy: FaultyProxy, source: RemoteObject
) -> None:
    log = open_log(proxied)
    log.publish("houses", [pending(source)], lambda stored: {}, content={}, reuse="never")
    proxy.requests.clear()
    assert log.publish("houses", [pending(source)], lambda stored: {}, content={}, reuse="any").created is False
    assert proxy.count("PUT") == 0
