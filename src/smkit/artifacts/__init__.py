"""Models: published once, numbered, found by version or alias, checked before they are loaded.

`store` is the way in; `version` and `listing` are what it gives. `publishing` turns a job, a path, an object of S3 or a
fitted estimator into files and lineage; `archive` reads `model.tar.gz` without trusting it, and `inspection` lets it do
so while the file is being stored; `remote` reads S3. `loading` turns files into an estimator, with `skops_format` where
it is no pickle. `comparison` and `upkeep` look at what is there; `display` makes text of it.
"""

from __future__ import annotations

from smkit.artifacts.comparison import Comparison
from smkit.artifacts.listing import ModelVersions
from smkit.artifacts.store import ArtifactStore
from smkit.artifacts.upkeep import StoreReport
from smkit.artifacts.version import ModelVersion

__all__ = ["ArtifactStore", "Comparison", "ModelVersion", "ModelVersions", "StoreReport"]
