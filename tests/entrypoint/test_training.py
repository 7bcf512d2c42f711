"""Whole runs of a real train.py in a process of its own."""

# ruff: noqa: N806 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import re
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.datasets import load_breast_cancer, load_iris, make_regression

from smkit.entrypoint import METRIC_LINE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.entrypoint.conftest import Project

HEAD = """
from smkit.entrypoint import TrainingScript, hyperparameter

class Script(TrainingScript):
    target = "y"
"""
TAIL = """
model_fn, input_fn, predict_fn, output_fn = Script.serving_functions()

if __name__ == "__main__":
    Script.main()
"""
RIDGE = """
    class Hyperparameters:
        alpha: float = hyperparameter(1.0, min=0)

    def build_model(self):
        from sklearn.linear_model import Ridge
        return Ridge(alpha=self.hyperparameters.alpha)
"""
LIGHT = """
    def build_model(self):
        return None  # never fitted: the data is wrong
"""


def regression(rows: int = 80) -> pd.DataFrame:
    X, y = make_regression(rows, 3, noise=5.0, random_state=0)
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y)


def printed(stdout: str) -> dict[str, float]:
    return {match["name"]: float(match["value"]) for match in re.finditer(METRIC_LINE, stdout, re.MULTILINE)}


def read(project: Project, name: str) -> Any:
    return json.loads((project.model / name).read_text(encoding="utf-8"))


def save(frame: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "data.parquet")


def test_as_in_the_container(project: Project) -> None:
    project.write("train.py", HEAD + RIDGE + TAIL)
    frame = regression()
    parts = {"train": frame[:50], "validation": frame[50:60], "test": frame[60:]}
    env = {
        "SM_HPS": '{"alpha":0.5}',
        "SM_MODEL_DIR": str(project.folder / "model"),
        "SM_CHANNELS": json.dumps(list(parts)),
    }
    for name, part in parts.items():
        save(part, project.folder / "input/data" / name)
        env[f"SM_CHANNEL_{name.upper()}"] = str(project.folder / "input/data" / name)
    result = project.run("--alpha", "0.5", env=env)
    assert (result.returncode, result.stderr) == (0, "")

    model = joblib.load(project.model / "model.joblib")
    assert model.alpha == 0.5
    expected = {}
    for name, part in parts.items():
        predicted = model.predict(part[["a", "b", "c"]])
        expected[f"{name}:mae"] = metrics.mean_absolute_error(part.y, predicted)
        expected[f"{name}:mse"] = metrics.mean_squared_error(part.y, predicted)
        expected[f"{name}:r2"] = metrics.r2_score(part.y, predicted)
        expected[f"{name}:rmse"] = metrics.root_mean_squared_error(part.y, predicted)
    assert read(project, "metrics.json") == pytest.approx(expected, rel=1e-12)
    assert printed(result.stdout) == read(project, "metrics.json")
    assert len(result.stdout.splitlines()) == 12

    sagemaker = r"smkit metric test:rmse=([-+0-9.eE]+|nan|[-+]?inf)"
    assert [float(value) for value in re.findall(sagemaker, result.stdout)] == [
        read(project, "metrics.json")["test:rmse"]
    ]

    assert read(project, "signature.json") == {
        "schema_version": 1,
        "target": "y",
        "task": "regression",
        "features": [{"name": name, "dtype": "float64", "nullable": False} for name in "abc"],
        "classes": None,
    }
    packages = ("joblib", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
    assert read(project, "environment.json") == {
        "schema_version": 1,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }
    names = {path.name for path in project.model.iterdir()}
    assert names == {"model.joblib", "metrics.json", "signature.json", "environment.json"}


def test_by_hand_with_files_and_the_default_model_folder(project: Project) -> None:
    project.write("train.py", HEAD + RIDGE + TAIL)
    regression()[:50].to_csv(project.folder / "train.csv", index=False)
    regression()[50:].to_csv(project.folder / "test.csv", index=False)
    result = project.run("--alpha", "0", "--train", "train.csv", "--test=test.csv")
    assert result.returncode == 0, result.stderr
    assert set(read(project, "metrics.json")) == {
        f"{c}:{m}" for c in ("train", "test") for m in ("mae", "mse", "r2", "rmse")
    }
    again = project.run("--alpha", "0", "--train", "train.csv", "--model-dir", "out/deep")
    assert again.returncode == 0, again.stderr
    assert (project.folder / "out/deep/model.joblib").is_file()


def test_the_command_line_wins_over_the_environments_paths(project: Project) -> None:
    project.write("train.py", HEAD + RIDGE + TAIL)
    save(regression(), project.folder / "good")
    result = project.run(
        "--train", "good", "--model-dir", "mine", env={"SM_CHANNEL_TRAIN": ".", "SM_MODEL_DIR": "other"}
    )
    assert result.returncode == 0, result.stderr
    assert (project.folder / "mine/model.joblib").is_file()
    assert not (project.folder / "other").exists()


def classification(project: Project, model: str, frame: pd.DataFrame, test: pd.DataFrame) -> dict[str, float]:
    project.write("train.py", HEAD + f"    def build_model(self):\n        {model}\n" + TAIL)
    save(frame, project.folder / "train")
    save(test, project.folder / "test")
    result = project.run("--train", "train", "--test", "test")
    assert result.returncode == 0, result.stderr
    stored: dict[str, float] = read(project, "metrics.json")
    assert {name: None if math.isnan(value) else value for name, value in printed(result.stdout).items()} == stored
    return stored


def test_binary_classification_with_text_labels(project: Project) -> None:
    data = load_breast_cancer()
    frame = pd.DataFrame(data.data[:, :4], columns=["a", "b", "c", "d"]).assign(y=data.target_names[data.target])
    build = "from sklearn.linear_model import LogisticRegression; return LogisticRegression(max_iter=5000)"
    stored = classification(project, build, frame[:400], frame[400:])
    model = joblib.load(project.model / "model.joblib")
    X, y = frame.loc[400:, ["a", "b", "c", "d"]], frame.y[400:]
    predicted, probability = model.predict(X), model.predict_proba(X)
    assert {name: value for name, value in stored.items() if name.startswith("test:")} == pytest.approx(
        {
            "test:accuracy": metrics.accuracy_score(y, predicted),
            "test:balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
            "test:f1_macro": metrics.f1_score(y, predicted, average="macro"),
            "test:precision_macro": metrics.precision_score(y, predicted, average="macro"),
            "test:recall_macro": metrics.recall_score(y, predicted, average="macro"),
            "test:log_loss": metrics.log_loss(y, probability),
            "test:roc_auc": metrics.roc_auc_score(y == "malignant", probability[:, 1]),
        },
        rel=1e-9,
    )
    signature = read(project, "signature.json")
    assert (signature["task"], signature["classes"]) == ("classification", ["benign", "malignant"])


def test_roc_auc_of_one_class_is_null(project: Project) -> None:
    frame = pd.DataFrame({"a": range(20), "y": [False] * 10 + [True] * 10})
    build = "from sklearn.tree import DecisionTreeClassifier; return DecisionTreeClassifier()"
    stored = classification(project, build, frame, frame[:3])
    assert (stored["test:roc_auc"], stored["train:roc_auc"]) == (None, 1.0)
    assert stored["test:log_loss"] == pytest.approx(0, abs=1e-9)
    assert read(project, "signature.json")["classes"] == [False, True]


def test_multiclass_in_a_pipeline(project: Project) -> None:
    data = load_iris()
    frame = pd.DataFrame(data.data, columns=["a", "b", "c", "d"]).assign(y=data.target).sample(frac=1, random_state=0)
    build = (
        "from sklearn.pipeline import make_pipeline as p; from sklearn.preprocessing import StandardScaler as s; "
        "from sklearn.linear_model import LogisticRegression as m; return p(s(), m())"
    )
    stored = classification(project, build, frame[:100], frame[100:])
    assert stored["test:accuracy"] > 0.9
    assert not {"test:roc_auc", "test:log_loss"} & set(stored)
    assert read(project, "signature.json")["classes"] == [0, 1, 2]


def test_a_column_transformer_on_names_and_search(project: Project) -> None:
    frame = regression().assign(city=["x", "y"] * 40, seen=[True, None] * 40)
    frame.loc[3, "a"] = np.nan
    body = """
    features = ["city", "a", "b"]

    def build_model(self):
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder
        columns = ColumnTransformer([("text", OneHotEncoder(), ["city"]), ("number", SimpleImputer(), ["a", "b"])])
        return GridSearchCV(make_pipeline(columns, Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=3)
"""
    project.write("train.py", HEAD + body + TAIL)
    save(frame[:60], project.folder / "train")
    save(frame.loc[60:, ["y", "b", "a", "city", "c"]], project.folder / "test")
    result = project.run("--train", "train", "--test", "test")
    assert result.returncode == 0, result.stderr
    assert read(project, "signature.json")["features"] == [
        {"name": "city", "dtype": "string", "nullable": False},
        {"name": "a", "dtype": "float64", "nullable": True},
        {"name": "b", "dtype": "float64", "nullable": False},
    ]
    assert "test:rmse" in read(project, "metrics.json")


def test_columns_of_another_order_give_the_same_metrics(project: Project) -> None:
    project.write("train.py", HEAD + RIDGE + TAIL)
    frame = regression()
    save(frame, project.folder / "train")
    save(frame[["y", "c", "b", "a"]].assign(extra=1), project.folder / "test")
    result = project.run("--train", "train", "--test", "test")
    assert result.returncode == 0, result.stderr
    stored = read(project, "metrics.json")
    assert stored["test:rmse"] == pytest.approx(stored["train:rmse"])  # summed in another memory order


def test_overrides(project: Project) -> None:
    body = """
    channels = ("training", "holdout-set")

    def build_model(self):
        from sklearn.linear_model import LinearRegression
        return LinearRegression()

    def split_features(self, frame):
        return frame[["a", "b"]].to_numpy(), frame["y"].to_numpy()

    def fit(self, model, X, y):
        for epoch in range(3):
            self.log_metric("loss", 1 / (epoch + 1))
        self.output_data_dir.mkdir(parents=True)
        (self.output_data_dir / "note.txt").write_text(str(X.shape))
        model.fit(X, y)

    def evaluate(self, model, X, y):
        return {"rows": len(X), "bad": float("inf")}
"""
    project.write("train.py", HEAD + body + TAIL)
    save(regression()[:50], project.folder / "train")
    save(regression()[50:], project.folder / "test")
    save(regression(), project.folder / "more")
    env = {"SM_CHANNEL_HOLDOUT-SET": "test", "SM_CHANNELS": '["holdout-set", "more"]', "SM_CHANNEL_MORE": "more"}
    result = project.run("--training", "train", "--output-data-dir", "plots", env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:3] == [f"smkit metric loss={value!r}" for value in (1.0, 1 / 2, 1 / 3)]
    assert read(project, "metrics.json") == {
        "loss": 1 / 3,
        "training:rows": 50,
        "training:bad": None,
        "holdout-set:rows": 30,
        "holdout-set:bad": None,
    }
    assert "smkit metric training:bad=inf" in result.stdout
    assert (project.folder / "plots/note.txt").read_text() == "(50, 2)"
    assert read(project, "signature.json")["features"] is None
    assert result.stderr == "Script.channels does not list, so nothing evaluates: more\n"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("    def build_model(self):\n        raise RuntimeError('my own')\n", 1, "RuntimeError: my own"),
        ("    pass\n", 1, "abstract"),
        (
            "    def build_model(self):\n        from sklearn.cluster import KMeans; return KMeans(2, n_init=1)\n",
            1,
            "TypeError: KMeans is neither a classifier nor a regressor: override Script.evaluate",
        ),
        (
            RIDGE + "    def evaluate(self, model, X, y):\n        return {'a b': 1}\n",
            1,
            "ValueError: 'train:a b' is not a metric name",
        ),
        (LIGHT + "    target = 'price'\n", 2, "missing columns 'price'; there are 'a', 'b', 'c', 'y'"),
        (LIGHT + "    features = ['a', 'z']\n", 2, "the features: missing columns 'z'"),
        (LIGHT + "    target = None\n", 2, "set Script.target to the column to predict, or override split_features"),
        (
            LIGHT + "    def fit(self, model, X, y):\n        self.load_channel('lookup')\n",
            2,
            "no channel 'lookup' was given; there are: train",
        ),
    ],
)
def test_failures_leave_no_model(project: Project, body: str, code: int, message: str) -> None:
    source = HEAD + body + TAIL
    if "abstract" in message:  # serving_functions makes the script, too: the error comes as early as it can
        source = HEAD + body + "\nScript.main()\n"
    project.write("train.py", source)
    save(regression(), project.folder / "train")
    result = project.run("--train", "train")
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert ("Traceback" in result.stderr) == (code == 1)
    assert not project.model.exists()


def test_a_broken_test_channel_is_found_before_the_fit(project: Project) -> None:
    body = RIDGE + "    def fit(self, model, X, y):\n        raise RuntimeError('fitted')\n"
    project.write("train.py", HEAD + body + TAIL)
    save(regression(), project.folder / "train")
    save(regression().drop(columns="b"), project.folder / "test")
    result = project.run("--train", "train", "--test", "test")
    assert (result.returncode, "fitted" in result.stderr) == (2, False)
    assert "channel 'test': missing columns 'b'; there are 'a', 'c'" in result.stderr
