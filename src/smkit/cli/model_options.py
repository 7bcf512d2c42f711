"""What the commands of `smkit models` share: words of their command lines, and the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from smkit.cli.completion import model_names, model_refs
from smkit.cli.settings import settings_of

if TYPE_CHECKING:
    from smkit.artifacts import ArtifactStore

JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
RefArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A version: houses@3, houses@production, houses (the latest).",
        autocompletion=model_refs,
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.", autocompletion=model_names)]
AnyNameArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="A model's name; left out: all models.", autocompletion=model_names),
]
AliasArgument = Annotated[str, typer.Argument(metavar="ALIAS", help="An alias, such as production.")]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the history.")]
ExpectedOption = Annotated[
    str | None,
    typer.Option(
        "--expected",
        metavar="VERSION",
        help="Fail unless the alias names this version now; none: unless it names none.",
    ),
]


def store_of(context: typer.Context) -> ArtifactStore:
    """Return the models under the root of the settings."""
    from smkit.artifacts import ArtifactStore

    return ArtifactStore(settings_of(context))
