"""Starts the process that watches over a job on this machine, and says what a job gets of its caller's machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from smkit.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Not inherited: smkit's own settings (a script must not need them, on AWS it has none), leftovers of an outer job,
#: and what would change which Python code is found.
_DROPPED_PREFIXES = ("SMKIT_", "SM_", "SAGEMAKER_")
_DROPPED = frozenset(
    {"CURRENT_HOST", "TRAINING_JOB_NAME", "TRAINING_JOB_ARN"}
    | {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONUSERBASE", "PYTHONSAFEPATH"}
    | {"PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV"}
)  # fmt: skip
#: Meant for this Python, and not inherited by a job in another.
_OF_THIS_PYTHON = ("PYTHON", "VIRTUAL_ENV", "CONDA_", "__PYVENV")
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_OPT_ML = Path(__file__).with_name("opt_ml.py")
_PROBE_SECONDS = 30
#: Where a mount worked once in this process. A refusal is not kept: it can be lifted meanwhile.
_MOUNTABLE: set[str] = set()
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


def inherited_environment(variables: Mapping[str, str], *, same_python: bool = True) -> dict[str, str]:
    """Return the variables that a job inherits.

    Args:
        variables: The caller's.
        same_python: Whether the job runs in the caller's Python.
    """
    dropped = _DROPPED_PREFIXES if same_python else (*_DROPPED_PREFIXES, *_OF_THIS_PYTHON)
    return {name: value for name, value in variables.items() if name not in _DROPPED and not name.startswith(dropped)}


def why_no_private_mount(folder: Path, target: str) -> str:
    """Say why a process cannot have a folder mounted where only it sees it; "" where it can.

    Args:
        folder: The folder, which need not exist.
        target: Where it would be mounted.
    """
    if not sys.platform.startswith("linux"):
        return "only Linux can give a process mounts of its own"
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(target)):
        return f"the store lies in {target} itself; set root to a folder elsewhere"
    if target in _MOUNTABLE:
        return ""
    read_end, write_end = os.pipe()
    # The only way to know is to do it: distributions and container engines forbid it in many ways.
    with os.fdopen(read_end, "rb") as report, tempfile.TemporaryDirectory(prefix="smkit-") as empty:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_OPT_ML), empty, target, empty, str(write_end)],
                cwd=empty,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=(write_end,),
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the kernel took longer than {_PROBE_SECONDS} s"
        finally:
            os.close(write_end)
        if done.returncode == 0:
            _MOUNTABLE.add(target)
            return ""
        said = report.read() or done.stderr.strip().rpartition(b"\n")[2]
    reason = said.decode("utf-8", "replace") or f"exit code {done.returncode}"
    with contextlib.suppress(OSError):
        if _APPARMOR.read_text(encoding="ascii").strip() == "1":
            # https://ubuntu.com/blog/ubuntu-23-10-restricted-unprivileged-user-namespaces
            reason += f" (on Ubuntu: sudo sysctl -w kernel.{_APPARMOR.name}=0 allows it)"
    return reason


def start_supervisor(
    folder: Path, lock: int, environment: Mapping[str, str], held: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start the supervisor of a job whose folder is ready; it outlives this process.

    Args:
        folder: The job's folder, with its `run.json`; see `supervisor`.
        lock: Descriptor of the folder's locked `lock`.
        environment: The variables of the supervisor and of the job; secrets among them are handed over, never written.
        held: Descriptors of further locks, which it holds until it ends.

    Raises:
        JobError: It ended at once.
    """
    # -I and -S: nothing that the user installed or set can break the process that watches over the job.
    command = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(folder), str(lock)]
    with (folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock, *held),
        )
    try:
        # Without this byte the supervisor ends at once: a Ctrl-C up to here leaves nothing running.
        with cast("BinaryIO", process.stdin) as pipe:
            pipe.write(b"\n")
    except BrokenPipeError:
        process.wait()
        said = (folder / "supervisor.log").read_text(encoding="utf-8", errors="replace").strip()
        raise JobError(f"job {folder.name!r} could not start: its supervisor ended at once: {said}") from None
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process
