"""A model that lies in S3 already: read once, on the condition of its ETag, and copied there by S3."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

import smkit
from smkit.artifacts import remote
from smkit.artifacts.remote import find_remote
from smkit.errors import ConfigError, ModelError, SmkitError, StorageError
from tests.artifacts.helpers import Job, inspecting_threads, model_bytes, packed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["folder", "s3"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_env: str
) -> smkit.Settings:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        return smkit.Settings(root=str(tmp_path / "root"))
    return smkit.Settings(bucket=request.getfixturevalue("bucket"))


class Requests:
    """Every request that a client sends: the operation and its parameters."""

    def __init__(self, client: Any) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        client.meta.events.register(
            "before-parameter-build.s3", lambda params, model, **_: self.sent.append((model.name, dict(params)))
        )

    def of(self, operation: str, key: str) -> list[dict[str, Any]]:
        return [params for name, params in self.sent if name == operation and params.get("Key") == key]


KEY = "jobs/train-1/output/model.tar.gz"


def put(settings: smkit.Settings, bucket: str, data: bytes, key: str = KEY) -> str:
    settings.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
    return f"s3://{bucket}/{key}"


def test_an_archive_in_s3_is_read_once_and_on_condition(
    settings: smkit.Settings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_RANGE_BYTES", 100_000)
    data = packed(("model.joblib", model_bytes(3.0)), ("weights", random.Random(0).randbytes(900_000)))
    uri = put(settings, bucket, data)
    requests = Requests(settings.client("s3"))
    models = smkit.ArtifactStore(settings)
    version = models.publish("houses", uri, metrics={"r2": 0.5})

    reads = requests.of("GetObject", KEY)
    assert len({read["IfMatch"] for read in reads}) == 1
    ranges = [tuple(map(int, read["Range"].removeprefix("bytes=").split("-"))) for read in reads]
    assert sum(stop - start + 1 for start, stop in ranges) == len(data)
    assert [file.path for file in version.manifest.files] == ["model.tar.gz"]
    assert {member["path"] for member in version.manifest.body["members"]} == {"model.joblib", "weights"}
    assert models.load("houses", allow_pickle=True).alpha == 3.0
    version.verify()
    assert inspecting_threads() == []
    if settings.root.startswith("s3://"):
        stored = f"smkit/{version.manifest.key_of('model.tar.gz')}"
        # Its bytes never pass through this machine again.
        assert requests.of("PutObject", stored) == requests.of("UploadPart", stored) == []
        assert requests.of("CopyObject", stored) or requests.of("UploadPartCopy", stored)


def test_the_same_object_is_the_same_version(settings: smkit.Settings, bucket: str) -> None:
    uri = put(settings, bucket, packed(("model.joblib", model_bytes())))
    models = smkit.ArtifactStore(settings)
    assert models.publish("houses", uri).ref == models.publish("houses", uri).ref == "houses@1"


def test_a_job_may_name_its_archive_by_uri(settings: smkit.Settings, bucket: str) -> None:
    uri = put(settings, bucket, packed(("model.joblib", model_bytes(2.0)), ("metrics.json", b'{"train:r2": 1.0}')))
    version = smkit.ArtifactStore(settings).publish("houses", Job(uri))
    assert version.metrics == {"train:r2": 1.0, "test:rmse": 0.5}
    assert version.job["job_name"] == "Train-1"


def test_a_single_file_in_s3_is_published_as_it_is(settings: smkit.Settings, bucket: str) -> None:
    uri = put(settings, bucket, model_bytes(4.0), "some/where/model.joblib")
    models = smkit.ArtifactStore(settings)
    version = models.publish("houses", uri)
    assert [file.path for file in version.manifest.files] == ["model.joblib"]
    assert models.load("houses", allow_pickle=True).alpha == 4.0


def test_an_empty_object_is_no_archive(settings: smkit.Settings, bucket: str) -> None:
    models = smkit.ArtifactStore(settings)
    with pytest.raises(ModelError, match="not a whole gzipped tar"):
        models.publish("houses", put(settings, bucket, b""))
    assert models.names() == []


def test_a_hostile_archive_in_s3_is_refused(settings: smkit.Settings, bucket: str) -> None:
    models = smkit.ArtifactStore(settings)
    with pytest.raises(ModelError, match="that a model archive does not have"):
        models.publish("houses", put(settings, bucket, packed(("../x", b"x"))))
    assert models.names() == []
    assert inspecting_threads() == []


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ("", ConfigError, "expected the URI of one object"),
        ("folder/", ConfigError, "expected the URI of one object"),
        ("nothing.tar.gz", ModelError, "there is no object s3://"),
    ],
)
def test_a_uri_that_names_no_object_is_refused(
    settings: smkit.Settings, bucket: str, key: str, error: type[SmkitError], message: str
) -> None:
    with pytest.raises(error, match=message):
        smkit.ArtifactStore(settings).publish("houses", f"s3://{bucket}/{key}")


def test_a_bucket_that_does_not_exist_is_an_error(settings: smkit.Settings) -> None:
    with pytest.raises(SmkitError, match="no-such-bucket-of-anybody"):
        smkit.ArtifactStore(settings).publish("houses", "s3://no-such-bucket-of-anybody/model.tar.gz")


def test_an_object_that_changes_while_it_is_read_is_noticed(
    settings: smkit.Settings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_RANGE_BYTES", 10_000)
    uri = put(settings, bucket, packed(("model.joblib", random.Random(0).randbytes(100_000))))
    file = find_remote(uri, lambda: settings.client("s3"))
    with file.open() as stream:
        assert len(stream.read(10_000)) == 10_000
        put(settings, bucket, packed(("model.joblib", b"other")))
        with pytest.raises(StorageError, match="changed while it was read"):
            stream.read()


class Dropping:
    """A client whose answers break off."""

    def __init__(self, client: Any, breaks: int) -> None:
        self._client = client
        self.breaks = breaks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_object(self, **options: Any) -> Any:
        from botocore.exceptions import ReadTimeoutError

        answer = self._client.get_object(**options)
        if self.breaks:
            self.breaks -= 1
            answer["Body"].read = lambda: (_ for _ in ()).throw(ReadTimeoutError(endpoint_url="http://x"))
        return answer


def test_a_dropped_connection_is_tried_again_and_not_for_ever(
    settings: smkit.Settings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)
    uri = put(settings, bucket, b"0123456789")
    client = Dropping(settings.client("s3"), 3)
    assert find_remote(uri, lambda: client).open().read() == b"0123456789"
    client.breaks = 99
    with pytest.raises(StorageError, match="kept dropping after 0 of 10 bytes"):
        find_remote(uri, lambda: client).open().read()


def test_the_manifest_is_json_with_the_whole_lineage(settings: smkit.Settings, tmp_path: Path) -> None:
    environment = {"python": "3.11.7", "packages": {"scikit-learn": "1.9.1"}}
    path = tmp_path / "model.tar.gz"
    path.write_bytes(
        packed(
            ("model.joblib", model_bytes()),
            ("environment.json", json.dumps(environment).encode()),
            ("signature.json", b'{"target": "y"}'),
        )
    )
    models = smkit.ArtifactStore(settings)
    models.publish("houses", Job(path), notes="a note", labels={"team": "pricing"})
    said = json.loads(json.dumps(models.get("houses").to_dict()))
    assert said["metrics"] == {"test:rmse": 0.5}
    assert said["hyperparameters"] == {"alpha": 2.0}
    assert said["inputs"]["train"] == {"dataset": "houses@1", "digest": "0" * 64, "split": "train"}
    assert said["code"] == {"digest": "1" * 64, "git_commit": "2" * 40, "dirty": False}
    assert said["job"] == {"job_name": "Train-1", "backend": "local", "image": None, "framework_version": "1.2-1"}
    assert said["environment"] == environment
    assert said["signature"] == {"target": "y"}
    assert (said["notes"], said["labels"]) == ("a note", {"team": "pricing"})
    assert {file["path"] for file in said["files"]} == {"model.tar.gz"}
