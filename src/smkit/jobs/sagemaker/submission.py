"""What one submission of a job does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.jobs.sagemaker.plan import TrainingPlan
    from smkit.jobs.sagemaker.uploads import LocalInput
    from smkit.jobs.staging import StagedCode


@dataclass(frozen=True)
class SageMakerRequest:
    """Everything that `SageMakerBackend.submit` does.

    Args:
        plan: What SageMaker is asked for; `training_request(plan)` spells it.
        code: The staged code, which goes to `plan.source_uri`.
        uploads: Local data that goes to S3, unless it is there.
        folder: Key of the folder that gets the record and the code.
        record: The record, `run.json`.
    """

    plan: TrainingPlan
    code: StagedCode
    uploads: tuple[LocalInput, ...]
    folder: str
    record: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The job's name."""
        return self.plan.name
