"""An AWS account on this machine in which smkit's stacks can be deployed."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from smkit import Settings
from tests.infra.moto_cloudformation import complete

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = itertools.count(1)


@pytest.fixture
def account(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Moto, completed; returns its URL."""
    complete(monkeypatch)
    return aws_env


@pytest.fixture
def project() -> str:
    """A project that no other test has: stacks and buckets live as long as the server."""
    return f"p{next(_NUMBERS)}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def make_settings(account: str, project: str) -> Callable[..., Settings]:
    """Makes settings of the project."""

    def make(**values: Any) -> Settings:
        return Settings(**{"project": project, **values})

    return make
