"""Training jobs: a script, its inputs and hyperparameters, run under the contract of SageMaker's training container.

`JobRunner` turns what a caller wants into a `JobSpec` (checked, frozen). A `Backend` makes a request of it (`prepare`)
and runs it (`submit`); `TrainingJob` watches it by its name. `contract` says what a script finds, `staging` which code
travels, `channels` where data comes from. On this machine `local` starts `supervisor`, a process of its own, so that a
job outlives the notebook that submitted it. `sagemaker` asks SageMaker, with its SDK or without; `checks` looks first
for what would make the job fail, `explain` says afterwards why it did, and `containers` knows what the images hold.
"""

from __future__ import annotations

from smkit.jobs.backend import Backend, JobStatus
from smkit.jobs.channels import Channel
from smkit.jobs.job import TrainingJob
from smkit.jobs.listing import TrainingJobs
from smkit.jobs.options import SageMakerOptions
from smkit.jobs.runner import JobRunner
from smkit.jobs.spec import JobSpec

__all__ = ["Backend", "Channel", "JobRunner", "JobSpec", "JobStatus", "SageMakerOptions", "TrainingJob", "TrainingJobs"]
