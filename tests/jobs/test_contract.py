from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.errors import ConfigError
from smkit.jobs import contract

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
BASE = "/some/base"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8
)


def config_of(golden: dict[str, Any], base: str = BASE) -> contract.InputConfig:
    return contract.input_config(
        golden["hyperparameters"],
        golden["channels"],
        job_name="job-2026-01-01",
        region="eu-west-1",
        entry_point="train.py",
        submit_directory=f"{base}/code",
        instance_type="ml.m5.large",
    )


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8").replace("{base}", BASE))


def test_all_golden_files_are_here() -> None:
    assert len(GOLDEN) == 6


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_contract_is_the_real_toolkits(path: Path) -> None:
    golden = read(path)
    toolkit = "4.0.1" if "4.0.1" in path.name else "4.8.0"
    config = config_of(golden)
    assert config.files() == golden["input_config"]
    values = contract.script_hyperparameters(config.hyperparameters)
    command = contract.command(
        "python", "train.py", contract.script_arguments(values), toolkit=toolkit, is_package=False
    )
    assert command == ["python", *golden["argv"]]
    assert contract.environment(BASE, config, toolkit=toolkit, num_cpus=2) == golden["environment"]


@given(st.dictionaries(st.text(min_size=1), json_values, max_size=5))
def test_hyperparameters_survive_the_wire(values: dict[str, Any]) -> None:
    wire = contract.encode_hyperparameters(values)
    assert all(isinstance(text, str) for text in wire.values())
    assert contract.decode_hyperparameters(json.loads(json.dumps(wire))) == values


@given(st.dictionaries(st.text(min_size=1), json_values, max_size=5))
def test_arguments_are_pairs_in_the_order_of_code_points(values: dict[str, Any]) -> None:
    arguments = contract.script_arguments(values)
    names = [name.removeprefix("--" if len(name) > 2 else "-") for name in arguments[::2]]
    assert len(arguments) == 2 * len(values)
    if all(len(name) > 1 for name in values):
        assert names == sorted(values)


@pytest.mark.parametrize(
    ("value", "argument", "variable"),
    [(None, "", ""), (True, "True", "true"), (1e-7, "1e-07", "1e-07"), ([1, "a"], "[1, 'a']", '[1,"a"]'),
     ({"b": 1, "a": None}, "a=None,b=1", '{"a":null,"b":1}')],
)  # fmt: skip
def test_spelling(value: Any, argument: str, variable: str) -> None:
    config = config_of({"hyperparameters": {"a-b": value}, "channels": []})
    assert contract.script_arguments({"a-b": value}) == ["--a-b", argument]
    assert contract.environment(BASE, config, toolkit="4.8.0", num_cpus=1)["SM_HP_A-B"] == variable


def test_what_is_not_json_is_kept_as_text() -> None:
    assert contract.decode_hyperparameters({"a": "not json", "b": "1"}) == {"a": "not json", "b": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"x"])
def test_what_is_not_json_cannot_be_sent(value: object) -> None:
    with pytest.raises(ConfigError, match="'alpha' is not JSON"):
        contract.encode_hyperparameters({"alpha": value})


def test_shell_and_package_commands() -> None:
    arguments = ["--name", 'it\'s "x"', "--last", '"q"']
    shell = contract.command("python", "go.sh", arguments, toolkit="4.8.0", is_package=True)
    assert shell == ["/bin/sh", "-c", """./go.sh --name 'it'"'"'s "x"' --last '"q"'"""]
    package = contract.command("python", "train.py", arguments, toolkit="4.8.0", is_package=True)
    assert package == ["python", "-m", "train", "--name", 'it\'s "x"', "--last", "q"]


@pytest.mark.parametrize(
    ("version", "toolkit"), [("0.23-1", "4.0.1"), ("1.0-1", "4.8.0"), ("1.2-1", "4.8.0"), ("1.9-0", "4.8.0")]
)
def test_toolkit_of(version: str, toolkit: str) -> None:
    assert contract.toolkit_of(version) == toolkit
