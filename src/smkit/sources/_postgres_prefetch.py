"""Reading ahead in a thread, a bounded number of items."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from smkit.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")


def _one(item: object) -> int:  # noqa: ARG001 - all weigh the same
    return 1


class Prefetch(Generic[T]):
    """The items of a generator, made by a thread that is about `depth` of them ahead.

    Args:
        items: Where they come from; closed by the thread that runs it.
        depth: How much may wait: another item is made while what waits weighs less.
        weigh: The weight of an item; default: 1 each.
        interrupt: Makes `items` end soon, with whatever error, while it waits for something; called by `close` from
            another thread.
    """

    def __init__(
        self,
        items: Generator[T, None, None],
        *,
        depth: int,
        interrupt: Callable[[], None],
        weigh: Callable[[T], int] = _one,
    ) -> None:
        self._items = items
        self._depth = depth
        self._weigh = weigh
        self._waiting = 0
        self._interrupt = interrupt
        self._made: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = self._finished = False
        self._failure: BaseException | None = None
        self._thread = _threads.start(self)  # None: `__next__` makes the items

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        if self._thread is None:
            return next(self._items)
        with self._changed:
            # Ctrl-C gets through a wait; it would not get through a socket that is read in C.
            self._changed.wait_for(lambda: self._made or self._finished)
            if self._made:
                item = self._made.popleft()
                self._waiting -= self._weigh(item)
                self._changed.notify_all()
                return item
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._stopped:
            # Another thread has closed it, as the end of the program does: the rows so far are not all.
            raise SourceError("the reading of PostgreSQL's rows was ended before the last one")
        raise StopIteration

    def close(self) -> None:
        """End the thread, whatever it is waiting for, and wait until it has ended."""
        if self._thread is None:
            self._items.close()
            return
        with self._changed:
            self._stopped = True
            self._made.clear()
            self._changed.notify_all()
            running = not self._finished
        if running:
            self._interrupt()
        # The garbage collector may close a forgotten iterator in any thread, this one's included.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def run(self) -> None:
        """Make the items; the thread's own work."""
        try:
            for item in self._items:
                if not self._put(item):
                    break
                del item  # else the last one stays alive while the next is made
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that iterates
            # Once it is closed, it fails because it was interrupted.
            self._failure = None if self._stopped else error
        finally:
            self._items.close()
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting < self._depth)
            if not self._stopped:
                self._made.append(item)
                self._waiting += self._weigh(item)
                self._changed.notify_all()
            return not self._stopped


class _Threads:
    """The threads of all iterators, none of which runs while Python ends.

    A thread that is in C++ then would abort the process. They are daemons, because the interpreter waits for all others
    before it calls what `atexit` knows, and an iterator that nobody closed would have it wait for ever. So `atexit`
    ends them; and once the main thread has ended, which is before that, none is started any more: whoever reads that
    late reads without one.
    """

    def __init__(self) -> None:
        self._forget()
        atexit.register(self.end)
        # A child process has none of the threads, and the connections are its parent's.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Prefetch[Any]] = set()

    def start(self, prefetch: Prefetch[Any]) -> threading.Thread | None:
        """Start a thread; None: it is too late for one."""

        def run() -> None:
            try:
                prefetch.run()
            finally:
                with self._lock:
                    self._running.discard(prefetch)

        with self._lock:
            if not threading.main_thread().is_alive():
                return None
            thread = threading.Thread(target=run, name="smkit-postgres", daemon=True)
            self._running.add(prefetch)
            try:
                thread.start()
            except BaseException:
                self._running.discard(prefetch)
                raise
        return thread

    def end(self) -> None:
        """End all threads."""
        with self._lock:
            running = list(self._running)
        for prefetch in running:
            with contextlib.suppress(Exception):  # the program is ending, and nobody is left to tell
                prefetch.close()


_threads = _Threads()
