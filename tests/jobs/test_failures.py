"""Scripts that fail, hang, hide and get stopped, in real processes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from smkit.config import Settings
from smkit.errors import DuplicateJobError, TrainingFailed, TrainingStopped, TrainingTimeout
from smkit.jobs import JobRunner, supervisor
from smkit.jobs.failure import find_cause, find_traceback
from tests.jobs.conftest import SAVE_MODEL, processes_in

if TYPE_CHECKING:
    from tests.jobs.conftest import Script

#: Starts a child that holds stdout open, and one that leaves the process group.
CHILDREN = (
    "import subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
)


def fail(runner: JobRunner, path: str, **options: Any) -> TrainingFailed:
    with pytest.raises(TrainingFailed) as caught:
        runner.run(path, **options)
    return caught.value


def state_of(runner: JobRunner, error: TrainingFailed) -> dict[str, Any]:
    return runner.attach(error.job_name).describe()


def test_an_exception_shows_the_scripts_own_traceback(runner: JobRunner, script: Script) -> None:
    error = fail(
        runner,
        script(
            """
            def inner():
                raise KeyError("first")
            try:
                inner()
            except KeyError as cause:
                raise ValueError("second\\nline") from cause
            """
        ),
    )
    assert error.exit_code == 1
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert "KeyError: 'first'" in error.traceback
    assert error.traceback.endswith("ValueError: second\nline")
    # The log was shown: only what went wrong is said again.
    assert str(error).splitlines() == [
        f"job {error.job_name!r} failed: the script exited with code 1",
        "ValueError: second",
        "line",
        f"The whole log: {error.log_path}",
    ]
    with pytest.raises(TrainingFailed) as caught:
        runner.attach(error.job_name).wait(logs=False)
    assert error.traceback in str(caught.value)
    assert caught.value.traceback == error.traceback
    assert Path(error.log_path).read_text().rstrip().endswith("line")
    state = state_of(runner, error)
    assert (state["status"], state["exit_code"], state["model"]) == ("Failed", 1, None)
    assert "exited with code 1" in (Path(error.log_path).parent / "ml/output/failure").read_text()


def test_an_exit_code_shows_the_last_lines(runner: JobRunner, script: Script) -> None:
    path = script("import sys\nfor i in range(50):\n    print('line', i)\nsys.exit(3)\n")
    error = fail(runner, path)
    assert (error.exit_code, error.traceback) == (3, "")
    assert "exited with code 3\nline 49\nThe whole log" in str(error)
    with pytest.raises(TrainingFailed) as caught:
        runner.submit(path).wait(logs=False)
    assert "exited with code 3\nline 30\nline 31\n" in str(caught.value)
    assert "line 49\nThe whole log" in str(caught.value)


def test_a_wrong_hyperparameter_is_told_with_all_problems(
    runner: JobRunner, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
        from smkit import entrypoint
        class Houses(getattr(entrypoint, "TrainingScript")):  # which no check before the start sees
            def build_model(self): ...
        Houses.main()
        """
    with pytest.raises(TrainingFailed) as caught:
        runner.run(script(code), {"training": script("", "data.csv")}, hyperparameters={"alhpa": 1})
    problems = [
        "train.py: error:",
        (
            "  - channel 'train': required; set SM_CHANNEL_TRAIN or pass --train PATH (given: training; did you mean "
            "'train'? With JobRunner: inputs={'train': ...})"
        ),
        "  - unknown hyperparameter 'alhpa'; valid: none",
    ]
    assert capsys.readouterr().out.splitlines()[-3:] == problems
    assert str(caught.value).splitlines()[1:-1] == problems
    assert (caught.value.exit_code, caught.value.traceback) == (2, "")


def test_a_signal_is_named(runner: JobRunner, script: Script) -> None:
    error = fail(runner, script("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"))
    assert error.exit_code == -9
    assert "killed by SIGKILL, often because memory ran out" in str(error)


def test_no_model_fails_the_job(runner: JobRunner, script: Script) -> None:
    error = fail(runner, script("import os\nos.mkdir(os.environ['SM_MODEL_DIR'] + '/empty')\n"))
    assert error.exit_code == 0
    assert "saved no model" in str(error)
    assert 'joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))' in str(error)
    assert "in a TrainingScript the folder is self.model_dir" in str(error)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_hanging_script_times_out(runner: JobRunner, script: Script, deaf: bool) -> None:
    code = "import signal, time\n" + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" * deaf + "time.sleep(600)\n"
    started = time.monotonic()
    with pytest.raises(TrainingTimeout, match=r"longer than its timeout of 0\.5 s") as caught:
        runner.run(script(CHILDREN + code), timeout=0.5)
    took = time.monotonic() - started
    assert took < supervisor.GRACE_SECONDS + 3
    assert (took > supervisor.GRACE_SECONDS) == deaf
    assert caught.value.exit_code == (-9 if deaf else -15)
    state = state_of(runner, caught.value)
    assert (state["status"], state["secondary_status"]) == ("Stopped", "MaxRuntimeExceeded")


def test_what_a_script_leaves_behind_ends_with_it(runner: JobRunner, script: Script) -> None:
    started = time.monotonic()
    assert runner.run(script(SAVE_MODEL + CHILDREN)).status == "Completed"
    assert time.monotonic() - started < 5


def test_stop_ends_every_process(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    job = runner.submit(script(CHILDREN + "import os, time\nos.fork()\nprint('up', flush=True)\ntime.sleep(600)\n"))
    assert "up" in job.logs(follow=True)
    job.stop()
    assert job.status in {"Stopping", "Stopped"}
    with pytest.raises(TrainingStopped, match="was stopped: a stop was requested\n"):
        job.wait(logs=False)
    assert job.status == "Stopped"
    assert not processes_in(tmp_path)
    job.stop()
    assert job.status == "Stopped"


def test_stop_at_once_after_submit(runner: JobRunner, script: Script) -> None:
    job = runner.submit(script("import time\ntime.sleep(600)\n"))
    job.stop()
    with pytest.raises(TrainingStopped):
        job.wait(logs=False)


def test_a_job_is_stopping_from_the_request_on(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    job = runner.submit(script("import time\nprint('up', flush=True)\ntime.sleep(60)\n"), job_name="a")
    assert "up" in job.logs(follow=True)
    pid = int((tmp_path / "store/jobs/a/lock").read_text())
    os.kill(pid, signal.SIGSTOP)  # the supervisor is too busy to note the stop
    try:
        assert job.status == "InProgress"
        job.stop()
        assert job.status == "Stopping"
        assert job.lineage()["status"] == job.describe()["secondary_status"] == "Stopping"
        assert repr(job) == "<TrainingJob 'a': Stopping>"
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(TrainingStopped):
            job.wait(logs=False)
        assert job.status == "Stopped"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


RUN = """
import sys
from smkit.config import Settings
from smkit.jobs import JobRunner
if __name__ == "__main__":
    runner = JobRunner(Settings(root=sys.argv[1]))
    if sys.argv[3] == "run":
        runner.run(sys.argv[2], job_name="interrupted")
    else:
        runner.submit(sys.argv[2], job_name="interrupted").wait()
"""


def interrupt(tmp_path: Path, script: Script, how: str) -> tuple[int, str]:
    seconds = 1 if how == "submit" else 600
    path = script(f"{CHILDREN}{SAVE_MODEL}import time\nprint('up', flush=True)\ntime.sleep({seconds})\n")
    caller = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "store"), path, how],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert caller.stdout is not None
    assert "up\n" in iter(caller.stdout.readline, "")
    caller.send_signal(signal.SIGINT)
    _, errors = caller.communicate(timeout=30)
    return caller.returncode, errors


def test_ctrl_c_stops_a_run(tmp_path: Path, script: Script, runner: JobRunner) -> None:
    exit_code, errors = interrupt(tmp_path, script, "run")
    assert exit_code == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert errors.splitlines().count("job 'interrupted' was stopped") == 1
    assert runner.attach("interrupted").status == "Stopped"
    assert not processes_in(tmp_path, seconds=0)


def test_ctrl_c_leaves_a_submitted_job_alone(tmp_path: Path, script: Script, runner: JobRunner) -> None:
    exit_code, errors = interrupt(tmp_path, script, "submit")
    assert exit_code == -signal.SIGINT
    assert "JobRunner().attach('interrupted').stop()" in errors
    assert runner.attach("interrupted").wait(logs=False).status == "Completed"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the script outlives a killed supervisor")
@pytest.mark.parametrize("interrupted", ["before the go-ahead", "after the go-ahead"])
def test_ctrl_c_while_submitting_leaves_nothing(
    runner: JobRunner, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    started = subprocess.Popen

    class Interrupted(subprocess.Popen[bytes]):
        """The supervisor, whose submitter is interrupted around the byte that lets it begin."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if supervisor.__file__ not in args[0]:
                return
            pipe = self.stdin

            class Pipe:
                def __enter__(self) -> Pipe:
                    if interrupted == "before the go-ahead":
                        pipe.close()  # type: ignore[union-attr]
                        raise KeyboardInterrupt
                    return self

                def write(self, data: bytes) -> None:
                    pipe.write(data)  # type: ignore[union-attr]
                    pipe.flush()  # type: ignore[union-attr]

                def __exit__(self, *_: object) -> None:
                    pipe.close()  # type: ignore[union-attr]
                    raise KeyboardInterrupt

            self.stdin = Pipe()  # type: ignore[assignment]

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    path = script("import time; time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        runner.submit(path, job_name="interrupted")
    monkeypatch.setattr(subprocess, "Popen", started)
    assert processes_in(tmp_path) == []
    assert runner.jobs() == []
    assert list((tmp_path / "store" / "jobs").iterdir()) == []
    # The name is free again.
    assert runner.run(script(SAVE_MODEL), job_name="interrupted").status == "Completed"


def test_a_supervisor_without_a_go_ahead_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("never read")
    with (tmp_path / "lock").open("w+b") as lock:
        process = subprocess.run(
            [sys.executable, "-I", "-S", supervisor.__file__, str(tmp_path), str(lock.fileno())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(lock.fileno(),),
            check=False,
        )
    assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")
    assert (tmp_path / "run.json").read_text() == "never read"


def test_a_killed_supervisor_is_a_failed_job(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    job = runner.submit(script("import time\nprint('up', flush=True)\ntime.sleep(600)\n"))
    assert "up" in job.logs(follow=True)
    lock = tmp_path / "store/jobs" / job.name / "lock"
    os.kill(int(lock.read_text()), signal.SIGKILL)
    with pytest.raises(TrainingFailed, match="the process that ran the job was killed"):
        job.wait(logs=False)
    assert job.status == "Failed"
    job.stop()


def test_two_with_one_name_at_once(tmp_path: Path, script: Script) -> None:
    path = script(SAVE_MODEL)
    barrier = threading.Barrier(4)
    won, lost = [], []

    def submit() -> None:
        runner = JobRunner(Settings(root=str(tmp_path / "store")))
        barrier.wait()
        try:
            won.append(runner.submit(path, job_name="same"))
        except DuplicateJobError as error:
            lost.append(error)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 3)
    assert won[0].wait(logs=False).status == "Completed"
    assert [item.name for item in (tmp_path / "store/jobs").iterdir()] == ["same"]


def test_much_output_quickly_and_bytes_that_are_no_text(
    runner: JobRunner, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    code = SAVE_MODEL + "import sys\nsys.stdout.buffer.write(b'0123456789' * 524288 + b'\\n\\xff\\xc3\\n\\xe2')\n"
    job = runner.run(script(code))
    shown = capsys.readouterr().out
    assert shown.endswith("\n" + "0123456789" * 524288 + "\n\ufffd\ufffd\n\ufffd")
    assert list(job.logs()) == shown.split("\n")


def test_pip_that_fails_fails_the_job(runner: JobRunner, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "requirements.txt").write_text("./missing-1.0-py3-none-any.whl\n")
    (source / "train.py").write_text("raise SystemExit('must not run')\n")
    error = fail(runner, "train.py", source_dir=source)
    assert "InstallRequirementsError: pip could not install the requirements (exit code 1)" in str(error)
    assert error.exit_code == 1
    assert "missing-1.0" in str(error)
    assert "must not run" not in str(error)


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        ("os.symlink('/etc/hosts', model + '/hosts')", "'hosts' in .* links to /etc/hosts"),
        ("os.symlink(model, model + '/loop')", "'loop' in .* links to a folder that holds it"),
        ("os.mkfifo(model + '/pipe')", "'pipe' in .* is neither a file nor a folder"),
    ],
)
def test_a_model_that_cannot_be_packed(runner: JobRunner, script: Script, save: str, reason: str) -> None:
    with pytest.raises(TrainingFailed, match=reason):
        runner.run(script(f"{SAVE_MODEL}model = os.environ['SM_MODEL_DIR']\n{save}\n"))


def test_a_link_inside_the_model_is_packed_as_what_it_leads_to(runner: JobRunner, script: Script) -> None:
    job = runner.run(script(SAVE_MODEL + "os.symlink('model.txt', os.environ['SM_MODEL_DIR'] + '/latest.txt')\n"))
    with tarfile.open(job.model) as tar:
        assert tar.extractfile("latest.txt").read() == b"m"  # type: ignore[union-attr]


def test_a_full_disk_is_named_and_leaves_no_half_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/m.bin").write_bytes(b"x" * 100)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(supervisor.os, "fsync", full)
    with pytest.raises(supervisor.Outcome, match=r"cannot pack model into .*: No space left on device"):
        supervisor.pack(tmp_path / "model", tmp_path / "model.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_size_limit_while_packing_fails_the_job(tmp_path: Path, script: Script) -> None:
    """A real failing write: the supervisor inherits a limit that model.tar.gz does not fit under, run.json does."""
    path = script(
        SAVE_MODEL
        + "for i in range(8):\n    open(os.environ['SM_MODEL_DIR'] + f'/{i}', 'wb').write(os.urandom(60_000))\n"
    )
    code = "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n" + RUN
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), path, "run"], capture_output=True, text=True, check=False
    )
    assert "cannot pack model into" in result.stderr
    assert "File too large" in result.stderr
    record = json.loads((tmp_path / "store/jobs/interrupted/run.json").read_text())
    assert record["status"] == "Failed"
    assert not list((tmp_path / "store/jobs/interrupted/output").iterdir())


def test_no_zombie_stays_while_the_submitter_lives(runner: JobRunner, script: Script) -> None:
    runner.run(script(SAVE_MODEL))
    give_up = time.monotonic() + 5
    while (zombies := [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE]) and (
        time.monotonic() < give_up
    ):
        time.sleep(0.01)
    assert not zombies


def test_a_slow_metric_definition_does_not_lose_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "job.log"
    log.write_text("a" * 40 + "!\n")
    monkeypatch.setattr(supervisor, "_METRIC_SECONDS", 1)
    job = object.__new__(supervisor.Job)
    job.log, job.base, job.warnings = log, tmp_path, []
    job.request = {"metric_definitions": {"x": "(a+)+$"}}
    previous = signal.getsignal(signal.SIGALRM)
    try:
        assert job._metrics() == {}
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert "took longer than 1 s" in job.warnings[0]


TRACE = ["Traceback (most recent call last):", '  File "train.py", line 1, in <module>', "ValueError: x"]


def test_a_traceback_that_was_only_logged_is_not_the_cause() -> None:
    assert find_traceback([*TRACE, *["more"] * 30], 3) == ""
    assert find_traceback(TRACE, -9) == ""
    assert find_traceback(["before", *TRACE], 1) == "\n".join(TRACE)
    linked = [*TRACE, "", "During handling of the above exception, another exception occurred:", "", *TRACE]
    assert find_traceback([*TRACE, "unrelated", *linked], 1) == "\n".join(linked)


GROUP = [
    "  + Exception Group Traceback (most recent call last):",
    '  |   File "train.py", line 1, in <module>',
    "  | ExceptionGroup: both (1 sub-exception)",
    "  +-+---------------- 1 ----------------",
    "    | ValueError: x",
]


@pytest.mark.parametrize(
    ("tail", "exit_code", "cause"),
    [
        (["out", *TRACE], 1, ["ValueError: x"]),
        ([*TRACE, "a note", "", "and more"], 1, ["ValueError: x", "a note", "", "and more"]),
        ([*TRACE, "", "During handling of the above exception, another exception occurred:", "", *TRACE[:2], "Other"],
         1, ["Other"]),
        (GROUP, 1, ["ExceptionGroup: both (1 sub-exception)", "  +-+---------------- 1 ----------------",
                    "    | ValueError: x"]),
        ([*TRACE, "logged", "train.py: error: wrong"], 2, ["train.py: error: wrong"]),
        (["train.py: error: old", *["more"] * 40, "the end", ""], 3, ["the end"]),
        (["usage: train.py", "train.py: error: the following arguments are required: --train"], 2,
         ["train.py: error: the following arguments are required: --train"]),
        ([], 3, []),
    ],
)  # fmt: skip
def test_the_cause_is_what_the_script_said_last(tail: list[str], exit_code: int, cause: list[str]) -> None:
    assert find_cause(tail, find_traceback(tail, exit_code)) == cause
