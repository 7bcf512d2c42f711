"""How a dataset version is shown in a notebook: nothing is read for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smkit.display import html_fields, html_table, html_text, printable, shown_size, shown_time

if TYPE_CHECKING:
    from smkit.datasets.dataset import Dataset

_MOST_COLUMNS = 20


def dataset_html(dataset: Dataset) -> str:
    """Return a version as HTML: its splits, columns, and where it comes from."""
    manifest, schema = dataset.manifest, dataset.schema
    parents = ", ".join(f"{parent.relation} {parent.ref}" for parent in dataset.parents)
    title = f"<p>dataset <code>{html_text(dataset.ref)}</code>: {sum(dataset.rows.values()):,} rows</p>"
    facts = {
        "rows": ", ".join(f"{split} {rows:,}" for split, rows in dataset.rows.items()),
        "published (UTC)": f"{shown_time(manifest.created_at)} by {manifest.created_by}",
        "made from": parents or None,
        "size": shown_size(sum(file.size for file in manifest.files)),
        "digest": dataset.digest,
        "lies in": dataset.uri,
    }
    columns = [[printable(field.name), printable(str(field.type))] for field in list(schema)[:_MOST_COLUMNS]]
    more = len(schema) - _MOST_COLUMNS
    rest = f"<p>and {more:,} more columns</p>" if more > 0 else ""
    return f"{title}{html_fields(facts)}{html_table(['column', 'type'], columns)}{rest}"
