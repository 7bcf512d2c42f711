"""The templates as files: what CloudFormation and its linter say of them, and what must stand in them."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
import yaml
from cfnlint.api import ManualArgs, lint
from hypothesis import given, settings
from hypothesis import strategies as st

from smkit.aws import partition_of
from smkit.errors import ConfigError
from smkit.infra import TEMPLATES, read_template
from smkit.infra.templates import check_kind, users_of
from smkit.jobs.sagemaker import images

REGIONS = ["cn-north-1", "cn-northwest-1", "us-east-1"]


def findings(template: str) -> list[str]:
    """What cfn-lint says in the regions, down to what it calls information."""
    # Its type is narrower than what it takes, and it knows the regions only by name.
    regions: Any = REGIONS
    found = lint(template, config=ManualArgs(regions=regions, include_checks=["I"]))
    return [f"{match.linenumber}: {match.rule.id} {match.message}" for match in found]


class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Reads the short forms of CloudFormation's functions."""


def _function(loader: Any, name: str, node: Any) -> dict[str, Any]:
    made = {
        yaml.ScalarNode: loader.construct_scalar,
        yaml.SequenceNode: lambda one: loader.construct_sequence(one, deep=True),
        yaml.MappingNode: lambda one: loader.construct_mapping(one, deep=True),
    }[type(node)](node)
    return {"Ref" if name == "Ref" else f"Fn::{name}": made}


Loader.add_multi_constructor("!", _function)


def parsed(template: str) -> Any:
    return yaml.load(template, Loader=Loader)


def resource(kind: Any, name: str) -> Any:
    return parsed(read_template(kind))["Resources"][name]


@pytest.mark.parametrize(("kind", "users"), [("foundation", ()), ("studio", ("anna", "Bo-2", "no", "123"))])
def test_the_linter_finds_nothing_in_china_and_elsewhere(kind: Any, users: tuple[str, ...]) -> None:
    assert findings(read_template(kind, users=users)) == []


def test_the_linter_looks() -> None:
    broken = read_template("foundation").replace("VersioningConfiguration:", "VersionConfiguration:")
    assert any("VersionConfiguration" in finding for finding in findings(broken))


@pytest.mark.parametrize("kind", TEMPLATES)
def test_no_partition_account_or_host_is_written_down(kind: Any) -> None:
    text = read_template(kind)
    code = "\n".join(line.partition(" # ")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert re.findall(r"arn:aws\b|arn:aws-", code) == []
    # A principal of a service has the same name in every partition; nothing else has a host in it.
    hosts = {line.strip() for line in code.splitlines() if "amazonaws" in line}
    assert {host.split("sagemaker.amazonaws.com")[0] for host in hosts} <= {
        "Principal: { Service: ",
        'StringEquals: { "iam:PassedToService": ',
    }
    accounts = set(re.findall(r"\b[0-9]{12}\b", code))
    assert accounts == (set(images._ACCOUNTS.values()) if kind == "foundation" else set())


def test_the_registries_are_those_that_the_jobs_pull_from() -> None:
    mapping = parsed(read_template("foundation"))["Mappings"]["ImageRegistry"]
    assert {region: dict(entry) for region, entry in mapping.items()} == {
        region: {"Account": account} for region, account in images._ACCOUNTS.items()
    }
    for region in REGIONS:
        uri = images.training_image("1.2-1", region)
        assert uri.startswith(f"{mapping[region]['Account']}.dkr.ecr.{region}.")
        assert uri.partition("/")[2].startswith("sagemaker-scikit-learn:")


def test_what_holds_data_outlives_its_stack() -> None:
    for name in ("Bucket", "BucketPolicy"):
        made = resource("foundation", name)
        assert (made["DeletionPolicy"], made["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert resource("studio", "Domain")["UpdateReplacePolicy"] == "Retain"


def test_the_bucket_is_private_versioned_encrypted_and_never_expires_what_is_current() -> None:
    properties = resource("foundation", "Bucket")["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    condition, with_key, without = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]["Fn::If"]
    assert condition == "HasKey"
    assert with_key["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert without["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    abort, (_, forget, _nothing) = (
        properties["LifecycleConfiguration"]["Rules"][0],
        properties["LifecycleConfiguration"]["Rules"][1]["Fn::If"],
    )
    assert abort["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert set(abort) | set(forget) == {
        "AbortIncompleteMultipartUpload",
        "ExpiredObjectDeleteMarker",
        "Id",
        "NoncurrentVersionExpiration",
        "Status",
    }


@pytest.mark.parametrize("kind", TEMPLATES)
def test_nothing_has_a_name_that_would_need_more_than_capability_iam(kind: Any) -> None:
    for made in parsed(read_template(kind))["Resources"].values():
        assert {"RoleName", "ManagedPolicyName", "PolicyName"} & set(made["Properties"]) == set()


def test_the_domain_is_inside_the_vpc_and_signs_in_by_iam() -> None:
    properties = resource("studio", "Domain")["Properties"]
    assert (properties["AuthMode"], properties["AppNetworkAccessType"]) == ("IAM", "VpcOnly")


def test_every_region_with_images_has_a_partition_that_is_known() -> None:
    assert {partition_of(region) for region in images.REGIONS} >= {"aws", "aws-cn"}


NAMES = st.from_regex(r"[a-zA-Z0-9](-{0,2}[a-zA-Z0-9]){0,20}", fullmatch=True)


@settings(max_examples=25)
@given(st.lists(NAMES, unique_by=lambda name: name.replace("-", "").lower(), max_size=5))
def test_users_are_repeated_and_found_again(users: list[str]) -> None:
    text = read_template("studio", users=users)
    assert users_of(text) == tuple(users)
    assert "example" not in text
    made = parsed(text)["Resources"]
    profiles = {
        name: entry["Properties"]["UserProfileName"]
        for name, entry in made.items()
        if entry["Type"] == "AWS::SageMaker::UserProfile"
    }
    assert sorted(profiles.values()) == sorted(users)
    assert all(set(name) <= set(string.ascii_letters + string.digits) for name in profiles)


@pytest.mark.parametrize("user", ["", "-a", "a-", "a b", "a:b", "a\nb", "x" * 64, "安娜", "${AWS::Region}", "a#b"])
def test_a_name_that_sagemaker_would_refuse_is_refused(user: str) -> None:
    with pytest.raises(ConfigError, match="not a user profile's name"):
        read_template("studio", users=[user])


def test_users_that_are_alike_are_refused() -> None:
    with pytest.raises(ConfigError, match="'a-b' and 'aB' are the same but for hyphens and case"):
        read_template("studio", users=["a-b", "aB"])


def test_a_foundation_has_no_users_and_an_unknown_template_is_named() -> None:
    with pytest.raises(ConfigError, match="they belong to 'studio'"):
        read_template("foundation", users=["anna"])
    with pytest.raises(ConfigError, match="no template 'foundatoin'; did you mean 'foundation'"):
        check_kind("foundatoin")


def test_the_templates_fit_into_one_request() -> None:
    assert len(read_template("foundation").encode()) < 40_000
    assert len(read_template("studio", users=[f"user{number}" for number in range(100)]).encode()) < 51_200
