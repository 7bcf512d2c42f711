"""The command line's root: the table of commands, the options that all of them take, and how errors are told.

A command's module is imported when the command is used. So `smkit --help` is quick whatever the commands need.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from smkit._version import __version__
from smkit.cli.consent import INTERRUPTED
from smkit.cli.output import write_message
from smkit.errors import ConfigError, SmkitError

#: As typer's own for a command line that cannot be read.
_WRONG_WORDS = 2


class _Entry(NamedTuple):
    """A command of the root.

    Args:
        target: `module:name`; the name is a `typer.Typer`, or a function that is the command itself.
        help: One line for `smkit --help`.
    """

    target: str
    help: str


#: In the order in which `smkit --help` shows them. A new command is one line here. Commands get their settings from
#: `smkit.cli.settings.settings_of(context)`, so that --region and the others below count.
COMMANDS = {
    "init": _Entry("smkit.cli.init:run", "Make a project that trains at once: script, dataset, tests, notebook."),
    "run": _Entry("smkit.cli.run:run", "Run a training script, on this machine or on SageMaker."),
    "jobs": _Entry("smkit.cli.jobs:app", "List, show, follow, stop and wait for jobs."),
    "datasets": _Entry("smkit.cli.datasets:app", "Find, compare, summarise and check published datasets."),
    "models": _Entry("smkit.cli.models:app", "Find, compare, name, check and delete published models."),
    "env": _Entry("smkit.cli.env:app", "Build, list and remove the images' Pythons and packages, for local jobs."),
    "doctor": _Entry("smkit.cli.doctor:run", "Look for everything that would keep smkit from working, with the fix."),
    "infra": _Entry("smkit.cli.infra:app", "Make what smkit needs in an AWS account: bucket, roles, Studio."),
    "sandbox": _Entry("smkit.cli.sandbox:run", "Run a SageMaker on this machine that really trains, until Ctrl-C."),
}

#: Options of the root that every command takes too, before or after its name.
_EVERYWHERE = ("region", "profile", "backend", "root", "debug")


class _Commands(Mapping[str, Any]):
    """The commands of the table, each imported when it is asked for.

    Args:
        shared: The options that every command takes.
    """

    def __init__(self, shared: list[Any]) -> None:
        self._shared = shared
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, COMMANDS[name].target)
            _share(self._loaded[name], self._shared)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        # Not Mapping's, which would import the module.
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _load(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        # Not get_command, which would give each group options of its own to install completion.
        command: Any = typer.main.get_group(found)
        command.name = name
        return command
    alone = typer.Typer(rich_markup_mode=None, add_completion=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)


def _share(command: Any, shared: list[Any]) -> None:
    """Let a command and those below it take the root's options, but for those that it has itself."""
    own = {parameter.name for parameter in command.params}
    command.params += [option for option in shared if option.name not in own]
    for below in getattr(command, "commands", {}).values():
        _share(below, shared)


def _hand_to_root(context: Any, option: Any, value: Any) -> None:
    if value not in {None, False}:
        context.find_root().params[option.name] = value


class _Root(TyperGroup):
    """Loads commands as they are used, and turns what is expected to go wrong into a message and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        shared = []
        for option in self.params:
            if option.name in _EVERYWHERE:
                # Hidden: the root's help tells them once, for all.
                twin: Any = copy.copy(option)
                twin.hidden, twin.expose_value, twin.callback = True, False, _hand_to_root
                shared.append(twin)
        # Any: typer's is a dict, which nothing is added to any more.
        commands: Any = _Commands(shared)
        self.commands = commands

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table, without importing a command."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except SmkitError as error:
                if ctx.params.get("debug"):
                    raise
                write_message(f"smkit: error: {error}")
                # An argument that is wrong in itself, whoever finds out: typer, a command or the library.
                raise typer.Exit(_WRONG_WORDS if isinstance(error, ConfigError) else 1) from None
            except KeyboardInterrupt:
                # Older versions of typer call it an error.
                raise typer.Exit(INTERRUPTED) from None


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    write_message(f"smkit: warning: {message}")


app = typer.Typer(
    name="smkit",
    cls=_Root,
    no_args_is_help=True,
    # Without rich: plain help that pipes well, and one import less.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    region: Annotated[
        str | None, typer.Option("--region", metavar="REGION", help="The AWS region, such as cn-north-1.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="NAME", help="A profile of the AWS configuration.")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="BACKEND",
            help="Where jobs run: local or sagemaker.",
            autocompletion=lambda: ["local", "sagemaker"],
        ),
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="ROOT", help="The store: a folder, or an s3:// URI.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train scikit-learn models on Amazon SageMaker and on this machine: versioned datasets and models.

    Settings come from the options below, SMKIT_* variables, .env, smkit.toml and pyproject.toml. The options from
    --region to --debug may also stand behind the command: smkit jobs list --region cn-north-1.

    Exit codes: 0; 1 for an error, for a job that failed, or where a check found something wrong; 2 for a command
    line or a setting that is wrong in itself; 130 after Ctrl-C.
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
