"""`model.tar.gz` is read without trusting it, and a job's model is published with its lineage."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

import smkit
from smkit.artifacts import archive as archive_module
from smkit.errors import IntegrityError, JobError, ModelError

if TYPE_CHECKING:
    from pathlib import Path


def packed(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def model_bytes(alpha: float = 1.0) -> bytes:
    out = io.BytesIO()
    joblib.dump(Ridge(alpha=alpha).fit([[0.0], [1.0]], [0.0, 1.0]), out)
    return out.getvalue()


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


HOSTILE = {
    "parent": packed(("../model.joblib", b"x")),
    "absolute": packed(("/model.joblib", b"x")),
    "inner parent": packed(("a/../../b", b"x")),
    "symlink": packed(special("model.joblib", tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": packed(special("model.joblib", tarfile.LNKTYPE, "/etc/passwd")),
    "device": packed(special("model.joblib", tarfile.CHRTYPE)),
    "fifo": packed(special("model.joblib", tarfile.FIFOTYPE)),
    "twice": packed(("model.joblib", b"x"), ("model.joblib", b"y")),
    "backslash": packed(("..\\model.joblib", b"x")),
    "newline": packed(("a\nb", b"x")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_refused(models: smkit.ArtifactStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="that a model archive does not have"):
        models.publish("houses", path)
    assert models.names() == []


@pytest.mark.parametrize("data", [b"", b"not gzip", gzip.compress(b"not tar"), packed(("a", b"x" * 9000))[:-40]])
def test_broken_archives_are_refused(models: smkit.ArtifactStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        models.publish("houses", path)


def test_an_empty_archive_is_refused(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed())
    with pytest.raises(ModelError, match="saved no model"):
        models.publish("houses", path)


def test_a_tar_bomb_is_stopped(models: smkit.ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_TOTAL_BYTES", 1 << 20)
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(("model.joblib", b"\0" * (8 << 20))))
    with pytest.raises(ModelError, match="unpacks to more than"):
        models.publish("houses", path)
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 10)
    path.write_bytes(packed(*((f"f{number}", b"") for number in range(11))))
    with pytest.raises(ModelError, match="more than 10 members"):
        models.publish("houses", path)


def test_a_giant_header_is_stopped(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    path = tmp_path / "model.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096))
    with pytest.raises(ModelError):
        models.publish("houses", path)


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
