"""What one worker reads of a source, and what it is told of the settings."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from smkit.config import PostgresSettings
from smkit.datasets.dataset import Dataset, DatasetSplit
from smkit.datasets.parts import part_batches
from smkit.datasets.store import open_log
from smkit.errors import ConfigError
from smkit.versioning import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from smkit.config import Settings
    from smkit.datasets.recipe import Recipe, RowSource


@dataclass(frozen=True)
class Unit:
    """What one task reads.

    Attributes:
        source: Where its rows come from.
        columns: The columns, in the order of the whole source; None: as they come.
        identity: What the description of the source must say of its one file; None where nothing is compared. Names
            do not count.
    """

    source: RowSource
    columns: tuple[str, ...] | None = None
    identity: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Division:
    """A source in units, whose rows are one after the other those of the source.

    Attributes:
        units: The units.
        joined: Whether a batch of the source goes on from one unit into the next.
        readers: How many of them may be read at once; None: as many as there are workers.
    """

    units: tuple[Unit, ...]
    joined: bool
    readers: int | None = None


class SharedSource(Protocol):
    """A source of which several machines read shares, for as long as something is held, such as a snapshot."""

    @property
    def settings(self) -> Settings:
        """How it is reached from here."""

    @property
    def readers(self) -> int:
        """How many may read its shares at once."""

    def shares(self, settings: Settings) -> AbstractContextManager[Sequence[RowSource]]:
        """Yield sources which, one after the other, have its rows; `settings` are what workers may know of them."""


def for_workers(settings: Settings, *, database: bool = False) -> Settings:
    """Return what workers need of the settings: they sign in as themselves, so nothing that is secret goes along.

    Args:
        settings: The settings.
        database: Whether they read the database: what they need to find it goes along, then.
    """
    # Field by field: settings are merged so, and one that is not named would stay.
    postgres = {name: field.default for name, field in PostgresSettings.model_fields.items()}
    if database:
        postgres = {"password": None}
    return settings.model_copy(update={"postgres": postgres, "pip_index_url": None, "profile": None})


@functools.lru_cache(maxsize=16)
def shared(settings: Settings) -> Settings:
    """Return the first settings of this process that equal these: every task brings its own, without clients."""
    return settings


@contextlib.contextmanager
def divide_source(recipe: Recipe, settings: Settings) -> Iterator[Division]:
    """Yield a source, divided; its units can be read while the context is open.

    Raises:
        ConfigError: It cannot be read by several machines with the rows in the same order.
        SourceError: It cannot be read.
    """
    source: Any = recipe.source
    if callable(getattr(source, "shares", None)):
        shared_source: SharedSource = source
        there = for_workers(shared_source.settings, database=True)
        with shared_source.shares(there) as shares:
            yield Division(tuple(map(Unit, shares)), joined=True, readers=shared_source.readers)
        return
    yield _divide(recipe, settings)


def _divide(recipe: Recipe, settings: Settings) -> Division:
    source = recipe.source
    if isinstance(source, (Dataset, DatasetSplit)):
        return Division(tuple(map(Unit, _parts_of(source, settings))), joined=False)
    if callable(getattr(source, "file_by_file", None)):
        return Division(_files_of(source, recipe.described, settings), joined=True)
    divide: Callable[[], Sequence[RowSource]] | None = getattr(source, "divide", None)
    if callable(divide):
        return Division(tuple(map(Unit, divide())), joined=False)
    hints = {
        "FrameSource": "its rows are in this process: leave client out, or write them as files that the workers see",
    }
    hint = hints.get(type(source).__name__, "give it a method divide() that returns one source for each worker's share")
    raise ConfigError(
        f"{source!r} cannot be read by a cluster: {hint}. A cluster reads FileSource, S3Source, PostgresSource with "
        f"partition_on, datasets, and sources with a method divide()"
    )


@dataclass(frozen=True)
class DatasetPart:
    """The rows of one part of a dataset version.

    Attributes:
        settings: Those of its store.
        record: The manifest, as it is stored: in memory it cannot be pickled.
        name: The dataset.
        version: The version.
        path: The part's path.
    """

    settings: Settings
    record: bytes
    name: str
    version: int
    path: str

    def batches(self, *, batch_size: int = 65_536) -> Generator[pa.RecordBatch]:
        """Yield the rows; the file's SHA-256 is checked first.

        Raises:
            IntegrityError: Bytes are not those that were published.
        """
        log = open_log(shared(self.settings))
        place = f"{self.name}@{self.version}"
        manifest = Manifest.decode(self.record, kind=log.kind, name=self.name, version=self.version, where=place)
        schema = Dataset(manifest, log).schema
        [file] = [file for file in manifest.files if file.path == self.path]
        yield from part_batches(log.store, manifest, file, schema, schema.names, batch_size=batch_size)

    def describe(self) -> dict[str, Any]:
        """Return which part it is."""
        return {"dataset": f"{self.name}@{self.version}", "path": self.path}


def _parts_of(source: Dataset | DatasetSplit, settings: Settings) -> list[DatasetPart]:
    dataset = source.dataset if isinstance(source, DatasetSplit) else source
    splits = (source.name,) if isinstance(source, DatasetSplit) else dataset.splits
    there = for_workers(settings).model_copy(update={"root": dataset._log.store.uri})
    record = dataset.manifest.encode()
    return [
        DatasetPart(there, record, dataset.name, dataset.version, file.path)
        for split in splits
        for file in dataset._files(split)
    ]


def _files_of(source: Any, described: Mapping[str, Any], settings: Settings) -> tuple[Unit, ...]:
    """Return one unit for each file: the workers do not infer its columns and types anew."""
    columns = tuple(source.schema().names)
    if callable(getattr(source, "with_settings", None)):
        source = source.with_settings(for_workers(source.settings or settings))
    return tuple(Unit(one, columns, identity) for one, identity in source.file_by_file(described))


def open_unit(unit: Unit) -> RowSource:
    """Return the source of a unit, on the worker.

    Raises:
        ConfigError: The file is another than when the build began.
        SourceError: It is not there.
    """
    source: Any = unit.source
    if unit.identity is None:
        return cast("RowSource", source)
    if callable(getattr(source, "with_settings", None)):
        source = source.with_settings(shared(source.settings))
    _check_identity(source, unit.identity)
    return cast("RowSource", source)


def _check_identity(source: Any, identity: Mapping[str, Any]) -> None:
    [found] = source.identities()
    if found != identity:
        raise ConfigError(
            f"{source!r} is another file for this worker ({found}) than for the process that builds "
            f"({dict(identity)}): it changed meanwhile, or the machines do not share the disk"
        )
