"""Values of numpy and pandas as the ones of Python that have an SQL type, without a change of what they say."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from smkit.errors import ConfigError


def plain_value(name: str, value: Any) -> Any:
    """Return a parameter's value in Python's own types; a copy, also of what lists and dicts hold.

    `NaT` and `pandas.NA` are None. Other values come back as they are.

    Raises:
        ConfigError: A time or a duration is finer than PostgreSQL's, a microsecond, or has no fixed length.
    """
    if isinstance(value, Enum):
        return plain_value(name, value.value)
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, (pd.Timestamp, pd.Timedelta)):
        # `nanoseconds` are what is left of them beside the microseconds.
        if value.nanosecond if isinstance(value, pd.Timestamp) else value.nanoseconds:
            raise _too_fine(name, value)
        return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value.to_pytimedelta()
    if isinstance(value, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        return plain_value(name, list(value))
    if isinstance(value, (np.ndarray, np.generic)):
        return plain_value(name, _of_numpy(name, value))
    if isinstance(value, memoryview):
        return value.tobytes()
    if isinstance(value, (list, tuple)):
        return [plain_value(name, item) for item in value]
    if isinstance(value, dict):
        return {key: plain_value(name, item) for key, item in value.items()}
    return value


def _of_numpy(name: str, value: np.ndarray | np.generic) -> Any:
    if value.dtype.kind not in "mM":
        return value.tolist()
    unit = f"{value.dtype.kind}8[us]"
    if not np.can_cast(value.dtype, unit, "same_kind"):
        # Months and years, as durations; numpy would take their average.
        raise ConfigError(
            f"params[{name!r}] holds {value!r}, which is no fixed length of time: pass it as text, such as '2 months'"
        )
    micros = value.astype(unit)
    if not np.all((micros == value) | np.isnat(value)):
        raise _too_fine(name, value)
    # Days and coarser units are dates.
    plain = value.tolist()
    first = np.asarray(plain, dtype=object).ravel()
    return micros.tolist() if any(isinstance(item, int) for item in first) else plain


def _too_fine(name: str, value: Any) -> ConfigError:
    return ConfigError(
        f"params[{name!r}] holds {value!r}, which PostgreSQL would round to microseconds: round it yourself, such as "
        f"with .round('us') or .astype('{'timedelta' if _is_duration(value) else 'datetime'}64[us]')"
    )


def _is_duration(value: Any) -> bool:
    return isinstance(value, dt.timedelta) or getattr(getattr(value, "dtype", None), "kind", "") == "m"
