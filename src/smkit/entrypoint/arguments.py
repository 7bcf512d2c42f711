"""The command line and the environment of one run.

The variables are those of the sagemaker-training toolkit,
https://github.com/aws/sagemaker-training-toolkit/blob/master/ENVIRONMENT_VARIABLES.md
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from smkit.entrypoint.conversion import type_name
from smkit.entrypoint.errors import ScriptError
from smkit.entrypoint.hyperparameters import build_hyperparameters, default_of, is_required, resolve_types, suggest


class RunArguments(NamedTuple):
    """What the constructor of a training script takes, in its order."""

    hyperparameters: Any
    channel_paths: dict[str, Path]
    model_dir: Path
    output_data_dir: Path


def parse_run(
    declared: type[Any], channels: Sequence[str], argv: Sequence[str], environ: Mapping[str, str]
) -> RunArguments | None:
    """Read one run's arguments; None if only help was asked for.

    Args:
        declared: The dataclass of hyperparameters.
        channels: The channels of the script; the first is required.
        argv: The command line without the program.
        environ: The `SM_*` variables.

    Raises:
        ScriptError: All that is wrong, one problem a line.
    """
    problems: list[str] = []
    sent: dict[str, Any] = {}
    try:
        decoded = json.loads(environ.get("SM_HPS", "{}"))
    except ValueError:
        decoded = None
    if isinstance(decoded, dict):
        sent = decoded
    else:
        problems.append(f"SM_HPS is not a JSON object: {environ['SM_HPS']!r}")
    names = [field.name for field in dataclasses.fields(declared) if field.init]
    texts = _split_options(argv, sent, [*names, *channels, "model-dir", "output-data-dir"], problems)
    if "help" in texts:
        return None
    paths = _channel_paths(channels, texts, environ, problems)
    hyperparameters = build_hyperparameters(declared, sent, texts, problems)
    if problems:
        raise ScriptError("".join(f"\n  - {problem}" for problem in problems))
    model_dir = texts.get("model-dir") or environ.get("SM_MODEL_DIR") or "model"
    output_data_dir = texts.get("output-data-dir") or environ.get("SM_OUTPUT_DATA_DIR") or "output"
    return RunArguments(hyperparameters, paths, Path(model_dir), Path(output_data_dir))


def _channel_paths(
    channels: Sequence[str], texts: Mapping[str, str], environ: Mapping[str, str], problems: list[str]
) -> dict[str, Path]:
    paths = {}
    variables = {
        f"SM_CHANNEL_{name}".upper(): name for name in (*json.loads(environ.get("SM_CHANNELS", "[]")), *channels)
    }
    texts_of_paths = {name: texts.get(name) or environ.get(variable) for variable, name in variables.items()}
    given = {name: path for name, path in texts_of_paths.items() if path}
    for variable, name in variables.items():
        if name in given and Path(given[name]).exists():
            paths[name] = Path(given[name])
        elif name in given:
            problems.append(f"channel {name!r}: {given[name]} does not exist")
        elif name == channels[0]:
            problem = f"channel {name!r}: required; set {variable} or pass --{name} PATH"
            if given or "SM_CHANNELS" in environ:
                unlisted = [each for each in given if each not in channels]
                hint = suggest_channel(unlisted, [name]) or "."
                found = ", ".join(given) or "none"
                problem += f" (given: {found}{hint} With JobRunner: inputs={{{name!r}: ...}})"
            problems.append(problem)
    return paths


def suggest_channel(given: Iterable[str], listed: Sequence[str]) -> str:
    """Return `"; did you mean 'train'?"` where one of the channels given is near one that is listed, else ""."""
    for name in given:
        near = difflib.get_close_matches(name, listed, n=1)
        if near:
            return f"; did you mean {near[0]!r}?"
    return ""


def _split_options(
    argv: Sequence[str], sent: Mapping[str, Any], options: Sequence[str], problems: list[str]
) -> dict[str, str]:
    """Split `--name value` and `--name=value` into option -> text.

    The container repeats on the command line, in a lossy form, every hyperparameter that `SM_HPS` holds (`sent`):
    those are passed over, whatever their value looks like.
    """
    canonical = {option.replace("-", "_"): option for option in options}

    def option_of(argument: str) -> str | None:
        name = argument.lstrip("-").partition("=")[0]
        return name if name in options else canonical.get(name.replace("-", "_"))

    found: dict[str, str] = {}
    rest = list(reversed(argv))
    while rest:
        argument = rest.pop()
        name, equals, text = argument.partition("=")
        if argument[:1] == "-" and (argument[2:] if argument.startswith("--") else argument[1:]) in sent:
            del rest[-1:]
        elif argument in {"-h", "--help"}:
            found["help"] = ""
        elif not argument.startswith("-") or argument in {"-", "--"}:
            problems.append(f"unexpected argument {argument!r}; write --name value")
        elif option_of(argument) is None:
            problems.append(f"unknown option {name!r}{suggest(name.lstrip('-'), canonical)}")
            if rest and not equals and not rest[-1].startswith("--"):
                rest.pop()
        elif not equals and (not rest or (rest[-1].startswith("--") and option_of(rest[-1]))):
            problems.append(f"{name} needs a value")
        else:
            found[str(option_of(argument))] = text if equals else rest.pop()
    return found


def print_help(description: str | None, declared: type[Any], channels: Sequence[str]) -> None:
    """Print what `--help` asks for.

    Args:
        description: The first line, or None.
        declared: The dataclass of hyperparameters.
        channels: The channels of the script; the first is required.
    """
    parser = argparse.ArgumentParser(description=description)
    types = resolve_types(declared)
    for name in channels:
        need = "required" if name == channels[0] else "optional"
        parser.add_argument(f"--{name}", metavar="PATH", help=f"folder or file of this channel ({need})")
    parser.add_argument("--model-dir", metavar="PATH", help="where the model goes (default model)")
    parser.add_argument("--output-data-dir", metavar="PATH", help="where other output may go (default output)")
    for field in (field for field in dataclasses.fields(declared) if field.init):
        default = "required" if is_required(field) else f"default {default_of(field)!r}"
        limits = [
            f"{key} {field.metadata[key]!r}" for key in ("min", "max", "choices") if field.metadata.get(key) is not None
        ]
        note = f"{field.metadata.get('help', '')} ({', '.join([type_name(types[field.name]), default, *limits])})"
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, metavar="VALUE", help=note.strip().replace("%", "%%"))
    parser.print_help()
