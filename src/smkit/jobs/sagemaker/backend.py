"""Jobs on Amazon SageMaker."""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from botocore.exceptions import ParamValidationError

from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.errors import ConfigError, DuplicateJobError, JobNotFound, ServiceError, StorageError
from smkit.jobs import staging
from smkit.jobs.backend import JobStatus, LogPage, Watching
from smkit.jobs.sagemaker import sdk
from smkit.jobs.sagemaker.cloudwatch import JobLogs, log_lines
from smkit.jobs.sagemaker.planning import make_plan, make_record
from smkit.jobs.sagemaker.record import ESTIMATORS, JOBS, JobRecords, source_key
from smkit.jobs.sagemaker.request import training_request
from smkit.jobs.sagemaker.service_errors import (
    is_not_found,
    is_undecided,
    service_error,
    translated,
    was_repeated,
)
from smkit.jobs.sagemaker.status import described_record, final_metrics, job_status, not_submitted, source_of
from smkit.jobs.sagemaker.submission import SageMakerRequest
from smkit.jobs.sagemaker.uploads import locate, upload_inputs
from smkit.jobs.secrets import refuse_secrets
from smkit.jobs.supervisor import metrics_of_lines
from smkit.naming import check_job_name
from smkit.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smkit.config import Settings
    from smkit.jobs.sagemaker.plan import TrainingPlan
    from smkit.jobs.spec import JobSpec

Via = Literal["sdk", "boto3"]

#: DescribeTrainingJob is free, but throttled for the whole account. Log lines come a few seconds late.
WATCHING = Watching(
    first_poll=2.0,
    slowest_poll=10.0,
    quick_for=60.0,
    settling=10.0,
    last_line="Reporting training SUCCESS",
    announces_phases=True,
)
_LIST_PAGE = 100  # the most that ListTrainingJobs gives


class SageMakerBackend:
    """Runs jobs on SageMaker, through the SDK's `SKLearn` where version 2 is installed, else through boto3.

    A job lies in `<root>/jobs/<job name>/`: `run.json` (its record), `source/sourcedir.tar.gz`, `output/model.tar.gz`,
    `checkpoints/`. Local data lies in `<root>/inputs/<sha256>/`, once.

    Args:
        settings: Where the store is, and as whom SageMaker is asked.
        via: Who spells the request; default: the SDK where it is installed.
        watching: How to wait for jobs.

    Raises:
        ConfigError: `via` is unknown.
    """

    stops_on_interrupt: ClassVar[bool] = False

    def __init__(self, settings: Settings, *, via: Via | None = None, watching: Watching = WATCHING) -> None:
        if via not in {"sdk", "boto3", None}:
            raise ConfigError(f"via={via!r} is not allowed: expected 'sdk', 'boto3' or None")
        self.settings = settings
        self._via = via
        self._watching = watching
        self._store = open_store(settings)
        self._records = JobRecords(self._store)
        self._logs = JobLogs(lambda: settings.client("logs"))
        self._lock = threading.Lock()
        self._role: str | None = None
        #: Of jobs that are over, which never change.
        self._final: dict[str, tuple[JobStatus, Mapping[str, Any], Mapping[str, Any]]] = {}
        self._known_records: dict[str, Mapping[str, Any]] = {}
        self._final_metrics: dict[str, Mapping[str, float]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a job be sent to another process, which asks for itself."""
        return (partial(SageMakerBackend, self.settings, via=self._via, watching=self._watching), ())

    @property
    def watching(self) -> Watching:
        """How to wait for its jobs."""
        return self._watching

    def prepare(self, spec: JobSpec) -> SageMakerRequest:
        """Return the whole request; reads the code and the data, and looks whether the name is free.

        Raises:
            ConfigError: The store is not in S3, there is no role, or the code or an input breaks its rule.
            DuplicateJobError: The name is taken.
            JobError: The script does not compile.
            ServiceError: AWS refused a call, or failed.
            StorageError: The store or an input cannot be read.
        """
        self._check_settings()
        self._check_via()
        refuse_secrets(spec.environment, "environment variable")
        code = staging.stage(spec)
        inputs = {name: channel.describe() for name, channel in spec.channels.items()}
        folder = self._free_folder(spec.name)
        uris, uploads = locate(spec.channels, self._root, lambda: self.settings.client("s3"))
        for item in uploads:
            inputs[item.channel] |= {"s3_uri": uris[item.channel], "sha256": item.sha256}
        plan = make_plan(spec, self.settings, code, uris, root=self._root, folder=folder, role=self._role_arn())
        # What it would refuse is refused before anything is uploaded.
        training_request(plan, self._model())
        return SageMakerRequest(plan, code, uploads, folder, make_record(spec, plan, code, inputs))

    def submit(self, request: SageMakerRequest) -> None:
        """Upload the data and the code, and start the job; returns once SageMaker has accepted it.

        Raises:
            ConfigError: A field of `extra` is not what the API takes.
            DuplicateJobError: The name is taken.
            IntegrityError: A file changed since the job was prepared.
            ServiceError: SageMaker refused, or failed; the message says where it is not known whether the job started.
            StorageError: The store cannot be written.
        """
        upload_inputs(request.uploads, self._store)
        if not self._records.claim(request.folder, request.record):
            raise DuplicateJobError(
                f"job {request.name!r} is being submitted by somebody else: choose another job_name"
            )
        self._records.put_source(request.folder, request.code.archive())
        try:
            self._create(request.plan)
        except KeyboardInterrupt:
            sys.stderr.write(
                f"\nwhether job {request.name!r} has started is not known: JobRunner().attach({request.name!r}) tells\n"
            )
            raise
        # The job runs. Without the mark only one thing is lost: should somebody delete the job before it has written
        # anything, its name would be free again.
        with contextlib.suppress(StorageError):
            self._records.mark_accepted(request.name)

    def status(self, name: str) -> JobStatus:
        """Return the state of a job.

        Raises:
            JobNotFound: No job has this name, it is not of this store, or it was deleted.
            ServiceError: SageMaker cannot be asked.
            StorageError: The store cannot be read.
        """
        return self._look(name)[0]

    def metrics(self, name: str) -> Mapping[str, float]:
        """Return the metrics of a job that is over; empty before.

        Those of the log; where that cannot be read, those that SageMaker found itself by `metric_definitions`.
        """
        if name in self._final_metrics:
            return self._final_metrics[name]
        status, description, record = self._look(name)
        if not status.is_final:
            return {}
        definitions = record.get("metric_definitions") or {}
        try:
            found = metrics_of_lines(log_lines(self._logs, name), definitions)
        except ServiceError:
            return final_metrics(description)
        metrics = final_metrics(description) | {key: float(value) for key, value in found.items()}
        if status.ended is None or datetime.now(timezone.utc) - status.ended > timedelta(
            seconds=self._watching.settling
        ):
            self._final_metrics[name] = metrics
        return metrics

    def logs(self, name: str, position: Any = None) -> LogPage:
        """Return about 1 MiB of the log from a position on.

        Raises:
            JobNotFound: No job has this name.
            ServiceError: CloudWatch cannot be read.
        """
        page = self._logs.read(check_job_name(name), position)
        if position is None and not page.data:
            # A job that does not exist has an empty log too.
            self.status(name)
        return page

    def stop(self, name: str) -> None:
        """Ask SageMaker to stop a job and return; a job that is over stays as it is.

        Raises:
            JobNotFound: No job has this name.
            ServiceError: SageMaker refused, or cannot be asked.
        """
        if self.status(name).status != "InProgress":
            return
        try:
            self.settings.client("sagemaker").stop_training_job(TrainingJobName=name)
        except AWS_ERRORS as error:
            # It may have ended, or somebody have stopped it, between the two calls.
            if error_code(error) == "ValidationException" and self.status(name).status != "InProgress":
                return
            raise service_error(error, f"stop job {name!r}") from error

    def names(self) -> Iterator[str]:
        """Yield the names of this store's jobs, the newest first; SageMaker is asked page by page.

        A job is listed if SageMaker has it and the store has a folder for it.

        Raises:
            ServiceError: SageMaker cannot be asked.
            StorageError: The store cannot be read.
        """
        self._check_root()
        missing = set(self._records.names())
        token: dict[str, str] = {}
        while missing:
            with translated("list the training jobs"):
                page = self.settings.client("sagemaker").list_training_jobs(
                    SortBy="CreationTime", SortOrder="Descending", MaxResults=_LIST_PAGE, **token
                )
            for summary in page["TrainingJobSummaries"]:
                name = summary["TrainingJobName"]
                if name in missing:
                    missing.remove(name)
                    yield name
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}

    def estimator(self, spec: JobSpec) -> Any:
        """Return a job as an estimator of the SDK, version 2; uploads the code and the data, starts nothing.

        A job that its `fit` starts can be attached to; its lineage is what SageMaker itself remembers.

        Raises:
            MissingExtraError: Version 2 of the SDK is not installed.
            ConfigError, JobError, ServiceError, StorageError: As `prepare` and `submit`.
        """
        request = self.prepare(spec)
        # Not in the job's folder: no job of this name is started.
        key = f"{ESTIMATORS}/{request.code.digest}"
        plan = replace(request.plan, source_uri=f"{self._root}/{source_key(key)}")
        estimator = sdk.make_estimator(plan, self.settings)
        upload_inputs(request.uploads, self._store)
        self._records.put_source(key, request.code.archive())
        return estimator

    def _model(self) -> Any:
        """Return the API's model, which the client has read already."""
        return self.settings.client("sagemaker").meta.service_model

    @property
    def _root(self) -> str:
        return self._store.uri

    def _check_root(self) -> None:
        if not self.settings.root.startswith("s3://"):
            raise ConfigError(
                f"the store {self.settings.root!r} is a folder, which SageMaker cannot read: set `bucket` "
                "(SMKIT_BUCKET=<bucket>), or `root` to an s3:// URI"
            )

    def _check_settings(self) -> None:
        self._check_root()
        if self.settings.role is None:
            raise ConfigError(
                "SageMaker runs a job as a role, and none is set: set `role` (SMKIT_ROLE=<name or ARN of the execution "
                "role>); it must trust sagemaker.amazonaws.com"
            )

    def _check_via(self) -> None:
        if self._via == "sdk" and not sdk.has_sklearn():
            raise ConfigError(
                f"via='sdk' needs the SageMaker SDK, version 2, and found {sdk.sdk_version() or 'none'}: install "
                "smkit[sagemaker], or leave via out"
            )

    def _free_folder(self, name: str) -> str:
        tries = self._records.tries(name)
        description = self._describe(name)
        if description is not None or (tries and self._records.was_accepted(name)):
            where = (
                "in SageMaker" if description is not None else f"in {self._root}/{JOBS}, though SageMaker's was deleted"
            )
            raise DuplicateJobError(
                f"job {name!r} exists already {where}: names are never reused; choose another job_name, or leave it "
                "out to get a new one"
            )
        return self._records.next_folder(name, tries)

    def _role_arn(self) -> str:
        role = str(self.settings.role)
        if role.startswith("arn:"):
            return role
        with self._lock:
            if self._role is None:
                # The caller's account, rather than iam:GetRole: everybody may ask who they are.
                with translated(f"find the account of role {role!r}"):
                    account = self.settings.client("sts").get_caller_identity()["Account"]
                self._role = f"arn:{self.settings.partition}:iam::{account}:role/{role}"
            return self._role

    def _create(self, plan: TrainingPlan) -> None:
        """Send CreateTrainingJob once; a job that a lost reply left behind is found, not made again."""
        try:
            if self._via == "sdk" or (self._via is None and sdk.has_sklearn()):
                sdk.submit_with_sdk(plan, self.settings)
            else:
                self.settings.client("sagemaker").create_training_job(**training_request(plan, self._model()))
        except ParamValidationError as error:
            raise ConfigError(f"SageMaker's API does not take the request: {error}") from error
        except AWS_ERRORS as error:
            # boto3 sends a request again whose reply was lost, and whatever the last answer is, the first may have
            # started the job. The URI of the code is in nobody else's request.
            is_known = True
            try:
                description = self._describe(plan.name)
            except ServiceError:
                description, is_known = None, False
            if description is not None and source_of(description) == plan.source_uri:
                return
            if description is not None or error_code(error) == "ResourceInUse":
                raise DuplicateJobError(
                    f"job {plan.name!r} exists already in SageMaker, in this account and region: names are never "
                    "reused; choose another job_name, or leave it out to get a new one"
                ) from error
            failure = service_error(error, f"start job {plan.name!r}")
            if is_undecided(error) or (not is_known and was_repeated(error)):
                hint = f"whether the job started is not known: JobRunner().attach({plan.name!r}) tells"
                failure = type(failure)(f"{failure}; {hint}", code=failure.code)
            raise failure from error

    def _describe(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self.settings.client("sagemaker").describe_training_job(TrainingJobName=name)
        except AWS_ERRORS as error:
            if is_not_found(error):
                return None
            raise service_error(error, f"look at job {name!r}") from error
        return found

    def _look(self, name: str) -> tuple[JobStatus, Mapping[str, Any], Mapping[str, Any]]:
        """Return a job's state, what SageMaker says of it, and its record."""
        self._check_root()
        if (known := self._final.get(check_job_name(name))) is not None:
            return known
        description = self._describe(name)
        if description is None:
            return self._without_job(name)
        source = source_of(description)
        folder = self._records.folder_of(name, source)
        if folder is None:
            raise JobNotFound(
                f"job {name!r} is not of this store: SageMaker has one whose code is at {source or 'no S3 URI'}, and "
                f"the store is {self._root}"
            )
        record = self._known_records.get(f"{folder}#{name}")
        if record is None:
            record = self._records.read(folder) or described_record(description)
            self._known_records[f"{folder}#{name}"] = record
        status = job_status(description, record, self.settings.region)
        # SageMaker names a model whether the script saved one or not.
        if status.model_uri is not None and not self._is_there(status.model_uri):
            status = replace(status, model_uri=None)
        found = status, description, record
        if status.is_final:
            self._final[name] = found
        return found

    def _is_there(self, uri: str) -> bool:
        key = uri.removeprefix(f"{self._root}/")
        return any(item.key == key for item in self._store.scan(key, limit=1))

    def _without_job(self, name: str) -> tuple[JobStatus, Mapping[str, Any], Mapping[str, Any]]:
        tries = self._records.tries(name)
        record = self._records.read(tries[-1]) if tries else None
        if record is None:
            raise JobNotFound(f"there is no job {name!r} in SageMaker, nor in {self._root}/{JOBS}")
        if self._records.was_accepted(name):
            raise JobNotFound(
                f"job {name!r} was deleted from SageMaker; what it wrote may still lie in {self._root}/{JOBS}/{name}/"
            )
        return not_submitted(name, record, self.settings.region), {}, record
