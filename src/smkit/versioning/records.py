"""Writing a record once, whatever becomes of the reply."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from smkit.errors import StorageError

if TYPE_CHECKING:
    from smkit.storage.base import ObjectStore


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
