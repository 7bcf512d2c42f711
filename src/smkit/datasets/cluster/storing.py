"""Part files that the workers write: in a folder that all machines share, or as objects of S3.

They lie where a publish finds them without moving bytes through this process, and where nobody sees them before: in a
reserved folder of the store, from which they are renamed; or in S3 under a publish id of their own, from which S3
copies them. What a crash leaves there is what a crash of any publish leaves, and is collected in the same way.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.datasets.appending import remote_object
from smkit.datasets.cluster.packing import unpack
from smkit.datasets.cluster.units import for_workers, shared
from smkit.datasets.staging import disk_errors, parts_folder, temporary_folder
from smkit.datasets.writing import Format, PartWriter
from smkit.errors import StorageError
from smkit.storage import Digest, open_store
from smkit.versioning import PendingFile
from smkit.versioning.manifest import data_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    import pyarrow as pa

    from smkit.config import Settings
    from smkit.versioning import VersionLog


@dataclass(frozen=True)
class Target:
    """Where the workers put the parts.

    Attributes:
        folder: A folder of the store's disk; None where the store is remote.
        prefix: What the keys of the parts begin with, in a remote store.
        settings: Those of the store.
        schema: The schema of all parts.
        complete: The columns without a NULL in any row of the build.
        format: Parquet or CSV.
    """

    folder: str | None
    prefix: str
    settings: Settings
    schema: pa.Schema
    complete: frozenset[str]
    format: Format


@dataclass(frozen=True)
class Part:
    """A part that was written.

    Attributes:
        path: Its path in the version.
        place: The file, or the key of the object.
        digest: What its bytes are.
    """

    path: str
    place: str
    digest: Digest


@contextlib.contextmanager
def open_target(
    log: VersionLog, name: str, settings: Settings, schema: pa.Schema, file_format: Format, *, complete: frozenset[str]
) -> Iterator[tuple[Target, Path]]:
    """Yield where parts go, and a folder for this process; what was not published is deleted at the end."""
    there = for_workers(settings)
    if log.store.local_path("datasets") is not None:
        with temporary_folder() as fallback, parts_folder(log.store, fallback) as folder:
            yield Target(str(folder), "", there, schema, complete, file_format), folder
        return
    prefix = data_prefix(log.kind, name, uuid.uuid4().hex)
    with temporary_folder() as folder:
        try:
            yield Target(None, prefix, there, schema, complete, file_format), folder
        finally:
            # An orphan is invisible, and an error here would hide the one that ended the build.
            with contextlib.suppress(StorageError):
                log.store.delete([info.key for info in log.store.scan(prefix)])


def write_part(pieces: Sequence[bytes], target: Target, split: str, number: int) -> Part:
    """Write the rows of one part; a worker's task.

    Raises:
        StorageError: It cannot be stored.
    """
    if target.folder is not None:
        disk = Path(target.folder)
        if not disk.is_dir():
            raise StorageError(
                f"the worker on {socket.gethostname()} does not see {disk}: a cluster builds into a folder only "
                f"where all machines share its disk; set root to an s3:// URI, or to a folder on such a disk"
            )
        # A folder of its own: another worker may have been writing the same part when it was given up.
        folder = disk / uuid.uuid4().hex
        with disk_errors(disk):
            folder.mkdir()
        file = _write(folder, pieces, target, split, number)
        return Part(file.path, str(file.local), _digest(file))
    with temporary_folder() as folder:
        file = _write(folder, pieces, target, split, number)
        key = target.prefix + file.path
        with file.open() as stream:
            stored = open_store(shared(target.settings)).upload(key, stream)
        if not stored.is_of_same_bytes(_digest(file)):
            raise StorageError(f"{file.path} changed between writing and uploading: is the worker's disk sound?")
        return Part(file.path, key, _digest(file))


def _write(folder: Path, pieces: Sequence[bytes], target: Target, split: str, number: int) -> PendingFile:
    writer = PartWriter(folder, split, target.schema, target.format, complete=target.complete, first_part=number)
    try:
        for piece in pieces:
            writer.append(unpack(piece))
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    [file] = writer.files
    return file


def _digest(file: PendingFile) -> Digest:
    if file.digest is None:
        raise RuntimeError(f"{file.path} was written without a digest")
    return file.digest


def pending(part: Part, target: Target, log: VersionLog, settings: Settings) -> PendingFile:
    """Return a part as a file to publish."""
    if target.folder is not None:
        path = Path(part.place)

        def open_file() -> BinaryIO:
            return path.open("rb")

        return PendingFile(part.path, open_file, part.digest, local=path)

    def open_object() -> BinaryIO:
        return log.store.open(part.place)

    remote = remote_object(settings.client("s3"), f"{log.store.uri}/{part.place}")
    return PendingFile(part.path, open_object, part.digest, remote=remote)
