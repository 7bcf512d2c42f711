"""Which Python a piece of source needs, as far as its syntax tells.

`ast.parse(feature_version=...)` is documented as "best effort": it lets through decorators, unpacking and f-strings
that an older Python refuses. What it misses is found here, in the tree and in the tokens. Imports nothing of smkit, so
that the tests can run it under Pythons that have none of its dependencies.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Python = tuple[int, int]

_FSTRING_START: int | None = getattr(tokenize, "FSTRING_START", None)
_FSTRING_END: int | None = getattr(tokenize, "FSTRING_END", None)
#: The oldest that `feature_version` may be.
_OLDEST = (3, 7)
#: Tokens are read only where one of these may need them.
_WITH_PARENTHESIS = re.compile(r"\bwith\s*\(")
_FSTRING = re.compile(r"""\b[rR]?[fF][rR]?["']""")
_SAID_BY_PARSER = re.compile(r"Python 3\.(\d+)")
#: By name, since this Python may lack the class.
_NODES = {
    "NamedExpr": ("the assignment expression ':='", (3, 8)),
    "Match": ("the match statement", (3, 10)),
    "TryStar": ("'except*'", (3, 11)),
    "TypeAlias": ("the type statement", (3, 12)),
    "TemplateStr": ("a template string", (3, 14)),
}


class Newer(NamedTuple):
    """Syntax that a Python lacks.

    Attributes:
        line: 1-based line.
        what: The syntax, in words.
        since: The first Python that has it.
    """

    line: int
    what: str
    since: Python


class Unreadable(NamedTuple):
    """Source that this Python itself refuses.

    Attributes:
        line: 1-based line, or 0 where there is none.
        message: The interpreter's own.
    """

    line: int
    message: str


def parse(source: bytes, path: str) -> ast.Module | Unreadable:
    """Return the tree of a module that this Python compiles, or why it does not."""
    try:
        with warnings.catch_warnings():
            # A warning about the code is for its run to show.
            warnings.simplefilter("ignore")
            tree = ast.parse(source, path)
            # The parser alone accepts `return` outside a function.
            compile(tree, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return Unreadable(error.lineno or 0, f"{type(error).__name__}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Unreadable(0, f"not Python source: {error}")
    return tree


def newer_syntax(tree: ast.Module, source: bytes, python: Python) -> list[Newer]:
    """Return the syntax of a module that a Python lacks, by line, one of each kind.

    Args:
        tree: What `parse` returned.
        source: The bytes that it was parsed from.
        python: The Python that shall run it.
    """
    if python >= sys.version_info[:2]:
        return []
    text = _text_of(source)
    found = [item for item in (*_in_tree(tree, text.splitlines()), *_in_tokens(text)) if item.since > python]
    if not found and (item := _refused_by_parser(source, python)) is not None:
        found = [item]
    first: dict[str, Newer] = {}
    for item in sorted(found):
        first.setdefault(item.what, item)
    return list(first.values())


def _text_of(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return source.decode(encoding)


def _refused_by_parser(source: bytes, python: Python) -> Newer | None:
    """Ask the parser to play the older Python, which it does for some of the syntax."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source, feature_version=max(python, _OLDEST))
    except SyntaxError as error:
        said = _SAID_BY_PARSER.search(error.msg)
        since = (3, int(said[1])) if said else (python[0], python[1] + 1)
        return Newer(error.lineno or 0, error.msg.partition(" are only")[0].partition(" is only")[0], since)
    return None


def _in_tree(tree: ast.Module, lines: list[str]) -> Iterator[Newer]:
    in_finally: set[ast.AST] = set()
    for node in _walk(tree):
        line = getattr(node, "lineno", 0)
        name = type(node).__name__
        if name in _NODES:
            yield Newer(line, *_NODES[name])
        if isinstance(node, ast.arguments) and node.posonlyargs:
            yield Newer(node.posonlyargs[0].lineno, "positional-only parameters", (3, 8))
        if getattr(node, "type_params", None):
            yield Newer(line, "type parameters in brackets", (3, 12))
        if getattr(node, "default_value", None) is not None:
            yield Newer(line, "defaults of type parameters", (3, 13))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _of_definition(node)
        elif isinstance(node, ast.expr):
            yield from _of_expression(node, lines)
        else:
            yield from _of_statement(node)
        in_finally.update(getattr(node, "finalbody", ()))
    for node in in_finally:
        yield from _continues(node)


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those that have no syntax of their own, which are half of all; `ast.walk` is slower."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                waiting += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
                waiting.append(value)


def _of_definition(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[Newer]:
    for decorator in node.decorator_list:
        if not _is_old_decorator(decorator):
            yield Newer(decorator.lineno, "a decorator that is not a dotted name or its call", (3, 9))
    variadic = None if isinstance(node, ast.ClassDef) else node.args.vararg
    if variadic is not None and isinstance(variadic.annotation, ast.Starred):
        yield Newer(variadic.lineno, "'*' in the annotation of *args", (3, 11))


def _of_statement(node: ast.AST) -> Iterator[Newer]:
    if isinstance(node, ast.Return) and _is_bare_unpacking(node.value):
        yield Newer(node.lineno, "'*' after 'return' without parentheses", (3, 8))
    elif isinstance(node, ast.For | ast.AsyncFor) and _is_bare_unpacking(node.iter):
        yield Newer(node.lineno, "'*' after 'for ... in' without parentheses", (3, 9))
    elif isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Tuple) and _is_bare_tuple(node.type):
        yield Newer(node.lineno, "several exceptions after 'except' without parentheses", (3, 14))


def _of_expression(node: ast.expr, lines: list[str]) -> Iterator[Newer]:
    if isinstance(node, ast.Yield) and _is_bare_unpacking(node.value):
        yield Newer(node.lineno, "'*' after 'yield' without parentheses", (3, 8))
    elif isinstance(node, ast.Subscript):
        if isinstance(node.slice, ast.Starred) or _is_bare_unpacking(node.slice):
            yield Newer(node.lineno, "'*' in an index", (3, 11))
        if _is_bare_walrus(node.slice, lines):
            yield Newer(node.lineno, "':=' in an index without parentheses", (3, 10))
    elif isinstance(node, ast.Set | ast.SetComp):
        items = node.elts if isinstance(node, ast.Set) else [node.elt]
        if any(_is_bare_walrus(item, lines) for item in items):
            yield Newer(node.lineno, "':=' in a set without parentheses", (3, 9))
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp) and _is_async_inside_sync(node):
        yield Newer(node.lineno, "an asynchronous comprehension inside one that is not", (3, 11))


def _is_async_inside_sync(outer: ast.ListComp | ast.SetComp | ast.DictComp) -> bool:
    if any(item.is_async for item in outer.generators):
        return False
    # The first iterable belongs to the scope around.
    inside = [child for child in ast.iter_child_nodes(outer) if child is not outer.generators[0]]
    inside += [*outer.generators[0].ifs]
    return any(
        isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp) and any(item.is_async for item in node.generators)
        for part in inside
        for node in ast.walk(part)
    )


def _is_old_decorator(decorator: ast.expr) -> bool:
    """`@name`, `@dotted.name` and `@dotted.name(...)`: all that there was before PEP 614."""
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    while isinstance(decorator, ast.Attribute):
        decorator = decorator.value
    return isinstance(decorator, ast.Name)


def _is_bare_tuple(node: ast.Tuple) -> bool:
    """A tuple in parentheses starts at the parenthesis, a bare one where its first item starts."""
    return bool(node.elts) and (node.lineno, node.col_offset) == (node.elts[0].lineno, node.elts[0].col_offset)


def _is_bare_unpacking(node: ast.expr | None) -> bool:
    return (
        isinstance(node, ast.Tuple)
        and any(isinstance(item, ast.Starred) for item in node.elts)
        and _is_bare_tuple(node)
    )


def _is_bare_walrus(node: ast.expr, lines: list[str]) -> bool:
    if type(node).__name__ != "NamedExpr":
        return False
    # Offsets are counted in bytes of UTF-8.
    before = lines[node.lineno - 1].encode()[: node.col_offset].decode().rstrip()
    return not before.endswith("(")


def _continues(node: ast.AST) -> Iterator[Newer]:
    """Find `continue` that belongs to a loop around the `finally`, not to one inside it."""
    if isinstance(node, ast.Continue):
        yield Newer(node.lineno, "'continue' in a finally block", (3, 8))
    elif not isinstance(
        node, ast.For | ast.AsyncFor | ast.While | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ):
        for child in ast.iter_child_nodes(node):
            yield from _continues(child)


def _in_tokens(text: str) -> Iterator[Newer]:
    """Find what leaves no trace in the tree."""
    # Below 3.12 an f-string is one token; there the parser knows `f"{x=}"`, and refuses what 3.12 allows.
    has_fstring = _FSTRING_START is not None and _FSTRING.search(text) is not None
    if not has_fstring and not _WITH_PARENTHESIS.search(text):
        return
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    yield from _in_with(tokens)
    if has_fstring:
        yield from _in_fstrings(tokens)


def _in_with(tokens: list[tokenize.TokenInfo]) -> Iterator[Newer]:
    """Find `with (a as b, c as d):`."""
    for number, token in enumerate(tokens[:-1]):
        if token.type != tokenize.NAME or token.string != "with" or tokens[number + 1].string != "(":
            continue
        depth, several = 0, False
        for position in range(number + 1, len(tokens) - 1):
            inner = tokens[position]
            if inner.type == tokenize.OP and inner.string in "([{":
                depth += 1
            elif inner.type == tokenize.OP and inner.string in ")]}":
                depth -= 1
            elif depth == 1 and inner.string in {"as", ","}:
                several = True
            if depth == 0:
                if several and tokens[position + 1].string == ":":
                    yield Newer(token.start[0], "parentheses around the items of 'with'", (3, 9))
                break


def _in_fstrings(tokens: list[tokenize.TokenInfo]) -> Iterator[Newer]:
    """Find `f"{x=}"`, and what PEP 701 (Python 3.12) allows in fields."""
    quotes: list[str] = []
    for token, following in pairwise(tokens):
        line = token.start[0]
        if token.type == _FSTRING_START:
            yield from _quote_clash(token.string, quotes, line)
            quotes.append(token.string.lstrip("fFrR"))
        elif token.type == _FSTRING_END:
            quotes.pop()
        elif quotes and token.type == tokenize.STRING:
            yield from _quote_clash(token.string, quotes, line)
            if "\\" in token.string:
                yield Newer(line, "a backslash in the field of an f-string", (3, 12))
        elif quotes and token.type == tokenize.COMMENT:
            yield Newer(line, "a comment in the field of an f-string", (3, 12))
        elif quotes and token.type == tokenize.NL and len(quotes[-1]) == 1:
            yield Newer(line, "a line break in the field of an f-string", (3, 12))
        elif quotes and token.string == "=" and following.string in {"}", "!", ":"}:
            yield Newer(line, "'=' at the end of an f-string's field", (3, 8))


def _quote_clash(opening: str, quotes: list[str], line: int) -> Iterator[Newer]:
    quote = re.sub(r"^[A-Za-z]*", "", opening)
    quote = quote[:3] if quote[:3] in {'"""', "'''"} else quote[:1]
    if quote in quotes:
        yield Newer(line, "the same quotes inside an f-string's field", (3, 12))
