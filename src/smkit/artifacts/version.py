"""One published model version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smkit.artifacts.publishing import ARCHIVE
from smkit.versioning.manifest import thaw
from smkit.versioning.reading import copy_all

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from smkit.versioning import Manifest, VersionLog


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model. Made by `ArtifactStore.publish` and found again by `ArtifactStore.get`.

    Attributes:
        manifest: What was published.
    """

    manifest: Manifest
    _log: VersionLog

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.6g}" for name, value in sorted(self.metrics.items()) if value is not None)
        return f"<ModelVersion {self.ref}{': ' if metrics else ''}{metrics}>"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The version number, from 1."""
        return self.manifest.version

    @property
    def ref(self) -> str:
        """The reference, such as `houses@3`."""
        return str(self.manifest)

    @property
    def digest(self) -> str:
        """The content digest: equal for equal files."""
        return self.manifest.content_digest

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
        """The job that trained it, where it was one."""
        return dict(self._fact("job"))

    @property
    def notes(self) -> str:
        """What the publisher said about it."""
        return str(self.manifest.body.get("notes", ""))

    @property
    def labels(self) -> dict[str, str]:
        """The publisher's labels."""
        return dict(self._fact("labels"))

    def _fact(self, name: str) -> Mapping[str, Any]:
        value: Mapping[str, Any] = thaw(self.manifest.body.get(name) or {})
        return value

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
