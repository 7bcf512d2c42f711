"""`TrainingScript`: one run, and what a script may override in it."""

# ruff: noqa: N803, N806 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import abc
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Mapping, Sequence

from smkit.entrypoint.arguments import parse_run, print_help, suggest_channel
from smkit.entrypoint.channels import read_files
from smkit.entrypoint.errors import ColumnError, ScriptError
from smkit.entrypoint.frames import align, check_columns, select, to_numpy_dtypes
from smkit.entrypoint.hyperparameters import NoHyperparameters, make_dataclass, values_of
from smkit.entrypoint.json_data import spell_out, write_json
from smkit.entrypoint.metrics import classification_metrics, metric_line, regression_metrics, task_of
from smkit.entrypoint.model_folder import environment, signature
from smkit.entrypoint.pickles import names_of_main
from smkit.entrypoint.serving import LoadedModel, check_model, format_response, match_signature, parse_request

if TYPE_CHECKING:
    import pandas as pd


class TrainingScript(abc.ABC):
    """Extend it in `train.py`: set `target`, define `build_model`, and override what differs.

    Attributes:
        target: The column to predict.
        features: The columns to predict from; None means all but the target.
        channels: The channels to read. The first is trained on and required; every one that is there is evaluated.
        Hyperparameters: An annotated class, made a frozen dataclass.
        hyperparameters: This run's values, an instance of `Hyperparameters`; None while serving.
        channel_paths: The folder or file of each channel that is there.
        model_dir: Where the model goes; what lies in it becomes `model.tar.gz`.
        output_data_dir: Where other output may go; the template writes nothing there and does not create it by hand.
        metrics: The last value of each metric logged so far.
    """

    target: ClassVar[str | None] = None
    features: ClassVar[Sequence[str] | None] = None
    channels: ClassVar[Sequence[str]] = ("train", "validation", "test")
    Hyperparameters: ClassVar[Any] = NoHyperparameters

    def __init__(
        self,
        hyperparameters: Any = None,
        channel_paths: Mapping[str, Path] | None = None,
        model_dir: Path = Path("model"),
        output_data_dir: Path = Path("output"),
    ) -> None:
        self.hyperparameters = hyperparameters
        self.channel_paths = dict(channel_paths or {})
        self.model_dir = model_dir
        self.output_data_dir = output_data_dir
        self.metrics: dict[str, float] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        make_dataclass(cls.Hyperparameters)
        reserved = {"help", "h", "model_dir", "output_data_dir"} | {name.replace("-", "_") for name in cls.channels}
        taken = sorted(reserved & {field.name for field in dataclasses.fields(cls.Hyperparameters)})
        if taken:
            raise TypeError(f"{cls.__name__}: rename the hyperparameter {taken[0]!r}: the option --{taken[0]} exists")

    # Training, in the order of the calls.

    @abc.abstractmethod
    def build_model(self) -> Any:
        """Return the model to fit: an estimator, a Pipeline, a search."""

    def load_channel(self, name: str) -> pd.DataFrame:
        """Read every .csv, .csv.gz, .parquet, .pq, .jsonl and .ndjson file of a channel into one frame.

        Raises:
            ScriptError: The channel is not there, has no such file or no row, or its files differ in columns.
        """
        if name not in self.channel_paths:
            there = ", ".join(self.channel_paths) or "none"
            raise ScriptError(f"no channel {name!r} was given; there are: {there}. By hand, list it in `channels`")
        return read_files(self.channel_paths[name], name)

    def split_features(self, frame: pd.DataFrame) -> tuple[Any, Any]:
        """Split a channel's frame into the features X and the target y.

        Nullable columns (Int64, boolean) without a missing value get NumPy's types.

        Raises:
            ScriptError: `target` is not set, or a column is missing or there twice.
        """
        if self.target is None:
            raise ScriptError(f"set {type(self).__name__}.target to the column to predict, or override split_features")
        y = to_numpy_dtypes(select(frame, [self.target], "the target"))[self.target]
        if self.features is not None:
            return to_numpy_dtypes(select(frame, self.features, "the features")), y
        X = frame.drop(columns=[self.target])
        check_columns(X, X.columns.unique(), "the features")
        return to_numpy_dtypes(X), y

    def fit(self, model: Any, X: Any, y: Any) -> Any:
        """Fit the model. Return it, or another to use in its place; None means that it was fitted in place."""
        model.fit(X, y)
        return model

    def evaluate(self, model: Any, X: Any, y: Any) -> dict[str, float]:
        """Return the metrics of one channel: name -> value.

        Regression: mae, mse, r2, rmse. Classification: accuracy, balanced_accuracy, f1_macro, precision_macro,
        recall_macro; with two classes and predict_proba also log_loss and roc_auc, NaN where the channel's labels
        do not define them. The second class is the positive one.

        Raises:
            TypeError: The model is neither a classifier nor a regressor.
        """
        import numpy as np

        task, actual, predicted = task_of(model), np.asarray(y), np.asarray(model.predict(X))
        if task == "regression":
            return regression_metrics(actual, predicted)
        if task == "classification":
            return classification_metrics(model, X, actual, predicted)
        name = type(model).__name__
        raise TypeError(f"{name} is neither a classifier nor a regressor: override {type(self).__name__}.evaluate")

    def log_metric(self, name: str, value: float) -> None:
        """Print a metric as the line that `METRIC_LINE` matches; `metrics.json` gets the last value of each name.

        Raises:
            ValueError: The name is empty or has `=` or white space.
        """
        line = metric_line(name, float(value))
        self.metrics[name] = float(value)
        sys.stdout.write(line)
        sys.stdout.flush()

    def save_model(self, model: Any, model_dir: Path) -> None:
        """Write `model.joblib`; `load_model` is its counterpart.

        Warns on stderr of classes and functions of the script itself: their pickle can be loaded nowhere else.
        """
        import joblib

        joblib.dump(model, model_dir / "model.joblib")
        names = names_of_main(model)
        if names:
            _warn(
                f"the model refers to {', '.join(names)} in __main__, which no other program can load; define it in a "
                f"module of source_dir, beside {_script_name()}, and import it"
            )

    # Serving, in the order of the calls.

    def load_model(self, model_dir: Path) -> Any:
        """Read what `save_model` wrote. Unpickling runs code: load only models that you trust."""
        import joblib

        return joblib.load(model_dir / "model.joblib")

    def parse_request(self, body: str | bytes, content_type: str) -> pd.DataFrame:
        """Read a request of type application/json, application/jsonlines, application/x-npy or text/csv.

        Raises:
            ValueError: The type is another, or the body is not of its type.
        """
        return parse_request(body, content_type)

    def predict(self, model: Any, frame: pd.DataFrame) -> Any:
        """Predict for the rows of a request; the frame has the columns that the model was trained on."""
        return model.predict(frame)

    def format_response(self, prediction: Any, accept: str) -> tuple[str | bytes, str]:
        """Write predictions as the first type in `accept` that is supported; return the body and its type.

        application/json gives `{"predictions": [...]}` with null for NaN; text/csv one line a row; application/x-npy
        an array.

        Raises:
            ValueError: No type in `accept` is supported.
        """
        return format_response(prediction, accept)

    @classmethod
    def serving_functions(
        cls,
    ) -> tuple[
        Callable[[str], LoadedModel],
        Callable[[str | bytes, str], pd.DataFrame],
        Callable[[pd.DataFrame, LoadedModel], Any],
        Callable[[Any, str], tuple[str | bytes, str]],
    ]:
        """Return `model_fn`, `input_fn`, `predict_fn` and `output_fn`, which SageMaker's server looks for.

        Source: https://github.com/aws/sagemaker-inference-toolkit#implementation-steps
        """
        script = cls()

        # The server counts parameters: each function has exactly those it names.
        def model_fn(model_dir: str) -> LoadedModel:
            signature = json.loads(Path(model_dir, "signature.json").read_text(encoding="utf-8"))
            return LoadedModel(script.load_model(Path(model_dir)), signature)

        def input_fn(request_body: str | bytes, content_type: str) -> pd.DataFrame:
            return script.parse_request(request_body, content_type)

        def predict_fn(input_data: pd.DataFrame, model: LoadedModel) -> Any:
            check_model(model)
            features = model.signature["features"]
            frame = input_data if features is None else match_signature(input_data, features)
            return script.predict(model.estimator, frame)

        def output_fn(prediction: Any, accept: str) -> tuple[str | bytes, str]:
            return script.format_response(prediction, accept)

        return model_fn, input_fn, predict_fn, output_fn

    # The run.

    @classmethod
    def main(cls, argv: Sequence[str] | None = None) -> None:
        """Train as the environment and the command line say.

        Exits with 2 and one message if a hyperparameter, a channel or a column is wrong; any other exception
        leaves with its traceback, which ends the process with 1.

        Args:
            argv: The command line without the program; None means `sys.argv[1:]`.
        """
        try:
            run = parse_run(cls.Hyperparameters, cls.channels, sys.argv[1:] if argv is None else argv, os.environ)
            if run is None:
                print_help((cls.__doc__ or "").strip().partition("\n")[0] or None, cls.Hyperparameters, cls.channels)
            else:
                cls(*run)._run()
        except ScriptError as error:
            sys.stdout.flush()
            message = str(error)
            # A list of problems starts on a line of its own.
            space = "" if message.startswith("\n") else " "
            sys.stderr.write(f"{_script_name()}: error:{space}{message}\n")
            sys.exit(2)

    def _run(self) -> None:
        model = self.build_model()
        absent = [name for name in self.channels if name not in self.channel_paths]
        for name in sorted(set(self.channel_paths) - set(self.channels)):
            _warn(
                f"channel {name!r} was given, but {type(self).__name__}.channels does not list it: nothing evaluates "
                f"it{suggest_channel([name], absent)}"
            )
        # All before the fit: a broken test set must not cost a training.
        names = [name for name in self.channels if name in self.channel_paths]
        data = {name: _load_split(self, name) for name in names}
        X, y = data[names[0]]
        data = {name: (align(each_X, X, name), each_y) for name, (each_X, each_y) in data.items()}
        fitted = self.fit(model, X, y)
        model = model if fitted is None else fitted
        for name, (each_X, each_y) in data.items():
            for metric, value in self.evaluate(model, each_X, each_y).items():
                self.log_metric(f"{name}:{metric}", value)
        self.model_dir.mkdir(parents=True, exist_ok=True)
        self.save_model(model, self.model_dir)
        write_json(self.model_dir / "metrics.json", self.metrics)
        write_json(self.model_dir / "hyperparameters.json", spell_out(values_of(self.hyperparameters)))
        write_json(self.model_dir / "signature.json", signature(model, X, self.target))
        write_json(self.model_dir / "environment.json", environment())


def _script_name() -> str:
    return Path(sys.argv[0]).name


def _warn(message: str) -> None:
    sys.stderr.write(f"{_script_name()}: warning: {message}\n")


def _load_split(script: TrainingScript, channel: str) -> tuple[Any, Any]:
    """Return a channel's features and target; `split_features` is not told the channel, its errors are."""
    frame = script.load_channel(channel)
    try:
        return script.split_features(frame)
    except ColumnError as error:
        raise ScriptError(f"channel {channel!r}: {error}") from error
