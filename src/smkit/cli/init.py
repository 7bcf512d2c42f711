"""`smkit init`: what `smkit.project.create` does, on the command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smkit.cli.output import write_json, write_message, write_text

if TYPE_CHECKING:
    from smkit.project import CreatedProject


def _sources() -> list[str]:
    from smkit.project import SOURCES

    return list(SOURCES)


def run(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where; made if there is none.")] = Path(),
    *,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The project's name; default: the folder's.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="SOURCE",
            help="Where the rows come from: files, s3 or postgres.",
            autocompletion=_sources,
        ),
    ] = "files",
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Make a project that trains at once: script, dataset, notebook, tests, settings and made-up rows.

    It overwrites nothing: all that is missing is written, or nothing. The project's region is that of --region, else
    that of the settings.

    Examples: smkit init; smkit init houses; smkit init houses --source s3 --region cn-north-1
    """
    from smkit.project import create

    project = create(folder, name=name, region=context.find_root().params.get("region"), source=source)
    if as_json:
        write_json(
            {
                "folder": str(project.folder),
                "name": project.name,
                "region": project.region,
                "written": project.written,
                "unchanged": project.unchanged,
                "kept": project.kept,
            }
        )
    elif project.written:
        write_text("\n".join(project.written))
    _say(project, folder)


def _say(project: CreatedProject, folder: Path) -> None:
    if project.kept:
        write_message(f"smkit: left as they are: {', '.join(project.kept)}")
    if ".gitignore" in project.kept:
        write_message("smkit: .smkit/ and .env should stand in .gitignore")
    if not project.written:
        write_message(f"smkit: nothing to do: {project.folder} has every file of a project")
        return
    enter = "" if project.folder == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    write_message(f"smkit: the project {project.name!r} of region {project.region} is in {project.folder}")
    write_message(f"smkit: next: {enter}smkit run")
