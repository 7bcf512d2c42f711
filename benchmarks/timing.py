"""Time whole processes against each other in one run: interleaved, so that a busy machine slows all alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def medians(commands: Mapping[str, Sequence[str]], *, runs: int, cwd: str | None = None) -> dict[str, float]:
    """Return the median wall time of each command, in seconds.

    Args:
        commands: Name -> command line.
        runs: How often each is run, after one run that is not counted.
        cwd: Where they run.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    # Neither an active test runner's coverage nor bytecode writing may be measured.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "SMKIT_"))}
    for number in range(runs + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(name: str, ratio: float, target: float) -> None:
    """Print one ratio beside its target."""
    verdict = "ok" if ratio <= target else "MISSED"
    print(f"{name}: {ratio:.2f}x (target: at most {target}x) {verdict}")
