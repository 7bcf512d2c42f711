"""Those commands of `smkit models` that delete what is old, and look for damage."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from smkit.cli.completion import model_refs
from smkit.cli.consent import agrees
from smkit.cli.model_options import AnyNameArgument, JsonOption, WhyOption, store_of
from smkit.cli.output import write_json, write_message, write_text
from smkit.cli.parameters import parse_age

if TYPE_CHECKING:
    from smkit.artifacts import ArtifactStore, ModelVersion


def prune(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A model's name, or one version, such as houses@3.", autocompletion=model_refs
        ),
    ],
    *,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", min=1, help="Keep so many of the newest.")
    ] = None,
    keep_newer_than: Annotated[
        str | None, typer.Option("--keep-newer-than", metavar="AGE", help="Keep what is younger: 12h, 30d, 8w.")
    ] = None,
    why: WhyOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete the files of old versions for good; never of one that an alias names.

    Examples: smkit models prune houses --keep-last 10 --keep-newer-than 30d --dry-run;
    smkit models prune houses@3 --yes
    """
    if not yes and not dry_run and not sys.stdin.isatty():
        raise typer.BadParameter(
            "deleting needs --yes where nobody can be asked; --dry-run shows what would be deleted"
        )
    store = store_of(context)
    age = parse_age(keep_newer_than) if keep_newer_than is not None else None
    chosen = store.prune(name, keep_last=keep_last, keep_newer_than=age, dry_run=True)
    if chosen and not dry_run:
        if not yes:
            listed = ", ".join(version.ref for version in chosen)
            write_message(f"to be deleted for good: {listed}")
            if not agrees("Delete?", otherwise="smkit: nothing was deleted"):
                raise typer.Exit(1)
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


def gc(
    context: typer.Context,
    name: AnyNameArgument = None,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Leave younger files alone: a publish may be under way.")
    ] = "7d",
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it they are only shown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find, and with --delete remove, files that no version needs: of publishes and prunes that died.

    Example: smkit models gc --older-than 14d --delete
    """
    from smkit.artifacts.upkeep import describe_orphan, orphan_to_dict

    orphans = store_of(context).gc(name, older_than=parse_age(older_than), dry_run=not delete)
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


def fsck(
    context: typer.Context,
    name: AnyNameArgument = None,
    read_files: Annotated[bool, typer.Option("--read-files", help="Read every file, not only its size.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for damage among records and files, and for files that no version needs; damage is exit code 1.

    Example: smkit models fsck --read-files
    """
    report = store_of(context).fsck(name, read_files=read_files)
    if as_json:
        write_json(report.to_dict())
    else:
        write_text(str(report))
    if not report.ok:
        raise typer.Exit(1)
