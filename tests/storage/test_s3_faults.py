"""What the S3 store does when the network or the server fails."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from smkit.errors import ObjectNotFound, StorageError
from smkit.storage.base import digest_of
from smkit.storage.s3 import S3Store
from tests.faulty_proxy import Answer, Before, CutBody, DropHeaders, FaultyProxy, LoseReply, LoseRequest
from tests.fixtures_s3 import REGION
from tests.storage.fixtures import Unseekable, make_client

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("no_backoff")

DATA = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture
def warm(proxied: S3Store, proxy: FaultyProxy) -> S3Store:
    """The store after its first conditional write, so that the probe is over."""
    assert proxied.put_if_absent("warm", b"") is True
    proxy.requests.clear()
    return proxied


# --- writes -----------------------------------------------------------------------------------------------------


def test_a_put_whose_reply_is_lost_is_there_once(warm: S3Store, proxy: FaultyProxy) -> None:
    proxy.add(LoseReply(), method="PUT")
    # botocore sends it again and meets its own object: the caller's nonce tells, not the store.
    assert warm.put_if_absent("a", b"mine") is False
    assert proxy.count("PUT", "/a") == 2
    assert warm.get("a", max_bytes=10) == b"mine"


def test_a_put_whose_request_is_lost_is_sent_again(warm: S3Store, proxy: FaultyProxy) -> None:
    proxy.add(LoseRequest(), method="PUT", times=2)
    assert warm.put_if_absent("a", b"mine") is True
    assert warm.get("a", max_bytes=10) == b"mine"


def test_a_conflict_decides_nothing_and_is_tried_again(warm: S3Store, proxy: FaultyProxy) -> None:
    proxy.add(Answer(409, "ConditionalRequestConflict"), method="PUT", times=3)
    assert warm.put_if_absent("a", b"x") is True
    assert proxy.count("PUT", "/a") == 4


def test_a_conflict_without_an_end_is_told(warm: S3Store, proxy: FaultyProxy) -> None:
    proxy.add(Answer(409, "ConditionalRequestConflict"), method="PUT", times=100)
    with pytest.raises(StorageError, match=r"cannot write s3://.*/project/a: other writers kept conflicting"):
        warm.put_if_absent("a", b"x")


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (503, "ServiceUnavailable")])
def test_a_busy_server_is_asked_again(warm: S3Store, proxy: FaultyProxy, status: int, code: str) -> None:
    proxy.add(Answer(status, code), times=3)
    assert warm.put_if_absent("a", b"x") is True
    proxy.add(Answer(status, code), times=3)
    assert warm.get("a", max_bytes=1) == b"x"
    proxy.add(Answer(status, code), times=3)
    assert [info.key for info in warm.scan()] == ["a", "warm"]
    proxy.add(Answer(status, code), times=3)
    warm.delete(["a"])
    proxy.add(Answer(status, code), times=3)
    assert warm.upload("b", io.BytesIO(b"y")).size == 1


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (503, "SlowDown", "S3 asks to slow down: try again later"),
        (500, "InternalError", "the service is busy or failing: try again later"),
        (403, "AccessDenied", "the caller's policy, or the bucket's, does not allow it"),
        (403, "ExpiredToken", "the session has expired: sign in again"),
        (403, "InvalidAccessKeyId", "keys of aws do not work in aws-cn"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (501, "NotImplemented", "this server lacks an operation of S3"),
        (403, "InvalidObjectState", "the object is archived"),
        (403, "MadeUp", "made up"),
    ],
)
def test_a_refusal_says_what_failed_and_how_to_fix_it(
    warm: S3Store, proxy: FaultyProxy, status: int, code: str, advice: str
) -> None:
    proxy.add(Answer(status, code), times=1000)
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: warm.put_if_absent("a", b"x"),
        "read": lambda: warm.get("a", max_bytes=1),
        "list": lambda: list(warm.scan("a")),
        "delete objects under": lambda: warm.delete(["a"]),
    }
    for action, call in calls.items():
        with pytest.raises(StorageError) as caught:
            call()
        assert not isinstance(caught.value, ObjectNotFound)
        assert str(caught.value).startswith(f"cannot {action} {warm.uri}/")
        assert code in str(caught.value)
        assert advice in str(caught.value)
    with pytest.raises(StorageError, match=code):
        warm.upload("a", io.BytesIO(b"x"))


@pytest.mark.parametrize("fault", [LoseRequest(), LoseReply(), Answer(500, "InternalError")], ids=repr)
def test_a_part_that_fails_is_sent_again(warm: S3Store, proxy: FaultyProxy, fault: Any) -> None:
    data = DATA * 5
    proxy.add(fault, method="PUT", path="partNumber=2")
    digest = warm.upload("a", io.BytesIO(data))
    assert proxy.count("PUT", "partNumber=2") == 2
    assert digest[:2] == (hashlib.sha256(data).hexdigest(), len(data))
    with warm.open("a") as stream:
        assert digest_of(stream) == digest


def test_an_upload_that_fails_leaves_no_parts(warm: S3Store, proxy: FaultyProxy, s3_client: Any) -> None:
    proxy.add(Answer(500, "InternalError"), method="PUT", path="partNumber=2", times=100)
    with pytest.raises(StorageError, match=r"cannot write s3://.*/project/a: InternalError"):
        warm.upload("a", io.BytesIO(DATA * 5))
    bucket = warm.uri.removeprefix("s3://").partition("/")[0]
    assert "Uploads" not in s3_client.list_multipart_uploads(Bucket=bucket)
    with pytest.raises(ObjectNotFound):
        warm.open("a")


def test_an_upload_waits_for_the_server_instead_of_filling_the_memory(warm: S3Store, proxy: FaultyProxy) -> None:
    part = 16 << 20
    released = threading.Event()

    class Endless(Unseekable):
        given = 0
        stopped = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.stopped:
                raise OSError(5, "unplugged")
            assert size is not None
            self.given += size
            return b"\0" * size

    source = Endless()
    proxy.add(Before(lambda: released.wait(30)), method="PUT", times=100)
    failures: list[Exception] = []

    def upload() -> None:
        try:
            warm.upload("a", source)
        except StorageError as error:
            failures.append(error)

    thread = threading.Thread(target=upload)
    thread.start()
    deadline = time.monotonic() + 30
    while proxy.count("PUT", "partNumber=4") == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # long enough to read much more, if it did
    held = source.given
    source.stopped = True
    released.set()
    thread.join()
    # Four parts are on their way; one more may have been read and waits for its turn.
    assert 4 * part <= held <= 6 * part
    assert [str(failure) for failure in failures] == ["[Errno 5] cannot read what is to be stored: unplugged"]


# --- the condition ----------------------------------------------------------------------------------------------


def test_a_server_that_ignores_the_condition_is_refused_before_anything_is_written(
    proxied: S3Store, proxy: FaultyProxy
) -> None:
    proxy.add(DropHeaders(("if-none-match",)), times=1000)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"this server ignores 'If-None-Match: \*'.* use Amazon S3"):
            proxied.put_if_absent("a", b"x")
    assert list(proxied.scan()) == []


def test_the_server_is_asked_once_whether_it_knows_the_condition(proxied: S3Store, proxy: FaultyProxy) -> None:
    for key in ("a", "b", "c"):
        assert proxied.put_if_absent(key, b"") is True
    assert [request.path.rsplit("/", 1)[1] for request in proxy.requests if request.method == "PUT"] == [
        ".smkit-probe",
        ".smkit-probe",
        "a",
        "b",
        "c",
    ]
    # The next process meets the first one's probe, which answers at once.
    client = make_client(proxy.url)
    proxy.requests.clear()
    assert S3Store(proxied.uri, lambda: client).put_if_absent("d", b"") is True
    assert proxy.count("PUT") == 2
    client.close()


def test_a_probe_that_fails_decides_nothing(proxied: S3Store, proxy: FaultyProxy) -> None:
    proxy.add(Answer(403, "AccessDenied"), method="PUT")
    with pytest.raises(StorageError, match="AccessDenied"):
        proxied.put_if_absent("a", b"")
    assert proxied.put_if_absent("a", b"") is True


# --- reads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("after", [0, 1, 1_000_000, len(DATA) - 1])
def test_a_dropped_body_is_resumed_where_it_was(warm: S3Store, proxy: FaultyProxy, after: int, reset: bool) -> None:
    warm.upload("a", io.BytesIO(DATA))
    proxy.requests.clear()
    proxy.add(CutBody(after, reset=reset), method="GET", times=2)
    with warm.open("a") as stream:
        assert digest_of(stream)[:2] == (hashlib.sha256(DATA).hexdigest(), len(DATA))
    first, *resumed = [request.headers for request in proxy.requests if request.method == "GET"]
    assert "range" not in first
    assert len(resumed) >= 1
    etag = f'"{hashlib.md5(DATA, usedforsecurity=False).hexdigest()}"'
    for headers in resumed:
        assert headers["if-match"] == etag
        assert headers["range"].startswith("bytes=")
        assert headers["range"].endswith("-")


def test_a_reader_that_gets_a_little_each_time_goes_on(warm: S3Store, proxy: FaultyProxy) -> None:
    warm.upload("a", io.BytesIO(DATA))
    proxy.add(CutBody(500_000, reset=False), method="GET", times=100)
    with warm.open("a") as stream:
        assert stream.read() == DATA
    assert proxy.count("GET", "/a") == 11


def test_a_body_that_never_comes_is_told(warm: S3Store, proxy: FaultyProxy) -> None:
    warm.upload("a", io.BytesIO(DATA))
    proxy.add(CutBody(0, reset=False), method="GET", times=100)
    with (
        warm.open("a") as stream,
        pytest.raises(StorageError, match=r"the connection kept dropping after 0 of 5,120,000 bytes.*; try again"),
    ):
        stream.read()


def test_an_object_that_changes_while_it_is_read_is_told(warm: S3Store, proxy: FaultyProxy) -> None:
    warm.upload("a", io.BytesIO(DATA))
    proxy.add(CutBody(3_000_000, reset=False), method="GET")
    with warm.open("a") as stream:
        stream.read(10)
        warm.upload("a", io.BytesIO(DATA[::-1]))
        with pytest.raises(StorageError, match=r"PreconditionFailed.*the object changed while it was read: try again"):
            stream.read()


def test_an_object_that_is_deleted_while_it_is_read_is_not_found(warm: S3Store, proxy: FaultyProxy) -> None:
    warm.upload("a", io.BytesIO(DATA))
    proxy.add(CutBody(3_000_000, reset=False), method="GET")
    with warm.open("a") as stream:
        stream.read(10)
        warm.delete(["a"])
        with pytest.raises(ObjectNotFound):
            stream.read()


def test_a_server_that_ignores_ranges_is_not_believed(warm: S3Store, proxy: FaultyProxy) -> None:
    warm.upload("a", io.BytesIO(DATA))
    proxy.add(CutBody(1_000_000), method="GET")
    proxy.add(DropHeaders(("range",)), method="GET")
    with (
        warm.open("a") as stream,
        pytest.raises(StorageError, match="the server sent the whole object instead of bytes"),
    ):
        stream.read()


# --- reaching the bucket ----------------------------------------------------------------------------------------


def test_a_bucket_that_does_not_exist(s3_client: Any) -> None:
    store = S3Store(f"s3://no-such-bucket-{uuid.uuid4().hex[:8]}/project", lambda: s3_client)
    for call in (
        lambda: store.put_if_absent("a", b""),
        lambda: store.get("a", max_bytes=1),
        lambda: list(store.scan()),
        lambda: list(store.children("")),
        lambda: store.upload("a", io.BytesIO()),
        lambda: store.delete(["a"]),
    ):
        with pytest.raises(StorageError, match=r"NoSuchBucket: .*; create the bucket, or correct its name") as caught:
            call()
        assert not isinstance(caught.value, ObjectNotFound)


def test_no_credentials(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    client = boto3.Session(region_name=REGION).client("s3")
    with pytest.raises(StorageError, match="no AWS credentials found; set `profile`, run `aws configure`"):
        S3Store("s3://some-bucket", lambda: client).get("a", max_bytes=1)
    client.close()


def test_half_of_the_credentials(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    def client() -> Any:
        return boto3.Session(region_name=REGION).client("s3")

    with pytest.raises(StorageError, match=r"Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY; set"):
        S3Store("s3://some-bucket", client).get("a", max_bytes=1)


def test_nobody_listens(aws_env: str) -> None:
    client = make_client("http://127.0.0.1:9", connect_timeout=1)
    store = S3Store("s3://some-bucket", lambda: client)
    for call in (lambda: store.get("a", max_bytes=1), lambda: list(store.scan())):
        with pytest.raises(StorageError, match=r"Could not connect .*127\.0\.0\.1:9.*; check the network, the proxy"):
            call()
    client.close()


def test_a_server_that_hangs(proxy: FaultyProxy, s3_uri: str) -> None:
    client = make_client(proxy.url, read_timeout=0.1)
    done = threading.Event()
    proxy.add(Before(lambda: done.wait(20)), times=100)
    with pytest.raises(StorageError, match=r"Read timeout on endpoint URL.*; check the network"):
        S3Store(s3_uri, lambda: client).get("a", max_bytes=1)
    done.set()
    client.close()


def test_objects_that_may_not_be_deleted_are_told(warm: S3Store) -> None:
    class Refusing:
        def delete_objects(self, **request: Any) -> dict[str, Any]:
            keys = [item["Key"] for item in request["Delete"]["Objects"]]
            return {
                "Errors": [
                    {"Key": keys[0], "Code": "NoSuchKey", "Message": "gone"},
                    {"Key": keys[1], "Code": "AccessDenied", "Message": "no"},
                ]
            }

    store = S3Store("s3://some-bucket/project", Refusing)
    with pytest.raises(StorageError, match=r"cannot delete 1 of 2 objects .*the first, project/b: AccessDenied: no"):
        store.delete(["a", "b"])


def test_every_write_is_encrypted_with_the_key(proxy: FaultyProxy, s3_uri: str) -> None:
    client = make_client(proxy.url)
    store = S3Store(s3_uri, lambda: client, kms_key="alias/houses")
    store.put_if_absent("a", b"x")
    store.upload("b", io.BytesIO(b"x"))
    store.upload("c", io.BytesIO(DATA * 4))
    writes = [
        request.headers
        for request in proxy.requests
        if request.method == "PUT" or (request.method == "POST" and request.path.endswith("?uploads"))
    ]
    started = [headers for headers in writes if "x-amz-server-side-encryption" in headers]
    # Parts carry no header of their own: the upload that they belong to does.
    assert len(started) == 5
    assert {headers["x-amz-server-side-encryption-aws-kms-key-id"] for headers in started} == {"alias/houses"}
    client.close()
