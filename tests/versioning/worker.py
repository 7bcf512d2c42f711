"""Publishes, promotes, rolls back, prunes and collects without an end, to be killed; prints what it did.

Usage: `worker.py <root> <own name>`. It says `ready`, then `published <number> <content>` and `pruned <number> -`. It
collects what is older than the default week only, since others publish meanwhile.
"""

from __future__ import annotations

import itertools
import random
import sys

from smkit.errors import AliasConflict, VersionInUse, VersionNotFound
from smkit.storage import FolderStore
from smkit.versioning.maintenance import WEEK
from tests.versioning.helpers import collect_all, open_log, publish

root, name = sys.argv[1:]
dice = random.Random(name)
log = open_log(FolderStore(root))
print("ready", flush=True)
for turn in itertools.count():
    content = f"{name}-{turn}"
    number = publish(log, content, body={"content": content}).manifest.version
    print("published", number, content, flush=True)
    action = dice.choice(["promote", "promote", "rollback", "prune", "collect"])
    target = dice.randint(1, number)
    try:
        if action == "promote":
            log.aliases.promote("houses", target, "production")
        elif action == "rollback":
            log.aliases.rollback("houses", "production")
        elif action == "prune":
            log.prune("houses", target)
            print("pruned", target, "-", flush=True)
        else:
            collect_all(log, older_than=WEEK)
    except (AliasConflict, VersionInUse, VersionNotFound):
        continue
