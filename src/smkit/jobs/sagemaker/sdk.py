"""The way through the SageMaker SDK v2: the same plan as an `SKLearn` estimator. The only file that imports the SDK.

What the SDK would add of its own is kept out: its defaults files, telemetry, profiler and debugger, a default bucket,
a second boto3 session, and its log records, which hold the request at DEBUG.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import threading
import warnings
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from smkit.aws import split_s3_uri
from smkit.errors import MissingExtraError
from smkit.jobs.sagemaker.request import check_plan, metric_list, tag_list, volume_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagemaker.sklearn import SKLearn as SKLearn  # noqa: PLC0414 - a re-export: the runner annotates with it

    from smkit.config import Settings
    from smkit.jobs.sagemaker.plan import TrainingPlan

#: As in pyproject.toml. v3 has no SKLearn.
_OLDEST, _TOO_NEW = (2, 232), (3,)
_NO_PROFILER = {"DisableProfiler": True}
_SDK_LOGGERS = ("sagemaker", "sagemaker.config")
#: Sessions are not made for threads, and what is changed for the SDK's sake must be put back by whoever changed it.
_building = threading.RLock()


def sdk_version() -> str | None:
    """Return the version of the SageMaker SDK that is installed, or None; the SDK is not imported."""
    try:
        return importlib.metadata.version("sagemaker")
    except importlib.metadata.PackageNotFoundError:
        return None


def has_sklearn() -> bool:
    """Say whether the SDK that is installed has the `SKLearn` estimator: v2, from 2.232; it is not imported."""
    version = sdk_version()
    if version is None or not _OLDEST <= _release(version) < _TOO_NEW:
        return False
    try:
        return importlib.util.find_spec("sagemaker") is not None
    except ImportError:
        return False


def make_estimator(plan: TrainingPlan, settings: Settings) -> SKLearn:
    """Return the plan as an estimator of the SDK v2, for those who go on with the SDK; nothing is sent.

    `fit(dict(plan.channels), job_name=plan.name)` sends the request of `training_request`; without `job_name` the SDK
    appends the time to the plan's name. The SDK's files of defaults do not apply, and its telemetry is off.

    Raises:
        ConfigError: As `training_request`.
        MissingExtraError: The SDK v2 is not installed, or cannot be imported.
    """
    return _estimator(plan, settings, only_the_plan=False)


def submit_with_sdk(plan: TrainingPlan, settings: Settings) -> None:
    """Send the plan's CreateTrainingJob request with `SKLearn.fit(wait=False)`; print, log and wait for nothing.

    Raises:
        ConfigError: As `training_request`.
        MissingExtraError: The SDK v2 is not installed, or cannot be imported.
        botocore.exceptions.BotoCoreError: As boto3's `create_training_job`.
        botocore.exceptions.ClientError: As boto3's `create_training_job`.
    """
    estimator = _estimator(plan, settings, only_the_plan=True)
    with _silence, _without_mlflow(plan):
        estimator.fit(dict(plan.channels) or None, wait=False, job_name=plan.name)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _estimator(plan: TrainingPlan, settings: Settings, *, only_the_plan: bool) -> SKLearn:
    check_plan(plan)
    with _building, _silence, _variables(SAGEMAKER_SUPPRESS_V2_WARNING="1"):
        _import_sdk()
        # Made first, and under the settings' own lock, so that what sessions load lazily is loaded.
        settings.client("sagemaker")
        with _default_session(settings):
            return _estimator_class()(
                entry_point=plan.entry_point,
                source_dir=plan.source_uri,
                framework_version=plan.framework_version,
                image_uri=plan.image_uri,
                hyperparameters=dict(plan.hyperparameters),
                role=plan.role,
                instance_count=1,
                instance_type=plan.instance_type,
                volume_size=plan.volume_size,
                volume_kms_key=volume_key(plan),
                keep_alive_period_in_seconds=plan.keep_alive,
                max_run=plan.max_run,
                use_spot_instances=plan.spot,
                max_wait=plan.max_wait,
                checkpoint_s3_uri=plan.checkpoint_uri,
                input_mode=plan.input_mode,
                output_path=plan.output_uri,
                output_kms_key=plan.kms_key,
                subnets=list(plan.subnets) or None,
                security_group_ids=list(plan.security_groups) or None,
                enable_network_isolation=plan.network_isolation,
                environment=dict(plan.environment) or None,
                tags=tag_list(plan) or None,
                metric_definitions=metric_list(plan) or None,
                disable_profiler=True,
                debugger_hook_config=False,
                base_job_name=plan.name,
                sagemaker_session=_session_class()(plan, settings, only_the_plan=only_the_plan),
            )


def _import_sdk() -> None:
    if not has_sklearn():
        version = sdk_version()
        found = f"version {version} is" if version else "none is"
        raise MissingExtraError(
            f"an estimator needs the SageMaker SDK v2, at least {'.'.join(map(str, _OLDEST))}, and {found} installed: "
            'pip install "smkit[sagemaker]". Jobs run without it'
        )
    with warnings.catch_warnings(), _root_logger_kept(), _tracebacks_kept():
        # Those of the SDK's own modules while they load; who uses smkit can do nothing about them.
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("sagemaker.sklearn")
            # What fit would import later, when nobody keeps the root logger.
            importlib.import_module("sagemaker.experiments.run")
        except ImportError as error:
            raise MissingExtraError(
                f"the SageMaker SDK {sdk_version()} is installed but cannot be imported: {error}. "
                'Install it again: pip install "smkit[sagemaker]". Jobs run without it'
            ) from error


@cache
def _estimator_class() -> Any:
    """Return the SDK's estimator without telemetry; made here because its base is the SDK's."""
    from sagemaker.sklearn import SKLearn
    from sagemaker.telemetry import telemetry_logging

    class PlanSKLearn(SKLearn):
        """An `SKLearn` whose `fit` is the one beneath the SDK's telemetry, which calls STS and swallows Ctrl-C."""

    if SKLearn.fit.__globals__ is vars(telemetry_logging):
        # The SDK's own opt-out is a file of defaults, which it would validate 22 times a job, for over a second.
        PlanSKLearn.fit = SKLearn.fit.__wrapped__
    return PlanSKLearn


@cache
def _session_class() -> Any:
    """Return the SDK's session with the settings' clients; made here because its base is the SDK's."""
    from sagemaker.session import Session

    class PlanSession(Session):
        """A session for one plan.

        Args:
            plan: What is sent.
            settings: Where the clients come from.
            only_the_plan: Leave out what the SDK finds around it: the tags of a Studio project, the current Run.
        """

        def __init__(self, plan: TrainingPlan, settings: Settings, *, only_the_plan: bool) -> None:
            self._plan = plan
            self._only_the_plan = only_the_plan
            bucket, _ = split_s3_uri(plan.output_uri)
            # The files of defaults would change the request behind the plan's back.
            with _variables(SAGEMAKER_ADMIN_CONFIG_OVERRIDE=os.devnull, SAGEMAKER_USER_CONFIG_OVERRIDE=os.devnull):
                # Not the runtime's client: the SDK makes one that waits longer, which predictors need.
                super().__init__(
                    boto_session=settings.session(),
                    sagemaker_client=settings.client("sagemaker"),
                    sagemaker_featurestore_runtime_client=settings.client("sagemaker-featurestore-runtime"),
                    sagemaker_metrics_client=settings.client("sagemaker-metrics"),
                    default_bucket=bucket,
                )

        def default_bucket(self) -> str:
            """Return the bucket of the output; the SDK would create one where it finds none."""
            bucket, _ = split_s3_uri(self._plan.output_uri)
            return bucket

        def _intercept_create_request(self, request: dict[str, Any], create: Any, func_name: str | None = None) -> Any:
            # The place that the SDK keeps for subclasses to see and change a request.
            if func_name == "train":
                if request.get("ProfilerConfig") == _NO_PROFILER:
                    # The SDK sends it for every job that has no profiler; nobody asked, and a region may refuse it.
                    request = {name: value for name, value in request.items() if name != "ProfilerConfig"}
                if self._only_the_plan:
                    request = _without_surroundings(request, self._plan)
                request = request | dict(self._plan.extra)
            return super()._intercept_create_request(request, create, func_name)

    return PlanSession


def _without_surroundings(request: dict[str, Any], plan: TrainingPlan) -> dict[str, Any]:
    kept = {name: value for name, value in request.items() if name not in {"ExperimentConfig", "Tags"}}
    if tags := [tag for tag in request.get("Tags") or () if tag["Key"] in plan.tags]:
        kept["Tags"] = tags
    return kept


@contextmanager
def _variables(**values: str | None) -> Iterator[None]:
    """Set environment variables, or remove those that are None, and put them back."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set_variables(values)
        yield
    finally:
        _set_variables(before)


def _set_variables(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _without_mlflow(plan: TrainingPlan) -> Iterator[None]:
    """Hide MLflow's server from `fit`: with one, and isolation, it waits for the job whatever `wait` says."""
    if not plan.network_isolation or "MLFLOW_TRACKING_URI" not in os.environ:
        yield
        return
    with _building, _variables(MLFLOW_TRACKING_URI=None):
        yield


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Keep the SDK's `logging.basicConfig(level=INFO)`, in a module of experiments, from doing anything.

    It does nothing where the root logger has a handler.
    """
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


@contextmanager
def _tracebacks_kept() -> Iterator[None]:
    """Keep sagemaker-core from having rich show every error of the program, on stdout, from its import on."""
    try:
        tracebacks: Any = importlib.import_module("rich.traceback")
    except ImportError:
        # A version of the SDK that comes without rich cannot use it.
        yield
        return
    install = tracebacks.install
    tracebacks.install = lambda *_, **__: sys.excepthook
    try:
        yield
    finally:
        tracebacks.install = install


@contextmanager
def _default_session(settings: Settings) -> Iterator[None]:
    """Let the estimator's TensorBoard client come from the settings' session.

    It is made with `boto3.client`: that would make a second session, of another profile, which may not exist.
    """
    import boto3

    if boto3.DEFAULT_SESSION is not None:
        yield
        return
    boto3.DEFAULT_SESSION = session = settings.session()
    try:
        yield
    finally:
        if boto3.DEFAULT_SESSION is session:
            boto3.DEFAULT_SESSION = None


class _Silence:
    """Keep the SDK's log records from every handler while at least one thread is inside.

    What fails is raised, so nothing is lost; and the levels are put back as they were.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._levels: dict[str, int] = {}

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._levels = {name: logging.getLogger(name).level for name in _SDK_LOGGERS}
                for name in _SDK_LOGGERS:
                    logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for name, level in self._levels.items():
                    logging.getLogger(name).setLevel(level)


_silence = _Silence()
