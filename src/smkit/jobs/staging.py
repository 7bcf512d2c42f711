"""The code of a job, staged once for every backend: the same bytes run on this machine and on SageMaker."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smkit._version import __version__
from smkit.errors import ConfigError, JobError, did_you_mean
from smkit.jobs.ignoring import FILE
from smkit.jobs.scanning import check_travels, scan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smkit.jobs.spec import JobSpec

MAX_BYTES = 100 * 1000 * 1000
_GIT_SECONDS = 3.0
_PACKAGE = "smkit"


class StagedFile(NamedTuple):
    """One file: its bytes, and whether it may be executed."""

    data: bytes
    executable: bool


@dataclass(frozen=True)
class StagedCode:
    """The code folder of a job, in memory, so that its digest is the digest of what runs.

    Args:
        entry_point: Path of the script inside the code folder, with `/`.
        files: Path inside the code folder, with `/` -> file, sorted.
        digest: Hex SHA-256 over the sorted paths, the executable bits and the bytes.
        git_commit: Commit of the checkout that the script comes from, or None.
        git_dirty: Whether the code differs from that commit; None where git cannot say, as of a dependency that lies
            elsewhere.
        dependencies: The files and folders that were put beside the code.
    """

    entry_point: str
    files: Mapping[str, StagedFile] = field(repr=False)
    digest: str
    git_commit: str | None
    git_dirty: bool | None
    dependencies: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(file.data) for file in self.files.values())

    def write(self, folder: Path) -> None:
        """Write the files into an existing, empty folder."""
        for path, file in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.data)
            target.chmod(0o755 if file.executable else 0o644)

    def archive(self) -> bytes:
        """Return `sourcedir.tar.gz`; the same code gives the same bytes."""
        buffer = io.BytesIO()
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path, file in self.files.items():
                info = tarfile.TarInfo(path)
                info.size = len(file.data)
                info.mode = 0o755 if file.executable else 0o644
                tar.addfile(info, io.BytesIO(file.data))
        return buffer.getvalue()

    def describe(self) -> dict[str, Any]:
        """Return what the lineage says of the code."""
        return {
            "digest": f"sha256:{self.digest}",
            "files": len(self.files),
            "bytes": self.size,
            "git_commit": self.git_commit,
            "git_dirty": self.git_dirty,
            "dependencies": [str(path) for path in self.dependencies],
        }


def stage(spec: JobSpec, *, max_bytes: int = MAX_BYTES) -> StagedCode:
    """Read the code of a job.

    Args:
        spec: The job.
        max_bytes: Most bytes that the code may have in all.

    Raises:
        ConfigError: The entry point, `source_dir` or a dependency is not there, is left out by a rule, or cannot be
            read; two of them have one name; the code is too large, links lead out of it, or it holds an `smkit` of its
            own.
        JobError: The script does not compile.
    """
    folder, entry_point = _locate(spec)
    try:
        found = _gather(spec, folder, entry_point)
        _check_own_names(found)
        _check_size(found, max_bytes)
        files = {path: _read(source) for path, source in found.items()}
    except OSError as error:
        raise ConfigError(f"cannot read the code: {error.filename}: {error.strerror}") from error
    _check_syntax(folder / entry_point, entry_point, files[entry_point].data)
    # The toolkit runs `chmod 777` on a shell script, whatever its mode was.
    if entry_point.endswith(".sh"):
        files[entry_point] = files[entry_point]._replace(executable=True)
    files |= _smkit_package()
    files = {path: files[path] for path in sorted(files, key=os.fsencode)}
    own = "." if spec.source_dir is not None else entry_point
    commit, dirty = _git_state(folder, [own, *map(str, spec.dependencies)])
    return StagedCode(entry_point, files, _digest(files), commit, dirty, spec.dependencies)


def _gather(spec: JobSpec, folder: Path, entry_point: str) -> dict[str, Path]:
    """Return path in the code -> file, of `source_dir` or the script alone, and of the dependencies."""
    if spec.source_dir is None:
        found = {entry_point: folder / entry_point}
    else:
        code = scan(folder, "source_dir")
        if entry_point not in code.files:
            raise ConfigError(f"entry_point {spec.entry_point!r} is left out of the code by {code.why(entry_point)}")
        found = dict(code.files)
    owners = {path.partition("/")[0]: str(folder / path.partition("/")[0]) for path in found}
    for dependency in spec.dependencies:
        name = dependency.name
        if name in owners:
            raise ConfigError(
                f"dependency {str(dependency)!r} goes to {name!r} in the code, where {owners[name]} lies already: a "
                "dependency lies beside the script under its own name; rename one of the two"
            )
        owners[name] = str(dependency)
        found |= _files_of_dependency(dependency)
    return found


def _files_of_dependency(dependency: Path) -> dict[str, Path]:
    check_travels(dependency.name, f"dependency {str(dependency)!r}")
    if dependency.is_file():
        return {dependency.name: dependency}
    if not dependency.is_dir():
        what = "is neither a file nor a folder" if dependency.exists() else "does not exist"
        names = [path.name for path in dependency.parent.glob("*")] if dependency.parent.is_dir() else []
        raise ConfigError(f"dependency {str(dependency)!r} {what}{did_you_mean(dependency.name, names)}")
    content = scan(dependency, f"dependency {str(dependency)!r}")
    if not content.files:
        raise ConfigError(f"dependency {str(dependency)!r} holds no file that travels: leave it out")
    return {f"{dependency.name}/{path}": source for path, source in content.files.items()}


def _locate(spec: JobSpec) -> tuple[Path, str]:
    """Return the folder that becomes the code folder, and the script's path inside it."""
    given = Path(spec.entry_point).expanduser()
    if spec.source_dir is None:
        script = given.absolute()
        if not script.is_file():
            raise ConfigError(
                f"entry_point {spec.entry_point!r} does not exist: there is no file {script}{_near(script)}"
            )
        folder, relative = script.parent, Path(script.name)
    else:
        folder = spec.source_dir
        if not folder.is_dir():
            raise ConfigError(f"source_dir {str(folder)!r} is not a folder")
        inside = given.absolute() if given.is_absolute() or not (folder / given).is_file() else folder / given
        # Not resolved: a link inside source_dir keeps its name there.
        relative = Path(os.path.relpath(inside, folder))
        if ".." in relative.parts or not (folder / relative).is_file():
            raise ConfigError(
                f"entry_point {spec.entry_point!r} is not a file inside source_dir {str(folder)!r}"
                f"{_near(folder / given)}"
            )
    path = relative.as_posix()
    if path.endswith(".sh") and not path.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(
            f"entry_point {path!r}: a shell script's path may hold letters, digits, '.', '-', '_' and '/'"
        )
    return folder, path


def _near(script: Path) -> str:
    names = (
        [path.name for path in script.parent.glob("*") if path.suffix in {".py", ".sh"}]
        if script.parent.is_dir()
        else []
    )
    return did_you_mean(script.name, names)


def _check_own_names(found: Mapping[str, Path]) -> None:
    for path, source in found.items():
        if path.partition("/")[0] in {_PACKAGE, f"{_PACKAGE}.py"}:
            raise ConfigError(
                f"the code holds {path!r}: the name {_PACKAGE!r} is taken by the package that every job brings along; "
                f"rename {source}"
            )


def _check_size(found: Mapping[str, Path], max_bytes: int) -> None:
    sizes = {path: source.stat().st_size for path, source in found.items()}
    total = sum(sizes.values())
    if total > max_bytes:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
        listed = "\n".join(f"  {sizes[path] / 1e6:10.1f} MB  {path}" for path in largest)
        raise ConfigError(
            f"the code is {total / 1e6:.1f} MB; at most {max_bytes / 1e6:.1f} MB travel with a job. "
            f"The largest files:\n{listed}\nPass data as a channel (`inputs`), and keep it out of source_dir, or list "
            f"it in {FILE} there"
        )


def _read(path: Path) -> StagedFile:
    with path.open("rb") as file:
        return StagedFile(file.read(), bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR))


def _check_syntax(script: Path, entry_point: str, source: bytes) -> None:
    if not entry_point.endswith(".py"):
        return
    try:
        with warnings.catch_warnings():
            # A warning about the user's code is for the run to show, in its log.
            warnings.simplefilter("ignore")
            compile(source, str(script), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise JobError(
            f"{script}, line {error.lineno}: {type(error).__name__}: {error.msg}" + (f"\n    {line}" if line else "")
        ) from None
    except ValueError as error:
        raise JobError(f"{script} is not Python source: {error}") from None


def _smkit_package() -> dict[str, StagedFile]:
    """Return the package that gives a script `smkit.entrypoint` where smkit is not installed."""
    package = Path(__file__).parent.parent
    init = f'"""The part of smkit that travels with a job: the training template."""\n\n__version__ = "{__version__}"\n'
    files = {f"{_PACKAGE}/__init__.py": StagedFile(init.encode(), executable=False)}
    # Only sources: what Python compiles beside them differs from machine to machine.
    for module in (package / "entrypoint").rglob("*.py"):
        path = f"{_PACKAGE}/{module.relative_to(package).as_posix()}"
        files[path] = StagedFile(module.read_bytes(), executable=False)
    return files


def _digest(files: Mapping[str, StagedFile]) -> str:
    digest = hashlib.sha256()
    for path, file in files.items():
        # The length separates one file's bytes from the next one's path.
        digest.update(os.fsencode(path) + b"\0" + (b"x" if file.executable else b"-") + b"%d\0" % len(file.data))
        digest.update(file.data)
    return digest.hexdigest()


def _git_state(folder: Path, paths: Sequence[str]) -> tuple[str | None, bool | None]:
    """Return the commit and whether the paths differ from it; None where git cannot or must not say."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None, None
    changes = _git(folder, "--literal-pathspecs", "status", "--porcelain", "--", *paths)
    return commit.strip(), None if changes is None else bool(changes.strip())


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook GIT_DIR names the hook's repository, not the code's.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        # The checkout may be somebody else's: it must not name a program for git to run.
        result = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],  # noqa: S607 - the user's git, wherever PATH has it
            cwd=folder,
            env=variables | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode("utf-8", "replace") if result.returncode == 0 else None
