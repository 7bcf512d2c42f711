"""One run of one job: its folder, which stands for the container, and its processes."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from botocore.exceptions import ClientError

from smkit.aws import split_s3_uri
from smkit.errors import SmkitError
from smkit.jobs import contract, supervisor
from smkit.jobs.channels import S3Channel
from smkit.jobs.launching import start_supervisor
from smkit.testing import toolkit
from smkit.testing.checkpoints import Checkpoints
from smkit.testing.moto_server import inherited_environment
from smkit.testing.rules import framework_version

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from smkit.testing.records import TrainingJob

_OPT_ML = "/opt/ml"
_DEFAULT_FRAMEWORK_VERSION = "1.2-1"
_KILL_SECONDS = 20.0


class JobFailed(Exception):
    """The job failed.

    Args:
        reason: Its FailureReason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Platform:
    """What every job of a sandbox shares.

    Args:
        client: Returns the boto3 client of a service.
        folder: Where the jobs' folders are made.
        region: The region.
        environment: Variables of every container: how the script reaches the sandbox.
        stop_grace: Seconds between a stop and the kill.
        closing: Set when the sandbox ends.
    """

    client: Callable[[str], Any]
    folder: Path
    region: str
    environment: Mapping[str, str]
    stop_grace: float
    closing: threading.Event


class Container:
    """One run of a job.

    Args:
        job: The job.
        platform: The sandbox's.
        folder: A folder that does not exist yet.
    """

    def __init__(self, job: TrainingJob, platform: Platform, folder: Path) -> None:
        self._job = job
        self._platform = platform
        self.folder = folder
        self.base = folder / "ml"
        self.log = folder / "job.log"
        self.checkpoints: Checkpoints | None = None
        self._process_file = folder / "toolkit.pid"
        self._failure_file = folder / "failure"
        self._process: subprocess.Popen[bytes] | None = None
        self._hyperparameters: dict[str, str] = {}

    def fill(self) -> None:
        """Make the folders and download the channels and checkpoints.

        Raises:
            JobFailed: The data cannot be had.
        """
        for relative in ("code", "input/config", "input/data", "model", "output/data", "output/intermediate"):
            (self.base / relative).mkdir(parents=True)
        (self.folder / "output").mkdir()
        self.log.touch()
        try:
            for channel in self._channels():
                target = self.base / "input" / "data" / channel["ChannelName"]
                target.mkdir()
                self._download(channel["DataSource"]["S3DataSource"], target)
            config = self._job.request.get("CheckpointConfig")
            if config is not None:
                folder = Path(self._inside(self._checkpoint_path()))
                self.checkpoints = Checkpoints(self._platform.client("s3"), config["S3Uri"], folder)
                self.checkpoints.restore()
        except (SmkitError, ClientError, ValueError, TypeError) as error:
            raise JobFailed(f"ClientError: Data download failed:{error}") from error

    def start(self) -> None:
        """Install the code and start the script.

        Raises:
            JobFailed: The toolkit would fail before it calls the script.
        """
        wire = {name: self._mapped(value) for name, value in (self._job.request.get("HyperParameters") or {}).items()}
        given = contract.decode_hyperparameters(wire)
        entry_point = given.get("sagemaker_program")
        submit_directory = given.get("sagemaker_submit_directory")
        if not isinstance(entry_point, str) or not isinstance(submit_directory, str):
            self._fail_before_script(
                "ValueError",
                "the hyperparameters sagemaker_program and sagemaker_submit_directory must name the script and its "
                "archive on S3",
            )
        self._fetch_code(submit_directory)
        image = self._job.request["AlgorithmSpecification"]["TrainingImage"]
        version = framework_version(image) or _DEFAULT_FRAMEWORK_VERSION
        kind = contract.toolkit_of(version)
        config = self._input_config(wire, entry_point, submit_directory)
        for name, content in config.files().items():
            (self.base / "input" / "config" / name).write_text(json.dumps(content), encoding="utf-8")
        files = {path.name for path in (self.base / "code").iterdir()}
        is_shell = entry_point.endswith(".sh")
        if is_shell and (self.base / "code" / entry_point).is_file():
            (self.base / "code" / entry_point).chmod(0o755)
        is_package = "setup.py" in files and not is_shell
        install = ["."] if is_package else []
        install += ["-r", "requirements.txt"] if "requirements.txt" in files and not is_shell else []
        arguments = contract.script_arguments(contract.script_hyperparameters(config.hyperparameters))
        script = contract.command(sys.executable, entry_point, arguments, toolkit=kind, is_package=is_package)
        note = (
            f"smkit sandbox: this job runs with Python {sys.version.split()[0]} and the packages of this machine, not "
            f"with those of {image}"
        )
        spec = {
            "command": script,
            "sandbox": os.getpid(),
            "process": str(self._process_file),
            "failure": str(self._failure_file),
            "note": note,
        }
        (self.folder / "toolkit.json").write_text(json.dumps(spec), encoding="utf-8")
        request = {
            "python": sys.executable,
            "command": [
                sys.executable,
                *("-I", "-S", str(Path(toolkit.__file__))),
                str(self.folder / "toolkit.json"),
            ],
            "environment": contract.environment(str(self.base), config, toolkit=kind, num_cpus=os.cpu_count() or 1),
            "base": str(self.base),
            "install": install or None,
            "timeout": None,
            "metric_definitions": {},
        }
        record = {"status": "InProgress", "packages": {}, "exit_code": None, "request": request}
        supervisor.write_json(self.folder / "run.json", record)
        self._launch()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the job's processes; tell whether they ended."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the script at once, as the platform does; the supervisor then clears up."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            # The toolkit leads the script's process group.
            os.killpg(int(self._process_file.read_text(encoding="ascii")), signal.SIGKILL)
        except FileNotFoundError:
            # pip still runs: the supervisor ends it.
            self._process.terminate()
        except (ProcessLookupError, PermissionError):
            # It ended meanwhile; macOS says EPERM of a group of zombies.
            return

    def destroy(self) -> None:
        """See that nothing runs any more."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            if not self.wait(_KILL_SECONDS):
                self._process.kill()
                self._process.wait()

    def result(self) -> str | None:
        """Return the FailureReason of a job that ended by itself, or None for exit code 0."""
        record = json.loads((self.folder / "run.json").read_bytes())
        if record["exit_code"] == 0:
            # A script that saves no model completes on SageMaker; what cannot be packed does not.
            if record["status"] == "Completed" or not supervisor.holds_file(self.base / "model"):
                return None
            return f"ClientError: Artifact upload failed:{record['reason']}"
        if self._failure_file.is_file():
            return f"AlgorithmError: {self._failure_file.read_text(encoding='utf-8')}"
        reason = record.get("reason") or "the container was killed"
        text = toolkit.framework_error("sagemaker_training.errors.InstallRequirementsError", reason)
        self._append(toolkit.failure_lines(text))
        return f"AlgorithmError: {text}"

    def archives(self) -> dict[str, Path]:
        """Return name -> file of what is to be uploaded.

        Raises:
            JobFailed: A folder holds what cannot be packed.
        """
        found = {}
        for name, source in (("model", self.base / "model"), ("output", self.base / "output" / "data")):
            archive = self.folder / "output" / f"{name}.tar.gz"
            try:
                # Of a completed job the supervisor has packed it, and deleted the folder.
                if not archive.is_file() and source.is_dir() and supervisor.holds_file(source):
                    supervisor.pack(source, archive)
            except supervisor.Outcome as outcome:
                raise JobFailed(f"ClientError: Artifact upload failed:{outcome.reason}") from None
            if archive.is_file():
                found[name] = archive
        return found

    def _channels(self) -> list[dict[str, Any]]:
        return list(self._job.request.get("InputDataConfig") or ())

    def _download(self, source: Mapping[str, Any], target: Path) -> None:
        client = self._platform.client("s3")
        if source["S3DataType"] == "S3Prefix":
            S3Channel(source["S3Uri"], lambda: client).download(target)
            return
        bucket, key = split_s3_uri(source["S3Uri"])
        manifest = json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        bucket, prefix = split_s3_uri(manifest[0]["prefix"])
        for relative in manifest[1:]:
            if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
                raise ValueError(f"the manifest's {relative!r} is not a path inside the channel")
            path = target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                client.download_fileobj(bucket, prefix + relative, file)

    def _fetch_code(self, uri: str) -> None:
        archive = self.folder / "sourcedir.tar.gz"
        try:
            bucket, key = split_s3_uri(uri)
            with archive.open("wb") as file:
                self._platform.client("s3").download_fileobj(bucket, key, file)
            with tarfile.open(archive) as tar:
                if hasattr(tarfile, "data_filter"):
                    tar.extractall(self.base / "code", filter="data")
                else:  # the first patch releases of Python 3.10 and 3.11
                    tar.extractall(self.base / "code")  # noqa: S202 - the archive is the caller's own code
        except ClientError as error:
            self._fail_before_script("botocore.exceptions.ClientError", str(error))
        except (SmkitError, tarfile.TarError, EOFError) as error:
            self._fail_before_script(type(error).__name__, str(error))

    def _fail_before_script(self, kind: str, message: str) -> NoReturn:
        text = toolkit.framework_error(kind, message)
        self._append(toolkit.failure_lines(text))
        raise JobFailed(f"AlgorithmError: {text}")

    def _append(self, lines: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(lines)

    def _input_config(self, wire: dict[str, str], entry_point: str, submit_directory: str) -> contract.InputConfig:
        channels = self._channels()
        config = contract.input_config(
            {},
            [channel["ChannelName"] for channel in channels],
            job_name=self._job.name,
            region=self._platform.region,
            entry_point=entry_point,
            submit_directory=submit_directory,
            instance_type=self._job.request["ResourceConfig"]["InstanceType"],
        )
        delivery = {name: dict(how) for name, how in config.inputdataconfig.items()}
        for channel in channels:
            if channel.get("ContentType"):
                delivery[channel["ChannelName"]]["ContentType"] = channel["ContentType"]
        # What the request leaves out the toolkit knows by itself.
        return dataclasses.replace(config, hyperparameters={**config.hyperparameters, **wire}, inputdataconfig=delivery)

    def _checkpoint_path(self) -> str:
        config = self._job.request.get("CheckpointConfig") or {}
        return str(config.get("LocalPath") or f"{_OPT_ML}/checkpoints").rstrip("/")

    def _inside(self, path: str) -> str:
        """Return where a path of the container lies on this machine."""
        relative = path.removeprefix(_OPT_ML) if path.startswith(f"{_OPT_ML}/") else f"/outside{path}"
        return f"{self.base}{relative}"

    def _mapped(self, value: str) -> str:
        """Return a hyperparameter's or variable's text; one that names the checkpoints' folder names it here."""
        if self.checkpoints is None:
            return value
        local = self._checkpoint_path()
        try:
            plain = json.loads(value)
        except ValueError:
            plain = value
        if not isinstance(plain, str) or not (plain == local or plain.startswith(f"{local}/")):
            return value
        inside = self._inside(local) + plain[len(local) :]
        return inside if plain is value else json.dumps(inside)

    def _launch(self) -> None:
        variables = {name: self._mapped(value) for name, value in (self._job.request.get("Environment") or {}).items()}
        variables = {
            **inherited_environment(),
            **contract.image_environment(self._job.name),
            # The job's own win over the image's.
            **variables,
            **self._platform.environment,
            "TRAINING_JOB_ARN": self._job.arn,
        }
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._process = start_supervisor(self.folder, lock, variables)
        finally:
            os.close(lock)
