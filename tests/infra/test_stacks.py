"""Planning, applying, following and deleting stacks, and what goes wrong meanwhile."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from moto.cloudformation import models

from smkit import Settings
from smkit.errors import (
    AccessDenied,
    BucketTaken,
    ConfigError,
    CredentialsError,
    InfraError,
    ServiceUnavailable,
    StackFailed,
    StackNotFound,
    StackStateError,
)
from smkit.infra import FoundationOptions, Stack, StackEvent, StudioOptions
from smkit.infra.states import how_to_leave, is_broken, is_busy
from tests.fixtures_s3 import REGION
from tests.infra.moto_cloudformation import (
    ACCOUNT,
    add_event,
    change_sets_of,
    fail_next_operation,
    keys_in,
    put,
    stack_of,
    stacks_in,
)
from tests.test_docs import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeSettings = Callable[..., Settings]


def foundation(settings: Settings) -> Stack:
    return Stack(settings, "foundation", poll_seconds=0)


def deployed(settings: Settings, options: FoundationOptions | None = None) -> Stack:
    stack = foundation(settings)
    stack.apply(stack.plan(options))
    return stack


def policy_sids(stack: Stack) -> set[str]:
    status = stack.status()
    assert status is not None
    arn = status.outputs["CallerPolicyArn"]
    iam = stack.settings.client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    return {statement["Sid"] for statement in document["Statement"]}


@pytest.mark.usefixtures("account")
def test_the_documentations_lines_deploy_a_foundation(
    project: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "infrastructure.md").read_text(encoding="utf-8")
    (lines,) = [block.text for block in blocks_of(page) if "stack.apply(plan" in block.text]
    names: dict[str, Any] = {}
    exec(compile(lines.replace('"houses"', repr(project)), "infrastructure.md", "exec"), names)
    assert names["status"].outputs["ExecutionRoleArn"].startswith("arn:")
    assert "Add ExecutionRole AWS::IAM::Role" in capsys.readouterr().out


# --- the way it should go -----------------------------------------------------------------------------------------


def test_a_plan_shows_what_would_be_made_and_makes_nothing(make_settings: MakeSettings) -> None:
    stack = foundation(make_settings())
    plan = stack.plan()
    assert plan.creates
    assert not plan.is_empty
    assert {(change.action, change.logical_id, change.type) for change in plan.changes} == {
        ("Add", "Bucket", "AWS::S3::Bucket"),
        ("Add", "BucketPolicy", "AWS::S3::BucketPolicy"),
        ("Add", "ExecutionRole", "AWS::IAM::Role"),
        ("Add", "CallerPolicy", "AWS::IAM::ManagedPolicy"),
    }
    assert not any(change.loses_resource for change in plan.changes)
    with pytest.raises(ClientError, match="404"):
        stack.settings.client("s3").head_bucket(Bucket=plan.parameters["BucketName"])
    stack.discard(plan)
    assert stack.name not in stacks_in(REGION)
    assert stack.status() is None


def test_a_plan_is_carried_out_and_followed(make_settings: MakeSettings) -> None:
    stack = foundation(make_settings(tags={"team": "pricing"}))
    events: list[StackEvent] = []
    status = stack.apply(stack.plan(), on_event=events.append)
    assert status.status == "CREATE_COMPLETE"
    bucket = f"smkit-{stack.settings.project}-{ACCOUNT}-{REGION}"
    assert status.outputs["BucketName"] == bucket
    assert status.outputs["StoreUri"] == f"s3://{bucket}/{stack.settings.project}"
    assert status.outputs["ExecutionRoleArn"].startswith(f"arn:aws-cn:iam::{ACCOUNT}:role/")
    assert [event.status for event in events if event.of_stack][-1] == "CREATE_COMPLETE"
    assert len({event.event_id for event in events}) == len(events)
    assert stack_of(stack.name, REGION).tags == {"team": "pricing"}
    stack.settings.client("s3").head_bucket(Bucket=bucket)
    types = {one.logical_id: one.type for one in stack.resources()}
    assert types["ExecutionRole"] == "AWS::IAM::Role"


def test_the_second_time_nothing_changes(make_settings: MakeSettings) -> None:
    stack = deployed(make_settings(), FoundationOptions(read_buckets=("raw-data",), noncurrent_days=30))
    again = stack.plan()
    assert again.is_empty
    assert not again.creates
    assert stack.apply(again).status == "CREATE_COMPLETE"
    stack.discard(again)
    assert stack.plan(FoundationOptions(read_buckets=("raw-data",), noncurrent_days=30)).is_empty
    assert change_sets_of(stack.name, REGION) == []


def test_an_option_that_is_not_given_stays_and_an_empty_one_clears(make_settings: MakeSettings) -> None:
    stack = deployed(make_settings(), FoundationOptions(read_buckets=("raw-data", "more")))
    assert "ReadBuckets" in policy_sids(stack)
    plan = stack.plan(FoundationOptions(write_buckets=("scratch",)))
    assert plan.parameters["ReadBucketArns"] == "arn:aws-cn:s3:::raw-data,arn:aws-cn:s3:::more"
    stack.apply(plan)
    assert {"ReadBuckets", "ReadAndWriteBuckets"} <= policy_sids(stack)
    plan = stack.plan(FoundationOptions(read_buckets=()))
    assert {change.action for change in plan.changes} <= {"Modify"}
    stack.apply(plan)
    assert policy_sids(stack) & {"ReadBuckets", "ReadAndWriteBuckets"} == {"ReadAndWriteBuckets"}


def test_no_changes_are_known_by_cloudformations_other_answer_too(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = deployed(make_settings())

    def create(self: Any, stack_name: str, change_set_name: str, **named: Any) -> tuple[str, str]:
        found = stack_of(stack_name, REGION)
        named.pop("template"), named.pop("parameters")
        made = models.ChangeSet(
            change_set_id=f"arn:aws-cn:cloudformation:{REGION}:{ACCOUNT}:changeSet/{change_set_name}/1",
            change_set_name=change_set_name,
            stack=found,
            template=found.template,
            parameters=found.parameters,
            **named,
        )
        made.status, made.execution_status = "FAILED", "UNAVAILABLE"
        made.status_reason = "The submitted information didn't contain changes. Submit different information."
        self.change_sets[made.change_set_id] = made
        return made.change_set_id, found.stack_id

    monkeypatch.setattr(models.CloudFormationBackend, "create_change_set", create)
    assert stack.plan(FoundationOptions(noncurrent_days=3)).is_empty
    assert change_sets_of(stack.name, REGION) == []


def test_deleting_keeps_the_bucket_and_a_new_deployment_says_so_before(make_settings: MakeSettings) -> None:
    stack = deployed(make_settings())
    status = stack.status()
    assert status is not None
    bucket = status.outputs["BucketName"]
    s3 = stack.settings.client("s3")
    put(bucket, REGION, "a")
    stack.delete()
    assert stack.status() is None
    assert keys_in(bucket, REGION) == {"a"}
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    with pytest.raises(StackNotFound, match="`smkit infra deploy foundation` makes it"):
        stack.delete()

    with pytest.raises(BucketTaken, match="exists already in this account") as caught:
        stack.plan()
    assert "--existing-bucket import" in str(caught.value)
    assert stack.name not in stacks_in(REGION)

    plan = stack.plan(FoundationOptions(existing_bucket="use"))
    assert plan.parameters["ManageBucket"] == "false"
    outputs = stack.apply(plan).outputs
    assert outputs["BucketName"] == bucket
    # What was said once is remembered.
    assert stack.plan().is_empty


def test_a_kept_bucket_is_imported(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = deployed(make_settings())
    stack.delete()
    sent: list[dict[str, Any]] = []
    client = stack.settings.client("cloudformation")
    create = client.create_change_set
    monkeypatch.setattr(client, "create_change_set", lambda **request: (sent.append(request), create(**request))[1])
    plan = stack.plan(FoundationOptions(existing_bucket="import"))
    stack.discard(plan)
    assert sent[0]["ImportExistingResources"] is True
    assert sent[0]["Capabilities"] == ["CAPABILITY_IAM"]
    assert plan.parameters["ManageBucket"] == "true"


# --- parameters ----------------------------------------------------------------------------------------------------


def parameters_of(settings: Settings, options: FoundationOptions | None = None) -> dict[str, str]:
    stack = foundation(settings)
    plan = stack.plan(options)
    stack.discard(plan)
    return dict(plan.parameters)


def test_parameters_come_from_the_settings(make_settings: MakeSettings, project: str) -> None:
    kms = make_settings().client("kms")
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName=f"alias/{project}", TargetKeyId=key["KeyId"])
    found = parameters_of(
        make_settings(
            kms_key=f"alias/{project}",
            subnets=("subnet-1", "subnet-2"),
            security_groups=("sg-1",),
            postgres={"secret_id": "houses/db"},
            root=f"s3://bucket-of-{project}/deep/store",
        )
    )
    assert found["KmsKeyArn"] == key["Arn"]  # a policy knows no key by its alias
    assert found["SubnetArns"] == f"arn:aws-cn:ec2:{REGION}:*:subnet/subnet-1,arn:aws-cn:ec2:{REGION}:*:subnet/subnet-2"
    assert found["SecurityGroupArns"] == f"arn:aws-cn:ec2:{REGION}:*:security-group/sg-1"
    assert found["DatabaseSecretArn"] == f"arn:aws-cn:secretsmanager:{REGION}:{ACCOUNT}:secret:houses/db-??????"
    assert (found["BucketName"], found["Prefix"]) == (f"bucket-of-{project}", "deep/store")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"arn:aws-cn:secretsmanager:{REGION}:{ACCOUNT}:secret:db-Ab12Cd", "secret:db-Ab12Cd"),
        (f"arn:aws-cn:secretsmanager:{REGION}:{ACCOUNT}:secret:db", "secret:db-??????"),
    ],
)
def test_a_secrets_arn_is_taken_with_and_without_its_suffix(
    make_settings: MakeSettings, given: str, expected: str
) -> None:
    found = parameters_of(make_settings(postgres={"secret_id": given}))
    assert found["DatabaseSecretArn"].endswith(f":{expected}")


def test_a_project_with_underscores_gets_names_that_aws_takes(make_settings: MakeSettings, project: str) -> None:
    stack = deployed(make_settings(project=f"{project}_x"))
    assert stack.name == f"smkit-{project}-x-foundation"
    status = stack.status()
    assert status is not None
    assert status.outputs["BucketName"] == f"smkit-{project}-x-{ACCOUNT}-{REGION}"
    assert status.outputs["StoreUri"].endswith(f"/{project}_x")
    with pytest.raises(InfraError, match=f"belongs to project '{project}_x', not to '{project}-x'"):
        foundation(make_settings(project=f"{project}-x")).plan()
    with pytest.raises(InfraError, match="rename one of the projects"):
        foundation(make_settings(project=f"{project}-x")).delete()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"region": "mx-central-1"}, None, "region 'mx-central-1' has no scikit-learn images"),
        ({"project": "p" * 50}, None, "would have more than 63 characters: choose one with --bucket"),
        ({"root": "s3://some-bucket"}, None, "is a whole bucket: give it a prefix"),
        ({"root": "s3://some-bucket/a*b"}, None, "means something else in a policy"),
        ({"bucket": "one-bucket"}, FoundationOptions(bucket="two-bucket"), "--bucket says 'two-bucket'"),
        ({}, FoundationOptions(bucket="Bad_Name"), "is not a bucket name"),
        ({}, FoundationOptions(read_buckets=("s3://x",)), "is not a bucket name"),
        ({}, FoundationOptions(noncurrent_days=-1), "noncurrent_days=-1 is not allowed"),
        ({}, FoundationOptions(break_glass_role="admin"), "'admin' is not an ARN"),
        ({}, FoundationOptions(permissions_boundary="arn:aws:iam::123456789012:policy/b"), "in partition aws-cn"),
        ({}, FoundationOptions(bucket="no-such-bucket-1", existing_bucket="use"), "there is no bucket"),
        ({}, FoundationOptions(bucket="no-such-bucket-1", existing_bucket="import"), "there is no bucket"),
        ({}, StudioOptions(), "takes FoundationOptions, got StudioOptions"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_planned(
    make_settings: MakeSettings, values: dict[str, Any], options: Any, message: str
) -> None:
    stack = foundation(make_settings(**values))
    with pytest.raises(ConfigError) as caught:
        stack.plan(options)
    assert message in str(caught.value)
    assert stack.name not in stacks_in(stack.settings.region)


def test_credentials_of_another_partition_are_refused(make_settings: MakeSettings, monkeypatch: Any) -> None:
    settings = make_settings()
    identity = {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/a"}
    monkeypatch.setattr(settings.client("sts"), "get_caller_identity", lambda: identity)
    with pytest.raises(CredentialsError, match="of partition aws, region 'cn-northwest-1' is of aws-cn"):
        foundation(settings).plan()


def head_bucket_answers(code: str, region: str = "") -> Callable[..., Any]:
    def head_bucket(**_: Any) -> Any:
        headers = {"x-amz-bucket-region": region} if region else {}
        answer = {"ResponseMetadata": {"HTTPHeaders": headers, "HTTPStatusCode": int(code)}}
        if code == "200":
            return answer
        raise ClientError({"Error": {"Code": code, "Message": ""}, **answer}, "HeadBucket")

    return head_bucket


@pytest.mark.parametrize(
    ("code", "region", "message"),
    [
        ("403", REGION, "account 123456789012 does not own it or the caller may not see it"),
        ("200", "cn-north-1", "exists already, in region cn-north-1, not in cn-northwest-1"),
        ("301", "", "exists already, in region unknown"),
    ],
)
def test_a_bucket_of_somebody_else_or_elsewhere_is_known_before(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, code: str, region: str, message: str
) -> None:
    stack = foundation(make_settings())
    monkeypatch.setattr(stack.settings.client("s3"), "head_bucket", head_bucket_answers(code, region))
    with pytest.raises(BucketTaken, match=message):
        stack.plan()
    with pytest.raises(ConfigError):
        stack.plan(FoundationOptions(existing_bucket="use"))
    assert stack.name not in stacks_in(REGION)


# --- studio --------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(make_settings: MakeSettings) -> tuple[str, str]:
    """A subnet of a fresh VPC, and a security group."""
    ec2 = make_settings().client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    return ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"], "sg-1"


def test_studio_keeps_its_users_and_holds_the_foundation(make_settings: MakeSettings, network: tuple[str, str]) -> None:
    settings = make_settings(subnets=(network[0],), security_groups=(network[1],))
    studio = Stack(settings, "studio", poll_seconds=0)
    with pytest.raises(InfraError, match="run `smkit infra deploy foundation` first"):
        studio.plan()
    base = deployed(settings)
    studio.apply(studio.plan(StudioOptions(users=("anna", "bo"))))
    assert studio.plan().is_empty
    plan = studio.plan(StudioOptions(users=("anna", "no")))
    assert {(change.action, change.logical_id) for change in plan.changes} == {
        ("Add", "UserProfileNo"),
        ("Remove", "UserProfileBo"),
    }
    assert [change.logical_id for change in plan.changes if change.loses_resource] == ["UserProfileBo"]
    studio.apply(plan)
    with pytest.raises(InfraError, match=r"uses the policy of .* delete it first, with `smkit infra delete studio`"):
        base.delete()
    studio.delete()
    base.delete()
    assert base.status() is None


def test_studio_without_a_network_or_in_two_is_refused(make_settings: MakeSettings, network: tuple[str, str]) -> None:
    deployed(make_settings())
    with pytest.raises(ConfigError, match="a Studio domain lies in a VPC: set subnets"):
        Stack(make_settings(), "studio").plan()
    ec2 = make_settings().client("ec2")
    other = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    far = ec2.create_subnet(VpcId=other, CidrBlock="10.1.1.0/24")["Subnet"]["SubnetId"]
    settings = make_settings(subnets=(network[0], far), security_groups=("sg-1",))
    with pytest.raises(ConfigError, match="lie in several VPCs"):
        Stack(settings, "studio").plan()


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_failed_creation_says_what_failed_first(make_settings: MakeSettings, monkeypatch: Any) -> None:
    stack = foundation(make_settings())
    reason = "User: arn:aws-cn:iam::1:user/a is not authorized to perform: iam:CreateRole on resource: x"
    failures = [("ExecutionRole", reason), ("Bucket", "Resource creation cancelled")]
    plan = stack.plan()
    with monkeypatch.context() as failing:
        fail_next_operation(failing, end="ROLLBACK_COMPLETE", failures=failures)
        with pytest.raises(StackFailed) as caught:
            stack.apply(plan)
    error = caught.value
    assert error.status == "ROLLBACK_COMPLETE"
    assert error.reasons == (f"ExecutionRole: {reason}",)
    assert "iam:CreateRole" in str(error)
    assert "Its first creation failed: delete it with `smkit infra delete foundation`" in str(error)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.stack, twin.status, twin.reasons) == (stack.name, "ROLLBACK_COMPLETE", error.reasons)
    assert [event.logical_id for event in stack.failures()] == ["ExecutionRole"]

    with pytest.raises(StackStateError, match="is in ROLLBACK_COMPLETE and takes no change"):
        stack.plan()
    stack.delete()
    stack.apply(stack.plan())


def test_a_failed_update_goes_back_and_takes_changes_again(make_settings: MakeSettings, monkeypatch: Any) -> None:
    stack = deployed(make_settings())
    plan = stack.plan(FoundationOptions(read_buckets=("raw",)))
    with monkeypatch.context() as failing:
        fail_next_operation(failing, begin="UPDATE", end="UPDATE_ROLLBACK_COMPLETE", failures=[("Bucket", "busy")])
        with pytest.raises(StackFailed, match=r"was not deployed \(UPDATE_ROLLBACK_COMPLETE\): Bucket: busy"):
            stack.apply(plan)
    stack.apply(stack.plan(FoundationOptions(read_buckets=("raw",))))
    assert "ReadBuckets" in policy_sids(stack)


STATES = {
    "ROLLBACK_COMPLETE": "smkit infra delete foundation",
    "ROLLBACK_FAILED": "smkit infra delete foundation",
    "CREATE_FAILED": "smkit infra delete foundation",
    "UPDATE_ROLLBACK_FAILED": "aws cloudformation continue-update-rollback --stack-name smkit-",
    "UPDATE_FAILED": "aws cloudformation rollback-stack --stack-name smkit-",
    "DELETE_FAILED": "a policy is deleted once nobody has it attached",
    "IMPORT_ROLLBACK_FAILED": "see the stack in the console",
    "UPDATE_IN_PROGRESS": "an operation is under way: wait",
    "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": "an operation is under way: wait",
    "DELETE_IN_PROGRESS": "an operation is under way: wait",
}


def test_a_state_that_takes_no_change_is_named_with_its_fix(make_settings: MakeSettings) -> None:
    stack = deployed(make_settings())
    for status, fix in STATES.items():
        stack_of(stack.name, REGION).status = status
        with pytest.raises(StackStateError) as caught:
            stack.plan()
        assert f"is in {status} and takes no change" in str(caught.value)
        assert fix in str(caught.value)
        assert caught.value.status == status
        assert is_broken(status) != status.endswith("_IN_PROGRESS")
        if is_busy(status):
            with pytest.raises(StackStateError, match=status):
                stack.delete()
    assert change_sets_of(stack.name, REGION) == []


def test_every_status_of_cloudformation_is_judged(make_settings: MakeSettings) -> None:
    known = make_settings().client("cloudformation").meta.service_model.shape_for("StackStatus").enum
    free = {status for status in known if not how_to_leave(status, "s", "foundation")}
    assert free == {
        *("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE", "DELETE_COMPLETE", "REVIEW_IN_PROGRESS"),
        *("UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"),
    }
    assert {status for status in known if is_busy(status)} == {
        status for status in known if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS"
    }


def test_a_deletion_that_fails_says_why(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = deployed(make_settings())

    def fail(self: Any, name_or_stack_id: str) -> None:
        found = stack_of(name_or_stack_id, REGION)
        add_event(found, "DELETE_IN_PROGRESS")
        add_event(found, "DELETE_FAILED", "CallerPolicy", "Cannot delete a policy attached to entities.", "AWS::IAM")
        add_event(found, "DELETE_FAILED")
        found.status = "DELETE_FAILED"

    monkeypatch.setattr(models.CloudFormationBackend, "delete_stack", fail)
    with pytest.raises(StackFailed, match=r"was not deleted \(DELETE_FAILED\): CallerPolicy: Cannot delete a policy"):
        stack.delete()


def test_an_invalid_change_leaves_nothing(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    make = models.ChangeSet.__init__

    def make_failed(self: Any, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        self.__class__ = Failed

    class Failed(models.ChangeSet):
        status = property(lambda _: "FAILED", lambda *_: None)
        status_reason = property(lambda _: "Parameter X must match the pattern.", lambda *_: None)

    monkeypatch.setattr(models.ChangeSet, "__init__", make_failed)
    stack = foundation(make_settings())
    with pytest.raises(InfraError, match=r"cannot plan stack .*: Parameter X must match the pattern"):
        stack.plan()
    assert stack.name not in stacks_in(REGION)
    assert change_sets_of(stack.name, REGION) == []


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, EndpointConnectionError(endpoint_url="https://x")])
def test_what_is_interrupted_while_it_is_planned_leaves_nothing(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, interrupt: Any
) -> None:
    stack = foundation(make_settings())

    def broken(**_: Any) -> None:
        raise interrupt

    monkeypatch.setattr(stack.settings.client("cloudformation"), "describe_change_set", broken)
    with pytest.raises((KeyboardInterrupt, ServiceUnavailable)):
        stack.plan()
    assert stack.name not in stacks_in(REGION)
    assert change_sets_of(stack.name, REGION) == []


def test_a_plan_whose_reply_was_lost_leaves_nothing(make_settings: MakeSettings, monkeypatch: Any) -> None:
    stack = foundation(make_settings())
    client = stack.settings.client("cloudformation")
    create = client.create_change_set

    def lose(**request: Any) -> None:
        create(**request)
        raise EndpointConnectionError(endpoint_url="https://x")

    monkeypatch.setattr(client, "create_change_set", lose)
    with pytest.raises(ServiceUnavailable, match="cannot plan stack"):
        stack.plan()
    assert stack.name not in stacks_in(REGION)


def test_a_plan_that_cannot_be_cleaned_up_is_told(make_settings: MakeSettings, monkeypatch: Any) -> None:
    stack = foundation(make_settings())
    client = stack.settings.client("cloudformation")

    def broken(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://x")

    monkeypatch.setattr(client, "describe_change_set", broken)
    monkeypatch.setattr(client, "delete_change_set", broken)
    with (
        pytest.warns(UserWarning, match="may be left behind"),
        pytest.raises(ServiceUnavailable, match="read the plan"),
    ):
        stack.plan()


def test_somebody_elses_plan_of_the_same_stack_is_left_alone(make_settings: MakeSettings) -> None:
    stack = foundation(make_settings())
    mine = stack.plan()
    found = stack_of(stack.name, REGION)
    theirs = models.ChangeSet(
        change_set_type="CREATE",
        change_set_id="arn:aws-cn:cloudformation:x:1:changeSet/theirs/1",
        change_set_name="theirs",
        stack=found,
        template="Resources: {}",
        parameters={},
        description="",
    )
    backend = models.cloudformation_backends[ACCOUNT][REGION]
    backend.change_sets[theirs.change_set_id] = theirs
    stack.discard(mine)
    assert stack.name in stacks_in(REGION)
    del backend.change_sets[theirs.change_set_id]


def denied(operation: str, action: str) -> ClientError:
    message = f"User: arn:aws-cn:iam::1:user/a is not authorized to perform: {action} on resource: *"
    answer = {"Error": {"Code": "AccessDenied", "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    return ClientError(answer, operation)


def test_what_the_caller_may_not_do_is_named(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = foundation(make_settings())
    client = stack.settings.client("cloudformation")

    def refuse(**_: Any) -> None:
        raise denied("CreateChangeSet", "cloudformation:CreateChangeSet")

    monkeypatch.setattr(client, "create_change_set", refuse)
    monkeypatch.setattr(client, "delete_change_set", lambda **_: pytest.fail("nothing was made"))
    with pytest.raises(AccessDenied, match="allow cloudformation:CreateChangeSet on") as caught:
        stack.plan()
    assert "s3:" not in str(caught.value)


def test_an_execution_that_is_refused_leaves_nothing(make_settings: MakeSettings, monkeypatch: Any) -> None:
    stack = foundation(make_settings())
    plan = stack.plan()

    def refuse(**_: Any) -> None:
        raise denied("ExecuteChangeSet", "cloudformation:ExecuteChangeSet")

    monkeypatch.setattr(stack.settings.client("cloudformation"), "execute_change_set", refuse)
    with pytest.raises(AccessDenied, match="cloudformation:ExecuteChangeSet"):
        stack.apply(plan)
    assert stack.name not in stacks_in(REGION)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (NoCredentialsError(), CredentialsError, "no AWS credentials found"),
        (
            ClientError({"Error": {"Code": "ExpiredToken", "Message": "The token has expired"}}, "GetCallerIdentity"),
            CredentialsError,
            "sign in again",
        ),
        (EndpointConnectionError(endpoint_url="https://sts"), ServiceUnavailable, "check the network"),
    ],
)
def test_who_is_not_signed_in_is_told_so(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: Any, message: str
) -> None:
    settings = make_settings()

    def fail() -> None:
        raise error

    monkeypatch.setattr(settings.client("sts"), "get_caller_identity", fail)
    with pytest.raises(kind, match=message):
        foundation(settings).plan()


def test_the_end_is_waited_for_whatever_the_status_still_says(make_settings: MakeSettings, monkeypatch: Any) -> None:
    """CloudFormation takes a moment: an update that is over in the status is not over in the events."""
    stack = Stack(make_settings(), "foundation", poll_seconds=0.01)
    stack.apply(stack.plan())
    plan = stack.plan(FoundationOptions(noncurrent_days=3))
    begun = threading.Event()

    def execute(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
        begun.set()

    monkeypatch.setattr(models.CloudFormationBackend, "execute_change_set", execute)
    found = stack_of(stack.name, REGION)
    seen: list[str] = []

    def finish() -> None:
        begun.wait(30)
        add_event(found, "UPDATE_IN_PROGRESS")
        while not seen:
            pass
        add_event(found, "UPDATE_COMPLETE", "Bucket", "", "AWS::S3::Bucket")
        add_event(found, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        add_event(found, "UPDATE_COMPLETE")

    service = threading.Thread(target=finish)
    service.start()
    stack.apply(plan, on_event=lambda event: seen.append(event.status))
    service.join()
    assert seen == [
        "UPDATE_IN_PROGRESS",
        "UPDATE_COMPLETE",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_COMPLETE",
    ]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no template 'network'"):
        Stack(Settings(), "network")
