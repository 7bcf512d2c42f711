"""Settings of the whole test suite."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

from smkit.jobs.containers import image, known_versions
from smkit.jobs.environments import install_command, search_interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["tests.fixtures_postgres", "tests.fixtures_s3", "tests.service_models"]

# No deadline: a busy machine is no bug. No database: the checkout may be read-only, and a failure prints its seed.
hypothesis.settings.register_profile("smkit", deadline=None, database=None, print_blob=True)
# `--hypothesis-profile brief`: where the whole suite has run under another Python.
hypothesis.settings.register_profile("brief", hypothesis.settings.get_profile("smkit"), max_examples=25)
hypothesis.settings.load_profile("smkit")


def pytest_configure(config: pytest.Config) -> None:
    """Register the suite's markers."""
    config.addinivalue_line("markers", "slow: takes more than a few seconds; left out with -m 'not slow'")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it puts in the background with SIGINT ignored, and every child would inherit that:
        # what is tested with Ctrl-C would never feel it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    """Say under which of the images' Pythons the tests run, and which are not on this machine."""
    found, missing = [], []
    for python in sorted({image(version).python for version in known_versions()}):
        interpreter = search_interpreter(python)
        if interpreter is None:
            missing.append(f"{python[0]}.{python[1]} ({install_command(python)})")
        else:
            found.append(interpreter.version)
    lines = [f"Pythons of the images: {', '.join(found) or 'none'}"]
    if missing:
        lines.append(f"not found, so their tests are skipped: Python {', '.join(missing)}")
    clones = os.environ.get("SMKIT_TEST_PUBLIC_SCRIPTS")
    lines.append(f"public training scripts: {clones or 'NOT RUN: SMKIT_TEST_PUBLIC_SCRIPTS names no folder of clones'}")
    return lines


@pytest.fixture(autouse=True)
def _clean_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide this machine's own settings, and work in an empty folder: a test leaves nothing in the checkout."""
    for name in [name for name in os.environ if name.upper().startswith("SMKIT_")]:
        if not name.upper().startswith("SMKIT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _signal_handlers_stay() -> Iterator[None]:
    """Fail the test that leaves a handler behind, and not one after it that waits for its own Ctrl-C."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    after = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before
