"""The declaration of hyperparameters, and the values of one run."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import platform
import sys
import typing
from typing import Any, Iterable, Mapping, NoReturn

from smkit.entrypoint.conversion import convert, convert_text, type_name
from smkit.entrypoint.errors import ScriptError


def hyperparameter(
    default: Any = dataclasses.MISSING,
    *,
    min: float | None = None,  # noqa: A002 - the name that a reader of a range expects
    max: float | None = None,  # noqa: A002 - as above
    choices: Iterable[Any] | None = None,
    help: str = "",  # noqa: A002 - argparse's name for it
) -> Any:
    """Declare a hyperparameter with limits; without a default it is required.

    Args:
        default: The value where none is given; a list or dict is copied for each run.
        min: The least number allowed.
        max: The greatest number allowed.
        choices: The values allowed.
        help: One line for `--help`.

    Returns:
        A dataclass field.
    """
    limits = {"min": min, "max": max, "choices": None if choices is None else tuple(choices), "help": help}
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=functools.partial(copy.deepcopy, default), metadata=limits)
    return dataclasses.field(default=default, metadata=limits)


def _missing(name: str) -> NoReturn:
    raise TypeError(f"missing hyperparameter {name!r}")


def make_dataclass(cls: type[Any]) -> None:
    """Make `cls` a frozen dataclass in place; required fields may follow those with a default."""
    if "__dataclass_fields__" in vars(cls):
        return
    # Before Python 3.10 a class without annotations of its own shows those of its base.
    annotations = cls.__annotations__ if sys.version_info >= (3, 10) else vars(cls).get("__annotations__", {})
    for name, value in list(vars(cls).items()):
        if name not in annotations and isinstance(value, (int, float, str, list, dict)) and name[0] != "_":
            raise TypeError(f"{cls.__qualname__}.{name} has no type; write {name}: {type(value).__name__} = {value!r}")
    for name, annotation in annotations.items():
        if "ClassVar" in str(annotation):
            continue
        value = vars(cls).get(name, dataclasses.MISSING)
        field = value if isinstance(value, dataclasses.Field) else hyperparameter(value)
        if is_required(field):
            # A default that raises: dataclasses of Python 3.7 know no keyword-only fields.
            missing = functools.partial(_missing, name)
            field = dataclasses.field(default_factory=missing, metadata={**field.metadata, "required": True})
        setattr(cls, name, field)
    bases = [base for base in cls.__mro__[1:] if "__dataclass_params__" in vars(base)]
    dataclasses.dataclass(frozen=all(vars(base)["__dataclass_params__"].frozen for base in bases))(cls)


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a value must be given."""
    no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return no_default or bool(field.metadata.get("required"))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field that is not required, a fresh one for each run."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _check_limits(value: Any, field: dataclasses.Field[Any]) -> None:
    least, most, choices = (field.metadata.get(key) for key in ("min", "max", "choices"))
    if value is None:
        return
    if (least is not None or most is not None) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"{field.name}: min and max are for numbers, got {value!r} ({type(value).__name__})")
    # Both refuse NaN, which compares as False.
    if not ((least is None or value >= least) and (most is None or value <= most)):
        allowed = [f"at least {least!r}"] * (least is not None) + [f"at most {most!r}"] * (most is not None)
        raise ValueError(f"{field.name}: must be {' and '.join(allowed)}, got {value!r}")
    if choices is not None and value not in choices:
        raise ValueError(f"{field.name}: must be one of {', '.join(map(repr, choices))}, got {value!r}")


def resolve_types(cls: type[Any]) -> dict[str, Any]:
    """Resolve the annotations, also those that `from __future__ import annotations` left as text."""
    try:
        return typing.get_type_hints(cls, localns=dict(vars(cls)))
    except (NameError, TypeError) as error:
        raise ScriptError(
            f"{cls.__qualname__}: an annotation cannot be read on Python {platform.python_version()}: {error}. "
            "Before Python 3.10 write Optional[int], before 3.9 List[int]; import the names at the top of the module"
        ) from None


def build_hyperparameters(
    cls: type[Any], sent: Mapping[str, Any], texts: Mapping[str, str], problems: list[str]
) -> Any:
    """Make the dataclass from the values of `SM_HPS` and the command line; add to `problems` what is wrong."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    types = resolve_types(cls)
    given: dict[str, Any] = {}
    for key, value in sent.items():
        name = key if key in fields else key.replace("-", "_")
        if name not in fields:
            problems.append(f"unknown hyperparameter {key!r}{suggest(key, fields)}")
        elif name in given:
            problems.append(f"{name}: given twice, as {name!r} and {name.replace('_', '-')!r}")
        else:
            given[name] = value
    values = {}
    for name, field in fields.items():
        try:
            if name in given:
                value = convert(given[name], types[name], name)
            elif name in texts:
                value = convert_text(texts[name], types[name], name)
            elif is_required(field):
                problems.append(f"{name}: required ({type_name(types[name])}), but not given")
                continue
            else:
                value = convert(default_of(field), types[name], f"the default of {name}")
            _check_limits(value, field)
            values[name] = value
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return None
    try:
        return cls(**values)
    except ValueError as error:  # from the user's own __post_init__
        problems.append(str(error))
        return None


def values_of(hyperparameters: Any) -> dict[str, Any]:
    """Return the values of a run, defaults included: name -> value."""
    return {
        field.name: getattr(hyperparameters, field.name) for field in dataclasses.fields(hyperparameters) if field.init
    }


def suggest(name: str, valid: Iterable[str]) -> str:
    """Return `"; did you mean alpha?"` for a near name, else all valid names."""
    near = difflib.get_close_matches(name.replace("-", "_"), list(valid), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; valid: {', '.join(valid) or 'none'}"


class NoHyperparameters:
    """The hyperparameters of a script that declares none."""


make_dataclass(NoHyperparameters)
