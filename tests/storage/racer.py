"""One of several processes that put the same keys at once; prints the keys that it won.

Usage: `racer.py <root> <own name> <keys>`. It says `ready` and waits for a line.
"""

from __future__ import annotations

import sys

from smkit.storage.folder import FolderStore

root, name, count = sys.argv[1:]
store = FolderStore(root)
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    if store.put_if_absent(f"race/{number}", name.encode()):
        print(number)
