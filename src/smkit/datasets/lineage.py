"""Which dataset versions a version was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from smkit.errors import InvalidNameError, VersionNotFound
from smkit.naming import parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.versioning import Manifest, VersionLog

Relation = Literal["append", "source"]


@dataclass(frozen=True)
class Parent:
    """A dataset version that another was made from.

    Attributes:
        ref: Its reference, such as `houses@1`.
        relation: `append`: the child holds its rows and new ones. `source`: the child's rows were read from it.
        digest: Its content digest.
        uri: Where its files lay.
        child: The reference of the version that was made from it.
    """

    ref: str
    relation: Relation
    digest: str
    uri: str
    child: str

    def to_dict(self) -> dict[str, Any]:
        """Return the parent as JSON values."""
        return dict(vars(self))


def parents_of(manifest: Manifest) -> tuple[Parent, ...]:
    """Return the versions that a version was made from."""
    listed: tuple[Mapping[str, Any], ...] = manifest.body.get("parents", ())
    return tuple(Parent(one["ref"], one["relation"], one["digest"], one["uri"], child=str(manifest)) for one in listed)


def ancestors_of(log: VersionLog, manifest: Manifest) -> tuple[Parent, ...]:
    """Return the parents of a version, their parents and so on, the nearest first, each version once.

    A parent in another store is listed; its own parents are known there. Pruned ones are listed and followed, as their
    manifests stay.

    Raises:
        IntegrityError: A manifest was changed.
    """
    found: dict[str, Parent] = {}
    level = [manifest]
    while level:
        new = [parent for child in level for parent in parents_of(child) if parent.uri not in found]
        found.update({parent.uri: parent for parent in new})
        manifests = [_manifest(log, parent) for parent in dict.fromkeys(new)]
        level = [one for one in manifests if one is not None]
    return tuple(found.values())


def _manifest(log: VersionLog, parent: Parent) -> Manifest | None:
    try:
        name, version = parse_reference(parent.ref, "dataset")
        manifest = log.manifest(name, int(version))
    except (InvalidNameError, ValueError, VersionNotFound):
        return None
    # Another store has versions of the same name and number; publish ids are unique, and a store may be moved.
    return manifest if parent.uri.endswith(f"/{manifest.publish_id}") else None
