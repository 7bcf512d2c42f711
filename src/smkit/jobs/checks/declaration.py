"""The hyperparameters that a script on the training template declares, read from its source without running it.

Says something only of a script whose text leaves no doubt: a top-level `class Houses(TrainingScript)`, in it a class
`Hyperparameters` of annotated names, and at the end `Houses.main()`. Where something may change what the template is
given or declares, nothing is said: a job must never be refused for values that its script would take.
"""

from __future__ import annotations

import ast
import builtins
import operator
import typing
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATE = "smkit.entrypoint"
#: A name that is read from the variable that carries the hyperparameters, such as SM_HPS and SM_HP_ALPHA.
_VARIABLES = "SM_HP"
_CHANNEL_VARIABLES = "SM_CHANNEL"
_LEAVING = frozenset({"SystemExit", "_exit", "abort", "exit", "quit"})
_CHANGING = frozenset({"exec", "eval", "globals", "setattr", "delattr", "putenv", "unsetenv"})
_PLAIN = (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Import, ast.ImportFrom, ast.Assert, ast.Pass)
_TYPES: Mapping[str, Any] = {
    **{f"builtins.{kind.__name__}": kind for kind in (int, float, bool, str, list, dict)},
    **{f"typing.{name}": getattr(typing, name) for name in ("Any", "List", "Dict")},
}


class _Unclear(Exception):
    """The text does not tell."""


class Unknown:
    """Stands for a default that only running the script would tell."""


@dataclass(frozen=True)
class DeclaredField:
    """One hyperparameter.

    Args:
        annotation: Its type; `Any` where the text does not tell.
        default: Its default, `Unknown` where the text does not tell.
        is_required: Whether it has no default.
        limits: Those of `min`, `max` and `choices` that are literals.
    """

    annotation: Any
    default: Any = Unknown
    is_required: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)


class Declaration(NamedTuple):
    """What a script declares.

    Attributes:
        name: Name of the script's class.
        line: 1-based line of that class.
        fields: Name -> hyperparameter.
        channel: The channel that is required; "" where the text does not tell.
    """

    name: str
    line: int
    fields: Mapping[str, DeclaredField]
    channel: str = ""


def declaration_of(source: bytes) -> Declaration | None:
    """Return the hyperparameters that a script declares; None where its text does not tell for certain.

    Args:
        source: The script, which compiles.
    """
    # Nearly every script that is not on the template ends here, unparsed.
    if _TEMPLATE.encode() not in source or _VARIABLES.encode() in source:
        return None
    module = _Module(ast.parse(source))
    try:
        module.check_flow()
        script = module.script()
        channel = "" if _CHANNEL_VARIABLES.encode() in source else _required_channel(module, script)
        return Declaration(script.name, script.lineno, _fields(module, script), channel)
    except (_Unclear, RecursionError):
        return None


class _Module:
    """A script's tree, and what its names stand for."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._nodes = list(ast.walk(tree))
        #: How often each name is bound, in whatever scope: a name that is bound once has one meaning.
        self._bound = Counter(name for node in self._nodes for name in _names_bound_by(node))
        self._imported: dict[str, str] = {}
        for node in tree.body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    self._imported[name] = alias.name if alias.asname else name
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    self._imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def origin(self, node: ast.AST) -> str:
        """Return the dotted name of what an expression refers to: `builtins.int`, `typing.List`; "" if not known."""
        if isinstance(node, ast.Attribute):
            base = self.origin(node.value)
            return f"{base}.{node.attr}" if base else ""
        if not isinstance(node, ast.Name) or self._bound["*"]:
            return ""
        if not self._bound[node.id]:
            return f"builtins.{node.id}" if hasattr(builtins, node.id) else ""
        return self._imported.get(node.id, "") if self._bound[node.id] == 1 else ""

    def check_flow(self) -> None:
        """Refuse what may keep the template from being run, or change what it is given."""
        reads = {id(child) for node in self._nodes for child in _read_from(node)}
        for node in self._nodes:
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            is_stored = isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)
            if (
                name in _LEAVING | _CHANGING
                or name == "argv"
                or (name == "environ" and id(node) not in reads)
                or (name == "Hyperparameters" and is_stored)
                # `from os import environ as variables`
                or (isinstance(node, ast.alias) and node.name in {"argv", "environ", *_LEAVING, *_CHANGING})
            ):
                raise _Unclear

    def stores_attribute(self, name: str) -> bool:
        """Return whether an attribute of this name is set or deleted anywhere."""
        return any(
            isinstance(node, ast.Attribute) and node.attr == name and not isinstance(node.ctx, ast.Load)
            for node in self._nodes
        )

    def script(self) -> ast.ClassDef:
        """Return the class whose `main()` is the script."""
        statements = [(node, False) for node in self._tree.body]
        for node in self._tree.body:
            if isinstance(node, ast.If) and ast.unparse(node.test) in {
                "__name__ == '__main__'",
                "'__main__' == __name__",
            }:
                statements += [(inner, True) for inner in node.body]
        calls = [(node, guarded) for node, guarded in statements if _main_of(node)]
        mentions = [node for node in self._nodes if isinstance(node, ast.Attribute) and node.attr == "main"]
        if len(calls) != 1 or len(mentions) != 1:
            raise _Unclear
        call, is_guarded = calls[0]
        before = [node for node, guarded in statements if guarded and node.lineno < call.lineno]
        if is_guarded and not all(isinstance(node, _PLAIN) for node in before):
            raise _Unclear
        name = _main_of(call)
        found = [node for node in self._tree.body if isinstance(node, ast.ClassDef) and node.name == name]
        if len(found) != 1 or self._bound[name] != 1 or not self._is_plain_script(found[0]):
            raise _Unclear
        return found[0]

    def _is_plain_script(self, script: ast.ClassDef) -> bool:
        has_main = any(getattr(node, "name", "") == "main" for node in script.body)
        is_template = [self.origin(base) for base in script.bases] == [f"{_TEMPLATE}.TrainingScript"]
        return is_template and not (script.decorator_list or script.keywords or has_main)


def _names_bound_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Global | ast.Nonlocal):
        # Twice: whatever it is bound to elsewhere may be replaced.
        return node.names * 2
    # def, class, `except ... as name`, `case {**rest}`, `case name`, type parameters
    found = [getattr(node, "name", None), getattr(node, "rest", None)]
    return [name for name in found if isinstance(name, str)]


def _main_of(node: ast.AST) -> str:
    """Return the name in a statement `Name.main()`; "" for any other."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or call.args or call.keywords or not isinstance(call.func, ast.Attribute):
        return ""
    function = call.func
    return function.value.id if function.attr == "main" and isinstance(function.value, ast.Name) else ""


def _read_from(node: ast.AST) -> list[ast.AST]:
    """Return the `os.environ` that a node reads or sets one literal name of."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return [node.value]
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"get", "pop", "setdefault"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ):
        return [node.func.value]
    return []


def _fields(module: _Module, script: ast.ClassDef) -> dict[str, DeclaredField]:
    bound = [node for node in script.body if "Hyperparameters" in _all_names_bound_in(node)]
    if not bound:
        return {}
    declared = bound[0]
    if len(bound) > 1 or not isinstance(declared, ast.ClassDef) or declared.bases or declared.keywords:
        raise _Unclear
    for decorator in declared.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if module.origin(called) != "dataclasses.dataclass":
            raise _Unclear
    fields: dict[str, DeclaredField] = {}
    for node in declared.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said = ast.unparse(node.annotation)
            name = node.target.id
            if "InitVar" in said or "KW_ONLY" in said or name in fields or name.startswith("__"):
                raise _Unclear
            if "ClassVar" not in said:
                fields[name] = _field(module, node)
        elif not isinstance(node, ast.Pass | ast.FunctionDef) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            raise _Unclear
    return fields


def _required_channel(module: _Module, script: ast.ClassDef) -> str:
    """Return the first of the script's channels, or of the template's; "" where the text does not tell."""
    bound = [node for node in script.body if "channels" in _all_names_bound_in(node)]
    if module.stores_attribute("channels") or len(bound) > 1:
        return ""
    if not bound:
        return "train"
    value = bound[0].value if isinstance(bound[0], ast.Assign | ast.AnnAssign) else None
    listed = _literal(value) if value is not None else Unknown
    first = listed[0] if isinstance(listed, list | tuple) and listed else ""
    return first if isinstance(first, str) else ""


def _all_names_bound_in(statement: ast.stmt) -> list[str]:
    # What a method or an inner class binds is its own.
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    return [name for node in ast.walk(statement) for name in _names_bound_by(node)]


def _field(module: _Module, node: ast.AnnAssign) -> DeclaredField:
    annotation = _type(module, node.annotation)
    value = node.value
    if value is None:
        return DeclaredField(annotation, is_required=True)
    if not isinstance(value, ast.Call):
        return DeclaredField(annotation, _literal(value))
    names = [keyword.arg for keyword in value.keywords]
    if module.origin(value.func) != f"{_TEMPLATE}.hyperparameter" or None in names or len(value.args) > 1:
        return DeclaredField(annotation)
    given: dict[str, ast.expr] = {str(keyword.arg): keyword.value for keyword in value.keywords}
    if value.args:
        if isinstance(value.args[0], ast.Starred):
            return DeclaredField(annotation)
        given["default"] = value.args[0]
    limits = {name: _literal(given[name]) for name in ("min", "max", "choices") if name in given}
    return DeclaredField(
        annotation,
        _literal(given["default"]) if "default" in given else Unknown,
        is_required="default" not in given,
        limits={name: limit for name, limit in limits.items() if _is_limit(name, limit)},
    )


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return Unknown


def _is_limit(name: str, value: Any) -> bool:
    if name == "choices":
        return isinstance(value, list | tuple)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _type(module: _Module, node: ast.expr) -> Any:
    """Return the type that an annotation means; `Any` where the text does not tell."""
    try:
        return _known_type(module, node)
    except (_Unclear, SyntaxError, TypeError):
        return Any


def _known_type(module: _Module, node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _known_type(module, ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return operator.or_(_known_type(module, node.left), _known_type(module, node.right))
    if isinstance(node, ast.Subscript):
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        inner = tuple(_known_type(module, item) for item in items)
        origin = module.origin(node.value)
        if origin == "typing.Optional" and len(inner) == 1:
            return typing.Optional[inner[0]]  # noqa: UP045 - it shall be printed as the script wrote it
        if origin == "typing.Union":
            return typing.Union[inner]  # noqa: UP007 - as above
        if origin in {"builtins.list", "builtins.dict", "typing.List", "typing.Dict"}:
            return _TYPES[origin][inner if len(inner) > 1 else inner[0]]
        raise _Unclear
    kind = _TYPES.get(module.origin(node))
    if kind is None:
        raise _Unclear
    return kind
