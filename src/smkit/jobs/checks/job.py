"""One check of a whole job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from smkit.environment import package_version
from smkit.errors import ConfigError
from smkit.jobs.checks.code import check_code
from smkit.jobs.checks.environment import Environment
from smkit.jobs.checks.hyperparameters import check_hyperparameters
from smkit.jobs.checks.inputs import check_here, not_asked, remote_checks
from smkit.jobs.checks.options import check_options, check_request
from smkit.jobs.checks.report import CheckReport, Finding, merge, problem, unknown, warning
from smkit.jobs.checks.requirements import FILE, read_requirements
from smkit.jobs.containers import image

if TYPE_CHECKING:
    from smkit.config import Settings
    from smkit.jobs.checks.requirements import Requirements
    from smkit.jobs.containers import ContainerImage
    from smkit.jobs.spec import JobSpec
    from smkit.jobs.staging import StagedCode

#: How long all questions to the account may take together.
SECONDS = 8.0


def check_job(
    spec: JobSpec,
    settings: Settings,
    code: StagedCode,
    *,
    backend: Literal["local", "sagemaker"] | None = None,
    seconds: float = SECONDS,
) -> CheckReport:
    """Return everything that would make a job fail, in one list, without starting or writing anything.

    Args:
        spec: The job.
        settings: Where it would run, and as whom.
        code: Its code, staged.
        backend: Where it shall run; default: where the settings say. For this machine no network is used, and what only
            the image lacks is a warning.
        seconds: How long to wait for AWS in all; what has no answer by then is said to be unknown.
    """
    remote = (backend or settings.backend) == "sagemaker"
    requirements = read_requirements(code.files, here=not remote)
    found = [*check_hyperparameters(spec, code), *_check_in_image(spec, code, requirements, here=not remote)]
    if not remote:
        parts = [found, check_here(spec), not_asked(spec)]
        return merge(spec.name, parts)
    asked = [*check_options(spec, settings), *check_request(spec, settings, code)]
    parts = [asked, found, _check_pip(spec, settings, requirements), check_here(spec)]
    return merge(spec.name, [*parts, _ask_account(spec, settings, seconds)])


def _check_in_image(spec: JobSpec, code: StagedCode, requirements: Requirements, *, here: bool) -> list[Finding]:
    if spec.sagemaker.image_uri is not None:
        what = f"what {spec.sagemaker.image_uri!r} contains is not known, so the code's imports were not checked"
        return [*requirements.findings, unknown("image_uri", what)]
    try:
        content = image(spec.framework_version)
    except ConfigError as error:
        return [*requirements.findings, unknown("framework_version", str(error))]
    environment = Environment(content, requirements, opaque="setup.py" in code.files)
    alone = None if spec.source_dir is not None else Path(spec.entry_point).expanduser().absolute().parent
    isolated = spec.sagemaker.network_isolation and not here
    return [
        *check_code(code, environment, sources=alone, isolated=isolated, here=here),
        *requirements.findings,
        *_check_versions(content, requirements),
    ]


def _check_versions(content: ContainerImage, requirements: Requirements) -> list[Finding]:
    """A pickled model wants the scikit-learn that made it."""
    theirs = content.packages["scikit-learn"]
    pinned = requirements.names.get("scikit-learn")
    if pinned and pinned != theirs:
        what = f"replaces the image's scikit-learn {theirs} by {pinned}: an endpoint of the image cannot load the model"
        return [warning(FILE, what, "choose the framework_version that has it, and leave it out of requirements.txt")]
    ours = package_version("scikit-learn")
    if pinned or ours is None or ours.split(".")[:2] == theirs.split(".")[:2]:
        return []
    what = (
        f"scikit-learn is {ours} here and {theirs} in the image {content.framework_version}: what one of them "
        "pickles, the other may not load"
    )
    return [warning("scikit-learn", what, f"install scikit-learn=={theirs} here, or load the model with the image's")]


def _check_pip(spec: JobSpec, settings: Settings, requirements: Requirements) -> list[Finding]:
    if not requirements.exists:
        return []
    if spec.sagemaker.network_isolation and requirements.names:
        what = "network_isolation leaves the container no network, so pip cannot install anything"
        return [problem(FILE, what, "drop one of the two, or use an image that has the packages (image_uri)")]
    has_index = requirements.names_index or {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"} & set(spec.environment)
    if settings.partition == "aws-cn" and not has_index and (requirements.names or requirements.opaque):
        what = f"the public package index is slow or out of reach from {settings.region}"
        return [warning(FILE, what, "set pip_index_url (SMKIT_PIP_INDEX_URL) to a mirror")]
    return []


def _ask_account(spec: JobSpec, settings: Settings, seconds: float) -> list[Finding]:
    # Only here: a check for this machine needs no boto3.
    from smkit.jobs.checks.account import account_checks, identify
    from smkit.jobs.checks.calls import run_together

    caller = None

    def sign_in() -> list[Finding]:
        nonlocal caller
        caller, found = identify(settings)
        return found

    found = run_together({"account": sign_in}, seconds)
    if caller is None:
        return found
    return [
        *found,
        *run_together({**account_checks(spec, settings, caller), **remote_checks(spec, settings)}, seconds),
    ]
