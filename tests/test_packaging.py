"""The distribution's metadata agree with the tree. Building it is `.ci/run`'s part: it needs a package index."""

from __future__ import annotations

import ast
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import smkit
from smkit import errors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TREE = Path(__file__).resolve().parent.parent
PACKAGE = TREE / "src" / "smkit"
PYPROJECT: dict[str, Any] = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]

#: Module -> the distribution that brings it, where the names differ.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "pydantic_settings": "pydantic-settings"}
#: Modules of distributions that a declared one requires itself and exposes in its own interface.
BROUGHT_ALONG = {
    "botocore": "boto3",
    "click": "typer",
    "dotenv": "pydantic-settings",
    "joblib": "scikit-learn",
    "scramp": "pg8000",
    "typing_extensions": "pydantic",
    "urllib3": "boto3",
}


def distribution_name(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower()


CORE = {distribution_name(requirement) for requirement in PROJECT["dependencies"]}
EXTRAS = {
    name: {distribution_name(requirement) for requirement in requirements}
    for name, requirements in PROJECT["optional-dependencies"].items()
}


def test_the_version_is_said_once() -> None:
    assert "version" in PROJECT["dynamic"]
    path = TREE / PYPROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{smkit.__version__}"' in path.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", smkit.__version__)


def test_the_changelog_knows_this_version() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (TREE / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert smkit.__version__ in headings or headings[:1] == ["Unreleased"]


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert named[0] == oldest
    assert named == sorted(named, key=lambda text: int(text.partition(".")[2]))
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_the_license_is_an_expression_and_its_text_is_shipped() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert not [text for text in PROJECT["classifiers"] if text.startswith("License ::")]  # PEP 639: one or the other
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in (TREE / "LICENSE").read_text(encoding="utf-8")


def test_the_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").read_bytes() == b""
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_what_the_distribution_lists_exists() -> None:
    build = PYPROJECT["tool"]["hatch"]["build"]["targets"]
    listed = [*build["sdist"]["include"], *build["wheel"]["packages"], PROJECT["readme"], *PROJECT["license-files"]]
    assert [name for name in listed if not (TREE / name.lstrip("/")).exists()] == []


def test_every_import_is_declared_and_every_dependency_is_used() -> None:
    used: dict[str, str] = {}
    for module in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top != "smkit" and top not in sys.stdlib_module_names and top != "__future__":
                    used[top] = f"{module.relative_to(TREE)}:{node.lineno}"
    declared = CORE.union(*(names for extra, names in EXTRAS.items() if extra not in {"dev", "lint", "test"}))
    # Only pytest itself loads its plugin.
    assert used.pop("pytest").startswith("src/smkit/testing/pytest_plugin.py:")
    wanted = {BROUGHT_ALONG.get(name, DISTRIBUTIONS.get(name, name)): place for name, place in used.items()}
    assert {name: place for name, place in wanted.items() if name not in declared} == {}
    assert CORE - set(wanted) == set()


def test_every_extra_that_is_named_exists() -> None:
    pages = [TREE / "README.md", *(TREE / "docs").rglob("*.md"), *PACKAGE.rglob("*.py")]
    named = {
        (extra.strip(), str(page.relative_to(TREE)))
        for page in pages
        for group in re.findall(r"\bsmkit\[([a-z][a-z, -]*)\]", page.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert {(extra, page) for extra, page in named if extra not in EXTRAS} == set()


ERRORS = sorted(
    (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.SmkitError)),
    key=lambda value: value.__name__,
)
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "AliasConflict": {"alias": "production", "expected": 1, "actual": 2},
    "JobRefused": {"problems": ("no such role",)},
    "QueryError": {"sqlstate": "42P01", "position": 15},
    "SchemaViolationError": {"violations": ("price: 3 below 0",)},
    "TransformError": {"step": "add_features", "batch": 2, "rows": (0, 9)},
    **{
        name: {"job_name": "j", "exit_code": -9, "traceback": "Traceback", "log_path": "j/log"}
        for name in ("TrainingFailed", "TrainingStopped", "TrainingTimeout")
    },
    **{cls.__name__: {"code": "ResourceLimitExceeded"} for cls in ERRORS if issubclass(cls, errors.ServiceError)},
}


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_comes_whole_out_of_a_worker_process(cls: type[errors.SmkitError]) -> None:
    attributes = ATTRIBUTES.get(cls.__name__, {})
    error = cls("it broke: 'x'", **attributes)
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is cls
    assert str(twin) == str(error) == "it broke: 'x'"
    assert {name: getattr(twin, name) for name in attributes} == attributes


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_says_what_it_means(cls: type[errors.SmkitError]) -> None:
    assert cls.__doc__
    assert cls.__doc__.partition("\n")[0].endswith(".")
