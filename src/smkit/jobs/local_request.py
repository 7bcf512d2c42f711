"""Everything that a job on this machine will do, worked out before anything is written."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from smkit.environment import describe_environment, package_version
from smkit.errors import ConfigError, JobError
from smkit.jobs import contract, staging
from smkit.jobs.container_paths import BASE, find_mentions
from smkit.jobs.containers import image, known_versions
from smkit.jobs.environments import HOST, locate, parse_environment
from smkit.jobs.failure import HOST_NOTICE
from smkit.jobs.launching import why_no_private_mount
from smkit.jobs.layers import Layer, interpreter_of, this_interpreter

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.jobs.channels import Channel
    from smkit.jobs.environments import Environment, EnvironmentName
    from smkit.jobs.spec import JobSpec

SCHEMA_VERSION = 1
_SHOWN_MENTIONS = 3


@dataclass(frozen=True)
class LocalRequest:
    """Everything that `LocalBackend.submit` does.

    Args:
        record: The job's record, `run.json`, as it will be written first; of an environment that is not built yet it
            holds what is asked for.
        code: The staged code.
        channels: Channel name -> data, copied when the job is submitted.
        variables: Variables from the caller, secrets among them: handed to the process, never written.
        environment: The image's Python and packages that run the job, to be built if need be; None: this Python.
        layer: What is put over that, and thrown away afterwards; None: nothing is.
        notice: First line of the log, with its line end, or "".
    """

    record: Mapping[str, Any]
    code: staging.StagedCode
    channels: Mapping[str, Channel] = field(repr=False)
    variables: dict[str, str] = field(repr=False)
    environment: Environment | None = None
    layer: Layer | None = None
    notice: str = ""

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.record["job_name"])

    def built(self) -> LocalRequest:
        """Return the request as it is now that its environment is built.

        Raises:
            JobError: It has none, or it is not built.
        """
        facts = None if self.environment is None else self.environment.built
        if self.layer is None or self.environment is None or facts is None:
            raise JobError(f"job {self.name!r} has no environment that is built")
        below = interpreter_of(self.environment.folder, self.layer.below.version, facts.base)
        described = {**self.record["environment"], "python": facts.python_version}
        record = {**self.record, "environment": described, "packages": dict(facts.packages)}
        return replace(self, record=record, layer=replace(self.layer, below=below))


def prepare_request(spec: JobSpec, folder: Path, environment: EnvironmentName | None) -> LocalRequest:
    """Work out a job.

    Args:
        spec: The job.
        folder: The job's folder, which does not exist yet.
        environment: The image's Python and packages to run it in; None: this Python.

    Raises:
        ConfigError: The entry point, `source_dir` or an input is not there or not allowed, or the job is made for
            another image than the environment.
        JobError: The script does not compile, or names `/opt/ml` where no folder can be shown there.
        ParityEnvironmentError: The environment is not built, and its Python is not on this machine.
    """
    located = None
    if environment is not None:
        check_image(environment, spec.framework_version)
        located = locate(environment)
    code = staging.stage(spec)
    inputs = {name: channel.describe() for name, channel in spec.channels.items()}
    hyperparameters = spec.plain_hyperparameters()
    is_shell = code.entry_point.endswith(".sh")
    is_package = "setup.py" in code.files and not is_shell
    # The toolkit installs nothing for a shell script.
    install = ["."] if is_package else []
    install += ["-r", "requirements.txt"] if "requirements.txt" in code.files and not is_shell else []
    layer = None
    if located is not None:
        # Always: what a script installs by itself must not stay in an environment that others use.
        below = interpreter_of(located.folder, located.python_version, str(located.base or located.python))
        layer = Layer(folder / "environment", below)
    elif install or is_shell:
        # Of a shell script for the name: `python` is this Python, whatever PATH says.
        layer = Layer(folder / "environment", this_interpreter())
    notice = "" if located is not None else host_notice(spec.framework_version)
    request = {
        **_process(spec, code, hyperparameters, str(folder / "ml"), layer, is_package=is_package),
        "install": install or None,
        "mounted_at": _mount_point(code, folder),
        "read_only": None if located is None else str(located.folder),
        "notice_bytes": len(notice.encode()),
    }
    described = _describe(located)
    packages = described.pop("packages")
    record = {
        "schema_version": SCHEMA_VERSION,
        "job_name": spec.name,
        "backend": "local",
        "status": "InProgress",
        "secondary_status": "Starting",
        "reason": "",
        "exit_code": None,
        "entry_point": code.entry_point,
        "source_dir": None if spec.source_dir is None else str(spec.source_dir),
        "hyperparameters": hyperparameters,
        "resolved_hyperparameters": None,
        "inputs": inputs,
        "code": code.describe(),
        "environment": described,
        "environment_variables": sorted(spec.environment),
        "packages": packages,
        "framework_version": spec.framework_version,
        "instance_type": spec.instance_type,
        "image": None,
        "created": now(),
        "started": None,
        "ended": None,
        "metrics": {},
        "model": None,
        "warnings": [],
        "request": request,
    }
    return LocalRequest(record, code, dict(spec.channels), dict(spec.environment), located, layer, notice)


def parse_local_environment(name: object) -> EnvironmentName | None:
    """Return which image's Python and packages are meant; None for `host`.

    Raises:
        ConfigError: It is the name of no environment.
    """
    if name == HOST:
        return None
    if isinstance(name, str):
        return parse_environment(name)
    hint = ""
    if isinstance(name, Mapping):
        hint = "; variables for the script go to run: JobRunner().run('train.py', environment={...})"
    raise ConfigError(
        f"environment is a {type(name).__name__}: expected 'host' or the name of an image, such as '1.2-1'{hint}"
    )


def check_image(environment: EnvironmentName, framework_version: str) -> None:
    """Check that a job is made for the image whose Python and packages shall run it.

    Raises:
        ConfigError: It is made for another.
    """
    if framework_version != environment.framework_version:
        raise ConfigError(
            f"the job has framework_version {framework_version!r}, and would run in the environment "
            f"{str(environment)!r}, which is that of another image: leave framework_version out, make it "
            f"{environment.framework_version!r}, or take environment={framework_version!r}"
        )


def host_notice(framework_version: str) -> str:
    """Say in one line that the image has another Python or scikit-learn than this machine; "" where it has not.

    An image whose content is not known gives "" too.
    """
    if framework_version not in known_versions():
        return ""
    wanted = image(framework_version)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    here = (python, package_version("scikit-learn") or "none")
    there = (f"{wanted.python[0]}.{wanted.python[1]}", wanted.packages["scikit-learn"])
    if here == there:
        return ""
    return (
        f"{HOST_NOTICE}Python {here[0]} and scikit-learn {here[1]}; the image {framework_version} has "
        f"Python {there[0]} and scikit-learn {there[1]}: to run under these, JobRunner(environment="
        f'"{framework_version}") or smkit run --environment {framework_version}\n'
    )


def now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _process(
    spec: JobSpec,
    code: staging.StagedCode,
    hyperparameters: dict[str, Any],
    base: str,
    layer: Layer | None,
    *,
    is_package: bool,
) -> dict[str, Any]:
    """Return what the supervisor needs to start the script."""
    toolkit = contract.toolkit_of(spec.framework_version)
    config = contract.input_config(
        hyperparameters,
        spec.channels,
        job_name=spec.name,
        region=spec.region,
        entry_point=code.entry_point,
        submit_directory=f"{base}/code",
        instance_type=spec.instance_type,
    )
    python = sys.executable if layer is None else str(layer.python)
    arguments = contract.script_arguments(hyperparameters)
    return {
        "python": python,
        "command": contract.command(python, code.entry_point, arguments, toolkit=toolkit, is_package=is_package),
        "environment": contract.environment(base, config, toolkit=toolkit, num_cpus=os.cpu_count() or 1),
        "input_config": config.files(),
        "base": base,
        "layer": None if layer is None else str(layer.site_packages),
        "search_path": [] if layer is None else layer.search_path,
        "timeout": spec.timeout,
        "metric_definitions": dict(spec.metric_definitions),
    }


def _describe(environment: Environment | None) -> dict[str, Any]:
    if environment is None:
        return describe_environment()
    facts = environment.built
    return {
        "name": str(environment.name),
        "digest": f"sha256:{environment.digest}",
        "python": environment.python_version if facts is None else facts.python_version,
        "platform": platform.platform(),
        "packages": {} if facts is None else dict(facts.packages),
    }


def _mount_point(code: staging.StagedCode, folder: Path) -> str | None:
    """Return where the script shall find the job's folder beside where it is; None: nowhere.

    Raises:
        JobError: The script is seen to need it, and this machine cannot do it.
    """
    # Always: code that puts the path together, a helper without a suffix or an installed package names it unseen.
    reason = why_no_private_mount(folder, BASE)
    if not reason:
        return BASE
    needed = [mention for mention in find_mentions(code.files) if not mention.is_fallback]
    if needed:
        first, *others = needed
        more = f" It is also named in: {'; '.join(map(str, others[:_SHOWN_MENTIONS]))}." if others else ""
        raise JobError(
            f"{first} is a path of the training container, which this machine does not have, and a job's folder cannot "
            f"be shown there: {reason}. Write what names the same folder on SageMaker and here: {first.replacement}; "
            f'or, of an argument, default=os.environ.get("SM_MODEL_DIR", "{BASE}/model").{more}'
        )
    return None
