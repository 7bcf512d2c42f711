"""Which Python and packages run here: what a dataset, a job and a model remember of the environment that made them."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

#: What data and a pickled model depend on.
PACKAGES = ("joblib", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")


def package_version(name: str) -> str | None:
    """Return the version of an installed package, without importing it; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def describe_environment() -> dict[str, Any]:
    """Return the versions of Python and of the packages that matter, and the platform, as JSON values."""
    versions = {name: package_version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name, version in versions.items() if version is not None},
    }
