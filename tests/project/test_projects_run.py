"""New projects at work: `smkit init` and what a user does next, in an empty home and without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

import smkit
from smkit.cli.dataset_script import build_dataset
from smkit.project import create

if TYPE_CHECKING:
    from tests.fixtures_postgres import Postgres

RUNNER = Path(__file__).parents[1] / "run_notebook.py"

#: Python imports it at its start, in each process below.
SITE = """
import sys

def refuse(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise ConnectionRefusedError(f"the network is closed: {address}")
    if event == "socket.getaddrinfo" and arguments[0] not in {"127.0.0.1", "::1", "localhost", "0.0.0.0", "", None}:
        raise ConnectionRefusedError(f"the network is closed: {arguments[0]}")

sys.addaudithook(refuse)
# As after `pip install -e ".[test]"` of the project, which does not bring the SageMaker SDK.
sys.modules["sagemaker"] = None
"""


class Shell:
    """Runs this Python in a folder, with an empty home, no settings of this machine and no network."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "房价 2026"
        self.folder.mkdir()
        (base / "home").mkdir()
        (base / "site").mkdir()
        (base / "site" / "sitecustomize.py").write_text(SITE)
        hidden = ("AWS_", "COV_", "IPYTHON", "JUPYTER_", "PYTEST_", "SMKIT_", "XDG_")
        self.variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        path = [str(base / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.variables |= {
            "HOME": str(base / "home"),
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUTF8": "1",
            "JUPYTER_PLATFORM_DIRS": "1",
            # A project needs none of the plugins that this machine has.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell in a folder that `smkit init` has made a project of."""
    made = Shell(tmp_path_factory.mktemp("project"))
    done = made.python("-m", "smkit", "init")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"smkit: the project '2026' of region cn-northwest-1 is in {made.folder}",
        "smkit: next: smkit run",
    ]
    return made


def test_the_network_is_closed(shell: Shell) -> None:
    for call in ("create_connection(('192.0.2.1', 80), 1)", "getaddrinfo('example.com', 80)"):
        assert "the network is closed" in shell.python("-c", f"import socket; socket.{call}").stderr


def test_a_new_project_trains_at_once(shell: Shell) -> None:
    done = shell.python("-m", "smkit", "run", "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["status"], job["metrics"]["test:r2"] > 0.9) == ("Completed", True)
    settings = smkit.Settings(root=str(shell.folder / ".smkit"))
    dataset = smkit.DatasetStore(settings).get("houses@1")
    assert sum(dataset.rows.values()) == 297, "three of the 300 houses have no price"


def test_a_new_project_passes_its_tests(shell: Shell) -> None:
    done = shell.python("-m", "pytest", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b3 passed\b", done.stdout), done.stdout


def test_the_notebook_of_a_new_project_goes_the_whole_path(shell: Shell, tmp_path: Path) -> None:
    output = tmp_path / "run.ipynb"
    done = shell.python(str(RUNNER), str(shell.folder / "notebook.ipynb"), str(shell.folder), str(output))
    assert done.returncode == 0, done.stderr
    last = nbformat.read(output, as_version=4).cells[-1]
    assert "predicted" in last.outputs[0].data["text/plain"]
    models = smkit.ArtifactStore(smkit.Settings(root=str(shell.folder / ".smkit")))
    assert models.aliases("houses") == {"production": 1}
    assert models.get("houses@production").datasets == ("houses@1",)


def test_rows_may_come_from_s3(tmp_path: Path, aws_env: str, bucket: str) -> None:
    project = create(tmp_path, source="s3")
    settings = smkit.Settings(bucket=bucket, project="shop")
    settings.client("s3").upload_file(str(project.folder / "data/houses.csv"), bucket, "shop/raw/houses/houses.csv")
    dataset = build_dataset(project.folder / "dataset.py", settings)
    assert (dataset.ref, sum(dataset.rows.values())) == ("houses@1", 297)


def test_rows_from_s3_need_a_bucket(tmp_path: Path) -> None:
    create(tmp_path, source="s3")
    with pytest.raises(smkit.errors.ConfigError, match=r"set `bucket` in smkit\.toml"):
        build_dataset(tmp_path / "dataset.py", smkit.Settings())


def test_rows_may_come_from_postgres(tmp_path: Path, pg: Postgres, pg_schema: str) -> None:
    create(tmp_path, source="postgres")
    script = tmp_path / "dataset.py"
    # The table of a user lies in a schema that the connection looks into.
    script.write_text(script.read_text(encoding="utf-8").replace("FROM houses", f"FROM {pg_schema}.houses"))
    pg.run(f"CREATE TABLE {pg_schema}.houses (house_id int, size float8, rooms int, age int, price numeric)")
    pg.run(f"INSERT INTO {pg_schema}.houses SELECT g, 50 + g, 3, g, 1000 * g FROM generate_series(1, 99) g")
    pg.run(f"INSERT INTO {pg_schema}.houses VALUES (100, 80, 3, 101, 5), (101, 80, 3, 10, NULL)")
    dataset = build_dataset(script, pg.settings())
    assert (dataset.ref, sum(dataset.rows.values())) == ("houses@1", 99)
