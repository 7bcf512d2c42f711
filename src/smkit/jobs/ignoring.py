r"""`.smkitignore`: which files of a folder stay at home, by git's rules for `.gitignore`.

The rules are those of https://git-scm.com/docs/gitignore, and where that page is silent, what git does; the tests ask
git itself. As in git, paths and patterns are bytes: `?` and `[!a]` match one byte, half of an `é`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from smkit.errors import ConfigError

FILE = ".smkitignore"

_BOM = b"\xef\xbb\xbf"
_SPECIAL = re.compile(rb"[*?\[\\]")
#: A rule that git takes and that matches nothing, such as an unclosed bracket.
_NEVER = b"(?!)"
_CLASSES = {
    b"alnum": b"0-9A-Za-z",
    b"alpha": b"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": b"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": b"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    b"space": rb" \t-\r",
    b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f",
}


@dataclass(frozen=True)
class Rule:
    """One line of an ignore file.

    Args:
        file: Path of the ignore file, for messages.
        line: 1-based line.
        text: The line, without the blanks at its end that do not count.
        is_negated: Whether it brings back (`!`) what an earlier rule leaves out.
        folders_only: Whether it matches folders only (a `/` at the end).
        names_only: Whether it matches the last part of a path, at any depth (no other `/`).
        pattern: What it matches.
    """

    file: str
    line: int
    text: str
    is_negated: bool
    folders_only: bool
    names_only: bool
    pattern: re.Pattern[bytes] = field(repr=False)

    def matches(self, path: bytes, *, is_folder: bool) -> bool:
        """Whether it matches a path, with `/`, relative to the folder of the ignore file."""
        if self.folders_only and not is_folder:
            return False
        return self.pattern.fullmatch(path.rpartition(b"/")[2] if self.names_only else path) is not None

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.text}"


class _Level(NamedTuple):
    """The rules of one ignore file, and its folder's path, with a `/` unless it is the root."""

    folder: bytes
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class IgnoreRules:
    """The rules that hold in one folder: those of its own ignore file and of those above.

    Args:
        levels: From the root down to the folder.
    """

    levels: tuple[_Level, ...] = ()

    def within(self, folder: str, rules: tuple[Rule, ...]) -> IgnoreRules:
        """Return these rules and those of the ignore file in a folder below.

        Args:
            folder: Path of that folder, with a `/` at its end, or "" for the root.
            rules: What `parse` returned.
        """
        return IgnoreRules((*self.levels, _Level(os.fsencode(folder), rules))) if rules else self

    def leaving_out(self, path: str, *, is_folder: bool) -> Rule | None:
        """Return the rule that leaves a path out; None where it stays.

        The last rule that matches wins, and the deeper file before the one above. What lies in a folder that is left
        out cannot come back: ask for each folder on the way down, and do not enter one that is left out.

        Args:
            path: Path from the root, with `/`.
            is_folder: Whether it is a folder.
        """
        whole = os.fsencode(path)
        for level in reversed(self.levels):
            inside = whole[len(level.folder) :]
            for rule in reversed(level.rules):
                if rule.matches(inside, is_folder=is_folder):
                    return None if rule.is_negated else rule
        return None


def parse(data: bytes, file: str) -> tuple[Rule, ...]:
    """Return the rules of an ignore file.

    Args:
        data: Its content.
        file: Its path, for messages.

    Raises:
        ConfigError: It holds NUL bytes, such as UTF-16: it would match nothing, and everything would travel.
    """
    if b"\0" in data:
        raise ConfigError(f"{file} holds NUL bytes: write it as UTF-8 text, one pattern a line")
    lines = enumerate(data.removeprefix(_BOM).split(b"\n"), start=1)
    return tuple(_rule(line, file, number) for number, raw in lines if (line := _content(raw)))


def _content(raw: bytes) -> bytes:
    """Return a line without its carriage return and the spaces at its end; empty for a comment."""
    line = raw.removesuffix(b"\r")
    if line.startswith(b"#"):
        return b""
    kept = len(line.rstrip(b" "))
    backslashes = kept - len(line[:kept].rstrip(b"\\"))
    # An odd number of backslashes keeps the space after them.
    return line[: kept + 1] if backslashes % 2 else line[:kept]


def _rule(line: bytes, file: str, number: int) -> Rule:
    is_negated = line.startswith(b"!")
    pattern = line[1:] if is_negated else line
    folders_only = pattern.endswith(b"/")
    if folders_only:
        pattern = pattern[:-1]
    return Rule(
        file=file,
        line=number,
        text=line.decode("utf-8", "replace"),
        is_negated=is_negated,
        folders_only=folders_only,
        names_only=b"/" not in pattern,
        pattern=re.compile(_translate(pattern.removeprefix(b"/")), re.DOTALL),
    )


def _translate(pattern: bytes) -> bytes:
    """Return a regular expression for git's pattern."""
    first = _SPECIAL.search(pattern)
    if first is None:
        return re.escape(pattern)
    # git compares what stands before the first special character on its own, and lets the rest begin anew: `a**/b` is
    # `a` and `**/b`.
    parts, at = [re.escape(pattern[: first.start()])], first.start()
    while at < len(pattern):
        character = pattern[at : at + 1]
        if character == b"*":
            part, at = _star(pattern, at, starts=at == first.start() or pattern[at - 1 : at] == b"/")
        elif character == b"?":
            part, at = b"[^/]", at + 1
        elif character == b"[":
            part, at = _bracket(pattern, at)
        elif character == b"\\":
            escaped = pattern[at + 1 : at + 2]
            part, at = (re.escape(escaped) if escaped else _NEVER), at + 2
        else:
            part, at = re.escape(character), at + 1
        parts.append(part)
    return b"".join(parts)


def _star(pattern: bytes, at: int, *, starts: bool) -> tuple[bytes, int]:
    """Return the expression for the stars at a place, and where the pattern goes on.

    Args:
        pattern: The whole pattern.
        at: Where the first star is.
        starts: Whether a `/` or nothing stands before it.
    """
    end = at
    while pattern[end : end + 1] == b"*":
        end += 1
    rest = pattern[end:]
    if end - at == 1 or not starts or not (rest == b"" or rest.startswith((b"/", rb"\/"))):
        return b"[^/]*", end
    # Only a `/` that is not escaped may vanish with its stars.
    return (b"(?:.*/)?", end + 1) if rest.startswith(b"/") else (b".*", end)


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the expression for the bracket at a place, and where the pattern goes on."""
    at += 1
    is_negated = pattern[at : at + 1] in {b"!", b"^"}
    at += is_negated
    items: list[bytes] = []
    previous: bytes | None = None
    first = at
    # A `]` that comes first is one of the characters.
    while at == first or pattern[at : at + 1] != b"]":
        if (named := _class_at(pattern, at)) is not None:
            name, at = named
            if name not in _CLASSES:
                return _NEVER, len(pattern)
            items.append(_CLASSES[name])
            previous = None
            continue
        is_range = previous is not None and pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in {b"", b"]"}
        character, at = _character(pattern, at + 1 if is_range else at)
        if not character:
            return _NEVER, len(pattern)
        if previous is None or not is_range:
            items.append(_byte(character))
            previous = character
        else:
            items += [_byte(previous) + b"-" + _byte(character)] if previous <= character else []
            previous = None
    inside = b"".join(items)
    if is_negated:
        return b"[^/" + inside + b"]", at + 1
    return (b"(?!/)[" + inside + b"]" if inside else _NEVER), at + 1


def _class_at(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the name of the `[:class:]` at a place in a bracket, and where the pattern goes on; None if it is none."""
    close = pattern.find(b"]", at + 2)
    if pattern[at : at + 2] != b"[:" or close <= at + 2 or pattern[close - 1 : close] != b":":
        return None
    return pattern[at + 2 : close - 1], close + 1


def _character(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the character at a place in a bracket, and where the pattern goes on; nothing at the pattern's end."""
    if pattern[at : at + 1] == b"\\":
        at += 1
    return pattern[at : at + 1], at + 1


def _byte(character: bytes) -> bytes:
    return b"\\x%02x" % ord(character)
