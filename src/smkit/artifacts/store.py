"""The way into model versions."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smkit.artifacts.loading import load_model
from smkit.artifacts.publishing import DatasetLike, Draft, TrainedJob, draft_estimator, draft_job, draft_path
from smkit.artifacts.version import ModelVersion
from smkit.errors import ConfigError, ModelError
from smkit.naming import Reference, check_alias, check_name, parse_reference
from smkit.storage import open_store
from smkit.versioning import VersionLog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import EllipsisType

    from smkit.config import Settings
    from smkit.versioning import AliasRecord, StoredFile

_KIND = "models"
_WHAT = "model"


class ArtifactStore:
    """The models under one root.

    Args:
        settings: Where they lie; default: `Settings()`, read on first use.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._given = settings
        self._opened: tuple[Settings, VersionLog] | None = None

    def publish(
        self,
        name: str,
        source: TrainedJob | str | os.PathLike[str] | Any,
        *,
        metrics: Mapping[str, float] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        dataset: DatasetLike | None = None,
        notes: str = "",
        labels: Mapping[str, str] | None = None,
        force: bool = False,
    ) -> ModelVersion:
        """Publish a model as the next version.

        What a job knows of its lineage is published with it; the arguments add to that, and win over it.

        Args:
            name: The model's name.
            source: A completed training job, a file, a folder, a `model.tar.gz`, or a fitted estimator.
            metrics: Metrics by name.
            hyperparameters: Hyperparameters by name; JSON values.
            dataset: The dataset that it was trained on.
            notes: Free text.
            labels: Free labels.
            force: Publish even where the latest version holds the same files; without it that version is returned.

        Raises:
            InvalidNameError: The name breaks the naming rule.
            JobError: The job is not completed.
            ModelError: There is nothing to publish, or the estimator is not fitted.
            StorageError: The store failed. No version is visible then.
        """
        check_name(name, _WHAT)
        with tempfile.TemporaryDirectory(prefix="smkit-") as folder:
            draft = _draft(source, Path(folder))
            facts = dict(draft.facts)
            for key, given in (("metrics", metrics), ("hyperparameters", hyperparameters)):
                if given is not None:
                    facts[key] = {**facts.get(key, {}), **given}
            if dataset is not None:
                facts["inputs"] = {**facts.get("inputs", {}), "dataset": dict(dataset.describe())}

            def body(_: tuple[StoredFile, ...]) -> dict[str, Any]:
                return {
                    **facts,
                    "members": [vars(member) for member in draft.members],
                    "notes": notes,
                    "labels": dict(labels or {}),
                }

            _, log = self._open()
            published = log.publish(
                name,
                draft.files,
                body,
                content={},
                reuse="never" if force else "latest",
            )
        return ModelVersion(published.manifest, log)

    def get(self, ref: str) -> ModelVersion:
        """Return a version: `houses@3`, `houses@latest`, `houses@production` or just `houses`.

        Raises:
            VersionNotFound: There is none.
            IntegrityError: Its manifest was changed.
        """
        _, log = self._open()
        return ModelVersion(log.get(parse_reference(ref, _WHAT)), log)

    def versions(self, name: str) -> list[ModelVersion]:
        """Return all versions of a model, newest first; none if there is no such model."""
        _, log = self._open()
        return [ModelVersion(log.manifest(name, version), log) for version in log.versions(check_name(name, _WHAT))]

    def names(self) -> list[str]:
        """Return the names of the models that there are."""
        _, log = self._open()
        return list(log.names())

    def load(
        self,
        ref: str | ModelVersion,
        *,
        allow_pickle: bool | None = None,
        strict: bool = False,
        file: str | None = None,
    ) -> Any:
        """Load a model into memory. Its SHA-256 is checked before anything is unpickled.

        Args:
            ref: The version.
            allow_pickle: A pickle runs code when it is loaded, so it must be allowed; None: as the settings say.
            strict: Make other versions of Python (minor) or scikit-learn than those that trained an error, not a
                warning.
            file: Which file is the model, where there are several.

        Raises:
            VersionNotFound: There is no such version.
            IntegrityError: Bytes are not those that were published.
            PickleNotAllowed: It is a pickle, and was not allowed.
            EnvironmentMismatch: With `strict`: other versions trained it.
            ModelError: No file, or several, could be the model, or its classes cannot be imported here.
        """
        settings, log = self._open()
        version = ref if isinstance(ref, ModelVersion) else ModelVersion(log.get(parse_reference(ref, _WHAT)), log)
        allowed = settings.allow_pickle if allow_pickle is None else allow_pickle
        return load_model(version, allow_pickle=allowed, strict=strict, file=file)

    def download(self, ref: str | ModelVersion, folder: str | Path) -> Path:
        """Copy a version's files into a folder, each checked on the way; return the folder.

        Raises:
            VersionNotFound: There is no such version.
            IntegrityError: Bytes are not those that were published.
        """
        return (ref if isinstance(ref, ModelVersion) else self.get(ref)).download(folder)

    def promote(
        self, version: str | ModelVersion, alias: str, *, why: str = "", expected: int | EllipsisType | None = ...
    ) -> AliasRecord:
        """Let an alias, such as `production`, name a version.

        Args:
            version: The version.
            alias: The alias.
            why: For the history.
            expected: The version number that the alias is believed to name, None for none; left out, whatever it names.

        Raises:
            AliasConflict: The alias names another version than expected, or somebody else moved it during this call.
            VersionNotFound: There is no such version.
        """
        check_alias(alias)
        _, log = self._open()
        if isinstance(version, ModelVersion):
            target = Reference(version.name, version.version)
        else:
            target = parse_reference(version, _WHAT)
        number = target.version if isinstance(target.version, int) else log.get(target).version
        return log.aliases.promote(target.name, number, alias, why=why, expected=expected)

    def aliases(self, name: str) -> dict[str, int]:
        """Return every alias of a model and the version that it names."""
        _, log = self._open()
        return log.aliases.all(check_name(name, _WHAT))

    def history(self, name: str, alias: str) -> list[AliasRecord]:
        """Return every move of an alias, newest first: who, when, why, and what it named before."""
        _, log = self._open()
        return list(log.aliases.history(check_name(name, _WHAT), alias))

    def _open(self) -> tuple[Settings, VersionLog]:
        if self._opened is None:
            settings = self._given
            if settings is None:
                from smkit.config import Settings

                settings = Settings()
            self._opened = settings, VersionLog(open_store(settings), _KIND, _WHAT)
        return self._opened


def _draft(source: Any, folder: Path) -> Draft:
    if isinstance(source, TrainedJob):
        return draft_job(source)
    if isinstance(source, (str, os.PathLike)):
        if str(source).startswith("s3://"):
            raise ConfigError(f"cannot publish {source!r}: publish the job that wrote it, or download it first")
        return draft_path(Path(source).expanduser())
    if hasattr(source, "fit") and hasattr(source, "get_params") and not isinstance(source, type):
        return draft_estimator(source, folder)
    raise ModelError(
        f"cannot publish a {type(source).__name__}: expected a training job, a path, or a fitted scikit-learn estimator"
    )
