"""A network that fails in every way, under all that changes the store: nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from smkit.errors import AliasConflict, StorageError, VersionInUse, VersionNotFound
from tests.faulty_proxy import Answer, Before, CutBody, Fault, FaultyProxy, LoseReply, LoseRequest
from tests.versioning.helpers import check_healthy, collect_all, open_log, publish

if TYPE_CHECKING:
    from smkit.storage.s3 import S3Store

FAULTS: dict[str, Fault] = {
    "reply lost": LoseReply(),
    "request lost": LoseRequest(),
    "busy": Answer(503, "SlowDown"),
    "failing": Answer(500, "InternalError"),
    "conflict": Answer(409, "ConditionalRequestConflict"),
    "reset mid-body": CutBody(100),
    "closed mid-body": CutBody(0, reset=False),
    "slow": Before(lambda: time.sleep(0.05)),
}
pytestmark = pytest.mark.usefixtures("no_backoff")


class Ledger:
    """What was acknowledged, and what failed so that nobody knows."""

    def __init__(self) -> None:
        self.published: dict[int, str] = {}
        self.moved: list[str] = []
        self.pruned: set[int] = set()
        self.in_doubt = 0

    def settle(self, log_store: S3Store) -> None:
        log = open_log(log_store)
        top = log.top("houses")
        contents = {number: log.manifest("houses", number).body["content"] for number in range(1, top + 1)}
        assert {number: contents[number] for number in self.published} == self.published
        assert len(set(contents.values())) == len(contents), "one was published twice"
        assert len(contents) <= len(self.published) + self.in_doubt
        pruned = log.pruned("houses")
        assert self.pruned <= pruned
        reasons = Counter(move.why for move in log.aliases.history("houses", "production"))
        for why in self.moved:
            assert reasons[why] == 1, f"the move {why} is there {reasons[why]} times"
        named = log.aliases.all("houses").get("production")
        assert named is None or named in log.versions("houses")
        check_healthy(log)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_network_that_fails_in_every_way(proxied: S3Store, s3_store: S3Store, proxy: FaultyProxy, seed: int) -> None:
    dice = random.Random(seed)
    log = open_log(proxied)
    ledger = Ledger()
    for turn in range(40):
        for _ in range(dice.randint(0, 2)):
            # Six attempts of botocore, twelve for a conflict: some give up, most do not.
            proxy.add(
                dice.choice(list(FAULTS.values())),
                method=dice.choice(["", "PUT", "GET", "POST"]),
                path=dice.choice(["", "/versions/", "/data/", "/aliases/", "/tombstones/", "/prunes/"]),
                times=dice.choice([1, 1, 2, 5, 7, 13]),
            )
        action = dice.choice(["publish", "publish", "publish", "promote", "promote", "rollback", "prune", "collect"])
        target = dice.randint(1, max(ledger.published, default=1))
        why = f"turn {turn}"
        try:
            if action == "publish":
                number = publish(log, why, body={"content": why}).manifest.version
                assert number not in ledger.published
                ledger.published[number] = why
            elif action == "promote":
                if log.aliases.promote("houses", target, "production", why=why).why == why:
                    ledger.moved.append(why)
            elif action == "rollback":
                log.aliases.rollback("houses", "production", why=why)
                ledger.moved.append(why)
            elif action == "prune":
                log.prune("houses", target)
                ledger.pruned.add(target)
            else:
                collect_all(log)
        except StorageError:
            ledger.in_doubt += action == "publish"
        except (AliasConflict, VersionInUse, VersionNotFound):
            continue
    ledger.settle(s3_store)
    assert len(ledger.published) >= 5
    assert ledger.moved


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("times", [1, 2])
def test_each_fault_a_few_times_is_overcome(
    proxied: S3Store, s3_store: S3Store, proxy: FaultyProxy, fault: str, times: int
) -> None:
    """At each request in turn of a publish, a promotion, a rollback, a prune and a collection."""
    log = open_log(proxied)
    # Only a conditional write is answered with a conflict.
    method = "PUT" if fault == "conflict" else ""
    paths = (
        "/versions/",
        "/aliases/",
        "/tombstones/",
        "/prunes/",
        *(() if method else ("/data/", "list-type", "?delete")),
    )
    for path in paths:
        proxy.add(FAULTS[fault], method=method, path=path, times=times)
    assert publish(log, "first").manifest.version == 1
    for path in paths:
        proxy.add(FAULTS[fault], method=method, path=path, times=times)
    assert publish(log, "second").manifest.version == 2
    log.aliases.promote("houses", 1, "production", why="one")
    log.aliases.promote("houses", 2, "production", why="two")
    log.aliases.rollback("houses", "production", why="back")
    log.prune("houses", 2)
    collect_all(log)
    direct = open_log(s3_store)
    assert direct.versions("houses") == (1,)
    assert [move.why for move in direct.aliases.history("houses", "production")] == ["back", "two", "one"]
    check_healthy(direct)
