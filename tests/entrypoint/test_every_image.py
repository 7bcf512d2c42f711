"""The template under the Python and the packages of every AWS image: each test of `suite_for_images.py` by itself."""

from __future__ import annotations

import ast
import datetime as dt
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from smkit import DatasetBuilder, FrameSource, Settings
from smkit.jobs.containers import known_versions
from tests.entrypoint.conftest import Project
from tests.parity import parity_environment

# They run under the images' Pythons: once is enough.
pytestmark = pytest.mark.slow

SUITE = Path(__file__).with_name("suite_for_images.py")
if TYPE_CHECKING:
    from collections.abc import Mapping


def names_of_tests() -> list[str]:
    """Return `<class>.<test>` of every test of the suite, which this Python need not be able to import."""
    suite = ast.parse(SUITE.read_text(encoding="utf-8"), feature_version=(3, 7))
    classes = [node for node in suite.body if isinstance(node, ast.ClassDef)]
    return [
        f"{each.name}.{node.name}"
        for each in classes
        for node in each.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


class Datasets(NamedTuple):
    """Datasets that smkit wrote.

    Args:
        folder: Holds a folder for each format.
        expected: A JSON file of their content: column -> values.
    """

    folder: Path
    expected: Path


def everything(rows: int = 2000) -> pd.DataFrame:
    """Return a frame of the types that a dataset can have, each with its extremes."""
    random = np.random.default_rng(0)
    when = pd.date_range("1999-12-31 23:59:59.123456", periods=rows, freq="7h")
    return pd.DataFrame(
        {
            "integer": [*random.integers(-(2**63), 2**63 - 1, rows - 2), -(2**63), 2**63 - 1],
            "big": pd.Series([*range(rows - 1), 2**64 - 1], dtype="uint64"),
            "small": pd.Series(random.integers(-128, 127, rows), dtype="int8"),
            "real": random.standard_normal(rows) * 10.0 ** random.integers(-30, 30, rows),
            "gaps": [None if number % 7 == 0 else number / 3 for number in range(rows)],
            "on": [number % 3 == 0 for number in range(rows)],
            "text": [f'ż☕\U0001f600 {number} "quoted", it\'s\n' for number in range(rows)],
            "many": ["same", "again", "é"] * (rows // 3) + ["same"] * (rows % 3),
            "when": when,
            "there": when.tz_localize("UTC"),
            "day": [dt.date(2026, 1, 1) + dt.timedelta(number) for number in range(rows)],
            "whole": pd.array([None if number % 5 == 0 else number for number in range(rows)], dtype="Int64"),
        }
    )


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Datasets:
    """Write one frame as a dataset of each format."""
    folder = tmp_path_factory.mktemp("datasets")
    frame = everything()
    settings = Settings(root=str(folder / "store"))
    for number, form in enumerate(("parquet", "csv")):
        source = FrameSource(frame)
        dataset = DatasetBuilder(f"everything-{number}", source, settings=settings).build(format=form, progress=False)  # type: ignore[arg-type]
        dataset["train"].download(folder / form)
    (folder / "expected.json").write_text(json.dumps({name: list(map(_plain, frame[name])) for name in frame}))
    return Datasets(folder, folder / "expected.json")


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, dt.date):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


@pytest.fixture(scope="session", params=known_versions())
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, datasets: Datasets
) -> Mapping[str, tuple[str, str]]:
    """Run the suite under an image, once however many processes test: test -> outcome and traceback."""
    environment = parity_environment(request.param)
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    stored = shared / f"image-{request.param}.jsonl"
    with stored.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stored.exists():
            text = run_suite(environment.python, tmp_path_factory.mktemp("image"), datasets)
            stored.write_text(text, encoding="utf-8")
    lines = [json.loads(line) for line in stored.read_text(encoding="utf-8").splitlines()]
    return {name: (outcome, text) for name, outcome, text in lines}


def run_suite(python: Path, folder: Path, datasets: Datasets) -> str:
    """Run the suite in a folder as a job has it, and return what it printed."""
    project = Project(folder)
    shutil.copy(SUITE, folder)
    done = subprocess.run(
        [python, SUITE.name, datasets.folder, datasets.expected],
        cwd=project.folder,
        env={"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", names_of_tests())
def test_template(results: Mapping[str, tuple[str, str]], name: str) -> None:
    outcome, text = results[name]
    assert outcome == "passed", text


def test_the_suite_is_whole(results: Mapping[str, tuple[str, str]]) -> None:
    assert sorted(results) == sorted(names_of_tests())
