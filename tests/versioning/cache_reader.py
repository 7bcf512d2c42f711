"""One of several processes that read the same versions through one cache; prints `done`.

Usage: `cache_reader.py <s3 uri> <own number> <bound>`.
"""

from __future__ import annotations

import random
import sys

from smkit import Settings
from smkit.naming import parse_reference
from smkit.storage import open_store
from smkit.versioning import VersionLog
from smkit.versioning.reading import open_verified

root, number, bound = sys.argv[1:]
dice = random.Random(int(number))
log = VersionLog(open_store(Settings(root=root)), "models", "model")
manifest = log.get(parse_reference("houses@1", "model"))
for _ in range(15):
    file = dice.choice(manifest.files)
    with open_verified(log.store, manifest, file, max_bytes=int(bound)) as stream:
        # Others evict it while it is read.
        pieces = iter(lambda stream=stream: stream.read(10_000), b"")  # type: ignore[misc]
        assert b"".join(pieces) == file.path.encode() * 20_000
print("done")
