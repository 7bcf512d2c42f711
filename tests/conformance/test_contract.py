"""What the real toolkit gives a script, on inputs that hypothesis makes, is what `smkit.jobs.contract` says."""

from __future__ import annotations

import io
import os
import re
import shlex
import tarfile
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import strategies as st

from smkit.jobs import contract
from tests.conformance.conftest import IMAGE_VARIABLES, Toolkit
from tests.conformance.report import REPORT, report_of
from tests.conformance.strategies import CHANNELS, JSON, NAMES, RESERVED, TEXT, VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

# The Python that is compared is the image's: once is enough.
pytestmark = pytest.mark.slow

#: A run costs a tenth of a second: few examples, the same in every run of the suite, and not hundreds more to find the
#: smallest that fails.
settings = hypothesis.settings(
    max_examples=40,
    derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)

ENTRY_POINTS = ("train.py", "my train.py", "steps/train.py", "go.sh", "steps/go-2.sh")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pack, for each entry point, an archive of a script that reports what it sees."""
    folder = tmp_path_factory.mktemp("archives")
    found = {}
    for number, entry_point in enumerate(ENTRY_POINTS):
        found[entry_point] = folder / f"{number}.tar.gz"
        files = {"report.py": REPORT, entry_point: REPORT}
        if entry_point.endswith(".sh"):
            # Without its bit: the toolkit sets it.
            files[entry_point] = '#!/bin/sh\nexec python report.py "$@"\n'
        with tarfile.open(found[entry_point], "w:gz") as tar:
            for name, text in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
    return found


@settings
@hypothesis.given(
    hyperparameters=st.dictionaries(NAMES, JSON, max_size=6),
    last=st.text("\"'a\\ ", max_size=4),
    reserved=st.dictionaries(RESERVED, JSON, max_size=1),
    raw=st.dictionaries(NAMES, TEXT, max_size=1),
    channels=CHANNELS,
    variables=VARIABLES,
    entry_point=st.sampled_from(ENTRY_POINTS),
)
def test_the_contract_is_the_toolkits(
    toolkit: Toolkit,
    archives: dict[str, Path],
    hyperparameters: dict[str, Any],
    last: str,
    reserved: dict[str, Any],
    raw: dict[str, str],
    channels: list[str],
    variables: dict[str, str],
    entry_point: str,
) -> None:
    config = contract.input_config(
        # Its name sorts last: what the toolkit does with quotes depends on the place.
        hyperparameters | reserved | {"\U0001f601": last},
        channels,
        job_name="job-2026-01-01",
        region="cn-north-1",
        entry_point=entry_point,
        submit_directory=str(toolkit.archive),
        instance_type="ml.m5.large",
    )
    # What another tool sent may be no JSON at all.
    config = contract.InputConfig({**config.hyperparameters, **raw}, config.inputdataconfig, config.resourceconfig)
    container = {
        "PATH": f"{toolkit.python.parent}:/usr/bin:/bin",
        "SAGEMAKER_TRAINING_MODULE": "sagemaker_sklearn_container.training:main",
        "SAGEMAKER_BASE_DIR": str(toolkit.base),
        "TRAINING_JOB_NAME": "job-2026-01-01",
        **IMAGE_VARIABLES,
        **variables,
    }
    answer = toolkit.run(archives[entry_point], config.files(), container)
    assert answer["exit_code"] == 0, answer["log"]
    seen = report_of(answer["log"])

    values = contract.script_hyperparameters(config.hyperparameters)
    command = contract.command(
        "python", entry_point, contract.script_arguments(values), toolkit=toolkit.version, is_package=False
    )
    if entry_point.endswith(".sh"):
        # The shell splits its line into words as POSIX says.
        command = ["python", "report.py", *shlex.split(command[2])[1:]]
    assert seen["argv"] == command[1:]
    expected = {
        **container,
        **contract.environment(str(toolkit.base), config, toolkit=toolkit.version, num_cpus=os.cpu_count() or 1),
    }
    search_path = seen["environment"].pop("PYTHONPATH").split(":")
    assert search_path[0] == f"{toolkit.base}/code"
    if entry_point.endswith(".sh"):
        # The shell's own.
        for name in ("PWD", "OLDPWD", "SHLVL", "_"):
            seen["environment"].pop(name, None)
            expected.pop(name, None)
        # Some shells drop the variables whose names they could not write.
        kept = {
            name for name in expected if name in seen["environment"] or re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)
        }
        expected = {name: expected[name] for name in kept}
    assert seen["environment"] == expected
    assert seen["cwd"] == f"{toolkit.base}/code"
