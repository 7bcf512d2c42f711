"""Summaries of versions, a hundred or a thousand to one object, so that a long list costs few requests.

A segment is written once, when its block of numbers is full, and never changes, as the manifests that it sums up never
do. Its key ends in a digest of the members that it shows of a manifest's body: lists that show others have their own.
It is a convenience: what it lacks is read from the manifests, which alone decide. Nothing is deleted on its word.
"""

from __future__ import annotations

import hashlib
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from smkit.errors import IntegrityError, ObjectNotFound, SmkitError
from smkit.versioning.manifest import MAX_RECORD_BYTES, canonical, field, freeze, number_field, seal, thaw, unseal
from smkit.versioning.records import put_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from smkit.storage.base import ObjectStore
    from smkit.versioning.manifest import Manifest

#: Block sizes, the larger first. Version n is in the block of its size that ends at a multiple of the size.
SIZES = (1000, 100)
_THREADS = 16
#: Of the segments that earlier writers missed, so many are made up for with one publish; later ones do the rest.
_MOST_AT_ONCE = 10
_KEY = re.compile(r"([0-9]{1,10})-([0-9]{10})-([0-9a-f]{16})\.json")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a list shows of a version.

    Attributes:
        version: Its number.
        publish_id: The folder of its files under `data/`.
        content_digest: As in the manifest.
        created_at: UTC, ISO 8601.
        created_by: Who published it.
        files: How many files it has.
        size: Their size in bytes.
        body: Those members of the manifest's body that a list shows.
    """

    version: int
    publish_id: str
    content_digest: str
    created_at: str
    created_by: str
    files: int
    size: int
    body: Mapping[str, Any]


class SegmentLog:
    """The segments of all names of one kind.

    Args:
        store: Where they lie.
        kind: `datasets` or `models`.
        keys: Which members of a manifest's body a list shows.
        manifest: Reads the manifest of a name's version.
    """

    def __init__(
        self, store: ObjectStore, kind: str, keys: tuple[str, ...], manifest: Callable[[str, int], Manifest]
    ) -> None:
        self._store = store
        self._kind = kind
        self._keys = tuple(sorted(set(keys)))
        self._tag = hashlib.sha256(canonical(list(self._keys))).hexdigest()[:16]
        self._manifest = manifest

    def summaries(self, name: str, numbers: Sequence[int]) -> dict[int, Summary]:
        """Return the summaries of some versions, in the order of `numbers`.

        Raises:
            IntegrityError: The manifest of one of them was changed.
            StorageError: The store cannot be read.
        """
        if not numbers:
            return {}
        wanted = set(numbers)
        found: dict[int, Summary] = {}
        blocks = list(self._blocks(name))
        with ThreadPoolExecutor(_THREADS) as pool:
            for size in SIZES:
                # A large block makes the small ones inside it unneeded.
                useful = [block for block in blocks if block.size == size and not wanted.isdisjoint(block.numbers)]
                for summaries in pool.map(lambda block: self._read(name, block), useful):
                    found.update((summary.version, summary) for summary in summaries if summary.version in wanted)
                wanted -= found.keys()
            left = [number for number in numbers if number in wanted]
            found.update(zip(left, pool.map(lambda number: self._sum_up(name, number), left), strict=True))
        return {number: found[number] for number in numbers}

    def write_due(self, name: str, top: int) -> None:
        """Write the segments that became due with version `top`, and some of those that earlier writers missed.

        A failure is logged and no error: the version is published, and lists read the manifests instead.
        """
        if top % SIZES[-1]:
            return
        try:
            due = self._due(name, top)
        except SmkitError as error:
            _logger.warning("no segment of %s %s was written: %s", self._kind, name, error)
            return
        for block in due[:_MOST_AT_ONCE]:
            self._try_to_write(name, block)

    def _due(self, name: str, top: int) -> list[_Block]:
        """Return the blocks that are full but have no segment: the small before the large, the newest first."""
        there = set(self._blocks(name))
        # Where a larger segment stands, the smaller ones inside it were of use only on the way to it.
        covered = {number for block in there if block.size == SIZES[0] for number in block.numbers}
        return [
            block
            for size in reversed(SIZES)
            for block in (_Block(size, end) for end in range(top - top % size, 0, -size))
            if block not in there and (size == SIZES[0] or block.end not in covered)
        ]

    def _try_to_write(self, name: str, block: _Block) -> None:
        try:
            self._write(name, block)
        # RuntimeError: no thread can be started, as when the interpreter ends.
        except (SmkitError, RuntimeError) as error:
            _logger.warning("the segment %s was not written: %s", self._key(name, block), error)

    def _write(self, name: str, block: _Block) -> None:
        summaries = self.summaries(name, block.numbers).values()
        record = {
            "kind": self._kind,
            "name": name,
            "size": block.size,
            "end": block.end,
            "keys": list(self._keys),
            "summaries": [{**vars(summary), "body": thaw(summary.body)} for summary in summaries],
        }
        put_record(self._store, self._key(name, block), seal(record, f"a segment of {self._kind} {name}"))

    def _blocks(self, name: str) -> Iterator[_Block]:
        """Yield the blocks that have a segment with these members."""
        for info in self._store.scan(f"{self._kind}/{name}/segments/"):
            match = _KEY.fullmatch(info.key.rpartition("/")[2])
            if match is None or match[3] != self._tag:
                continue
            block = _Block(int(match[1]), int(match[2]))
            full = block.size in SIZES and block.end > 0 and block.end % block.size == 0
            if full and self._key(name, block) == info.key:
                yield block

    def _read(self, name: str, block: _Block) -> list[Summary]:
        """Return a segment's summaries; of one that cannot be used none, since the manifests say the same."""
        try:
            return self._checked(name, block)
        except SmkitError as error:
            _logger.warning("a segment is not used: %s", error)
            return []

    def _checked(self, name: str, block: _Block) -> list[Summary]:
        key = self._key(name, block)
        where = f"{self._store.uri}/{key}"
        record = unseal(self._store.get(key, max_bytes=MAX_RECORD_BYTES), where)
        try:
            summaries = [_summary(item) for item in field(record, "summaries", list)]
        except ValueError as error:
            raise IntegrityError(f"{where} is not a segment of smkit: {error}") from None
        stated = tuple(record.get(member) for member in ("kind", "name", "size", "end", "keys"))
        numbers = [summary.version for summary in summaries]
        if stated != (self._kind, name, *block, list(self._keys)) or numbers != list(block.numbers):
            raise IntegrityError(f"{where} holds another segment: it was moved or copied there")
        return summaries

    def damaged(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield where a segment lies that says what no manifest says, or cannot be used, and why.

        A version whose own manifest is damaged says nothing of a segment.

        Raises:
            StorageError: The store cannot be read.
        """
        for block in self._blocks(name):
            where = f"{self._store.uri}/{self._key(name, block)}"
            try:
                summaries = self._checked(name, block)
            except ObjectNotFound:  # deleted since it was listed
                continue
            except IntegrityError as error:
                yield where, str(error)
                continue
            with ThreadPoolExecutor(_THREADS) as pool:
                agree = all(pool.map(lambda summary: self._agrees(name, summary), summaries))
            if not agree:
                yield where, "it says what the manifests do not say"

    def _agrees(self, name: str, summary: Summary) -> bool:
        try:
            return summary == self._sum_up(name, summary.version)
        except SmkitError:
            return True

    def _sum_up(self, name: str, number: int) -> Summary:
        manifest = self._manifest(name, number)
        return Summary(
            version=number,
            publish_id=manifest.publish_id,
            content_digest=manifest.content_digest,
            created_at=manifest.created_at,
            created_by=manifest.created_by,
            files=len(manifest.files),
            size=sum(file.size for file in manifest.files),
            body=freeze({key: thaw(manifest.body[key]) for key in self._keys if key in manifest.body}),
        )

    def _key(self, name: str, block: _Block) -> str:
        return f"{self._kind}/{name}/segments/{block.size}-{block.end:010}-{self._tag}.json"


class _Block(NamedTuple):
    """A run of numbers that one segment sums up: how many, and the last."""

    size: int
    end: int

    @property
    def numbers(self) -> range:
        return range(self.end - self.size + 1, self.end + 1)


def _summary(item: Any) -> Summary:
    return Summary(
        version=number_field(item, "version"),
        publish_id=field(item, "publish_id", str),
        content_digest=field(item, "content_digest", str),
        created_at=field(item, "created_at", str),
        created_by=field(item, "created_by", str),
        files=field(item, "files", int),
        size=field(item, "size", int),
        body=freeze(field(item, "body", dict)),
    )
