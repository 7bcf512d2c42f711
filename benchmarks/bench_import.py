"""`import smkit` against `import boto3` and against Python alone.

python benchmarks/bench_import.py
"""

from __future__ import annotations

import sys

from timing import medians, report

RUNS = 15


def main() -> None:
    times = medians(
        {
            "python": [sys.executable, "-c", "pass"],
            "smkit": [sys.executable, "-c", "import smkit"],
            "boto3": [sys.executable, "-c", "import boto3"],
        },
        runs=RUNS,
    )
    for name, seconds in times.items():
        print(f"{name:<8} {seconds * 1000:7.1f} ms")
    smkit, boto3 = (times[name] - times["python"] for name in ("smkit", "boto3"))
    report("import smkit / import boto3, whole processes", times["smkit"] / times["boto3"], 0.15)
    report("import smkit / import boto3, without Python's own start", max(smkit, 0) / boto3, 0.15)
    print(f"import smkit / python alone: {times['smkit'] / times['python']:.2f}x")


if __name__ == "__main__":
    main()
