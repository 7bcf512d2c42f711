"""`smkit models`: what `ArtifactStore` does, on the command line."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smkit.cli.output import (
    terminal_width,
    write_fields,
    write_json,
    write_message,
    write_table,
    write_text,
    write_verification,
)
from smkit.cli.parameters import parse_age, parse_expected

if TYPE_CHECKING:
    from smkit.artifacts import ArtifactStore, ModelVersion
    from smkit.versioning import AliasRecord

app = typer.Typer(
    name="models",
    help="Find, compare, name, check and delete published models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
_Ref = Annotated[
    str, typer.Argument(metavar="REF", help="A version: houses@3, houses@production, houses (the latest).")
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]
_AnyName = Annotated[str | None, typer.Argument(metavar="NAME", help="A model's name; left out: all models.")]
_Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="An alias, such as production.")]
_Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
_Expected = Annotated[
    str | None,
    typer.Option(
        "--expected",
        metavar="VERSION",
        help="Fail unless the alias names this version now; none: unless it names none.",
    ),
]


def _store() -> ArtifactStore:
    from smkit.artifacts import ArtifactStore

    return ArtifactStore()


@app.command("list")
def list_models(name: _AnyName = None, as_json: _Json = False) -> None:
    """List the models, or all versions of one, newest first.

    Examples: smkit models list; smkit models list houses --json
    """
    from smkit.display import MISSING, shown_time

    store = _store()
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
        write_message("no models yet: publish one with ArtifactStore().publish(name, model)")
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
def show(ref: _Ref, as_json: _Json = False) -> None:
    """Show everything that is known of a version.

    Example: smkit models show houses@production
    """
    from smkit.display import shown_size, shown_time

    store = _store()
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
    left: Annotated[str, typer.Argument(metavar="A", help="A version.")],
    right: Annotated[str, typer.Argument(metavar="B", help="Another version.")],
    as_json: _Json = False,
) -> None:
    """Put two versions side by side; what differs has a star.

    Example: smkit models compare houses@production houses@latest
    """
    comparison = _store().compare(left, right)
    if as_json:
        write_json(comparison.to_dict())
    else:
        write_text(comparison.to_text(width=terminal_width()))


@app.command()
def promote(ref: _Ref, alias: _Alias, why: _Why = "", expected: _Expected = None, as_json: _Json = False) -> None:
    """Let an alias name a version.

    Example: smkit models promote houses@4 production --expected 3 --why "better rmse"
    """
    from smkit.naming import parse_reference

    move = _store().promote(ref, alias, why=why, expected=parse_expected(expected))
    _write_move(parse_reference(ref, "model").name, alias, move, as_json=as_json)


@app.command()
def rollback(name: _Name, alias: _Alias, why: _Why = "", expected: _Expected = None, as_json: _Json = False) -> None:
    """Let an alias name again what it named before.

    Example: smkit models rollback houses production --why "wrong units"
    """
    move = _store().rollback(name, alias, why=why, expected=parse_expected(expected))
    _write_move(name, alias, move, as_json=as_json)


def _write_move(name: str, alias: str, move: AliasRecord, *, as_json: bool) -> None:
    if as_json:
        write_json({"name": name, "alias": alias, **vars(move)})
        return
    before = f"{name}@{move.saw}" if move.saw else "nothing"
    write_text(f"{alias} names {name}@{move.version} (before: {before})")


@app.command()
def history(name: _Name, alias: _Alias, as_json: _Json = False) -> None:
    """Show every move of an alias, newest first.

    Example: smkit models history houses production
    """
    from smkit.display import shown_time

    moves = _store().history(name, alias)
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
    ref: Annotated[
        str | None,
        typer.Argument(metavar="REF", help="A version; a name for all its versions; left out: everything."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Read every file and compare it with its manifest; damage is exit code 1.

    Examples: smkit models verify houses@3; smkit models verify
    """
    write_verification(lambda: _store().verify(ref), ref or "all models", as_json=as_json)


@app.command()
def download(
    ref: _Ref,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; made if it is not there.")],
    as_json: _Json = False,
) -> None:
    """Copy a version's files into a folder, each checked on the way.

    Example: smkit models download houses@production ./model
    """
    store = _store()
    version = store.get(ref)
    target = store.download(version, folder)
    files = [file.path for file in version.manifest.files]
    if as_json:
        write_json({"ref": version.ref, "folder": str(target), "files": files})
    else:
        write_text(f"{version.ref}: {len(files)} {'file' if len(files) == 1 else 'files'} in {target}")


@app.command()
def prune(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or one version, such as houses@3.")],
    *,
    keep_last: Annotated[int | None, typer.Option("--keep-last", min=1, help="Keep so many of the newest.")] = None,
    keep_newer_than: Annotated[
        str | None, typer.Option("--keep-newer-than", metavar="AGE", help="Keep what is younger: 12h, 30d, 8w.")
    ] = None,
    why: _Why = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete the files of old versions for good; never of one that an alias names.

    Examples: smkit models prune houses --keep-last 10 --keep-newer-than 30d --dry-run;
    smkit models prune houses@3 --yes
    """
    if not yes and not dry_run and not sys.stdin.isatty():
        raise typer.BadParameter(
            "deleting needs --yes where nobody can be asked; --dry-run shows what would be deleted"
        )
    store = _store()
    age = parse_age(keep_newer_than) if keep_newer_than is not None else None
    chosen = store.prune(name, keep_last=keep_last, keep_newer_than=age, dry_run=True)
    if chosen and not dry_run:
        if not yes:
            listed = ", ".join(version.ref for version in chosen)
            write_message(f"to be deleted for good: {listed}")
            typer.confirm("Delete?", abort=True, err=True)
        chosen = _prune_shown(store, chosen, why)
    if as_json:
        write_json({"dry_run": dry_run, "pruned": [version.ref for version in chosen]})
        return
    verb = "would be deleted" if dry_run else "deleted"
    write_text(f"{', '.join(version.ref for version in chosen)} {verb}" if chosen else "nothing to delete")


def _prune_shown(store: ArtifactStore, shown: list[ModelVersion], why: str) -> list[ModelVersion]:
    """Delete what was shown, whatever was published since."""
    from smkit.errors import VersionInUse

    pruned = []
    for version in shown:
        try:
            pruned += store.prune(version, why=why)
        except VersionInUse as error:  # noqa: PERF203 - one that was promoted since keeps no other
            write_message(f"smkit: warning: {error}")
    return pruned


@app.command()
def gc(
    name: _AnyName = None,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Leave younger files alone: a publish may be under way.")
    ] = "7d",
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it they are only shown.")] = False,
    as_json: _Json = False,
) -> None:
    """Find, and with --delete remove, files that no version needs: of publishes and prunes that died.

    Example: smkit models gc --older-than 14d --delete
    """
    from smkit.artifacts.upkeep import describe_orphan, orphan_to_dict

    orphans = _store().gc(name, older_than=parse_age(older_than), dry_run=not delete)
    if as_json:
        write_json({"deleted": delete, "orphans": [orphan_to_dict(orphan) for orphan in orphans]})
        return
    for orphan in orphans:
        write_text(describe_orphan(orphan))
    if not orphans:
        write_text("nothing to delete")
    elif delete:
        write_text(f"{len(orphans)} deleted")
    else:
        write_message(f"{len(orphans)} found; --delete removes them")


@app.command()
def fsck(
    name: _AnyName = None,
    read_files: Annotated[bool, typer.Option("--read-files", help="Read every file, not only its size.")] = False,
    as_json: _Json = False,
) -> None:
    """Look for damage among records and files, and for files that no version needs; damage is exit code 1.

    Example: smkit models fsck --read-files
    """
    report = _store().fsck(name, read_files=read_files)
    if as_json:
        write_json(report.to_dict())
    else:
        write_text(str(report))
    if not report.ok:
        raise typer.Exit(1)
