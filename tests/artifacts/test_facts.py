"""What a caller says when publishing: checked before any work, and never lost in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

import smkit
from smkit.errors import ConfigError, SameContentWarning

if TYPE_CHECKING:
    from pathlib import Path

MODEL = Ridge().fit(pd.DataFrame({"a": [0.0, 1.0]}), [0.0, 1.0])


@pytest.fixture
def models(tmp_path: Path) -> smkit.ArtifactStore:
    return smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"metrics": {"rmse": "good"}}, r"metrics\['rmse'\] is 'good' \(str\): expected a number"),
        ({"metrics": {"rmse": [1, 2]}}, "expected a number"),
        ({"metrics": {"rmse": True}}, "expected a number"),
        ({"metrics": {1: 2.0}}, "expected a mapping of names"),
        ({"metrics": ["a"]}, "expected a mapping of names"),
        ({"hyperparameters": "alpha=1"}, "expected a mapping of names"),
        ({"labels": {"a": 1}}, r"labels\['a'\] is 1 \(int\): expected text"),
        ({"notes": 5}, "notes is a int: expected text"),
        ({"dataset": "houses@1"}, "dataset is a str"),
    ],
)
def test_facts_are_checked_before_anything_is_written(
    models: smkit.ArtifactStore, tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        models.publish("houses", MODEL, **facts)
    assert not (tmp_path / "root").exists()


def test_numbers_of_numpy_are_numbers(models: smkit.ArtifactStore) -> None:
    metrics = {"a": np.float32(1.5), "b": np.int64(2), "c": np.float64("nan")}
    version = models.publish("houses", MODEL, metrics=metrics, hyperparameters={"alpha": 1})
    assert models.get(version.ref).metrics == {"a": 1.5, "b": 2, "c": None}


def test_facts_that_a_reused_version_lacks_are_named(models: smkit.ArtifactStore) -> None:
    models.publish("houses", MODEL, metrics={"m": 1.0}, notes="first")
    models.publish("houses", MODEL, metrics={"m": 1.0}, notes="first")  # says the same: no warning
    models.publish("houses", MODEL)  # says nothing
    with pytest.warns(SameContentWarning, match=r"houses@1 holds .* given as metrics, labels was not .* force=True"):
        version = models.publish("houses", MODEL, metrics={"m": 2.0}, labels={"team": "a"}, notes="first")
    assert (version.ref, version.metrics) == ("houses@1", {"m": 1.0})
    assert models.publish("houses", MODEL, metrics={"m": 2.0}, force=True).metrics == {"m": 2.0}


def test_swapped_arguments_are_told(models: smkit.ArtifactStore) -> None:
    with pytest.raises(ConfigError, match="the name comes first, then the model"):
        models.publish(MODEL, "houses")


def test_settings_must_be_settings() -> None:
    with pytest.raises(ConfigError, match=r"expected smkit\.Settings, got str"):
        smkit.ArtifactStore("folder")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected smkit\.Settings, got str"):
        smkit.DatasetStore("folder")  # type: ignore[arg-type]


def test_a_class_of_a_module_that_is_not_here_names_the_module(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "helper.py").write_text("class Custom: pass\n")
    code = "import sys, joblib, helper; joblib.dump(helper.Custom(), sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.joblib")], check=True, cwd=tmp_path)
    models.publish("houses", tmp_path / "m.joblib")
    with pytest.raises(smkit.errors.ModelError, match=r"the module 'helper' must be importable .* sys\.path\.insert"):
        models.load("houses", allow_pickle=True)
