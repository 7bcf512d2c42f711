"""What the tests of models share."""

from __future__ import annotations

import io
import tarfile
import threading
from typing import Any

import joblib
from sklearn.linear_model import Ridge


def packed(*members: tuple[str, bytes] | tarfile.TarInfo, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tar_format) as archive:
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


def fitted(alpha: float = 1.0) -> Ridge:
    return Ridge(alpha=alpha).fit([[0.0], [1.0]], [0.0, 1.0])


def inspecting_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "smkit-inspection"]


class Job:
    """A job that fulfils the protocol of what can be published."""

    def __init__(self, archive: Any, name: str = "Train-1") -> None:
        self.name = name
        self._archive = archive

    def model_archive(self) -> Any:
        return self._archive

    def lineage(self) -> dict[str, Any]:
        return {
            "job_name": self.name,
            "backend": "local",
            "image": None,
            "framework_version": "1.2-1",
            "metrics": {"test:rmse": 0.5},
            "hyperparameters": {"alpha": 2.0},
            "inputs": {"train": {"dataset": "houses@1", "digest": "0" * 64, "split": "train"}},
            "code": {"digest": "1" * 64, "git_commit": "2" * 40, "dirty": False},
        }
