"""What a job is given is what its script sees: any JSON value, under every image's Python, here and on SageMaker.

One process per Python reads all the cases, each by two ways: as a job of this machine hands the values over, and as the
container's toolkit does, which reads SageMaker's `hyperparameters.json` with the image's own Python.
"""

from __future__ import annotations

import contextlib
import json
import keyword
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smkit.config import Settings
from smkit.errors import ConfigError
from smkit.jobs import JobRunner, JobSpec, contract
from smkit.jobs.secrets import refuse_secrets
from tests.entrypoint.conftest import ENTRYPOINT
from tests.jobs.backends import SAVE_MODEL
from tests.pythons import python_or_skip

if TYPE_CHECKING:
    from pathlib import Path

PYTHONS = [(3, 7), (3, 8), (3, 9), (3, 10), (3, 12)]
NASTY: list[Any] = [
    None, True, False, 0, -1, 2**53 + 1, -(2**64), 10**300, 0.0, -0.0, 5e-324, 1e308, -1.7976931348623157e308, 0.1,
    1e22, 1e16, 123456789.123456789, "", " ", " pad ", '"', '"quoted"', 'say "hi"', "'", "it's", "true", "null", "None",
    "1", "1e5", "-0", "NaN", "Infinity", "[1, 2]", "{}", '{"a": 1}', "--alpha", "-a", "-", "--", "a=b,c=d", "=", ",",
    "\\", "\\n", "\n", "\r\n", "\t", "\x01\x1f\x7f", "\x85\u2028\u2029", "é", "数据", "\U0001f600", "\ufeff",
    "e\u0301", "$HOME `ls`", [], {}, [[]], [None, True, 1, 1.0, "1"], {"": ""}, {"a=b": "c,d"},
    {"b": 1, "a": {"é": [-0.0, 2**70]}},
]  # fmt: skip
RESERVED = {"h", "help", "train", "validation", "test", "model_dir", "output_data_dir"}

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.sampled_from(NASTY) | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=6
).filter(lambda value: len(json.dumps(value)) < 2400)
names = st.from_regex(r"[A-Za-zé数][A-Za-z0-9_-]{0,6}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and name.replace("-", "_") not in RESERVED
)
hyperparameters = st.dictionaries(names, values, max_size=5).filter(
    lambda given: len({name.replace("-", "_") for name in given}) == len(given)
)

READER = '''
"""Reads cases from stdin, and writes what the template sees in each."""
import json, os, sys
from typing import Any, Dict, List
from smkit.entrypoint import TrainingScript

TYPES = {"int": int, "float": float, "bool": bool, "str": str, "list": List[Any], "dict": Dict[str, Any]}


class Seen(Exception):
    pass


def see(values, environment, arguments, typed):
    names = {name.replace("-", "_"): value for name, value in values.items()}
    kinds = {name: TYPES.get(type(value).__name__, Any) if typed else Any for name, value in names.items()}
    declared = type("Hyperparameters", (), {"__annotations__": kinds})

    class Script(TrainingScript):
        Hyperparameters = declared

        def build_model(self):
            raise Seen({name: getattr(self.hyperparameters, name) for name in names})

    for name in [name for name in os.environ if name.startswith("SM_")]:
        del os.environ[name]
    os.environ.update(environment)
    sys.argv = ["train.py"] + arguments
    try:
        Script.main()
    except Seen as seen:
        return seen.args[0]


def decoded(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def container(wire):
    """As the toolkit: read the file, keep the rest from the script, spell what it shows first."""
    read = {name: decoded(text) for name, text in json.loads(wire).items()}
    own = {name: value for name, value in read.items() if not name.startswith("sagemaker_")}
    spelled = json.dumps(own, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return own, {"SM_HPS": spelled, "SM_CHANNEL_TRAIN": ".", "SM_CHANNELS": '["train"]'}


found = []
for case in json.load(sys.stdin):
    values, environment = container(case["wire"])
    for typed in (False, True):
        found.append(see(values, environment, case["arguments"], typed))
        found.append(see(values, case["environment"], case["arguments"], typed))
json.dump(found, sys.stdout)
'''


def case_of(given: dict[str, Any], toolkit: contract.Toolkit) -> dict[str, Any]:
    """Hand values over as a job of this machine does; `wire` is the file that SageMaker writes."""
    spec = JobSpec(name="job", entry_point="train.py", hyperparameters=given)
    plain = spec.plain_hyperparameters()
    config = contract.input_config(
        plain, ["train"], job_name="job", region="r", entry_point="train.py", submit_directory="s", instance_type="i"
    )
    command = contract.command(
        "python", "train.py", contract.script_arguments(plain), toolkit=toolkit, is_package=False
    )
    environment = contract.environment(".", config, toolkit=toolkit, num_cpus=1)
    wire = json.dumps(config.files()["hyperparameters.json"])
    return {"wire": wire, "arguments": command[2:], "environment": {**environment, "SM_CHANNEL_TRAIN": "."}}


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    collected: list[dict[str, Any]] = [{"value": value} for value in NASTY]
    # The last element of the command line, which the toolkit changes.
    collected += [{"a": 1, "z": value} for value in ('"', '""', '"x"', 'x"')]

    @hypothesis_settings(
        max_examples=100, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None
    )
    @given(hyperparameters)
    def collect(given: dict[str, Any]) -> None:
        # Names that look like a secret's are drawn, too: no job gets those.
        with contextlib.suppress(ConfigError):
            refuse_secrets(given, "hyperparameter")
            collected.append(given)

    collect()
    return collected


def spelled(value: Any) -> str:
    # JSON tells -0.0 from 0, 1.0 from 1 and "1" from 1, which `==` does not.
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("version", PYTHONS, ids=lambda version: f"{version[0]}.{version[1]}")
def test_the_template_sees_what_the_job_is_given(
    version: tuple[int, int], cases: list[dict[str, Any]], tmp_path: Path
) -> None:
    python = python_or_skip(version)
    shutil.copytree(ENTRYPOINT, tmp_path / "smkit/entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "smkit/__init__.py").touch()
    (tmp_path / "reader.py").write_text(READER, encoding="utf-8")
    toolkit: contract.Toolkit = "4.0.1" if version == (3, 7) else "4.8.0"
    result = subprocess.run(
        [python, "-B", "reader.py"],
        cwd=tmp_path,
        input=json.dumps([case_of(given, toolkit) for given in cases]),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert len(found) == 4 * len(cases)
    for number, case in enumerate(cases):
        expected = spelled({name.replace("-", "_"): value for name, value in case.items()})
        ways = {"on SageMaker": found[4 * number], "here": found[4 * number + 1]}
        ways |= {"typed, on SageMaker": found[4 * number + 2], "typed, here": found[4 * number + 3]}
        assert {way: spelled(seen) for way, seen in ways.items()} == dict.fromkeys(ways, expected)


def test_a_real_job_sees_what_it_is_given(tmp_path: Path) -> None:
    """Through the kernel's own argv and environment, and the files of a real job."""
    script = tmp_path / "train.py"
    script.write_text(
        "import json, os\n"
        "from typing import Any\n"
        "from smkit.entrypoint import TrainingScript\n\n\n"
        "class Script(TrainingScript):\n"
        "    class Hyperparameters:\n"
        + "".join(f"        a{number}: Any\n" for number in range(len(NASTY)))
        + "\n    def build_model(self):\n"
        "        with open(os.path.join(os.environ['SM_MODEL_DIR'], 'seen.json'), 'w') as file:\n"
        "            json.dump(vars(self.hyperparameters), file)\n"
        "        os._exit(0)\n\n\n"
        "Script.main()\n",
        encoding="utf-8",
    )
    given = {f"a{number}": value for number, value in enumerate(NASTY)}
    (tmp_path / "data.csv").write_text("a\n1\n")
    runner = JobRunner(Settings(root=str(tmp_path / "store")))
    job = runner.run(str(script), {"train": tmp_path / "data.csv"}, hyperparameters=given)
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.unpack_archive(job.model_archive(), folder)
    assert spelled(json.loads((folder / "seen.json").read_text())) == spelled(given)
    assert spelled(job.lineage()["hyperparameters"]) == spelled(given)


def test_the_most_that_a_job_may_be_given_reaches_it(tmp_path: Path) -> None:
    """Linux refuses to start a process with a variable of 128 KiB; more is refused before."""
    script = tmp_path / "train.py"
    script.write_text(f"{SAVE_MODEL}import sys\nprint(len(os.environ['SM_HPS']), len(sys.argv))\n")
    given = {f"a{number}": "é" * 400 for number in range(48)}
    runner = JobRunner(Settings(root=str(tmp_path / "store")))
    total = len(json.dumps(given))
    assert 110_000 < total < 120_000
    job = runner.run(str(script), hyperparameters=given)
    assert list(job.logs())[-1] == f"{len(json.dumps(given, separators=(',', ':')))} {1 + 2 * len(given)}"
