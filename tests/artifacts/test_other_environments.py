"""Models that an image's Python and scikit-learn trained, loaded by those that are here."""

from __future__ import annotations

import platform
import textwrap
from typing import TYPE_CHECKING

import pytest

import smkit
from smkit.environment import package_version
from smkit.errors import EnvironmentMismatch, EnvironmentMismatchWarning, ModelError
from tests.parity import parity_environment

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.jobs import TrainingJob

pytestmark = pytest.mark.slow

IMAGE = "0.23-1"
TRAINED = r"trained with Python 3\.7\.\d+, here {} and scikit-learn 0\.23\.2, here {}: .*; install the versions".format(
    platform.python_version().replace(".", r"\."), (package_version("scikit-learn") or "").replace(".", r"\.")
)
SCRIPT = """
    from smkit.entrypoint import TrainingScript, hyperparameter

    class Train(TrainingScript):
        target = "y"

        class Hyperparameters:
            kind: str = hyperparameter("ridge")

        def build_model(self):
            from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
            from sklearn.linear_model import Ridge
            import own

            kinds = {"ridge": Ridge(), "forest": RandomForestRegressor(3), "boosting": GradientBoostingRegressor()}
            return {**kinds, "own": own.Own()}[self.hyperparameters.kind]

    if __name__ == "__main__":
        Train.main()
"""
OWN = "from sklearn.linear_model import Ridge\n\nclass Own(Ridge):\n    pass\n"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> smkit.Settings:
    environment = parity_environment(IMAGE)
    # <cache>/smkit/environments/<folder>
    monkeypatch.setenv("XDG_CACHE_HOME", str(environment.folder.parents[2]))
    return smkit.Settings(root=str(tmp_path / "store"), local_environment=IMAGE)


def train(settings: smkit.Settings, folder: Path, kind: str) -> TrainingJob:
    code = folder / "code"
    code.mkdir()
    (code / "train.py").write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    (code / "own.py").write_text(OWN, encoding="utf-8")
    data = folder / "train.csv"
    data.write_text("a,y\n" + "".join(f"{number},{2 * number}\n" for number in range(20)), encoding="utf-8")
    runner = smkit.JobRunner(settings)
    return runner.run("train.py", {"train": data}, source_dir=code, hyperparameters={"kind": kind})


# scikit-learn's own, one for each estimator.
@pytest.mark.filterwarnings("ignore:Trying to unpickle estimator:UserWarning")
def test_a_model_that_can_be_read_comes_with_a_warning_that_names_both(
    settings: smkit.Settings, tmp_path: Path
) -> None:
    models = smkit.ArtifactStore(settings)
    version = models.publish("houses", train(settings, tmp_path, "ridge"))
    assert version.environment["packages"]["scikit-learn"] == "0.23.2"
    with pytest.warns(EnvironmentMismatchWarning, match=f"^houses@1 was {TRAINED}") as caught:
        model = models.load("houses", allow_pickle=True)
    assert [warning.filename for warning in caught if warning.category is EnvironmentMismatchWarning] == [__file__]
    assert model.predict([[3.0]]) == pytest.approx([6.0], rel=0.1)
    with pytest.raises(EnvironmentMismatch, match=f"^houses@1 was {TRAINED}"):
        models.load("houses", allow_pickle=True, strict=True)


@pytest.mark.filterwarnings("ignore:Trying to unpickle estimator:UserWarning")
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("forest", "node array from the pickle has an incompatible dtype"),
        ("boosting", r"No module named 'sklearn\..*'"),
    ],
)
def test_a_model_that_cannot_be_read_is_an_error_that_names_both(
    settings: smkit.Settings, tmp_path: Path, kind: str, problem: str
) -> None:
    models = smkit.ArtifactStore(settings)
    models.publish("houses", train(settings, tmp_path, kind))
    with pytest.raises(EnvironmentMismatch, match=f"^houses@1 cannot be unpickled here: {problem}; it was {TRAINED}"):
        models.load("houses", allow_pickle=True)


def test_a_class_of_the_users_own_is_missing_under_any_version(settings: smkit.Settings, tmp_path: Path) -> None:
    models = smkit.ArtifactStore(settings)
    models.publish("houses", train(settings, tmp_path, "own"))
    with pytest.raises(ModelError, match="No module named 'own'; the module 'own' must be importable") as caught:
        models.load("houses", allow_pickle=True)
    assert not isinstance(caught.value, EnvironmentMismatch)
