"""`smkit doctor`: everything that this machine, the account and the database can be asked."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from smkit.cli.output import terminal_width, write_json
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from smkit.diagnosis.findings import Outcome

_COLOURS = {"ok": "green", "problem": "red", "cannot tell": "yellow", "skipped": "bright_black"}


def run(
    context: typer.Context,
    *,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="Run this check, and what it needs; may be repeated."),
    ] = None,
    bucket: Annotated[
        list[str] | None,
        typer.Option(
            "--bucket",
            metavar="BUCKET",
            help="Look at this bucket, or s3:// URI, too, which data comes from; repeatable.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Seconds that each check may take.")
    ] = 5.0,
    no_write: Annotated[bool, typer.Option("--no-write", help="Try no write, not even of an empty object.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Look for everything that would keep smkit from working, and say how to mend it; a problem is exit code 1.

    Only what the settings use is asked. Examples: smkit doctor; smkit doctor --only bucket --only role;
    smkit doctor --bucket raw-data --json
    """
    from smkit.diagnosis.examination import examine
    from smkit.diagnosis.report import ASCII_SYMBOLS, SYMBOLS

    report = examine(
        # Settings that cannot be read are a finding, not an error.
        lambda: settings_of(context),
        checks=only or None,
        buckets=bucket or (),
        timeout=timeout,
        write=not no_write,
    )
    if as_json:
        write_json(report.to_dict())
    else:
        symbols = SYMBOLS if _can_write("".join(SYMBOLS.values())) else ASCII_SYMBOLS
        # No control character is in a report but the colours that are put in here.
        typer.echo(report.to_text(width=terminal_width(), symbols=symbols, style=_coloured if _in_colour() else _plain))
    if not report.ok:
        raise typer.Exit(1)


def _can_write(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _in_colour() -> bool:
    # https://no-color.org
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _coloured(text: str, outcome: Outcome) -> str:
    return typer.style(text, fg=_COLOURS[outcome])


def _plain(text: str, _: Outcome) -> str:
    return text
