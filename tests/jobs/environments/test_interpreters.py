"""The search for a Python. The candidates are real programs, some of which lie."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from smkit.errors import ParityEnvironmentError
from smkit.jobs.environments import install_command, locate, search_interpreter
from smkit.jobs.environments.uv import find_uv

#: No Python of this version was ever made, so none is found but what a test puts there.
NEVER = (3, 1)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def python(path: Path, version: str, implementation: str = "CPython") -> Path:
    """A program that answers like a Python."""
    return program(path, f"""printf '%s\\n' '["{implementation}", "{version}", "{path}"]'""")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with neither uv nor pyenv, and two folders on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setitem(sys.modules, "uv", None)  # type: ignore[arg-type]
    return tmp_path


def test_this_python_is_taken_without_being_run(machine: Path) -> None:
    found = search_interpreter(sys.version_info[:2])
    assert found is not None
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    # Not the one of a virtual environment, which may be deleted.
    assert found.path == Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def test_a_shim_without_a_python_is_passed_over(machine: Path) -> None:
    program(machine / "first" / "python3.1", "echo 'pyenv: python3.1: command not found' >&2; exit 127")
    right = python(machine / "second" / "python3.1", "3.1.4")
    found = search_interpreter(NEVER)
    assert found is not None
    assert (found.path, found.version) == (right, "3.1.4")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: python(path, "3.2.0"),
        lambda path: python(path, "3.1.4", "PyPy"),
        lambda path: program(path, "echo no Python at all"),
        lambda path: path.parent.mkdir() or path.write_bytes(b"\x7fELF for another processor") or path.chmod(0o755),
        lambda path: path.parent.mkdir() or path.write_text("not executable"),
    ],
    ids=["another version", "PyPy", "another program", "another processor", "not executable"],
)
def test_what_is_no_such_python_is_not_believed(machine: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(machine / "first" / "python3.1")
    assert search_interpreter(NEVER) is None


def test_pyenv_is_asked_before_path_and_its_newest_first(machine: Path) -> None:
    python(machine / "first" / "python3.1", "3.1.0")
    for version in ("3.1.9", "3.1.18", "3.10.1", "3.1-dev"):
        python(machine / "pyenv" / "versions" / version / "bin" / "python3.1", version.replace("3.10", "3.1"))
    found = search_interpreter(NEVER)
    assert found is not None
    assert found.version == "3.1.18"


def test_pyenv_lies_in_the_home_folder_where_nothing_else_is_said(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYENV_ROOT")
    monkeypatch.setenv("HOME", str(machine / "home"))
    right = python(machine / "home" / ".pyenv" / "versions" / "3.1.2" / "bin" / "python3.1", "3.1.2")
    found = search_interpreter(NEVER)
    assert found is not None
    assert found.path == right


def test_uv_is_asked_for_what_it_has_and_never_to_download(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = python(machine / "uvs" / "python3.1", "3.1.3")
    program(
        machine / "first" / "uv",
        f"""case "$1" in --version) echo "uv 0.9.1 (abc)"; exit;; esac
        printf '%s|' "$@" "$UV_PYTHON_PREFERENCE" "$UV_PYTHON_DOWNLOADS" "$UV_PYTHON_INSTALL_DIR" "$UV_OFFLINE" \
            > {machine}/asked
        echo {right}""",
    )
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", "/some/where")
    monkeypatch.setenv("UV_OFFLINE", "0")
    found = search_interpreter(NEVER)
    assert found is not None
    assert found.path == right
    asked = (machine / "asked").read_text()
    assert asked == "python|find|--no-project|cpython@3.1|only-managed|never|/some/where||"


def test_an_old_or_broken_uv_is_none(machine: Path) -> None:
    program(machine / "first" / "uv", "echo 'uv 0.4.30'")
    assert find_uv() is None
    program(machine / "first" / "uv", "exit 127")
    assert find_uv() is None
    program(machine / "first" / "uv", "echo 'uv 0.5.0 (x)'")
    found = find_uv()
    assert found is not None
    assert found.version == "0.5.0"


def test_the_uv_package_counts_where_path_has_none(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "uv")
    uv = pytest.importorskip("uv")
    found = find_uv()
    assert found is not None
    assert found.path == Path(uv.find_uv_bin())


def uv_offering(path: Path, *versions: str) -> None:
    listed = " ".join(f"cpython-{version}-linux-x86_64-gnu" for version in versions)
    program(path, f'case "$2" in list) printf "%s  <download available>\\n" {listed};; *) echo "uv 0.9.1";; esac')


def test_what_is_missing_is_told_with_the_command_that_installs_it(machine: Path) -> None:
    here = shlex.quote(sys.executable)
    assert install_command((3, 9)) == f"{here} -m pip install uv && {here} -m uv python install 3.9"
    program(machine / "second" / "pyenv", "exit 1")
    assert install_command((3, 9)) == "pyenv install 3.9"
    uv_offering(machine / "first" / "uv", "3.9.25", "3.8.20")
    assert install_command((3, 9)) == "uv python install 3.9"


def test_what_uv_does_not_offer_is_installed_by_another(machine: Path) -> None:
    here = shlex.quote(sys.executable)
    older = "tool run uv@0.6.0 python install 3.7"
    assert install_command((3, 7)) == f"{here} -m pip install uv && {here} -m uv {older}"
    uv_offering(machine / "first" / "uv", "3.13.7", "3.8.20")
    assert install_command((3, 7)) == f"uv {older}"
    program(machine / "second" / "pyenv", "exit 1")
    assert install_command((3, 7)) == "pyenv install 3.7"
    # The uv that still has it needs no other.
    uv_offering(machine / "first" / "uv", "3.8.20", "3.7.9")
    assert install_command((3, 7)) == "uv python install 3.7"


def test_a_uv_that_cannot_list_is_believed_to_offer_what_the_latest_does(machine: Path) -> None:
    program(machine / "first" / "uv", 'case "$2" in list) exit 2;; *) echo "uv 0.5.0";; esac')
    assert install_command((3, 8)) == "uv python install 3.8"
    assert "uv@0.6.0" in install_command((3, 7))


@pytest.mark.parametrize("python", [(3, 7), (3, 8), (3, 12)])
def test_the_real_uv_offers_what_the_command_says(
    machine: Path, monkeypatch: pytest.MonkeyPatch, python: tuple[int, int]
) -> None:
    """Of the uv that is a package of this Python, which no folder of PATH has: the command runs as it is printed."""
    monkeypatch.delitem(sys.modules, "uv")
    pytest.importorskip("uv")
    command = install_command(python)
    assert command.startswith(f"{shlex.quote(sys.executable)} -m uv ")
    version = subprocess.run(
        f"{command.partition(' -m uv ')[0]} -m uv --version", shell=True, capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("uv ")


def test_a_uv_that_hangs_does_not_keep_the_others_from_being_asked(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smkit.jobs.environments.programs._SECONDS", 0.5)
    program(machine / "first" / "uv", 'case "$1" in --version) echo "uv 0.9.1";; *) exec /bin/sleep 60;; esac')
    right = python(machine / "second" / "python3.1", "3.1.4")
    found = search_interpreter(NEVER)
    assert found is not None
    assert found.path == right
    # Nor the command that would install one.
    assert install_command((3, 9)) == "uv python install 3.9"


def test_locating_fails_early_and_builds_nothing(machine: Path) -> None:
    missing = "0.23-1"
    with pytest.raises(
        ParityEnvironmentError, match=r"Python 3\.7 is not on this machine .* -m pip install uv && .* -m uv tool run"
    ):
        locate(missing, folder=machine / "environments")
    assert not (machine / "environments").exists()


def test_a_relative_folder_on_path_is_not_looked_into(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(machine / "here" / "python3.1", "3.1.0")
    monkeypatch.chdir(machine / "here")
    monkeypatch.setenv("PATH", f"{os.pathsep}.")
    assert search_interpreter(NEVER) is None
