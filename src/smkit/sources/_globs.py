"""Globs over keys, which no file system expands; the rules are those of `glob.glob(recursive=True)`."""

from __future__ import annotations

import re

_MAGIC = re.compile(r"[*?[]")


def glob_pattern(key: str) -> re.Pattern[str] | None:
    """Return what the keys that a glob means match in full; None where the key is no glob.

    `*`, `?` and `[...]` stay within a folder, `**` as a whole part crosses folders. As in the shell, a part that starts
    with `*` or `?` does not match names that start with a dot.
    """
    if _MAGIC.search(key) is None:
        return None
    *folders, last = key.split("/")
    parts = [r"(?:[^/.][^/]*/)*" if part == "**" else f"{_part(part)}/" for part in folders]
    parts.append(r"(?:[^/.][^/]*/)*[^/.][^/]*" if last == "**" else _part(last))
    return re.compile("".join(parts), flags=re.DOTALL)


def literal_prefix(key: str) -> str:
    """Return what stands before the first special character."""
    found = _MAGIC.search(key)
    return key if found is None else key[: found.start()]


def _part(part: str) -> str:
    hidden = r"(?!\.)" if part[:1] in {"*", "?", "["} else ""
    pieces = []
    for piece in re.split(r"(\*+|\?|\[!?\]?[^\]]*\])", part):
        if piece.startswith("*"):
            pieces.append("[^/]*")
        elif piece == "?":
            pieces.append("[^/]")
        elif piece.startswith("[") and len(piece) > 2:
            inside = re.sub(r"([\\\[&~|^])", r"\\\1", piece[1:-1])
            pieces.append(f"(?!/)[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
        else:
            pieces.append(re.escape(piece))
    return hidden + "".join(pieces)
