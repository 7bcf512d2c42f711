"""Starts training jobs, and finds them again."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from smkit.errors import ConfigError, JobCheckWarning, JobNotFound, ServiceError, StorageError, did_you_mean
from smkit.jobs.channels import as_channels
from smkit.jobs.job import TrainingJob
from smkit.jobs.job_names import generate_job_name
from smkit.jobs.listing import TrainingJobs
from smkit.jobs.local import LocalBackend
from smkit.jobs.local_request import check_image, parse_local_environment
from smkit.jobs.options import SageMakerOptions
from smkit.jobs.secrets import refuse_secrets
from smkit.jobs.spec import JobSpec
from smkit.jobs.staging import stage

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from smkit.config import Settings
    from smkit.jobs.backend import Backend
    from smkit.jobs.checks import CheckReport
    from smkit.jobs.sagemaker.backend import SageMakerBackend
    from smkit.jobs.sagemaker.sdk import SKLearn

_NAMES_TO_GUESS_FROM = 200


class JobRunner:
    """Runs training scripts where the settings say.

    Args:
        settings: The settings; default: `Settings()`, read on first use.
        environment: Which Python and packages run the jobs of this machine: `host`, those that run this; or those of
            an image, such as `1.2-1`, or `1.2-1[toolkits]` with SageMaker's own packages too. Default: the settings'
            `local_environment`. It says of which image the jobs are too (`framework_version`), whatever the settings
            say. Variables for a script are another thing: `run(..., environment={...})`.

    Raises:
        ConfigError: `settings` is something else, `environment` is the name of none, or the jobs run on SageMaker.
    """

    def __init__(self, settings: Settings | None = None, environment: str | None = None) -> None:
        if settings is not None:
            from smkit.config import Settings

            if not isinstance(settings, Settings):
                is_path = isinstance(settings, str | Path)
                hint = "; the script goes to run: JobRunner().run('train.py', inputs)" if is_path else ""
                raise ConfigError(f"JobRunner takes smkit.Settings, got {type(settings).__name__}{hint}")
        if environment is not None:
            parse_local_environment(environment)
        self._settings = settings
        self._environment = environment
        if settings is not None:
            self._check_backend(settings)

    def __repr__(self) -> str:
        parts = []
        if self._settings is not None:
            parts += [f"backend={self._settings.backend!r}", f"root={self._settings.root!r}"]
        if self._environment is not None:
            parts.append(f"environment={self._environment!r}")
        return f"JobRunner({', '.join(parts)})"

    @property
    def settings(self) -> Settings:
        """The settings."""
        if self._settings is None:
            from smkit.config import Settings

            settings = Settings()
            self._check_backend(settings)
            self._settings = settings
        return self._settings

    @property
    def environment(self) -> str:
        """Which Python and packages run the jobs of this machine: `host`, or an image's, such as `1.2-1`."""
        return self.settings.local_environment if self._environment is None else self._environment

    def _check_backend(self, settings: Settings) -> None:
        if settings.backend == "sagemaker" and self._environment is not None:
            raise ConfigError(
                f"environment={self._environment!r} says what runs the jobs of this machine, and the settings have "
                "backend='sagemaker', where the image of framework_version does: leave environment out, or take "
                "settings with backend='local'"
            )

    def spec(
        self,
        entry_point: str | os.PathLike[str],
        inputs: Any = None,
        *,
        source_dir: str | os.PathLike[str] | None = None,
        dependencies: Sequence[str | os.PathLike[str]] | None = None,
        hyperparameters: Any = None,
        job_name: str | None = None,
        timeout: float | None = None,
        metric_definitions: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        instance_type: str | None = None,
        framework_version: str | None = None,
        sagemaker: SageMakerOptions | Mapping[str, Any] | None = None,
    ) -> JobSpec:
        """Return the job that `run` would start: to look at, to check, to run later.

        Arguments are those of `run`.

        Raises:
            ConfigError: A value or an input breaks its rule.
        """
        settings = self.settings
        variables = dict(environment or {})
        if settings.pip_index_url is not None:
            variables.setdefault("PIP_INDEX_URL", settings.pip_index_url.get_secret_value())
        if settings.backend == "sagemaker":
            # On this machine they go to the script's process only; there, Describe shows them.
            refuse_secrets(variables, "environment variable")
        return JobSpec(
            name=generate_job_name(str(entry_point)) if job_name is None else job_name,
            entry_point=str(entry_point),
            source_dir=None if source_dir is None else Path(source_dir),
            dependencies=() if dependencies is None else cast("tuple[Path, ...]", dependencies),
            channels=as_channels(inputs, partial(settings.client, "s3")),
            hyperparameters=hyperparameters,
            timeout=timeout,
            metric_definitions=metric_definitions or {},
            environment=variables,
            framework_version=self._framework_version(framework_version),
            instance_type=settings.instance_type if instance_type is None else instance_type,
            region=settings.region,
            sagemaker=_with_settings(SageMakerOptions.of(sagemaker), settings),
        )

    def run(
        self,
        entry_point: str | os.PathLike[str] | JobSpec,
        inputs: Any = None,
        *,
        source_dir: str | os.PathLike[str] | None = None,
        dependencies: Sequence[str | os.PathLike[str]] | None = None,
        hyperparameters: Any = None,
        job_name: str | None = None,
        timeout: float | None = None,
        metric_definitions: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        instance_type: str | None = None,
        framework_version: str | None = None,
        sagemaker: SageMakerOptions | Mapping[str, Any] | None = None,
        wait: bool = True,
        check: bool = True,
    ) -> TrainingJob:
        """Run a script to its end, showing its output.

        Ctrl-C stops a job on this machine; one on SageMaker goes on, and a line says how to come back.

        Args:
            entry_point: The script, `.py` or `.sh`; with `source_dir`, a path inside it. Or what `spec` returned.
            inputs: A dataset (one channel per split), or a mapping of channel name -> file, folder, `s3://` URI or
                `Channel`. Data is copied: the script cannot change the original.
            source_dir: Folder whose content travels with the script; default: the script alone.
            dependencies: Further files and folders, which lie beside the script in the job, each under its own name.
            hyperparameters: Name -> JSON value, or an instance of a dataclass or of a pydantic model.
            job_name: The job's name; default: one made of the script's name and the time.
            timeout: Seconds after which the job is stopped.
            metric_definitions: Metric name -> regex with one group, matched against each line of the log.
            environment: Further environment variables for the script, name -> value. Which Python and packages run it
                is `JobRunner(environment=...)`.
            instance_type: Instance of the job; default: that of the settings.
            framework_version: Tag of the AWS scikit-learn image; default: that of the runner's environment, or, under
                `host` and on SageMaker, that of the settings.
            sagemaker: What the job asks of SageMaker beside: `SageMakerOptions`, or a mapping of its names. Settings
                fill in what is left out: network, key and tags.
            wait: Wait for the end and show the output; with False, return once the job is accepted.
            check: Do what `check` does, and refuse to start where it finds a problem; here, of hyperparameters only.

        Raises:
            ConfigError: A value, the script or an input breaks its rule; nothing was started.
            ParityEnvironmentError: The image's Python or packages cannot be had on this machine; nothing was started.
            JobRefused: The check found problems; nothing was started.
            JobError: The script does not compile, the name is taken (`DuplicateJobError`), or the service refused
                (`ServiceError`); nothing was started.
            TrainingFailed: The script failed; `traceback` holds its own traceback.
            TrainingTimeout: The script ran longer than `timeout`.
            TrainingStopped: The job was stopped.
        """
        spec = entry_point
        given = {
            "inputs": inputs,
            "source_dir": source_dir,
            "dependencies": dependencies,
            "hyperparameters": hyperparameters,
            "job_name": job_name,
            "timeout": timeout,
            "metric_definitions": metric_definitions,
            "environment": environment,
            "instance_type": instance_type,
            "framework_version": framework_version,
            "sagemaker": sagemaker,
        }
        if not isinstance(spec, JobSpec):
            spec = self.spec(spec, **given)
        elif clash := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f"{', '.join(clash)}: a JobSpec holds these already; change it with dataclasses.replace(spec, ...)"
            )
        return self._run(spec, wait=wait, check=check)

    def submit(
        self,
        entry_point: str | os.PathLike[str] | JobSpec,
        inputs: Any = None,
        *,
        source_dir: str | os.PathLike[str] | None = None,
        dependencies: Sequence[str | os.PathLike[str]] | None = None,
        hyperparameters: Any = None,
        job_name: str | None = None,
        timeout: float | None = None,
        metric_definitions: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        instance_type: str | None = None,
        framework_version: str | None = None,
        sagemaker: SageMakerOptions | Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> TrainingJob:
        """Start a job and return it as soon as its inputs are copied; it goes on when this process ends.

        Arguments and errors are those of `run`.
        """
        return self.run(
            entry_point,
            inputs,
            source_dir=source_dir,
            dependencies=dependencies,
            hyperparameters=hyperparameters,
            job_name=job_name,
            timeout=timeout,
            metric_definitions=metric_definitions,
            environment=environment,
            instance_type=instance_type,
            framework_version=framework_version,
            sagemaker=sagemaker,
            wait=False,
            check=check,
        )

    def check(self, spec: JobSpec) -> CheckReport:
        """Look for everything that would make a job fail, before anything is paid for.

        Looks at the code as the image's Python would, at the inputs, the options, and with `backend="sagemaker"` at the
        account: role, bucket, image. What cannot be looked at, for lack of a permission, is said to be unknown.

        Args:
            spec: What `spec` returned.

        Raises:
            ConfigError: The script, the code or an input is not there.
            JobError: The script does not compile.
        """
        from smkit.jobs.checks import check_job

        return check_job(spec, self.settings, stage(spec))

    def estimator(self, spec: JobSpec) -> SKLearn:
        """Return the job as a configured `sagemaker.sklearn.SKLearn`, to go on with the SageMaker SDK (version 2).

        Uploads the code and the local inputs; starts nothing. Its `fit` takes the inputs as `s3://` URIs.

        Args:
            spec: What `spec` returned.

        Raises:
            ConfigError: The script, the code or an input breaks its rule.
            MissingExtraError: Version 2 of the SDK is not installed.
            StorageError: The code or an input could not be uploaded.
        """
        return self._sagemaker().estimator(spec)

    def jobs(self) -> TrainingJobs:
        """Return the jobs that the store knows, the newest first."""
        backend = self._backend()
        return TrainingJobs(TrainingJob(name, backend) for name in backend.names())

    def attach(self, name: str) -> TrainingJob:
        """Return a job by its name, whichever process or machine submitted it.

        Raises:
            JobNotFound: No job has this name.
        """
        backend = self._backend()
        try:
            backend.status(name)
        except JobNotFound as error:
            raise JobNotFound(f"{error}{did_you_mean(name, _some_names(backend))}") from None
        return TrainingJob(name, backend)

    def _run(self, spec: JobSpec, *, wait: bool, check: bool) -> TrainingJob:
        backend = self._backend()
        if check and self.settings.backend == "sagemaker":
            # Before the request is prepared, which stops at the first thing that is wrong.
            report = self.check(spec)
            if any(finding.subject != "job_name" for finding in report.problems):
                report.raise_for_problems()
            # A name that is taken, and nothing else, is a DuplicateJobError; `prepare` raises it.
            for finding in report.warnings:
                warnings.warn(f"job {spec.name!r}: {finding}", JobCheckWarning, stacklevel=3)
        request = backend.prepare(spec)
        if check and self.settings.backend == "local":
            from smkit.jobs.checks import refuse_wrong_hyperparameters

            refuse_wrong_hyperparameters(spec, request.code)
        job = TrainingJob(spec.name, backend)
        if not wait:
            backend.submit(request)
            return job
        submitted = False
        try:
            backend.submit(request)
            submitted = True
            return job._wait(None, logs=True) if backend.stops_on_interrupt else job.wait()
        except BaseException as error:
            if submitted and backend.stops_on_interrupt and not isinstance(error, Exception):
                self._stop(job)
            raise

    def _framework_version(self, given: str | None) -> str:
        """Return the image that a job is made for."""
        name = None if self.settings.backend == "sagemaker" else parse_local_environment(self.environment)
        if name is None:
            return self.settings.framework_version if given is None else given
        if given is not None:
            check_image(name, given)
        return name.framework_version

    def _backend(self) -> Backend[Any]:
        """Choose where jobs run."""
        if self.settings.backend == "sagemaker":
            return self._sagemaker()
        root = self.settings.root
        # A process needs a folder: with a store on S3 the jobs of this machine lie beside the code.
        folder = Path.cwd() / ".smkit" if root.startswith("s3://") else Path(root)
        return LocalBackend(folder / "jobs", self.environment)

    def _sagemaker(self) -> SageMakerBackend:
        from smkit.jobs.sagemaker.backend import SageMakerBackend

        return SageMakerBackend(self.settings)

    @staticmethod
    def _stop(job: TrainingJob) -> None:
        """Stop a job, wait until none of its processes is left, and say so."""
        job.stop()
        for _ in job.logs(follow=True):
            continue
        status = job.status
        how = "was stopped" if status == "Stopped" else f"was over already: {status}"
        sys.stderr.write(f"\njob {job.name!r} {how}\n")


def _some_names(backend: Backend[Any]) -> list[str]:
    """Return the newest names, to guess which one was meant; none where the service does not say."""
    try:
        return list(islice(backend.names(), _NAMES_TO_GUESS_FROM))
    except (ServiceError, StorageError):
        return []


def _with_settings(options: SageMakerOptions, settings: Settings) -> SageMakerOptions:
    """Fill in from the settings what the options leave out."""
    own_network = bool(options.subnets)
    return replace(
        options,
        subnets=options.subnets if own_network else settings.subnets,
        security_groups=options.security_groups if own_network else settings.security_groups,
        kms_key=settings.kms_key if options.kms_key is None else options.kms_key,
        tags={**settings.tags, **options.tags},
    )
