"""Write an object of 1 MiB where no file may exceed 64 KiB; print the error.

Usage: `full_disk.py <root> <put|upload>`. In a process of its own, because the limit is the process's.
"""

from __future__ import annotations

import io
import resource
import signal
import sys

from smkit.errors import StorageError
from smkit.storage.folder import FolderStore

root, method = sys.argv[1:]
# Without this the kernel kills the process before write can fail.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))
store = FolderStore(root)
try:
    if method == "put":
        store.put_if_absent("a/b", b"x" * (1 << 20))
    else:
        store.upload("a/b", io.BytesIO(b"x" * (1 << 20)))
except StorageError as error:
    print(error.errno, error)
