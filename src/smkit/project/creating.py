"""Makes a new project: its name, and which files are to be written and which stay as they are."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smkit._config_layers import cannot_read
from smkit._config_rules import REGION
from smkit.config import Settings
from smkit.errors import ConfigError, ProjectError
from smkit.naming import check_name
from smkit.project.placing import place
from smkit.project.rendering import render

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTINGS = "smkit.toml"
#: Files that a folder often has before it becomes a project of smkit; the user's own are as good.
_USERS_OWN = frozenset({".gitignore", ".smkitignore", "README.md", "pyproject.toml", _SETTINGS})
#: For a folder whose name has no letter or digit that a name may have.
_NAMELESS = "project"
# pydantic-settings brings tomli, which tomllib is in the standard library, to Python 3.10.
_tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


@dataclass(frozen=True)
class CreatedProject:
    """What `create` did. Paths are relative to the folder, with `/`, sorted.

    Args:
        folder: The project's folder, absolute.
        name: The project's name.
        region: The project's region.
        written: The files that were written.
        unchanged: The files that were there already, just as they would have been written.
        kept: The files that were there with a content of the user's own, and stayed as they are.
    """

    folder: Path
    name: str
    region: str
    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    kept: tuple[str, ...]


def create(
    folder: str | Path = ".", *, name: str | None = None, region: str | None = None, source: str = "files"
) -> CreatedProject:
    """Make a project that trains at once: script, dataset, notebook, tests, settings and made-up rows.

    No file is ever overwritten: all that is missing is written, or nothing. `README.md`, `pyproject.toml`,
    `smkit.toml` and the two ignore files may be there already and stay as they are; any other file of the project
    that is there with another content is an error.

    Args:
        folder: Where; it is made if there is none.
        name: The project's name, as of `Settings.project`; default: the one in `smkit.toml`, else made of the folder's.
        region: The AWS region; default: the one in `smkit.toml`, else that of `Settings`.
        source: Where the rows come from: `files`, `s3` or `postgres`.

    Raises:
        ConfigError: The name, the region or the source is not allowed, or an existing `smkit.toml` cannot be read or
            says otherwise, or a setting that holds here is not allowed.
        ProjectError: A file of the project exists with another content, or the folder cannot be written to.
    """
    try:
        folder = Path(folder).expanduser().absolute()
    except (FileNotFoundError, RuntimeError) as error:
        raise ConfigError(f"cannot tell which folder {str(folder)!r} is: {error}") from None
    if name is not None:
        check_name(name, "project")
    if region is not None and not REGION.fullmatch(region):
        raise ConfigError(f"region {region!r} is not allowed: expected a region such as 'cn-northwest-1'")
    try:
        _check_folder(folder)
        present = _settings_in(folder)
        name = check_name(_agreed("project", name, present) or _name_from(folder), "project")
        region = _agreed("region", region, present) or Settings().region
        contents = render(project=name, region=region, source=source)
        states = {path: _state_of(folder, path, content) for path, content in contents.items()}
    except OSError as error:
        if isinstance(error, ProjectError):
            raise
        raise ProjectError(f"cannot look into {folder}: {error.strerror or error} ({error.filename})") from error
    paths = {state: tuple(path for path in states if states[path] == state) for state in ("missing", "same", "other")}
    if taken := [path for path in paths["other"] if path not in _USERS_OWN]:
        raise ProjectError(
            f"{folder} has {', '.join(taken)} already, with another content; nothing was written: move what is there "
            "away, or take another folder"
        )
    if paths["missing"]:
        place(folder, {path: contents[path] for path in paths["missing"]})
    return CreatedProject(folder, name, region, written=paths["missing"], unchanged=paths["same"], kept=paths["other"])


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is a file, or that would lie in one."""
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            if not path.is_dir():
                raise ProjectError(f"{path} is not a folder: name one, or a new one")
            return


def _settings_in(folder: Path) -> Mapping[str, Any] | None:
    """Return what the folder's `smkit.toml` says, None where there is none."""
    path = folder / _SETTINGS
    if not os.path.lexists(path):
        return None
    try:
        found: Mapping[str, Any] = _tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(cannot_read(path, error)) from None
    except _tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; correct it first") from None
    return found


def _agreed(setting: str, given: str | None, present: Mapping[str, Any] | None) -> str | None:
    """Return what a setting is to be, None where neither the caller nor `smkit.toml` says so."""
    said: str | None = given if present is None else present.get(setting)
    if given is not None and given != said:
        raise ConfigError(
            f"{_SETTINGS} exists and is left as it is, with {setting} = {said!r}: "
            f"write {setting} = {json.dumps(given)} there, or take another folder"
        )
    return said


def _name_from(folder: Path) -> str:
    """Return the name that is most like the folder's and allowed: `hauser-1` for `Häuser (1)`."""
    shown = folder.name if folder.name not in {"", ".."} else folder.resolve().name
    plain = unicodedata.normalize("NFKD", shown.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")[:63].rstrip("-_") or _NAMELESS


def _state_of(folder: Path, path: str, content: bytes) -> Literal["missing", "same", "other"]:
    """Return whether a file is there, and with this content."""
    target = folder / path
    for above in reversed(target.relative_to(folder).parents[:-1]):
        inner = folder / above
        if inner.is_symlink() or (inner.exists() and not inner.is_dir()):
            raise ProjectError(
                f"{inner} is {'a symbolic link' if inner.is_symlink() else 'not a folder'}, and {path} is to lie in "
                "it; nothing was written: move it away, or take another folder"
            )
    if not os.path.lexists(target):
        return "missing"
    # Asked first, so that neither a pipe nor a very large file is read.
    if not target.is_file() or target.stat().st_size != len(content):
        return "other"
    return "same" if target.read_bytes() == content else "other"
