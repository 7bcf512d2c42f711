"""Every complete train.py in the page, and every example, runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes

from smkit.entrypoint import TrainingScript

if TYPE_CHECKING:
    from tests.entrypoint.conftest import Project

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/training-script.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r'```python title="train\.py"\n(.*?)```', PAGE, re.DOTALL)


def test_the_page_has_complete_scripts() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("source", BLOCKS)
def test_a_script_of_the_page(project: Project, source: str) -> None:
    project.write("train.py", source)
    frame = pd.DataFrame({"rooms": range(1, 31), "area": [n * 20.5 for n in range(30)]})
    frame["price"] = frame.rooms * 3.0 + frame.area
    for name, part in {"train": frame[:20], "test": frame[20:]}.items():
        (project.folder / name).mkdir()
        part.to_csv(project.folder / name / "part.csv", index=False)
    result = project.run("--train", "train", "--test", "test")
    assert (result.returncode, result.stderr) == (0, "")
    assert "test:rmse" in json.loads((project.model / "metrics.json").read_text())
    wrong = project.run("--train", "train", "--alhpa", "1")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_the_table_names_every_public_method() -> None:
    rows = set(re.findall(r"^\| `(\w+)[(`]", PAGE.partition("## What to override")[2], re.MULTILINE))
    public = {name for name in vars(TrainingScript) if not name.startswith("_")}
    assert public - rows == {"log_metric", "main", "serving_functions"}


def test_the_quickstarts_script(project: Project) -> None:
    project.write("train.py", (ROOT / "examples/train.py").read_text(encoding="utf-8"))
    load_diabetes(as_frame=True).frame.to_parquet(project.folder / "data.parquet")
    result = project.run("--train", "data.parquet", "--alpha", "0.5")
    assert (result.returncode, result.stderr) == (0, "")
    assert joblib.load(project.model / "model.joblib")[-1].alpha == 0.5


def test_the_blogs_scripts_agree(project: Project) -> None:
    frame = pd.DataFrame({"X1": [1.0, 2.0, 3.0, 5.0], "X2": [0.5, 0.1, 0.9, 0.3], "y": [1.0, 2.5, 2.0, 4.0]})
    (project.folder / "train").mkdir()
    frame.to_csv(project.folder / "train/train.csv", index=False)
    design = np.column_stack([np.ones(4), frame.X1, frame.X2])
    solution = np.linalg.lstsq(design, frame.y, rcond=None)[0]
    expected = float(np.mean((frame.y - design @ solution) ** 2))
    for name in ("train_plain.py", "train.py"):
        project.write("train.py", (ROOT / "examples/blog" / name).read_text(encoding="utf-8"))
        project.model.mkdir(exist_ok=True)
        result = project.run("--train", "train", "--model-dir", "model")
        assert (result.returncode, result.stderr) == (0, "")
        assert joblib.load(project.model / "model.joblib").coef_ == pytest.approx(solution[1:])
        mse = float(re.findall(r"(?:squared error: |train:mse=)(\S+)", result.stdout)[0])
        assert mse == pytest.approx(expected)
