"""Finds the modules of a job's own code, as Python's import system does in the container."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXTENSION = ".so"


@dataclass(frozen=True)
class Module:
    """One module of the code.

    Args:
        name: Its dotted name.
        path: Its file inside the code folder; None for a folder without `__init__.py`, or a compiled module.
        is_package: Whether it has modules inside.
    """

    name: str
    path: str | None
    is_package: bool

    @property
    def package(self) -> str:
        """The package that its relative imports start from; "" at the top."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


class CodeModules:
    """The modules of the code.

    Args:
        paths: Paths of all files, with `/`.
        entry_point: Path of the script.
    """

    def __init__(self, paths: Iterable[str], entry_point: str) -> None:
        self._paths = frozenset(paths)
        self._compiled = [path for path in self._paths if path.endswith(_EXTENSION)]
        self._folders = frozenset(
            parent for path in self._paths if path.endswith((".py", _EXTENSION)) for parent in _parents(path)
        )
        # Python puts the script's folder first; PYTHONPATH has the code folder.
        self._roots = tuple(dict.fromkeys([posixpath.dirname(entry_point), ""]))

    def find(self, name: str) -> Module | None:
        """Return a module that the code brings; None where it does not."""
        return next((found for root in self._roots if (found := self._at(root, name)) is not None), None)

    def namespace(self, name: str) -> Module | None:
        """Return a folder without `__init__.py` as a package: Python takes one only where nothing else has the name."""
        relative = name.replace(".", "/")
        if any(posixpath.join(root, relative) in self._folders for root in self._roots):
            return Module(name, None, is_package=True)
        return None

    def deeper(self, name: str) -> str | None:
        """Return where a top-level module lies that is found only once `sys.path` has a further folder of the code."""
        ends = (f"/{name}.py", f"/{name}/__init__.py")
        return next((path for path in sorted(self._paths) if path.endswith(ends)), None)

    def tops(self) -> set[str]:
        """Return the names that can be imported from the code at the top."""
        names = set()
        for root in self._roots:
            prefix = f"{root}/" if root else ""
            for path in self._paths:
                if path.startswith(prefix):
                    first, slash, _ = path[len(prefix) :].partition("/")
                    if slash or first.endswith(".py"):
                        names.add(first.removesuffix(".py"))
        return {name for name in names if name.isidentifier()}

    def _at(self, root: str, name: str) -> Module | None:
        base = posixpath.join(root, name.replace(".", "/"))
        if f"{base}/__init__.py" in self._paths:
            return Module(name, f"{base}/__init__.py", is_package=True)
        if f"{base}.py" in self._paths:
            return Module(name, f"{base}.py", is_package=False)
        # features.cpython-39-x86_64-linux-gnu.so
        if any(path.startswith(f"{base}.") for path in self._compiled):
            return Module(name, None, is_package=False)
        return None


def absolute_name(package: str, level: int, module: str) -> str | None:
    """Return the absolute name of `from <level dots><module> import ...`; None where it leaves the top package."""
    parts = package.split(".") if package else []
    if level > len(parts):
        return None
    return ".".join([*parts[: len(parts) - level + 1], *([module] if module else [])])


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
