"""The template that a training script extends: hyperparameters, channels, metrics, the model folder and serving.

The same script runs by hand, under smkit's local backend and in SageMaker's scikit-learn images. There this one file
lies beside the script and smkit is not installed. So it is written in Python 3.7, imports nothing of smkit, works with
every pandas from 1.1 and scikit-learn from 0.23, and loads them only when data is read: `--help` and a wrong
hyperparameter are answered at once. The variables it reads are those of the sagemaker-training toolkit,
https://github.com/aws/sagemaker-training-toolkit/blob/master/ENVIRONMENT_VARIABLES.md
"""

# ruff: noqa: N803, N806 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import abc
import argparse
import ast
import copy
import csv
import dataclasses
import difflib
import functools
import importlib
import io
import json
import math
import os
import platform
import re
import sys
import typing
from pathlib import Path
from typing import Any, Callable, ClassVar, Iterable, Mapping, NamedTuple, NoReturn, Sequence

if typing.TYPE_CHECKING:
    import pandas as pd

__all__ = ["METRIC_LINE", "LoadedModel", "ScriptError", "TrainingScript", "hyperparameter"]

#: Matches one printed metric. In a SageMaker metric definition the name is spelled out and the value is group 1:
#: `smkit metric test:rmse=([-+0-9.eE]+|nan|[-+]?inf)`.
METRIC_LINE = r"^smkit metric (?P<name>[^=\s]+)=(?P<value>\S+)$"

_SCHEMA_VERSION = 1
_METRIC_NAME = re.compile(r"[^=\s]+")
_PACKAGES = {
    "joblib": "joblib",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
}
_JSON, _CSV, _NPY, _JSON_LINES = "application/json", "text/csv", "application/x-npy", "application/jsonlines"
_NONE = type(None)
_SUPPORTED_TYPES = "int, float, bool, str, Optional, Union, List, Dict[str, ...] and Any"
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ScriptError(ValueError):
    """A hyperparameter, a channel or a column is wrong. `main` prints it without a traceback and exits with 2."""


class LoadedModel(NamedTuple):
    """What `model_fn` returns: the estimator and the content of `signature.json`."""

    estimator: Any
    signature: dict[str, Any]


# --- hyperparameters --------------------------------------------------------------------------------------------


def hyperparameter(
    default: Any = dataclasses.MISSING,
    *,
    min: float | None = None,  # noqa: A002 - the name that a reader of a range expects
    max: float | None = None,  # noqa: A002 - as above
    choices: Iterable[Any] | None = None,
    help: str = "",  # noqa: A002 - argparse's name for it
) -> Any:
    """Declare a hyperparameter with limits; without a default it is required.

    Args:
        default: The value where none is given; a list or dict is copied for each run.
        min: The least number allowed.
        max: The greatest number allowed.
        choices: The values allowed.
        help: One line for `--help`.

    Returns:
        A dataclass field.
    """
    limits = {"min": min, "max": max, "choices": None if choices is None else tuple(choices), "help": help}
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=functools.partial(copy.deepcopy, default), metadata=limits)
    return dataclasses.field(default=default, metadata=limits)


def _missing(name: str) -> NoReturn:
    raise TypeError(f"missing hyperparameter {name!r}")


def _make_dataclass(cls: type[Any]) -> None:
    """Make `cls` a frozen dataclass in place; required fields may follow those with a default."""
    if "__dataclass_fields__" in vars(cls):
        return
    # Before Python 3.10 a class without annotations of its own shows those of its base.
    annotations = cls.__annotations__ if sys.version_info >= (3, 10) else vars(cls).get("__annotations__", {})
    for name, value in list(vars(cls).items()):
        if name not in annotations and isinstance(value, (int, float, str, list, dict)) and name[0] != "_":
            raise TypeError(f"{cls.__qualname__}.{name} has no type; write {name}: {type(value).__name__} = {value!r}")
    for name, annotation in annotations.items():
        if "ClassVar" in str(annotation):
            continue
        value = vars(cls).get(name, dataclasses.MISSING)
        field = value if isinstance(value, dataclasses.Field) else hyperparameter(value)
        if _is_required(field):
            # A default that raises: dataclasses of Python 3.7 know no keyword-only fields.
            missing = functools.partial(_missing, name)
            field = dataclasses.field(default_factory=missing, metadata={**field.metadata, "required": True})
        setattr(cls, name, field)
    bases = [base for base in cls.__mro__[1:] if "__dataclass_params__" in vars(base)]
    dataclasses.dataclass(frozen=all(vars(base)["__dataclass_params__"].frozen for base in bases))(cls)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return no_default or bool(field.metadata.get("required"))


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type alone."""
    is_union = getattr(kind, "__origin__", None) is typing.Union or type(kind).__name__ == "UnionType"
    return tuple(kind.__args__) if is_union else (kind,)


def _type_name(kind: Any) -> str:
    if kind is _NONE:
        return "null"
    if hasattr(kind, "__origin__") or not isinstance(kind, type):
        return str(kind).replace("typing.", "")
    return kind.__name__


def _convert(value: Any, kind: Any, path: str) -> Any:
    """Return a JSON value as the annotated type.

    Raises:
        ValueError: It does not fit, or the type is not supported; the message starts with `path`.
    """
    members = _members(kind)
    if value is None and _NONE in members:
        return None
    # The very type first: 1.0 for Union[int, float] stays a float.
    candidates = sorted((each for each in members if each is not _NONE), key=lambda each: type(value) is not each)
    for member in candidates if len(candidates) > 1 else ():
        try:
            return _convert(value, member, path)
        except ValueError:  # noqa: PERF203 - trying each member is what a union means
            continue
    single = candidates[0] if len(candidates) == 1 else None
    origin = getattr(single, "__origin__", None) or single
    # Without arguments, List of Python 3.7 and 3.8 shows type variables.
    arguments = [Any if isinstance(arg, typing.TypeVar) else arg for arg in getattr(single, "__args__", None) or ()]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if single is Any or (origin in {bool, str} and type(value) is origin):
        return value
    if origin is int and is_number and (isinstance(value, int) or value.is_integer()):
        return int(value)
    if origin is float and is_number and (isinstance(value, float) or abs(value) <= sys.float_info.max):
        return float(value)
    if origin is list and isinstance(value, list):
        item = (arguments or [Any])[0]
        return [_convert(each, item, f"{path}[{position}]") for position, each in enumerate(value)]
    if origin is dict and isinstance(value, dict) and (arguments or [str])[0] in {str, Any}:
        item = (arguments or [str, Any])[1]
        return {key: _convert(each, item, f"{path}.{key}") for key, each in value.items()}
    supported = "" if origin in {bool, int, float, str, list, dict, None} else f"; use one of {_SUPPORTED_TYPES}"
    raise ValueError(f"{path}: expected {_type_name(kind)}, got {value!r} ({type(value).__name__}){supported}")


def _read_literal(text: str) -> Any:
    """Read JSON, a Python literal (the container writes `str(value)`) or a number; else return the text."""
    readers: tuple[Callable[[str], Any], ...] = (
        json.loads,
        lambda literal: json.loads(json.dumps(ast.literal_eval(literal))),
        float,
    )
    for read in readers:
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # noqa: PERF203 - form by form
            continue
    return text


def _convert_text(text: str, kind: Any, path: str) -> Any:
    """Return what a command-line argument stands for: `True`, `1e-07`, `[1, 2]`, `a=1,b=2`, the empty text for None."""
    members = _members(kind)
    if _NONE in members and (not text or (str not in members and text in {"None", "null"})):
        return None
    if bool in members and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    value = text if set(members) <= {str, _NONE} else _read_literal(text)
    if isinstance(value, str) and dict in {getattr(member, "__origin__", member) for member in members}:
        pairs = [pair.partition("=") for pair in text.split(",")]
        if all(equals for _, equals, _ in pairs):
            value = {key: _read_literal(each) for key, _, each in pairs}
    try:
        return _convert(value, kind, path)
    except ValueError:
        return _convert(text, kind, path)


def _check_limits(value: Any, field: dataclasses.Field[Any]) -> None:
    least, most, choices = (field.metadata.get(key) for key in ("min", "max", "choices"))
    if value is None:
        return
    if (least is not None or most is not None) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"{field.name}: min and max are for numbers, got {value!r} ({type(value).__name__})")
    # Both refuse NaN, which compares as False.
    if not ((least is None or value >= least) and (most is None or value <= most)):
        allowed = [f"at least {least!r}"] * (least is not None) + [f"at most {most!r}"] * (most is not None)
        raise ValueError(f"{field.name}: must be {' and '.join(allowed)}, got {value!r}")
    if choices is not None and value not in choices:
        raise ValueError(f"{field.name}: must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _types(cls: type[Any]) -> dict[str, Any]:
    """Resolve the annotations, also those that `from __future__ import annotations` left as text."""
    try:
        return typing.get_type_hints(cls, localns=dict(vars(cls)))
    except (NameError, TypeError) as error:
        raise ScriptError(
            f"{cls.__qualname__}: an annotation cannot be read on Python {platform.python_version()}: {error}. "
            "Before Python 3.10 write Optional[int], before 3.9 List[int]; import the names at the top of the module"
        ) from None


def _suggest(name: str, valid: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), list(valid), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; valid: {', '.join(valid) or 'none'}"


def _build_hyperparameters(
    cls: type[Any], sent: Mapping[str, Any], texts: Mapping[str, str], problems: list[str]
) -> Any:
    """Make the dataclass from the values of `SM_HPS` and the command line; add to `problems` what is wrong."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    types = _types(cls)
    given: dict[str, Any] = {}
    for key, value in sent.items():
        name = key if key in fields else key.replace("-", "_")
        if name not in fields:
            problems.append(f"unknown hyperparameter {key!r}{_suggest(key, fields)}")
        elif name in given:
            problems.append(f"{name}: given twice, as {name!r} and {name.replace('_', '-')!r}")
        else:
            given[name] = value
    values = {}
    for name, field in fields.items():
        try:
            if name in given:
                value = _convert(given[name], types[name], name)
            elif name in texts:
                value = _convert_text(texts[name], types[name], name)
            elif _is_required(field):
                problems.append(f"{name}: required ({_type_name(types[name])}), but not given")
                continue
            else:
                value = _convert(_default(field), types[name], f"the default of {name}")
            _check_limits(value, field)
            values[name] = value
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return None
    try:
        return cls(**values)
    except ValueError as error:  # from the user's own __post_init__
        problems.append(str(error))
        return None


def _read_arguments(
    argv: Sequence[str], sent: Mapping[str, Any], options: Sequence[str], problems: list[str]
) -> dict[str, str]:
    """Split `--name value` and `--name=value` into option -> text.

    The container repeats on the command line, in a lossy form, every hyperparameter that `SM_HPS` holds (`sent`):
    those are passed over, whatever their value looks like.
    """
    canonical = {option.replace("-", "_"): option for option in options}

    def option_of(argument: str) -> str | None:
        name = argument.lstrip("-").partition("=")[0]
        return name if name in options else canonical.get(name.replace("-", "_"))

    found: dict[str, str] = {}
    rest = list(reversed(argv))
    while rest:
        argument = rest.pop()
        name, equals, text = argument.partition("=")
        if argument[:1] == "-" and (argument[2:] if argument.startswith("--") else argument[1:]) in sent:
            del rest[-1:]
        elif argument in {"-h", "--help"}:
            found["help"] = ""
        elif not argument.startswith("-") or argument in {"-", "--"}:
            problems.append(f"unexpected argument {argument!r}; write --name value")
        elif option_of(argument) is None:
            problems.append(f"unknown option {name!r}{_suggest(name.lstrip('-'), canonical)}")
            if rest and not equals and not rest[-1].startswith("--"):
                rest.pop()
        elif not equals and (not rest or (rest[-1].startswith("--") and option_of(rest[-1]))):
            problems.append(f"{name} needs a value")
        else:
            found[str(option_of(argument))] = text if equals else rest.pop()
    return found


# --- files ------------------------------------------------------------------------------------------------------


def _read_json_lines(text: str) -> pd.DataFrame:
    # Not pandas.read_json: it turns "0012" into 12 and rounds floats. Not splitlines: U+2028 may stand in a string.
    return _frame_of([json.loads(line) for line in text.split("\n") if line.strip()])


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file as pandas does, but the same under every pandas: exact floats, types from the whole file."""
    import pandas as pd

    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    compression: Any = "gzip" if path.name.lower().endswith(".gz") else None
    # From 3.1 floats are exact by default and the argument is deprecated, pandas pull request 64666.
    precision: Any = "round_trip" if version < (3, 1) else None
    frame: pd.DataFrame = pd.read_csv(path, float_precision=precision, low_memory=False, compression=compression)
    # Before 1.4 round_trip leaves numbers with blanks around them as text, pandas issue 43713.
    for column in frame.columns if version < (1, 4) else ():
        if _dtype_name(frame[column]) == "string":
            frame[column] = frame[column].astype(float, errors="ignore")
    return frame


def _read_file(path: Path) -> pd.DataFrame:
    import pandas as pd

    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _read_csv(path)
    if name.endswith((".parquet", ".pq")):
        # From an open file: newer pyarrow makes columns of `key=value` folders in a path, older ones do not.
        with path.open("rb") as file:
            return pd.read_parquet(file)
    return _read_json_lines(path.read_text(encoding="utf-8"))


def _read_files(path: Path, channel: str) -> pd.DataFrame:
    """Read and stack every data file in a folder and its subfolders, in the order of their paths."""
    import pandas as pd

    suffixes = (".csv", ".csv.gz", ".parquet", ".pq", ".jsonl", ".ndjson")
    relative = (
        sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file()) if path.is_dir() else [Path()]
    )
    visible = [path / file for file in relative if not any(part.startswith(".") for part in file.parts)]
    files = [file for file in visible if file.name.lower().endswith(suffixes)]
    if not files:
        found = ", ".join(file.name for file in visible[:5]) or "nothing"
        raise ScriptError(f"channel {channel!r}: no {', '.join(suffixes)} file in {path}; found {found}")
    frames: list[pd.DataFrame] = []
    for file in files:
        try:
            frame = _read_file(file)
        except (ValueError, OSError, EOFError) as error:
            raise ScriptError(f"channel {channel!r}: cannot read {file}: {error}") from error
        if frames and set(frame.columns) != set(frames[0].columns):
            first, other = list(frames[0].columns), list(frame.columns)
            raise ScriptError(f"channel {channel!r}: {file} has the columns {other}, but {files[0]} has {first}")
        frames.append(frame)
    # A frame without rows has no dtypes worth keeping.
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        raise ScriptError(f"channel {channel!r}: no rows in {path}")
    return pd.concat(filled, ignore_index=True)


def _finite(value: Any) -> Any:
    """Replace NaN and the infinities, which JSON does not know, by None."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(_finite(value), indent=2, sort_keys=True, allow_nan=False, default=str)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


# --- requests ---------------------------------------------------------------------------------------------------


def _frame_of(data: Any) -> pd.DataFrame:
    """Make a frame of JSON: rows as lists or objects, columns as an object of lists, or one row as an object."""
    import pandas as pd

    if isinstance(data, dict) and list(data) == ["instances"]:
        data = data["instances"]
    if isinstance(data, dict):
        is_columns = bool(data) and all(isinstance(each, list) for each in data.values())
        rows: Any = data if is_columns else [data]
    else:
        rows = data if isinstance(data, list) else []
    shapes = {len(row) if isinstance(row, list) else type(row) for row in rows}
    if isinstance(rows, list) and (len(shapes) != 1 or not isinstance(rows[0], (dict, list))):
        raise ValueError(
            "expected rows, as a list of objects or of lists of one length, or an object of columns; "
            f"got {json.dumps(data)[:80]}"
        )
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def _media_type(header: str) -> tuple[str, str]:
    """Split `text/csv; charset=latin-1` into the type and the charset, UTF-8 where it names none."""
    media_type, *parameters = [part.strip() for part in header.split(";")]
    charsets = [part[8:].strip("\"'") for part in parameters if part.lower().startswith("charset=")]
    return media_type.lower(), (charsets or ["utf-8"])[0]


def _unsupported(what: str, value: str, allowed: Sequence[str]) -> ValueError:
    return ValueError(f"unsupported {what} {value!r}; use one of {', '.join(allowed)}")


def _read_number(value: Any, column: str) -> Any:
    if not isinstance(value, str):
        return math.nan if value is None else value
    try:
        return int(value) if re.fullmatch(r"\s*[-+]?\d+\s*", value) else float(value)
    except ValueError:
        raise ValueError(f"column {column!r}: {value!r} is not a number") from None


def _restore_dtype(column: Any, dtype: str) -> Any:
    """Give text, which is what CSV holds, the type that the column had in training."""
    import pandas as pd

    if dtype == "category":
        return column.astype("category")
    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return column
    if dtype.lower().startswith(("int", "uint", "float")):
        return pd.Series([_read_number(value, str(column.name)) for value in column], index=column.index)
    if dtype.startswith("bool"):
        wrong = [value for value in column if isinstance(value, str) and value.lower() not in _BOOLEANS]
        if wrong:
            raise ValueError(f"column {column.name!r}: {wrong[0]!r} is not true or false")
        values = [_BOOLEANS[value.lower()] if isinstance(value, str) else value for value in column]
        return pd.Series(values, index=column.index)
    return pd.to_datetime(column) if dtype.startswith("datetime64") else column


def _match_signature(frame: pd.DataFrame, features: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the columns that the model was trained on, in that order and of that type.

    Lists, arrays and CSV come without names: a first row that holds at least half of the names is a header, and
    without one the columns are taken by position.
    """
    import pandas as pd

    names = [feature["name"] for feature in features]
    if isinstance(frame.columns, pd.RangeIndex):
        first = list(frame.iloc[0])
        if 2 * len(set(names) & {cell for cell in first if isinstance(cell, str)}) >= len(names):
            frame = frame.iloc[1:].set_axis(first, axis=1)
        elif len(first) == len(names):
            frame = frame.set_axis(names, axis=1)
        else:
            raise ValueError(f"expected {len(names)} values a row ({', '.join(map(str, names))}), got {len(first)}")
    frame = _select(frame, names, "the request")
    if frame.empty:
        raise ValueError("the request has a header but no rows")
    columns = {feature["name"]: _restore_dtype(frame[feature["name"]], feature["dtype"]) for feature in features}
    matched: pd.DataFrame = pd.DataFrame(columns).reset_index(drop=True)
    return matched


def _select(frame: pd.DataFrame, names: Sequence[Any], where: str) -> pd.DataFrame:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ScriptError(
            f"{where}: missing columns {', '.join(map(repr, missing))}; there are {', '.join(map(repr, frame.columns))}"
        )
    selected: pd.DataFrame = frame[list(names)]
    return selected


# --- the template -----------------------------------------------------------------------------------------------


class _NoHyperparameters:
    """The hyperparameters of a script that declares none."""


_make_dataclass(_NoHyperparameters)


def _task_of(model: Any) -> str | None:
    from sklearn.base import is_classifier, is_regressor

    try:
        return "classification" if is_classifier(model) else "regression" if is_regressor(model) else None
    except AttributeError:  # newer scikit-learn asks for tags, which a model of another library may lack
        return None


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
    Hyperparameters: ClassVar[Any] = _NoHyperparameters

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
        _make_dataclass(cls.Hyperparameters)
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
        return _read_files(self.channel_paths[name], name)

    def split_features(self, frame: pd.DataFrame) -> tuple[Any, Any]:
        """Split a channel's frame into the features X and the target y.

        Raises:
            ScriptError: `target` is not set, or a column is missing.
        """
        if self.target is None:
            raise ScriptError(f"set {type(self).__name__}.target to the column to predict, or override split_features")
        y = _select(frame, [self.target], "the target")[self.target]
        if self.features is None:
            return frame.drop(columns=[self.target]), y
        return _select(frame, self.features, "the features"), y

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
        from sklearn import metrics

        task, actual, predicted = _task_of(model), np.asarray(y), np.asarray(model.predict(X))
        if task == "regression":
            mse = metrics.mean_squared_error(actual, predicted)
            mae = metrics.mean_absolute_error(actual, predicted)
            return {"mae": mae, "mse": mse, "r2": metrics.r2_score(actual, predicted), "rmse": math.sqrt(mse)}
        if task is None:
            name = type(model).__name__
            raise TypeError(f"{name} is neither a classifier nor a regressor: override {type(self).__name__}.evaluate")
        result = {
            "accuracy": metrics.accuracy_score(actual, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(actual, predicted),
        }
        for name in ("f1", "precision", "recall"):
            score = getattr(metrics, f"{name}_score")
            result[f"{name}_macro"] = score(actual, predicted, average="macro", zero_division=0)
        classes = list(getattr(model, "classes_", ()))
        if len(classes) == 2 and hasattr(model, "predict_proba"):
            probability = model.predict_proba(X)
            seen = set(actual)
            known = seen <= set(classes)
            result["log_loss"] = metrics.log_loss(actual, probability, labels=classes) if known else math.nan
            positive = actual == classes[1]
            result["roc_auc"] = (
                metrics.roc_auc_score(positive, probability[:, 1]) if known and len(seen) == 2 else math.nan
            )
        return result

    def log_metric(self, name: str, value: float) -> None:
        """Print a metric as the line that `METRIC_LINE` matches; `metrics.json` gets the last value of each name.

        Raises:
            ValueError: The name is empty or has `=` or white space.
        """
        if not _METRIC_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a metric name: no '=' and no white space")
        self.metrics[name] = float(value)
        sys.stdout.write(f"smkit metric {name}={self.metrics[name]!r}\n")
        sys.stdout.flush()

    def save_model(self, model: Any, model_dir: Path) -> None:
        """Write `model.joblib`; `load_model` is its counterpart."""
        import joblib

        joblib.dump(model, model_dir / "model.joblib")

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
        import numpy as np
        import pandas as pd

        media_type, charset = _media_type(content_type or _JSON)
        if media_type not in {_JSON, _JSON_LINES, _NPY, _CSV}:
            raise _unsupported("content type", content_type, (_JSON, _JSON_LINES, _NPY, _CSV))
        frame: pd.DataFrame
        if media_type == _NPY:
            if isinstance(body, str):
                raise ValueError("expected the bytes of a .npy array, got text")
            array = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
            if array.ndim != 2:
                raise ValueError(f"expected a .npy array of shape (rows, features), got {array.shape}")
            frame = pd.DataFrame(array)
            return frame
        try:
            text = (body if isinstance(body, str) else bytes(body).decode(charset)).lstrip("\ufeff")
        except LookupError:
            raise ValueError(f"unknown charset {charset!r} in the content type {content_type!r}") from None
        if media_type == _JSON:
            return _frame_of(json.loads(text))
        if media_type == _JSON_LINES:
            return _read_json_lines(text)
        # As text: only the model's signature says whether 0123 is a number.
        frame = pd.read_csv(io.StringIO(text), header=None, dtype=str)
        frame.columns = pd.RangeIndex(frame.shape[1])
        return frame

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
        import numpy as np

        array = np.asarray(prediction)
        asked = [_media_type(part)[0] for part in (accept or _JSON).split(",")]
        chosen = next((_JSON if each == "*/*" else each for each in asked if each in {_JSON, _CSV, _NPY, "*/*"}), None)
        if chosen is None:
            raise _unsupported("accept type", accept, (_JSON, _CSV, _NPY))
        if chosen == _JSON:
            return json.dumps({"predictions": _finite(array.tolist())}, default=str), _JSON
        if chosen == _CSV:
            lines = io.StringIO()
            rows = array.reshape(len(array), -1).tolist()
            csv.writer(lines, lineterminator="\n").writerows(rows)
            return lines.getvalue(), _CSV
        buffer = io.BytesIO()
        # Strings are often held as objects, which .npy could only pickle.
        np.save(buffer, np.array(array.tolist()) if array.dtype == object else array, allow_pickle=False)
        return buffer.getvalue(), _NPY

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
            features = model.signature["features"]
            frame = input_data if features is None else _match_signature(input_data, features)
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
            script = cls._from_command_line(sys.argv[1:] if argv is None else argv, os.environ)
            if script is not None:
                script._run()
        except ScriptError as error:
            sys.stdout.flush()
            sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {error}\n")
            sys.exit(2)

    @classmethod
    def _from_command_line(cls, argv: Sequence[str], environ: Mapping[str, str]) -> TrainingScript | None:
        """Make the script of one run; None if only help was asked for, which is then printed."""
        problems: list[str] = []
        sent: dict[str, Any] = {}
        try:
            decoded = json.loads(environ.get("SM_HPS", "{}"))
        except ValueError:
            decoded = None
        if isinstance(decoded, dict):
            sent = decoded
        else:
            problems.append(f"SM_HPS is not a JSON object: {environ['SM_HPS']!r}")
        names = [field.name for field in dataclasses.fields(cls.Hyperparameters) if field.init]
        texts = _read_arguments(argv, sent, [*names, *cls.channels, "model-dir", "output-data-dir"], problems)
        if "help" in texts:
            cls._print_help()
            return None
        paths = {}
        variables = {
            f"SM_CHANNEL_{name}".upper(): name
            for name in (*json.loads(environ.get("SM_CHANNELS", "[]")), *cls.channels)
        }
        for variable, name in variables.items():
            path = texts.get(name) or environ.get(variable)
            if path and Path(path).exists():
                paths[name] = Path(path)
            elif path:
                problems.append(f"channel {name!r}: {path} does not exist")
            elif name == cls.channels[0]:
                problems.append(f"channel {name!r}: required; set {variable} or pass --{name} PATH")
        hyperparameters = _build_hyperparameters(cls.Hyperparameters, sent, texts, problems)
        if problems:
            raise ScriptError("".join(f"\n  - {problem}" for problem in problems))
        model_dir = texts.get("model-dir") or environ.get("SM_MODEL_DIR") or "model"
        output_data_dir = texts.get("output-data-dir") or environ.get("SM_OUTPUT_DATA_DIR") or "output"
        return cls(hyperparameters, paths, Path(model_dir), Path(output_data_dir))

    @classmethod
    def _print_help(cls) -> None:
        parser = argparse.ArgumentParser(description=(cls.__doc__ or "").strip().partition("\n")[0] or None)
        types = _types(cls.Hyperparameters)
        for name in cls.channels:
            need = "required" if name == cls.channels[0] else "optional"
            parser.add_argument(f"--{name}", metavar="PATH", help=f"folder or file of this channel ({need})")
        parser.add_argument("--model-dir", metavar="PATH", help="where the model goes (default model)")
        parser.add_argument("--output-data-dir", metavar="PATH", help="where other output may go (default output)")
        for field in (field for field in dataclasses.fields(cls.Hyperparameters) if field.init):
            default = "required" if _is_required(field) else f"default {_default(field)!r}"
            limits = [
                f"{key} {field.metadata[key]!r}"
                for key in ("min", "max", "choices")
                if field.metadata.get(key) is not None
            ]
            note = f"{field.metadata.get('help', '')} ({', '.join([_type_name(types[field.name]), default, *limits])})"
            option = "--" + field.name.replace("_", "-")
            parser.add_argument(option, metavar="VALUE", help=note.strip().replace("%", "%%"))
        parser.print_help()

    def _run(self) -> None:
        model = self.build_model()
        unread = sorted(set(self.channel_paths) - set(self.channels))
        if unread:
            sys.stderr.write(
                f"{type(self).__name__}.channels does not list, so nothing evaluates: {', '.join(unread)}\n"
            )
        # All before the fit: a broken test set must not cost a training.
        names = [name for name in self.channels if name in self.channel_paths]
        data = {name: self.split_features(self.load_channel(name)) for name in names}
        X, y = data[names[0]]
        data = {name: (_align(each_X, X, name), each_y) for name, (each_X, each_y) in data.items()}
        fitted = self.fit(model, X, y)
        model = model if fitted is None else fitted
        for name, (each_X, each_y) in data.items():
            for metric, value in self.evaluate(model, each_X, each_y).items():
                self.log_metric(f"{name}:{metric}", value)
        self.model_dir.mkdir(parents=True, exist_ok=True)
        self.save_model(model, self.model_dir)
        _write_json(self.model_dir / "metrics.json", self.metrics)
        _write_json(self.model_dir / "signature.json", self._signature(model, X))
        _write_json(self.model_dir / "environment.json", _environment())

    def _signature(self, model: Any, X: Any) -> dict[str, Any]:
        import numpy as np
        import pandas as pd

        task = _task_of(model)
        features = None
        if isinstance(X, pd.DataFrame):
            features = [
                {"name": name, "dtype": _dtype_name(X[name]), "nullable": bool(X[name].isna().any())}
                for name in X.columns
            ]
        classes = getattr(model, "classes_", None) if task == "classification" else None
        return {
            "schema_version": _SCHEMA_VERSION,
            "target": self.target,
            "task": task,
            "features": features,
            "classes": None if classes is None else np.asarray(classes).tolist(),
        }


def _align(X: Any, trained_on: Any, channel: str) -> Any:
    """Order a channel's columns as in training, which older scikit-learn does not check."""
    import pandas as pd

    both = isinstance(X, pd.DataFrame) and isinstance(trained_on, pd.DataFrame)
    return _select(X, list(trained_on.columns), f"channel {channel!r}") if both else X


def _dtype_name(column: Any) -> str:
    """Name a column's type; text is `string` under every pandas, which calls it object or str."""
    import pandas as pd

    return "string" if pd.api.types.infer_dtype(column, skipna=True) == "string" else str(column.dtype)


def _environment() -> dict[str, Any]:
    packages = {}
    for package, module in _PACKAGES.items():
        try:
            packages[package] = importlib.import_module(module).__version__
        except ImportError:  # noqa: PERF203 - pyarrow may be absent
            continue
    versions = {"python": platform.python_version(), "platform": platform.platform(), "packages": packages}
    return {"schema_version": _SCHEMA_VERSION, **versions}
