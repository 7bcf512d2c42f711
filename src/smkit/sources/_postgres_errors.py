"""What the server says, in words that help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from smkit.errors import QueryError, SourceConnectionError, SourceError
from smkit.sources._postgres_sql import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.sources._postgres_sql import Query

# https://www.postgresql.org/docs/current/protocol-error-fields.html
_MESSAGE, _CODE, _DETAIL, _HINT, _POSITION = "M", "C", "D", "H", "P"
_LINE_WIDTH = 100
_SYNTAX_ERROR = "42601"
READABLE = "only SELECT, VALUES, TABLE and WITH ... SELECT can be read, one statement without others behind it"

#: SQLSTATE -> what to do, where the server itself does not say.
_ADVICE = {
    "22021": "a value is no text in UTF-8; where it is a column's, select <column>::bytea and decode the bytes",
    "42P18": "say the parameter's type, for example CAST(:name AS date)",
    "0A000": "only queries that change nothing can be read",
    "25006": "sources read in a read-only transaction",
    "42501": "ask for the privilege: GRANT SELECT ON <table> TO <user>",
    "57014": "the query took longer than statement_timeout (the source's, else the server's), or was cancelled",
}


def field(error: Mapping[str, str], name: str) -> str:
    """Return a field of the server's error, or ""."""
    return error.get(name, "")


def broken_off(reason: str) -> SourceConnectionError:
    """Return the error of a connection that ended before the rows did."""
    return SourceConnectionError(
        f"the connection to PostgreSQL broke off while the query was read: {reason}. Nothing of it was kept: read again"
    )


def query_error(
    error: Mapping[str, str], query: Query, *, prefix_length: int | None, params: Mapping[str, Any]
) -> SourceError:
    """Turn the server's rejection of a query into an error that points into the user's own SQL.

    Args:
        error: The fields of the server's answer.
        query: The query.
        prefix_length: Characters that were sent before the query's own; None: another statement was sent.
        params: The parameters, whose secrets the message must not repeat.
    """
    code = field(error, _CODE)
    if code.startswith(("08", "57P")):
        return broken_off(f"{field(error, _MESSAGE)} [{code}]")
    # The user knows the names, not the numbers that they became.
    said = re.sub(r"parameter \$(\d+)", lambda m: f"parameter :{query.names[int(m[1]) - 1]}", field(error, _MESSAGE))
    lines = [f"PostgreSQL rejected the query: {said} [{code}]"]
    position = None
    sent = field(error, _POSITION)
    if prefix_length is not None and sent.isdigit() and int(sent) > prefix_length:
        position = query.position_in_text(int(sent) - prefix_length)
        lines += _pointer(query.text, position)
    if detail := field(error, _DETAIL):
        lines.append(f"detail: {detail}")
    advice = _ADVICE.get(code, "")
    if code == _SYNTAX_ERROR and (position is None or _is_first_word(query.text, position)):
        advice = READABLE
    if hint := field(error, _HINT) or advice:
        lines.append(f"hint: {hint}")
    message = mask_secrets("\n".join(lines), params)
    return QueryError(message, sqlstate=code or None, position=position)


def _is_first_word(text: str, position: int) -> bool:
    return not re.sub(r"--[^\n]*|/\*.*?\*/|[\s(]", "", text[: position - 1], flags=re.DOTALL)


def _pointer(text: str, position: int) -> list[str]:
    """Show the line of a 1-based position with a caret below it."""
    index = min(position - 1, len(text))
    start = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    line = text[start : len(text) if end < 0 else end].rstrip("\r")
    column = index - start
    # A query in one long line: show what is around the place.
    skipped = max(0, column - _LINE_WIDTH // 2) if len(line) > _LINE_WIDTH else 0
    label = f"line {text.count(chr(10), 0, index) + 1}: "
    shown = line[skipped : skipped + _LINE_WIDTH]
    # A tab before the caret must stay a tab, or the caret moves.
    blank = "".join("\t" if character == "\t" else " " for character in shown[: column - skipped])
    return [f"{label}{shown}", f"{' ' * len(label)}{blank}^"]
