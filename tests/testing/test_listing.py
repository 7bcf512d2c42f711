from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from tests.testing.conftest import Jobs


@pytest.fixture(scope="module")
def three(shared_jobs: Jobs) -> list[dict[str, Any]]:
    """Three jobs: completed, failed, completed."""
    return [
        shared_jobs.run(code, TrainingJobName=f"listed-{letter}")
        for letter, code in (("b", ""), ("c", "raise SystemExit(3)"), ("a", ""))
    ]


def names(answer: dict[str, Any]) -> list[str]:
    return [item["TrainingJobName"][-1] for item in answer["TrainingJobSummaries"]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "bca"),
        ({"SortOrder": "Descending"}, "acb"),
        ({"SortBy": "Name"}, "abc"),
        ({"SortBy": "Name", "SortOrder": "Descending"}, "cba"),
        ({"SortBy": "Status"}, "abc"),
        ({"StatusEquals": "Completed"}, "ba"),
        ({"StatusEquals": "Stopped"}, ""),
    ],
)
def test_filters_and_order(jobs: Jobs, three: list[Any], arguments: dict[str, str], expected: str) -> None:
    assert "".join(names(jobs.sagemaker.list_training_jobs(NameContains="LISTED-", **arguments))) == expected


def test_times_are_bounds(jobs: Jobs, three: list[Any]) -> None:
    middle = three[1]["CreationTime"]
    answer = jobs.sagemaker.list_training_jobs(NameContains="listed-", CreationTimeAfter=middle)
    assert "b" not in names(answer)
    answer = jobs.sagemaker.list_training_jobs(NameContains="listed-", CreationTimeBefore=middle)
    assert "a" not in names(answer)


@pytest.mark.parametrize("order", ["Ascending", "Descending"])
@pytest.mark.parametrize("sort_by", ["Name", "CreationTime", "Status"])
def test_pages_hold_each_job_once(jobs: Jobs, three: list[Any], sort_by: str, order: str) -> None:
    pages = jobs.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains="listed-", SortBy=sort_by, SortOrder=order, MaxResults=2
    )
    found = [names(page) for page in pages]
    assert [len(page) for page in found] == [2, 1]
    whole = jobs.sagemaker.list_training_jobs(NameContains="listed-", SortBy=sort_by, SortOrder=order)
    assert [name for page in found for name in page] == names(whole)


def test_a_summary_has_what_the_service_tells(jobs: Jobs, three: list[dict[str, Any]]) -> None:
    (item,) = jobs.sagemaker.list_training_jobs(NameContains="listed-c")["TrainingJobSummaries"]
    described = three[1]
    assert item == {
        member: described[member]
        for member in (
            "TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime",
            "TrainingJobStatus", "SecondaryStatus",
        )
    }  # fmt: skip


@pytest.mark.parametrize("token", ["nonsense", base64.b64encode(b'["Name", ["a", "a"]]').decode()])
def test_a_strange_token_is_refused(jobs: Jobs, token: str) -> None:
    with pytest.raises(ClientError, match=r"\(ValidationException\).*NextToken"):
        jobs.sagemaker.list_training_jobs(NextToken=token)


def test_tags(jobs: Jobs) -> None:
    arn = jobs.run(Tags=[{"Key": "team", "Value": "houses"}])["TrainingJobArn"]
    jobs.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "flats"}, {"Key": "n", "Value": "1"}])
    jobs.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["n", "unknown"])
    assert jobs.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "flats"}]
    too_many = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
    with pytest.raises(ClientError, match="at most 50 tags"):
        jobs.sagemaker.add_tags(ResourceArn=arn, Tags=too_many)
    with pytest.raises(ClientError, match="Requested resource not found"):
        jobs.sagemaker.list_tags(ResourceArn=arn.replace("cn-northwest-1", "cn-north-1"))


def test_a_job_that_is_over_can_be_deleted(jobs: Jobs) -> None:
    name = jobs.create("import time; time.sleep(60)")
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse):
        jobs.sagemaker.delete_training_job(TrainingJobName=name)
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    jobs.box.wait(name)
    jobs.sagemaker.delete_training_job(TrainingJobName=name)
    assert jobs.sagemaker.list_training_jobs(NameContains=name)["TrainingJobSummaries"] == []
    assert jobs.run(TrainingJobName=name)["TrainingJobStatus"] == "Completed"


def test_a_warm_pool_is_kept_until_it_is_given_up(jobs: Jobs) -> None:
    resources = {
        "InstanceType": "ml.m5.large",
        "InstanceCount": 1,
        "VolumeSizeInGB": 10,
        "KeepAlivePeriodInSeconds": 60,
    }
    described = jobs.run(ResourceConfig=resources)
    name = described["TrainingJobName"]
    assert described["WarmPoolStatus"]["Status"] == "Available"
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse):
        jobs.sagemaker.delete_training_job(TrainingJobName=name)
    jobs.sagemaker.update_training_job(TrainingJobName=name, ResourceConfig={"KeepAlivePeriodInSeconds": 0})
    described = jobs.sagemaker.describe_training_job(TrainingJobName=name)
    assert described["WarmPoolStatus"]["Status"] == "Terminated"
    assert described["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 0
    with pytest.raises(ClientError, match="not Available"):
        jobs.sagemaker.update_training_job(TrainingJobName=name, ResourceConfig={"KeepAlivePeriodInSeconds": 60})
