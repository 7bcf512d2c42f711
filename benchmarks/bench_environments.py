"""A parity environment: what a warm one adds to a local job, and how its building compares with uv's own.

python benchmarks/bench_environments.py [--runs 7] [--builds 3] [--environment 1.2-1]

Needs uv and a package index. All builds use one cache, which a round that is not counted fills, so that none waits for
downloads. A build is timed until jobs can use the environment; how long its bytecode takes, which follows without
anybody waiting for it, stands beside, as does what uv needs where it copies, for information.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from timing import report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smkit.jobs.environments import Environment

#: The least that a job can be: what remains is what starting it costs.
SCRIPT = 'import os\nopen(os.path.join(os.environ["SM_MODEL_DIR"], "model"), "w").close()\n'
MOST_SECONDS_ADDED = 0.3
MOST_OF_UV = 1.5


def medians_of(
    actions: Mapping[str, Callable[[], None]], *, runs: int, before: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return the median seconds of each action; they alternate, after one round that is not counted.

    Args:
        actions: What is timed.
        runs: How often.
        before: Called before each action; not timed.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(runs + 1):
        for name, action in actions.items():
            before()
            start = time.perf_counter()
            action()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_jobs(name: str, folder: Path, *, runs: int) -> None:
    """Print what an environment that is built adds to a job."""
    import smkit
    from smkit.jobs.environments import ensure_built

    built = ensure_built(name).built
    script = folder / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    settings = smkit.Settings(root=str(folder / "store"))

    def job(environment: str) -> Callable[[], None]:
        runner = smkit.JobRunner(settings, environment=environment)
        return lambda: runner.submit(script, framework_version=name.partition("[")[0]).wait(logs=False)

    times = medians_of({"host": job("host"), name: job(name)}, runs=runs)
    last = smkit.JobRunner(settings).jobs()[0]
    if built is None or last.lineage()["environment"]["python"] != built.python_version:
        raise SystemExit(f"job {last.name!r} did not run in {name}: nothing was measured")
    added = times[name] - times["host"]
    verdict = "ok" if added <= MOST_SECONDS_ADDED else "MISSED"
    print(f"job on host      {times['host']:6.3f} s")
    print(f"job in {name:9} {times[name]:6.3f} s")
    print(f"a warm environment adds {added:.3f} s (target: at most {MOST_SECONDS_ADDED} s) {verdict}")


def measure_builds(name: str, folder: Path, *, runs: int) -> None:
    """Print how long a build takes, as a multiple of uv's own time for the same list."""
    from smkit.jobs.environments import ensure_built, locate, remove
    from smkit.jobs.environments.index import index_for_uv
    from smkit.jobs.environments.interpreters import find_interpreter
    from smkit.jobs.environments.uv import find_uv

    uv = find_uv()
    if uv is None:
        raise SystemExit("uv is not installed: there is nothing to compare with")
    environment: Environment = locate(name, folder=folder / "environments")
    contents = environment.contents
    base = environment.base or find_interpreter(contents.python).path
    constraints = folder / "constraints.txt"
    constraints.write_text(contents.constraints, encoding="utf-8")
    whole_list = (
        ["--no-deps"] if contents.wanted is None else ["--only-binary", ":all:", "--constraint", str(constraints)]
    )
    target = folder / "by-hand"
    python = str(target / "bin" / "python")

    def clear() -> None:
        remove(environment.name, folder=environment.root, progress=False)
        shutil.rmtree(target, ignore_errors=True)

    def by_hand(*options: str) -> Callable[[], None]:
        def install() -> None:
            for command in (
                ["venv", "--no-project", "--python", str(base), str(target)],
                ["pip", "install", "--python", python, *options, *whole_list, *contents.requirements],
            ):
                subprocess.run([str(uv.path), *command], check=True, env=index_for_uv().variables, capture_output=True)

        return install

    plain, copied = "uv pip install", "uv pip install --link-mode copy"
    build = f"build of {name}"
    actions = {
        build: lambda: ensure_built(environment, progress=False),
        f"{build}, compiled": lambda: ensure_built(environment, progress=False, compiled=True),
        plain: by_hand(),
        f"{plain} --compile-bytecode": by_hand("--compile-bytecode"),
        copied: by_hand("--link-mode", "copy"),
    }
    times = medians_of(actions, runs=runs, before=clear)
    for what, seconds in times.items():
        print(f"{what:52} {seconds:6.2f} s")
    report(f"{build} / {plain}", times[build] / times[plain], MOST_OF_UV)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--environment", default="1.2-1", help="which image's; default: 1.2-1")
    parser.add_argument("--runs", type=int, default=7, help="jobs of each kind; default: 7")
    parser.add_argument("--builds", type=int, default=3, help="builds of each kind, 0 for none; default: 3")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SMKIT_")]:
        del os.environ[name]
    # Where the environments of the user lie, so that uv may link files, which it cannot from another file system.
    from smkit.jobs.environments import environments_folder

    environments_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=environments_folder().parent, prefix="bench-") as name:
        measure_jobs(arguments.environment, Path(name), runs=arguments.runs)
        if arguments.builds:
            measure_builds(arguments.environment, Path(name), runs=arguments.builds)


if __name__ == "__main__":
    main()
