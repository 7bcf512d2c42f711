"""The names of parity environments: `1.2-1`, `1.2-1[toolkits]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from smkit.errors import ConfigError, did_you_mean
from smkit.jobs.containers import known_versions

#: What means this very Python, and so names no environment.
HOST: Final = "host"
_TOOLKITS = "[toolkits]"


@dataclass(frozen=True, order=True)
class EnvironmentName:
    """Which image an environment stands for, and how much of it; `str()` gives the name back.

    Args:
        framework_version: Tag of the image, such as `1.2-1`.
        toolkits: Whether it has the image's whole list of packages, SageMaker's own among them.
    """

    framework_version: str
    toolkits: bool = False

    def __str__(self) -> str:
        return self.framework_version + _TOOLKITS * self.toolkits

    @property
    def label(self) -> str:
        """The name as part of a path: without brackets, which shells and globs would read."""
        return self.framework_version + "-toolkits" * self.toolkits


def known_names() -> tuple[EnvironmentName, ...]:
    """Return the environments that there can be, those of the oldest image first."""
    return tuple(EnvironmentName(version, toolkits) for version in known_versions() for toolkits in (False, True))


def parse_environment(name: str) -> EnvironmentName:
    """Return what a name says.

    Args:
        name: Such as `1.2-1` or `1.2-1[toolkits]`.

    Raises:
        ConfigError: It names no image whose content is known.
    """
    match = re.fullmatch(r"(?P<version>[^\[\]]*)(?P<extra>\[[^\[\]]*\])?", name)
    if match is not None and match["version"] in known_versions() and match["extra"] in (None, _TOOLKITS):
        return EnvironmentName(match["version"], match["extra"] is not None)
    if name == HOST:
        raise ConfigError(f"{HOST!r} is the Python that runs smkit: it is no environment that can be built or removed")
    names = [str(known) for known in known_names()]
    # The image whose tag was not written to its end, before what merely looks like it.
    begun = [known for known in names if name and known.startswith(name)]
    raise ConfigError(
        f"environment {name!r}: the content of no such image is known{did_you_mean(name, begun[:1] or names)}; "
        f"known are {', '.join(known_versions())}, each also with {_TOOLKITS}"
    )
