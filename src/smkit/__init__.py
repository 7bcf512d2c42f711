"""Train scikit-learn models on Amazon SageMaker, and on this machine, from the same script.

A tour, in the order in which a value travels::

    Settings -> Source -> Dataset -> TrainingJob -> ModelVersion

`Settings` says where things live and as whom. A source (`FrameSource`, `FileSource`, `S3Source`,
`PostgresSource`) yields rows. `DatasetBuilder` cleans, transforms, checks and splits them into an immutable,
versioned `Dataset`. `JobRunner` runs a training script on it. `ArtifactStore` publishes, versions and loads
the model. `smkit.errors` holds every error; `smkit.entrypoint` is the template that a training script extends.

Importing smkit loads none of its dependencies: each public name is loaded on first use (PEP 562).
"""

from __future__ import annotations

import importlib
import sys

from smkit._version import __version__

# Not typing's, whose import would be most of the time that `import smkit` takes; type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from smkit import errors
    from smkit.artifacts import ArtifactStore, ModelVersion
    from smkit.config import PostgresSettings, Settings
    from smkit.datasets import Column, Dataset, DatasetBuilder, DatasetStore, Schema
    from smkit.diagnosis import doctor
    from smkit.errors import SmkitError
    from smkit.jobs import JobRunner, SageMakerOptions, TrainingJob
    from smkit.sources import FileSource, FrameSource, PostgresSource, S3Source

__all__ = [
    "ArtifactStore",
    "Column",
    "Dataset",
    "DatasetBuilder",
    "DatasetStore",
    "FileSource",
    "FrameSource",
    "JobRunner",
    "ModelVersion",
    "PostgresSettings",
    "PostgresSource",
    "S3Source",
    "SageMakerOptions",
    "Schema",
    "Settings",
    "SmkitError",
    "TrainingJob",
    "__version__",
    "doctor",
    "errors",
]

_HOME = {
    "ArtifactStore": "smkit.artifacts",
    "Column": "smkit.datasets",
    "Dataset": "smkit.datasets",
    "DatasetBuilder": "smkit.datasets",
    "DatasetStore": "smkit.datasets",
    "FileSource": "smkit.sources",
    "FrameSource": "smkit.sources",
    "JobRunner": "smkit.jobs",
    "ModelVersion": "smkit.artifacts",
    "PostgresSettings": "smkit.config",
    "PostgresSource": "smkit.sources",
    "S3Source": "smkit.sources",
    "SageMakerOptions": "smkit.jobs",
    "Schema": "smkit.datasets",
    "Settings": "smkit.config",
    "SmkitError": "smkit.errors",
    "TrainingJob": "smkit.jobs",
    "doctor": "smkit.diagnosis",
}


# Hidden from type checkers, so that a misspelt name is an error there too.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name on first use."""
        if name == "errors":
            return importlib.import_module("smkit.errors")
        if name not in _HOME:
            # With name and obj, Python adds "Did you mean" to the traceback.
            raise AttributeError(f"module 'smkit' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
