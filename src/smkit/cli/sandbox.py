"""`smkit sandbox`: the sandbox of `smkit.testing` in a terminal."""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from smkit.cli.output import write_json, write_message, write_text
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def _set_by_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, a request to end and a closed terminal set."""
    ended = threading.Event()
    # Handlers, not KeyboardInterrupt: the clean-up must not be torn by a second Ctrl-C.
    previous = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield ended
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run(
    context: typer.Context,
    *,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0: a free one.")
    ] = 0,
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="The account that it plays.")
    ] = "123456789012",
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Run a SageMaker on this machine that really trains, until Ctrl-C.

    It plays the region of --region, else that of the settings, and prints the variables that lead AWS clients to it.

    Examples: smkit sandbox; smkit sandbox --port 5000 --region cn-north-1
    """
    from smkit.testing import sandbox

    region = settings_of(context).region
    with (
        _set_by_signals() as ended,
        sandbox(port=port, region=region, account=account, set_environment=False) as running,
    ):
        variables = {
            **running.environment,
            "SMKIT_REGION": running.region,
            "SMKIT_BUCKET": running.bucket,
            "SMKIT_ROLE": running.role,
            "SMKIT_BACKEND": "sagemaker",
        }
        if as_json:
            write_json({"endpoint_url": running.endpoint_url, "environment": variables})
        else:
            write_text(f"# The sandbox serves at {running.endpoint_url}; in another terminal:")
            for name, value in variables.items():
                write_text(f"export {name}={shlex.quote(value)}")
        write_message("smkit: Ctrl-C ends the sandbox and deletes what it holds")
        ended.wait()
