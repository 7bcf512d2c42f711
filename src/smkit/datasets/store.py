"""Finding datasets again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smkit.datasets.dataset import Dataset
from smkit.naming import check_name, parse_reference
from smkit.storage import check_settings, open_store
from smkit.versioning import VersionLog

if TYPE_CHECKING:
    from smkit.config import Settings

_KIND = "datasets"
_WHAT = "dataset"


class DatasetStore:
    """The datasets under one root.

    Args:
        settings: Where they lie; default: `Settings()`, read on first use.

    Raises:
        ConfigError: `settings` are none.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = check_settings(settings)

    def __repr__(self) -> str:
        return f"DatasetStore({self._settings.root!r})" if self._settings else "DatasetStore()"

    def get(self, ref: str) -> Dataset:
        """Return a version: `houses@3`, `houses@latest` or just `houses`, which is the one with the highest number.

        Raises:
            VersionNotFound: There is none.
            IntegrityError: Its manifest was changed.
        """
        log = open_log(self._settings)
        return Dataset(log.get(parse_reference(ref, _WHAT)), log)

    def versions(self, name: str) -> list[Dataset]:
        """Return all versions of a dataset, newest first; none if there is no such dataset."""
        log = open_log(self._settings)
        return [Dataset(log.manifest(name, version), log) for version in log.versions(check_name(name, _WHAT))]

    def names(self) -> list[str]:
        """Return the names of the datasets that there are."""
        return list(open_log(self._settings).names())


def open_log(settings: Settings | None) -> VersionLog:
    """Return the log of dataset versions under the root that the settings name."""
    if settings is None:
        from smkit.config import Settings

        settings = Settings()
    return VersionLog(open_store(settings), _KIND, _WHAT)
