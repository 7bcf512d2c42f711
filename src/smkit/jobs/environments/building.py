"""Builds an environment once, however many ask for it at once and whatever ends them; removes it.

A virtual environment holds its own path, in the first line of every script, so it is built where it will stay. Whoever
builds or removes holds a lock, which the installer inherits: it is held for as long as anything may write into the
folder, even where the builder was killed. The record is written last; a folder without it was never finished, and the
next to hold the lock deletes it. What is in use (`hold`) is neither removed nor built again.

From the record on, jobs may use it. Its bytecode follows in a process that nobody waits for (`bytecode`), which
inherits the lock too, so that nothing is removed under it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.display import shown_size
from smkit.errors import ConfigError, ParityEnvironmentError
from smkit.jobs.container_paths import BASE
from smkit.jobs.environments import record as records
from smkit.jobs.environments.bytecode import is_compiled, start_compiling
from smkit.jobs.environments.environment import Environment, describe, environments_folder
from smkit.jobs.environments.installers import choose_installer
from smkit.jobs.environments.interpreters import find_interpreter
from smkit.jobs.environments.locking import build_lock, out_of_use, try_build_lock, use_lock
from smkit.jobs.environments.names import EnvironmentName, parse_environment
from smkit.jobs.environments.programs import answer_of
from smkit.jobs.environments.showing import Show
from smkit.jobs.launching import why_no_private_mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import SecretStr

#: Of uv, then of pip, which goes on without the index and ends with one of the lines of `_NO_WHEELS`.
_NOT_REACHED = re.compile(
    r"error sending request|client error \(Connect\)|tunnel error|dns error|operation timed out"
    r"|connection broken|NewConnectionError|ProxyError|Could not fetch URL|Connection refused|Read ?timed ?out"
    r"|Name or service not known|not a trusted or secure host",
    re.IGNORECASE,
)
#: The last is pip's: the pins of an image fit together, so what "conflicts" is a pin with what the index has.
_NO_WHEELS = re.compile(
    r"no usable wheels|no wheels with a matching|there is no version of|no matching distribution|ResolutionImpossible",
    re.IGNORECASE,
)


def ensure_built(
    environment: Environment | EnvironmentName | str,
    *,
    progress: bool = True,
    index_url: SecretStr | str | None = None,
    compiled: bool = False,
) -> Environment:
    """Build an environment unless it is built; of many who ask at once one builds, the others wait.

    One that was changed since it was built, be it in one file, is built again. A failed or interrupted
    build leaves nothing.

    Args:
        environment: Which, or its name.
        progress: Whether to say on stderr what is done; nothing is said where it is built already.
        index_url: The package index, instead of the one that is configured for uv or pip.
        compiled: Whether to wait until it is compiled to bytecode too; jobs run before, and start more slowly.

    Returns:
        The environment, built.

    Raises:
        ConfigError: It names no image whose content is known; or `index_url` is no URL.
        ParityEnvironmentError: There is no such Python on this machine; or the installation failed; or it was changed
            while a job runs in it.
        StorageError: There is no folder to keep it in.
    """
    url = _plain_url(index_url)
    if not isinstance(environment, Environment):
        environment = describe(environment)
    show = Show(quiet=not progress)
    if not _is_unchanged(environment):
        with (
            _explained(environment.folder, "built"),
            show,
            _locked(environment.folder, str(environment.name), show) as lock,
        ):
            # Somebody else may have built it while this one waited.
            if not _is_unchanged(environment) and not _adopted(environment):
                _build(environment, url, lock, show)
    with _explained(environment.folder, "compiled"), show:
        _compile(environment, show, wait=compiled)
    return environment


@contextlib.contextmanager
def hold(environment: Environment) -> Iterator[int]:
    """Keep an environment from being removed or built again while something runs in it.

    Yields:
        The descriptor of a lock. A process that inherits it (`pass_fds`) keeps the environment until it ends.

    Raises:
        ParityEnvironmentError: It is not built, or not any more.
    """
    with contextlib.ExitStack() as stack:
        with _explained(environment.folder, "used"):
            descriptor = stack.enter_context(use_lock(environment.folder))
        if not environment.is_built:
            raise ParityEnvironmentError(
                f"environment {str(environment.name)!r} is not built, or was removed or changed a moment ago: try again"
            )
        yield descriptor


def remove(name: EnvironmentName | str, *, folder: Path | None = None, progress: bool = True) -> int:
    """Delete an environment: also what was built of it for an older list of packages, and what was left half built.

    Args:
        name: Such as `1.2-1` or `1.2-1[toolkits]`.
        folder: The folder of all environments; default: `environments_folder()`.
        progress: Whether to say on stderr that another process has to be waited for.

    Returns:
        The bytes of the files that were deleted; 0 where there was nothing.

    Raises:
        ConfigError: It names no image whose content is known.
        ParityEnvironmentError: A job runs in it, or its files cannot be deleted.
        StorageError: There is no folder to keep it in.
    """
    parsed = parse_environment(name) if isinstance(name, str) else name
    root = environments_folder() if folder is None else Path(folder)
    return sum(_remove(path, quiet=not progress) for path in folders_of(parsed, root))


def remove_all(*, folder: Path | None = None, progress: bool = True) -> int:
    """Delete every environment, also of images that this smkit does not know; see `remove`.

    Raises:
        ParityEnvironmentError: A job runs in one of them, or files cannot be deleted; what can be is deleted before.
        StorageError: There is no folder to keep them in.
    """
    root = environments_folder() if folder is None else Path(folder)
    problems: list[str] = []

    def attempt(path: Path) -> int:
        try:
            return _remove(path, quiet=not progress)
        except ParityEnvironmentError as error:
            problems.append(str(error))
            return 0

    freed = sum(attempt(path) for path in _folders(root, r".+"))
    if problems:
        raise ParityEnvironmentError("; ".join(problems))
    return freed


def folders_of(name: EnvironmentName, root: Path) -> list[Path]:
    """Return where anything of an environment lies: also of older lists of packages, also what was left half built."""
    return _folders(root, re.escape(name.label))


def _folders(root: Path, label: str) -> list[Path]:
    pattern = re.compile(rf"\.?(?P<folder>{label}-[0-9a-f]{{16}})(?:\.[0-9a-f]{{32}})?")
    try:
        found = [pattern.fullmatch(entry.name) for entry in root.iterdir()]
    except FileNotFoundError:
        return []
    return [root / folder for folder in sorted({match["folder"] for match in found if match is not None})]


def _remove(folder: Path, *, quiet: bool) -> int:
    name = folder.name.rpartition("-")[0]
    show = Show(quiet=quiet)
    with _explained(folder, "removed"), show, _locked(folder, name, show), out_of_use(folder) as unused:
        if not unused:
            raise ParityEnvironmentError(
                f"environment {name!r} cannot be removed: a job is running in it. Wait for it, or stop it"
            )
        return _delete(folder)


def _build(environment: Environment, url: str | None, lock: int, show: Show) -> None:
    folder, name = environment.folder, str(environment.name)
    started = time.monotonic()
    with out_of_use(folder) as unused:
        if not unused:
            record = records.read_record(folder)
            changed = "; ".join(records.changes(folder, record)) if record else "its record was deleted"
            raise ParityEnvironmentError(
                f"environment {name!r} was changed ({changed}) while a job runs in it. Wait for it, or stop it; then "
                "it is built anew. What a job needs beside the image's packages belongs into its requirements.txt"
            )
        if tainted := records.shared_changes(folder):
            show.line(
                f"files of environment {name!r} were written to, and with them what uv keeps in its cache for all your "
                "projects: `uv cache clean` undoes that"
            )
        _delete(folder)
        base = environment.base
        if base is None or not base.is_file():
            base = find_interpreter(environment.contents.python).path
        linked = not why_no_private_mount(environment.root, BASE)
        installer = choose_installer(url, linked=linked, cached=not tainted)
        show.line(
            f"building environment {name!r} with {installer.name} on {base}; once, from some seconds to a few minutes"
        )
        try:
            installer.install(base, folder, environment.contents, lock=lock, say=show.detail)
            facts = _facts_of(environment, base, installer.name)
            records.protect(folder)
            records.write_record(folder, facts)
        except ParityEnvironmentError as error:
            _discard(folder)
            raise ParityEnvironmentError(
                f"environment {name!r} could not be built: {error}{_hint(environment, str(error))}"
            ) from None
        except BaseException:
            _discard(folder)
            raise
    show.line(
        f"built environment {name!r} in {time.monotonic() - started:.0f} s: Python {facts.python_version}, "
        f"{len(facts.packages)} packages, {shown_size(facts.size)}"
    )


def _compile(environment: Environment, show: Show, *, wait: bool) -> None:
    """Have an environment compiled unless it is, or is being compiled; with `wait`, return once that has ended."""
    folder, name = environment.folder, str(environment.name)
    if is_compiled(folder):
        return
    with _locked(folder, name, show) if wait else try_build_lock(folder) as lock:
        if lock is not None and not is_compiled(folder):
            start_compiling(environment.python, folder, lock=lock)
    if wait:
        # Who compiles has it until it ends.
        with build_lock(folder, lambda: show.line(f"compiling environment {name!r} to bytecode")):
            pass
        if not is_compiled(folder):
            show.line(f"environment {name!r} was not compiled to bytecode: jobs in it start more slowly")


def _facts_of(environment: Environment, base: Path, installer: str) -> records.EnvironmentFacts:
    version = _version_of(environment.python)
    if version is None or _minor(version) != environment.python_version:
        raise ParityEnvironmentError(f"its Python is {version or 'broken'}, not {environment.python_version}: {base}")
    packages = records.installed_packages(environment.folder, version)
    if wrong := environment.contents.differences(packages):
        raise ParityEnvironmentError(f"what was installed is not what was asked for: {'; '.join(wrong)}")
    return records.EnvironmentFacts(
        name=str(environment.name),
        digest=environment.digest,
        python_version=version,
        packages=packages,
        size=records.size_of(environment.folder),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        installer=installer,
        base=str(base),
    )


def _is_unchanged(environment: Environment) -> bool:
    return environment.is_built and not environment.changes


def _adopted(environment: Environment) -> bool:
    """Whether it was enough to note that its interpreter got a bug-fix release, as a system's updates bring them."""
    record = records.read_record(environment.folder)
    if record is None or record.facts.digest != environment.digest:
        return False
    version = _version_of(environment.python)
    if version is None or _minor(version) != environment.python_version:
        return False
    if records.installed_folders(environment.folder, version) != list(record.installed):
        return False
    if records.files_digest(environment.folder) != record.files:
        return False
    records.write_record(environment.folder, replace(record.facts, python_version=version))
    return True


def _version_of(python: Path) -> str | None:
    answer = answer_of([str(python), "-I", "-S", "-c", "import platform; print(platform.python_version())"])
    return None if answer is None else answer.strip()


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _delete(folder: Path) -> int:
    """Delete a folder and what a killed deletion left of it; return the bytes."""
    if folder.is_dir():
        # At once for everybody: what is half deleted could still look whole.
        folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex}"))
    freed = 0
    for path in folder.parent.glob(f".{folder.name}.*"):
        freed += records.size_of(path)
        records.unprotect(path)
        shutil.rmtree(path)
    return freed


def _discard(folder: Path) -> None:
    # Without a record it is not used, and the next builder tries again to delete it: the first error is what matters.
    with contextlib.suppress(OSError):
        records.unprotect(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _hint(environment: Environment, said: str) -> str:
    # First: without its index an installer says as well that it finds no package.
    if _NOT_REACHED.search(said):
        return (
            "\nThe package index was not reached. Is there a network, and a proxy to be named (HTTPS_PROXY)? Name an "
            "index that can be reached by the setting pip_index_url (SMKIT_PIP_INDEX_URL), or as uv or pip are told"
        )
    if environment.contents.wanted is None:
        return (
            "\nSome packages of the whole list are compiled: that needs a C compiler and the headers of Python. "
            f"{environment.name.framework_version!r} alone needs neither"
        )
    if _NO_WHEELS.search(said):
        machine = os.uname()
        platform = f"{machine.sysname} {machine.machine}"
        missing = f"\nThe index has no ready-made package of this version for Python {environment.python_version} on "
        if platform == "Linux x86_64":
            return f"{missing}{platform}. Name one that has it: by the setting pip_index_url, or as uv or pip are told"
        return f"{missing}{platform}. Images are made for Linux x86_64; see docs/environments.md"
    return ""


@contextlib.contextmanager
def _locked(folder: Path, name: str, show: Show) -> Iterator[int]:
    def on_wait() -> None:
        show.line(f"waiting for another process that builds, compiles or removes environment {name!r}")

    with build_lock(folder, on_wait) as descriptor:
        yield descriptor


@contextlib.contextmanager
def _explained(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except ParityEnvironmentError:
        raise
    except OSError as error:
        raise ParityEnvironmentError(
            f"the environment in {folder} cannot be {what}: {error.strerror or error}. Environments lie below "
            "$XDG_CACHE_HOME, by default ~/.cache"
        ) from error


def _plain_url(index_url: SecretStr | str | None) -> str | None:
    if index_url is None:
        return None
    url = index_url if isinstance(index_url, str) else index_url.get_secret_value()
    if not re.fullmatch(r"(?:https?|file)://\S+", url):
        raise ConfigError("the package index is not a URL such as 'https://mirrors.example.cn/pypi/simple'")
    return url
