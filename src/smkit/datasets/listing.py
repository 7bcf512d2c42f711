"""The versions of a dataset as one list, which a notebook shows as a table."""

from __future__ import annotations

from typing import SupportsIndex, overload

from smkit.datasets.dataset import Dataset
from smkit.display import MISSING, html_table, shown, shown_size, shown_time

_HTML_ROWS = 50


class DatasetVersions(list[Dataset]):
    """A list of versions, newest first; in a notebook a table, for which nothing is read."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Dataset: ...

    @overload
    def __getitem__(self, index: slice) -> DatasetVersions: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Dataset | DatasetVersions:
        return DatasetVersions(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def _repr_html_(self) -> str:
        if not self:
            return "<p>no versions</p>"
        rows = [_row(dataset) for dataset in self[:_HTML_ROWS]]
        more = len(self) - len(rows)
        table = html_table(["version", "created (UTC)", "by", "rows", "format", "size", "from"], rows)
        return table + (f"<p>and {more:,} more</p>" if more else "")


def _row(dataset: Dataset) -> list[str]:
    manifest = dataset.manifest
    return [
        shown(dataset.ref),
        shown_time(manifest.created_at),
        shown(manifest.created_by),
        shown(", ".join(f"{split} {rows:,}" for split, rows in dataset.rows.items())),
        shown(manifest.body["format"]),
        shown_size(sum(file.size for file in manifest.files)),
        shown(", ".join(f"{parent.relation} {parent.ref}" for parent in dataset.parents) or MISSING),
    ]
