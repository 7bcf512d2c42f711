"""What a run writes into the model folder, beside the model."""

# ruff: noqa: N803 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import importlib
import platform
from typing import Any

from smkit.entrypoint.frames import dtype_name
from smkit.entrypoint.metrics import task_of

_SCHEMA_VERSION = 1
_PACKAGES = {
    "joblib": "joblib",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
}


def signature(model: Any, X: Any, target: str | None) -> dict[str, Any]:
    """Describe what the fitted model takes and gives: the content of `signature.json`."""
    import numpy as np
    import pandas as pd

    task = task_of(model)
    features = None
    if isinstance(X, pd.DataFrame):
        features = [
            {"name": name, "dtype": dtype_name(X[name]), "nullable": bool(X[name].isna().any())} for name in X.columns
        ]
    classes = getattr(model, "classes_", None) if task == "classification" else None
    return {
        "schema_version": _SCHEMA_VERSION,
        "target": target,
        "task": task,
        "features": features,
        "classes": None if classes is None else np.asarray(classes).tolist(),
    }


def environment() -> dict[str, Any]:
    """Describe this Python and the packages that the model may need: the content of `environment.json`."""
    packages = {}
    for package, module in _PACKAGES.items():
        try:
            packages[package] = importlib.import_module(module).__version__
        except ImportError:  # noqa: PERF203 - pyarrow may be absent
            continue
    versions = {"python": platform.python_version(), "platform": platform.platform(), "packages": packages}
    return {"schema_version": _SCHEMA_VERSION, **versions}
