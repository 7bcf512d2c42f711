"""One line that says how a job stands, with its log above it."""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from smkit.jobs.folding import ContainerFold

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from typing_extensions import Self

    from smkit.jobs.backend import JobStatus


class Progress:
    """Shows a job while it is waited for, on stderr; its log goes to stdout.

    In a terminal and in a notebook the line is updated in place. Elsewhere, as in a log file, a line says so when the
    phase changes, if the phases are long enough to be told.

    Args:
        name: The job.
        announces_phases: Whether to tell of phases where nothing can be updated in place.
        quiet: Show nothing at all.
    """

    def __init__(self, name: str, *, announces_phases: bool, quiet: bool = False) -> None:
        self._name = name
        self._in_notebook = _in_notebook()
        self._is_live = not quiet and (self._in_notebook or _is_terminal(sys.stderr))
        self._announces = announces_phases and not quiet
        self._keeps_line = announces_phases
        self._started = time.monotonic()
        self._phase = ""
        self._line: _TerminalLine | _NotebookLine | None = None
        self._rest = ""
        self._fold = ContainerFold()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(self._fold.close())
        if self._line is not None:
            if self._rest:
                self._show("\n")
            self._line.close()

    def update(self, state: JobStatus) -> None:
        """Show how the job stands."""
        phase = state.status if state.is_final else state.secondary_status
        said = f"job {self._name!r}: {phase}, {self._elapsed()}"
        if state.is_final and state.billable_seconds:
            said += f", {state.billable_seconds} s billed"
        if self._is_live:
            if self._line is None:
                self._line = _NotebookLine() if self._in_notebook else _TerminalLine(leave=self._keeps_line)
            self._line.show(said)
        elif self._announces and phase != self._phase:
            sys.stderr.write(f"{said}\n")
            sys.stderr.flush()
        self._phase = phase

    def write(self, text: str) -> None:
        """Show part of the log; what the container says of itself before the script starts is folded into a line."""
        self._show(self._fold.feed(text))

    def _show(self, text: str) -> None:
        if self._line is None:
            self._put(text)
            return
        # Half a line would be overwritten by the line that is updated in place.
        whole, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            with self._line.out_of_the_way():
                self._put(whole + newline)

    @staticmethod
    def _put(text: str) -> None:
        """Write to Python's own stdout, which is the one that notebooks show."""
        if not text:
            return
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding or "ascii"
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _TerminalLine:
    """A line at the bottom of a terminal.

    Args:
        leave: Whether it stays when all is said.
    """

    def __init__(self, *, leave: bool) -> None:
        from tqdm.std import tqdm

        self._bar: Any = tqdm(bar_format="{desc}", leave=leave, file=sys.stderr)

    def show(self, text: str) -> None:
        self._bar.set_description_str(text, refresh=True)

    def out_of_the_way(self) -> AbstractContextManager[None]:
        mode: AbstractContextManager[None] = self._bar.external_write_mode(file=sys.stdout)
        return mode

    def close(self) -> None:
        self._bar.close()


class _NotebookLine:
    """An output of a cell that is updated in place.

    Not tqdm's, which needs ipywidgets, warns where there are none, and leaves nothing in a notebook that was saved.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        shown = {"text/plain": text}
        if self._handle is None:
            # By its name: only who runs in a notebook has IPython, type checkers need not.
            self._handle = importlib.import_module("IPython.display").display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def out_of_the_way(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """Leave the last word."""


def _is_terminal(stream: Any) -> bool:
    # pythonw and some services have no stderr, or a closed one.
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _in_notebook() -> bool:
    # Only who runs in a notebook has it loaded.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return "IPKernelApp" in getattr(shell, "config", {})
