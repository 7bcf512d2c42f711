"""`smkit models`: what `ArtifactStore` does, on the command line."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smkit.cli.completion import model_refs
from smkit.cli.model_options import (
    AliasArgument,
    AnyNameArgument,
    ExpectedOption,
    JsonOption,
    NameArgument,
    RefArgument,
    WhyOption,
    store_of,
)
from smkit.cli.models_upkeep import fsck, gc, prune
from smkit.cli.output import (
    terminal_width,
    write_fields,
    write_json,
    write_message,
    write_table,
    write_text,
    write_verification,
)
from smkit.cli.parameters import parse_expected

if TYPE_CHECKING:
    from smkit.artifacts import ArtifactStore, ModelVersion
    from smkit.versioning import AliasRecord

app = typer.Typer(
    name="models",
    help="Find, compare, name, check and delete published models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_models(context: typer.Context, name: AnyNameArgument = None, as_json: JsonOption = False) -> None:
    """List the models, or all versions of one, newest first.

    Examples: smkit models list; smkit models list houses --json
    """
    from smkit.display import MISSING, shown_time

    store = store_of(context)
    if name is not None:
        _list_versions(store, name, as_json=as_json)
        return
    found = [(one, store.versions(one), store.aliases(one)) for one in store.names()]
    if as_json:
        write_json(
            [
                {
                    "name": one,
                    "versions": len(versions),
                    "latest": versions[0].version if versions else None,
                    "aliases": aliases,
                }
                for one, versions, aliases in found
            ]
        )
        return
    rows = [
        [
            one,
            str(len(versions)),
            str(versions[0].version) if versions else MISSING,
            shown_time(versions[0].created_at) if versions else MISSING,
            ", ".join(f"{alias}={number}" for alias, number in sorted(aliases.items())) or MISSING,
        ]
        for one, versions, aliases in found
    ]
    if not rows:
        write_message(
            "no models yet: smkit run --publish NAME publishes one, as does ArtifactStore().publish(name, model)"
        )
        return
    write_table(["name", "versions", "latest", "created (UTC)", "aliases"], rows)


def _list_versions(store: ArtifactStore, name: str, *, as_json: bool) -> None:
    versions = store.versions(name)
    if not versions:
        store.get(name)  # says what there is instead
    if as_json:
        aliases = versions.aliases()
        write_json([{**_brief(version), "aliases": list(aliases.get(version.version, ()))} for version in versions])
        return
    # A program that reads a pipe counts on every column.
    header, rows = versions.table(compact=terminal_width() is not None)
    write_table(header, rows)


def _brief(version: ModelVersion) -> dict[str, Any]:
    return {
        "ref": version.ref,
        "version": version.version,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "metrics": version.metrics,
        "hyperparameters": version.hyperparameters,
        "datasets": list(version.datasets),
        "job": version.job.get("job_name"),
        "labels": version.labels,
        "notes": version.notes,
        "size": version.size,
    }


@app.command()
def show(context: typer.Context, ref: RefArgument, as_json: JsonOption = False) -> None:
    """Show everything that is known of a version.

    Example: smkit models show houses@production
    """
    from smkit.display import shown_size, shown_time

    store = store_of(context)
    version = store.get(ref)
    aliases = sorted(alias for alias, number in store.aliases(version.name).items() if number == version.version)
    if as_json:
        write_json({**version.to_dict(), "aliases": aliases})
        return
    write_fields(
        {
            "version": version.ref,
            "aliases": ", ".join(aliases),
            "published": f"{shown_time(version.created_at)} UTC by {version.created_by}",
            "digest": version.digest,
            "uri": version.uri,
            "notes": version.notes,
            "labels": version.labels,
        }
    )
    sections = {
        "metrics": version.metrics,
        "hyperparameters": version.hyperparameters,
        "inputs": version.inputs,
        "code": version.code,
        "job": version.job,
        "environment": version.environment,
        "signature": version.signature,
    }
    for title, values in sections.items():
        if values:
            write_text(f"\n{title}")
            write_fields({f"  {name}": value for name, value in values.items()})
    write_text("\nfiles")
    write_fields(
        {f"  {file.path}": f"{shown_size(file.size)}  sha256 {file.sha256}" for file in version.manifest.files}
    )


@app.command()
def compare(
    context: typer.Context,
    left: Annotated[str, typer.Argument(metavar="A", help="A version.", autocompletion=model_refs)],
    right: Annotated[str, typer.Argument(metavar="B", help="Another version.", autocompletion=model_refs)],
    as_json: JsonOption = False,
) -> None:
    """Put two versions side by side; what differs has a star.

    Example: smkit models compare houses@production houses@latest
    """
    comparison = store_of(context).compare(left, right)
    if as_json:
        write_json(comparison.to_dict())
    else:
        write_text(comparison.to_text(width=terminal_width()))


@app.command()
def promote(
    context: typer.Context,
    ref: RefArgument,
    alias: AliasArgument,
    *,
    why: WhyOption = "",
    expected: ExpectedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an alias name a version.

    Example: smkit models promote houses@4 production --expected 3 --why "better rmse"
    """
    from smkit.naming import check_alias, parse_reference

    store, name = store_of(context), parse_reference(ref, "model").name
    before = store.aliases(name).get(check_alias(alias))
    move = store.promote(ref, alias, why=why, expected=parse_expected(expected))
    if move.version == before and not as_json:
        # No move was made: the record is that of an earlier one.
        write_text(f"{alias} names {name}@{move.version} already")
        return
    _write_move(name, alias, move, as_json=as_json)


@app.command()
def rollback(
    context: typer.Context,
    name: NameArgument,
    alias: AliasArgument,
    *,
    why: WhyOption = "",
    expected: ExpectedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an alias name again what it named before.

    Example: smkit models rollback houses production --why "wrong units"
    """
    move = store_of(context).rollback(name, alias, why=why, expected=parse_expected(expected))
    _write_move(name, alias, move, as_json=as_json)


def _write_move(name: str, alias: str, move: AliasRecord, *, as_json: bool) -> None:
    if as_json:
        write_json({"name": name, "alias": alias, **vars(move)})
        return
    before = f"{name}@{move.saw}" if move.saw else "nothing"
    write_text(f"{alias} names {name}@{move.version} (before: {before})")


@app.command()
def history(context: typer.Context, name: NameArgument, alias: AliasArgument, as_json: JsonOption = False) -> None:
    """Show every move of an alias, newest first.

    Example: smkit models history houses production
    """
    from smkit.display import shown_time

    moves = store_of(context).history(name, alias)
    if as_json:
        write_json([vars(move) for move in moves])
        return
    if not moves:
        write_message(f"alias {alias!r} of {name!r} was never set")
        return
    rows = [
        [
            shown_time(move.at),
            f"{name}@{move.version}" if move.version else "nothing",
            f"{name}@{move.saw}" if move.saw else "nothing",
            move.by,
            move.why or "-",
        ]
        for move in moves
    ]
    write_table(["moved (UTC)", "to", "from", "by", "why"], rows)


@app.command()
def verify(
    context: typer.Context,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="REF",
            help="A version; a name for all its versions; left out: everything.",
            autocompletion=model_refs,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read every file and compare it with its manifest; damage is exit code 1.

    Examples: smkit models verify houses@3; smkit models verify
    """
    write_verification(lambda: store_of(context).verify(ref), ref or "all models", as_json=as_json)


@app.command()
def download(
    context: typer.Context,
    ref: RefArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; made if it is not there.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a version's files into a folder, each checked on the way.

    Example: smkit models download houses@production ./model
    """
    store = store_of(context)
    version = store.get(ref)
    target = store.download(version, folder)
    files = [file.path for file in version.manifest.files]
    if as_json:
        write_json({"ref": version.ref, "folder": str(target), "files": files})
    else:
        write_text(f"{version.ref}: {len(files)} {'file' if len(files) == 1 else 'files'} in {target}")


for command in (prune, gc, fsck):
    app.command()(command)
