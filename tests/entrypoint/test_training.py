"""Whole runs of a training script: in this process, and a few in a process of their own, as users and containers do."""

# ruff: noqa: N803, N806 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris, make_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from smkit.entrypoint import METRIC_LINE, TrainingScript, hyperparameter

if TYPE_CHECKING:
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


class Regression(TrainingScript):
    target = "y"

    def build_model(self) -> Any:
        return Ridge()


class Classification(TrainingScript):
    target = "y"

    def build_model(self) -> Any:
        return LogisticRegression(max_iter=5000)


def regression(rows: int = 80) -> pd.DataFrame:
    X, y = make_regression(rows, 3, noise=5.0, random_state=0)
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y)


def printed(stdout: str) -> dict[str, float]:
    return {match["name"]: float(match["value"]) for match in re.finditer(METRIC_LINE, stdout, re.MULTILINE)}


def read(name: str) -> Any:
    return json.loads(Path("model", name).read_text(encoding="utf-8"))


def save(frame: pd.DataFrame, folder: Path | str) -> None:
    Path(folder).mkdir(parents=True)
    frame.to_parquet(Path(folder) / "data.parquet")


# In a process of its own. The working folder of every test is the project's.


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
    assert read("metrics.json") == pytest.approx(expected, rel=1e-12)
    assert printed(result.stdout) == read("metrics.json")
    assert len(result.stdout.splitlines()) == 12

    sagemaker = r"smkit metric test:rmse=([-+0-9.eE]+|nan|[-+]?inf)"
    assert [float(value) for value in re.findall(sagemaker, result.stdout)] == [read("metrics.json")["test:rmse"]]

    assert read("signature.json") == {
        "schema_version": 1,
        "target": "y",
        "task": "regression",
        "features": [{"name": name, "dtype": "float64", "nullable": False} for name in "abc"],
        "classes": None,
    }
    packages = ("joblib", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
    assert read("environment.json") == {
        "schema_version": 1,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }
    names = {path.name for path in project.model.iterdir()}
    assert names == {"model.joblib", "metrics.json", "hyperparameters.json", "signature.json", "environment.json"}
    assert read("hyperparameters.json") == {"alpha": 0.5}


def test_by_hand_with_files_and_the_default_model_folder(project: Project) -> None:
    project.write("train.py", HEAD + RIDGE + TAIL)
    regression()[:50].to_csv(project.folder / "train.csv", index=False)
    regression()[50:].to_csv(project.folder / "test.csv", index=False)
    result = project.run("--alpha", "0", "--train", "train.csv", "--test=test.csv")
    assert result.returncode == 0, result.stderr
    assert set(read("metrics.json")) == {f"{c}:{m}" for c in ("train", "test") for m in ("mae", "mse", "r2", "rmse")}


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("    def build_model(self):\n        raise RuntimeError('my own')\n", 1, "RuntimeError: my own\n"),
        (
            "    def build_model(self):\n        return None\n    target = 'price'\n",
            2,
            "train.py: error: channel 'train': the target: missing columns 'price'; there are 'a', 'b', 'c', 'y'\n",
        ),
    ],
)
def test_exit_codes(project: Project, body: str, code: int, message: str) -> None:
    project.write("train.py", HEAD + body + TAIL)
    save(regression(), project.folder / "train")
    result = project.run("--train", "train")
    assert result.returncode == code, result.stderr
    assert result.stderr.endswith(message)
    assert ("Traceback" in result.stderr) == (code == 1)
    assert not project.model.exists()


def test_what_only_the_script_could_unpickle_is_named(project: Project) -> None:
    body = """
    def build_model(self):
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer
        return make_pipeline(FunctionTransformer(halve), Clipped(Ridge()))
"""
    own = """
from sklearn.base import BaseEstimator, RegressorMixin

def halve(X):
    return X / 2

class Clipped(RegressorMixin, BaseEstimator):
    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        self.fitted_ = self.model.fit(X, y)
        return self

    def predict(self, X):
        return self.fitted_.predict(X).clip(0)
"""
    project.write("train.py", own + HEAD + body + TAIL)
    save(regression(), project.folder / "train")
    result = project.run("--train", "train")
    assert result.returncode == 0
    assert result.stderr == (
        "train.py: warning: the model refers to Clipped, halve in __main__, which no other program can load; "
        "define it in a module of source_dir, beside train.py, and import it\n"
    )
    with pytest.raises(AttributeError, match="halve"):
        joblib.load(project.model / "model.joblib")


# In this process.


def test_the_command_line_wins_over_the_environments_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    save(regression(), "good")
    monkeypatch.setenv("SM_CHANNEL_TRAIN", ".")
    monkeypatch.setenv("SM_MODEL_DIR", "other")
    Regression.main(["--train", "good", "--model-dir", "mine/deep"])
    assert Path("mine/deep/model.joblib").is_file()
    assert not Path("other").exists()


def classification(
    capsys: pytest.CaptureFixture[str], script: type[TrainingScript], frame: pd.DataFrame, test: pd.DataFrame
) -> dict[str, float]:
    save(frame, "train")
    save(test, "test")
    script.main(["--train", "train", "--test", "test"])
    stored: dict[str, float] = read("metrics.json")
    shown = printed(capsys.readouterr().out)
    assert {name: None if math.isnan(value) else value for name, value in shown.items()} == stored
    return stored


def test_binary_classification_with_text_labels(capsys: pytest.CaptureFixture[str]) -> None:
    data = load_breast_cancer()
    frame = pd.DataFrame(data.data[:, :4], columns=["a", "b", "c", "d"]).assign(y=data.target_names[data.target])
    stored = classification(capsys, Classification, frame[:400], frame[400:])
    model = joblib.load("model/model.joblib")
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
    signature = read("signature.json")
    assert (signature["task"], signature["classes"]) == ("classification", ["benign", "malignant"])


class Tree(Classification):
    def build_model(self) -> Any:
        return DecisionTreeClassifier()


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # scikit-learn's own, on a balanced accuracy
def test_roc_auc_of_one_class_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"a": range(20), "y": [False] * 10 + [True] * 10})
    stored = classification(capsys, Tree, frame, frame[:3])
    assert (stored["test:roc_auc"], stored["train:roc_auc"]) == (None, 1.0)
    assert stored["test:log_loss"] == pytest.approx(0, abs=1e-9)
    assert read("signature.json")["classes"] == [False, True]


def test_multiclass_in_a_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    class Iris(Classification):
        def build_model(self) -> Any:
            return make_pipeline(StandardScaler(), LogisticRegression())

    data = load_iris()
    frame = pd.DataFrame(data.data, columns=["a", "b", "c", "d"]).assign(y=data.target).sample(frac=1, random_state=0)
    stored = classification(capsys, Iris, frame[:100], frame[100:])
    assert stored["test:accuracy"] > 0.9
    assert not {"test:roc_auc", "test:log_loss"} & set(stored)
    assert read("signature.json")["classes"] == [0, 1, 2]


def test_a_column_transformer_on_names_and_search() -> None:
    class Search(Regression):
        features = ("city", "a", "b")

        def build_model(self) -> Any:
            columns = ColumnTransformer([("text", OneHotEncoder(), ["city"]), ("number", SimpleImputer(), ["a", "b"])])
            return GridSearchCV(make_pipeline(columns, Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=3)

    frame = regression().assign(city=["x", "y"] * 40, seen=[True, None] * 40)
    frame.loc[3, "a"] = np.nan
    save(frame[:60], "train")
    save(frame.loc[60:, ["y", "b", "a", "city", "c"]], "test")
    Search.main(["--train", "train", "--test", "test"])
    assert read("signature.json")["features"] == [
        {"name": "city", "dtype": "string", "nullable": False},
        {"name": "a", "dtype": "float64", "nullable": True},
        {"name": "b", "dtype": "float64", "nullable": False},
    ]
    assert "test:rmse" in read("metrics.json")


def test_columns_of_another_order_give_the_same_metrics() -> None:
    frame = regression()
    save(frame, "train")
    save(frame[["y", "c", "b", "a"]].assign(extra=1), "test")
    Regression.main(["--train", "train", "--test", "test"])
    stored = read("metrics.json")
    assert stored["test:rmse"] == pytest.approx(stored["train:rmse"])  # summed in another memory order


@pytest.mark.parametrize(
    ("script", "target", "classes"),
    [
        (Regression, pd.array([1, 2, 3, 4] * 3, dtype="Int64"), None),
        (Tree, pd.array([3, 1, 3, 1] * 3, dtype="Int64"), [1, 3]),
        (Tree, pd.array([True, False, True, False] * 3, dtype="boolean"), [False, True]),
    ],
)
def test_nullable_columns(script: type[TrainingScript], target: Any, classes: list[Any] | None) -> None:
    frame = pd.DataFrame(
        {
            "count": pd.array(range(12), dtype="Int64"),
            "small": pd.array(range(12), dtype="UInt8"),
            "share": pd.array([0.5] * 12, dtype="Float32"),
            "on": pd.array([True, False, False] * 4, dtype="boolean"),
            "y": target,
        }
    )
    X, y = script().split_features(frame)
    assert list(map(str, X.dtypes)) == ["int64", "uint8", "float32", "bool"]
    assert isinstance(y.dtype, np.dtype)
    save(frame, "train")
    script.main(["--train", "train"])
    signature = read("signature.json")
    assert [feature["dtype"] for feature in signature["features"]] == ["int64", "uint8", "float32", "bool"]
    assert signature["classes"] == classes


def test_a_nullable_column_with_a_missing_value_stays(capsys: pytest.CaptureFixture[str]) -> None:
    frame = regression().assign(seen=pd.array([1, None] * 40, dtype="Int64"))
    X, _ = Regression().split_features(frame)
    assert (str(X.seen.dtype), int(X.seen.isna().sum())) == ("Int64", 40)


def test_overrides(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Script(TrainingScript):
        target = "y"
        channels = ("training", "holdout-set")

        def build_model(self) -> Any:
            return LinearRegression()

        def split_features(self, frame: pd.DataFrame) -> tuple[Any, Any]:
            return frame[["a", "b"]].to_numpy(), frame["y"].to_numpy()

        def fit(self, model: Any, X: Any, y: Any) -> None:
            for epoch in range(3):
                self.log_metric("loss", 1 / (epoch + 1))
            self.output_data_dir.mkdir(parents=True)
            (self.output_data_dir / "note.txt").write_text(str(X.shape))
            model.fit(X, y)

        def evaluate(self, model: Any, X: Any, y: Any) -> dict[str, float]:
            return {"rows": len(X), "bad": float("inf")}

    save(regression()[:50], "train")
    save(regression()[50:], "test")
    save(regression(), "more")
    env = {"SM_CHANNEL_HOLDOUT-SET": "test", "SM_CHANNELS": '["holdout-set", "more"]', "SM_CHANNEL_MORE": "more"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    Script.main(["--training", "train", "--output-data-dir", "plots"])
    output = capsys.readouterr()
    assert output.out.splitlines()[:3] == [f"smkit metric loss={value!r}" for value in (1.0, 1 / 2, 1 / 3)]
    assert read("metrics.json") == {
        "loss": 1 / 3,
        "training:rows": 50,
        "training:bad": None,
        "holdout-set:rows": 30,
        "holdout-set:bad": None,
    }
    assert "smkit metric training:bad=inf" in output.out
    assert Path("plots/note.txt").read_text() == "(50, 2)"
    assert read("signature.json")["features"] is None
    script = Path(sys.argv[0]).name
    assert output.err == (
        f"{script}: warning: channel 'more' was given, but Script.channels does not list it: nothing evaluates it\n"
    )


def test_a_misspelt_channel_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    save(regression(), "data")
    monkeypatch.setenv("SM_CHANNELS", '["tset"]')
    monkeypatch.setenv("SM_CHANNEL_TSET", "data")
    Regression.main(["--train", "data"])
    assert capsys.readouterr().err == (
        "train.py: warning: channel 'tset' was given, but Regression.channels does not list it: nothing evaluates it; "
        "did you mean 'test'?\n"
    )


@pytest.mark.parametrize(
    ("env", "note"),
    [
        ({}, ""),
        ({"SM_CHANNELS": "[]"}, " (given: none. With JobRunner: inputs={'train': ...})"),
        (
            {"SM_CHANNELS": '["training"]', "SM_CHANNEL_TRAINING": "."},
            " (given: training; did you mean 'train'? With JobRunner: inputs={'train': ...})",
        ),
        ({"SM_CHANNEL_TEST": "."}, " (given: test. With JobRunner: inputs={'train': ...})"),
    ],
)
def test_a_missing_channel_names_those_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, env: dict[str, str], note: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        Regression.main([])
    assert capsys.readouterr().err == (
        f"train.py: error:\n  - channel 'train': required; set SM_CHANNEL_TRAIN or pass --train PATH{note}\n"
    )


class Everything(Regression):
    class Hyperparameters:
        infinite: float = float("inf")
        missing: float = float("nan")
        nothing: Any = None
        deep: Any = hyperparameter({1: (1, float("-inf")), "a": {"b": True}})
        derived: str = dataclasses.field(default="", init=False)


def test_hyperparameters_json_says_every_value() -> None:
    save(regression(), "train")
    Everything.main(["--train", "train"])
    text = Path("model/hyperparameters.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "infinite": "inf",
        "missing": "nan",
        "nothing": None,
        "deep": {"1": [1, "-inf"], "a": {"b": True}},
    }


class Cluster(Regression):
    def build_model(self) -> Any:
        return KMeans(2, n_init=1)


class BadName(Regression):
    def evaluate(self, model: Any, X: Any, y: Any) -> dict[str, float]:
        return {"a b": 1}


class Abstract(TrainingScript):
    target = "y"


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (Abstract, TypeError, "abstract"),
        (
            Cluster,
            TypeError,
            "KMeans is neither a classifier nor a regressor: override Cluster.evaluate",
        ),
        (BadName, ValueError, "'train:a b' is not a metric name"),
    ],
)
def test_failures_leave_no_model(script: type[TrainingScript], error: type[Exception], message: str) -> None:
    save(regression(), "train")
    with pytest.raises(error, match=message):
        script.main(["--train", "train"])
    assert not Path("model").exists()


class NoTarget(Regression):
    target = None


class UnknownFeature(Regression):
    features = ("a", "z")


class FeatureTwice(Regression):
    features = ("a", "b", "a")


class UnknownChannel(Regression):
    def fit(self, model: Any, X: Any, y: Any) -> Any:
        return self.load_channel("lookup")


class Repeated(Regression):
    def load_channel(self, name: str) -> pd.DataFrame:
        return super().load_channel(name).set_axis(["a", "b", "a", "y"], axis=1)


class TargetTwice(Regression):
    def load_channel(self, name: str) -> pd.DataFrame:
        return super().load_channel(name).set_axis(["a", "b", "y", "y"], axis=1)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (NoTarget, "set NoTarget.target to the column to predict, or override split_features"),
        (
            UnknownFeature,
            "channel 'train': the features: missing columns 'z'; there are 'a', 'b', 'c', 'y'",
        ),
        (FeatureTwice, "channel 'train': the features: repeated columns 'a'; there are 'a', 'b', 'c', 'y'"),
        (UnknownChannel, "no channel 'lookup' was given; there are: train. By hand, list it in `channels`"),
        (Repeated, "channel 'train': the features: repeated columns 'a'; there are 'a', 'b', 'a'"),
        (TargetTwice, "channel 'train': the target: repeated columns 'y'; there are 'a', 'b', 'y', 'y'"),
    ],
)
def test_mistakes_leave_no_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, script: type[TrainingScript], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/ml/code/train.py"])
    save(regression(), "train")
    with pytest.raises(SystemExit) as stopped:
        script.main(["--train", "train"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"train.py: error: {message}\n"
    assert not Path("model").exists()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("b", "channel 'test': missing columns 'b'; there are 'a', 'c'"),
        ("y", "channel 'test': the target: missing columns 'y'; there are 'a', 'b', 'c'"),
    ],
)
def test_a_broken_test_channel_is_found_before_the_fit(
    capsys: pytest.CaptureFixture[str], lost: str, message: str
) -> None:
    class Fitted(Regression):
        def fit(self, model: Any, X: Any, y: Any) -> Any:
            raise AssertionError("fitted")

    save(regression(), "train")
    save(regression().drop(columns=lost), "test")
    with pytest.raises(SystemExit) as stopped:
        Fitted.main(["--train", "train", "--test", "test"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


class Constant(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts what `state` may hold along."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def fit(self, X: Any, y: Any) -> Constant:
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))


def of_a_module(values: Any) -> Any:
    return values


class Nested:
    class Inner:
        pass


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (FunctionTransformer(of_a_module), ""),
        (np.arange(1000.0), ""),
        (Nested.Inner(), "Nested.Inner"),
        (Nested.Inner, "Nested.Inner"),
        ({"deep": [np.array([Nested.Inner(), Nested()], dtype=object)]}, "Nested, Nested.Inner"),
    ],
)
def test_the_warning_of_main(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, state: Any, named: str
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Nested", Nested, raising=False)
    monkeypatch.setattr(Nested, "__module__", "__main__")
    monkeypatch.setattr(Nested.Inner, "__module__", "__main__")
    Path("model").mkdir()
    Regression().save_model(Constant(state), Path("model"))
    err = capsys.readouterr().err
    assert re.findall(r"refers to (.*) in __main__", err) == ([named] if named else [])
    assert len(err.splitlines()) == bool(named)
    assert isinstance(joblib.load("model/model.joblib"), Constant)


class OnlyInPythonsPickler(Constant):
    """As a library's model that joblib can save and the plain pickler, in C, cannot."""

    def __reduce__(self) -> Any:
        if sys._getframe(1).f_code.co_name == "save":
            return Constant, (self.state,)
        raise TypeError("cannot pickle")


def test_a_model_that_cannot_be_examined_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model").mkdir()
    Regression().save_model(OnlyInPythonsPickler([1]), Path("model"))
    assert joblib.load("model/model.joblib").state == [1]
    assert capsys.readouterr().err == ""
