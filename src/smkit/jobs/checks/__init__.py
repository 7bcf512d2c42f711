"""Everything that would make a job fail, found before it is paid for.

`check_job` looks at the code as the image's Python would (`code`, `syntax`, `imports`, `resolution`, `environment`,
`requirements`), at the hyperparameters that it declares (`hyperparameters`, `declaration`), at what was asked for
(`options`), at the data (`inputs`) and, for SageMaker, at the account (`account`, `network`).
Nothing of the user's code runs.
"""

from __future__ import annotations

from smkit.jobs.checks.hyperparameters import refuse_wrong_hyperparameters
from smkit.jobs.checks.job import check_job
from smkit.jobs.checks.report import CheckReport, Finding

__all__ = ["CheckReport", "Finding", "check_job", "refuse_wrong_hyperparameters"]
