"""SIGKILL at every step of publish, promote, rollback, prune and gc, and at random."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from smkit.errors import VersionNotFound
from smkit.naming import parse_reference
from smkit.storage import FolderStore, ObjectStore
from smkit.storage.s3 import S3Store
from smkit.versioning.maintenance import check
from tests.versioning.helpers import check_everything, check_healthy, collect_all, open_log, publish, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from smkit.versioning import VersionLog

TREE = Path(__file__).resolve().parents[2]


def crash(root: str, action: str, mode: str) -> int:
    """Run the action to its death at each step; return the number of steps."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.versioning.crasher", root, action, mode],
        cwd=TREE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.fixture(
    params=["folder, operations", "folder, system-calls", pytest.param("s3, operations", marks=pytest.mark.slow)]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, Callable[[int], ObjectStore]]:
    """Where to crash, at which steps, and how to open the store of the k-th crash."""
    kind, mode = request.param.split(", ")
    if kind == "folder":
        return str(tmp_path), mode, lambda step: FolderStore(tmp_path / str(step))
    uri: str = request.getfixturevalue("s3_uri")
    client: Any = request.getfixturevalue("s3_client")
    # The children find the server by the environment, as every AWS client does.
    request.getfixturevalue("monkeypatch").setenv("AWS_ENDPOINT_URL", request.getfixturevalue("atomic_s3"))
    return uri, mode, lambda step: S3Store(f"{uri}/{step}", lambda: client)


def check_the_first_two(log: VersionLog) -> None:
    assert read(log, log.get(parse_reference("houses@1", "model"))) == {"model.bin": b"first"}
    assert read(log, log.manifest("houses", 2)) == {"a.bin": b"second", "b.bin": b"of two files"}


def test_publish(place: tuple[str, str, Callable[[int], ObjectStore]]) -> None:
    root, mode, open_store = place
    steps = crash(root, "publish", mode)
    assert steps >= 6
    seen = set()
    for step in range(1, steps + 2):
        log = open_log(open_store(step))
        check_everything(log)
        check_the_first_two(log)
        versions = log.versions("houses")
        assert versions in {(2, 1), (3, 2, 1)}
        if len(versions) == 3:
            assert read(log, log.manifest("houses", 3)) == {"a.bin": b"third", "deep/b.bin": b"more"}
        seen.add(versions)
        if step == steps + 1:
            assert versions == (3, 2, 1), "it was acknowledged"
        # The one who was killed tries again: the version is there once, whether it was before or not.
        again = publish(log, {"a.bin": b"third", "deep/b.bin": b"more"}, reuse="any")
        assert (again.manifest.version, again.created) == (3, len(versions) == 2)
        assert publish(log, "fourth").manifest.version == 4
        assert [summary.version for summary in log.summaries("houses")] == [4, 3, 2, 1]
        check_healthy(log)
    assert seen == {(2, 1), (3, 2, 1)}, "some crash must come before the commit and some after it"


def test_promote(place: tuple[str, str, Callable[[int], ObjectStore]]) -> None:
    root, mode, open_store = place
    steps = crash(root, "promote", mode)
    assert steps >= 4
    seen = set()
    for step in range(1, steps + 2):
        log = open_log(open_store(step))
        check_everything(log)
        check_the_first_two(log)
        named = log.aliases.all("houses")["production"]
        assert named in {1, 2}
        seen.add(named)
        if step == steps + 1:
            assert named == 2, "it was acknowledged"
        assert [move.version for move in log.aliases.history("houses", "production")] in ([1], [2, 1])
        log.aliases.promote("houses", 2, "production", why="again")
        assert [move.version for move in log.aliases.history("houses", "production")] == [2, 1]
        assert publish(log, "third").manifest.version == 3
        check_healthy(log)
    assert seen == {1, 2}


def test_rollback(place: tuple[str, str, Callable[[int], ObjectStore]]) -> None:
    root, mode, open_store = place
    steps = crash(root, "rollback", mode)
    assert steps >= 4
    seen = set()
    for step in range(1, steps + 2):
        log = open_log(open_store(step))
        check_everything(log)
        check_the_first_two(log)
        named = log.aliases.all("houses")["production"]
        seen.add(named)
        if step == steps + 1:
            assert named == 1, "it was acknowledged"
        assert [move.version for move in log.aliases.history("houses", "production")] in ([2, 1], [1, 2, 1])
        if named == 2:
            log.aliases.rollback("houses", "production", expected=2)
        assert [move.version for move in log.aliases.history("houses", "production")] == [1, 2, 1]
        check_healthy(log)
    assert seen == {1, 2}


def test_gc(place: tuple[str, str, Callable[[int], ObjectStore]]) -> None:
    root, mode, open_store = place
    steps = crash(root, "gc", mode)
    assert steps >= 6
    left = []
    for step in range(1, steps + 2):
        log = open_log(open_store(step))
        check_everything(log)
        check_the_first_two(log)
        assert log.versions("houses") == (2, 1)
        assert [str(damage) for damage in check(log, "houses", read_files=True)] == []
        left.append(len(collect_all(log)))
        check_healthy(log)
    assert left[0] >= 3, "the first crash comes before anything is collected"
    assert left[-1] == 0, "it was acknowledged"


def test_prune(place: tuple[str, str, Callable[[int], ObjectStore]]) -> None:
    root, mode, open_store = place
    steps = crash(root, "prune", mode)
    assert steps >= 7
    seen = set()
    for step in range(1, steps + 2):
        log = open_log(open_store(step))
        check_everything(log)
        versions = log.versions("houses")
        assert versions in {(2, 1), (1,)}
        seen.add(versions)
        if step == steps + 1:
            assert versions == (1,), "it was acknowledged"
        if len(versions) == 2:
            check_the_first_two(log)
        log.prune("houses", 2)
        with pytest.raises(VersionNotFound, match="model houses@2 was pruned by"):
            log.get(parse_reference("houses@2", "model"))
        keys = [info.key for info in log.store.scan("models/houses/")]
        assert not [key for key in keys if "/prunes/" in key]
        assert sum("/data/" in key for key in keys) == 1
        # The number is not given again, and the alias still names what it named.
        assert publish(log, "third").manifest.version == 3
        assert log.aliases.all("houses") == {"production": 1}
        check_healthy(log)
    assert seen == {(2, 1), (1,)}


@pytest.mark.slow
def test_at_random(tmp_path: Path) -> None:
    """Workers that publish, promote, roll back, prune and collect are killed at any time, four at once.

    What one acknowledged, a line of its output, holds in the end.
    """
    dice = random.Random(20)
    acknowledged: dict[int, str] = {}
    pruned: set[int] = set()
    for turn in range(6):
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.versioning.worker", str(tmp_path), f"{turn}-{number}"],
                cwd=TREE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            time.sleep(dice.uniform(0.05, 0.4))
            worker.send_signal(signal.SIGKILL)
        for worker in workers:
            output = worker.communicate(timeout=60)[0]
            assert worker.returncode == -signal.SIGKILL, "it died of something else"
            for line in output.splitlines(keepends=True):
                # A line that the kill cut short was not acknowledged.
                if line.endswith("\n"):
                    action, number, content = line.rstrip("\n").split(" ", 2)
                    if action == "published":
                        assert int(number) not in acknowledged, "two versions of one number"
                        acknowledged[int(number)] = content
                    else:
                        pruned.add(int(number))
        log = open_log(FolderStore(tmp_path))
        # Whether an interrupted prune went through nobody was told: what is gone must have a tombstone.
        live = log.versions("houses")
        assert pruned.isdisjoint(live)
        for number, content in acknowledged.items():
            assert log.manifest("houses", number).body["content"] == content
            if number in live:
                assert read(log, log.manifest("houses", number)) == {"model.bin": content.encode()}
        assert list(range(1, log.top("houses") + 1)) == sorted({*live, *log.pruned("houses")})
        check_healthy(log)
    assert len(acknowledged) > 50
    assert pruned
