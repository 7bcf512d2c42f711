from __future__ import annotations

import ast
import dataclasses
import json
import math
import os
from typing import Any, ClassVar, Dict, List, Optional, Union  # noqa: UP035 - the forms that Python 3.7 scripts write
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.entrypoint import TrainingScript, hyperparameter

# Written on purpose as a script for the oldest image would.
# ruff: noqa: UP006, UP007, UP045


NO_FLOAT = "; no float is this number: write int, or send a float"


class Seen(Exception):
    """Carries the hyperparameters out of `main`, before any data is read."""

    def __init__(self, hyperparameters: Any) -> None:
        super().__init__(hyperparameters)
        self.hyperparameters = hyperparameters


def script_of(declared: type) -> type[TrainingScript]:
    class Script(TrainingScript):
        Hyperparameters = declared

        def build_model(self) -> Any:
            raise Seen(self.hyperparameters)

    return Script


def parse(declared: type, hps: dict[str, Any] | None, *argv: str) -> Any:
    env = {} if hps is None else {"SM_HPS": json.dumps(hps)}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    with mock.patch.dict(os.environ, clean | env, clear=True), pytest.raises(Seen) as caught:
        script_of(declared).main(["--train", ".", *argv])
    return caught.value.hyperparameters


def problems(capsys: pytest.CaptureFixture[str], declared: type, hps: dict[str, Any] | None, *argv: str) -> list[str]:
    env = {} if hps is None else {"SM_HPS": json.dumps(hps)}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    with mock.patch.dict(os.environ, clean | env, clear=True), pytest.raises(SystemExit) as stopped:
        script_of(declared).main(["--train", ".", *argv])
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert not output.out
    return [line.removeprefix("  - ") for line in output.err.splitlines()[1:]]


class Everything:
    alpha: float = hyperparameter(1.0, min=0, max=10)
    depth: Optional[int] = None
    n_estimators: int = 100
    flag: bool = True
    name: str = "x"
    layers: List[int] = [64, 32]  # noqa: RUF012 - copied for each run
    weights: Dict[str, float] = hyperparameter({"a": 1.0})
    either: Union[int, str, None] = None
    anything: Any = None
    modern: dict[str, list[int | None]] = hyperparameter({})
    limit: float | None = None


def test_defaults_and_types() -> None:
    values = parse(Everything, None)
    assert dataclasses.asdict(values) == {
        "alpha": 1.0,
        "depth": None,
        "n_estimators": 100,
        "flag": True,
        "name": "x",
        "layers": [64, 32],
        "weights": {"a": 1.0},
        "either": None,
        "anything": None,
        "modern": {},
        "limit": None,
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        values.alpha = 2.0


def test_mutable_default_is_not_shared() -> None:
    parse(Everything, None).layers.append(1)
    assert parse(Everything, None).layers == [64, 32]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Anything:
    value: Any = None


@given(JSON)
def test_any_json_value_round_trips(value: Any) -> None:
    result = parse(Anything, {"value": value}, "--value", "what the container writes here is ignored").value
    assert result == value
    assert json.dumps(result) == json.dumps(value)


class Typed:
    a: float
    b: int
    c: str
    d: bool
    e: List[float]
    f: Dict[str, int]
    g: Optional[str] = "default"


@given(
    st.fixed_dictionaries(
        {
            "a": st.floats(allow_nan=False),
            "b": st.integers(),
            "c": st.text(),
            "d": st.booleans(),
            "e": st.lists(st.floats(allow_nan=False)),
            "f": st.dictionaries(st.text(), st.integers()),
            "g": st.none() | st.text(),
        }
    )
)
def test_typed_values_round_trip(values: dict[str, Any]) -> None:
    result = dataclasses.asdict(parse(Typed, values))
    assert result == values
    assert {name: type(value) for name, value in result.items()} == {
        name: type(value) for name, value in values.items()
    }


@given(
    st.fixed_dictionaries(
        {
            "a": st.floats(),
            "b": st.integers(),
            "c": st.text(),
            "d": st.booleans(),
            "e": st.lists(st.floats(allow_nan=False, allow_infinity=False)),
            "f": st.dictionaries(st.text(alphabet="abc_", min_size=1), st.integers(), min_size=1),
            "g": st.none() | st.text(min_size=1),
        }
    )
)
def test_the_containers_command_line_is_understood_without_sm_hps(values: dict[str, Any]) -> None:
    """As the toolkit writes argv: str(v), None as nothing, a dict as k=v pairs."""
    text = {name: "" if value is None else str(value) for name, value in values.items()}
    text["f"] = ",".join(f"{key}={value}" for key, value in sorted(values["f"].items()))
    result = dataclasses.asdict(parse(Typed, None, *(part for name in text for part in ("--" + name, text[name]))))
    if math.isnan(values["a"]):
        assert math.isnan(result.pop("a"))
        values = {name: value for name, value in values.items() if name != "a"}
    assert result == values


def test_sm_hps_wins_over_its_lossy_copy_in_argv() -> None:
    class Declared:
        text: str = ""
        other: str = ""

    hps = {"text": "--train", "other": ""}
    values = parse(Declared, hps, "--other", "", "--text", "--train")
    assert (values.text, values.other) == ("--train", "")


def test_golden_argv_of_the_toolkit() -> None:
    class Declared:
        n_estimators: int
        k: int
        none: Optional[int]
        nested: Dict[str, Any]
        lst: List[Any]
        dash_: str
        tiny: float
        flag: bool

    hps = {
        "n-estimators": 100,
        "k": 7,
        "none": None,
        "nested": {"b": 1, "a": {"x": [1, 2]}},
        "lst": [1, "two", 3.0],
        "dash-": "--x",
        "tiny": 1e-07,
        "flag": True,
    }
    argv = ["--dash-", "--x", "--flag", "True", "-k", "7", "--lst", "[1, 'two', 3.0]", "--n-estimators", "100"]
    argv += ["--nested", "a={'x': [1, 2]},b=1", "--none", "", "--tiny", "1e-07"]
    values = parse(Declared, hps, *argv)
    assert dataclasses.asdict(values) == {name.replace("-", "_"): value for name, value in hps.items()}
    assert parse(Declared, None, *(part if part != argv[11] else json.dumps(hps["nested"]) for part in argv)) == values


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("True", "flag", True),
        ("false", "flag", False),
        ("no", "flag", False),
        ("1e-07", "alpha", 1e-07),
        ("9007199254740993", "limit", 2.0**53),
        ("1e2", "n_estimators", 100),
        ("None", "depth", None),
        ("", "depth", None),
        ("3", "depth", 3),
        ("123", "name", "123"),
        ("3", "either", 3),
        ("three", "either", "three"),
        ("[1, 2]", "layers", [1, 2]),
        ('{"a": 2}', "weights", {"a": 2.0}),
        ("a=2,b=0.5", "weights", {"a": 2.0, "b": 0.5}),
        ("{'a': [1, None]}", "modern", {"a": [1, None]}),
        ("abc", "anything", "abc"),
        ("[true]", "anything", [True]),
        ("inf", "limit", math.inf),
    ],
)
def test_command_line_text(text: str, field: str, value: Any) -> None:
    for argv in (["--" + field.replace("_", "-"), text], [f"--{field}={text}"]):
        result = getattr(parse(Everything, None, *argv), field)
        assert result == value
        assert type(result) is type(value)


def test_json_number_forms() -> None:
    values = parse(Everything, {"alpha": 1, "n_estimators": 1.0})
    assert (type(values.alpha), type(values.n_estimators)) == (float, int)


def test_nan_and_infinity_as_python_writes_them() -> None:
    assert math.isnan(parse(Everything, {"limit": math.nan}).limit)
    assert parse(Everything, {"limit": -math.inf}).limit == -math.inf


@pytest.mark.parametrize(
    ("hps", "message"),
    [
        ({"alpha": "abc"}, "alpha: expected float, got 'abc' (str)"),
        ({"alpha": True}, "alpha: expected float, got True (bool)"),
        ({"alpha": -0.5}, "alpha: must be at least 0 and at most 10, got -0.5"),
        ({"alpha": math.nan}, "alpha: must be at least 0 and at most 10, got nan"),
        (
            {"limit": 10**400},
            f"limit: expected Union[float, NoneType], got {10**400} (int){NO_FLOAT}",
        ),
        (
            {"alpha": 2**53 + 1},
            f"alpha: expected float, got 9007199254740993 (int){NO_FLOAT}",
        ),
        ({"layers": "[1, 2]"}, "layers: expected List[int], got '[1, 2]' (str)"),
        ({"n_estimators": 1.5}, "n_estimators: expected int, got 1.5 (float)"),
        ({"n_estimators": False}, "n_estimators: expected int, got False (bool)"),
        ({"flag": 1}, "flag: expected bool, got 1 (int)"),
        ({"name": 123}, "name: expected str, got 123 (int)"),
        ({"name": None}, "name: expected str, got None (NoneType)"),
        ({"layers": [1, "2"]}, "layers[1]: expected int, got '2' (str)"),
        ({"weights": {"a": "b"}}, "weights.a: expected float, got 'b' (str)"),
        ({"modern": {"a": [True]}}, "modern.a[0]: expected int, got True (bool)"),
        ({"alhpa": 1}, "unknown hyperparameter 'alhpa'; did you mean alpha?"),
        ({"n-estimator": 1}, "unknown hyperparameter 'n-estimator'; did you mean n_estimators?"),
        (
            {"n-estimators": 1, "n_estimators": 2},
            "n_estimators: given twice, as 'n_estimators' and 'n-estimators'",
        ),
    ],
)
def test_wrong_values(capsys: pytest.CaptureFixture[str], hps: dict[str, Any], message: str) -> None:
    # How a union prints differs between versions of Python.
    found = [line.replace("float | None", "Union[float, NoneType]") for line in problems(capsys, Everything, hps)]
    found = [line.replace("limit: expected float,", "limit: expected Union[float, NoneType],") for line in found]
    found = [line.replace("modern.a[0]: expected int | None", "modern.a[0]: expected int") for line in found]
    assert found == [message]


def test_choices_and_required_and_all_problems_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Declared:
        solver: str = hyperparameter("a", choices=["a", "b"])
        needed: int = hyperparameter(min=1)
        also: str

    assert problems(capsys, Declared, {"solver": "c", "nope": 1}) == [
        "unknown hyperparameter 'nope'; valid: solver, needed, also",
        "solver: must be one of 'a', 'b', got 'c'",
        "needed: required (int), but not given",
        "also: required (str), but not given",
    ]
    values = parse(Declared, {"solver": "b", "needed": 1, "also": "z"})
    assert (values.solver, values.needed, values.also) == ("b", 1, "z")
    with pytest.raises(TypeError, match="missing hyperparameter 'needed'"):
        Declared(also="z")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--alhpa", "1"], "unknown option '--alhpa'; did you mean alpha?"),
        (["--alpha"], "--alpha needs a value"),
        (["--alpha", "--flag", "true"], "--alpha needs a value"),
        (["1"], "unexpected argument '1'; write --name value"),
        (["--tset", "x"], "unknown option '--tset'; did you mean test?"),
        (["--test", "nowhere"], "channel 'test': nowhere does not exist"),
    ],
)
def test_wrong_command_line(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert problems(capsys, Everything, None, *argv) == [message]


@pytest.mark.parametrize("text", ["[1]", "{", "", "null"])
def test_sm_hps_must_be_an_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SM_HPS", text)
    with pytest.raises(SystemExit):
        script_of(Everything).main(["--train", "."])
    assert f"SM_HPS is not a JSON object: {text!r}" in capsys.readouterr().err


def test_a_default_that_breaks_its_own_declaration(capsys: pytest.CaptureFixture[str]) -> None:
    class Declared:
        depth: int = None  # type: ignore[assignment]
        size: float = hyperparameter(-1.0, min=0)
        shape: tuple = (1, 2)  # type: ignore[type-arg]
        text: str = hyperparameter("a", min=1)

    assert problems(capsys, Declared, {}) == [
        "the default of depth: expected int, got None (NoneType)",
        "size: must be at least 0, got -1.0",
        (
            "the default of shape: expected tuple, got (1, 2) (tuple); "
            "use one of int, float, bool, str, Optional, Union, List, Dict[str, ...] and Any"
        ),
        "text: min and max are for numbers, got 'a' (str)",
    ]


def test_an_annotation_that_cannot_be_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    class Declared:
        depth: Nowhere = 1  # type: ignore[name-defined]  # noqa: F821 - the point of the test

    with pytest.raises(SystemExit) as stopped:
        script_of(Declared).main(["--train", "."])
    assert stopped.value.code == 2
    assert "name 'Nowhere' is not defined" in capsys.readouterr().err


def test_a_ready_dataclass_and_its_own_check(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclasses.dataclass
    class Declared:
        low: float = 0.0
        high: float = hyperparameter(1.0, max=5)
        derived: float = dataclasses.field(init=False, default=0.0)
        constant: ClassVar[int] = 3

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low must not exceed high")
            self.derived = self.high - self.low

    assert parse(Declared, {"low": 0.5}).derived == 0.5
    assert problems(capsys, Declared, {"low": 2}) == ["low must not exceed high"]
    assert problems(capsys, Declared, {"derived": 2})[0].startswith("unknown hyperparameter 'derived'")


def test_inheritance() -> None:
    class Base(TrainingScript):
        class Hyperparameters:
            alpha: float = 1.0

        def build_model(self) -> Any:
            raise Seen(self.hyperparameters)

    class Same(Base):
        pass

    class More(Base):
        class Hyperparameters(Base.Hyperparameters):
            beta: int

    assert Same.Hyperparameters is Base.Hyperparameters
    assert dataclasses.asdict(parse(More.Hyperparameters, {"beta": 2})) == {"alpha": 1.0, "beta": 2}


def test_mistakes_in_the_declaration_are_found_at_once() -> None:
    class Untyped:
        alpha = 1.0

    with pytest.raises(TypeError, match=r"Untyped.alpha has no type; write alpha: float = 1.0"):
        script_of(Untyped)

    class Taken:
        test: float = 0.2

    with pytest.raises(TypeError, match="rename the hyperparameter 'test': the option --test exists"):
        script_of(Taken)


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    class Declared:
        alpha: float = hyperparameter(1.0, min=0, help="100% of the penalty")
        needed: int

    script_of(Declared).main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--alpha VALUE 100% of the penalty (float, default 1.0, min 0)" in shown
    assert "--needed VALUE (int, required)" in shown
    assert "--train PATH" in shown


def test_the_literal_reader_never_evaluates() -> None:
    text = "__import__('os').getcwd()"
    with pytest.raises(ValueError, match="malformed"):
        ast.literal_eval(text)
    assert parse(Everything, None, "--anything", text).anything == text
