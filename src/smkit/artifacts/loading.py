"""From a version's files to an estimator in memory."""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import platform
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from smkit.artifacts.archive import copy_member
from smkit.artifacts.publishing import ARCHIVE
from smkit.artifacts.skops_format import load_skops
from smkit.environment import package_version
from smkit.errors import (
    EnvironmentMismatch,
    EnvironmentMismatchWarning,
    IntegrityError,
    ModelError,
    PickleNotAllowed,
    did_you_mean,
)
from smkit.versioning import StoredFile
from smkit.versioning.reading import open_verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smkit.artifacts.version import ModelVersion

_PICKLES = (".joblib", ".pkl", ".pickle")
_SKOPS = ".skops"
_MODELS = (*_PICKLES, _SKOPS)
#: What a pickle raises whose classes were moved, or whose state has another shape, in the version that is here.
_UNPICKLING_ERRORS = (AttributeError, ImportError, KeyError, TypeError, ValueError, pickle.UnpicklingError)
#: What the training template, and `publish` of an estimator, call the model.
_USUAL_NAMES = ("model.joblib", "model.skops")


def load_model(
    version: ModelVersion, *, allow_pickle: bool, strict: bool, file: str | None, trusted: Sequence[str | type]
) -> Any:
    """Load a version's model; see `ArtifactStore.load`."""
    chosen = _find(version, file) if file is not None else _choose(version)
    is_skops = chosen.path.endswith(_SKOPS)
    if not is_skops and not allow_pickle:
        raise PickleNotAllowed(
            f"{version.ref} is a pickle ({chosen.path}), and a pickle runs code when it is loaded: if you trust who "
            f"published it ({version.created_by}, {version.created_at}), "
            f"load with allow_pickle=True, or set `allow_pickle` in the settings"
        )
    mismatch = _compare_environment(version)
    if mismatch and strict:
        raise EnvironmentMismatch(f"{version.ref} {mismatch}")
    with _open(version, chosen) as stream:
        if is_skops:
            model = load_skops(stream, f"{chosen.path} of {version.ref}", trusted)
        else:
            model = _unpickle(version, stream, mismatch)
    if mismatch:
        warnings.warn(f"{version.ref} {mismatch}", EnvironmentMismatchWarning, stacklevel=3)
    return model


def _unpickle(version: ModelVersion, stream: BinaryIO, mismatch: str) -> Any:
    import joblib

    try:
        return joblib.load(stream)
    except _UNPICKLING_ERRORS as error:
        is_import = isinstance(error, (AttributeError, ImportError))
        if not (is_import or mismatch):
            raise
        what = str(error).partition("\n")[0].rstrip(":")
        problem = f"{version.ref} cannot be unpickled here: {what}"
        if not mismatch or (is_import and _lacks_code(error)):
            raise ModelError(f"{problem}; {_importable(error)}") from error
        raise EnvironmentMismatch(f"{problem}; it {mismatch}") from error


def _lacks_code(error: Exception) -> bool:
    """Whether the code of a class is not here at all, so that its version does not matter."""
    if isinstance(error, ImportError) and error.name:
        package = error.name.partition(".")[0]
        return package not in sys.modules and importlib.util.find_spec(package) is None
    return "__main__" in str(error)


def _importable(error: Exception) -> str:
    """Say how the classes that a pickle names become importable."""
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return (
            "its class was defined in the training script itself, which no other program can load: move the class to a "
            "module of its own beside the script, and train again"
        )
    module = f"module {error.name!r}" if isinstance(error, ImportError) and error.name else "module of its classes"
    return (
        f"the {module} must be importable under the name that it had in training: install its package, or put the "
        f"folder of the training code first on sys.path: sys.path.insert(0, 'folder')"
    )


def open_file(version: ModelVersion, path: str) -> BinaryIO:
    """Open a file of a version, or one inside its archive; see `ArtifactStore.open`."""
    return _open(version, _find(version, path))


def _find(version: ModelVersion, path: str) -> StoredFile:
    files = (*version.manifest.files, *_members(version))
    for candidate in files:
        if candidate.path == path:
            return candidate
    paths = [candidate.path for candidate in files]
    raise ModelError(f"{version.ref} holds no file {path!r}{did_you_mean(path, paths)}; it holds {', '.join(paths)}")


def _choose(version: ModelVersion) -> StoredFile:
    """Return the one file that is the model, in the archive where there is one."""
    files = _members(version) if version.archive_uri else version.manifest.files
    models = [candidate for candidate in files if candidate.path.endswith(_MODELS)]
    if len(models) == 1:
        return models[0]
    usual = [candidate for candidate in models if candidate.path in _USUAL_NAMES]
    if len(usual) == 1:
        return usual[0]
    found = ", ".join(candidate.path for candidate in (models or files))
    problem = "several models" if models else f"no model file ({', '.join(_MODELS)})"
    raise ModelError(f"{version.ref} holds {problem}: {found}; name one with file=")


def _members(version: ModelVersion) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(m["path"], m["size"], m["sha256"]) for m in version.manifest.body.get("members", ()))


def _open(version: ModelVersion, chosen: StoredFile) -> BinaryIO:
    """Open a file; its SHA-256 was checked on the very bytes that the stream gives."""
    store, manifest = version._log.store, version.manifest
    if chosen in manifest.files:
        return open_verified(store, manifest, chosen)
    archive = next(file for file in manifest.files if file.path == ARCHIVE)
    with contextlib.ExitStack() as undo:
        # It has no name, so nobody else can change it.
        copy = cast("BinaryIO", undo.enter_context(tempfile.TemporaryFile(prefix="smkit-")))
        with open_verified(store, manifest, archive) as source:
            sha256 = copy_member(source, chosen.path, f"{ARCHIVE} of {version.ref}", copy)
        if sha256 != chosen.sha256:
            raise IntegrityError(f"{chosen.path} in {ARCHIVE} of {version.ref} is not the file that the manifest lists")
        copy.seek(0)
        undo.pop_all()
    return copy


def _compare_environment(version: ModelVersion) -> str:
    """Say which versions that matter to a model are others here, Python's minor and scikit-learn's whole, or ""."""
    trained = version.environment
    differences = []
    python = str(trained.get("python", ""))
    if python and python.split(".")[:2] != platform.python_version().split(".")[:2]:
        differences.append(f"Python {python}, here {platform.python_version()}")
    sklearn = (trained.get("packages") or {}).get("scikit-learn")
    here = package_version("scikit-learn")
    if sklearn and sklearn != here:
        differences.append(f"scikit-learn {sklearn}, here {here}")
    if not differences:
        return ""
    return (
        f"was trained with {' and '.join(differences)}: scikit-learn promises nothing across versions; "
        f"install the versions that trained it, or train it again here"
    )
