"""What smkit needs of a place where bytes live."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, runtime_checkable

from smkit.errors import SmkitError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path


class ObjectInfo(NamedTuple):
    """One line of a listing: the key, the size in bytes, the time of the last write in UTC."""

    key: str
    size: int
    modified: datetime


#: Bytes whose hashing takes longer than to start a thread.
_WORTH_A_THREAD = 1 << 19
#: Bytes of a block that is hashed on its own. Part of the stored format.
BLOCK_BYTES = 8 << 20


class Digest(NamedTuple):
    """What was written.

    Attributes:
        sha256: Lower-case hex SHA-256 of all of it.
        size: In bytes.
        blocks: The SHA-256 of each block of `BLOCK_BYTES`, the last one shorter, so that several can be checked at
            once; empty for a single block, or where they are not known.
    """

    sha256: str
    size: int
    blocks: tuple[str, ...] = ()

    def is_of_same_bytes(self, other: Digest) -> bool:
        """Tell whether both are of the same bytes, whether the blocks are known or not."""
        return (self.sha256, self.size) == (other.sha256, other.size)


class RemoteObject(NamedTuple):
    """An object of S3 as somebody saw it: `s3://bucket/key`, and the ETag that it had, with its quotes."""

    uri: str
    etag: str


class Leftover(NamedTuple):
    """What a write that was killed left in a store.

    Attributes:
        key: Where it lies below the root; no key of an object.
        upload_id: Of an unfinished upload in parts; empty for a file or folder.
        files: How many files there are.
        size: Their size in bytes; 0 where the store does not tell.
        modified: When it was last written to, or begun, UTC.
    """

    key: str
    upload_id: str
    files: int
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """A flat space of keys under one root. Keys use `/`, are relative, and sort by code point.

    Every write is atomic: a reader sees the whole object or none. Every error is a `StorageError`, `ObjectNotFound`
    where no object has the key. After a write that failed so, the object may be there all the same: the reply may have
    been lost, not the request.

    No key may be the folder of another (`a` beside `a/b`): a folder cannot hold both. What else lies under the root and
    could not be a key, such as a console's folder marker, is neither listed nor touched.
    """

    @property
    def uri(self) -> str:
        """The root: a folder's path or `s3://bucket/prefix`."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a small object unless the key exists. Of writers at once at most one gets True, and one object stays.

        A client that sends a request again after a lost reply meets its own object and gets False: a caller that must
        know whose object it is puts a nonce into it. Once this returns, the object survives a power cut.
        """

    def upload(self, key: str, source: BinaryIO) -> Digest:
        """Write an object of any size from a stream, in bounded memory, hashing while the bytes move.

        An object that has the key already is replaced.
        """

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read a small object whole; one larger than `max_bytes` is a `StorageError`."""

    def open(self, key: str) -> BinaryIO:
        """Open an object as a stream; the caller closes it."""

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with `prefix`, in the order of their keys, at most `limit`."""

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the next path part of every key under the folder `prefix`, each once, in the order of the keys."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key that does not exist is no error."""

    def local_path(self, key: str) -> Path | None:
        """Return where the object's bytes lie on this machine, or None where the store is remote."""


@runtime_checkable
class AdoptingStore(Protocol):
    """A store on this machine, which can take a finished file over instead of copying it."""

    def adopt(self, key: str, path: Path) -> bool:
        """Move a file under a key, replacing an object that has it; once this returns, it survives a power cut.

        False where the file lies on another disk: then nothing was done, and it must be uploaded.
        """


@runtime_checkable
class CopyingStore(Protocol):
    """A remote store, which can copy an object that lies beside it without a download."""

    def copy(self, key: str, source: RemoteObject, size: int) -> Digest | None:
        """Copy an object of `size` bytes under a key; return the digest of what lies there then.

        None where the copy is refused: then nothing was done, and it must be uploaded.

        Raises:
            IntegrityError: The source has another ETag by now.
        """


@runtime_checkable
class SweepableStore(Protocol):
    """A store where writes that were killed leave something that no listing shows."""

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield what lies under a folder; some of it may belong to a write that is under way."""

    def sweep(self, leftover: Leftover) -> None:
        """Remove it; what is gone already is no error."""


#: Names that begin so are a store's own, such as temporary files: no key may have one, and no listing shows one.
RESERVED = ".smkit-"

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html; the store's own prefix comes on top.
_MAX_KEY_BYTES = 1024


def is_key(text: str) -> bool:
    """Tell whether a store can hold an object under this key."""
    if any(part in {"", ".", ".."} or part.startswith(RESERVED) for part in text.split("/")):
        return False
    # 127 to 159 are control characters too; a lone surrogate is a file name that is not UTF-8.
    if any(char == "\\" or ord(char) < 32 or 127 <= ord(char) < 160 or "\ud800" <= char <= "\udfff" for char in text):
        return False
    return len(text.encode()) <= _MAX_KEY_BYTES


def check_key(key: str) -> str:
    """Return a key unchanged.

    Manifests come from a bucket that others may write to, so a key is never trusted to stay under the root.

    Raises:
        StorageError: The key is empty, absolute, longer than 1,024 bytes of UTF-8 or not UTF-8, or has an empty, `.` or
            `..` part, a part that begins with `.smkit-`, a backslash or a control character.
    """
    if not isinstance(key, str) or not is_key(key):
        shown = repr(key) if len(repr(key)) < 200 else repr(key)[:200] + "..."
        raise StorageError(
            f"{shown} is not a key: expected relative parts joined by '/', at most {_MAX_KEY_BYTES:,} bytes of UTF-8, "
            f"no part empty, '.', '..' or beginning with {RESERVED!r}, no backslash and no control character"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix of a listing unchanged: nothing, a folder with or without its slash, or the start of a key.

    Raises:
        StorageError: No key could begin so.
    """
    folder, slash, _ = prefix.rpartition("/")
    if slash:
        check_key(folder)
    return prefix


class ContentHash:
    """Hashes bytes as they pass: all of them, and each block on its own."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._block = hashlib.sha256()
        self._room = BLOCK_BYTES
        self._blocks: list[str] = []
        self._size = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if len(data) < _WORTH_A_THREAD:
            self._whole.update(data)
            self._update_blocks(data)
            return
        # hashlib lets go of the interpreter: with a second core, the blocks cost no time.
        thread = threading.Thread(target=self._whole.update, args=(data,))
        thread.start()
        self._update_blocks(data)
        thread.join()

    def _update_blocks(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if not self._room:
                self._blocks.append(self._block.hexdigest())
                self._block = hashlib.sha256()
                self._room = BLOCK_BYTES
            piece, rest = rest[: self._room], rest[self._room :]
            self._block.update(piece)
            self._room -= len(piece)

    def digest(self) -> Digest:
        """Return the digest of what was taken so far."""
        blocks = (*self._blocks, self._block.hexdigest()) if self._blocks else ()
        return Digest(self._whole.hexdigest(), self._size, blocks)


class HashingReader:
    """A stream that hashes what passes through it. It cannot seek, so that no byte is hashed twice or skipped."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = ContentHash()

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, fewer only at the end: boto3 takes a short answer for the end of the stream.

        Raises:
            StorageError: The source cannot be read. Without this, it would look as if the store could not be written.
        """
        if size < 0:
            return self._read(size)
        pieces, left = [], size
        while left and (piece := self._read(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        try:
            data = self._source.read(size)
        except SmkitError:
            raise
        except OSError as error:
            raise StorageError(error.errno, f"cannot read what is to be stored: {error.strerror or error}") from error
        self._hash.update(data)
        return data

    def digest(self) -> Digest:
        """Return the digest of all that was read so far."""
        return self._hash.digest()


def digest_of(stream: BinaryIO) -> Digest:
    """Read a stream to its end and return its digest."""
    content = ContentHash()
    while chunk := stream.read(1 << 20):
        content.update(chunk)
    return content.digest()
