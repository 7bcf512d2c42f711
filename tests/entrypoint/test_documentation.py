"""Every complete train.py in the page, and every example, runs."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
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


def run(folder: Path, source: str, *argv: str) -> None:
    """Run the source as `python train.py` does, in this process."""
    (folder / "train.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *argv])
        runpy.run_path(str(folder / "train.py"), run_name="__main__")


def test_the_page_has_complete_scripts() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("source", BLOCKS)
def test_a_script_of_the_page(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"rooms": range(1, 31), "area": [n * 20.5 for n in range(30)]})
    frame["price"] = frame.rooms * 3.0 + frame.area
    for name, part in {"train": frame[:20], "test": frame[20:]}.items():
        (tmp_path / name).mkdir()
        part.to_csv(tmp_path / name / "part.csv", index=False)
    run(tmp_path, source, "--train", "train", "--test", "test")
    assert capsys.readouterr().err == ""
    assert "test:rmse" in json.loads((tmp_path / "model/metrics.json").read_text())
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, source, "--train", "train", "--alhpa", "1")
    assert (stopped.value.code, capsys.readouterr().out) == (2, "")


def test_the_table_names_every_public_method() -> None:
    rows = set(re.findall(r"^\| `(\w+)[(`]", PAGE.partition("## Which methods to override")[2], re.MULTILINE))
    public = {name for name in vars(TrainingScript) if not name.startswith("_")}
    assert public - rows == {"log_metric", "main", "serving_functions"}


def test_the_quickstarts_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_diabetes(as_frame=True).frame.to_parquet(tmp_path / "data.parquet")
    source = (ROOT / "examples/train.py").read_text(encoding="utf-8")
    run(tmp_path, source, "--train", "data.parquet", "--alpha", "0.5")
    assert capsys.readouterr().err == ""
    assert joblib.load(tmp_path / "model/model.joblib")[-1].alpha == 0.5


def test_the_blogs_scripts_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"X1": [1.0, 2.0, 3.0, 5.0], "X2": [0.5, 0.1, 0.9, 0.3], "y": [1.0, 2.5, 2.0, 4.0]})
    (tmp_path / "train").mkdir()
    frame.to_csv(tmp_path / "train/train.csv", index=False)
    design = np.column_stack([np.ones(4), frame.X1, frame.X2])
    solution = np.linalg.lstsq(design, frame.y, rcond=None)[0]
    expected = float(np.mean((frame.y - design @ solution) ** 2))
    for name in ("train_plain.py", "train.py"):
        model = tmp_path / f"model of {name}"
        model.mkdir()
        source = (ROOT / "examples/blog" / name).read_text(encoding="utf-8")
        run(tmp_path, source, "--train", "train", "--model-dir", str(model))
        printed = capsys.readouterr()
        assert printed.err == ""
        assert joblib.load(model / "model.joblib").coef_ == pytest.approx(solution[1:])
        mse = float(re.findall(r"(?:squared error: |train:mse=)(\S+)", printed.out)[0])
        assert mse == pytest.approx(expected)


def test_the_plain_script_names_the_arguments_that_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (ROOT / "examples/blog/train_plain.py").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, source)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("error: the following arguments are required: --train, --model-dir\n")


def test_a_model_of_a_helper_module_loads_as_the_page_says(
    tmp_path: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write(
        "cleaning.py",
        "from sklearn.linear_model import Ridge\n\nclass Careful(Ridge):\n    pass\n",
    )
    project.write(
        "train.py",
        "from smkit.entrypoint import TrainingScript\nfrom cleaning import Careful\n\n"
        "class Script(TrainingScript):\n    target = 'y'\n    def build_model(self):\n        return Careful()\n\n"
        "if __name__ == '__main__':\n    Script.main()\n",
    )
    project.write("a.csv", "x,y\n1,2\n2,3\n")
    trained = project.run("--train", "a.csv")
    assert (trained.returncode, trained.stderr) == (0, "")
    load = "import joblib; print(type(joblib.load(sys.argv[1])).__name__)"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = []
    for first in ("import sys; ", f"import sys; sys.path.insert(0, {str(project.folder)!r}); "):
        result = subprocess.run(
            [sys.executable, "-c", first + load, str(project.model / "model.joblib")],
            cwd=elsewhere, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found.append(result.stdout.strip() or result.stderr.splitlines()[-1])
    assert found == ["ModuleNotFoundError: No module named 'cleaning'", "Careful"]
