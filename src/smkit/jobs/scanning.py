"""Which files of a folder travel with a job."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from smkit.errors import ConfigError
from smkit.jobs.ignoring import FILE, IgnoreRules, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Never travel, whatever `.smkitignore` says: `*`, `!*/`, `!*.py`, a common way to ship only Python, would bring back
#: every module of a virtual environment.
EXCLUDED = (
    ".git", ".hg", ".svn", "__pycache__", "*.pyc", ".venv", "venv", ".ipynb_checkpoints", ".pytest_cache",
    ".mypy_cache", ".ruff_cache", ".tox", ".nox", "node_modules", ".smkit", ".env", ".DS_Store", "*.egg-info", FILE,
)  # fmt: skip


class Scan(NamedTuple):
    """What was found in a folder.

    Attributes:
        files: Path inside the folder, with `/` -> file.
        left_out: Path -> the rule that leaves it out, in words; of a folder, not what lies in it.
    """

    files: Mapping[str, Path]
    left_out: Mapping[str, str]

    def why(self, path: str) -> str:
        """Return the rule that leaves out a path that is in the folder, but not in `files`."""
        parts = path.split("/")
        outer = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
        return next(f"{self.left_out[each]}" for each in outer if each in self.left_out)


def check_travels(name: str, what: str) -> None:
    """Refuse a name that never travels.

    Args:
        name: Name of a file or folder.
        what: What it is, for the message.

    Raises:
        ConfigError: smkit leaves it out of every job.
    """
    if (pattern := _excluded_by(name)) is not None:
        raise ConfigError(f"{what} is left out of every job by smkit's own rule {pattern!r}: rename it")


def _excluded_by(name: str) -> str | None:
    return next((pattern for pattern in EXCLUDED if fnmatch.fnmatchcase(name, pattern)), None)


def scan(root: Path, what: str) -> Scan:
    """Look through a folder, and through links inside it.

    Args:
        root: The folder.
        what: What it is, for messages: `source_dir`.

    Raises:
        ConfigError: A link leads out of the folder or nowhere, there is something else than files and folders, or an
            ignore file cannot be understood.
        OSError: Something cannot be read.
    """
    real_root = root.resolve()
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}

    def walk(folder: Path, prefix: str, ancestors: tuple[Path, ...], rules: IgnoreRules) -> None:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        if any(entry.name == FILE for entry in entries):
            rules = rules.within(prefix, parse((folder / FILE).read_bytes(), prefix + FILE))
        for entry in entries:
            path, relative = Path(entry.path), prefix + entry.name
            if (pattern := _excluded_by(entry.name)) is not None:
                left_out[relative] = f"smkit's own rule {pattern!r}: such files never travel"
                continue
            # A link to a folder becomes one in the job, and a rule for folders holds for it.
            is_folder = entry.is_dir()
            if (rule := rules.leaving_out(relative, is_folder=is_folder)) is not None:
                left_out[relative] = str(rule)
                continue
            real = path.resolve()
            if entry.is_symlink() and not real.is_relative_to(real_root):
                raise ConfigError(
                    f"{relative!r} links to {real}, outside {what} {str(root)!r}: copy it there, list it in {FILE}, "
                    "or pass it as a channel if it is data"
                )
            if is_folder:
                if real in ancestors:
                    raise ConfigError(f"{relative!r} links to a folder that holds it: remove the link")
                walk(path, relative + "/", (*ancestors, real), rules)
            elif entry.is_file():
                files[relative] = path
            elif entry.is_symlink():
                raise ConfigError(f"{relative!r} links to {path.readlink()}, which does not exist")
            else:
                raise ConfigError(f"{relative!r} is neither a file nor a folder: move it away, or list it in {FILE}")

    walk(root, "", (real_root,), IgnoreRules())
    return Scan(files, left_out)
