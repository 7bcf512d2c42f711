"""The template must run in the oldest image: Python 3.7, nothing else of smkit, heavy imports only on use."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import smkit.entrypoint
from smkit.entrypoint import LoadedModel, ScriptError, TrainingScript
from tests.entrypoint.conftest import ENTRYPOINT, Project
from tests.pythons import python_or_skip

ALLOWED_PACKAGES = {"numpy", "pandas", "sklearn", "joblib", "pyarrow"}
MODULES = sorted(ENTRYPOINT.rglob("*.py"))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = """
from smkit.entrypoint import TrainingScript, hyperparameter
from typing import Dict, List, Optional

class Houses(TrainingScript):
    target = "price"

    class Hyperparameters:
        alpha: float = hyperparameter(1.0, min=0)
        needed: int
        layers: List[int] = [1]
        names: Dict[str, "Optional[int]"] = {}
        bare: list = []

    def build_model(self):
        raise RuntimeError("built with %r %r" % (self.hyperparameters, __import__("sys").modules.get("pandas")))

model_fn, input_fn, predict_fn, output_fn = Houses.serving_functions()

if __name__ == "__main__":
    Houses.main()
"""


@pytest.mark.parametrize(
    "path",
    [*MODULES, EXAMPLES / "train.py", EXAMPLES / "blog/train.py", EXAMPLES / "blog/train_plain.py"],
    ids=lambda path: path.name,
)
def test_syntax_is_that_of_python_3_7(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_imports_are_the_standard_library_and_the_images_packages() -> None:
    imported = set()
    for node in (node for module in MODULES for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module))
    own = {name for name in imported if name.startswith("smkit.entrypoint.")}
    outside = {name.partition(".")[0] for name in imported - own} - set(sys.stdlib_module_names)
    assert outside == ALLOWED_PACKAGES


def test_a_pickle_names_the_package_and_not_its_modules() -> None:
    public = [getattr(smkit.entrypoint, name) for name in smkit.entrypoint.__all__ if name != "METRIC_LINE"]
    # A bound method in a model brings the script and its hyperparameters along.
    public += [LoadedModel(None, {}), ScriptError("wrong"), TrainingScript.Hyperparameters()]
    for value in public:
        stored = pickle.dumps(value, protocol=4)
        assert b"smkit.entrypoint" in stored
        assert b"smkit.entrypoint." not in stored
        pickle.loads(stored)


def test_importing_it_loads_no_package(project: Project) -> None:
    code = (
        "import smkit.entrypoint, sys; print([m for m in ('numpy', 'pandas', 'sklearn', 'joblib') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=project.folder, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "version", [(3, 7), (3, 8), (3, 9), sys.version_info[:2]], ids=lambda one: f"{one[0]}.{one[1]}"
)
def test_runs_on_the_standard_library_alone(project: Project, version: tuple[int, int]) -> None:
    python = python_or_skip(version)
    project.write("train.py", SCRIPT)
    shown = project.run("--help", python=python, env={"PYTHONWARNINGS": "error"})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--alpha VALUE" in shown.stdout
    wrong = project.run("--alpha", "abc", python=python, env={"PYTHONWARNINGS": "error"})
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == [
        "train.py: error:",
        "  - channel 'train': required; set SM_CHANNEL_TRAIN or pass --train PATH",
        "  - alpha: expected float, got 'abc' (str)",
        "  - needed: required (int), but not given",
    ]
    env = {
        "SM_HPS": '{"needed": 3.0, "layers": [1, 2], "names": {"a": null}, "bare": [1, "x"]}',
        "SM_CHANNEL_TRAIN": ".",
    }
    built = project.run(python=python, env=env)
    assert built.returncode == 1
    assert "needed=3, layers=[1, 2], names={'a': None}, bare=[1, 'x']) None" in built.stderr
