"""Finds uv: the one on PATH, else the one that was installed as a package of this Python."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from smkit.jobs.environments.programs import answer_of

#: The first with `UV_DEFAULT_INDEX` and `UV_INDEX` and all the options used here.
_OLDEST = (0, 5)


@dataclass(frozen=True)
class Uv:
    """A uv that was run.

    Args:
        path: The program.
        version: Such as `0.9.1`.
    """

    path: Path
    version: str


def find_uv() -> Uv | None:
    """Return uv; None where there is none, or none that is new enough."""
    for path in _candidates():
        answer = answer_of([path, "--version"])
        match = re.match(r"uv (\d+)\.(\d+)\S*", answer or "")
        if match is not None and (int(match[1]), int(match[2])) >= _OLDEST:
            return Uv(Path(path), match[0].partition(" ")[2])
    return None


def _candidates() -> list[str]:
    found = [shutil.which("uv")]
    # Not installed, or without its program.
    with contextlib.suppress(ImportError, AttributeError, FileNotFoundError):
        found.append(os.fspath(import_module("uv").find_uv_bin()))
    return [path for path in found if path is not None]
