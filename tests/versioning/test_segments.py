"""Long lists: what they cost, and that they are right whatever happened to the segments."""

from __future__ import annotations

import io
import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smkit.errors import IntegrityError, StorageError
from smkit.storage import FolderStore
from smkit.versioning import segments
from smkit.versioning.maintenance import check
from tests.versioning.helpers import (
    CountingStore,
    HookedStore,
    check_everything,
    check_healthy,
    collect_all,
    open_log,
    publish,
)
from tests.versioning.test_damage import resealed

if TYPE_CHECKING:
    from smkit.storage import ObjectStore
    from smkit.versioning import VersionLog

FIXTURE = Path(__file__).parent / "fixtures" / "segments-1" / "store"
PREFIX = "models/houses/segments/"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of three and of six versions."""
    monkeypatch.setattr(segments, "SIZES", (6, 3))


def blocks(log: VersionLog) -> list[str]:
    return [info.key.removeprefix(PREFIX).rpartition("-")[0] for info in log.store.scan(PREFIX)]


def from_manifests(log: VersionLog) -> list[tuple[int, str, str, int, int]]:
    manifests = [log.manifest("houses", number) for number in log.versions("houses")]
    return [(m.version, m.publish_id, m.content_digest, len(m.files), sum(f.size for f in m.files)) for m in manifests]


def from_summaries(log: VersionLog) -> list[tuple[int, str, str, int, int]]:
    return [(s.version, s.publish_id, s.content_digest, s.files, s.size) for s in log.summaries("houses")]


# --- what a list costs ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_long_list_costs_few_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smkit.storage.folder.os.fsync", lambda descriptor: None)
    store = CountingStore(tmp_path / "store")
    log = open_log(store, "metrics")
    for number in range(1, 1251):
        publish(log, {}, body={"metrics": {"rmse": number}, "long": "x" * 100})
    store.counts.clear()
    found = open_log(store, "metrics").summaries("houses")
    assert dict(store.counts) == {
        ("scan", "versions"): 1,
        ("scan", "tombstones"): 1,
        ("scan", "segments"): 1,
        ("get", "segments"): 3,
        ("get", "versions"): 50,
    }
    assert [summary.version for summary in found] == list(range(1250, 0, -1))
    assert all(summary.body == {"metrics": {"rmse": summary.version}} for summary in found)
    assert all(log.manifest("houses", s.version).publish_id == s.publish_id for s in found[::97])


def test_a_publish_that_completes_no_block_asks_for_no_segment(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "store")
    publish(open_log(store))
    assert not [key for key in store.counts if key[1] == "segments"]


def test_an_empty_list_starts_no_thread(store: ObjectStore) -> None:
    assert open_log(store).summaries("houses") == ()


# --- what they say ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_a_list_says_what_the_manifests_say(store: ObjectStore) -> None:
    log = open_log(store, "metrics", "labels")
    for number in range(1, 15):
        publish(log, str(number) * number, body={"metrics": {"n": [number, {"é": None}]}, "notes": "not shown"})
        assert from_summaries(log) == from_manifests(log)
    assert blocks(log) == [
        "3-0000000003",
        "3-0000000006",
        "3-0000000009",
        "3-0000000012",
        "6-0000000006",
        "6-0000000012",
    ]
    for summary in log.summaries("houses"):
        manifest = log.manifest("houses", summary.version)
        assert (summary.created_at, summary.created_by) == (manifest.created_at, manifest.created_by)
        assert summary.body == {"metrics": manifest.body["metrics"]}
    log.prune("houses", 2)
    log.prune("houses", 14)
    assert [summary.version for summary in log.summaries("houses")] == [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 1]
    check_healthy(log)


@pytest.mark.usefixtures("small")
def test_lists_that_show_other_members_do_not_read_one_anothers_segments(folder_store: FolderStore) -> None:
    for number in range(1, 7):
        publish(open_log(folder_store, "metrics"), body={"metrics": number, "labels": -number})
    assert {s.body["labels"] for s in open_log(folder_store, "labels").summaries("houses")} == set(range(-6, 0))
    for number in range(7, 10):
        publish(open_log(folder_store, "labels", "metrics"), body={"metrics": number, "labels": -number})
    for keys in [("metrics",), ("labels",), ("metrics", "labels"), ("labels", "metrics"), ()]:
        for summary in open_log(folder_store, *keys).summaries("houses"):
            assert set(summary.body) == set(keys)


@pytest.mark.usefixtures("small")
def test_what_an_earlier_writer_missed_is_made_up_for(folder_store: FolderStore) -> None:
    log = open_log(folder_store)
    for _ in range(12):
        publish(log)
    log.store.delete([info.key for info in log.store.scan(PREFIX)])
    for _ in range(3):
        publish(log)
    assert len(blocks(log)) == 7
    log.store.delete([info.key for info in log.store.scan(PREFIX) if "/6-" not in info.key])
    publish(log), publish(log), publish(log)
    # Nobody needs the small ones inside a large one any more.
    assert blocks(log) == [
        "3-0000000015",
        "3-0000000018",
        "6-0000000006",
        "6-0000000012",
        "6-0000000018",
    ]


@pytest.mark.usefixtures("small")
def test_one_publish_makes_up_for_no_more_than_ten(folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(folder_store)
    monkeypatch.setattr(segments, "SIZES", (600, 300))
    for _ in range(59):
        publish(log, {})
    monkeypatch.setattr(segments, "SIZES", (6, 3))
    publish(log, {})
    assert len(blocks(log)) == 10
    assert blocks(log)[-1] == "3-0000000060"


# --- what may go wrong ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "part", ["scan models/houses/segments/", "get models/houses/versions", "put models/houses/segments"]
)
def test_a_segment_that_cannot_be_written_does_not_fail_the_publish(
    store: ObjectStore, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    committed = False

    def after(operation: str, key: str) -> None:
        nonlocal committed
        committed = committed or (operation, key) == ("put", "models/houses/versions/9999999997.json")

    def before(operation: str, key: str) -> None:
        if committed and f"{operation} {key}".startswith(part):
            raise StorageError("the store is gone")

    publish(open_log(store)), publish(open_log(store))
    with caplog.at_level(logging.WARNING):
        assert publish(open_log(HookedStore(store, before, after))).manifest.version == 3
    assert "the store is gone" in caplog.text
    log = open_log(store)
    assert blocks(log) == []
    assert from_summaries(log) == from_manifests(log)
    for _ in range(3):
        publish(log)
    assert blocks(log) == ["3-0000000003", "3-0000000006", "6-0000000006"]


@pytest.mark.usefixtures("small")
def test_one_damaged_version_costs_only_its_own_segments(folder_store: FolderStore) -> None:
    log = open_log(folder_store)
    publish(log)
    log.store.upload("models/houses/versions/9999999999.json", io.BytesIO(b"{}\n"))
    for _ in range(8):
        publish(log)
    assert blocks(log) == ["3-0000000006", "3-0000000009"]
    with pytest.raises(IntegrityError, match=r"9999999999.json is (damaged|not a record)"):
        log.summaries("houses")
    assert [damage.where for damage in check(log, "houses")] == ["houses@1"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("times", range(3))
def test_many_publishers_at_once_write_each_segment_once(store: ObjectStore, times: int) -> None:
    def work(number: int) -> None:
        for turn in range(3):
            publish(open_log(store, "who"), f"{number}-{turn}", body={"who": f"{number}-{turn}"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    log = open_log(store, "who")
    assert log.versions("houses") == tuple(range(24, 0, -1))
    assert from_summaries(log) == from_manifests(log)
    assert [s.body["who"] for s in log.summaries("houses")] == [
        log.manifest("houses", number).body["who"] for number in log.versions("houses")
    ]
    check_healthy(log)


@pytest.fixture
def stored(tmp_path: Path) -> VersionLog:
    """A copy of the released form: 101 versions without files, of which 7 was pruned, and a segment."""
    shutil.copytree(FIXTURE, tmp_path / "store")
    return open_log(FolderStore(tmp_path / "store"), "metrics")


def test_the_first_form_of_segments_is_read(stored: VersionLog, caplog: pytest.LogCaptureFixture) -> None:
    counting = CountingStore(Path(stored.store.uri))
    found = open_log(counting, "metrics").summaries("houses")
    assert [summary.version for summary in found] == [number for number in range(101, 0, -1) if number != 7]
    assert all(summary.body == {"metrics": {"rmse": summary.version / 128}} for summary in found)
    assert (counting.counts["get", "segments"], counting.counts["get", "versions"]) == (1, 1)
    assert found == open_log(FolderStore(stored.store.uri), "metrics", "metrics").summaries("houses")
    assert caplog.text == ""
    assert list(check(stored, "houses", read_files=True)) == []
    check_everything(stored)


def test_what_is_written_now_is_the_first_form(stored: VersionLog) -> None:
    (info,) = stored.store.scan(PREFIX)
    data = stored.store.get(info.key, max_bytes=1 << 20)
    stored.store.delete([info.key])
    stored.segments.write_due("houses", 100)
    assert stored.store.get(info.key, max_bytes=1 << 20) == data


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_in_a_segment_makes_it_unused(stored: VersionLog, data: st.DataObject) -> None:
    (info,) = stored.store.scan(PREFIX)
    path = Path(stored.store.uri) / info.key
    intact = path.read_bytes()
    right = stored.summaries("houses")
    damaged = bytearray(intact)
    damaged[data.draw(st.integers(0, len(intact) - 1), label="position")] ^= 1 << data.draw(
        st.integers(0, 7), label="bit"
    )
    path.write_bytes(bytes(damaged))
    try:
        assert stored.summaries("houses") == right
        (damage,) = check(stored, "houses")
        assert damage.where.endswith(info.key)
        assert "is damaged" in damage.what
        assert "delete it, lists read the manifests instead" in damage.what
    finally:
        path.write_bytes(intact)


def changed(record: dict[str, object], **changes: object) -> bytes:
    return resealed({**record, **changes})


def test_a_segment_that_somebody_sealed_anew_is_unused_or_found(stored: VersionLog) -> None:
    (info,) = stored.store.scan(PREFIX)
    record = json.loads(stored.store.get(info.key, max_bytes=1 << 20))
    right = stored.summaries("houses")
    first, *others = record["summaries"]
    hostile = {
        "kind": changed(record, kind="datasets"),
        "name": changed(record, name="cars"),
        "size": changed(record, size=1000),
        "end": changed(record, end=200),
        "keys": changed(record, keys=[]),
        "one missing": changed(record, summaries=others),
        "one twice": changed(record, summaries=[first, first, *others[1:]]),
        "none": changed(record, summaries=[]),
        "text": changed(record, summaries=["1"]),
        "version text": changed(record, summaries=[{**first, "version": "1"}, *others]),
        "size text": changed(record, summaries=[{**first, "size": "1"}, *others]),
        "too large": b" " * (17 << 20),
        "no record": b"{}\n",
        "empty": b"",
    }
    for case, data in hostile.items():
        stored.store.upload(info.key, io.BytesIO(data))
        assert stored.summaries("houses") == right, case
    stored.store.upload(info.key, io.BytesIO(changed(record, summaries=[{**first, "publish_id": "f" * 32}, *others])))
    (damage,) = check(stored, "houses")
    assert "it says what the manifests do not say" in damage.what
    # Nothing is deleted on its word.
    assert collect_all(stored) == []


@pytest.mark.parametrize(
    "key",
    ["100-²²²²²²²²²².json", "100-0000000150-x.json", "notes.txt", "7-0000000007-0000000000000000.json", "a/b.json"],
)
def test_what_others_put_among_the_segments_is_not_read(stored: VersionLog, key: str) -> None:
    right = stored.summaries("houses")
    stored.store.put_if_absent(f"{PREFIX}{key}", b"?")
    assert stored.summaries("houses") == right


def test_a_segment_that_was_copied_to_another_name_is_not_used(stored: VersionLog) -> None:
    (info,) = stored.store.scan(PREFIX)
    other = open_log(stored.store, "metrics")
    publish(other, name="cars", body={"metrics": {"rmse": 5}})
    data = stored.store.get(info.key, max_bytes=1 << 20)
    stored.store.put_if_absent(info.key.replace("houses", "cars"), data)
    assert [summary.body for summary in other.summaries("cars")] == [{"metrics": {"rmse": 5}}]


def test_a_segment_that_goes_away_while_it_is_listed_is_not_missed(stored: VersionLog) -> None:
    right = stored.summaries("houses")

    def delete(operation: str, key: str) -> None:
        if operation == "get" and "/segments/" in key:
            stored.store.delete([key])

    assert open_log(HookedStore(stored.store, delete), "metrics").summaries("houses") == right
