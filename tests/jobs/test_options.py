"""What a job asks of SageMaker is checked before anything is sent."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from smkit.errors import ConfigError
from smkit.jobs.options import SageMakerOptions
from smkit.jobs.spec import JobSpec

EXTRA = {"RetryStrategy": {"MaximumRetryAttempts": 2}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"volume_size": 0}, "volume_size 0 is not allowed: expected 1 to 16384 GB"),
        ({"volume_size": 20_000}, "expected 1 to 16384 GB"),
        ({"volume_size": True}, "volume_size True"),
        ({"volume_size": 1.5}, "volume_size 1.5"),
        ({"max_wait": 60}, "set spot=True too"),
        ({"spot": True, "max_wait": -1}, "max_wait -1 is not allowed"),
        ({"spot": True, "max_wait": float("inf")}, "max_wait inf"),
        ({"spot": True, "max_wait": 29 * 24 * 3600}, "28 days"),
        ({"keep_alive": 0}, "expected 1 to 21600 seconds"),
        ({"keep_alive": 60, "spot": True}, "exclude each other"),
        ({"checkpoint_uri": "/opt/checkpoints"}, "is not an S3 URI"),
        ({"subnets": ["subnet-1"]}, "set both, or neither"),
        ({"subnets": "subnet-1", "security_groups": ["sg-1"]}, "expected a list such as"),
        ({"subnets": ["sg-1"], "security_groups": ["sg-1"]}, "subnets: 'sg-1' is not allowed"),
        ({"input_mode": "Pipe"}, "expected 'File' or 'FastFile'"),
        ({"image_uri": "scikit-learn"}, "is not an image"),
        ({"tags": {"aws:team": "x"}}, "does not begin with 'aws:'"),
        ({"tags": {"team": 3}}, "tag 'team' is not allowed"),
        ({"tags": ["team"]}, "tags is a list"),
        ({"tags": {str(number): "" for number in range(51)}}, "at most 50"),
        ({"extra": {"retryStrategy": {}}}, "expected the name of a field of CreateTrainingJob"),
        ({"extra": [EXTRA]}, "extra is a list"),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SageMakerOptions(**values)
    assert said in str(caught.value)


def test_options_are_values() -> None:
    options = SageMakerOptions(spot=True, max_wait=timedelta(hours=2), tags={"team": "pricing"}, extra=EXTRA)
    assert options.max_wait == 7200
    assert options == dataclasses.replace(options)
    assert len({options, dataclasses.replace(options)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.spot = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        options.tags["team"] = "else"  # type: ignore[index]


def test_a_mapping_does_as_well() -> None:
    assert SageMakerOptions.of({"spot": True}) == SageMakerOptions(spot=True)
    assert SageMakerOptions.of(None) == SageMakerOptions()
    options = SageMakerOptions(volume_size=50)
    assert SageMakerOptions.of(options) is options
    with pytest.raises(ConfigError, match="'volume_sise' is no option of SageMaker; did you mean 'volume_size'"):
        SageMakerOptions.of({"volume_sise": 50})
    with pytest.raises(ConfigError, match="sagemaker is a str"):
        SageMakerOptions.of("spot")  # type: ignore[arg-type]


def spec(**values: Any) -> JobSpec:
    return JobSpec(name="job", entry_point="train.py", **values)


def test_spot_waits_at_least_as_long_as_the_job_may_run() -> None:
    assert spec(timeout=60).max_wait is None
    assert spec(timeout=60, sagemaker=SageMakerOptions(spot=True)).max_wait == 60
    assert spec(timeout=59.5, sagemaker=SageMakerOptions(spot=True, max_wait=60)).max_run == 60
    with pytest.raises(ConfigError, match="max_wait is 59 s and timeout 60 s"):
        spec(timeout=60, sagemaker=SageMakerOptions(spot=True, max_wait=59))
    with pytest.raises(ConfigError, match="timeout 86400 s"):
        spec(sagemaker=SageMakerOptions(spot=True, max_wait=60))


def test_a_job_takes_options_only() -> None:
    with pytest.raises(ConfigError, match="sagemaker is a dict"):
        spec(sagemaker={"spot": True})
