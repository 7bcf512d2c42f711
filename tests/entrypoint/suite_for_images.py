"""The template's tests inside an image: the Python and the packages of one, no pytest, no smkit but the template.

    python suite_for_images.py DATASETS EXPECTED

`test_every_image.py` runs it, in a folder as a job has it, and reports each test by itself. DATASETS holds a folder for
each of the formats that smkit writes datasets in, EXPECTED is a JSON file of their content, column -> values. On stdout
is one line for each test: a JSON array of its name, `passed` or `failed`, and the traceback.

In the syntax of Python 3.7, and with nothing that pandas 1.1, NumPy 1.19 and scikit-learn 0.23 do not know.
"""

# ruff: noqa: N803, N806 (X is scikit-learn's name for the feature matrix)
# ruff: noqa: UP006, UP007, UP035, UP045 (Python 3.7, and what its users write)
# ruff: noqa: PT009, PT027 (no pytest in an image)
# ruff: noqa: N802, N815 (unittest's names)
from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import io
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import unittest
import warnings
from pathlib import Path
from typing import Any, Dict, List, Optional, Union
from unittest import mock

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn import metrics
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from smkit.entrypoint import METRIC_LINE, LoadedModel, ScriptError, TrainingScript, hyperparameter

DATASETS, EXPECTED = Path(), Path()


class Regression(TrainingScript):
    """Predicts y.

    The rest is not for --help.
    """

    target = "y"

    class Hyperparameters:
        alpha: float = hyperparameter(1.0, min=0, max=10, help="100% of the penalty")
        depth: Optional[int] = None
        solver: str = hyperparameter("auto", choices=["auto", "svd"])
        on: bool = True
        layers: List[int] = [64, 32]  # noqa: RUF012 - copied for each run
        weights: Dict[str, float] = hyperparameter({"a": 1.0})
        either: Union[int, str, None] = None
        anything: Any = None
        bare: list = []  # type: ignore[type-arg]  # noqa: RUF012 - copied for each run

    def build_model(self):
        return Ridge(alpha=self.hyperparameters.alpha)


class Tree(TrainingScript):
    target = "y"

    def build_model(self):
        return DecisionTreeRegressor(random_state=0)


class Labels(TrainingScript):
    target = "y"

    def build_model(self):
        columns = ColumnTransformer([("text", OneHotEncoder(), ["code"])], remainder="passthrough")
        return make_pipeline(columns, LogisticRegression(C=1e6))


class Classification(TrainingScript):
    target = "y"

    def build_model(self):
        return make_pipeline(StandardScaler(), LogisticRegression())


class Forest(TrainingScript):
    target = "y"

    def build_model(self):
        return RandomForestClassifier(10, random_state=0)


class Search(TrainingScript):
    target = "y"
    features = ("city", "a", "b")

    def build_model(self):
        columns = ColumnTransformer([("text", OneHotEncoder(), ["city"]), ("number", SimpleImputer(), ["a", "b"])])
        return GridSearchCV(make_pipeline(columns, Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=3)


class Seen(Exception):
    def __init__(self, value):
        super().__init__(value)
        self.value = value


class Reads(TrainingScript):
    """Shows the hyperparameters, before any data is read."""

    Hyperparameters = Regression.Hyperparameters

    def build_model(self):
        raise Seen(self.hyperparameters)


class Required(Reads):
    class Hyperparameters:
        alpha: float = hyperparameter(min=0)
        needed: int


class OwnModel(Ridge):
    """A class of the script itself."""


def regression(rows: int = 80) -> pd.DataFrame:
    random = np.random.RandomState(0)
    frame = pd.DataFrame(random.standard_normal((rows, 3)), columns=["a", "b", "c"])
    return frame.assign(y=3 * frame.a - frame.b + random.standard_normal(rows) / 10)


def labels(rows: int = 120) -> pd.DataFrame:
    random = np.random.RandomState(1)
    frame = pd.DataFrame(random.standard_normal((rows, 2)), columns=["a", "b"])
    return frame.assign(y=np.where(frame.a + random.standard_normal(rows) / 2 > 0, "yes", "no"))


def plain(value: Any) -> Any:
    """Return a cell as JSON has it."""
    if isinstance(value, (dt.datetime, dt.date)) and not pd.isna(value):
        return value.isoformat()
    if value is None or pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def read(name: str) -> Any:
    return json.loads(Path("model", name).read_text(encoding="utf-8"))


def save(frame: pd.DataFrame, path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if path.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)


def load(folder: str) -> pd.DataFrame:
    return TrainingChannel(channel_paths={"train": Path(folder)}).load_channel("train")


class TrainingChannel(TrainingScript):
    def build_model(self):
        raise AssertionError("not called")


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def ask(script: Any, body: Any, content_type: str, accept: str = "") -> Any:
    model_fn, input_fn, predict_fn, output_fn = script.serving_functions()
    return output_fn(predict_fn(input_fn(body, content_type), model_fn("model")), accept)


class InAFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp()
        before = Path.cwd()
        self.addCleanup(shutil.rmtree, folder)
        self.addCleanup(os.chdir, before)
        os.chdir(folder)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
        patch = mock.patch.dict(os.environ, clean, clear=True)
        patch.start()
        self.addCleanup(patch.stop)

    def run_script(self, script, *argv, **variables):
        """Return exit code, stdout and stderr of a run."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        program = mock.patch.object(sys, "argv", ["/opt/ml/code/train.py", *argv])
        environment = mock.patch.dict(os.environ, variables)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), program, environment:
            try:
                script.main()
            except SystemExit as error:
                code = error.code
        return code, out.getvalue(), err.getvalue()

    def train(self, script, *argv, **variables):
        """Return what a run printed; it must succeed and say nothing on stderr."""
        code, out, err = self.run_script(script, *argv, **variables)
        self.assertEqual((code, err), (0, ""))
        return out

    def seen(self, hps, *argv):
        variables = {} if hps is None else {"SM_HPS": json.dumps(hps)}
        with self.assertRaises(Seen) as caught:
            self.run_script(Reads, "--train", ".", *argv, **variables)
        return caught.exception.value

    def problems(self, script, hps, *argv):
        variables = {} if hps is None else {"SM_HPS": json.dumps(hps)}
        code, out, err = self.run_script(script, "--train", ".", *argv, **variables)
        self.assertEqual((code, out), (2, ""))
        self.assertTrue(err.startswith("train.py: error:\n"), err)
        return [line[4:] for line in err.splitlines()[1:]]


class TestTraining(InAFolder):
    def test_regression_as_in_the_container(self):
        frame = regression()
        parts = {"train": frame[:50], "validation": frame[50:60], "test": frame[60:]}
        variables = {"SM_HPS": '{"alpha":0.5}', "SM_MODEL_DIR": "model", "SM_CHANNELS": json.dumps(list(parts))}
        for name, part in parts.items():
            save(part, f"data/{name}/data.csv")
            variables["SM_CHANNEL_" + name.upper()] = "data/" + name
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            out = self.train(Regression, "--alpha", "0.5", **variables)
        self.assertEqual([str(each) for each in caught if "entrypoint" in each.filename], [])
        model = joblib.load("model/model.joblib")
        self.assertEqual(model.alpha, 0.5)
        expected = {}
        for name, part in parts.items():
            predicted = model.predict(part[["a", "b", "c"]])
            mse = metrics.mean_squared_error(part.y, predicted)
            expected[name + ":mae"] = metrics.mean_absolute_error(part.y, predicted)
            expected[name + ":mse"] = mse
            expected[name + ":r2"] = metrics.r2_score(part.y, predicted)
            expected[name + ":rmse"] = math.sqrt(mse)
        printed = {found[1]: float(found[2]) for found in re.finditer(METRIC_LINE, out, re.MULTILINE)}
        self.assertEqual(printed, read("metrics.json"))
        self.assertEqual(list(printed), list(expected))
        for name, value in expected.items():
            self.assertAlmostEqual(printed[name], value, places=12)
        self.assertEqual(len(out.splitlines()), 12)
        self.assertEqual(read("hyperparameters.json")["alpha"], 0.5)
        self.assertEqual(read("hyperparameters.json")["layers"], [64, 32])
        self.assertEqual(read("signature.json")["task"], "regression")
        packages = read("environment.json")["packages"]
        self.assertEqual(read("environment.json")["python"], platform.python_version())
        self.assertEqual(packages["scikit-learn"], sklearn.__version__)
        self.assertEqual(packages["pandas"], pd.__version__)

    def test_binary_classification(self):
        frame = labels()
        save(frame[:90], "train.csv")
        save(frame[90:], "test.csv")
        out = self.train(Classification, "--train", "train.csv", "--test", "test.csv")
        model = joblib.load("model/model.joblib")
        X, y = frame.loc[90:, ["a", "b"]], frame.y[90:]
        predicted, probability = model.predict(X), model.predict_proba(X)
        expected = {
            "accuracy": metrics.accuracy_score(y, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
            "f1_macro": metrics.f1_score(y, predicted, average="macro"),
            "precision_macro": metrics.precision_score(y, predicted, average="macro"),
            "recall_macro": metrics.recall_score(y, predicted, average="macro"),
            "log_loss": metrics.log_loss(y, probability),
            "roc_auc": metrics.roc_auc_score(y == "yes", probability[:, 1]),
        }
        stored = {name[5:]: value for name, value in read("metrics.json").items() if name.startswith("test:")}
        self.assertEqual(sorted(stored), sorted(expected))
        for name, value in expected.items():
            self.assertAlmostEqual(stored[name], value, places=9)
        self.assertIn(f"smkit metric test:roc_auc={stored['roc_auc']!r}\n", out)
        self.assertEqual(read("signature.json")["classes"], ["no", "yes"])

    def test_many_classes_and_one_class(self):
        frame = labels().assign(y=lambda each: (each.a > 0).astype(int) + (each.b > 0).astype(int))
        save(frame, "train.csv")
        self.train(Forest, "--train", "train.csv")
        self.assertEqual(read("signature.json")["classes"], [0, 1, 2])
        self.assertNotIn("train:roc_auc", read("metrics.json"))
        frame = pd.DataFrame({"a": range(20), "y": [False] * 10 + [True] * 10})
        save(frame, "two.csv")
        save(frame[:3], "one.csv")
        # Newer scikit-learn warns, on stderr, of a balanced accuracy of one class.
        code, out, _ = self.run_script(Forest, "--train", "two.csv", "--test", "one.csv")
        self.assertEqual(code, 0)
        self.assertIn("smkit metric test:roc_auc=nan\n", out)
        self.assertIsNone(read("metrics.json")["test:roc_auc"])

    def test_columns_by_name_and_a_search(self):
        frame = regression().assign(city=["x", "y"] * 40)
        frame.loc[3, "a"] = np.nan
        save(frame[:60], "train.csv")
        save(frame.loc[60:, ["y", "b", "a", "city", "c"]], "test.csv")
        self.train(Search, "--train", "train.csv", "--test", "test.csv")
        self.assertEqual(
            read("signature.json")["features"],
            [
                {"name": "city", "dtype": "string", "nullable": False},
                {"name": "a", "dtype": "float64", "nullable": True},
                {"name": "b", "dtype": "float64", "nullable": False},
            ],
        )
        self.assertLess(read("metrics.json")["test:rmse"], 1)

    def test_columns_in_another_order(self):
        frame = regression()
        save(frame, "train.csv")
        save(frame[["y", "c", "b", "a"]].assign(extra=1), "test.csv")
        self.train(Regression, "--train", "train.csv", "--test", "test.csv")
        self.assertAlmostEqual(read("metrics.json")["test:rmse"], read("metrics.json")["train:rmse"], places=12)

    def test_nullable_columns(self):
        frame = pd.DataFrame(
            {
                "count": pd.array(range(12), dtype="Int64"),
                "small": pd.array(range(12), dtype="UInt8"),
                "on": pd.array([True, False, False] * 4, dtype="boolean"),
                "y": pd.array([3, 1, 3, 1] * 3, dtype="Int64"),
            }
        )
        X, y = Forest().split_features(frame)
        self.assertEqual([str(dtype) for dtype in X.dtypes], ["int64", "uint8", "bool"])
        self.assertEqual(y.dtype, np.dtype("int64"))
        save(frame, "train.parquet")
        self.train(Forest, "--train", "train.parquet")
        self.assertEqual(read("signature.json")["classes"], [1, 3])

    def test_a_model_of_the_scripts_own_class_is_warned_of(self):
        class Script(Tree):
            def build_model(self):
                return OwnModel()

        save(regression(), "train.csv")
        code, _, err = self.run_script(Script, "--train", "train.csv")
        self.assertEqual(code, 0)
        self.assertIn("train.py: warning: the model refers to OwnModel in __main__", err)

    def test_mistakes_leave_no_model(self):
        class NoTarget(Regression):
            target = None

        class UnknownFeature(Regression):
            features = ("a", "z")

        save(regression(), "train/data.csv")
        save(regression().drop(columns="b"), "short/data.csv")
        there = "there are 'a', 'b', 'c', 'y'"
        for script, argv, message in (
            (NoTarget, [], "set NoTarget.target to the column to predict, or override split_features"),
            (UnknownFeature, [], "channel 'train': the features: missing columns 'z'; " + there),
            (Regression, ["--test", "short"], "channel 'test': missing columns 'b'; there are 'a', 'c'"),
        ):
            result = self.run_script(script, "--train", "train", *argv)
            self.assertEqual(result, (2, "", f"train.py: error: {message}\n"))
            self.assertFalse(Path("model").exists())


class TestHyperparameters(InAFolder):
    def test_every_type_as_json(self):
        given = {
            "alpha": 1,
            "depth": 3.0,
            "solver": "svd",
            "on": False,
            "layers": [1, 2.0],
            "weights": {"a": 1, "é": 0.5},
            "either": "three",
            "anything": {"x": [1, None, "é☕"]},
            "bare": [1, "x"],
        }
        values = self.seen(given, "--alpha", "what the container repeats here is passed over")
        for name, value in given.items():
            self.assertEqual(getattr(values, name), value, name)
        self.assertEqual([type(values.alpha), type(values.depth), type(values.layers[1])], [float, int, int])
        self.assertEqual(type(values.weights["a"]), float)

    def test_every_type_as_text(self):
        for name, text, value in (
            ("alpha", "1e-07", 1e-07),
            ("depth", "", None),
            ("depth", "None", None),
            ("depth", "1e2", 100),
            ("on", "False", False),
            ("on", "yes", True),
            ("layers", "[1, 2]", [1, 2]),
            ("weights", "a=2,b=0.5", {"a": 2.0, "b": 0.5}),
            ("weights", "{'a': 2}", {"a": 2.0}),
            ("either", "3", 3),
            ("either", "three", "three"),
            ("anything", "[true, null]", [True, None]),
        ):
            for argv in (["--" + name, text], [f"--{name}={text}"]):
                result = getattr(self.seen(None, *argv), name)
                self.assertEqual((result, type(result)), (value, type(value)), argv)

    def test_defaults_are_not_shared(self):
        self.seen(None).layers.append(1)
        values = self.seen(None)
        self.assertEqual(values.layers, [64, 32])
        with self.assertRaises(AttributeError):
            values.alpha = 2.0

    def test_wrong_values(self):
        for hps, message in (
            ({"alpha": "abc"}, "alpha: expected float, got 'abc' (str)"),
            ({"alpha": True}, "alpha: expected float, got True (bool)"),
            ({"alpha": -0.5}, "alpha: must be at least 0 and at most 10, got -0.5"),
            ({"alpha": math.nan}, "alpha: must be at least 0 and at most 10, got nan"),
            ({"on": 1}, "on: expected bool, got 1 (int)"),
            ({"solver": "c"}, "solver: must be one of 'auto', 'svd', got 'c'"),
            ({"layers": [1, "2"]}, "layers[1]: expected int, got '2' (str)"),
            ({"weights": {"a": "b"}}, "weights.a: expected float, got 'b' (str)"),
            ({"alhpa": 1}, "unknown hyperparameter 'alhpa'; did you mean alpha?"),
        ):
            self.assertEqual(self.problems(Reads, hps), [message])

    def test_all_problems_at_once(self):
        self.assertEqual(
            self.problems(Required, {"nope": 1, "alpha": -1}),
            [
                "unknown hyperparameter 'nope'; valid: alpha, needed",
                "alpha: must be at least 0, got -1.0",
                "needed: required (int), but not given",
            ],
        )

    def test_wrong_command_lines(self):
        for argv, message in (
            (["--alhpa", "1"], "unknown option '--alhpa'; did you mean alpha?"),
            (["--alpha"], "--alpha needs a value"),
            (["1"], "unexpected argument '1'; write --name value"),
            (["--test", "nowhere"], "channel 'test': nowhere does not exist"),
        ):
            self.assertEqual(self.problems(Reads, None, *argv), [message])

    def test_help(self):
        shown = " ".join(self.train(Regression, "--help").split())
        self.assertIn("Predicts y.", shown)
        self.assertNotIn("The rest", shown)
        self.assertIn("--alpha VALUE 100% of the penalty (float, default 1.0, min 0, max 10)", shown)
        self.assertIn("--train PATH", shown)

    def test_a_missing_channel(self):
        result = self.run_script(Regression, SM_CHANNELS='["training"]', SM_CHANNEL_TRAINING=".")
        message = "channel 'train': required; set SM_CHANNEL_TRAIN or pass --train PATH"
        message += " (given: training; did you mean 'train'? With JobRunner: inputs={'train': ...})"
        self.assertEqual(result, (2, "", f"train.py: error:\n  - {message}\n"))


class TestChannels(InAFolder):
    def test_all_formats_of_a_folder(self):
        rows = [pd.DataFrame({"i": [n], "x": [n + 0.1], "s": [f"é{n}"]}) for n in range(7)]
        Path("data/z").mkdir(parents=True)
        save(rows[0], "data/a.csv")
        rows[1].to_csv("data/b.csv.gz", index=False)
        save(rows[2], "data/c.parquet")
        rows[3].to_parquet("data/d.pq")
        Path("data/e.jsonl").write_text('{"s": "0004", "i": 4, "x": 4.1}\n\n', encoding="utf-8")
        Path("data/f.NDJSON").write_text('{"i": 5, "x": 5.1, "s": "a\u2028b"}', encoding="utf-8")
        save(rows[6], "data/z/g.csv")
        Path("data/.hidden.csv").write_text("not,read\n", encoding="utf-8")
        frame = load("data")
        self.assertEqual(list(frame.columns), ["i", "x", "s"])
        self.assertEqual(frame.i.tolist(), list(range(7)))
        self.assertEqual(frame.x.tolist(), [n + 0.1 for n in range(7)])
        self.assertEqual(frame.s.tolist(), ["é0", "é1", "é2", "é3", "0004", "a\u2028b", "é6"])

    def test_floats_are_exact(self):
        random = np.random.RandomState(0)
        values = (random.standard_normal(3000) * 10.0 ** random.randint(-30, 30, 3000)).tolist()
        Path("a.csv").write_text("x\n" + "\n".join(map(repr, values)), encoding="utf-8")
        Path("b.jsonl").write_text("\n".join(json.dumps({"x": value}) for value in values), encoding="utf-8")
        self.assertEqual(load(".").x.tolist(), values * 2)

    def test_numbers_with_blanks_and_missing_values(self):
        Path("a.csv").write_text("a,b,c\n 1.5, 2,x\n2.5 ,NA,\n", encoding="utf-8")
        frame = load(".")
        self.assertEqual(frame.a.tolist(), [1.5, 2.5])
        self.assertEqual([plain(value) for value in frame.b], [2.0, None])
        self.assertEqual([plain(value) for value in frame.c], ["x", None])

    def test_what_cannot_be_read(self):
        for name, content, message in (
            ("a.xlsx", b"", r"channel 'train': no \.csv, .* file in .*; found a\.xlsx"),
            ("a.csv", b"a,b\n", "channel 'train': no rows in"),
            ("a.csv", b"", r"cannot read .*a\.csv: No columns"),
            ("a.csv", b"a\n\xe9", r"cannot read .*a\.csv: it is not UTF-8 \(.*\)\. Convert it: `iconv .* -t UTF-8`"),
            ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-20], r"cannot read .*a\.csv\.gz"),
            ("a.parquet", b"PAR1 no", r"cannot read .*a\.parquet"),
            ("a.jsonl", b'{"a": 1}\n{"a": ', r"cannot read .*a\.jsonl"),
            ("a.jsonl", b"1\n2\n", "expected rows"),
        ):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, name).write_bytes(content)
                with self.assertRaisesRegex(ScriptError, message):
                    load(folder)
        Path("a.csv").write_text("a,b\n1,2\n", encoding="utf-8")
        Path("b.csv").write_text("a,c\n1,2\n", encoding="utf-8")
        with self.assertRaisesRegex(ScriptError, r"b\.csv has the columns \['a', 'c'\], but .*a\.csv has \['a', 'b'\]"):
            load(".")


class TestDatasets(InAFolder):
    """Files that smkit wrote, with the newest pyarrow."""

    def check(self, written_as, names):
        expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
        frame = load(str(DATASETS / written_as))
        self.assertEqual(list(frame.columns), list(expected))
        for name in names or expected:
            self.assertEqual([plain(value) for value in frame[name]], expected[name], name)
        return frame

    def test_parquet(self):
        frame = self.check("parquet", None)
        for name, kind in (("integer", "i"), ("big", "u"), ("real", "f"), ("on", "b"), ("when", "M")):
            self.assertEqual(frame[name].dtype.kind, kind, name)

    def test_csv(self):
        self.check("csv", ["integer", "big", "real", "on", "text", "many"])

    def test_training_on_both(self):
        class Script(Tree):
            target = "real"
            features = ("integer", "on", "small")

        results = []
        for written_as in ("parquet", "csv"):
            self.train(Script, "--train", str(DATASETS / written_as))
            results.append(read("metrics.json"))
        self.assertEqual(results[0], results[1])


class TestServing(InAFolder):
    ROWS = [[1.5, 1], [3.5, 3]]  # noqa: RUF012 - as below
    NAMED = [{"b": 1, "a": 1.5, "extra": "x"}, {"b": 3, "a": 3.5, "extra": "y"}]  # noqa: RUF012 - never changed

    def numbers(self):
        save(pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3], "y": [10.0, 20.0, 30.0]}), "numbers.csv")
        self.train(Tree, "--train", "numbers.csv")

    def labels(self):
        frame = pd.DataFrame(
            {"code": ["01", "02", "B1"] * 4, "on": [True, False, True] * 4, "y": ["low", "high", "low"] * 4}
        )
        save(frame, "labels.parquet")
        self.train(Labels, "--train", "labels.parquet")

    def test_every_type_of_request(self):
        self.numbers()
        for body, content_type in (
            (json.dumps(self.ROWS), "application/json"),
            (json.dumps({"instances": self.ROWS}), "application/json; charset=utf-8"),
            (json.dumps(self.NAMED).encode(), "Application/JSON"),
            (json.dumps({"b": [1, 3], "a": [1.5, 3.5]}), ""),
            ("1.5,1\n3.5,3\n", "text/csv"),
            (b"\xef\xbb\xbfb,extra,a\n1,x,1.5\n3,y,3.5\n", "text/csv; charset=utf-8"),
            ("extra,a,b,extra\nx,1.5,1,x\ny,3.5,3,y\n", "text/csv"),
            (npy(np.array(self.ROWS)), "application/x-npy"),
            ("\n".join(map(json.dumps, self.NAMED)), "application/jsonlines"),
        ):
            answer = ask(Tree, body, content_type)
            self.assertEqual(answer, ('{"predictions": [10.0, 30.0]}', "application/json"), content_type)

    def test_every_type_of_response(self):
        self.labels()
        request = ("code,on\n01,true\n02,False\nB1,True\n", "text/csv")
        for accept in ("application/json", "*/*", "", "text/html, */*;q=0.1"):
            body, content_type = ask(Labels, *request, accept)
            self.assertEqual(
                (json.loads(body), content_type), ({"predictions": ["low", "high", "low"]}, "application/json")
            )
        self.assertEqual(ask(Labels, *request, "text/csv"), ("low\nhigh\nlow\n", "text/csv"))
        body, content_type = ask(Labels, *request, "application/x-npy")
        self.assertEqual(content_type, "application/x-npy")
        self.assertEqual(np.load(io.BytesIO(body), allow_pickle=False).tolist(), ["low", "high", "low"])

    def test_text_that_looks_like_a_number(self):
        self.labels()
        self.assertEqual(ask(Labels, "01,1\n", "text/csv", "text/csv")[0], "low\n")

    def test_arrays_of_two_dimensions_and_no_numbers(self):
        output_fn = Tree.serving_functions()[3]
        self.assertEqual(output_fn(np.array([[0.25, 0.75], [1.0, 0.0]]), "text/csv")[0], "0.25,0.75\n1.0,0.0\n")
        body = output_fn(np.array([1.0, math.nan, math.inf]), "application/json")[0]
        self.assertEqual(body, '{"predictions": [1.0, null, null]}')

    def test_dates_and_categories_get_their_type_back(self):
        class Dates(Tree):
            def fit(self, model, X, y):
                return model.fit(X[["n"]], y)

            def evaluate(self, model, X, y):
                return {"rows": len(X)}

            def predict(self, model, frame):
                raise Seen((frame.to_dict("records"), [str(dtype)[:10] for dtype in frame.dtypes]))

        when = pd.to_datetime(["2026-01-01", "2026-01-02"])
        save(
            pd.DataFrame({"when": when, "kind": pd.Categorical(["1", "2"]), "n": [1, 2], "y": [0.0, 1.0]}), "a.parquet"
        )
        self.train(Dates, "--train", "a.parquet")
        with self.assertRaises(Seen) as caught:
            ask(Dates, "2026-01-02,2,7\n", "text/csv")
        rows, dtypes = caught.exception.value
        self.assertEqual(rows, [{"when": pd.Timestamp("2026-01-02"), "kind": "2", "n": 7}])
        self.assertEqual(dtypes, ["datetime64", "category", "int64"])

    def test_bad_requests(self):
        self.numbers()
        for body, content_type, message in (
            ("<a/>", "application/xml", "unsupported content type 'application/xml'; use one of application/json, "),
            ("[[1, 2, 3]]", "application/json", r"expected 2 values a row \(a, b\), got 3"),
            ("a,c\n1,2\n", "text/csv", "the request: missing columns 'b'; there are 'a', 'c'"),
            ("a,b,a\n1,2,3\n", "text/csv", "the request: repeated columns 'a'; there are 'a', 'b', 'a'"),
            ('[{"a": 1, "b": 2, "a": 3}]', "application/json", "repeated names 'a' in one JSON object"),
            ("a,b\n", "text/csv", "no rows"),
            ("x,1\n", "text/csv", "column 'a': 'x' is not a number"),
            ("[1, 2]", "application/json", "expected rows"),
            ("{", "application/json", "cannot read the request body as application/json: Expecting property name"),
            ("", "text/csv", "the request body is empty: expected rows as text/csv"),
            (npy(np.array([1.0, 2.0])), "application/x-npy", r"shape \(rows, features\), got \(2,\)"),
            (npy(np.array([[None, 1]], dtype=object), True), "application/x-npy", "allow_pickle=False"),
            (npy(np.empty((0, 2))), "application/x-npy", "the request has no rows"),
            (b"\xff", "text/csv", "utf-8"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                ask(Tree, body, content_type)

    def test_wrong_objects(self):
        self.numbers()
        model_fn, input_fn, predict_fn, _ = Tree.serving_functions()
        model, frame = model_fn("model"), pd.DataFrame(self.ROWS, columns=["a", "b"])
        self.assertIsInstance(model, LoadedModel)
        with self.assertRaisesRegex(TypeError, "the model is a DecisionTreeRegressor: pass what model_fn returned"):
            predict_fn(frame, model.estimator)
        with self.assertRaisesRegex(TypeError, "the input is a list: pass what input_fn returned, a DataFrame"):
            predict_fn(self.ROWS, model)
        with self.assertRaisesRegex(TypeError, "the request body is a dict: pass text or bytes"):
            input_fn({"a": 1}, "application/json")
        self.assertEqual(list(predict_fn(frame, model)), [10.0, 30.0])


class Reporter(unittest.TestResult):
    def addSuccess(self, test):
        self.report(test, "passed")

    def addFailure(self, test, err):
        self.report(test, "failed", self._exc_info_to_string(err, test))

    addError = addFailure

    def report(self, test, outcome, text=""):
        name = test.id().split(".", 1)[1]
        sys.__stdout__.write(json.dumps([name, outcome, text]) + "\n")


if __name__ == "__main__":
    DATASETS, EXPECTED = Path(sys.argv[1]), Path(sys.argv[2])
    unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]).run(Reporter())
