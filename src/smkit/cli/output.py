"""What every command does alike: tables and JSON on stdout, messages on stderr.

What a store holds may come from anybody, so no control character of it reaches the terminal.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def write_json(value: object) -> None:
    """Write one JSON document. ASCII: what a terminal would obey, and what it cannot encode, is escaped."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def write_text(text: str) -> None:
    """Write lines of text."""
    typer.echo(clean(text))


def write_message(text: str) -> None:
    """Write to stderr."""
    typer.echo(clean(text), err=True)


def write_verification(verify: Callable[[], None], what: str, *, as_json: bool) -> None:
    """Verify, and write how it went.

    Args:
        verify: Raises `IntegrityError` where something is damaged.
        what: What is verified.
        as_json: As JSON.

    Raises:
        IntegrityError: Something is damaged; as JSON, `typer.Exit` with 1.
    """
    from smkit.errors import IntegrityError

    try:
        verify()
    except IntegrityError as error:
        if not as_json:
            raise
        write_json({"ok": False, "error": str(error)})
        raise typer.Exit(1) from None
    if as_json:
        write_json({"ok": True, "error": None})
    else:
        write_text(f"{what}: every byte is as it was published")


def write_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table: for a terminal in columns that fit it, for a pipe whole, separated by tabs."""
    from smkit.display import aligned

    cells = [[clean(cell) for cell in row] for row in (header, *rows)]
    width = terminal_width()
    for line in aligned(cells, width=width) if width else ["\t".join(row) for row in cells]:
        typer.echo(line)


def write_fields(fields: Mapping[str, Any]) -> None:
    """Write names and values, one to a line; what is empty is left out."""
    from smkit.display import shown

    rows = [(clean(name), shown(value)) for name, value in fields.items() if value not in (None, "", {}, [])]
    longest = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        typer.echo(f"{name.ljust(longest)}  {value}")


def terminal_width() -> int | None:
    """Return the columns of the terminal, None where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def clean(text: str) -> str:
    """Return text whose lines are printable."""
    from smkit.display import printable

    return "\n".join(printable(line) for line in text.split("\n"))
