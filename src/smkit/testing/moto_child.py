"""Serves moto on a free port until stdin ends. Run as a script, in a process of its own.

    python moto_child.py

It writes the port to stdout, one line. A process of its own, because moto keeps its state in module globals and
patches botocore: two sandboxes, or a test that uses moto itself, would see each other's buckets.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    # The script's own folder comes first: its modules must not shadow any of moto's imports.
    sys.path.pop(0)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
