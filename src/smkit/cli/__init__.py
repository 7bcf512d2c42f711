"""The `smkit` command: a thin face on the library, without logic of its own.

Every command prints for people, and with `--json` for programs: one JSON document on stdout. Messages go to stderr. The
exit code is 0, 1 for an expected error (one line, no traceback; `--debug` shows it), 2 for a command line or a setting
that is wrong in itself: typer's own errors, and every `ConfigError`.
"""

from __future__ import annotations

from smkit.cli.app import main

__all__ = ["main"]
