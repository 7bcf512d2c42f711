"""What the sandbox's SageMaker says when it refuses: codes and texts of the real service, as far as they are public."""

from __future__ import annotations


class ErrorAnswer(Exception):
    """An error answer.

    Args:
        code: The error code that botocore shows, such as `ValidationException`.
        message: The text.
        status: The HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> ErrorAnswer:
    """Return a `ValidationException`."""
    return ErrorAnswer("ValidationException", message)


def not_found() -> ErrorAnswer:
    """Return what the service answers for an unknown job; the documented `ResourceNotFound` is not what it sends."""
    return invalid("Requested resource not found.")


def name_taken(arn: str) -> ErrorAnswer:
    """Return the refusal of a second job of one name."""
    return ErrorAnswer(
        "ResourceInUse",
        "Job name must be unique within an AWS account and region, and a training job with this name already exists "
        f"({arn})",
    )


def quota_exceeded(instance_type: str) -> ErrorAnswer:
    """Return the refusal of an account without instances of the type."""
    return ErrorAnswer(
        "ResourceLimitExceeded",
        f"The account-level service limit '{instance_type} for training job usage' is 0 Instances, with current "
        "utilization of 0 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an "
        "increase for this quota. If AWS Service Quotas is not available, contact AWS support to request an increase "
        "for this quota.",
    )
