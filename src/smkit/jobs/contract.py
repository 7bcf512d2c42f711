"""What a training container gives a script: files, argv and environment, for both toolkits of the AWS images.

The rules are those of `sagemaker-training`, the toolkit inside the AWS scikit-learn images; the tests hold them to
what the real toolkit produced. Standard library only, no I/O: every function maps values to values.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from smkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The two behaviours that the images' toolkits have; 4.7.4, of the 1.0-1 image, behaves as 4.8.0.
Toolkit = Literal["4.0.1", "4.8.0"]

RESERVED_PREFIX = "sagemaker_"
#: These never reach the script, with or without the prefix (`params.py` of the toolkit).
RESERVED_NAMES = frozenset({"_tuning_objective_metric", "default_user_module_name"})
_TOOLKIT_NAMES = RESERVED_NAMES | {
    "sagemaker_program",
    "sagemaker_submit_directory",
    "sagemaker_enable_cloudwatch_metrics",
    "sagemaker_region",
    "sagemaker_container_log_level",
    "sagemaker_job_name",
    "sagemaker_s3_output",
}
_LOG_LEVEL_INFO = 20
_HOST = "algo-1"
_GROUP = "homogeneousCluster"

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html, HyperParameters
MAX_HYPERPARAMETERS = 100
MAX_NAME_LENGTH = 256
MAX_VALUE_LENGTH = 2500


@dataclass(frozen=True)
class InputConfig:
    """The three JSON files under `input/config`.

    Args:
        hyperparameters: `hyperparameters.json`: name -> JSON text, with the toolkit's own `sagemaker_*`.
        inputdataconfig: `inputdataconfig.json`: channel -> how it is delivered.
        resourceconfig: `resourceconfig.json`: hosts and instance groups.
    """

    hyperparameters: Mapping[str, str]
    inputdataconfig: Mapping[str, Mapping[str, str]]
    resourceconfig: Mapping[str, Any]

    def files(self) -> dict[str, Mapping[str, Any]]:
        """Return file name -> content."""
        return {
            "hyperparameters.json": self.hyperparameters,
            "inputdataconfig.json": self.inputdataconfig,
            "resourceconfig.json": self.resourceconfig,
        }


def toolkit_of(framework_version: str) -> Toolkit:
    """Return the toolkit whose rules the image of a framework version follows."""
    return "4.0.1" if framework_version == "0.23-1" else "4.8.0"


def encode_hyperparameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Encode values as they travel in the request: `json.dumps` of each, so that a string carries quotes.

    Raises:
        ConfigError: A value is not JSON. NaN and the infinities are not.
    """
    return {name: _encode(name, value) for name, value in values.items()}


def decode_hyperparameters(wire: Mapping[str, str]) -> dict[str, Any]:
    """Decode what travelled, as the toolkit does: what is not JSON is kept as the text it is."""
    return {name: _decode(text) for name, text in wire.items()}


def input_config(
    hyperparameters: Mapping[str, Any],
    channels: Iterable[str],
    *,
    job_name: str,
    region: str,
    entry_point: str,
    submit_directory: str,
    instance_type: str,
) -> InputConfig:
    """Build the content of the three files that SageMaker writes before it starts the container."""
    toolkits_own = {
        "sagemaker_program": entry_point,
        "sagemaker_submit_directory": submit_directory,
        "sagemaker_container_log_level": _LOG_LEVEL_INFO,
        "sagemaker_job_name": job_name,
        "sagemaker_region": region,
    }
    return InputConfig(
        hyperparameters=encode_hyperparameters({**hyperparameters, **toolkits_own}),
        inputdataconfig={
            channel: {
                "TrainingInputMode": "File",
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": "None",
            }
            for channel in channels
        },
        resourceconfig={
            "current_host": _HOST,
            "current_instance_type": instance_type,
            "current_group_name": _GROUP,
            "hosts": [_HOST],
            "instance_groups": [{"instance_group_name": _GROUP, "instance_type": instance_type, "hosts": [_HOST]}],
            "network_interface_name": "eth0",
        },
    )


def script_hyperparameters(wire: Mapping[str, str]) -> dict[str, Any]:
    """Return the decoded hyperparameters that reach the script."""
    return {name: value for name, value in decode_hyperparameters(wire).items() if not _is_toolkits(name)}


def script_arguments(values: Mapping[str, Any]) -> list[str]:
    """Spell hyperparameters as arguments: sorted by code point, always a name and then its value."""
    arguments = []
    for name in sorted(values):
        arguments += [f"--{name}" if len(name) > 1 else f"-{name}", _argument(values[name])]
    return arguments


def command(
    python: str, entry_point: str, arguments: Iterable[str], *, toolkit: Toolkit, is_package: bool
) -> list[str]:
    """Return the command that runs the script, to be started in the code folder.

    Args:
        python: The interpreter.
        entry_point: Path of the script inside the code folder.
        arguments: What `script_arguments` returned.
        toolkit: The image's toolkit.
        is_package: Whether the code folder has a `setup.py`: then the script is run as a module of it.
    """
    arguments = list(arguments)
    if entry_point.endswith(".sh"):
        quoted = " ".join(map(shlex.quote, arguments))
        return ["/bin/sh", "-c", f"./{entry_point} {quoted}"]
    if is_package:
        line = [python, "-m", entry_point.replace(".py", ""), *arguments]
    else:
        line = [python, entry_point, *arguments]
    if toolkit != "4.0.1":
        line[-1] = line[-1].strip('"')
    return line


def environment(base: str, config: InputConfig, *, toolkit: Toolkit, num_cpus: int) -> dict[str, str]:
    """Return the variables that the toolkit sets for the script.

    Args:
        base: The base folder, `/opt/ml` on AWS.
        config: The input files.
        toolkit: The image's toolkit.
        num_cpus: CPUs of the machine.
    """
    everything = decode_hyperparameters(config.hyperparameters)
    hyperparameters = {name: value for name, value in everything.items() if not _is_toolkits(name)}
    entry_point = everything["sagemaker_program"]
    folders = {
        "input_dir": f"{base}/input",
        "input_config_dir": f"{base}/input/config",
        "output_dir": f"{base}/output",
        "output_data_dir": f"{base}/output/data",
        "output_intermediate_dir": f"{base}/output/intermediate",
        "model_dir": f"{base}/model",
    }
    channels = {name: f"{base}/input/data/{name}" for name in config.inputdataconfig}
    framework = {
        name: value
        for name, value in everything.items()
        if name.startswith(RESERVED_PREFIX) and name not in _TOOLKIT_NAMES
    }
    resources = config.resourceconfig
    common = {
        **folders,
        "current_host": resources["current_host"],
        "framework_module": "sagemaker_sklearn_container.training:main",
        "hosts": resources["hosts"],
        "input_data_config": config.inputdataconfig,
        "log_level": everything["sagemaker_container_log_level"],
        "module_dir": everything["sagemaker_submit_directory"],
        "module_name": entry_point.removesuffix(".py"),
        "network_interface_name": resources["network_interface_name"],
        "num_cpus": num_cpus,
        "num_gpus": 0,
        "resource_config": resources,
        "user_entry_point": entry_point,
    }
    training_env = {
        **common,
        "additional_framework_parameters": framework,
        "channel_input_dirs": channels,
        "hyperparameters": hyperparameters,
        "is_master": True,
        "job_name": everything["sagemaker_job_name"],
        "master_hostname": resources["current_host"],
    }
    if toolkit != "4.0.1":
        groups = _instance_groups(resources)
        common |= groups
        training_env |= groups | {
            "distribution_hosts": [],
            "is_modelparallel_enabled": None,
            "is_smddpmprun_installed": False,
            "is_smddprun_installed": False,
        }
    variables = {
        **common,
        "channels": sorted(channels),
        "framework_params": framework,
        "hps": hyperparameters,
        "training_env": training_env,
        "user_args": script_arguments(hyperparameters),
    }
    variables |= {f"channel_{name}": path for name, path in channels.items()}
    variables |= {f"hp_{name}": value for name, value in hyperparameters.items()}
    return {
        "CURRENT_HOST": resources["current_host"],
        "SAGEMAKER_JOB_NAME": everything["sagemaker_job_name"],
        "SAGEMAKER_REGION": everything["sagemaker_region"],
        **{f"SM_{name.upper()}": _variable(value) for name, value in variables.items()},
    }


def image_environment(job_name: str) -> dict[str, str]:
    """Return the variables that the image and the platform set beside the toolkit's."""
    return {
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "TRAINING_JOB_NAME": job_name,
    }


def _encode(name: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"hyperparameter {name!r} is not JSON: {error}. Allowed are None, bool, int, finite float, str, "
            "and lists and dicts of these"
        ) from None


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError):
        return text


def _is_toolkits(name: str) -> bool:
    return name.startswith(RESERVED_PREFIX) or name in _TOOLKIT_NAMES


def _instance_groups(resources: Mapping[str, Any]) -> dict[str, Any]:
    groups = {group["instance_group_name"]: group for group in resources["instance_groups"]}
    current = resources["current_group_name"]
    return {
        "current_instance_group": current,
        "current_instance_group_hosts": groups[current]["hosts"],
        "current_instance_type": resources["current_instance_type"],
        "distribution_instance_groups": [],
        "instance_groups": list(groups),
        "instance_groups_dict": groups,
        "is_hetero": len(groups) > 1,
        "num_neurons": 0,
    }


def _argument(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)


def _variable(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
