"""Looking after a store: what is damaged, and what nobody needs any more.

Nothing here is needed for a store to be right: a crash leaves orphans, which nobody sees, and never a half version.

What is deleted is decided by manifests and tombstones alone, never by a segment, and only where all of them can be
read. A tombstone is never taken back, so the files of a pruned version can go at once. Files that no manifest names may
belong to a publish that is under way: they wait for a week, and a publish that took longer than six days refuses to
commit. Before they go, what was published since they were found is looked at again.
"""

from __future__ import annotations

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from smkit.errors import IntegrityError, InvalidNameError, SmkitError, StoreUnreachable, VersionInUse, VersionNotFound
from smkit.naming import check_name
from smkit.storage.base import Leftover, ObjectInfo, SweepableStore
from smkit.versioning.manifest import data_prefix, number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from smkit.storage.base import ObjectStore
    from smkit.versioning.manifest import Manifest
    from smkit.versioning.versions import VersionLog

_THREADS = 16
#: No upload lasts a week; `publishing` refuses to commit one that took six days.
WEEK = timedelta(days=7)
UNFINISHED_PUBLISH = "unfinished publish"
PRUNED_VERSION = "pruned version"
UNFINISHED_WRITE = "unfinished write"

_PUBLISH_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Orphan:
    """Files that no version needs.

    Attributes:
        name: The name that they were published under; empty for what lies under no name.
        publish_id: Their folder under `data/`; empty for what an unfinished write left.
        files: How many there are.
        size: Their size in bytes; of an unfinished upload to S3 it is not known, and 0.
        modified: When the newest was written, UTC.
        why: `unfinished publish`, `pruned version` or `unfinished write`.
        seen: The highest version when they were found.
        leftover: What an unfinished write left, or None.
    """

    name: str
    publish_id: str
    files: int
    size: int
    modified: datetime
    why: str
    seen: int = 0
    leftover: Leftover | None = None


@dataclass(frozen=True)
class Damage:
    """Something in a store that is not as it was written.

    Attributes:
        where: The version, alias or object.
        what: What is wrong with it.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def names_with_data(log: VersionLog) -> list[str]:
    """Return every name that anything lies under, also one that no version of was ever published."""
    return [name for name in log.store.children(log.kind) if _is_name(name, log.what)]


def find_orphans(log: VersionLog, name: str, *, older_than: timedelta = WEEK) -> list[Orphan]:
    """Return the files of a name that no version needs.

    Those of a pruned version count at once, others only after `older_than`: before that a publish may be under way.
    With less than a week, nobody may be publishing under the name.

    Raises:
        InvalidNameError: The name breaks the naming rule.
        IntegrityError: A manifest is damaged or missing, so that nobody knows which files are its own.
        StorageError: The store cannot be read.
    """
    check_name(name, log.what)
    before = datetime.now(timezone.utc) - older_than
    # In this order: what is committed after the files were listed is seen as a version.
    folders = _data_folders(log, name)
    manifests = _manifests(log, name) if folders else {}
    # And in this: a version that is not seen as pruned is kept.
    pruned = log.pruned(name)
    if folders:
        _refuse_gaps(log, name, manifests.keys(), pruned)
    owners = {manifest.publish_id: number for number, manifest in manifests.items()}
    seen = max(manifests, default=0)
    orphans = []
    for folder in folders:
        owner = owners.get(folder.publish_id)
        if owner in pruned:
            orphans.append(dataclasses.replace(folder, why=PRUNED_VERSION, seen=seen))
        elif owner is None and folder.modified <= before:
            orphans.append(dataclasses.replace(folder, seen=seen))
    orphans += _leftovers(log.store, name, f"{log.kind}/{name}/", before)
    return orphans


def find_unnamed_leftovers(store: ObjectStore, *, older_than: timedelta = WEEK) -> list[Orphan]:
    """Return what unfinished writes left that belongs to no name: the folders of builds that died.

    Raises:
        StorageError: The store cannot be read.
    """
    before = datetime.now(timezone.utc) - older_than
    return [
        orphan for orphan in _leftovers(store, "", "", before) if orphan.leftover and "/" not in orphan.leftover.key
    ]


def collect(log: VersionLog, orphan: Orphan) -> None:
    """Delete the files of an orphan; what is gone already is no error.

    Raises:
        VersionInUse: It is none any more: somebody wrote to it, or published it, since it was found.
        IntegrityError: A manifest is damaged, so that nobody knows which files are its own.
        StorageError: The store failed; what is left is found again.
    """
    if orphan.leftover is not None:
        if isinstance(log.store, SweepableStore):
            log.store.sweep(orphan.leftover)
        return
    prefix = data_prefix(log.kind, check_name(orphan.name, log.what), orphan.publish_id)
    if not _PUBLISH_ID.fullmatch(orphan.publish_id):
        raise IntegrityError(f"{log.store.uri}/{prefix} is no folder of a publish: it is left alone")
    found = list(log.store.scan(prefix))
    if orphan.why == UNFINISHED_PUBLISH:
        if any(info.modified > orphan.modified for info in found):
            raise VersionInUse(f"{log.store.uri}/{prefix} is kept: it was written to since it was found")
        for number in range(orphan.seen + 1, log.top(orphan.name) + 1):
            if log.manifest(orphan.name, number).publish_id == orphan.publish_id:
                raise VersionInUse(f"{log.store.uri}/{prefix} is kept: it is {orphan.name}@{number} by now")
    log.store.delete([info.key for info in found])


def check(log: VersionLog, name: str, *, read_files: bool = False) -> Iterator[Damage]:
    """Yield what is damaged among the records and files of a name.

    What others publish and prune meanwhile is no damage.

    Args:
        log: The versions.
        name: The name.
        read_files: Whether to read every file and compare its SHA-256; otherwise files must be there and have their
            size, which takes one listing.

    Raises:
        InvalidNameError: The name breaks the naming rule.
        StorageError: The store cannot be read.
    """
    check_name(name, log.what)
    try:
        numbers = _numbers(log.store.scan(f"{log.kind}/{name}/versions/"))
        pruned = log.pruned(name)
    except IntegrityError as error:
        yield Damage(f"{log.kind}/{name}", str(error))
        return
    # After the versions: the files of all that were found are there by now, unless they are pruned meanwhile.
    sizes = {info.key: info.size for info in log.store.scan(f"{log.kind}/{name}/data/")}
    yield from (Damage(f"{name}@{number}", "its manifest was deleted") for number in _gaps(numbers, pruned))
    with ThreadPoolExecutor(_THREADS) as pool:
        tasks = [pool.submit(_check_version, log, name, number, None if read_files else sizes) for number in numbers]
        for task in tasks:
            yield from task.result()
    for alias in log.aliases.names(name):
        yield from _check_alias(log, name, alias)
    for where, what in log.segments.damaged(name):
        yield Damage(where, f"{what}; delete it, lists read the manifests instead")


def _is_name(name: str, what: str) -> bool:
    try:
        check_name(name, what)
    except InvalidNameError:  # somebody else put it there
        return False
    return True


def _data_folders(log: VersionLog, name: str) -> list[Orphan]:
    """Return the folders of all publishes, as if each were unfinished."""
    prefix = f"{log.kind}/{name}/data/"
    folders: dict[str, list[ObjectInfo]] = {}
    for info in log.store.scan(prefix):
        publish_id, slash, _ = info.key[len(prefix) :].partition("/")
        # What is no publish's, somebody else put there.
        if slash and _PUBLISH_ID.fullmatch(publish_id):
            folders.setdefault(publish_id, []).append(info)
    return [
        Orphan(
            name,
            publish_id,
            len(files),
            sum(info.size for info in files),
            max(info.modified for info in files),
            UNFINISHED_PUBLISH,
        )
        for publish_id, files in folders.items()
    ]


def _manifests(log: VersionLog, name: str) -> dict[int, Manifest]:
    numbers = _numbers(log.store.scan(f"{log.kind}/{name}/versions/"))
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(numbers, pool.map(lambda number: log.manifest(name, number), numbers), strict=True))


def _numbers(infos: Iterable[ObjectInfo]) -> list[int]:
    return [number_of(info.key) for info in infos]


def _gaps(numbers: Iterable[int], later: Iterable[int]) -> list[int]:
    """Return the numbers that are missing: they are given one after the other, and manifests are never deleted."""
    found = set(numbers)
    return sorted(set(range(1, max([*found, *later], default=0) + 1)) - found)


def _refuse_gaps(log: VersionLog, name: str, numbers: Iterable[int], pruned: Iterable[int]) -> None:
    named = log.aliases.all(name).values()
    # A move of an alias and a tombstone come after the manifest, but may be newer than the list of manifests.
    gaps = [number for number in _gaps(numbers, [*pruned, *named]) if log.find(name, number) is None]
    if gaps:
        raise IntegrityError(
            f"the manifest of {log.what} {name}@{gaps[0]} was deleted, so nobody knows which files are its own: put it "
            f"back, from an older version of the object if the bucket keeps them"
        )


def _leftovers(store: ObjectStore, name: str, prefix: str, before: datetime) -> Iterator[Orphan]:
    if not isinstance(store, SweepableStore):
        return
    for leftover in store.leftovers(prefix):
        if leftover.modified <= before:
            yield Orphan(
                name,
                "",
                leftover.files,
                leftover.size,
                leftover.modified,
                UNFINISHED_WRITE,
                leftover=leftover,
            )


def _check_version(log: VersionLog, name: str, number: int, sizes: dict[str, int] | None) -> list[Damage]:
    """Return what is wrong with a version; `sizes` are those of the stored files, None to read them all."""
    try:
        tombstone = log.tombstone(name, number)
        manifest = log.find(name, number)
        if manifest is None:
            return [Damage(f"{name}@{number}", "its manifest was deleted")]
        if tombstone is None and sizes is None:
            log.verify(manifest)
    except VersionNotFound:  # pruned since it was listed
        return []
    except StoreUnreachable:
        raise
    except SmkitError as error:
        return [Damage(f"{name}@{number}", str(error))]
    wrong = [] if tombstone is not None or sizes is None else _check_sizes(manifest, sizes)
    return wrong if not wrong or log.tombstone(name, number) is None else []


def _check_sizes(manifest: Manifest, sizes: dict[str, int]) -> list[Damage]:
    damages = []
    for file in manifest.files:
        size = sizes.get(manifest.key_of(file.path))
        if size is None:
            damages.append(Damage(str(manifest), f"{file.path} is missing"))
        elif size != file.size:
            damages.append(Damage(str(manifest), f"{file.path} has {size:,} bytes instead of {file.size:,}"))
    return damages


def _check_alias(log: VersionLog, name: str, alias: str) -> Iterator[Damage]:
    where = f"alias {alias} of {name}"
    try:
        log.aliases.history(name, alias)
        named = log.aliases.current(name, alias)
        if named is None or named.version is None:
            return
        if log.find(name, named.version) is None:
            yield Damage(where, f"it names {name}@{named.version}, which was never published")
        elif log.tombstone(name, named.version) is not None and log.aliases.current(name, alias) == named:
            yield Damage(where, f"it names {name}@{named.version}, which was pruned")
    except StoreUnreachable:
        raise
    except SmkitError as error:
        yield Damage(where, str(error))
