"""Brings what a foundation made into `smkit.toml`, without touching what else stands there.

The file is edited line by line, and the result is parsed: it must be what was there with the wanted keys set, or
nothing is written. So no TOML writer is needed, and comments, order and layout stay.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smkit._config_layers import project_folder
from smkit.errors import ConfigError

if TYPE_CHECKING:
    from smkit.config import Settings
    from smkit.infra.results import StackStatus

FILE_NAME = "smkit.toml"
# pydantic-settings brings tomli, which tomllib is in the standard library, to Python 3.10.
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"\s*\[")


def settings_of_foundation(settings: Settings, foundation: StackStatus) -> dict[str, Any]:
    """Return the settings that name what a foundation consists of: nested as in `smkit.toml`, without what is not set.

    Args:
        settings: The settings that it was deployed with.
        foundation: The stack as it is now.
    """
    found: dict[str, Any] = {
        "region": settings.region,
        "project": settings.project,
        "bucket": foundation.outputs["BucketName"],
        "role": foundation.outputs["ExecutionRoleArn"],
        "kms_key": settings.kms_key,
        "subnets": list(settings.subnets),
        "security_groups": list(settings.security_groups),
        "tags": dict(settings.tags),
        "postgres": {"secret_id": settings.postgres.secret_id} if settings.postgres.secret_id else None,
    }
    return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class SettingsFile:
    """A change to `smkit.toml`, worked out and not written.

    Args:
        path: The file.
        before: Its text; None where there is no file.
        after: Its text once written.
        overruled: Names of settings that a variable or `.env` gives another value, which wins over the file's.
    """

    path: Path
    before: str | None
    after: str
    overruled: tuple[str, ...] = ()

    @classmethod
    def plan(cls, settings: Settings, wanted: Mapping[str, Any], *, folder: Path | None = None) -> SettingsFile:
        """Work out what `smkit.toml` would become.

        A setting that one of the project's files gives this very value already is left out.

        Args:
            settings: The settings as they are.
            wanted: Setting -> value, as of `settings_of_foundation`.
            folder: Where the file lies; default: the project's folder.

        Raises:
            ConfigError: The file cannot be read, or holds a key in a form that cannot be edited line by line.
        """
        path = (folder or project_folder()) / FILE_NAME
        try:
            with path.open(encoding="utf-8", newline="") as file:
                before: str | None = file.read()
        except FileNotFoundError:
            before = None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        origins = {line.name: line.origin for line in settings.explain()}
        missing: dict[str, Any] = {}
        overruled = []
        for name, value, origin, current in _leaves(settings, wanted, origins):
            same = current == value
            if not same and (origin.startswith("environment") or ".env " in origin):
                overruled.append(name)
            if not (same and _is_from_file(origin)):
                table, _, key = name.rpartition(".")
                (missing.setdefault(table, {}) if table else missing)[key] = value
        return cls(path, before, _edited(before or "", missing, path), tuple(overruled))

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        return self.after != (self.before or "")

    def diff(self) -> str:
        """Return the change as a unified diff."""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(),
            self.after.splitlines(),
            os.devnull if self.before is None else str(self.path),
            str(self.path),
            lineterm="",
        )
        return "\n".join(lines)

    def write(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            ConfigError: It changed meanwhile, or cannot be written.
        """
        if not self.is_changed:
            return
        # A link keeps pointing where it does: what it points to is written.
        path = self.path.resolve()
        try:
            now = path.read_bytes().decode("utf-8") if path.exists() else None
            if now != self.before:
                raise ConfigError(f"{self.path} was changed meanwhile: run the command again")
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".smkit-tmp-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                    file.write(self.after)
                Path(name).chmod(path.stat().st_mode & 0o7777 if now is not None else 0o666 & ~_umask())
                Path(name).replace(path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _leaves(
    settings: Settings, wanted: Mapping[str, Any], origins: Mapping[str, str]
) -> list[tuple[str, Any, str, Any]]:
    """Return name, wanted value, origin and present value of each setting, nested ones by their dotted names."""
    found = []
    for name, value in wanted.items():
        if name == "postgres":
            for key, inner in value.items():
                dotted = f"postgres.{key}"
                found.append((dotted, inner, origins[dotted], getattr(settings.postgres, key)))
        else:
            found.append((name, value, origins[name], _plain(getattr(settings, name))))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _is_from_file(origin: str) -> bool:
    return origin not in {"argument", "default"} and not origin.startswith("environment")


def _edited(text: str, wanted: Mapping[str, Any], path: Path) -> str:
    """Return the text with the wanted keys set."""
    try:
        present = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; correct it first") from None
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += end
    expected = dict(present)
    plain = {name: value for name, value in wanted.items() if name != "postgres"}
    for name, value in plain.items():
        if present.get(name) != value:
            lines = _with_key(lines, (), name, value, end)
            expected[name] = value
    for name, value in wanted.get("postgres", {}).items():
        inner = present.get("postgres", {})
        if inner.get(name) != value:
            lines = _with_key(lines, ("postgres",), name, value, end)
            expected["postgres"] = {**expected.get("postgres", {}), name: value}
    edited = text if expected == present else "".join(lines)
    try:
        holds = tomllib.loads(edited) == expected
    except tomllib.TOMLDecodeError:
        holds = False
    if not holds:
        raise ConfigError(
            f"{path} holds these keys in another form than `key = value`; set them by hand: {_spelt(wanted)}"
        )
    return edited


def _spelt(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_toml(value)}" for name, value in wanted.items())


def _with_key(lines: list[str], table: tuple[str, ...], name: str, value: Any, end: str) -> list[str]:
    """Return the lines with a key of a table set; of the top of the file, where the table is `()`."""
    wanted = f"{name} = {_toml(value)}"
    statements = _statements(lines)
    inside = [(first, last) for first, last, where in statements if where == table]
    for first, last in inside:
        chunk = "".join(lines[first:last])
        if not _HEADER.match(chunk) and list(tomllib.loads(chunk)) == [name]:
            return [*lines[:first], wanted + _comment(chunk) + end, *lines[last:]]
    if inside:
        place = inside[-1][1]
        return [*lines[:place], wanted + end, *lines[place:]]
    if table:
        return [*lines, *([end] if lines else []), f"[{'.'.join(table)}]{end}", wanted + end]
    # Above the first table, and above the comment that belongs to it.
    place = statements[0][0] if statements else len(lines)
    while statements and place > 0 and lines[place - 1].lstrip().startswith("#"):
        place -= 1
    return [*lines[:place], wanted + end, *([end] if place < len(lines) else []), *lines[place:]]


def _statements(lines: list[str]) -> list[tuple[int, int, tuple[str, ...]]]:
    """Return first line, line after the last, and table of each statement; a table's header is its first one."""
    found = []
    table: tuple[str, ...] = ()
    first = 0
    while first < len(lines):
        if not lines[first].strip() or lines[first].lstrip().startswith("#"):
            first += 1
            continue
        last = first + 1
        # A value may go on over several lines: it ends where it can be parsed.
        while last < len(lines) and not _parses("".join(lines[first:last])):
            last += 1
        if _HEADER.match(lines[first]):
            table = _path_of(tomllib.loads("".join(lines[first:last])))
        found.append((first, last, table))
        first = last
    return found


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _path_of(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a parsed table header: `[a.b]` is `{"a": {"b": {}}}`."""
    names: list[str] = []
    inner: Any = header
    while inner:
        if isinstance(inner, list):
            # [[a]]: an array of tables, in which nothing is ever set.
            names.append("[]")
            inner = inner[0]
            continue
        name = next(iter(inner))
        names.append(name)
        inner = inner[name]
    return tuple(names)


def _comment(chunk: str) -> str:
    """Return the comment behind a value of one line, with the space before it."""
    line = chunk.rstrip("\r\n")
    if "\n" in line:
        return ""
    for at, char in enumerate(line):
        if char == "#" and _parses(line[:at]):
            bare = line[:at].rstrip()
            return line[len(bare) :]
    return ""


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(str(name))} = {_toml(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # A basic string of TOML is one of JSON, but for DEL, which it wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml(name)
