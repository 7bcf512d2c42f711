"""Reads a job's log while the job is watched."""

from __future__ import annotations

import codecs
import time
import warnings
from typing import TYPE_CHECKING, Any

from smkit.errors import JobLogWarning, ServiceError, ServiceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smkit.jobs.backend import Backend

#: How long a service may be out of reach before waiting gives up; the job itself does not care.
PATIENCE_SECONDS = 600.0
_END_CHARACTERS = 2000


class LogReader:
    """Reads a job's log piece by piece, as text.

    Args:
        backend: Where the job runs.
        name: The job's name.
        required: Raise where the log cannot be read; else warn once, and read nothing more.
    """

    def __init__(self, backend: Backend[Any], name: str, *, required: bool) -> None:
        self._backend = backend
        self._name = name
        self._required = required
        self._is_readable = True
        self._failed_since: float | None = None
        self._position: Any = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = ""

    @property
    def is_complete(self) -> bool:
        """Whether nothing can come any more: the log cannot be read, or its last line is there."""
        last = self._backend.watching.last_line
        return not self._is_readable or bool(last and last in self._end)

    def is_awaited(self, until: float | None) -> bool:
        """Whether the service did not answer the last time, and there is time to ask it again."""
        return self._failed_since is not None and (until is None or time.monotonic() < until)

    def read(self, *, patient: bool = True) -> Iterator[str]:
        """Yield what is new; a service that does not answer is asked again the next time, for a while.

        Args:
            patient: Whether there is a next time.
        """
        while self._is_readable:
            try:
                page = self._backend.logs(self._name, self._position)
            except ServiceUnavailable as error:
                now = time.monotonic()
                if self._failed_since is None:
                    self._failed_since = now
                if patient and now - self._failed_since < PATIENCE_SECONDS:
                    return
                self._give_up(error)
                return
            except ServiceError as error:
                self._give_up(error)
                return
            self._failed_since = None
            self._position = page.position
            if not page.data:
                return
            text = self._decoder.decode(page.data)
            self._end = (self._end + text)[-_END_CHARACTERS:]
            yield text

    def _give_up(self, error: ServiceError) -> None:
        if self._required:
            raise error
        self._is_readable = False
        # wait, _wait, _follow, read, _give_up
        warn_of_log(self._name, error, frames=6)

    def close(self) -> str:
        """Return what the last bytes, which are half a character, stand for."""
        return self._decoder.decode(b"", final=True)


def warn_of_log(name: str, error: ServiceError, *, frames: int) -> None:
    """Warn in the name of who called a public method, that many frames away."""
    warnings.warn(f"the log of job {name!r} is not shown: {error}", JobLogWarning, stacklevel=1 + frames)
