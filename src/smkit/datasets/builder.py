"""From a source to a dataset version."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast, get_args

from smkit.config import Settings
from smkit.datasets.appending import Append
from smkit.datasets.dataset import Dataset, DatasetSplit
from smkit.datasets.local import build_here
from smkit.datasets.recipe import Built, Recipe, RowSource, stamps_of
from smkit.datasets.schema import Schema
from smkit.datasets.splits import SPLITS, SplitRule, make_rule
from smkit.datasets.steps import Check, Clean, columns_of
from smkit.datasets.store import open_log
from smkit.datasets.transforms import Map
from smkit.datasets.writing import Format, warn_of_wide_decimals
from smkit.environment import describe_environment
from smkit.errors import ConfigError, IntegrityError
from smkit.naming import check_name
from smkit.storage import check_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd
    import pyarrow as pa
    from distributed import Client

    from smkit.datasets.steps import Step
    from smkit.versioning import Manifest, StoredFile, VersionLog


@dataclass(frozen=True)
class DatasetBuilder:
    """Says how a dataset comes to be. Every method but `build` returns a new builder and does no work.

    Steps run in the order in which they were added, on batches, in bounded memory.

    Args:
        name: The dataset's name.
        source: Where the rows come from; a dataset, or one split of it, is a source too.
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
    _append: Append | None = field(default=None, repr=False)

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
        append = [f"append by {', '.join(self._append.key)}"] if self._append else []
        return f"<DatasetBuilder {self.name}: {' -> '.join([repr(self.source), *names, *append, *split])}>"

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

    def append(self, key: str | Sequence[str], *, to: str | Dataset | None = None) -> DatasetBuilder:
        """Add to a version: `build` makes a version that holds its rows, and of the new rows those whose key is new.

        Old rows keep their split, and new rows are split by the same rule, so `split` may be left out; a rule that
        places rows by counts (`stratify`, `group`, `time`) cannot grow. Old files are taken over without being read
        into memory. Where no row is new, `build` returns the old version. Takes 16 bytes of memory for each key.

        Args:
            key: The column or columns that name a row. Among the new rows none may be missing, and none may repeat.
            to: The version, such as `houses@3`, or a dataset; None: the latest, and where there is none yet, all rows
                are new.

        Raises:
            ConfigError: An argument is of the wrong kind.
        """
        columns = columns_of(key, "key")
        if not columns or len(set(columns)) < len(columns):
            raise ConfigError(f"append: key={key!r}: expected a column's name, or a list of different names")
        if to is not None and not isinstance(to, (str, Dataset)):
            raise ConfigError(f"append: to={to!r}: expected a reference such as '{self.name}@3', or a dataset")
        return replace(self, _append=Append(columns, to))

    def build(
        self,
        *,
        format: Format = "parquet",  # noqa: A002 - the word that pandas and pyarrow users look for
        batch_size: int = 65_536,
        progress: bool | None = None,
        client: Client | None = None,
    ) -> Dataset:
        """Read, transform, check and split all rows and publish them as a new version.

        Content that a version holds already is not published again: that version is returned, which need not be the
        latest. A version whose files are damaged does not count.

        Args:
            format: `parquet`, or `csv` for training images or scripts without pyarrow.
            batch_size: Rows a batch; changes the memory used, never the result.
            progress: Whether to show a progress bar; None: on a terminal or in a notebook.
            client: A Dask cluster that does the work, such as `distributed.Client(...)`, with the same result; None:
                this process. `docs/datasets.md` says which sources can be read by several machines, and what the
                workers need.

        Raises:
            SourceError: The source cannot be read.
            EmptyResultError: No rows came, or none were left.
            TransformError: A transform raised, or depends on the batch size.
            MissingColumnError: A step names a column that is not there.
            SchemaViolationError: Rows break a schema; all violations are listed.
            EmptySplitError: A split would be empty.
            StorageError: The disk is full or the store failed. No version is visible then.

        With `append` also:

        Raises:
            DatasetError: A key repeats or is missing, or columns differ from those of the version that is added to.
            VersionNotFound: There is no such version.
            IntegrityError: Its bytes are not those that were published.
        """
        if format not in get_args(Format):
            raise ConfigError(f"format={format!r}: expected one of {', '.join(get_args(Format))}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected a positive number of rows")
        settings = self.settings or Settings()
        log = open_log(settings)
        # First: whatever is written later, `check_unchanged` finds.
        stamps = stamps_of(self.source)
        source = self._describe_source()
        adding = self._append.start(log, self.name) if self._append else None
        rule = self._rule
        if adding is not None:
            adding.check_format(format)
            rule = adding.rule(self._rule)
        recipe = Recipe(self.name, self.source, stamps, source, self._steps, rule, adding, format, batch_size, progress)
        with contextlib.ExitStack() as stack:
            if client is None:
                built = stack.enter_context(build_here(recipe, log.store))
            else:
                from smkit.datasets.cluster import build_on

                built = stack.enter_context(build_on(client, recipe, log, settings))
            if built is None:  # no row is new
                return cast("Dataset", adding.parent if adding else None)
            warn_of_wide_decimals(built.schema, self.name, frames=2)
            return Dataset(self._publish(built, recipe, log, settings), log)

    def _publish(self, built: Built, recipe: Recipe, log: VersionLog, settings: Settings) -> Manifest:
        adding = recipe.adding
        rows = {split: built.rows.get(split, 0) + recipe.rows_before.get(split, 0) for split in SPLITS}
        rows = {split: count for split, count in rows.items() if count}
        content: dict[str, Any] = {"format": recipe.format, "schema": _listed(built.schema), "splits": rows}
        parents = [
            {"ref": one.ref, "relation": relation, "digest": one.digest, "uri": one.uri}
            for relation, one in (("append", adding.parent if adding else None), ("source", _dataset_of(self.source)))
            if one is not None
        ]
        facts: dict[str, Any] = {
            "arrow_schema": base64.b64encode(built.schema.serialize().to_pybytes()).decode(),
            "source": {**recipe.described, "rows_read": built.read},
            "steps": [step.describe() for step in self._steps],
            "split": recipe.rule.describe(),
            "environment": describe_environment(),
            **({"parents": parents} if parents else {}),
            **({"append": adding.describe(built.left)} if adding else {}),
        }

        def body(stored: tuple[StoredFile, ...]) -> dict[str, Any]:
            sizes = {split: sum(f.size for f in stored if f.path.startswith(f"{split}/")) for split in rows}
            splits = {split: {"rows": count, "bytes": sizes[split]} for split, count in rows.items()}
            return {**content, "splits": splits, **facts}

        files = [*(adding.kept(settings, built.folder) if adding else ()), *built.files]
        published = log.publish(self.name, files, body, content=content, reuse="any")
        if not published.created and not _is_whole(log, published.manifest):
            # Whoever builds again to mend a damaged version must not be handed that version.
            published = log.publish(self.name, files, body, content=content, reuse="never")
        return published.manifest

    def _describe_source(self) -> dict[str, Any]:
        """Ask before the work, so that a source that cannot describe itself costs nothing."""
        described = self.source.describe()
        try:
            json.dumps(described, sort_keys=True)
            described = dict(described)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{type(self.source).__name__}.describe() must return a dict of JSON values: {error}"
            ) from None
        return described if _dataset_of(self.source) is None else {"type": "dataset", **described}


def _dataset_of(source: RowSource) -> Dataset | None:
    """Return the dataset that a source is, or that it is a split of."""
    if isinstance(source, DatasetSplit):
        return source.dataset
    return source if isinstance(source, Dataset) else None


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


def _listed(schema: pa.Schema) -> list[dict[str, str]]:
    return [{"name": field.name, "type": str(field.type)} for field in schema]
