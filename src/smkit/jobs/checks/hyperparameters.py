"""Would the script take the hyperparameters? Answered by the template's own rules, without running the script."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError
from smkit.jobs.checks.declaration import Declaration, DeclaredField, Unknown, declaration_of
from smkit.jobs.checks.report import Finding, problem

if TYPE_CHECKING:
    from smkit.jobs.spec import JobSpec
    from smkit.jobs.staging import StagedCode


def check_hyperparameters(spec: JobSpec, code: StagedCode) -> list[Finding]:
    """Return what the script would refuse, as it would say it; nothing where its text does not tell."""
    declared = _declaration(code)
    if declared is None:
        return []
    fix = f"see {declared.name}.Hyperparameters, {code.entry_point}:{declared.line}"
    return _missing_channel(declared, spec) + [
        problem("hyperparameters", said, fix) for said in _problems(declared, spec.plain_hyperparameters())
    ]


def _missing_channel(declared: Declaration, spec: JobSpec) -> list[Finding]:
    channel = declared.channel
    if not channel or channel in spec.channels or channel in spec.hyperparameters:
        return []
    if any(name.startswith("SM_CHANNEL") for name in spec.environment):
        return []
    given = ", ".join(sorted(spec.channels)) or "none"
    return [
        problem(
            "inputs",
            f"channel {channel!r}, which {declared.name} requires, has no input (given: {given})",
            f"pass a dataset, or inputs={{{channel!r}: ...}}; on the command line --dataset NAME, "
            f"--dataset-script FILE or --input {channel}=PATH",
        )
    ]


def refuse_wrong_hyperparameters(spec: JobSpec, code: StagedCode) -> None:
    """Refuse hyperparameters that the script would refuse.

    Raises:
        ConfigError: One is unknown, missing, or has a value that the script does not take.
    """
    declared = _declaration(code)
    if declared is None:
        return
    if said := _problems(declared, spec.plain_hyperparameters()):
        where = f"{declared.name} in {code.entry_point}, line {declared.line}"
        listed = "".join(f"\n  - {each}" for each in said)
        raise ConfigError(f"the hyperparameters are not those that {where}, declares; nothing was started:{listed}")


def _declaration(code: StagedCode) -> Declaration | None:
    # Of a package, pip decides which file is run.
    if not code.entry_point.endswith(".py") or "setup.py" in code.files:
        return None
    return declaration_of(code.files[code.entry_point].data)


def _problems(declared: Declaration, values: dict[str, Any]) -> list[str]:
    # Only here: for most scripts there is no declaration, and the template is not needed.
    from smkit.entrypoint.hyperparameters import build_hyperparameters, make_dataclass

    given = {name.replace("-", "_") for name in values} | set(values)
    namespace: dict[str, Any] = {
        name: _declare(field, is_given=name in given)
        for name, field in declared.fields.items()
        if not field.is_required or field.limits
    }
    annotations = {name: _annotation(field, is_given=name in given) for name, field in declared.fields.items()}
    as_the_script = type("Hyperparameters", (), {**namespace, "__annotations__": annotations})
    make_dataclass(as_the_script)
    said: list[str] = []
    # Sorted, as they reach the script.
    build_hyperparameters(as_the_script, json.loads(json.dumps(values, sort_keys=True)), {}, said)
    return said


def _annotation(field: DeclaredField, *, is_given: bool) -> Any:
    # Of a default that is not known nothing can be said.
    return Any if field.default is Unknown and not field.is_required and not is_given else field.annotation


def _declare(field: DeclaredField, *, is_given: bool) -> Any:
    from smkit.entrypoint.hyperparameters import hyperparameter

    if field.is_required:
        return hyperparameter(**field.limits)
    if field.default is Unknown:
        return hyperparameter(None, **(field.limits if is_given else {}))
    return hyperparameter(field.default, **field.limits)
