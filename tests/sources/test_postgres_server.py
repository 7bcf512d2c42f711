"""The tests' own server: it ends with whoever started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.postgres_server import PostgresServer, ServerDidNotStart

pytestmark = pytest.mark.skipif("SMKIT_TEST_PG_DSN" in os.environ, reason="another server is used")

_STARTER = """
import time
from tests.postgres_server import PostgresServer
server = PostgresServer()
server.start()
print(server._keeper.pid, server._folder, flush=True)
time.sleep(60)
"""


def test_a_killed_test_run_leaves_no_server_and_no_folder() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert starter.stdout is not None
    with starter:
        keeper, folder = starter.stdout.readline().split()
        processes = [psutil.Process(int(keeper)), *psutil.Process(int(keeper)).children(recursive=True)]
        assert len(processes) > 2
        starter.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
    deadline = time.monotonic() + 10
    while Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_cannot_start_says_why() -> None:
    server = PostgresServer()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server.port = taken.getsockname()[1]
        with pytest.raises(ServerDidNotStart, match="could not bind"):
            server.start()
