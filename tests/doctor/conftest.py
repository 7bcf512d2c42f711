"""An account that has all that smkit needs, behind a server that can be told to answer otherwise."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import boto3
import pytest

import smkit
from tests.doctor.front import Answer, Front, json_error, simulated
from tests.fixtures_s3 import REGION

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
ACCOUNT = "123456789012"
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def front(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """The server, with what moto lacks: KMS's dry run and IAM's simulator."""
    with Front(aws_env) as front:
        front.answer("iam:SimulatePrincipalPolicy", simulated("allowed"))
        front.answer("kms:GenerateDataKey", json_error(400, "DryRunOperationException"))
        # moto takes a request without a signature for one to S3 that lists all buckets.
        front.answer("-:HEAD /", Answer(403))
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        yield front


def client(service: str, url: str, region: str = REGION) -> Any:
    return boto3.client(service, endpoint_url=url, region_name=region)


@pytest.fixture
def settings(front: Front, aws_env: str, bucket: str) -> smkit.Settings:
    """Of an account in which everything is as it should be."""
    s3, iam, kms = (client(service, aws_env) for service in ("s3", "iam", "kms"))
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(BLOCKS, True))
    role = f"Train-{uuid.uuid4().hex[:8]}"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(_TRUST))
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    for made in (s3, iam, kms):
        made.close()
    return smkit.Settings(bucket=bucket, project="houses", role=role, backend="sagemaker", kms_key=key)
