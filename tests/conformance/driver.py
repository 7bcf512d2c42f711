"""Runs training jobs under the real toolkit of an AWS scikit-learn image. Run as a script, by that toolkit's Python.

    python driver.py BASE

BASE stands for `/opt/ml`; the toolkit reads it once, so every job uses it again. One JSON object a line on stdin is a
job: `archive` (the sourcedir.tar.gz of the code), `input_config` (file name -> content), `channels` (name -> content of
its one file), `environment` (the container's variables, all of them). For each, one line on stdout says how it ended:
`exit_code` (of the image's `train`), `files` (below BASE: path -> text, null for a folder and for what is no text),
`log` (what the toolkit and the script wrote).

What runs is `train` of sagemaker_containers, which is that of the images, and the whole of sagemaker_training below it.
Two things stand for what is not on the package index: the image's own module, which does nothing but call the toolkit,
and the platform, which writes the input files and names the host. The syntax is that of Python 3.7.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import types
from pathlib import Path
from typing import Any


def serve(base: Path) -> None:
    """Run one job after the other."""
    os.environ["SAGEMAKER_BASE_DIR"] = str(base)
    # Imported once: it takes longer than a job.
    from sagemaker_containers import _trainer
    from sagemaker_training import entry_point, environment, runner

    def main() -> None:
        job = environment.Environment()
        arguments, variables = job.to_cmd_args(), job.to_env_vars()
        entry_point.run(
            job.module_dir, job.user_entry_point, arguments, variables, runner_type=runner.ProcessRunnerType
        )

    image: Any = types.ModuleType("sagemaker_sklearn_container.training")
    image.main = main
    sys.modules[image.__name__] = image
    # In a container of SageMaker, /etc/hosts names algo-1.
    socket.gethostbyname = lambda host: "127.0.0.1"

    log = base.parent / "job.log"
    for line in sys.stdin:
        job = json.loads(line)
        prepare(base, job)
        child = os.fork()
        if child == 0:
            become_container(base, job["environment"], log)
            _trainer.train()  # ends the process
        status = os.waitpid(child, 0)[1]
        answer = {
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status),
            "files": {path.relative_to(base).as_posix(): text_of(path) for path in base.rglob("*")},
            "log": log.read_bytes().decode("utf-8", "replace"),
        }
        print(json.dumps(answer), flush=True)


def prepare(base: Path, job: dict[str, Any]) -> None:
    """Do what the platform does before it starts the container."""
    if base.exists():
        shutil.rmtree(str(base))
    for folder in ("code", "input/config", "input/data", "model", "output/data", "output/intermediate"):
        (base / folder).mkdir(parents=True)
    for name, content in job["input_config"].items():
        (base / "input/config" / name).write_text(json.dumps(content), encoding="utf-8")
    for name, content in job["channels"].items():
        (base / "input/data" / name).mkdir()
        (base / "input/data" / name / "data.csv").write_text(content, encoding="utf-8")
    shutil.copy(job["archive"], str(base.parent / "sourcedir.tar.gz"))


def become_container(base: Path, variables: dict[str, str], log: Path) -> None:
    """Make of this process the one that the image's `train` would be."""
    os.environ.clear()
    os.environ.update(variables)
    os.environ["SAGEMAKER_BASE_DIR"] = str(base)
    # The toolkit hands its search path on: that of the interpreter, with the variable of the container.
    own = [entry for entry in variables.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = own + [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    output = os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def text_of(path: Path) -> str | None:
    """Return a file's text; None of a folder, and of what is no text."""
    try:
        return None if path.is_dir() else path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
