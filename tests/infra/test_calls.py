"""Every call that smkit makes as the caller, against the policy that its own stack gives to callers."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from botocore.awsrequest import AWSResponse
from sklearn.linear_model import LinearRegression

import smkit
from tests.infra.iam import is_allowed
from tests.infra.test_policies import deploy, full_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from smkit import Settings
    from tests.infra.test_policies import Deployed

#: Operation of S3 -> the actions that it takes, where they have other names than it.
S3_ACTIONS = {
    "CompleteMultipartUpload": ("PutObject",),
    "CopyObject": ("GetObject", "PutObject"),
    "CreateMultipartUpload": ("PutObject",),
    "DeleteObjects": ("DeleteObject",),
    "GetPublicAccessBlock": ("GetBucketPublicAccessBlock",),
    "HeadBucket": ("ListBucket",),
    "HeadObject": ("GetObject",),
    "ListMultipartUploads": ("ListBucketMultipartUploads",),
    "ListObjectsV2": ("ListBucket",),
    "UploadPart": ("PutObject",),
    "UploadPartCopy": ("GetObject", "PutObject"),
}
#: Everybody may ask who they are, whatever their policies say.
FREE = frozenset({"sts:GetCallerIdentity"})


class Call(NamedTuple):
    """What IAM decides upon."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


class Recorder:
    """Keeps the calls of settings' clients, by boto3's own events."""

    def __init__(self, settings: Settings, one: Deployed) -> None:
        self._one = one
        self.calls: list[Call] = []
        settings.session().events.register("provide-client-params", self._keep)

    def _keep(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.extend(self._asked(model.service_model.service_name, model.name, params))

    def _asked(self, service: str, operation: str, params: dict[str, Any]) -> Iterable[Call]:
        one = self._one
        if service == "s3":
            yield from self._asked_of_s3(operation, params)
            return
        resource = "*"
        if service == "sagemaker" and "TrainingJobName" in params:
            resource = one.arn("sagemaker", f"training-job/{params['TrainingJobName']}")
        elif service == "iam" and "RoleName" in params:
            role = one.stack.outputs["ExecutionRoleArn"]
            name = params["RoleName"]
            resource = role if role.endswith(f"/{name}") else one.arn("iam", f"role/{name}")
        elif service == "logs":
            resource = one.arn("logs", f"log-group:{params['logGroupName']}:log-stream:")
        elif service == "kms":
            resource = params["KeyId"]
        elif service == "secretsmanager":
            resource = one.arn("secretsmanager", f"secret:{params['SecretId']}-Ab12Cd")
        yield Call(f"{service}:{operation}", resource)

    def _asked_of_s3(self, operation: str, params: dict[str, Any]) -> Iterable[Call]:
        keys = [item["Key"] for item in params.get("Delete", {}).get("Objects", ())] or [params.get("Key")]
        context = (("s3:prefix", params["Prefix"]),) if "Prefix" in params else ()
        for action in S3_ACTIONS.get(operation, (operation,)):
            for key in keys:
                bucket = params["Bucket"]
                resource = self._one.whole(bucket) if key is None else self._one.key(key, bucket)
                yield Call(f"s3:{action}", resource, context)

    def refused(self) -> set[str]:
        """Return the actions that the callers' policy does not allow."""
        return {
            call.action
            for call in self.calls
            if call.action not in FREE
            and not is_allowed([self._one.caller], call.action, call.resource, dict(call.context))
        }

    def actions(self) -> set[str]:
        return {call.action for call in self.calls}


def use_the_store(settings: Settings) -> None:
    """Build, publish, promote, load, prune and collect."""
    key = f"{settings.project}/raw/rows.csv"
    settings.client("s3").put_object(Bucket=settings.bucket, Key=key, Body=b"x,y\n1,2\n3,4\n5,6\n")
    source = smkit.S3Source(f"s3://{settings.bucket}/{settings.project}/raw/", settings=settings)
    dataset = smkit.DatasetBuilder("rows", source, settings).build()
    frame = dataset.read("train")
    model = LinearRegression().fit(frame[["x"]], frame["y"])
    models = smkit.ArtifactStore(settings)
    models.publish("rows", model)
    models.publish("rows", LinearRegression(fit_intercept=False).fit(frame[["x"]], frame["y"]))
    models.promote("rows@2", "production")
    models.load("rows@production", allow_pickle=True)
    models.prune("rows", keep_last=1)
    models.gc(dry_run=False)
    models.fsck()


def answer_as_sagemaker(settings: Settings) -> None:
    """Take every job, and know each that was taken; moto says it in other words than SageMaker."""
    taken: dict[str, Any] = {}

    def reply(status: int, parsed: dict[str, Any]) -> tuple[AWSResponse, dict[str, Any]]:
        return AWSResponse("http://nowhere", status, {}, None), {"ResponseMetadata": {}, **parsed}

    def answer(model: Any, params: dict[str, Any], **_: Any) -> Any:
        asked = json.loads(params["body"])
        if model.name == "CreateTrainingJob":
            taken[asked["TrainingJobName"]] = asked
            return reply(200, {"TrainingJobArn": "arn:aws-cn:sagemaker:cn-northwest-1:123456789012:training-job/j"})
        if model.name == "ListTrainingJobs":
            return reply(200, {"TrainingJobSummaries": []})
        if asked["TrainingJobName"] not in taken:
            message = "Requested resource not found."
            return reply(400, {"Error": {"Code": "ValidationException", "Message": message}})
        now = datetime.now(timezone.utc)
        state = {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting", "CreationTime": now}
        return reply(200, {**taken[asked["TrainingJobName"]], **state, "LastModifiedTime": now})

    settings.client("sagemaker").meta.events.register("before-call.sagemaker", answer)


@pytest.fixture
def full(make_settings: Callable[..., Settings], project: str) -> Deployed:
    settings = full_settings(make_settings, project)
    key = settings.client("kms").create_key()["KeyMetadata"]["Arn"]
    return deploy(settings.model_copy(update={"kms_key": key}))


def as_caller(full: Deployed) -> Settings:
    """Settings as `smkit infra deploy` leaves them, with clients of their own."""
    found = {"bucket": full.bucket, "role": full.stack.outputs["ExecutionRoleArn"], "backend": "sagemaker"}
    old = full.settings
    return smkit.Settings(
        project=old.project,
        region=old.region,
        kms_key=old.kms_key,
        subnets=old.subnets,
        security_groups=old.security_groups,
        postgres=old.postgres,
        **found,
    )


def test_the_caller_may_make_every_call_of_smkit(
    full: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # moto reads no conditions of a bucket's policy, and so denies everything that is not over TLS.
    full.settings.client("s3").delete_bucket_policy(Bucket=full.bucket)
    settings = as_caller(full)
    recorder = Recorder(settings, full)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import json\n", encoding="utf-8")

    smkit.doctor(settings, timeout=20)
    runner = smkit.JobRunner(settings)
    runner.check(runner.spec("train.py"))
    answer_as_sagemaker(settings)
    job = runner.run("train.py", wait=False, check=False)
    job.stop()
    runner.jobs()
    use_the_store(settings)

    assert recorder.actions() >= {
        *("sts:GetCallerIdentity", "iam:GetRole", "kms:DescribeKey", "kms:GenerateDataKey"),
        *("secretsmanager:GetSecretValue", "ec2:DescribeSubnets", "s3:GetBucketPolicy", "s3:GetBucketVersioning"),
        *("s3:GetBucketPublicAccessBlock", "s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:AbortMultipartUpload"),
        *("s3:PutObject", "s3:GetObject", "s3:DeleteObject", "sagemaker:ListTrainingJobs"),
        *("sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob"),
    }
    # Left out on purpose: no variable of IAM says "the role that I am", and callers need not know what others may do.
    assert recorder.refused() == {"iam:SimulatePrincipalPolicy"}
