"""Runs a project's `dataset.py`, which builds the dataset that a job is to train on."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from smkit.cli.output import write_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from smkit.config import Settings
    from smkit.datasets import Dataset

_HOW = "def build(settings: smkit.Settings) -> smkit.Dataset"


def build_dataset(script: Path, settings: Settings) -> Dataset:
    """Import a script and return what its `build(settings)` returns.

    It runs in its own folder, whose modules it can import. What it prints goes to stderr.

    Args:
        script: The script.
        settings: What `build` is given.

    Raises:
        ConfigError: There is no such file, or it defines no `build`, or that returned something else.
        SmkitError: The dataset could not be built.
        Exit: The script failed: exit code 1; its traceback was written.
    """
    from smkit.datasets import Dataset
    from smkit.errors import ConfigError, SmkitError

    if not script.is_file():
        raise ConfigError(f"{script} does not exist: expected a script that defines {_HOW}")
    try:
        # stdout is the job's log's, or the JSON document's.
        with contextlib.redirect_stdout(sys.stderr), _beside(script) as module:
            dataset = _build_of(module, script)(settings)
    except SmkitError:
        raise
    except Exception as error:  # noqa: BLE001 - it is the user's own, and is shown like one of python's
        write_message(f"smkit: error: {script} failed\n{_traceback_from(script, error)}")
        raise typer.Exit(1) from None
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"build of {script} returned {type(dataset).__name__}: return a dataset, such as "
            "smkit.DatasetBuilder(...).build()"
        )
    write_message(f"smkit: {script.name} gave {dataset.ref}")
    return dataset


def defines_build(script: Path) -> bool:
    """Return whether a file is a dataset script, judged by its text: it is not run."""
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)


def _build_of(module: ModuleType, script: Path) -> Callable[[Settings], object]:
    from smkit.errors import ConfigError

    build: Callable[[Settings], object] | None = getattr(module, "build", None)
    if not callable(build):
        raise ConfigError(f"{script} defines no function build: write {_HOW}")
    return build


@contextlib.contextmanager
def _beside(script: Path) -> Iterator[ModuleType]:
    """Import a script while its folder is the working folder and the first place for modules."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        from smkit.errors import ConfigError

        raise ConfigError(f"{script} is not a Python script: its name ends with .py")
    module = importlib.util.module_from_spec(spec)
    before, folder = Path.cwd(), str(script.parent)
    shadowed = sys.modules.get(script.stem)
    # By its name, so that a worker process can import the script's functions.
    sys.modules[script.stem] = module
    sys.path.insert(0, folder)
    os.chdir(folder)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        os.chdir(before)
        sys.path.remove(folder)
        if shadowed is None:
            del sys.modules[script.stem]
        else:
            sys.modules[script.stem] = shadowed


def _traceback_from(script: Path, error: Exception) -> str:
    """Return the traceback from the script on, without the frames that led there."""
    told = traceback.TracebackException.from_exception(error)
    first = next((at for at, frame in enumerate(told.stack) if frame.filename == str(script)), len(told.stack))
    told.stack = traceback.StackSummary.from_list(told.stack[first:])
    return "".join(told.format()).rstrip()
