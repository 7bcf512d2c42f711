"""What is written into an environment once it is complete, and whether it is still what was written.

    <folder>/smkit-environment.json

It is written last and appears at once: a folder without it was never finished, and is not used. Looking costs a few
file-system calls, no process.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from dataclasses import dataclass, field
from importlib.metadata import distributions
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from smkit.jobs.containers import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA_VERSION = 1
_NAME = "smkit-environment.json"


@dataclass(frozen=True)
class EnvironmentFacts:
    """What a built environment is.

    Args:
        name: Such as `1.2-1[toolkits]`.
        digest: `Environment.digest` of what it was built for.
        python_version: Its exact Python, such as `3.9.18`.
        packages: Normalised distribution name -> version, as they were installed.
        size: Bytes of its files. Those that uv linked from its own cache take no room a second time.
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
    """

    facts: EnvironmentFacts
    stamp: tuple[int, int]
    installed: tuple[str, ...]


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
            EnvironmentFacts(**{**vars(facts), "packages": packages}), (size, time), tuple(content["installed"])
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
    """Say what is not as it was when the record was written; empty where all is."""
    stamp = interpreter_stamp(folder)
    if stamp is None:
        return [f"the Python that it stands on is gone: {record.facts.base}"]
    if stamp != record.stamp:
        return [f"the Python that it stands on was replaced: {record.facts.base}"]
    found, before = set(installed_folders(folder, record.facts.python_version)), set(record.installed)
    added = [f"{_package(name)} was installed into it" for name in sorted(found - before)]
    return added + [f"{_package(name)} was removed from it" for name in sorted(before - found)]


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
