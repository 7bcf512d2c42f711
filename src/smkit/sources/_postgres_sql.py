"""SQL text with named parameters: `:name` becomes `$1`, and positions find their way back.

pg8000 has such a parser, but it takes `:name` for a parameter inside block comments and tagged dollar quotes, and the
server's error positions would be those of the rewritten text.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from smkit.errors import ConfigError, did_you_mean
from smkit.sources._postgres_values import plain_value

_MASK = "********"

# What may hold a colon or a dollar that is no parameter. https://www.postgresql.org/docs/current/sql-syntax-lexical.html
# To the server every character beyond ASCII is one of an identifier. A literal goes on behind a line break.
_TOKEN = re.compile(
    r"""
      --[^\n\r]*
    | (?P<block>/\*)
    | (?<![A-Za-z0-9_$\x80-\U0010ffff])[eE]'
      (?:[^'\\]|\\.|''|'[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*')*(?:'|\Z)
    | '(?:[^']|'')*(?:'|\Z)
    | "(?:[^"]|"")*(?:"|\Z)
    | (?<![A-Za-z0-9_$\x80-\U0010ffff])
      \$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$.*?(?:\$(?P=tag)\$|\Z)
    | ::
    | :=
    | (?P<end>;)
    | (?<![\w$])\$(?P<number>\d+)
    | (?<![\w\]]):(?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True)
class Query:
    """A query ready for the wire.

    Args:
        text: The user's SQL.
        statement: The same with `$1`, `$2` ... for the named parameters.
        names: The parameters' names; `$1` is the first.
        edits: For each placeholder: its 0-based start and length in `statement`, then in `text`.
        semicolons: The 0-based positions in `statement` of those outside quotes and comments.
    """

    text: str
    statement: str
    names: tuple[str, ...]
    edits: tuple[tuple[int, int, int, int], ...]
    semicolons: tuple[int, ...] = ()

    def position_in_text(self, position: int) -> int:
        """Map a 1-based character position in `statement` to one in `text`."""
        index = position - 1
        text_index = index
        for start, length, text_start, text_length in self.edits:
            if index < start:
                break
            if index < start + length:
                return text_start + 1
            # Behind a placeholder the two texts run in parallel again.
            text_index = text_start + text_length + index - (start + length)
        return text_index + 1

    def with_literals(self, literals: Sequence[str]) -> Query:
        """Return the query with the server's literals in the place of its parameters, fit for parentheses.

        Only for a query that the server has accepted as one statement: semicolons can then only be behind its end.

        Args:
            literals: SQL expressions that the server has written, one for each of `names`.
        """
        statement = list(self.statement)
        for position in self.semicolons:
            statement[position] = " "
        output: list[str] = []
        edits: list[tuple[int, int, int, int]] = []
        length = copied = 0
        for start, size, text_start, text_size in self.edits:
            literal = literals[int(self.statement[start + 1 : start + size]) - 1]
            length += start - copied
            output += ["".join(statement[copied:start]), literal]
            edits.append((length, len(literal), text_start, text_size))
            length += len(literal)
            copied = start + size
        output.append("".join(statement[copied:]))
        return Query(self.text, "".join(output), self.names, tuple(edits))


def parse_query(sql: str, params: Mapping[str, Any]) -> Query:
    """Find the parameters of a query.

    Raises:
        ConfigError: The SQL is empty or holds a NUL or a `$1`, a parameter has no value, or a value no parameter.
    """
    if not isinstance(sql, str) or not sql.strip():
        raise ConfigError(f"sql is {sql!r}, but must be the text of a query")
    if "\0" in sql:
        raise ConfigError(
            f"sql holds a NUL character at position {sql.index(chr(0)) + 1}, which PostgreSQL cannot take"
        )
    _check_text("sql", sql)
    query = _parse(sql)
    missing = [name for name in query.names if name not in params]
    if missing:
        hint = did_you_mean(missing[0], params)
        raise ConfigError(
            f"the query has a parameter :{missing[0]}, but params has no value for it{hint}: "
            f'pass params={{"{missing[0]}": ...}}'
        )
    unused = [name for name in params if name not in query.names]
    if unused:
        named = ", ".join(f":{name}" for name in query.names) or "none"
        raise ConfigError(
            f"params has {unused[0]!r}, but the query has no :{unused[0]}{did_you_mean(unused[0], query.names)}; "
            f"its parameters: {named}"
        )
    return query


def _parse(sql: str) -> Query:
    output: list[str] = []
    length = 0
    names: list[str] = []
    edits: list[tuple[int, int, int, int]] = []
    semicolons: list[int] = []
    position = 0
    while match := _TOKEN.search(sql, position):
        if match["number"]:
            raise ConfigError(
                f"the query has the numbered parameter {match.group()} at position {match.start() + 1}: "
                f"write a named one, such as :since"
            )
        output.append(sql[position : match.start()])
        length += match.start() - position
        end = _end_of_block_comment(sql, match.end()) if match["block"] else match.end()
        piece = sql[match.start() : end]
        if match["name"]:
            if match["name"] not in names:
                names.append(match["name"])
            piece = f"${names.index(match['name']) + 1}"
            edits.append((length, len(piece), match.start(), len(match.group())))
        if match["end"]:
            semicolons.append(length)
        output.append(piece)
        length += len(piece)
        position = end
    output.append(sql[position:])
    return Query(sql, "".join(output), tuple(names), tuple(edits), tuple(semicolons))


def _end_of_block_comment(sql: str, position: int) -> int:
    """Block comments nest in PostgreSQL."""
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def check_params(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the parameters.

    Raises:
        ConfigError: They are no mapping of names, or a value has no SQL type.
    """
    if params is None:
        return {}
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        raise ConfigError(f'params is a {type(params).__name__}, but must be a dict of names: {{"since": ...}}')
    checked = {name: plain_value(name, value) for name, value in params.items()}
    for name, value in checked.items():
        encode_param(name, value)
    return checked


def encode_param(name: str, value: Any) -> str | None:
    """Return a value in PostgreSQL's text format; the server knows the parameter's type from the query.

    Raises:
        ConfigError: The value has no SQL type.
    """
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, str):
        _check_text(f"params[{name!r}]", value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal, UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return f"\\x{value.hex()}"
    if isinstance(value, (dt.date, dt.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    if isinstance(value, (list, tuple)):
        return "{" + ",".join(_encode_item(name, item) for item in value) + "}"
    if isinstance(value, dict):
        return _encode_json(name, value)
    raise ConfigError(
        f"params[{name!r}] is a {type(value).__name__}, which has no SQL type; allowed: str, int, float, bool, "
        f"Decimal, bytes, date, time, datetime, timedelta, UUID, dict (for json), None, and lists of these "
        f"(for = ANY(:{name}))"
    )


def type_oid(value: Any) -> int:
    """Return the OID of the type that a parameter has wherever it stands; 0 where the query says it better.

    Without a type, the server takes that of what the value stands beside: a datetime beside a date would lose its
    hours, and one with an offset beside a timestamp its offset.
    """
    if isinstance(value, bool):
        return 16
    if isinstance(value, int):
        # int4, int8, numeric.
        return 23 if -(2**31) <= value < 2**31 else 20 if -(2**63) <= value < 2**63 else 1700
    if isinstance(value, dt.datetime):
        return 1114 if value.tzinfo is None else 1184
    if isinstance(value, dt.date):
        return 1082
    if isinstance(value, dt.time) and value.tzinfo is None:
        return 1083
    if isinstance(value, list):
        # timestamp[], timestamptz[]: others lose nothing beside a column of another type.
        arrays = {1114: 1115, 1184: 1185}
        found = {type_oid(item) for item in value if item is not None}
        return arrays.get(found.pop(), 0) if len(found) == 1 else 0
    return 17 if isinstance(value, (bytes, bytearray)) else 0


def _encode_json(name: str, value: dict[Any, Any]) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"params[{name!r}] is a dict, but cannot be written as JSON: {error}") from None


def _check_text(what: str, text: str) -> None:
    if re.search("[\ud800-\udfff]", text):
        raise ConfigError(f"{what} holds a lone surrogate, which is no character: it cannot be written as UTF-8")


def _encode_item(name: str, item: Any) -> str:
    text = encode_param(name, item)
    if text is None:
        return "NULL"
    if isinstance(item, (list, tuple)):
        return text
    # Always quoted: unquoted, the text null would be NULL.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def describe_param(value: Any) -> Any:
    """Return a value as JSON has it, for the lineage; secrets masked."""
    if isinstance(value, SecretStr):
        return _MASK
    if isinstance(value, (list, tuple)):
        return [describe_param(item) for item in value]
    if isinstance(value, dict):
        return {str(key): describe_param(item) for key, item in value.items()}
    # JSON has no NaN and no infinity.
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and abs(value) < float("inf")):
        return value
    return encode_param("", value)


def secret_settings(query: Query, params: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return, for each parameter with a secret, the session's setting that holds it: its name and its text."""
    return {
        name: (f"smkit.param_{i}", encode_param(name, params[name]) or "")
        for i, name in enumerate(query.names, 1)
        if any(True for _ in _secrets(params[name]))
    }


def mask_secrets(text: str, params: Mapping[str, Any]) -> str:
    """Hide the secret parameters that the server repeats in its messages, whole, escaped or in part."""
    secrets = [secret for value in params.values() for secret in _secrets(value)]
    for secret in secrets:
        escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
        text = text.replace(escaped, _MASK).replace(secret, _MASK)
    if not secrets:
        return text
    # Such as the word at which JSON stops to be JSON.
    return re.sub(
        r'"([^"\n]+)"',
        lambda match: f'"{_MASK}"' if any(match[1].lower() in secret.lower() for secret in secrets) else match[0],
        text,
    )


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr) and value.get_secret_value():
        yield value.get_secret_value()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item)
