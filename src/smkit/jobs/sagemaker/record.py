"""The records of SageMaker's jobs in the store: where a job's model comes from, and which job is whose.

`jobs/<name>/run.json` is put before SageMaker is asked, if absent: what lies beside it is its writer's alone. A job
says by the URI of its code which record is its own. Where SageMaker refused, a further try under the same name gets a
folder of its own, `jobs/<name>/retry-<n>`: nothing is ever deleted or overwritten, and of two tries at once SageMaker
takes one.
"""

from __future__ import annotations

import io
import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from smkit.errors import JobError, ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smkit.storage.base import ObjectStore

JOBS = "jobs"
#: Code of the SDK's estimators, by its digest: the jobs that they start have no record.
ESTIMATORS = "code"
SCHEMA_VERSION = 1
_RECORD, _SOURCE, _SUBMITTED = "run.json", "source/sourcedir.tar.gz", "submitted.json"
_RETRY = re.compile(r"retry-([1-9][0-9]*)")
_MAX_BYTES = 8 << 20
#: What is larger goes up in parts, of which each is tried again on its own.
_AT_ONCE_BYTES = 8 << 20


def job_folder(name: str) -> str:
    """Return the key of a job's folder."""
    return f"{JOBS}/{name}"


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def source_key(folder: str) -> str:
    """Return the key of the code that belongs to a record."""
    return f"{folder}/{_SOURCE}"


class JobRecords:
    """Reads and writes the records of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def tries(self, name: str) -> list[str]:
        """Return the folders of the tries to start a job, the first first; none where the name is unused."""
        found = set(self._store.children(job_folder(name)))
        if _RECORD not in found:
            return []
        numbers = sorted(int(match[1]) for item in found if (match := _RETRY.fullmatch(item)))
        return [job_folder(name), *(f"{job_folder(name)}/retry-{number}" for number in numbers)]

    def was_accepted(self, name: str) -> bool:
        """Tell whether SageMaker ever had the job: it stays known when somebody deletes the job there."""
        return not {_SUBMITTED, "output"}.isdisjoint(self._store.children(job_folder(name)))

    def next_folder(self, name: str, tries: list[str]) -> str:
        """Return the folder that a further try would use."""
        if not tries:
            return job_folder(name)
        last = _RETRY.fullmatch(tries[-1].rpartition("/")[2])
        return f"{job_folder(name)}/retry-{int(last[1]) + 1 if last else 1}"

    def claim(self, folder: str, record: Mapping[str, Any]) -> bool:
        """Write a record unless there is one; False where it is another's."""
        data = json.dumps(record, indent=1).encode()
        key = f"{folder}/{_RECORD}"
        if self._store.put_if_absent(key, data):
            return True
        # A request that was sent again after a lost reply meets what it wrote itself.
        return self._store.get(key, max_bytes=_MAX_BYTES) == data

    def put_source(self, folder: str, archive: bytes) -> None:
        """Write the code beside a record of one's own, or under its digest."""
        key = source_key(folder)
        if len(archive) > _AT_ONCE_BYTES:
            self._store.upload(key, io.BytesIO(archive))
        else:
            # One request. Whatever has the key already is this very code.
            self._store.put_if_absent(key, archive)

    def mark_accepted(self, name: str) -> None:
        """Note that SageMaker has the job."""
        marker = {"schema_version": SCHEMA_VERSION, "submitted": utc_now()}
        self._store.put_if_absent(f"{job_folder(name)}/{_SUBMITTED}", json.dumps(marker).encode())

    def read(self, folder: str) -> dict[str, Any] | None:
        """Return a record; None where somebody deleted it.

        Raises:
            JobError: It is damaged, or of a later smkit.
            StorageError: The store cannot be read.
        """
        key = f"{folder}/{_RECORD}"
        try:
            record = json.loads(self._store.get(key, max_bytes=_MAX_BYTES))
        except ObjectNotFound:
            return None
        except ValueError as error:
            raise JobError(f"{self._store.uri}/{key} is damaged: {error}") from None
        if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
            found = record.get("schema_version") if isinstance(record, dict) else None
            raise JobError(
                f"{self._store.uri}/{key} has schema_version {found!r}; this smkit reads {SCHEMA_VERSION}: update smkit"
            )
        return record

    def folder_of(self, name: str, source_uri: str) -> str | None:
        """Return the folder of a job's code, where its record is; None where it is not of this store."""
        root = f"{self._store.uri}/"
        if not source_uri.startswith(root) or not source_uri.endswith(f"/{_SOURCE}"):
            return None
        folder = source_uri[len(root) : -len(_SOURCE) - 1]
        if folder.startswith(f"{ESTIMATORS}/"):
            return folder
        rest = folder.removeprefix(job_folder(name))
        return folder if rest == "" or _RETRY.fullmatch(rest.removeprefix("/")) else None

    def names(self) -> Iterator[str]:
        """Yield the names that the store has a folder for."""
        return self._store.children(JOBS)
