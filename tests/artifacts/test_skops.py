"""Models in the format of skops are loaded without a pickle, and only of types that somebody trusts."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.linear_model import Ridge

import smkit
from smkit.errors import ConfigError, MissingExtraError, ModelError, PickleNotAllowed, UntrustedTypes
from tests.artifacts.helpers import fitted, packed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def models(tmp_path: Path) -> smkit.ArtifactStore:
    return smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))


class Custom(BaseEstimator):
    """An estimator that skops does not know."""

    def fit(self) -> Custom:
        self.fitted_ = True
        return self


NAME = f"{Custom.__module__}.Custom"


def test_an_estimator_goes_in_and_comes_out_without_a_pickle(models: smkit.ArtifactStore) -> None:
    version = models.publish("houses", fitted(0.5), format="skops")
    assert [file.path for file in version.manifest.files] == ["model.skops"]
    loaded = models.load("houses")
    assert isinstance(loaded, Ridge)
    assert loaded.alpha == 0.5


def test_joblib_is_the_default_and_needs_permission(models: smkit.ArtifactStore) -> None:
    models.publish("houses", fitted())
    with pytest.raises(PickleNotAllowed):
        models.load("houses", trusted=["everything"])


def test_types_that_nobody_trusts_are_listed(models: smkit.ArtifactStore) -> None:
    models.publish("houses", Custom().fit(), format="skops")
    with pytest.raises(UntrustedTypes) as caught:
        models.load("houses", allow_pickle=True)
    assert caught.value.types == (NAME,)
    assert f"trusted=['{NAME}']" in str(caught.value)
    with pytest.raises(UntrustedTypes, match=r"trusted=\['other.Type', "):
        models.load("houses", trusted=["other.Type"])
    assert models.load("houses", trusted=[NAME]).fitted_
    assert models.load("houses", trusted=[Custom]).fitted_


@pytest.mark.parametrize("trusted", [True, "a.B", [3]])
def test_trust_is_a_list_of_types(models: smkit.ArtifactStore, trusted: Any) -> None:
    models.publish("houses", fitted(), format="skops")
    with pytest.raises(ConfigError, match="not a list of types"):
        models.load("houses", trusted=trusted)


def test_an_archive_may_hold_a_skops_model(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(("model.skops", skops.io.dumps(fitted(7.0))), ("notes.txt", b"x")))
    models.publish("houses", path)
    assert models.load("houses").alpha == 7.0


def test_without_skops_the_extra_is_named(models: smkit.ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    models.publish("houses", fitted(), format="skops")
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'smkit\[skops\]'"):
        models.load("houses")
    with pytest.raises(MissingExtraError, match=r"pip install 'smkit\[skops\]'"):
        models.publish("houses", fitted(2.0), format="skops")
    assert len(models.versions("houses")) == 1


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_skops_file_is_an_error(models: smkit.ArtifactStore, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.skops").write_bytes(data)
    models.publish("houses", tmp_path / "model.skops")
    with pytest.raises(ModelError, match="not a file that this skops can load"):
        models.load("houses")


def test_the_format_is_for_estimators_alone(models: smkit.ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"x")
    with pytest.raises(ConfigError, match="leave it out"):
        models.publish("houses", tmp_path / "model.joblib", format="skops")
    with pytest.raises(ConfigError, match="expected 'joblib' or 'skops'"):
        models.publish("houses", fitted(), format="onnx")  # type: ignore[arg-type]


def test_what_skops_cannot_write_is_an_error(models: smkit.ArtifactStore) -> None:
    model = fitted()
    model.stream_ = io.BytesIO()
    with pytest.raises(ModelError, match="format='joblib'"):
        models.publish("houses", model, format="skops")
    assert models.names() == []
