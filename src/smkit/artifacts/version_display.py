"""How a model version is shown in a notebook: nothing is read for it that a list does not know already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smkit.display import html_fields, html_text, shown, shown_size, shown_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.artifacts.version import ModelVersion


def version_html(version: ModelVersion) -> str:
    """Return a version as HTML: its metrics, hyperparameters, and where it comes from."""
    fields = {
        "metrics": _pairs(version.metrics),
        "hyperparameters": _pairs(version.hyperparameters),
        "datasets": ", ".join(version.datasets) or None,
        "job": version.job.get("job_name"),
        "published (UTC)": f"{shown_time(version.created_at)} by {version.created_by}",
        "labels": _pairs(version.labels),
        "notes": version.notes or None,
        "size": shown_size(version.size),
        "digest": version.digest,
    }
    return f"<p>model <code>{html_text(version.ref)}</code></p>{html_fields(fields)}"


def _pairs(values: Mapping[str, Any]) -> str | None:
    return ", ".join(f"{shown(name)}={shown(value)}" for name, value in sorted(values.items())) or None
