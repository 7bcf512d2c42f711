"""What the tests of the checks share: a check of real code folders."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from smkit.config import Settings
from smkit.jobs.channels import as_channels
from smkit.jobs.checks import CheckReport, check_job
from smkit.jobs.options import SageMakerOptions
from smkit.jobs.spec import JobSpec
from smkit.jobs.staging import StagedCode, stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Project:
    """A code folder in the making."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "src"
        self.folder.mkdir()

    def write(self, path: str, text: str = "") -> Project:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), encoding="utf-8")
        return self

    def spec(
        self,
        entry_point: str = "train.py",
        *,
        inputs: Any = None,
        sagemaker: Mapping[str, Any] | None = None,
        alone: bool = False,
        settings: Settings | None = None,
        **values: Any,
    ) -> JobSpec:
        given = settings or Settings()
        return JobSpec(
            name=values.pop("name", "job"),
            entry_point=str(self.folder / entry_point) if alone else entry_point,
            source_dir=None if alone else self.folder,
            channels=as_channels(inputs, lambda: given.client("s3")),
            sagemaker=SageMakerOptions(**(sagemaker or {})),
            **values,
        )

    def check(self, train: str | None = None, *, settings: Settings | None = None, **values: Any) -> CheckReport:
        """Check the project as a job of this machine; `train` is written to train.py first."""
        if train is not None:
            self.write("train.py", train)
        spec = self.spec(settings=settings, **values)
        return check_job(spec, settings or Settings(), stage(spec), backend="local")

    def code_report(self, train: str | None = None, **values: Any) -> list[str]:
        """Check the code alone as a job of SageMaker, and return `level subject: what; fix` of each finding."""
        from smkit.jobs.checks.job import _check_in_image
        from smkit.jobs.checks.requirements import read_requirements

        if train is not None:
            self.write("train.py", train)
        spec = self.spec(**values)
        code: StagedCode = stage(spec)
        found = _check_in_image(spec, code, read_requirements(code.files, here=False), here=False)
        return [f"{item.level} {item}" for item in found if item.subject != "scikit-learn"]
