"""From a source to a dataset version."""

from __future__ import annotations

import base64
import contextlib
import json
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, get_args

import pyarrow as pa

from smkit.datasets.columns import check_names, differing, stored_table
from smkit.datasets.dataset import Dataset
from smkit.datasets.schema import Schema, SchemaCheck, Violation, violation_error
from smkit.datasets.splits import SPLITS, SplitRule, check_splits, make_rule
from smkit.datasets.splitters import start_splitter
from smkit.datasets.spool import Spool
from smkit.datasets.staging import parts_folder, temporary_folder
from smkit.datasets.steps import Check, Clean, columns_of, require_columns
from smkit.datasets.store import open_log
from smkit.datasets.transforms import Map
from smkit.datasets.writing import Format, PartWriter, check_storable
from smkit.environment import describe_environment
from smkit.errors import ConfigError, DatasetError, EmptyResultError, IntegrityError, SourceError
from smkit.naming import check_name
from smkit.storage import check_settings

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm shows a plain bar, and would say so in red at the first build.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from smkit.config import Settings
    from smkit.datasets.steps import Step
    from smkit.versioning import Manifest, StoredFile, VersionLog


class RowSource(Protocol):
    """What a dataset is built from: smkit's sources, or anything of this shape."""

    def batches(self, *, batch_size: int = ...) -> Iterator[pa.RecordBatch]:
        """Yield the rows, at most `batch_size` at a time."""

    def describe(self) -> dict[str, Any]:
        """Return where the rows come from, as JSON values without secrets."""


@dataclass(frozen=True)
class DatasetBuilder:
    """Says how a dataset comes to be. Every method but `build` returns a new builder and does no work.

    Steps run in the order in which they were added, on batches, in bounded memory.

    Args:
        name: The dataset's name.
        source: Where the rows come from.
        settings: Where the dataset goes; default: `Settings()`, read by `build`.

    Raises:
        InvalidNameError: The name breaks the naming rule.
        ConfigError: The source is none.
    """

    name: str
    source: RowSource
    settings: Settings | None = None
    _steps: tuple[Step, ...] = field(default=(), repr=False)
    _rule: SplitRule = field(default=SplitRule(), repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, "dataset")
        methods = (getattr(self.source, name, None) for name in ("batches", "describe"))
        if isinstance(self.source, type) or not all(map(callable, methods)):
            kind = self.source.__name__ if isinstance(self.source, type) else type(self.source).__name__
            hint = "; wrap it: smkit.FrameSource(frame)" if kind == "DataFrame" else ""
            raise ConfigError(f"expected a source such as smkit.FileSource(...), got {kind}{hint}")
        check_settings(self.settings)

    def __repr__(self) -> str:
        steps = [step.describe() for step in self._steps]
        names = [f"{step['step']} {step.get('function', '')}".strip() for step in steps]
        split = [] if self._rule.method == "none" else [f"split {self._rule.method}"]
        return f"<DatasetBuilder {self.name}: {' -> '.join([repr(self.source), *names, *split])}>"

    def clean(
        self, *, drop_missing: bool | str | Iterable[str] = False, drop_duplicates: bool | str | Iterable[str] = False
    ) -> DatasetBuilder:
        """Drop rows with missing values, then rows that repeat an earlier one.

        Args:
            drop_missing: Columns in which a missing value (NULL, NaN) drops the row; True for all columns.
            drop_duplicates: Columns that make two rows equal; True for all columns. The first row stays. Takes 16 bytes
                of memory for each distinct row.
        """
        step = Clean(columns_of(drop_missing, "drop_missing"), columns_of(drop_duplicates, "drop_duplicates"))
        if not (step.drop_missing or step.drop_missing is None or step.drop_duplicates or step.drop_duplicates is None):
            raise ConfigError("clean() does nothing: give drop_missing= or drop_duplicates=")
        return replace(self, _steps=(*self._steps, step))

    def map(self, function: Callable[[pd.DataFrame], pd.DataFrame], *, per: str = "batch") -> DatasetBuilder:
        """Let a function change the rows: add, drop or convert columns, filter rows.

        Integers and booleans with missing values arrive as pandas' nullable dtypes, never as floats.

        Args:
            function: DataFrame in, DataFrame out. Its source code's digest goes into the manifest.
            per: `batch`: called for each batch, so each row must depend on itself alone; to try this out, it is also
                called with parts of some batches. `dataset`: called once, with all rows, which must fit in memory.

        Raises:
            ConfigError: An argument is of the wrong kind.
        """
        if not callable(function):
            raise ConfigError(f"map: expected a function from DataFrame to DataFrame, got {type(function).__name__}")
        if per == "batch":
            return replace(self, _steps=(*self._steps, Map(function, "batch")))
        if per == "dataset":
            return replace(self, _steps=(*self._steps, Map(function, "dataset")))
        raise ConfigError(f"map: per={per!r}: expected 'batch' or 'dataset'")

    def check(self, schema: Schema) -> DatasetBuilder:
        """Check the rows as they are at this point; `build` reports all violations of all rows at once.

        Raises:
            ConfigError: It is not a schema.
        """
        if not isinstance(schema, Schema):
            raise ConfigError(f"check: expected a smkit.Schema, got {type(schema).__name__}")
        return replace(self, _steps=(*self._steps, Check(schema)))

    def split(
        self,
        *,
        test: float = 0.0,
        validation: float = 0.0,
        by: str | Sequence[str] | None = None,
        stratify: str | None = None,
        group: str | Sequence[str] | None = None,
        time: str | None = None,
        seed: int = 0,
    ) -> DatasetBuilder:
        """Split into `train` and `test` and, if asked for, `validation`. Without a rule: at random.

        The same rows land in the same splits whatever the batch size. Where counts are exact they are rounded up, as by
        scikit-learn's `train_test_split`. Called again, it replaces the rule.

        Args:
            test: The share of the test split, from 0 up to but not 1.
            validation: The share of the validation split.
            by: Key columns whose hash decides: a key keeps its split when the data grows. Approximate shares.
            stratify: A class column: each split gets each class in the same proportion.
            group: Group columns: rows of one group stay together. Shares are of the groups.
            time: A date, timestamp or integer column: the oldest rows train, the newest test; rows of one time stay
                together.
            seed: Changes which rows go where.

        Raises:
            ConfigError: The arguments contradict each other.
        """
        rule = make_rule(test=test, validation=validation, by=by, stratify=stratify, group=group, time=time, seed=seed)
        return replace(self, _rule=rule)

    def build(
        self,
        *,
        format: Format = "parquet",  # noqa: A002 - the word that pandas and pyarrow users look for
        batch_size: int = 65_536,
        progress: bool | None = None,
    ) -> Dataset:
        """Read, transform, check and split all rows and publish them as a new version.

        Content that a version holds already is not published again: that version is returned, which need not be the
        latest. A version whose files are damaged does not count.

        Args:
            format: `parquet`, or `csv` for training images or scripts without pyarrow.
            batch_size: Rows a batch; changes the memory used, never the result.
            progress: Whether to show a progress bar; None: on a terminal or in a notebook.

        Raises:
            SourceError: The source cannot be read.
            EmptyResultError: No rows came, or none were left.
            TransformError: A transform raised, or depends on the batch size.
            MissingColumnError: A step names a column that is not there.
            SchemaViolationError: Rows break a schema; all violations are listed.
            EmptySplitError: A split would be empty.
            StorageError: The disk is full or the store failed. No version is visible then.
        """
        if format not in get_args(Format):
            raise ConfigError(f"format={format!r}: expected one of {', '.join(get_args(Format))}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected a positive number of rows")
        log = open_log(self.settings)
        source = self._describe_source()
        with temporary_folder() as folder:
            spool = Spool(folder)
            read = self._fill(spool, batch_size, progress)
            check_storable(spool.schema, format)
            with parts_folder(log.store, folder) as parts:
                writers = self._write(spool, parts, format)
                rows = {split: writer.rows for split, writer in writers.items() if writer.rows}
                content = {"format": format, "schema": _listed(spool.schema), "splits": rows}
                facts = {
                    "arrow_schema": base64.b64encode(spool.schema.serialize().to_pybytes()).decode(),
                    "source": {**source, "rows_read": read},
                    "steps": [step.describe() for step in self._steps],
                    "split": self._rule.describe(),
                    "environment": describe_environment(),
                }

                def body(stored: tuple[StoredFile, ...]) -> dict[str, Any]:
                    sizes = {split: sum(f.size for f in stored if f.path.startswith(f"{split}/")) for split in rows}
                    splits = {split: {"rows": count, "bytes": sizes[split]} for split, count in rows.items()}
                    return {**content, "splits": splits, **facts}

                files = [file for writer in writers.values() for file in writer.files]
                published = log.publish(self.name, files, body, content=content, reuse="any")
                if not published.created and not _is_whole(log, published.manifest):
                    # Whoever builds again to mend a damaged version must not be handed that version.
                    published = log.publish(self.name, files, body, content=content, reuse="never")
        return Dataset(published.manifest, log)

    def _describe_source(self) -> dict[str, Any]:
        """Ask before the work, so that a source that cannot describe itself costs nothing."""
        described = self.source.describe()
        try:
            json.dumps(described, sort_keys=True)
            return dict(described)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{type(self.source).__name__}.describe() must return a dict of JSON values: {error}"
            ) from None

    def _fill(self, spool: Spool, batch_size: int, progress: bool | None) -> int:
        """Run the steps over all batches into the spool; return how many rows the source gave."""
        read = 0
        checks: list[SchemaCheck] = []
        # tqdm's disable=None means: only where somebody looks.
        bar = tqdm(desc=self.name, unit=" rows", unit_scale=True, disable=None if progress is None else not progress)

        def tables() -> Generator[pa.Table]:
            nonlocal read
            with contextlib.closing(self._rows_of_source(batch_size)) as rows:
                for table in rows:
                    read += table.num_rows
                    bar.update(table.num_rows)
                    yield table

        with contextlib.ExitStack() as stack:
            stack.enter_context(bar)
            stack.callback(spool.abandon)
            stream = tables()
            stack.callback(stream.close)
            for step in self._steps:
                stream = step.run(stream, checks)
                stack.callback(stream.close)
            try:
                for table in stream:
                    spool.append(table)
                spool.finish()
            except DatasetError as error:
                # Bad rows often break a later step: the rule that they break says more than the step's failure.
                if violations := _found(checks):
                    raise violation_error(violations, self.name) from error
                raise
        if violations := _found(checks):
            raise violation_error(violations, self.name)
        if not read:
            raise EmptyResultError(f"dataset {self.name!r} was not built: the source has no rows: {self.source!r}")
        if not spool.rows:
            raise EmptyResultError(f"dataset {self.name!r} was not built: of {read:,} rows the steps left none")
        return read

    def _rows_of_source(self, batch_size: int) -> Generator[pa.Table]:
        """Yield the source's batches; every one has the same columns, under different names."""
        columns: list[str] | None = None
        batches = self.source.batches(batch_size=batch_size)
        with contextlib.ExitStack() as stack:
            # Closed here and not by the garbage collector: a source may hold a connection.
            if (close := getattr(batches, "close", None)) is not None:
                stack.callback(close)
            for batch in batches:
                if not isinstance(batch, pa.RecordBatch):
                    raise SourceError(f"{self.source!r} yields {type(batch).__name__}, expected pyarrow.RecordBatch")
                if columns is None:
                    columns = batch.schema.names
                    check_names(columns, f"{self.source!r}")
                elif difference := differing(columns, batch.schema.names):
                    raise SourceError(f"{self.source!r} changes its columns between batches: {difference}")
                yield stored_table(pa.Table.from_batches([batch]))

    def _write(self, spool: Spool, folder: Path, file_format: Format) -> dict[str, PartWriter]:
        rule = self._rule
        require_columns(spool.schema.empty_table(), rule.columns, "split")
        splitter = start_splitter(rule)
        if rule.columns:
            for table in spool.read(rule.columns):
                splitter.observe(table)
        splitter.settle(spool.rows)
        writers = {split: PartWriter(folder, split, spool.schema, file_format) for split in SPLITS}
        try:
            start = 0
            for table in spool.read():
                placed = splitter.assign(table, start)
                for index, writer in enumerate(writers.values()):
                    writer.append(table.filter(pa.array(placed == index)))
                start += table.num_rows
            check_splits(rule, {split: writer.rows for split, writer in writers.items()}, self.name)
            for writer in writers.values():
                writer.finish()
        except BaseException:
            for writer in writers.values():
                writer.abandon()
            raise
        return writers


def _is_whole(log: VersionLog, manifest: Manifest) -> bool:
    """Tell whether a version's files are there; on this machine also whether their bytes are those published."""
    sizes = {info.key: info.size for info in log.store.scan(manifest.key_of(""))}
    if any(sizes.get(manifest.key_of(file.path)) != file.size for file in manifest.files):
        return False
    if log.store.local_path("datasets") is None:
        # S3 keeps its own checksums, and reading all of it back would cost what the reuse saves.
        return True
    try:
        log.verify(manifest)
    except IntegrityError:
        return False
    return True


def _found(checks: list[SchemaCheck]) -> list[Violation]:
    # Generators start from the last: its check comes first.
    return [violation for check in reversed(checks) for violation in check.violations]


def _listed(schema: pa.Schema) -> list[dict[str, str]]:
    return [{"name": field.name, "type": str(field.type)} for field in schema]
