"""Reads requirements.txt as pip in the container would: what it installs, and what cannot work there.

https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from smkit.jobs.checks.report import Finding, problem, warning
from smkit.jobs.containers import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smkit.jobs.staging import StagedFile

FILE = "requirements.txt"

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_CLAUSE = r"(?:===\s*[^\s,;()]+|(?:==|~=|!=|<=|>=|<|>)\s*v?[0-9][A-Za-z0-9.*+!_-]*)"
_CLAUSES = rf"{_CLAUSE}(?:\s*,\s*{_CLAUSE})*(?:\s*,)?"
_REQUIREMENT = re.compile(
    rf"""(?P<name>{_NAME}) \s* (?: \[ [^\]]* \] )? \s*
    (?: @ \s* (?P<url>\S+) | (?P<clauses> {_CLAUSES} | \( \s* (?: {_CLAUSES} )? \s* \) )? ) \s*
    (?: ; \s* (?: ["'(] | python_ | os_ | sys_ | platform_ | implementation_ | extra\b ) .* )?""",
    re.VERBOSE,
)
#: Not `==2.*`, which leaves the choice to pip.
_PINNED = re.compile(r"={2,3}\s*([^\s,*]+)(?![^\s,])")
_URL = re.compile(r"(?P<vcs>git|hg|svn|bzr)\+[a-z]+://|(?P<web>https?)://|(?P<file>file:)", re.IGNORECASE)
_EGG = re.compile(rf"[#&]egg=({_NAME})")
_WHEEL = re.compile(r"(?P<name>[A-Za-z0-9._]+)-[0-9][^/-]*(-.*)?\.(whl|tar\.gz|zip)")
#: Options of one requirement, after it on the same line.
_TRAILING = re.compile(r"\s+--(hash|config-settings?|global-option|install-option)\b.*")
_FOLLOWED = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
_INDEXES = frozenset({"-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index"})
#: https://pip.pypa.io/en/stable/reference/requirements-file-format/#global-options
_FLAGS = frozenset(
    {"--no-binary", "--only-binary", "--prefer-binary", "--require-hashes", "--pre", "--trusted-host", "--use-feature"}
)


@dataclass(frozen=True)
class Requirements:
    """What requirements.txt asks for.

    Args:
        exists: Whether there is a file, so that pip runs.
        names: Normalised distribution name -> the version that `==` pins it to, or "".
        opaque: Whether it installs something whose name it does not say, such as a URL.
        names_index: Whether it says itself where packages come from.
        findings: What is wrong with it.
    """

    exists: bool
    names: Mapping[str, str]
    opaque: bool
    names_index: bool
    findings: tuple[Finding, ...]


def read_requirements(files: Mapping[str, StagedFile], *, here: bool) -> Requirements:
    """Read the requirements of staged code.

    Args:
        files: Path inside the code folder -> file.
        here: Whether the job shall run on this machine: then a path of it is a warning.
    """
    reader = _Reader(files, problem if not here else warning)
    if FILE in files:
        reader.read(FILE, installs=True)
    return Requirements(FILE in files, reader.names, reader.opaque, reader.names_index, tuple(reader.findings))


class _Reader:
    def __init__(self, files: Mapping[str, StagedFile], say_of_path: Callable[[str, str, str], Finding]) -> None:
        self._say_of_path = say_of_path
        self._files = files
        self._seen: set[str] = set()
        self.names: dict[str, str] = {}
        self.opaque = False
        self.names_index = False
        self.findings: list[Finding] = []

    def read(self, path: str, *, installs: bool) -> None:
        if path in self._seen:
            return
        self._seen.add(path)
        try:
            text = self._files[path].data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.findings.append(problem(path, f"is not UTF-8 text: {error.reason}", "save it as UTF-8"))
            return
        for number, line in _logical_lines(text):
            self._line(path, f"{path}:{number}", line, installs=installs)

    def _line(self, path: str, where: str, line: str, *, installs: bool) -> None:
        option, value = _split_option(line)
        if option in _FOLLOWED:
            self._follow(path, where, value, installs=installs and _FOLLOWED[option] == "-r")
        elif option in {"-e", "--editable"}:
            self._install(where, value, editable=True)
        elif option in _INDEXES:
            self.names_index = True
            self._check_index(where, option, value)
        elif option in _FLAGS:
            return
        elif option:
            self.findings.append(problem(where, f"pip allows no option {option} in a requirements file", "remove it"))
        elif installs:
            self._install(where, _TRAILING.sub("", line), editable=False)

    def _follow(self, path: str, where: str, value: str, *, installs: bool) -> None:
        if "://" in value:
            self.opaque = True
            return
        # Relative to the file that names it.
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), value))
        if target in self._files:
            self.read(target, installs=installs)
        else:
            self.findings.append(
                problem(where, f"{value!r} is not in the code", f"put {value} into source_dir, or copy its lines here")
            )

    def _install(self, where: str, text: str, *, editable: bool) -> None:
        if (kind := _URL.match(text)) is not None:
            self._install_url(where, text, kind)
        elif (match := None if editable else _REQUIREMENT.fullmatch(text)) is not None and not _is_path(text):
            if match["url"] is not None and (kind := _URL.match(match["url"])) is not None and kind["file"]:
                self._refuse_path(where, match["url"])
            pin = _PINNED.search(match["clauses"] or "")
            self.names[normalise(match["name"])] = pin[1] if pin else ""
        elif editable or _is_path(text):
            self._install_path(where, text)
        else:
            self.findings.append(
                problem(where, f"{text!r} is not a requirement", "write a name and versions, such as 'xgboost>=2,<3'")
            )

    def _install_url(self, where: str, text: str, kind: re.Match[str]) -> None:
        if kind["file"]:
            self._refuse_path(where, text)
            return
        name = _EGG.search(text) or _WHEEL.search(posixpath.basename(urlsplit(text).path))
        if name is None:
            self.opaque = True
        else:
            self.names[normalise(name[1])] = ""

    def _install_path(self, where: str, text: str) -> None:
        # pip runs in the code folder, whichever file the line is in.
        target = posixpath.normpath(text.partition("[")[0])
        if target in self._files or target == "." or any(path.startswith(target + "/") for path in self._files):
            wheel = _WHEEL.fullmatch(posixpath.basename(target))
            if wheel is None:
                self.opaque = True
            else:
                self.names[normalise(wheel["name"])] = ""
        else:
            self._refuse_path(where, text)

    def _refuse_path(self, where: str, text: str) -> None:
        self.findings.append(
            self._say_of_path(
                where,
                f"{text!r} is a path of this machine, which the container does not have",
                "put a wheel into source_dir and name it by its path there",
            )
        )

    def _check_index(self, where: str, option: str, value: str) -> None:
        if option in {"-f", "--find-links"} and "://" not in value:
            folder = posixpath.normpath(value)
            if folder != "." and not any(path.startswith(folder + "/") for path in self._files):
                self._refuse_path(where, value)
        elif urlsplit(value).password:
            # The address is not repeated.
            self.findings.append(
                warning(
                    where,
                    f"{option} holds a password, which is stored with the code of each job",
                    "leave it out, and set pip_index_url (SMKIT_PIP_INDEX_URL) in the settings",
                )
            )


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Return (number of the first line, text) without comments, continued lines joined."""
    lines: list[tuple[int, str]] = []
    start, kept = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        start = start or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            kept += line[:-1]
            continue
        whole = re.sub(r"(^|\s)#.*$", "", kept + line).strip()
        if whole:
            lines.append((start, whole))
        start, kept = 0, ""
    if last := re.sub(r"(^|\s)#.*$", "", kept).strip():
        lines.append((start, last))
    return lines


def _split_option(line: str) -> tuple[str, str]:
    """Return an option and its value, as `-r x`, `-rx`, `--requirement x` or `--requirement=x`; ("", "") for none."""
    if not line.startswith("-"):
        return "", ""
    name, _, value = line.partition(" ")
    if name.startswith("--"):
        name, equals, attached = name.partition("=")
        return name, (attached if equals else value).strip()
    return name[:2], (name[2:].lstrip("=") + " " + value).strip()


def _is_path(text: str) -> bool:
    name = text.partition(";")[0].partition("@")[0]
    return name.startswith((".", "/", "~")) or "/" in name or "\\" in name or name.strip().endswith((".whl", ".tar.gz"))
