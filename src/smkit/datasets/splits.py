"""How rows are divided: the rule that `DatasetBuilder.split` was given."""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError, EmptySplitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: In the order of a time split: the oldest rows train. The names are SageMaker's usual channels.
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitRule:
    """How to split.

    Attributes:
        method: `none`, `random`, `hash`, `stratified`, `group` or `time`.
        columns: The columns that decide.
        fractions: The share of train, validation and test.
        seed: Changes which rows go where, not how many.
    """

    method: str = "none"
    columns: tuple[str, ...] = ()
    fractions: tuple[float, float, float] = (1.0, 0.0, 0.0)
    seed: int = 0

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        fractions = {name: share for name, share in zip(SPLITS, self.fractions, strict=True) if share}
        return {"method": self.method, "columns": list(self.columns), "fractions": fractions, "seed": self.seed}


def make_rule(
    *,
    test: float,
    validation: float,
    by: str | Iterable[str] | None,
    stratify: str | None,
    group: str | Iterable[str] | None,
    time: str | None,
    seed: int,
) -> SplitRule:
    """Check the arguments of `DatasetBuilder.split`.

    Raises:
        ConfigError: They are malformed or contradict each other.
    """
    test, validation = _share("test", test), _share("validation", validation)
    if not 0 < test + validation < 1:
        raise ConfigError(
            f"test={test} and validation={validation} leave {max(0.0, 1 - test - validation):.0%} to train on: "
            f"their sum must be more than 0 and less than 1"
        )
    given = {"by": by, "stratify": stratify, "group": group, "time": time}
    named = {name: _columns(name, value) for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are different rules: give one of by, stratify, group and time")
    for name in ("stratify", "time"):
        if len(named.get(name, ("",))) > 1:
            raise ConfigError(f"{name}={given[name]!r}: expected one column; make one of several in a map step")
    name, columns = next(iter(named.items()), ("", ()))
    method = {"": "random", "by": "hash", "stratify": "stratified", "group": "group", "time": "time"}[name]
    # Not 0.7000000000000001.
    return SplitRule(method, columns, (round(1 - test - validation, 12), validation, test), _seed(seed))


def _share(name: str, share: object) -> float:
    if isinstance(share, bool) or not isinstance(share, numbers.Real) or not 0 <= float(share) < 1:
        raise ConfigError(
            f"{name}={share!r}: expected a share of the rows, from 0 up to but not 1, such as 0.2 for 20%"
        )
    return float(share)


def _columns(name: str, value: object) -> tuple[str, ...]:
    columns = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not columns or not all(isinstance(column, str) for column in columns) or len(set(columns)) < len(columns):
        raise ConfigError(f"{name}={value!r}: expected a column's name, or a list of different names")
    return columns


def _seed(seed: object) -> int:
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < 2**32:
        raise ConfigError(f"seed={seed!r}: expected an integer from 0 to 2**32 - 1")
    return number


def check_splits(rule: SplitRule, rows: Mapping[str, int], name: str) -> None:
    """Refuse a wanted split that got no rows.

    Raises:
        EmptySplitError: There is one.
    """
    empty = [split for split, share in zip(SPLITS, rule.fractions, strict=True) if share and not rows[split]]
    if empty:
        wanted = [split for split, share in zip(SPLITS, rule.fractions, strict=True) if share]
        counts = ", ".join(f"{split} {rows[split]:,}" for split in wanted)
        hints = {
            "hash": "few distinct keys rarely hit the shares: use more rows, another seed, or group=",
            "group": "there are too few groups for these shares",
            "time": "too many rows share one time: use a finer time column or other shares",
        }
        hint = hints.get(rule.method, "use larger shares or more rows")
        raise EmptySplitError(
            f"dataset {name!r} was not built: {' and '.join(empty)} would be empty ({counts}); {hint}"
        )
