"""What the deployed roles may do, and what not: the policies as CloudFormation resolves them, judged as IAM judges."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from smkit.aws import partition_of
from smkit.infra import FoundationOptions, Stack, StudioOptions
from smkit.jobs.sagemaker import images
from smkit.project.rendering import render
from smkit.versioning.manifest import record_key
from tests.infra.iam import as_list, is_allowed, is_denied, unsupported_conditions
from tests.infra.moto_cloudformation import ACCOUNT, stack_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit import Settings
    from smkit.infra import StackStatus

Policy = dict[str, Any]

#: Sid -> why its resource is `*`.
ANY_RESOURCE = {
    "WriteMetrics": "CloudWatch has no ARNs for metrics; the namespace is the limit",
    "SignInToRegistries": "ECR takes no other resource",
    "LookAtNetwork": "EC2's Describe actions take no resource",
    "ListJobs": "a list has no resource",
    "ListApps": "a list has no resource",
}


class Deployed(NamedTuple):
    """A foundation, and its policies."""

    settings: Settings
    stack: StackStatus
    execution: Policy
    trust: Policy
    caller: Policy
    bucket_policy: Policy

    @property
    def bucket(self) -> str:
        return self.stack.outputs["BucketName"]

    def arn(self, service: str, resource: str, *, account: str = ACCOUNT) -> str:
        return f"arn:{self.settings.partition}:{service}:{self.settings.region}:{account}:{resource}"

    def key(self, key: str, bucket: str | None = None) -> str:
        return f"arn:{self.settings.partition}:s3:::{bucket or self.bucket}/{key}"

    def whole(self, bucket: str | None = None) -> str:
        return f"arn:{self.settings.partition}:s3:::{bucket or self.bucket}"


def managed_policy(settings: Settings, arn: str) -> Policy:
    iam = settings.client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    found: Policy = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    return found


def deploy(settings: Settings, options: FoundationOptions | None = None) -> Deployed:
    stack = Stack(settings, "foundation", poll_seconds=0)
    status = stack.apply(stack.plan(options))
    iam = settings.client("iam")
    role = iam.get_role(RoleName=status.outputs["ExecutionRoleArn"].rpartition("/")[2])["Role"]
    # moto answers with Python's spelling of the policy.
    inline = ast.literal_eval(
        iam.get_role_policy(RoleName=role["RoleName"], PolicyName="TrainingJobs")["PolicyDocument"]
    )
    policy = settings.client("s3").get_bucket_policy(Bucket=status.outputs["BucketName"])["Policy"]
    return Deployed(
        settings,
        status,
        inline,
        role["AssumeRolePolicyDocument"],
        managed_policy(settings, status.outputs["CallerPolicyArn"]),
        json.loads(policy),
    )


OPTIONS = FoundationOptions(
    read_buckets=("raw-data", "more-data"),
    write_buckets=("scratch-data",),
    break_glass_role=f"arn:aws-cn:iam::{ACCOUNT}:role/smkit-break-glass",
)


def full_settings(make_settings: Callable[..., Settings], project: str, region: str = "cn-northwest-1") -> Settings:
    partition = partition_of(region)
    return make_settings(
        project=project,
        region=region,
        kms_key=f"arn:{partition}:kms:{region}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        subnets=("subnet-0a", "subnet-0b"),
        security_groups=("sg-0a",),
        postgres={"secret_id": "houses/db"},
    )


@pytest.fixture
def bare(make_settings: Callable[..., Settings]) -> Deployed:
    return deploy(make_settings())


@pytest.fixture
def full(make_settings: Callable[..., Settings], project: str) -> Deployed:
    return deploy(full_settings(make_settings, f"{project}-full"), OPTIONS)


def statements(*policies: Policy) -> list[dict[str, Any]]:
    return [statement for policy in policies for statement in policy["Statement"]]


def sids(policy: Policy) -> set[str]:
    return {statement["Sid"] for statement in policy["Statement"]}


def test_only_what_was_asked_for_is_allowed(bare: Deployed, full: Deployed) -> None:
    asked_for = {
        *("ReadBuckets", "ReadAndWriteBuckets", "UseKey", "LendKeyToVolume", "MakeNetworkInterface"),
        *("UseNetworkInterface", "LookAtNetwork", "ReadDatabaseSecret"),
    }
    assert sids(full.execution) - sids(bare.execution) == asked_for
    assert sids(full.caller) - sids(bare.caller) == asked_for & sids(full.caller)
    actions = {action for one in statements(bare.execution, bare.caller) for action in as_list(one["Action"])}
    assert {action.partition(":")[0] for action in actions} == {"s3", "logs", "cloudwatch", "ecr", "sagemaker", "iam"}


def test_no_wildcard_is_wider_than_its_reason(full: Deployed) -> None:
    for statement in statements(full.execution, full.caller):
        assert statement["Effect"] == "Allow"
        for action in as_list(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action), f"{statement['Sid']}: {action} is a pattern"
        for resource in as_list(statement["Resource"]):
            if resource == "*":
                assert statement["Sid"] in ANY_RESOURCE
                continue
            _, partition, service, region, account, what = resource.split(":", 5)
            assert partition == "aws-cn"
            assert what not in {"*", "/*"}, f"{statement['Sid']}: {resource}"
            assert region == ("" if service in {"s3", "iam"} else "cn-northwest-1")
            # Subnets and security groups may be shared by another account; the images are AWS's own.
            if service != "s3" and not what.startswith(("subnet/", "security-group/", "repository/")):
                assert account == ACCOUNT
    metrics = next(one for one in statements(full.execution) if one["Sid"] == "WriteMetrics")
    assert metrics["Condition"]["StringEquals"]["cloudwatch:namespace"] == "/aws/sagemaker/TrainingJobs"


def test_sagemaker_may_take_the_role_for_this_account_only(bare: Deployed) -> None:
    assert bare.trust["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
        }
    ]


def job_needs(one: Deployed) -> list[tuple[str, str, dict[str, str]]]:
    """What SageMaker does for a job of smkit as its role: action, resource, context."""
    root, job = one.settings.project, f"{one.settings.project}/jobs/train-1"
    registry = images.training_image("1.2-1", one.settings.region).partition(".")[0]
    log = one.arn("logs", "log-group:/aws/sagemaker/TrainingJobs")
    needs = [
        ("s3:ListBucket", one.whole(), {"s3:prefix": f"{root}/datasets/houses/data/0a/train"}),
        ("s3:ListBucket", one.whole(), {"s3:prefix": f"{root}/inputs/0123abc"}),
        ("s3:GetObject", one.key(f"{root}/datasets/houses/data/0a/train/part-0.parquet"), {}),
        ("s3:GetObject", one.key(f"{root}/inputs/0123abc/train.csv"), {}),
        # Raw rows as a channel, where the tutorial and a new project have them.
        ("s3:ListBucket", one.whole(), {"s3:prefix": f"{root}/raw/"}),
        ("s3:GetObject", one.key(f"{root}/raw/2026-01.csv"), {}),
        ("s3:GetObject", one.key(f"{job}/source/sourcedir.tar.gz"), {}),
        ("s3:GetObject", one.key(f"{job}/checkpoints/last.npz"), {}),
        ("s3:PutObject", one.key(f"{job}/output/model.tar.gz"), {}),
        ("s3:PutObject", one.key(f"{job}/checkpoints/last.npz"), {}),
        ("s3:AbortMultipartUpload", one.key(f"{job}/output/model.tar.gz"), {}),
        ("logs:CreateLogGroup", log, {}),
        ("logs:CreateLogStream", f"{log}:log-stream:train-1/algo-1-1700000000", {}),
        ("logs:PutLogEvents", f"{log}:log-stream:train-1/algo-1-1700000000", {}),
        ("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "/aws/sagemaker/TrainingJobs"}),
        ("ecr:GetAuthorizationToken", "*", {}),
    ]
    repository = one.arn("ecr", "repository/sagemaker-scikit-learn", account=registry)
    pulls = ("BatchGetImage", "GetDownloadUrlForLayer", "BatchCheckLayerAvailability")
    return needs + [(f"ecr:{action}", repository, {}) for action in pulls]


def asked_for_needs(one: Deployed) -> list[tuple[str, str, dict[str, str]]]:
    """What it does beside, with a key, a VPC, a database and buckets of the user's own."""
    key = one.settings.kms_key or ""
    interface = one.arn("ec2", "network-interface/eni-1")
    subnet = one.arn("ec2", "subnet/subnet-0a", account="999999999999")
    return [
        ("s3:ListBucket", one.whole("raw-data"), {}),
        ("s3:GetObject", one.key("2026/a.csv", "raw-data"), {}),
        ("s3:GetObject", one.key("a.csv", "more-data"), {}),
        ("s3:PutObject", one.key("deep/er/a.csv", "scratch-data"), {}),
        ("kms:Decrypt", key, {}),
        ("kms:GenerateDataKey", key, {}),
        ("kms:CreateGrant", key, {"kms:GrantIsForAWSResource": "true"}),
        ("ec2:CreateNetworkInterface", interface, {}),
        ("ec2:CreateNetworkInterface", subnet, {}),
        ("ec2:CreateNetworkInterface", one.arn("ec2", "security-group/sg-0a"), {}),
        ("ec2:CreateNetworkInterfacePermission", interface, {"ec2:Subnet": subnet}),
        ("ec2:DeleteNetworkInterface", interface, {"ec2:Subnet": subnet}),
        ("ec2:DeleteNetworkInterfacePermission", interface, {}),
        ("ec2:DescribeSubnets", "*", {}),
        ("secretsmanager:GetSecretValue", one.arn("secretsmanager", "secret:houses/db-Ab12Cd"), {}),
    ]


def never(one: Deployed) -> list[tuple[str, str, dict[str, str]]]:
    """What a job must not be able to do, whatever its script tries."""
    root = one.settings.project
    return [
        ("s3:GetObject", one.key(f"{root}2/datasets/a/part-0.parquet"), {}),
        ("s3:GetObject", one.key("other/models/a/model.tar.gz"), {}),
        ("s3:GetObject", one.key(f"{root}/inputs/a.csv", "another-bucket"), {}),
        ("s3:ListBucket", one.whole(), {}),
        ("s3:ListBucket", one.whole(), {"s3:prefix": ""}),
        ("s3:ListBucket", one.whole(), {"s3:prefix": f"{root}2/"}),
        ("s3:ListBucket", one.whole("another-bucket"), {"s3:prefix": f"{root}/"}),
        # A job does not publish, promote or prune.
        ("s3:PutObject", one.key(f"{root}/models/houses/versions/9999999998.json"), {"s3:if-none-match": "*"}),
        ("s3:PutObject", one.key(f"{root}/datasets/houses/data/0a/train/part-0.parquet"), {}),
        ("s3:PutObject", one.key(f"{root}/inputs/0123abc/train.csv"), {}),
        ("s3:DeleteObject", one.key(f"{root}/jobs/train-1/output/model.tar.gz"), {}),
        ("s3:DeleteObjectVersion", one.key(f"{root}/jobs/train-1/output/model.tar.gz"), {}),
        ("s3:PutBucketPolicy", one.whole(), {}),
        ("s3:DeleteBucket", one.whole(), {}),
        ("s3:PutObject", one.key("a.csv", "raw-data"), {}),
        ("s3:DeleteObject", one.key("a.csv", "scratch-data"), {}),
        ("s3:GetObject", one.key("a.csv", "raw-data-2"), {}),
        ("s3:ListAllMyBuckets", "*", {}),
        ("logs:PutLogEvents", one.arn("logs", "log-group:/aws/lambda/f:log-stream:s"), {}),
        ("logs:GetLogEvents", one.arn("logs", "log-group:/aws/sagemaker/TrainingJobs:log-stream:s"), {}),
        ("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Billing"}),
        ("ecr:BatchGetImage", one.arn("ecr", "repository/private-app"), {}),
        ("sagemaker:CreateTrainingJob", one.arn("sagemaker", "training-job/another"), {}),
        ("iam:PassRole", one.stack.outputs["ExecutionRoleArn"], {"iam:PassedToService": "sagemaker.amazonaws.com"}),
        ("sts:AssumeRole", one.arn("iam", "role/admin"), {}),
        ("kms:Decrypt", one.arn("kms", "key/00000000-0000-0000-0000-000000000000"), {}),
        ("kms:CreateGrant", one.settings.kms_key or one.arn("kms", "key/1"), {"kms:GrantIsForAWSResource": "false"}),
        ("kms:PutKeyPolicy", one.settings.kms_key or one.arn("kms", "key/1"), {}),
        ("ec2:CreateNetworkInterface", one.arn("ec2", "subnet/subnet-99"), {}),
        (
            "ec2:DeleteNetworkInterface",
            one.arn("ec2", "network-interface/eni-9"),
            {"ec2:Subnet": one.arn("ec2", "subnet/subnet-99")},
        ),
        ("ec2:RunInstances", "*", {}),
        ("secretsmanager:GetSecretValue", one.arn("secretsmanager", "secret:payroll/db-Ab12Cd"), {}),
        ("secretsmanager:GetSecretValue", one.arn("secretsmanager", "secret:houses/db-2-Ab12Cd"), {}),
    ]


def test_a_job_may_do_what_it_needs(bare: Deployed) -> None:
    policies = [bare.execution, bare.bucket_policy]
    tls = {"aws:SecureTransport": "true"}
    refused = [need for need in job_needs(bare) if not is_allowed(policies, need[0], need[1], need[2] | tls)]
    assert refused == []


@pytest.mark.parametrize("region", ["cn-northwest-1", "us-east-1"])
def test_a_job_with_everything_may_do_what_it_needs(
    make_settings: Callable[..., Settings], project: str, region: str
) -> None:
    options = FoundationOptions(read_buckets=OPTIONS.read_buckets, write_buckets=OPTIONS.write_buckets)
    one = deploy(full_settings(make_settings, project, region), options)
    needs = job_needs(one) + asked_for_needs(one)
    assert [need for need in needs if not is_allowed([one.execution, one.bucket_policy], *need)] == []


def test_a_job_may_do_nothing_else(bare: Deployed, full: Deployed) -> None:
    for one in (bare, full):
        assert [what for what in never(one) if is_allowed([one.execution], *what)] == []
    assert [what for what in asked_for_needs(full) if is_allowed([bare.execution], *what)] == []


def test_the_caller_may_start_watch_and_publish(full: Deployed) -> None:
    root = full.settings.project
    job = full.arn("sagemaker", "training-job/train-1")
    role = full.stack.outputs["ExecutionRoleArn"]
    stream = full.arn("logs", "log-group:/aws/sagemaker/TrainingJobs:log-stream:train-1/algo-1-1")
    record = full.key(f"{root}/models/houses/versions/9999999998.json")
    needs = [
        ("sagemaker:CreateTrainingJob", job, {}),
        ("sagemaker:AddTags", job, {}),
        ("sagemaker:DescribeTrainingJob", job, {}),
        ("sagemaker:StopTrainingJob", job, {}),
        ("sagemaker:ListTrainingJobs", "*", {}),
        ("iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"}),
        ("iam:GetRole", role, {}),
        ("logs:GetLogEvents", stream, {}),
        ("logs:DescribeLogStreams", full.arn("logs", "log-group:/aws/sagemaker/TrainingJobs:log-stream:"), {}),
        ("s3:ListBucket", full.whole(), {"s3:prefix": f"{root}/models/"}),
        # What S3 demands before it says 404 of a missing object, and not 403.
        ("s3:ListBucket", full.whole(), {}),
        ("s3:ListBucketMultipartUploads", full.whole(), {}),
        ("s3:PutObject", record, {"s3:if-none-match": "*"}),
        ("s3:GetObject", record, {}),
        # Prune deletes the files of a version, not its record.
        ("s3:DeleteObject", full.key(f"{root}/models/houses/data/0a/model.tar.gz"), {}),
        ("s3:AbortMultipartUpload", full.key(f"{root}/jobs/.check-0a"), {}),
        ("kms:GenerateDataKey", full.settings.kms_key or "", {}),
        ("kms:DescribeKey", full.settings.kms_key or "", {}),
        ("ec2:DescribeRouteTables", "*", {}),
        ("secretsmanager:GetSecretValue", full.arn("secretsmanager", "secret:houses/db-Ab12Cd"), {}),
        ("s3:GetObject", full.key("a.csv", "raw-data"), {}),
    ]
    assert [need for need in needs if not is_allowed([full.caller, full.bucket_policy], *need)] == []


def rows_in_the_bucket() -> dict[str, list[str]]:
    """Where the tutorials and a new project keep their raw rows: file -> keys, as they write them."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    texts = {
        "tutorial.md": (docs / "tutorial.md").read_text(encoding="utf-8"),
        "zh/tutorial.md": (docs / "zh" / "tutorial.md").read_text(encoding="utf-8"),
        "dataset.py": render(project="houses", region="cn-northwest-1", source="s3")["dataset.py"].decode(),
    }
    # Key=f"..." of a put, s3://{bucket}/... and s3://BUCKET/... of a source.
    written = re.compile(r'Key=f?"([^"]+)"|s3://(?:\{(?:\w+\.)?bucket\}|BUCKET)/([^"\s]+)')
    return {name: [first or second for first, second in written.findall(text)] for name, text in texts.items()}


def test_the_caller_may_keep_raw_rows_where_the_tutorial_has_them(bare: Deployed) -> None:
    found = rows_in_the_bucket()
    assert {name: len(keys) for name, keys in found.items()} == {"tutorial.md": 4, "zh/tutorial.md": 4, "dataset.py": 2}
    refused = []
    for name, keys in found.items():
        for pattern in keys:
            key = re.sub(r"\{(\w+\.)?project\}|houses(?=/raw/)", bare.settings.project, pattern)
            whole = key + "rows.csv" if key.endswith("/") else key
            asked = [("s3:ListBucket", bare.whole(), {"s3:prefix": key})]
            asked += [(action, bare.key(whole), {}) for action in ("s3:PutObject", "s3:GetObject")]
            refused += [(name, *what) for what in asked if not is_allowed([bare.caller, bare.bucket_policy], *what)]
    assert refused == []


def test_the_caller_may_not_borrow_rights_or_leave_the_project(full: Deployed) -> None:
    root = full.settings.project
    role = full.stack.outputs["ExecutionRoleArn"]
    refused = [
        ("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}),
        ("iam:PassRole", role, {}),
        ("iam:PassRole", full.arn("iam", "role/admin"), {"iam:PassedToService": "sagemaker.amazonaws.com"}),
        ("sts:AssumeRole", role, {}),
        ("iam:PutRolePolicy", role, {}),
        ("sagemaker:CreateNotebookInstance", full.arn("sagemaker", "notebook-instance/n"), {}),
        ("sagemaker:CreateEndpoint", full.arn("sagemaker", "endpoint/e"), {}),
        ("cloudformation:UpdateStack", full.stack.stack_id, {}),
        ("s3:GetObject", full.key("other/a.csv"), {}),
        ("s3:ListBucket", full.whole(), {"s3:prefix": "other/"}),
        ("s3:ListBucket", full.whole(), {"s3:prefix": ""}),
        ("s3:DeleteObjectVersion", full.key(f"{root}/models/houses/data/0a/model.tar.gz"), {}),
        ("s3:PutBucketPolicy", full.whole(), {}),
        ("s3:PutBucketVersioning", full.whole(), {}),
        ("s3:PutObject", full.key("a.csv", "raw-data"), {}),
    ]
    assert [what for what in refused if is_allowed([full.caller], *what)] == []
    passing = [one for one in statements(full.caller) if "iam:PassRole" in as_list(one["Action"])]
    assert [one["Resource"] for one in passing] == [role]


def test_nobody_deletes_or_overwrites_a_record(bare: Deployed, full: Deployed) -> None:
    for one in (bare, full):
        root = one.settings.project
        for record in (
            f"{root}/models/houses/versions/9999999998.json",
            f"{root}/datasets/houses/versions/9999999998.json",
            f"{root}/models/houses/aliases/production/9999999998.json",
            f"{root}/models/houses/tombstones/9999999998.json",
            # The millionth.
            record_key(f"{root}/datasets/houses/versions", 10**6),
            record_key(f"{root}/models/houses/aliases/production", 10**6),
        ):
            for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"):
                assert is_denied([one.bucket_policy], action, one.key(record))
            assert not is_denied([one.bucket_policy], "s3:PutObject", one.key(record), {"s3:if-none-match": "*"})
        # What is no record, though a pattern with ten question marks would take it for one.
        for file in ("versions/tokenizers.json", "a/aliases/b/parameters.json", "tombstones/2026-01-01.json"):
            key = one.key(f"{root}/models/houses/data/0a/{file}")
            for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"):
                assert not is_denied([one.bucket_policy], action, key)
        data = one.key(f"{root}/models/houses/data/0a/model.tar.gz")
        assert not is_denied([one.bucket_policy], "s3:DeleteObject", data)
        assert is_denied([one.bucket_policy], "s3:GetObject", data, {"aws:SecureTransport": "false"})
        assert not is_denied([one.bucket_policy], "s3:GetObject", data, {"aws:SecureTransport": "true"})
    record = full.key(f"{full.settings.project}/models/houses/versions/9999999998.json")
    break_glass = {"aws:PrincipalArn": f"arn:aws-cn:iam::{ACCOUNT}:role/smkit-break-glass"}
    assert not is_denied([full.bucket_policy], "s3:DeleteObject", record, break_glass)
    assert is_denied([full.bucket_policy], "s3:DeleteObject", record, {"aws:PrincipalArn": f"{ACCOUNT}:role/admin"})
    assert is_denied([bare.bucket_policy], "s3:DeleteObject", record.replace(full.bucket, bare.bucket), break_glass)


def test_no_condition_is_on_a_key_that_its_action_does_not_have(bare: Deployed, full: Deployed) -> None:
    studio_policy, _ = studio(full)
    policies = [one for stack in (bare, full) for one in (stack.execution, stack.caller, stack.bucket_policy)]
    assert [found for policy in (*policies, studio_policy) for found in unsupported_conditions(policy)] == []


def test_the_policies_fit_into_iam(full: Deployed) -> None:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    assert len(json.dumps(full.execution, separators=(",", ":"))) < 10_240
    assert len(json.dumps(full.caller, separators=(",", ":"))) < 6_144


def explained() -> set[str]:
    """The statements that the page has in the first column of a table."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "infrastructure.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[A-Za-z`, ]+`) \|", page, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"[A-Za-z]+", cell)}


def test_every_statement_is_explained(full: Deployed) -> None:
    assert sids(full.execution) | sids(full.caller) | sids(full.bucket_policy) <= explained()


def studio(full: Deployed) -> tuple[Policy, list[str]]:
    ec2 = full.settings.client("ec2")
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    settings = full.settings.model_copy(update={"subnets": [subnet]})
    stack = Stack(settings, "studio", poll_seconds=0)
    stack.apply(stack.plan(StudioOptions(users=("anna", "bo"))))
    deployed = stack_of(stack.name, settings.region)
    domain = next(one for one in deployed.stack_resources if one.cf_resource_type == "AWS::SageMaker::Domain")
    assert domain.properties["SubnetIds"] == [subnet]
    assert domain.properties["VpcId"] == network
    assert domain.properties["KmsKeyId"] == settings.kms_key
    policy = next(one for one in stack.resources() if one.logical_id == "StudioPolicy")
    users = [one.physical_id for one in stack.resources() if one.type == "AWS::SageMaker::UserProfile"]
    return managed_policy(settings, policy.physical_id), users


def test_a_user_of_studio_has_their_own_apps_and_spaces(full: Deployed) -> None:
    policy, users = studio(full)
    assert sorted(users) == ["anna", "bo"]
    profile = full.arn("sagemaker", "user-profile/d-studio/anna")
    anna = {"sagemaker:UserProfileName": "anna"}
    mine = anna | {"sagemaker:OwnerUserProfileArn": profile}
    theirs = anna | {"sagemaker:OwnerUserProfileArn": profile.replace("anna", "bo")}
    app, space = full.arn("sagemaker", "app/d-studio/s/JupyterLab/default"), full.arn("sagemaker", "space/d-studio/s")
    for action, resource in (("CreateApp", app), ("DeleteApp", app), ("CreateSpace", space), ("DeleteSpace", space)):
        assert is_allowed([policy], f"sagemaker:{action}", resource, mine)
        assert not is_allowed([policy], f"sagemaker:{action}", resource, theirs)
        assert not is_allowed([policy], f"sagemaker:{action}", resource.replace("d-studio", "d-other"), mine)
    # Nobody is told whose it is when an app or a space is described.
    for action, resource in (("DescribeApp", app), ("DescribeSpace", space)):
        assert is_allowed([policy], f"sagemaker:{action}", resource, anna)
        assert not is_allowed([policy], f"sagemaker:{action}", resource.replace("d-studio", "d-other"), anna)
    classic = full.arn("sagemaker", "app/d-studio/anna/KernelGateway/default")
    assert is_allowed([policy], "sagemaker:CreateApp", classic, anna)
    assert not is_allowed([policy], "sagemaker:CreateApp", classic.replace("anna", "bo"), anna)
    assert not is_allowed([policy], "sagemaker:CreatePresignedDomainUrl", profile, anna)
    assert not is_allowed([policy], "iam:PassRole", full.stack.outputs["ExecutionRoleArn"], anna)
    assert is_allowed([policy], "sagemaker:AddTags", app, {"sagemaker:TaggingAction": "CreateApp"})
    assert not is_allowed([policy], "sagemaker:AddTags", app)
    for statement in statements(policy):
        assert statement["Resource"] != "*" or statement["Sid"] in ANY_RESOURCE
    assert sids(policy) <= explained()
