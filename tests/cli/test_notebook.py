"""What a notebook shows: values as HTML, waiting as one line, errors without the library's frames."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import nbformat
import pyarrow as pa
import pytest
from nbclient import NotebookClient

import smkit
from smkit.display import short_traceback
from smkit.jobs import JobStatus, TrainingJob
from smkit.jobs.job_display import Seen, look_briefly
from tests.artifacts.helpers import fitted
from tests.cli.conftest import HOSTILE, use_sandbox
from tests.datasets.conftest import TableSource

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.testing import Sandbox

MARKUP = "<script>alert(1)</script>&\"'"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
STATE = JobStatus(
    status="Completed",
    secondary_status="Completed",
    reason="",
    exit_code=0,
    log_location=f"https://console/{MARKUP}",
    model_uri="s3://b/model.tar.gz",
    lineage={
        "backend": "sagemaker",
        "entry_point": "train.py",
        "hyperparameters": {"alpha": 0.5, MARKUP: HOSTILE},
        "inputs": {"train": {"dataset": "houses@1", "uri": "s3://b/x"}, "extra": {"uri": "s3://b/extra"}},
        "created": "2026-01-01T00:00:00.000+00:00",
        "instance_type": "ml.m5.large",
    },
    started=START,
    ended=START + timedelta(seconds=61),
    billable_seconds=61,
)


class Page(HTMLParser):
    """Reads HTML, and fails where an element is not closed in its place, or is one that smkit does not write."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert "<script" not in text
        assert not {"\x1b", "\u202e", "\x07"} & set(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"a", "b", "br", "code", "p", "table", "tbody", "td", "th", "thead", "tr"}
        assert {name for name, _ in attrs} <= {"href", "rel", "style", "target"}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " | ".join(self.words)


class Stub:
    """A backend that says one thing."""

    def __init__(self, found: JobStatus | Exception) -> None:
        self.found = found
        self.looks = 0
        self.metric_looks = 0

    def status(self, _: str) -> JobStatus:
        self.looks += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def stop(self, _: str) -> None:
        self.found = replace(STATE, status="Stopping", secondary_status="Stopping")

    def metrics(self, _: str) -> dict[str, float]:
        self.metric_looks += 1
        return {"test:rmse": 0.25}


def job(found: JobStatus | Exception) -> tuple[TrainingJob, Stub]:
    backend = Stub(found)
    return TrainingJob("a-job", backend), backend  # type: ignore[arg-type]


def test_a_job_is_shown_with_one_look_and_escaped() -> None:
    shown, backend = job(STATE)
    assert repr(shown) == "<TrainingJob 'a-job': Completed>"
    page = Page(shown._repr_html_())
    for part in (
        "a-job",
        "Completed",
        "train.py",
        "alpha=0.5",
        "train=houses@1, extra=s3://b/extra",
        "0:01:01",
        "61 s",
    ):
        assert part in page.text
    assert MARKUP in page.text
    # It is over: nothing new can be found, and its metrics would cost reading the log.
    assert (backend.looks, backend.metric_looks) == (1, 0)
    assert "job.metrics" in page.text
    assert shown.metrics == {"test:rmse": 0.25}
    assert "test:rmse=0.25" in Page(shown._repr_html_()).text
    assert backend.looks == 1


def test_a_job_on_this_machine_shows_its_metrics_at_once() -> None:
    shown, _ = job(replace(STATE, lineage={**STATE.lineage, "backend": "local"}))
    assert "test:rmse=0.25" in Page(shown._repr_html_()).text


def test_a_failed_job_shows_its_reason() -> None:
    state = replace(STATE, status="Failed", secondary_status="Failed", reason=f"first {MARKUP}\nsecond", model_uri=None)
    page = Page(job(state)[0]._repr_html_())
    assert "Failed" in page.text
    assert "second" in page.text


def test_a_look_that_fails_or_hangs_breaks_no_display() -> None:
    shown, backend = job(smkit.errors.ServiceUnavailable("away"))
    assert repr(shown) == "<TrainingJob 'a-job'>"
    assert "its state is not known just now" in Page(shown._repr_html_()).text
    backend.found = replace(STATE, status="InProgress", secondary_status="Training")
    assert "(Training)" in Page(shown._repr_html_()).text
    shown.stop()
    assert repr(shown) == "<TrainingJob 'a-job': Stopping>"
    assert repr(pickle.loads(pickle.dumps(shown))) == repr(shown)
    start = time.monotonic()
    seen = Seen(start - 60, replace(STATE, status="InProgress"))
    assert look_briefly(lambda: time.sleep(2) or STATE, seen, 0.05) is seen.state
    assert look_briefly(lambda: time.sleep(2) or STATE, None, 0.05) is None
    assert time.monotonic() - start < 1.9


def test_a_dataset_is_shown_escaped(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], MARKUP: [HOSTILE, "x"]} | {f"column{n}": [0, 0] for n in range(30)})
    builder = smkit.DatasetBuilder("houses", TableSource(table), settings=smkit.Settings(root=str(tmp_path)))
    page = Page(builder.build(progress=False)._repr_html_())
    for part in ("houses@1", "2 rows", "train 2", "int64", "and 12 more columns", MARKUP):
        assert part in page.text


def test_a_model_is_shown_escaped_and_reads_nothing(
    models: smkit.ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.publish("houses", fitted(3.0), notes=f"{MARKUP}\nsecond", labels={"x": MARKUP}, metrics={"test:rmse": 0.25})
    listed = models.versions("houses")
    monkeypatch.setattr("smkit.versioning.VersionLog.manifest", None)
    page = Page(listed[0]._repr_html_())
    for part in ("houses@3", "test:rmse=0.25", MARKUP, "second"):
        assert part in page.text
    assert "houses@3" not in Page(listed[-1]._repr_html_()).text
    Page(listed._repr_html_())


def test_a_short_traceback_has_the_users_frames_and_the_causes(tmp_path: Path) -> None:
    import pandas as pd

    def broken(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.drop(columns="nosuch")

    builder = smkit.DatasetBuilder("x", smkit.FrameSource(pd.DataFrame({"a": [1]})))
    with pytest.raises(smkit.errors.TransformError) as caught:
        builder.map(broken).build()
    text = "\n".join(short_traceback(caught.value))
    assert "builder.map(broken).build()" in text
    assert 'return frame.drop(columns="nosuch")' in text
    assert "direct cause of the following exception" in text
    assert "smkit/datasets/" not in text
    assert "contextlib" not in text
    assert "frames inside smkit are left out: error.__traceback__ has them)" in text
    assert caught.value._render_traceback_() == short_traceback(caught.value)


CELLS = [
    "import smkit\njob = smkit.JobRunner().run('train.py', hyperparameters={'alpha': 0.5}, check=False)\njob",
    "smkit.JobRunner(smkit.Settings(backend='local', root='here')).run('train.py')",
    "smkit.Settings(region='eu')",
    "smkit.JobRunner(smkit.Settings(backend='local', root='here')).run('train.py', hyperparameters={'fail': True})",
]


@pytest.mark.usefixtures("train")
def test_a_real_notebook_shows_one_line_and_no_warning(
    cli_sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_sandbox(cli_sandbox, monkeypatch)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client: Any = NotebookClient(
        notebook, timeout=120, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    for cell, backend in zip(notebook.cells, ("sagemaker", "local"), strict=False):
        kinds = [output.output_type for output in cell.outputs]
        assert kinds.count("display_data") == 1
        assert kinds.count("execute_result") == 1
        # No widget that is missing, no bar in red.
        assert [output.text for output in cell.outputs if output.get("name") == "stderr"] == []
        line = next(output for output in cell.outputs if output.output_type == "display_data")
        assert "Completed" in line["data"]["text/plain"]
        assert "arguments" in "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        page = Page(
            next(output for output in cell.outputs if output.output_type == "execute_result")["data"]["text/html"]
        )
        assert "Completed" in page.text
        assert ("this machine" if backend == "local" else "ml.m5.large") in page.text
    for cell, said in zip(notebook.cells[2:], ("invalid settings", "boom"), strict=True):
        error = next(output for output in cell.outputs if output.output_type == "error")
        told = "\n".join(error["traceback"])
        assert said in told
        assert cell.source in told
        assert len(told.splitlines()) < 15
