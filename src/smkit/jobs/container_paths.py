"""Finds where code names `/opt/ml`, the base folder of the training container, as text.

In Python, text that the program uses: no comment, no docstring. In other files, lines that are no comment.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smkit.jobs.staging import StagedFile

BASE = "/opt/ml"
# Not a part of a longer name, and not the base folder of processing jobs.
_PATH = re.compile(r"(?<![\w.\-])/opt/+ml(?![\w.\-])(?!/+processing\b)(?P<rest>[\w.\-/]*)")
_WITH_COMMENTS = (".sh", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".conf")
_PLAIN = (".json",)
#: Calls whose last argument counts only where the variable that the first one names is not set.
_LOOKUPS = frozenset({"get", "getenv", "setdefault"})
#: Folder below the base -> Python that gives it on SageMaker and on this machine; the first that matches wins.
REPLACEMENTS = {
    "model": 'os.environ["SM_MODEL_DIR"]',
    "output/data": 'os.environ["SM_OUTPUT_DATA_DIR"]',
    "output/intermediate": 'os.environ["SM_OUTPUT_INTERMEDIATE_DIR"]',
    "output": 'os.environ["SM_OUTPUT_DIR"]',
    "input/config": 'os.environ["SM_INPUT_CONFIG_DIR"]',
    "input": 'os.environ["SM_INPUT_DIR"]',
    "code": "os.path.dirname(os.path.abspath(__file__))",
}


@dataclass(frozen=True)
class Mention:
    """One place.

    Args:
        file: Path inside the code folder.
        line: 1-based line.
        path: What is named, such as `/opt/ml/model`.
        is_fallback: Whether it counts only where a variable `SM_...` is not set.
    """

    file: str
    line: int
    path: str
    is_fallback: bool = False

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.path!r}"

    @property
    def replacement(self) -> str:
        """Python that gives the same folder on SageMaker and on this machine."""
        inside = self.path.removeprefix(BASE).strip("/")
        channel = re.match(r"input/data/([\w.\-]+)", inside)
        if channel:
            return f'os.environ["SM_CHANNEL_{channel[1].upper()}"]'
        found = next((code for folder, code in REPLACEMENTS.items() if f"{inside}/".startswith(f"{folder}/")), None)
        return found or REPLACEMENTS["model"]


def find_mentions(files: Mapping[str, StagedFile]) -> list[Mention]:
    """Return where the user's code names the folder, in the order of files and lines.

    Args:
        files: Path inside the code folder -> file, as staged; smkit's own are left out.
    """
    found: list[Mention] = []
    for name, file in files.items():
        if name.startswith("smkit/") or b"opt" not in file.data:
            continue
        text = file.data.decode("utf-8", "replace")
        suffix = PurePosixPath(name).suffix
        if suffix == ".py":
            found += _in_python(name, text)
        elif suffix in _PLAIN or suffix in _WITH_COMMENTS or name == "requirements.txt":
            found += _in_lines(name, text, comments=suffix not in _PLAIN)
    return found


def _in_lines(name: str, text: str, *, comments: bool) -> Iterator[Mention]:
    for number, line in enumerate(text.splitlines(), 1):
        code = re.sub(r"(^|\s)#.*", "", line) if comments else line
        for match in _PATH.finditer(code):
            yield Mention(name, number, _plain(match))


def _in_python(name: str, text: str) -> Iterator[Mention]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        # For another Python than this one, perhaps.
        yield from _in_lines(name, text, comments=True)
        return
    unused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and _is_text(node.value)}
    fallbacks = {id(inner) for node in ast.walk(tree) for part in _fallbacks(node) for inner in ast.walk(part)}
    found: dict[tuple[int, str], Mention] = {}
    for node in ast.walk(tree):
        match = None if id(node) in unused else _PATH.search(_text(node))
        if match is None or not isinstance(node, ast.expr):
            continue
        mention = Mention(name, node.lineno, _plain(match), is_fallback=id(node) in fallbacks)
        found.setdefault((mention.line, mention.path), mention)
    yield from sorted(found.values(), key=lambda mention: mention.line)


def _text(node: ast.AST) -> str:
    """Return the text that an expression stands for, as far as it is written there; else ""."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Call) and _text_of_parts(node.args[:1]) == "/opt":
        # os.path.join("/opt", "ml", "model"), Path("/opt", "ml")
        return _text_of_parts(node.args)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
        # Path("/opt") / "ml"
        left = node.left.args if isinstance(node.left, ast.Call) else []
        return _text_of_parts([*left, node.right]) if _text_of_parts(left) == "/opt" else ""
    return ""


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _text_of_parts(parts: list[ast.expr]) -> str:
    texts = []
    for part in parts:
        if not _is_text(part):
            break
        texts.append(str(ast.literal_eval(part)).rstrip("/"))
    return "/".join(texts)


def _fallbacks(node: ast.AST) -> list[ast.expr]:
    """Return the parts of an expression that count only where a variable of the container is not set."""
    if isinstance(node, ast.Call) and _is_lookup(node):
        return [*node.args[1:], *(keyword.value for keyword in node.keywords)]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and _is_lookup(node.values[0]):
        return node.values[1:]
    return []


def _is_lookup(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return False
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _LOOKUPS and str(node.args[0].value).startswith("SM_")


def _plain(match: re.Match[str]) -> str:
    return f"{BASE}{match['rest']}".rstrip("/.")
