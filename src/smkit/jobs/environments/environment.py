"""An environment as a value: where it lies, and what is known of it once it is built.

Nothing here starts a process where the environment is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from smkit.jobs.environments.contents import Contents, contents_of
from smkit.jobs.environments.interpreters import find_interpreter
from smkit.jobs.environments.names import EnvironmentName, known_names, parse_environment
from smkit.jobs.environments.record import EnvironmentFacts, changes, coarse_changes, read_record
from smkit.versioning.cache import cache_folder


@dataclass(frozen=True)
class Environment:
    """The Python and the packages of an image, on this machine; built or not.

    Args:
        name: Which.
        contents: What it holds.
        root: The folder of all environments.
        base: The interpreter that it will stand on; None where it was built already when it was located.
    """

    name: EnvironmentName
    contents: Contents = field(repr=False)
    root: Path = field(repr=False)
    base: Path | None = field(default=None, repr=False, compare=False)

    @property
    def python_version(self) -> str:
        """Its Python, such as `3.9`; the exact one is in `built`."""
        return self.contents.python_version

    @property
    def digest(self) -> str:
        """SHA-256 of the pins, the Python, the platform and the layout, in hexadecimal."""
        return self.contents.digest

    @property
    def folder(self) -> Path:
        """Where it lies, built or not."""
        # Short enough for the first line of a script, which the kernel cuts.
        return self.root / f"{self.name.label}-{self.digest[:16]}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def is_built(self) -> bool:
        """Whether it is whole, with the packages it was built with, on an interpreter that is still the same.

        What was changed in a file, only `changes` says, which looks at every one.
        """
        return self.built is not None

    @property
    def changes(self) -> tuple[str, ...]:
        """What was changed since it was built, so that it is built again before it is used; looks at every file."""
        record = read_record(self.folder)
        return () if record is None else tuple(changes(self.folder, record))

    @property
    def built(self) -> EnvironmentFacts | None:
        """What it is; None where it is not built, was installed into, or its interpreter is another."""
        record = read_record(self.folder)
        if record is None or record.facts.digest != self.digest or coarse_changes(self.folder, record):
            return None
        return record.facts


def locate(name: EnvironmentName | str, *, folder: Path | None = None) -> Environment:
    """Return an environment, and make sure that it is built or its interpreter is there; builds nothing.

    Args:
        name: Such as `1.2-1` or `1.2-1[toolkits]`.
        folder: The folder of all environments; default: `environments_folder()`.

    Raises:
        ConfigError: It names no image whose content is known.
        ParityEnvironmentError: It is not built, and its Python is not on this machine; the message says the command
            that installs it.
    """
    wanted = describe(name, folder=folder)
    if wanted.is_built:
        return wanted
    return replace(wanted, base=find_interpreter(wanted.contents.python).path)


def describe(name: EnvironmentName | str, *, folder: Path | None = None) -> Environment:
    """Return an environment without looking for an interpreter.

    Raises:
        ConfigError: It names no image whose content is known.
    """
    parsed = parse_environment(name) if isinstance(name, str) else name
    return Environment(parsed, contents_of(parsed), environments_folder() if folder is None else Path(folder))


def installed(*, folder: Path | None = None) -> tuple[Environment, ...]:
    """Return the environments that are built and can be used, the oldest image first.

    Args:
        folder: The folder of all environments; default: `environments_folder()`.
    """
    found = (describe(name, folder=folder) for name in known_names())
    return tuple(environment for environment in found if environment.is_built)


def environments_folder() -> Path:
    """Return where environments are kept: `$XDG_CACHE_HOME/smkit/environments`, by default below `~/.cache`.

    Raises:
        StorageError: The user has no home folder and the variable is not set.
    """
    return cache_folder().parent / "environments"
