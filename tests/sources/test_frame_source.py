"""FrameSource: a snapshot and its digest."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smkit.errors import ConfigError
from smkit.sources import FrameSource


def test_later_changes_of_the_frame_do_not_reach_the_source() -> None:
    values = np.array([1.0, 2.0, 3.0])
    frame = pd.DataFrame({"x": values}, copy=False)
    source = FrameSource(frame)
    before = source.describe()
    values[0] = 99.0
    frame.loc[1, "x"] = 98.0
    assert source.read()["x"].tolist() == [1.0, 2.0, 3.0]
    assert source.describe() == before


def test_what_is_read_can_be_changed_without_harm() -> None:
    source = FrameSource(pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]}))
    read = source.read()
    read["x"] = 0.0
    read["y"] = "z"
    assert source.read()["x"].tolist() == [1.0, 2.0]


BASE = pd.DataFrame({"a": [1, 2], "b": ["x", None]})


@pytest.mark.parametrize(
    "other",
    [
        BASE.assign(a=[1, 3]),
        BASE.assign(a=[1.0, 2.0]),
        BASE.assign(b=["x", ""]),
        BASE.assign(b=[None, "x"]),
        BASE.rename(columns={"a": "c"}),
        BASE[["b", "a"]],
        BASE.iloc[:1],
        BASE.iloc[::-1],
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [None, None]}),
    ],
)
def test_the_digest_tells_frames_apart(other: pd.DataFrame) -> None:
    assert FrameSource(other).describe()["sha256"] != FrameSource(BASE).describe()["sha256"]


def test_the_digest_is_of_the_content_only() -> None:
    sliced = pd.concat([pd.DataFrame({"a": [0], "b": ["q"]}), BASE]).iloc[1:].reset_index(drop=True)
    assert FrameSource(sliced).describe() == FrameSource(BASE).describe()


def test_the_digest_knows_where_one_text_ends() -> None:
    one = FrameSource(pd.DataFrame({"x": ["ab", "c"]})).describe()["sha256"]
    assert FrameSource(pd.DataFrame({"x": ["a", "bc"]})).describe()["sha256"] != one


def test_the_digest_is_the_same_on_every_machine() -> None:
    frame = pd.DataFrame({"i": [1, 2], "s": ["x", None], "t": pd.to_datetime(["2024-01-01", None]).as_unit("us")})
    digest = FrameSource(frame).describe()["sha256"]
    assert digest == "d4392cbc7cf4de3c634b3d073e8b00049616cc7614466169c9bfe3871f2b1edd"


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs a pandas DataFrame, not dict"):
        FrameSource({"a": [1]})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "fix"),
    [("a.csv", "FileSource('a.csv')"), (Path("a.csv"), "FileSource('a.csv')"), ("s3://b/k", "S3Source('s3://b/k')")],
)
def test_a_path_gets_the_source_that_reads_it(value: object, fix: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fix)):
        FrameSource(value)  # type: ignore[arg-type]


def test_a_column_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no name: rename it"):
        FrameSource(pd.DataFrame({"": [0, 1], "a": [1, 2]}))


def test_no_rows() -> None:
    source = FrameSource(pd.DataFrame({"a": pd.Series([], dtype="int64")}))
    assert list(source.batches()) == []
    assert source.read().shape == (0, 1)
