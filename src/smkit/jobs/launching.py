"""Starts the process that watches over a job on this machine, and says what it inherits of its caller's environment."""

from __future__ import annotations

import subprocess
import sys
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
_SUPERVISOR = Path(__file__).with_name("supervisor.py")


def inherited_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a job inherits."""
    return {
        name: value
        for name, value in variables.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }


def start_supervisor(folder: Path, lock: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the supervisor of a job whose folder is ready; it outlives this process.

    Args:
        folder: The job's folder, with its `run.json`; see `supervisor`.
        lock: Descriptor of the folder's locked `lock`.
        environment: The variables of the supervisor and of the job; secrets among them are handed over, never written.

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
            pass_fds=(lock,),
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
