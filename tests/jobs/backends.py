"""What the tests of backends share."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from smkit.jobs import JobSpec, TrainingJob
from smkit.jobs.backend import Watching
from smkit.jobs.channels import as_channels

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.config import Settings
    from smkit.jobs.backend import Backend

SAVE_MODEL = "import os\nopen(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w').write('m')\n"
#: The sandbox is quicker than AWS.
QUICK = Watching(0.05, 0.1, quick_for=1.0, settling=0.2, last_line="Reporting training SUCCESS", announces_phases=True)


class Jobs:
    """Starts jobs on one backend.

    Args:
        backend: The backend.
        settings: Its settings.
        folder: Where scripts are written.
    """

    def __init__(self, backend: Backend[Any], settings: Settings, folder: Path) -> None:
        self.backend = backend
        self.settings = settings
        self.folder = folder

    def script(self, text: str, name: str = "train.py") -> str:
        path = self.folder / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(path)

    def spec(self, code: str, name: str, inputs: Any = None, **options: Any) -> JobSpec:
        channels = as_channels(inputs, lambda: self.settings.client("s3"))
        return JobSpec(**{"name": name, "entry_point": self.script(code), "channels": channels} | options)

    def start(self, code: str, name: str, inputs: Any = None, **options: Any) -> TrainingJob:
        self.backend.submit(self.backend.prepare(self.spec(code, name, inputs, **options)))
        return TrainingJob(name, self.backend)

    def run(self, code: str, name: str, inputs: Any = None, **options: Any) -> TrainingJob:
        return self.start(code, name, inputs, **options).wait(logs=False)


def script_lines(job: TrainingJob) -> list[str]:
    """Return the log without what smkit and SageMaker's toolkit put around it."""
    lines = [line for line in job.logs() if not line.startswith("smkit: this job runs under ")]
    start = next((n + 2 for n, line in enumerate(lines) if "train.py" in line and "python" in line.lower()), 0)
    while start and start < len(lines) and not lines[start].strip():
        start += 1
    return [line for line in lines[start:] if "sagemaker-containers" not in line]
