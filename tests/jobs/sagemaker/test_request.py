from __future__ import annotations

import json
import re
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings

from smkit.errors import ConfigError
from smkit.jobs import contract
from smkit.jobs.sagemaker.images import training_image
from smkit.jobs.sagemaker.request import training_request, volume_key

from .plans import KEY, REGION, ROLE, plan_of, plans

SOURCE = "s3://prices/smkit/jobs/prices-1/source/sourcedir.tar.gz"


@pytest.fixture(scope="module")
def input_shape() -> Any:
    session = botocore.session.Session()
    return session.get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape


def test_the_smallest_plan_sends_nothing_else() -> None:
    assert training_request(plan_of()) == {
        "TrainingJobName": "prices-1",
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": training_image("1.2-1", REGION), "TrainingInputMode": "File"},
        "HyperParameters": {
            "sagemaker_submit_directory": f'"{SOURCE}"',
            "sagemaker_program": '"train.py"',
            "sagemaker_container_log_level": "20",
            "sagemaker_job_name": '"prices-1"',
            "sagemaker_region": '"cn-northwest-1"',
        },
        "OutputDataConfig": {"S3OutputPath": "s3://prices/smkit/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    }


def test_every_field_is_spelled() -> None:
    request = training_request(
        plan_of(
            channels={"train": "s3://prices/data/train/"},
            environment={"PIP_INDEX_URL": "https://pypi.example/simple"},
            tags={"team": "pricing"},
            metric_definitions={"rmse": "rmse=([0-9.]+)"},
            subnets=("subnet-1",),
            security_groups=("sg-1",),
            kms_key=KEY,
            spot=True,
            max_run=60,
            max_wait=90,
            checkpoint_uri="s3://prices/checkpoints",
            keep_alive=600,
            input_mode="FastFile",
            extra={"RetryStrategy": {"MaximumRetryAttempts": 2}},
        )
    )
    assert request["InputDataConfig"] == [
        {
            "ChannelName": "train",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": "s3://prices/data/train/",
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
        }
    ]
    assert request["Environment"] == {"PIP_INDEX_URL": "https://pypi.example/simple"}
    assert request["Tags"] == [{"Key": "team", "Value": "pricing"}]
    assert request["AlgorithmSpecification"]["MetricDefinitions"] == [{"Name": "rmse", "Regex": "rmse=([0-9.]+)"}]
    assert request["AlgorithmSpecification"]["TrainingInputMode"] == "FastFile"
    assert request["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert request["OutputDataConfig"]["KmsKeyId"] == request["ResourceConfig"]["VolumeKmsKeyId"] == KEY
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}
    assert request["CheckpointConfig"] == {"S3Uri": "s3://prices/checkpoints"}
    assert request["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert request["RetryStrategy"] == {"MaximumRetryAttempts": 2}


@given(plan=plans())
def test_boto3_takes_every_request(input_shape: Any, plan: Any) -> None:
    report = ParamValidator().validate(training_request(plan), input_shape)
    assert not report.has_errors(), report.generate_report()


@settings(max_examples=40)
@given(plan=plans())
def test_hyperparameters_come_back_as_they_were(plan: Any) -> None:
    wire = training_request(plan)["HyperParameters"]
    sent = {name: value for name, value in plan.hyperparameters.items() if not name.startswith("sagemaker_")}
    assert {name: json.loads(wire[name]) for name in sent} == sent
    assert contract.decode_hyperparameters(wire)["sagemaker_program"] == plan.entry_point


def test_text_and_numbers_stay_different() -> None:
    wire = training_request(plan_of(hyperparameters={"text": "123", "number": 123, "none": None}))["HyperParameters"]
    assert (wire["text"], wire["number"], wire["none"]) == ('"123"', "123", "null")


def test_without_network_the_code_comes_as_a_channel() -> None:
    request = training_request(plan_of(network_isolation=True, channels={"train": "s3://prices/data/"}))
    assert request["EnableNetworkIsolation"] is True
    assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["train", "code"]
    assert request["InputDataConfig"][1]["DataSource"]["S3DataSource"]["S3Uri"] == SOURCE
    submit_directory = request["HyperParameters"]["sagemaker_submit_directory"]
    assert json.loads(submit_directory) == "/opt/ml/input/data/code/sourcedir.tar.gz"


def test_without_network_a_channel_cannot_be_called_code() -> None:
    channels = {"code": "s3://prices/data/"}
    assert training_request(plan_of(channels=channels))["InputDataConfig"][0]["ChannelName"] == "code"
    with pytest.raises(ConfigError, match="the channel 'code' is taken: with network_isolation"):
        training_request(plan_of(channels=channels, network_isolation=True))


@pytest.mark.parametrize("instance_type", ["ml.m5d.large", "ml.g4dn.xlarge", "ml.g5.xlarge", "ml.trn1.2xlarge"])
def test_disks_of_the_instance_take_no_key(instance_type: str) -> None:
    request = training_request(plan_of(kms_key=KEY, instance_type=instance_type))
    assert "VolumeKmsKeyId" not in request["ResourceConfig"]
    assert request["OutputDataConfig"]["KmsKeyId"] == KEY
    assert volume_key(plan_of(kms_key=KEY, instance_type="ml.c5.xlarge")) == KEY


def test_an_instance_that_the_sdk_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'ml\.p3\.8xlarge' has GPUs.*'ml\.m5\.xlarge'"):
        training_request(plan_of(instance_type="ml.p3.8xlarge"))


@pytest.mark.parametrize(
    ("field", "argument"),
    [
        ("VpcConfig", "subnets and security_groups"),
        ("Environment", "environment"),
        ("ResourceConfig", "instance_type"),
        ("HyperParameters", "hyperparameters"),
        ("EnableManagedSpotTraining", "spot"),
    ],
)
def test_extra_cannot_take_a_field_of_smkit(field: str, argument: str) -> None:
    with pytest.raises(ConfigError, match=rf"extra\['{field}'\] is a field that smkit sends itself: set {argument}"):
        training_request(plan_of(extra={field: {}}))


@settings(max_examples=40)
@given(plan=plans())
def test_every_field_that_is_sent_is_guarded(plan: Any) -> None:
    for field in set(training_request(plan)) - set(plan.extra):
        with pytest.raises(ConfigError, match="sends itself"):
            training_request(plan_of(extra={field: {}}))


def test_an_unknown_extra_suggests_the_nearest() -> None:
    message = re.escape("extra['RetryStrategies'] is no field of CreateTrainingJob that boto3 ")
    with pytest.raises(ConfigError, match=message + r"\S+ knows; did you mean 'RetryStrategy'\?") as caught:
        training_request(plan_of(extra={"RetryStrategies": {}}))
    assert "VpcConfig" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"MaximumRetryAttempts": "2"}, "Invalid type for parameter MaximumRetryAttempts"),
        ({}, 'Missing required parameter in input: "MaximumRetryAttempts"'),
        ({"MaximumRetryAttempts": 2, "Pause": 1}, 'Unknown parameter in input: "Pause"'),
    ],
)
def test_a_malformed_extra_is_refused_before_it_is_sent(value: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        training_request(plan_of(extra={"RetryStrategy": value}))


def test_an_extra_is_copied() -> None:
    extra = {"RetryStrategy": {"MaximumRetryAttempts": 2}}
    training_request(plan_of(extra=extra))["RetryStrategy"]["MaximumRetryAttempts"] = 9
    assert extra == {"RetryStrategy": {"MaximumRetryAttempts": 2}}


def test_extra_knows_the_models_of_aws_data_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Who drops a newer service model there, as for a preview, may use its fields."""
    from smkit.jobs.sagemaker import limits

    shape = {"type": "structure", "members": {"Preview": {"shape": "Text"}}}
    model = {
        "metadata": {"apiVersion": "2099-01-01", "protocol": "json", "endpointPrefix": "api.sagemaker"},
        "operations": {"CreateTrainingJob": {"name": "CreateTrainingJob", "http": {}, "input": {"shape": "Request"}}},
        "shapes": {"Request": shape, "Text": {"type": "string"}},
    }
    folder = tmp_path / "sagemaker" / "2099-01-01"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text(json.dumps(model), encoding="utf-8")
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    limits.service_model.cache_clear()
    try:
        assert training_request(plan_of(extra={"Preview": "yes"}))["Preview"] == "yes"
    finally:
        limits.service_model.cache_clear()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": {f"V{n}": "x" for n in range(101)}}, "Environment is 101 long: expected at most 100"),
        ({"environment": {"NOTE": "hunter2" * 80}}, r"Environment\[NOTE\] is 560 long: expected at most 512"),
        ({"environment": {"N" * 513: "x"}}, r"Environment.key is 513 long: expected at most 512"),
        ({"metric_definitions": {f"m{n}": "(.)" for n in range(41)}}, "Definitions is 41 long: expected at most 40"),
        ({"metric_definitions": {"m": "(.)" * 167}}, r"MetricDefinitions\[1\].Regex is 501 long: expected at most 500"),
        (
            {"subnets": tuple(f"subnet-{n}" for n in range(17)), "security_groups": ("sg-1",)},
            "VpcConfig.Subnets is 17 long: expected at most 16; it is set by subnets",
        ),
        ({"tags": {"a*b": "c"}}, r"Tags\[1\].Key is not allowed: expected the pattern"),
        ({"kms_key": "a b"}, "OutputDataConfig.KmsKeyId is not allowed"),
        ({"extra": {"RetryStrategy": {"MaximumRetryAttempts": 31}}}, "Attempts is not allowed: expected at most 30"),
    ],
)  # fmt: skip
def test_what_is_over_a_limit_of_the_api_is_refused_and_not_shown(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        training_request(plan_of(**changes))
    assert "hunter2" not in str(caught.value)


def test_a_newer_instance_than_boto3_knows_is_for_the_service_to_judge() -> None:
    assert training_request(plan_of(instance_type="ml.m99.large"))["ResourceConfig"]["InstanceType"] == "ml.m99.large"
    assert training_request(plan_of(instance_type="m5large", kms_key=KEY))["ResourceConfig"]["VolumeKmsKeyId"] == KEY
