"""What was pruned, and what is about to be.

A prune first announces itself, then looks whether an alias names the version, and only then writes the tombstone,
which is never taken back. A promotion first appends its move, then looks for announcements. So of a prune and a
promotion that meet at least one sees the other and steps back, whatever else is under way: each prune takes back only
its own announcement.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smkit.versioning.manifest import number_field, number_of, record_key, seal, user_name, utc_now
from smkit.versioning.records import get_record, put_record, signature

if TYPE_CHECKING:
    from smkit.storage.base import ObjectStore


@dataclass(frozen=True)
class PruneRecord:
    """Who prunes a version, when and why.

    Attributes:
        version: The version.
        at: UTC, ISO 8601.
        by: The user's name on the machine that prunes it.
        why: What the caller said.
        nonce: Tells this prune from any other.
    """

    version: int
    at: str
    by: str
    why: str
    nonce: str


class PruneLog:
    """The tombstones and announcements of all names of one kind.

    Args:
        store: Where they lie.
        kind: `datasets` or `models`.
    """

    def __init__(self, store: ObjectStore, kind: str) -> None:
        self._store = store
        self._kind = kind

    def numbers(self, name: str) -> set[int]:
        """Return the numbers of the versions that were pruned."""
        return {number_of(info.key) for info in self._store.scan(f"{self._kind}/{name}/tombstones/")}

    def tombstone(self, name: str, version: int) -> PruneRecord | None:
        """Return who pruned a version, or None.

        Raises:
            IntegrityError: The tombstone was changed.
        """
        return self._read(self._tombstone_key(name, version), name, version)

    def announced(self, name: str, version: int) -> PruneRecord | None:
        """Return who is about to prune a version, or None.

        Raises:
            IntegrityError: The announcement was changed.
        """
        for info in self._store.scan(self._announcements(name, version)):
            # It may have been taken back since it was listed.
            if record := self._read(info.key, name, version):
                return record
        return None

    def announce(self, name: str, version: int, why: str) -> PruneRecord:
        """Say that a version is about to be pruned: from here on nobody can promote it."""
        record = PruneRecord(version, utc_now(), user_name(), why, uuid.uuid4().hex)
        put_record(self._store, self._announcement_key(name, record), self._seal(name, record))
        return record

    def take_back(self, name: str, record: PruneRecord) -> None:
        """Remove one's own announcement."""
        self._store.delete([self._announcement_key(name, record)])

    def bury(self, name: str, record: PruneRecord) -> None:
        """Write the tombstone. Whose it is does not matter."""
        put_record(self._store, self._tombstone_key(name, record.version), self._seal(name, record))

    def tidy(self, name: str, version: int) -> None:
        """Remove the announcements of a version that has a tombstone, those of prunes that died included."""
        self._store.delete([info.key for info in self._store.scan(self._announcements(name, version))])

    def _seal(self, name: str, record: PruneRecord) -> bytes:
        return seal({"kind": self._kind, "name": name, **vars(record)}, f"the tombstone of {name}@{record.version}")

    def _read(self, key: str, name: str, version: int) -> PruneRecord | None:
        return get_record(
            self._store,
            key,
            lambda members: PruneRecord(version=number_field(members, "version"), **signature(members)),
            what="a tombstone",
            place={"kind": self._kind, "name": name, "version": version},
        )

    def _tombstone_key(self, name: str, version: int) -> str:
        return record_key(f"{self._kind}/{name}/tombstones", version)

    def _announcements(self, name: str, version: int) -> str:
        return f"{record_key(f'{self._kind}/{name}/prunes', version).removesuffix('.json')}/"

    def _announcement_key(self, name: str, record: PruneRecord) -> str:
        return f"{self._announcements(name, record.version)}{record.nonce}.json"
