"""The places that settings come from, read into layers that remember who said what.

Only the decoding and merging are here; which place wins is said in `Settings._layers`.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import BaseModel, SecretStr
from pydantic_settings import EnvSettingsSource, NoDecode, TomlConfigSettingsSource

from smkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

PREFIX = "SMKIT_"
#: Read by the test suite, not by Settings.
RESERVED_PREFIX = "SMKIT_TEST_"

KeyPath = tuple[str, ...]


class Layer(NamedTuple):
    """Values, nested as the settings are, and for each the place that it came from."""

    values: dict[str, Any]
    origins: dict[KeyPath, str]


def given(values: Mapping[str, Any], cls: type[BaseModel], origin: str, problems: list[str]) -> Layer:
    """Make a layer of values that are nested already: arguments, or a TOML table.

    A key that is no setting is added to `problems` with the nearest valid key, and left out.
    """
    layer = Layer({}, {})
    for name, value in values.items():
        if name not in cls.model_fields:
            problems.append(f"{origin}: unknown setting {name!r}{_nearest(name, cls.model_fields, 'keys')}")
            continue
        _put(layer, (name, cls.model_fields[name]), value, origin, problems)
    return layer


def read_environment(cls: type[BaseSettings], problems: list[str]) -> Layer:
    """Read the `SMKIT_*` environment variables."""
    return _decode(EnvSettingsSource(cls), os.environ, "environment", problems)


def read_dotenv(path: Path, cls: type[BaseSettings], problems: list[str]) -> Layer:
    """Read the `SMKIT_*` lines of a `.env` file; the other lines are other tools' own.

    A line that cannot be read is added to `problems` if it mentions SMKIT, and left out in silence if it does not.
    """
    try:
        # An editor on Windows may begin the file with a byte order mark, which would hide its first key.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(cannot_read(path, error))
        return Layer({}, {})
    readable: list[str] = []
    for statement in parse_stream(io.StringIO(text)):
        raw, first = statement.original.string, statement.original.line
        name = (statement.key or "").upper()
        # Such as `SMKIT-REGION=x` and `SMKIT_REGION:x`, which are names to the parser, the second one with its value.
        odd_name = name.startswith("SMKIT") and re.fullmatch(r"\w+", name) is None
        if not statement.error and not odd_name:
            readable.append(raw)
        elif "SMKIT" in raw.upper():
            line = first + raw[: len(raw) - len(raw.lstrip())].count("\n")
            # The text is not repeated: it may hold a password.
            problems.append(
                f"{path} line {line}: cannot be read: write SMKIT_NAME=value, and close every quote that a value opens"
            )
    values = dotenv_values(stream=io.StringIO("".join(readable)))
    layer = _decode(EnvSettingsSource(cls), values, str(path), problems)
    return Layer(resolve_paths(path.parent, layer.values), layer.origins)


def read_toml(path: Path, table: KeyPath, cls: type[BaseSettings], problems: list[str]) -> Layer:
    """Read a table of a TOML file, or the whole file where `table` is empty."""
    origin = f"{path} [{'.'.join(table)}]" if table else str(path)
    try:
        values: Any = TomlConfigSettingsSource(cls, toml_file=path).toml_data
    except OSError as error:
        problems.append(cannot_read(path, error))
        return Layer({}, {})
    except ValueError as error:
        # The parser's message has the line and the column, and no more of the text than one character.
        problems.append(f"{path} is not valid TOML: {error}")
        return Layer({}, {})
    for key in table:
        values = values.get(key, {}) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        problems.append(f"{origin}: expected a table of settings, such as [{'.'.join(table)}]")
        return Layer({}, {})
    return given(resolve_paths(path.parent, values), cls, origin, problems)


def merge(low: Layer, high: Layer, cls: type[BaseModel]) -> Layer:
    """Merge two layers; only nested models merge field by field, any other value replaces the lower one whole."""
    values = {**low.values, **high.values}
    for name, above in high.values.items():
        below = low.values.get(name)
        if _nested_model(cls.model_fields[name]) and isinstance(below, dict) and isinstance(above, dict):
            values[name] = {**below, **above}
    return Layer(values, {**low.origins, **high.origins})


def origin_of(origins: Mapping[KeyPath, str], path: KeyPath) -> str | None:
    """Return where a value came from, or where the value that holds it came from; None for a default."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return None


def project_folder() -> Path:
    """Return the nearest folder, from the working folder up, that has settings; else the working folder.

    Raises:
        ConfigError: The working folder was deleted, or a `pyproject.toml` on the way cannot be read.
    """
    try:
        start = Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working folder no longer exists: change into one that does") from None
    for folder in (start, *start.parents):
        # os.path.isfile, not Path.is_file: a parent that may not be searched has no settings for this user.
        if os.path.isfile(folder / "smkit.toml"):  # noqa: PTH113 - see above
            return folder
        pyproject = folder / "pyproject.toml"
        if os.path.isfile(pyproject):  # noqa: PTH113 - see above
            try:
                text = pyproject.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise ConfigError(f"{cannot_read(pyproject, error)}, or add an empty smkit.toml to {start}") from None
            # A text search first: parsing every pyproject.toml on the way up would cost more than it tells.
            if "[tool.smkit" in text:
                return folder
    return start


def cannot_read(path: Path, error: OSError | UnicodeDecodeError) -> str:
    """Say why a file cannot be read and what to do."""
    if isinstance(error, UnicodeDecodeError):
        return f"{path} is not UTF-8 text (byte {error.start + 1}): save it as UTF-8"
    return f"cannot read {path} ({error.strerror or type(error).__name__}): make it readable, or remove it"


def problems_of(error: ValidationError, cls: type[BaseModel], origins: Mapping[KeyPath, str]) -> list[str]:
    """Rewrite pydantic's report: one line a problem, with the place that the value came from; no secret."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        if problem["type"] == "default_factory_not_called":
            continue  # a default that needs another value, whose own problem is listed
        path = tuple(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            message = "unknown setting"
        elif problem["type"] == "value_error":
            message = problem["msg"].removeprefix("Value error, ")
        else:
            message = problem["msg"].replace("Input should be", "expected").replace("String should", "text should")
            if _may_show(problem["input"], cls.model_fields.get(str(problem["loc"][0]))):
                message += f", got {problem['input']!r}"
        origin = origin_of(origins, path)
        lines.append(f"{'.'.join(path)}: {message}" + (f" (from {origin})" if origin else ""))
    return lines


def invalid_settings(problems: list[str]) -> ConfigError:
    """Make the one error that lists every problem."""
    return ConfigError("invalid settings:\n" + "\n".join(f"  - {problem}" for problem in problems))


def frozen(name: str, cls: type[BaseModel], variable: str) -> ConfigError:
    """Make the error of an assignment; the value is not repeated, it may be a secret."""
    if name not in cls.model_fields:
        return ConfigError(f"unknown setting {name!r}{_nearest(name, cls.model_fields, 'keys')}")
    copy = f"{variable}.model_copy(update={{{name!r}: ...}})"
    if "." in variable:
        outer, _, field = variable.partition(".")
        copy = f"{outer}.model_copy(update={{{field!r}: {copy}}})"
    return ConfigError(f"settings are frozen, {name} cannot be changed: use {copy}, which returns a changed copy")


def resolve_paths(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve the relative paths of a file against the file's own folder."""
    resolved = dict(values)
    root, postgres = values.get("root"), values.get("postgres")
    if isinstance(root, str):
        resolved["root"] = _absolute(folder, root)
    if isinstance(postgres, dict) and isinstance(postgres.get("sslrootcert"), str):
        resolved["postgres"] = {**postgres, "sslrootcert": _absolute(folder, postgres["sslrootcert"])}
    return resolved


def _absolute(folder: Path, text: str) -> str:
    """Leave to validation what is no relative path: a URI, a home folder, nothing at all."""
    return text if not text or "://" in text or text.startswith("~") else str(folder / text)


def _decode(source: EnvSettingsSource, variables: Mapping[str, str | None], origin: str, problems: list[str]) -> Layer:
    """Turn `SMKIT_*` variables into a layer; an empty variable counts as not set."""
    cls = source.settings_cls
    paths = {path: f"{PREFIX}{'__'.join(path).upper()}" for path in _variable_paths(cls)}
    known = {variable: path for path, variable in paths.items()}
    layer = Layer({}, {})
    # Sorted, so that SMKIT_POSTGRES, a JSON object, comes before SMKIT_POSTGRES__HOST, which is more specific.
    for variable, text in sorted(((name.upper(), text) for name, text in variables.items()), key=itemgetter(0)):
        if not variable.startswith(PREFIX) or variable.startswith(RESERVED_PREFIX):
            continue
        if variable not in known:
            problems.append(f"{origin}: unknown setting {variable}{_nearest_variable(variable, sorted(known))}")
            continue
        if not text:
            continue
        name, *inner = known[variable]
        field, where = cls.model_fields[name], f"{origin} {variable}"
        value: Any = text
        if inner:
            value = {inner[0]: text}
        elif source.field_is_complex(field) and NoDecode not in field.metadata:
            try:
                value = json.loads(text)
            except ValueError as error:
                # Only the position: the text may hold a password.
                place = f" ({error.msg}, character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else ""
                problems.append(f'{where} is not valid JSON{place}: expected an object such as {{"key": "value"}}')
                continue
        _put(layer, (name, field), value, where, problems)
    return layer


def _put(layer: Layer, setting: tuple[str, FieldInfo], value: Any, origin: str, problems: list[str]) -> None:
    """Add one value to a layer; a nested model is added field by field."""
    name, field = setting
    model = _nested_model(field)
    if model is None:
        layer.values[name], layer.origins[name,] = _sealed(value, field), origin
        return
    if isinstance(value, model):
        value = {inner: getattr(value, inner) for inner in value.model_fields_set}
    if not isinstance(value, Mapping):
        layer.values[name], layer.origins[name,] = value, origin
        return
    below = layer.values.get(name)
    nested = layer.values[name] = dict(below) if isinstance(below, Mapping) else {}
    for inner, inner_value in value.items():
        if inner not in model.model_fields:
            hint = _nearest(str(inner), model.model_fields, "keys")
            problems.append(f"{origin}: unknown setting '{name}.{inner}'{hint}")
            continue
        nested[inner] = _sealed(inner_value, model.model_fields[inner])
        layer.origins[name, inner] = origin


def _sealed(value: Any, field: FieldInfo) -> Any:
    """Wrap a secret as early as possible: a traceback with local variables must not show it."""
    return SecretStr(value) if isinstance(value, str) and _holds_secret(field) else value


def _holds_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _nested_model(field: FieldInfo) -> type[BaseModel] | None:
    model = field.annotation
    # Python 3.10 takes `tuple[str, ...]` for a type.
    if get_origin(model) is None and isinstance(model, type) and issubclass(model, BaseModel):
        return model
    return None


def _may_show(value: object, field: FieldInfo | None) -> bool:
    """Whether an error may repeat a value: a short scalar that cannot be, nor hold, a secret."""
    if field is None or _holds_secret(field) or _nested_model(field):
        return False
    return isinstance(value, (str, int, float)) and len(str(value)) <= 200


def _variable_paths(cls: type[BaseSettings]) -> list[KeyPath]:
    paths: list[KeyPath] = []
    for name, field in cls.model_fields.items():
        paths.append((name,))
        if model := _nested_model(field):
            paths += [(name, inner) for inner in model.model_fields]
    return paths


def _nearest(name: str, valid: Any, what: str) -> str:
    return did_you_mean(name, valid) or f"; valid {what}: {', '.join(valid)}"


def _nearest_variable(variable: str, known: list[str]) -> str:
    """As `_nearest`, but by what follows the prefix, which alone makes all variables look alike."""
    by_rest = {name.removeprefix(PREFIX): name for name in known}
    rest = variable.removeprefix(PREFIX)
    near = difflib.get_close_matches(rest, by_rest, n=1, cutoff=0.6)
    # SMKIT_TAGS__TEAM: only nested settings have variables of their own.
    outer = rest.partition("__")[0]
    found = near[0] if near else outer if outer in by_rest else None
    return f"; valid variables: {', '.join(known)}" if found is None else f"; did you mean {by_rest[found]!r}?"
