from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from smkit.config import Settings
from smkit.jobs import JobRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Script = Callable[..., str]

SAVE_MODEL = "import os\nopen(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w').write('m')\n"


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    return JobRunner(Settings(root=str(tmp_path / "store")))


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Write a script and return its path."""

    def write(text: str, name: str = "train.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path: Path) -> Iterator[None]:
    """Fail a test whose job leaves a process behind: each works inside the test's folder."""
    yield
    left = processes_in(tmp_path)
    for process in left:
        process.kill()
    assert not left


def works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != psutil.Process().pid and process.cwd().startswith(str(folder))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def processes_in(folder: Path, seconds: float = 5) -> list[psutil.Process]:
    """Return the processes that work inside a folder, once they had time to end."""
    give_up = time.monotonic() + seconds
    while True:
        found = [process for process in psutil.process_iter() if works_in(process, folder)]
        if not found or time.monotonic() >= give_up:
            return found
        time.sleep(0.02)
