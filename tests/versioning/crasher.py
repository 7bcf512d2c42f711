"""Kill a process with SIGKILL at its first step, its second, and so on, until it runs to its end.

Usage: `crasher.py <root> <publish|promote|rollback|prune|gc> <operations|system-calls>`. Each try has its own store,
`<root>/<k>`, and its own child process. Prints how many tries were killed. A step is the moment before an operation of
the store, or before a system call that changes the file system; the last one is the moment before the caller hears of
success.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.storage import FolderStore, ObjectStore
from smkit.versioning import segments

if TYPE_CHECKING:
    from collections.abc import Callable

    from smkit.versioning import VersionLog

from tests.versioning.helpers import HookedStore, collect_all, open_log, publish

CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "shutil.rmtree"}
ACTIONS: dict[str, Callable[[VersionLog], object]] = {
    "publish": lambda log: publish(log, {"a.bin": b"third", "deep/b.bin": b"more"}, reuse="any"),
    "promote": lambda log: log.aliases.promote("houses", 2, "production"),
    "rollback": lambda log: log.aliases.rollback("houses", "production", why="wrong currency"),
    "prune": lambda log: log.prune("houses", 2),
    "gc": collect_all,
}
#: Publish ids of publishes that died, for the collector.
DEAD = ("d" * 32, "e" * 32)


def prepare_gc(log: VersionLog, plain: ObjectStore) -> None:
    for publish_id in DEAD:
        for path in ("a.bin", "deep/b.bin"):
            plain.upload(f"models/houses/data/{publish_id}/{path}", io.BytesIO(b"unfinished"))
    pruned = publish(log, "third").manifest
    log.prune("houses", 3)
    plain.upload(pruned.key_of("model.bin"), io.BytesIO(b"the prune died before it came to this"))
    if isinstance(plain, FolderStore):
        (Path(plain.uri) / "models/houses/versions/.smkit-tmp-1").write_bytes(b"the writer died")


class Countdown:
    """Kills this very process at the k-th step."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self.armed = False

    def step(self, *_: object) -> None:
        if self.armed:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        changes_a_file = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or changes_a_file:
            self.step()


def opener_of(root: str) -> Callable[[int], ObjectStore]:
    if not root.startswith("s3://"):
        return lambda steps: FolderStore(f"{root}/{steps}")
    import boto3

    from smkit.storage.s3 import S3Store

    # Made once, used by the children only: no socket is shared.
    client = boto3.client("s3")
    return lambda steps: S3Store(f"{root}/{steps}", lambda: client)


def child(plain: ObjectStore, action: str, mode: str, steps: int) -> None:
    # The third version completes a segment.
    segments.SIZES = (6, 3)
    countdown = Countdown(steps)
    store: ObjectStore = HookedStore(plain, countdown.step if mode == "operations" else lambda *_: None)
    log = open_log(store)
    publish(log, "first")
    publish(log, {"a.bin": b"second", "b.bin": b"of two files"})
    log.aliases.promote("houses", 1, "production")
    if action == "rollback":
        log.aliases.promote("houses", 2, "production")
    if action == "gc":
        prepare_gc(log, plain)
    if mode == "system-calls":
        sys.addaudithook(countdown.audit)
    countdown.armed = True
    ACTIONS[action](log)
    countdown.step()


def main() -> None:
    root, action, mode = sys.argv[1:]
    open_store = opener_of(root)
    for steps in range(1, 1000):
        pid = os.fork()
        if pid == 0:
            # Whatever is raised must end the child here, with its traceback: the parent's loop is not the child's.
            try:
                child(open_store(steps), action, mode, steps)
            except BaseException:  # noqa: BLE001 - told by its traceback and by the exit code
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) != 0:
                sys.exit(f"step {steps} failed")
            print(steps - 1)
            return
        if os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"step {steps} died of signal {os.WTERMSIG(status)}")
    sys.exit("it never came to its end")


if __name__ == "__main__":
    main()
