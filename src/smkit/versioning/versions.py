"""The log of versions of each name: find, list, verify, prune; `publishing` adds to it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from smkit.errors import (
    IntegrityError,
    InvalidNameError,
    ObjectNotFound,
    OfflineWarning,
    StoreUnreachable,
    VersionInUse,
    VersionNotFound,
    did_you_mean,
)
from smkit.naming import LATEST, Reference, check_name
from smkit.storage.base import digest_of
from smkit.versioning.aliases import AliasLog
from smkit.versioning.cache import ManifestCache
from smkit.versioning.manifest import MAX_RECORD_BYTES, Manifest, StoredFile, number_of, record_key
from smkit.versioning.pruning import PruneLog
from smkit.versioning.publishing import PendingFile, Published, Publisher, Reuse
from smkit.versioning.segments import SegmentLog, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from smkit.storage.base import ObjectStore
    from smkit.versioning.pruning import PruneRecord

__all__ = ["PendingFile", "Published", "Reuse", "VersionLog"]


class VersionLog:
    """The versions of all names of one kind.

    Args:
        store: Where they lie.
        kind: `datasets` or `models`.
        what: What one of them is called in messages: `dataset`.
        summary_keys: The members of a manifest's body that a list shows.
    """

    def __init__(self, store: ObjectStore, kind: str, what: str, *, summary_keys: tuple[str, ...] = ()) -> None:
        self.store = store
        self.kind = kind
        self.what = what
        self._prunes = PruneLog(store, kind)
        self.aliases = AliasLog(store, kind, what, self._prunes, self._must_exist)
        self.segments = SegmentLog(store, kind, summary_keys, self.manifest)
        self._known = ManifestCache(store, kind)
        self._publisher = Publisher(self)

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
            StorageError: The store failed, or the files took longer to upload than six days. No version is visible
                then, except where the reply to the commit itself was lost and could not be asked for again.
        """
        return self._publisher.publish(name, files, body, content=content, reuse=reuse)

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
        self._known.forget(name, pruned)
        return tuple(number for number in numbers if number not in pruned)

    def summaries(self, name: str) -> tuple[Summary, ...]:
        """Return what a list shows of the versions that were not pruned, newest first.

        A long list costs few requests: see `segments`.

        Raises:
            IntegrityError: The manifest of one of them was changed.
            StorageError: The store cannot be read.
        """
        return tuple(self.segments.summaries(name, self.versions(name)).values())

    def find(self, name: str, version: int) -> Manifest | None:
        """Return the manifest of a version, pruned or not, or None where it was never published.

        Raises:
            IntegrityError: It was changed.
        """
        return self._at(name, version)

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

        Where a remote store cannot be reached, a number that was read before is found in the cache of this machine,
        with an `OfflineWarning`; what else an alias or `latest` would name by now, nobody knows.

        Raises:
            VersionNotFound: There is none, or it was pruned.
            IntegrityError: It was changed.
            StoreUnreachable: The store does not answer, and the version is not known here, or not named by its number.
        """
        name, version = reference
        check_name(name, self.what)
        if isinstance(version, int):
            return self._online_or_known(name, version)
        try:
            manifest = self._resolve(name, version)
        except StoreUnreachable as error:
            known = self._known.numbers(name)
            here = f" (known here: {', '.join(map(str, known[:10]))})" if known else ""
            raise StoreUnreachable(
                f"{error}; what {name}@{version} names can be told only by the store: name an exact version, such as "
                f"{name}@{known[0] if known else 3}, which is found offline once it was read{here}"
            ) from error
        self._known.keep(manifest)
        return manifest

    def _resolve(self, name: str, version: str) -> Manifest:
        if version == LATEST:
            live = self.versions(name)
            if not live:
                raise self._not_found(name, "no version")
            return self.manifest(name, live[0])
        record = self.aliases.current(name, version)
        if record is None or record.version is None:
            known = sorted(self.aliases.all(name))
            raise self._not_found(name, f"no alias {version!r}{did_you_mean(version, known)}")
        return self._must_exist(name, record.version)

    def _online_or_known(self, name: str, version: int) -> Manifest:
        try:
            manifest = self._must_exist(name, version)
        except StoreUnreachable as error:
            known = self._known.find(name, version)
            if known is None:
                raise
            warnings.warn(
                f"{self.what} {known} is taken from the cache of this machine: {error}", OfflineWarning, stacklevel=4
            )
            return known
        self._known.keep(manifest)
        return manifest

    def _must_exist(self, name: str, version: int) -> Manifest:
        """Return the manifest of a version that was not pruned."""
        manifest = self.manifest(name, version)
        if tombstone := self.tombstone(name, version):
            self._known.forget(name, {version})
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

    def pruned(self, name: str) -> set[int]:
        """Return the numbers of the versions that were pruned."""
        return self._prunes.numbers(check_name(name, self.what))

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
        self._known.forget(name, {version})
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
