"""`smkit infra`: what `smkit.infra` does, on the command line: shown first, done with consent."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smkit.cli.consent import agrees
from smkit.cli.output import write_fields, write_json, write_message, write_table, write_text
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.infra import FoundationOptions, Plan, SettingsFile, Stack, StackEvent, StudioOptions

app = typer.Typer(
    name="infra",
    help="Make what smkit needs in an AWS account: bucket, roles, Studio.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: Types whose resources outlive the stack.
_STAY = frozenset({"AWS::S3::Bucket", "AWS::S3::BucketPolicy"})
_DOMAIN = "AWS::SageMaker::Domain"

_Kind = Annotated[
    str,
    typer.Argument(metavar="STACK", help="foundation or studio.", autocompletion=lambda: ["foundation", "studio"]),
]
_User = Annotated[
    list[str] | None,
    typer.Option("--user", metavar="NAME", help="Of studio: a user profile; may be repeated. '' for none."),
]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]


@app.command()
def template(kind: _Kind, user: _User = None) -> None:
    """Print a template: what deploy sends to CloudFormation, for review, or for a stack of your own.

    Example: smkit infra template foundation > foundation.yaml
    """
    from smkit.infra.templates import check_kind, read_template

    write_text(read_template(check_kind(kind), users=_listed(user) or ()).rstrip("\n"))


@app.command()
def deploy(
    context: typer.Context,
    kind: _Kind,
    *,
    bucket: Annotated[
        str | None, typer.Option("--bucket", metavar="NAME", help="The bucket of the store; default: the settings'.")
    ] = None,
    existing_bucket: Annotated[
        str | None,
        typer.Option(
            "--existing-bucket",
            metavar="HOW",
            help="The bucket exists: use (it stays as it is) or import (the stack keeps it from now on).",
            autocompletion=lambda: ["use", "import"],
        ),
    ] = None,
    read_bucket: Annotated[
        list[str] | None,
        typer.Option(
            "--read-bucket", metavar="NAME", help="A further bucket that jobs may read; may be repeated. '' for none."
        ),
    ] = None,
    write_bucket: Annotated[
        list[str] | None,
        typer.Option(
            "--write-bucket",
            metavar="NAME",
            help="A further bucket that jobs may read and write; may be repeated. '' for none.",
        ),
    ] = None,
    noncurrent_days: Annotated[
        int | None,
        typer.Option(
            "--noncurrent-days",
            metavar="DAYS",
            min=0,
            help="When S3 forgets what was deleted or overwritten: 180 at first; 0: never.",
        ),
    ] = None,
    break_glass_role: Annotated[
        str | None,
        typer.Option(
            "--break-glass-role", metavar="ARN", help="The one role that may delete a published record. '' for none."
        ),
    ] = None,
    permissions_boundary: Annotated[
        str | None,
        typer.Option("--permissions-boundary", metavar="ARN", help="Permissions boundary of the role. '' for none."),
    ] = None,
    user: _User = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    write_settings: Annotated[
        bool,
        typer.Option("--write-settings/--no-write-settings", help="Bring bucket, role and so on into smkit.toml."),
    ] = True,
    yes: _Yes = False,
    as_json: _Json = False,
) -> None:
    """Make a stack, or bring it up to date: show what will change, ask, do it, wait.

    What an option does not say stays as the stack has it. Examples: smkit infra deploy foundation;
    smkit infra deploy foundation --read-bucket raw-data --yes; smkit infra deploy studio --user anna --user bo
    """
    from smkit.infra import FoundationOptions, StudioOptions

    settings = settings_of(context)
    stack = _stack(context, kind)
    options: FoundationOptions | StudioOptions
    if stack.kind == "foundation":
        _refuse({"--user": user}, kind)
        options = FoundationOptions(
            bucket=bucket,
            existing_bucket=_how(existing_bucket),
            read_buckets=_listed(read_bucket),
            write_buckets=_listed(write_bucket),
            noncurrent_days=noncurrent_days,
            break_glass_role=break_glass_role,
            permissions_boundary=permissions_boundary,
        )
    else:
        _refuse(
            {
                "--bucket": bucket,
                "--existing-bucket": existing_bucket,
                "--read-bucket": read_bucket,
                "--write-bucket": write_bucket,
                "--noncurrent-days": noncurrent_days,
                "--break-glass-role": break_glass_role,
            },
            kind,
        )
        options = StudioOptions(users=_listed(user), permissions_boundary=permissions_boundary)
    if not dry_run:
        _delete_failed_creation(stack, yes=yes)
    plan = stack.plan(options)
    _show_plan(stack, plan, as_json=as_json, agreed=dry_run or yes)
    if dry_run:
        stack.discard(plan)
        if as_json:
            write_json(_plan_document(plan) | {"dry_run": True})
        return
    with _goes_on(stack):
        deployed = stack.apply(plan, on_event=_show_event)
    written = None
    if write_settings and stack.kind == "foundation":
        from smkit.infra import SettingsFile, settings_of_foundation

        written = SettingsFile.plan(settings, settings_of_foundation(settings, deployed))
        _write_settings(written, yes=yes)
    if as_json:
        document = _plan_document(plan) | {"dry_run": False, "status": deployed.status}
        path = str(written.path) if written is not None else None
        write_json(document | {"outputs": dict(deployed.outputs), "settings_file": path})
    else:
        write_fields(dict(deployed.outputs))


@app.command()
def status(
    context: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(metavar="STACK", help="foundation or studio; left out: both."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show the state of the stacks, and what failed; exit code 1 where somebody has to do something.

    Examples: smkit infra status; smkit infra status foundation --json
    """
    from smkit.infra import TEMPLATES
    from smkit.infra.states import how_to_leave, is_broken

    documents, broken = [], False
    for one in TEMPLATES if kind is None else (kind,):
        stack = _stack(context, one)
        found = stack.status()
        broken = broken or (found is not None and is_broken(found.status))
        # Of a stack that is as it should be, what failed long ago is of no interest.
        failed = found is not None and ("ROLLBACK" in found.status or "FAILED" in found.status)
        failures = stack.failures() if failed else ()
        fix = how_to_leave(found.status, stack.name, stack.kind) if found is not None else ""
        documents.append(
            {
                "stack": stack.name,
                "status": found.status if found is not None else None,
                "reason": found.reason if found is not None else "",
                "updated": found.updated.isoformat() if found is not None else None,
                "outputs": dict(found.outputs) if found is not None else {},
                "failures": [f"{event.logical_id}: {event.reason}" for event in failures],
                "fix": fix,
            }
        )
    if as_json:
        write_json(documents)
    else:
        for number, document in enumerate(documents):
            if number:
                write_text("")
            _show_status(document)
    if broken:
        raise typer.Exit(1)


@app.command()
def delete(context: typer.Context, kind: _Kind, *, yes: _Yes = False, as_json: _Json = False) -> None:
    """Delete a stack, after consent. The bucket and the users' home folders stay.

    Example: smkit infra delete studio
    """
    stack = _stack(context, kind)
    present = stack.check_deletable()
    resources = [one for one in stack.resources() if one.status != "DELETE_COMPLETE"]
    for one in resources:
        write_message(f"  {'stays' if one.type in _STAY else 'goes '}  {one.type}  {one.physical_id or one.logical_id}")
    if any(one.type == _DOMAIN for one in resources):
        write_message(
            "smkit: the file system with the users' home folders stays, and so do SageMaker's security groups"
        )
    _ask(f"Delete the stack {present.name}?", yes=yes)
    with _goes_on(stack):
        stack.delete(on_event=_show_event)
    stays = [one.physical_id for one in resources if one.type in _STAY]
    if as_json:
        write_json({"stack": present.name, "deleted": True, "stays": list(dict.fromkeys(stays))})
    else:
        write_text(f"{present.name} deleted")


def _stack(context: typer.Context, kind: str) -> Stack:
    from smkit.infra import Stack

    return Stack(settings_of(context), kind)


def _listed(texts: list[str] | None) -> tuple[str, ...] | None:
    """Return what an option that may be repeated says: None where it was not given, `()` for `''`."""
    return None if not texts else tuple(text for text in texts if text)


def _how(text: str | None) -> Any:
    if text not in {None, "use", "import"}:
        raise typer.BadParameter(f"--existing-bucket {text!r} is not allowed: expected use or import")
    return text


def _refuse(options: dict[str, Any], kind: str) -> None:
    given = [name for name, value in options.items() if value is not None and value != []]
    if given:
        raise typer.BadParameter(f"{', '.join(given)} says nothing about the stack {kind!r}")


def _ask(question: str, *, yes: bool) -> None:
    """Return where there is consent."""
    if yes:
        return
    if not sys.stdin.isatty():
        write_message("smkit: error: nothing was changed: nobody can be asked here; say --yes to consent")
        raise typer.Exit(1)
    if not agrees(question, otherwise="smkit: nothing was changed"):
        raise typer.Exit(1)


@contextlib.contextmanager
def _goes_on(stack: Stack) -> Iterator[None]:
    """Say, where the waiting is cut short, that CloudFormation does not stop because of it."""
    from smkit.errors import CredentialsError, ServiceUnavailable

    try:
        yield
    except (KeyboardInterrupt, CredentialsError, ServiceUnavailable) as error:
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else "cannot be followed any more"
        write_message(
            f"smkit: {what}: if CloudFormation had begun with {stack.name}, it goes on; "
            f"`smkit infra status {stack.kind}` shows how far it is"
        )
        raise


def _delete_failed_creation(stack: Stack, *, yes: bool) -> None:
    """Offer to delete what a failed first creation left, which is in the way of the next."""
    from smkit.infra.states import ONLY_DELETABLE

    found = stack.status()
    if found is None or found.status not in ONLY_DELETABLE:
        return
    write_message(f"smkit: {stack.name} is in {found.status}: its first creation failed, and it takes no change")
    for event in stack.failures():
        write_message(f"  {event.logical_id}: {event.reason}")
    _ask(f"Delete {stack.name} first, and make it anew?", yes=yes)
    with _goes_on(stack):
        stack.delete(on_event=_show_event)


def _show_event(event: StackEvent) -> None:
    reason = f"  {event.reason}" if event.reason else ""
    write_message(f"{event.time:%H:%M:%S}  {event.status:<20}  {event.logical_id}{reason}")


def _show_plan(stack: Stack, plan: Plan, *, as_json: bool, agreed: bool) -> None:
    """Show what would change, and return where there is consent; else, and on Ctrl-C, the plan is forgotten."""
    if plan.is_empty:
        write_message(f"smkit: {stack.name} is up to date: nothing to change")
        return
    try:
        if as_json and agreed:
            return
        _write_changes(plan, to_stderr=as_json)
        _ask("Make these changes?", yes=agreed)
    except BaseException:
        stack.discard(plan)
        raise


def _write_changes(plan: Plan, *, to_stderr: bool) -> None:
    from smkit.display import MISSING, aligned

    header = ["action", "resource", "type", "replacement", "scope"]
    rows = [
        [
            change.action,
            change.logical_id,
            change.type,
            change.replacement or MISSING,
            ", ".join(change.scope) or change.afterwards or MISSING,
        ]
        for change in plan.changes
    ]
    if to_stderr:
        for line in aligned([header, *rows]):
            write_message(line)
    else:
        write_table(header, rows)
    lost = [change.logical_id for change in plan.changes if change.loses_resource]
    if lost:
        write_message(f"smkit: warning: removed or replaced: {', '.join(lost)}")


def _plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "stack": plan.stack_name,
        "creates": plan.creates,
        "changes": [asdict(change) for change in plan.changes],
        "parameters": dict(plan.parameters),
    }


def _show_status(document: dict[str, Any]) -> None:
    state = document["status"] or "not deployed"
    write_fields({"stack": document["stack"], "status": state, "reason": document["reason"], **document["outputs"]})
    for failure in document["failures"]:
        write_text(f"failed  {failure}")
    if document["fix"]:
        write_text(f"to do   {document['fix']}")


def _write_settings(file: SettingsFile, *, yes: bool) -> None:
    if file.overruled:
        write_message(
            f"smkit: warning: {', '.join(file.overruled)}: a variable or .env says otherwise than the stack, and wins "
            f"over {file.path.name}"
        )
    if not file.is_changed:
        return
    write_message(file.diff())
    if not yes and file.before is not None:
        unwritten = f"smkit: {file.path} stays as it is, without what is shown above; --yes writes it"
        if not sys.stdin.isatty():
            write_message(unwritten)
            return
        if not agrees(f"Change {file.path}?", otherwise=unwritten):
            return
    file.write()
    write_message(f"smkit: {file.path} written")
