"""The command line's root: the groups of commands, and what they share."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from smkit._version import __version__
from smkit.cli import datasets, models, sandbox
from smkit.cli.output import write_message
from smkit.errors import SmkitError


class _Root(TyperGroup):
    """Turns what is expected to go wrong into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except SmkitError as error:
                if ctx.params.get("debug"):
                    raise
                write_message(f"smkit: error: {error}")
                raise typer.Exit(1) from None


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    write_message(f"smkit: warning: {message}")


app = typer.Typer(
    name="smkit",
    cls=_Root,
    no_args_is_help=True,
    add_completion=False,
    # Without rich: plain help that pipes well, and one import less.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.command("sandbox")(sandbox.run)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train scikit-learn models on Amazon SageMaker and on this machine: versioned datasets and models.

    Settings come from SMKIT_* variables, .env, smkit.toml and pyproject.toml. Exit codes: 0; 1 for an error, or where a
    check found damage; 2 for a wrong command line.
    """


def main() -> None:
    """Run the command line; the entry point of the `smkit` command."""
    for stream in (sys.stdout, sys.stderr):
        # A name in Chinese must not end a command where the terminal's encoding is poor.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="smkit")
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has seen enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
