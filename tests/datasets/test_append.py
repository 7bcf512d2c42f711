"""A version that holds another's rows and the new ones: which rows, which split, which files, which parent."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smkit import Dataset, DatasetBuilder, DatasetStore, Settings
from smkit.datasets import writing
from smkit.errors import ConfigError, DatasetError, IntegrityError, MissingColumnError, VersionNotFound
from smkit.storage.folder import FolderStore
from smkit.storage.s3 import S3Store
from tests.datasets.conftest import BatchSource, TableSource, files_below
from tests.datasets.test_faults import finish, start, stop_at

if TYPE_CHECKING:
    from collections.abc import Iterable


def rows(ids: Iterable[int], **columns: Any) -> pa.Table:
    ids = list(ids)
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [f"house {number}" for number in ids], **columns})


def builder(table: pa.Table, settings: Settings) -> DatasetBuilder:
    return DatasetBuilder("houses", TableSource(table), settings)


def ids_of(dataset: Dataset) -> dict[str, list[int]]:
    return {split: dataset.read_arrow(split)["id"].to_pylist() for split in dataset.splits}


@pytest.fixture(params=["folder", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    if request.param == "folder":
        return Settings(root=tmp_path / "store")
    request.getfixturevalue("aws_env")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Settings(root=f"s3://{request.getfixturevalue('bucket')}/project", region="cn-northwest-1")


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_only_rows_with_new_keys_are_added(anywhere: Settings, file_format: Any) -> None:
    first = builder(rows(range(100)), anywhere).split(test=0.3, by="id").build(format=file_format)
    second = builder(rows(range(50, 150)), anywhere).append("id").build(format=file_format)
    assert (first.ref, second.ref) == ("houses@1", "houses@2")
    before, after = ids_of(first), ids_of(second)
    assert sorted(number for ids in after.values() for number in ids) == list(range(150))
    assert {split: ids[: len(before[split])] for split, ids in after.items()} == before
    assert dict(second.rows) == {split: len(ids) for split, ids in after.items()}
    assert second.manifest.body["append"] == {"key": ("id",), "rows_new": 50, "rows_known": 50}
    second.verify()
    first.verify()
    # The same rule and seed: as if all rows had been there from the start.
    whole = DatasetBuilder("whole", TableSource(rows(range(150))), anywhere).split(test=0.3, by="id").build()
    assert {split: sorted(ids) for split, ids in ids_of(whole).items()} == {
        split: sorted(ids) for split, ids in after.items()
    }


def test_old_files_are_not_written_again(anywhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = builder(rows(range(100)), anywhere).split(test=0.3, by="id").build()
    uploads: list[str] = []
    kind = S3Store if anywhere.root.startswith("s3://") else FolderStore
    real = kind.upload

    def upload(self: Any, key: str, source: Any) -> Any:
        uploads.append(key)
        return real(self, key, source)

    monkeypatch.setattr(kind, "upload", upload)
    second = builder(rows(range(100, 130)), anywhere).append("id").build()
    old = {file.path: file for file in first.manifest.files}
    assert {file.path: file for file in second.manifest.files if file.path in old} == old
    assert {Path(key).name for key in uploads} <= {"part-00001.parquet"}
    if kind is FolderStore:
        for path in old:
            assert (Path(first.uri) / path).samefile(Path(second.uri) / path)
        first._log.prune("houses", 1)
        second.verify()
        assert len(second.read()) == 130


@pytest.mark.parametrize("why", ["no links", "not mine"])
def test_where_files_cannot_have_two_names_they_are_copied(
    why: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = builder(rows(range(100)), settings).build()
    real = os.link

    def link(source: Any, target: Any) -> None:
        if Path(target).name.startswith("kept-"):
            raise PermissionError(1, "Operation not permitted")
        real(source, target)

    if why == "no links":
        monkeypatch.setattr(os, "link", link)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    second = builder(rows(range(100, 130)), settings).append("id").build()
    path = first.manifest.files[0].path
    assert not (Path(first.uri) / path).samefile(Path(second.uri) / path)
    second.verify()


@pytest.mark.parametrize("table", [rows(range(100)), rows([]), rows([7])])
def test_nothing_new_is_the_version_that_is_there(table: pa.Table, anywhere: Settings) -> None:
    first = builder(rows(range(100)), anywhere).split(test=0.3, by="id").build()
    assert builder(table, anywhere).append("id").build() == first
    assert DatasetStore(anywhere).get("houses") == first


def test_the_same_append_twice_is_one_version(settings: Settings) -> None:
    first = builder(rows(range(100)), settings).build()
    append = builder(rows(range(100, 120)), settings).append("id", to=first)
    second = append.build()
    assert append.build() == second
    assert second.ref == "houses@2"
    assert len(DatasetStore(settings).versions("houses")) == 2


def test_without_a_version_all_rows_are_new(settings: Settings) -> None:
    first = builder(rows(range(10)), settings).append("id").build()
    assert (first.ref, first.parents, dict(first.rows)) == ("houses@1", (), {"train": 10})
    with pytest.raises(DatasetError, match="the key 'id' occurs more than once"):
        builder(rows([1, 1]), Settings(root=Path(settings.root) / "other")).append("id").build()


def test_to_an_older_version(settings: Settings) -> None:
    first = builder(rows(range(10)), settings).build()
    builder(rows(range(20)), settings).build()
    for to in ("houses@1", first):
        third = builder(rows(range(8, 12)), settings).append("id", to=to).build()
        assert sorted(third.read()["id"]) == list(range(12))
        assert [parent.ref for parent in third.parents] == ["houses@1"]


def test_another_version_that_comes_in_between_changes_nothing(settings: Settings) -> None:
    first = builder(rows(range(10)), settings).build()

    class Slow(TableSource):
        def batches(self, *, batch_size: int = 1) -> Any:
            builder(rows(range(500, 510)), settings).append("id").build()
            yield from super().batches(batch_size=batch_size)

    slow = DatasetBuilder("houses", Slow(rows(range(5, 15))), settings).append("id").build()
    assert slow.ref == "houses@3"
    assert [parent.ref for parent in slow.parents] == [first.ref]
    assert sorted(slow.read()["id"]) == list(range(15))


def test_keys_of_several_columns(settings: Settings) -> None:
    table = pa.table({"city": ["a", "a", "b"], "number": [1, 2, 1], "price": [1.0, 2.0, 3.0]})
    DatasetBuilder("houses", TableSource(table), settings).build()
    new = pa.table({"city": ["a", "b", "b"], "number": [2, 1, 2], "price": [9.0, 9.0, 4.0]})
    both = DatasetBuilder("houses", TableSource(new), settings).append(["city", "number"]).build()
    assert both.read_arrow()["price"].to_pylist() == [1.0, 2.0, 3.0, 4.0]


def test_bad_keys_are_refused(settings: Settings) -> None:
    builder(rows(range(10)), settings).build()
    with pytest.raises(
        DatasetError, match=r"the key 'id' occurs more than once among the new rows: 11, 12; name a row"
    ):
        builder(rows([11, 3, 12, 11, 12]), settings).append("id").build()
    missing = pa.table({"id": pa.array([20, None], pa.int64()), "name": ["a", "b"]})
    with pytest.raises(DatasetError, match=r"the key 'id' is missing in row 1; drop such rows"):
        builder(missing, settings).append("id").build()
    nan = pa.table({"id": [1.5, float("nan")], "name": ["a", "b"]})
    with pytest.raises(DatasetError, match="is missing in row 1"):
        builder(nan, settings).append("id").build()
    with pytest.raises(MissingColumnError, match="append to houses@1: there is no column 'nmae'; did you mean 'name'"):
        builder(rows([1]), settings).append("nmae").build()
    with pytest.raises(MissingColumnError, match="append: there is no column 'id'"):
        builder(rows([1]).drop_columns(["id"]), settings).append("id").build()
    assert len(DatasetStore(settings).versions("houses")) == 1


def test_columns_must_be_those_of_the_version(settings: Settings) -> None:
    builder(rows(range(10), price=[1.0] * 10), settings).build()
    for table, message in [
        (rows([11]), "they are without 'price'"),
        (rows([11], price=[1.0], rooms=[1]), "they are with 'rooms'"),
        (rows([11], price=[1.0]).select(["id", "price", "name"]), "in another order"),
        (rows([11], price=["dear"]), "'price' is string instead of double"),
    ]:
        with pytest.raises(DatasetError, match=f"the new rows do not fit .*{message}"):
            builder(table, settings).append("id").build()
    # What no value is lost of: a column of NULLs, a narrower number.
    table = pa.table({"id": pa.array([11], pa.int32()), "name": pa.nulls(1), "price": pa.array([3], pa.int8())})
    both = builder(table, settings).append("id").build()
    assert both.schema == DatasetStore(settings).get("houses@1").schema
    assert both.read_arrow().slice(10).to_pylist() == [{"id": 11, "name": None, "price": 3.0}]


def test_a_rule_that_counts_rows_cannot_grow(settings: Settings) -> None:
    table = rows(range(100), city=["a", "b"] * 50)
    for number, rule in enumerate([{"stratify": "city"}, {"group": "id"}, {"time": "id"}]):
        name = f"houses-{number}"
        DatasetBuilder(name, TableSource(table), settings).split(test=0.3, **rule).build()  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="places a row by counts over all rows"):
            DatasetBuilder(name, TableSource(table), settings).append("id").build()
        with pytest.raises(ConfigError, match="places a row by counts over all rows"):
            DatasetBuilder("new", TableSource(table), settings).append("id").split(test=0.3, **rule).build()  # type: ignore[arg-type]


def test_another_rule_or_format_is_refused(settings: Settings) -> None:
    builder(rows(range(100)), settings).split(test=0.3, by="id").build()
    new = builder(rows(range(90, 110)), settings).append("id")
    for rule in ({"test": 0.3, "by": "name"}, {"test": 0.2, "by": "id"}, {"test": 0.3, "by": "id", "seed": 1}):
        with pytest.raises(ConfigError, match=r"houses@1 is split by .*'hash'.*leave split\(\) out"):
            new.split(**rule).build()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"houses@1 holds parquet files, not csv: build\(format='parquet'\)"):
        new.build(format="csv")
    assert new.split(test=0.3, by="id").build().ref == "houses@2"


def test_random_shares_are_exact_over_old_and_new_rows(settings: Settings) -> None:
    last = builder(rows(range(100)), settings).split(test=0.2, validation=0.1).build()
    for number in range(100, 112):
        before = ids_of(last)
        last = builder(rows([number]), settings).append("id").build()
        assert {split: ids[: len(before[split])] for split, ids in ids_of(last).items()} == before
    assert dict(last.rows) == {"train": 77, "validation": 12, "test": 23}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "key=\\(\\): expected a column's name"),
        ((True,), "key=True"),
        ((["a", "a"],), "expected a column's name, or a list of different names"),
    ],
)
def test_wrong_arguments(arguments: Any, message: str, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=message):
        builder(rows([1]), settings).append(*arguments)
    with pytest.raises(ConfigError, match="to=3: expected a reference such as 'houses@3', or a dataset"):
        builder(rows([1]), settings).append("id", to=3)  # type: ignore[arg-type]


def test_to_what_is_not_there(settings: Settings, tmp_path: Path) -> None:
    first = builder(rows(range(10)), settings).build()
    with pytest.raises(VersionNotFound, match="no version 7"):
        builder(rows([1]), settings).append("id", to="houses@7").build()
    with pytest.raises(ConfigError, match="rows are added to a version of 'houses'"):
        builder(rows([1]), settings).append("id", to="flats@1").build()
    elsewhere = Settings(root=tmp_path / "elsewhere")
    builder(rows(range(10)), elsewhere).build()
    with pytest.raises(ConfigError, match="lies in another store"):
        builder(rows([1]), elsewhere).append("id", to=first).build()


def test_a_damaged_version_is_not_added_to(settings: Settings) -> None:
    first = builder(rows(range(10)), settings).build()
    path = Path(first.uri) / first.manifest.files[0].path
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IntegrityError, match="is damaged"):
        builder(rows([11]), settings).append("id").build()


def test_more_than_one_part(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 10)
    monkeypatch.setattr(writing, "ROWS_PER_PART", 20)
    builder(rows(range(50)), settings).build()
    second = builder(rows(range(50, 95)), settings).append("id").build()
    assert [Path(file.path).stem for file in second.manifest.files] == [f"part-{number:05}" for number in range(6)]
    assert second.read_arrow()["id"].to_pylist() == list(range(95))


KEYS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", ""])), unique=True)


@hypothesis_settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=KEYS.filter(bool), new=KEYS, batch_size=st.integers(1, 9))
def test_an_append_is_the_union_by_key(
    old: list[Any], new: list[Any], batch_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(root=tmp_path_factory.mktemp("store"))

    def table(keys: list[Any], who: str) -> pa.Table:
        numbers, letters = [key[0] for key in keys], [key[1] for key in keys]
        return pa.table(
            [pa.array(numbers, pa.int64()), pa.array(letters, pa.string()), pa.array([who] * len(keys), pa.string())],
            names=["number", "letter", "who"],
        )

    DatasetBuilder("houses", TableSource(table(old, "old")), settings).build()
    source = BatchSource(table(new, "new"))
    both = DatasetBuilder("houses", source, settings).append(["number", "letter"]).build(batch_size=batch_size)
    expected = [(*key, "old") for key in old] + [(*key, "new") for key in new if key not in old]
    assert [tuple(row.values()) for row in both.read_arrow().to_pylist()] == expected


@pytest.mark.parametrize("point", ["reading", "linking", "moving", "committing"])
def test_a_kill_in_mid_append_leaves_the_store_whole(point: str, tmp_path: Path) -> None:
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    result, err = finish(start(root, temporary, ids_from=0))
    assert result["ref"] == "houses@1", err
    options: dict[str, Any] = {"ids_from": 500, "append": True, "batch_size": 100}
    code, err = stop_at(point, signal.SIGKILL, root, temporary, **options)
    assert code == -signal.SIGKILL, err
    store = DatasetStore(Settings(root=root))
    assert [version.ref for version in store.versions("houses")] == ["houses@1"]
    store.verify()
    result, err = finish(start(root, temporary, **options))
    assert result["ref"] == "houses@2", err
    store.verify()
    assert sorted(store.get("houses").read()["id"]) == list(range(1500))


def test_ctrl_c_in_mid_append_leaves_nothing(tmp_path: Path) -> None:
    root, temporary = tmp_path / "store", tmp_path / "temporary"
    finish(start(root, temporary, ids_from=0))
    before = files_below(root)
    code, err = stop_at("linking", signal.SIGINT, root, temporary, ids_from=500, append=True)
    assert code == -signal.SIGINT, err
    assert files_below(root) == before
    assert files_below(temporary) == []


@pytest.mark.slow
def test_memory_of_append_and_diff_grows_with_keys_alone(tmp_path: Path) -> None:
    """600,000 rows more are 100 MB of values; an append keeps 16 bytes of each, a diff 25 of each on either side."""
    peaks: dict[str, list[int]] = {"append": [], "diff": []}
    for thousands in (300, 900):
        root, count = tmp_path / f"store-{thousands}", thousands * 1000
        options = {"rows": count, "columns": 20, "batch_size": 16_384, "ids_from": 0}
        result, err = finish(start(root, tmp_path / "temporary", **options))
        assert result, err
        options |= {"rows": 300_000, "ids_from": count - 100_000, "append": True}
        result, err = finish(start(root, tmp_path / "temporary", **options))
        assert result["ref"] == "houses@2", err
        peaks["append"].append(result["peak"])
        result, err = finish(start(root, tmp_path / "temporary", diff=["houses@1", "houses@2"]))
        assert (result["added"], result["removed"], result["changed"]) == (200_000, 0, 0), err
        peaks["diff"].append(result["peak"])
    growth = {name: more - less for name, (less, more) in peaks.items()}
    assert growth["append"] < 40 << 20, growth
    assert growth["diff"] < 80 << 20, growth
