from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from smkit.entrypoint import ScriptError, TrainingScript

if TYPE_CHECKING:
    from pathlib import Path


class Script(TrainingScript):
    def build_model(self) -> Any:
        raise AssertionError("not called")


def load(path: Path) -> pd.DataFrame:
    return Script(channel_paths={"train": path}).load_channel("train")


def test_all_formats_of_a_folder_in_the_order_of_their_paths(tmp_path: Path) -> None:
    folder = tmp_path / ".hidden-parent" / "year=2026"
    (folder / "z").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    rows = [pd.DataFrame({"i": [n], "x": [n + 0.1], "s": [f"{n}"]}) for n in range(7)]
    rows[0].to_csv(folder / "a.csv", index=False)
    rows[1].to_csv(folder / "b.csv.gz", index=False)
    rows[2].to_parquet(folder / "c.parquet")
    rows[3].to_parquet(folder / "d.pq")
    (folder / "e.jsonl").write_text('{"s": "0004", "i": 4, "x": 4.1}\n\n', encoding="utf-8")
    (folder / "f.NDJSON").write_text('{"i": 5, "x": 5.1, "s": "a\u2028b"}', encoding="utf-8")
    rows[6].to_csv(folder / "z/g.csv", index=False)
    for ignored in (".secret.csv", ".ipynb_checkpoints/a.csv", "_SUCCESS", "README.txt"):
        (folder / ignored).write_text("not,read\n1,2\n", encoding="utf-8")
    frame = load(folder)
    assert list(frame.columns) == ["i", "x", "s"]
    assert frame.i.tolist() == list(range(7))
    assert frame.x.tolist() == [n + 0.1 for n in range(7)]
    assert frame.s.tolist()[4:6] == ["0004", "a\u2028b"]
    assert frame.index.tolist() == list(range(7))


def test_floats_of_csv_and_json_lines_are_exact(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = (random.standard_normal(5000) * 10.0 ** random.integers(-30, 30, 5000)).tolist()
    (tmp_path / "a.csv").write_text("x\n" + "\n".join(map(repr, values)), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"x": value}) for value in values), encoding="utf-8")
    assert load(tmp_path).x.tolist() == values * 2


def test_csv_missing_values_are_pandas_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b,c\n1,NA,\n,"",x\n', encoding="utf-8")
    pd.testing.assert_frame_equal(load(path), pd.read_csv(path))
    assert load(path).isna().sum().tolist() == [1, 2, 1]


def test_a_part_without_rows_does_not_change_types(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("b,a\n1,2\n", encoding="utf-8")
    frame = load(tmp_path)
    assert (frame.a.tolist(), frame.a.dtype) == ([2], "int64")


def write_nothing(folder: Path) -> None: ...


def write_only_other_files(folder: Path) -> None:
    (folder / "data.xlsx").touch()


def write_no_rows(folder: Path) -> None:
    (folder / "a.csv").write_text("a,b\n", encoding="utf-8")


def write_empty_csv(folder: Path) -> None:
    (folder / "a.csv").touch()


def write_other_columns(folder: Path) -> None:
    (folder / "a.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (folder / "b.csv").write_text("a,c\n1,2\n", encoding="utf-8")


def write_broken_gzip(folder: Path) -> None:
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-20])


def write_broken_parquet(folder: Path) -> None:
    (folder / "a.parquet").write_bytes(b"PAR1 no")


def write_broken_json(folder: Path) -> None:
    (folder / "a.jsonl").write_text('{"a": 1}\n{"a": ', encoding="utf-8")


def write_scalars(folder: Path) -> None:
    (folder / "a.jsonl").write_text("1\n2\n", encoding="utf-8")


def write_latin_1(folder: Path) -> None:
    (folder / "a.csv").write_bytes("a\n\xe9".encode("latin-1"))


def write_latin_1_json(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes('{"a": "\xe9"}'.encode("latin-1"))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_nothing, r"channel 'train': no \.csv, .* file in .*; found nothing"),
        (write_only_other_files, r"found data\.xlsx"),
        (write_no_rows, "channel 'train': no rows in"),
        (write_empty_csv, r"cannot read .*a\.csv: No columns"),
        (write_other_columns, r"b\.csv has the columns \['a', 'c'\], but .*a\.csv has \['a', 'b'\]"),
        (write_broken_gzip, r"cannot read .*a\.csv\.gz"),
        (write_broken_parquet, r"cannot read .*a\.parquet"),
        (write_broken_json, r"cannot read .*a\.jsonl"),
        (write_scalars, "expected rows"),
        (write_latin_1, r"cannot read .*a\.csv: it is not UTF-8 \(.*\)\. Convert it: `iconv .* -t UTF-8`"),
        (write_latin_1_json, r"cannot read .*a\.jsonl: it is not UTF-8"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, write: Any, message: str) -> None:
    write(tmp_path)
    with pytest.raises(ScriptError, match=message):
        load(tmp_path)
