"""Would the image's Python run this code? Follows the imports from the entry point, without running anything."""

from __future__ import annotations

import difflib
import sys
from collections import deque
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

from smkit.jobs.checks.imports import Import, imports_of
from smkit.jobs.checks.report import Finding, problem, unknown, warning
from smkit.jobs.checks.resolution import CodeModules, Module, absolute_name
from smkit.jobs.checks.syntax import Unreadable, newer_syntax, parse
from smkit.jobs.containers import distribution_of, is_of_another_stdlib, missing_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from smkit.jobs.checks.environment import Environment
    from smkit.jobs.staging import StagedCode

_TEMPLATE = "smkit.entrypoint"
#: How alike two names must be: names of modules are short, and many are like some other.
_NEAR = 0.75
#: Module of a newer standard library -> the module, and its distribution, that give the same to an older Python.
_BACKPORTS = {
    "graphlib": ("graphlib", "graphlib-backport"),
    "tomllib": ("tomli", "tomli"),
    "zoneinfo": ("backports.zoneinfo", "backports.zoneinfo"),
}


def check_code(
    code: StagedCode, environment: Environment, *, sources: Path | None, isolated: bool, here: bool
) -> list[Finding]:
    """Return what the image's Python would stumble over.

    Args:
        code: The staged code.
        environment: What the code can import there.
        sources: Folder of the script, where it travels alone; None where a whole folder travels.
        isolated: Whether the container has no network, so that pip cannot install anything.
        here: Whether the job shall run on this machine: then what only the image lacks is a warning.
    """
    if not code.entry_point.endswith(".py"):
        what = "what a shell script runs is not looked at, and the image installs no requirements.txt for one"
        return [unknown(code.entry_point, what)]
    return _Walk(code, environment, sources=sources, isolated=isolated, here=here).run()


class _Walk:
    """One walk over the modules that the script imports, first those that it imports for certain."""

    def __init__(
        self, code: StagedCode, environment: Environment, *, sources: Path | None, isolated: bool, here: bool
    ) -> None:
        self._code = code
        self._environment = environment
        self._sources = sources
        self._isolated = isolated
        self._here = here
        self._modules = CodeModules(code.files, code.entry_point)
        self._certain: deque[Module] = deque([Module("__main__", code.entry_point, is_package=False)])
        self._later: deque[tuple[Module, str, Import]] = deque()
        self._possible: deque[Module] = deque()
        #: Path -> when it was read.
        self._seen: dict[str, int] = {}
        self._missing: set[tuple[str, str]] = set()
        self._findings: list[Finding] = []

    def run(self) -> list[Finding]:
        # What is certain first: of a module that is missing only the first import is told.
        while self._certain or self._later or self._possible:
            if self._certain:
                self._visit(self._certain.popleft(), is_certain=True)
            elif self._later:
                self._follow(*self._later.popleft(), is_certain=False)
            else:
                self._visit(self._possible.popleft(), is_certain=False)
        return sorted(self._findings, key=self._place)

    def _place(self, finding: Finding) -> tuple[int, int]:
        path, _, line = finding.subject.rpartition(":")
        if path in self._seen and line.isdigit():
            return self._seen[path], int(line)
        return self._seen.get(finding.subject, 0), 0

    def _visit(self, module: Module, *, is_certain: bool) -> None:
        if module.path is not None and module.path not in self._seen:
            self._seen[module.path] = len(self._seen)
            self._read(module, module.path, is_certain=is_certain)

    def _read(self, module: Module, path: str, *, is_certain: bool) -> None:
        if path.startswith("smkit/"):
            return  # the template: it runs on every image
        source = self._code.files[path].data
        tree = parse(source, path)
        python = self._environment.python
        if isinstance(tree, Unreadable):
            self._findings.append(_unreadable(path, tree, python, problem if is_certain else warning))
            return
        say = self._say(is_certain)
        for newer in newer_syntax(tree, source, python):
            self._findings.append(
                say(
                    f"{path}:{newer.line}",
                    f"{newer.what} needs Python {_label(newer.since)}; the image {self._image} has {_label(python)}",
                    "write it for the older Python, or choose a newer framework_version",
                )
            )
        for item in imports_of(tree, python, is_script=module.name == "__main__"):
            if is_certain and item.certain:
                self._follow(module, path, item, is_certain=True)
            else:
                self._later.append((module, path, item))

    def _say(self, is_certain: bool, *, fails_here: bool = False) -> Callable[[str, str, str], Finding]:
        """Choose how to speak of what fails in the image."""
        return problem if is_certain and (fails_here or not self._here) else warning

    @cached_property
    def _changes_path(self) -> bool:
        """Whether some of the code may tell Python to look for modules in further folders."""
        own = (
            file.data
            for path, file in self._code.files.items()
            if path.endswith(".py") and not path.startswith("smkit/")
        )
        return any(b"sys.path" in data or b"addsitedir" in data for data in own)

    @property
    def _image(self) -> str:
        return self._environment.image.framework_version

    def _follow(self, importer: Module, path: str, item: Import, *, is_certain: bool) -> None:
        where = f"{path}:{item.line}"
        say = problem if is_certain else warning
        name: str | None = item.module
        if item.level:
            package = "" if importer.name == "__main__" else importer.package
            name = absolute_name(package, item.level, item.module)
            if name is None:
                shown = "." * item.level + item.module
                self._findings.append(
                    say(
                        where,
                        f"the relative import of {shown!r} leaves the code: a script, and a module beside it, is in no "
                        "package",
                        f"import it absolutely: {_absolute(item)}",
                    )
                )
                return
        if not name or name == "__main__":
            return
        top = name.partition(".")[0]
        if top == "smkit":
            self._check_smkit(where, name, item, is_certain=is_certain)
        elif self._modules.find(top) is not None or item.level:
            self._load_own(where, name, item, is_certain=is_certain)
        else:
            self._check_foreign(where, name, item, is_certain=is_certain)

    def _check_smkit(self, where: str, name: str, item: Import, *, is_certain: bool) -> None:
        # On this machine too: the package that travels comes first, and hides the installed one.
        say = problem if is_certain else warning
        fix = f"import from {_TEMPLATE} only: nothing else of smkit is in the container"
        if name == "smkit" and not item.names:
            self._findings.append(warning(where, "import smkit brings nothing but smkit.entrypoint there", fix))
        elif name == "smkit" and set(item.names) - {"entrypoint", "__version__"}:
            names = ", ".join(sorted(set(item.names) - {"entrypoint", "__version__"}))
            self._findings.append(say(where, f"smkit.{names} does not travel with a job", fix))
        elif name != "smkit" and not f"{name}.".startswith(f"{_TEMPLATE}."):
            self._findings.append(say(where, f"{name} does not travel with a job", fix))

    def _load_own(self, where: str, name: str, item: Import, *, is_certain: bool) -> None:
        """Queue a module of the code with the packages around it, and what is imported from it."""
        parts = name.split(".")
        found: Module | None = None
        for length in range(1, len(parts) + 1):
            part = ".".join(parts[:length])
            found = self._own(part)
            if found is None:
                self._report_absent(where, part, is_certain=is_certain)
                return
            self._queue(found, is_certain=is_certain)
        if length == 1 and found is not None:
            self._warn_of_shadow(found)
        if found is not None and found.is_package:
            for imported in item.names:
                inner = self._own(f"{name}.{imported}")
                if inner is not None:
                    self._queue(inner, is_certain=is_certain)

    def _own(self, name: str) -> Module | None:
        return self._modules.find(name) or self._modules.namespace(name)

    def _queue(self, module: Module, *, is_certain: bool) -> None:
        (self._certain if is_certain else self._possible).append(module)

    def _report_absent(self, where: str, name: str, *, is_certain: bool) -> None:
        parent, _, _ = name.rpartition(".")
        say = problem if is_certain else warning
        self._findings.append(
            say(where, f"there is no module {name!r} in the code", f"add it, or correct the import from {parent!r}")
        )

    def _warn_of_shadow(self, module: Module) -> None:
        hidden = ""
        if module.name in sys.builtin_module_names:
            return  # found before any file
        if module.name in self._environment.image.stdlib:
            hidden = "the standard library's module of that name"
        elif any(name.partition(".")[0] == module.name for name in self._environment.modules):
            hidden = "the image's package of that name"
        if hidden and ("shadow", module.name) not in self._missing:
            self._missing.add(("shadow", module.name))
            self._findings.append(
                warning(module.path or module.name, f"hides {hidden}, from other packages too", "rename it")
            )

    def _check_foreign(self, where: str, name: str, item: Import, *, is_certain: bool) -> None:
        top = name.partition(".")[0]
        if top in self._environment.image.stdlib:
            self._check_stdlib(where, name, item, is_certain=is_certain)
            return
        answer = self._environment.has(name)
        if answer != "yes" and is_of_another_stdlib(self._environment.python, top):
            self._report_other_stdlib(where, top, is_certain=is_certain)
            return
        if answer == "yes" or ("", name) in self._missing:
            return
        if (namespace := self._modules.namespace(top)) is not None:
            self._load_own(where, name, item, is_certain=is_certain)
            self._queue(namespace, is_certain=is_certain)
            return
        # Said once of a module, and of the most certain import, which comes first.
        self._missing.add(("", name))
        if answer == "likely":
            what = (
                f"{name!r} is in the image {self._image} for its own tools only: nothing promises it, nor its version"
            )
            self._findings.append(warning(where, what, self._how_to_install(name, item)))
        elif answer == "maybe":
            what = f"{name!r} is not named in requirements.txt; only a dependency of what is there can bring it"
            self._findings.append(warning(where, what, self._how_to_install(name, item)))
        elif (place := self._modules.deeper(top)) is not None and self._changes_path:
            what = f"{name!r} is at {place}: whether what the code does to sys.path leads there is not known"
            self._findings.append(unknown(where, what))
        else:
            fails_here = self._here and find_spec(top) is None
            say = self._say(is_certain, fails_here=fails_here)
            self._findings.append(say(where, self._why_missing(name), self._how_to_get(name, item)))

    def _report_other_stdlib(self, where: str, top: str, *, is_certain: bool) -> None:
        if ("", top) in self._missing:
            return
        self._missing.add(("", top))
        say = self._say(is_certain, fails_here=self._here and find_spec(top) is None)
        what = (
            f"{top!r} is not in the standard library of Python {_label(self._environment.python)}, which the image "
            f"{self._image} has"
        )
        backport = _BACKPORTS.get(top)
        fix = "do without it, or choose another framework_version"
        if backport is not None:
            module, distribution = backport
            fix = f"import {module}, and add the line {distribution!r} to requirements.txt"
        self._findings.append(say(where, what, fix))

    def _check_stdlib(self, where: str, name: str, item: Import, *, is_certain: bool) -> None:
        say = self._say(is_certain)
        python = self._environment.python
        parent, _, last = name.rpartition(".")
        pairs = [(name, imported) for imported in item.names] + ([(parent, last)] if parent else [])
        for module, imported in pairs:
            if reason := missing_name(python, module, imported):
                what = f"{module}.{imported} {reason}; the image {self._image} has {_label(python)}"
                fix = "guard it with try/except ImportError"
                if module == "typing" and "came" in reason:
                    fix = "import it from typing_extensions, and add typing-extensions to requirements.txt"
                elif module == "collections":
                    fix = f"import it from collections.abc: from collections.abc import {imported}"
                self._findings.append(say(where, what, fix))

    def _why_missing(self, name: str) -> str:
        return (
            f"no module {name!r}: neither the image {self._image} (Python {_label(self._environment.python)}), nor "
            "requirements.txt, nor the code has it"
        )

    def _how_to_get(self, name: str, item: Import) -> str:
        top = name.partition(".")[0]
        if (near := self._beside(top)) is not None:
            return (
                f"{near.name} lies beside the script, but the script travels alone: pass "
                f"source_dir={str(near.parent)!r}, or dependencies=[{str(near)!r}]"
            )
        if _distribution(name, item) is None:
            names = {*self._environment.image.stdlib, *self._environment.modules, *self._modules.tops()}
            if near_names := difflib.get_close_matches(top, sorted(names), n=1, cutoff=_NEAR):
                return f"did you mean {near_names[0]!r}? If not, {self._how_to_install(name, item)}"
        return self._how_to_install(name, item)

    def _how_to_install(self, name: str, item: Import) -> str:
        if self._isolated:
            return (
                "the container has no network: put the module into source_dir, or use an image that has it (image_uri)"
            )
        distribution = _distribution(name, item)
        line = f"the line {distribution!r}" if distribution else "the distribution that brings it"
        if self._sources is None:
            return f"add {line} to requirements.txt"
        return f"add {line} to a requirements.txt beside the script, and pass that folder as source_dir"

    def _beside(self, top: str) -> Path | None:
        if self._sources is None:
            return None
        candidates = (self._sources / f"{top}.py", self._sources / top)
        return next((path for path in candidates if path.is_file() or any(path.glob("*.py"))), None)


def _unreadable(
    path: str, error: Unreadable, python: tuple[int, int], say: Callable[[str, str, str], Finding]
) -> Finding:
    where = f"{path}:{error.line}" if error.line else path
    if python > sys.version_info[:2]:
        here = _label(sys.version_info[:2])
        return unknown(where, f"{error.message}, says this Python {here}; the image's {_label(python)} may read it")
    return say(where, error.message, "correct it")


def _distribution(name: str, item: Import) -> str | None:
    # from google.cloud import storage: what is imported tells more than from where.
    names = (name, *(f"{name}.{imported}" for imported in item.names))
    return next((found for dotted in names if (found := distribution_of(dotted)) is not None), None)


def _absolute(item: Import) -> str:
    names = ", ".join(item.names)
    return f"from {item.module} import {names}" if item.module else f"import {names}"


def _label(python: tuple[int, ...]) -> str:
    return f"{python[0]}.{python[1]}"
