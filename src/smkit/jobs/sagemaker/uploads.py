"""Local data in S3, once: what a job reads lies under the digest of its content.

`inputs/<sha256>/...` holds the files and `inputs/<sha256>.json` says that all of them are there. A file gets its key
only if its bytes still have the digest that the key promises, so that writers at once, and one that was killed, do no
harm: whatever lies under such a key is right.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from smkit.errors import ConfigError, IntegrityError, ObjectNotFound, StorageError
from smkit.jobs.channels import LocalChannel, S3Channel
from smkit.storage.base import digest_of, is_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from smkit.jobs.channels import Channel
    from smkit.storage.base import ObjectStore

FOLDER = "inputs"
SCHEMA_VERSION = 1
_AT_ONCE = 4
_BAR_BYTES = 16 << 20


class InputFile(NamedTuple):
    """One file of a channel: where it lies here, its key below the channel's prefix, and its content."""

    path: Path
    relative: str
    size: int
    sha256: str


@dataclass(frozen=True)
class LocalInput:
    """The data of one channel as it was when the job was prepared.

    Args:
        channel: The channel's name.
        origin: What a person calls the data.
        files: Its files, sorted by `relative`.
        sha256: Hex SHA-256 over paths, sizes and digests of the files.
        keep: What must live as long as the files: the temporary folder of a channel that downloads itself.
    """

    channel: str
    origin: str
    files: tuple[InputFile, ...] = field(repr=False)
    sha256: str
    keep: Any = field(default=None, repr=False, compare=False)

    @property
    def prefix(self) -> str:
        """Key of the folder in the store, with its slash."""
        return f"{FOLDER}/{self.sha256}/"

    @property
    def marker(self) -> str:
        """Key of the object that says that all files are there; outside `prefix`, or the script would see it."""
        return f"{FOLDER}/{self.sha256}.json"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def locate(
    channels: Mapping[str, Channel], root: str, s3_client: Callable[[], Any]
) -> tuple[dict[str, str], tuple[LocalInput, ...]]:
    """Return the `s3://` URI of every channel, and what must be uploaded for that; reads and hashes local data.

    Args:
        channels: Channel name -> data.
        root: The store's root.
        s3_client: Returns the S3 client.

    Raises:
        ConfigError: A file's name cannot be a key.
        SourceNotFound, ObjectNotFound: There is no data.
        StorageError: S3 cannot be read.
    """
    uris: dict[str, str] = {}
    uploads = []
    for name, channel in channels.items():
        if isinstance(channel, S3Channel):
            # SageMaker knows the scheme in lower case only.
            uris[name] = "s3" + channel.uri[2:]
        elif channel.uri.lower().startswith("s3://"):
            uris[name] = _folder_or_object(channel.uri, s3_client)
        else:
            upload = _read(name, channel)
            uploads.append(upload)
            uris[name] = f"{root}/{upload.prefix}"
    return uris, tuple(uploads)


def upload_inputs(inputs: Iterable[LocalInput], store: ObjectStore) -> None:
    """Upload what the store does not hold yet.

    Args:
        inputs: What `locate` returned.
        store: The store.

    Raises:
        IntegrityError: A file changed since the job was prepared, or an object under the prefix is not one of them.
        StorageError: A file cannot be read, or the store not be written.
    """
    # Two channels may hold the same data.
    distinct = {item.sha256: item for item in inputs}
    missing = [(item, file) for item in distinct.values() for file in _missing(item, store)]
    _upload_files(missing, store)
    for item in distinct.values():
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "sha256": item.sha256,
            "files": [{"path": file.relative, "bytes": file.size, "sha256": file.sha256} for file in item.files],
        }
        # False: somebody else uploaded the very same data.
        store.put_if_absent(item.marker, json.dumps(manifest).encode())


def _folder_or_object(uri: str, s3_client: Callable[[], Any]) -> str:
    """End a URI with a slash where it names a folder, or a neighbour such as `train-2` would be delivered too."""
    folder = uri.rstrip("/") + "/"
    try:
        S3Channel(folder, s3_client).describe()
    except ObjectNotFound:
        S3Channel(uri, s3_client).describe()
        return uri
    return folder


def _read(name: str, channel: Channel) -> LocalInput:
    keep = None
    local = channel
    if not isinstance(channel, LocalChannel):
        keep = _TemporaryFolder()
        channel.download(keep.path)
        local = LocalChannel(keep.path)
    found = {relative.as_posix(): path for path, relative in cast("LocalChannel", local)._files()}
    for relative in found:
        if not is_key(relative):
            raise ConfigError(
                f"channel {name!r}: {relative!r} cannot be the name of an object in S3: rename the file; no backslash, "
                "no control character, UTF-8"
            )
    paths = sorted(found)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = list(pool.map(_digest, (found[relative] for relative in paths)))
    files = tuple(
        InputFile(found[relative], relative, digest.size, digest.sha256)
        for relative, digest in zip(paths, digests, strict=True)
    )
    content = json.dumps([[file.relative, file.size, file.sha256] for file in files])
    return LocalInput(name, channel.uri, files, hashlib.sha256(content.encode()).hexdigest(), keep)


class _TemporaryFolder:
    """A folder that lives as long as this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="smkit-input-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _digest(path: Path) -> Any:
    with _open(path) as file:
        return digest_of(file)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise StorageError(error.errno, f"cannot read the input: {error.strerror}", str(path)) from error


def _missing(item: LocalInput, store: ObjectStore) -> list[InputFile]:
    there = {info.key.removeprefix(item.prefix): info.size for info in store.scan(item.prefix)}
    expected = {file.relative for file in item.files}
    if foreign := sorted(there.keys() - expected):
        raise IntegrityError(
            f"{store.uri}/{item.prefix}{foreign[0]} is no file of the data that the folder is for; the script "
            "would be given it: delete it, and find out who wrote it"
        )
    # What has the key has the content; only a bucket that was tampered with has another size.
    return [file for file in item.files if there.get(file.relative) != file.size]


def _upload_files(missing: list[tuple[LocalInput, InputFile]], store: ObjectStore) -> None:
    # Not before something is uploaded: most jobs upload nothing, and a request does not wait for tqdm.
    from smkit.progress_bar import tqdm

    total = sum(file.size for _, file in missing)
    bar = tqdm(
        total=total,
        desc="inputs to S3",
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        leave=False,
        # None: only where somebody looks at a terminal or a notebook.
        disable=True if total < _BAR_BYTES else None,
    )
    lock = threading.Lock()

    def advance(count: int) -> None:
        with lock:
            bar.update(count)

    def upload(item: LocalInput, file: InputFile) -> None:
        with _open(file.path) as stream:
            checked = _UnchangedFile(stream, item, file, advance)
            store.upload(item.prefix + file.relative, cast("BinaryIO", checked))

    with bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(upload, item, file) for item, file in missing]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class _UnchangedFile:
    """A stream that fails before its last bytes are handed out where they are not those that were hashed.

    So an upload of a file that changes meanwhile never becomes an object.
    """

    def __init__(self, stream: BinaryIO, item: LocalInput, file: InputFile, advance: Callable[[int], None]) -> None:
        self._stream = stream
        self._item = item
        self._file = file
        self._advance = advance
        self._sha256 = hashlib.sha256()
        self._size = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as the store does to learn the size; whoever reads does so from the start to the end."""
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._sha256.update(data)
        self._size += len(data)
        if self._size >= self._file.size and (
            self._size > self._file.size or self._sha256.hexdigest() != self._file.sha256
        ):
            raise self._changed()
        if not data and size != 0 and self._size < self._file.size:
            raise self._changed()
        self._advance(len(data))
        return data

    def _changed(self) -> IntegrityError:
        return IntegrityError(
            f"channel {self._item.channel!r}: {self._file.path} changed since the job was prepared; nothing was "
            "started: submit again once nobody writes to it"
        )
