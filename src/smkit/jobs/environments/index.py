"""Where packages come from: what the user configured for uv or for pip, and nothing else of it.

uv's own configuration decides where it names an index. Where it names none, pip's does, for uv too: a mirror in
`pip.conf` is what most people behind the Great Firewall have. Everything is handed over in variables: a URL may hold a
password, and every user of a machine may read the words of a command.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from smkit.jobs.environments.programs import quiet_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Options of pip that say where packages come from and how they are fetched.
_PIP_OPTIONS = frozenset(
    {"index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert", "proxy"}
    | {"timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir", "keyring-provider"}
)  # fmt: skip
#: Of these pip takes several, separated by blanks or lines.
_PIP_LISTS = frozenset({"extra-index-url", "find-links", "trusted-host"})
_PIP_PATHS = frozenset({"find-links", "cert", "client-cert", "cache-dir"})
#: The same for uv; https://docs.astral.sh/uv/reference/environment/
_UV_INDEXES = frozenset({"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"})
_UV_KEPT = _UV_INDEXES | {
    *("UV_FIND_LINKS", "UV_NO_INDEX", "UV_INDEX_STRATEGY", "UV_KEYRING_PROVIDER", "UV_INSECURE_HOST"),
    *("UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES", "UV_OFFLINE"),
    *("UV_CACHE_DIR", "UV_NO_CACHE", "UV_CONCURRENT_DOWNLOADS", "UV_CONFIG_FILE"),
}
_UV_PATHS = {"UV_FIND_LINKS", "UV_CACHE_DIR", "UV_CONFIG_FILE"}
#: Users and passwords of named indexes.
_UV_CREDENTIALS = re.compile(r"UV_INDEX_\w+_(?:USERNAME|PASSWORD)")


@dataclass(frozen=True)
class PackageIndex:
    """The variables that tell an installer where packages come from.

    Args:
        variables: All variables of the installer's process.
        secrets: Parts of them that no message may show, each with what is shown instead.
    """

    variables: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)

    def masked(self, text: str) -> str:
        """Return what an installer said, without credentials."""
        # The longest first: a user's name may be part of the password.
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, self.secrets[secret])
        return re.sub(r"(?<=://)[^/\s@]+@", "****@", text)


def index_for_uv(index_url: str | None = None) -> PackageIndex:
    """Return what uv is told.

    Args:
        index_url: The index, instead of the one that is configured.
    """
    kept = _UV_KEPT | {name for name in os.environ if _UV_CREDENTIALS.fullmatch(name)}
    variables = quiet_variables(kept)
    for name in _UV_PATHS & set(variables):
        variables[name] = ",".join(_absolute(one) for one in variables[name].split(","))
    if not _uv_names_an_index():
        variables = _of_pip(pip_options()) | variables
    if index_url is not None:
        variables.pop("UV_INDEX_URL", None)
        variables.pop("UV_NO_INDEX", None)
        variables["UV_DEFAULT_INDEX"] = index_url
    return PackageIndex(variables, _secrets(variables, index_url))


def index_for_pip(index_url: str | None = None) -> PackageIndex:
    """Return what pip is told.

    Args:
        index_url: The index, instead of the one that is configured.
    """
    options = pip_options()
    if index_url is not None:
        options.pop("no-index", None)
        options["index-url"] = index_url
    if options.get("retries") == "0":
        # Only of what it tries again does pip say why: without, it finds "no matching distribution".
        options["retries"] = "1"
    given = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in options.items()}
    # The files were read above; what else they say, such as `user` or `no-binary`, must not apply.
    variables = {**quiet_variables(), **given, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return PackageIndex(variables, _secrets(variables, index_url))


def pip_options() -> dict[str, str]:
    """Return the options of pip's configuration that say where packages come from: option -> value.

    https://pip.pypa.io/en/stable/topics/configuration/
    """
    found: dict[str, str] = {}
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in _pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            # pip would refuse to run; uv, which does not read it, would not.
            continue
        for section, values in sections.items():
            if parser.has_section(section):
                values.update(parser.items(section))
    for values in sections.values():
        found.update({_option(name): value for name, value in values.items()})
    found.update({_option(name[4:]): value for name, value in os.environ.items() if name.startswith("PIP_") and value})
    for name in _PIP_PATHS & set(found):
        words = found[name].split() if name in _PIP_LISTS else [found[name]]
        found[name] = " ".join(_absolute(word) for word in words)
    return {name: value for name, value in found.items() if name in _PIP_OPTIONS}


def _option(name: str) -> str:
    name = name.lower().replace("_", "-").removeprefix("--")
    return "timeout" if name == "default-timeout" else name


def _pip_files() -> Iterator[Path]:
    """Yield pip's configuration files, what comes later wins."""
    given = os.environ.get("PIP_CONFIG_FILE", "")
    if given == os.devnull:
        return
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
    else:
        for folder in reversed((os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)):
            yield Path(folder) / "pip" / "pip.conf"
        yield Path("/etc/pip.conf")
    if not (given and os.path.exists(given)):  # noqa: PTH110 - as pip does it
        home = Path(os.path.expanduser("~"))  # noqa: PTH111 - never raises
        yield home / ".pip" / "pip.conf"
        of_mac = home / "Library" / "Application Support" / "pip"
        if sys.platform == "darwin" and of_mac.is_dir():
            yield of_mac / "pip.conf"
        else:
            yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if given:
        yield Path(given)


def _absolute(text: str) -> str:
    """Make a path absolute, for the installer runs in another folder; a URL stays as it is."""
    if "://" in text or not text:
        return text
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - text in, text out


def _of_pip(options: Mapping[str, str]) -> dict[str, str]:
    """Say to uv what pip is configured to do."""
    lists = {name: options.get(name, "").split() for name in _PIP_LISTS}
    proxy = options.get("proxy", "")
    said = {
        "UV_DEFAULT_INDEX": options.get("index-url", ""),
        "UV_INDEX": " ".join(lists["extra-index-url"]),
        # pip looks into every index; uv stops at the first that knows the name, be it in another version.
        "UV_INDEX_STRATEGY": "unsafe-best-match" if lists["extra-index-url"] else "",
        "UV_FIND_LINKS": ",".join(lists["find-links"]),
        "UV_INSECURE_HOST": " ".join(lists["trusted-host"]),
        "UV_NO_INDEX": "1" if options.get("no-index", "").lower() in {"1", "true", "yes", "on", "y", "t"} else "",
        "UV_HTTP_TIMEOUT": options.get("timeout", "").partition(".")[0],
        "SSL_CERT_FILE": options.get("cert", ""),
        "SSL_CLIENT_CERT": options.get("client-cert", ""),
        "HTTP_PROXY": proxy,
        "HTTPS_PROXY": proxy,
    }
    return {name: value for name, value in said.items() if value}


def _uv_names_an_index() -> bool:
    if any(os.environ.get(name) for name in _UV_INDEXES):
        return True
    given = os.environ.get("UV_CONFIG_FILE")
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - never raises
    system = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    paths = [given] if given else [f"{folder}/uv/uv.toml" for folder in (home, *system, "/etc")]
    return any(_names_an_index(Path(path)) for path in paths)


def _names_an_index(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    # A look, not a parser: Python 3.10 has none for TOML, and uv itself says what is wrong with the file.
    return re.search(r"^\s*(?:\[\[\s*index\s*\]\]|(?:extra-)?index-url\s*=|index\s*=)", text, re.MULTILINE) is not None


def _secrets(variables: Mapping[str, str], index_url: str | None) -> dict[str, str]:
    secrets: dict[str, str] = {}
    for name, value in variables.items():
        if _UV_CREDENTIALS.fullmatch(name):
            secrets[value] = "****"
        if name.startswith(("UV_", "PIP_")) or name.upper().endswith("_PROXY"):
            # Only these are separated by commas, which a password may hold.
            for url in value.split("," if name == "UV_FIND_LINKS" else None):
                secrets |= _credentials(url)
    if index_url is not None:
        # Handed over as a secret: of the whole URL only the host may be shown.
        authority, _, path = index_url.partition("://")[2].partition("/")
        host = authority.rpartition("@")[2]
        if path.rstrip("/"):
            secrets[f"{host}/{path.rstrip('/')}"] = f"{host}/****"
    return {secret: shown for secret, shown in secrets.items() if secret}


def _credentials(url: str) -> dict[str, str]:
    # Not urlsplit, which refuses some of what a user may have written.
    authority = url.partition("://")[2].partition("/")[0]
    user, _, password = authority.rpartition("@")[0].partition(":")
    # A user without a password is a token.
    words = {password, unquote(password)} if password else {user, unquote(user)}
    # A word as short as `a` would make the message unreadable; in its URL it is masked in any case.
    return {word: "****" for word in words if len(word) > 2}
