"""Stands for the images' training toolkit: calls the script, says so in the log, and reports how it ended.

    python -I -S toolkit.py SPEC

Run as a script; standard library only. SPEC is a JSON file: `command` (the script's), `sandbox` (the id of the process
whose end ends the job too), `process` (where this process writes its id, which is that of the job's process group),
`failure` (where it writes what the toolkit would write to `output/failure`), `note` (the log's first line).

As the toolkit does, it prints the variables that the script gets, exits with 1 whatever the script's code was, and
passes no SIGTERM on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_LOOK_SECONDS = 0.5
_SITE = "/miniconda3/lib/python3/site-packages"
_FRAMES = (
    ("sagemaker_containers/_trainer.py", 84, "train", "entrypoint()"),
    ("sagemaker_sklearn_container/training.py", 39, "main", "train(environment.Environment())"),
    ("sagemaker_sklearn_container/training.py", 31, "train", "entry_point.run(uri=training_environment.module_dir,"),
    ("sagemaker_training/entry_point.py", 99, "run", "return runner.get(runner_type, user_entry_point, args).run("),
    ("sagemaker_training/process.py", 292, "run", "process_spawned = check_error("),
    ("sagemaker_training/process.py", 208, "check_error", "raise error_class("),
)


def framework_error(kind: str, message: str) -> str:
    """Return what the image's `train` writes to `output/failure`."""
    frames = "".join(
        f'  File "{_SITE}/{path}", line {line}, in {name}\n    {code}\n' for path, line, name, code in _FRAMES
    )
    return f"framework error: \nTraceback (most recent call last):\n{frames}{kind}: {message}\n\n{message}"


def log_line(logger: str, level: str, message: str) -> str:
    """Return a line as the toolkit's logger writes it."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    return f"{stamp},{int(now % 1 * 1000):03d} {logger} {level:<8} {message}\n"


def failure_lines(text: str) -> str:
    """Return what the toolkit logs of a failure."""
    return log_line("sagemaker-containers", "ERROR", "Reporting training FAILURE") + log_line(
        "sagemaker-containers", "ERROR", text
    )


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _introduce(note: str, command: list[str]) -> None:
    _say(note + "\n")
    _say(log_line("sagemaker-containers", "INFO", "Imported framework sagemaker_sklearn_container.training"))
    _say(log_line("sagemaker_sklearn_container.training", "INFO", "Invoking user training script."))
    _say(log_line("sagemaker-training-toolkit", "INFO", "Invoking user script"))
    training_env = json.dumps(json.loads(os.environ["SM_TRAINING_ENV"]), indent=4)
    _say(f"\nTraining Env:\n\n{training_env}\n\nEnvironment variables:\n\n")
    _say("".join(f"{name}={value}\n" for name, value in os.environ.items() if name.startswith("SM_")))
    _say(f"PYTHONPATH={os.environ['PYTHONPATH']}\n\nInvoking script with the following command:\n\n")
    _say(" ".join(command) + "\n\n\n")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):
        # Its id may be another user's process by now.
        return False
    return True


def main() -> int:
    """Run the script that the command line's file names."""
    # A variable may hold bytes that are no text.
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    process_file = Path(spec["process"])
    draft = process_file.with_name(f".{process_file.name}")
    draft.write_text(str(os.getpid()), encoding="ascii")
    draft.replace(process_file)
    command: list[str] = spec["command"]
    _introduce(spec["note"], command)
    try:
        script = subprocess.Popen(command)
    except OSError as error:
        exit_code, said = 1, str(error)
    else:
        said = ""
        while True:
            try:
                exit_code = script.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if not _is_alive(spec["sandbox"]):
                    os.killpg(0, signal.SIGKILL)
    if exit_code == 0:
        _say(log_line("sagemaker-containers", "INFO", "Reporting training SUCCESS"))
        return 0
    text = framework_error(
        "sagemaker_training.errors.ExecuteUserScriptError",
        f'ExecuteUserScriptError:\nExitCode {exit_code}\nErrorMessage "{said}"\nCommand "{" ".join(command)}"',
    )
    Path(spec["failure"]).write_text(text, encoding="utf-8")
    _say(failure_lines(text))
    return 1


if __name__ == "__main__":
    sys.exit(main())
