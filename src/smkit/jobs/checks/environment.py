"""What a script can import where it runs: the standard library, the image, and what requirements.txt installs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from smkit.jobs.containers import brings, distribution_of, modules_of, normalise

if TYPE_CHECKING:
    from smkit.jobs.checks.requirements import Requirements
    from smkit.jobs.containers import ContainerImage

Answer = Literal["yes", "likely", "maybe", "no"]

_REQUIREMENT_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Environment:
    """An image, and what a job adds to it.

    Args:
        image: The image.
        requirements: What pip installs before the script.
        opaque: Whether something else is installed whose packages are not known, such as a `setup.py`.
    """

    image: ContainerImage
    requirements: Requirements
    opaque: bool = False

    @property
    def python(self) -> tuple[int, int]:
        """The image's Python."""
        return self.image.python

    @cached_property
    def modules(self) -> frozenset[str]:
        """Modules of the image's packages."""
        return self.image.modules

    def has(self, module: str) -> Answer:
        """Say whether a module that the code does not bring can be imported.

        Returns:
            "likely": the image has it, but nothing promises it. "maybe": something that requirements.txt installs may
            bring it along.
        """
        top = module.partition(".")[0]
        if top in self.image.stdlib or any(brings(provided, module) for provided in self.modules):
            return "yes"
        if self.requirements.names and self._is_required(module):
            return "yes"
        if top in self.image.likely_modules:
            return "likely"
        return "maybe" if self.opaque or self.requirements.opaque or self._may_come_along(module) else "no"

    def _is_required(self, module: str) -> bool:
        top = module.partition(".")[0]
        return any(
            any(brings(provided, module) for provided in modules_of(name) or ())
            # What the table does not know usually has the name of its module.
            or normalise(top) == name
            for name in self.requirements.names
        )

    def _may_come_along(self, module: str) -> bool:
        """Whether a requirement may depend on what brings a module, as far as this machine's own packages tell."""
        names, is_whole = self._closure
        wanted = distribution_of(module)
        if wanted is not None and normalise(wanted) in names:
            return True
        top = module.partition(".")[0]
        return not is_whole or any(normalise(top) == name or top in _installed_modules(name) for name in names)

    @cached_property
    def _closure(self) -> tuple[frozenset[str], bool]:
        """Return what the requirements need, and what that needs; and whether each of them is known.

        What is installed here says what it needs. What is not, but is in the tables, is taken to bring its own modules
        only: a script should name what it imports.
        """
        found: set[str] = set()
        is_whole = True
        waiting = [name for name in self.requirements.names if name not in self.image.packages]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            try:
                needed = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                is_whole = is_whole and (modules_of(name) is not None or name not in self.requirements.names)
                continue
            waiting += [
                normalise(match[0])
                for line in needed
                if "extra ==" not in line and (match := _REQUIREMENT_NAME.match(line))
            ]
        return frozenset(found), is_whole


def _installed_modules(name: str) -> frozenset[str]:
    """Return the top-level modules of a distribution that is installed here."""
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return frozenset()
    return frozenset(str(file).partition("/")[0].removesuffix(".py") for file in files)
