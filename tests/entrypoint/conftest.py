"""A folder as the container sees it: the user's train.py and, beside it, a smkit that holds only the template."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import smkit.entrypoint

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRYPOINT = Path(smkit.entrypoint.__file__).parent


class Project:
    """A staged project; `run` is a fresh process with no SM_ variable but those given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model"
        shutil.copytree(ENTRYPOINT, folder / "smkit/entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "smkit/__init__.py").touch()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, python: str = sys.executable
    ) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "PYTHON"))}
        clean |= {"PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [python, "train.py", *argv],
            cwd=self.folder,
            env=clean | dict(env or {}),
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` reads this process's environment: the tests may themselves run in a job."""
    for name in [name for name in os.environ if name.startswith("SM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
