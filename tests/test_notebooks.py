"""The notebooks of examples/ run from top to bottom, and are stored without what a run leaves in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

import smkit

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.rglob("*.ipynb"))
RUNNER = Path(__file__).with_name("run_notebook.py")


def notebook_id(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """What lies beside the notebooks, in a folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(EXAMPLES / "train.py", folder)
    return folder


def run(name: str, work: Path) -> list[str]:
    """Run a notebook as it stands, in an empty home and with no AWS; return what each code cell showed."""
    home = work.with_name("home")
    home.mkdir()
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "IPYTHON", "JUPYTER_", "XDG_", "SMKIT_"))
    }
    variables |= {
        "HOME": str(home),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nothing listens there
        "AWS_EC2_METADATA_DISABLED": "true",
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    output = work.with_name("run.ipynb")
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(EXAMPLES / name), str(work), str(output)],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    cells = nbformat.read(output, as_version=4).cells
    return ["\n".join(map(shown, cell.outputs)) for cell in cells if cell.cell_type == "code"]


def shown(output: Any) -> str:
    text = output.text if output.output_type == "stream" else output.data["text/plain"]
    return str(text)


def test_the_quickstart_goes_the_whole_path(work: Path) -> None:
    outputs = run("quickstart.ipynb", work)
    assert "cn-northwest-1" in outputs[0]
    assert "diabetes@1" in outputs[2]
    assert "smkit metric test:rmse=5" in outputs[4]
    assert "predicted" in outputs[-1]

    settings = smkit.Settings(root=str(work / ".smkit"))
    models = smkit.ArtifactStore(settings)
    assert [version.hyperparameters for version in models.versions("diabetes")] == [{"alpha": 10.0}, {"alpha": 0.5}]
    errors = {version.version: version.metrics["test:rmse"] for version in models.versions("diabetes")}
    assert models.aliases("diabetes") == {"production": min(errors, key=errors.__getitem__)}
    assert models.get("diabetes@production").datasets == ("diabetes@1",)


def test_on_sagemaker_goes_the_whole_path_in_the_sandbox(work: Path) -> None:
    outputs = run("on_sagemaker.ipynb", work)
    assert outputs[0] == "'s3://smkit-sandbox/smkit'"
    assert outputs[1].startswith("'s3://smkit-sandbox/smkit/datasets/diabetes/")
    assert "test:rmse" in outputs[3]
    assert outputs[5] == "'Completed'"
    assert "diabetes@1" in outputs[6]
    assert "predicted" in outputs[7]
    assert [path.name for path in work.iterdir()] == ["train.py"], "all of it lies in the bucket"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_a_notebook_is_stored_clean(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) + "\n" == text, "store it as nbformat writes it, so that a change shows alone"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}, "the version of who ran it last is nobody's business"
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        assert cell.source == cell.source.strip() != "", cell.id
        assert len(cell.source.splitlines()) <= 12, f"{cell.id} is too long to be read at a glance"
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), f"{cell.id} holds what a run left"


def test_there_are_notebooks() -> None:
    assert [notebook_id(path) for path in NOTEBOOKS] == ["on_sagemaker.ipynb", "quickstart.ipynb"]
