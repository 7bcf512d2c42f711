"""The command line as a real process: pipes, terminals, exit codes, the time that help takes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

import smkit
from smkit.display import width_of

pytestmark = pytest.mark.usefixtures("models")

CTRL_C, CTRL_D = "\x03", "\x04"


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smkit", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]
    )


def on_a_terminal(*words: str, answer: str = "", columns: int = 60) -> tuple[int, str]:
    """Run a command on a pseudo-terminal, answer its question, and return its code and what it showed."""
    parent, child = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "smkit", *words],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**environment, "PYTHONIOENCODING": "utf-8"},
    )
    os.close(child)
    shown = b""
    end, interrupted = time.monotonic() + 120, False
    while time.monotonic() < end:
        if not select.select([parent], [], [], 10)[0]:
            if interrupted:
                # Of a signal just before it reads Python hears only after the read: whoever sits there tries again.
                process.send_signal(signal.SIGINT)
            continue
        try:
            data = os.read(parent, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not data:
            break
        shown += data
        if answer and shown.rstrip().endswith(b"[y/N]:"):
            if answer == CTRL_C:
                # The terminal is not the process's own, which would send the signal.
                process.send_signal(signal.SIGINT)
                interrupted = True
            else:
                os.write(parent, f"{answer}\n".encode())
            answer = ""
    os.close(parent)
    return process.wait(timeout=60), shown.decode()


def test_json_is_one_document_and_nothing_else() -> None:
    result = run("models", "list", "houses", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert [version["ref"] for version in json.loads(result.stdout)] == ["houses@2", "houses@1"]
    assert result.stdout.isascii()


def test_an_error_shows_no_traceback_unless_asked() -> None:
    result = run("models", "show", "hauses")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("smkit: error: no model 'hauses'")
    debug = run("--debug", "models", "show", "hauses")
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert "VersionNotFound" in debug.stderr


@pytest.mark.parametrize("columns", [20, 70, 120])
def test_a_terminal_gets_columns_that_fit_and_no_control_characters(columns: int) -> None:
    code, shown = on_a_terminal("models", "list", "houses", columns=columns)
    assert code == 0
    lines = shown.replace("\r\n", "\n").splitlines()
    assert max(map(width_of, lines)) <= columns
    assert lines[1].startswith("2 ")
    assert "\t" not in shown
    assert not {"\x1b", "\u202e", "\x07"} & set(shown)


@pytest.mark.parametrize(
    ("answer", "code", "left"),
    [("y", 0, [3, 1]), ("n", 1, [3, 2, 1]), (CTRL_D, 1, [3, 2, 1]), (CTRL_C, 130, [3, 2, 1])],
)
def test_prune_asks_on_a_terminal(models: smkit.ArtifactStore, answer: str, code: int, left: list[int]) -> None:
    from tests.artifacts.helpers import fitted

    models.publish("houses", fitted(9.0))
    found, shown = on_a_terminal("models", "prune", "houses", "--keep-last", "1", answer=answer)
    assert found == code, shown
    assert "to be deleted for good: houses@2" in shown
    assert shown.endswith("houses@2 deleted\r\n" if answer == "y" else "smkit: nothing was deleted\r\n")
    assert [version.version for version in models.versions("houses")] == left


def test_a_pipe_may_close_early() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "smkit", "models", "show", "houses"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "note"), ("latin-1", "\\u6a21\\u578b")])
def test_a_poor_encoding_is_no_error(encoding: str, shown: str) -> None:
    result = run("models", "show", "houses@1", env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (result.returncode, result.stderr) == (0, "")
    assert shown in result.stdout


def test_the_script_is_installed_and_knows_its_version() -> None:
    result = run("--version")
    assert result.stdout == f"smkit {smkit.__version__}\n"
    assert "models" in run().stdout + run().stderr
