"""Aliases: one append-only log each, so that history and rollback cost nothing and no move is ever lost.

Compare-and-set is put-if-absent of the next generation. (A conditional overwrite by ETag would not tell an alias that
went from 3 to 4 and back to 3 from one that never moved.)
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smkit.errors import AliasConflict, IntegrityError, InvalidNameError, VersionNotFound
from smkit.naming import check_alias, check_name
from smkit.versioning.manifest import number_field, number_of, record_key, seal, user_name, utc_now
from smkit.versioning.records import get_record, put_record, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import EllipsisType

    from smkit.storage.base import ObjectStore
    from smkit.versioning.pruning import PruneLog


#: How the reason of a move begins that takes back the one before it, which nobody was told had happened.
_TAKEN_BACK = "taken back: "


@dataclass(frozen=True)
class AliasRecord:
    """One move of an alias.

    Attributes:
        generation: Its place in the log, from 1.
        version: The version that the alias names since; None for none, where a first move was taken back.
        saw: The version that it named before, or None.
        at: UTC, ISO 8601.
        by: The user's name on the machine that moved it.
        why: What the caller said.
        nonce: Tells this move from any other.
    """

    generation: int
    version: int | None
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
        what: What one of them is called in messages: `dataset`.
        prunes: What was pruned, or is about to be.
        must_exist: Raises `VersionNotFound` unless a version of a name exists.
    """

    def __init__(
        self, store: ObjectStore, kind: str, what: str, prunes: PruneLog, must_exist: Callable[[str, int], object]
    ) -> None:
        self._store = store
        self._kind = kind
        self._what = what
        self._prunes = prunes
        self._must_exist = must_exist

    def names(self, name: str) -> Iterator[str]:
        """Yield the aliases of a name that were ever set."""
        for alias in self._store.children(self._folder(name)):
            # What is no alias, somebody else put there; smkit never reads it.
            with contextlib.suppress(InvalidNameError):
                yield check_alias(alias)

    def all(self, name: str) -> dict[str, int]:
        """Return every alias of a name and the version that it names."""
        records = ((alias, self.current(name, alias)) for alias in self.names(name))
        return {alias: record.version for alias, record in records if record is not None and record.version is not None}

    def current(self, name: str, alias: str) -> AliasRecord | None:
        """Return the move of an alias that counts, or None where it was never set.

        It is the last one. Only where a promotion died while the version was being pruned, it is the one before.

        Raises:
            IntegrityError: It was changed.
        """
        newest = self._newest(name, check_alias(alias))
        if newest is None or newest.version is None or self._prunes.tombstone(name, newest.version) is None:
            return newest
        before = self._at(name, alias, newest.generation - 1) if newest.generation > 1 else None
        if before is None or before.version is None or self._prunes.tombstone(name, before.version) is not None:
            return newest
        return before

    def history(self, name: str, alias: str) -> tuple[AliasRecord, ...]:
        """Return every move of an alias, newest first.

        Raises:
            IntegrityError: One was changed.
        """
        newest = self._newest(name, check_alias(alias))
        return tuple(self._moves(name, alias, newest)) if newest else ()

    def _moves(self, name: str, alias: str, newest: AliasRecord) -> Iterator[AliasRecord]:
        """Yield a move and those before it, newest first; each is read when it is asked for."""
        yield newest
        for generation in range(newest.generation - 1, 0, -1):
            before = self._at(name, alias, generation)
            if before is None:
                raise IntegrityError(
                    f"{self._store.uri}/{self._key(name, alias, generation)} is missing: moves are never deleted"
                )
            yield before

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
            VersionNotFound: There is no such version, or it was pruned, or is being pruned.
            IntegrityError: The version's manifest, or the alias, was changed.
            StorageError: The store failed. The alias may have been moved all the same.
        """
        check_alias(alias)
        newest = self._newest(name, alias)
        before = self.current(name, alias)
        self._must_stay(name, version)
        saw = before.version if before else None
        if expected is not ... and expected != saw:
            raise self._conflict(name, alias, f"moved to {_named(name, version)}", expected, before)
        if before is not None and saw == version:
            return before
        record = _move((newest.generation if newest else 0) + 1, version, saw, why)
        return self._move_on(name, alias, record, version)

    def rollback(
        self, name: str, alias: str, *, why: str = "", expected: int | EllipsisType | None = ...
    ) -> AliasRecord:
        """Let an alias name again what it named before: the last other version in its history that was not pruned.

        So a second rollback goes forward again.

        Args:
            name: The name.
            alias: The alias.
            why: For the history.
            expected: The version that the caller believes the alias to name; `...` for whatever it names when this call
                reads it.

        Raises:
            AliasConflict: It names another version, or somebody else moved it during this call.
            VersionNotFound: It named no other version that is left, or that one is being pruned.
            IntegrityError: The version's manifest, or the history, was changed.
            StorageError: The store failed. The alias may have been moved all the same.
        """
        newest = self._newest(name, check_alias(alias))
        now = self.current(name, alias)
        saw = now.version if now else None
        if expected is not ... and expected != saw:
            raise self._conflict(name, alias, "rolled back", expected, now)
        if newest is None or saw is None:
            raise VersionNotFound(f"alias {alias!r} of {self._what} {name!r} cannot be rolled back: it names nothing")
        target = self._last_other(name, alias, newest, saw)
        self._must_stay(name, target)
        return self._move_on(name, alias, _move(newest.generation + 1, target, saw, why), target)

    def _last_other(self, name: str, alias: str, newest: AliasRecord, now: int) -> int:
        """Return what an alias named last that is not what it names now and was not pruned."""
        pruned = set()
        later: AliasRecord | None = None
        for move in self._moves(name, alias, newest):
            undone = later is not None and later.why.startswith(_TAKEN_BACK) and later.saw == move.version
            later = move
            if move.version in {None, now} or undone:
                continue
            if self._prunes.tombstone(name, move.version) is None:
                return move.version
            pruned.add(move.version)
        gone = f"; {', '.join(f'{name}@{number}' for number in sorted(pruned))} was pruned" if pruned else ""
        raise VersionNotFound(
            f"alias {alias!r} of {self._what} {name!r} cannot be rolled back: before {name}@{now} it named nothing "
            f"that is left{gone}; promote another version instead"
        )

    def _move_on(self, name: str, alias: str, record: AliasRecord, version: int) -> AliasRecord:
        """Append a move to a version, and take it back where the version is being pruned."""
        self._append(name, alias, record)
        try:
            self._must_stay(name, version)
        except VersionNotFound:
            # Somebody who moved the alias on since has seen this move; then there is nothing to take back.
            with contextlib.suppress(AliasConflict):
                undo = f"{_TAKEN_BACK}{name}@{version} was being pruned"
                self._append(name, alias, _move(record.generation + 1, record.saw, version, undo))
            raise
        return record

    def _must_stay(self, name: str, version: int) -> None:
        # In this order: a prune removes its announcement after it has written the tombstone.
        prune = self._prunes.announced(name, version)
        self._must_exist(name, version)
        if prune is not None:
            raise VersionNotFound(
                f"{self._what} {name}@{version} is being pruned by {prune.by} since {prune.at}; name another version, "
                f"or, if that prune died, prune it again to finish"
            )

    def _append(self, name: str, alias: str, record: AliasRecord) -> None:
        content = {"kind": self._kind, "name": name, "alias": alias, **vars(record)}
        data = seal(content, f"the move of the alias {alias!r}")
        if not put_record(self._store, self._key(name, alias, record.generation), data):
            winner = self._at(name, alias, record.generation)
            if winner is None or winner.nonce != record.nonce:
                raise self._conflict(name, alias, f"moved to {_named(name, record.version)}", record.saw, winner)

    def _conflict(
        self, name: str, alias: str, action: str, expected: int | None, actual: AliasRecord | None
    ) -> AliasConflict:
        if actual is None:
            now = "it names nothing"
        else:
            why = f" ({actual.why})" if actual.why else ""
            now = f"{actual.by} moved it to {_named(name, actual.version)} at {actual.at}{why}"
        return AliasConflict(
            f"alias {alias!r} was not {action}: it was expected to name "
            f"{_named(name, expected)}, but {now}; look at it and promote again",
            alias=alias,
            expected=expected,
            actual=actual.version if actual else None,
        )

    def _newest(self, name: str, alias: str) -> AliasRecord | None:
        for info in self._store.scan(f"{self._folder(name)}/{alias}/", limit=1):
            return self._at(name, alias, number_of(info.key))
        return None

    def _at(self, name: str, alias: str, generation: int) -> AliasRecord | None:
        return get_record(
            self._store,
            self._key(name, alias, generation),
            lambda members: AliasRecord(
                generation=number_field(members, "generation"),
                version=_version_or_none(members, "version"),
                saw=_version_or_none(members, "saw"),
                **signature(members),
            ),
            what="an alias record",
            place={"kind": self._kind, "name": name, "alias": alias, "generation": generation},
        )

    def _folder(self, name: str) -> str:
        return f"{self._kind}/{check_name(name, self._what)}/aliases"

    def _key(self, name: str, alias: str, generation: int) -> str:
        return record_key(f"{self._folder(name)}/{alias}", generation)


def _move(generation: int, version: int | None, saw: int | None, why: str) -> AliasRecord:
    return AliasRecord(generation, version, saw, utc_now(), user_name(), why, uuid.uuid4().hex)


def _named(name: str, version: int | None) -> str:
    return f"{name}@{version}" if version else "nothing"


def _version_or_none(record: dict[str, object], name: str) -> int | None:
    return None if name in record and record[name] is None else number_field(record, name)
