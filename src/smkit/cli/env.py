"""`smkit env`: the parity environments of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from smkit.cli.output import write_fields, write_json, write_message, write_table
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from pydantic import SecretStr

    from smkit.jobs.environments import Environment, EnvironmentName

app = typer.Typer(
    name="env",
    help="Build, list and remove parity environments: an image's Python and packages, for local jobs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _names(incomplete: str) -> list[str]:
    from smkit.jobs.environments import known_names

    return [str(name) for name in known_names() if str(name).startswith(incomplete)]


_Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="An environment: 1.2-1, or '1.2-1[toolkits]'.", autocompletion=_names)
]


@app.command("list")
def list_environments(*, as_json: _Json = False) -> None:
    """List the environments that there can be: which are built, and whether their Python is on this machine.

    Examples: smkit env list; smkit env list --json
    """
    from smkit.display import MISSING, shown_size
    from smkit.jobs.environments import environments_folder, known_names

    pythons = _pythons()
    found = [_brief(name, pythons) for name in known_names()]
    if as_json:
        write_json({"folder": str(environments_folder()), "environments": found})
        return
    rows = [
        [
            one["name"],
            one["state"],
            f"{one['python']} ({one['python_found'] or 'not found'})",
            str(len(one["packages"])) if one["packages"] else MISSING,
            shown_size(one["size"]) if one["size"] else MISSING,
            one["pins"],
        ]
        for one in found
    ]
    write_table(["name", "state", "Python (here)", "packages", "size", "list of"], rows)
    missing = {one["python"]: one["install_python"] for one in found if one["install_python"]}
    for version, command in missing.items():
        write_message(f"Python {version} is not on this machine: {command}")


@app.command()
def show(name: _Name, *, as_json: _Json = False) -> None:
    """Show one environment: its interpreter, what is installed in it, what was changed.

    Example: smkit env show 1.2-1
    """
    from smkit.display import shown_size
    from smkit.jobs.environments import parse_environment

    one = _brief(parse_environment(name), _pythons())
    if as_json:
        write_json(one)
        return
    packages = one.pop("packages")
    size = one.pop("size")
    write_fields(
        {
            **{key: value for key, value in one.items() if key not in {"changes", "older"}},
            "changes": ", ".join(one["changes"]),
            "older builds": ", ".join(one["older"]),
            "size": shown_size(size) if size else None,
        }
    )
    if packages:
        write_table(["package", "version"], [[package, version] for package, version in packages.items()])


@app.command()
def build(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Environments: 1.2-1, or '1.2-1[toolkits]'.", autocompletion=_names),
    ],
    *,
    as_json: _Json = False,
) -> None:
    """Build environments, so that the first job need not; what is built already is left as it is.

    Packages come from the index that is configured for uv or pip, or from the setting pip_index_url. Examples:
    smkit env build 1.2-1; smkit env build 1.2-1 "1.9-0[toolkits]"
    """
    from smkit.jobs.environments import describe

    wanted = [describe(name) for name in dict.fromkeys(names)]
    index_url = settings_of(context).pip_index_url
    results = [_built(environment, index_url) for environment in wanted]
    if as_json:
        write_json(results)
    else:
        built = [result for result in results if result["ok"]]
        if built:
            write_table(["name", "Python"], [[result["name"], result["interpreter"]] for result in built])
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


@app.command()
def remove(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Environments.", autocompletion=_names)
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every environment, and what was left half built.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete environments; one in which a job runs stays.

    Examples: smkit env remove 1.2-1; smkit env remove --all
    """
    from smkit.display import shown_size
    from smkit.errors import ParityEnvironmentError
    from smkit.jobs import environments

    if bool(names) == everything:
        raise typer.BadParameter("give the names of environments, or --all", param_hint="NAME")
    if everything:
        freed = environments.remove_all()
    else:
        wanted = [environments.parse_environment(name) for name in dict.fromkeys(names or ())]
        root = environments.environments_folder()
        missing = [str(name) for name in wanted if not environments.folders_of(name, root)]
        if missing:
            raise ParityEnvironmentError(f"not built: {', '.join(missing)}; nothing was removed")
        freed = sum(environments.remove(name) for name in wanted)
    if as_json:
        write_json({"freed": freed})
    else:
        write_message(f"{shown_size(freed)} of files deleted" if freed else "there was no environment")


def _built(environment: Environment, index_url: SecretStr | None) -> dict[str, Any]:
    from smkit.errors import ParityEnvironmentError
    from smkit.jobs.environments import ensure_built

    try:
        ensure_built(environment, index_url=index_url, compiled=True)
    except ParityEnvironmentError as error:
        # The others do not depend on it.
        write_message(f"smkit: error: {error}")
        return {"name": str(environment.name), "ok": False, "error": str(error)}
    return {"name": str(environment.name), "ok": True, "error": None, **_facts(environment)}


def _pythons() -> dict[tuple[int, int], str | None]:
    """Return the exact version of each Python that an image has; None where it is not on this machine."""
    from smkit.jobs.environments import known_names, search_interpreter
    from smkit.jobs.environments.contents import contents_of

    wanted = {contents_of(name).python for name in known_names()}
    found = {python: search_interpreter(python) for python in sorted(wanted)}
    return {python: None if one is None else one.version for python, one in found.items()}


def _brief(name: EnvironmentName, pythons: dict[tuple[int, int], str | None]) -> dict[str, Any]:
    from smkit.jobs.containers import image
    from smkit.jobs.environments import describe, folders_of, install_command

    environment = describe(name)
    python = environment.contents.python
    older = [str(path) for path in folders_of(name, environment.root) if path != environment.folder]
    state = "not built"
    changes = list(environment.changes)
    if changes:
        state = "changed"
    elif environment.is_built:
        state = "built"
    elif older:
        state = "older list"
    return {
        "name": str(name),
        "state": state,
        "python": environment.python_version,
        "python_found": pythons[python],
        "install_python": None if pythons[python] or environment.is_built else install_command(python),
        "pins": image(name.framework_version).date,
        "changes": changes,
        "older": older,
        **_facts(environment),
    }


def _facts(environment: Environment) -> dict[str, Any]:
    facts = environment.built
    return {
        "folder": str(environment.folder),
        "interpreter": str(environment.python) if facts else None,
        "exact_python": facts.python_version if facts else None,
        "built_at": facts.built_at if facts else None,
        "installer": facts.installer if facts else None,
        "size": facts.size if facts else None,
        "packages": dict(facts.packages) if facts else {},
    }
