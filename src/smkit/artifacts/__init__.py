"""Models: published once, numbered, found by version or alias, checked before they are loaded.

`store` is the way in; `version` is what it gives; `publishing` turns a job, a path or a fitted estimator into files and
lineage; `archive` reads `model.tar.gz` without trusting it; `loading` turns files into an estimator.
"""

from __future__ import annotations

from smkit.artifacts.store import ArtifactStore
from smkit.artifacts.version import ModelVersion

__all__ = ["ArtifactStore", "ModelVersion"]
