"""Frames: made of JSON, and their columns chosen, ordered and typed."""

# ruff: noqa: N803 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from smkit.entrypoint.errors import ColumnError

if TYPE_CHECKING:
    import pandas as pd


def frame_of(data: Any) -> pd.DataFrame:
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


def check_columns(frame: pd.DataFrame, names: Iterable[Any], where: str) -> None:
    """Check that each name stands for one column.

    Raises:
        ColumnError: A column is missing, or there twice; the message starts with `where`.
    """
    asked, there = Counter(names), Counter(frame.columns)
    missing = [name for name in asked if name not in frame.columns]
    repeated = [name for name in asked if max(asked[name], there[name]) > 1]
    if missing or repeated:
        what, wrong = ("missing", missing) if missing else ("repeated", repeated)
        raise ColumnError(
            f"{where}: {what} columns {', '.join(map(repr, wrong))}; there are {', '.join(map(repr, frame.columns))}"
        )


def select(frame: pd.DataFrame, names: Sequence[Any], where: str) -> pd.DataFrame:
    """Return these columns, in this order.

    Raises:
        ColumnError: A column is missing, or there twice; the message starts with `where`.
    """
    check_columns(frame, names, where)
    selected: pd.DataFrame = frame[list(names)]
    return selected


def align(X: Any, trained_on: Any, channel: str) -> Any:
    """Order a channel's columns as in training, which older scikit-learn does not check."""
    import pandas as pd

    both = isinstance(X, pd.DataFrame) and isinstance(trained_on, pd.DataFrame)
    return select(X, list(trained_on.columns), f"channel {channel!r}") if both else X


def dtype_name(column: Any) -> str:
    """Name a column's type; text is `string` under every pandas, which calls it object or str."""
    import pandas as pd

    return "string" if pd.api.types.infer_dtype(column, skipna=True) == "string" else str(column.dtype)


def to_numpy_dtypes(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn nullable columns (Int64, boolean) without a missing value into NumPy's types.

    Older pandas hands nullable columns to NumPy as objects, which scikit-learn refuses as a target.
    """
    import numpy as np

    nullable = {name: getattr(frame[name].dtype, "numpy_dtype", None) for name in frame.columns}
    plain = {
        name: dtype
        for name, dtype in nullable.items()
        if dtype is not None and np.dtype(dtype).kind in "biuf" and not frame[name].isna().any()
    }
    return frame.astype(plain) if plain else frame


def read_json_lines(text: str, parse: Callable[[str], Any] = json.loads) -> pd.DataFrame:
    """Read one row a line; `parse` reads a line."""
    # Not pandas.read_json: it turns "0012" into 12 and rounds floats. Not splitlines: U+2028 may stand in a string.
    return frame_of([parse(line) for line in text.split("\n") if line.strip()])
