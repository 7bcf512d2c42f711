"""Publishing in one line, and a store that calls back before and after each operation."""

from __future__ import annotations

import io
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

from smkit.errors import IntegrityError
from smkit.storage import FolderStore
from smkit.storage.base import Digest, ObjectInfo, ObjectStore, SweepableStore, digest_of
from smkit.versioning import Manifest, PendingFile, VersionLog
from smkit.versioning.maintenance import Orphan, check, collect, find_orphans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from smkit.storage.base import Leftover
    from smkit.versioning.versions import Published, Reuse


def open_log(store: ObjectStore, *summary_keys: str) -> VersionLog:
    return VersionLog(store, "models", "model", summary_keys=summary_keys)


def pending(files: Mapping[str, bytes], *, known: bool = False) -> list[PendingFile]:
    """The files to publish; `known`: their digests are told beforehand."""

    def opener(data: bytes) -> Callable[[], BinaryIO]:
        return lambda: io.BytesIO(data)

    return [
        PendingFile(path, opener(data), digest_of(io.BytesIO(data)) if known else None) for path, data in files.items()
    ]


def publish(
    log: VersionLog,
    files: Mapping[str, bytes] | str = "x",
    *,
    name: str = "houses",
    reuse: Reuse = "never",
    known: bool = False,
    body: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
) -> Published:
    if isinstance(files, str):
        files = {"model.bin": files.encode()}
    return log.publish(name, pending(files, known=known), lambda stored: body or {}, content=content or {}, reuse=reuse)


def read(log: VersionLog, manifest: Manifest) -> dict[str, bytes]:
    """The bytes of all files of a version."""
    return {file.path: log.store.get(manifest.key_of(file.path), max_bytes=1 << 20) for file in manifest.files}


def check_everything(log: VersionLog) -> None:
    """Read all that the log holds, pruned versions' records included.

    Raises:
        IntegrityError: Something was changed.
    """
    for name in log.names():
        live = log.versions(name)
        for number in range(1, log.top(name) + 1):
            manifest = log.manifest(name, number)
            if number in live:
                log.verify(manifest)
            elif log.tombstone(name, number) is None:
                raise IntegrityError(f"{manifest} is hidden but was not pruned")
        for alias in log.aliases.names(name):
            log.aliases.history(name, alias)
            log.aliases.current(name, alias)


def collect_all(log: VersionLog, name: str = "houses", *, older_than: timedelta = timedelta(0)) -> list[Orphan]:
    """Find and collect the orphans of a name; nobody may be publishing."""
    orphans = find_orphans(log, name, older_than=older_than)
    for orphan in orphans:
        collect(log, orphan)
    return orphans


def check_healthy(log: VersionLog, name: str = "houses") -> None:
    """Read all that the log holds, and see that nothing is damaged and no orphan survives a collection."""
    check_everything(log)
    collect_all(log, name)
    assert find_orphans(log, name, older_than=timedelta(0)) == []
    assert [str(damage) for damage in check(log, name, read_files=True)] == []
    live = {log.manifest(name, number).publish_id for number in log.versions(name) if log.manifest(name, number).files}
    prefix = f"{log.kind}/{name}/data/"
    assert {info.key[len(prefix) :].partition("/")[0] for info in log.store.scan(prefix)} == live


def data_folders(root: Path, name: str = "houses") -> set[str]:
    """The publish ids that have files, in a folder store."""
    return {path.name for path in (root / "models" / name / "data").glob("*")}


class CountingStore(FolderStore):
    """A folder that counts the operations, by operation and by the kind of the key."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.counts: Counter[tuple[str, str]] = Counter()

    def _count(self, operation: str, key: str) -> None:
        self.counts[operation, key.split("/")[2]] += 1

    def get(self, key: str, *, max_bytes: int) -> bytes:
        self._count("get", key)
        return super().get(key, max_bytes=max_bytes)

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        self._count("scan", prefix)
        return super().scan(prefix, limit=limit)


class HookedStore:
    """A store that calls `before(operation, key)` and `after(operation, key)` around each operation of another."""

    def __init__(
        self,
        store: ObjectStore,
        before: Callable[[str, str], None] = lambda operation, key: None,
        after: Callable[[str, str], None] = lambda operation, key: None,
    ) -> None:
        self._store = store
        self._before = before
        self._after = after

    @property
    def uri(self) -> str:
        return self._store.uri

    def local_path(self, key: str) -> Path | None:
        return self._store.local_path(key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._before("put", key)
        created = self._store.put_if_absent(key, data)
        self._after("put", key)
        return created

    def upload(self, key: str, source: BinaryIO) -> Digest:
        self._before("upload", key)
        digest = self._store.upload(key, source)
        self._after("upload", key)
        return digest

    def get(self, key: str, *, max_bytes: int) -> bytes:
        self._before("get", key)
        data = self._store.get(key, max_bytes=max_bytes)
        self._after("get", key)
        return data

    def open(self, key: str) -> BinaryIO:
        self._before("open", key)
        stream = self._store.open(key)
        self._after("open", key)
        return stream

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        self._before("scan", prefix)
        found = list(self._store.scan(prefix, limit=limit))
        self._after("scan", prefix)
        return iter(found)

    def children(self, prefix: str) -> Iterator[str]:
        self._before("children", prefix)
        found = list(self._store.children(prefix))
        self._after("children", prefix)
        return iter(found)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:  # one by one: a crash may come between any two
            self._before("delete", key)
            self._store.delete([key])
            self._after("delete", key)

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        self._before("leftovers", prefix)
        assert isinstance(self._store, SweepableStore)
        found = list(self._store.leftovers(prefix))
        self._after("leftovers", prefix)
        return iter(found)

    def sweep(self, leftover: Leftover) -> None:
        self._before("sweep", leftover.key)
        assert isinstance(self._store, SweepableStore)
        self._store.sweep(leftover)
        self._after("sweep", leftover.key)
