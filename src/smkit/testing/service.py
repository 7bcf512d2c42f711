"""SageMaker's operations on training jobs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from smkit.testing.answers import ErrorAnswer, invalid, name_taken, not_found
from smkit.testing.constraints import check_request
from smkit.testing.listing import list_jobs
from smkit.testing.records import TrainingJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.testing.faults import Faults
    from smkit.testing.rules import CreationRules

_MAX_TAGS = 50


class TrainingService:
    """Holds the jobs and answers the operations.

    Args:
        arn_prefix: What the ARN of each job starts with.
        rules: Checks the request for a new job.
        faults: Where a new job's conditions come from.
        launch: Starts a new job.
    """

    def __init__(
        self, arn_prefix: str, rules: CreationRules, faults: Faults, launch: Callable[[TrainingJob], None]
    ) -> None:
        self._arn_prefix = arn_prefix
        self._rules = rules
        self._faults = faults
        self._launch = launch
        self._lock = threading.Lock()
        self._jobs: dict[str, TrainingJob] = {}
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": lambda body: self.job(body["TrainingJobName"]).describe(),
            "StopTrainingJob": self._stop,
            "UpdateTrainingJob": self._update,
            "DeleteTrainingJob": self._delete,
            "ListTrainingJobs": self._list,
        }
        self._tag_operations: dict[str, Callable[[TrainingJob, dict[str, Any]], dict[str, Any]]] = {
            "AddTags": self._add_tags,
            "DeleteTags": self._delete_tags,
            "ListTags": lambda job, _: {"Tags": _tags(job)},
        }

    def answers(self, operation: str, body: dict[str, Any]) -> bool:
        """Tell whether this service, not moto, answers a request."""
        if operation in self._tag_operations:
            return ":training-job/" in str(body.get("ResourceArn"))
        return operation in self._operations

    def answer(self, operation: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Answer a request; None is an empty answer.

        Raises:
            ErrorAnswer: The service refuses it.
        """
        check_request(operation, body)
        if operation in self._tag_operations:
            arn = body["ResourceArn"]
            name = arn.rpartition("/")[2]
            if arn != self._arn_prefix + name:
                raise not_found()
            return self._tag_operations[operation](self.job(name), body)
        return self._operations[operation](body)

    def job(self, name: str) -> TrainingJob:
        """Return a job.

        Raises:
            ErrorAnswer: There is none of this name.
        """
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise not_found()
        return job

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["TrainingJobName"]
        self._rules.check(body)
        with self._lock:
            if name in self._jobs:
                raise name_taken(self._jobs[name].arn)
            job = TrainingJob(body, self._arn_prefix + name, self._faults.take_conditions())
            if job.conditions.interrupt_after is not None and not body.get("EnableManagedSpotTraining"):
                raise invalid("the sandbox interrupts spot jobs only: set EnableManagedSpotTraining")
            self._jobs[name] = job
        self._launch(job)
        return {"TrainingJobArn": job.arn}

    def _stop(self, body: dict[str, Any]) -> None:
        job = self.job(body["TrainingJobName"])
        if job.is_final:
            raise invalid(f"The request was rejected because the training job is in status {job.status}.")
        job.stopping()
        job.stop_requested.set()

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.job(body["TrainingJobName"])
        seconds = (body.get("ResourceConfig") or {}).get("KeepAlivePeriodInSeconds")
        if set(body) - {"TrainingJobName", "ResourceConfig"} or seconds is None:
            raise invalid("the sandbox updates ResourceConfig.KeepAlivePeriodInSeconds only")
        if job.warm_pool != "Available":
            raise invalid(f"The warm pool of training job {job.name} cannot be updated: it is not Available")
        job.set_keep_alive(seconds)
        return {"TrainingJobArn": job.arn}

    def _delete(self, body: dict[str, Any]) -> None:
        job = self.job(body["TrainingJobName"])
        if not job.is_final or job.warm_pool == "Available":
            state = job.status if not job.is_final else "retaining a warm pool"
            raise ErrorAnswer("ResourceInUse", f"Training job {job.name} cannot be deleted: it is {state}")
        with self._lock:
            self._jobs.pop(job.name, None)

    def _list(self, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            jobs = list(self._jobs.values())
        return list_jobs([job.summary() for job in jobs], body)

    @staticmethod
    def _add_tags(job: TrainingJob, body: dict[str, Any]) -> dict[str, Any]:
        tags = job.tags | {tag["Key"]: tag["Value"] for tag in body["Tags"]}
        if len(tags) > _MAX_TAGS:
            raise ErrorAnswer("ResourceLimitExceeded", f"a training job has at most {_MAX_TAGS} tags")
        job.tags = tags
        return {"Tags": _tags(job)}

    @staticmethod
    def _delete_tags(job: TrainingJob, body: dict[str, Any]) -> dict[str, Any]:
        job.tags = {key: value for key, value in job.tags.items() if key not in body["TagKeys"]}
        return {}


def _tags(job: TrainingJob) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in job.tags.items()]
