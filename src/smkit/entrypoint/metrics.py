"""The metrics of a model, and the line that carries one."""

# ruff: noqa: N803 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import math
import re
from typing import Any

#: Matches one printed metric. In a SageMaker metric definition the name is spelled out and the value is group 1:
#: `smkit metric test:rmse=([-+0-9.eE]+|nan|[-+]?inf)`.
METRIC_LINE = r"^smkit metric (?P<name>[^=\s]+)=(?P<value>\S+)$"

_METRIC_NAME = re.compile(r"[^=\s]+")


def metric_line(name: str, value: float) -> str:
    """Return the line that `METRIC_LINE` matches, with its end.

    Raises:
        ValueError: The name is empty or has `=` or white space.
    """
    if not _METRIC_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a metric name: no '=' and no white space")
    return f"smkit metric {name}={value!r}\n"


def task_of(model: Any) -> str | None:
    """Return `classification`, `regression`, or None where the model is neither."""
    from sklearn.base import is_classifier, is_regressor

    try:
        return "classification" if is_classifier(model) else "regression" if is_regressor(model) else None
    except AttributeError:  # newer scikit-learn asks for tags, which a model of another library may lack
        return None


def regression_metrics(actual: Any, predicted: Any) -> dict[str, float]:
    """Return mae, mse, r2 and rmse of two arrays of shape (rows,)."""
    from sklearn import metrics

    mse = metrics.mean_squared_error(actual, predicted)
    mae = metrics.mean_absolute_error(actual, predicted)
    return {"mae": mae, "mse": mse, "r2": metrics.r2_score(actual, predicted), "rmse": math.sqrt(mse)}


def classification_metrics(model: Any, X: Any, actual: Any, predicted: Any) -> dict[str, float]:
    """Return the metrics of labels of shape (rows,), and of the probabilities if there are two classes."""
    from sklearn import metrics

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
        result["roc_auc"] = metrics.roc_auc_score(positive, probability[:, 1]) if known and len(seen) == 2 else math.nan
    return result
