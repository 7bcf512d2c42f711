"""Looking after the models of a store: what to prune, what is damaged, what nobody needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from smkit.display import printable, shown_size, shown_time
from smkit.errors import ConfigError, IntegrityError, VersionInUse
from smkit.versioning.maintenance import (
    WEEK,
    Damage,
    check,
    collect,
    find_orphans,
    find_unnamed_leftovers,
    names_with_data,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from smkit.artifacts.version import ModelVersion
    from smkit.versioning import VersionLog
    from smkit.versioning.maintenance import Orphan


@dataclass(frozen=True)
class StoreReport:
    """What `ArtifactStore.fsck` found. True where nothing is damaged; orphans are no damage.

    Attributes:
        names: The models that were looked at.
        damages: What is not as it was written.
        orphans: Files that no version needs; `gc` deletes them. Not known of a model with damaged records.
        read_files: Whether every file was read, or only its size compared.
    """

    names: tuple[str, ...]
    damages: tuple[Damage, ...]
    orphans: tuple[Orphan, ...]
    read_files: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    def __bool__(self) -> bool:
        return self.ok

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "ok": self.ok,
            "names": list(self.names),
            "read_files": self.read_files,
            "damages": [vars(damage) for damage in self.damages],
            "orphans": [orphan_to_dict(orphan) for orphan in self.orphans],
        }

    def __str__(self) -> str:
        models = f"{len(self.names)} {'model' if len(self.names) == 1 else 'models'}"
        how = "every file was read" if self.read_files else "sizes were compared, files were not read"
        lines = [f"{models} checked ({how}): {'no damage' if self.ok else f'{len(self.damages)} damaged'}"]
        lines += [f"  - {printable(str(damage))}" for damage in self.damages]
        if self.orphans:
            size = shown_size(sum(orphan.size for orphan in self.orphans))
            lines.append(f"{size} in {len(self.orphans)} folders that no version needs; gc deletes them:")
            lines += [f"  - {describe_orphan(orphan)}" for orphan in self.orphans]
        return "\n".join(lines)

    __repr__ = __str__


def describe_orphan(orphan: Orphan) -> str:
    """Return one line about an orphan."""
    modified = shown_time(orphan.modified.isoformat())
    where = orphan.leftover.key if orphan.leftover else f"{orphan.name} {orphan.publish_id}"
    return printable(f"{where}: {orphan.why}, {orphan.files} files, {shown_size(orphan.size)}, {modified}")


def orphan_to_dict(orphan: Orphan) -> dict[str, Any]:
    """Return an orphan as JSON values."""
    return {
        "name": orphan.name or None,
        "publish_id": orphan.publish_id or None,
        "leftover": orphan.leftover.key if orphan.leftover else None,
        "files": orphan.files,
        "size": orphan.size,
        "modified": orphan.modified.isoformat(),
        "why": orphan.why,
    }


def orphans_of(log: VersionLog, name: str | None, *, older_than: timedelta) -> list[Orphan]:
    """Return the files that no version needs: of one name, or of all, those without a version and without a name too.

    Raises:
        IntegrityError: A manifest is damaged, so that nobody knows which files are its own.
    """
    if name is not None:
        return find_orphans(log, name, older_than=older_than)
    orphans = [orphan for one in names_with_data(log) for orphan in find_orphans(log, one, older_than=older_than)]
    return orphans + find_unnamed_leftovers(log.store, older_than=older_than)


def collect_all(log: VersionLog, orphans: Iterable[Orphan]) -> list[Orphan]:
    """Delete what is in orphans and return those that were deleted, without those that somebody took up since."""
    collected = []
    for orphan in orphans:
        try:
            collect(log, orphan)
        except VersionInUse:
            continue
        collected.append(orphan)
    return collected


def inspect_store(log: VersionLog, name: str | None, *, read_files: bool) -> StoreReport:
    """Check all records and files of one model or of all; see `ArtifactStore.fsck`."""
    looked_at = tuple(names_with_data(log)) if name is None else (name,)
    damages: list[Damage] = []
    orphans: list[Orphan] = find_unnamed_leftovers(log.store) if name is None else []
    for one in looked_at:
        damages += check(log, one, read_files=read_files)
        try:
            orphans += find_orphans(log, one, older_than=WEEK)
        except IntegrityError as error:
            # Usually said above; a pruned version's manifest is not, but keeps the orphans unknown.
            said = any(str(error) == damage.what for damage in damages)
            damages += [] if said else [Damage(one, str(error))]
    return StoreReport(looked_at, tuple(damages), tuple(orphans), read_files)


def verify_all(log: VersionLog, names: Iterable[str]) -> None:
    """Read every file of some models.

    Raises:
        IntegrityError: Something is damaged; all of it is listed.
    """
    damages = [damage for name in names for damage in check(log, name, read_files=True)]
    if damages:
        listed = "\n".join(f"  - {damage}" for damage in damages)
        raise IntegrityError(f"{len(damages)} damaged in {log.store.uri}:\n{listed}")


def choose_to_prune(
    versions: Iterable[ModelVersion],
    aliases: Mapping[str, int],
    *,
    keep_last: int | None,
    keep_newer_than: timedelta | None,
) -> list[ModelVersion]:
    """Return the versions that no rule keeps and no alias names, newest first.

    Args:
        versions: All live versions, newest first.
        aliases: The version that each alias names.
        keep_last: Keep so many of the newest.
        keep_newer_than: Keep those that are younger.

    Raises:
        ConfigError: There is no rule, or one is malformed.
        IntegrityError: When a version was published cannot be read.
    """
    if keep_last is None and keep_newer_than is None:
        raise ConfigError("say what to keep: keep_last=10, keep_newer_than=timedelta(days=90), or both")
    if keep_last is not None and (isinstance(keep_last, bool) or not isinstance(keep_last, int) or keep_last < 1):
        raise ConfigError(f"keep_last={keep_last!r} is not a number of versions from 1")
    if keep_newer_than is not None and keep_newer_than <= timedelta(0):
        raise ConfigError(f"keep_newer_than={keep_newer_than!r} is not an age: it must be above zero")
    now = datetime.now(timezone.utc)
    named = set(aliases.values())
    chosen = []
    for place, version in enumerate(versions):
        is_kept = (
            version.version in named
            or (keep_last is not None and place < keep_last)
            or (keep_newer_than is not None and now - _published(version) < keep_newer_than)
        )
        if not is_kept:
            chosen.append(version)
    return chosen


def prune_all(log: VersionLog, versions: Iterable[ModelVersion], *, why: str) -> list[ModelVersion]:
    """Prune versions and return those that were pruned, without those that somebody promoted since."""
    pruned = []
    for version in versions:
        try:
            log.prune(version.name, version.version, why=why)
        except VersionInUse:
            continue
        pruned.append(version)
    return pruned


def _published(version: ModelVersion) -> datetime:
    try:
        return datetime.fromisoformat(version.created_at).astimezone(timezone.utc)
    except ValueError:
        raise IntegrityError(
            f"{version.ref} says it was published at {version.created_at!r}, which is no time"
        ) from None
