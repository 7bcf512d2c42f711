"""Makes the folder of an environment: with uv, else with this Python's venv and pip.

Neither compiles to bytecode, which takes longer than all else: see `bytecode`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smkit.errors import ParityEnvironmentError
from smkit.jobs.environments.index import index_for_pip, index_for_uv
from smkit.jobs.environments.uv import find_uv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from smkit.jobs.environments.contents import Contents
    from smkit.jobs.environments.index import PackageIndex

#: Lines of the installer's output that an error shows.
_TAIL = 25
_CONSTRAINTS = "smkit-pins.txt"
_ENSUREPIP_FAILED = re.compile(r"'ensurepip'.* returned non-zero exit status")
#: What these signals mean to somebody who did not send them.
_SIGNALS = {
    signal.SIGXFSZ: "it wrote a file larger than is allowed, see `ulimit -f`",
    signal.SIGXCPU: "it took more CPU time than is allowed, see `ulimit -t`",
    signal.SIGKILL: "by somebody, or by Linux where memory runs out",
}


@dataclass(frozen=True)
class Installer:
    """What installs, and from where.

    Args:
        name: Such as `uv 0.9.1` or `pip`.
        uv: uv's program; None: the interpreter's own venv and pip.
        index: Where packages come from.
        variables: What else it is told.
    """

    name: str
    uv: Path | None
    index: PackageIndex
    variables: Mapping[str, str]

    def install(self, base: Path, folder: Path, contents: Contents, *, lock: int, say: Callable[[str], None]) -> None:
        """Make a virtual environment and install into it.

        Args:
            base: The interpreter that it stands on.
            folder: Where; it does not exist.
            contents: What.
            lock: A descriptor that every process of the installer inherits: while one of them could still write
                into the folder, the lock is held, whatever became of this process.
            say: Is told each line of the installer's output.

        Raises:
            ParityEnvironmentError: It failed; the message has the installer's last lines, without credentials.
            OSError: The folder cannot be written to.
        """
        say(f"making a virtual environment of {base}")
        try:
            self._run(self._venv(base, folder), lock, say)
        except ParityEnvironmentError as error:
            if not _ENSUREPIP_FAILED.search(str(error)):
                raise
            # venv does not show what ensurepip said, such as that the disk is full: ensurepip itself does.
            python = str(folder / "bin" / "python")
            self._run([python, "-I", "-m", "ensurepip", "--upgrade", "--default-pip"], lock, say)
        constraints = folder / _CONSTRAINTS
        constraints.write_text(contents.constraints, encoding="utf-8")
        # What has to be compiled is compiled with the setuptools of the image, which once did so: a later one need not.
        limits = {"PIP_CONSTRAINT": str(constraints), "PIP_BUILD_CONSTRAINT": str(constraints)}
        self._run(self._install(folder, contents, constraints), lock, say, {} if self.uv is not None else limits)

    def _venv(self, base: Path, folder: Path) -> list[str]:
        if self.uv is not None:
            return [str(self.uv), "venv", "--no-project", "--python", str(base), str(folder)]
        return [str(base), "-I", "-m", "venv", str(folder)]

    def _install(self, folder: Path, contents: Contents, constraints: Path) -> list[str]:
        python = str(folder / "bin" / "python")
        if self.uv is not None:
            command = [str(self.uv), "pip", "install", "--python", python]
        else:
            command = [python, "-I", "-m", "pip", "install", "--no-compile", "--no-input", "--progress-bar", "off"]
        if contents.wanted is None:
            # As they are in the image, even where one asks for another version of the next.
            # pip refuses `typing`, which was made for an older Python and came into the images by conda.
            more = ["--build-constraint", str(constraints)] if self.uv is not None else ["--ignore-requires-python"]
            return [*command, "--no-deps", *more, *contents.requirements]
        # A package of the core that had to be compiled would take half an hour, and a Fortran compiler.
        return [*command, "--only-binary", ":all:", "--constraint", str(constraints), *contents.requirements]

    def _run(
        self, command: Sequence[str], lock: int, say: Callable[[str], None], more: Mapping[str, str] | None = None
    ) -> None:
        variables = {**self.index.variables, **self.variables, **(more or {}), "NO_COLOR": "1"}
        for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
            variables.pop(name, None)
        process = subprocess.Popen(
            command,
            cwd="/",  # no configuration of the user's project
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=(lock,),
        )
        lines: list[str] = []
        with process:
            try:
                for line in process.stdout or ():
                    lines.append(self.index.masked(line.rstrip()))
                    say(lines[-1])
                process.wait()
            except BaseException:
                # With what it started, such as a compiler.
                _kill(process)
                raise
        if process.returncode != 0:
            raise ParityEnvironmentError(f"{self.name} {_ending(process.returncode)}:\n{_essence(lines)}")


def choose_installer(index_url: str | None = None, *, linked: bool, cached: bool) -> Installer:
    """Return uv where it is found, else pip.

    Args:
        index_url: The index, instead of the one that is configured.
        linked: Whether files may be one with those in uv's cache, of which all projects of the user have theirs.
        cached: Whether what is in uv's cache may be used.
    """
    uv = find_uv()
    if uv is None:
        return Installer("pip", None, index_for_pip(index_url), {})
    # `clone` makes hard links where the file system cannot clone; `copy` clones where it can.
    variables = {"UV_LINK_MODE": "clone" if linked else "copy", **({} if cached else {"UV_NO_CACHE": "1"})}
    return Installer(f"uv {uv.version}", uv.path, index_for_uv(index_url), variables)


def _kill(process: subprocess.Popen[str]) -> None:
    # It may have ended meanwhile; macOS answers EPERM for what ended and was not waited for.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ending(returncode: int) -> str:
    """Say how an installer that failed ended: one that a signal ended says nothing itself."""
    if returncode > 0:
        return f"failed (exit code {returncode})"
    try:
        number = signal.Signals(-returncode)
    except ValueError:
        # One of Linux's real-time signals, which have no names.
        return f"was killed by signal {-returncode}"
    meaning = _SIGNALS.get(number)
    return f"was killed by {number.name} ({meaning})" if meaning else f"was killed by {number.name}"


def _essence(lines: Sequence[str]) -> str:
    """Return the last lines, and before them the first that says what failed, which a compiler's output may hide."""
    lines = [line for line in lines if line.strip()]
    says_error = re.compile(r"\s*(?:×|error|fatal)", re.IGNORECASE)
    first = next((number for number, line in enumerate(lines) if says_error.match(line)), None)
    shown = list(lines[-_TAIL:])
    if first is not None and first < len(lines) - _TAIL:
        shown = [lines[first], "...", *shown]
    return "\n".join(f"  {line}" for line in shown) or "  (it said nothing)"
