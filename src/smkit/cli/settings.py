"""The settings of one call of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

    from smkit.config import Settings

_NAMES = ("region", "profile", "backend", "root")


def settings_of(context: typer.Context, *, local_environment: str | None = None) -> Settings:
    """Return the settings, with what --region, --profile, --backend and --root say over every other place.

    A command takes `context: typer.Context` as its first parameter and hands it on.

    Args:
        context: The call.
        local_environment: This setting, where the command has an option for it.

    Raises:
        ConfigError: A setting is malformed, unknown or contradicts another.
    """
    from smkit.config import Settings

    options = context.find_root().params
    given = {name: options.get(name) for name in _NAMES} | {"local_environment": local_environment}
    return Settings(**{name: value for name, value in given.items() if value is not None})
