"""Puts files into a folder: all of them or none, and none in the place of another."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from smkit.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPORARY = ".smkit-tmp-"
#: What a file system without hard links answers; EXDEV where a folder of the project is another one's mount point.
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


def place(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write new files into a folder, which is made if there is none.

    They are written beside their places first. Then each gets its name in one step that fails where the name is taken.
    Whatever goes wrong on the way, Ctrl-C included, what was made is removed again.

    Args:
        folder: The folder.
        contents: Path inside the folder, with `/` -> content.

    Raises:
        ProjectError: A name was taken meanwhile, or the folder cannot be written to.
    """
    try:
        with contextlib.ExitStack() as undo:
            _make_folder(folder, undo)
            with tempfile.TemporaryDirectory(dir=folder, prefix=_TEMPORARY) as scratch:
                written = {}
                for number, (name, content) in enumerate(contents.items()):
                    written[name] = Path(scratch, str(number))
                    written[name].write_bytes(content)
                for name, temporary in written.items():
                    target = folder / name
                    _make_folder(target.parent, undo)
                    _give_name(temporary, target, undo)
            undo.pop_all()
    except FileExistsError as error:
        raise ProjectError(
            f"{error.filename2 or error.filename} was made meanwhile by somebody else; nothing was written"
        ) from None
    except OSError as error:
        at = error.filename2 or error.filename
        raise ProjectError(
            f"cannot write the project into {folder}: {error.strerror or error}{f' ({at})' if at else ''}; "
            "nothing was written"
        ) from error


def _make_folder(folder: Path, undo: contextlib.ExitStack) -> None:
    """Make a folder and those above it that are missing."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        undo.callback(_remove_if_empty, one)
        one.mkdir(exist_ok=True)


def _remove_if_empty(folder: Path) -> None:
    # Somebody else's file in it stays, and so does the folder then.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _give_name(temporary: Path, target: Path, undo: contextlib.ExitStack) -> None:
    # Before the name is given: Ctrl-C may come between any two lines.
    undo.callback(_remove_if_same, target, temporary.stat())
    try:
        # The function, not Path.hardlink_to, whose arguments are the other way round.
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    else:
        return
    with target.open("xb") as file:
        undo.callback(_remove_if_same, target, os.fstat(file.fileno()))
        file.write(temporary.read_bytes())


def _remove_if_same(path: Path, made: os.stat_result) -> None:
    """Remove a file if it is the one that was made, not one that somebody else has put there."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(path.lstat(), made):
            path.unlink()
