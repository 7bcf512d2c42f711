from __future__ import annotations

import copy
import dataclasses
import enum
import json
import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

from smkit.config import Settings
from smkit.errors import ConfigError, InvalidNameError
from smkit.jobs import JobRunner
from smkit.jobs.runner import generate_job_name
from smkit.jobs.spec import JobSpec
from smkit.naming import check_job_name


def spec(**values: Any) -> JobSpec:
    return JobSpec(**{"name": "job", "entry_point": "train.py", **values})


@dataclasses.dataclass
class Params:
    alpha: float = 0.5
    layers: tuple[int, ...] = (1, 2)


class Model(pydantic.BaseModel):
    alpha: float = 0.5
    layers: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize("given", [Params(), Model(), {"alpha": np.float64(0.5), "layers": [np.int64(1), 2]}])
def test_hyperparameters_become_json(given: object) -> None:
    values = spec(hyperparameters=given).plain_hyperparameters()
    assert values == {"alpha": 0.5, "layers": [1, 2]}
    assert type(values["alpha"]) is float


class Solver(str, enum.Enum):
    SAG = "sag"

    def __str__(self) -> str:
        return f"the solver {self.value}"


class Level(enum.IntEnum):
    HIGH = 3


def test_members_of_enums_are_their_values() -> None:
    values = spec(hyperparameters={"solver": Solver.SAG, "levels": [Level.HIGH]}).plain_hyperparameters()
    assert json.dumps(values) == '{"solver": "sag", "levels": [3]}'


def test_a_secret_of_pydantic_is_not_sent_as_asterisks() -> None:
    class Inner(pydantic.BaseModel):
        code: pydantic.SecretStr = pydantic.SecretStr("hunter2")

    class Outer(pydantic.BaseModel):
        alpha: float = 1.0
        inner: Inner = Inner()

    with pytest.raises(ConfigError, match="'code' is a SecretStr: everybody") as caught:
        spec(hyperparameters=Outer())
    assert "hunter2" not in str(caught.value)


def test_dependencies_are_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = spec(dependencies=["lib/", Path("a/../helper.py")]).dependencies
    assert found == (tmp_path / "lib", tmp_path / "helper.py")
    assert pickle.loads(pickle.dumps(spec(dependencies=["lib"]))).dependencies == (tmp_path / "lib",)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert spec(dependencies=["~/lib"]).dependencies == (tmp_path / "lib",)


def test_a_spec_is_frozen_to_the_depth() -> None:
    given = {"nested": {"list": [1]}}
    frozen = spec(hyperparameters=given)
    given["nested"]["list"].append(2)
    assert frozen.plain_hyperparameters() == {"nested": {"list": [1]}}
    with pytest.raises(TypeError):
        frozen.hyperparameters["nested"]["list"] = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hyperparameters": {"sagemaker_x": 1}}, "'sagemaker_x' is reserved"),
        ({"hyperparameters": {"_tuning_objective_metric": 1}}, "is reserved"),
        ({"hyperparameters": {"a": float("nan")}}, "'a' is nan, which is not JSON"),
        ({"hyperparameters": {"a": {"b": object()}}}, "'a' is a object, which is not JSON"),
        ({"hyperparameters": {"a": {1: 2}}}, "the key 1"),
        ({"hyperparameters": {"a": "x\0"}}, "holds a NUL"),
        ({"hyperparameters": {"a": "\ud800"}}, "surrogate"),
        ({"hyperparameters": {"a=b": 1}}, "not a hyperparameter name"),
        ({"hyperparameters": {"": 1}}, "not a hyperparameter name"),
        ({"hyperparameters": {"a": "x" * 2500}}, "at most 2500"),
        ({"hyperparameters": {"a" * 257: 1}}, "at most 256"),
        ({"hyperparameters": {"a\nb": 1}}, "one line of text"),
        ({"hyperparameters": {"a\u2028": 1}}, "one line of text"),
        ({"hyperparameters": {f"a{i}": "x" * 2400 for i in range(60)}}, "at most 120000 fit into the one"),
        ({"hyperparameters": {"a": json.loads("[" * 600 + "]" * 600)}}, "'a' is nested more than 100 levels deep"),
        ({"dependencies": "lib"}, r"dependencies is one path, 'lib': pass a list, such as \['lib'\]"),
        ({"dependencies": Path("lib")}, "dependencies is one path"),
        ({"dependencies": {"lib"}}, "dependencies is a set: expected a list"),
        ({"dependencies": [None]}, "dependencies holds None, which is not a path"),
        ({"dependencies": [""]}, "dependencies holds ''"),
        ({"hyperparameters": {f"a{i}": 1 for i in range(96)}}, "at most 95"),
        ({"hyperparameters": [1]}, "hyperparameters is a list"),
        ({"entry_point": "train.ipynb"}, "not a script"),
        ({"timeout": 0}, "timeout 0 is not allowed"),
        ({"timeout": float("nan")}, "not allowed"),
        ({"timeout": True}, "not allowed"),
        ({"metric_definitions": {"m": "("}}, "not a regular expression"),
        ({"metric_definitions": {"m": "a(b)(c)"}}, "has 2 groups"),
        ({"environment": {"A-B": "x"}}, "not the name of an environment variable"),
        ({"environment": {"A": 1}}, "is not text"),
        ({"environment": {"SAGEMAKER_PROGRAM": "x.py"}}, "belongs to the training container.*entry_point"),
        ({"environment": {"SAGEMAKER_SUBMIT_DIRECTORY": "s3://b/x"}}, "source_dir"),
        ({"environment": {"SAGEMAKER_BASE_DIR": "/data"}}, "/opt/ml"),
        ({"environment": {"TRAINING_JOB_NAME": "x"}}, "pass job_name"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec(**values)


@pytest.mark.parametrize(
    "values", [{"name": "a_b"}, {"name": ""}, {"channels": {"a/b": None}}, {"channels": {"..": None}}]
)
def test_wrong_names_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidNameError):
        spec(**values)


def test_a_timeout_may_be_a_timedelta() -> None:
    assert spec(timeout=timedelta(minutes=1)).timeout == 60.0


def test_secrets_stay_out_of_the_repr() -> None:
    assert "token-1" not in repr(spec(environment={"TOKEN": "token-1"}))


@pytest.mark.parametrize("stem", ["train", "é", "_x_", "a" * 80, "my script.v2"])
def test_generated_names_are_valid_and_new(stem: str) -> None:
    names = {check_job_name(generate_job_name(f"some/{stem}.py")) for _ in range(5)}
    assert len(names) == 5


def test_a_spec_can_be_copied_and_sent_to_another_process(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path))
    spec = JobRunner(settings).spec(
        "train.py",
        {"train": "s3://bucket/data/", "here": tmp_path},
        hyperparameters={"layers": [1, {"a": None}]},
        environment={"MODE": "fast"},
        metric_definitions={"rmse": "rmse=(.*)"},
        sagemaker={"spot": True, "tags": {"team": "a"}, "extra": {"RetryStrategy": {"MaximumRetryAttempts": 2}}},
    )
    for again in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert again.plain_hyperparameters() == {"layers": [1, {"a": None}]}
        assert dict(again.environment) == {"MODE": "fast"}
        assert {name: channel.uri for name, channel in again.channels.items()} == {
            name: channel.uri for name, channel in spec.channels.items()
        }
        assert again.sagemaker == spec.sagemaker
        assert again.channels["train"].client().meta.region_name == "cn-northwest-1"
