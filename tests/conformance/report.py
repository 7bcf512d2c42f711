"""A script that reports what it sees, and how its report is read."""

from __future__ import annotations

import json
from typing import Any

_MARK = "what the script sees: "
#: In the syntax of Python 3.7. The report is one line of ASCII on stdout, which both sides keep in a log.
REPORT = f"""
import json
import os
import sys

base = os.path.dirname(os.getcwd())
files = []
for folder, folders, names in os.walk(base):
    folders[:] = [name for name in folders if name != "__pycache__"]
    below = os.path.relpath(folder, base)
    files += [os.path.normpath(os.path.join(below, name)) for name in names]
    files += [os.path.normpath(os.path.join(below, name)) + "/" for name in folders]
report = {{"argv": sys.argv, "environment": dict(os.environ), "cwd": os.getcwd(), "files": sorted(files)}}
print({_MARK!r} + json.dumps(report), flush=True)
"""


def report_of(log: str) -> dict[str, Any]:
    """Return the report that a log holds.

    Raises:
        AssertionError: There is not exactly one.
    """
    found = [line.removeprefix(_MARK) for line in log.split("\n") if line.startswith(_MARK)]
    assert len(found) == 1, log
    return json.loads(found[0])
