"""The Pythons of this machine, found as smkit finds them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from smkit.jobs.environments import install_command, search_interpreter

if TYPE_CHECKING:
    from smkit.jobs.containers import Python


@functools.cache
def find_python(version: Python) -> str | None:
    """Return an interpreter of a version; None where there is none."""
    found = search_interpreter(version)
    return None if found is None else str(found.path)


def python_or_skip(version: Python) -> str:
    """Return an interpreter of a version; skip the test where there is none."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version[0]}.{version[1]} is not on this machine: {install_command(version)}")
    return python
