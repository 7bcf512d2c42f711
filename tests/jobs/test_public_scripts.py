"""Training scripts that others published, byte for byte, with real data: see public_scripts/README.md."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris

from smkit.config import Settings
from smkit.errors import TrainingFailed
from smkit.jobs import JobRunner
from tests.parity import parity_cache, parity_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smkit.jobs import TrainingJob

CLONES = os.environ.get("SMKIT_TEST_PUBLIC_SCRIPTS")
pytestmark = pytest.mark.skipif(
    CLONES is None,
    reason="SMKIT_TEST_PUBLIC_SCRIPTS names no folder with clones: see tests/jobs/public_scripts/README.md",
)
EXAMPLES, LOCAL_MODE = "amazon-sagemaker-examples", "amazon-sagemaker-local-mode"
BOOK = "Learn-Amazon-SageMaker-second-edition"


@dataclass(frozen=True)
class PublicScript:
    """One script, what it is given, and what it must leave.

    Args:
        clone: Folder of the clone.
        pattern: Its path in the clone; folders there begin with blanks, which `*` stands for.
        sha256: Digest of its bytes.
        data: Writes the channels into a folder, and returns channel name -> path.
        hyperparameters: What it is given.
        environment: Where it runs: the toolkit's own packages are in parity environments only.
        with_folder: Whether what lies beside it goes along, as `source_dir`.
        members: What must be in `model.tar.gz`.
        loaded: The class that its own `model_fn` gives.
    """

    clone: str
    pattern: str
    sha256: str
    data: Callable[[Path], Mapping[str, Path]]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    environment: str = "host"
    with_folder: bool = False
    members: frozenset[str] = frozenset({"model.joblib"})
    loaded: str = ""


def iris(folder: Path) -> Mapping[str, Path]:
    features, label = load_iris(return_X_y=True)
    (folder / "train").mkdir()
    for number, rows in enumerate(np.array_split(np.column_stack([label, features]), 2)):
        pd.DataFrame(rows).to_csv(folder / f"train/{number}.csv", header=False, index=False)
    return {"train": folder / "train"}


def diabetes(folder: Path, *names: str) -> Mapping[str, Path]:
    features, label = load_diabetes(return_X_y=True)
    frame = pd.DataFrame(np.column_stack([label, features]))
    for name, rows in zip(names, np.array_split(frame.index, len(names)), strict=True):
        (folder / name).mkdir()
        frame.loc[rows].to_csv(folder / name / "data.csv", header=False, index=False)
    return {name: folder / name for name in names}


def with_classes(folder: Path) -> Mapping[str, Path]:
    features, label = load_iris(return_X_y=True)
    frame = pd.DataFrame(features, columns=list("abcd")).assign(**{"class": label.astype(str), "class_cat": label})
    frame.to_csv(folder / "train.csv", index=False)
    return {"train": folder / "train.csv"}


def fifteen_classes(folder: Path) -> Mapping[str, Path]:
    """The script names fifteen classes in its report, and wants this very file name."""
    rng = np.random.default_rng(0)
    label = np.arange(300) % 15
    frame = pd.DataFrame(np.column_stack([label, label[:, None] + rng.normal(0, 0.1, (300, 3))]))
    for name, file in {"train": "part.csv", "validation": "newval.csv"}.items():
        (folder / name).mkdir()
        frame.astype({0: int}).to_csv(folder / name / file, index=False)
    return {"train": folder / "train", "validation": folder / "validation"}


def abalone(folder: Path) -> Mapping[str, Path]:
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.uniform(0.1, 1, (60, 8)).round(3))
    numbers.insert(0, "sex", rng.choice(list("MFI"), 60))
    numbers.to_csv(folder / "abalone.csv", header=False, index=False)
    return {"train": folder / "abalone.csv"}


def wide(folder: Path) -> Mapping[str, Path]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 100))).add_prefix("x")
    frame.assign(y=frame["x0"] * 3 + frame["x1"]).to_csv(folder / "wide.csv", index=False)
    return {"train": folder / "wide.csv"}


def housing(folder: Path) -> Mapping[str, Path]:
    features, label = load_diabetes(return_X_y=True, as_frame=True)
    features.assign(medv=label).to_csv(folder / "housing.csv", index=False)
    return {"training": folder / "housing.csv"}


SCRIPTS = {
    "iris": PublicScript(
        EXAMPLES,
        "*archived/scikit_learn_iris/scikit_learn_iris.py",
        "1e0a82f114d1cfcd0d151f987c6a5744b1c8376f9fd4f5e8929417da94fbb8e5",
        iris,
        hyperparameters={"max_leaf_nodes": 30},
        loaded="DecisionTreeClassifier",
    ),
    "forest": PublicScript(
        EXAMPLES,
        "*archived/sklearn/train.py",
        "561dbdd81928fd7d7333d7afb769d8ed175a53b056055342725e9a268fe08fba",
        with_classes,
        hyperparameters={"estimators": 5, "model_dir": "s3://bucket/models"},
        loaded="RandomForestRegressor",
    ),
    "attacks": PublicScript(
        EXAMPLES,
        "*deploy_and_monitor/sm-shadow_variant_shadow_api/code/randomforest.py",
        "f7757e2758912b807f751976f21afa8a2a6d996419058e565dfef6abeeffefdd",
        fifteen_classes,
        hyperparameters={"n-estimators": 20, "min-samples-leaf": 1},
        loaded="RandomForestClassifier",
    ),
    "california": PublicScript(
        LOCAL_MODE,
        "scikit_learn_script_mode_local_training_and_serving/code/scikit_learn_california.py",
        "7893ea4e72a4e80e3eb5f58b5a1331ace93ba996042e62adc0616335bc54dac1",
        lambda folder: diabetes(folder, "train", "validation"),
        hyperparameters={"max_leaf_nodes": 30},
        loaded="DecisionTreeRegressor",
    ),
    "toolkit": PublicScript(
        EXAMPLES,
        "*archived/sagemaker-script-mode/scikitlearn_script/train_deploy_scikitlearn_without_dependencies.py",
        "e4ef2f562e05c0c9afb488d7abfac33d9cf3cc9107b60a8b4d49e8dba48ca55a",
        lambda folder: diabetes(folder, "train", "test"),
        hyperparameters={"max-depth": 3, "n-jobs": 1, "n-estimators": 5},
        environment="1.2-1[toolkits]",
        loaded="RandomForestRegressor",
    ),
    "abalone": PublicScript(
        EXAMPLES,
        "*deploy_and_monitor/sm-inference_pipeline_with_scikit_linear_learner/sklearn_abalone_featurizer.py",
        "0ce5da96cf3f12205dedef9e37eaa69595e52878a0c844a4615fedf7a8dfff82",
        abalone,
        environment="1.2-1[toolkits]",
        loaded="ColumnTransformer",
    ),
    "features": PublicScript(
        EXAMPLES,
        "*archived/custom-feature-selection/sklearn_feature_selection.py",
        "9f2539befecc592089bc27e6eaf39ed5480fd152799bce8dd2a8b5be8ce80093",
        wide,
        environment="1.2-1[toolkits]",
        members=frozenset({"model.joblib", "selected_feature_names.joblib"}),
        loaded="Pipeline",
    ),
    "housing": PublicScript(
        BOOK,
        "Chapter 07/sklearn/sklearn-boston-housing.py",
        "34f9e328fa205377bbbb78a4118a24af2ed4d78f6a95cc081c86651e62e7e89a",
        housing,
        hyperparameters={"normalize": True, "test-size": 0.1},
        environment="0.23-1",
        loaded="LinearRegression",
    ),
    "housing in two files": PublicScript(
        BOOK,
        "Chapter 07/dependencies/src/sklearn-boston-housing-joblib.py",
        "74c54869f59343a8273801d00101f7e4c76102e1184e70fb54f93180f598e8b8",
        housing,
        hyperparameters={"normalize": True, "random-state": 7},
        environment="1.0-1",
        with_folder=True,
        loaded="LinearRegression",
    ),
}


def path_of(script: PublicScript) -> Path:
    clone = Path(str(CLONES), script.clone).resolve()
    (path,) = clone.glob(script.pattern)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == script.sha256, f"{path} is not the version that is tested"
    return path


def start(
    script: PublicScript, folder: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> tuple[TrainingJob, str]:
    """Run a script to its end; return the job and the interpreter that it ran in."""
    path, python = path_of(script), sys.executable
    if environment != "host":
        python = str(parity_environment(environment).python)
        monkeypatch.setenv("XDG_CACHE_HOME", str(parity_cache()))
    (folder / "data").mkdir()
    runner = JobRunner(Settings(root=str(folder / "store")), environment=environment)
    entry, source = (path.name, path.parent) if script.with_folder else (str(path), None)
    inputs, given = script.data(folder / "data"), script.hyperparameters
    return runner.submit(entry, inputs, source_dir=source, hyperparameters=given), python


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_public_script_runs_as_it_is(script: PublicScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, python = start(script, tmp_path, monkeypatch, script.environment)
    job.wait(logs=False)
    assert (job.status, job.exit_code) == ("Completed", 0)
    assert job.lineage()["hyperparameters"] == script.hyperparameters
    model = tmp_path / "model"
    with tarfile.open(job.model_archive()) as archive:
        archive.extractall(model, filter="data")
    assert {item.name for item in model.iterdir()} == script.members
    # Its own model_fn loads what it saved, in the environment that it was trained in.
    path = path_of(script)
    code = (
        f"import importlib, json; script = importlib.import_module({path.stem!r})\n"
        f"print(json.dumps(type(script.model_fn({str(model)!r})).__name__))"
    )
    loaded = subprocess.run(
        [python, "-B", "-c", code], cwd=path.parent, capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(loaded.stdout.splitlines()[-1]) == script.loaded


def test_a_public_script_fails_here_where_it_would_fail_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its argument `normalize` was removed in scikit-learn 1.2."""
    job, _ = start(SCRIPTS["housing"], tmp_path, monkeypatch, "1.2-1")
    with pytest.raises(TrainingFailed, match=r"unexpected keyword argument 'normalize'"):
        job.wait(logs=False)
    assert (job.status, job.exit_code) == ("Failed", 1)
