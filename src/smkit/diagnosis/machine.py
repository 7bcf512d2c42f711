"""Checks of this machine: what is installed, room on its disks, and the store in a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.diagnosis.findings import Finding, cannot_tell, ok, problem
from smkit.display import shown_size
from smkit.errors import ConfigError, SmkitError, StorageError
from smkit.storage import FolderStore
from smkit.storage.base import RESERVED

if TYPE_CHECKING:
    from smkit.config import Settings
    from smkit.diagnosis.context import Context

#: Bytes free below which a disk is a problem, and below which it gets an advice.
DISK_PROBLEM = 256 << 20
DISK_ADVICE = 2 << 30
#: What `FolderStore` calls a file that is being written: `gc` finds what a killed process leaves.
_TEMPORARY = f"{RESERVED}tmp-"


def describe_settings(settings: Settings) -> Finding:
    """Say where the settings came from."""
    places: dict[str, int] = {}
    for line in settings.explain():
        # "/home/me/.env SMKIT_REGION" is one of many of that file.
        place = line.origin.partition(" SMKIT_")[0]
        places[place] = places.get(place, 0) + 1
    given = [f"{count} from {place}" for place, count in places.items() if place != "default"]
    return ok(f"{', '.join(given) or 'all are defaults'}; Settings().explain() shows each")


def check_disks(context: Context) -> Finding:
    """Is there room where smkit writes: the store, temporary files, the cache?"""
    from smkit.versioning.cache import cache_folder

    folders = {"temporary files": Path(tempfile.gettempdir())}
    if not context.uses_s3:
        folders = {"the store": Path(context.settings.root), **folders}
    try:
        folders["the cache"] = cache_folder()
    except StorageError as error:
        return problem(str(error), "set XDG_CACHE_HOME to a folder that can be written to")
    said, full, low = [], [], []
    for use, folder in folders.items():
        free = shutil.disk_usage(_nearest(folder)).free
        said.append(f"{shown_size(free)} for {use}")
        if free < DISK_PROBLEM:
            full.append(f"{use} ({folder})")
        elif free < DISK_ADVICE:
            low.append(f"{use} ({folder})")
    text = f"free: {', '.join(said)}"
    how = "free some space, or set root, TMPDIR or XDG_CACHE_HOME to a folder on another disk"
    if full:
        return problem(f"{text}; too little for {', '.join(full)}", how)
    return ok(text, f"little is left for {', '.join(low)}: {how}" if low else "")


def check_folder(context: Context) -> Finding:
    """Can the store's folder be written to, and does its file system put atomically? Leaves nothing behind."""
    root = Path(context.settings.root)
    home = _nearest(root)
    where = str(root) if home == root else f"{root} (to be made in {home})"
    if not home.is_dir():
        return problem(f"{home} is a file, but {root} must be a folder", "set root to a folder")
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return problem(
            f"{where} cannot be written to", "check the folder's owner and permissions, or set root to another folder"
        )
    if not context.write:
        return cannot_tell(f"{where} may be written to, as its permissions say; no write was tried (write=False)")
    probe = home / f"{_TEMPORARY}{uuid.uuid4().hex}"
    store = FolderStore(probe)
    try:
        probe.mkdir(mode=0o700)
        first, second = store.put_if_absent("probe", b"1"), store.put_if_absent("probe", b"2")
        kept = store.get("probe", max_bytes=8)
    except OSError as error:  # StorageError is one
        said, _, fix = str(error).partition("; ")
        return problem(said, fix or "check the disk, or set root to another folder")
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    if (first, second, kept) != (True, False, b"1"):
        return problem(f"the file system of {where} does not put files atomically", "set root to a folder elsewhere")
    return ok(f"{where} can be written to, and two writers cannot overwrite each other")


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def check_sdk(_: Context) -> Finding:
    """Which SageMaker SDK is installed, and what does that mean?"""
    from smkit.jobs.sagemaker.sdk import has_sklearn, sdk_version

    version = sdk_version()
    if version is None:
        return ok("not installed: jobs are sent through boto3, the same requests")
    if has_sklearn():
        return ok(f"sagemaker {version}: jobs are sent by its SKLearn estimator")
    if version.partition(".")[0] in {"0", "1", "2"}:
        return ok(
            f"sagemaker {version} is older than smkit uses: jobs are sent through boto3, the same requests",
            'pip install "smkit[sagemaker]" brings one that has runner.estimator()',
        )
    return ok(f"sagemaker {version} has no SKLearn estimator: jobs are sent through boto3, the same requests")


def check_image(context: Context) -> Finding:
    """Is there a training image of this version in this region, is its content known, and can it serve?"""
    from smkit.jobs.containers import known_versions
    from smkit.jobs.sagemaker.images import REGIONS, has_inference_image, training_image

    settings = context.settings
    version = settings.framework_version
    try:
        uri = training_image(version, settings.region)
    except ConfigError as error:
        if settings.region not in REGIONS and not context.uses_sagemaker:
            return ok(f"{settings.region} has no scikit-learn images; jobs run on this machine")
        said, _, fix = str(error).partition("; ")
        return problem(said, fix or "set framework_version or region")
    advice = []
    if version not in known_versions():
        advice.append("what the image contains is not known, so imports are not checked before a job starts")
    if not has_inference_image(version, settings.region):
        advice.append("no inference image has this version: an endpoint cannot serve it, loading with smkit works")
    return ok(uri, "; ".join(advice))


def check_parity(context: Context) -> Finding:
    """Which images' Pythons are on this machine, to run jobs in as SageMaker would?"""
    from smkit.jobs.containers import known_versions

    settings = context.settings
    chosen = settings.local_environment if settings.local_environment != "host" else settings.framework_version
    if chosen.partition("[")[0] not in known_versions():
        return cannot_tell(f"there is no parity environment of {chosen}", f"there are {', '.join(known_versions())}")
    names = [chosen, *(version for version in known_versions() if version != chosen)]
    states = [_parity_of(name) for name in names]
    text = ", ".join(f"{name} {state}" for name, (state, _) in zip(names, states, strict=True))
    missing = states[0][1]
    if not missing:
        return ok(text)
    if settings.local_environment != "host":
        return problem(f"{text}: local_environment is {chosen!r}", missing)
    return ok(text, f"to run jobs here as in the image: {missing}")


def _parity_of(name: str) -> tuple[str, str]:
    """Return the state of a parity environment, and what is missing for it."""
    from smkit.jobs.environments import locate

    try:
        found = locate(name)
    except SmkitError as error:
        return "no Python", str(error)
    return ("built" if found.is_built else f"can be built (Python {found.python_version})"), ""
