from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from smkit.testing.answers import ErrorAnswer
from smkit.testing.constraints import check_request, service_model

if TYPE_CHECKING:
    from tests.testing.conftest import Jobs


def refusal(jobs: Jobs, **changes: Any) -> tuple[str, str]:
    """The code and text with which a new job is refused; it must not exist afterwards."""
    request = jobs.request(**changes)
    with pytest.raises(ClientError) as caught:
        jobs.sagemaker.create_training_job(**request)
    error = caught.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(LookupError):
        jobs.box.wait(request["TrainingJobName"])
    return error["Error"]["Code"], error["Error"]["Message"]


RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
ALGORITHM = {
    "TrainingImage": "451049120500.dkr.ecr.cn-northwest-1.amazonaws.com.cn/sagemaker-scikit-learn:1.2-1-cpu-py3",
    "TrainingInputMode": "File",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"TrainingJobName": "-no"},
            (
                "1 validation error detected: Value '-no' at 'trainingJobName' failed to satisfy constraint: Member "
                "must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
            ),
        ),
        ({"TrainingJobName": "a" * 64}, "Member must have length less than or equal to 63"),
        ({"TrainingJobName": "a_b", "RoleArn": "x" * 30}, "2 validation errors detected: "),
        ({"RoleArn": "arn:aws-cn:iam::1:role/x"}, "Value 'arn:aws-cn:iam::1:role/x' at 'roleArn'"),
        ({"HyperParameters": {f"k{n}": "1" for n in range(99)}}, "'hyperParameters' failed to satisfy constraint"),
        ({"HyperParameters": {"k": "x" * 2501}}, "'hyperParameters.k' failed to satisfy constraint: Member must have"),
        ({"HyperParameters": {"k" * 257: "1"}}, "at 'hyperParameters.key' failed"),
        ({"HyperParameters": {"k": "a\nb"}}, "Member must satisfy regular expression pattern: .*"),
        ({"Environment": {"1a": "x"}}, "pattern: [a-zA-Z_][a-zA-Z0-9_]*"),
        ({"Tags": [{"Key": "a", "Value": "b"}] * 51}, "Member must have length less than or equal to 50"),
        ({"Tags": [{"Key": "colour", "Value": "50 %"}]}, "'tags.1.member.value'"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 29 * 24 * 3600}}, "Invalid MaxRuntimeInSeconds"),
        ({"StoppingCondition": None}, "Value null at 'stoppingCondition' failed to satisfy constraint"),
        ({"ResourceConfig": RESOURCES | {"InstanceType": "ml.m5.tiny"}}, "Member must satisfy enum value set: [ml.m4"),
        ({"ResourceConfig": RESOURCES | {"VolumeSizeInGB": 0}}, "'resourceConfig.volumeSizeInGB'"),
        ({"ResourceConfig": {"InstanceCount": 1, "VolumeSizeInGB": 1}}, "Value null at 'resourceConfig.instanceType'"),
        ({"ResourceConfig": RESOURCES | {"InstanceCount": 2}}, "one instance"),
        ({"ResourceConfig": RESOURCES | {"KeepAlivePeriodInSeconds": 21601}}, "less than or equal to 21600"),
        (
            {
                "ResourceConfig": RESOURCES | {"KeepAlivePeriodInSeconds": 60},
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
            },
            "KeepAlivePeriodInSeconds is not supported",
        ),
        (
            {"EnableManagedSpotTraining": True},
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds",
        ),
        (
            {
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59},
            },
            "Invalid MaxWaitTimeInSeconds. It must be present",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}},
            "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true",
        ),
        (
            {"RoleArn": "arn:aws:iam::123456789012:role/smkit-sandbox"},
            "RoleArn: Cross-account pass role is not allowed.",
        ),
        (
            {"RoleArn": "arn:aws-cn:iam::210987654321:role/smkit-sandbox"},
            "RoleArn: Cross-account pass role is not allowed.",
        ),
        (
            {"RoleArn": "arn:aws-cn:iam::123456789012:role/nobody"},
            (
                "Could not assume role arn:aws-cn:iam::123456789012:role/nobody. Please ensure that the role exists "
                "and allows principal 'sagemaker.amazonaws.com' to assume the role."
            ),
        ),
        (
            {"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/x"}},
            'bucket "no-such-bucket" given in the output',
        ),
        ({"OutputDataConfig": {"S3OutputPath": "somewhere"}}, "pattern: (https|s3)://([^/]+)/?(.*)"),
        ({"CheckpointConfig": {"S3Uri": "s3://no-such-bucket/x"}}, "given in the checkpoint config"),
        ({"OutputDataConfig": {"S3OutputPath": "s3://smkit-sandbox/x", "CompressionType": "NONE"}}, "archives only"),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "'algorithmSpecification.trainingImage'"),
        ({"AlgorithmSpecification": ALGORITHM | {"TrainingInputMode": "Pipe"}}, "no Pipe mode"),
        (
            {"AlgorithmSpecification": ALGORITHM | {"TrainingImage": ALGORITHM["TrainingImage"].replace(".cn/", "/")}},
            "Invalid TrainingImage",
        ),
        (
            {
                "AlgorithmSpecification": ALGORITHM
                | {"TrainingImage": ALGORITHM["TrainingImage"].replace("-cpu-py3", "")}
            },
            "the sandbox runs scikit-learn images",
        ),
        (
            {"AlgorithmSpecification": ALGORITHM | {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=("}]}},
            "Invalid regular expression for metric loss: loss=(",
        ),
        (
            {"AlgorithmSpecification": ALGORITHM | {"MetricDefinitions": [{"Name": "loss", "Regex": "x" * 501}]}},
            "'algorithmSpecification.metricDefinitions.1.member.regex'",
        ),
    ],
)
def test_the_service_refuses(jobs: Jobs, changes: dict[str, Any], message: str) -> None:
    code, text = refusal(jobs, **changes)
    assert code == "ValidationException"
    assert message in text


def test_a_role_must_trust_sagemaker(jobs: Jobs) -> None:
    policy = '{"Statement": [{"Effect": "Allow", "Principal": {"Service": ["ec2.amazonaws.com"]}}]}'
    role = jobs.box.client("iam").create_role(RoleName="for-ec2", AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    assert "Could not assume role" in refusal(jobs, RoleArn=role)[1]


@pytest.mark.parametrize("uri", ["s3://smkit-sandbox/nothing-here", "s3://no-such-bucket/x"])
def test_a_channel_needs_objects(jobs: Jobs, uri: str) -> None:
    code, text = refusal(jobs, InputDataConfig=[jobs.channel("train", uri)])
    assert code == "ValidationException"
    assert text.startswith(f'No S3 objects found under S3 URL "{uri}" given in input data source.')
    assert "in the selected region (cn-northwest-1)" in text


def test_data_that_cannot_be_downloaded_fails_the_job(jobs: Jobs) -> None:
    manifest = f'[{{"prefix": "s3://{jobs.box.bucket}/"}}, "not/there.csv"]'
    channel = jobs.channel("train", jobs.put("a.manifest", manifest), "ManifestFile")
    described = jobs.run(InputDataConfig=[channel])
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: Data download failed:")
    assert [item["Status"] for item in described["SecondaryStatusTransitions"]][-2:] == ["Downloading", "Failed"]


def test_channel_names_are_unique(jobs: Jobs) -> None:
    uri = jobs.put("in/a", "1")
    assert "Duplicate channel name train" in refusal(jobs, InputDataConfig=[jobs.channel("train", uri)] * 2)[1]


def test_a_name_is_taken_for_good(jobs: Jobs) -> None:
    described = jobs.run()
    request = jobs.request(TrainingJobName=described["TrainingJobName"])
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse, match="must be unique") as caught:
        jobs.sagemaker.create_training_job(**request)
    assert described["TrainingJobArn"] in str(caught.value)


@pytest.mark.parametrize("operation", ["describe", "stop", "delete"])
def test_an_unknown_job(jobs: Jobs, operation: str) -> None:
    with pytest.raises(ClientError, match=r"\(ValidationException\).*Requested resource not found\."):
        getattr(jobs.sagemaker, f"{operation}_training_job")(TrainingJobName="nobody")


def test_other_images_are_allowed_on_request(jobs: Jobs) -> None:
    image = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn/mine:7"
    jobs.box.allow_image(lambda uri: uri == image)
    assert jobs.run(AlgorithmSpecification=ALGORITHM | {"TrainingImage": image})["TrainingJobStatus"] == "Completed"


def test_what_is_no_json_is_refused(jobs: Jobs) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", int(jobs.box.endpoint_url.rpartition(":")[2]))
    answers = []
    for body in (b"{", b"[]", b'{"TrainingJobName": 5}'):
        connection.request("POST", "/", body, {"X-Amz-Target": "SageMaker.DescribeTrainingJob"})
        response = connection.getresponse()
        answers.append((response.status, b"SerializationException" in response.read()))
    connection.close()
    assert answers == [(400, True)] * 3


NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


@given(st.text(st.sampled_from("abZ09-_.é \n"), max_size=66) | st.text(max_size=5))
def test_names_are_checked_as_the_model_says(name: str) -> None:
    valid = bool(NAME.fullmatch(name)) and 1 <= len(name) <= 63
    if valid:
        check_request("DescribeTrainingJob", {"TrainingJobName": name})
    else:
        with pytest.raises(ErrorAnswer, match="at 'trainingJobName' failed to satisfy constraint"):
            check_request("DescribeTrainingJob", {"TrainingJobName": name})


@given(st.text(max_size=10))
def test_tags_hold_letters_digits_and_spaces_of_every_script(value: str) -> None:
    import unicodedata

    valid = all(unicodedata.category(letter)[0] in "LZN" or letter in "_.:/=+-@" for letter in value)
    tag = {"ResourceArn": "arn:x", "Tags": [{"Key": "k", "Value": value}]}
    problems = ""
    try:
        check_request("AddTags", tag)
    except ErrorAnswer as error:
        problems = error.message
    assert ("tags.1.member.value" in problems) is not valid


def test_every_pattern_of_the_model_compiles() -> None:
    from smkit.jobs.sagemaker.limits import _compiled

    seen: set[str] = set()

    def walk(shape: Any) -> None:
        if shape.name in seen:
            return
        seen.add(shape.name)
        if pattern := shape.metadata.get("pattern"):
            assert _compiled(pattern, is_ascii=True)
            assert _compiled(pattern, is_ascii=False)
        for inner in [*getattr(shape, "members", {}).values()]:
            walk(inner)
        for side in ("member", "key", "value"):
            if (inner := getattr(shape, side, None)) is not None:
                walk(inner)

    for operation in (
        "CreateTrainingJob",
        "ListTrainingJobs",
        "AddTags",
        "DeleteTags",
        "ListTags",
        "UpdateTrainingJob",
    ):
        walk(service_model().operation_model(operation).input_shape)
    assert "TagValue" in seen
