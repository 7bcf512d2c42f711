"""Says on stderr what is done while an environment is built."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from smkit.display import printable, shortened

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Show:
    """Lines that stay; on a terminal also one that is written over, with what the installer said last.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._is_terminal = not quiet and sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def line(self, text: str) -> None:
        """Show a line that stays."""
        if not self._quiet:
            self._clear()
            self._write(f"smkit: {printable(text)}\n")

    def detail(self, text: str) -> None:
        """Show a line until the next one."""
        if self._is_terminal and text.strip():
            self._clear()
            self._write(shortened(f"  {printable(text.strip())}", shutil.get_terminal_size().columns - 1))

    def _clear(self) -> None:
        if self._is_terminal:
            self._write("\r\x1b[K")

    @staticmethod
    def _write(text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
