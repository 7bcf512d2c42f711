"""What is published: the files, and what is known about where they come from.

Four kinds of thing can be published: a training job, a file or folder, an object of S3, and a fitted estimator. Each
becomes a `Draft`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast, runtime_checkable

from smkit.artifacts.archive import list_members
from smkit.artifacts.inspection import InspectedStream
from smkit.artifacts.remote import find_remote, is_s3_uri
from smkit.artifacts.skops_format import dump_skops
from smkit.environment import describe_environment
from smkit.errors import ConfigError, ModelError, StorageError
from smkit.hyperparameters import effective_hyperparameters
from smkit.storage.base import digest_of
from smkit.versioning import PendingFile, RemoteObject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ARCHIVE = "model.tar.gz"
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")
#: What the training template writes beside the model.
_METRICS, _SIGNATURE, _ENVIRONMENT = "metrics.json", "signature.json", "environment.json"
_HYPERPARAMETERS = "hyperparameters.json"
_SIDE_FILES = frozenset({_METRICS, _SIGNATURE, _ENVIRONMENT, _HYPERPARAMETERS})
_SIDE_FILE_BYTES = 1 << 20
#: What a job says of these goes beside the job; the rest describes the job itself.
_LINEAGE_FACTS = ("metrics", "hyperparameters", "inputs", "code", "environment")

Format = Literal["joblib", "skops"]


@runtime_checkable
class TrainedJob(Protocol):
    """What a job must offer to be published."""

    @property
    def name(self) -> str:
        """The job's name."""

    def model_archive(self) -> Path | str:
        """Return `model.tar.gz` as a local file, or its `s3://` URI."""

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
        facts: Returns what is known, once the files were read: `metrics`, `hyperparameters`, `inputs`, `code`, `job`,
            `environment`, `signature`, and `members`, the files inside the archive.
    """

    files: tuple[PendingFile, ...]
    facts: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Drafting:
    """What drafting needs.

    Attributes:
        folder: An empty folder that lives as long as the draft.
        format: How an estimator is written.
        s3: Returns the S3 client.
        copies_in_s3: Whether the store could copy an object of S3 without its bytes passing through here.
    """

    folder: Path
    format: Format
    s3: Callable[[], Any]
    copies_in_s3: bool


def draft(source: Any, how: Drafting) -> Draft:
    """Draft anything that can be published.

    Raises:
        ConfigError: An S3 URI does not name one object, or the format is unknown or not for this source.
        JobError: The job is not completed.
        MissingExtraError: The format needs skops, which is not installed.
        ModelError: There is nothing to publish, or the estimator is not fitted.
        StorageError: S3 cannot be read.
    """
    if how.format not in {"joblib", "skops"}:
        raise ConfigError(f"format={how.format!r} is unknown: expected 'joblib' or 'skops'")
    if hasattr(source, "fit") and hasattr(source, "get_params") and not isinstance(source, type):
        return _draft_estimator(source, how)
    if how.format != "joblib":
        raise ConfigError(
            f"format={how.format!r} says how a fitted estimator is written; a {type(source).__name__} is published as "
            f"it is: leave it out"
        )
    if isinstance(source, TrainedJob):
        return _draft_job(source, how)
    if is_s3_uri(source):
        return _draft_remote(source, how)
    if isinstance(source, (str, os.PathLike)):
        return _draft_path(Path(source).expanduser())
    raise ModelError(
        f"cannot publish a {type(source).__name__}: expected a training job, a path, an S3 URI, or a fitted "
        f"scikit-learn estimator"
    )


def _draft_job(job: TrainedJob, how: Drafting) -> Draft:
    """Draft a training job's model with its full lineage."""
    lineage = {"job_name": job.name, **job.lineage()}
    archive = job.model_archive()
    inner = _draft_remote(str(archive), how) if is_s3_uri(archive) else _draft_archive(Path(archive))

    def facts() -> Mapping[str, Any]:
        said = {key: lineage[key] for key in _LINEAGE_FACTS if lineage.get(key) is not None}
        found = inner.facts()
        return {
            **said,
            # What the script wrote itself is nearer to the training than what the runner saw.
            **found,
            "hyperparameters": effective_hyperparameters(
                said.get("hyperparameters", {}), found.get("hyperparameters", {})
            ),
            "metrics": {**found.get("metrics", {}), **said.get("metrics", {})},
            "job": {key: value for key, value in lineage.items() if key not in _LINEAGE_FACTS},
        }

    return Draft(inner.files, facts)


def _draft_path(path: Path) -> Draft:
    """Draft a model file, a folder of files, or a `model.tar.gz`."""
    if path.is_file():
        if path.name.endswith(_ARCHIVE_SUFFIXES):
            return _draft_archive(path)
        return Draft((_pending(path, path.name),), dict)
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
    facts = _facts_of(side, str(path))
    return Draft(tuple(_pending(p, p.relative_to(path).as_posix()) for p in found), lambda: facts)


def _draft_estimator(estimator: Any, how: Drafting) -> Draft:
    """Draft a fitted scikit-learn estimator."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise ModelError(f"{type(estimator).__name__} is not fitted: call fit before publishing it") from None
    except TypeError as error:
        raise ModelError(f"cannot publish {type(estimator).__name__}: {error}") from None
    path = how.folder / f"model.{how.format}"
    _dump(estimator, path, how.format)
    names = getattr(estimator, "feature_names_in_", None)
    facts = {"hyperparameters": _json_only(estimator.get_params(deep=False)), "environment": describe_environment()}
    if names is not None:
        facts["signature"] = {"features": [{"name": str(name)} for name in names]}
    return Draft((_pending(path, path.name),), lambda: facts)


def _dump(estimator: Any, path: Path, model_format: Format) -> None:
    if model_format == "joblib":
        import joblib

        joblib.dump(estimator, path)
        return
    dump_skops(estimator, path)


def _draft_archive(path: Path) -> Draft:
    if not path.is_file():
        raise ModelError(f"there is no file {path} to publish")
    archive = _InspectedArchive(lambda: _open(path), str(path))
    return Draft((PendingFile(ARCHIVE, archive.open),), archive.facts)


def _draft_remote(uri: str, how: Drafting) -> Draft:
    """Draft one object of S3. Its bytes are read here once; where the store is in S3, they are not sent there again."""
    file = find_remote(uri, how.s3)
    archive = _InspectedArchive(file.open, uri) if file.name.endswith(_ARCHIVE_SUFFIXES) else None
    path = ARCHIVE if archive else file.name
    facts = archive.facts if archive else dict
    open_once = archive.open if archive else file.open
    if not how.copies_in_s3:
        return Draft((PendingFile(path, open_once),), facts)
    with open_once() as stream:
        digest = digest_of(stream)
    return Draft((PendingFile(path, file.open, digest, remote=RemoteObject(file.uri, file.etag)),), facts)


class _InspectedArchive:
    """A `model.tar.gz` whose members are listed while it is read for another purpose.

    Args:
        open_bytes: Returns its bytes as a stream.
        where: Its name, for messages.
    """

    def __init__(self, open_bytes: Callable[[], BinaryIO], where: str) -> None:
        self._open_bytes = open_bytes
        self._where = where
        self._found: dict[str, Any] | None = None

    def open(self) -> BinaryIO:
        """Return its bytes; reading them raises `ModelError` where the archive is not honest."""
        return cast("BinaryIO", InspectedStream(self._open_bytes(), self._inspect))

    def facts(self) -> Mapping[str, Any]:
        """Return what it holds, once it was read.

        Raises:
            StorageError: It was not read to its end.
        """
        if self._found is None:
            raise StorageError(f"{self._where} was not read to its end: publish it again")
        return self._found

    def _inspect(self, stream: BinaryIO) -> None:
        members, side = list_members(stream, self._where, keep=_SIDE_FILES, keep_bytes=_SIDE_FILE_BYTES)
        if not members:
            raise ModelError(f"{self._where} holds no file: the training script saved no model")
        self._found = {**_facts_of(side, self._where), "members": [member.to_record() for member in members]}


def _facts_of(side: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """Return what the training template wrote beside the model."""
    facts: dict[str, Any] = {}
    for name, data in side.items():
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            if name == _HYPERPARAMETERS:
                continue
            raise ModelError(f"{name} in {where} is not JSON: write it with json.dump, or remove it") from None
        if not isinstance(value, dict):
            # A script may write a file of this name for its own ends: a job leaves it aside, and so does this.
            if name == _HYPERPARAMETERS:
                continue
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
    return PendingFile(name, lambda: _open(path))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


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
