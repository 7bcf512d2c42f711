"""Which modules a piece of source imports, where, and whether it can do without."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Python = tuple[int, int]

#: What the images' Python says of where it runs.
_ON_LINUX = {"sys.platform": "linux", "os.name": "posix"}
_CATCHES_IMPORT_ERROR = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True)
class Import:
    """One imported module.

    Args:
        line: 1-based line.
        module: Dotted name; with `level`, relative, and "" for `from . import x`.
        names: What `from module import` names; empty for `import module`.
        level: Leading dots.
        certain: Whether it runs whenever the module is imported, and a failure would end that.
    """

    line: int
    module: str
    names: tuple[str, ...]
    level: int
    certain: bool


def imports_of(tree: ast.Module, python: Python, *, is_script: bool) -> list[Import]:
    """Return the imports of a module that may run.

    Left out is what never runs there: `if TYPE_CHECKING:`, a branch of another Python's (`sys.version_info`) or
    platform's (`sys.platform`, `os.name`), and `if __name__ == "__main__":` in a module that is imported.

    Args:
        tree: The module.
        python: The Python that shall run it.
        is_script: Whether it is run, not imported.
    """
    return list(_Reader(python, is_script).read(tree.body, certain=True))


class _Reader:
    def __init__(self, python: Python, is_script: bool) -> None:
        self._python = python
        self._is_script = is_script

    def read(self, body: Iterable[ast.AST], *, certain: bool) -> Iterator[Import]:
        for node in body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, alias.name, (), 0, certain)
            elif isinstance(node, ast.ImportFrom):
                names = tuple(alias.name for alias in node.names)
                yield Import(node.lineno, node.module or "", names, node.level, certain)
            elif isinstance(node, ast.If):
                yield from self._branch(node, certain=certain)
            elif isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
                yield from self._attempt(node, certain=certain)  # type: ignore[arg-type]
            elif isinstance(node, ast.With | ast.AsyncWith):
                yield from self.read(node.body, certain=certain and not _suppresses(node))
            elif isinstance(node, ast.ClassDef):
                yield from self.read(node.body, certain=certain)
            elif not isinstance(node, ast.expr):
                # A function may never be called, a loop never turn, a case never match.
                yield from self.read(ast.iter_child_nodes(node), certain=False)

    def _branch(self, node: ast.If, *, certain: bool) -> Iterator[Import]:
        truth = self._truth(node.test)
        if truth is not False:
            yield from self.read(node.body, certain=certain and truth is True)
        if truth is not True:
            yield from self.read(node.orelse, certain=certain and truth is False)

    def _attempt(self, node: ast.Try, *, certain: bool) -> Iterator[Import]:
        caught = any(_names(handler.type) & _CATCHES_IMPORT_ERROR or handler.type is None for handler in node.handlers)
        yield from self.read(node.body, certain=certain and not caught)
        for handler in node.handlers:
            yield from self.read(handler.body, certain=False)
        yield from self.read(node.orelse, certain=certain and not caught)
        yield from self.read(node.finalbody, certain=certain)

    def _truth(self, test: ast.expr) -> bool | None:
        """Return whether a condition holds in the job; None where that is not known."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self._truth(test.operand)
            return None if inner is None else not inner
        if isinstance(test, ast.Constant):
            return bool(test.value)
        if _dotted(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            return False
        if not isinstance(test, ast.Compare) or len(test.ops) != 1:
            return None
        left, operation, right = _dotted(test.left), test.ops[0], test.comparators[0]
        if left == "__name__" and isinstance(right, ast.Constant) and right.value == "__main__":
            truth = {ast.Eq: self._is_script, ast.NotEq: not self._is_script}
            return truth.get(type(operation))
        if left in _ON_LINUX and isinstance(right, ast.Constant):
            same = right.value == _ON_LINUX[left]
            platform = {ast.Eq: same, ast.NotEq: not same}
            return platform.get(type(operation))
        if left == "sys.version_info" and isinstance(right, ast.Tuple):
            return self._compare_version(operation, right)
        return None

    def _compare_version(self, operation: ast.cmpop, right: ast.Tuple) -> bool | None:
        given = [item.value for item in right.elts if isinstance(item, ast.Constant) and isinstance(item.value, int)]
        if len(given) != len(right.elts) or not 1 <= len(given) <= 2:
            return None
        # sys.version_info is longer than any such tuple, so it is never equal to one: (3, 9, 18, ...) > (3, 9).
        version: Sequence[int] = (*self._python, 0)
        if isinstance(operation, ast.GtE | ast.Gt):
            return tuple(version) > tuple(given)
        if isinstance(operation, ast.Lt | ast.LtE):
            return tuple(version) < tuple(given)
        return None


def _names(node: ast.expr | None) -> set[str]:
    if isinstance(node, ast.Tuple):
        return {name for item in node.elts for name in _names(item)}
    return set() if node is None else {_dotted(node)}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def _suppresses(node: ast.With | ast.AsyncWith) -> bool:
    """Whether it is `with contextlib.suppress(ImportError):`."""
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call) and _dotted(call.func) in {"suppress", "contextlib.suppress"}:
            return any(_names(argument) & _CATCHES_IMPORT_ERROR for argument in call.args)
    return False
