"""Every command line of the documentation is one that `smkit` takes: it is parsed by the real commands, and not run."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from smkit.cli.app import app
from smkit.cli.parameters import parse_age, parse_duration, parse_expected
from smkit.infra.templates import check_kind
from smkit.project import SOURCES
from tests.test_docs import PAGES, TREE, blocks_of, page_id, without_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PUNCTUATION = "();<>|&"


def _check_checks(names: list[str]) -> None:
    page = (TREE / "docs" / "doctor.md").read_text(
        encoding="utf-8"
    )  # whose table tests/doctor compares with the checks
    assert set(names) <= set(re.findall(r"^\| `([\w-]+)` \|", page, flags=re.MULTILINE)), names


def _check_source(name: str) -> None:
    assert name in SOURCES, name


#: What commands read only once they run: parameter -> what raises where the value is wrong.
VALUES: dict[str, Any] = {
    "timeout": lambda value: value if isinstance(value, float) else parse_duration(value),
    "max_wait": parse_duration,
    "keep_alive": parse_duration,
    "keep_newer_than": parse_age,
    "older_than": parse_age,
    "expected": parse_expected,
    "kind": check_kind,
    "only": _check_checks,
    "source": _check_source,
}


def commands_in(script: str) -> Iterator[list[str]]:
    """The words behind `smkit` of each call in a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=_PUNCTUATION)
        lexer.commenters = "#"
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(_PUNCTUATION):
                words.append(word)
                continue
            if word.startswith(">") and words and words[-1].isdigit():
                words.pop()  # 2> file
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "smkit":
                yield words[1:]
            words = []


def parse(words: list[str]) -> None:
    """Parse a whole command line, as `smkit` would before it runs the command."""
    command: Any = typer.main.get_command(app)
    context, name = None, "smkit"
    if words == ["--install-completion"]:
        # To parse it is to do it.
        assert any("--install-completion" in option.opts for option in command.params)
        return
    try:
        while True:
            context = command.make_context(name, list(words), parent=context)
            for parameter, value in context.params.items():
                if parameter in VALUES and value:
                    VALUES[parameter](value)
            if not hasattr(command, "resolve_command"):
                return
            name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    except typer.Exit:
        return  # --help


def parse_partly(words: list[str]) -> None:
    """Check that a command, and each option that is named, is there: prose leaves out what does not matter."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    known = {text for option in command.params for text in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    given = {text for word in words for text in re.findall(r"^\[?(--?[a-z][a-z-]*)", word)}
    assert given <= known, f"there is no option {given - known}"


def mistake_in(check: Callable[[list[str]], None], words: list[str]) -> str | None:
    try:
        check(words)
    except Exception as error:  # noqa: BLE001 - typer's own, and those of the checks
        return f"smkit {shlex.join(words)}: {error!r}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_command_lines_of_a_page_can_be_read(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shell = "\n".join(block.text for block in blocks_of(text) if block.language == "sh")
    # `smkit metric ...` is a line of a log.
    mentions = re.findall(r"`smkit (?!metric )([^`\n]+)`", without_blocks(text))
    mistakes = [mistake_in(parse, words) for words in commands_in(shell)]
    mistakes += [mistake_in(parse_partly, mention.split()) for mention in mentions]
    assert [mistake for mistake in mistakes if mistake] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("smkit models list houses --json | jq -r '.[] | select(.a < 1)'  # smkit nothing", False),
        ('name=$(smkit run train.py --no-wait) && smkit jobs attach "$name"', False),
        ("smkit run train.py --json 2> train.log || echo smkit nothing", False),
        ("smkit jobs list --region cn-north-1", False),
        ("smkit --root s3://bucket/other models list", False),
        ("smkit models prune --help", False),
        ("smkit modles list", True),
        ("smkit models lst", True),
        ("smkit models list --jsno", True),
        ("smkit models show", True),
        ("smkit jobs list --limit 0", True),
        ("smkit run train.py --timeout soon", True),
        ("smkit models gc --older-than 3y", True),
        ("smkit infra deploy foundatoin", True),
        ("smkit doctor --only bukket", True),
        ("X=1 smkit run a b", True),
        ("cd x && smkit nothing", True),
    ],
)
def test_a_wrong_command_line_is_found(line: str, wrong: bool) -> None:
    calls = list(commands_in(line))
    assert calls
    assert any(mistake_in(parse, words) for words in calls) is wrong


@pytest.mark.parametrize("words", ["models lst", "infra deploy --dry", "init --sauce [TEXT]"])
def test_a_wrong_mention_is_found(words: str) -> None:
    with pytest.raises(AssertionError, match="there is no"):
        parse_partly(words.split())
