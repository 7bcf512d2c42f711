"""Nothing that was changed is accepted: not one bit, and not a record that an attacker sealed anew."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smkit.errors import ConfigError, IntegrityError, SmkitError, StorageError
from smkit.naming import parse_reference
from smkit.storage import FolderStore
from smkit.versioning.manifest import canonical
from tests.versioning.helpers import check_everything, open_log, publish
from tests.versioning.test_format import FIXTURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.versioning import VersionLog

FILES = sorted(str(path.relative_to(FIXTURE)) for path in FIXTURE.rglob("*") if path.is_file())
#: A pruned version's files are gone: all that is left is what must be intact.
KINDS = ("aliases", "data", "tombstones", "versions")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "store"
    shutil.copytree(FIXTURE, folder)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> VersionLog:
    shutil.copytree(FIXTURE, tmp_path / "store")
    return open_log(FolderStore(tmp_path / "store"))


def test_every_kind_of_file_is_damaged_below() -> None:
    assert {path.split("/")[2] for path in FILES} == set(KINDS)


def expect_damage(root: Path, file: str, damaged: bytes) -> None:
    path = root / file
    intact = path.read_bytes()
    assert damaged != intact
    log = open_log(FolderStore(root))
    path.write_bytes(damaged)
    try:
        with pytest.raises(IntegrityError, match="is damaged"):
            check_everything(log)
    finally:
        path.write_bytes(intact)
    check_everything(log)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_flipped_bit_is_found(root: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(FILES), label="file")
    damaged = bytearray((root / file).read_bytes())
    position = data.draw(st.integers(0, len(damaged) - 1), label="position")
    damaged[position] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    expect_damage(root, file, bytes(damaged))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_file_that_was_cut_or_prolonged_is_found(root: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(FILES), label="file")
    intact = (root / file).read_bytes()
    damaged = data.draw(
        st.integers(0, len(intact) - 1).map(lambda end: intact[:end])
        | st.binary(min_size=1, max_size=3).map(lambda more: intact + more)
        | st.sampled_from([b" ", b"\n", b"\0"]).map(lambda byte: byte + intact),
        label="damaged",
    )
    expect_damage(root, file, damaged)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("versions/9999999999.json", "versions/9999999998.json"),
        ("aliases/production/9999999999.json", "aliases/production/9999999998.json"),
        ("aliases/production/9999999998.json", "aliases/staging/9999999998.json"),
        ("tombstones/9999999997.json", "tombstones/9999999998.json"),
    ],
)
def test_a_record_that_was_copied_elsewhere_is_found(log: VersionLog, source: str, target: str) -> None:
    folder = Path(log.store.uri) / "models" / "houses"
    (folder / target).parent.mkdir(exist_ok=True)
    shutil.copy(folder / source, folder / target)
    with pytest.raises(IntegrityError, match="it was moved or copied there"):
        check_everything(log)


def test_the_records_of_another_name_are_found(log: VersionLog) -> None:
    models = Path(log.store.uri) / "models"
    shutil.copytree(models / "houses", models / "cars")
    for call in (
        lambda: log.manifest("cars", 1),
        lambda: log.aliases.current("cars", "production"),
        lambda: log.tombstone("cars", 3),
    ):
        with pytest.raises(IntegrityError, match="it was moved or copied there"):
            call()


def test_a_move_that_was_removed_from_the_history_is_found(log: VersionLog) -> None:
    log.store.delete(["models/houses/aliases/production/9999999999.json"])
    with pytest.raises(IntegrityError, match=r"9999999999.json is missing: moves are never deleted"):
        log.aliases.history("houses", "production")


@pytest.mark.parametrize("kind", ["manifest", "alias", "tombstone"])
def test_damage_is_told_by_every_way_to_a_version(log: VersionLog, kind: str) -> None:
    key = {
        "manifest": "models/houses/versions/9999999998.json",
        "alias": "models/houses/aliases/production/9999999998.json",
        "tombstone": "models/houses/tombstones/9999999997.json",
    }[kind]
    log.store.upload(key, io.BytesIO(b"{}\n"))
    calls: dict[str, list[Callable[[], object]]] = {
        "manifest": [
            lambda: log.get(parse_reference("houses", "model")),
            lambda: log.get(parse_reference("houses@2", "model")),
            lambda: log.get(parse_reference("houses@production", "model")),
            lambda: log.aliases.promote("houses", 2, "staging"),
            lambda: log.prune("houses", 2),
        ],
        "alias": [
            lambda: log.get(parse_reference("houses@production", "model")),
            lambda: log.aliases.all("houses"),
            lambda: log.aliases.promote("houses", 1, "production"),
            lambda: log.prune("houses", 1),
        ],
        "tombstone": [
            lambda: log.get(parse_reference("houses@3", "model")),
            lambda: log.aliases.promote("houses", 3, "staging"),
        ],
    }
    for call in calls[kind]:
        with pytest.raises(IntegrityError, match=rf"{key.rsplit('/', 1)[1]} is (damaged|not a record)"):
            call()


# --- sealed by an attacker --------------------------------------------------------------------------------------

VALID = json.loads((FIXTURE / "models/houses/versions/9999999998.json").read_bytes())
MOVE = json.loads((FIXTURE / "models/houses/aliases/production/9999999998.json").read_bytes())
TOMBSTONE = json.loads((FIXTURE / "models/houses/tombstones/9999999997.json").read_bytes())
GOOD_FILE = VALID["files"][0]


def resealed(record: dict[str, Any]) -> bytes:
    """The record with a right SHA-256, made without the checks of smkit's own writer."""
    content = {name: value for name, value in record.items() if name != "sha256"}

    def encode(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")

    return encode({**content, "sha256": hashlib.sha256(encode(content)).hexdigest()}) + b"\n"


def with_file(**changes: Any) -> dict[str, Any]:
    return {"files": [{**GOOD_FILE, **changes}]}


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


HOSTILE_MANIFESTS: dict[str, dict[str, Any]] = {
    **{
        f"path {path!a:.40}": with_file(path=path)
        for path in (
            "../../../../etc/passwd",
            "a/../../b",
            "/etc/passwd",
            "",
            ".",
            "a//b",
            "a/",
            "a\\..\\b",
            "a\0b",
            "a\nb",
            ".smkit-tmp-1",
            "x" * 5000,
            "\udce9",
            None,
            7,
            ["a"],
        )
    },
    **{
        f"size {size!a:.20}": with_file(size=size)
        for size in (-1, 2**53, 10**30, 1.0, float("nan"), float("inf"), True, "1", None)
    },
    **{
        f"sha256 {digest!a:.20}": with_file(sha256=digest) for digest in ("", "A" * 64, "0" * 63, "0" * 64 + "\n", None)
    },
    "file twice": {"files": [GOOD_FILE, GOOD_FILE]},
    "file in file": {"files": [{**GOOD_FILE, "path": "a"}, {**GOOD_FILE, "path": "a/b"}]},
    "files object": {"files": {"model.bin": GOOD_FILE}},
    "files null": {"files": None},
    "file text": {"files": ["model.bin"]},
    "file empty": {"files": [{}]},
    "other kind": {"kind": "datasets"},
    "other name": {"name": "cars"},
    "name with path": {"name": "../cars"},
    "other version": {"version": 1},
    "version text": {"version": "2"},
    "version float": {"version": 2.0},
    "version zero": {"version": 0},
    "version huge": {"version": 10**12},
    "publish id path": {"publish_id": "../../../data"},
    "publish id newline": {"publish_id": VALID["publish_id"] + "\n"},
    "publish id short": {"publish_id": "0" * 31},
    "publish id number": {"publish_id": 1},
    "content digest": {"content_digest": "x"},
    "created_at number": {"created_at": 5},
    "created_by object": {"created_by": {}},
    "body list": {"body": []},
    "body null": {"body": None},
    "body NaN": {"body": {"x": float("nan")}},
    "body infinite": {"body": {"x": float("-inf")}},
    "body surrogate": {"body": {"x": "\udce9"}},
    "schema text": {"schema_version": "1"},
    "schema true": {"schema_version": True},
    "schema float": {"schema_version": 1.0},
    "schema zero": {"schema_version": 0},
    "schema null": {"schema_version": None},
    "schema later": {"schema_version": 2},
}


def test_an_honest_record_sealed_this_way_is_read(log: VersionLog) -> None:
    """So what is refused below is refused for what it says."""
    assert resealed(VALID) == (FIXTURE / "models/houses/versions/9999999998.json").read_bytes()
    assert resealed(MOVE) == (FIXTURE / "models/houses/aliases/production/9999999998.json").read_bytes()
    assert resealed(TOMBSTONE) == (FIXTURE / "models/houses/tombstones/9999999997.json").read_bytes()


def refuse_manifest(log: VersionLog, data: bytes, error: type[SmkitError] = IntegrityError) -> None:
    log.store.upload("models/houses/versions/9999999998.json", io.BytesIO(data))
    with pytest.raises(error):
        log.manifest("houses", 2)
    with pytest.raises(error):
        log.get(parse_reference("houses@production", "model"))


@pytest.mark.parametrize("changes", HOSTILE_MANIFESTS.values(), ids=HOSTILE_MANIFESTS.keys())
def test_a_hostile_manifest_is_refused(log: VersionLog, changes: dict[str, Any]) -> None:
    refuse_manifest(log, resealed({**VALID, **changes}))
    # It stops nobody from publishing.
    assert publish(log, {"model.bin": b"second model"}, reuse="any").manifest.version == 4


@pytest.mark.parametrize("name", sorted(set(VALID) - {"sha256"}))
def test_a_manifest_without_one_of_its_members_is_refused(log: VersionLog, name: str) -> None:
    refuse_manifest(log, resealed(without(VALID, name)))


@pytest.mark.parametrize("depth", [100, 900, 5_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"x":', "}")], ids=["lists", "objects"])
def test_a_text_that_nests_too_deep_is_refused(log: VersionLog, opening: str, closing: str, depth: int) -> None:
    """By hand: json.dumps would not go there."""
    text, metrics = resealed(VALID).decode(), '"metrics": {}'
    assert text.count(metrics) == 1
    refuse_manifest(log, text.replace(metrics, f'"metrics": {opening * depth}1{closing * depth}').encode())


@pytest.mark.parametrize("depth", [65, 100, 250, 400])
def test_a_manifest_that_nests_too_deep_is_refused_though_it_is_canonical(log: VersionLog, depth: int) -> None:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    refuse_manifest(log, resealed({**VALID, "body": value}))


def test_equal_keys_are_refused(log: VersionLog) -> None:
    text = resealed(VALID).decode()
    name = ' "name": "houses",\n'
    assert text.count(name) == 1
    refuse_manifest(log, text.replace(name, name + name).encode())
    # Also where the digest is that of the text as it stands.
    content = (
        canonical({key: value for key, value in VALID.items() if key != "sha256"}).decode().replace(name, name * 2)
    )
    digest = hashlib.sha256(content.encode()).hexdigest()
    refuse_manifest(log, text.replace(name, name * 2).replace(VALID["sha256"], digest).encode())


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999", "01", "1_000", '"\\ud800"', "9" * 5000])
def test_numbers_and_texts_that_json_does_not_have_are_refused(log: VersionLog, literal: str) -> None:
    refuse_manifest(log, resealed(VALID).replace(b'"metrics": {}', f'"metrics": {literal}'.encode()))


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"null\n", b"[]\n", b"{}\n", b"\xff\xfe{}", b"\xef\xbb\xbf{}\n", b"{" * 1000, b"7\n"]
)
def test_what_is_no_record_is_refused(log: VersionLog, data: bytes) -> None:
    refuse_manifest(log, data)


def test_a_record_of_twenty_megabytes_is_refused_unread(log: VersionLog) -> None:
    refuse_manifest(log, resealed({**VALID, "body": {"x": "a" * (20 << 20)}}), StorageError)


def test_who_takes_the_last_number_stops_publishing_and_is_told(log: VersionLog) -> None:
    log.store.put_if_absent("models/houses/versions/0000000001.json", b"{}\n")
    with pytest.raises(ConfigError, match="10000000000 is not a number from 1 to 9999999999"):
        publish(log, "x")
    assert log.manifest("houses", 2).version == 2


def test_a_number_that_nobody_counts_is_no_record(log: VersionLog) -> None:
    log.store.put_if_absent("models/houses/versions/0000000000.json", b"{}\n")
    with pytest.raises(IntegrityError, match=r"0000000000.json is not a record of smkit"):
        publish(log, "x")
    assert log.manifest("houses", 2).version == 2


HOSTILE_MOVES: dict[str, dict[str, Any]] = {
    "version text": {"version": "2"},
    "version true": {"version": True},
    "version zero": {"version": 0},
    "version path": {"version": "../1"},
    "saw text": {"saw": "1"},
    "generation": {"generation": 1},
    "generation text": {"generation": "2"},
    "generation huge": {"generation": 10**40},
    "alias": {"alias": "staging"},
    "name": {"name": "cars"},
    "kind": {"kind": "datasets"},
    "why": {"why": None},
    "by": {"by": 1},
    "at": {"at": []},
    "nonce": {"nonce": 1},
    "schema": {"schema_version": "1"},
}


@pytest.mark.parametrize("changes", HOSTILE_MOVES.values(), ids=HOSTILE_MOVES.keys())
def test_a_hostile_move_is_refused(log: VersionLog, changes: dict[str, Any]) -> None:
    log.store.upload("models/houses/aliases/production/9999999998.json", io.BytesIO(resealed({**MOVE, **changes})))
    for call in (
        lambda: log.aliases.current("houses", "production"),
        lambda: log.aliases.history("houses", "production"),
        lambda: log.aliases.promote("houses", 1, "production"),
        lambda: log.get(parse_reference("houses@production", "model")),
    ):
        with pytest.raises(IntegrityError):
            call()


@pytest.mark.parametrize("name", sorted(set(MOVE) - {"sha256"}))
def test_a_move_without_one_of_its_members_is_refused(log: VersionLog, name: str) -> None:
    log.store.upload("models/houses/aliases/production/9999999998.json", io.BytesIO(resealed(without(MOVE, name))))
    with pytest.raises(IntegrityError):
        log.aliases.current("houses", "production")


@pytest.mark.parametrize(
    "record",
    [
        *[without(TOMBSTONE, name) for name in sorted(set(TOMBSTONE) - {"sha256"})],
        {**TOMBSTONE, "version": 2},
        {**TOMBSTONE, "version": "3"},
        {**TOMBSTONE, "name": "cars"},
        {**TOMBSTONE, "kind": "datasets"},
    ],
    ids=lambda record: ",".join(f"{k}={record.get(k)}" for k in TOMBSTONE if record.get(k) != TOMBSTONE[k])[:40],
)
def test_a_hostile_tombstone_is_refused(log: VersionLog, record: dict[str, Any]) -> None:
    log.store.upload("models/houses/tombstones/9999999997.json", io.BytesIO(resealed(record)))
    with pytest.raises(IntegrityError):
        log.tombstone("houses", 3)
    with pytest.raises(IntegrityError):
        log.get(parse_reference("houses@3", "model"))
    # Whatever it says, the version stays hidden.
    assert log.versions("houses") == (2, 1)
