from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pandas as pd
import pytest

import smkit
from smkit.config import Settings
from smkit.errors import ConfigError, InvalidNameError, ObjectNotFound, SourceNotFound, StorageError
from smkit.jobs import Channel, JobRunner
from smkit.jobs.channels import S3Channel, as_channels
from tests.jobs.conftest import SAVE_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.jobs.conftest import Script


def no_client() -> Any:
    raise AssertionError("nothing here reads S3")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def test_a_file_and_a_folder(tmp_path: Path, target: Path) -> None:
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/deep/a").write_text("1")
    (tmp_path / "data/link").symlink_to("deep/a")
    channels = as_channels({"all": "data", "one": tmp_path / "data/deep/a"}, no_client)
    assert all(isinstance(channel, Channel) for channel in channels.values())
    channels["all"].download(target)
    assert files_in(target) == {"deep/a": b"1", "link": b"1"}
    assert not (target / "link").is_symlink()
    assert channels["one"].describe() == {"uri": str(tmp_path / "data/deep/a"), "files": 1, "bytes": 1}


def test_local_data_that_cannot_be_a_channel(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling/x").symlink_to("nowhere")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/up").symlink_to(".")
    for name, error in {
        "missing": SourceNotFound, "empty": SourceNotFound, "dangling": SourceNotFound, "loop": ConfigError
    }.items():  # fmt: skip
        with pytest.raises(error, match=name):
            as_channels({"train": name}, no_client)["train"].describe()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [("data", "inputs is a str"), ([1], "inputs is a list"), ({"train": 5}, "channel 'train' is a int"),
     ({"train": "gs://b/x"}, "not supported"), ({"train": "s3://"}, "not an S3 URI"), ({"train": b"x"}, "is a bytes"),
     ({"train": "a", "TRAIN": "b"}, "differ in case only")],
)  # fmt: skip
def test_wrong_inputs_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_channels(inputs, no_client)


ROWS = pd.DataFrame({"x": [1, 2]})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda dataset: {"train": dataset}, r"'train' is a Dataset: pass the dataset itself .* dataset\['train'\]"),
        (lambda _: ROWS, r"inputs is a DataFrame: build a dataset first: smkit\.DatasetBuilder\("),
        (lambda _: {"train": ROWS}, r"'train' is a DataFrame: build a dataset first: smkit\.DatasetBuilder\("),
        (lambda _: smkit.FrameSource(ROWS), r"inputs is a FrameSource: build a dataset first: smkit\.DatasetBuilder\("),
        (lambda _: {"train": smkit.FileSource("a.csv")}, "'train' is a FileSource: build a dataset first"),
        (lambda _: {"train": smkit.S3Source("s3://bucket/a.csv")}, "'train' is a S3Source: build a dataset first"),
        (
            lambda _: smkit.DatasetBuilder("churn", smkit.FrameSource(ROWS)),
            r"is a DatasetBuilder: .*builder\.build\(\)",
        ),
        (lambda _: "churn@1", r"smkit\.DatasetStore\(\)\.get\('churn@1'\)"),
        (lambda _: "churn@production", r"smkit\.DatasetStore\(\)\.get\('churn@production'\)"),
    ],
)
def test_wrong_objects_say_what_to_pass(tmp_path: Path, inputs: Any, message: str) -> None:
    settings = Settings(root=str(tmp_path / "store"))
    dataset = smkit.DatasetBuilder("churn", smkit.FrameSource(ROWS), settings).build(progress=False)
    with pytest.raises(ConfigError, match=message):
        as_channels(inputs(dataset), no_client)
    assert set(as_channels(dataset, no_client)) == {"train"}
    assert set(as_channels({"train": dataset["train"]}, no_client)) == {"train"}


def test_a_reference_where_a_path_is_expected() -> None:
    channel = as_channels({"train": "churn@1"}, no_client)["train"]
    with pytest.raises(SourceNotFound, match=r"for a dataset pass inputs=smkit\.DatasetStore\(\)\.get\('churn@1'\)"):
        channel.describe()


def test_a_uri_that_is_refused_may_hold_a_password() -> None:
    with pytest.raises(ConfigError, match=r"postgresql:// is not supported") as caught:
        as_channels({"train": "postgresql://me:secret@host/db"}, no_client)
    assert "secret" not in str(caught.value)


def test_channel_names_are_checked() -> None:
    with pytest.raises(InvalidNameError):
        as_channels({"a b": "x"}, no_client)


@pytest.fixture
def s3(aws_env: str) -> Any:
    client = boto3.client("s3")
    yield client
    client.close()


def put(s3: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())


def test_an_object_and_a_prefix(s3: Any, bucket: str, target: Path) -> None:
    put(s3, bucket, "data/train/a.csv", "data/train/deep/b.csv", "data/train.csv", "data/train2/c.csv", "data/test.csv")
    s3.put_object(Bucket=bucket, Key="data/train/", Body=b"")
    for number, (key, names) in enumerate(
        {
            "data/train/": {"a.csv", "deep/b.csv"},
            "data/train": {"a.csv", "deep/b.csv", "train.csv", "train2/c.csv"},
            "data/test.csv": {"test.csv"},
        }.items()
    ):
        folder = target / str(number)
        folder.mkdir()
        channel = S3Channel(f"s3://{bucket}/{key}", lambda: s3)
        channel.download(folder)
        found = files_in(folder)
        assert set(found) == names
        assert channel.describe() == {
            "uri": channel.uri, "files": len(names), "bytes": sum(map(len, found.values()))
        }  # fmt: skip


def test_s3_keys_that_no_folder_can_hold(s3: Any, bucket: str) -> None:
    for number, keys in enumerate((["../x"], ["a//b"], ["a", "a/b"], ["t/tx", "tx"])):
        put(s3, bucket, *(f"{number}/{key}" for key in keys))
    for number, tail in enumerate(("", "", "", "t")):
        with pytest.raises(ConfigError, match=r"not a path inside|both a file and a folder|both become"):
            S3Channel(f"s3://{bucket}/{number}/{tail}", lambda: s3).describe()


def test_s3_that_has_nothing_or_fails(s3: Any, bucket: str, target: Path) -> None:
    with pytest.raises(ObjectNotFound, match="no object's key starts with"):
        S3Channel(f"s3://{bucket}/none", lambda: s3).describe()
    with pytest.raises(StorageError, match="NoSuchBucket"):
        S3Channel("s3://no-such-bucket-here/x", lambda: s3).describe()


def test_an_object_that_changes_between_list_and_read(s3: Any, bucket: str, target: Path) -> None:
    put(s3, bucket, "x/a")

    class Racing:
        def __getattr__(self, name: str) -> Any:
            return getattr(s3, name)

        def get_object(self, **request: Any) -> Any:
            s3.put_object(Bucket=bucket, Key="x/a", Body=b"other")
            return s3.get_object(**request)

    with pytest.raises(StorageError, match="changed while it was read"):
        S3Channel(f"s3://{bucket}/x/", Racing).download(target)


def test_a_job_reads_s3_through_the_settings(s3: Any, bucket: str, tmp_path: Path, script: Script) -> None:
    put(s3, bucket, "in/a.csv")
    runner = JobRunner(Settings(root=str(tmp_path / "store")))
    code = SAVE_MODEL + "print(os.listdir(os.environ['SM_CHANNEL_TRAIN']))\n"
    job = runner.run(script(code), {"train": f"s3://{bucket}/in/"})
    assert list(job.logs())[-1] == "['a.csv']"
    with pytest.raises(ObjectNotFound):
        runner.run(script(code), {"train": f"s3://{bucket}/out/"}, job_name="never")
    assert [item.name for item in runner.jobs()] == [job.name]


def test_a_download_that_fails_frees_the_name(tmp_path: Path, script: Script, runner: JobRunner) -> None:
    class Broken:
        uri = "memory://x"

        def download(self, folder: Path) -> None:
            raise StorageError("the line is cut")

        def describe(self) -> dict[str, Any]:
            return {"uri": self.uri}

    with pytest.raises(StorageError, match="the line is cut"):
        runner.run(script(SAVE_MODEL), {"train": Broken()}, job_name="again")
    assert runner.run(script(SAVE_MODEL), job_name="again").status == "Completed"
