"""A local job against `python train.py` by hand, for the blog's script and data.

python benchmarks/bench_local_job.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from timing import medians, report

RUNS = 7
SCRIPT = Path(__file__).parents[1] / "examples" / "blog" / "train_plain.py"

#: What the job adds to a process that is there already: a notebook or a service has imported smkit before.
RUN_JOB = """
import time, sys, smkit
runner = smkit.JobRunner(smkit.Settings(root=sys.argv[1]))
runner.settings
times = []
for _ in range(int(sys.argv[4])):
    start = time.perf_counter()
    runner.run(sys.argv[2], {"train": sys.argv[3]})
    times.append(time.perf_counter() - start)
print(sorted(times[1:])[len(times[1:]) // 2], file=sys.stderr)
"""


def main() -> None:
    import subprocess

    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    frame = pd.DataFrame({"X1": random.uniform(size=1000), "X2": random.uniform(size=1000)})
    frame["y"] = frame["X1"] + frame["X2"] + random.normal(scale=0.1, size=1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train").mkdir()
        (folder / "model").mkdir()
        frame.to_csv(folder / "train" / "data.csv", index=False)
        by_hand = [sys.executable, str(SCRIPT), "--train", str(folder / "train"), "--model-dir", str(folder / "model")]
        # Before and after the jobs, so that a machine that slows down does not favour either.
        before = medians({"by hand": by_hand}, runs=RUNS)["by hand"]
        done = subprocess.run(
            [sys.executable, "-c", RUN_JOB, str(folder / "root"), str(SCRIPT), str(folder / "train"), str(RUNS + 1)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        job = float(done.stderr.split()[-1])
        after = medians({"by hand": by_hand}, runs=RUNS)["by hand"]
    hand = (before + after) / 2
    print(f"by hand   {hand:6.3f} s")
    print(f"as a job  {job:6.3f} s")
    report("local job / python train.py", job / hand, 1.3)


if __name__ == "__main__":
    main()
