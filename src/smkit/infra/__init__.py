"""What smkit needs in an AWS account, as two CloudFormation stacks for each project.

`foundation` is the bucket, the role of the training jobs and the policy of those who start them; `studio` is a
SageMaker Studio domain. `Stack` plans a change as a change set, applies it, follows it and deletes it; it never asks
and never prints: who calls `apply` has consented. `SettingsFile` brings what a foundation made into `smkit.toml`.

`templates` reads the files of `cloudformation/`, `inputs` fills their parameters in, `bucket` looks whether the
bucket's name is free, `change_sets` and `reading` speak with CloudFormation, `states` knows what its statuses allow.
"""

from __future__ import annotations

from smkit.infra.inputs import FoundationOptions, StudioOptions
from smkit.infra.results import Change, Plan, Resource, StackEvent, StackStatus
from smkit.infra.settings_file import SettingsFile, settings_of_foundation
from smkit.infra.stacks import Stack
from smkit.infra.templates import TEMPLATES, read_template

__all__ = [
    "TEMPLATES",
    "Change",
    "FoundationOptions",
    "Plan",
    "Resource",
    "SettingsFile",
    "Stack",
    "StackEvent",
    "StackStatus",
    "StudioOptions",
    "read_template",
    "settings_of_foundation",
]
