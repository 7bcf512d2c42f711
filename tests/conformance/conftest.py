"""The real toolkits, each a process of its own for the whole run, and what a job under them looked like."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smkit.jobs.layers import Layer, interpreter_of
from tests.parity import parity_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DRIVER = Path(__file__).with_name("driver.py")
#: framework_version of an image -> its toolkit.
TOOLKITS = {"0.23-1": "4.0.1", "1.2-1": "4.8.0"}
#: What the images set; a job's own `Environment` comes over it, as in any container.
IMAGE_VARIABLES = {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


class Toolkit:
    """The real toolkit of one image.

    Args:
        framework_version: Tag of the image.
        python: The Python that has the toolkit.
        folder: An empty folder, for `ml`, which stands for `/opt/ml`, and the archive of the code.
    """

    def __init__(self, framework_version: str, python: Path, folder: Path) -> None:
        self.framework_version = framework_version
        self.version = TOOLKITS[framework_version]
        self.python = python
        self.base = folder / "ml"
        self.archive = folder / "sourcedir.tar.gz"
        self._errors = (folder / "driver.log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [python, DRIVER, self.base],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env={"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(folder), **IMAGE_VARIABLES},
        )

    def run(
        self,
        archive: Path,
        input_config: Mapping[str, Any],
        environment: Mapping[str, str],
        channels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run a job; see `driver.py`."""
        job = {
            "archive": str(archive),
            "input_config": input_config,
            "environment": dict(environment),
            "channels": dict.fromkeys(input_config["inputdataconfig.json"], "a\n1\n") if channels is None else channels,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise AssertionError(f"the driver of the toolkit ended: {self._errors.read()}")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._errors.close()


@pytest.fixture(scope="session", params=TOOLKITS, ids=lambda version: f"toolkit-{TOOLKITS[version]}")
def toolkit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolkit]:
    """Start the toolkit of each image whose Python is on this machine."""
    environment = parity_environment(f"{request.param}[toolkits]")
    folder = tmp_path_factory.mktemp("toolkit")
    facts = environment.built
    assert facts is not None
    # The toolkit installs into the environment that it runs in, and this one is everybody's.
    layer = Layer(folder / "environment", interpreter_of(environment.folder, environment.python_version, facts.base))
    layer.make()
    toolkit = Toolkit(request.param, layer.python, folder)
    yield toolkit
    toolkit.close()
