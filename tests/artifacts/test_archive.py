"""`model.tar.gz` is read without trusting it, and a job's model is published with its lineage."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import smkit
from smkit.errors import IntegrityError, JobError
from tests.artifacts.helpers import model_bytes, packed, special

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def models(tmp_path: Path) -> smkit.ArtifactStore:
    return smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))


class Job:
    """A job that fulfils the protocol of what can be published."""

    name = "train-1"

    def __init__(self, path: Path) -> None:
        self._path = path

    def model_archive(self) -> Path:
        return self._path

    def lineage(self) -> dict[str, Any]:
        return {
            "job_name": self.name,
            "backend": "local",
            "metrics": {"test:rmse": 0.5},
            "hyperparameters": {"alpha": 2.0},
            "inputs": {"train": {"dataset": "houses@1", "digest": "0" * 64, "split": "train"}},
            "code": {"digest": "1" * 64, "git_commit": None},
            "environment": {"python": "3.1.4", "packages": {"numpy": "1"}},
        }


def test_a_job_is_published_with_its_lineage(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    from smkit.environment import describe_environment

    path = tmp_path / "model.tar.gz"
    environment = describe_environment()
    path.write_bytes(
        packed(
            ("model.joblib", model_bytes(2.0)),
            ("metrics.json", json.dumps({"train:r2": 1.0, "test:rmse": 9.0}).encode()),
            ("environment.json", json.dumps(environment).encode()),
            ("signature.json", json.dumps({"target": "y"}).encode()),
        )
    )
    version = models.publish("houses", Job(path))
    assert version.archive_uri == f"{version.uri}/model.tar.gz"
    assert version.metrics == {"train:r2": 1.0, "test:rmse": 0.5}
    assert version.hyperparameters == {"alpha": 2.0}
    assert version.inputs["train"]["dataset"] == "houses@1"
    assert version.code["digest"] == "1" * 64
    assert version.environment == environment  # what the script wrote is nearer than what the runner saw
    assert version.signature == {"target": "y"}
    assert version.job["job_name"] == "train-1"
    assert models.load("houses", allow_pickle=True).alpha == 2.0


@pytest.mark.parametrize(
    ("written", "published"),
    [
        (b'{"alpha": 2.0, "fit_intercept": true}', {"alpha": 2.0, "fit_intercept": True, "learning-rate": 0.1}),
        (b'{"alpha": 2.0, "learning_rate": 0.1}', {"alpha": 2.0, "learning_rate": 0.1}),
        # A file of a script's own that only has the name.
        (b"[1, 2]", {"alpha": 2.0, "learning-rate": 0.1}),
        (b"alpha = 2", {"alpha": 2.0, "learning-rate": 0.1}),
    ],
)
def test_the_values_that_the_script_used_are_published(
    models: smkit.ArtifactStore, tmp_path: Path, written: bytes, published: dict[str, Any]
) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(("model.joblib", model_bytes(2.0)), ("hyperparameters.json", written)))
    job = Job(path)
    lineage = {**job.lineage(), "hyperparameters": {"alpha": 2.0, "learning-rate": 0.1}}
    job.lineage = lambda: lineage  # type: ignore[method-assign]
    assert models.publish("houses", job).hyperparameters == published


def test_an_unfinished_job_is_not_published(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    class Running(Job):
        def model_archive(self) -> Path:
            raise JobError("job 'train-1' is InProgress")

    with pytest.raises(JobError, match="InProgress"):
        models.publish("houses", Running(tmp_path))
    assert models.names() == []


def test_members_may_be_in_folders_and_start_with_a_dot_slash(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    folder = special("./", tarfile.DIRTYPE)
    path.write_bytes(packed(folder, special("./deep", tarfile.DIRTYPE), ("./deep/model.joblib", model_bytes(3.0))))
    models.publish("houses", path)
    assert models.load("houses", allow_pickle=True).alpha == 3.0


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_the_archive_is_found(
    models: smkit.ArtifactStore, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "model.tar.gz"
    if not path.exists():
        path.write_bytes(packed(("model.joblib", model_bytes())))
    version = models.publish("houses", path)
    stored = tmp_path / "root" / "models" / "houses" / "data" / version.manifest.publish_id / "model.tar.gz"
    whole = stored.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    stored.write_bytes(changed)
    try:
        with pytest.raises(IntegrityError):
            models.load("houses", allow_pickle=True)
        with pytest.raises(IntegrityError):
            version.verify()
    finally:
        stored.write_bytes(whole)
