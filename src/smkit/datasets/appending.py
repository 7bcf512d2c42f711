"""A version that holds another version's rows, and the new ones by key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from smkit.aws import split_s3_uri
from smkit.aws_errors import AWS_ERRORS
from smkit.datasets.dataset import Dataset
from smkit.datasets.hashing import SeenRows
from smkit.datasets.running import BEGINNING
from smkit.datasets.splits import SPLITS, SplitRule
from smkit.datasets.steps import missing_in, require_columns, without
from smkit.errors import ConfigError, DatasetError
from smkit.naming import LATEST, parse_reference
from smkit.storage import Digest
from smkit.versioning import PendingFile, RemoteObject

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from smkit.config import Settings
    from smkit.datasets.running import Run, Start
    from smkit.datasets.writing import Format
    from smkit.versioning import StoredFile, VersionLog

#: Rules that place a row by itself; the others place it by counts over all rows, which new rows would change.
_GROWING = frozenset({"none", "hash", "random"})
_SAMPLES = 3


@dataclass(frozen=True)
class Append:
    """What `DatasetBuilder.append` was told.

    Attributes:
        key: The columns that name a row.
        to: The version to add to: a reference, or a dataset; None for the latest, where there is one.
    """

    key: tuple[str, ...]
    to: str | Dataset | None

    def start(self, log: VersionLog, name: str) -> Appending:
        """Pin the version that rows are added to, and read its keys.

        Raises:
            ConfigError: It is a version of something else.
            VersionNotFound: There is no such version.
            MissingColumnError: It has no such key.
            IntegrityError: Its bytes are not those that were published.
        """
        return Appending(self.key, self._parent(log, name))

    def _parent(self, log: VersionLog, name: str) -> Dataset | None:
        if self.to is None:
            if not log.versions(name):
                return None  # the first version holds all rows
            return Dataset(log.get(parse_reference(name, "dataset")), log)
        text = self.to.ref if isinstance(self.to, Dataset) else self.to
        reference = parse_reference(text, "dataset")
        if reference.name != name:
            raise ConfigError(f"append(to={text!r}): rows are added to a version of {name!r}, such as {name}@{LATEST}")
        parent = Dataset(log.get(reference), log)
        if isinstance(self.to, Dataset) and parent != self.to:
            raise ConfigError(f"append(to=...): {self.to.uri} lies in another store than {log.store.uri}")
        return parent


class Appending:
    """One run of an append; a step that lets the rows pass whose keys are new.

    Args:
        key: The columns that name a row.
        parent: The version that rows are added to; None where there is none yet.
    """

    def __init__(self, key: tuple[str, ...], parent: Dataset | None) -> None:
        self.key = key
        self.parent = parent
        self.rows_known = 0
        self._old = SeenRows(key)
        self._new = SeenRows(key)
        self._seen = 0
        if parent is not None:
            require_columns(parent.schema.empty_table(), key, f"append to {parent.ref}")
            for batch in parent.batches(columns=key):
                self._old.add(pa.Table.from_batches([batch]))

    def run(
        self,
        tables: Iterator[pa.Table],
        run: Run,  # noqa: ARG002 - the steps' protocol
        start: Start = BEGINNING,  # noqa: ARG002 - the steps' protocol
    ) -> Generator[pa.Table]:
        """Yield the rows whose keys the parent does not have."""
        for table in tables:
            require_columns(table, self.key, "append")
            missing = missing_in(table, self.key)
            if missing.any():
                row = self._seen + int(np.argmax(missing))
                raise DatasetError(
                    f"append: the key {_shown(self.key)} is missing in row {row:,}; "
                    f"drop such rows with .clean(drop_missing={list(self.key)!r})"
                )
            known = self._old.contains(table)
            added = without(table, known)
            self.rows_known += int(known.sum())
            repeated = ~self._new.add(added)
            if repeated.any():
                samples = added.select(self.key).filter(pa.array(repeated)).slice(0, _SAMPLES).to_pylist()
                values = ", ".join(" + ".join(map(repr, row.values())) for row in samples)
                raise DatasetError(
                    f"append: the key {_shown(self.key)} occurs more than once among the new rows: {values}; name a "
                    f"row by more columns, or keep the first with .clean(drop_duplicates={list(self.key)!r})"
                )
            self._seen += table.num_rows
            yield added

    def rule(self, asked: SplitRule) -> SplitRule:
        """Return the rule for the new rows: the parent's, so that a key keeps its split.

        Raises:
            ConfigError: Another rule was asked for, or the parent's cannot be applied to new rows alone.
        """
        rule = asked if self.parent is None else _rule_of(self.parent)
        if rule.method not in _GROWING:
            raise ConfigError(
                f"append: the split {rule.method!r} places a row by counts over all rows, so old rows would have to "
                f"move; split by=<a key or group column>, which keeps its split as the data grows, or build anew"
            )
        if asked not in (SplitRule(), rule):
            raise ConfigError(
                f"append: {self.parent.ref if self.parent else ''} is split by {rule.describe()}, not by "
                f"{asked.describe()}: leave split() out, and the new rows are split by the same rule"
            )
        return rule

    def check_format(self, asked: Format) -> None:
        """Refuse to mix formats in one version.

        Raises:
            ConfigError: The parent has another one.
        """
        if self.parent is not None and (there := self.parent.manifest.body["format"]) != asked:
            raise ConfigError(f"append: {self.parent.ref} holds {there} files, not {asked}: build(format={there!r})")

    @property
    def rows_before(self) -> Mapping[str, int]:
        """How many rows each split of the parent has."""
        return {} if self.parent is None else self.parent.rows

    @property
    def parts_before(self) -> Mapping[str, int]:
        """How many parts each split of the parent has."""
        files = () if self.parent is None else self.parent.manifest.files
        return {split: sum(file.path.startswith(f"{split}/") for file in files) for split in SPLITS}

    def describe(self, rows_new: int) -> dict[str, Any]:
        """Return what was done as JSON values."""
        return {"key": list(self.key), "rows_new": rows_new, "rows_known": self.rows_known}

    def kept(self, settings: Settings, folder: Path) -> list[PendingFile]:
        """Return the parent's files as files of the new version.

        In a folder each is a second name of the same file, where the file system has such; S3 copies its own objects.

        Args:
            settings: Those of the store.
            folder: Where parts are collected.
        """
        if self.parent is None:
            return []
        store, manifest = self.parent._log.store, self.parent.manifest
        client = settings.client("s3") if store.local_path("datasets") is None else None
        pending = []
        for number, file in enumerate(manifest.files):
            key = manifest.key_of(file.path)
            remote = remote_object(client, f"{store.uri}/{key}") if client is not None else None
            local = _linked(store.local_path(key), folder / f"kept-{number:05}")
            pending.append(_pending(self.parent, file, local, remote))
        return pending


def _pending(parent: Dataset, file: StoredFile, local: Path | None, remote: RemoteObject | None) -> PendingFile:
    def open_file() -> Any:
        return parent._log.store.open(parent.manifest.key_of(file.path))

    return PendingFile(file.path, open_file, Digest(file.sha256, file.size), local=local, remote=remote)


def _linked(path: Path | None, link: Path) -> Path | None:
    """Give a file a second name; None where that cannot be, and it must be copied."""
    # Who may not write to a file may not say that it was just used either, which taking it over does.
    if path is None or not os.access(path, os.W_OK):
        return None
    try:
        # The function, not Path.hardlink_to, whose arguments are the other way round.
        os.link(path, link)
    except OSError:  # another disk, a file system without links, too many of them, not allowed
        return None
    return link


def remote_object(client: Any, uri: str) -> RemoteObject | None:
    """Look at an object of S3; None where that fails: then it is read and uploaded, which says what is wrong."""
    bucket, key = split_s3_uri(uri)
    try:
        return RemoteObject(uri, client.head_object(Bucket=bucket, Key=key)["ETag"])
    except AWS_ERRORS:
        return None


def _rule_of(dataset: Dataset) -> SplitRule:
    described = dataset.manifest.body["split"]
    train, validation, test = (float(described["fractions"].get(split, 0.0)) for split in SPLITS)
    return SplitRule(described["method"], tuple(described["columns"]), (train, validation, test), described["seed"])


def _shown(key: tuple[str, ...]) -> str:
    return ", ".join(map(repr, key))
