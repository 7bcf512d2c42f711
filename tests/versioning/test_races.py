"""Aliases: one winner each time; and a promotion against a prune, in every order that there is."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from smkit.errors import AliasConflict, InvalidNameError, SmkitError, VersionInUse, VersionNotFound
from smkit.naming import parse_reference
from smkit.storage import FolderStore, ObjectStore
from tests.versioning.helpers import HookedStore, check_everything, open_log, publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from smkit.versioning import VersionLog


@pytest.fixture
def log(store: ObjectStore) -> VersionLog:
    log = open_log(store)
    for number in range(4):
        publish(log, str(number))
    return log


def named_by(log: VersionLog, alias: str = "production") -> int:
    return log.get(parse_reference(f"houses@{alias}", "model")).version


# --- aliases ----------------------------------------------------------------------------------------------------


def test_an_alias_remembers_every_move(log: VersionLog) -> None:
    first = log.aliases.promote("houses", 1, "production", why="the first one")
    log.aliases.promote("houses", 3, "production", why="rmse 0.02")
    back = log.aliases.promote("houses", 1, "production", why="rollback: wrong currency")
    assert named_by(log) == 1
    assert log.aliases.current("houses", "production") == back
    moves = log.aliases.history("houses", "production")
    assert [(move.generation, move.version, move.saw, move.why) for move in moves] == [
        (3, 1, 3, "rollback: wrong currency"),
        (2, 3, 1, "rmse 0.02"),
        (1, 1, None, "the first one"),
    ]
    assert moves[2] == first
    assert all(move.by and move.at.endswith("+00:00") for move in moves)
    assert log.aliases.current("houses", "staging") is None
    assert log.aliases.history("houses", "staging") == ()


def test_a_promotion_to_where_the_alias_is_moves_nothing(log: VersionLog) -> None:
    first = log.aliases.promote("houses", 2, "production")
    assert log.aliases.promote("houses", 2, "production", why="again") == first
    assert len(log.aliases.history("houses", "production")) == 1


@pytest.mark.parametrize("alias", ["latest", "3", "Production", "../x", "", "a/b"])
def test_an_alias_that_breaks_the_rule_is_refused(log: VersionLog, alias: str) -> None:
    for call in (
        lambda: log.aliases.promote("houses", 1, alias),
        lambda: log.aliases.current("houses", alias),
        lambda: log.aliases.history("houses", alias),
    ):
        with pytest.raises(InvalidNameError):
            call()


def test_a_promotion_of_what_is_not_there_moves_nothing(log: VersionLog) -> None:
    with pytest.raises(VersionNotFound, match="has no version 9"):
        log.aliases.promote("houses", 9, "production")
    assert log.aliases.all("houses") == {}


@pytest.mark.parametrize("expected", [None, 2, 3])
def test_an_alias_that_is_not_where_the_caller_thinks_stays(log: VersionLog, expected: int | None) -> None:
    log.aliases.promote("houses", 1, "production", why="the first one")
    thought = f"houses@{expected}" if expected else "nothing"
    message = (
        rf"alias 'production' was not moved to houses@4: it was expected to name {thought}, "
        r"but \S.* moved it to houses@1 at 20\S+ \(the first one\); look at it and promote again"
    )
    with pytest.raises(AliasConflict, match=message) as caught:
        log.aliases.promote("houses", 4, "production", expected=expected)
    assert (caught.value.alias, caught.value.expected, caught.value.actual) == ("production", expected, 1)
    assert named_by(log) == 1
    log.aliases.promote("houses", 4, "production", expected=1)
    assert named_by(log) == 4


def test_an_alias_that_names_nothing_is_not_where_the_caller_thinks(log: VersionLog) -> None:
    with pytest.raises(AliasConflict, match="expected to name houses@2, but it names nothing"):
        log.aliases.promote("houses", 1, "production", expected=2)
    log.aliases.promote("houses", 1, "production", expected=None)


def test_there_and_back_again_is_noticed(log: VersionLog) -> None:
    """A compare-and-set by value, or by ETag of equal bytes, would not see that the alias moved at all."""
    log.aliases.promote("houses", 3, "production")
    moved = False

    def move_there_and_back(operation: str, key: str) -> None:
        nonlocal moved
        if operation == "put" and "/aliases/" in key and not moved:
            moved = True
            log.aliases.promote("houses", 4, "production")
            log.aliases.promote("houses", 3, "production", why="back")

    with pytest.raises(AliasConflict):
        open_log(HookedStore(log.store, move_there_and_back)).aliases.promote("houses", 1, "production", expected=3)
    assert named_by(log) == 3


def test_of_eight_racers_one_wins_each_generation(log: VersionLog) -> None:
    racers, rounds = 8, 5
    barrier = Barrier(racers)

    def race(number: int) -> list[Any]:
        outcomes: list[Any] = []
        for turn in range(rounds):
            barrier.wait(timeout=60)
            seen = log.aliases.current("houses", "production")
            barrier.wait(timeout=60)
            version = 1 + (0 if seen is None else seen.version or 0) % 4
            try:
                expected = seen.version if seen else None
                why = f"racer {number} turn {turn}"
                outcomes.append(log.aliases.promote("houses", version, "production", why=why, expected=expected))
            except AliasConflict as conflict:
                outcomes.append(conflict)
        return outcomes

    with ThreadPoolExecutor(racers) as pool:
        results = list(pool.map(race, range(racers)))
    history = log.aliases.history("houses", "production")
    assert [move.generation for move in history] == list(range(rounds, 0, -1))
    for turn, outcomes in enumerate(zip(*results, strict=True)):
        winners = [outcome for outcome in outcomes if not isinstance(outcome, AliasConflict)]
        assert winners == [history[rounds - 1 - turn]]
        for conflict in (outcome for outcome in outcomes if isinstance(outcome, AliasConflict)):
            # Who, where, when and why.
            assert f"{winners[0].by} moved it to houses@{winners[0].version} at {winners[0].at}" in str(conflict)
            assert f"({winners[0].why})" in str(conflict)
            assert conflict.actual == winners[0].version


# --- a promotion against a prune --------------------------------------------------------------------------------


def attempt(action: Callable[[], object]) -> bool:
    try:
        action()
    except (VersionInUse, VersionNotFound, AliasConflict):
        return False
    return True


def check_outcome(log: VersionLog, *, promoted: bool, pruned: bool, before: int | None) -> None:
    """Version 2 was promoted to `production`, or pruned, or neither; never both, and nothing was lost."""
    assert not (promoted and pruned)
    named = log.aliases.all("houses").get("production")
    if promoted:
        assert named == 2
    if pruned:
        assert named == before
        assert 2 not in log.versions("houses")
    if named is not None:
        assert named in log.versions("houses")
        assert named_by(log) == named
    if not pruned:
        assert 2 in log.versions("houses")
    if not promoted and not pruned:
        assert named == before
    check_everything(log)
    for version in log.versions("houses"):
        log.verify(log.manifest("houses", version))


@pytest.mark.parametrize("before", [None, 1], ids=["first move", "later move"])
@pytest.mark.parametrize("outer", ["promote", "prune"])
def test_the_one_happens_whole_before_each_step_of_the_other(tmp_path: Path, outer: str, before: int | None) -> None:
    outcomes = set()
    for step in itertools.count(1):
        store = FolderStore(tmp_path / str(step))
        log = open_log(store)
        for number in range(3):
            publish(log, str(number))
        if before:
            log.aliases.promote("houses", before, "production")
        count = 0
        done: dict[str, bool] = {}

        def promote(log: VersionLog) -> None:
            log.aliases.promote("houses", 2, "production")

        def prune(log: VersionLog) -> None:
            log.prune("houses", 2)

        actions = {"promote": promote, "prune": prune}
        inner = "prune" if outer == "promote" else "promote"

        def interleave(
            operation: str, key: str, step: int = step, log: VersionLog = log, done: dict[str, bool] = done
        ) -> None:
            nonlocal count
            count += 1
            if count == step:
                done[inner] = attempt(lambda: actions[inner](log))  # noqa: B023 - called within this turn

        done[outer] = attempt(lambda store=store, hook=interleave: actions[outer](open_log(HookedStore(store, hook))))  # type: ignore[misc] # noqa: B023
        if inner not in done:
            break
        check_outcome(log, promoted=done["promote"], pruned=done["prune"], before=before)
        outcomes.add((done["promote"], done["prune"]))
    assert {(True, False), (False, True)} <= outcomes


@pytest.mark.parametrize("seed", range(4))
def test_promotions_and_prunes_of_many_threads(store: ObjectStore, seed: int) -> None:
    log = open_log(store)
    for number in range(6):
        publish(log, str(number))
    log.aliases.promote("houses", 1, "production")
    dice = random.Random(seed)
    plans = [[(dice.choice(["promote", "prune"]), dice.randint(1, 6)) for _ in range(6)] for _ in range(4)]
    barrier = Barrier(len(plans))

    def work(plan: list[tuple[str, int]]) -> list[int]:
        barrier.wait(timeout=60)
        pruned = []
        for action, version in plan:
            try:
                if action == "promote":
                    log.aliases.promote("houses", version, "production")
                else:
                    log.prune("houses", version)
                    pruned.append(version)
            except (VersionInUse, VersionNotFound, AliasConflict):  # noqa: PERF203 - each may fail by itself
                continue
        return pruned

    with ThreadPoolExecutor(len(plans)) as pool:
        gone = {version for pruned in pool.map(work, plans) for version in pruned}
    assert set(log.versions("houses")) == set(range(1, 7)) - gone
    # Whatever happened, production can be served.
    assert named_by(log) in log.versions("houses")
    check_everything(log)
    assert [info.key for info in store.scan("models/houses/prunes/")] == []


def test_two_prunes_and_a_promotion_never_lose_the_data(tmp_path: Path) -> None:
    """A prune that steps back must not take back what another prune relies on.

    Within each step of a prune, the promotion runs up to each of its own steps, and there a second prune runs whole.
    """
    for outer_step, middle_step in itertools.product(range(1, 12), range(1, 16)):
        store = FolderStore(tmp_path / f"{outer_step}-{middle_step}")
        log = open_log(store)
        publish(log, "1")
        publish(log, "2")
        log.aliases.promote("houses", 1, "production")
        done: dict[str, bool] = {}
        counts = {"outer": 0, "middle": 0}

        def within_promotion(
            operation: str,
            key: str,
            log: VersionLog = log,
            done: dict[str, bool] = done,
            counts: dict[str, int] = counts,
            step: int = middle_step,
        ) -> None:
            counts["middle"] += 1
            if counts["middle"] == step:
                done["second prune"] = attempt(lambda: log.prune("houses", 2))

        def within_prune(
            operation: str,
            key: str,
            store: ObjectStore = store,
            done: dict[str, bool] = done,
            counts: dict[str, int] = counts,
            step: int = outer_step,
            hook: Any = within_promotion,
        ) -> None:
            counts["outer"] += 1
            if counts["outer"] == step:
                hooked = open_log(HookedStore(store, hook))
                done["promote"] = attempt(lambda: hooked.aliases.promote("houses", 2, "production"))

        hooked = open_log(HookedStore(store, within_prune))
        done["first prune"] = attempt(lambda hooked=hooked: hooked.prune("houses", 2))  # type: ignore[misc]
        pruned = done["first prune"] or done.get("second prune", False)
        check_outcome(log, promoted=done.get("promote", False), pruned=pruned, before=1)


class Actor:
    """An action in a thread of its own, which stops before each operation of the store until it is told to go on."""

    def __init__(self, store: ObjectStore, action: Callable[[VersionLog], object]) -> None:
        self._may_go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self.at: tuple[str, str] | None = None
        self.done: bool | None = None
        self._log = open_log(HookedStore(store, self._stop))
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()
        self._wait()

    def _run(self, action: Callable[[VersionLog], object]) -> None:
        try:
            self.done = attempt(lambda: action(self._log))
        finally:
            self.at = None
            self._stopped.release()

    def _stop(self, operation: str, key: str) -> None:
        self.at = (operation, key)
        self._stopped.release()
        self._may_go.acquire()

    def _wait(self) -> None:
        assert self._stopped.acquire(timeout=60), "the action hangs"

    def step(self) -> None:
        self._may_go.release()
        self._wait()

    def run_until(self, operation: str, part: str) -> None:
        """Go on until it is about to do this."""
        while self.at is None or self.at[0] != operation or part not in self.at[1]:
            assert self.at is not None, f"it ended without {operation} {part}"
            self.step()

    def finish(self) -> bool:
        while self.at is not None:
            self.step()
        self._thread.join()
        assert self.done is not None, "it raised what it should not"
        return self.done


def prepared(root: Path) -> FolderStore:
    store = FolderStore(root)
    publish(open_log(store), "1")
    publish(open_log(store), "2")
    open_log(store).aliases.promote("houses", 1, "production")
    return store


def promote_two(log: VersionLog) -> None:
    log.aliases.promote("houses", 2, "production")


def prune_two(log: VersionLog) -> None:
    log.prune("houses", 2)


def test_a_prune_that_steps_back_takes_back_only_its_own_announcement(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    promotion = Actor(store, promote_two)
    promotion.run_until("put", "/aliases/")
    stepping_back = Actor(store, prune_two)
    stepping_back.run_until("put", "/prunes/")
    going_on = Actor(store, prune_two)
    going_on.run_until("put", "/tombstones/")
    promotion.step()
    assert stepping_back.finish() is False
    assert promotion.finish() is False
    assert going_on.finish() is True
    check_outcome(open_log(store), promoted=False, pruned=True, before=1)


def test_a_prune_that_ends_while_a_promotion_looks_for_it_is_seen(tmp_path: Path) -> None:
    """The promotion has appended its move; the prune, which has not seen it, ends between two of the steps after."""
    for steps in itertools.count(0):
        store = prepared(tmp_path / str(steps))
        promotion = Actor(store, promote_two)
        promotion.run_until("put", "/aliases/")
        prune = Actor(store, prune_two)
        prune.run_until("put", "/tombstones/")
        for _ in range(1 + steps):
            promotion.step()
            if promotion.at is None:
                break
        ended = promotion.at is None
        assert prune.finish() is True
        assert promotion.finish() is False
        check_outcome(open_log(store), promoted=False, pruned=True, before=1)
        if ended:
            break
    assert steps > 2


SCHEDULES = 40


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_promotion_and_two_prunes_in_any_order_of_their_steps(tmp_path: Path, seed: int) -> None:
    store = prepared(tmp_path / "store")
    dice = random.Random(seed)
    actors = [Actor(store, action) for action in (promote_two, prune_two, prune_two)]
    while running := [actor for actor in actors if actor.at is not None]:
        actor = dice.choice(running)
        for _ in range(dice.choice([1, 1, 2, 5])):
            if actor.at is not None:
                actor.step()
    promoted, *pruned = [actor.finish() for actor in actors]
    check_outcome(open_log(store), promoted=promoted, pruned=any(pruned), before=1)


def test_a_prune_that_died_after_its_announcement_can_be_finished(log: VersionLog) -> None:
    class Died(SmkitError):
        pass

    def die(operation: str, key: str) -> None:
        if operation == "put" and "/tombstones/" in key:
            raise Died

    with pytest.raises(Died):
        open_log(HookedStore(log.store, die)).prune("houses", 2, why="too large")
    assert 2 in log.versions("houses")
    log.verify(log.manifest("houses", 2))
    with pytest.raises(
        VersionNotFound, match=r"houses@2 is being pruned by \S.* since 20.*; .*prune it again to finish"
    ):
        log.aliases.promote("houses", 2, "production")
    assert log.aliases.all("houses") == {}
    log.prune("houses", 2)
    assert log.versions("houses") == (4, 3, 1)
    assert [info.key for info in log.store.scan("models/houses/prunes/")] == []


def test_a_promotion_that_died_while_its_version_was_pruned_counts_for_nothing(log: VersionLog) -> None:
    """Otherwise the alias would name what is gone, though nobody was told that it moved."""

    class Died(SmkitError):
        pass

    log.aliases.promote("houses", 1, "production")

    def prune_then_die(operation: str, key: str) -> None:
        if operation == "put" and "/tombstones/" in key:
            # The prune has looked at the aliases; now the promotion appends its move, and dies.
            with pytest.raises(Died):
                open_log(HookedStore(log.store, after=die)).aliases._append("houses", "production", dying_move)

    def die(operation: str, key: str) -> None:
        if operation == "put" and "/aliases/" in key:
            raise Died

    from smkit.versioning.aliases import _move

    dying_move = _move(2, 2, 1, "it dies")
    open_log(HookedStore(log.store, prune_then_die)).prune("houses", 2)
    assert [move.version for move in log.aliases.history("houses", "production")] == [2, 1]
    assert named_by(log) == 1
    with pytest.raises(VersionInUse):
        log.prune("houses", 1)
    assert log.aliases.promote("houses", 3, "production", expected=1).generation == 3
    assert named_by(log) == 3
    check_everything(log)


def test_a_first_promotion_that_is_taken_back_leaves_no_alias(log: VersionLog) -> None:
    def announce(operation: str, key: str) -> None:
        if operation == "put" and "/aliases/" in key and key.endswith("9999999999.json"):
            log._prunes.announce("houses", 2, "too large")

    with pytest.raises(VersionNotFound, match="is being pruned"):
        open_log(HookedStore(log.store, announce)).aliases.promote("houses", 2, "production")
    assert log.aliases.all("houses") == {}
    with pytest.raises(VersionNotFound, match="has no alias 'production'"):
        log.get(parse_reference("houses@production", "model"))
    moves = log.aliases.history("houses", "production")
    assert [(move.version, move.saw) for move in moves] == [(None, 2), (2, None)]
    log.prune("houses", 2)
    assert log.aliases.promote("houses", 3, "production", expected=None).generation == 3
