"""Jobs on this machine: the container's contract in a fresh process of this Python, or of an image's."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from smkit.errors import DuplicateJobError, JobError, JobNotFound
from smkit.hyperparameters import effective_hyperparameters
from smkit.jobs.backend import FINAL_STATUSES, JobStatus, LogPage, Watching
from smkit.jobs.contract import image_environment
from smkit.jobs.environments import HOST, ensure_built, hold
from smkit.jobs.launching import inherited_environment, start_supervisor
from smkit.jobs.local_request import SCHEMA_VERSION, parse_local_environment, prepare_request
from smkit.jobs.supervisor import write_json
from smkit.naming import check_job_name

if TYPE_CHECKING:
    from smkit.jobs.local_request import LocalRequest
    from smkit.jobs.spec import JobSpec

_RECORD, _LOCK, _LOG, _STOP = "run.json", "lock", "job.log", "stop-requested"
_PAGE_BYTES = 1 << 20
_START_SECONDS = 10.0
_LINEAGE = (
    "schema_version", "job_name", "backend", "status", "entry_point", "hyperparameters", "inputs", "code",
    "environment", "framework_version", "instance_type", "image", "created", "started", "ended",
)  # fmt: skip


class LocalBackend:
    """Runs each job in a process of its own that outlives the submitter.

    A job lies in `<folder>/<job name>/`: `run.json` (its record), `job.log`, `source/sourcedir.tar.gz`,
    `output/model.tar.gz`, `output/output.tar.gz`, and `ml/`, which stands for `/opt/ml`.

    Args:
        folder: Where the jobs lie; made when the first is submitted.
        environment: What runs the scripts: `host`, the Python that runs this; or the name of an environment that has
            the Python and the packages of an image, such as `1.2-1` or `1.2-1[toolkits]`.

    Raises:
        ConfigError: `environment` is the name of none.
    """

    stops_on_interrupt: ClassVar[bool] = True
    watching = Watching(first_poll=0.02, slowest_poll=0.2, quick_for=10.0)

    def __init__(self, folder: Path, environment: str = HOST) -> None:
        self.folder = folder
        self.environment = parse_local_environment(environment)

    def prepare(self, spec: JobSpec) -> LocalRequest:
        """Return the whole request; reads the code and looks whether the inputs and the environment's Python exist.

        Raises:
            ConfigError: The entry point, `source_dir` or an input is not there or not allowed, or the job is made for
                another image than the environment.
            JobError: The script does not compile, or names `/opt/ml` where no folder can be shown there.
            ParityEnvironmentError: The environment is not built, and its Python is not on this machine.
        """
        return prepare_request(spec, self._job_folder(spec.name), self.environment)

    def submit(self, request: LocalRequest) -> None:
        """Build the environment if need be, copy the inputs, start the job and return.

        Raises:
            DuplicateJobError: The name is taken.
            ParityEnvironmentError: The environment could not be built; the name stays free.
            StorageError: An input could not be read.
        """
        if (self._job_folder(request.name) / _RECORD).exists():
            # Before an environment is built for nothing.
            raise self._taken(request)
        with contextlib.ExitStack() as stack:
            held: tuple[int, ...] = ()
            if request.environment is not None:
                ensure_built(request.environment, index_url=request.variables.get("PIP_INDEX_URL"))
                # The supervisor inherits it, so that nobody removes the environment under a running job.
                held = (stack.enter_context(hold(request.environment)),)
                request = request.built()
            self._submit(request, held)

    def _submit(self, request: LocalRequest, held: tuple[int, ...]) -> None:
        folder = self._job_folder(request.name)
        lock = self._claim(folder, request)
        try:
            try:
                self._fill(folder, request)
                self._start(folder, lock, request, held)
            except BaseException:
                # Nothing ran: the name is free again.
                shutil.rmtree(folder)
                raise
        finally:
            os.close(lock)

    def status(self, name: str) -> JobStatus:
        """Return the state of a job.

        Raises:
            JobNotFound: No job has this name.
        """
        folder = self._job_folder(name)
        record = self._record(folder)
        if record["status"] not in FINAL_STATUSES and not _is_locked(folder / _LOCK):
            # The job may have ended between the two looks.
            record = self._record(folder)
            if record["status"] not in FINAL_STATUSES:
                record |= {
                    "status": "Failed",
                    "secondary_status": "Failed",
                    "reason": "the process that ran the job was killed, or the machine restarted; how far the script "
                    "came is unknown",
                }
        elif record["status"] not in FINAL_STATUSES and (folder / _STOP).exists():
            record |= {"status": "Stopping", "secondary_status": "Stopping"}
        lineage = {key: record[key] for key in _LINEAGE}
        lineage["hyperparameters"] = effective_hyperparameters(
            record["hyperparameters"], record.get("resolved_hyperparameters")
        )
        lineage["environment"] = {**record["environment"], "packages": record["packages"]}
        return JobStatus(
            status=record["status"],
            secondary_status=record["secondary_status"],
            reason=record["reason"],
            exit_code=record["exit_code"],
            log_location=str(folder / _LOG),
            model_uri=record["model"]["path"] if record["model"] else None,
            lineage=lineage,
            started=_moment(record["started"]),
            ended=_moment(record["ended"]),
            billable_seconds=0,
        )

    def metrics(self, name: str) -> dict[str, float]:
        """Return the metrics of a job that is over; empty before.

        Raises:
            JobNotFound: No job has this name.
        """
        record = self._record(self._job_folder(name))
        return {key: float(value) for key, value in record["metrics"].items()}

    def logs(self, name: str, position: int | None = None) -> LogPage:
        """Return up to 1 MiB of the log from a byte on.

        Raises:
            JobNotFound: No job has this name.
        """
        path = self._job_folder(name) / _LOG
        try:
            with path.open("rb") as file:
                file.seek(position or 0)
                data = file.read(_PAGE_BYTES)
        except FileNotFoundError:
            self._record(path.parent)
            return LogPage(b"", position)
        return LogPage(data, (position or 0) + len(data))

    def stop(self, name: str) -> None:
        """Ask the job to stop and return.

        Raises:
            JobNotFound: No job has this name.
            JobError: The job did not start within 10 s, so that nobody could be asked.
        """
        folder = self._job_folder(name)
        give_up = time.monotonic() + _START_SECONDS
        while time.monotonic() < give_up:
            if self.status(name).is_final:
                return
            text = (folder / _LOCK).read_text(encoding="ascii")
            if text:
                # The disk may be full, which must not keep a job from being stopped: then the status is late.
                with contextlib.suppress(OSError):
                    (folder / _STOP).touch()
                try:
                    os.kill(int(text), signal.SIGTERM)
                except ProcessLookupError:
                    # It ended meanwhile; the next look at the status says how.
                    continue
                return
            time.sleep(0.01)
        raise JobError(f"job {name!r} is still being prepared by its submitter: stop it once it has started")

    def names(self) -> list[str]:
        """Return the names of the jobs, the newest first."""
        if not self.folder.is_dir():
            return []
        # Hidden: jobs in the making, and what is not a job's.
        records = (path / _RECORD for path in self.folder.iterdir() if not path.name.startswith("."))
        created = {path.parent.name: self._record(path.parent)["created"] for path in records if path.is_file()}
        return sorted(created, key=lambda name: (created[name], name), reverse=True)

    def _job_folder(self, name: str) -> Path:
        return self.folder / check_job_name(name)

    def _record(self, folder: Path) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((folder / _RECORD).read_bytes())
        except FileNotFoundError:
            raise JobNotFound(f"there is no job {folder.name!r} in {self.folder}") from None
        except ValueError as error:
            raise JobError(f"{folder / _RECORD} is damaged: {error}") from None
        if record.get("schema_version") != SCHEMA_VERSION:
            raise JobError(
                f"{folder / _RECORD} has schema_version {record.get('schema_version')!r}; this smkit reads "
                f"{SCHEMA_VERSION}: update smkit"
            )
        return record

    def _taken(self, request: LocalRequest) -> DuplicateJobError:
        return DuplicateJobError(
            f"job {request.name!r} exists already in {self.folder}: names are never reused; choose another "
            "job_name, or leave it out to get a new one"
        )

    def _claim(self, folder: Path, request: LocalRequest) -> int:
        """Take the name: make the job's folder, complete with its record and held lock, and return the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".", dir=self.folder))
        lock = os.open(draft / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            draft.chmod(0o755)
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_json(draft / _RECORD, {**request.record, "secondary_status": "Downloading"})
            try:
                # Of two at once one wins: a rename never replaces a folder that is not empty.
                draft.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                raise self._taken(request) from None
        except BaseException:
            os.close(lock)
            shutil.rmtree(draft)
            raise
        return lock

    def _fill(self, folder: Path, request: LocalRequest) -> None:
        base = folder / "ml"
        for relative in ("code", "input/config", "input/data", "model", "output/data", "output/intermediate"):
            (base / relative).mkdir(parents=True)
        for name in ("source", "output"):
            (folder / name).mkdir()
        (folder / _LOG).write_bytes(request.notice.encode())
        if request.layer is not None:
            request.layer.make()
        for name, content in request.record["request"]["input_config"].items():
            (base / "input" / "config" / name).write_text(json.dumps(content), encoding="utf-8")
        request.code.write(base / "code")
        (folder / "source" / "sourcedir.tar.gz").write_bytes(request.code.archive())
        for name, channel in request.channels.items():
            target = base / "input" / "data" / name
            target.mkdir()
            channel.download(target)

    @staticmethod
    def _start(folder: Path, lock: int, request: LocalRequest, held: tuple[int, ...]) -> None:
        inherited = inherited_environment(os.environ, same_python=request.environment is None)
        # As in a container: the job's own variables come over the image's.
        variables = {**inherited, **image_environment(request.name), **request.variables}
        process = start_supervisor(folder, lock, variables, held)
        # Somebody must collect the exit code, or a zombie would stay for as long as the notebook runs.
        threading.Thread(target=process.wait, name=f"smkit-job-{request.name}", daemon=True).start()


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at once do not take each other for the supervisor.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
