"""Large files are checked block by block, several blocks at once."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.errors import IntegrityError
from smkit.storage.base import BLOCK_BYTES, ContentHash
from smkit.versioning.manifest import StoredFile
from smkit.versioning.reading import check_blocks, open_verified
from tests.versioning.helpers import open_log, publish

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.storage import ObjectStore

DATA = os.urandom(1 << 16) * (2 * BLOCK_BYTES // (1 << 16)) + b"the rest"


def blocks_of(data: bytes) -> tuple[str, ...]:
    return tuple(
        hashlib.sha256(data[start : start + BLOCK_BYTES]).hexdigest() for start in range(0, len(data), BLOCK_BYTES)
    )


@given(st.lists(st.integers(1, 3 << 20), max_size=12), st.sampled_from([0, BLOCK_BYTES - 1, BLOCK_BYTES]))
def test_pieces_of_any_size_give_the_same_digest(cuts: list[int], first: int) -> None:
    content, position = ContentHash(), 0
    for size in [first, *cuts]:
        content.update(DATA[position : position + size])
        position += size
    seen = DATA[:position]
    digest = content.digest()
    assert (digest.sha256, digest.size) == (hashlib.sha256(seen).hexdigest(), len(seen))
    assert digest.blocks == (blocks_of(seen) if len(seen) > BLOCK_BYTES else ())


def test_a_large_file_is_published_with_its_blocks_and_read_by_them(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = open_log(store)
    small, large = publish(log, {"a.bin": b"small", "b.bin": DATA}).manifest.files
    assert small.blocks == ()
    assert large.blocks == blocks_of(DATA)
    manifest = log.manifest("houses", 1)
    assert manifest.files[1].blocks == large.blocks
    for _ in range(2):  # on S3 the second time from the cache
        with open_verified(store, manifest, manifest.files[1]) as stream:
            assert stream.read() == DATA


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blocks") / "large.bin"
    path.write_bytes(DATA)
    return path


def check(path: Path) -> None:
    file = StoredFile("large.bin", len(DATA), hashlib.sha256(DATA).hexdigest(), blocks_of(DATA))

    class Named:
        kind = "models"

        def __str__(self) -> str:
            return "houses@1"

    with path.open("rb") as stream:
        check_blocks(stream.fileno(), Named(), file)  # type: ignore[arg-type]


def test_the_right_bytes_pass(large_file: Path) -> None:
    check(large_file)


@given(
    st.one_of(
        st.integers(0, len(DATA) - 1),
        st.sampled_from([0, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES - 1, 2 * BLOCK_BYTES, len(DATA) - 1]),
    ),
    st.integers(1, 255),
)
def test_one_changed_byte_anywhere_is_found(large_file: Path, position: int, change: int) -> None:
    with large_file.open("r+b") as file:
        file.seek(position)
        file.write(bytes([DATA[position] ^ change]))
    try:
        with pytest.raises(IntegrityError, match=r"large\.bin of models houses@1 is damaged"):
            check(large_file)
    finally:
        with large_file.open("r+b") as file:
            file.seek(position)
            file.write(DATA[position : position + 1])


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 0])
def test_a_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes((DATA + b"x")[:size])
    with pytest.raises(IntegrityError):
        check(path)


@pytest.mark.parametrize(
    "blocks",
    [
        ["0" * 64],
        ["0" * 64] * 4,
        ["0" * 64, "0" * 64, "0" * 63],
        ["0" * 64, "0" * 64, 1],
        ["0" * 64, "0" * 64, "A" * 64],
        "0" * 192,
        {"0": "0" * 64},
        None,
    ],
    ids=repr,
)
def test_malformed_blocks_are_refused(blocks: object) -> None:
    record = {"path": "large.bin", "size": len(DATA), "sha256": "0" * 64}
    assert StoredFile.from_record(record).blocks == ()
    assert len(StoredFile.from_record({**record, "blocks": ["0" * 64] * 3}).blocks) == 3
    with pytest.raises(ValueError, match="blocks"):
        StoredFile.from_record({**record, "blocks": blocks})


def test_blocks_do_not_make_another_file() -> None:
    """The digest of a copy inside S3 may be known without them."""
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert StoredFile("a", len(DATA), sha256) == StoredFile("a", len(DATA), sha256, blocks_of(DATA))
