"""What moto's CloudFormation lacks to deploy smkit's templates.

It says `aws` for the partition of every region, keeps the place of an `AWS::NoValue` in a list, knows no bucket policy,
no Studio domain and no user profile, neither changes nor deletes policies, forgets the outputs and tags of what a
change set made, and shows a list of parameters as Python does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from moto.cloudformation import models, parsing
from moto.core.common_models import CloudFormationModel
from moto.iam.models import ManagedPolicy, Role, iam_backends
from moto.s3.models import s3_backends
from moto.utilities.utils import get_partition

if TYPE_CHECKING:
    import pytest

ACCOUNT = "123456789012"


class _Named:
    """A resource of which only name and properties are kept."""

    def __init__(self, name: str, properties: dict[str, Any]) -> None:
        self.name = name
        self.properties = properties

    @property
    def physical_resource_id(self) -> str:
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in {"Url", "HomeEfsFileSystemId"}

    def get_cfn_attribute(self, attribute_name: str) -> str:
        return {"Url": f"https://{self.name}.example", "HomeEfsFileSystemId": "fs-1"}[attribute_name]

    def is_created(self) -> bool:
        return True

    def delete(self, *_: Any) -> None:
        """Nothing is kept anywhere else."""

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: Any, cloudformation_json: dict[str, Any], **_: Any
    ) -> Any:
        original_resource.properties = cloudformation_json["Properties"]
        return original_resource


class Domain(_Named, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SageMaker::Domain"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name: str, cloudformation_json: Any, *_: Any, **__: Any) -> Any:
        return cls("d-studio", cloudformation_json["Properties"])


class UserProfile(_Named, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SageMaker::UserProfile"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name: str, cloudformation_json: Any, *_: Any, **__: Any) -> Any:
        properties = cloudformation_json["Properties"]
        return cls(properties["UserProfileName"], properties)


class BucketPolicy(_Named, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::S3::BucketPolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> Any:
        properties = cloudformation_json["Properties"]
        backend = s3_backends[account_id][get_partition(region_name)]
        backend.put_bucket_policy(properties["Bucket"], json.dumps(properties["PolicyDocument"]).encode())
        return cls(properties["Bucket"], properties)


def _change_role(original_resource: Any, cloudformation_json: Any, **_: Any) -> Any:
    for policy in cloudformation_json["Properties"].get("Policies", ()):
        original_resource.put_policy(policy["PolicyName"], policy["PolicyDocument"])
    return original_resource


def _change_policy(
    original_resource: Any, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
) -> Any:
    document = json.dumps(cloudformation_json["Properties"]["PolicyDocument"])
    backend = iam_backends[account_id][get_partition(region_name)]
    backend.create_policy_version(original_resource.arn, document, set_as_default=True)
    return original_resource


def _delete_policy(resource_name: str, _: Any, account_id: str, region_name: str) -> None:
    backend = iam_backends[account_id][get_partition(region_name)]
    for role in backend.roles.values():
        role.managed_policies.pop(resource_name, None)
    backend.managed_policies.pop(resource_name)


def _parameter_list(self: Any) -> list[dict[str, str]]:
    return [
        {"ParameterKey": name, "ParameterValue": ",".join(value) if isinstance(value, list) else str(value)}
        for name, value in self.resource_map.resolved_parameters.items()
    ]


def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let moto deploy what smkit's templates need, for one test."""
    parsing.get_model_list.cache_clear()
    parsing.get_model_map.cache_clear()
    parsing.get_name_type_map.cache_clear()
    make, clean = parsing.ResourceMap.__init__, parsing.clean_json

    def make_with_partition(self: Any, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        self._parsed_resources["AWS::Partition"] = get_partition(self._region_name)

    def clean_without_nothing(resource_json: Any, resources_map: Any) -> Any:
        cleaned = clean(resource_json, resources_map)
        return [item for item in cleaned if item is not None] if isinstance(cleaned, list) else cleaned

    apply = models.ChangeSet.apply

    def apply_with_outputs(self: Any) -> None:
        apply(self)
        self.stack.template, self.stack.parameters, self.stack.tags = self.template, self.parameters, self.tags
        self.stack._parse_template()
        self.stack.output_map = self.stack._create_output_map()

    monkeypatch.setattr(models.ChangeSet, "apply", apply_with_outputs)
    monkeypatch.setattr(models.Stack, "parameter_list", property(_parameter_list))
    monkeypatch.setattr(Role, "update_from_cloudformation_json", _change_role)
    monkeypatch.setattr(ManagedPolicy, "update_from_cloudformation_json", _change_policy)
    monkeypatch.setattr(ManagedPolicy, "delete_from_cloudformation_json", _delete_policy)
    monkeypatch.setattr(parsing.ResourceMap, "__init__", make_with_partition)
    monkeypatch.setattr(parsing, "clean_json", clean_without_nothing)


def keys_in(bucket: str, region: str) -> set[str]:
    """The keys of a bucket. Asked past its policy, of which moto takes every Deny for unconditional."""
    return set(s3_backends[ACCOUNT][get_partition(region)].buckets[bucket].keys)


def put(bucket: str, region: str, key: str) -> None:
    """Put an object, past the bucket's policy as above."""
    s3_backends[ACCOUNT][get_partition(region)].put_object(bucket, key, b"1")


def stack_of(name: str, region: str) -> Any:
    """Moto's own object of a stack, whose status and events a test may set."""
    return models.cloudformation_backends[ACCOUNT][region].get_stack(name)


def stacks_in(region: str) -> set[str]:
    """The names of the stacks that there are, planned ones included."""
    return {stack.name for stack in models.cloudformation_backends[ACCOUNT][region].stacks.values()}


def change_sets_of(name: str, region: str) -> list[Any]:
    """The change sets of a stack that were neither carried out nor forgotten."""
    sets = models.cloudformation_backends[ACCOUNT][region].change_sets.values()
    return [one for one in sets if one.stack_name == name and one.execution_status != "EXECUTE_COMPLETE"]


def add_event(stack: Any, status: str, logical_id: str | None = None, reason: str = "", kind: str = "") -> None:
    """Add an event to a stack: of itself, or of one of its resources."""
    stack.events.append(
        models.Event(
            stack_id=stack.stack_id,
            stack_name=stack.name,
            logical_resource_id=logical_id or stack.name,
            physical_resource_id=stack.stack_id if logical_id is None else "",
            resource_type=kind or "AWS::CloudFormation::Stack",
            resource_status=status,
            resource_status_reason=reason,
            resource_properties=None,
        )
    )


def fail_next_operation(
    monkeypatch: pytest.MonkeyPatch, *, end: str, failures: list[tuple[str, str]], begin: str = "CREATE"
) -> None:
    """Let the next change set fail as CloudFormation's do: the events, and the status that it ends in."""

    def execute(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
        change_set = self.change_sets[change_set_name]
        stack = self.stacks[change_set.stack_id]
        change_set.execution_status = "EXECUTE_FAILED"
        add_event(stack, f"{begin}_IN_PROGRESS", reason="User Initiated")
        for logical_id, reason in failures:
            add_event(stack, f"{begin}_FAILED", logical_id, reason, "AWS::IAM::Role")
        rollback = "ROLLBACK" if begin == "CREATE" else "UPDATE_ROLLBACK"
        add_event(stack, f"{rollback}_IN_PROGRESS", reason="The following resource(s) failed")
        add_event(stack, end)
        stack.status = end

    monkeypatch.setattr(models.CloudFormationBackend, "execute_change_set", execute)
