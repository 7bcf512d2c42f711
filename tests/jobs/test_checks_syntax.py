"""What the check says of syntax, against what the real interpreters do."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import smkit.jobs.checks.syntax as syntax_module
from smkit.jobs.checks.syntax import Unreadable, newer_syntax, parse
from tests.pythons import find_python, python_or_skip

VERSIONS = [(3, minor) for minor in range(7, 14)]
HOSTS = [version for version in VERSIONS if version >= (3, 10)]

SNIPPETS = {
    "walrus": "if (n := 3) > 2:\n    print(n)\n",
    "positional-only": "def f(a, /, b):\n    return a\n",
    "positional-only lambda": "g = lambda a, /: a\n",
    "self-documenting f-string": "x = 1\nprint(f'{x=}')\n",
    "self-documenting f-string with a format": "x = 1\nprint(f'{x = !r:>5}')\n",
    "comparison in an f-string": "x = 1\nprint(f'{x==1}')\n",
    "keyword argument in an f-string": "print(f'{dict(a=1)}')\n",
    "unpacking after return": "def f(a):\n    return 1, *a\n",
    "unpacking after yield": "def f(a):\n    yield 1, *a\n",
    "unpacking in parentheses": "def f(a):\n    return (1, *a)\n",
    "continue in finally": "for i in []:\n    try:\n        pass\n    finally:\n        continue\n",
    "continue in a loop in finally": "try:\n    pass\nfinally:\n    for j in []:\n        continue\n",
    "decorator with an index": "b = [lambda f: f]\n@b[0]\ndef f(): pass\n",
    "decorator that is a call": "import functools\n@functools.lru_cache(maxsize=None)\ndef f(): pass\n",
    "decorator that calls a call": "def d(): return lambda: (lambda f: f)\n@d()()\ndef f(): pass\n",
    "unpacking in for": "a = []\nfor x in *a, 1: pass\n",
    "unpacking in for in parentheses": "a = []\nfor x in (*a, 1): pass\n",
    "walrus in an index": "a = [1]\na[i := 0]\n",
    "walrus in an index in parentheses": "a = [1]\na[(i := 0)]\n",
    "walrus in a set": "{a := 1, 2}\n",
    "walrus in a set in parentheses": "{(a := 1), 2}\n",
    "walrus in a set comprehension": "{a := x for x in []}\n",
    "match": "x = 1\nmatch x:\n    case 1:\n        pass\n",
    "match as a name": "match = 1\nprint(match)\n",
    "with in parentheses": "with (open('a') as f, open('b') as g):\n    pass\n",
    "with one item in parentheses": "with (open('a')) as f:\n    pass\n",
    "with a call of two arguments": "with open('a', 'r') as f, open('b') as g:\n    pass\n",
    "except*": "try:\n    pass\nexcept* ValueError:\n    pass\n",
    "except with a tuple": "try:\n    pass\nexcept (ValueError, KeyError):\n    pass\n",
    "unpacking in an index": "a = {}\nb = []\na[*b]\n",
    "unpacking among others in an index": "a = {}\nb = []\na[1, *b]\n",
    "unpacking in parentheses in an index": "a = {}\nb = []\na[(1, *b)]\n",
    "variadic generics": "def f(*args: *tuple[int]): pass\n",
    "type statement": "type X = int\n",
    "type parameters": "def f[T](x: T) -> T: return x\n",
    "type parameters of a class": "class A[T]: pass\n",
    "default of a type parameter": "def f[T = int](x: T) -> T: return x\n",
    "same quotes in an f-string": "d = {}\nf'{d['a']}'\n",
    "same quotes in a nested f-string": "f'{f'{1}'}'\n",
    "other quotes in a nested f-string": "f'{f\"{1}\"}'\n",
    "backslash in an f-string": "f'{\"\\n\".join([])}'\n",
    "backslash outside the field": "f'{1}\\n'\n",
    "comment in an f-string": "f'''{\n1 # one\n}'''\n",
    "line break in an f-string": "f'{\n1\n}'\n",
    "line break in a long f-string": "f'''{\n1\n}'''\n",
    "short quotes in a long f-string": 'x = {}\nf"""{x[\'a\']}"""\n',
    "nested format": "w = 3\nf'{1:{w}}'\n",
    "annotations as text": "from __future__ import annotations\ndef f(a: int | None): pass\n",
    "asynchronous comprehension": "async def f():\n    return [x async for x in y]\n",
    "asynchronous inside synchronous": "async def f():\n    return [[x async for x in y] for z in w]\n",
    "asynchronous inside asynchronous": "async def f():\n    return [[x async for x in y] async for z in w]\n",
    "digits with underscores": "a = 1_000\n",
    "beyond ASCII": "é = 1\n# π\nprint(f'{é!r}')\n{(é := 2)}\n",
    "ordinary": "import os\nclass A:\n    x: int = 1\n    def f(self): return [i for i in range(3) if i]\n",
}

_COMPILE = """
import json, sys, warnings
warnings.simplefilter("ignore")
def compiles(source):
    try:
        compile(source, "snippet.py", "exec")
    except SyntaxError:
        return False
    return True
print(json.dumps([compiles(source) for source in json.load(sys.stdin)]))
"""
_JUDGE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("syntax", sys.argv[1])
syntax = importlib.util.module_from_spec(spec)
sys.modules["syntax"] = syntax
spec.loader.exec_module(syntax)
def judge(source, version):
    tree = syntax.parse(source.encode(), "snippet.py")
    if isinstance(tree, syntax.Unreadable):
        return None
    return not syntax.newer_syntax(tree, source.encode(), tuple(version))
sources, versions = json.load(sys.stdin)
print(json.dumps([[judge(source, version) for source in sources] for version in versions]))
"""


@functools.cache
def accepted(version: tuple[int, int]) -> dict[str, bool] | None:
    """Which snippets the real Python of a version compiles; None where there is none here."""
    interpreter = find_python(version)
    if interpreter is None:
        return None
    result = subprocess.run(
        [interpreter, "-I", "-c", _COMPILE],
        input=json.dumps(list(SNIPPETS.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(SNIPPETS, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: f"on-{host[0]}.{host[1]}")
def test_the_verdict_is_that_of_the_real_pythons(host: tuple[int, int]) -> None:
    """Whichever Python smkit runs on, it says of each older one what that one says itself."""
    interpreter = python_or_skip(host)
    older = [version for version in VERSIONS if version <= host and accepted(version) is not None]
    if len(older) < 2:
        pytest.skip(f"no Python older than {host[0]}.{host[1]} is on this machine")
    result = subprocess.run(
        [interpreter, "-I", "-B", "-c", _JUDGE, str(Path(syntax_module.__file__))],
        input=json.dumps([list(SNIPPETS.values()), older]),
        capture_output=True,
        text=True,
        check=True,
    )
    host_accepts = accepted(host)
    assert host_accepts is not None
    wrong = []
    for version, verdicts in zip(older, json.loads(result.stdout), strict=True):
        truth = accepted(version)
        assert truth is not None
        for name, verdict in zip(SNIPPETS, verdicts, strict=True):
            # What the host itself cannot read, it does not judge.
            if verdict != (truth[name] if host_accepts[name] else None):
                wrong.append((version, name, verdict))
    assert wrong == []


READABLE = [name for name, text in SNIPPETS.items() if not isinstance(parse(text.encode(), "x.py"), Unreadable)]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(READABLE), max_size=4, unique=True), version=st.sampled_from(VERSIONS))
def test_a_module_needs_what_its_parts_need(names: list[str], version: tuple[int, int]) -> None:
    # A future import stands first or not at all.
    parts = [SNIPPETS[name] for name in names if "__future__" not in SNIPPETS[name]]

    def needs(text: str) -> set[str]:
        source = text.encode()
        tree = parse(source, "x.py")
        assert not isinstance(tree, Unreadable)
        return {item.what for item in newer_syntax(tree, source, version)}

    apart = set().union(*(needs(part) for part in parts)) if parts else set()
    together = needs("".join(parts))
    # The parser, where it is asked, stops at the first thing that it refuses.
    assert together <= apart
    assert bool(together) == bool(apart)


def test_a_finding_says_where_what_and_since_when() -> None:
    source = b"import os\n\nif (n := len(os.sep)):\n    print(n)\nif (m := 1): pass\n"
    tree = parse(source, "x.py")
    assert not isinstance(tree, Unreadable)
    assert newer_syntax(tree, source, (3, 7)) == [(3, "the assignment expression ':='", (3, 8))]
    assert newer_syntax(tree, source, (3, 8)) == []
    assert newer_syntax(tree, source, (sys.version_info[0], sys.version_info[1] + 1)) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"x = (1\n", "SyntaxError: '(' was never closed"),
        (b"return 1\n", "SyntaxError: 'return' outside function"),
        (b"if x:\npass\n", "IndentationError: expected an indented block"),
        (b"x = '\xff'\n", "SyntaxError"),
        (b"x = 1\0\n", "null bytes"),
        (b"# -*- coding: no-such-encoding -*-\n", "SyntaxError"),
    ],
)
def test_what_no_python_reads(source: bytes, message: str) -> None:
    tree = parse(source, "x.py")
    assert isinstance(tree, Unreadable)
    assert message in tree.message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-8"])
def test_encodings_are_those_that_the_source_declares(encoding: str) -> None:
    head = "# -*- coding: latin-1 -*-\n" if encoding == "latin-1" else ""
    source = (head + "é = f'{1}'\nwith (open(é) as a, open(é) as b): pass\n").encode(encoding)
    tree = parse(source, "x.py")
    assert not isinstance(tree, Unreadable)
    assert [item.what for item in newer_syntax(tree, source, (3, 8))] == ["parentheses around the items of 'with'"]
