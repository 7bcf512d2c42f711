"""The versions of a model as one list, cheap however long it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from smkit.artifacts.version import ModelVersion
from smkit.display import MISSING, html_table, shown, shown_size, shown_time
from smkit.errors import InvalidNameError
from smkit.naming import check_job_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from smkit.versioning import VersionLog

_HTML_ROWS = 50


class ModelVersions(Sequence[ModelVersion]):
    """The versions of a model, newest first; in a notebook a table.

    Args:
        name: The model's name.
        log: The log that they are in.
        items: The versions.
    """

    def __init__(self, name: str, log: VersionLog, items: Iterable[ModelVersion]) -> None:
        self.name = name
        self._log = log
        self._items = tuple(items)

    @classmethod
    def of(cls, log: VersionLog, name: str) -> ModelVersions:
        """Return all live versions of a name, with a few requests however many there are."""
        summaries = log.summaries(name)
        return cls(name, log, (ModelVersion(log, name, summary.version, summary=summary) for summary in summaries))

    @overload
    def __getitem__(self, index: int) -> ModelVersion: ...

    @overload
    def __getitem__(self, index: slice) -> ModelVersions: ...

    def __getitem__(self, index: int | slice) -> ModelVersion | ModelVersions:
        if isinstance(index, slice):
            return ModelVersions(self.name, self._log, self._items[index])
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[ModelVersion]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        """Compare with another list of versions, or a plain list or tuple."""
        if isinstance(other, (ModelVersions, list, tuple)):
            return self._items == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        if not self._items:
            return f"<ModelVersions of {self.name!r}: none>"
        newest, oldest = self._items[0], self._items[-1]
        span = newest.ref if len(self) == 1 else f"{newest.ref} to {oldest.ref}"
        return f"<ModelVersions of {self.name!r}: {len(self)}, {span}>"

    def aliases(self) -> dict[int, tuple[str, ...]]:
        """Return, for each version that has any, the aliases that name it now."""
        named: dict[int, tuple[str, ...]] = {}
        for alias, version in sorted(self._log.aliases.all(self.name).items()):
            named[version] = (*named.get(version, ()), alias)
        return named

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each version.

        Columns: `version`, `created_at` (UTC), `created_by`, `aliases` and `datasets` (joined by a comma), `job`,
        `notes`, `size` (bytes), then `metrics.<name>` (float64, NaN where a version has none) and
        `hyperparameters.<name>`.

        Raises:
            StorageError: The aliases cannot be read.
        """
        import pandas as pd

        aliases = self.aliases()

        def text(values: Iterable[str | None]) -> pd.Series[Any]:
            # pandas has its own type for text; of no values it would make numbers.
            return pd.Series(list(values), dtype=None if self else "object")

        columns: dict[str, Any] = {
            "version": pd.Series([version.version for version in self], dtype="int64"),
            # A time that is none is somebody else's doing, and no reason to show no list.
            "created_at": pd.to_datetime(
                text(version.created_at for version in self), utc=True, format="ISO8601", errors="coerce"
            ),
            "created_by": text(version.created_by for version in self),
            "aliases": text(", ".join(aliases.get(version.version, ())) for version in self),
            "datasets": text(", ".join(version.datasets) for version in self),
            "job": text(version.job.get("job_name") for version in self),
            "notes": text(version.notes for version in self),
            "size": pd.Series([version.size for version in self], dtype="int64"),
        }
        metrics = [version.metrics for version in self]
        for name in sorted({name for row in metrics for name in row}):
            columns[f"metrics.{name}"] = pd.Series([row.get(name) for row in metrics], dtype="float64")
        hyperparameters = [version.hyperparameters for version in self]
        for name in sorted({name for row in hyperparameters for name in row}):
            columns[f"hyperparameters.{name}"] = pd.Series([row.get(name) for row in hyperparameters])
        frame: pd.DataFrame = pd.DataFrame(columns)
        return frame

    def table(self, *, compact: bool = True) -> tuple[list[str], list[list[str]]]:
        """Return a header and, for each version, a row of text, for people.

        Args:
            compact: Leave out the columns in which no version has anything.
        """
        aliases = self.aliases()
        names = sorted({name for version in self for name in version.metrics})
        header = ["version", "created (UTC)", "by", "aliases", *names, "datasets", "job", "size", "notes"]
        rows = []
        for version in self:
            metrics = version.metrics
            cells = [
                str(version.version),
                shown_time(version.created_at),
                version.created_by,
                ", ".join(aliases.get(version.version, ())) or None,
                *(metrics.get(name) for name in names),
                ", ".join(version.datasets) or None,
                version.job.get("job_name"),
                shown_size(version.size),
                version.notes or None,
            ]
            rows.append([shown(cell) for cell in cells])
        kept = [place for place in range(len(header)) if not compact or any(row[place] != MISSING for row in rows)]
        return [shown(header[place]) for place in kept], [[row[place] for place in kept] for row in rows]

    def _repr_html_(self) -> str:
        header, rows = self[:_HTML_ROWS].table()
        more = len(self) - _HTML_ROWS
        return html_table(header, rows) + (f"<p>and {more:,} more</p>" if more > 0 else "")


def published_from(log: VersionLog, job_name: str) -> list[ModelVersion]:
    """Return the versions that were published from a job, of each model the newest first; none for a model's name."""
    try:
        check_job_name(job_name)
    except InvalidNameError:
        return []
    names = list(log.names())
    if job_name in names:
        return []
    return [v for name in names for v in ModelVersions.of(log, name) if v.job.get("job_name") == job_name]
