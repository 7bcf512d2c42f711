from __future__ import annotations

import re
from typing import Any

import pytest

from smkit.errors import ConfigError
from smkit.jobs.sagemaker import images

from .fixtures_sdk import needs_sdk, quiet_sdk

__all__ = ["quiet_sdk"]

#: In the SDK since v3 only.
NEWER_THAN_SDK_V2 = {"1.4-2-py312", "1.9-0"}


@pytest.fixture(scope="module")
def sdk_config(quiet_sdk: None) -> dict[str, Any]:
    from sagemaker import image_uris

    config: dict[str, Any] = image_uris.config_for_framework("sklearn")
    return config


@needs_sdk
@pytest.mark.parametrize(
    ("scope", "versions"), [("training", images.TRAINING_VERSIONS), ("inference", images.INFERENCE_VERSIONS)]
)
def test_versions_and_regions_are_those_of_the_sdk(
    sdk_config: dict[str, Any], scope: str, versions: tuple[str, ...]
) -> None:
    theirs = sdk_config[scope]["versions"]
    assert set(theirs) <= set(versions)
    assert set(versions) - set(theirs) <= NEWER_THAN_SDK_V2
    for version in theirs.values():
        assert set(version["registries"]) == set(images.REGIONS)


@needs_sdk
@pytest.mark.parametrize("region", images.REGIONS)
def test_every_regions_registry_is_the_sdks(sdk_config: dict[str, Any], region: str) -> None:
    assert images.training_image("1.2-1", region) == sdk_image("1.2-1", region, "training")
    account = images.training_image("1.2-1", region).partition(".")[0]
    for scope in ("training", "inference"):
        for version in sdk_config[scope]["versions"].values():
            assert version["registries"][region] == account
            assert version["repository"] == "sagemaker-scikit-learn"


@needs_sdk
@pytest.mark.parametrize("scope", ["training", "inference"])
def test_every_versions_tag_is_the_sdks(sdk_config: dict[str, Any], scope: str) -> None:
    ours = {"training": images.training_image, "inference": images.inference_image}[scope]
    for version in sdk_config[scope]["versions"]:
        assert ours(version, "cn-north-1") == sdk_image(version, "cn-north-1", scope)


def sdk_image(version: str, region: str, scope: str) -> str:
    from sagemaker import image_uris

    uri: str = image_uris.retrieve(
        "sklearn", region, version=version, py_version="py3", instance_type="ml.m5.large", image_scope=scope
    )
    return uri


@pytest.mark.parametrize("version", images.TRAINING_VERSIONS)
@pytest.mark.parametrize(("region", "account"), [("cn-north-1", "450853457545"), ("cn-northwest-1", "451049120500")])
def test_china(version: str, region: str, account: str) -> None:
    assert images.training_image(version, region) == (
        f"{account}.dkr.ecr.{region}.amazonaws.com.cn/sagemaker-scikit-learn:{version}-cpu-py3"
    )


def test_a_version_for_training_only_says_what_can_be_served() -> None:
    assert images.training_image("1.4-2", "cn-north-1").endswith(":1.4-2-cpu-py3")
    assert not images.has_inference_image("1.4-2", "cn-north-1")
    with pytest.raises(ConfigError, match=r"'1\.4-2' has no inference image.*1\.2-1, 1\.4-2-py312, 1\.9-0"):
        images.inference_image("1.4-2", "cn-north-1")


def test_what_can_be_served_has_an_image() -> None:
    for region in images.REGIONS:
        for version in images.TRAINING_VERSIONS:
            if images.has_inference_image(version, region):
                assert images.inference_image(version, region) == images.training_image(version, region)
    assert images.has_inference_image("1.2-1", "us-east-1")
    assert not images.has_inference_image("1.2-1", "moon-north-1")
    assert not images.has_inference_image("1.3-1", "us-east-1")


def test_an_unknown_version_lists_those_that_exist() -> None:
    message = re.escape("framework_version '1.2.1' has no training image; did you mean '1.2-1'?; versions are 0.20.0, ")
    with pytest.raises(ConfigError, match=message):
        images.training_image("1.2.1", "cn-north-1")


def test_an_unknown_region_lists_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"'cn-nort-1' has no scikit-learn images; did you mean 'cn-north-1'\?.*us-w"):
        images.training_image("1.2-1", "cn-nort-1")
