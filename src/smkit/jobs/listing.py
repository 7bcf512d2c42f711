"""The jobs of a store as one list, which a notebook shows as a table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, SupportsIndex, overload

from smkit.display import MISSING, html_table, shown, shown_time
from smkit.jobs.job import TrainingJob
from smkit.jobs.job_display import look_briefly, shown_duration

if TYPE_CHECKING:
    from smkit.jobs.backend import JobStatus

#: Each costs a look at the job.
_HTML_ROWS = 20
_LOOKS_AT_ONCE = 10
_REPR_NAMES = 3


class TrainingJobs(list[TrainingJob]):
    """A list of jobs, newest first; in a notebook a table of how the first of them stand."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> TrainingJob: ...

    @overload
    def __getitem__(self, index: slice) -> TrainingJobs: ...

    def __getitem__(self, index: SupportsIndex | slice) -> TrainingJob | TrainingJobs:
        return TrainingJobs(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def __repr__(self) -> str:
        # Not list's, which would look at every job, one after the other.
        if not self:
            return "<TrainingJobs: none>"
        names = [job.name for job in self[:_REPR_NAMES]]
        more = ["..."] if len(self) > len(names) else []
        return f"<TrainingJobs: {len(self)}, {', '.join(names + more)}>"

    def _repr_html_(self) -> str:
        if not self:
            return "<p>no jobs</p>"
        listed = self[:_HTML_ROWS]
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            states = list(pool.map(lambda job: look_briefly(job.state, None), listed))
        rows = [_row(job, state) for job, state in zip(listed, states, strict=True)]
        more = len(self) - len(listed)
        table = html_table(["name", "status", "created (UTC)", "duration", "script"], rows)
        return table + (f"<p>and {more:,} more</p>" if more else "")


def _row(job: TrainingJob, state: JobStatus | None) -> list[str]:
    if state is None:
        return [shown(job.name), "not known just now", MISSING, MISSING, MISSING]
    created = state.lineage.get("created")
    return [
        shown(job.name),
        state.status,
        shown_time(created) if created else MISSING,
        shown_duration(state.started, state.ended) or MISSING,
        shown(state.lineage.get("entry_point")),
    ]
