"""A throw-away environment on top of another: a job installs into it, and what lies below stays as it was.

A layer is a virtual environment without packages of its own, whose `site-packages` goes on in those of the environment
below. So `python -m pip install` in it does what it does in the image: what is there already is not installed again,
another version is installed over it and wins, and pip, which runs from below, removes nothing outside the layer.
"""

from __future__ import annotations

import os
import shlex
import site
import sys
from dataclasses import dataclass
from pathlib import Path

#: Read while Python starts. A plain path would do, but for what is installed in development mode, by .pth files.
_LINK_FILE = "smkit-below.pth"
_LINE_BYTES = 4096


@dataclass(frozen=True)
class Interpreter:
    """A Python to stand on.

    Args:
        executable: Its program; not the link inside a virtual environment.
        home: The folder that holds it, which tells Python where its standard library is.
        version: Major and minor version, such as `3.9`.
        site_packages: Where its packages are, in the order of `sys.path`.
        scripts: Where the programs of its packages are; None where they are on PATH as it is.
    """

    executable: Path
    home: Path
    version: str
    site_packages: tuple[Path, ...]
    scripts: Path | None


@dataclass(frozen=True)
class Layer:
    """Where a layer lies.

    Args:
        folder: Its folder.
        below: What it stands on.
    """

    folder: Path
    below: Interpreter

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.scripts / "python"

    @property
    def scripts(self) -> Path:
        """Where pip puts the programs of packages."""
        return self.folder / "bin"

    @property
    def site_packages(self) -> Path:
        """Where pip puts packages."""
        return self.folder / "lib" / f"python{self.below.version}" / "site-packages"

    @property
    def search_path(self) -> list[str]:
        """Folders that come first in PATH."""
        return [str(folder) for folder in (self.scripts, self.below.scripts) if folder is not None]

    def make(self) -> None:
        """Make it, in a folder that does not exist; starts no process."""
        self.site_packages.mkdir(parents=True)
        self.scripts.mkdir()
        if sys.platform == "linux" and sys.maxsize > 1 << 32:
            # Some distributions install what is compiled into lib64.
            (self.folder / "lib64").symlink_to("lib")
        for name in ("python", "python3", f"python{self.below.version}"):
            (self.scripts / name).symlink_to(self.below.executable)
        (self.folder / "pyvenv.cfg").write_text(
            f"home = {self.below.home}\ninclude-system-site-packages = false\nversion = {self.below.version}\n",
            encoding="utf-8",
        )
        self._adopt_programs()
        # ASCII: Python reads the file in the encoding of the locale.
        lines = [f"import site; site.addsitedir({os.fspath(folder)!a})\n" for folder in self.below.site_packages]
        (self.site_packages / _LINK_FILE).write_text("".join(lines), encoding="ascii")

    def _adopt_programs(self) -> None:
        """Let the programs of the packages below run in the layer: `pip` must install here, and not there."""
        for name in ("pip", "pip3"):
            self._write_program(name, b"import runpy\nrunpy.run_module('pip', run_name='__main__')\n")
        if self.below.scripts is None:
            return
        own_python = os.fsencode(self.below.scripts / "python")
        for path in self.below.scripts.iterdir():
            if path.is_file() and not path.is_symlink():
                body = _body(path, own_python)
                if body is not None:
                    self._write_program(path.name, body)

    def _write_program(self, name: str, body: bytes) -> None:
        path = self.scripts / name
        # The shell finds the interpreter: the kernel cuts a long first line, and splits one at a space.
        python = os.fsencode(shlex.quote(os.fspath(self.python)))
        path.write_bytes(b"#!/bin/sh\n'''exec' " + python + b' "$0" "$@"\n' + b"' '''\n" + body)
        path.chmod(0o755)


def _body(path: Path, python: bytes) -> bytes | None:
    """Return a program in Python without its first lines, which name the interpreter; None for any other file."""
    with path.open("rb") as file:
        first = file.readline(_LINE_BYTES)
        if first.startswith(b"#!" + python):
            return file.read()
        if first.startswith(b"#!/bin/sh"):
            second, third = file.readline(_LINE_BYTES), file.readline(_LINE_BYTES)
            if second.startswith(b"'''exec' ") and python in second and third.startswith(b"' '''"):
                return file.read()
    return None


def this_interpreter() -> Interpreter:
    """Return the Python that runs this."""
    # Of a virtual environment the Python below it, as in the standard library's venv; the folder of a link is kept.
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).absolute()
    folders = [Path(folder) for folder in site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.insert(0, Path(site.getusersitepackages()))
    return Interpreter(
        executable=executable,
        home=executable.parent,
        version=f"{sys.version_info[0]}.{sys.version_info[1]}",
        site_packages=tuple(folder for folder in folders if folder.is_dir()),
        scripts=Path(sys.prefix, "bin") if sys.prefix != sys.base_prefix else None,
    )


def interpreter_of(folder: Path, version: str, base: str) -> Interpreter:
    """Return the Python of a virtual environment.

    Args:
        folder: The virtual environment.
        version: Its major and minor version, such as `3.9`.
        base: The interpreter that it stands on.
    """
    executable = Path(base)
    return Interpreter(
        executable=executable,
        home=executable.parent,
        version=version,
        site_packages=(folder / "lib" / f"python{version}" / "site-packages",),
        scripts=folder / "bin",
    )
