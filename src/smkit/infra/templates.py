"""The CloudFormation templates, as they lie in `cloudformation/`."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from smkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["foundation", "studio"]

TEMPLATES: tuple[Kind, ...] = ("foundation", "studio")

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateUserProfile.html
_USER = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_REPEATED = re.compile(
    r"  # smkit: begin of what is repeated for each user\n(?P<block>.*?)  # smkit: end of [^\n]*\n", re.DOTALL
)
_LOGICAL_ID = "UserProfileExample"
_PROFILE = re.compile(r'^ +UserProfileName: "(?P<user>[a-zA-Z0-9-]+)"$', re.MULTILINE)


def check_kind(kind: str) -> Kind:
    """Return the name of a template.

    Raises:
        ConfigError: There is no such template.
    """
    for name in TEMPLATES:
        if kind == name:
            return name
    raise ConfigError(
        f"there is no template {kind!r}{did_you_mean(kind, TEMPLATES)}; templates are {', '.join(TEMPLATES)}"
    )


def read_template(kind: Kind, *, users: Iterable[str] = ()) -> str:
    """Return a template as YAML: what is deployed, byte for byte.

    Args:
        kind: `foundation` or `studio`.
        users: Of `studio`: names of the user profiles, 1 to 63 letters, digits and inner hyphens each.

    Raises:
        ConfigError: There is no such template, or a user's name is not allowed.
    """
    text = (
        files("smkit.infra").joinpath("cloudformation").joinpath(f"{check_kind(kind)}.yaml").read_text(encoding="utf-8")
    )
    if kind != "studio":
        if names := list(users):
            raise ConfigError(f"the template {kind!r} has no users, got {', '.join(names)}: they belong to 'studio'")
        return text
    found = _REPEATED.search(text)
    if found is None:
        raise ConfigError("the template 'studio' lacks the block of the user profiles: install smkit anew")
    block = found["block"]
    profiles = [
        block.replace(_LOGICAL_ID, logical_id).replace('"example"', f'"{user}"')
        for user, logical_id in _logical_ids(users).items()
    ]
    return text[: found.start()] + "".join(profiles) + text[found.end() :]


def users_of(template: str) -> tuple[str, ...]:
    """Return the users of a studio template that `read_template` made."""
    return tuple(match["user"] for match in _PROFILE.finditer(template))


def _logical_ids(users: Iterable[str]) -> dict[str, str]:
    """Return user -> logical id; these have letters and digits only."""
    found: dict[str, str] = {}
    for user in users:
        if not _USER.fullmatch(user):
            raise ConfigError(
                f"{user!r} is not a user profile's name: expected 1 to 63 letters, digits and, between them, hyphens"
            )
        logical_id = "UserProfile" + "".join(part[:1].upper() + part[1:] for part in user.split("-"))
        twin = next((name for name, taken in found.items() if taken.lower() == logical_id.lower()), None)
        if twin is not None:
            raise ConfigError(f"the users {twin!r} and {user!r} are the same but for hyphens and case: rename one")
        found[user] = logical_id
    return found
