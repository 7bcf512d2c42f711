"""The site of the documentation: its navigation, the hooks of the build, and what a reader gets.

The last is tested where the extra `docs` is installed, which `test` does not bring; `.ci/run` does it.
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import smkit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

TREE = Path(__file__).resolve().parent.parent
DOCS = TREE / "docs"
CONFIG = (TREE / "mkdocs.yml").read_text(encoding="utf-8")
AREAS = {
    "artifacts": "smkit.artifacts",
    "datasets": "smkit.datasets",
    "doctor": "smkit.diagnosis",
    "entrypoint": "smkit.entrypoint",
    "infra": "smkit.infra",
    "jobs": "smkit.jobs",
    "project": "smkit.project",
    "sources": "smkit.sources",
    "testing": "smkit.testing",
}


def load_hooks() -> ModuleType:
    """Load docs/hooks.py as MkDocs does: by its path."""
    spec = importlib.util.spec_from_file_location("smkit_docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = load_hooks()


# --- the hooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "source", "page", "expected"),
    [
        ("settings.md#all-settings", "docs/jobs.md", "jobs.md", "settings.md#all-settings"),
        ("#metrics", "docs/jobs.md", "jobs.md", "#metrics"),
        ("https://example.com/x.md", "docs/jobs.md", "jobs.md", "https://example.com/x.md"),
        ("mailto:a@example.com", "docs/jobs.md", "jobs.md", "mailto:a@example.com"),
        ("docs/jobs.md", "CHANGELOG.md", "changelog.md", "jobs.md"),
        ("docs/zh/tutorial.md", "README.zh-CN.md", "zh/index.md", "tutorial.md"),
        ("docs/jobs.md#errors", "README.zh-CN.md", "zh/index.md", "../jobs.md#errors"),
        ("docs/decisions/", "README.zh-CN.md", "zh/index.md", "../decisions/index.md"),
        ("README.md", "README.zh-CN.md", "zh/index.md", "../index.md"),
        ("../README.zh-CN.md", "docs/index.md", "index.md", "zh/index.md"),
        ("../CHANGELOG.md", "docs/releasing.md", "releasing.md", "changelog.md"),
        ("../promises.md", "docs/decisions/0010-x.md", "decisions/0010-x.md", "../promises.md"),
        ("../examples/train.py", "docs/jobs.md", "jobs.md", "https://repo/blob/main/examples/train.py"),
        ("../examples/blog", "docs/jobs.md", "jobs.md", "https://repo/tree/main/examples/blog"),
        ("LICENSE", "README.zh-CN.md", "zh/index.md", "https://repo/blob/main/LICENSE"),
    ],
)
def test_a_link_leads_to_the_same_thing_on_the_site(link: str, source: str, page: str, expected: str) -> None:
    assert hooks.site_link(link, source, page, "https://repo") == expected


def test_fences_lose_what_is_for_the_tests_and_code_stays_as_it_is() -> None:
    page = "\n".join(
        [
            "[a `b` c](x.md) and `[no](link.md)`, [`d`](y.md#z).",
            "```python no-run",
            "[no](link.md)  # no-run",
            "```",
            '  ```python no-run title="train.py"',
            "  ```",
            "````md",
            "```python no-run",
            "````",
            "no-run, and [e](z.md)",
        ]
    )
    assert hooks.for_the_site(page, str.upper).splitlines() == [
        "[a `b` c](X.MD) and `[no](link.md)`, [`d`](Y.MD#Z).",
        "```python",
        "[no](link.md)  # no-run",
        "```",
        '  ```python title="train.py"',
        "  ```",
        "````md",
        "```python no-run",
        "````",
        "no-run, and [e](Z.MD)",
    ]


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Which methods to override", "which-methods-to-override"),
        ("Which value is used, and why: explain()", "which-value-is-used-and-why-explain"),
        ("S3 & Postgres", "s3--postgres"),
        ("准备账号", "准备账号"),
    ],
)
def test_anchors_are_those_of_github(heading: str, expected: str) -> None:
    assert hooks.anchor(heading) == expected


def test_the_decisions_get_an_index() -> None:
    titles = hooks.decisions(DOCS / "decisions")
    assert set(titles) == {path.name for path in (DOCS / "decisions").iterdir()}
    assert all(re.match(r"\d{4}: \S", title) for title in titles.values()), titles
    page = hooks.decisions_page(titles)
    assert "- [0010: " in page
    assert page.count("](") == len(titles)


# --- the navigation and the reference ---------------------------------------------------------------------------------


def navigation(entries: Any) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    else:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from navigation(entry)


def test_every_page_is_in_the_navigation_once() -> None:
    yaml = pytest.importorskip("yaml")
    listed = sorted(navigation(yaml.safe_load(CONFIG)["nav"]))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "decisions"}
    made = {"changelog.md", "decisions/index.md", "zh/index.md"}  # by the hooks
    assert listed == sorted(written | made)


def documented() -> set[str]:
    pages = (DOCS / "reference").glob("*.md")
    return {name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)}


@pytest.mark.parametrize("page", AREAS)
def test_the_reference_has_every_public_name_of_an_area(page: str) -> None:
    module = importlib.import_module(AREAS[page])
    text = (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(f"{AREAS[page]}.{name}" for name in module.__all__)


def test_the_reference_has_every_public_name_of_smkit() -> None:
    last_parts = {name.rpartition(".")[2] for name in documented()}
    left_out = set(smkit.__all__) - {"SmkitError", "__version__"}  # smkit.errors has the first
    assert left_out - last_parts == set()


def test_nothing_is_asked_of_the_network() -> None:
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load(CONFIG)
    assert config["theme"]["font"] is False
    assert "repo_url" not in config, "with it, the theme asks GitHub for the stars of the repository"
    assert not {"extra_javascript", "extra_css"} & set(config)


# --- the site as it is built ------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What the tests look at: the text outside code, code blocks, links, what is loaded, ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text: list[str] = []
        self.code: list[str] = []
        self.titles: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.language: str | None = None
        self._inside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.add(str(values["id"]))
        if tag == "html":
            self.language = values.get("lang")
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))
        if tag in {"script", "img", "iframe"} and values.get("src"):
            self.loaded.append(str(values["src"]))
        if tag == "link" and values.get("rel") in {"stylesheet", "preconnect", "icon"}:
            self.loaded.append(str(values["href"]))
        if tag in {"pre", "code", "script", "style"}:
            self._inside.append(tag)
            if tag == "pre":
                self.code.append("")
        elif tag == "span" and values.get("class") == "filename":
            self._inside.append("filename")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and (tag == self._inside[-1] or (tag == "span" and self._inside[-1] == "filename")):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if "pre" in self._inside:
            self.code[-1] += data
        elif self._inside and self._inside[-1] == "filename":
            self.titles.append(data)
        elif not self._inside:
            self.text.append(data)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    """The built site, by the page's path."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("the site is built where the extra is installed: pip install 'smkit[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=TREE,
        # A proxy that nobody listens at: what would ask the network fails.
        env={
            **os.environ,
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "NO_MKDOCS_2_WARNING": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    pages = {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}
    assert not list(folder.rglob("*.py")), "the hooks are no pages"
    return pages


def test_no_fence_is_broken(site: dict[str, Page]) -> None:
    for name, page in site.items():
        text = "".join(page.text)
        assert "```" not in text, name
        assert "no-run" not in text, name
        assert "title=" not in text, name
        assert "::: smkit" not in text, name
        assert "<!-- " not in html.unescape(text), name


def test_code_blocks_have_their_titles_and_their_whole_text(site: dict[str, Page]) -> None:
    page = site["tutorial/index.html"]
    assert page.titles == ["smkit.toml", "dataset.py", "train.py"]
    source = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+.*\n((?:.*\n)*?)```$", source, flags=re.MULTILINE)
    assert [code.strip("\n") for code in page.code] == [block.strip("\n") for block in blocks]


def test_every_link_of_the_site_leads_to_a_page_and_an_anchor(site: dict[str, Page]) -> None:
    broken = []
    for name, page in site.items():
        for link in page.links:
            path, _, fragment = link.partition("#")
            if re.match(r"[a-z]+:", link) or (name == "404.html" and path.startswith("/")):
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if not target.endswith(".html"):
                target = posixpath.normpath(f"{target}/index.html")
            if target not in site or (fragment and fragment not in site[target].ids | {"__top"}):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_a_page_loads_only_files_of_the_site(site: dict[str, Page]) -> None:
    for name, page in site.items():
        assert page.loaded, name
        assert [url for url in page.loaded if re.match(r"(https?:)?//", url)] == [], name


def test_the_reference_shows_signatures_with_their_types(site: dict[str, Page]) -> None:
    signatures = "\n".join(site["reference/settings/index.html"].code)
    assert 'backend: Literal["local", "sagemaker"] = "local"' in signatures.replace("'", '"')
    assert "postgres: PostgresSettings" in signatures
    assert "_origins" not in signatures
    assert "smkit.entrypoint.TrainingScript.build_model" in site["reference/entrypoint/index.html"].ids
    ids = {anchor for page in site.values() for anchor in page.ids}
    assert {name for name in documented() if name != "smkit.errors"} <= ids
    assert "smkit.errors.TrainingFailed" in ids


def test_chinese_pages_say_so(site: dict[str, Page]) -> None:
    languages = {name: page.language for name, page in site.items()}
    chinese = {name for name, language in languages.items() if language == "zh-CN"}
    assert chinese == {"zh/index.html", "zh/tutorial/index.html"}
    assert set(languages.values()) == {"en", "zh-CN"}
