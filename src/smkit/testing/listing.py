"""ListTrainingJobs: filters, order and pages."""

from __future__ import annotations

import base64
import json
from typing import Any

from smkit.testing.answers import invalid

_DEFAULT_PAGE = 10
_KEYS = {"Name": "TrainingJobName", "CreationTime": "CreationTime", "Status": "TrainingJobStatus"}


def list_jobs(summaries: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
    """Return one page of the jobs that match.

    Raises:
        ErrorAnswer: `NextToken` is not one of this service.
    """
    field = _KEYS[body.get("SortBy", "CreationTime")]
    descending = body.get("SortOrder", "Ascending") == "Descending"

    def position(summary: dict[str, Any]) -> list[Any]:
        return [summary[field], summary["TrainingJobName"]]

    found = sorted((item for item in summaries if _matches(item, body)), key=position, reverse=descending)
    if "NextToken" in body:
        after = _read_token(body["NextToken"], field)
        # By position, not by number: jobs that were created meanwhile move no other.
        found = [item for item in found if (position(item) < after if descending else position(item) > after)]
    size = body.get("MaxResults", _DEFAULT_PAGE)
    page: dict[str, Any] = {"TrainingJobSummaries": found[:size]}
    if len(found) > size:
        page["NextToken"] = base64.urlsafe_b64encode(json.dumps([field, position(found[size - 1])]).encode()).decode()
    return page


def _matches(item: dict[str, Any], body: dict[str, Any]) -> bool:
    return (
        body.get("NameContains", "").lower() in item["TrainingJobName"].lower()
        and body.get("StatusEquals", item["TrainingJobStatus"]) == item["TrainingJobStatus"]
        and item["CreationTime"] >= body.get("CreationTimeAfter", item["CreationTime"])
        and item["CreationTime"] <= body.get("CreationTimeBefore", item["CreationTime"])
        and item["LastModifiedTime"] >= body.get("LastModifiedTimeAfter", item["LastModifiedTime"])
        and item["LastModifiedTime"] <= body.get("LastModifiedTimeBefore", item["LastModifiedTime"])
        and body.get("WarmPoolStatusEquals") in {None, item.get("WarmPoolStatus", {}).get("Status")}
    )


def _read_token(token: str, field: str) -> list[Any]:
    try:
        of_field, position = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError):
        raise invalid("Invalid NextToken.") from None
    if of_field != field or not isinstance(position, list):
        raise invalid("Invalid NextToken: it belongs to another SortBy.")
    return position
