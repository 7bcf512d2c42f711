"""Clusters of two real worker processes, and what tests ask of them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import cloudpickle
import distributed

from smkit.datasets.cluster.work import Work

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest


@contextlib.contextmanager
def started_cluster(variables: Mapping[str, str] | None = None) -> Iterator[distributed.LocalCluster]:
    """Yield a cluster whose workers have these environment variables of their own."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        silence_logs=50,
        env=dict(variables or {}),
    ) as started:
        yield started


@contextlib.contextmanager
def variables_of_workers(client: distributed.Client, variables: Mapping[str, str | None]) -> Iterator[None]:
    """Change environment variables of all workers for a while; None: it is not set."""

    def change(wanted: Mapping[str, str | None]) -> dict[str, str | None]:
        before = {name: os.environ.get(name) for name in wanted}
        for name, value in wanted.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        return before

    before = next(iter(client.run(change, dict(variables)).values()))
    try:
        yield
    finally:
        client.run(change, before)


def record_tasks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that gets every task that is sent from now on, as it is sent."""
    submit, sent = Work.submit, []

    def remember(self: Work, task: Any, *arguments: Any, **options: Any) -> Any:
        sendable = [one for one in arguments if not isinstance(one, distributed.Future)]
        try:
            sent.append(cloudpickle.dumps((task, sendable, options)))
        except TypeError:  # a list of futures
            sent.append(b"")
        return submit(self, task, *arguments, **options)

    monkeypatch.setattr(Work, "submit", remember)
    return sent
