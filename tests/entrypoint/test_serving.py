# ruff: noqa: N803 (X is scikit-learn's name for the feature matrix)
from __future__ import annotations

import inspect
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeRegressor

from smkit.entrypoint import LoadedModel, TrainingScript

if TYPE_CHECKING:
    from pathlib import Path


class Numbers(TrainingScript):
    target = "y"

    def build_model(self) -> Any:
        return DecisionTreeRegressor(random_state=0)


class Labels(TrainingScript):
    target = "y"

    def build_model(self) -> Any:
        columns = make_column_transformer((OneHotEncoder(), ["code"]), remainder="passthrough")
        return make_pipeline(columns, LogisticRegression(C=1e6))


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3], "y": [10.0, 20.0, 30.0]})
    frame.to_csv(tmp_path / "train.csv", index=False)
    Numbers.main(["--train", str(tmp_path / "train.csv"), "--model-dir", str(tmp_path / "model")])
    return tmp_path / "model"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    frame = pd.DataFrame(
        {"code": ["01", "02", "B1"] * 4, "on": [True, False, True] * 4, "y": ["low", "high", "low"] * 4}
    )
    frame.to_parquet(tmp_path / "train.parquet")
    Labels.main(["--train", str(tmp_path / "train.parquet"), "--model-dir", str(tmp_path / "model")])
    return tmp_path / "model"


def ask(script: type[TrainingScript], folder: Path, body: str | bytes, content_type: str, accept: str = "") -> Any:
    model_fn, input_fn, predict_fn, output_fn = script.serving_functions()
    return output_fn(predict_fn(input_fn(body, content_type), model_fn(str(folder))), accept)


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


ROWS = [[1.5, 1], [3.5, 3]]
NAMED = [{"b": 1, "a": 1.5, "extra": "x"}, {"b": 3, "a": 3.5, "extra": "y"}]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROWS), "application/json"),
        (json.dumps({"instances": ROWS}), "application/json; charset=utf-8"),
        (json.dumps(NAMED).encode(), "Application/JSON"),
        (json.dumps({"instances": NAMED}), ""),
        (json.dumps({"b": [1, 3], "a": [1.5, 3.5]}), "application/json"),
        ("1.5,1\n3.5,3\n", "text/csv"),
        (b"\xef\xbb\xbfb,extra,a\n1,x,1.5\n3,y,3.5\n", "text/csv; charset=utf-8"),
        ("a,b\r\n1.5,1\r\n3.5,3", "text/csv"),
        ("extra,a,b,extra\nx,1.5,1,x\ny,3.5,3,y\n", "text/csv"),
        (npy(np.array(ROWS)), "application/x-npy"),
        ("\n".join(map(json.dumps, NAMED)), "application/jsonlines"),
        ("\n".join(map(json.dumps, ROWS)).encode(), "application/jsonlines"),
    ],
)
def test_every_request_type(numbers: Path, body: str | bytes, content_type: str) -> None:
    assert ask(Numbers, numbers, body, content_type) == ('{"predictions": [10.0, 30.0]}', "application/json")


def test_one_row_as_an_object_and_a_missing_value(numbers: Path) -> None:
    assert json.loads(ask(Numbers, numbers, '{"a": 3.5, "b": 3}', "application/json")[0]) == {"predictions": [30.0]}
    assert len(json.loads(ask(Numbers, numbers, '[{"a": null, "b": 3}]', "application/json")[0])["predictions"]) == 1
    assert len(json.loads(ask(Numbers, numbers, "a,b\n,3\n", "text/csv")[0])["predictions"]) == 1


@pytest.mark.parametrize("accept", ["application/json", "*/*", "", "text/html, */*;q=0.1"])
def test_json_response(labels: Path, accept: str) -> None:
    body, content_type = ask(Labels, labels, '[["01", true], ["02", false]]', "application/json", accept)
    assert (json.loads(body), content_type) == ({"predictions": ["low", "high"]}, "application/json")


def test_csv_and_npy_responses(labels: Path) -> None:
    request = ("code,on\n01,true\n02,False\nB1,True\n", "text/csv")
    assert ask(Labels, labels, *request, "text/csv") == ("low\nhigh\nlow\n", "text/csv")
    body, content_type = ask(Labels, labels, *request, "application/x-npy")
    assert content_type == "application/x-npy"
    assert np.load(io.BytesIO(body), allow_pickle=False).tolist() == ["low", "high", "low"]


def test_csv_text_that_looks_like_a_number_keeps_the_type_of_training(labels: Path) -> None:
    assert ask(Labels, labels, "01,1\n", "text/csv", "text/csv")[0] == "low\n"


def test_two_dimensional_and_non_finite_predictions() -> None:
    _, _, _, output_fn = Numbers.serving_functions()
    assert output_fn(np.array([[0.25, 0.75], [1.0, 0.0]]), "text/csv")[0] == "0.25,0.75\n1.0,0.0\n"
    assert output_fn(np.array([1.0, math.nan, math.inf]), "application/json")[0] == '{"predictions": [1.0, null, null]}'


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (
            "<a/>",
            "application/xml",
            r"unsupported content type 'application/xml'; use one of application/json, .*text/csv",
        ),
        ("[[1, 2, 3]]", "application/json", r"expected 2 values a row \(a, b\), got 3"),
        ("1\n", "text/csv", r"expected 2 values a row \(a, b\), got 1"),
        ("a,c\n1,2\n", "text/csv", r"the request: missing columns 'b'; there are 'a', 'c'"),
        ('{"a": [1]}', "application/json", r"missing columns 'b'; there are 'a'"),
        ("a,b,a\n1,2,3\n", "text/csv", r"the request: repeated columns 'a'; there are 'a', 'b', 'a'"),
        ('[{"a": 1, "b": 2, "a": 3}]', "application/json", "repeated names 'a' in one JSON object"),
        ('{"a": [1], "b": [2], "b": [3], "a": [1]}', "application/json", "repeated names 'a', 'b' in one JSON object"),
        ('{"a": 1, "b": 2}\n{"a": 1, "b": 2, "b": 2}', "application/jsonlines", "repeated names 'b'"),
        ("a,b\n", "text/csv", "no rows"),
        ("x,1\n", "text/csv", r"column 'a': 'x' is not a number"),
        ("[]", "application/json", "expected rows"),
        ("[1, 2]", "application/json", "expected rows"),
        ("[[1, 2], [3]]", "application/json", "expected rows"),
        ('"text"', "application/json", "expected rows"),
        ("{", "application/json", "cannot read the request body as application/json: Expecting property name"),
        ("", "application/json", "the request body is empty: expected rows as application/json"),
        (b" \n", "application/jsonlines", "the request body is empty"),
        ("", "text/csv", "the request body is empty: expected rows as text/csv"),
        ("a,b\n1,2,3\n", "text/csv", "cannot read the request body as text/csv: .*Expected 2 fields"),
        (npy(np.array([1.0, 2.0])), "application/x-npy", r"shape \(rows, features\), got \(2,\)"),
        (npy(np.array([[None, 1]], dtype=object), allow_pickle=True), "application/x-npy", "allow_pickle=False"),
        ("text", "application/x-npy", "expected the bytes"),
        (b"", "application/x-npy", "the request body is empty"),
        (b"\x93NUMPY", "application/x-npy", "cannot read the request body as application/x-npy: EOF"),
        (npy(np.empty((0, 2))), "application/x-npy", "the request has no rows"),
        (b"a,b", "text/csv; charset=klingon", "unknown charset 'klingon'"),
        (b"\xff", "text/csv", "utf-8"),
    ],
)
def test_bad_requests(numbers: Path, body: str | bytes, content_type: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(Numbers, numbers, body, content_type)


def test_wrong_objects_by_hand(numbers: Path) -> None:
    model_fn, input_fn, predict_fn, _ = Numbers.serving_functions()
    model, frame = model_fn(str(numbers)), pd.DataFrame(ROWS, columns=["a", "b"])
    with pytest.raises(TypeError, match="the model is a DecisionTreeRegressor: pass what model_fn returned"):
        predict_fn(frame, model.estimator)
    with pytest.raises(TypeError, match="the input is a list: pass what input_fn returned, a DataFrame"):
        predict_fn(ROWS, model)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the request body is a dict: pass text or bytes"):
        input_fn({"a": 1}, "application/json")  # type: ignore[arg-type]
    assert list(predict_fn(frame, model)) == [10.0, 30.0]


def test_bad_boolean_and_bad_accept(labels: Path) -> None:
    with pytest.raises(ValueError, match="column 'on': 'maybe' is not true or false"):
        ask(Labels, labels, "code,on\n01,maybe\n", "text/csv")
    with pytest.raises(ValueError, match="unsupported accept type 'image/png'; use one of application/json, text/csv"):
        ask(Labels, labels, "01,1\n", "text/csv", "image/png")


def test_charset(tmp_path: Path) -> None:
    _, input_fn, _, _ = Numbers.serving_functions()
    assert input_fn("é,1".encode("latin-1"), "text/csv; charset=ISO-8859-1").iloc[0, 0] == "é"


def test_dates_and_categories_get_their_type_back(tmp_path: Path) -> None:
    class Seen(Exception):
        pass

    class Dates(TrainingScript):
        target = "y"

        def build_model(self) -> Any:
            return DecisionTreeRegressor()

        def fit(self, model: Any, X: Any, y: Any) -> None:
            model.fit(X[["n"]], y)

        def evaluate(self, model: Any, X: Any, y: Any) -> dict[str, float]:
            return {"rows": len(X)}

        def predict(self, model: Any, frame: pd.DataFrame) -> Any:
            raise Seen(
                frame.to_dict("records"), frame.dtypes.astype(str).str.replace(r"\[.*", "", regex=True).to_dict()
            )

    when = pd.to_datetime(["2026-01-01", "2026-01-02"])
    frame = pd.DataFrame({"when": when, "kind": pd.Categorical(["1", "2"]), "n": [1, 2], "y": [0.0, 1.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    Dates.main(["--train", str(tmp_path), "--model-dir", str(tmp_path / "model")])
    with pytest.raises(Seen) as caught:
        ask(Dates, tmp_path / "model", "2026-01-02,2,7\n", "text/csv")
    rows, dtypes = caught.value.args
    assert rows == [{"when": pd.Timestamp("2026-01-02"), "kind": "2", "n": 7}]
    assert dtypes == {"when": "datetime64", "kind": "category", "n": "int64"}


def test_the_functions_have_the_servers_signatures(numbers: Path) -> None:
    """The inference toolkit counts parameters: one more would mean that a function wants the request's context."""
    functions = Numbers.serving_functions()
    assert [list(inspect.signature(function).parameters) for function in functions] == [
        ["model_dir"],
        ["request_body", "content_type"],
        ["input_data", "model"],
        ["prediction", "accept"],
    ]
    loaded = functions[0](str(numbers))
    assert isinstance(loaded, LoadedModel)
    assert isinstance(loaded.estimator, DecisionTreeRegressor)
    assert loaded.signature["target"] == "y"


def test_a_model_trained_on_an_array_takes_rows_by_position(tmp_path: Path) -> None:
    class Array(Numbers):
        def split_features(self, frame: pd.DataFrame) -> tuple[Any, Any]:
            return frame[["a", "b"]].to_numpy(), frame["y"]

    pd.DataFrame({"a": [1.5, 3.5], "b": [1, 3], "y": [10.0, 30.0]}).to_csv(tmp_path / "a.csv", index=False)
    Array.main(["--train", str(tmp_path), "--model-dir", str(tmp_path / "model")])
    for body, content_type in ((json.dumps(ROWS), "application/json"), ("1.5,1\n3.5,3\n", "text/csv")):
        assert json.loads(ask(Array, tmp_path / "model", body, content_type)[0]) == {"predictions": [10.0, 30.0]}
