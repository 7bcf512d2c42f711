"""What a caller says about a model when publishing it: checked before any work, merged with what is known."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError, SameContentWarning
from smkit.versioning.manifest import freeze, thaw

if TYPE_CHECKING:
    from smkit.artifacts.publishing import DatasetLike
    from smkit.versioning import Manifest

#: What a version that is published anew would say otherwise than one that is returned in its place.
_COMPARED = ("metrics", "hyperparameters", "inputs", "notes", "labels")


@dataclass(frozen=True)
class GivenFacts:
    """The arguments of a publish beside the model itself.

    Attributes:
        metrics: Finite or not; a number each.
        hyperparameters: JSON values.
        inputs: What it was trained on.
        notes: Free text.
        labels: Free labels.
    """

    metrics: Mapping[str, float]
    hyperparameters: Mapping[str, Any]
    inputs: Mapping[str, Any]
    notes: str
    labels: Mapping[str, str]

    def merged(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the manifest's body: what is known of the model, and over it what was given."""
        body = {"members": [], **known}
        for key in ("metrics", "hyperparameters", "inputs"):
            if given := getattr(self, key):
                body[key] = {**body.get(key, {}), **given}
        return {**body, "notes": self.notes, "labels": dict(self.labels)}


def check_facts(
    metrics: Mapping[str, float] | None,
    hyperparameters: Mapping[str, Any] | None,
    dataset: DatasetLike | None,
    notes: str,
    labels: Mapping[str, str] | None,
) -> GivenFacts:
    """Check the arguments of `ArtifactStore.publish`.

    Raises:
        ConfigError: One is not of its kind; a manifest is for ever.
    """
    if not isinstance(notes, str):
        raise ConfigError(f"notes is a {type(notes).__name__}: expected text")
    numbers_by_name = {name: _number(name, value) for name, value in _mapping("metrics", metrics).items()}
    for name, value in _mapping("labels", labels).items():
        if not isinstance(value, str):
            raise ConfigError(f"labels[{name!r}] is {value!r} ({type(value).__name__}): expected text")
    if dataset is not None and not callable(getattr(dataset, "describe", None)):
        raise ConfigError(f"dataset is a {type(dataset).__name__}: expected what DatasetBuilder.build() returned")
    return GivenFacts(
        numbers_by_name,
        _mapping("hyperparameters", hyperparameters),
        {"dataset": dict(dataset.describe())} if dataset is not None else {},
        notes,
        _mapping("labels", labels),
    )


def warn_of_lost_facts(manifest: Manifest, body: Mapping[str, Any]) -> None:
    """Warn where a version that holds the same files, and is returned, says otherwise than what was to be published."""
    ours, theirs = thaw(freeze(dict(body))), thaw(manifest.body)
    lost = [key for key in _COMPARED if ours.get(key) and ours[key] != theirs.get(key)]
    if lost:
        warnings.warn(
            f"{manifest} holds the same files and is returned as it is: what was given as {', '.join(lost)} was not "
            f"published; pass force=True to make a new version",
            SameContentWarning,
            stacklevel=3,
        )


def _mapping(argument: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"{argument}={given!r:.80}: expected a mapping of names, such as {{'name': value}}")
    return dict(given)


def _number(name: str, value: object) -> float:
    # numpy registers its scalars as numbers, but for its bool.
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"metrics[{name!r}] is {value!r} ({type(value).__name__}): expected a number")
    return value if isinstance(value, (int, float)) else float(value)
