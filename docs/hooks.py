"""Hooks of MkDocs: the pages are written for GitHub, and these make them right on the site too.

- `CHANGELOG.md` and `README.zh-CN.md` lie outside `docs/`; they are pages of the site, and the decisions get an index.
- A link that leaves `docs/` leads to the page that the file is on the site, or to the file in the repository.
- Headings get GitHub's anchors.
- `no-run` in a fence is for the tests (tests/test_docs.py), not for the reader.
- The Chinese pages say that they are Chinese.
"""  # noqa: INP001 - a file of MkDocs, in no package

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

TREE = Path(__file__).resolve().parent.parent
_DECISIONS = "decisions/index.md"
#: Files outside docs/ that are pages of the site.
_OUTSIDE = {"CHANGELOG.md": "changelog.md", "README.zh-CN.md": "zh/index.md"}
#: Where a path of the repository is found on the site, where that is not its path below docs/.
_PLACES = {**_OUTSIDE, "README.md": "index.md", "docs": "index.md", "docs/decisions": _DECISIONS}

_FENCE = re.compile(r"( *)(`{3,}|~{3,})([^`]*)")
_LINK = re.compile(r"(\]\()([^()\s]+)(\))")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")


# --- called by MkDocs -------------------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings GitHub's anchors, and add every decision to the navigation."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = anchor
    for section in config.nav or []:
        for pages in section.values():
            if pages == [_DECISIONS]:
                pages.extend(f"decisions/{name}" for name in decisions(TREE / "docs" / "decisions"))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    from mkdocs.structure.files import File

    for name, page in _OUTSIDE.items():
        files.append(File.generated(config, page, content=(TREE / name).read_text(encoding="utf-8")))
    index = decisions_page(decisions(TREE / "docs" / "decisions"))
    files.append(File.generated(config, _DECISIONS, content=index))
    return files


def on_page_markdown(
    markdown: str,
    page: Page,
    config: MkDocsConfig,
    files: Files,  # noqa: ARG001 - MkDocs passes it by name
) -> str:
    """Rewrite links and fences."""
    outside = {place: name for name, place in _OUTSIDE.items()}
    here = page.file.src_uri
    source = outside.get(here, f"docs/{here}")
    return for_the_site(markdown, lambda link: site_link(link, source, here, config.extra["source_url"]))


def on_post_page(
    output: str,
    page: Page,
    config: MkDocsConfig,  # noqa: ARG001 - MkDocs passes it by name
) -> str:
    """Name the language of a Chinese page, by which a browser chooses the form of its characters."""
    if page.file.src_uri.startswith("zh/"):
        return output.replace('<html lang="en"', '<html lang="zh-CN"', 1)
    return output


# --- what they stand on -----------------------------------------------------------------------------------------------


def anchor(heading: str, separator: str = "-") -> str:
    """Return the anchor that GitHub gives to a heading: lower case, no punctuation, a hyphen for each space."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def decisions(folder: Path) -> dict[str, str]:
    """Return the decisions in a folder, file name -> title, in the order of their numbers."""
    return {
        path.name: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for path in sorted(folder.glob("[0-9]*.md"))
    }


def decisions_page(titles: dict[str, str]) -> str:
    """Return a page that lists decisions."""
    intro = "What was decided, in which situation, and what follows from it."
    lines = [f"- [{title}]({name})" for name, title in titles.items()]
    return "\n".join(["# Decisions", "", intro, "", *lines, ""])


def for_the_site(markdown: str, rewrite: Callable[[str], str]) -> str:
    """Return a page without the tests' options in its fences, and with its links rewritten; code stays as it is."""
    lines, closing = [], None
    for line in markdown.splitlines():
        fence = _FENCE.fullmatch(line)
        if closing is not None:
            if closing.fullmatch(line):
                closing = None
        elif fence is not None:
            closing = re.compile(rf" *{fence[2]}{fence[2][0]}* *")
            line = re.sub(r" no-run(?= |$)", "", line)  # noqa: PLW2901 - the line as it is written
        else:
            line = _outside_code(line, rewrite)  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines) + "\n"


def _outside_code(line: str, rewrite: Callable[[str], str]) -> str:
    def link(match: re.Match[str]) -> str:
        return match[1] + rewrite(match[2]) + match[3]

    parts, end = [], 0
    for code in _CODE.finditer(line):
        # A link's text may be code: only what stands between spans can hold the `](...)`.
        parts += [_LINK.sub(link, line[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(link, line[end:])])


def site_link(link: str, source: str, page: str, source_url: str) -> str:
    """Return a link of a file of the repository as it is on the site.

    Args:
        link: As it is written: an address, an anchor, or a path from the file.
        source: Path of the file in the repository.
        page: Path of the page that the file is, below docs/.
        source_url: Address of the repository, for files that are no pages.
    """
    path, hash_sign, fragment = link.partition("#")
    if not path or re.match(r"[a-z][a-z0-9+.-]*:", path):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    place = _PLACES.get(target)
    if place is None and target.startswith("docs/") and target.endswith(".md"):
        place = target.removeprefix("docs/")
    if place is None:
        kind = "tree" if (TREE / target).is_dir() else "blob"
        return f"{source_url}/{kind}/main/{target}{hash_sign}{fragment}"
    return posixpath.relpath(place, posixpath.dirname(page) or ".") + hash_sign + fragment
