"""Small records, one to a key: written once, whatever becomes of the reply, and read with suspicion."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from smkit.errors import IntegrityError, ObjectNotFound, StorageError
from smkit.versioning.manifest import MAX_RECORD_BYTES, field, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smkit.storage.base import ObjectStore

_Record = TypeVar("_Record")


def put_record(store: ObjectStore, key: str, data: bytes) -> bool:
    """Put a record that holds a nonce; return whether this call is known to have written it.

    On False a record lies there: another's, or this one where a reply was lost. The caller reads it to know. An error
    of the store may be such a lost reply too, so the put is sent once more: then the record is there for certain and,
    in a folder, synced.

    Raises:
        StorageError: The store failed twice. The record may have been written all the same.
    """
    with contextlib.suppress(StorageError):
        return store.put_if_absent(key, data)
    return store.put_if_absent(key, data)


def get_record(
    store: ObjectStore, key: str, make: Callable[[dict[str, Any]], _Record], *, what: str, place: Mapping[str, object]
) -> _Record | None:
    """Read a record; None where there is none.

    Args:
        store: Where.
        key: Its key.
        make: Makes the value of its members, and raises `ValueError` where one is missing or malformed.
        what: What such a record is called in messages.
        place: The members that say which key it is for.

    Raises:
        IntegrityError: It was changed, or lies where another one belongs.
    """
    try:
        data = store.get(key, max_bytes=MAX_RECORD_BYTES)
    except ObjectNotFound:
        return None
    where = f"{store.uri}/{key}"
    members = unseal(data, where)
    try:
        record = make(members)
    except ValueError as error:
        raise IntegrityError(f"{where} is not {what} of smkit: {error}") from None
    if any(members.get(name) != value for name, value in place.items()):
        raise IntegrityError(f"{where} holds another record: it was moved or copied there")
    return record


def signature(members: dict[str, Any]) -> dict[str, str]:
    """Return what a record says of who wrote it, when and why.

    Raises:
        ValueError: Something of it is missing or malformed.
    """
    return {name: field(members, name, str) for name in ("at", "by", "why", "nonce")}
