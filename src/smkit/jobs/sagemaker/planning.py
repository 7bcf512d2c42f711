"""From a spec to everything that SageMaker is asked for, and to what is remembered of it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from smkit.jobs.sagemaker.images import training_image
from smkit.jobs.sagemaker.plan import TrainingPlan
from smkit.jobs.sagemaker.record import JOBS, SCHEMA_VERSION, source_key, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.config import Settings
    from smkit.jobs.spec import JobSpec
    from smkit.jobs.staging import StagedCode

#: What a record keeps of the plan beside what it says anyway. The values of environment variables may be secret.
_KEPT = (
    "region", "role", "source_uri", "channels", "output_uri", "volume_size", "max_run", "spot", "max_wait",
    "checkpoint_uri", "keep_alive", "subnets", "security_groups", "kms_key", "network_isolation", "input_mode", "tags",
)  # fmt: skip


def make_plan(
    spec: JobSpec,
    settings: Settings,
    code: StagedCode,
    channels: Mapping[str, str],
    *,
    root: str,
    folder: str,
    role: str,
) -> TrainingPlan:
    """Make every choice that the spec leaves open.

    Args:
        spec: The job.
        settings: What the spec's options leave out: network, key, tags.
        code: The staged code.
        channels: Channel name -> `s3://` URI.
        root: The store's `s3://` URI.
        folder: Key of the folder that gets the record and the code.
        role: ARN of the execution role.

    Raises:
        ConfigError: There is no image of this version, or not in this region.
    """
    options = spec.sagemaker
    network = options if options.subnets else settings
    checkpoints = options.checkpoint_uri
    if checkpoints is None and options.spot:
        # Without it an interrupted job starts anew from nothing.
        checkpoints = f"{root}/{JOBS}/{spec.name}/checkpoints"
    return TrainingPlan(
        name=spec.name,
        region=settings.region,
        role=role,
        image_uri=options.image_uri or training_image(spec.framework_version, settings.region),
        framework_version=spec.framework_version,
        entry_point=code.entry_point,
        source_uri=f"{root}/{source_key(folder)}",
        hyperparameters=spec.plain_hyperparameters(),
        channels=channels,
        output_uri=f"{root}/{JOBS}",
        instance_type=spec.instance_type,
        volume_size=options.volume_size,
        max_run=spec.max_run,
        spot=options.spot,
        max_wait=spec.max_wait,
        checkpoint_uri=checkpoints,
        keep_alive=options.keep_alive,
        subnets=network.subnets,
        security_groups=network.security_groups,
        kms_key=options.kms_key or settings.kms_key,
        network_isolation=options.network_isolation,
        input_mode=options.input_mode,
        environment=dict(spec.environment),
        tags={**settings.tags, **options.tags},
        metric_definitions=dict(spec.metric_definitions),
        extra=dict(options.extra),
    )


def make_record(spec: JobSpec, plan: TrainingPlan, code: StagedCode, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's record, `run.json`; JSON values."""
    request = {name: getattr(plan, name) for name in _KEPT}
    return {
        "schema_version": SCHEMA_VERSION,
        "job_name": spec.name,
        "backend": "sagemaker",
        # Makes every record another one, so that a writer knows its own.
        "submission": uuid.uuid4().hex,
        "entry_point": code.entry_point,
        "source_dir": None if spec.source_dir is None else str(spec.source_dir),
        "hyperparameters": dict(plan.hyperparameters),
        "inputs": dict(inputs),
        "code": code.describe(),
        "environment_variables": sorted(spec.environment),
        "framework_version": spec.framework_version,
        "instance_type": spec.instance_type,
        "image": plan.image_uri,
        "custom_image": spec.sagemaker.image_uri is not None,
        "metric_definitions": dict(plan.metric_definitions),
        "created": utc_now(),
        "request": request,
    }
