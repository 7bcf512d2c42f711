"""The way into model versions."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from smkit.artifacts.comparison import Comparison, compare_versions
from smkit.artifacts.facts import check_facts, warn_of_lost_facts
from smkit.artifacts.listing import ModelVersions, published_from
from smkit.artifacts.loading import load_model, open_file
from smkit.artifacts.publishing import DatasetLike, Drafting, Format, TrainedJob, draft
from smkit.artifacts.upkeep import (
    StoreReport,
    choose_to_prune,
    collect_all,
    inspect_store,
    orphans_of,
    prune_all,
    verify_all,
)
from smkit.artifacts.version import SUMMARY_KEYS, ModelVersion
from smkit.errors import ConfigError, InvalidNameError, ModelError, VersionInUse, VersionNotFound
from smkit.naming import Reference, check_alias, check_name, parse_reference
from smkit.storage import check_settings, open_store
from smkit.versioning import VersionLog
from smkit.versioning.maintenance import WEEK, names_with_data

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from types import EllipsisType

    from smkit.config import Settings
    from smkit.versioning import AliasRecord, StoredFile
    from smkit.versioning.maintenance import Orphan

_KIND = "models"
_WHAT = "model"


class ArtifactStore:
    """The models under one root.

    Args:
        settings: Where they lie; default: `Settings()`, read on first use.

    Raises:
        ConfigError: `settings` are none.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._given = check_settings(settings)
        self._opened: tuple[Settings, VersionLog] | None = None

    def __repr__(self) -> str:
        return f"ArtifactStore({self._given.root!r})" if self._given else "ArtifactStore()"

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
        format: Format = "joblib",  # noqa: A002 - as pandas and scikit-learn's own exporters call it
        force: bool = False,
    ) -> ModelVersion:
        """Publish a model as the next version.

        What a job knows of its lineage is published with it; the arguments add to that, and win over it. A
        `model.tar.gz` is read once, while it is stored; one that lies in S3 already is copied there by S3.

        Args:
            name: The model's name.
            source: A completed training job, a file, a folder, a `model.tar.gz`, the `s3://` URI of one object, or a
                fitted estimator.
            metrics: Metrics by name.
            hyperparameters: Hyperparameters by name; JSON values.
            dataset: The dataset that it was trained on.
            notes: Free text.
            labels: Free labels.
            format: How an estimator is written: `joblib` (a pickle) or `skops`, which is loaded without running code.
            force: Publish even where the latest version holds the same files; without it that version is returned, with
                a `SameContentWarning` if it says otherwise than the arguments.

        Raises:
            ConfigError: An argument is not of its kind, a URI names no single object, or the format is unknown or not
                for this source.
            InvalidNameError: The name breaks the naming rule.
            JobError: The job is not completed.
            MissingExtraError: The format needs skops, which is not installed.
            ModelError: There is nothing to publish, the archive is not honest, or the estimator is not fitted.
            StorageError: The store failed. No version is visible then.
        """
        if not isinstance(name, str) and isinstance(source, str):
            raise ConfigError(f"publish({type(name).__name__}, {source!r}): the name comes first, then the model")
        check_name(name, _WHAT)
        given = check_facts(metrics, hyperparameters, dataset, notes, labels)
        settings, log = self._open()
        with tempfile.TemporaryDirectory(prefix="smkit-") as folder:
            how = Drafting(Path(folder), format, lambda: settings.client("s3"), settings.root.startswith("s3://"))
            drafted = draft(source, how)

            def body(_: tuple[StoredFile, ...]) -> dict[str, Any]:
                return given.merged(drafted.facts())

            published = log.publish(name, drafted.files, body, content={}, reuse="never" if force else "latest")
            if not published.created:
                warn_of_lost_facts(published.manifest, body(()))
        return ModelVersion.of(log, published.manifest)

    def get(self, ref: str) -> ModelVersion:
        """Return a version: `houses@3`, `houses@latest`, `houses@production`, `houses`, or the name of its job.

        Args:
            ref: The reference. Where no model has the name, the version that was published from the job of that name.

        Raises:
            VersionNotFound: There is none.
            ModelError: Several models were published from the job.
            IntegrityError: Its manifest was changed.
        """
        _, log = self._open()
        try:
            reference = parse_reference(ref, _WHAT)
            return ModelVersion.of(log, log.get(reference))
        except (InvalidNameError, VersionNotFound):
            found = published_from(log, ref)
            if not found:
                raise
        if len({version.name for version in found}) > 1:
            refs = ", ".join(version.ref for version in found)
            raise ModelError(f"job {ref!r} was published as {refs}: name one of them")
        return found[0]

    def versions(self, name: str) -> ModelVersions:
        """Return all versions of a model, newest first; none if there is no such model.

        It takes a few requests, however long the list is. What a list does not show is read on first use.
        """
        _, log = self._open()
        return ModelVersions.of(log, check_name(name, _WHAT))

    def names(self) -> list[str]:
        """Return the names of the models that there are."""
        _, log = self._open()
        return list(log.names())

    def load(
        self,
        ref: str | ModelVersion,
        *,
        allow_pickle: bool | None = None,
        trusted: Sequence[str | type] = (),
        strict: bool = False,
        file: str | None = None,
    ) -> Any:
        """Load a model into memory. Its SHA-256 is checked before anything is unpickled.

        Args:
            ref: The version; a reference as for `get`.
            allow_pickle: A pickle runs code when it is loaded, so it must be allowed; None: as the settings say.
            trusted: For a model in the format of skops: the types in it, or their full names, that may be made beside
                those that skops trusts by itself.
            strict: Make other versions of Python (minor) or scikit-learn than those that trained an error, not a
                warning.
            file: Which file is the model, where there are several.

        Raises:
            VersionNotFound: There is no such version.
            IntegrityError: Bytes are not those that were published.
            PickleNotAllowed: It is a pickle, and was not allowed.
            UntrustedTypes: It is in the format of skops, and holds types that nobody trusts.
            MissingExtraError: It is in the format of skops, which is not installed.
            EnvironmentMismatch: Other versions trained it, and `strict` is set, or it cannot be unpickled under these.
            ModelError: No file, or several, could be the model, or its classes cannot be imported here.
        """
        settings, _ = self._open()
        allowed = settings.allow_pickle if allow_pickle is None else allow_pickle
        return load_model(self._version(ref), allow_pickle=allowed, strict=strict, file=file, trusted=trusted)

    def download(self, ref: str | ModelVersion, folder: str | Path) -> Path:
        """Copy a version's files into a folder, each checked on the way; return the folder.

        Raises:
            VersionNotFound: There is no such version.
            IntegrityError: Bytes are not those that were published.
        """
        return self._version(ref).download(folder)

    def open(self, ref: str | ModelVersion, file: str) -> BinaryIO:
        """Open a file of a version, or one inside its `model.tar.gz`, as a stream; the caller closes it.

        Raises:
            VersionNotFound: There is no such version.
            ModelError: It has no such file.
            IntegrityError: Bytes are not those that were published; nothing is handed out then.
        """
        return open_file(self._version(ref), file)

    def compare(self, left: str | ModelVersion, right: str | ModelVersion) -> Comparison:
        """Put two versions side by side: metrics, hyperparameters, data, code, environment, signature.

        Raises:
            VersionNotFound: There is no such version.
            IntegrityError: A manifest was changed.
        """
        return compare_versions(self._version(left), self._version(right))

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
        name, number = self._number(version)
        return log.aliases.promote(name, number, alias, why=why, expected=expected)

    def rollback(
        self, name: str, alias: str, *, why: str = "", expected: int | EllipsisType | None = ...
    ) -> AliasRecord:
        """Let an alias name again what it named before.

        Args:
            name: The model's name.
            alias: The alias.
            why: For the history.
            expected: The version number that the alias is believed to name; left out, whatever it names.

        Raises:
            AliasConflict: The alias names another version than expected, or somebody else moved it during this call.
            VersionNotFound: It named no other version that is left.
        """
        _, log = self._open()
        return log.aliases.rollback(check_name(name, _WHAT), check_alias(alias), why=why, expected=expected)

    def aliases(self, name: str) -> dict[str, int]:
        """Return every alias of a model and the version that it names."""
        _, log = self._open()
        return log.aliases.all(check_name(name, _WHAT))

    def history(self, name: str, alias: str) -> list[AliasRecord]:
        """Return every move of an alias, newest first: who, when, why, and what it named before."""
        _, log = self._open()
        return list(log.aliases.history(check_name(name, _WHAT), alias))

    def prune(
        self,
        name_or_ref: str | ModelVersion,
        *,
        keep_last: int | None = None,
        keep_newer_than: timedelta | None = None,
        why: str = "",
        dry_run: bool = False,
    ) -> list[ModelVersion]:
        """Delete the files of versions for good. What an alias names is never deleted; numbers are never given again.

        Args:
            name_or_ref: A model's name, with at least one rule of what to keep, or one version, such as `houses@3`.
            keep_last: Keep so many of the newest versions.
            keep_newer_than: Keep the versions that are younger. A version is kept that either rule keeps.
            why: For those who look for the version later.
            dry_run: Delete nothing.

        Returns:
            The versions that were, or with `dry_run` would be, deleted; newest first.

        Raises:
            ConfigError: A name without a rule, or one version with a rule.
            VersionInUse: An alias names the one version.
            VersionNotFound: There is no such model or version.
            StorageError: The store failed. Prune again to finish.
        """
        if isinstance(name_or_ref, ModelVersion) or "@" in str(name_or_ref):
            if keep_last is not None or keep_newer_than is not None:
                raise ConfigError("keep_last and keep_newer_than choose among the versions of a name: leave them out")
            return self._prune_one(name_or_ref, why=why, dry_run=dry_run)
        _, log = self._open()
        name = self._known(name_or_ref)
        aliases = log.aliases.all(name)
        chosen = choose_to_prune(self.versions(name), aliases, keep_last=keep_last, keep_newer_than=keep_newer_than)
        return chosen if dry_run else prune_all(log, chosen, why=why)

    def _prune_one(self, ref: str | ModelVersion, *, why: str, dry_run: bool) -> list[ModelVersion]:
        _, log = self._open()
        name, number = self._number(ref)
        # Read before it is deleted; not through `get`, so that a prune that died can be finished.
        version = ModelVersion.of(log, log.manifest(name, number))
        holding = [alias for alias, named in log.aliases.all(name).items() if named == number]
        if dry_run and holding:
            raise VersionInUse(f"model {version.ref} is kept: the alias {', '.join(holding)} names it")
        if not dry_run:
            log.prune(name, number, why=why)
        return [version]

    def gc(self, name: str | None = None, *, older_than: timedelta = WEEK, dry_run: bool = True) -> list[Orphan]:
        """Find, and with `dry_run=False` delete, files that no version needs: of publishes and prunes that died.

        Args:
            name: The model; None: all of them, and what died builds and writes left in the whole store.
            older_than: Leave younger files alone: a publish may be under way.
            dry_run: Delete nothing.

        Returns:
            What was, or with `dry_run` would be, deleted.

        Raises:
            ConfigError: `older_than` is negative.
            IntegrityError: A manifest is damaged, so that nobody knows which files are its own.
            StorageError: The store failed.
        """
        if older_than < timedelta(0):
            raise ConfigError(f"older_than={older_than!r} is negative")
        _, log = self._open()
        if name is not None and name not in names_with_data(log):
            self._known(name)
        orphans = orphans_of(log, name, older_than=older_than)
        return orphans if dry_run else collect_all(log, orphans)

    def verify(self, ref_or_name: str | ModelVersion | None = None) -> None:
        """Read every file and compare it with its manifest: of one version, all of a model, or everything.

        Args:
            ref_or_name: A version, such as `houses@3`, a model's name for all its versions, or None for all models.

        Raises:
            IntegrityError: Something is damaged; all of it is listed.
            VersionNotFound: There is no such model or version.
        """
        _, log = self._open()
        if isinstance(ref_or_name, ModelVersion) or "@" in (ref_or_name or ""):
            self._version(ref_or_name).verify()  # type: ignore[arg-type]
        else:
            verify_all(log, self.names() if ref_or_name is None else [self._known(ref_or_name)])

    def fsck(self, name: str | None = None, *, read_files: bool = False) -> StoreReport:
        """Look for damage among the records and files, and for files that no version needs.

        Args:
            name: The model; None: all of them.
            read_files: Read every file and compare its SHA-256; otherwise files must be there and have their size.

        Raises:
            VersionNotFound: There is no such model.
            StorageError: The store cannot be read.
        """
        _, log = self._open()
        return inspect_store(log, None if name is None else self._known(name), read_files=read_files)

    def _version(self, ref: str | ModelVersion) -> ModelVersion:
        return ref if isinstance(ref, ModelVersion) else self.get(ref)

    def _number(self, ref: str | ModelVersion) -> tuple[str, int]:
        """Return name and number of a version, without reading it where the number is stated."""
        if isinstance(ref, ModelVersion):
            return ref.name, ref.version
        reference: Reference = parse_reference(ref, _WHAT)
        if isinstance(reference.version, int):
            return reference.name, reference.version
        _, log = self._open()
        return reference.name, log.get(reference).version

    def _known(self, name: str) -> str:
        _, log = self._open()
        if log.top(check_name(name, _WHAT)) == 0:
            log.get(parse_reference(name, _WHAT))  # says what there is instead
        return name

    def _open(self) -> tuple[Settings, VersionLog]:
        if self._opened is None:
            settings = self._given
            if settings is None:
                from smkit.config import Settings

                settings = Settings()
            self._opened = settings, VersionLog(open_store(settings), _KIND, _WHAT, summary_keys=SUMMARY_KEYS)
        return self._opened
