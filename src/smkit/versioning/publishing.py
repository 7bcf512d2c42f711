"""Adding a version to the log: the files first, then the manifest of the next number, put if absent."""

from __future__ import annotations

import dataclasses
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from smkit.errors import ConfigError, IntegrityError, StorageError
from smkit.naming import check_name
from smkit.storage.base import AdoptingStore, CopyingStore
from smkit.versioning.manifest import (
    Manifest,
    StoredFile,
    check_paths,
    data_prefix,
    digest_of_content,
    freeze,
    record_key,
    user_name,
    utc_now,
)
from smkit.versioning.records import put_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from smkit.storage.base import Digest, RemoteObject
    from smkit.versioning.versions import VersionLog

Reuse = Literal["never", "latest", "any"]

#: A collector takes files without a version for an unfinished publish's after a week: a publish that comes to its
#: commit so late, because its machine slept, must not commit what may be gone.
_MAX_HOURS = 6 * 24


@dataclass(frozen=True)
class PendingFile:
    """A file to publish.

    Attributes:
        path: Its relative path in the version.
        open: Returns its bytes as a stream, once.
        digest: What the bytes are, where it is known already: then identical content is found before anything is
            uploaded, and a file that changed since is refused.
        local: A file that holds the bytes and may be moved away: a store on the same disk takes it over unread.
        remote: An object that holds the bytes: a store beside it copies it there. The digest must be known then.
    """

    path: str
    open: Callable[[], BinaryIO]
    digest: Digest | None = None
    local: Path | None = None
    remote: RemoteObject | None = None


class Published(NamedTuple):
    """The version that holds the content, and whether this call made it."""

    manifest: Manifest
    created: bool


class Publisher:
    """Publishes to a log.

    Args:
        log: The log.
    """

    def __init__(self, log: VersionLog) -> None:
        self._log = log

    def publish(
        self,
        name: str,
        files: Iterable[PendingFile],
        body: Callable[[tuple[StoredFile, ...]], Mapping[str, Any]],
        *,
        content: Mapping[str, Any],
        reuse: Reuse,
    ) -> Published:
        """Publish a new version, or return the one that holds the same content; see `VersionLog.publish`."""
        check_name(name, self._log.what)
        pending = tuple(sorted(files, key=lambda file: file.path))
        check_paths(file.path for file in pending)
        for file in pending:
            if file.remote is not None and file.digest is None:
                raise ConfigError(f"{file.path} is to be copied from {file.remote.uri}: give its digest too")
        known = tuple(StoredFile.of(file.path, file.digest) for file in pending if file.digest is not None)
        searched = 0
        if len(known) == len(pending):
            top = self._log.top(name)
            if same := self._find(name, digest_of_content(known, content), reuse):
                return Published(same, created=False)
            searched = top

        publish_id = uuid.uuid4().hex
        begun = time.time()
        try:
            stored = tuple(self._upload(data_prefix(self._log.kind, name, publish_id), file) for file in pending)
            content_digest = digest_of_content(stored, content)
            # In this order: what is published after the top was read has the number that the commit will try first.
            top = self._log.top(name)
            same = self._find(name, content_digest, reuse, newer_than=searched)
            draft = same or self._draft(name, publish_id, stored, content_digest, body(stored))
            self._check_age(name, begun)
        except BaseException:
            self._discard(name, publish_id)
            raise
        if same is not None:
            self._discard(name, publish_id)
            return Published(same, created=False)
        published = self._commit(dataclasses.replace(draft, version=top + 1), reuse)
        if published.created:
            self._log.segments.write_due(name, published.manifest.version)
        return published

    def _check_age(self, name: str, begun: float) -> None:
        hours = (time.time() - begun) / 3600
        if hours > _MAX_HOURS:
            raise StorageError(
                f"{self._log.what} {name!r} was not published: its upload began {hours:,.0f} hours ago, and a "
                f"collector may have taken its files for those of a publish that died; publish again"
            )

    def _upload(self, prefix: str, file: PendingFile) -> StoredFile:
        if file.local is not None and file.digest is not None and isinstance(self._log.store, AdoptingStore):
            if _size_of(file.local) != file.digest.size:
                raise IntegrityError(f"{file.path} changed between writing and publishing: is the disk sound?")
            if self._log.store.adopt(prefix + file.path, file.local):
                return StoredFile.of(file.path, file.digest)
        if file.remote is not None and isinstance(self._log.store, CopyingStore) and file.digest is not None:
            copied = self._log.store.copy(prefix + file.path, file.remote, file.digest.size)
            if copied is not None:
                if not copied.is_of_same_bytes(file.digest):
                    raise IntegrityError(f"{file.remote.uri} does not hold the bytes of {file.path} that it should")
                return StoredFile.of(file.path, file.digest)
        with file.open() as source:
            digest = self._log.store.upload(prefix + file.path, source)
        if file.digest is not None and not digest.is_of_same_bytes(file.digest):
            raise IntegrityError(f"{file.path} changed between writing and publishing: is the disk sound?")
        return StoredFile.of(file.path, digest)

    def _draft(
        self, name: str, publish_id: str, files: tuple[StoredFile, ...], content_digest: str, body: Mapping[str, Any]
    ) -> Manifest:
        """Return the first version's manifest as a reader will see it; `_commit` gives it its number.

        Raises:
            ConfigError: No reader could read it, so it must never be committed.
        """
        try:
            draft = Manifest(
                kind=self._log.kind,
                name=name,
                version=1,
                publish_id=publish_id,
                content_digest=content_digest,
                created_at=utc_now(),
                created_by=user_name(),
                files=files,
                body=freeze(dict(body)),
            )
            return Manifest.decode(draft.encode(), kind=self._log.kind, name=name, version=1, where="the new manifest")
        except IntegrityError as error:
            raise ConfigError(f"cannot publish {self._log.what} {name!r}: {error}") from None
        except RecursionError:
            raise ConfigError(
                f"cannot publish {self._log.what} {name!r}: what describes it is nested too deeply"
            ) from None

    def _commit(self, draft: Manifest, reuse: Reuse) -> Published:
        """Take the next free number. Every outcome of a write is settled by reading what lies there."""
        while True:
            if put_record(
                self._log.store, record_key(f"{draft.kind}/{draft.name}/versions", draft.version), draft.encode()
            ):
                return Published(draft, created=True)
            other = self._intact(draft.name, draft.version)
            if other is not None:
                if other.publish_id == draft.publish_id:
                    return Published(draft, created=True)
                if (
                    reuse != "never"
                    and other.content_digest == draft.content_digest
                    and self._log.tombstone(other.name, other.version) is None
                ):
                    self._discard(draft.name, draft.publish_id)
                    return Published(other, created=False)
            draft = dataclasses.replace(draft, version=draft.version + 1)

    def _discard(self, name: str, publish_id: str) -> None:
        """Delete the files of a publish that no manifest names. What is missed is an orphan, which nobody sees."""
        prefix = data_prefix(self._log.kind, name, publish_id)
        try:
            self._log.store.delete([info.key for info in self._log.store.scan(prefix)])
        except StorageError:
            return

    def _find(self, name: str, content_digest: str, reuse: Reuse, newer_than: int = 0) -> Manifest | None:
        if reuse == "never":
            return None
        for version in self._log.versions(name):
            if version <= newer_than:
                return None
            manifest = self._intact(name, version)
            if manifest is not None and manifest.content_digest == content_digest:
                return manifest
            if reuse == "latest":
                return None
        return None

    def _intact(self, name: str, version: int) -> Manifest | None:
        """Return a manifest, or None where it is damaged: that is no reason not to publish anew."""
        try:
            return self._log.find(name, version)
        except IntegrityError:
            return None


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise StorageError(error.errno, f"cannot read {path}, which is to be stored: {error.strerror}") from error
