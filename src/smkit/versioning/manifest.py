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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from smkit.errors import ConfigError, IntegrityError, StorageError
from smkit.storage.base import BLOCK_BYTES, check_key

if TYPE_CHECKING:
    from smkit.storage.base import Digest

SCHEMA_VERSION = 1
#: Larger than any record that smkit writes, small enough that a hostile one cannot fill the memory.
MAX_RECORD_BYTES = 16 << 20

#: A version or generation n lies under this number minus n, so that the newest lists first.
_TOP = 10**10
#: The largest whole number that every reader of JSON holds exactly (RFC 8259, section 6).
_MAX_INTEGER = 2**53 - 1
#: Of arrays and objects within one another: deeper than any honest record, and safe for any reader's stack.
_MAX_DEPTH = 64

_Value = TypeVar("_Value")

_HEX_32 = re.compile(r"[0-9a-f]{32}")
_HEX_64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFile:
    """One file of a version.

    Attributes:
        path: Its relative path.
        size: In bytes.
        sha256: Lower-case hex SHA-256.
        blocks: The SHA-256 of each of its blocks, or nothing; see `smkit.storage.base.Digest`. They say nothing that
            `sha256` does not: two files of the same bytes are equal with and without them.
    """

    path: str
    size: int
    sha256: str
    blocks: tuple[str, ...] = dataclass_field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, path: str, digest: Digest) -> StoredFile:
        """Return the file whose bytes have a digest."""
        return cls(path, digest.size, digest.sha256, digest.blocks)

    def to_record(self) -> dict[str, Any]:
        """Return the stored form."""
        record: dict[str, Any] = {"path": self.path, "size": self.size, "sha256": self.sha256}
        return {**record, "blocks": list(self.blocks)} if self.blocks else record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> StoredFile:
        """Read the stored form.

        Raises:
            ValueError: A field is missing or malformed.
        """
        file = cls(
            field(record, "path", str),
            field(record, "size", int),
            field(record, "sha256", str),
            tuple(field(record, "blocks", list)) if "blocks" in record else (),
        )
        if not _HEX_64.fullmatch(file.sha256):
            raise ValueError(f"malformed sha256 of {file.path!r}")
        if not 0 <= file.size <= _MAX_INTEGER:
            raise ValueError(f"malformed size of {file.path!r}")
        if file.blocks and (
            len(file.blocks) != -(-file.size // BLOCK_BYTES)
            or not all(isinstance(block, str) and _HEX_64.fullmatch(block) for block in file.blocks)
        ):
            raise ValueError(f"malformed blocks of {file.path!r}")
        return file


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
        """Return the stored form.

        Raises:
            ConfigError: It is too large, or something in it is not JSON.
        """
        return seal(
            {
                "kind": self.kind,
                "name": self.name,
                "version": self.version,
                "publish_id": self.publish_id,
                "content_digest": self.content_digest,
                "created_at": self.created_at,
                "created_by": self.created_by,
                "files": [file.to_record() for file in self.files],
                "body": thaw(self.body),
            },
            f"the manifest of {self.kind} {self}",
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
            listed = field(record, "files", list)
            manifest = cls(
                kind=field(record, "kind", str),
                name=field(record, "name", str),
                version=number_field(record, "version"),
                publish_id=field(record, "publish_id", str),
                content_digest=field(record, "content_digest", str),
                created_at=field(record, "created_at", str),
                created_by=field(record, "created_by", str),
                files=tuple(StoredFile.from_record(file) for file in listed),
                body=freeze(field(record, "body", dict)),
            )
            _check(manifest)
        except (StorageError, ValueError) as error:
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
    check_paths(file.path for file in manifest.files)


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths that could not all be files in one folder.

    Raises:
        ConfigError: A path is listed twice, or one is the folder of another.
        StorageError: A path is no key.
    """
    files: set[str] = set()
    for path in paths:
        if check_key(path) in files:
            raise ConfigError(f"the file {path!r} is listed twice; give each file its own path")
        files.add(path)
    for path in files:
        folder = path
        while folder := folder.rpartition("/")[0]:
            if folder in files:
                raise ConfigError(f"{folder!r} is a file and the folder of {path!r}; rename one of them")


def digest_of_content(files: tuple[StoredFile, ...], content: Mapping[str, Any]) -> str:
    """Return the digest of a version's files and of what else counts as its content.

    Raises:
        ConfigError: The content is not JSON.
    """
    listed = [[file.path, file.size, file.sha256] for file in files]
    return hashlib.sha256(canonical({"files": listed, "content": dict(content)})).hexdigest()


def data_prefix(kind: str, name: str, publish_id: str) -> str:
    """Return the folder that holds the files of one publish, with a slash at the end."""
    return f"{kind}/{name}/data/{publish_id}/"


def record_key(folder: str, number: int) -> str:
    """Return the key of a numbered record; the newest, which has the highest number, lists first.

    Raises:
        ConfigError: The number is not one that a key can count.
    """
    if type(number) is not int or not 0 < number < _TOP:
        raise ConfigError(f"{number!r} is not a number from 1 to {_TOP - 1}, which versions are counted with")
    return f"{folder}/{_TOP - number:010}.json"


def number_of(key: str) -> int:
    """Return the number of a record's key.

    Raises:
        IntegrityError: Something else lies among the records.
    """
    stem, _, suffix = key.rpartition("/")[2].partition(".")
    if suffix != "json" or len(stem) != 10 or not (stem.isascii() and stem.isdigit()) or not 0 < int(stem) < _TOP:
        raise IntegrityError(f"{key} is not a record of smkit: somebody else wrote there; move it away")
    return _TOP - int(stem)


def field(record: Any, name: str, kind: type[_Value]) -> _Value:
    """Return a member of a record that others may have written.

    Raises:
        ValueError: It is missing, or of another type. JSON's `true` is no number.
    """
    value = record.get(name) if isinstance(record, dict) else None
    if type(value) is not kind:
        raise ValueError(f"{name!r} is missing or malformed")
    return value


def number_field(record: Any, name: str) -> int:
    """Return a version's or a generation's number.

    Raises:
        ValueError: It is missing, or not a whole number from 1 that a key can count.
    """
    value = field(record, name, int)
    if not 0 < value < _TOP:
        raise ValueError(f"{name!r} is not a number from 1 to {_TOP - 1}")
    return value


def canonical(value: object) -> bytes:
    """Return JSON that depends on the value alone: sorted keys, UTF-8, one line for each member.

    Raises:
        ConfigError: The value is not JSON.
    """
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"what is stored must be JSON (null, true, numbers, text, lists, objects): {error}") from None


def seal(record: Mapping[str, Any], what: str) -> bytes:
    """Return a record's stored form: with the schema version and the SHA-256 of the rest.

    Args:
        record: JSON values.
        what: What it is, for the message.

    Raises:
        ConfigError: It could not be read again: it is too large or too deep, or something in it is not JSON.
    """
    content = {"schema_version": SCHEMA_VERSION, **record}
    if not _is_shallow(content):
        raise ConfigError(f"{what} is nested more than {_MAX_DEPTH} levels deep: flatten it")
    data = canonical({**content, "sha256": hashlib.sha256(canonical(content)).hexdigest()}) + b"\n"
    if len(data) > MAX_RECORD_BYTES:
        raise ConfigError(
            f"{what} has {len(data):,} bytes, at most {MAX_RECORD_BYTES:,} are allowed: store fewer files, or say less"
        )
    return data


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Read a record's stored form.

    Raises:
        IntegrityError: A byte was changed, it is not a record, or a later smkit wrote it.
    """
    try:
        record = json.loads(data)
        # In this order: encoding what is too deep would exhaust the stack.
        intact = isinstance(record, dict) and _is_shallow(record) and canonical(record) + b"\n" == data
        stated = record.pop("sha256", None) if intact else None
        intact = intact and stated == hashlib.sha256(canonical(record)).hexdigest()
    except (ValueError, RecursionError):
        intact = False
    if not intact:
        raise IntegrityError(f"{where} is damaged: its bytes are not those that were written")
    version = record.get("schema_version")
    if type(version) is not int or version < 1:
        raise IntegrityError(f"{where} is not a record of smkit: it has no schema_version")
    if version != SCHEMA_VERSION:
        raise IntegrityError(
            f"{where} has schema_version {version!r}; this smkit reads {SCHEMA_VERSION}: a later smkit wrote it, "
            f"upgrade with `pip install --upgrade smkit`"
        )
    return dict(record)


def _is_shallow(value: object) -> bool:
    """Tell whether lists and objects nest no deeper than allowed. Level by level: no depth exhausts the stack."""
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [
            item
            for parent in level
            for item in (parent.values() if isinstance(parent, dict) else parent)  # type: ignore[attr-defined]
            if isinstance(item, (dict, list))
        ]
        if not level:
            return True
    return False


def freeze(value: Any) -> Any:
    """Return a read-only view of a JSON value."""
    if isinstance(value, dict):
        return MappingProxyType({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """Return a frozen JSON value as plain dicts and lists; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [thaw(item) for item in value]
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
        name = getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
    # It may come from an environment variable that is not UTF-8.
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
