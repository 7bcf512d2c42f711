"""What the check asks of an account: a real one over HTTP, moto's behind the sandbox's SageMaker."""

from __future__ import annotations

import functools
import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.loaders import Loader

from smkit.config import Settings
from smkit.jobs.checks import CheckReport, check_job
from smkit.jobs.checks.calls import run_together
from smkit.jobs.checks.network import _has_way_out, _table_of
from smkit.jobs.checks.report import warning
from smkit.jobs.staging import stage
from smkit.testing import Sandbox, sandbox
from tests.jobs.checking import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REGION = "cn-northwest-1"


@pytest.fixture(scope="module")
def shared_box() -> Iterator[Sandbox]:
    with sandbox(region=REGION, set_environment=False) as running:
        yield running


@pytest.fixture(scope="module")
def shared_clients(shared_box: Sandbox) -> Callable[[str], Any]:
    return functools.cache(shared_box.client)


class Account:
    """Settings of the sandbox, and ways to change what its services answer."""

    #: Reading the descriptions of the services again for each test would take longer than the tests.
    loader = Loader()

    def __init__(self, box: Sandbox, client: Callable[[str], Any], project: Project) -> None:
        self.box = box
        self.client = client
        self.project = project
        self.settings = Settings(region=REGION, role=box.role, bucket=box.bucket, backend="sagemaker")
        self._share_descriptions()

    def use(self, **values: Any) -> Account:
        self.settings = self.settings.model_copy(update=values)
        if self.settings.profile is None:
            self._share_descriptions()
        return self

    def _share_descriptions(self) -> None:
        self.settings.session()._session.register_component("data_loader", self.loader)

    def answer(self, service: str, operation: str, code: str, status: int = 403, message: str = "made up") -> None:
        """Let a service answer every call of an operation with an error, as botocore would have read it."""
        error = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
        }
        reply = (AWSResponse("http://nowhere", status, {}, None), error)
        self.settings.client(service).meta.events.register(f"before-call.{service}.{operation}", lambda **_: reply)

    def check(self, *, seconds: float = 30, **values: Any) -> CheckReport:
        values.setdefault("name", f"job-{uuid.uuid4().hex[:8]}")
        spec = self.project.spec(settings=self.settings, region=REGION, **values)
        return check_job(spec, self.settings, stage(spec), seconds=seconds)

    def found(self, **values: Any) -> list[str]:
        """`level subject` of each finding but the one about this machine's scikit-learn."""
        report = self.check(**values)
        return [f"{item.level} {item.subject}" for item in report if item.subject != "scikit-learn"]

    def only(self, **values: Any) -> str:
        (found,) = [item for item in self.check(**values) if item.subject != "scikit-learn"]
        return f"{found.level} {found}"


@pytest.fixture
def account(
    shared_box: Sandbox, shared_clients: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Account:
    for name, value in shared_box.environment.items():
        monkeypatch.setenv(name, value)
    shared_box.recover()
    return Account(shared_box, shared_clients, Project(tmp_path).write("train.py", "import json\n"))


def test_nothing_is_found_where_all_is_well(account: Account) -> None:
    account.client("s3").put_object(Bucket=account.box.bucket, Key="data/a.csv", Body=b"a\n1\n")
    assert account.found(inputs={"train": f"s3://{account.box.bucket}/data/"}) == []


def test_a_check_leaves_nothing_behind(account: Account) -> None:
    s3 = account.client("s3")
    before = s3.list_objects_v2(Bucket=account.box.bucket).get("KeyCount")
    account.check()
    assert s3.list_objects_v2(Bucket=account.box.bucket).get("KeyCount") == before
    assert s3.list_multipart_uploads(Bucket=account.box.bucket).get("Uploads", []) == []


# --- credentials -------------------------------------------------------------------------------------------------


def test_without_credentials_nothing_else_is_asked(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert account.only().startswith("problem credentials: cannot sign in: no AWS credentials found")


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch"])
def test_credentials_that_do_not_work(account: Account, code: str) -> None:
    account.answer("sts", "GetCallerIdentity", code)
    assert account.only().startswith(f"problem credentials: cannot sign in: {code}")


def test_an_unknown_profile(account: Account) -> None:
    account.use(profile="nobody")
    assert account.only().startswith("problem credentials: the AWS profile 'nobody' does not exist")


def test_a_service_that_is_out_of_reach_is_no_problem_of_the_job(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    found = account.only(seconds=2)
    assert found.startswith("unknown account: ")


def test_credentials_of_another_partition(account: Account) -> None:
    reply = (
        AWSResponse("http://nowhere", 200, {}, None),
        {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/x", "ResponseMetadata": {}},
    )
    account.settings.client("sts").meta.events.register("before-call.sts.GetCallerIdentity", lambda **_: reply)
    assert account.only().startswith("problem credentials: the credentials are of partition aws, region")


# --- role ----------------------------------------------------------------------------------------------------------


def trust(principal: Any, action: Any = "sts:AssumeRole", effect: str = "Allow") -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": effect, "Principal": principal, "Action": action}}
    )


@pytest.mark.parametrize(
    ("policy", "is_trusted"),
    [
        (trust({"Service": "sagemaker.amazonaws.com"}), True),
        (
            trust({"Service": ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]}, ["sts:AssumeRole", "sts:TagSession"]),
            True,
        ),
        (trust({"Service": "ec2.amazonaws.com"}), False),
        (trust({"AWS": "arn:aws-cn:iam::123456789012:root"}), False),
        (trust({"Service": "sagemaker.amazonaws.com"}, effect="Deny"), False),
        (trust({"Service": "sagemaker.amazonaws.com"}, "sts:Assume*"), True),
        (trust({"Service": "sagemaker.amazonaws.com"}, "sts:TagSession"), False),
    ],
)
def test_the_trust_policy(account: Account, policy: str, is_trusted: bool) -> None:
    name = f"role-{uuid.uuid4().hex[:8]}"
    account.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy)
    found = account.use(role=name).found()
    assert found == ([] if is_trusted else ["problem role"])


def test_a_role_in_a_path_is_found_by_its_last_part(account: Account) -> None:
    iam = account.client("iam")
    name = f"role-{uuid.uuid4().hex[:8]}"
    policy = trust({"Service": "sagemaker.amazonaws.com"})
    arn = iam.create_role(RoleName=name, Path="/a/b/", AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    assert arn.endswith(f"/a/b/{name}")
    assert account.use(role=arn).found() == []


def test_roles_that_cannot_be_used(account: Account) -> None:
    account.use(role="no-such-role")
    assert account.only().startswith("problem role: there is no role 'no-such-role' in account 123456789012")
    account.use(role="arn:aws-cn:iam::210987654321:role/x")
    assert "is of account 210987654321, the credentials are of 123456789012" in account.only()
    account.use(role=None)
    assert account.only().startswith("problem role: no execution role is set")


# --- what may not be asked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "operation", "code", "subject"),
    [
        ("iam", "GetRole", "AccessDenied", "role"),
        ("s3", "HeadBucket", "403", "bucket"),
        ("sagemaker", "DescribeTrainingJob", "AccessDeniedException", "job_name"),
        ("kms", "DescribeKey", "AccessDeniedException", "kms_key"),
        ("ec2", "DescribeSubnets", "UnauthorizedOperation", "network"),
        ("s3", "ListObjectsV2", "AccessDenied", "input 'train'"),
        ("ecr", "DescribeImages", "AccessDeniedException", "image_uri"),
    ],
)
def test_what_may_not_be_asked_is_unknown(
    account: Account, service: str, operation: str, code: str, subject: str
) -> None:
    s3 = account.client("s3")
    s3.put_object(Bucket=account.box.bucket, Key="data/a.csv", Body=b"a\n1\n")
    values: dict[str, Any] = {"inputs": {"train": f"s3://{account.box.bucket}/data/"}}
    if service == "kms":
        key = account.client("kms").create_key()["KeyMetadata"]["KeyId"]
        values["sagemaker"] = {"kms_key": key}
    elif service == "ec2":
        values["sagemaker"] = {"subnets": ["subnet-1"], "security_groups": ["sg-1"]}
    elif service == "ecr":
        values["sagemaker"] = {"image_uri": f"123456789012.dkr.ecr.{REGION}.amazonaws.com.cn/own:1"}
    account.answer(service, operation, code)
    report = account.check(**values)
    assert report.ok
    (found,) = [item for item in report.unknown if item.subject == subject and "imports" not in item.what]
    assert f"the caller may not ask ({operation}: {code})" in found.what


def test_a_denied_sts_leaves_the_account_unknown(account: Account) -> None:
    account.answer("sts", "GetCallerIdentity", "AccessDenied")
    assert account.only().startswith("unknown account: nothing in the account was checked")


# --- bucket and key ------------------------------------------------------------------------------------------------


def test_a_bucket_that_does_not_exist(account: Account) -> None:
    account.use(bucket=f"no-such-{uuid.uuid4().hex[:8]}")
    assert account.only().startswith("problem bucket: the bucket 'no-such-")


def test_a_bucket_that_may_not_be_written(account: Account) -> None:
    account.answer("s3", "CreateMultipartUpload", "AccessDenied")
    found = account.only()
    assert found.startswith(f"problem bucket: cannot write to s3://{account.box.bucket}/smkit/jobs: AccessDenied")
    assert f"allow s3:PutObject on arn:aws-cn:s3:::{account.box.bucket}/smkit/jobs/* to the caller" in found


def test_a_bucket_whose_key_is_disabled(account: Account) -> None:
    account.answer("s3", "CreateMultipartUpload", "KMS.DisabledException", 400)
    found = account.only()
    assert found.startswith("problem bucket: cannot write to")
    assert "the KMS key is disabled" in found
    assert "s3:PutObject" not in found


def test_a_bucket_of_somebody_else_is_not_written_to(account: Account) -> None:
    calls: list[str] = []

    def answer(model: Any, params: dict[str, Any], **_: Any) -> Any:
        calls.append(model.name)
        if "x-amz-expected-bucket-owner" not in {name.lower() for name in params["headers"]}:
            return None
        error = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": {}}}
        return AWSResponse("http://nowhere", 403, {}, None), error

    account.settings.client("s3").meta.events.register("before-call.s3", answer)
    found = account.only()
    assert found.startswith(f"problem bucket: the bucket {account.box.bucket!r} belongs to another account than ")
    assert account.box.account in found
    assert "CreateMultipartUpload" not in calls


def test_an_upload_is_begun_in_a_bucket_of_the_account_only(account: Account) -> None:
    owners: dict[str, Any] = {}

    def keep(model: Any, params: dict[str, Any], **_: Any) -> None:
        owners[model.name] = params.get("ExpectedBucketOwner")

    for name in ("CreateMultipartUpload", "AbortMultipartUpload"):
        account.settings.client("s3").meta.events.register(f"provide-client-params.s3.{name}", keep)
    assert account.found() == []
    assert owners == dict.fromkeys(("CreateMultipartUpload", "AbortMultipartUpload"), account.box.account)


def test_an_upload_that_may_not_be_aborted_is_said(account: Account) -> None:
    account.answer("s3", "AbortMultipartUpload", "AccessDenied")
    assert account.only().startswith("warning bucket: an empty upload of the key 'smkit/jobs/.check-")


def test_a_bucket_in_another_region(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        parsed["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] = "cn-north-1"

    account.settings.client("s3").meta.events.register("after-call.s3.HeadBucket", elsewhere)
    account.client("s3").put_object(Bucket=account.box.bucket, Key="data/a.csv", Body=b"a\n1\n")
    report = account.check(inputs={"train": f"s3://{account.box.bucket}/data/"})
    assert [item.subject for item in report.problems] == ["bucket", "input 'train'"]
    assert all("is in cn-north-1" in item.what for item in report.problems)


def test_keys(account: Account) -> None:
    kms = account.client("kms")
    good = kms.create_key()["KeyMetadata"]["Arn"]
    assert account.found(sagemaker={"kms_key": good}) == []
    off = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=off)
    assert "is Disabled; enable it" in account.only(sagemaker={"kms_key": off})
    gone = "11111111-2222-3333-4444-555555555555"
    assert f"there is no key {gone!r}" in account.only(sagemaker={"kms_key": gone})
    rsa = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    assert "is asymmetric (RSA_2048)" in account.only(sagemaker={"kms_key": rsa})


# --- network -------------------------------------------------------------------------------------------------------


def make_network(account: Account) -> tuple[str, str, str]:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName=f"g-{uuid.uuid4().hex[:6]}", Description="g", VpcId=vpc)["GroupId"]
    return vpc, subnet, group


def test_networks(account: Account) -> None:
    ec2 = account.client("ec2")
    vpc, subnet, group = make_network(account)
    closed = account.only(sagemaker={"subnets": [subnet], "security_groups": [group]})
    assert closed.startswith(f"warning network: {subnet} has no route to an S3 endpoint or a NAT gateway")

    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    service = f"cn.com.amazonaws.{REGION}.s3"
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=service, RouteTableIds=[table], VpcEndpointType="Gateway")
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway)
    assert account.found(sagemaker={"subnets": [subnet], "security_groups": [group]}) == []

    _, other, _ = make_network(account)
    assert "lie in several networks" in account.only(sagemaker={"subnets": [subnet, other], "security_groups": [group]})
    gone = account.only(sagemaker={"subnets": ["subnet-0123456789abcdef0"], "security_groups": [group]})
    assert gone.startswith("problem network: The subnet ID 'subnet-0123456789abcdef0' does not exist")
    account.use(subnets=[subnet], security_groups=["sg-0123456789abcdef0"])
    assert account.only().startswith("problem network: The security group")


def test_a_subnet_without_a_table_of_its_own_has_the_main_one() -> None:
    main = {"Associations": [{"Main": True}], "Routes": [{"GatewayId": "vpce-1"}]}
    own = {"Associations": [{"SubnetId": "subnet-1"}], "Routes": [{"GatewayId": "igw-1"}, {"GatewayId": "local"}]}
    assert _table_of("subnet-1", [main, own]) == own
    assert _table_of("subnet-2", [own, main]) == main
    assert _has_way_out(main)
    assert not _has_way_out(own)
    assert not _has_way_out({})


# --- the job itself ------------------------------------------------------------------------------------------------


def test_a_name_that_is_taken(account: Account) -> None:
    name = f"job-{uuid.uuid4().hex[:8]}"
    account.answer("sagemaker", "DescribeTrainingJob", "ValidationException", 400, "Requested resource not found.")
    assert account.found(name=name) == []
    other = Account(account.box, account.client, account.project)
    described = {"TrainingJobName": name, "ResponseMetadata": {}}
    reply = (AWSResponse("http://nowhere", 200, {}, None), described)
    other.settings.client("sagemaker").meta.events.register(
        "before-call.sagemaker.DescribeTrainingJob", lambda **_: reply
    )
    assert other.only(name=name).startswith(f"problem job_name: a training job {name!r} exists in {REGION}")


def test_images(account: Account) -> None:
    assert account.only(framework_version="1.4-2").startswith(
        "warning framework_version: '1.4-2' has an image for training"
    )
    assert "problem framework_version" in account.found(framework_version="9.9-9")
    ecr = account.client("ecr")
    registry = f"123456789012.dkr.ecr.{REGION}.amazonaws.com.cn"
    uri = f"{registry}/own:missing"
    assert f"there is no image {uri!r}" in str(account.check(sagemaker={"image_uri": uri}).problems)
    ecr.create_repository(repositoryName="own")
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"digest": "sha256:" + "0" * 64},
            "layers": [],
        }
    )
    ecr.put_image(repositoryName="own", imageManifest=manifest, imageTag="1")
    assert account.check(sagemaker={"image_uri": f"{registry}/own:1"}).ok
    foreign = account.check(sagemaker={"image_uri": f"210987654321.dkr.ecr.{REGION}.amazonaws.com.cn/own:1"})
    assert foreign.ok
    assert "in another registry than the account's own" in str(foreign)


def test_an_instance_that_boto3_does_not_know(account: Account) -> None:
    found = account.only(instance_type="ml.m5.lage")
    assert found.startswith(
        "warning instance_type: boto3 knows no instance 'ml.m5.lage' for training; did you mean 'ml.m5.large'?"
    )


# --- inputs --------------------------------------------------------------------------------------------------------


def test_inputs_in_s3(account: Account) -> None:
    bucket = account.box.bucket
    s3 = account.client("s3")
    for key in ("in/part/a.csv", "in/part2/b.csv", "in/file.csv", "folder/"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"a\n1\n" if not key.endswith("/") else b"")
    assert account.found(inputs={"a": f"s3://{bucket}/in/", "b": f"s3://{bucket}/in/part"}) == []
    assert f"no object's key starts with s3://{bucket}/none" in account.only(inputs={"a": f"s3://{bucket}/none"})
    assert account.found(inputs={"a": f"s3://{bucket}/folder/"}) == ["problem input 'a'"]
    nowhere = f"s3://no-such-{uuid.uuid4().hex[:8]}/x"
    assert "does not exist in partition aws-cn" in account.only(inputs={"a": nowhere})

    fast = {"input_mode": "FastFile"}
    for suffix, fine in {"in/": True, "in/part/": True, "in/file.csv": True, "in/part": False, "in/fil": False}.items():
        found = account.found(inputs={"a": f"s3://{bucket}/{suffix}"}, sagemaker=fast)
        assert found == ([] if fine else ["problem input 'a'"]), suffix


# --- requirements there ------------------------------------------------------------------------------------------


def test_pip_in_china_wants_a_mirror(account: Account) -> None:
    account.project.write("requirements.txt", "xgboost\n")
    assert "set pip_index_url (SMKIT_PIP_INDEX_URL) to a mirror" in account.only()
    assert account.found(environment={"PIP_INDEX_URL": "https://mirror.example.com/simple"}) == []
    assert account.found(sagemaker={"network_isolation": True}) == ["problem requirements.txt"]
    account.project.write("requirements.txt", "-i https://mirror.example.com/simple\nxgboost\n")
    assert account.found() == []


def test_all_problems_are_in_one_list(account: Account) -> None:
    account.use(role=None, max_instance_hours=1)
    account.project.write("train.py", "import xgboost\n").write("requirements.txt", "-e ../lib\n")
    found = account.found(
        inputs={"a": f"s3://{account.box.bucket}/none", "b": "/no/such/file"}, instance_type="ml.p3.2xlarge"
    )
    assert found == [
        "problem max_instance_hours",
        "problem train.py:1",
        "problem requirements.txt:1",
        "problem input 'b'",
        "problem role",
        "problem input 'a'",
        "warning instance_type",
    ]


# --- side by side --------------------------------------------------------------------------------------------------


def test_questions_are_asked_together_and_not_for_ever() -> None:
    held = threading.Event()

    def slow() -> list[Any]:
        held.wait(30)
        return []

    start = time.monotonic()
    findings = run_together({"a": lambda: [warning("a", "x")], "b": slow, "c": lambda: [warning("c", "y")]}, 0.2)
    assert time.monotonic() - start < 5
    assert [str(item) for item in findings] == [
        "a: x",
        "b: no answer within 0.2 s; check the network, or try again",
        "c: y",
    ]
    held.set()


def test_a_mistake_of_the_check_itself_is_not_swallowed() -> None:
    def broken() -> list[Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_together({"a": broken}, 5)
