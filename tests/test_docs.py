"""The documentation is run and checked.

Conventions, for every page (`README.md`, `README.*.md`, `CHANGELOG.md`, `docs/**/*.md`):

- The `python` blocks of a page run in order, as one script, in an empty folder, with the local backend and no AWS
  account.
- A block that cannot run here says so in its fence, ```` ```python no-run ````, and why in an HTML comment on the line
  before it.
- One that needs nothing but an account, and says so in the words of `NEEDS_ACCOUNT`, runs in the sandbox: the page runs
  there a second time, with a bucket and a role, and with these blocks.
- A block of any language with `title="train.py"` is written to that file before the script starts, and is not part
  of it.
- `<!-- needs: postgres -->` gives the page a PostgreSQL through `SMKIT_POSTGRES__*` variables, `<!-- needs: s3 -->` an
  S3 with an empty bucket through `SMKIT_BUCKET`.
- A translation has the code of its original, but for the comments, and does not run a second time.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tokenize
import warnings
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from smkit import JobRunner, PostgresSettings, SageMakerOptions, Settings
from smkit.jobs.sagemaker.sdk import sdk_version

TREE = Path(__file__).resolve().parent.parent
PAGES = sorted([*TREE.glob("README*.md"), TREE / "CHANGELOG.md", *(TREE / "docs").rglob("*.md")])
#: By the translation.
ORIGINALS = {"README.zh-CN.md": "README.md", "docs/zh/tutorial.md": "docs/tutorial.md"}
NEEDS = {"postgres", "s3"}
NEEDS_ACCOUNT = "<!-- Needs an AWS account: a bucket and an execution role in the settings. -->"
IN_THE_SANDBOX = """
import os, runpy, sys
import smkit.testing
with smkit.testing.sandbox() as sandbox:
    os.environ |= {"SMKIT_BUCKET": sandbox.bucket, "SMKIT_ROLE": sandbox.role}
    runpy.run_path(sys.argv[1], run_name="__main__")
"""


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


def script_of(blocks: list[Block], *, in_account: bool = False) -> str:
    """The blocks that run, each on the lines that it has in the page, so that a traceback points into the page."""
    lines: list[str] = []
    for block in blocks:
        if block.runs or (in_account and block.before == NEEDS_ACCOUNT):
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


WITH_ACCOUNT = [
    page
    for page in PAGES
    if page_id(page) not in ORIGINALS and f"\n{NEEDS_ACCOUNT}\n" in page.read_text(encoding="utf-8")
]
RUNNABLE = [
    page
    for page in PAGES
    if page_id(page) not in ORIGINALS and any(block.runs for block in blocks_of(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("page", RUNNABLE, ids=page_id)
def test_the_examples_of_a_page_run(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, tmp_path, request, monkeypatch)


@pytest.mark.parametrize("page", WITH_ACCOUNT, ids=page_id)
def test_the_examples_that_need_an_account_run_in_the_sandbox(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, tmp_path, request, monkeypatch, in_account=True)


def run_page(
    page: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    *,
    in_account: bool = False,
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
    if "s3" in needs and not in_account:
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
    script.write_text(script_of(blocks, in_account=in_account), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, *(["-c", IN_THE_SANDBOX] if in_account else []), script.name],
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


def without_comments(block: Block) -> list[str]:
    """The tokens of a block of Python, the lines of another."""
    if block.language == "python":
        left_out = {tokenize.COMMENT, tokenize.NL}
        tokens = tokenize.generate_tokens(io.StringIO(block.text).readline)
        return [token.string for token in tokens if token.type not in left_out]
    lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in block.text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize(("translation", "original"), ORIGINALS.items())
def test_a_translation_has_the_code_of_its_original(translation: str, original: str) -> None:
    there, here = ((TREE / name).read_text(encoding="utf-8") for name in (original, translation))
    code = [(block.language, block.options, without_comments(block)) for block in blocks_of(here)]
    assert code == [(block.language, block.options, without_comments(block)) for block in blocks_of(there)]
    assert needs_of(here) == needs_of(there)


@pytest.mark.parametrize(("translation", "original"), ORIGINALS.items())
def test_a_translation_and_its_original_name_each_other_at_the_top(translation: str, original: str) -> None:
    for page, other in ((translation, original), (original, translation)):
        link = os.path.relpath(TREE / other, (TREE / page).parent)
        assert f"]({link})" in (TREE / page).read_text(encoding="utf-8")[:500], f"{page} does not link to {link}"


@pytest.mark.parametrize("page", ORIGINALS)
def test_a_chinese_paragraph_is_one_line(page: str) -> None:
    lines = without_blocks((TREE / page).read_text(encoding="utf-8")).splitlines()
    han = r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
    pairs = itertools.pairwise(lines)
    wrapped = [first for first, second in pairs if re.search(rf"{han}$", first) and re.match(han, second)]
    assert wrapped == [], "a line break in Chinese text is shown as a space"


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


def tables_of(page: str, columns: int) -> dict[str, list[list[str]]]:
    """The tables of a page that have this many columns: first cell of the header -> rows of cells."""
    tables: dict[str, list[list[str]]] = {}
    for table in re.findall(r"(?:^\|.*\|\n)+", (TREE / page).read_text(encoding="utf-8"), flags=re.MULTILINE):
        header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        if len(header) == columns:
            tables[header[0]] = rows
    return tables


def names_in_sdk(file: str, *definitions: str) -> set[str]:
    """What a class of the SDK declares (its annotated fields), or what its method takes; the SDK is not imported."""
    spec = importlib.util.find_spec("sagemaker")
    assert spec is not None
    roots = [Path(root) / file for root in spec.submodule_search_locations or ()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the SDK's source is warned of is its own business
        tree = ast.parse(next(root for root in roots if root.is_file()).read_text(encoding="utf-8"))
    names: set[str] = set()
    for definition in definitions:
        class_name, _, method = definition.partition(".")
        (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
        for node in found.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not method:
                names.add(node.target.id)
            if isinstance(node, ast.FunctionDef) and node.name == method:
                names |= {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    return names


def sdk_names(version: int) -> dict[str, set[str]]:
    """What the tables of the page on migration speak of: first cell of the header -> names that the SDK has."""
    if version == 2:
        return {
            "SDK v2": names_in_sdk("sklearn/estimator.py", "SKLearn.__init__")
            | names_in_sdk("estimator.py", "Framework.__init__", "EstimatorBase.__init__"),
            "SDK v2, `fit`": names_in_sdk("estimator.py", "EstimatorBase.fit"),
            "SDK v2, `TrainingInput`": names_in_sdk("inputs.py", "TrainingInput.__init__"),
        }
    configs = {name: names_in_sdk("core/training/configs.py", name) for name in ("SourceCode", "Compute", "InputData")}
    configs["Compute"] |= names_in_sdk("core/shapes/shapes.py", "ResourceConfig")  # which it extends
    return {
        "SDK v3, `ModelTrainer`": names_in_sdk("train/model_trainer.py", "ModelTrainer"),
        **{f"SDK v3, `{name}`": names for name, names in configs.items()},
        "SDK v3, `StoppingCondition`": names_in_sdk("core/shapes/shapes.py", "StoppingCondition"),
    }


@pytest.mark.parametrize("version", [2, 3])
def test_a_page_on_migration_names_what_the_sdk_has(version: int) -> None:
    installed = sdk_version()
    if installed is None or int(installed.partition(".")[0]) != version:
        pytest.skip(f"version {version} of the SageMaker SDK is not installed, but {installed}")
    known = sdk_names(version)
    tables = tables_of(f"docs/migration-sdk-v{version}.md", columns=3)
    assert set(tables) == set(known)
    for header, rows in tables.items():
        named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
        assert named, header
        assert named <= known[header], f"{header}: the SDK {installed} has no {named - known[header]}"


@pytest.mark.parametrize("version", [2, 3])
def test_a_page_on_migration_names_what_smkit_has(version: int) -> None:
    known = {
        "argument": set(inspect.signature(JobRunner.run).parameters),
        "option": {field.name for field in dataclasses.fields(SageMakerOptions)},
        "setting": set(Settings.model_fields),
    }
    checked = 0
    for rows in tables_of(f"docs/migration-sdk-v{version}.md", columns=3).values():
        for part in (part for row in rows for part in row[1].split(";")):
            kinds = [kind for kind in known if re.search(rf"\b{kind}s?\b", part)]
            for name in re.findall(r"`(\w+)`", part) if kinds else ():
                assert all(name in known[kind] for kind in kinds), f"{part.strip()!r}: smkit has no {name}"
                checked += 1
    assert checked > 20


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
