"""What waiting for a job shows, on a scripted backend, in a real terminal and elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import types
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest

from smkit.errors import AccessDenied, JobLogWarning, ServiceUnavailable, TrainingFailed, TrainingTimeout, WaitTimeout
from smkit.jobs import TrainingJob
from smkit.jobs.backend import JobStatus, LogPage, Watching
from smkit.jobs.failure import split_toolkits_report
from smkit.jobs.progress import Progress

ROOT = Path(__file__).parents[2]
QUICK = Watching(0.0, 0.0, announces_phases=True)


def state(status: str, secondary: str = "", **more: Any) -> JobStatus:
    return JobStatus(status, secondary or status, more.pop("reason", ""), None, "the log", **more)  # type: ignore[arg-type]


class Scripted:
    """A backend that goes through states; with each, the log grows."""

    stops_on_interrupt: ClassVar[bool] = False

    def __init__(self, *looks: tuple[JobStatus | Exception, str | Exception], watching: Watching = QUICK) -> None:
        self.looks = list(looks)
        self.watching = watching
        self.log = b""
        self.log_error: Exception | None = None
        self.current = state("InProgress")

    def status(self, _: str) -> JobStatus:
        if self.looks:
            found, text = self.looks.pop(0)
            self.log_error = text if isinstance(text, Exception) else None
            self.log += b"" if isinstance(text, Exception) else text.encode()
            if isinstance(found, Exception):
                raise found
            self.current = found
        return self.current

    def metrics(self, _: str) -> dict[str, float]:
        return {}

    def logs(self, _: str, position: Any = None) -> LogPage:
        if self.log_error is not None:
            raise self.log_error
        return LogPage(self.log[position or 0 :], len(self.log))


def job(*looks: Any, watching: Watching = QUICK) -> TrainingJob:
    backend: Any = Scripted(*looks, watching=watching)
    return TrainingJob("a", backend)


RUN = [
    (state("InProgress", "Starting"), ""),
    (state("InProgress", "Starting"), ""),
    (state("InProgress", "Training"), "one\ntw"),
    (state("InProgress", "Training"), "o\n"),
    (state("Completed", billable_seconds=61), "three"),
]


def test_a_log_file_gets_a_line_for_each_phase(capsys: pytest.CaptureFixture[str]) -> None:
    job(*RUN).wait()
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\nthree"
    assert shown.err == "job 'a': Starting, 0:00\njob 'a': Training, 0:00\njob 'a': Completed, 0:00, 61 s billed\n"


def test_a_job_with_short_phases_and_a_quiet_caller_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    job(*RUN, watching=Watching(0.0, 0.0)).wait()
    assert capsys.readouterr().err == ""
    job(*RUN).wait(logs=False)
    assert job(*RUN).result().status == "Completed"
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


TERMINAL = """
import sys
from tests.jobs.test_progress import RUN, job
job(*RUN).wait()
"""


def test_a_terminal_gets_the_log_above_a_line_that_is_updated() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", TERMINAL], stdout=theirs, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # Linux says so where the other end is closed
    finally:
        os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    screen: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        # A carriage return begins the line anew.
        row = ""
        for part in line.split("\r"):
            row = part + row[len(part) :]
        screen.append(row.rstrip())
    assert [row for row in screen if row] == ["one", "two", "three", "job 'a': Completed, 0:00, 61 s billed"]
    assert "job 'a': Starting, 0:00" in text


def test_a_notebook_is_live_although_it_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert Progress("a", announces_phases=True)._is_live
    assert not Progress("a", announces_phases=True, quiet=True)._is_live
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    monkeypatch.setattr(sys, "stderr", None)
    assert not Progress("a", announces_phases=True)._is_live


def test_pauses_grow_and_never_outlast_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    monkeypatch.setattr("smkit.jobs.job.time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    watching = Watching(2.0, 10.0, quick_for=5.0)
    with pytest.raises(WaitTimeout, match="not over after 40 s; it goes on"):
        job(watching=watching).wait(timeout=40, logs=False)
    assert slept == [2.0, 2.0, 2.0, 3.0, 4.5, 6.75, 10.0, 9.75]


def test_late_lines_are_waited_for_but_not_after_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(
        "smkit.jobs.job.time",
        types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)),
    )
    watching = Watching(1.0, 1.0, settling=5.0, last_line="THE END")
    over = state("Completed", ended=datetime.now(timezone.utc))
    late = job((over, "early\n"), (over, ""), (over, "late\n"), (over, "THE END\n"), watching=watching)
    assert list(late.logs(follow=True)) == ["early", "late", "THE END"]
    assert now[0] == 103.0
    without = job((over, "early\n"), watching=watching)
    assert list(without.logs(follow=True)) == ["early"]
    assert 107.0 < now[0] <= 108.0
    long_ago = state("Completed", ended=datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert list(job((long_ago, "old\n"), watching=watching).logs(follow=True)) == ["old"]
    assert 107.0 < now[0] <= 108.0


def test_a_log_that_is_denied_is_said_once_and_waiting_goes_on() -> None:
    denied = AccessDenied("no")
    looks = [(state("InProgress"), denied), (state("InProgress"), denied), (state("Completed"), denied)]
    with pytest.warns(JobLogWarning, match="the log of job 'a' is not shown: no") as caught:
        job(*looks).wait()
    assert len(caught) == 1
    with pytest.raises(AccessDenied):
        list(job(*looks).logs(follow=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # This one may pass.
        job((state("InProgress"), ServiceUnavailable("no")), (state("Completed"), "all\n")).wait()


def test_a_service_that_does_not_answer_is_asked_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "smkit.jobs.job.time",
        types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)),
    )
    watching = Watching(2.0, 10.0)
    away = (ServiceUnavailable("away"), "")
    assert job(*[away] * 20, (state("Completed"), ""), watching=watching).wait(logs=False).status == "Completed"
    with pytest.raises(ServiceUnavailable, match="away"):
        job(*[away] * 100, watching=watching).wait(logs=False)
    assert now[0] < 200 + 600 + 20


def test_a_log_that_is_out_of_reach_when_the_job_ends_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    for module in ("job", "log_reader"):
        monkeypatch.setattr(f"smkit.jobs.{module}.time", clock)
    away, over = ServiceUnavailable("throttled"), state("Completed")
    watching = Watching(2.0, 10.0)
    looks = [(state("InProgress"), "one\n"), (over, away), (over, away), (over, "two\n")]
    job(*looks, watching=watching).wait()
    assert capsys.readouterr().out == "one\ntwo\n"
    assert list(job(*looks, watching=watching).logs(follow=True)) == ["one", "two"]
    began = now[0]
    with pytest.warns(JobLogWarning, match="throttled"):
        job((over, away), *[(over, away)] * 500, watching=watching).wait()
    with pytest.raises(ServiceUnavailable, match="throttled"):
        list(job((over, away), *[(over, away)] * 500, watching=watching).logs(follow=True))
    assert 1200 <= now[0] - began < 1250
    with pytest.raises(ServiceUnavailable, match="throttled"):
        list(job((over, away)).logs())


REPORT = [
    "2026-01-01 10:00:00,123 sagemaker-containers ERROR    Reporting training FAILURE",
    "2026-01-01 10:00:00,123 sagemaker-containers ERROR    framework error: ",
    "Traceback (most recent call last):",
    '  File "/miniconda3/lib/python3/site-packages/sagemaker_containers/_trainer.py", line 84, in train',
    "    entrypoint()",
    "sagemaker_training.errors.ExecuteUserScriptError: ExecuteUserScriptError:",
    "ExitCode 1",
    'ErrorMessage ""',
]
TRACE = ["Traceback (most recent call last):", '  File "train.py", line 1, in <module>', "ValueError: x"]
#: Cut at 1,024 characters, before it says anything of the script.
REASON = 'AlgorithmError: framework error: \nTraceback (most recent call last):\n  File "/miniconda3'


def test_the_toolkits_report_is_not_the_cause() -> None:
    assert split_toolkits_report(["out", *TRACE, *REPORT]) == (["out", *TRACE], REPORT)
    assert split_toolkits_report(TRACE) == (TRACE, [])
    log = "\n".join(["out", *TRACE, *REPORT])
    with pytest.raises(TrainingFailed) as caught:
        job((state("Failed", reason=REASON), log)).wait(logs=False)
    assert (caught.value.exit_code, caught.value.traceback) == (1, "\n".join(TRACE))
    assert str(caught.value).splitlines() == [
        "job 'a' failed: AlgorithmError: the script exited with code 1",
        *TRACE,
        "The whole log: the log",
    ]
    with pytest.raises(TrainingFailed, match=r"^job 'a' failed: AlgorithmError: the script failed\nThe whole log"):
        job((state("Failed", reason=REASON), "")).wait(logs=False)
    with pytest.raises(TrainingFailed, match="ClientError: cannot pull\nthe image"):
        job((state("Failed", reason="ClientError: cannot pull\nthe image"), "")).wait(logs=False)


def test_waiting_too_long_for_spot_capacity_is_a_timeout() -> None:
    with pytest.raises(TrainingTimeout, match="was stopped: too long"):
        job((state("Stopped", "MaxWaitTimeExceeded", reason="too long"), "")).wait(logs=False)
