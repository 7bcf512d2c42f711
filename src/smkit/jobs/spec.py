"""What to run: the values of one job, checked before any work."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError
from smkit.jobs import contract
from smkit.jobs.options import SageMakerOptions, check_seconds
from smkit.jobs.secrets import refuse_secrets
from smkit.naming import check_channel, check_job_name

if TYPE_CHECKING:
    from smkit.jobs.channels import Channel

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCRIPT_SUFFIXES = (".py", ".sh")
#: What `contract.input_config` adds counts too.
_OWN_HYPERPARAMETERS = 5
#: Linux lets one variable have 128 KiB (MAX_ARG_STRLEN); SM_TRAINING_ENV holds all hyperparameters and some KiB more.
_MAX_TOTAL_LENGTH = 120_000
#: What the toolkit reads to know what to run, or sets itself (sagemaker_training.params) -> what to write instead.
_OWNED_VARIABLES = {
    "SAGEMAKER_PROGRAM": "pass the script as entry_point",
    "SAGEMAKER_SUBMIT_DIRECTORY": "pass the folder of the code as source_dir",
    "SAGEMAKER_TRAINING_MODULE": "leave it out: the image knows how to start a script",
    "SAGEMAKER_BASE_DIR": "leave it out: the container's folder is /opt/ml, and SM_MODEL_DIR names what is in it",
    "SAGEMAKER_JOB_NAME": "pass job_name",
    "SAGEMAKER_REGION": "set region in the settings",
    "TRAINING_JOB_NAME": "pass job_name",
    "TRAINING_JOB_ARN": "leave it out: SageMaker sets it",
    "CURRENT_HOST": "leave it out: the container sets it",
}
#: Far below what Python's own JSON reader follows, in the container too.
_MAX_DEPTH = 100
#: MaxRuntimeInSeconds where none is given.
#: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StoppingCondition.html
_DEFAULT_MAX_RUN = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One job, for any backend. Every value is checked here, without I/O; files are checked when code is staged.

    Args:
        name: The job's name; SageMaker's rule.
        entry_point: The script, `.py` or `.sh`; with `source_dir`, a path inside it.
        source_dir: Folder whose content is the code; default: the script alone.
        dependencies: Files and folders that lie beside the code in the job, each under its own name.
        channels: Channel name -> data.
        hyperparameters: Name -> JSON value; a dataclass or pydantic instance becomes the mapping of its fields.
        timeout: Seconds after which the job is stopped, at most 28 days; None: no limit here, a day on SageMaker.
        metric_definitions: Metric name -> regex with one group, matched against each line of the log.
        environment: Variables for the script, below those of the contract. Values are never shown or stored.
        framework_version: Tag of the AWS scikit-learn image whose rules apply.
        instance_type: Instance type that the job runs on, and that the script is told.
        region: Region that the job runs in, and that the script is told.
        sagemaker: What the job asks of SageMaker beside; a job on this machine leaves it aside.

    Raises:
        ConfigError: A value breaks its rule; the message says which.
    """

    name: str
    entry_point: str
    source_dir: Path | None = None
    dependencies: tuple[Path, ...] = ()
    channels: Mapping[str, Channel] = field(default_factory=dict)
    hyperparameters: Any = None
    timeout: float | None = None
    metric_definitions: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    framework_version: str = "1.2-1"
    instance_type: str = "ml.m5.large"
    region: str = "cn-northwest-1"
    sagemaker: SageMakerOptions = field(default_factory=SageMakerOptions)

    def __post_init__(self) -> None:
        check_job_name(self.name)
        for name in self.channels:
            check_channel(name)
        entry_point = _check_entry_point(self.entry_point)
        timeout = None if self.timeout is None else check_seconds("timeout", self.timeout)
        source_dir = None if self.source_dir is None else Path(self.source_dir).expanduser().absolute()
        for name, value in {
            "entry_point": entry_point,
            "source_dir": source_dir,
            "dependencies": _check_dependencies(self.dependencies),
            "channels": MappingProxyType(dict(self.channels)),
            "hyperparameters": _check_hyperparameters(self.hyperparameters),
            "timeout": timeout,
            "metric_definitions": _check_metric_definitions(self.metric_definitions),
            "environment": _check_environment(self.environment),
        }.items():
            object.__setattr__(self, name, value)
        if not isinstance(self.sagemaker, SageMakerOptions):
            raise ConfigError(f"sagemaker is a {type(self.sagemaker).__name__}: expected smkit.SageMakerOptions")
        if self.max_wait is not None and self.max_wait < self.max_run:
            raise ConfigError(
                f"max_wait is {self.max_wait} s and timeout {self.max_run} s: max_wait counts waiting and running, so "
                "it is at least the timeout; raise max_wait, or lower timeout"
            )

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and sent to another process, which read-only mappings cannot."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values |= {name: dict(values[name]) for name in ("channels", "metric_definitions", "environment")}
        return (partial(type(self), **values | {"hyperparameters": self.plain_hyperparameters()}), ())

    @property
    def max_run(self) -> int:
        """Whole seconds after which SageMaker stops the script."""
        return _DEFAULT_MAX_RUN if self.timeout is None else math.ceil(self.timeout)

    @property
    def max_wait(self) -> int | None:
        """Whole seconds for which SageMaker waits for spot capacity and runs together; None without spot."""
        options = self.sagemaker
        if not options.spot:
            return None
        return self.max_run if options.max_wait is None else math.ceil(options.max_wait)

    def plain_hyperparameters(self) -> dict[str, Any]:
        """Return a copy of the hyperparameters made of dicts and lists, ready for `json`."""
        return {name: _thaw(value) for name, value in self.hyperparameters.items()}


def _check_entry_point(entry_point: object) -> str:
    text = str(entry_point) if isinstance(entry_point, str | Path) else ""
    if not text.endswith(_SCRIPT_SUFFIXES):
        raise ConfigError(f"entry_point {entry_point!r} is not a script: expected a path that ends with .py or .sh")
    return text


def _check_dependencies(paths: object) -> tuple[Path, ...]:
    if isinstance(paths, str | os.PathLike):
        raise ConfigError(f"dependencies is one path, {str(paths)!r}: pass a list, such as [{str(paths)!r}]")
    if not isinstance(paths, list | tuple):
        raise ConfigError(f"dependencies is a {type(paths).__name__}: expected a list of files and folders")
    for path in paths:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ConfigError(f"dependencies holds {path!r}, which is not a path")
    return tuple(
        # Not resolved: a link keeps its own name in the job. Not Path.absolute: `..` would be a name.
        Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - see above
        for path in paths
    )


def _as_mapping(values: object) -> Mapping[Any, Any]:
    if values is None:
        return _EMPTY
    if isinstance(values, Mapping):
        return values
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        return dataclasses.asdict(values)
    # pydantic's, without importing it.
    if callable(dump := getattr(values, "model_dump", None)) and not isinstance(values, type):
        _refuse_hidden(dump())
        dumped = dump(mode="json")
        if isinstance(dumped, Mapping):
            return dumped
    raise ConfigError(
        f"hyperparameters is a {type(values).__name__}: expected a mapping, or an instance of a dataclass or of a "
        "pydantic model"
    )


def _refuse_hidden(values: Mapping[str, Any]) -> None:
    """Refuse pydantic's secrets, which JSON would turn into asterisks."""
    for name, value in values.items():
        if callable(getattr(value, "get_secret_value", None)):
            raise ConfigError(
                f"hyperparameter {name!r} is a {type(value).__name__}: everybody who may describe the job would see "
                "it, so it is not sent. Pass the name of a secret of AWS Secrets Manager, and read it in the script"
            )
        if isinstance(value, Mapping):
            _refuse_hidden(value)


def _check_hyperparameters(values: object) -> Mapping[str, Any]:
    frozen = {}
    for name, value in _as_mapping(values).items():
        if not isinstance(name, str) or name.splitlines() != [name] or "=" in name or not _is_text(name):
            raise ConfigError(f"{name!r} is not a hyperparameter name: one line of text without '=' and NUL")
        if len(name) > contract.MAX_NAME_LENGTH:
            raise ConfigError(
                f"hyperparameter {name[:40]!r}...: a name has at most {contract.MAX_NAME_LENGTH} characters"
            )
        if name.startswith(contract.RESERVED_PREFIX) or name in contract.RESERVED_NAMES:
            raise ConfigError(
                f"hyperparameter {name!r} is reserved: names that start with {contract.RESERVED_PREFIX!r}, "
                f"{', '.join(map(repr, sorted(contract.RESERVED_NAMES)))} are SageMaker's and never reach a script; "
                "rename it"
            )
        frozen[name] = _freeze(value, name)
    refuse_secrets(frozen, "hyperparameter")
    for name, text in contract.encode_hyperparameters({key: _thaw(item) for key, item in frozen.items()}).items():
        if len(text) > contract.MAX_VALUE_LENGTH:
            raise ConfigError(
                f"hyperparameter {name!r} is {len(text)} characters long as JSON; SageMaker takes at most "
                f"{contract.MAX_VALUE_LENGTH}: pass it as a file in a channel or in source_dir"
            )
    total = len(contract.encode_hyperparameters({"": {name: _thaw(value) for name, value in frozen.items()}})[""])
    if total > _MAX_TOTAL_LENGTH:
        raise ConfigError(
            f"the hyperparameters are {total} characters long as JSON; at most {_MAX_TOTAL_LENGTH} fit into the one "
            "environment variable that brings them all to the script: pass a file in a channel or in source_dir"
        )
    limit = contract.MAX_HYPERPARAMETERS - _OWN_HYPERPARAMETERS
    if len(frozen) > limit:
        raise ConfigError(f"{len(frozen)} hyperparameters; SageMaker takes at most {limit}: pass a file in a channel")
    return MappingProxyType(frozen)


def _freeze(value: Any, name: str, depth: int = 0) -> Any:
    """Return the value as JSON with tuples and read-only mappings for lists and objects."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f"hyperparameter {name!r} is nested more than {_MAX_DEPTH} levels deep: flatten it")
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not _is_text(value):
            raise ConfigError(f"hyperparameter {name!r} holds a NUL or half a surrogate pair: no argument can carry it")
        # Not str(value): of an enum's member that is its name.
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(
                f"hyperparameter {name!r} is {value}, which is not JSON: pass None, or text such as 'nan'"
            )
        return float(value)
    if isinstance(value, list | tuple):
        return tuple(_freeze(item, name, depth + 1) for item in value)
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str) or not _is_text(key)]:
            raise ConfigError(f"hyperparameter {name!r} has the key {bad[0]!r}: the keys of a JSON object are text")
        return MappingProxyType({key: _freeze(item, name, depth + 1) for key, item in value.items()})
    raise ConfigError(
        f"hyperparameter {name!r} is a {type(value).__name__}, which is not JSON. Allowed are None, bool, int, finite "
        "float, str, and lists and dicts of these"
    )


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thaw(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_thaw(item) for item in value]
    return value


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _check_metric_definitions(definitions: Mapping[str, str]) -> Mapping[str, str]:
    for name, pattern in definitions.items():
        try:
            groups = re.compile(pattern).groups
        except (re.error, TypeError) as error:
            raise ConfigError(
                f"metric_definitions[{name!r}]: {pattern!r} is not a regular expression: {error}"
            ) from None
        if groups != 1:
            raise ConfigError(
                f"metric_definitions[{name!r}]: {pattern!r} has {groups} groups; exactly one must hold the number, "
                r"such as r'rmse=([0-9.]+)'; write (?:...) for the others"
            )
    return MappingProxyType(dict(definitions))


def _check_environment(variables: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in variables.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise ConfigError(f"{name!r} is not the name of an environment variable: letters, digits and '_'")
        if name in _OWNED_VARIABLES:
            raise ConfigError(
                f"environment variable {name!r} belongs to the training container, and another value would start "
                f"something else or nothing: {_OWNED_VARIABLES[name]}"
            )
        if not isinstance(value, str) or not _is_text(value):
            raise ConfigError(f"environment variable {name!r} is not text (its value is not shown): pass a str")
    return MappingProxyType(dict(variables))
