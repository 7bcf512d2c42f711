"""Requests and responses of SageMaker's inference server."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Sequence

from smkit.entrypoint.conversion import BOOLEANS
from smkit.entrypoint.frames import frame_of, read_json_lines, select
from smkit.entrypoint.json_data import finite, parse_json

if TYPE_CHECKING:
    import pandas as pd

_JSON, _CSV, _NPY, _JSON_LINES = "application/json", "text/csv", "application/x-npy", "application/jsonlines"


class LoadedModel(NamedTuple):
    """What `model_fn` returns: the estimator and the content of `signature.json`."""

    estimator: Any
    signature: dict[str, Any]


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
        wrong = [value for value in column if isinstance(value, str) and value.lower() not in BOOLEANS]
        if wrong:
            raise ValueError(f"column {column.name!r}: {wrong[0]!r} is not true or false")
        values = [BOOLEANS[value.lower()] if isinstance(value, str) else value for value in column]
        return pd.Series(values, index=column.index)
    return pd.to_datetime(column) if dtype.startswith("datetime64") else column


def match_signature(frame: pd.DataFrame, features: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the columns that the model was trained on, in that order and of that type.

    Lists, arrays and CSV come without names: a first row that holds at least half of the names is a header, and
    without one the columns are taken by position.
    """
    import pandas as pd

    if not hasattr(frame, "columns"):
        raise TypeError(f"the input is a {type(frame).__name__}: pass what input_fn returned, a DataFrame")
    if len(frame) == 0:
        raise ValueError("the request has no rows")
    names = [feature["name"] for feature in features]
    if isinstance(frame.columns, pd.RangeIndex):
        first = list(frame.iloc[0])
        if 2 * len(set(names) & {cell for cell in first if isinstance(cell, str)}) >= len(names):
            frame = frame.iloc[1:].set_axis(first, axis=1)
        elif len(first) == len(names):
            frame = frame.set_axis(names, axis=1)
        else:
            raise ValueError(f"expected {len(names)} values a row ({', '.join(map(str, names))}), got {len(first)}")
    frame = select(frame, names, "the request")
    if frame.empty:
        raise ValueError("the request has a header but no rows")
    columns = {feature["name"]: _restore_dtype(frame[feature["name"]], feature["dtype"]) for feature in features}
    matched: pd.DataFrame = pd.DataFrame(columns).reset_index(drop=True)
    return matched


def check_model(model: Any) -> None:
    """Check that a model is what `model_fn` returned.

    Raises:
        TypeError: It is something else, such as the estimator alone.
    """
    if not isinstance(model, LoadedModel):
        raise TypeError(f"the model is a {type(model).__name__}: pass what model_fn returned, a LoadedModel")


def parse_request(body: str | bytes, content_type: str) -> pd.DataFrame:
    """Read a request's rows; without names, the columns are numbered.

    Raises:
        TypeError: The body is neither text nor bytes.
        ValueError: The type is not supported, or the body is empty or not of its type.
    """
    media_type, charset = _media_type(content_type or _JSON)
    if media_type not in {_JSON, _JSON_LINES, _NPY, _CSV}:
        raise _unsupported("content type", content_type, (_JSON, _JSON_LINES, _NPY, _CSV))
    if not isinstance(body, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"the request body is a {type(body).__name__}: pass text or bytes, such as json.dumps(rows)")
    content = body if isinstance(body, str) else bytes(body)
    if not content or content.isspace():
        raise ValueError(f"the request body is empty: expected rows as {media_type}")
    try:
        return _parse_rows(content, media_type, charset)
    except ValueError as error:
        # One message: whoever sent the request has no use for the parser's own traceback.
        raise ValueError(f"cannot read the request body as {media_type}: {error}") from None


def _parse_rows(body: str | bytes, media_type: str, charset: str) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

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
        text = (body if isinstance(body, str) else body.decode(charset)).lstrip("\ufeff")
    except LookupError:
        raise ValueError(f"unknown charset {charset!r} in the content type") from None
    if media_type == _JSON:
        return frame_of(parse_json(text))
    if media_type == _JSON_LINES:
        return read_json_lines(text, parse_json)
    # As text: only the model's signature says whether 0123 is a number.
    frame = pd.read_csv(io.StringIO(text), header=None, dtype=str)
    frame.columns = pd.RangeIndex(frame.shape[1])
    return frame


def format_response(prediction: Any, accept: str) -> tuple[str | bytes, str]:
    """Write predictions as the first type in `accept` that is supported; return the body and its type."""
    import numpy as np

    array = np.asarray(prediction)
    asked = [_media_type(part)[0] for part in (accept or _JSON).split(",")]
    chosen = next((_JSON if each == "*/*" else each for each in asked if each in {_JSON, _CSV, _NPY, "*/*"}), None)
    if chosen is None:
        raise _unsupported("accept type", accept, (_JSON, _CSV, _NPY))
    if chosen == _JSON:
        return json.dumps({"predictions": finite(array.tolist())}, default=str), _JSON
    if chosen == _CSV:
        lines = io.StringIO()
        rows = array.reshape(len(array), -1).tolist()
        csv.writer(lines, lineterminator="\n").writerows(rows)
        return lines.getvalue(), _CSV
    buffer = io.BytesIO()
    # Strings are often held as objects, which .npy could only pickle.
    np.save(buffer, np.array(array.tolist()) if array.dtype == object else array, allow_pickle=False)
    return buffer.getvalue(), _NPY
