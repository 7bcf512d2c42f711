"""The rest of AWS: moto in a child process, and clients that reach it past the sandbox's own server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smkit.errors import JobError, MissingExtraError

if TYPE_CHECKING:
    from typing import BinaryIO

    import boto3

ACCESS_KEY = "AKIASANDBOXSANDBOX00"
SECRET_KEY = "opens-nothing-but-the-sandbox"  # noqa: S105 - moto checks no signature
#: What a process of the sandbox inherits: how to find programs and libraries, never who the user is on AWS.
_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip


def inherited_environment() -> dict[str, str]:
    """Return the variables that the sandbox's processes take over from this one."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def isolated_session(region: str) -> boto3.Session:
    """Return a session with the sandbox's credentials that no profile and no file of the user reaches."""
    import boto3
    import botocore.session

    # (name in a file, environment variable, default, conversion): without the first two only the default is left.
    core: Any = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    return boto3.Session(
        botocore_session=core,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=region,
    )


def check_moto() -> None:
    """See that moto's server can be started.

    Raises:
        MissingExtraError: It is not installed.
    """
    missing = [name for name in ("moto", "flask", "flask_cors") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the sandbox needs what is not installed here ({', '.join(missing)}): pip install 'smkit[sandbox]'"
        )


class MotoServer:
    """Moto in a process of its own.

    Args:
        account: The account that every caller belongs to.
        region: Region of the clients.
    """

    def __init__(self, account: str, region: str) -> None:
        self._account = account
        self._region = region
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            MissingExtraError: moto is not installed.
            JobError: It does not start.
        """
        check_moto()
        variables = inherited_environment() | {"MOTO_ACCOUNT_ID": self._account, "PYTHONWARNINGS": "ignore"}
        if "PYTHONPATH" in os.environ:
            variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("moto_child.py"))],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A Ctrl-C is for the parent to handle: it still needs moto to end its jobs.
            start_new_session=True,
        )
        line = self._pipe(self._process.stdout).readline()
        if not line:
            exit_code = self._process.wait()
            self.close()
            raise JobError(f"moto did not start: its process ended with exit code {exit_code}")
        self.port = int(line)

    @staticmethod
    def _pipe(stream: Any) -> BinaryIO:
        pipe: BinaryIO = stream
        return pipe

    def client(self, service: str) -> Any:
        """Return a boto3 client that talks to moto itself, without the sandbox's faults and request log."""
        from botocore.config import Config

        with self._lock:
            if service not in self._clients:
                self._session = self._session or isolated_session(self._region)
                self._clients[service] = self._session.client(
                    service,
                    endpoint_url=f"http://127.0.0.1:{self.port}",
                    config=Config(
                        retries={"mode": "standard", "total_max_attempts": 3}, max_pool_connections=32, proxies={}
                    ),
                )
            return self._clients[service]

    def close(self) -> None:
        """End moto; what it held is gone."""
        for client in self._clients.values():
            client.close()
        # It keeps everything in memory: there is nothing to finish.
        self._process.kill()
        self._process.wait()
        self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()
