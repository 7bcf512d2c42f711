"""Aliases: one append-only log each, so that history and rollback cost nothing and no move is ever lost.

Compare-and-set is put-if-absent of the next generation. (A conditional overwrite by ETag would not tell an alias that
went from 3 to 4 and back to 3 from one that never moved.)
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smkit.errors import AliasConflict, IntegrityError, StorageError, VersionNotFound
from smkit.naming import check_alias
from smkit.versioning.manifest import MAX_RECORD_BYTES, seal, unseal, user_name, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import EllipsisType

    from smkit.storage.base import ObjectStore

_TOP = 10**10


@dataclass(frozen=True)
class AliasRecord:
    """One move of an alias.

    Attributes:
        generation: Its place in the log, from 1.
        version: The version that the alias names since.
        saw: The version that it named before, or None.
        at: UTC, ISO 8601.
        by: The user's name on the machine that moved it.
        why: What the caller said.
        nonce: Tells this move from any other.
    """

    generation: int
    version: int
    saw: int | None
    at: str
    by: str
    why: str
    nonce: str


class AliasLog:
    """The aliases of all names of one kind.

    Args:
        store: Where they lie.
        kind: `datasets` or `models`.
        must_exist: Raises `VersionNotFound` unless a version of a name exists.
    """

    def __init__(self, store: ObjectStore, kind: str, must_exist: Callable[[str, int], None]) -> None:
        self._store = store
        self._kind = kind
        self._must_exist = must_exist

    def names(self, name: str) -> Iterator[str]:
        """Yield the aliases of a name."""
        yield from self._store.children(f"{self._kind}/{name}/aliases")

    def all(self, name: str) -> dict[str, int]:
        """Return every alias of a name and the version that it names."""
        records = ((alias, self.current(name, alias)) for alias in self.names(name))
        return {alias: record.version for alias, record in records if record is not None}

    def current(self, name: str, alias: str) -> AliasRecord | None:
        """Return the last move of an alias, or None where it was never set."""
        return next(self._records(name, check_alias(alias), limit=1), None)

    def history(self, name: str, alias: str) -> tuple[AliasRecord, ...]:
        """Return every move of an alias, newest first."""
        return tuple(self._records(name, check_alias(alias)))

    def promote(
        self, name: str, version: int, alias: str, *, why: str = "", expected: int | EllipsisType | None = ...
    ) -> AliasRecord:
        """Let an alias name a version.

        Args:
            name: The name.
            version: The version that it shall name.
            alias: The alias.
            why: For the history.
            expected: The version that the caller believes the alias to name, None for none; `...` for whatever it names
                when this call reads it.

        Raises:
            AliasConflict: It names another version, or somebody else moved it during this call.
            VersionNotFound: There is no such version, or it was pruned.
        """
        check_alias(alias)
        self._must_exist(name, version)
        before = self.current(name, alias)
        saw = before.version if before else None
        if expected is not ... and expected != saw:
            raise self._conflict(name, alias, version, expected, before)
        if before is not None and saw == version:
            return before
        record = AliasRecord(
            generation=(before.generation if before else 0) + 1,
            version=version,
            saw=saw,
            at=utc_now(),
            by=user_name(),
            why=why,
            nonce=uuid.uuid4().hex,
        )
        self._append(name, alias, record)
        try:
            self._must_exist(name, version)
        except VersionNotFound:
            # It was pruned during this call: the alias must not name what is gone.
            if before is not None:
                undo = f"{name}@{version} was pruned meanwhile"
                self._append(
                    name,
                    alias,
                    AliasRecord(
                        record.generation + 1, before.version, version, utc_now(), user_name(), undo, uuid.uuid4().hex
                    ),
                )
            raise
        return record

    def _append(self, name: str, alias: str, record: AliasRecord) -> None:
        key = self._key(name, alias, record.generation)
        try:
            if self._store.put_if_absent(key, seal({"name": name, "alias": alias, **vars(record)})):
                return
        except StorageError:
            # The reply may be lost, not the write.
            if not self._is_ours(name, alias, record):
                raise
            return
        if not self._is_ours(name, alias, record):
            raise self._conflict(name, alias, record.version, record.saw, self.current(name, alias))

    def _is_ours(self, name: str, alias: str, record: AliasRecord) -> bool:
        return any(
            move.nonce == record.nonce for move in self._records(name, alias) if move.generation == record.generation
        )

    def _conflict(
        self, name: str, alias: str, version: int, expected: int | None, actual: AliasRecord | None
    ) -> AliasConflict:
        thought = f"{name}@{expected}" if expected else "nothing"
        if actual is None:
            now = "it names nothing"
        else:
            why = f" ({actual.why})" if actual.why else ""
            now = f"{actual.by} moved it to {name}@{actual.version} at {actual.at}{why}"
        return AliasConflict(
            f"alias {alias!r} was not moved to {name}@{version}: it was expected to name {thought}, but {now}; "
            f"look at it and promote again",
            alias=alias,
            expected=expected,
            actual=actual.version if actual else None,
        )

    def _records(self, name: str, alias: str, limit: int | None = None) -> Iterator[AliasRecord]:
        prefix = f"{self._kind}/{name}/aliases/{alias}/"
        for info in self._store.scan(prefix, limit=limit):
            where = f"{self._store.uri}/{info.key}"
            record = unseal(self._store.get(info.key, max_bytes=MAX_RECORD_BYTES), where)
            try:
                move = AliasRecord(**{field: record[field] for field in AliasRecord.__dataclass_fields__})
            except KeyError as error:
                raise IntegrityError(f"{where} is not an alias record of smkit: it has no {error}") from None
            if (record.get("name"), record.get("alias"), self._key(name, alias, move.generation)) != (
                name,
                alias,
                info.key,
            ):
                raise IntegrityError(f"{where} holds another record: it was moved or copied there")
            yield move

    def _key(self, name: str, alias: str, generation: int) -> str:
        return f"{self._kind}/{name}/aliases/{alias}/{_TOP - generation:010}.json"
