"""From a version's files to an estimator in memory."""

from __future__ import annotations

import hashlib
import io
import platform
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from smkit.artifacts.archive import open_member
from smkit.artifacts.publishing import ARCHIVE
from smkit.environment import package_version
from smkit.errors import (
    EnvironmentMismatch,
    EnvironmentMismatchWarning,
    IntegrityError,
    ModelError,
    PickleNotAllowed,
)
from smkit.storage.base import digest_of
from smkit.versioning import StoredFile
from smkit.versioning.reading import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.artifacts.version import ModelVersion

_PICKLES = (".joblib", ".pkl", ".pickle")


def load_model(version: ModelVersion, *, allow_pickle: bool, strict: bool, file: str | None) -> Any:
    """Load a version's model; see `ArtifactStore.load`."""
    chosen = _choose(version, file)
    if not allow_pickle:
        raise PickleNotAllowed(
            f"{version.ref} is a pickle ({chosen.path}), and a pickle runs code when it is loaded: if you trust who "
            f"published it ({version.manifest.created_by}, {version.manifest.created_at}), "
            f"load with allow_pickle=True, or set `allow_pickle` in the settings"
        )
    _compare_environment(version, strict=strict)
    import joblib

    with _checked_stream(version, chosen) as stream:
        try:
            return joblib.load(stream)
        except (AttributeError, ImportError) as error:
            raise ModelError(
                f"{version.ref} cannot be unpickled here: {error}; its classes must be importable: install their "
                f"package, or import the training code's module, under the name that it had in training"
            ) from error


def _choose(version: ModelVersion, file: str | None) -> StoredFile:
    """Return the one file that is the model, in the archive where there is one."""
    files = _members(version) if version.archive_uri else version.manifest.files
    if file is not None:
        for candidate in files:
            if candidate.path == file:
                return candidate
        raise ModelError(f"{version.ref} holds no file {file!r}; it holds {', '.join(f.path for f in files)}")
    pickles = [candidate for candidate in files if candidate.path.endswith(_PICKLES)]
    if len(pickles) == 1:
        return pickles[0]
    named = [candidate for candidate in pickles if candidate.path == "model.joblib"]
    if named:
        return named[0]
    found = ", ".join(candidate.path for candidate in (pickles or files))
    problem = "several models" if pickles else f"no model file ({', '.join(_PICKLES)})"
    raise ModelError(f"{version.ref} holds {problem}: {found}; name one with file=")


def _members(version: ModelVersion) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(m["path"], m["size"], m["sha256"]) for m in version.manifest.body["members"])


@contextmanager
def _checked_stream(version: ModelVersion, chosen: StoredFile) -> Iterator[BinaryIO]:
    """Open the model; its SHA-256 was checked on the very bytes that the stream gives."""
    store, manifest = version._log.store, version.manifest
    if version.archive_uri is None:
        with fetch(store, manifest, chosen).open("rb") as stream:
            # Hashed again through this very handle: the name may lead elsewhere by now.
            if digest_of(stream).sha256 != chosen.sha256:
                raise _damaged(version, chosen)
            stream.seek(0)
            yield stream
        return
    archive = next(file for file in manifest.files if file.path == ARCHIVE)
    path = fetch(store, manifest, archive)
    with path.open("rb") as source, open_member(source, chosen.path, f"{ARCHIVE} of {version.ref}") as member:
        data = member.read(chosen.size + 1)
    if len(data) != chosen.size or hashlib.sha256(data).hexdigest() != chosen.sha256:
        raise _damaged(version, chosen)
    yield io.BytesIO(data)


def _damaged(version: ModelVersion, chosen: StoredFile) -> IntegrityError:
    return IntegrityError(f"{chosen.path} of {version.ref} is damaged: its bytes are not those that were published")


def _compare_environment(version: ModelVersion, *, strict: bool) -> None:
    """Compare the versions that matter to a pickle: Python's minor and scikit-learn's whole."""
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
        return
    message = (
        f"{version.ref} was trained with {' and '.join(differences)}: scikit-learn promises nothing across versions; "
        f"install the versions that trained it, or train it again here"
    )
    if strict:
        raise EnvironmentMismatch(message)
    warnings.warn(message, EnvironmentMismatchWarning, stacklevel=4)
