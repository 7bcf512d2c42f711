"""Everything that SageMaker is asked for, with every choice made: what both ways of asking start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.jobs.options import InputMode


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """One CreateTrainingJob, before it is spelled.

    Attributes:
        name: The job's name.
        region: The region that it runs in.
        role: ARN of the execution role.
        image_uri: The container image.
        framework_version: The image's tag, such as `1.2-1`.
        entry_point: Path of the script inside the code archive.
        source_uri: `s3://` URI of `sourcedir.tar.gz`.
        hyperparameters: Name -> JSON value, as the caller gave them.
        channels: Channel name -> `s3://` URI; every object whose key starts with it is delivered.
        output_uri: `s3://` prefix; SageMaker adds `/<job name>/output/model.tar.gz`.
        instance_type: The instance.
        volume_size: Its storage in GB.
        max_run: Seconds after which SageMaker stops the script.
        spot: Whether spare capacity is used.
        max_wait: Seconds for waiting and running together; with `spot` only.
        checkpoint_uri: `s3://` prefix of the checkpoints, or None.
        keep_alive: Seconds for which the instance is kept warm, or None.
        subnets: Subnet ids; empty: SageMaker's own network.
        security_groups: Security group ids.
        kms_key: Key for the volume and the output, or None.
        network_isolation: Whether the container has no network.
        input_mode: How channels are delivered.
        environment: Variables for the container.
        tags: The job's tags.
        metric_definitions: Metric name -> regex.
        extra: Further top-level fields of the request.
    """

    name: str
    region: str
    role: str
    image_uri: str
    framework_version: str
    entry_point: str
    source_uri: str
    hyperparameters: Mapping[str, Any]
    channels: Mapping[str, str]
    output_uri: str
    instance_type: str
    volume_size: int
    max_run: int
    spot: bool
    max_wait: int | None
    checkpoint_uri: str | None
    keep_alive: int | None
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    kms_key: str | None
    network_isolation: bool
    input_mode: InputMode
    environment: Mapping[str, str] = field(repr=False)
    tags: Mapping[str, str]
    metric_definitions: Mapping[str, str]
    extra: Mapping[str, Any]
