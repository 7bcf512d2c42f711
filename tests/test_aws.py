from __future__ import annotations

import copy
import os
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from smkit import Settings
from smkit.aws import Arn, Clients, check_bucket, parse_arn, partition_of, split_s3_uri
from smkit.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("cn-northwest-1", "aws-cn"),
        ("cn-north-1", "aws-cn"),
        ("us-east-1", "aws"),
        ("eu-central-1", "aws"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_partition_of_a_region(region: str, partition: str) -> None:
    assert partition_of(region) == partition


def test_partitions_agree_with_botocore() -> None:
    import botocore.session

    session = botocore.session.Session()
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("ec2", partition_name=partition):
            assert partition_of(region) == partition


def test_parse_arn() -> None:
    assert parse_arn("arn:aws-cn:iam::123456789012:role/service-role/Train") == Arn(
        "aws-cn", "iam", "", "123456789012", "role/service-role/Train"
    )
    assert parse_arn("arn:aws:iam::aws:policy/ReadOnlyAccess").account == "aws"
    assert parse_arn("arn:aws:secretsmanager:us-east-1:123456789012:secret:db-a1b2c3").resource == "secret:db-a1b2c3"
    assert parse_arn("arn:aws-cn:s3:::bucket") == Arn("aws-cn", "s3", "", "", "bucket")


@pytest.mark.parametrize(
    "text", ["", "role", "arn:aws:iam", "arn:gcp:iam::1:x", "arn:aws:iam::12:role/x", "arn:aws:s3:::"]
)
def test_text_that_is_no_arn(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{text!r} is not an ARN: expected 'arn:<partition>:")):
        parse_arn(text)


@pytest.mark.parametrize(
    "name", ["abc", "my-bucket", "a.b.c", "1-2", "x" * 63, "sagemaker-cn-northwest-1-123456789012"]
)
def test_bucket_names(name: str) -> None:
    assert check_bucket(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "ab", "x" * 64, "Bucket", "a_b", "-ab", "ab-", "a..b", "xn--abc", "192.168.0.1", "s3://abc", "abc/x", "abc\n"],
)
def test_text_that_is_no_bucket_name(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{name!r} is not a bucket name")):
        check_bucket(name)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("S3://bucket/a/b.csv", ("bucket", "a/b.csv")),
        ("s3://bucket/a//b c", ("bucket", "a//b c")),
    ],
)
def test_split_s3_uri(uri: str, parts: tuple[str, str]) -> None:
    assert split_s3_uri(uri) == parts


@pytest.mark.parametrize(
    "uri", ["", "bucket/key", "s3:/bucket", "s3://", "gs://bucket/x", "https://bucket/x", "/tmp/x"]
)
def test_text_that_is_no_s3_uri(uri: str) -> None:
    with pytest.raises(ConfigError, match="is not an S3 URI: expected 's3://<bucket>/<key>'"):
        split_s3_uri(uri)


def test_an_s3_uri_without_a_bucket() -> None:
    with pytest.raises(ConfigError, match="'' is not a bucket name"):
        split_s3_uri("s3:///key")


@pytest.fixture
def aws_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An AWS configuration of this test alone, with the profile `team`; returns the file."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "aws-config"
    config.write_text("[profile team]\nregion = us-east-1\n", encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return config


def test_the_session_has_the_region_of_the_settings(aws_files: Path) -> None:
    settings = Settings(region="cn-north-1", profile="team")
    assert settings.session().region_name == "cn-north-1"
    assert settings.session().profile_name == "team"
    assert settings.client("s3").meta.region_name == "cn-north-1"
    assert settings.client("s3").meta.endpoint_url == "https://s3.cn-north-1.amazonaws.com.cn"


def test_an_unknown_profile_lists_the_known_ones(aws_files: Path) -> None:
    with pytest.raises(ConfigError, match=r"profile 'taem' does not exist; known profiles: team\. Create it with `aws"):
        Settings(profile="taem").session()


def test_an_unknown_profile_in_aws_profile(aws_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "ghost")
    with pytest.raises(ConfigError, match=r"profile 'ghost' \(from AWS_PROFILE\) does not exist; known profiles: team"):
        Settings().client("s3")


def test_no_profiles_at_all(aws_files: Path) -> None:
    aws_files.unlink()
    with pytest.raises(ConfigError, match="known profiles: none"):
        Settings(profile="team").session()


def test_a_malformed_aws_configuration(aws_files: Path) -> None:
    aws_files.write_text("[profile team\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the AWS configuration cannot be read: .*aws-config"):
        Settings(profile="team").session()


def test_an_unknown_service_names_the_nearest(aws_files: Path) -> None:
    with pytest.raises(ConfigError, match="boto3 knows no service 'sagemakr'; did you mean 'sagemaker'"):
        Settings().client("sagemakr")


def test_retries_are_standard_and_bounded(aws_files: Path) -> None:
    config = Clients("cn-northwest-1", None).client("s3").meta.config
    assert config.retries["mode"] == "standard"
    assert config.retries["total_max_attempts"] == 6


def test_threads_share_one_session_and_one_client_a_service(aws_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    made: list[str] = []

    class CountingSession(boto3.Session):
        def __init__(self, *args: object, **kwargs: object) -> None:
            made.append("session")
            super().__init__(*args, **kwargs)

        def client(self, service: str, **kwargs: object) -> object:
            made.append(service)
            return super().client(service, **kwargs)

    monkeypatch.setattr(boto3, "Session", CountingSession)
    clients = Clients("cn-northwest-1", None)
    threads = 8
    barrier = threading.Barrier(threads)

    def ask(number: int) -> object:
        barrier.wait(timeout=30)
        return clients.client("s3" if number % 2 else "sts")

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(ask, range(threads)))
    assert sorted(made) == ["s3", "session", "sts"]
    assert len(set(map(id, found))) == 2


def test_copies_make_a_session_of_their_own(aws_files: Path) -> None:
    clients = Clients("cn-north-1", "team")
    session = clients.session()
    for twin in (pickle.loads(pickle.dumps(clients)), copy.deepcopy(clients)):
        assert twin.session() is not session
        assert (twin.session().region_name, twin.session().profile_name) == ("cn-north-1", "team")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_a_session_of_its_own_even_where_the_lock_was_held(aws_files: Path) -> None:
    clients = Clients("cn-northwest-1", None)
    session = clients.session()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with clients._lock:
            held.set()
            done.wait(timeout=60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(timeout=30)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        try:
            code = 0 if clients.session() is not session else 2
        finally:
            os._exit(code)
    try:
        deadline = threading.Event()
        for _ in range(300):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            deadline.wait(0.1)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waited for a lock that nobody in it holds")
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        done.set()
        holder.join()
    assert clients.session() is session
