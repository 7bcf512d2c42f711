"""A pytest fixture: `pytest_plugins = ["smkit.testing.pytest_plugin"]` in the root `conftest.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.testing.launch import Sandbox


@pytest.fixture
def sagemaker_sandbox() -> Iterator[Sandbox]:
    """A sandbox of its own for each test; while it runs, every AWS client of the process finds it."""
    from smkit.testing.launch import sandbox

    with sandbox() as running:
        yield running
