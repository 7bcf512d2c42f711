"""One of several processes that publish under one name at once; prints the numbers that it got.

Usage: `publisher.py <root> <own name> <versions>`. It says `ready` and waits for a line.
"""

from __future__ import annotations

import sys

from smkit import Settings
from smkit.storage import open_store
from tests.versioning.helpers import open_log, publish

root, name, count = sys.argv[1:]
log = open_log(open_store(Settings(root=root)))
print("ready", flush=True)
sys.stdin.readline()
for turn in range(int(count)):
    print(publish(log, f"{name}-{turn}").manifest.version)
