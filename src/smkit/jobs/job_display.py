"""How a job is shown in a notebook, and how long that may take."""

from __future__ import annotations

import html
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from smkit.display import Markup, html_fields, html_text, printable, shown, shown_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from smkit.jobs.backend import JobStatus

#: A cell's display must not hang where the service does not answer: boto3 alone would try for minutes.
LOOK_SECONDS = 3.0
#: Jupyter asks for the text and for the HTML of one value, one right after the other.
_FRESH_SECONDS = 1.0
_ASK = Markup("<code>job.metrics</code> reads them")
_COLORS = {"Completed": "#2e7d32", "Failed": "#c62828", "Stopped": "#b26a00", "Stopping": "#b26a00"}


class Seen(NamedTuple):
    """What the last look at a job found.

    Args:
        at: When, in `time.monotonic()`'s seconds.
        state: The job's state.
    """

    at: float
    state: JobStatus


def look_briefly(look: Callable[[], JobStatus], seen: Seen | None, seconds: float = LOOK_SECONDS) -> JobStatus | None:
    """Return a job's state for a display: it never raises, and never takes longer than some seconds.

    Args:
        look: Returns the state, or raises.
        seen: What the last look found; it counts where the job was over, where it is fresh, and where no new look
            succeeds.
        seconds: How long a new look may take.

    Returns:
        The state, or None where it is not known.
    """
    if seen is not None and (seen.state.is_final or time.monotonic() - seen.at < _FRESH_SECONDS):
        return seen.state
    found: list[JobStatus] = []

    def try_to_look() -> None:
        try:
            found.append(look())
        except Exception:  # noqa: BLE001 - a display shows what is known; who needs the reason asks job.status
            return

    thread = threading.Thread(target=try_to_look, name="smkit-look", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else seen.state if seen is not None else None


def job_html(name: str, state: JobStatus | None, metrics: Callable[[JobStatus], Mapping[str, float]]) -> str:
    """Return a job as HTML.

    Args:
        name: The job's name.
        state: Its state; None where it is not known.
        metrics: Returns its metrics, those that cost no request.
    """
    title = f"job <code>{html_text(name)}</code>"
    if state is None:
        return f"<p>{title}: its state is not known just now; ask <code>job.status</code></p>"
    color = _COLORS.get(state.status, "inherit")
    lineage = state.lineage
    fields: dict[str, str | None] = {
        "reason": state.reason or None,
        "metrics": _pairs(_or_none(metrics, state)) or (_ASK if state.status == "Completed" else None),
        "script": lineage.get("entry_point"),
        "hyperparameters": _pairs(lineage.get("hyperparameters")),
        "inputs": _pairs({key: _source(value) for key, value in (lineage.get("inputs") or {}).items()}),
        "created (UTC)": shown_time(lineage.get("created") or "") or None,
        "duration": shown_duration(state.started, state.ended),
        "runs on": _place(lineage),
        "billed": f"{state.billable_seconds} s" if state.billable_seconds else None,
        "model": state.model_uri,
        "log": _link(state.log_location),
    }
    status = f'<b style="color: {color}">{html_text(state.status)}</b>'
    secondary = state.secondary_status if state.secondary_status not in {"", state.status} else ""
    return f"<p>{title}: {status}{' ' + html_text(f'({secondary})') if secondary else ''}</p>{html_fields(fields)}"


def shown_duration(started: datetime | None, ended: datetime | None) -> str | None:
    """Return how long a job took, as `0:01:07`; None where that is not known."""
    return None if started is None or ended is None else str(ended - started).partition(".")[0]


def _or_none(metrics: Callable[[JobStatus], Mapping[str, float]], state: JobStatus) -> Mapping[str, float] | None:
    try:
        return metrics(state)
    except Exception:  # noqa: BLE001 - as in look_briefly
        return None


def _pairs(values: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{shown(name)}={shown(value)}" for name, value in (values or {}).items()) or None


def _source(value: Any) -> str:
    """Return what an input is: a dataset's reference, else where it lies."""
    if not isinstance(value, dict):
        return shown(value)
    return shown(value.get("dataset") or value.get("uri"))


def _place(lineage: Mapping[str, Any]) -> str | None:
    if lineage.get("backend") == "local":
        return "this machine"
    return lineage.get("instance_type")


def _link(location: str) -> str:
    if not location.startswith("https://"):
        return location
    text = html.escape(printable(location))
    return Markup(f'<a href="{text}" target="_blank" rel="noopener">{text}</a>')
