""".smkitignore against git itself: `git ls-files` reads the same files by the same rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smkit.errors import ConfigError
from smkit.jobs.ignoring import FILE, IgnoreRules, parse
from smkit.jobs.scanning import scan

if TYPE_CHECKING:
    from pathlib import Path

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed, which says what the rules mean")

NAMES = ["a", "b", "ab", "abb", "é", ".a", "*", "!", "#a", "a ", "]", "a]", "[a", "a\\b"]
FOLDERS = ["a", "b", "ab", "é"]


def make_tree(root: Path) -> None:
    for folder in ("", *FOLDERS, *(f"{outer}/{inner}" for outer, inner in product(FOLDERS[:2], FOLDERS[:2]))):
        (root / folder).mkdir(exist_ok=True)
        for name in NAMES:
            if not (root / folder / name).is_dir() and (folder.count("/") or name not in FOLDERS):
                (root / folder / name).touch()


def git_keeps(root: Path) -> set[str]:
    """Return the files that git would take, by the ignore files alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = ["-c", "core.ignoreCase=false", "-c", "core.precomposeUnicode=false"]
    result = subprocess.run(
        [str(GIT), *settings, "ls-files", "--others", "-z", f"--exclude-per-directory={FILE}"],
        cwd=root,
        env=environment | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        check=True,
        capture_output=True,
    )
    return {path for path in os.fsdecode(result.stdout).split("\0") if path and path.rpartition("/")[2] != FILE}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ignoring")
    subprocess.run([str(GIT), "init", "-q", str(root)], check=True, capture_output=True)
    make_tree(root)
    return root


PIECES = [
    "a", "b", "ab", "*", "**", "***", "a*", "*b", "a**", "**b", "a**b", "?", "?b", "[ab]", "[!a]", "[^a]", "[a-b]",
    "[b-a]", "[]a]", "[!]a]", "[a", "[", "[]", "[a-]", "[\\]]", "[[:alpha:]]", "[![:punct:]]", "[[:x:]]", "[[:a]",
    "[[a]", "[a-\\b]", "[--b]", "\\*", "\\!", "\\#a", "\\a", "a\\ ", "a ", "a\\\\b", "\\", ".a", "é", "[é]", "*[!b]",
    "#a", "]",
]  # fmt: skip
pattern = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "", "!", "!", "!!"]),
    st.sampled_from(["", "", "/", "//"]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "", "/", "//"]),
    st.sampled_from(["", "", " ", "  ", "\\ ", "\t", "\r"]),
)
content = st.lists(pattern | st.sampled_from(["", "# a", " ", "!", "/"]), max_size=4).map("\n".join)


@needs_git
@hypothesis_settings(max_examples=120, deadline=None)
@given(st.fixed_dictionaries({"": content}, optional={"a": content, "a/b": content, "ab": content}))
def test_a_folder_is_read_as_git_reads_it(tree: Path, files: dict[str, str]) -> None:
    written = {folder: tree / folder / FILE for folder in files}
    for folder, path in written.items():
        path.write_bytes(os.fsencode(files[folder]))
    try:
        assert set(scan(tree, "source_dir").files) == git_keeps(tree)
    finally:
        for path in written.values():
            path.unlink()


@needs_git
@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfa\nb\n",  # a byte order mark
        b"a\r\nb\r\n",
        b"a\r",
        b"*\n!*/\n!ab\n",  # only some names, at any depth
        b"/*\n!/a/\n/a/*\n!/a/b\n",  # only one path
        b"\xe9\n[\xc3]*\n",  # not UTF-8
        b"a/**/b\n**/ab\nb/**\n",
        b"a" * 5000,
    ],
)
def test_files_as_people_write_them(tree: Path, data: bytes) -> None:
    (tree / FILE).write_bytes(data)
    try:
        assert set(scan(tree, "source_dir").files) == git_keeps(tree)
    finally:
        (tree / FILE).unlink()


@pytest.mark.parametrize(
    ("lines", "left_out", "kept"),
    [
        ("*.csv", ["a.csv", "deep/er/a.csv"], ["a.csv.py"]),
        ("/data", ["data"], ["src/data"]),
        ("data/", [], ["data"]),
        ("*.csv\n!small.csv", ["big.csv"], ["small.csv"]),
        ("docs/**/*.md", ["docs/a.md", "docs/x/y/a.md"], ["a.md"]),
        ("# a comment\n\\#kept-name", ["#kept-name"], ["# a comment"]),
    ],
)
def test_rules_without_git(lines: str, left_out: list[str], kept: list[str]) -> None:
    rules = IgnoreRules().within("", parse(lines.encode(), FILE))
    assert [path for path in left_out if rules.leaving_out(path, is_folder=False) is None] == []
    assert [path for path in kept if rules.leaving_out(path, is_folder=False) is not None] == []


def test_the_rule_that_decides_says_where_it_is() -> None:
    rules = IgnoreRules().within("", parse(b"# data\n\n*.csv  \n", FILE))
    rules = rules.within("models/", parse(b"!keep.csv\n", f"models/{FILE}"))
    assert str(rules.leaving_out("models/a.csv", is_folder=False)) == ".smkitignore, line 3: *.csv"
    assert rules.leaving_out("models/keep.csv", is_folder=False) is None
    assert rules.leaving_out("other/keep.csv", is_folder=False) is not None


def test_a_file_that_would_match_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"models/\.smkitignore holds NUL bytes: write it as UTF-8"):
        parse("data\n".encode("utf-16"), f"models/{FILE}")
