"""Keeps secrets out of what the doctor says: a second line, behind checks that do not repeat any."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from smkit.config import Settings

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_AWS_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
)
_MASK = "********"
#: A shorter text occurs by chance, in words that the reader needs.
_SHORTEST = 4
_USER_AT_HOST = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^/\s]*@", re.IGNORECASE)


class Secrets:
    """Texts that must not be shown. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: set[str] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._texts)} secrets)"

    def add(self, *texts: str | None) -> None:
        """Remember secrets, as they are and as URLs and reprs write them."""
        with self._lock:
            for text in texts:
                if text:
                    variants = {text, unquote(text), repr(text)[1:-1], " ".join(text.split())}
                    self._texts |= {variant for variant in variants if len(variant) >= _SHORTEST}

    def add_url(self, url: str) -> None:
        """Remember what a URL says before its host."""
        # The last @: a password that nobody has quoted may hold one itself, or a slash.
        login, at, _ = url.partition("://")[2].rpartition("@") if "://" in url else url.rpartition("@")
        if at:
            self.add(login, login.partition(":")[2])

    def hide(self, text: str) -> str:
        """Return text without the secrets."""
        with self._lock:
            known = sorted(self._texts, key=len, reverse=True)
        for secret in known:
            text = text.replace(secret, _MASK)
        return _USER_AT_HOST.sub(rf"\g<scheme>{_MASK}@", text)


def secrets_of_environment() -> Secrets:
    """Return the secrets of the environment: AWS's, and the passwords of proxies."""
    secrets = Secrets()
    secrets.add(*(os.environ.get(name) for name in _AWS_VARIABLES))
    for name, value in os.environ.items():
        if name.upper() in PROXY_VARIABLES or name.upper().startswith("AWS_ENDPOINT_URL"):
            secrets.add_url(value)
    return secrets


def add_settings(secrets: Secrets, settings: Settings) -> None:
    """Remember the secrets of settings."""
    if settings.postgres.password is not None:
        secrets.add(settings.postgres.password.get_secret_value())
    if settings.pip_index_url is not None:
        url = settings.pip_index_url.get_secret_value()
        secrets.add(url)
        secrets.add_url(url)
