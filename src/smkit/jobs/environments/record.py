"""What is written into an environment once it is complete, and whether it is still what was written.

    <folder>/smkit-environment.json

It is written last and appears at once: a folder without it was never finished, and is not used. Looking whether it was
replaced or installed into costs a few file-system calls; looking at every file, a tenth of a second. Neither takes a
process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import uuid
from dataclasses import dataclass, field
from importlib.metadata import distributions
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from smkit.jobs.containers import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA_VERSION = 2
_NAME = "smkit-environment.json"
#: Bytecode comes and goes without changing what a module does: Python compares it with the module's source.
_BYTECODE = "__pycache__"


@dataclass(frozen=True)
class EnvironmentFacts:
    """What a built environment is.

    Args:
        name: Such as `1.2-1[toolkits]`.
        digest: `Environment.digest` of what it was built for.
        python_version: Its exact Python, such as `3.9.18`.
        packages: Normalised distribution name -> version, as they were installed.
        size: Bytes of its files, bytecode left out.
        built_at: When, ISO 8601, UTC.
        installer: What built it, such as `uv 0.9.1` or `pip`.
        base: The interpreter that it stands on.
    """

    name: str
    digest: str
    python_version: str
    packages: Mapping[str, str] = field(repr=False)
    size: int
    built_at: str
    installer: str
    base: str

    def __hash__(self) -> int:
        return hash((self.digest, self.built_at))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {**vars(self), "packages": dict(self.packages)}


@dataclass(frozen=True)
class Record:
    """The facts, and by what a change is noticed.

    Args:
        facts: What the environment is.
        stamp: Size and time of the interpreter's own file.
        installed: Names of the folders in which installers describe what they installed.
        files: Digest over path, size and time of every file.
    """

    facts: EnvironmentFacts
    stamp: tuple[int, int]
    installed: tuple[str, ...]
    files: str


def read_record(folder: Path) -> Record | None:
    """Return what was written into a folder; None where it never was, or cannot be read."""
    try:
        content = json.loads((folder / _NAME).read_bytes())
        if content["schema_version"] != SCHEMA_VERSION:
            return None
        size, time = content["stamp"]
        facts = EnvironmentFacts(**content["facts"])
        packages = MappingProxyType(dict(facts.packages))
        return Record(
            EnvironmentFacts(**{**vars(facts), "packages": packages}),
            (size, time),
            tuple(content["installed"]),
            content["files"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        # Whatever is wrong with it, the answer is the same: build again.
        return None


def write_record(folder: Path, facts: EnvironmentFacts) -> None:
    """Declare the environment in a folder complete.

    Raises:
        OSError: The file cannot be written, or there is no interpreter or no folder of packages.
    """
    stamp = interpreter_stamp(folder)
    if stamp is None:
        raise FileNotFoundError(f"{folder / 'bin' / 'python'} does not exist")
    content = {
        "schema_version": SCHEMA_VERSION,
        "facts": facts.to_dict(),
        "stamp": stamp,
        "installed": installed_folders(folder, facts.python_version),
        "files": files_digest(folder),
    }
    draft = folder / f".{_NAME}.{uuid.uuid4().hex}"
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / _NAME)
    finally:
        draft.unlink(missing_ok=True)


def changes(folder: Path, record: Record) -> list[str]:
    """Say what is not as it was when the record was written, down to every file; empty where all is."""
    if found := coarse_changes(folder, record):
        return found
    try:
        return [] if files_digest(folder) == record.files else ["files in it were changed"]
    except OSError as error:
        # Such as a folder that somebody removes at this moment.
        return [f"its files cannot be looked at: {error.strerror}"]


def coarse_changes(folder: Path, record: Record) -> list[str]:
    """Say what is not as it was, without a look at every file; empty where nothing is noticed."""
    stamp = interpreter_stamp(folder)
    if stamp is None:
        return [f"the Python that it stands on is gone: {record.facts.base}"]
    if stamp != record.stamp:
        return [f"the Python that it stands on was replaced: {record.facts.base}"]
    found, before = set(installed_folders(folder, record.facts.python_version)), set(record.installed)
    added = [f"{_package(name)} was installed into it" for name in sorted(found - before)]
    return added + [f"{_package(name)} was removed from it" for name in sorted(before - found)]


def files_digest(folder: Path) -> str:
    """Return a digest over path, size and time of every file, but for bytecode and what smkit itself notes."""
    digest = hashlib.sha256()
    folders = [(os.fspath(folder), "")]
    while folders:
        path, below = folders.pop()
        # Text and scandir, not Path: thousands of files, before every job.
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{below}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != _BYTECODE:
                        folders.append((entry.path, name))
                elif below or not entry.name.lstrip(".").startswith("smkit-"):
                    status = entry.stat(follow_symlinks=False)
                    digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def protect(folder: Path) -> None:
    """Take from everybody the right to write the files that lie in a folder; `bytecode` takes it of the folders.

    It keeps users other than root from changing by accident what all jobs share; `changes` notices it of all. The mode
    of a file that is also uv's, or a project's, is theirs.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - thousands of files
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.chmod(path, stat.S_IMODE(status.st_mode) & ~0o222)  # noqa: PTH101 - as above


def shared_changes(folder: Path) -> bool:
    """Whether a file that is also uv's, or a project's, was written to since the record was; False without a record."""
    try:
        since = (folder / _NAME).stat().st_mtime_ns
    except OSError:
        return False
    return any(
        stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and status.st_mtime_ns > since
        for parent, _, names in os.walk(folder)
        for status in (os.lstat(os.path.join(parent, name)) for name in names)  # noqa: PTH118 - thousands of files
    )


def unprotect(folder: Path) -> None:
    """Give the owner the right to delete what lies in a folder."""
    for parent, folders, _ in os.walk(folder):
        # Before what lies in them: without the right nothing in a folder is found.
        for name in folders:
            path = os.path.join(parent, name)  # noqa: PTH118 - as above
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode) | 0o700)  # noqa: PTH101 - as above


def interpreter_stamp(folder: Path) -> tuple[int, int] | None:
    """Return size and time (ns) of the file behind an environment's interpreter; None where there is none."""
    try:
        status = (folder / "bin" / "python").stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def site_packages(folder: Path, python_version: str) -> Path:
    """Return where an environment's packages lie.

    Args:
        folder: The environment's folder.
        python_version: Its Python, exact or not.
    """
    major, minor = python_version.split(".")[:2]
    return folder / "lib" / f"python{major}.{minor}" / "site-packages"


def installed_folders(folder: Path, python_version: str) -> list[str]:
    """Return the names of the folders that describe what is installed, sorted; empty where there are no packages."""
    with contextlib.suppress(OSError):
        names = os.listdir(site_packages(folder, python_version))  # noqa: PTH208 - names are what is wanted
        return sorted(name for name in names if name.endswith((".dist-info", ".egg-info")))
    return []


def installed_packages(folder: Path, python_version: str) -> dict[str, str]:
    """Return normalised name -> version of what is installed, sorted, without running its Python."""
    found = distributions(path=[str(site_packages(folder, python_version))])
    return dict(sorted((normalise(one.metadata["Name"]), one.version) for one in found))


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder; links are not followed."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - thousands of files
        for parent, _, names in os.walk(folder)
        for name in names
    )


def _package(name: str) -> str:
    return " ".join(name.rpartition(".")[0].split("-")[:2])
