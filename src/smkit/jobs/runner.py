"""Starts training jobs, and finds them again."""

from __future__ import annotations

import re
import secrets
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError, JobNotFound
from smkit.jobs.channels import as_channels
from smkit.jobs.job import TrainingJob
from smkit.jobs.local import LocalBackend
from smkit.jobs.spec import JobSpec

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from smkit.config import Settings

_STEM_CHARACTERS = 38


class JobRunner:
    """Runs training scripts where the settings say.

    Args:
        settings: The settings; default: `Settings()`, read on first use.

    Raises:
        ConfigError: `settings` is something else.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        if settings is not None:
            from smkit.config import Settings

            if not isinstance(settings, Settings):
                is_path = isinstance(settings, str | Path)
                hint = "; the script goes to run: JobRunner().run('train.py', inputs)" if is_path else ""
                raise ConfigError(f"JobRunner takes smkit.Settings, got {type(settings).__name__}{hint}")
        self._settings = settings

    def __repr__(self) -> str:
        if self._settings is None:
            return "JobRunner()"
        return f"JobRunner(backend={self._settings.backend!r}, root={self._settings.root!r})"

    @property
    def settings(self) -> Settings:
        """The settings."""
        if self._settings is None:
            from smkit.config import Settings

            self._settings = Settings()
        return self._settings

    def run(
        self,
        entry_point: str | os.PathLike[str],
        inputs: Any = None,
        *,
        source_dir: str | os.PathLike[str] | None = None,
        hyperparameters: Any = None,
        job_name: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
        metric_definitions: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> TrainingJob:
        """Run a script to its end, showing its output; Ctrl-C stops the job.

        Args:
            entry_point: The script, `.py` or `.sh`; with `source_dir`, a path inside it.
            inputs: A dataset (one channel per split), or a mapping of channel name -> file, folder, `s3://` URI or
                `Channel`. Data is copied: the script cannot change the original.
            source_dir: Folder whose content travels with the script; default: the script alone.
            hyperparameters: Name -> JSON value, or an instance of a dataclass or of a pydantic model.
            job_name: The job's name; default: one made of the script's name and the time.
            timeout: Seconds after which the job is stopped.
            wait: Wait for the end and show the output; with False this is `submit`.
            metric_definitions: Metric name -> regex with one group, matched against each line of the log.
            environment: Further environment variables for the script.

        Raises:
            ConfigError: A value, the script or an input breaks its rule; nothing was started.
            JobError: The script does not compile, or the name is taken (`DuplicateJobError`); nothing was started.
            TrainingFailed: The script failed; `traceback` holds its own traceback.
            TrainingTimeout: The script ran longer than `timeout`.
            TrainingStopped: The job was stopped.
        """
        backend = self._backend()
        spec = self._spec(
            entry_point,
            inputs,
            source_dir=source_dir,
            hyperparameters=hyperparameters,
            job_name=job_name,
            timeout=timeout,
            metric_definitions=metric_definitions,
            environment=environment,
        )
        request = backend.prepare(spec)
        job = TrainingJob(spec.name, backend)
        if not wait:
            backend.submit(request)
            return job
        submitted = False
        try:
            backend.submit(request)
            submitted = True
            return job._wait(None, logs=True)
        except BaseException as error:
            if submitted and not isinstance(error, Exception):
                self._stop(job)
            raise

    def submit(
        self,
        entry_point: str | os.PathLike[str],
        inputs: Any = None,
        *,
        source_dir: str | os.PathLike[str] | None = None,
        hyperparameters: Any = None,
        job_name: str | None = None,
        timeout: float | None = None,
        metric_definitions: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> TrainingJob:
        """Start a job and return it as soon as its inputs are copied; it goes on when this process ends.

        Arguments and errors are those of `run`.
        """
        return self.run(
            entry_point,
            inputs,
            source_dir=source_dir,
            hyperparameters=hyperparameters,
            job_name=job_name,
            timeout=timeout,
            wait=False,
            metric_definitions=metric_definitions,
            environment=environment,
        )

    def jobs(self) -> list[TrainingJob]:
        """Return the jobs that the store knows, the newest first."""
        backend = self._backend()
        return [TrainingJob(name, backend) for name in backend.names()]

    def job(self, name: str) -> TrainingJob:
        """Return a job by its name, whichever process submitted it.

        Raises:
            JobNotFound: No job has this name.
        """
        from smkit.errors import did_you_mean

        backend = self._backend()
        try:
            backend.status(name)
        except JobNotFound as error:
            raise JobNotFound(f"{error}{did_you_mean(name, backend.names())}") from None
        return TrainingJob(name, backend)

    def _backend(self) -> LocalBackend:
        """Choose where jobs run."""
        if self.settings.backend != "local":
            raise ConfigError(
                f"backend {self.settings.backend!r} is not in this release, which runs jobs on this machine only: set "
                "backend to 'local' (SMKIT_BACKEND=local)"
            )
        root = self.settings.root
        # A process needs a folder: with a store on S3 the jobs of this machine lie beside the code.
        folder = Path.cwd() / ".smkit" if root.startswith("s3://") else Path(root)
        return LocalBackend(folder / "jobs")

    def _spec(
        self,
        entry_point: str | os.PathLike[str],
        inputs: Any,
        *,
        source_dir: str | os.PathLike[str] | None,
        hyperparameters: Any,
        job_name: str | None,
        timeout: float | None,
        metric_definitions: Mapping[str, str] | None,
        environment: Mapping[str, str] | None,
    ) -> JobSpec:
        settings = self.settings
        variables = dict(environment or {})
        if settings.pip_index_url is not None:
            variables.setdefault("PIP_INDEX_URL", settings.pip_index_url.get_secret_value())
        return JobSpec(
            name=generate_job_name(str(entry_point)) if job_name is None else job_name,
            entry_point=str(entry_point),
            source_dir=None if source_dir is None else Path(source_dir),
            channels=as_channels(inputs, lambda: settings.client("s3")),
            hyperparameters=hyperparameters,
            timeout=timeout,
            metric_definitions=metric_definitions or {},
            environment=variables,
            framework_version=settings.framework_version,
            instance_type=settings.instance_type,
            region=settings.region,
        )

    @staticmethod
    def _stop(job: TrainingJob) -> None:
        """Stop a job, wait until none of its processes is left, and say so."""
        job.stop()
        for _ in job.logs(follow=True):
            continue
        status = job.status
        how = "was stopped" if status == "Stopped" else f"was over already: {status}"
        sys.stderr.write(f"\njob {job.name!r} {how}\n")


def generate_job_name(entry_point: str) -> str:
    """Return `<script's name>-<UTC time to the millisecond>-<4 random hex digits>`, a valid job name."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(entry_point).stem).strip("-")[:_STEM_CHARACTERS].strip("-")
    now = datetime.now(timezone.utc)
    return f"{stem or 'job'}-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{secrets.token_hex(2)}"
