"""The template's errors."""

from __future__ import annotations


class ScriptError(ValueError):
    """A hyperparameter, a channel or a column is wrong. `main` prints it without a traceback and exits with 2."""


class ColumnError(ScriptError):
    """A frame lacks a column, or holds it twice."""
