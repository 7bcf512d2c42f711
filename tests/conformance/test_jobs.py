"""Whole jobs: on this machine by `JobRunner`, and under the real toolkit, from the same code, inputs and variables.

Everything that a script and its user can see is compared. `DIFFERENCES` is the one list of what is meant to differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from smkit.config import Settings
from smkit.errors import ConfigError, TrainingFailed
from smkit.jobs import JobRunner
from tests.conformance.conftest import IMAGE_VARIABLES, Toolkit
from tests.conformance.report import REPORT, report_of
from tests.conformance.strategies import CHANNEL, JSON, NAMES, TEXT, VARIABLES
from tests.parity import parity_cache

if TYPE_CHECKING:
    from collections.abc import Mapping

# Both sides run under the image's Python: once is enough.
pytestmark = pytest.mark.slow

REGION, INSTANCE = "cn-north-1", "ml.m5.large"
OWN_LIBRARIES = "/own/lib:relative/lib"


class Difference(NamedTuple):
    """Something that is meant to differ.

    Args:
        where: Regex of the facts, as `facts_of` names them.
        reason: Why, and who says so.
    """

    where: str
    reason: str


DIFFERENCES = {
    "code's origin": Difference(
        r"environment SM_MODULE_DIR|environment SM_TRAINING_ENV module_dir"
        r"|content input/config/hyperparameters.json sagemaker_submit_directory",
        "docs/jobs.md: a folder, there an s3:// URI. The toolkit of this test takes smkit's sourcedir.tar.gz from it",
    ),
    "image's module": Difference(
        "environment SAGEMAKER_TRAINING_MODULE",
        "tells the image's `train` which module of its own to call; here is no such module, and no script needs it",
    ),
    "test's base": Difference(
        "environment SAGEMAKER_BASE_DIR", "this test's: tells the toolkit which folder stands for /opt/ml"
    ),
    "search path of programs": Difference(
        "environment PATH", "the image's is its own; here the job's Python comes first in the caller's"
    ),
    "inputs are deleted": Difference(
        "after input/data(/.*)?",
        "docs/jobs.md: when a job ends, its copies of the inputs are deleted; AWS drops the disk",
    ),
    "failure's text": Difference(
        "content output/failure",
        "rule 12 of the contract: the image writes its own traceback, whose useful tail FailureReason cuts off; here "
        "it is one sentence. The exit code that both say, and the script's own traceback in the log, are compared",
    ),
    "no model is a failure": Difference(
        "succeeded|(after|content) output/(success|failure)|exit code in the failure's text",
        "docs/jobs.md: a script that saves no model fails; there it completes, without a model",
    ),
}
OF_EVERY_JOB = {"code's origin", "inputs are deleted"}
OF_EVERY_SCRIPT = {"image's module", "test's base", "search path of programs"}


@dataclass(frozen=True)
class Case:
    """One job.

    Args:
        files: The code: path -> text; `{report}` stands for the script that reports what it sees.
        entry_point: The script.
        inputs: Channel -> content of its one file.
        hyperparameters: Name -> value.
        variables: The job's own `Environment`.
        differences: Which of `DIFFERENCES` must show, beside those that always do.
        starts: Whether the script is started at all.
    """

    files: Mapping[str, str]
    entry_point: str = "train.py"
    inputs: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    differences: frozenset[str] = frozenset()
    starts: bool = True


MODEL = REPORT + "open(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w').write('a model')\n"
OUTPUT = "open(os.path.join(os.environ['SM_OUTPUT_DATA_DIR'], 'plot.txt'), 'w').write('a plot')\n"
#: Of the script, not of the toolkit, whose frames are those of packages.
SCRIPTS_TRACEBACK = re.compile(
    r'^Traceback \(most recent call last\):\n  File "(?:.*/code/)?train\.py".*\n(?:  .*\n)*\w.*$', re.MULTILINE
)
FAILS = frozenset({"failure's text"})
VALUES = {
    "n-estimators": 100, "k": 7, "none": None, "flag": True, "empty": "", "CamelCase": "x", "tiny": 1e-07, "ż": "☕",
    "nested": {"b": 1, "a": {"x": [1, None]}}, "list": [1, "two", 3.0], "spa ce": "a\nb", "zz": '"q"',
    "model_dir": "s3://bucket/prefix",
}  # fmt: skip
SETUP = "from setuptools import setup\nsetup(name='own', version='1.0', py_modules=['train', 'own_module'])\n"
CASES = {
    "values and channels": Case(
        {"train.py": MODEL + OUTPUT},
        inputs={"train": "a\n1\n", "test-data": "a\n2\n", "Val_idation": "a\n3\n"},
        hyperparameters=VALUES,
    ),
    "the job's own variables": Case(
        {"train.py": MODEL},
        variables={
            "FOO": "bar",
            "SM_FOO": "bar",
            "SM_MODEL_DIR": "/nowhere",
            "SM_HP_A": "0",
            "PYTHONUNBUFFERED": "",
            "LC_ALL": "C",
            "PYTHONPATH": OWN_LIBRARIES,
        },
        hyperparameters={"a": 1},
    ),
    "a script in a folder, and requirements": Case(
        {
            "steps/train.py": "import sys\nsys.path.insert(0, '')\nimport beside\n" + MODEL,
            "beside.py": "",
            "requirements.txt": "# nothing\n",
        },
        entry_point="steps/train.py",
    ),
    "a shell script": Case(
        {
            "steps/go.sh": '#!/bin/sh\nexec python report.py "$@"\n',
            "report.py": MODEL,
            "requirements.txt": "nonsense\n",
        },
        entry_point="steps/go.sh",
        hyperparameters={"a": 'it\'s "$HOME" `id`', "zz": '"'},
    ),
    "a package": Case(
        {"train.py": MODEL + "import own_module\n", "own_module.py": "", "setup.py": SETUP},
        hyperparameters={"zz": '""q""'},
    ),
    "requirements that are installed": Case(
        {
            "train.py": MODEL + "import own_module\nassert 'code' not in own_module.__file__.split(os.sep)\n",
            "requirements.txt": "./own\n",
            "own/own_module.py": "",
            "own/setup.py": SETUP.replace("'train', ", ""),
        }
    ),
    "requirements that cannot be installed": Case(
        {"train.py": MODEL, "requirements.txt": "./missing\n"}, differences=FAILS, starts=False
    ),
    "a script that exits": Case({"train.py": MODEL + OUTPUT + "raise SystemExit(3)\n"}, differences=FAILS),
    "a script that raises": Case(
        {"train.py": REPORT + "raise ValueError('wrong data')\n"},
        inputs={"train": "a\n1\n"},
        differences=FAILS,
    ),
    "a script that is killed": Case(
        {"train.py": REPORT + "import signal\nos.kill(os.getpid(), signal.SIGKILL)\n"}, differences=FAILS
    ),
    "a shell script that fails": Case(
        {"go.sh": "#!/bin/sh\npython report.py; exit 7\n", "report.py": MODEL},
        entry_point="go.sh",
        differences=FAILS,
    ),
    "a script that writes its own failure": Case(
        {
            "train.py": MODEL
            + "open(os.path.join(os.environ['SM_OUTPUT_DIR'], 'failure'), 'w').write('mine')\nexit(1)\n"
        },
        differences=FAILS,
    ),
    "a script that saves nothing": Case({"train.py": REPORT}, differences=frozenset({"no model is a failure"})),
}


class Ended(NamedTuple):
    """How a job ended.

    Args:
        log: Its log.
        base: The folder that stood for `/opt/ml`.
        files: Below the base, in the end: path -> text, None for a folder.
        succeeded: Whether it completed.
        exit_code: The script's.
    """

    log: str
    base: str
    files: Mapping[str, str | None]
    succeeded: bool
    exit_code: int


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Leave few variables, which a job here inherits; return them, for a container that has the same."""
    for name in os.environ:
        monkeypatch.delenv(name)
    few = {"PATH": os.defpath, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(parity_cache())}
    for name, value in few.items():
        monkeypatch.setenv(name, value)
    return few


@pytest.mark.parametrize("name", CASES)
def test_a_job_is_what_it_is_under_the_toolkit(
    toolkit: Toolkit, machine: dict[str, str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set after the fixtures were.
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    ours = compare(CASES[name], toolkit, machine, tmp_path)
    assert ("raises" in name) == bool(ours["script's own traceback"])


#: A job costs most of a second: few examples, the same in every run of the suite, and none to find a smaller one.
@hypothesis.settings(
    max_examples=20,
    derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(
    hyperparameters=st.dictionaries(NAMES, JSON, min_size=2, max_size=6),
    inputs=st.dictionaries(CHANNEL, TEXT, max_size=3),
    variables=VARIABLES,
    entry_point=st.sampled_from(["train.py", "my train.py", "steps/train.py", "go.sh"]),
)
def test_any_job_is_what_it_is_under_the_toolkit(
    toolkit: Toolkit,
    machine: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hyperparameters: dict[str, Any],
    inputs: dict[str, str],
    variables: dict[str, str],
    entry_point: str,
) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    script = '#!/bin/sh\nexec python report.py "$@"\n' if entry_point.endswith(".sh") else MODEL
    case = Case({entry_point: script, "report.py": MODEL}, entry_point, inputs, hyperparameters, variables)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    try:
        compare(case, toolkit, machine, folder)
    except ConfigError:
        # What smkit refuses is what SageMaker refuses, or could not keep: tests of the checks say so.
        hypothesis.reject()


def compare(case: Case, toolkit: Toolkit, machine: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Run a job on both sides, and compare all but what is meant to differ; return the facts of this machine."""
    for path, text in case.files.items():
        (folder / "code" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "code" / path).write_text(text, encoding="utf-8")
    here, job_folder = run_here(case, toolkit, folder)
    there = run_there(case, toolkit, machine, job_folder)
    ours, theirs = facts_of(here, case), facts_of(there, case)
    wrong = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    shown = {
        label for label, difference in DIFFERENCES.items() if any(re.fullmatch(difference.where, key) for key in wrong)
    }
    expected = OF_EVERY_JOB | case.differences | (OF_EVERY_SCRIPT if case.starts else set())
    assert shown >= expected
    allowed = "|".join(DIFFERENCES[label].where for label in expected)
    assert {key: (ours.get(key), theirs.get(key)) for key in wrong if not re.fullmatch(allowed, key)} == {}
    return ours


def run_here(case: Case, toolkit: Toolkit, folder: Path) -> tuple[Ended, Path]:
    """Run a job by smkit, in the environment of the toolkit's image."""
    inputs = {}
    for channel, text in case.inputs.items():
        inputs[channel] = folder / "data" / channel / "data.csv"
        inputs[channel].parent.mkdir(parents=True)
        inputs[channel].write_text(text, encoding="utf-8")
    settings = Settings(root=str(folder / "store"), region=REGION, instance_type=INSTANCE)
    runner = JobRunner(settings, environment=f"{toolkit.framework_version}[toolkits]")
    job = runner.submit(
        case.entry_point,
        inputs,
        source_dir=folder / "code",
        hyperparameters=case.hyperparameters,
        job_name="conformance",
        environment=case.variables,
    )
    with contextlib.suppress(TrainingFailed):
        job.wait(logs=False)
    job_folder = folder / "store" / "jobs" / "conformance"
    base = job_folder / "ml"
    files = {
        path.relative_to(base).as_posix(): path.read_text(encoding="utf-8") if path.is_file() else None
        for path in base.rglob("*")
    }
    for archive, place in (("model.tar.gz", "model"), ("output.tar.gz", "output/data")):
        if (job_folder / "output" / archive).exists():
            with tarfile.open(job_folder / "output" / archive) as tar:
                files |= {f"{place}/{member.name}": tar.extractfile(member).read().decode() for member in tar}  # type: ignore[union-attr]
    if job.status == "Completed":
        files |= dict.fromkeys(("model", "output/data"))
    record = json.loads((job_folder / "run.json").read_text(encoding="utf-8"))
    log = (job_folder / "job.log").read_text(encoding="utf-8")
    return Ended(log, str(base), files, job.status == "Completed", record["exit_code"]), job_folder


def run_there(case: Case, toolkit: Toolkit, machine: Mapping[str, str], job_folder: Path) -> Ended:
    """Run the same job under the real toolkit, as the platform would start it."""
    encoded = {name: json.dumps(value) for name, value in case.hyperparameters.items()}
    encoded |= {
        "sagemaker_program": json.dumps(case.entry_point),
        "sagemaker_submit_directory": json.dumps(str(toolkit.archive)),
        "sagemaker_container_log_level": "20",
        "sagemaker_job_name": '"conformance"',
        "sagemaker_region": json.dumps(REGION),
    }
    group = {"instance_group_name": "homogeneousCluster", "instance_type": INSTANCE, "hosts": ["algo-1"]}
    delivered = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    answer = toolkit.run(
        job_folder / "source" / "sourcedir.tar.gz",
        {
            "hyperparameters.json": encoded,
            "inputdataconfig.json": dict.fromkeys(case.inputs, delivered),
            "resourceconfig.json": {
                "current_host": "algo-1",
                "current_instance_type": INSTANCE,
                "current_group_name": "homogeneousCluster",
                "hosts": ["algo-1"],
                "instance_groups": [group],
                "network_interface_name": "eth0",
            },
        },
        {
            **machine,
            "PATH": f"{toolkit.python.parent}:{machine['PATH']}",
            **IMAGE_VARIABLES,
            "TRAINING_JOB_NAME": "conformance",
            "SAGEMAKER_TRAINING_MODULE": "sagemaker_sklearn_container.training:main",
            **case.variables,
        },
        case.inputs,
    )
    files = answer["files"]
    succeeded = answer["exit_code"] == 0
    found = re.search(r"^ExitCode (-?\d+)$", files.get("output/failure") or "", re.MULTILINE)
    assert succeeded == (found is None), answer["log"]
    return Ended(answer["log"], str(toolkit.base), files, succeeded, int(found[1]) if found else 0)


def told_exit_code(failure: str | None) -> int | None:
    """Return the exit code that a failure's text tells, in the toolkit's words or in smkit's."""
    if failure is None:
        return None
    found = re.search(
        r"^ExitCode (-?\d+)$|^the script exited with code (\d+)|\(exit code (\d+)\)", failure, re.MULTILINE
    )
    if found is not None:
        return int(next(filter(None, found.groups())))
    killed = re.match(r"the script was killed by (SIG[A-Z]+)", failure)
    return None if killed is None else -signal.Signals[killed[1]]


def facts_seen(report: dict[str, Any], case: Case) -> dict[str, Any]:
    """Return what the script saw."""
    variables = report["environment"]
    own = case.variables.get("PYTHONPATH", "").split(":")
    # The toolkit hands on its interpreter's whole search path, which every interpreter has without being told.
    search_path = [
        entry for entry in variables.pop("PYTHONPATH").split(":") if entry.startswith("{base}") or entry in own
    ]
    facts = {"argv": report["argv"], "cwd": report["cwd"], "search path of modules": search_path}
    training_env = json.loads(variables.pop("SM_TRAINING_ENV"))
    facts |= {f"environment SM_TRAINING_ENV {name}": value for name, value in training_env.items()}
    facts |= {f"environment {name}": value for name, value in variables.items()}
    return facts | {f"during {path}": True for path in report["files"]}


def facts_of(ended: Ended, case: Case) -> dict[str, Any]:
    """Return all that is compared, by name, with `{base}` for the base folder."""
    failure = ended.files.get("output/failure")
    facts: dict[str, Any] = {
        "succeeded": ended.succeeded,
        "exit code": ended.exit_code,
        "exit code in the failure's text": told_exit_code(failure),
        "pip's error in the failure's text": sorted(set(re.findall(r"\bInstall\w+Error", failure or ""))),
        "script's own traceback": SCRIPTS_TRACEBACK.findall(ended.log.replace(ended.base, "{base}")),
    }
    if case.starts:
        facts |= facts_seen(json.loads(json.dumps(report_of(ended.log)).replace(ended.base, "{base}")), case)
    for path, text in ended.files.items():
        if "__pycache__" in path:
            continue
        facts[f"after {path}"] = True
        if path.startswith("input/config/"):
            facts |= {f"content {path} {name}": value for name, value in json.loads(str(text)).items()}
        elif not path.startswith("input/data"):
            facts[f"content {path}"] = text
    return facts
