from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from smkit.errors import ConfigError
from smkit.testing import JobConditions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.testing.conftest import Jobs


def test_throttling_passes_after_its_times(jobs: Jobs) -> None:
    name = jobs.run()["TrainingJobName"]
    jobs.box.throttle("DescribeTrainingJob", times=2)
    for _ in range(2):
        with pytest.raises(ClientError, match=r"\(ThrottlingException\).*Rate exceeded") as caught:
            jobs.sagemaker.describe_training_job(TrainingJobName=name)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert jobs.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Completed"


def test_a_breakdown_is_an_http_5xx(jobs: Jobs) -> None:
    jobs.box.break_down("ListTrainingJobs", status=503)
    with pytest.raises(ClientError, match=r"\(ServiceUnavailable\)") as caught:
        jobs.sagemaker.list_training_jobs()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    jobs.sagemaker.list_training_jobs()


def test_a_lost_reply_leaves_the_job(jobs: Jobs) -> None:
    jobs.box.lose_reply()
    request = jobs.request()
    with pytest.raises(ConnectionClosedError):
        jobs.sagemaker.create_training_job(**request)
    assert jobs.box.wait(request["TrainingJobName"])["TrainingJobStatus"] == "Completed"
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse):
        jobs.sagemaker.create_training_job(**request)


def test_the_retry_of_boto3_meets_its_own_job(jobs: Jobs) -> None:
    jobs.box.lose_reply()
    request = jobs.request()
    before = len(jobs.box.requests("CreateTrainingJob"))
    with pytest.raises(ClientError, match=r"\(ResourceInUse\)"):
        jobs.box.client("sagemaker").create_training_job(**request)
    assert jobs.box.requests("CreateTrainingJob")[before:] == (request, request)
    jobs.box.wait(request["TrainingJobName"])


@pytest.mark.parametrize(
    ("arrange", "code", "text"),
    [
        (
            lambda box: box.exceed_quota(),
            "ResourceLimitExceeded",
            "The account-level service limit 'ml.m5.large for training job usage' is 0 Instances",
        ),
        (
            lambda box: box.deny("CreateTrainingJob"),
            "AccessDeniedException",
            "is not authorized to perform: sagemaker:CreateTrainingJob on resource: arn:aws-cn:sagemaker:",
        ),
        (lambda box: box.expire_token(), "ExpiredTokenException", "security token included in the request is expired"),
        (
            lambda box: box.reject_field("VolumeSizeInGB"),
            "ValidationException",
            "VolumeSizeInGB is currently not supported in cn-northwest-1",
        ),
    ],
)
def test_a_new_job_is_refused_until_recovery(jobs: Jobs, arrange: Callable, code: str, text: str) -> None:
    arrange(jobs.box)
    request = jobs.request()
    with pytest.raises(ClientError) as caught:
        jobs.sagemaker.create_training_job(**request)
    assert caught.value.response["Error"]["Code"] == code
    assert text in caught.value.response["Error"]["Message"]
    jobs.box.recover()
    jobs.sagemaker.create_training_job(**request)
    jobs.box.wait(request["TrainingJobName"])


def test_a_rejected_field_harms_no_request_without_it(jobs: Jobs) -> None:
    jobs.box.reject_field("Environment")
    assert jobs.run()["TrainingJobStatus"] == "Completed"
    with pytest.raises(ClientError, match="Environment is currently not supported"):
        jobs.create(Environment={"A": "b"})


def test_faults_reach_the_logs_too(jobs: Jobs) -> None:
    name = jobs.run("print('hello')")["TrainingJobName"]
    jobs.box.deny("GetLogEvents", times=1)
    with pytest.raises(ClientError, match=r"\(AccessDeniedException\).*logs:GetLogEvents"):
        jobs.log(name)
    assert "hello" in jobs.log(name)


def test_requests_are_kept_refused_ones_too(jobs: Jobs) -> None:
    jobs.box.exceed_quota()
    before = len(jobs.box.requests("CreateTrainingJob"))
    request = jobs.request()
    with pytest.raises(ClientError):
        jobs.sagemaker.create_training_job(**request)
    assert jobs.box.requests("CreateTrainingJob")[before:] == (request,)
    assert jobs.box.requests("NoSuchOperation") == ()


def test_there_is_no_capacity(jobs: Jobs) -> None:
    jobs.box.next_job(JobConditions(capacity_error=True))
    described = jobs.run()
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity")
    assert "TrainingStartTime" not in described
    assert "TrainingTimeInSeconds" not in described
    assert jobs.run()["TrainingJobStatus"] == "Completed"


def test_an_image_that_cannot_be_pulled(jobs: Jobs) -> None:
    jobs.box.next_job(JobConditions(image_pull_error=True))
    described = jobs.run()
    assert described["TrainingJobStatus"] == "Failed"
    assert "Cannot pull algorithm container" in described["FailureReason"]


def test_a_slow_image_keeps_the_job_in_starting(jobs: Jobs) -> None:
    jobs.box.next_job(JobConditions(image_pull_seconds=60))
    name = jobs.create()
    described = jobs.sagemaker.describe_training_job(TrainingJobName=name)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("InProgress", "Starting")
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    stopped = jobs.box.wait(name)
    assert [item["Status"] for item in stopped["SecondaryStatusTransitions"]] == ["Starting", "Stopping", "Stopped"]
    assert "ModelArtifacts" not in stopped
    assert jobs.uploaded(name) == set()


@pytest.mark.parametrize("times", [0, -1, 1.5, True, "1"])
def test_times_are_whole_and_positive(jobs: Jobs, times: object) -> None:
    with pytest.raises(ConfigError, match="times"):
        jobs.box.throttle("CreateTrainingJob", times=times)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_conditions_are_checked(seconds: float) -> None:
    with pytest.raises(ConfigError, match="image_pull_seconds"):
        JobConditions(image_pull_seconds=seconds)


def test_only_a_spot_job_can_be_interrupted(jobs: Jobs) -> None:
    jobs.box.next_job(JobConditions(interrupt_after=1))
    with pytest.raises(ClientError, match="EnableManagedSpotTraining"):
        jobs.create()
