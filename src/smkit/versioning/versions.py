"""The log of versions of each name: publish, find, list, verify, prune."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from smkit.errors import IntegrityError, ObjectNotFound, StorageError, VersionInUse, VersionNotFound, did_you_mean
from smkit.naming import LATEST, Reference, check_name
from smkit.versioning.aliases import AliasLog
from smkit.versioning.manifest import (
    MAX_RECORD_BYTES,
    Manifest,
    StoredFile,
    canonical,
    data_prefix,
    freeze,
    seal,
    unseal,
    user_name,
    utc_now,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from smkit.storage.base import Digest, ObjectStore

#: A version number n lies under 10^10 - n, so that the newest lists first.
_TOP = 10**10

Reuse = Literal["never", "latest", "any"]


@dataclass(frozen=True)
class PendingFile:
    """A file to publish.

    Attributes:
        path: Its relative path in the version.
        open: Returns its bytes as a stream, once.
        digest: What the bytes are, where it is known already: then identical content is found before anything is
            uploaded, and a file that changed since is refused.
    """

    path: str
    open: Callable[[], BinaryIO]
    digest: Digest | None = None


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
        self.aliases = AliasLog(store, kind, self._must_exist)

    def names(self) -> Iterator[str]:
        """Yield the names that have a version."""
        for name in self.store.children(self.kind):
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
            StorageError: The store failed. No version is visible then, except where the reply to the commit itself was
                lost and could not be asked for again.
        """
        check_name(name, self.what)
        pending = tuple(sorted(files, key=lambda file: file.path))
        known = tuple(
            StoredFile(file.path, file.digest.size, file.digest.sha256) for file in pending if file.digest is not None
        )
        if len(known) == len(pending) and (same := self._find(name, _content_digest(known, content), reuse)):
            return Published(same, created=False)

        publish_id = uuid.uuid4().hex
        stored = self._upload(name, publish_id, pending)
        content_digest = _content_digest(stored, content)
        if len(known) != len(pending) and (same := self._find(name, content_digest, reuse)):
            self._discard(name, publish_id)
            return Published(same, created=False)
        draft = Manifest(
            kind=self.kind,
            name=name,
            version=self.top(name) + 1,
            publish_id=publish_id,
            content_digest=content_digest,
            created_at=utc_now(),
            created_by=user_name(),
            files=stored,
            body=freeze(dict(body(stored))),
        )
        return self._commit(draft, reuse)

    def _upload(self, name: str, publish_id: str, files: tuple[PendingFile, ...]) -> tuple[StoredFile, ...]:
        prefix = data_prefix(self.kind, name, publish_id)
        try:
            return tuple(self._upload_one(prefix, file) for file in files)
        except Exception:
            self._discard(name, publish_id)
            raise

    def _upload_one(self, prefix: str, file: PendingFile) -> StoredFile:
        with file.open() as source:
            digest = self.store.upload(prefix + file.path, source)
        if file.digest is not None and digest != file.digest:
            raise IntegrityError(f"{file.path} changed between writing and publishing: is the disk sound?")
        return StoredFile(file.path, digest.size, digest.sha256)

    def _commit(self, draft: Manifest, reuse: Reuse) -> Published:
        """Take the next free number. Every outcome of a write is settled by reading what lies there."""
        while True:
            try:
                created = self.store.put_if_absent(self._key(draft.name, draft.version), draft.encode())
            except StorageError:
                # The reply may be lost, not the write.
                if (other := self._at(draft.name, draft.version)) and other.publish_id == draft.publish_id:
                    return Published(other, created=True)
                raise
            if created:
                return Published(draft, created=True)
            other = self.manifest(draft.name, draft.version)
            if other.publish_id == draft.publish_id:
                return Published(other, created=True)
            if reuse != "never" and other.content_digest == draft.content_digest:
                self._discard(draft.name, draft.publish_id)
                return Published(other, created=False)
            draft = Manifest(**{**vars(draft), "version": draft.version + 1})

    def _discard(self, name: str, publish_id: str) -> None:
        """Delete the files of a publish that no manifest names. What is missed is an orphan, which nobody sees."""
        prefix = data_prefix(self.kind, name, publish_id)
        try:
            self.store.delete([info.key for info in self.store.scan(prefix)])
        except StorageError:
            return

    def _find(self, name: str, content_digest: str, reuse: Reuse) -> Manifest | None:
        if reuse == "never":
            return None
        for version in self.versions(name):
            manifest = self.manifest(name, version)
            if manifest.content_digest == content_digest:
                return manifest
            if reuse == "latest":
                return None
        return None

    def top(self, name: str) -> int:
        """Return the highest number ever given, 0 where there is none; pruned versions count."""
        newest = next(self.store.scan(f"{self.kind}/{name}/versions/", limit=1), None)
        return _number(newest.key) if newest else 0

    def versions(self, name: str) -> tuple[int, ...]:
        """Return the numbers of the versions that were not pruned, newest first."""
        check_name(name, self.what)
        pruned = {_number(info.key) for info in self.store.scan(f"{self.kind}/{name}/tombstones/")}
        numbers = (_number(info.key) for info in self.store.scan(f"{self.kind}/{name}/versions/"))
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
        if version == LATEST:
            live = self.versions(name)
            if not live:
                raise self._not_found(name, "no version")
            return self.manifest(name, live[0])
        if isinstance(version, str):
            record = self.aliases.current(name, version)
            if record is None:
                known = sorted(self.aliases.names(name))
                raise self._not_found(name, f"no alias {version!r}{did_you_mean(version, known)}")
            version = record.version
        self._must_exist(name, version)
        return self.manifest(name, version)

    def _must_exist(self, name: str, version: int) -> None:
        """Raise unless the version was published and not pruned."""
        if self.tombstone(name, version) is not None:
            raise VersionNotFound(f"{self.what} {name}@{version} was pruned; {self._others(name)}")
        if next(self.store.scan(self._key(name, version), limit=1), None) is None:
            raise self._not_found(name, f"no version {version}")

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
        """
        problems = []
        for file in manifest.files:
            sha256, size = hashlib.sha256(), 0
            try:
                with self.store.open(manifest.key_of(file.path)) as stream:
                    while chunk := stream.read(1 << 20):
                        sha256.update(chunk)
                        size += len(chunk)
            except ObjectNotFound:
                problems.append(f"{file.path}: missing")
                continue
            if size != file.size:
                problems.append(f"{file.path}: {size:,} bytes instead of {file.size:,}")
            elif sha256.hexdigest() != file.sha256:
                problems.append(f"{file.path}: its bytes are not those that were published")
        if problems:
            raise IntegrityError(
                f"{self.what} {manifest} is damaged:\n" + "\n".join(f"  - {line}" for line in problems)
            )

    def tombstone(self, name: str, version: int) -> Mapping[str, Any] | None:
        """Return who pruned a version, when and why, or None."""
        key = self._tombstone_key(name, version)
        try:
            data = self.store.get(key, max_bytes=MAX_RECORD_BYTES)
        except ObjectNotFound:
            return None
        return unseal(data, f"{self.store.uri}/{key}")

    def prune(self, name: str, version: int, *, why: str = "") -> None:
        """Delete the files of a version for good; its number is never given again.

        Raises:
            VersionNotFound: There is no such version.
            VersionInUse: An alias names it.
        """
        manifest = self.manifest(name, version)
        self._refuse_aliased(name, version)
        record = {"version": version, "at": utc_now(), "by": user_name(), "why": why}
        self.store.put_if_absent(self._tombstone_key(name, version), seal(record))
        try:
            # From here on nobody new can promote it; whoever was faster is seen now.
            self._refuse_aliased(name, version)
        except VersionInUse:
            self.store.delete([self._tombstone_key(name, version)])
            raise
        self.store.delete([manifest.key_of(file.path) for file in manifest.files])

    def _refuse_aliased(self, name: str, version: int) -> None:
        holding = [alias for alias, number in self.aliases.all(name).items() if number == version]
        if holding:
            raise VersionInUse(
                f"{self.what} {name}@{version} is kept: the alias {', '.join(holding)} names it; "
                f"promote another version first"
            )

    def _key(self, name: str, version: int) -> str:
        return f"{self.kind}/{name}/versions/{_TOP - version:010}.json"

    def _tombstone_key(self, name: str, version: int) -> str:
        return f"{self.kind}/{name}/tombstones/{_TOP - version:010}.json"


def _content_digest(files: tuple[StoredFile, ...], content: Mapping[str, Any]) -> str:
    listed = [[file.path, file.size, file.sha256] for file in files]
    return hashlib.sha256(canonical({"files": listed, "content": dict(content)})).hexdigest()


def _number(key: str) -> int:
    """Return the number of a record's key.

    Raises:
        IntegrityError: Something else lies among the records.
    """
    stem = key.rpartition("/")[2].removesuffix(".json")
    if len(stem) != 10 or not (stem.isascii() and stem.isdigit()):
        raise IntegrityError(f"{key} is not a record of smkit: somebody else wrote there; move it away")
    return _TOP - int(stem)
