"""The SageMaker SDK v2 for the tests that compare with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from smkit.jobs.sagemaker.sdk import has_sklearn

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Which SDK the tests are promised: `2` (default: the extra `test` brings it), `3`, or `none`; CI runs all three.
PROMISED = os.environ.get("SMKIT_TEST_SDK", "2")

needs_sdk = pytest.mark.skipif(not has_sklearn(), reason=f"compares with the SDK v2; SMKIT_TEST_SDK={PROMISED} is here")


@pytest.fixture(scope="session")
def quiet_sdk() -> Iterator[None]:
    """Let a test import the SDK itself: its notice that v3 exists would be an error here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
        yield
