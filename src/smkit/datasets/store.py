"""Finding datasets again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smkit.datasets.dataset import Dataset
from smkit.datasets.listing import DatasetVersions
from smkit.errors import IntegrityError
from smkit.naming import check_name, parse_reference
from smkit.storage import check_settings, open_store
from smkit.versioning import VersionLog
from smkit.versioning.maintenance import check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from smkit.config import Settings
    from smkit.datasets.diff import DatasetDiff
    from smkit.versioning import Summary

_KIND = "datasets"
_WHAT = "dataset"
_SUMMARY_KEYS = ("format", "parents", "splits")


class DatasetStore:
    """The datasets under one root.

    Args:
        settings: Where they lie; default: `Settings()`, read on first use and then kept.

    Raises:
        ConfigError: `settings` are none.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = check_settings(settings)
        self._opened: VersionLog | None = None

    def __repr__(self) -> str:
        return f"DatasetStore({self._settings.root!r})" if self._settings else "DatasetStore()"

    def get(self, ref: str) -> Dataset:
        """Return a version: `houses@3`, `houses@latest` or just `houses`, which is the one with the highest number.

        Raises:
            VersionNotFound: There is none.
            IntegrityError: Its manifest was changed.
        """
        log = self._open()
        return Dataset(log.get(parse_reference(ref, _WHAT)), log)

    def versions(self, name: str) -> DatasetVersions:
        """Return all versions of a dataset, newest first; none if there is no such dataset."""
        log = self._open()
        numbers = log.versions(check_name(name, _WHAT))
        return DatasetVersions(Dataset(log.manifest(name, number), log) for number in numbers)

    def summaries(self, name: str) -> tuple[Summary, ...]:
        """Return what a list shows of the versions of a dataset, newest first, with a few requests however many.

        The body of each holds `format`, `splits` and, where a version has any, `parents`.
        """
        return self._open().summaries(check_name(name, _WHAT))

    def names(self) -> list[str]:
        """Return the names of the datasets that there are."""
        return list(self._open().names())

    def diff(self, left: str | Dataset, right: str | Dataset, *, key: str | Iterable[str] | None = None) -> DatasetDiff:
        """Compare two versions: schema, rows of each split, rows added and removed, drift of each column.

        Args:
            left: The version before; a reference as for `get`, or a dataset.
            right: The version after.
            key: Columns that name a row, so that changed rows are told from added and removed ones.

        Raises:
            VersionNotFound: There is no such version.
            MissingColumnError: A key column is not in both.
            DatasetError: The key repeats or is missing in a row.
            IntegrityError: Bytes are not those that were published.
        """
        before, after = (self.get(one) if isinstance(one, str) else one for one in (left, right))
        return before.diff(after, key=key)

    def verify(self, ref_or_name: str | None = None) -> None:
        """Read every file and compare it with its manifest: of one version, all of a dataset, or everything.

        Args:
            ref_or_name: A version, such as `houses@3`, a name for all its versions, or None for all datasets.

        Raises:
            IntegrityError: Something is damaged; all of it is listed.
            VersionNotFound: There is no such dataset or version.
        """
        if "@" in (ref_or_name or ""):
            self.get(str(ref_or_name)).verify()
            return
        log = self._open()
        if ref_or_name is not None and log.top(check_name(ref_or_name, _WHAT)) == 0:
            log.get(parse_reference(ref_or_name, _WHAT))  # says what there is instead
        names = self.names() if ref_or_name is None else [ref_or_name]
        damages = [damage for name in names for damage in check(log, name, read_files=True)]
        if damages:
            listed = "\n".join(f"  - {damage}" for damage in damages)
            raise IntegrityError(f"{len(damages)} damaged in {log.store.uri}:\n{listed}")

    def _open(self) -> VersionLog:
        if self._opened is None:
            self._opened = open_log(self._settings)
        return self._opened


def open_log(settings: Settings | None) -> VersionLog:
    """Return the log of dataset versions under the root that the settings name."""
    if settings is None:
        from smkit.config import Settings

        settings = Settings()
    return VersionLog(open_store(settings), _KIND, _WHAT, summary_keys=_SUMMARY_KEYS)
