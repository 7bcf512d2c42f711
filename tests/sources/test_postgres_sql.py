"""Named parameters: found where PostgreSQL would see them, and positions that find their way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.errors import ConfigError
from smkit.sources._postgres_sql import parse_query


def statement(sql: str, *names: str) -> str:
    query = parse_query(sql, dict.fromkeys(names))
    assert query.names == names
    return query.statement


@pytest.mark.parametrize(
    ("sql", "names", "expected"),
    [
        ("SELECT :a", ["a"], "SELECT $1"),
        ("SELECT :a, :b, :a", ["a", "b"], "SELECT $1, $2, $1"),
        ("x=:a AND y>=:b_2", ["a", "b_2"], "x=$1 AND y>=$2"),
        ("SELECT :a::int, x::text", ["a"], "SELECT $1::int, x::text"),
        ("f(a := 1)", [], "f(a := 1)"),
        ("SELECT arr[1:2], arr[lo:hi]", [], "SELECT arr[1:2], arr[lo:hi]"),
        ("SELECT ':a', 'it''s :a'", [], "SELECT ':a', 'it''s :a'"),
        (r"SELECT E'\':a', e'\\', :b", ["b"], r"SELECT E'\':a', e'\\', $1"),
        (r"SELECT '\', :b", ["b"], r"SELECT '\', $1"),
        ('SELECT ":a" FROM "t"":b"', [], 'SELECT ":a" FROM "t"":b"'),
        ("SELECT 1 -- :a\n+ :b", ["b"], "SELECT 1 -- :a\n+ $1"),
        ("SELECT 1 /* :a /* :b */ :c */ + :d", ["d"], "SELECT 1 /* :a /* :b */ :c */ + $1"),
        ("SELECT $$ :a $$, $q$ :b $$ $q$, :c", ["c"], "SELECT $$ :a $$, $q$ :b $$ $q$, $1"),
        ("SELECT E'a' -- x\n \n'\\':a', :b", ["b"], "SELECT E'a' -- x\n \n'\\':a', $1"),
        ("SELECT E'a' '\\', :b", ["b"], "SELECT E'a' '\\', $1"),
        ("SELECT 1 -- :a\r+ :b", ["b"], "SELECT 1 -- :a\r+ $1"),
        ("SELECT $€$ :a ' $€$, :b", ["b"], "SELECT $€$ :a ' $€$, $1"),
        ("SELECT x€$y$, :b, z$y$", ["b"], "SELECT x€$y$, $1, z$y$"),
        ("SELECT 1 AS €e, '\\', :b", ["b"], "SELECT 1 AS €e, '\\', $1"),
        ("SELECT col$1, :a", ["a"], "SELECT col$1, $1"),
        ("SELECT :types, :stream, :SELECT", ["types", "stream", "SELECT"], "SELECT $1, $2, $3"),
        ("SELECT 'open :a", [], "SELECT 'open :a"),
        ("SELECT 1 /* open :a", [], "SELECT 1 /* open :a"),
        ("SELECT $t$ open :a", [], "SELECT $t$ open :a"),
    ],
)
def test_placeholders(sql: str, names: list[str], expected: str) -> None:
    assert statement(sql, *names) == expected


@given(st.lists(st.sampled_from(["'x:y'", ":a", ":bb", " é ", "\n", "/* :c */", "::int", "+"]), min_size=1))
def test_every_position_maps_back_to_the_same_character(pieces: list[str]) -> None:
    sql = "SELECT " + " ".join(pieces)
    names = {name for name in ("a", "bb") if f":{name}" in pieces}
    query = parse_query(sql, dict.fromkeys(names))
    for index, character in enumerate(query.statement):
        found = query.text[query.position_in_text(index + 1) - 1]
        assert found == character or (found == ":" and character in "$0123456789")
    assert query.position_in_text(len(query.statement) + 1) == len(sql) + 1


@pytest.mark.parametrize(
    ("sql", "params", "message"),
    [
        ("SELECT :since", {}, "parameter :since, but params has no value for it"),
        ("SELECT :since", {"sinse": 1}, "did you mean 'sinse'"),
        ("SELECT 1", {"since": 1}, "params has 'since', but the query has no :since.*its parameters: none"),
        ("SELECT ':a'", {"a": 1}, "the query has no :a"),
        ("SELECT $1", {}, r"numbered parameter \$1 at position 8"),
        ("  \n", {}, "must be the text of a query"),
        ("SELECT 1\0; DROP", {}, "NUL character at position 9"),
        (None, {}, "sql is None"),
        ("SELECT '\udc80'", {}, "sql holds a lone surrogate"),
    ],
)
def test_what_does_not_fit_is_found_before_connecting(sql: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        parse_query(sql, params)


@given(st.integers(1, 3000))
def test_comments_behind_a_literal_take_no_time(count: int) -> None:
    """A regular expression that tries all ways to split them would take for ever."""
    sql = "SELECT E'a'" + " -- " * count + "\n" + "-- x\n" * count + "x"
    assert statement(sql) == sql
