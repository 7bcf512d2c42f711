"""JSON as a strict reader wants it: no NaN, no infinities, no name twice."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def finite(value: Any) -> Any:
    """Replace NaN and the infinities, which JSON does not know, by None."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spell_out(value: Any) -> Any:
    """Write NaN and the infinities as text, where null would be another value, and every key as text."""
    if isinstance(value, dict):
        return {str(key): spell_out(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [spell_out(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a file that is there whole or not at all; NaN and the infinities become null."""
    text = json.dumps(finite(value), indent=2, sort_keys=True, allow_nan=False, default=str)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def parse_json(text: str) -> Any:
    """Read JSON; of two values of one name, `json` would drop the first in silence.

    Raises:
        ValueError: It is not JSON, or an object has a name twice.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = [name for name in members if names.count(name) > 1]
        raise ValueError(f"repeated names {', '.join(map(repr, repeated))} in one JSON object")
    return members
