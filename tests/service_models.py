"""AWS's service models, read once for all sessions of a test run."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import botocore.loaders
import botocore.session
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def service_models_are_read_once() -> Iterator[None]:
    """Each session reads the models anew, S3's rules in a quarter of a second; each `Settings` has one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.loaders.create_loader))
        yield
