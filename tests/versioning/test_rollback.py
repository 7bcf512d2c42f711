"""Rolling an alias back: to what it named before, one winner each time."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import AliasConflict, InvalidNameError, VersionInUse, VersionNotFound
from smkit.naming import parse_reference
from smkit.storage import FolderStore, ObjectStore
from tests.versioning.helpers import HookedStore, check_everything, open_log, publish

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.versioning import VersionLog


@pytest.fixture
def log(store: ObjectStore) -> VersionLog:
    log = open_log(store)
    for number in range(4):
        publish(log, str(number))
    return log


def moves(log: VersionLog) -> list[int | None]:
    return [move.version for move in log.aliases.history("houses", "production")]


def promote(log: VersionLog, *versions: int) -> None:
    for version in versions:
        log.aliases.promote("houses", version, "production")


def test_an_alias_names_again_what_it_named_before(log: VersionLog) -> None:
    promote(log, 1, 3, 2)
    back = log.aliases.rollback("houses", "production", why="wrong currency")
    assert (back.generation, back.version, back.saw, back.why) == (4, 3, 2, "wrong currency")
    assert back.by
    assert log.aliases.current("houses", "production") == back
    assert log.get(parse_reference("houses@production", "model")).version == 3
    # What it named before its current version is now the one that was rolled back from.
    assert log.aliases.rollback("houses", "production").version == 2
    assert moves(log) == [2, 3, 2, 3, 1]


def test_a_pruned_version_is_passed_over(log: VersionLog) -> None:
    promote(log, 1, 2, 3, 4)
    log.prune("houses", 3)
    log.prune("houses", 2)
    assert log.aliases.rollback("houses", "production").version == 1
    assert moves(log) == [1, 4, 3, 2, 1]


def test_where_nothing_is_left_it_says_so(log: VersionLog) -> None:
    with pytest.raises(VersionNotFound, match="alias 'production' of model 'houses' cannot be rolled back: it names n"):
        log.aliases.rollback("houses", "production")
    promote(log, 2)
    message = (
        r"'production' of model 'houses' cannot be rolled back: before houses@2 it named nothing that is left; prom"
    )
    with pytest.raises(VersionNotFound, match=message):
        log.aliases.rollback("houses", "production")
    promote(log, 3, 4)
    log.prune("houses", 2)
    log.prune("houses", 3)
    with pytest.raises(VersionNotFound, match="nothing that is left; houses@2, houses@3 was pruned; promote another"):
        log.aliases.rollback("houses", "production")
    assert moves(log) == [4, 3, 2]


@pytest.mark.parametrize("expected", [None, 1, 3])
def test_an_alias_that_is_not_where_the_caller_thinks_stays(log: VersionLog, expected: int | None) -> None:
    promote(log, 1, 2)
    with pytest.raises(
        AliasConflict, match=r"'production' was not rolled back: it was expected to name .*, but"
    ) as caught:
        log.aliases.rollback("houses", "production", expected=expected)
    assert (caught.value.expected, caught.value.actual) == (expected, 2)
    assert moves(log) == [2, 1]
    assert log.aliases.rollback("houses", "production", expected=2).version == 1


def test_an_alias_that_names_nothing_is_not_where_the_caller_thinks(log: VersionLog) -> None:
    with pytest.raises(AliasConflict, match="expected to name houses@2, but it names nothing"):
        log.aliases.rollback("houses", "production", expected=2)
    with pytest.raises(VersionNotFound):
        log.aliases.rollback("houses", "production", expected=None)
    for alias in ("latest", "3", "../x"):
        with pytest.raises(InvalidNameError):
            log.aliases.rollback("houses", alias)


def test_a_move_that_was_taken_back_is_nothing_to_go_back_to(log: VersionLog) -> None:
    """Nobody was told that it happened, and its version may be there still: the prune stepped back too."""
    promote(log, 4, 1)

    def announce(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("aliases/production/9999999997.json"):
            log._prunes.announce("houses", 2, "too large")

    with pytest.raises(VersionNotFound, match="is being pruned"):
        promote(open_log(HookedStore(log.store, announce)), 2)
    assert moves(log) == [1, 2, 1, 4]
    log._prunes.tidy("houses", 2)
    assert log.aliases.rollback("houses", "production").version == 4


def test_somebody_who_moves_it_meanwhile_wins(store: ObjectStore) -> None:
    """Whole before each step of the rollback."""
    for step in itertools.count(1):
        name = f"n{step}"
        log = open_log(store)
        for number in range(3):
            publish(log, str(number), name=name)
        log.aliases.promote(name, 1, "production")
        log.aliases.promote(name, 2, "production")
        count = 0

        def move(operation: str, key: str, step: int = step, name: str = name, log: VersionLog = log) -> None:
            nonlocal count
            count += 1
            if count == step:
                log.aliases.promote(name, 3, "production")

        hooked = open_log(HookedStore(store, move))
        try:
            back = hooked.aliases.rollback(name, "production", expected=2)
        except AliasConflict:
            assert [record.version for record in log.aliases.history(name, "production")] == [3, 2, 1]
        else:
            assert back.version == 1
            # Before the first step means after the whole of it, which sees what it expects no more.
            assert [record.version for record in log.aliases.history(name, "production")][-3:] == [1, 2, 1]
        if count < step:
            break
    assert step > 5


def test_of_eight_racers_one_wins_each_generation(log: VersionLog) -> None:
    promote(log, 1, 2)
    racers, rounds = 8, 5
    barrier = Barrier(racers)

    def race(number: int) -> list[Any]:
        outcomes: list[Any] = []
        for turn in range(rounds):
            barrier.wait(timeout=60)
            seen = log.aliases.current("houses", "production")
            assert seen is not None
            barrier.wait(timeout=60)
            try:
                if (number + turn) % 2:
                    outcomes.append(
                        log.aliases.rollback("houses", "production", why=str(number), expected=seen.version)
                    )
                else:
                    target = 1 + (seen.version or 0) % 4
                    outcomes.append(log.aliases.promote("houses", target, "production", expected=seen.version))
            except AliasConflict as conflict:
                outcomes.append(conflict)
        return outcomes

    with ThreadPoolExecutor(racers) as pool:
        results = list(pool.map(race, range(racers)))
    history = log.aliases.history("houses", "production")
    assert [move.generation for move in history] == list(range(rounds + 2, 0, -1))
    for turn, outcomes in enumerate(zip(*results, strict=True)):
        winners = [outcome for outcome in outcomes if not isinstance(outcome, AliasConflict)]
        assert winners == [history[rounds - 1 - turn]]


@pytest.mark.parametrize("outer", ["rollback", "prune"])
def test_a_rollback_and_a_prune_of_its_target(tmp_path: Path, outer: str) -> None:
    """The one happens whole before each step of the other: never both."""
    outcomes = set()
    for step in itertools.count(1):
        store = FolderStore(tmp_path / str(step))
        log = open_log(store)
        for number in range(3):
            publish(log, str(number))
        promote(log, 1, 2, 3)
        count = 0
        done: dict[str, bool] = {}

        def attempt(name: str, log: VersionLog, done: dict[str, bool] = done) -> None:
            try:
                if name == "prune":
                    log.prune("houses", 2)
                    done[name] = True
                else:
                    done[name] = log.aliases.rollback("houses", "production").version == 2
            except (VersionInUse, VersionNotFound, AliasConflict):
                done[name] = False

        inner = "prune" if outer == "rollback" else "rollback"

        def interleave(
            operation: str, key: str, step: int = step, log: VersionLog = log, attempt: Any = attempt
        ) -> None:
            nonlocal count
            count += 1
            if count == step:
                attempt(inner, log)  # noqa: B023 - called within this turn

        attempt(outer, open_log(HookedStore(store, interleave)))
        if inner not in done:
            break
        assert not (done["rollback"] and done["prune"])
        named = log.aliases.all("houses")["production"]
        assert named in log.versions("houses")
        log.verify(log.manifest("houses", named))
        check_everything(log)
        outcomes.add((done["rollback"], done["prune"]))
    assert {(True, False), (False, True)} <= outcomes


@pytest.mark.parametrize("seed", range(4))
def test_rollbacks_promotions_and_prunes_of_many_threads(store: ObjectStore, seed: int) -> None:
    log = open_log(store)
    for number in range(6):
        publish(log, str(number))
    promote(log, 1, 2)
    dice = random.Random(seed)
    plans = [[(dice.choice(["promote", "rollback", "prune"]), dice.randint(1, 6)) for _ in range(6)] for _ in range(4)]
    barrier = Barrier(len(plans))

    def work(plan: list[tuple[str, int]]) -> list[int]:
        barrier.wait(timeout=60)
        pruned = []
        for action, version in plan:
            try:
                if action == "promote":
                    log.aliases.promote("houses", version, "production")
                elif action == "rollback":
                    log.aliases.rollback("houses", "production")
                else:
                    log.prune("houses", version)
                    pruned.append(version)
            except (VersionInUse, VersionNotFound, AliasConflict):  # noqa: PERF203 - each may fail by itself
                continue
        return pruned

    with ThreadPoolExecutor(len(plans)) as pool:
        gone = {version for pruned in pool.map(work, plans) for version in pruned}
    assert set(log.versions("houses")) == set(range(1, 7)) - gone
    assert log.aliases.all("houses")["production"] in log.versions("houses")
    check_everything(log)
