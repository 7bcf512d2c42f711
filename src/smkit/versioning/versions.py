"""The log of versions of each name: publish, find, list, verify, prune."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from smkit.errors import (
    ConfigError,
    IntegrityError,
    InvalidNameError,
    ObjectNotFound,
    StorageError,
    VersionInUse,
    VersionNotFound,
    did_you_mean,
)
from smkit.naming import LATEST, Reference, check_name
from smkit.storage.base import AdoptingStore, digest_of
from smkit.versioning.aliases import AliasLog
from smkit.versioning.manifest import (
    MAX_RECORD_BYTES,
    Manifest,
    StoredFile,
    check_paths,
    data_prefix,
    digest_of_content,
    freeze,
    number_of,
    record_key,
    user_name,
    utc_now,
)
from smkit.versioning.pruning import PruneLog
from smkit.versioning.records import put_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from smkit.storage.base import Digest, ObjectStore
    from smkit.versioning.pruning import PruneRecord

Reuse = Literal["never", "latest", "any"]


@dataclass(frozen=True)
class PendingFile:
    """A file to publish.

    Attributes:
        path: Its relative path in the version.
        open: Returns its bytes as a stream, once.
        digest: What the bytes are, where it is known already: then identical content is found before anything is
            uploaded, and a file that changed since is refused.
        local: A file that holds the bytes and may be moved away: a store on the same disk takes it over unread.
    """

    path: str
    open: Callable[[], BinaryIO]
    digest: Digest | None = None
    local: Path | None = None


class Published(NamedTuple):
    """The version that holds the content, and whether this call made it."""

    manifest: Manifest
    created: bool


class VersionLog:
    """The versions of all names of one kind.

    Args:
        store: Where they lie.
        kind: `datasets` or `models`.
        what: What one of them is called in messages: `dataset`.
    """

    def __init__(self, store: ObjectStore, kind: str, what: str) -> None:
        self.store = store
        self.kind = kind
        self.what = what
        self._prunes = PruneLog(store, kind)
        self.aliases = AliasLog(store, kind, what, self._prunes, self._must_exist)

    def names(self) -> Iterator[str]:
        """Yield the names that were ever published."""
        for name in self.store.children(self.kind):
            try:
                check_name(name, self.what)
            except InvalidNameError:  # somebody else put it there
                continue
            if next(self.store.scan(f"{self.kind}/{name}/versions/", limit=1), None) is not None:
                yield name

    def publish(
        self,
        name: str,
        files: Iterable[PendingFile],
        body: Callable[[tuple[StoredFile, ...]], Mapping[str, Any]],
        *,
        content: Mapping[str, Any],
        reuse: Reuse,
    ) -> Published:
        """Publish a new version, or return the one that holds the same content.

        Args:
            name: The name to publish under.
            files: The files.
            body: Makes what the manifest says beside the files, once their digests are known.
            content: What counts as content beside the files, for the content digest.
            reuse: Where to look for the same content: nowhere, in the latest version, or in any version.

        Raises:
            InvalidNameError: The name breaks the naming rule.
            ConfigError: Two files have the same path, one lies under another, or the body is not JSON or too large.
            IntegrityError: A file is not what its digest says.
            StorageError: The store failed. No version is visible then, except where the reply to the commit itself was
                lost and could not be asked for again.
        """
        check_name(name, self.what)
        pending = tuple(sorted(files, key=lambda file: file.path))
        check_paths(file.path for file in pending)
        known = tuple(
            StoredFile(file.path, file.digest.size, file.digest.sha256) for file in pending if file.digest is not None
        )
        searched = 0
        if len(known) == len(pending):
            top = self.top(name)
            if same := self._find(name, digest_of_content(known, content), reuse):
                return Published(same, created=False)
            searched = top

        publish_id = uuid.uuid4().hex
        try:
            stored = tuple(self._upload(data_prefix(self.kind, name, publish_id), file) for file in pending)
            content_digest = digest_of_content(stored, content)
            # In this order: what is published after the top was read has the number that the commit will try first.
            top = self.top(name)
            same = self._find(name, content_digest, reuse, newer_than=searched)
            draft = same or self._draft(name, publish_id, stored, content_digest, body(stored))
        except BaseException:
            self._discard(name, publish_id)
            raise
        if same is not None:
            self._discard(name, publish_id)
            return Published(same, created=False)
        return self._commit(dataclasses.replace(draft, version=top + 1), reuse)

    def _upload(self, prefix: str, file: PendingFile) -> StoredFile:
        if file.local is not None and file.digest is not None and isinstance(self.store, AdoptingStore):
            if _size_of(file.local) != file.digest.size:
                raise IntegrityError(f"{file.path} changed between writing and publishing: is the disk sound?")
            if self.store.adopt(prefix + file.path, file.local):
                return StoredFile(file.path, file.digest.size, file.digest.sha256)
        with file.open() as source:
            digest = self.store.upload(prefix + file.path, source)
        if file.digest is not None and digest != file.digest:
            raise IntegrityError(f"{file.path} changed between writing and publishing: is the disk sound?")
        return StoredFile(file.path, digest.size, digest.sha256)

    def _draft(
        self, name: str, publish_id: str, files: tuple[StoredFile, ...], content_digest: str, body: Mapping[str, Any]
    ) -> Manifest:
        """Return the first version's manifest as a reader will see it; `_commit` gives it its number.

        Raises:
            ConfigError: No reader could read it, so it must never be committed.
        """
        try:
            draft = Manifest(
                kind=self.kind,
                name=name,
                version=1,
                publish_id=publish_id,
                content_digest=content_digest,
                created_at=utc_now(),
                created_by=user_name(),
                files=files,
                body=freeze(dict(body)),
            )
            return Manifest.decode(draft.encode(), kind=self.kind, name=name, version=1, where="the new manifest")
        except IntegrityError as error:
            raise ConfigError(f"cannot publish {self.what} {name!r}: {error}") from None
        except RecursionError:
            raise ConfigError(f"cannot publish {self.what} {name!r}: what describes it is nested too deeply") from None

    def _commit(self, draft: Manifest, reuse: Reuse) -> Published:
        """Take the next free number. Every outcome of a write is settled by reading what lies there."""
        while True:
            if put_record(self.store, self._key(draft.name, draft.version), draft.encode()):
                return Published(draft, created=True)
            other = self._intact(draft.name, draft.version)
            if other is not None:
                if other.publish_id == draft.publish_id:
                    return Published(draft, created=True)
                if (
                    reuse != "never"
                    and other.content_digest == draft.content_digest
                    and self.tombstone(other.name, other.version) is None
                ):
                    self._discard(draft.name, draft.publish_id)
                    return Published(other, created=False)
            draft = dataclasses.replace(draft, version=draft.version + 1)

    def _discard(self, name: str, publish_id: str) -> None:
        """Delete the files of a publish that no manifest names. What is missed is an orphan, which nobody sees."""
        prefix = data_prefix(self.kind, name, publish_id)
        try:
            self.store.delete([info.key for info in self.store.scan(prefix)])
        except StorageError:
            return

    def _find(self, name: str, content_digest: str, reuse: Reuse, newer_than: int = 0) -> Manifest | None:
        if reuse == "never":
            return None
        for version in self.versions(name):
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
            return self._at(name, version)
        except IntegrityError:
            return None

    def top(self, name: str) -> int:
        """Return the highest number ever given, 0 where there is none; pruned versions count."""
        check_name(name, self.what)
        newest = next(self.store.scan(f"{self.kind}/{name}/versions/", limit=1), None)
        return number_of(newest.key) if newest else 0

    def versions(self, name: str) -> tuple[int, ...]:
        """Return the numbers of the versions that were not pruned, newest first."""
        check_name(name, self.what)
        numbers = [number_of(info.key) for info in self.store.scan(f"{self.kind}/{name}/versions/")]
        pruned = self._prunes.numbers(name)
        return tuple(number for number in numbers if number not in pruned)

    def manifest(self, name: str, version: int) -> Manifest:
        """Return the manifest of a version, pruned or not.

        Raises:
            VersionNotFound: It was never published.
            IntegrityError: It was changed.
        """
        manifest = self._at(name, version)
        if manifest is None:
            raise self._not_found(name, f"no version {version}")
        return manifest

    def _at(self, name: str, version: int) -> Manifest | None:
        key = self._key(name, version)
        try:
            data = self.store.get(key, max_bytes=MAX_RECORD_BYTES)
        except ObjectNotFound:
            return None
        where = f"{self.store.uri}/{key}"
        return Manifest.decode(data, kind=self.kind, name=name, version=version, where=where)

    def get(self, reference: Reference) -> Manifest:
        """Return the manifest that a reference names: a number, an alias or the latest.

        Raises:
            VersionNotFound: There is none, or it was pruned.
            IntegrityError: It was changed.
        """
        name, version = reference
        check_name(name, self.what)
        if version == LATEST:
            live = self.versions(name)
            if not live:
                raise self._not_found(name, "no version")
            return self.manifest(name, live[0])
        if isinstance(version, str):
            record = self.aliases.current(name, version)
            if record is None or record.version is None:
                known = sorted(self.aliases.all(name))
                raise self._not_found(name, f"no alias {version!r}{did_you_mean(version, known)}")
            version = record.version
        return self._must_exist(name, version)

    def _must_exist(self, name: str, version: int) -> Manifest:
        """Return the manifest of a version that was not pruned."""
        manifest = self.manifest(name, version)
        if tombstone := self.tombstone(name, version):
            raise self._pruned(name, tombstone)
        return manifest

    def _pruned(self, name: str, tombstone: PruneRecord) -> VersionNotFound:
        why = f" ({tombstone.why})" if tombstone.why else ""
        return VersionNotFound(
            f"{self.what} {name}@{tombstone.version} was pruned by {tombstone.by} at {tombstone.at}{why}; "
            f"{self._others(name)}"
        )

    def _not_found(self, name: str, what: str) -> VersionNotFound:
        known = tuple(self.names())
        if name not in known:
            hint = did_you_mean(name, known) or (
                f"; known: {', '.join(known[:10])}" if known else "; there is none yet"
            )
            return VersionNotFound(f"no {self.what} {name!r} in {self.store.uri}{hint}")
        return VersionNotFound(f"{self.what} {name!r} in {self.store.uri} has {what}; {self._others(name)}")

    def _others(self, name: str) -> str:
        live = self.versions(name)
        shown = ", ".join(map(str, live[:10])) + (", ..." if len(live) > 10 else "")
        return f"versions: {shown}" if live else "no version is left"

    def verify(self, manifest: Manifest) -> None:
        """Read every file of a version and compare it with the manifest.

        Raises:
            IntegrityError: Files are missing or changed; all of them are listed.
            VersionNotFound: The version was pruned.
        """
        problems = []
        for file in manifest.files:
            try:
                with self.store.open(manifest.key_of(file.path)) as stream:
                    digest = digest_of(stream)
            except ObjectNotFound:
                problems.append(f"{file.path}: missing")
                continue
            if digest.size != file.size:
                problems.append(f"{file.path}: {digest.size:,} bytes instead of {file.size:,}")
            elif digest.sha256 != file.sha256:
                problems.append(f"{file.path}: its bytes are not those that were published")
        if problems:
            if tombstone := self.tombstone(manifest.name, manifest.version):
                raise self._pruned(manifest.name, tombstone)
            raise IntegrityError(
                f"{self.what} {manifest} is damaged:\n" + "\n".join(f"  - {line}" for line in problems)
            )

    def tombstone(self, name: str, version: int) -> PruneRecord | None:
        """Return who pruned a version, when and why, or None.

        Raises:
            IntegrityError: The tombstone was changed.
        """
        return self._prunes.tombstone(name, version)

    def prune(self, name: str, version: int, *, why: str = "") -> None:
        """Delete the files of a version for good; its number is never given again.

        A prune that died may be called again; it then finishes.

        Raises:
            VersionNotFound: There is no such version.
            VersionInUse: An alias names it.
            IntegrityError: Its manifest was changed, so that nobody knows which files are its own.
            StorageError: The store failed. The version may be hidden already; prune it again.
        """
        manifest = self.manifest(name, version)
        self._refuse_aliased(name, version)
        announcement = self._prunes.announce(name, version, why)
        try:
            # From here on nobody new can promote it; whoever was faster is seen now.
            self._refuse_aliased(name, version)
        except VersionInUse:
            self._prunes.take_back(name, announcement)
            raise
        self._prunes.bury(name, announcement)
        self.store.delete([manifest.key_of(file.path) for file in manifest.files])
        self._prunes.tidy(name, version)

    def _refuse_aliased(self, name: str, version: int) -> None:
        holding = [alias for alias, number in self.aliases.all(name).items() if number == version]
        if holding:
            raise VersionInUse(
                f"{self.what} {name}@{version} is kept: the alias {', '.join(holding)} names it; "
                f"promote another version first"
            )

    def _key(self, name: str, version: int) -> str:
        return record_key(f"{self.kind}/{check_name(name, self.what)}/versions", version)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise StorageError(error.errno, f"cannot read {path}, which is to be stored: {error.strerror}") from error
