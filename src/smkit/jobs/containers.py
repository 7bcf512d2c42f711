"""What the AWS scikit-learn images contain: the Python, the packages, and the modules that these bring.

The lists lie beside this module, one per image, and carry the day on which they were made. A tag can move: `1.2-1` went
from Python 3.8 to 3.9.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from smkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Python = tuple[int, int]

_DATA = Path(__file__).parent / "containers_data"
_VERSIONS = ("0.23-1", "1.0-1", "1.2-1", "1.4-2", "1.4-2-py312", "1.9-0")
#: No distribution of the index: AWS installs it into each image.
_OWN_MODULES = frozenset({"sagemaker_sklearn_container"})
#: What conda's own tools need. The images that stand on conda have them, in versions that nothing promises.
#: https://github.com/aws/sagemaker-scikit-learn-container, docker/1.2-1/base/Dockerfile.cpu
_CONDA_MODULES = frozenset(
    {"OpenSSL", "boltons", "brotli", "certifi", "chardet", "charset_normalizer", "conda", "idna", "jsonpatch"}
    | {"jsonpointer", "mlio", "packaging", "platformdirs", "pluggy", "pycosat", "requests", "ruamel", "socks", "tqdm"}
)  # fmt: skip


@dataclass(frozen=True)
class ContainerImage:
    """One image, as it was on a day.

    Args:
        framework_version: Its tag, such as `1.2-1`.
        python: Its Python, such as `(3, 9)`.
        packages: Normalised distribution name -> version.
        date: The day of the list, ISO 8601.
        likely_modules: Modules that the image has by accident, as a dependency of its own tools.
    """

    framework_version: str
    python: Python
    packages: Mapping[str, str] = field(repr=False)
    date: str
    likely_modules: frozenset[str] = field(default=frozenset(), repr=False)

    def __hash__(self) -> int:
        return hash((self.framework_version, self.date))

    @property
    def toolkit(self) -> str:
        """Version of `sagemaker-training`, which runs the script."""
        return self.packages["sagemaker-training"]

    @property
    def modules(self) -> frozenset[str]:
        """Modules that the packages bring; a dotted name is a part of a shared namespace."""
        names = _modules_by_distribution()
        return frozenset(module for package in self.packages for module in names.get(package, ())) | _OWN_MODULES

    @property
    def stdlib(self) -> frozenset[str]:
        """Top-level modules of its Python's standard library."""
        return stdlib_modules(self.python)


def known_versions() -> tuple[str, ...]:
    """Return the images whose content is known, the oldest first."""
    return _VERSIONS


@cache
def image(framework_version: str) -> ContainerImage:
    """Return what an image contains.

    Raises:
        ConfigError: The content of this image is not known.
    """
    if framework_version not in _VERSIONS:
        raise ConfigError(
            f"framework_version {framework_version!r}: what this image contains is not known"
            f"{did_you_mean(framework_version, _VERSIONS)}; known are {', '.join(_VERSIONS)}"
        )
    facts: dict[str, str] = {}
    packages: dict[str, str] = {}
    for line in (_DATA / f"{framework_version}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            name, colon, value = line[1:].partition(":")
            if colon:
                facts[name.strip()] = value.strip()
        else:
            name, _, version = line.partition("==")
            packages[normalise(name)] = version
    major, _, minor = facts["python"].partition(".")
    return ContainerImage(
        framework_version,
        (int(major), int(minor)),
        MappingProxyType(packages),
        facts["date"],
        _CONDA_MODULES if facts["base"] == "conda" else frozenset({"mlio"}),
    )


def normalise(name: str) -> str:
    """Return a distribution's name as package indexes compare it (PEP 503): `scikit-learn` for `Scikit_Learn`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def stdlib_modules(python: Python) -> frozenset[str]:
    """Return the top-level modules of a Python's standard library, on Linux.

    Raises:
        ConfigError: No image has this Python, so its list is not kept.
    """
    version = f"{python[0]}.{python[1]}"
    names: set[str] = set()
    known: set[str] = set()
    wanted = False
    for line in _lines("stdlib_modules.txt"):
        if line.startswith(":"):
            versions = line[1:].split()
            known.update(versions)
            wanted = version in versions
        elif wanted:
            names.update(line.split())
    if version not in known:
        raise ConfigError(f"the modules of Python {version} are not known; known are {', '.join(sorted(known))}")
    return frozenset(names)


def is_of_another_stdlib(python: Python, module: str) -> bool:
    """Whether a top-level module is in the standard library of an older or newer Python, and not of this one."""
    others = frozenset(sys.stdlib_module_names).union(*(image(version).stdlib for version in _VERSIONS))
    return module in others and module not in stdlib_modules(python)


def missing_name(python: Python, module: str, name: str) -> str:
    """Say why a Python's standard library lacks a name: `"came with Python 3.8"`; "" where nothing is known against it.

    Args:
        python: The Python.
        module: Module of the standard library, dotted.
        name: What is imported from it.
    """
    since, until = _stdlib_names().get(module, {}).get(name, (None, None))
    if since is not None and python < since:
        return f"came with Python {since[0]}.{since[1]}"
    if until is not None and python >= until:
        return f"left with Python {until[0]}.{until[1]}"
    return ""


def modules_of(distribution: str) -> tuple[str, ...] | None:
    """Return the modules that a distribution brings; None where the tables do not know it."""
    return _modules_by_distribution().get(normalise(distribution))


def distribution_of(module: str) -> str | None:
    """Return the distribution that brings a module, by the name to write into requirements.txt; None: not known."""
    parts = module.split(".")
    # The longest first: google.cloud.storage, not google.
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((found for name in names if (found := _distribution_by_module().get(name)) is not None), None)


def brings(provided: str, module: str) -> bool:
    """Whether an environment that has the module `provided` can import (part of) `module`."""
    return module == provided or module.startswith(provided + ".") or provided.startswith(module + ".")


@cache
def _stdlib_names() -> Mapping[str, Mapping[str, tuple[Python | None, Python | None]]]:
    table: dict[str, dict[str, tuple[Python | None, Python | None]]] = {}
    for line in _lines("stdlib_names.txt"):
        module, _, words = line.partition(": ")
        names = table.setdefault(module, {})
        since: Python | None = None
        until: Python | None = None
        for word in words.split():
            if word[0] in "+-":
                version = (3, int(word.rpartition(".")[2]))
                since, until = (version, None) if word[0] == "+" else (None, version)
            else:
                names[word] = (since, until)
    return MappingProxyType(table)


@cache
def _modules_by_distribution() -> Mapping[str, tuple[str, ...]]:
    table = {}
    for line in _lines("import_names.txt"):
        name, _, modules = line.partition(":")
        table[name] = tuple(modules.split())
    return MappingProxyType(table)


@cache
def _distribution_by_module() -> Mapping[str, str]:
    table: dict[str, str] = {}
    for distribution, modules in _modules_by_distribution().items():
        for module in modules:
            # The first one named is the one to recommend.
            table.setdefault(module, distribution)
    return MappingProxyType(table)


def _lines(name: str) -> Iterator[str]:
    for line in (_DATA / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line
