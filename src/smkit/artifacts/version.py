"""One published model version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from smkit.artifacts.publishing import ARCHIVE
from smkit.versioning.manifest import thaw
from smkit.versioning.reading import copy_all

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from smkit.versioning import Manifest, Summary, VersionLog

#: What a list of versions knows of each without reading its manifest.
SUMMARY_KEYS = ("hyperparameters", "inputs", "job", "labels", "metrics", "notes")


class ModelVersion:
    """One version of a model. Made by `ArtifactStore.publish` and found again by `ArtifactStore.get`.

    One of a list knows what the list shows, and reads the rest, its manifest, on first use.

    Args:
        log: The log that it is in.
        name: The model's name.
        version: The version number, from 1.
        manifest: What was published, where it was read already.
        summary: What the list says of it, where it comes from a list.
    """

    def __init__(
        self,
        log: VersionLog,
        name: str,
        version: int,
        *,
        manifest: Manifest | None = None,
        summary: Summary | None = None,
    ) -> None:
        self._log = log
        self._name = name
        self._version = version
        self._manifest = manifest
        self._summary = summary

    @classmethod
    def of(cls, log: VersionLog, manifest: Manifest) -> ModelVersion:
        """Return the version that a manifest describes."""
        return cls(log, manifest.name, manifest.version, manifest=manifest)

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.6g}" for name, value in sorted(self.metrics.items()) if value is not None)
        return f"<ModelVersion {self.ref}{': ' if metrics else ''}{metrics}>"

    def _repr_html_(self) -> str:
        from smkit.artifacts.version_display import version_html

        return version_html(self)

    def __eq__(self, other: object) -> bool:
        """Compare which version it is, of which store."""
        return isinstance(other, ModelVersion) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, str, int]:
        return self._log.store.uri, self._name, self._version

    @property
    def name(self) -> str:
        """The model's name."""
        return self._name

    @property
    def version(self) -> int:
        """The version number, from 1."""
        return self._version

    @property
    def ref(self) -> str:
        """The reference, such as `houses@3`."""
        return f"{self._name}@{self._version}"

    @property
    def manifest(self) -> Manifest:
        """What was published.

        Raises:
            IntegrityError: It was changed.
            StorageError: It cannot be read.
        """
        if self._manifest is None:
            self._manifest = self._log.manifest(self._name, self._version)
        return self._manifest

    @property
    def digest(self) -> str:
        """The content digest: equal for equal files."""
        return (self._summary or self.manifest).content_digest

    @property
    def created_at(self) -> str:
        """When it was published: UTC, ISO 8601."""
        return (self._summary or self.manifest).created_at

    @property
    def created_by(self) -> str:
        """The user's name on the machine that published it."""
        return (self._summary or self.manifest).created_by

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return self._summary.size if self._summary else sum(file.size for file in self.manifest.files)

    @property
    def uri(self) -> str:
        """Where the files lie: a folder or an `s3://` prefix."""
        return f"{self._log.store.uri}/{self.manifest.key_of('')}".rstrip("/")

    @property
    def archive_uri(self) -> str | None:
        """Path or URI of `model.tar.gz`, as SageMaker's `ModelDataUrl` takes it; None if it was published otherwise."""
        return f"{self.uri}/{ARCHIVE}" if any(file.path == ARCHIVE for file in self.manifest.files) else None

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics; None for one that was not finite."""
        return dict(self._fact("metrics"))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters."""
        return dict(self._fact("hyperparameters"))

    @property
    def inputs(self) -> dict[str, Any]:
        """What it was trained on, by channel: a dataset's split gives its reference and digest."""
        return dict(self._fact("inputs"))

    @property
    def datasets(self) -> tuple[str, ...]:
        """The references of the datasets that it was trained on, such as `houses@1`; sorted."""
        found = {source.get("dataset") for source in self.inputs.values() if isinstance(source, dict)}
        return tuple(sorted(ref for ref in found if isinstance(ref, str)))

    @property
    def code(self) -> dict[str, Any]:
        """The digest of the training code, and its git commit and whether it was changed since, where known."""
        return dict(self._fact("code"))

    @property
    def environment(self) -> dict[str, Any]:
        """Python and package versions that trained it."""
        return dict(self._fact("environment"))

    @property
    def signature(self) -> dict[str, Any]:
        """The columns that the model expects, where known."""
        return dict(self._fact("signature"))

    @property
    def job(self) -> dict[str, Any]:
        """The job that trained it, where it was one: `job_name`, `backend`, `image`, `framework_version` and more."""
        return dict(self._fact("job"))

    @property
    def notes(self) -> str:
        """What the publisher said about it."""
        return str(self._body("notes").get("notes") or "")

    @property
    def labels(self) -> dict[str, str]:
        """The publisher's labels."""
        return dict(self._fact("labels"))

    def _fact(self, name: str) -> Mapping[str, Any]:
        value = thaw(self._body(name).get(name))
        return value if isinstance(value, dict) else {}

    def _body(self, name: str) -> Mapping[str, Any]:
        if self._summary is not None and name in SUMMARY_KEYS:
            return self._summary.body
        return self.manifest.body

    def to_dict(self) -> dict[str, Any]:
        """Return everything that is known of the version, as JSON values."""
        manifest = self.manifest
        return {
            "ref": self.ref,
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "created_at": self.created_at,
            "created_by": self.created_by,
            "uri": self.uri,
            "size": self.size,
            "files": [vars(file) for file in manifest.files],
            **thaw(manifest.body),
        }

    def open(self, path: str) -> BinaryIO:
        """Open a file of the version, or one inside its `model.tar.gz`; its bytes were checked. The caller closes it.

        Raises:
            IntegrityError: The bytes are not those that were published.
            ModelError: There is no such file.
            StorageError: The store cannot be read.
        """
        from smkit.artifacts.loading import open_file

        return open_file(self, path)

    def verify(self) -> None:
        """Read every file and compare it with the manifest.

        Raises:
            IntegrityError: Files are missing or changed; all of them are listed.
        """
        self._log.verify(self.manifest)

    def download(self, folder: str | Path) -> Path:
        """Copy the files into a folder, each checked against its SHA-256 on the way; return the folder.

        Raises:
            IntegrityError: Bytes are not those that were published; nothing is left in the folder then.
            StorageError: The folder cannot be written.
        """
        from pathlib import Path

        target = Path(folder)
        copy_all(self._log.store, self.manifest, target)
        return target
