"""An environment of two small packages, which install from wheels of the test's own, without a network."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from smkit.jobs.environments import Environment, EnvironmentName
from smkit.jobs.environments.contents import Contents
from tests.jobs.environments.wheels import make_wheel

if TYPE_CHECKING:
    from pathlib import Path

THIS_PYTHON = sys.version_info[:2]


@pytest.fixture
def only_wheels_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels which is the only place that packages come from, configured for pip alone."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "tiny", "1.0", needs="tiny-dependency")
    make_wheel(folder, "tiny", "2.0", needs="tiny-dependency")
    make_wheel(folder, "tiny-dependency", "0.1")
    make_wheel(folder, "tiny-dependency", "0.2")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


@pytest.fixture
def tiny(only_wheels_of: Path, tmp_path: Path) -> Environment:
    """An environment of this Python, not built."""
    contents = Contents(THIS_PYTHON, {"tiny": "1.0", "tiny-dependency": "0.1"}, ("tiny",))
    return Environment(EnvironmentName("1.2-1"), contents, tmp_path / "environments")
