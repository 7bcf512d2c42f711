"""Hyperparameters that the script would refuse are told before anything starts; what it takes is never refused."""

from __future__ import annotations

import ast
import os
import re
import sys
import textwrap
import time
import types
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smkit.config import Settings
from smkit.entrypoint.hyperparameters import make_dataclass
from smkit.errors import ConfigError, JobRefused, TrainingFailed
from smkit.jobs import JobRunner, contract
from smkit.jobs.checks.declaration import declaration_of
from tests.jobs.checking import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.jobs.conftest import Script

SCRIPT = """
    {imports}

    class Houses(TrainingScript):
        target = "price"

        {declared}

        def build_model(self):
            raise RuntimeError("the model is not what is tested")

    if __name__ == "__main__":
        Houses.main()
"""
IMPORTS = "from typing import *\nfrom smkit.entrypoint import TrainingScript, hyperparameter"
FIELDS = """
class Hyperparameters:
    alpha: float = hyperparameter(1.0, min=0, max=10, help="of the penalty")
    depth: Optional[int] = None
    layers: "List[int]" = [64, 32]
    weights: Dict[str, float] = hyperparameter({{}})
    solver: str = hyperparameter("a", choices=["a", "b"])
    flag: bool = True
    needed: int = hyperparameter(min=1)
    also: str
    either: Union[int, str] = 1
    modern: int | None = None
    computed: int = 2 ** 4
    fraction: float = hyperparameter(default=1 / 3, max=1)
    alias: Number = 1
    anything: Any = None
    CONSTANT: ClassVar[int] = 3
"""
NUMBER = "Number = Union[int, float]"


def script_of(declared: str = "", imports: str = IMPORTS) -> str:
    # `from typing import *` would hide what every name means.
    imports = imports.replace("*", "Any, ClassVar, Dict, List, Optional, Union")
    return textwrap.dedent(SCRIPT).format(
        imports=imports, declared=textwrap.indent(textwrap.dedent(declared), "    ").strip()
    )


FULL = script_of(FIELDS.replace("{{}}", "{}"), IMPORTS + "\n" + NUMBER)
GOOD = {"needed": 1, "also": "x"}


def said_by_the_script(source: str, values: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a script in this process as a job would, and return what it says is wrong with its hyperparameters."""
    config = contract.input_config(
        values, ["train"], job_name="j", region="r", entry_point="t.py", submit_directory="s", instance_type="i"
    )
    variables = contract.environment(".", config, toolkit="4.8.0", num_cpus=1)
    others = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    arguments = contract.script_arguments(values)
    script = types.ModuleType("__main__")
    capsys.readouterr()
    with (
        # Where Python looks for the names in annotations.
        mock.patch.dict(sys.modules, {"__main__": script}),
        mock.patch.dict(os.environ, {**others, **variables, "SM_CHANNEL_TRAIN": "."}, clear=True),
        mock.patch("sys.argv", ["train.py", *arguments]),
        pytest.raises((SystemExit, RuntimeError)) as ended,
    ):
        exec(compile(source, "train.py", "exec"), vars(script))
    if ended.type is RuntimeError:
        assert "is not what is tested" in str(ended.value)
        return []
    return [line.removeprefix("  - ") for line in capsys.readouterr().err.splitlines()[1:]]


def said_before(source: str, values: dict[str, Any]) -> list[str] | None:
    """Return what the check says, or None where it says nothing since the text does not tell."""
    from smkit.jobs.checks.hyperparameters import _problems

    declared = declaration_of(source.encode())
    return None if declared is None else _problems(declared, values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**GOOD, "alhpa": 1}, ["unknown hyperparameter 'alhpa'; did you mean alpha"]),
        ({**GOOD, "alpha": "x"}, ["alpha: expected float, got 'x' (str)"]),
        ({**GOOD, "alpha": -1}, ["alpha: must be at least 0 and at most 10, got -1.0"]),
        ({**GOOD, "solver": "c"}, ["solver: must be one of 'a', 'b', got 'c'"]),
        ({**GOOD, "layers": [1, "2"]}, ["layers[1]: expected int, got '2' (str)"]),
        ({**GOOD, "flag": 1}, ["flag: expected bool, got 1 (int)"]),
        ({**GOOD, "fraction": 2}, ["fraction: must be at most 1, got 2.0"]),
        ({**GOOD, "computed": "many"}, ["computed: expected int, got 'many' (str)"]),
        ({"also": "x"}, ["needed: required (int), but not given"]),
        ({"needed": 0, "also": "x"}, ["needed: must be at least 1, got 0"]),
        ({**GOOD, "CONSTANT": 4}, ["unknown hyperparameter 'CONSTANT'"]),
        ({**GOOD, "alias": 0.5, "anything": {"a": [None]}, "depth": None, "modern": 2, "either": "x"}, []),
        (GOOD, []),
    ],
)
def test_what_the_script_would_say_is_said_before_it_runs(
    values: dict[str, Any], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = said_before(FULL, values)
    assert found == said_by_the_script(FULL, values, capsys)
    assert found is not None
    assert [line[: len(start)] for line, start in zip(found, said, strict=True)] == said


NAMES = ["alpha", "depth", "layers", "weights", "solver", "flag", "needed", "also", "either", "modern", "computed"]
NAMES += ["fraction", "alias", "anything", "CONSTANT", "alhpa", "l-ayers", "a"]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-20, 20)
    | st.floats(-20, 20)
    | st.sampled_from(["", "a", "b", "1", "true"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), json_values, max_size=6))
def test_a_script_is_never_refused_what_it_would_take(values: dict[str, Any]) -> None:
    """And is told the same, but for what only running the script tells: the type that a computed name stands for."""
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("sys.stderr", mock.Mock(write=lines.append))
        found = said_before(FULL, values)
        theirs = said_by_the_script(FULL, values, mock.Mock(readouterr=lambda: mock.Mock(err="".join(lines))))
    assert found == [line for line in theirs if not line.startswith("alias:")]


MAIN = "    Houses.main()"


def with_fields(declared: str, above: str = "") -> str:
    return script_of(declared, f"{IMPORTS}\n{above}")


def before_main(text: str) -> str:
    return FULL.replace(MAIN, textwrap.indent(text, "    ") + "\n" + MAIN)


def above_class(text: str) -> str:
    return FULL.replace("class Houses", f"{text}\nclass Houses")


UNCLEAR = {
    "a base of its own": with_fields("class Hyperparameters(Base):\n    alpha: float = 1.0", "class Base: pass"),
    "a class made elsewhere": with_fields("Hyperparameters = Declared", "from params import Declared"),
    "declared twice": with_fields("class Hyperparameters:\n    a: int\nHyperparameters = None"),
    "code in the class": with_fields("class Hyperparameters:\n    a: int = 1\n    for b in range(3): pass"),
    "a name without type": with_fields("class Hyperparameters:\n    a: int = 1\n    b = object()"),
    "a decorator": with_fields("@more\nclass Hyperparameters:\n    a: int = 1", "from x import more"),
    "an InitVar": with_fields("class Hyperparameters:\n    a: InitVar[int] = 1"),
    "a mangled name": with_fields("class Hyperparameters:\n    __a: int = 1"),
    "replaced later": FULL.replace("if __name__", "Houses.Hyperparameters = Other\nif __name__"),
    "set by name": FULL.replace("if __name__", "setattr(Houses, 'Hyperparameters', Other)\nif __name__"),
    "a base between": above_class("class Base(TrainingScript): pass").replace("Houses(TrainingScript)", "Houses(Base)"),
    "another TrainingScript": above_class("class TrainingScript(TrainingScript): pass"),
    "a star import": above_class("from mine import *"),
    "a decorated script": above_class("@register"),
    "arguments of its own": FULL.replace("Houses.main()", "Houses.main(['--needed', '1'])"),
    "main of its own": FULL.replace("    def build", "    @classmethod\n    def main(cls): pass\n\n    def build"),
    "another way in": FULL.replace(MAIN, f"    if old():\n        train()\n    else:\n    {MAIN}"),
    "another way on": before_main("for each in runs: prepare(each)"),
    "a way out": before_main("import sys\nsys.exit(0)"),
    "called in a function": FULL.replace(MAIN, "    run(Houses)"),
    "called twice": f"{FULL}\n{MAIN}\n",
    "SM_HPS of its own": before_main("import os\nos.environ['SM_HPS'] = '{}'"),
    "an environment of its own": before_main("import os\nos.environ.update(mine)"),
    "an environment by another name": above_class("from os import environ as e"),
    "arguments added": before_main("import sys\nsys.argv += ['--needed', '1']"),
    "made in a branch": "if fast:\n" + textwrap.indent(FULL, "    "),
    "a plain script": "import argparse\nargparse.ArgumentParser().parse_args()\n",
}


@pytest.mark.parametrize("source", UNCLEAR.values(), ids=UNCLEAR.keys())
def test_where_the_text_does_not_tell_nothing_is_said(source: str) -> None:
    compile(source, "train.py", "exec")
    assert declaration_of(source.encode()) is None


CLEAR = {
    "the module": (
        "import typing as t\nimport smkit.entrypoint",
        "class Hyperparameters:\n    needed: t.Optional[int] = smkit.entrypoint.hyperparameter()",
    ),
    "a dataclass": (
        IMPORTS + "\nimport dataclasses",
        "@dataclasses.dataclass(frozen=True)\nclass Hyperparameters:\n    'A doc.'\n    needed: int",
    ),
    "a method": (
        IMPORTS,
        "class Hyperparameters:\n    needed: int\n    def __post_init__(self):\n        pass",
    ),
    "a plain environment": (
        IMPORTS + "\nimport os\nos.environ['OMP_NUM_THREADS'] = '1'\nX = os.environ.get('X', '')",
        "class Hyperparameters:\n    needed: int",
    ),
}


@pytest.mark.parametrize(("imports", "declared"), CLEAR.values(), ids=CLEAR.keys())
def test_ways_to_write_the_same(imports: str, declared: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = script_of(declared, imports)
    if "import smkit.entrypoint" in imports:
        source = source.replace("(TrainingScript)", "(smkit.entrypoint.TrainingScript)")
    found = said_before(source, {"neded": 1})
    assert found == said_by_the_script(source, {"neded": 1}, capsys)
    assert found is not None
    assert found[0] == "unknown hyperparameter 'neded'; did you mean needed?"
    assert found[1].startswith("needed: required")


def test_types_and_limits_that_are_not_known_are_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    source = script_of(
        """
        class Hyperparameters:
            a: Mine = 1
            b: int = hyperparameter(LIMIT, min=LIMIT, choices=range(9))
            c: float = hyperparameter(**{"default": 1.0})
            d: int = hyperparameter(*[1])
            e: list = other(1)
        """,
        IMPORTS + "\nfrom typing import Union as Mine\nMine = Union[int, str]\nLIMIT = 3\n\ndef other(x): return [x]",
    )
    assert said_before(source, {"a": "x", "b": 4}) == []
    assert said_by_the_script(source, {"a": "x", "b": 4}, capsys) == []
    assert said_before(source, {"c": "x", "e": 1}) == [
        "c: expected float, got 'x' (str)",
        "e: expected list, got 1 (int)",
    ]


def test_a_script_without_hyperparameters_takes_none() -> None:
    assert said_before(script_of("pass"), {}) == []
    assert said_before(script_of("pass"), {"alpha": 1}) == ["unknown hyperparameter 'alpha'; valid: none"]


def test_nothing_starts_on_this_machine(tmp_path: Path, script: Script) -> None:
    runner = JobRunner(Settings(root=str(tmp_path / "store")))
    given = {**GOOD, "alhpa": 0.5, "depth": "deep"}
    with pytest.raises(ConfigError, match=r"(?s)Houses in train\.py, line \d+.*- unknown .*alhpa.*- depth: expected"):
        runner.run(script(FULL), hyperparameters=given, job_name="once")
    assert not (tmp_path / "store").exists()
    # Who knows better says so, and the script itself refuses.
    (tmp_path / "data.csv").write_text("a\n1\n")
    with pytest.raises(TrainingFailed):
        runner.run(script(FULL), {"train": tmp_path / "data.csv"}, hyperparameters=given, job_name="once", check=False)


def test_nothing_is_paid_for_on_sagemaker(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (found,) = [
        item for item in project.check(FULL, hyperparameters={**GOOD, "alhpa": 1}) if item.subject == "hyperparameters"
    ]
    line = FULL.splitlines().index("class Houses(TrainingScript):") + 1
    assert found.level == "problem"
    assert str(found) == (
        "hyperparameters: unknown hyperparameter 'alhpa'; did you mean alpha or alias?; "
        f"see Houses.Hyperparameters, train.py:{line}"
    )
    with pytest.raises(JobRefused, match="alhpa"):
        project.check(FULL, hyperparameters={**GOOD, "alhpa": 1}).raise_for_problems()


def test_a_package_is_not_judged(tmp_path: Path) -> None:
    """pip decides which module of it runs."""
    project = Project(tmp_path).write("setup.py", "from setuptools import setup\nsetup(py_modules=['train'])\n")
    report = project.check(FULL, hyperparameters={"alhpa": 1})
    assert [item for item in report if item.subject == "hyperparameters"] == []


def test_the_examples_of_this_project_are_read() -> None:
    from pathlib import Path

    examples = Path(__file__).resolve().parents[2] / "examples"
    texts = [path.read_bytes() for path in examples.rglob("*.py")]
    on_template = [text for text in texts if re.search(rb"^    \w+\.main\(\)$", text, re.MULTILINE)]
    assert len(on_template) >= 2
    assert all(declaration_of(text) for text in on_template)


def test_it_costs_some_times_what_parsing_the_script_costs() -> None:
    long = FULL + "\n\ndef unused():\n" + "    x = [1, 2, 3]\n" * 500
    make_dataclass(type("Warm", (), {"__annotations__": {}}))
    assert said_before(long, GOOD) == []
    reading = min(_seconds(lambda: said_before(long, GOOD)) for _ in range(9))
    parsing = min(_seconds(lambda: ast.parse(long)) for _ in range(9))
    # Three times on a quiet machine: it is parsed once, and walked.
    assert reading < 15 * parsing


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize(
    ("line", "later", "channel"),
    [
        ("", "", "train"),
        ('channels = ("fit", "test")', "", "fit"),
        ('channels: list = ["fit"]', "", "fit"),
        ("channels = names()", "", ""),
        ("channels = ()", "", ""),
        ("", 'Houses.channels = ("fit",)', ""),
        ("", 'os.environ["SM_CHANNEL_TRAIN"] = "."', ""),
    ],
)
def test_the_required_channel_is_read_where_the_text_tells(line: str, later: str, channel: str) -> None:
    source = (
        "import os\nfrom smkit.entrypoint import TrainingScript\n\n\n"
        f"class Houses(TrainingScript):\n    target = 'price'\n    {line}\n\n\n{later}\nHouses.main()\n"
    )
    declared = declaration_of(source.encode())
    assert declared is not None
    assert declared.channel == channel


def test_a_required_channel_without_input_is_a_problem(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from smkit.entrypoint import TrainingScript\n\n\nclass Houses(TrainingScript):\n    target = 'price'\n\n\n"
        "Houses.main()\n",
        encoding="utf-8",
    )
    runner = JobRunner(Settings(root=str(tmp_path / "store")))
    found = [each for each in runner.check(runner.spec(script)).problems if each.subject == "inputs"]
    assert ["channel 'train', which Houses requires, has no input (given: none)" in str(each) for each in found] == [
        True
    ]
    given = runner.check(runner.spec(script, {"train": str(script)}))
    assert [each for each in given.problems if each.subject == "inputs"] == []
