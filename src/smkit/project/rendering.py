"""The files of a new project, made from those in `templates/`.

A template's name ends in `-tpl`, so that nobody takes one for a module of smkit, or for a `.gitignore` that counts.
`common/` is in every project; of the other folders, one for each source, one is.
"""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from smkit._version import __version__
from smkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Traversable

#: Where the rows of `dataset.py` may come from.
SOURCES = ("files", "s3", "postgres")

_SUFFIX = "-tpl"


def render(*, project: str, region: str, source: str) -> dict[str, bytes]:
    """Return the files of a new project: path inside the project, with `/` -> content, sorted.

    Args:
        project: The project's name.
        region: The AWS region.
        source: One of `SOURCES`.

    Raises:
        ConfigError: There is no such source.
    """
    if source not in SOURCES:
        raise ConfigError(
            f"there is no source {source!r}{did_you_mean(source, SOURCES)}; sources are {', '.join(SOURCES)}"
        )
    values = {"project": project, "region": region, "requirement": requirement(__version__)}
    templates = files("smkit.project").joinpath("templates")
    found = [*_templates(templates.joinpath("common")), *_templates(templates.joinpath(source))]
    return {path: Template(text).substitute(values).encode() for path, text in sorted(found)}


def requirement(version: str) -> str:
    """Return the requirement on smkit: this version, and the later ones that promise to be compatible.

    Before 1.0, a new minor version may break what was there (https://semver.org, section 4).
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    return f"smkit>={version},<{f'0.{minor + 1}' if major == 0 else major + 1}"


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield prefix + entry.name.removesuffix(_SUFFIX), entry.read_text(encoding="utf-8")
