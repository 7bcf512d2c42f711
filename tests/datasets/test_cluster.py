"""A build on a Dask cluster gives what a single machine gives, byte for byte, also where it fails."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import cloudpickle
import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import smkit
from smkit import Column, Dataset, DatasetBuilder, DatasetStore, FileSource, S3Source, Schema, Settings
from smkit.config import PostgresSettings
from smkit.datasets import writing
from smkit.datasets.cluster import tasks
from smkit.datasets.cluster.storing import Target, write_part
from smkit.datasets.cluster.units import for_workers
from smkit.datasets.cluster.work import Work
from smkit.errors import (
    ConfigError,
    DatasetError,
    EmptyResultError,
    EmptySplitError,
    MissingColumnError,
    SchemaViolationError,
    SmkitError,
    SourceNotFound,
    StorageError,
    TransformError,
)
from tests.datasets.clusters import started_cluster, variables_of_workers
from tests.datasets.conftest import BatchSource, files_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Make = Callable[[Settings], DatasetBuilder]

#: Uneven on purpose: batches of any size cross the ends of files; the third file has no rows.
SIZES = (100, 7, 0, 350, 3, 2, 61)
BATCH = 33


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    with started_cluster() as started:
        yield started


def frame(start: int, rows: int) -> pd.DataFrame:
    random = np.random.default_rng(start)
    return pd.DataFrame(
        {
            "id": np.arange(start, start + rows) % 400,
            "city": random.choice(["Yinchuan", "Zhongwei", "Wuzhong"], rows),
            "area": np.where(random.random(rows) < 0.1, np.nan, random.random(rows) + 1),
            "price": random.integers(1, 9_000, rows),
            "sold": pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 10**6, rows), unit="s"),
        }
    ).astype({"city": "object"})


def write_files(folder: Path, kind: str, sizes: Sequence[int] = SIZES) -> Path:
    folder.mkdir(exist_ok=True)
    start = 0
    for number, rows in enumerate(sizes):
        path = folder / f"{number:02}.{kind}"
        part = frame(start, rows)
        part.to_csv(path, index=False) if kind == "csv" else part.to_parquet(path, index=False)
        start += rows
    return folder


TYPES = {"id": "int64", "city": "string", "area": "float64", "price": "int64", "sold": "timestamp[s]"}


def houses(source: Any) -> Make:
    return lambda settings: DatasetBuilder("houses", source, settings)


def per_area(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(per_area=rows["price"] / rows["area"])


def outcome(make: Make, settings: Settings, **arguments: Any) -> Dataset | SmkitError:
    try:
        return make(settings).build(batch_size=BATCH, **arguments)
    except SmkitError as error:
        return error


def body_of(dataset: Dataset) -> dict[str, Any]:
    """What the manifest says, but for the places of parents, which lie in two stores."""
    body = {name: value for name, value in dataset.manifest.body.items() if name not in {"parents", "source"}}
    body["parents"] = [(parent.ref, parent.relation, parent.digest) for parent in dataset.parents]
    body["source"] = {name: value for name, value in dataset.manifest.body["source"].items() if name != "uri"}
    return body


def assert_same(make: Make, here: Settings, there: Settings, client: Any, **arguments: Any) -> Dataset | SmkitError:
    """Build on one machine and on the cluster; whatever comes of it must be the same. Return that of the cluster."""
    alone = outcome(make, here, **arguments)
    together = outcome(make, there, client=client, **arguments)
    if isinstance(alone, SmkitError):
        assert type(together) is type(alone), together
        assert str(together) == str(alone)
        assert {k: str(v) for k, v in vars(together).items()} == {k: str(v) for k, v in vars(alone).items()}
        assert type(together.__cause__) is type(alone.__cause__)
        assert DatasetStore(there).versions("houses") == []
    else:
        assert isinstance(together, Dataset), together
        assert together.digest == alone.digest
        assert together.manifest.files == alone.manifest.files
        assert body_of(together) == body_of(alone)
        together.verify()
    return together


@pytest.fixture
def s3_roots(aws_env: str, bucket: str, client: distributed.Client, tmp_path: Path) -> Iterator[tuple[Settings, ...]]:
    """Two stores in S3, which the workers reach with an identity of their own."""
    with variables_of_workers(client, {name: value for name, value in os.environ.items() if name.startswith("AWS_")}):
        yield Settings(root=f"s3://{bucket}/alone"), Settings(root=f"s3://{bucket}/together")


def everything(builder: DatasetBuilder) -> DatasetBuilder:
    return (
        builder.clean(drop_missing=["area"], drop_duplicates=["id"])
        .map(lambda rows: rows[rows["price"] > 100])
        .map(lambda rows: rows.assign(per_area=rows["price"] / rows["area"]))
        .check(Schema({"id": Column("int64", unique=True), "price": Column("int64", min=0)}))
        .clean(drop_duplicates=["price"])
    )


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_into_a_folder(
    kind: str, file_format: Any, roots: tuple[Settings, Settings], client: Any, tmp_path: Path
) -> None:
    source = FileSource(write_files(tmp_path / "raw", kind), column_types=TYPES)
    built = assert_same(
        lambda settings: everything(houses(source)(settings)).split(test=0.2, validation=0.1),
        *roots,
        client,
        format=file_format,
    )
    assert isinstance(built, Dataset)
    assert built.splits == ("train", "validation", "test")
    # Nothing is left beside the version.
    assert [name for name in files_below(tmp_path / "together") if "build" in name] == []


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_objects_into_s3(
    file_format: Any, s3_roots: tuple[Settings, Settings], client: Any, bucket: str, tmp_path: Path
) -> None:
    kind = "csv" if file_format == "parquet" else "parquet"
    s3 = boto3.client("s3", region_name="cn-northwest-1")
    for path in sorted(write_files(tmp_path / "raw", kind).iterdir()):
        s3.upload_file(str(path), bucket, f"raw/{path.name}")
    source = S3Source(
        f"s3://{bucket}/raw/",
        column_types=TYPES,
        columns=["price", "id", "area"],
        filters=[("city", "!=", "Wuzhong")],
    )
    built = assert_same(
        lambda settings: everything(houses(source)(settings)).split(test=0.25, by="id"),
        *s3_roots,
        client,
        format=file_format,
    )
    assert isinstance(built, Dataset)
    stored = s3.list_objects_v2(Bucket=bucket, Prefix="together/datasets/houses/data/")["Contents"]
    assert len(stored) == len(built.manifest.files) == 2
    # The rows are there already: the version is returned, and nothing is left of what the workers stored.
    again = everything(houses(source)(s3_roots[1])).split(test=0.25, by="id").build(client=client, format=file_format)
    assert again == built
    assert s3.list_objects_v2(Bucket=bucket, Prefix="together/datasets/houses/data/")["KeyCount"] == 2


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"test": 0.2, "stratify": "city"},
        {"test": 0.2, "validation": 0.2, "group": ["city", "price"]},
        {"test": 0.3, "time": "sold", "seed": 3},
        {"test": 0.3, "by": "city"},
        {"test": 0.3, "by": "citty"},
    ],
    ids=str,
)
def test_every_split_rule(rule: dict[str, Any], roots: tuple[Settings, Settings], client: Any, tmp_path: Path) -> None:
    source = FileSource(write_files(tmp_path / "raw", "parquet"))
    make = houses(source)
    built = assert_same(lambda settings: make(settings).split(**rule) if rule else make(settings), *roots, client)
    assert isinstance(
        built, {"city": (Dataset, EmptySplitError), "citty": MissingColumnError}.get(rule.get("by"), Dataset)
    )  # type: ignore[arg-type]


def test_types_that_pandas_lacks_are_kept(roots: tuple[Settings, Settings], client: Any, tmp_path: Path) -> None:
    """Of some columns a file, or every file, has no value."""
    table = pa.table(
        {
            "price": pa.array(["1.50", None, "99.00", "12345678.90"]).cast(pa.decimal128(10, 2)),
            "items": pa.array([[], None, [1], []], pa.list_(pa.int32())),
            "none": pa.array([[], None, [], []], pa.list_(pa.date32())),
            "sold": pa.array([None] * 4, pa.date32()),
        }
    )
    (tmp_path / "raw").mkdir()
    for number in range(4):
        pq.write_table(table.slice(number, 1), tmp_path / f"raw/{number}.parquet")
    source = FileSource(tmp_path / "raw")
    twice = assert_same(lambda s: houses(source)(s).map(lambda rows: rows).map(lambda rows: rows), *roots, client)
    assert isinstance(twice, Dataset)
    assert twice.read_arrow().equals(table)


@pytest.fixture
def small_parts(client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def set_sizes(group: int, part: int) -> None:
        writing.ROWS_PER_GROUP, writing.ROWS_PER_PART = group, part

    before = writing.ROWS_PER_GROUP, writing.ROWS_PER_PART
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 20)
    monkeypatch.setattr(writing, "ROWS_PER_PART", 60)
    client.run(set_sizes, 20, 60)
    yield
    client.run(set_sizes, *before)


@pytest.mark.usefixtures("small_parts")
def test_many_parts_and_a_dataset_as_source(roots: tuple[Settings, Settings], client: Any, tmp_path: Path) -> None:
    source = FileSource(write_files(tmp_path / "raw", "parquet"))
    built = assert_same(lambda settings: houses(source)(settings).split(test=0.4), *roots, client)
    assert isinstance(built, Dataset)
    assert [file.path for file in built.manifest.files] == [
        *(f"test/part-{number:05}.parquet" for number in range(4)),
        *(f"train/part-{number:05}.parquet" for number in range(6)),
    ]
    for part in (built, built["train"]):
        alone = DatasetBuilder("flats", part, roots[0]).map(per_area).build(batch_size=BATCH)
        together = DatasetBuilder("flats", part, roots[1]).map(per_area).build(batch_size=BATCH, client=client)
        assert together.manifest.files == alone.manifest.files
        assert body_of(together) == body_of(alone)
        assert [parent.ref for parent in together.parents] == ["houses@1"]


@pytest.mark.usefixtures("small_parts")
def test_rows_are_added_to_a_version(roots: tuple[Settings, Settings], client: Any, tmp_path: Path) -> None:
    first = FileSource(write_files(tmp_path / "first", "parquet", [50, 30]))
    more = FileSource(write_files(tmp_path / "more", "parquet", [60, 0, 90, 120]))
    for settings in roots:
        houses(first)(settings).split(test=0.3, by="id").build()
    grown = assert_same(
        lambda settings: houses(more)(settings).map(per_area).map(lambda f: f.drop(columns="per_area")).append("id"),
        *roots,
        client,
    )
    assert isinstance(grown, Dataset)
    assert grown.ref == "houses@2"
    assert grown.manifest.body["append"] == {"key": ("id",), "rows_new": 190, "rows_known": 80}
    assert houses(more)(roots[1]).append("id").build(client=client) == grown
    for key in ("price", "nowhere"):
        errors = [
            outcome(lambda s, key=key: houses(more)(s).append(key), s, **k)
            for s, k in zip(roots, ({}, {"client": client}), strict=True)
        ]
        assert str(errors[0]) == str(errors[1])
        assert type(errors[0]) is type(errors[1]) in {DatasetError, MissingColumnError}


@hypothesis_settings(
    max_examples=6, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    sizes=st.lists(st.integers(0, 80), min_size=1, max_size=5),
    batch=st.integers(1, 50),
    steps=st.lists(st.sampled_from(["missing", "duplicates", "filter", "whole", "add"]), max_size=4),
)
def test_any_files_batches_and_steps(
    sizes: list[int], batch: int, steps: list[str], client: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = FileSource(write_files(folder / "raw", "parquet", sizes))
    ways: dict[str, Callable[[DatasetBuilder], DatasetBuilder]] = {
        "missing": lambda builder: builder.clean(drop_missing=["area"]),
        "duplicates": lambda builder: builder.clean(drop_duplicates=["city", "price"]),
        "filter": lambda builder: builder.map(lambda rows: rows[rows["price"] % 3 > 0]),
        "whole": lambda builder: builder.map(lambda rows: rows.assign(rank=rows["price"].rank()), per="dataset"),
        "add": lambda builder: builder.map(per_area),
    }

    def make(settings: Settings) -> DatasetBuilder:
        builder = DatasetBuilder("houses", source, settings).split(test=0.5)
        for step in steps:
            builder = ways[step](builder)
        return builder

    def outcome_in(place: str, **arguments: Any) -> Any:
        try:
            built = make(Settings(root=folder / place)).build(batch_size=batch, **arguments)
        except DatasetError as error:
            return type(error), str(error)
        return built.manifest.files, built.manifest.body

    assert outcome_in("alone") == outcome_in("together", client=client)


def test_a_step_is_given_the_batches_of_a_single_machine(
    roots: tuple[Settings, Settings], client: Any, tmp_path: Path
) -> None:
    def cheat(rows: pd.DataFrame) -> pd.DataFrame:
        # Batches 2, 4, 5 and 6 are not tried out, so this one is not found.
        first = int(rows["number"].iloc[0])
        return rows.assign(seen=len(rows) if first // BATCH in {2, 4, 5, 6} and first % BATCH == 0 else 0)

    (tmp_path / "raw").mkdir()
    for number, start in enumerate(range(0, 400, 10)):
        pd.DataFrame({"number": range(start, start + 10)}).to_csv(tmp_path / f"raw/{number:02}.csv", index=False)
    built = assert_same(lambda settings: houses(FileSource(tmp_path / "raw"))(settings).map(cheat), *roots, client)
    assert isinstance(built, Dataset)
    assert built.read_arrow()["seen"].to_pylist().count(BATCH) == 4 * BATCH


def fails_at(number: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def fail(rows: pd.DataFrame) -> pd.DataFrame:
        if (rows["price"] == number).any():
            raise ZeroDivisionError("no such price")
        return rows

    return fail


def drops_column_at(number: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def drop(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.drop(columns="city") if (rows["price"] == number).any() else rows

    return drop


@pytest.mark.parametrize("wrong", [fails_at, drops_column_at])
@pytest.mark.parametrize("row", [0, 120, 460])
def test_a_transform_fails_alike(
    wrong: Callable[[int], Any], row: int, roots: tuple[Settings, Settings], client: Any, tmp_path: Path
) -> None:
    raw = write_files(tmp_path / "raw", "parquet")
    price = int(FileSource(raw).read()["price"].iloc[row])

    def make(settings: Settings) -> DatasetBuilder:
        odd = houses(FileSource(raw))(settings).map(lambda rows: rows[(rows["id"] % 2 == 0) | (rows["price"] == price)])
        return odd.map(wrong(price))

    failed = assert_same(make, *roots, client)
    if row or wrong is fails_at:
        assert isinstance(failed, TransformError)


def test_violations_of_all_files_are_told_alike(roots: tuple[Settings, Settings], client: Any, tmp_path: Path) -> None:
    schema = Schema(
        {
            "price": Column("int64", max=8_000, unique=True),
            "city": Column("string", allowed=["Yinchuan"]),
            "id": Column("float64", unique=True),
            "area": Column(min="2026-01-01"),
            "rooms": Column("int64"),
        },
        strict=True,
    )
    source = FileSource(write_files(tmp_path / "raw", "csv"), column_types=TYPES)

    def make(settings: Settings) -> DatasetBuilder:
        cheap = houses(source)(settings).check(Schema({"price": Column(min=50)}))
        return cheap.map(lambda rows: rows[rows["price"] > 60]).check(schema)

    error = assert_same(make, *roots, client)
    assert isinstance(error, SchemaViolationError)
    assert len(error.violations) >= 8
    assert {violation.column for violation in error.violations} >= set(schema.columns) | {"sold"}


def test_a_violation_is_told_before_the_step_that_it_breaks(
    roots: tuple[Settings, Settings], client: Any, tmp_path: Path
) -> None:
    raw = write_files(tmp_path / "raw", "parquet")
    price = int(FileSource(raw).read()["price"].iloc[400])
    schema = Schema({"price": Column("int64", max=price - 1)})
    error = assert_same(lambda s: houses(FileSource(raw))(s).check(schema).map(fails_at(price)), *roots, client)
    assert isinstance(error, SchemaViolationError)
    assert isinstance(error.__cause__, TransformError)


class Shares:
    """A source that says itself how it is divided."""

    def __init__(self, *tables: pa.Table) -> None:
        self.tables = tables

    def __repr__(self) -> str:
        return "Shares()"

    def batches(self, *, batch_size: int = 65_536) -> Iterator[pa.RecordBatch]:
        for one in self.divide():
            yield from one.batches(batch_size=batch_size)

    def divide(self) -> list[BatchSource]:
        return [BatchSource(table) for table in self.tables]

    def describe(self) -> dict[str, Any]:
        return {"type": "shares"}


def test_a_source_divides_itself(roots: tuple[Settings, Settings], client: Any) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[BatchSource.__module__])
    ints, floats, texts = (pa.table({"x": values}) for values in ([1, 2], [0.5], ["a"]))
    built = assert_same(houses(Shares(ints, floats, ints)), *roots, client)
    assert isinstance(built, Dataset)
    assert built.read_arrow()["x"].to_pylist() == [1.0, 2.0, 0.5, 1.0, 2.0]
    failures = [
        (houses(Shares(ints, texts)), DatasetError, "int64 in one batch and string in another"),
        (houses(Shares(ints, pa.table({"y": [1]}))), SmkitError, "changes its columns between batches"),
        (houses(Shares(ints.slice(0, 0))), EmptyResultError, "the source has no rows"),
        (houses(Shares()), EmptyResultError, "the source has no rows"),
    ]
    for number, (make, kind, words) in enumerate(failures):
        fresh = [settings.model_copy(update={"root": f"{settings.root}-{number}"}) for settings in roots]
        error = assert_same(make, fresh[0], fresh[1], client)
        assert isinstance(error, kind)
        assert words in str(error)


def test_a_worker_that_is_killed_changes_nothing(roots: tuple[Settings, Settings], client: Any, tmp_path: Path) -> None:
    source = FileSource(write_files(tmp_path / "raw", "parquet"))
    marker = tmp_path / "killed"

    def make(settings: Settings) -> DatasetBuilder:
        root = settings.root

        def dangerous(rows: pd.DataFrame) -> pd.DataFrame:
            if root.endswith("together") and 200 in set(rows["id"]) and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return rows

        return houses(source)(settings).map(dangerous).clean(drop_duplicates=["city", "price"]).split(test=0.2)

    alone, together = make(roots[0]).build(batch_size=BATCH), make(roots[1]).build(batch_size=BATCH, client=client)
    assert marker.exists()
    assert together.manifest.files == alone.manifest.files


def test_a_worker_that_is_killed_while_it_writes_a_part_changes_nothing(
    roots: tuple[Settings, Settings], client: Any, tmp_path: Path
) -> None:
    make = houses(FileSource(write_files(tmp_path / "raw", "parquet")))
    marker = tmp_path / "killed"

    def arm(path: str) -> None:
        close = writing.PartWriter._close_part

        @functools.wraps(close)
        def die(self: Any) -> None:
            # The rows are in the file, its end is not.
            if self._writer is not None and not Path(path).exists():
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            close(self)

        writing.PartWriter._close_part = die  # type: ignore[method-assign]

    def disarm() -> None:
        close = writing.PartWriter._close_part
        writing.PartWriter._close_part = getattr(close, "__wrapped__", close)  # type: ignore[method-assign]

    client.run(arm, str(marker))
    try:
        together = make(roots[1]).split(test=0.2).build(batch_size=BATCH, client=client)
    finally:
        client.run(disarm)
    assert marker.exists()
    alone = make(roots[0]).split(test=0.2).build(batch_size=BATCH)
    assert together.manifest.files == alone.manifest.files
    together.verify()
    # Not even what the worker left.
    assert [name for name in files_below(Path(roots[1].root)) if "build" in name] == []


def test_a_step_that_kills_every_worker_is_given_up(
    roots: tuple[Settings, Settings], client: Any, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)

    def die(rows: pd.DataFrame) -> pd.DataFrame:
        os.kill(os.getpid(), signal.SIGKILL)
        return rows

    source = FileSource(write_files(tmp_path / "raw", "csv", [5]))
    with pytest.raises(DatasetError, match=r"the cluster gave up: .*run_steps.*lack memory"):
        houses(source)(roots[1]).map(die).build(client=client)
    assert DatasetStore(roots[1]).names() == []
    client.wait_for_workers(2, timeout=30)


@pytest.mark.parametrize("task", [tasks.run_steps, tasks.hashes_of, write_part])
def test_ctrl_c_leaves_nothing(
    task: Callable[..., Any],
    roots: tuple[Settings, Settings],
    client: Any,
    cluster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = Work.result

    def interrupted(self: Work, future: Any) -> Any:
        if task.__name__ in future.key:
            raise KeyboardInterrupt
        under_way = [key for key in map(str, cluster.scheduler.tasks) if key.startswith("smkit-run_steps")]
        if task is tasks.run_steps and under_way:  # its facts are waited for, not itself
            raise KeyboardInterrupt
        return result(self, future)

    monkeypatch.setattr(Work, "result", interrupted)
    source = FileSource(write_files(tmp_path / "raw", "parquet"))
    with pytest.raises(KeyboardInterrupt):
        houses(source)(roots[1]).map(per_area).clean(drop_duplicates=True).build(client=client)
    monkeypatch.undo()
    assert DatasetStore(roots[1]).names() == []
    assert [name for name in files_below(Path(roots[1].root)) if "part-" in name and "build" not in name] == []
    # The cluster goes on with other work, and forgets this one.
    built = houses(source)(roots[1]).build(client=client)
    assert built.ref == "houses@1"


def test_what_a_cluster_cannot_do_is_refused(roots: tuple[Settings, Settings], client: Any, tmp_path: Path) -> None:
    settings = roots[1]
    rows = pd.DataFrame({"x": [1]})
    frames = DatasetBuilder("houses", smkit.FrameSource(rows), settings)
    files = houses(FileSource(write_files(tmp_path / "raw", "csv", [3])))(settings)
    with pytest.raises(ConfigError, match=r"cannot be read by a cluster.*leave client out.*FileSource, S3Source"):
        frames.build(client=client)
    with pytest.raises(ConfigError, match=r"expected a distributed\.Client"):
        files.build(client="tcp://127.0.0.1:8786")  # type: ignore[arg-type]
    closed = distributed.Client(client.scheduler.address, set_as_default=False)
    closed.close()
    with pytest.raises(ConfigError, match="the client is closed"):
        files.build(client=closed)


def test_other_versions_on_the_workers_are_refused(
    roots: tuple[Settings, Settings], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tasks.versions()
    monkeypatch.setattr(tasks, "versions", lambda: {**here, "pyarrow": "1.0.0"})
    source = FileSource(write_files(tmp_path / "raw", "csv", [3]))
    with pytest.raises(ConfigError, match=rf"has pyarrow {here['pyarrow']} instead of 1\.0\.0: install the same"):
        houses(source)(roots[1]).build(client=client)


def test_a_file_that_changes_is_refused(
    roots: tuple[Settings, Settings], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_files(tmp_path / "raw", "csv", [3, 4])
    describe = FileSource.describe

    def describe_and_change(self: FileSource) -> dict[str, Any]:
        described = describe(self)
        frame(9, 9).to_csv(raw / "01.csv", index=False)
        return described

    monkeypatch.setattr(FileSource, "describe", describe_and_change)
    with pytest.raises(ConfigError, match="it changed meanwhile, or the machines do not share the disk"):
        houses(FileSource(raw))(roots[1]).build(client=client)


def test_disks_that_are_not_shared(tmp_path: Path, settings: Settings) -> None:
    target = Target(str(tmp_path / "elsewhere"), "", settings, pa.schema([("x", pa.int64())]), frozenset(), "parquet")
    with pytest.raises(StorageError, match=r"does not see .*elsewhere: a cluster builds into a folder only where"):
        write_part([], target, "train", 0)
    unit = tasks.Unit(FileSource(tmp_path / "nowhere.csv"), None, {"size": 1})
    with pytest.raises(SourceNotFound, match="must find the files under the same path"):
        tasks.read_unit(unit, 10, tasks.versions())


def test_no_secret_travels(tmp_path: Path) -> None:
    settings = Settings(
        root=tmp_path,
        profile="work",
        pip_index_url="https://user:hunter2@index.example",
        postgres=PostgresSettings(host="db", user="me", password="hunter2"),
    )
    assert b"hunter2" in pickle.dumps(settings)
    there = pickle.dumps(for_workers(settings))
    assert b"hunter2" not in there
    assert (pickle.loads(there).root, pickle.loads(there).profile) == (settings.root, None)


def test_dask_is_imported_only_for_a_cluster() -> None:
    code = (
        "import sys, pandas, smkit\n"
        "source = smkit.FrameSource(pandas.DataFrame({'x': [1]}))\n"
        "smkit.DatasetBuilder('houses', source, smkit.Settings(root='s')).build()\n"
        "print([name for name in sys.modules if name in ('dask', 'distributed')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
