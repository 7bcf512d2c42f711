"""The import law: what `import smkit` may load, and which part of smkit may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import smkit

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(smkit.__file__).resolve().parent
MODULES = sorted(PACKAGE.rglob("*.py"))

HEAVY = {
    "boto3",
    "botocore",
    "dask",
    "distributed",
    "joblib",
    "numpy",
    "pandas",
    "pg8000",
    "pyarrow",
    "pydantic",
    "pydantic_settings",
    "sagemaker",
    "scipy",
    "sklearn",
    "tqdm",
    "typer",
}

FOUNDATIONS = {
    "_config_layers",
    "_config_rules",
    "_version",
    "arrow_memory",
    "aws",
    "aws_errors",
    "bounds",
    "config",
    "display",
    "environment",
    "errors",
    "frames",
    "hyperparameters",
    "naming",
    "progress_bar",
}
STAGES = {"sources", "datasets", "jobs", "artifacts"}
#: Part of smkit -> the parts that it may import beside itself; a part that is not here may import every other.
LAW: dict[str, set[str]] = {
    **dict.fromkeys(FOUNDATIONS, FOUNDATIONS),
    "storage": FOUNDATIONS,
    "versioning": FOUNDATIONS | {"storage"},
    **dict.fromkeys(STAGES, FOUNDATIONS | {"storage", "versioning"}),
    # The rules of the template, which imports nothing: what it would refuse is refused before the job starts.
    "jobs": FOUNDATIONS | {"storage", "versioning", "entrypoint"},
    # Runs alone in the training container, where smkit is not installed.
    "entrypoint": set(),
}
#: What stands on the stages; no stage may stand on it.
FACES = {"__main__", "cli", "diagnosis", "infra", "project", "testing"}

LINE_LIMIT = 400
LONG_MODULES = {
    "jobs/supervisor.py": "one file, run by its path under `python -I -S`, which finds no other",
}


def part_of(module: Path) -> str:
    """The part of smkit that a module belongs to: `jobs` for `smkit/jobs/spec.py`."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(module: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every import, wherever it stands: in a function, or for type checkers only."""
    parts = ("smkit", *module.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [*parts[: -node.level], node.module] if node.level else [node.module]
            origin = ".".join(name for name in base if name)
            for alias in node.names:
                if origin == "smkit":
                    yield node.lineno, smkit._HOME.get(alias.name, f"smkit.{alias.name}")
                else:
                    yield node.lineno, origin


def test_the_modules_are_found() -> None:
    assert {"errors", "config", "storage", "jobs", "entrypoint", "__init__"} <= {part_of(module) for module in MODULES}


def test_importing_smkit_loads_no_dependency() -> None:
    code = "import sys, smkit; print('\\n'.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(result.stdout.split())
    assert "smkit" in loaded
    assert loaded & HEAVY == set()


def test_importing_smkit_loads_only_its_version() -> None:
    code = "import sys, smkit; print('\\n'.join(sorted(name for name in sys.modules if name.startswith('smkit'))))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.split() == ["smkit", "smkit._version"]


@pytest.mark.parametrize("name", smkit.__all__)
def test_every_public_name_resolves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in smkit._HOME:
        monkeypatch.delitem(vars(smkit), name, raising=False)
    assert getattr(smkit, name) is not None
    assert name in dir(smkit)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'smkit' has no attribute 'Setings'"):
        smkit.Setings  # noqa: B018 - the attribute access is what is tested


def test_a_misspelt_name_gets_a_suggestion() -> None:
    code = "import smkit; smkit.Datasetbuilder"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1
    assert "has no attribute 'Datasetbuilder'. Did you mean: 'DatasetBuilder'?" in result.stderr


def test_public_names_are_sorted_and_each_has_one_home() -> None:
    assert smkit.__all__ == sorted(set(smkit.__all__))
    assert set(smkit.__all__) == {*smkit._HOME, "__version__", "errors"}
    assert list(smkit._HOME) == sorted(smkit._HOME)


def test_type_checkers_see_the_names_that_load_at_run_time() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.pop("errors") == "smkit"
    assert seen == smkit._HOME


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_part_may(module: Path) -> None:
    part = part_of(module)
    if part == "__init__":
        return  # names every home, for type checkers
    allowed = LAW.get(part)
    broken = []
    for line, name in imported(module):
        first, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if first != "smkit" or target == part:
            continue
        if (allowed is not None and target not in allowed) or (part not in FACES and target in FACES):
            broken.append(f"{module.relative_to(PACKAGE)}:{line} imports {name}")
    assert broken == []


def test_every_part_is_under_the_law_or_a_face() -> None:
    assert {part_of(module) for module in MODULES} - set(LAW) - FACES - {"__init__", "__main__"} == set()


def test_a_module_that_runs_alone_imports_nothing_of_smkit() -> None:
    module = PACKAGE / "jobs/supervisor.py"
    assert [name for _, name in imported(module) if name.partition(".")[0] == "smkit"] == []


def test_the_template_imports_nothing_of_smkit_but_its_own_modules() -> None:
    modules = [module for module in MODULES if part_of(module) == "entrypoint"]
    homes = {f"smkit.entrypoint.{module.stem}" for module in modules if module.stem != "__init__"}
    assert homes
    names = {name for module in modules for _, name in imported(module)}
    assert {name for name in names if name.partition(".")[0] == "smkit"} <= homes


def test_one_file_at_most_imports_the_sagemaker_sdk() -> None:
    users = {
        str(module.relative_to(PACKAGE))
        for module in MODULES
        for _, name in imported(module)
        if name.partition(".")[0] == "sagemaker"
    }
    assert len(users) <= 1
    assert all(user.startswith("jobs/sagemaker") for user in users)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_no_module_is_too_long(module: Path) -> None:
    lines = len(module.read_text(encoding="utf-8").splitlines())
    name = str(module.relative_to(PACKAGE))
    if name in LONG_MODULES:
        assert lines > LINE_LIMIT, f"{name} needs its exception no longer"
    else:
        assert lines <= LINE_LIMIT


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_no_module_checks_with_assert(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    # `python -O` removes assert statements.
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []
