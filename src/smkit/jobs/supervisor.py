"""Runs one local job to its end, as a process of its own. Run as a script; standard library only.

    python -I -S supervisor.py JOB_FOLDER LOCK_FD

The submitter starts it in a new session, so that the job outlives the notebook that submitted it. The protocol:

* `JOB_FOLDER/run.json` is the job's record. The submitter writes it before the start; afterwards only this process
  does, always whole: temporary file, fsync, rename. Its `request` says what to run:
  `python` (interpreter), `command` (list), `environment` (variables over this process's own), `base` (the folder that
  stands for /opt/ml), `install` (pip's arguments, or null), `timeout` (seconds, or null), `metric_definitions`. And, if
  they are there: `layer` (the `site-packages` of `python`, which is the job's own virtual environment, so that pip may
  change it; else pip installs into a folder beside), `search_path` (folders that come first in PATH), `mounted_at`
  (where the job's processes find `base` too), `read_only` (with `mounted_at`: a folder that they cannot write into),
  `notice_bytes` (the log starts with so many that the script did not write).
* `LOCK_FD` is an open `JOB_FOLDER/lock`, already locked with flock. The lock lives as long as this process: a record
  that is not final beside a free lock means that this process was killed. The file holds this process's id.
* One byte on stdin says that the submitter is done. Its end without that byte means that the submitter gave up or died:
  this process then ends at once and leaves no trace.
* SIGTERM asks for a stop. Who sends it makes `JOB_FOLDER/stop-requested` first, so that whoever reads the status knows
  of the stop at once; this process does not look at that file. A stop and the timeout send SIGTERM to the script's
  process group, and SIGKILL after `GRACE_SECONDS`.
* `JOB_FOLDER/job.log` gets what pip, the script and its children write to stdout and stderr, as it comes.
* In the end no process of the job is left, `base/output` holds `success` or `failure`, `JOB_FOLDER/output` holds
  `model.tar.gz` (and `output.tar.gz` if there is output) of a completed job, and the record is final: `status`,
  `secondary_status`, `reason`, `exit_code`, `metrics`, `resolved_hyperparameters`, `model`, `packages`, `warnings`,
  `started`, `ended`.

Deleted in the end: the copies of the inputs, the environment and what pip installed; of a completed job also what is in
the archives.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import gzip
import hashlib
import json
import math
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE_SECONDS = 5.0
_KILL_SECONDS = 10.0
_METRIC_SECONDS = 60
_METRIC_LINE = re.compile(r"^smkit metric (?P<name>[^=\s]+)=(?P<value>\S+)$")
_LINE_CHARACTERS = 10_000
_HYPERPARAMETER_BYTES = 1 << 20
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Outcome(Exception):
    """How the job ended."""

    def __init__(self, status: str, secondary: str, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.secondary, self.reason, self.exit_code = status, secondary, reason, exit_code


def failed(reason: str, exit_code: int | None = None) -> Outcome:
    """Return the outcome of a failed job."""
    return Outcome("Failed", "Failed", reason, exit_code)


class Record:
    """`run.json`, rewritten whole at each change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    def update(self, **values: Any) -> None:
        """Change some values and write them all."""
        self.values.update(values)
        write_json(self.path, self.values)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file so that a reader sees the old or the new one, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(values, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")


class Children:
    """Starts the job's processes, waits for them, and leaves none behind."""

    def __init__(self, timeout: float | None, through: tuple[str, ...] = ()) -> None:
        self.stop_requested = False
        self._through = through
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._wakeup, write_end = os.pipe()
        for end in (self._wakeup, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # A Python handler, even an empty one, is what makes the signal write to the wake-up pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._request_stop)
        self._prctl = _load_prctl()
        if self._prctl is not None:
            # What a script daemonizes becomes this process's child, so that it can be found in the end.
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def _request_stop(self, *_: object) -> None:
        self.stop_requested = True

    def run(self, command: list[str], cwd: Path, environment: dict[str, str], log: Path, on_stop: Any) -> int:
        """Run a command to its end and return its exit code; negative for a signal.

        Raises:
            Outcome: It could not start, was stopped, or ran too long.
        """
        self._raise_if_over()
        report, report_end = os.pipe()
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*self._through, str(report_end), *command] if self._through else command,
                    cwd=cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(report_end,) if self._through else (),
                    preexec_fn=self._die_with_parent if self._prctl else None,  # noqa: PLW1509 - no threads here
                )
        except OSError as error:
            os.close(report)
            raise failed(f"cannot start {command[0]}: {error}") from None
        finally:
            os.close(report_end)
        interrupted: Outcome | None = None
        kill_at = math.inf
        # Popen.wait would not see the children that this process inherits.
        while (exit_code := self._reap(process.pid)) is None:
            if interrupted is None and (interrupted := self._over()) is not None:
                on_stop()
                _signal_group(process.pid, signal.SIGTERM)
                kill_at = time.monotonic() + GRACE_SECONDS
            elif time.monotonic() >= kill_at:
                _signal_group(process.pid, signal.SIGKILL)
                kill_at = math.inf
            self._sleep_until(min(kill_at, math.inf if interrupted or self._deadline is None else self._deadline))
        process.returncode = exit_code
        self._kill_rest(process.pid)
        with os.fdopen(report, "rb") as reported:
            problem = reported.read().decode("utf-8", "replace")
        if interrupted is not None:
            interrupted.exit_code = exit_code
            raise interrupted
        if problem:
            raise failed(f"cannot start {command[0]} with the job's folder mounted: {problem}")
        return exit_code

    def _over(self) -> Outcome | None:
        if self.stop_requested:
            return Outcome("Stopped", "Stopped", "a stop was requested")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return Outcome(
                "Stopped", "MaxRuntimeExceeded", f"the job ran longer than its timeout of {self._timeout:g} s"
            )
        return None

    def _raise_if_over(self) -> None:
        if (outcome := self._over()) is not None:
            raise outcome

    def _sleep_until(self, moment: float) -> None:
        seconds = None if moment == math.inf else max(0.0, moment - time.monotonic())
        if select.select([self._wakeup], [], [], seconds)[0]:
            os.read(self._wakeup, 4096)

    @staticmethod
    def _reap(pid: int) -> int | None:
        """Collect the children that ended; return the exit code of `pid` if it is among them."""
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == pid:
                return os.waitstatus_to_exitcode(status)
            if ended == 0:
                return None

    @staticmethod
    def _kill_rest(group: int) -> None:
        """Kill what the script left behind: its group, and what left its group but not this process."""
        give_up = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < give_up:
            _signal_group(group, signal.SIGKILL)
            try:
                ended, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if ended == 0:
                for pid in _child_pids():
                    # Not collected yet, so the id is still that child's.
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.002)

    def _die_with_parent(self) -> None:
        self._prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _load_prctl() -> Any:
    """Return Linux's prctl, or None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Nobody left; macOS says EPERM of a group of zombies.
        return


def _child_pids() -> list[int]:
    """Return the ids of this process's children, where /proc tells."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may itself hold spaces and parentheses.
            parent = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if int(parent) == os.getpid():
            pids.append(int(entry.parent.name))
    return pids


def pack(source: Path, target: Path) -> dict[str, Any]:
    """Pack what is in a folder, reproducibly, and return size and SHA-256 of the archive.

    Raises:
        Outcome: The folder holds what an archive cannot, or the disk failed.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as raw:
            # Level 1: models hardly shrink further, and the time is the user's.
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                _add_folder(tar, source, "", source.resolve(), (source.resolve(),))
            raw.flush()
            os.fsync(raw.fileno())
        digest = hashlib.sha256()
        with temporary.open("rb") as packed_file:
            while block := packed_file.read(1 << 20):
                digest.update(block)
        size = temporary.stat().st_size
        temporary.replace(target)
    except OSError as error:
        raise failed(f"cannot pack {source.name} into {target}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return {"path": str(target), "bytes": size, "sha256": digest.hexdigest()}


def _add_folder(tar: tarfile.TarFile, folder: Path, prefix: str, root: Path, ancestors: tuple[Path, ...]) -> None:
    for path in sorted(folder.iterdir(), key=lambda item: os.fsencode(item.name)):
        name = prefix + path.name
        real = path.resolve()
        if path.is_symlink() and not (real.is_relative_to(root) and real.exists()):
            raise failed(f"{name!r} in {root} links to {real}, which is not in the folder: save a copy instead")
        mode = path.stat().st_mode
        info = tarfile.TarInfo(name)
        if stat.S_ISDIR(mode):
            if real in ancestors:
                raise failed(f"{name!r} in {root} links to a folder that holds it")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
            _add_folder(tar, path, name + "/", root, (*ancestors, real))
        elif stat.S_ISREG(mode):
            with path.open("rb") as file:
                info.size = os.fstat(file.fileno()).st_size
                info.mode = 0o755 if mode & stat.S_IXUSR else 0o644
                tar.addfile(info, file)
        else:
            raise failed(f"{name!r} in {root} is neither a file nor a folder")


def move_links(folder: Path, before: str, now_at: str) -> None:
    """Let the links in a folder that lead to where it was mounted lead to where it is.

    Args:
        folder: The folder; below it every link is looked at, none is followed.
        before: Where the job's folder was mounted.
        now_at: Where it is.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            link = Path(parent, name)
            if not link.is_symlink():
                continue
            leads_to = os.path.normpath(os.readlink(link))  # noqa: PTH115 - normpath must see the text as it is
            if leads_to == before or leads_to.startswith(f"{before}/"):
                link.unlink()
                link.symlink_to(now_at + leads_to[len(before) :])


def holds_file(folder: Path) -> bool:
    """Tell whether there is a file anywhere under a folder."""
    return any(files for _, _, files in os.walk(folder))


def collect_metrics(log: Path, definitions: dict[str, str], model: Path, *, start: int = 0) -> dict[str, float | str]:
    """Read the metrics; of one name the last value wins, in this order.

    The first `start` bytes of the log are not the script's.

    1. Lines `smkit metric <name>=<value>` of the log. 2. `metric_definitions`, on each line of the log.
    3. Numbers in `metrics.json` in the model folder, which hold every digit.

    JSON has no word for NaN and the infinities: they are kept as text.
    """
    with log.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        lines.seek(start)
        metrics = metrics_of_lines(lines, definitions)
    path = model / "metrics.json"
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return metrics
        for name, item in content.items() if isinstance(content, dict) else ():
            if isinstance(item, int | float) and not isinstance(item, bool) and (value := as_number(item)) is not None:
                metrics[name] = value
    return metrics


def metrics_of_lines(lines: Iterable[str], definitions: dict[str, str]) -> dict[str, float | str]:
    """Read the metrics of a log; those of the definitions win. NaN and the infinities are kept as text."""
    metrics: dict[str, float | str] = {}
    patterns = {name: re.compile(pattern) for name, pattern in definitions.items()}
    defined: dict[str, float | str] = {}
    for line in lines:
        text = line.rstrip("\r\n")[:_LINE_CHARACTERS]
        if (match := _METRIC_LINE.match(text)) and (value := as_number(match["value"])) is not None:
            metrics[match["name"]] = value
        for name, pattern in patterns.items():
            for match in pattern.finditer(text):
                if (value := as_number(match[1])) is not None:
                    defined[name] = value
    return metrics | defined


def read_hyperparameters(path: Path) -> dict[str, Any] | None:
    """Read the values that the script says it used, defaults included; None where it says nothing.

    Raises:
        ValueError: The file is not a JSON object that every reader of the record could read, or is too large for it.
        OSError: The file cannot be read.
    """
    if not path.is_file():
        return None
    if path.stat().st_size > _HYPERPARAMETER_BYTES:
        raise ValueError(f"it is larger than {_HYPERPARAMETER_BYTES} bytes")
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {type(values).__name__}")  # noqa: TRY004 - a file's content
    # Python reads NaN and half a surrogate pair, other readers of JSON do not.
    json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
    return values


def as_number(value: Any) -> float | str | None:
    """Return a finite float, `"nan"`, `"inf"` or `"-inf"`; None for what is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else str(number)


def describe_exit(exit_code: int) -> str:
    """Say what an exit code means."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    try:
        name = signal.Signals(number).name if number > 0 else ""
    except ValueError:
        name = ""
    hint = ", often because memory ran out" if name == "SIGKILL" else ""
    if exit_code < 0:
        return f"the script was killed by {name or f'signal {number}'}{hint}"
    return f"the script exited with code {exit_code}" + (f" (128 + {name}{hint})" if name else "")


class Job:
    """One job, from its record to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = Record(folder / "run.json")
        self.request: dict[str, Any] = self.record.values["request"]
        self.base = Path(self.request["base"])
        self.layer = Path(self.request.get("layer") or folder / "site-packages")
        self.mounted_at: str | None = self.request.get("mounted_at")
        self.log = folder / "job.log"
        self.children = Children(self.request["timeout"], self._mounter())
        self.warnings: list[str] = []

    def run(self) -> None:
        """Run the job and write its final record."""
        try:
            self._train()
            result = self._finish()
        except Outcome as outcome:
            result = {
                "status": outcome.status,
                "secondary_status": outcome.secondary,
                "reason": outcome.reason,
                "exit_code": outcome.exit_code,
            }
        except Exception as error:  # noqa: BLE001 - a job must end in a definite state, whatever happens
            traceback.print_exc()
            result = {
                "status": "Failed",
                "secondary_status": "Failed",
                "reason": f"{type(error).__name__} in the supervisor: {error}; see {self.folder / 'supervisor.log'}",
            }
        result["metrics"] = self._metrics()
        result["resolved_hyperparameters"] = self._resolved_hyperparameters()
        # First of all free the disk: the final record must find room.
        self._clean(completed=result["status"] == "Completed")
        self._write_verdict(result)
        self.record.update(**result, warnings=self.warnings, ended=now())

    def _train(self) -> None:
        code = self.base / "code"
        search_path = [*self.request.get("search_path", ()), os.environ.get("PATH", os.defpath)]
        environment = {**os.environ, "PATH": os.pathsep.join(search_path)}
        paths = [str(code)]
        if self.request["install"] is not None:
            self.record.update(secondary_status="Starting")
            self._install(code, environment)
            if not self._has_own_environment:
                paths.append(str(self.layer))
            self.record.update(packages=with_packages(self.record.values["packages"], installed_packages(self.layer)))
        # The job's own: a caller's is not inherited.
        paths += filter(None, [environment.get("PYTHONPATH")])
        environment |= self.request["environment"] | {"PYTHONPATH": os.pathsep.join(paths)}
        self.record.update(secondary_status="Training", started=now())
        exit_code = self.children.run(self.request["command"], code, environment, self.log, self._stopping)
        self.record.values["exit_code"] = exit_code
        if exit_code:
            raise failed(describe_exit(exit_code), exit_code)

    def _install(self, code: Path, environment: dict[str, str]) -> None:
        command = [self.request["python"], "-m", "pip", "install"]
        if not self._has_own_environment:
            self.layer.mkdir()
            command += ["--target", str(self.layer)]
        command += self.request["install"]
        # The image has no configuration file that could say --user, and nobody is there to answer.
        pip = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
        exit_code = self.children.run(command, code, environment | pip, self.log, self._stopping)
        if exit_code:
            kind = "InstallModuleError" if "." in self.request["install"] else "InstallRequirementsError"
            what = " ".join(["python", *command[1:]])
            raise failed(
                f"{kind}: pip could not install the requirements (exit code {exit_code}): {what}; its output is in "
                "the log",
                exit_code,
            )

    @property
    def _has_own_environment(self) -> bool:
        return self.request.get("layer") is not None

    def _mounter(self) -> tuple[str, ...]:
        """Return the command before each of the job's, without its last argument; empty where nothing is mounted."""
        if self.mounted_at is None:
            return ()
        script = Path(__file__).with_name("opt_ml.py")
        read_only = self.request.get("read_only") or ""
        return (sys.executable, "-I", "-S", str(script), str(self.base), self.mounted_at, read_only)

    def _finish(self) -> dict[str, Any]:
        model, output = self.base / "model", self.base / "output" / "data"
        if self.mounted_at is not None:
            for folder in (model, output):
                move_links(folder, self.mounted_at, str(self.base))
        if not holds_file(model):
            raise failed(
                "the script exited with code 0, but saved no model. It must write one into the folder that "
                'SM_MODEL_DIR names: joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib")); '
                "in a TrainingScript the folder is self.model_dir",
                0,
            )
        archive = pack(model, self.folder / "output" / "model.tar.gz")
        if output.is_dir() and holds_file(output):
            pack(output, self.folder / "output" / "output.tar.gz")
        return {
            "status": "Completed",
            "secondary_status": "Completed",
            "reason": "",
            "exit_code": 0,
            "model": archive,
        }

    def _stopping(self) -> None:
        self.record.update(status="Stopping", secondary_status="Stopping")

    def _metrics(self) -> dict[str, float | str]:
        def too_long(*_: object) -> None:
            raise TimeoutError(f"reading the metrics took longer than {_METRIC_SECONDS} s: simplify metric_definitions")

        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(_METRIC_SECONDS)
        try:
            definitions, start = self.request["metric_definitions"], self.request.get("notice_bytes", 0)
            return collect_metrics(self.log, definitions, self.base / "model", start=start)
        except OSError as error:
            self.warnings.append(f"no metrics: {error}")
            return {}
        finally:
            signal.alarm(0)

    def _resolved_hyperparameters(self) -> dict[str, Any] | None:
        try:
            return read_hyperparameters(self.base / "model" / "hyperparameters.json")
        except (OSError, ValueError, RecursionError) as error:
            self.warnings.append(f"hyperparameters.json is ignored: {error}")
            return None

    def _clean(self, *, completed: bool) -> None:
        unneeded = [self.base / "input" / "data", self.folder / "environment", self.folder / "site-packages"]
        if completed:
            unneeded += [self.base / "model", self.base / "output" / "data"]
        for folder in unneeded:
            if folder.exists():
                self._delete(folder)

    def _delete(self, folder: Path) -> None:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            self.warnings.append(f"cannot delete {folder}: {error}")

    def _write_verdict(self, result: dict[str, Any]) -> None:
        name = "success" if result["status"] == "Completed" else "failure"
        try:
            (self.base / "output" / name).write_text(result["reason"], encoding="utf-8")
        except OSError as error:
            self.warnings.append(f"cannot write output/{name}: {error}")


def installed_packages(layer: Path) -> dict[str, str]:
    """Return name -> version of what pip put into a folder; none where it made no such folder."""
    from importlib.metadata import distributions

    return {item.metadata["Name"]: item.version for item in distributions(path=[str(layer)])}


def with_packages(known: dict[str, str], changed: dict[str, str]) -> dict[str, str]:
    """Return name -> version with some changed, however the names are spelled."""

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    replaced = set(map(plain, changed))
    return {name: version for name, version in known.items() if plain(name) not in replaced} | changed


def main() -> None:
    """Run the job that the command line names."""
    folder, lock = Path(sys.argv[1]), int(sys.argv[2])
    # Inherited, and so held already; but where flock is emulated, as on NFS, a process's locks are its own.
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, False)
    if not os.read(sys.stdin.fileno(), 1):
        return
    job = Job(folder)
    # Only now, since whoever reads the id may send SIGTERM at once.
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    job.run()


if __name__ == "__main__":
    main()
