"""Publishing, finding, naming and loading models, on a folder and on S3."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, Ridge

import smkit
from smkit.errors import (
    AliasConflict,
    EnvironmentMismatch,
    EnvironmentMismatchWarning,
    IntegrityError,
    InvalidNameError,
    ModelError,
    PickleNotAllowed,
    SmkitError,
    VersionNotFound,
)

X = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
Y = pd.Series([1.0, 2.0, 5.0, 6.0])


def fitted(alpha: float = 1.0) -> Ridge:
    return Ridge(alpha=alpha).fit(X, Y)


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> smkit.Settings:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        return smkit.Settings(root=str(tmp_path / "root"))
    request.getfixturevalue("aws_env")
    return smkit.Settings(bucket=request.getfixturevalue("bucket"))


@pytest.fixture
def models(settings: smkit.Settings) -> smkit.ArtifactStore:
    return smkit.ArtifactStore(settings)


def stored_file(settings: smkit.Settings, version: smkit.ModelVersion, name: str) -> tuple[Any, Any]:
    """Return functions that read and overwrite the stored bytes of a file, behind smkit's back."""
    if not version.uri.startswith("s3://"):
        path = Path(version.uri) / name
        return path.read_bytes, path.write_bytes
    bucket, _, key = version.uri.removeprefix("s3://").partition("/")
    client = settings.client("s3")

    def read() -> bytes:
        return client.get_object(Bucket=bucket, Key=f"{key}/{name}")["Body"].read()

    def write(data: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"{key}/{name}", Body=data)

    return read, write


def test_an_estimator_goes_in_and_comes_out(models: smkit.ArtifactStore) -> None:
    version = models.publish(
        "houses", fitted(0.5), metrics={"test:rmse": 0.25}, notes="first", labels={"team": "pricing"}
    )
    assert (version.ref, version.version) == ("houses@1", 1)
    again = models.get("houses@1")
    assert again.metrics == {"test:rmse": 0.25}
    assert again.hyperparameters["alpha"] == 0.5
    assert again.signature == {"features": [{"name": "a"}, {"name": "b"}]}
    assert again.notes == "first"
    assert again.labels == {"team": "pricing"}
    assert again.environment["packages"]["scikit-learn"]
    assert again.archive_uri is None
    loaded = models.load("houses@1", allow_pickle=True)
    np.testing.assert_array_equal(loaded.predict(X), fitted(0.5).predict(X))
    again.verify()


def test_versions_are_numbered_and_listed_newest_first(models: smkit.ArtifactStore) -> None:
    for alpha in (1.0, 2.0, 3.0):
        models.publish("houses", fitted(alpha))
    assert [version.ref for version in models.versions("houses")] == ["houses@3", "houses@2", "houses@1"]
    assert models.get("houses").version == models.get("houses@latest").version == 3
    assert models.names() == ["houses"]
    assert models.versions("other") == []


def test_the_same_content_is_the_same_version(models: smkit.ArtifactStore) -> None:
    first = models.publish("houses", fitted(1.0))
    assert models.publish("houses", fitted(1.0)).ref == first.ref
    assert models.publish("houses", fitted(1.0), force=True).version == 2
    models.publish("houses", fitted(2.0))
    # Only the latest counts: going back to an earlier model is a new decision.
    assert models.publish("houses", fitted(1.0)).version == 4


def test_aliases_move_and_remember(models: smkit.ArtifactStore) -> None:
    one = models.publish("houses", fitted(1.0))
    models.publish("houses", fitted(2.0))
    models.promote(one, "production", why="review")
    assert models.get("houses@production").version == 1
    models.promote("houses@2", "production", expected=1, why="better")
    assert models.aliases("houses") == {"production": 2}
    assert [(move.version, move.saw, move.why) for move in models.history("houses", "production")] == [
        (2, 1, "better"),
        (1, None, "review"),
    ]
    with pytest.raises(AliasConflict, match=r"it was expected to name houses@1, but .* moved it to houses@2") as caught:
        models.promote("houses@1", "production", expected=1)
    assert (caught.value.expected, caught.value.actual) == (1, 2)
    assert models.aliases("houses") == {"production": 2}


def test_a_version_can_be_promoted_by_another_alias(models: smkit.ArtifactStore) -> None:
    models.publish("houses", fitted(1.0))
    models.promote("houses@latest", "staging")
    models.promote("houses@staging", "production")
    assert models.aliases("houses") == {"production": 1, "staging": 1}


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("hauses@1", "did you mean 'houses'"),
        ("houses@7", "no version 7; versions: 1"),
        ("houses@prod", "no alias 'prod'"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(models: smkit.ArtifactStore, ref: str, message: str) -> None:
    models.publish("houses", fitted())
    with pytest.raises(VersionNotFound, match=message):
        models.get(ref)


def test_an_alias_cannot_name_what_is_not_there(models: smkit.ArtifactStore) -> None:
    models.publish("houses", fitted())
    with pytest.raises(VersionNotFound):
        models.promote("houses@2", "production")
    assert models.aliases("houses") == {}


@pytest.mark.parametrize("name", ["", "Houses", "a b", "a@1", "../x", "a" * 64, "-x"])
def test_names_are_checked_before_any_work(tmp_path: Path, name: str) -> None:
    models = smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))
    with pytest.raises(InvalidNameError):
        models.publish(name, object())
    assert not (tmp_path / "root").exists()


def test_a_pickle_is_loaded_only_if_allowed(settings: smkit.Settings) -> None:
    models = smkit.ArtifactStore(settings)
    models.publish("houses", fitted())
    with pytest.raises(PickleNotAllowed, match="allow_pickle=True"):
        models.load("houses")
    allowing = smkit.ArtifactStore(
        smkit.Settings(**{**settings.model_dump(exclude={"postgres"}), "allow_pickle": True})
    )
    assert allowing.load("houses").alpha == 1.0
    with pytest.raises(PickleNotAllowed):
        allowing.load("houses", allow_pickle=False)


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "unpickled"))


def test_changed_bytes_are_never_unpickled(
    models: smkit.ArtifactStore, settings: smkit.Settings, tmp_path: Path
) -> None:
    version = models.publish("houses", fitted())
    _, write = stored_file(settings, version, "model.joblib")
    write(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(IntegrityError, match=r"model\.joblib of models houses@1 is damaged"):
        models.load("houses", allow_pickle=True)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(IntegrityError, match=r"model\.joblib"):
        version.verify()
    with pytest.raises(IntegrityError):
        version.download(tmp_path / "copy")
    assert not list((tmp_path / "copy").glob("*"))


def test_a_changed_cache_is_not_trusted(settings: smkit.Settings, tmp_path: Path) -> None:
    if not settings.root.startswith("s3://"):
        settings = smkit.Settings(root=settings.root)
    models = smkit.ArtifactStore(settings)
    models.publish("houses", fitted())
    models.load("houses", allow_pickle=True)
    cached = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert bool(cached) == settings.root.startswith("s3://")
    for path in cached:
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    assert models.load("houses", allow_pickle=True).alpha == 1.0
    assert not (tmp_path / "mark").exists()


def test_an_unfitted_estimator_is_refused(models: smkit.ArtifactStore) -> None:
    with pytest.raises(ModelError, match="Ridge is not fitted"):
        models.publish("houses", Ridge())
    assert models.versions("houses") == []


@pytest.mark.parametrize("source", [3, {"a": 1}, Ridge])
def test_what_is_no_model_is_refused(models: smkit.ArtifactStore, source: object) -> None:
    with pytest.raises(ModelError, match="expected a training job, a path, an S3 URI, or a fitted"):
        models.publish("houses", source)


def test_a_file_and_a_folder_can_be_published(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    joblib.dump(fitted(3.0), tmp_path / "m.pkl")
    assert models.publish("one", tmp_path / "m.pkl").ref == "one@1"
    assert models.load("one", allow_pickle=True).alpha == 3.0

    folder = tmp_path / "folder"
    (folder / "more").mkdir(parents=True)
    joblib.dump(fitted(4.0), folder / "model.joblib")
    (folder / "more" / "table.csv").write_text("a\n1\n")
    (folder / "metrics.json").write_text(json.dumps({"test:r2": 0.5, "comment": "ignored"}))
    (folder / ".hidden").write_text("not published")
    version = models.publish("two", str(folder))
    assert [file.path for file in version.manifest.files] == ["metrics.json", "model.joblib", "more/table.csv"]
    assert version.metrics == {"test:r2": 0.5}
    assert models.load("two", allow_pickle=True).alpha == 4.0
    copy = models.download("two", tmp_path / "copy")
    assert (copy / "more" / "table.csv").read_text() == "a\n1\n"


def test_paths_that_are_no_model_are_refused(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file or folder"):
        models.publish("houses", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no file"):
        models.publish("houses", tmp_path / "empty")
    outside = tmp_path / "secret"
    outside.write_text("secret")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "model.joblib").symlink_to(outside)
    with pytest.raises(ModelError, match="leads out of"):
        models.publish("houses", tmp_path / "linked")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "metrics.json").write_text("{not json")
    with pytest.raises(ModelError, match=r"metrics\.json .* is not JSON"):
        models.publish("houses", tmp_path / "odd")
    assert models.names() == []


def test_several_models_ask_which(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    joblib.dump(fitted(1.0), folder / "a.joblib")
    joblib.dump(fitted(2.0), folder / "b.joblib")
    models.publish("houses", folder)
    with pytest.raises(ModelError, match=r"several models: a\.joblib, b\.joblib; name one with file="):
        models.load("houses", allow_pickle=True)
    assert models.load("houses", allow_pickle=True, file="b.joblib").alpha == 2.0
    with pytest.raises(ModelError, match=r"holds no file 'c\.joblib'"):
        models.load("houses", allow_pickle=True, file="c.joblib")


def test_a_folder_without_a_model_cannot_be_loaded(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 10)
    models.publish("houses", tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="no model file"):
        models.load("houses", allow_pickle=True)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"python": "3.7.16", "packages": {}}, r"Python 3\.7\.16, here"),
        ({"packages": {"scikit-learn": "0.23.2"}}, r"scikit-learn 0\.23\.2, here"),
    ],
)
def test_another_environment_warns_or_fails(
    models: smkit.ArtifactStore, tmp_path: Path, environment: dict[str, Any], named: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    joblib.dump(fitted(), folder / "model.joblib")
    (folder / "environment.json").write_text(json.dumps(environment))
    models.publish("houses", folder)
    with pytest.warns(EnvironmentMismatchWarning, match=named):
        models.load("houses", allow_pickle=True)
    with pytest.raises(EnvironmentMismatch, match=named):
        models.load("houses", allow_pickle=True, strict=True)


def test_classes_that_cannot_be_imported_are_named(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    script = tmp_path / "make.py"
    script.write_text(
        "import sys, types, joblib\n"
        "module = types.ModuleType('houses_training'); sys.modules['houses_training'] = module\n"
        "exec('class Custom: pass', module.__dict__)\n"
        "joblib.dump(module.Custom(), sys.argv[1])\n"
    )
    subprocess.run([sys.executable, str(script), str(tmp_path / "model.joblib")], check=True)
    models.publish("houses", tmp_path / "model.joblib")
    with pytest.raises(ModelError, match="houses_training"):
        models.load("houses", allow_pickle=True)


def test_a_dataset_can_be_named_as_the_origin(models: smkit.ArtifactStore, settings: smkit.Settings) -> None:
    frame = X.assign(y=Y)
    dataset = smkit.DatasetBuilder("houses", smkit.FrameSource(frame), settings).build()
    version = models.publish("houses", fitted(), dataset=dataset)
    assert version.inputs["dataset"]["dataset"] == "houses@1"
    assert version.inputs["dataset"]["digest"] == dataset.digest


def test_metrics_that_are_not_finite_are_none(models: smkit.ArtifactStore) -> None:
    version = models.publish("houses", fitted(), metrics={"bad": float("nan"), "worse": float("inf"), "good": 1.0})
    assert models.get(version.ref).metrics == {"bad": None, "worse": None, "good": 1.0}
    assert "good=1" in repr(version)


def test_a_failed_publish_leaves_no_version(settings: smkit.Settings, tmp_path: Path) -> None:
    models = smkit.ArtifactStore(settings)
    folder = tmp_path / "folder"
    folder.mkdir()
    joblib.dump(fitted(), folder / "a.joblib")
    unreadable = folder / "b.joblib"
    unreadable.mkfifo() if hasattr(unreadable, "mkfifo") else os.mkfifo(unreadable)
    # A FIFO is no regular file: it is not published, and does not hang the publish.
    assert [file.path for file in models.publish("houses", folder).manifest.files] == ["a.joblib"]


def test_threads_publish_a_version_each(tmp_path: Path) -> None:
    # On a folder alone: moto checks If-None-Match, then writes, without a lock; tests/versioning has S3's races.
    settings = smkit.Settings(root=str(tmp_path / "root"))
    models = smkit.ArtifactStore(settings)
    estimators = [fitted(float(alpha)) for alpha in range(1, 9)]
    problems: list[SmkitError] = []

    def publish(estimator: Ridge) -> None:
        try:
            smkit.ArtifactStore(settings).publish("houses", estimator)
        except SmkitError as error:
            problems.append(error)

    threads = [threading.Thread(target=publish, args=(estimator,)) for estimator in estimators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert [version.version for version in models.versions("houses")] == list(range(8, 0, -1))
    assert {models.load(v, allow_pickle=True).alpha for v in models.versions("houses")} == set(map(float, range(1, 9)))


def test_a_pipeline_of_estimators_can_be_published(models: smkit.ArtifactStore) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    version = models.publish("houses", make_pipeline(StandardScaler(), LinearRegression()).fit(X, Y))
    # Parameters that JSON cannot hold, such as the steps, are named.
    assert "StandardScaler" in json.dumps(version.hyperparameters)
    np.testing.assert_allclose(models.load(version, allow_pickle=True).predict(X), Y)
