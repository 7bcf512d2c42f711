"""`smkit datasets`: what `DatasetStore` does, on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from smkit.cli.completion import dataset_names, dataset_refs
from smkit.cli.output import (
    terminal_width,
    write_fields,
    write_json,
    write_message,
    write_table,
    write_text,
    write_verification,
)
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from smkit.datasets import Dataset, DatasetStore
    from smkit.versioning import Summary

app = typer.Typer(
    name="datasets",
    help="Find, compare, summarise and check published datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
_Ref = Annotated[
    str,
    typer.Argument(metavar="REF", help="A version: houses@3, or houses (the latest).", autocompletion=dataset_refs),
]
_Key = Annotated[
    list[str] | None,
    typer.Option(
        "--key", metavar="COLUMN", help="A column that names a row, so that changed rows are found; may be repeated."
    ),
]


def _store(context: typer.Context) -> DatasetStore:
    from smkit.datasets import DatasetStore

    return DatasetStore(settings_of(context))


@app.command("list")
def list_datasets(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A dataset's name; left out: all datasets.", autocompletion=dataset_names),
    ] = None,
    as_json: _Json = False,
) -> None:
    """List the datasets, or all versions of one, newest first.

    Examples: smkit datasets list; smkit datasets list houses --json
    """
    from smkit.display import MISSING, shown_time

    store = _store(context)
    if name is not None:
        _list_versions(store, name, as_json=as_json)
        return
    found = [(one, store.summaries(one)) for one in store.names()]
    if as_json:
        write_json(
            [
                {"name": one, "versions": len(versions), "latest": versions[0].version if versions else None}
                for one, versions in found
            ]
        )
        return
    rows = [
        [
            one,
            str(len(versions)),
            str(versions[0].version) if versions else MISSING,
            shown_time(versions[0].created_at) if versions else MISSING,
            f"{sum(_rows_of(versions[0]).values()):,}" if versions else MISSING,
        ]
        for one, versions in found
    ]
    if not rows:
        write_message("no datasets yet: build one with DatasetBuilder(name, source).build()")
        return
    write_table(["name", "versions", "latest", "created (UTC)", "rows"], rows)


def _list_versions(store: DatasetStore, name: str, *, as_json: bool) -> None:
    from smkit.display import MISSING, shown_size, shown_time

    versions = store.summaries(name)
    if not versions:
        store.get(name)  # says what there is instead
    if as_json:
        write_json([_brief(name, version) for version in versions])
        return
    rows = [
        [
            str(version.version),
            shown_time(version.created_at),
            version.created_by,
            ", ".join(f"{split} {count:,}" for split, count in _rows_of(version).items()),
            version.body["format"],
            shown_size(version.size),
            ", ".join(f"{one['relation']} {one['ref']}" for one in version.body.get("parents", ())) or MISSING,
        ]
        for version in versions
    ]
    write_table(["version", "created (UTC)", "by", "rows", "format", "size", "from"], rows)


def _brief(name: str, version: Summary) -> dict[str, Any]:
    return {
        "ref": f"{name}@{version.version}",
        "version": version.version,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "rows": _rows_of(version),
        "format": version.body["format"],
        "size": version.size,
        "digest": version.content_digest,
        "parents": [{"ref": one["ref"], "relation": one["relation"]} for one in version.body.get("parents", ())],
    }


def _rows_of(version: Summary) -> dict[str, int]:
    from smkit.datasets.splits import SPLITS

    splits = version.body["splits"]
    return {split: splits[split]["rows"] for split in SPLITS if split in splits}


@app.command()
def show(context: typer.Context, ref: _Ref, as_json: _Json = False) -> None:
    """Show everything that is known of a version: columns, splits, source, steps, what it was made from.

    Example: smkit datasets show houses@3
    """
    from smkit.display import shown_size, shown_time

    dataset = _store(context).get(ref)
    manifest = dataset.manifest
    if as_json:
        write_json(_whole(dataset))
        return
    write_fields(
        {
            "version": dataset.ref,
            "published": f"{shown_time(manifest.created_at)} UTC by {manifest.created_by}",
            "digest": dataset.digest,
            "uri": dataset.uri,
            "format": manifest.body["format"],
        }
    )
    body = _whole(dataset)
    sections = {
        "rows": dict(dataset.rows),
        "columns": {field.name: str(field.type) for field in dataset.schema},
        "made from": {parent.ref: f"{parent.relation} of {parent.child}" for parent in dataset.lineage()},
        "append": body["append"],
        "source": body["source"],
        "split": body["split"],
        "environment": body["environment"],
    }
    for title, values in sections.items():
        if values:
            write_text(f"\n{title}")
            write_fields({f"  {name}": value for name, value in values.items()})
    for number, step in enumerate(body["steps"], 1):
        write_text(f"\nstep {number}")
        write_fields({f"  {name}": value for name, value in step.items()})
    write_text("\nfiles")
    write_fields({f"  {file.path}": f"{shown_size(file.size)}  sha256 {file.sha256}" for file in manifest.files})


def _whole(dataset: Dataset) -> dict[str, Any]:
    from smkit.versioning.manifest import thaw

    manifest = dataset.manifest
    body = thaw(manifest.body)
    return {
        "ref": dataset.ref,
        "name": dataset.name,
        "version": dataset.version,
        "digest": dataset.digest,
        "uri": dataset.uri,
        "created_at": manifest.created_at,
        "created_by": manifest.created_by,
        "rows": dict(dataset.rows),
        "format": body["format"],
        "columns": [{"name": field.name, "type": str(field.type)} for field in dataset.schema],
        "source": body.get("source", {}),
        "steps": body.get("steps", []),
        "split": body.get("split", {}),
        "append": body.get("append"),
        "environment": body.get("environment", {}),
        "lineage": [parent.to_dict() for parent in dataset.lineage()],
        "files": [vars(file) for file in manifest.files],
    }


@app.command()
def diff(
    context: typer.Context,
    left: Annotated[str, typer.Argument(metavar="A", help="A version.", autocompletion=dataset_refs)],
    right: Annotated[str, typer.Argument(metavar="B", help="A later version.", autocompletion=dataset_refs)],
    key: _Key = None,
    as_json: _Json = False,
) -> None:
    """Compare two versions: schema, rows added, removed and changed, drift of each column.

    Reads both. Example: smkit datasets diff houses@1 houses@2 --key house_id
    """
    found = _store(context).diff(left, right, key=key or None)
    if as_json:
        write_json(found.to_dict())
    else:
        write_text(found.to_text(width=terminal_width()))


@app.command()
def profile(
    context: typer.Context,
    ref: _Ref,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Only this split: train, validation or test.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="COLUMN", help="Only this column; may be repeated.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Summarise each column: missing and distinct values, range, mean, quartiles, most frequent values.

    Example: smkit datasets profile houses@3 --split train
    """
    found = _store(context).get(ref).profile(split, columns=column or None)
    if as_json:
        write_json(found.to_dict())
    else:
        write_text(found.to_text(width=terminal_width()))


@app.command()
def verify(
    context: typer.Context,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="REF",
            help="A version; a name for all its versions; left out: everything.",
            autocompletion=dataset_refs,
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Read every file and compare it with its manifest; damage is exit code 1.

    Examples: smkit datasets verify houses@3; smkit datasets verify
    """
    write_verification(lambda: _store(context).verify(ref), ref or "all datasets", as_json=as_json)
