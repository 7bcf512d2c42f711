"""The documentation is run and checked.

Conventions, for every page (`README.md`, `CHANGELOG.md`, `docs/**/*.md`):

- The `python` blocks of a page run in order, as one script, in an empty folder, with the local backend and no AWS
  account.
- A block that cannot run here says so in its fence, ```` ```python no-run ````, and why in an HTML comment on the line
  before it.
- A block of any language with `title="train.py"` is written to that file before the script starts, and is not part
  of it.
- `<!-- needs: postgres -->` gives the page a PostgreSQL through `SMKIT_POSTGRES__*` variables, `<!-- needs: s3 -->` an
  S3 with an empty bucket through `SMKIT_BUCKET`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from smkit import PostgresSettings, Settings

TREE = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page for page in (TREE / "README.md", TREE / "CHANGELOG.md", *(TREE / "docs").rglob("*.md")) if page.is_file()
)
NEEDS = {"postgres", "s3"}


class Block(NamedTuple):
    """A fenced block: the 0-based line of its first line of text, its language, its options, its text."""

    line: int
    language: str
    options: tuple[str, ...]
    text: str
    before: str

    @property
    def title(self) -> str | None:
        return next((option.removeprefix("title=") for option in self.options if option.startswith("title=")), None)

    @property
    def runs(self) -> bool:
        return self.language == "python" and self.title is None and "no-run" not in self.options


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page (CommonMark, section 4.5)."""
    blocks, lines = [], text.splitlines()
    number = 0
    while number < len(lines):
        opening = re.fullmatch(r"( *)(`{3,}|~{3,})([^`]*)", lines[number])
        if opening is None:
            number += 1
            continue
        before = next((line.strip() for line in reversed(lines[:number]) if line.strip()), "")
        first = number + 1
        number = first
        while not re.fullmatch(rf" *{opening[2]}{opening[2][0]}* *", lines[number]):
            number += 1
            if number == len(lines):
                raise AssertionError(f"the block that opens on line {first} is never closed")
        language, *options = shlex.split(opening[3].strip()) or [""]
        body = textwrap.dedent("\n".join(lines[first:number]))
        blocks.append(Block(first, language, tuple(options), body, before))
        number += 1
    return blocks


def without_blocks(text: str) -> str:
    """A page with the text of its blocks left blank."""
    lines = text.splitlines()
    for block in blocks_of(text):
        for number in range(block.line, block.line + len(block.text.splitlines())):
            lines[number] = ""
    return "\n".join(lines) + "\n"


def script_of(blocks: list[Block]) -> str:
    """The blocks that run, each on the lines that it has in the page, so that a traceback points into the page."""
    lines: list[str] = []
    for block in blocks:
        if block.runs:
            lines += [""] * (block.line - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


def needs_of(text: str) -> set[str]:
    return {need for group in re.findall(r"<!-- needs: ([\w, ]+) -->", text) for need in re.split(r"[, ]+", group)}


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", without_blocks(text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        repeats = sum(1 for anchor in anchors if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", anchor))
        anchors.add(f"{slug}-{repeats}" if repeats else slug)
    return anchors


def page_id(page: Path) -> str:
    return str(page.relative_to(TREE))


RUNNABLE = [page for page in PAGES if any(block.runs for block in blocks_of(page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("page", RUNNABLE, ids=page_id)
def test_the_examples_of_a_page_run(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    needs = needs_of(text)
    folder = tmp_path / "project"
    folder.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    if "s3" in needs:
        request.getfixturevalue("aws_env")
        monkeypatch.setenv("SMKIT_BUCKET", request.getfixturevalue("bucket"))
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if "postgres" in needs:
        server = request.getfixturevalue("pg")
        for name in ("host", "port", "database", "user", "password", "sslmode"):
            monkeypatch.setenv(f"SMKIT_POSTGRES__{name.upper()}", str(getattr(server, name)))
    monkeypatch.setenv("HOME", str(home))
    for block in blocks:
        if block.title:
            target = folder / block.title
            assert target.resolve().is_relative_to(folder.resolve()), f"{block.title} is outside the page's folder"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text + "\n", encoding="utf-8")
    script = folder / f"{page.stem}_examples.py"
    script.write_text(script_of(blocks), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, (
        f"the examples of {page_id(page)} failed (line numbers are the page's):\n{result.stdout}"
    )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_blocks_of_a_page_follow_the_conventions(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert needs_of(text) <= NEEDS
    for block in blocks_of(text):
        where = f"{page_id(page)}:{block.line}"
        assert block.language not in {"py", "python3", "pycon", ""}, f"{where}: write ```python, or name the language"
        unknown = [option for option in block.options if option != "no-run" and not option.startswith("title=")]
        assert unknown == [], where
        if "no-run" in block.options:
            assert re.fullmatch(r"<!-- .{10,} -->", block.before), f"{where}: the line before no-run says why not"
        if block.language == "python":
            compile(block.text, where, "exec", dont_inherit=True)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = []
    prose = re.sub(r"`[^`\n]*`", "", without_blocks(page.read_text(encoding="utf-8")))
    for link in re.findall(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)", prose) + re.findall(
        r"^\[[^\]]+\]: +(\S+)", prose, flags=re.MULTILINE
    ):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        exists = target.exists() and target.is_relative_to(TREE)
        if not exists or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("marker", ["quickstart", "tests"])
def test_the_readme_marks_the_commands_that_ci_runs(marker: str) -> None:
    text = (TREE / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^<!-- {marker} -->\n```sh\n(?:.+\n)+```$", text, flags=re.MULTILINE)) == 1


def test_the_page_of_settings_has_every_setting_and_its_default() -> None:
    page = (TREE / "docs" / "settings.md").read_text(encoding="utf-8")
    section = page.partition("## All settings")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]*?) \|", section, flags=re.MULTILINE))
    fields = {name: field for name, field in Settings.model_fields.items() if name != "postgres"}
    fields |= {f"postgres.{name}": field for name, field in PostgresSettings.model_fields.items()}
    assert set(rows) == set(fields)
    for name, field in fields.items():
        if field.default_factory is None:
            default = field.default
            expected = (
                "-"
                if default is None or default == ()
                else f"`{str(default).lower() if isinstance(default, bool) else default}`"
            )
            assert rows[name] == expected, name


def test_the_conventions_hold_their_own_example() -> None:
    page = textwrap.dedent(
        """\
        # Title `x`

        ```python
        a = 1
        ```

        <!-- it would need a cluster -->
        ```python no-run
        a = 1 / 0
        ```

        1. in a list

           ```python
           b = a + 1
           ```

        ```toml title="smkit.toml"
        [x]
        ```
        """
    )
    blocks = blocks_of(page)
    assert [(block.language, block.runs, block.title) for block in blocks] == [
        ("python", True, None),
        ("python", False, None),
        ("python", True, None),
        ("toml", False, "smkit.toml"),
    ]
    script = script_of(blocks)
    assert script.splitlines()[3] == page.splitlines()[3]
    namespace: dict[str, int] = {}
    exec(script, namespace)
    assert namespace["b"] == 2
    assert anchors_of(page) == {"title-x"}
    assert blocks[1].before == "<!-- it would need a cluster -->"
    with pytest.raises(AssertionError, match="never closed"):
        blocks_of("```python\nx")
