"""What is published: the files, and what is known about where they come from.

Three kinds of thing can be published: a training job, a file or folder, and a fitted estimator. Each becomes a `Draft`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast, runtime_checkable

from smkit.artifacts.archive import list_members
from smkit.environment import describe_environment
from smkit.errors import ModelError
from smkit.versioning import PendingFile, StoredFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ARCHIVE = "model.tar.gz"
#: What the training template writes beside the model.
_METRICS, _SIGNATURE, _ENVIRONMENT = "metrics.json", "signature.json", "environment.json"
_SIDE_FILES = frozenset({_METRICS, _SIGNATURE, _ENVIRONMENT})
_SIDE_FILE_BYTES = 1 << 20


@runtime_checkable
class TrainedJob(Protocol):
    """What a job must offer to be published."""

    @property
    def name(self) -> str:
        """The job's name."""

    def model_archive(self) -> Path:
        """Return `model.tar.gz` as a local file."""

    def lineage(self) -> Mapping[str, Any]:
        """Return where the model comes from, as JSON values."""


@runtime_checkable
class DatasetLike(Protocol):
    """What a dataset must offer to be named as a model's origin."""

    def describe(self) -> Mapping[str, Any]:
        """Return the dataset's reference and digest, as JSON values."""


@dataclass(frozen=True)
class Draft:
    """What will be published.

    Attributes:
        files: The files.
        members: The files inside the archive, where there is one.
        facts: What is known: `metrics`, `hyperparameters`, `inputs`, `code`, `job`, `environment`, `signature`.
    """

    files: tuple[PendingFile, ...]
    members: tuple[StoredFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def draft_job(job: TrainedJob) -> Draft:
    """Draft a training job's model with its full lineage.

    Raises:
        JobError: The job is not completed.
        ModelError: Its archive cannot be read, or is empty.
    """
    lineage = dict(job.lineage())
    draft = _draft_archive(job.model_archive())
    taken = ("metrics", "hyperparameters", "inputs", "code", "environment")
    facts = {key: lineage.pop(key) for key in taken if lineage.get(key) is not None}
    # What the script wrote itself is nearer to the training than what the runner saw.
    merged = {**facts, **draft.facts, "job": lineage}
    merged["metrics"] = {**draft.facts.get("metrics", {}), **facts.get("metrics", {})}
    return Draft(draft.files, draft.members, merged)


def draft_path(path: Path) -> Draft:
    """Draft a model file, a folder of files, or a `model.tar.gz`.

    Raises:
        ModelError: There is nothing there, or nothing but links.
    """
    if path.is_file():
        if path.name.endswith((".tar.gz", ".tgz")):
            return _draft_archive(path)
        return Draft((_pending(path, path.name),))
    if not path.is_dir():
        raise ModelError(f"there is no file or folder {path} to publish")
    found = sorted(
        p
        for p in path.rglob("*")
        if p.is_file() and not any(part.startswith(".") for part in p.parts[len(path.parts) :])
    )
    for file in found:
        if not file.resolve().is_relative_to(path.resolve()):
            raise ModelError(f"{file} is a link that leads out of {path}: copy the file there")
    if not found:
        raise ModelError(f"the folder {path} holds no file to publish")
    side = {name: (path / name).read_bytes() for name in _SIDE_FILES if _is_small(path / name)}
    return Draft(tuple(_pending(p, p.relative_to(path).as_posix()) for p in found), facts=_facts(side, path))


def draft_estimator(estimator: Any, folder: Path) -> Draft:
    """Draft a fitted scikit-learn estimator; it is written to `folder` with joblib.

    Raises:
        ModelError: It is not fitted.
    """
    import joblib
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise ModelError(f"{type(estimator).__name__} is not fitted: call fit before publishing it") from None
    except TypeError as error:
        raise ModelError(f"cannot publish {type(estimator).__name__}: {error}") from None
    path = folder / "model.joblib"
    joblib.dump(estimator, path)
    names = getattr(estimator, "feature_names_in_", None)
    signature = {"features": [{"name": str(name)} for name in names]} if names is not None else None
    facts = {"hyperparameters": _json_only(estimator.get_params(deep=False)), "environment": describe_environment()}
    if signature:
        facts["signature"] = signature
    return Draft((_pending(path, path.name),), facts=facts)


def _draft_archive(path: Path) -> Draft:
    try:
        with path.open("rb") as source:
            members, side = list_members(source, str(path), keep=_SIDE_FILES, keep_bytes=_SIDE_FILE_BYTES)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    if not members:
        raise ModelError(f"{path} holds no file: the training script saved no model")
    return Draft((_pending(path, ARCHIVE),), members, _facts(side, path))


def _facts(side: Mapping[str, bytes], where: Path) -> dict[str, Any]:
    """Return what the training template wrote beside the model."""
    facts: dict[str, Any] = {}
    for name, data in side.items():
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise ModelError(f"{name} in {where} is not JSON: write it with json.dump, or remove it") from None
        if not isinstance(value, dict):
            raise ModelError(f"{name} in {where} holds {type(value).__name__}, expected a JSON object")
        facts[name.removesuffix(".json")] = value
    if _METRICS in side:
        facts["metrics"] = {
            name: value
            for name, value in facts["metrics"].items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
    return facts


def _pending(path: Path, name: str) -> PendingFile:
    def open_file() -> BinaryIO:
        return cast("BinaryIO", path.open("rb"))

    return PendingFile(name, open_file)


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _SIDE_FILE_BYTES


def _json_only(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON; what JSON cannot hold, such as an estimator, is named by its repr."""

    def plain(value: Any) -> Any:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            return repr(value)
        return value

    return {name: plain(value) for name, value in values.items()}
