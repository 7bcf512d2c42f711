"""The stored form of what the protocol writes: sealed JSON records.

A record is canonical JSON that holds its own SHA-256. Reading re-encodes what was parsed and compares bytes, so that
any changed byte is found, white space included. Records come from a bucket that others may write to: nothing in them is
trusted before it is checked.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

from smkit.errors import IntegrityError, StorageError
from smkit.storage.base import check_key

SCHEMA_VERSION = 1
#: Larger than any record that smkit writes, small enough that a hostile one cannot fill the memory.
MAX_RECORD_BYTES = 16 << 20

_HEX_32 = re.compile(r"[0-9a-f]{32}")
_HEX_64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFile:
    """One file of a version: its relative path, its size in bytes and its lower-case hex SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """One published version.

    Attributes:
        kind: What it is a version of: `datasets` or `models`.
        name: The name that it is a version of.
        version: Its number, from 1.
        publish_id: The folder of its files under `data/`; unique, hence also the nonce of the commit.
        content_digest: SHA-256 over the files' paths and digests and what the kind adds; equal content, equal digest.
        created_at: UTC, ISO 8601.
        created_by: The user's name on the machine that published.
        files: The files, sorted by path.
        body: What the kind adds: JSON values, read-only.
    """

    kind: str
    name: str
    version: int
    publish_id: str
    content_digest: str
    created_at: str
    created_by: str
    files: tuple[StoredFile, ...]
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def key_of(self, path: str) -> str:
        """Return the key of one of the files."""
        return f"{data_prefix(self.kind, self.name, self.publish_id)}{path}"

    def encode(self) -> bytes:
        """Return the stored form."""
        return seal(
            {
                "kind": self.kind,
                "name": self.name,
                "version": self.version,
                "publish_id": self.publish_id,
                "content_digest": self.content_digest,
                "created_at": self.created_at,
                "created_by": self.created_by,
                "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in self.files],
                "body": _thaw(self.body),
            }
        )

    @classmethod
    def decode(cls, data: bytes, *, kind: str, name: str, version: int, where: str) -> Manifest:
        """Read the stored form of one expected version.

        Raises:
            IntegrityError: A byte was changed, or the manifest is not that of the version it lies under, or it names a
                file outside its own folder.
        """
        record = unseal(data, where)
        try:
            manifest = cls(
                kind=record["kind"],
                name=record["name"],
                version=record["version"],
                publish_id=record["publish_id"],
                content_digest=record["content_digest"],
                created_at=record["created_at"],
                created_by=record["created_by"],
                files=tuple(StoredFile(file["path"], file["size"], file["sha256"]) for file in record["files"]),
                body=freeze(record["body"]),
            )
            _check(manifest)
        except (KeyError, TypeError, StorageError, ValueError) as error:
            raise IntegrityError(f"{where} is not a manifest of smkit: {error}") from None
        if (manifest.kind, manifest.name, manifest.version) != (kind, name, version):
            raise IntegrityError(
                f"{where} holds the manifest of {manifest.kind} {manifest}: it was moved or copied there"
            )
        return manifest


def _check(manifest: Manifest) -> None:
    """Refuse what could lead a reader out of the version's own folder, or mislead it about a file."""
    if not _HEX_32.fullmatch(manifest.publish_id) or not _HEX_64.fullmatch(manifest.content_digest):
        raise ValueError("malformed publish_id or content_digest")
    if not isinstance(manifest.body, Mapping):
        raise TypeError("body is not an object")
    paths = [file.path for file in manifest.files]
    if len(set(paths)) != len(paths):
        raise ValueError("a file is listed twice")
    for file in manifest.files:
        check_key(file.path)
        if not _HEX_64.fullmatch(file.sha256):
            raise ValueError(f"malformed sha256 of {file.path!r}")
        if type(file.size) is not int or file.size < 0:
            raise ValueError(f"malformed size of {file.path!r}")


def data_prefix(kind: str, name: str, publish_id: str) -> str:
    """Return the folder that holds the files of one publish, with a slash at the end."""
    return f"{kind}/{name}/data/{publish_id}/"


def canonical(value: object) -> bytes:
    """Return JSON that depends on the value alone: sorted keys, UTF-8, one line for each member."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
    return text.encode("utf-8")


def seal(record: Mapping[str, Any]) -> bytes:
    """Return a record's stored form: with the schema version and the SHA-256 of the rest."""
    content = {"schema_version": SCHEMA_VERSION, **record}
    return canonical({**content, "sha256": hashlib.sha256(canonical(content)).hexdigest()}) + b"\n"


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Read a record's stored form.

    Raises:
        IntegrityError: A byte was changed, or a later smkit wrote the record.
    """
    try:
        record = json.loads(data)
        intact = isinstance(record, dict) and canonical(record) + b"\n" == data
        stated = record.pop("sha256", None) if intact else None
        intact = intact and stated == hashlib.sha256(canonical(record)).hexdigest()
    except (ValueError, RecursionError):
        intact = False
    if not intact:
        raise IntegrityError(f"{where} is damaged: its bytes are not those that were written")
    version = record["schema_version"]
    if version != SCHEMA_VERSION:
        raise IntegrityError(
            f"{where} has schema_version {version!r}; this smkit reads {SCHEMA_VERSION}: a later smkit wrote it, "
            f"upgrade with `pip install --upgrade smkit`"
        )
    return dict(record)


def freeze(value: Any) -> Any:
    """Return a read-only view of a JSON value."""
    if isinstance(value, dict):
        return MappingProxyType({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list):
        return tuple(freeze(item) for item in value)
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thaw(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_thaw(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no NaN; a reader in another language must be able to read a manifest.
        return None
    return value


def utc_now() -> str:
    """Return the time in UTC as ISO 8601 with microseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def user_name() -> str:
    """Return the name of the user; a container's user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
