"""What a training script was given and what it used: the rule that its job and its model share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def effective_hyperparameters(given: Mapping[str, Any], used: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the values that a script trained with: those it says it used, and what else it was given.

    Args:
        given: What the job was started with.
        used: What the script says it used, defaults included; None where it says nothing.
    """
    used = {} if used is None else used
    # The training template takes `learning-rate` for its field learning_rate.
    return {name: value for name, value in given.items() if name.replace("-", "_") not in used} | dict(used)
