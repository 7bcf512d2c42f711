"""What the doctor says of an AWS account, sound and unsound."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

import smkit
from smkit.diagnosis.buckets import PROBE
from smkit.storage import s3 as s3_store
from tests.doctor.conftest import ACCOUNT, BLOCKS, client
from tests.doctor.front import Answer, Front, json_error, query_error, s3_error, simulated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Without the search for interpreters, which takes as long as all the rest.
AWS_CHECKS = {"identity", "sagemaker", "role", "pass-role", "bucket", "bucket-read", "bucket-write", "kms"}


def examine(settings: smkit.Settings, *checks: str, **options: Any) -> smkit.diagnosis.DoctorReport:
    return smkit.doctor(settings, checks=checks or None, **{"timeout": 20, **options})


# --- a sound account ---------------------------------------------------------------------------------------------


def test_a_sound_account_has_no_problem(settings: smkit.Settings, front: Front) -> None:
    report = examine(settings)
    assert report.problems == ()
    assert report.untold == ()
    assert {result.id for result in report if result.outcome == "skipped"} == {"root", "secret", "postgres"}
    assert f"in account {ACCOUNT}" in report["identity"].finding
    assert f"owned by account {ACCOUNT}" in report["bucket"].finding
    assert "refused the second time" in report["bucket-write"].finding
    report.raise_for_problems()
    assert report.ok


def test_all_that_is_left_in_the_bucket_is_the_stores_own_probe(
    settings: smkit.Settings, bucket: str, aws_env: str
) -> None:
    assert PROBE == s3_store._PROBE
    for _ in range(2):
        assert examine(settings, "bucket-write")["bucket-write"].ok
    s3 = client("s3", aws_env)
    assert [(item["Key"], item["Size"]) for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [
        (f"houses/{PROBE}", 0)
    ]
    s3.close()


def test_without_write_nothing_is_written(settings: smkit.Settings, front: Front, bucket: str) -> None:
    report = examine(settings, *AWS_CHECKS, write=False)
    assert report["bucket-write"].outcome == "skipped"
    assert report["bucket-read"].ok
    assert [name for name in front.names() if name.startswith(("s3:PUT", "s3:POST", "s3:DELETE"))] == []


def test_the_settings_own_clients_are_left_alone(settings: smkit.Settings) -> None:
    assert examine(settings, "sagemaker")["sagemaker"].ok
    assert settings.client("sagemaker").meta.config.retries["total_max_attempts"] == 6


# --- credentials -------------------------------------------------------------------------------------------------


def test_no_credentials_are_told_once(settings: smkit.Settings, monkeypatch: pytest.MonkeyPatch, front: Front) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    report = examine(settings, *AWS_CHECKS)
    assert [result.id for result in report.problems] == ["credentials"]
    assert "no AWS credentials found" in report["credentials"].finding
    assert "SMKIT_PROFILE" in report["credentials"].fix
    for name in AWS_CHECKS:
        assert report[name].outcome == "skipped"
        assert "credentials" in report[name].finding or "bucket" in report[name].finding
    # The network was asked all the same; nothing signed was sent.
    assert report["reach-s3"].ok
    assert set(front.names()) == {"-:HEAD /"}


@pytest.mark.parametrize(
    ("code", "finding", "fix"),
    [
        ("ExpiredToken", "the session has expired", "sign in again"),
        ("InvalidClientTokenId", "does not know the access key in partition aws-cn", "SMKIT_PROFILE"),
        ("RequestTimeTooSkewed", "refuses the signature for its time", "clock"),
    ],
)
def test_refused_credentials_are_told_once(
    settings: smkit.Settings, front: Front, code: str, finding: str, fix: str
) -> None:
    front.answer("sts:GetCallerIdentity", query_error(403, code))
    report = examine(settings, *AWS_CHECKS)
    assert [result.id for result in report.problems] == ["identity"]
    assert finding in report["identity"].finding
    assert fix in report["identity"].fix
    assert {report[name].outcome for name in AWS_CHECKS - {"identity"}} == {"skipped"}
    assert report["bucket"].finding == "needs identity"


def test_credentials_of_another_partition(settings: smkit.Settings, front: Front) -> None:
    front.answer(
        "sts:GetCallerIdentity",
        Answer(
            200,
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/me</Arn>"
            "<UserId>x</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
        ),
    )
    report = examine(settings, *AWS_CHECKS)
    assert [result.id for result in report.problems] == ["identity"]
    assert "is of partition aws, region cn-northwest-1 is of aws-cn" in report["identity"].finding


def test_a_profile_that_does_not_exist(
    settings: smkit.Settings, front: Front, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "config").write_text("[profile china]\nregion = cn-north-1\n", encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    report = examine(settings.model_copy(update={"profile": "chyna"}), *AWS_CHECKS)
    assert [result.id for result in report.problems] == ["profile"]
    assert "known profiles: china" in report["profile"].fix
    assert report["reach-sts"].outcome == "skipped"
    assert front.calls == []


# --- role --------------------------------------------------------------------------------------------------------


@pytest.fixture
def iam(aws_env: str) -> Iterator[Any]:
    made = client("iam", aws_env)
    yield made
    made.close()


def test_a_role_that_is_missing(settings: smkit.Settings) -> None:
    report = examine(settings.model_copy(update={"role": "Nobody"}), "pass-role")
    assert report["role"].outcome == "problem"
    assert "there is no role 'Nobody'" in report["role"].finding
    assert report["pass-role"].outcome == "skipped"


def test_a_role_that_does_not_trust_sagemaker(settings: smkit.Settings, iam: Any) -> None:
    name = f"NoTrust-{uuid.uuid4().hex[:8]}"
    statement = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [statement]}))
    report = examine(settings.model_copy(update={"role": name}), "role")
    assert report["role"].outcome == "problem"
    assert "does not let SageMaker assume" in report["role"].finding
    assert "sts:AssumeRole" in report["role"].fix


def test_a_role_of_another_account(settings: smkit.Settings) -> None:
    role = "arn:aws-cn:iam::999999999999:role/Train"
    report = examine(settings.model_copy(update={"role": role}), "role")
    assert "is of account 999999999999, the credentials are of 123456789012" in report["role"].finding


def test_a_role_that_may_not_be_looked_at(settings: smkit.Settings, front: Front) -> None:
    front.answer("iam:GetRole", query_error(403, "AccessDenied"))
    report = examine(settings, "role", "pass-role")
    assert report.ok
    assert report["role"].outcome == "cannot tell"
    assert "may not ask" in report["role"].finding


def test_after_a_deploy_the_role_is_looked_at(settings: smkit.Settings) -> None:
    # `smkit infra deploy` writes bucket and role; backend stays as it is, local.
    deployed = settings.model_copy(update={"backend": "local", "kms_key": None})
    report = examine(deployed, write=False)
    assert {name: report[name].outcome for name in ("sagemaker", "role", "pass-role", "reach-sagemaker")} == {
        "sagemaker": "ok",
        "role": "ok",
        "pass-role": "ok",
        "reach-sagemaker": "ok",
    }
    missing = examine(smkit.Settings(role="Nobody"), "role")
    assert missing["role"].outcome == "problem"


def test_without_a_role_jobs_that_run_here_ask_nothing_of_sagemaker(settings: smkit.Settings, front: Front) -> None:
    report = examine(settings.model_copy(update={"backend": "local", "role": None}), write=False)
    for name in ("sagemaker", "role", "pass-role"):
        assert (report[name].outcome, report[name].finding) == (
            "skipped",
            "backend is 'local' and no role is set: jobs run here",
        )
    assert [name for name in front.names() if name.startswith(("sagemaker:", "iam:"))] == []


def test_no_role_is_set(settings: smkit.Settings) -> None:
    report = examine(smkit.Settings(bucket=settings.bucket, backend="sagemaker"), "role")
    assert "no execution role is set" in report["role"].finding
    assert report["role"].outcome == "problem"


@pytest.mark.parametrize(
    ("answer", "outcome", "says"),
    [
        (simulated("implicitDeny"), "problem", "implicitDeny"),
        (simulated("explicitDeny"), "problem", "explicitDeny"),
        (simulated("implicitDeny", missing="aws:MultiFactorAuthPresent"), "cannot tell", "aws:MultiFactorAuthPresent"),
        (query_error(403, "AccessDenied"), "cannot tell", "may not simulate"),
    ],
)
def test_a_role_that_may_not_be_passed(
    settings: smkit.Settings, front: Front, answer: Answer, outcome: str, says: str
) -> None:
    front.answer("iam:SimulatePrincipalPolicy", answer)
    report = examine(settings, "pass-role")
    assert report["pass-role"].outcome == outcome
    assert says in report["pass-role"].finding


def test_an_answer_that_is_not_of_aws(settings: smkit.Settings, front: Front) -> None:
    front.answer("iam:GetRole", Answer(200, "<!doctype html><p>Sign in to the guest network" + "!" * 5000))
    result = examine(settings, "role")["role"]
    assert result.outcome == "cannot tell"
    assert "what answers is not AWS" in result.finding
    assert len(result.finding) < 300


def test_a_page_of_html_with_a_5xx_is_a_failing_service(settings: smkit.Settings, front: Front) -> None:
    page = "<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n<p>The server encountered"
    front.answer("iam:SimulatePrincipalPolicy", Answer(500, page))
    result = examine(settings, "pass-role")["pass-role"]
    assert result.outcome == "cannot tell"
    assert result.finding == "cannot simulate iam:PassRole: 500: Internal Server Error"
    assert result.fix == "the service, or a proxy on the way, is failing: try again later"


# --- bucket ------------------------------------------------------------------------------------------------------


def test_a_bucket_in_another_region(settings: smkit.Settings, aws_env: str) -> None:
    name = f"smkit-test-{uuid.uuid4().hex[:16]}"
    s3 = client("s3", aws_env, "cn-north-1")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "cn-north-1"})
    s3.close()
    report = examine(smkit.Settings(bucket=name), "bucket", "bucket-write")
    assert report["bucket"].outcome == "problem"
    assert "is in cn-north-1, region is cn-northwest-1" in report["bucket"].finding
    assert report["bucket-write"].finding == "needs bucket"
    # As a source of data it is no problem.
    report = examine(settings, f"bucket:{name}", buckets=[name])
    assert report[f"bucket:{name}"].ok
    assert "it is in cn-north-1" in report[f"bucket:{name}"].finding


def test_a_bucket_of_somebody_else(settings: smkit.Settings, front: Front) -> None:
    front.answer("s3:GET .*list-type.*", s3_error(403, "AccessDenied"), header="x-amz-expected-bucket-owner")
    report = examine(settings, "bucket", "bucket-write")
    assert report["bucket"].outcome == "problem"
    assert f"another account than the caller's, {ACCOUNT}" in report["bucket"].finding
    assert [call for call in front.calls if call.name.startswith("s3:PUT")] == []


def test_a_bucket_that_is_missing_and_one_that_is_denied(settings: smkit.Settings, front: Front) -> None:
    missing = f"smkit-test-{uuid.uuid4().hex[:16]}"
    report = examine(settings.model_copy(update={"bucket": missing}), "bucket")
    assert f"there is no bucket '{missing}' in partition aws-cn" in report["bucket"].finding
    # Who may list the store's prefix only may not ask for the bucket as such.
    front.answer("s3:HEAD .*", Answer(403))
    assert examine(settings, "bucket")["bucket"].ok
    front.answer("s3:GET .*list-type.*", s3_error(403, "AccessDenied"))
    report = examine(settings, "bucket")
    assert "does not let the caller list" in report["bucket"].finding
    assert "s3:ListBucket" in report["bucket"].fix


def test_a_bucket_whose_region_is_told_with_the_denial(settings: smkit.Settings, front: Front) -> None:
    front.answer("s3:HEAD .*", Answer(403, headers={"x-amz-bucket-region": "cn-north-1"}))
    assert "is in cn-north-1, region is cn-northwest-1" in examine(settings, "bucket")["bucket"].finding


def test_the_owner_is_not_asked_where_the_caller_is_not_known(settings: smkit.Settings, front: Front) -> None:
    """As in a private subnet with an endpoint of S3 and none of STS."""
    front.answer("sts:.*", query_error(403, "AccessDenied"))
    report = examine(settings, "bucket", "bucket-write", "role")
    assert report["identity"].outcome == "cannot tell"
    assert "whose it is was not asked" in report["bucket"].finding
    assert report["bucket-write"].ok
    assert report["role"].finding == "needs identity"


@pytest.mark.parametrize(
    ("call", "answer", "check", "outcome", "says"),
    [
        ("s3:PUT .*probe", s3_error(403, "AccessDenied"), "bucket-write", "problem", "may not write"),
        ("s3:PUT .*probe", s3_error(400, "KMS.DisabledException"), "bucket-write", "problem", "KMS.Disabled"),
        ("s3:PUT .*probe", s3_error(501, "NotImplemented"), "bucket-write", "problem", "ignores 'If-None-Match"),
        ("s3:PUT .*probe", Answer(200), "bucket-write", "problem", "ignores 'If-None-Match"),
        ("s3:PUT .*probe", s3_error(503, "SlowDown"), "bucket-write", "cannot tell", "SlowDown"),
        ("s3:GET .*probe", s3_error(403, "AccessDenied"), "bucket-write", "problem", "may not read"),
        ("s3:GET .*max-keys=10.*", s3_error(403, "AccessDenied"), "bucket-read", "problem", "may not list"),
        ("s3:GET .*publicAccessBlock", s3_error(403, "AccessDenied"), "bucket-public", "cannot tell", "may not read"),
        (
            "s3:GET .*publicAccessBlock",
            s3_error(404, "NoSuchPublicAccessBlockConfiguration"),
            "bucket-public",
            "problem",
            "does not block public access",
        ),
        ("s3:GET .*(versioning|policy)", s3_error(403, "AccessDenied"), "bucket-hardening", "cannot tell", "may not"),
    ],
)
def test_buckets_that_refuse(
    settings: smkit.Settings, front: Front, call: str, answer: Answer, check: str, outcome: str, says: str
) -> None:
    front.answer(call, answer)
    result = examine(settings, check)[check]
    assert result.outcome == outcome, result
    assert says in result.finding


def test_hardening_is_advice(settings: smkit.Settings, bucket: str, aws_env: str) -> None:
    result = examine(settings, "bucket-hardening")["bucket-hardening"]
    assert (result.outcome, result.finding) == ("ok", "lacks versioning and TLS only")
    assert result.fix
    s3 = client("s3", aws_env)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"arn:aws-cn:s3:::{bucket}/*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    s3.close()
    result = examine(settings, "bucket-hardening")["bucket-hardening"]
    assert (result.finding, result.fix) == ("has versioning and TLS only", "")


def test_half_a_block_of_public_access(settings: smkit.Settings, bucket: str, aws_env: str) -> None:
    s3 = client("s3", aws_env)
    blocks = {**dict.fromkeys(BLOCKS, True), "RestrictPublicBuckets": False}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocks)
    s3.close()
    result = examine(settings, "bucket-public")["bucket-public"]
    assert result.outcome == "problem"
    assert "(RestrictPublicBuckets not set)" in result.finding


def test_buckets_that_data_comes_from(settings: smkit.Settings, bucket: str, aws_env: str, front: Front) -> None:
    s3 = client("s3", aws_env)
    s3.put_object(Bucket=bucket, Key="raw/a.csv", Body=b"x")
    s3.close()
    local = smkit.Settings()
    report = smkit.doctor(local, checks=[], buckets=[bucket], timeout=20)
    assert report[f"bucket:{bucket}"].finding == f"s3://{bucket}/ can be listed and read"
    report = smkit.doctor(local, checks=[], buckets=[f"s3://{bucket}/empty/"], timeout=20)
    assert "has no object yet" in report[f"bucket:{bucket}/empty/"].finding
    front.answer("s3:GET .*a.csv", s3_error(403, "AccessDenied"))
    result = smkit.doctor(local, checks=[f"bucket:{bucket}"], buckets=[bucket], timeout=20)[f"bucket:{bucket}"]
    assert result.outcome == "problem"
    assert "kms:Decrypt" in result.fix


# --- KMS, SageMaker, region, clock -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "outcome", "says"),
    [
        (json_error(400, "AccessDeniedException"), "problem", "may not encrypt"),
        (json_error(400, "DisabledException"), "cannot tell", "DisabledException"),
    ],
)
def test_keys_that_cannot_be_used(
    settings: smkit.Settings, front: Front, answer: Answer, outcome: str, says: str
) -> None:
    front.answer("kms:GenerateDataKey", answer)
    result = examine(settings, "kms")["kms"]
    assert result.outcome == outcome
    assert says in result.finding


def test_a_key_that_is_missing(settings: smkit.Settings) -> None:
    result = examine(settings.model_copy(update={"kms_key": str(uuid.uuid4())}), "kms")["kms"]
    assert result.outcome == "problem"
    assert "there is no key" in result.finding


def test_sagemaker_that_does_not_let_the_caller_list(settings: smkit.Settings, front: Front) -> None:
    front.answer("sagemaker:ListTrainingJobs", json_error(400, "AccessDeniedException"))
    result = examine(settings, "sagemaker")["sagemaker"]
    assert result.outcome == "cannot tell"
    assert "sagemaker:ListTrainingJobs" in result.fix


def test_a_region_that_botocore_does_not_know(front: Front) -> None:
    result = examine(smkit.Settings(region="cn-nrothwest-1"), "region")["region"]
    assert result.outcome == "cannot tell"
    assert "did you mean 'cn-northwest-1'" in result.finding


@pytest.mark.parametrize(
    ("offset", "outcome", "says"),
    [
        (0, "ok", "of AWS"),
        (120, "ok", "s behind AWS's"),
        (-120, "ok", "s ahead of AWS's"),
        (400, "problem", "signatures are refused"),
        (-400, "problem", "ahead of AWS's"),
    ],
)
def test_a_clock_that_is_wrong(front: Front, offset: float, outcome: str, says: str) -> None:
    front.clock_offset = offset
    result = examine(smkit.Settings(), "clock")["clock"]
    assert (result.outcome, bool(result.fix)) == (outcome, offset != 0)
    assert says in result.finding


# --- the way there -----------------------------------------------------------------------------------------------


@pytest.fixture
def silent(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield url


def test_an_endpoint_that_never_answers_holds_nobody_up(silent: str) -> None:
    settings = smkit.Settings(bucket="some-bucket", backend="sagemaker", role="Train", kms_key="alias/a")
    began = time.monotonic()
    report = smkit.doctor(settings, checks=AWS_CHECKS, timeout=0.7)
    took = time.monotonic() - began
    assert took < 6  # two rounds of 0.7 s; and a busy machine
    assert report["reach-s3"].outcome == "cannot tell"
    assert "no answer in 0.7 s" in report["reach-s3"].finding
    assert report["bucket"].outcome == "skipped"
    assert report.problems == ()


def test_a_process_ends_though_a_check_has_no_answer() -> None:
    code = (
        "import time, smkit\n"
        "from smkit.diagnosis import network\n"
        "network.check_reach = lambda context, service: time.sleep(60)\n"
        "print(smkit.doctor(checks=['reach-s3'], timeout=0.3)['reach-s3'].finding)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=55, check=True)
    assert done.stdout == "no answer in 0.3 s\n", done.stdout + done.stderr
    assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://no-such-host.invalid", "cannot be resolved"),
        ("http://127.0.0.1:9", "the connection is refused"),
        ("https://{host}", "TLS with"),
        ("nonsense", "no client for s3"),
    ],
)
def test_endpoints_that_cannot_be_reached(front: Front, monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url.format(host=front.url.removeprefix("http://")))
    result = examine(smkit.Settings(), "reach-s3")["reach-s3"]
    assert result.outcome == "problem", result
    assert says in result.finding
    assert result.fix


def test_a_proxy_that_does_not_answer(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:hush-hush@127.0.0.1:9")
    report = examine(smkit.Settings(), "reach-s3", "proxy")
    assert report["proxy"].finding == "HTTP_PROXY=http://127.0.0.1:9"
    assert "the proxy on the way" in report["reach-s3"].finding
    assert "hush-hush" not in str(report) + json.dumps(report.to_dict())


def test_a_proxy_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush-hush@proxy:port")
    result = examine(smkit.Settings(), "proxy")["proxy"]
    assert (result.outcome, result.finding) == ("problem", "HTTPS_PROXY is not the URL of a proxy")
