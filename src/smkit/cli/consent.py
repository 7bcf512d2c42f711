"""Questions to whoever sits at the terminal."""

from __future__ import annotations

import typer

from smkit.cli.output import write_message

#: What a shell says of a process that Ctrl-C ended: 128 and the number of SIGINT.
INTERRUPTED = 130


def agrees(question: str, *, otherwise: str) -> bool:
    """Ask, and return whether the answer is yes; to any other, say what stays as it is.

    Args:
        question: The question.
        otherwise: What is said where there is no consent.

    Raises:
        Exit: Ctrl-C: exit code 130, after `otherwise` was said.
    """
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort as abort:
        # typer makes one of Ctrl-C and of the end of the input, which is no answer, hence no consent.
        write_message(f"\n{otherwise}")
        if isinstance(abort.__context__, EOFError):
            return False
        raise typer.Exit(INTERRUPTED) from None
    if not agreed:
        write_message(otherwise)
    return agreed
