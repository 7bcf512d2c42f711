"""Which files `create` writes, which it leaves alone, and that it writes all of them or none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import smkit
from smkit.errors import ConfigError, InvalidNameError, ProjectError
from smkit.project import create
from smkit.project.creating import _name_from

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = (
    ".gitignore",
    ".smkitignore",
    "README.md",
    "data/houses.csv",
    "dataset.py",
    "notebook.ipynb",
    "pyproject.toml",
    "smkit.toml",
    "tests/test_pipeline.py",
    "train.py",
)
USERS_OWN = (".gitignore", ".smkitignore", "README.md", "pyproject.toml", "smkit.toml")


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything in a folder: path -> bytes of a file, target of a link, None of a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def test_a_new_folder_gets_every_file(tmp_path: Path) -> None:
    project = create(tmp_path / "a" / "houses")
    assert project.folder == tmp_path / "a" / "houses"
    assert (project.name, project.written, project.unchanged, project.kept) == ("houses", FILES, (), ())
    assert {name for name, content in tree(project.folder).items() if content is not None} == set(FILES)


def test_files_have_the_mode_of_any_new_file(tmp_path: Path) -> None:
    project = create(tmp_path)
    (tmp_path / "other").touch()
    assert {(tmp_path / name).stat().st_mode for name in project.written} == {(tmp_path / "other").stat().st_mode}
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "tests").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_a_relative_folder_is_one_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert create().folder == create(".").folder == inner
    # Not above the test's own folder: settings there would be those of every test beside it.
    assert create("..").folder.resolve() == inner.parent


@pytest.mark.parametrize("source", ["files", "s3", "postgres"])
def test_a_second_run_changes_nothing(tmp_path: Path, source: str) -> None:
    create(tmp_path, source=source)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = create(tmp_path, source=source)
    assert (again.written, again.unchanged, again.kept) == ((), FILES, ())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_is_missing_is_added(tmp_path: Path) -> None:
    create(tmp_path)
    complete = tree(tmp_path)
    for name in ("train.py", "tests/test_pipeline.py"):
        (tmp_path / name).unlink()
    (tmp_path / "tests").rmdir()
    assert create(tmp_path).written == ("tests/test_pipeline.py", "train.py")
    assert tree(tmp_path) == complete


@pytest.mark.parametrize("name", sorted(set(FILES) - set(USERS_OWN)))
def test_a_file_with_other_content_is_an_error_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ProjectError, match=f"has {name} already, with another content; nothing was written"):
        create(tmp_path)
    assert tree(tmp_path) == before


def test_every_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.py").write_text("mine")
    (tmp_path / "train.py").mkdir()
    with pytest.raises(ProjectError, match=r"has dataset\.py, train\.py already"):
        create(tmp_path)


def test_a_file_of_the_same_length_is_another_file(tmp_path: Path) -> None:
    create(tmp_path)
    content = bytearray((tmp_path / "train.py").read_bytes())
    content[-1:] = b" "
    (tmp_path / "train.py").write_bytes(content)
    with pytest.raises(ProjectError, match=r"train\.py"):
        create(tmp_path)


def test_a_pipe_in_the_way_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.py")
    with pytest.raises(ProjectError, match=r"train\.py"):
        create(tmp_path)


def test_files_that_a_folder_often_has_are_kept(tmp_path: Path) -> None:
    own = dict.fromkeys(USERS_OWN, b"# mine\n")
    for name, content in own.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("mine")
    project = create(tmp_path)
    assert project.kept == USERS_OWN
    assert project.written == tuple(name for name in FILES if name not in own)
    assert {name: (tmp_path / name).read_bytes() for name in own} == own


# --- names and settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("houses", "houses"),
        ("House Prices (2026)", "house-prices-2026"),
        ("Häuser_Straße", "hauser_strasse"),
        ("房价", "project"),
        ("房价 2026", "2026"),
        ("...", "project"),
        ("x" * 100, "x" * 63),
        ("-a'b\"\n", "a-b"),
    ],
)
def test_the_name_is_made_of_the_folders(tmp_path: Path, folder: str, name: str) -> None:
    project = create(tmp_path / folder)
    assert project.name == name
    assert smkit.Settings(project=name).project == name
    assert f'project = "{name}"' in (project.folder / "smkit.toml").read_text(encoding="utf-8")


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1))
def test_any_folder_has_a_name_that_the_settings_allow(folder: str) -> None:
    assert smkit.Settings(project=_name_from(Path("/somewhere", folder)))


@pytest.mark.parametrize("name", ["", "Houses", "house prices", "-houses", "x" * 64, 'a"\nbucket = "b'])
def test_a_name_that_is_not_allowed_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a project name: 1 to 63 lower-case letters, digits"):
        create(tmp_path / "new", name=name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("region", ["", "ningxia", 'cn-north-1"'])
def test_a_region_that_is_not_allowed_is_an_error(tmp_path: Path, region: str) -> None:
    with pytest.raises(ConfigError, match="is not allowed: expected a region such as 'cn-northwest-1'"):
        create(tmp_path / "new", region=region)
    assert not (tmp_path / "new").exists()


def test_a_source_that_is_not_allowed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no source 'postgre'; did you mean 'postgres'"):
        create(tmp_path / "new", source="postgre")
    assert not (tmp_path / "new").exists()


def test_name_and_region_stand_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path, name="prices", region="eu-central-1")
    settings = smkit.Settings()
    assert (settings.project, settings.region) == ("prices", "eu-central-1")
    assert create(tmp_path).written == (), "a second run needs no options: smkit.toml has what they said"


def test_the_region_is_that_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert create(tmp_path / "default").region == "cn-northwest-1"
    monkeypatch.setenv("SMKIT_REGION", "us-east-1")
    assert create(tmp_path / "other").region == "us-east-1"
    assert 'region = "us-east-1"' in (tmp_path / "other" / "smkit.toml").read_text(encoding="utf-8")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "smkit.toml").write_text('region = "cn-north-1"\n', encoding="utf-8")
    assert create(tmp_path / "kept").region == "cn-north-1"


def test_an_existing_settings_file_says_name_and_region(tmp_path: Path) -> None:
    (tmp_path / "smkit.toml").write_text('project = "prices"\nregion = "cn-north-1"\nbucket = "b-1"\n')
    project = create(tmp_path, name="prices")
    assert (project.name, project.kept) == ("prices", ("smkit.toml",))
    assert (tmp_path / "README.md").read_text().startswith("# prices\n")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ('project = "prices"', {"name": "houses"}, r"with project = 'prices': write project = \"houses\" there"),
        ("", {"region": "cn-north-1"}, r"with region = None: write region = \"cn-north-1\" there"),
        ('project = "House Prices"', {}, "'House Prices' is not a project name"),
        ("project = 3", {}, "3 is not a project name"),
        ("project", {}, r"smkit\.toml is not valid TOML"),
        ("# \udcff", {}, r"smkit\.toml is not UTF-8"),
    ],
)
def test_a_settings_file_that_says_otherwise_is_an_error(
    tmp_path: Path, text: str, options: dict[str, str], message: str
) -> None:
    (tmp_path / "smkit.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigError, match=message):
        create(tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["smkit.toml"]


def test_an_invalid_name_is_a_name_error_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError, match="'houses' would do"):
        create(tmp_path, name="Houses")


# --- folders that will not do -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["file", "file/houses", "file/a/b", "nowhere"])
def test_a_folder_that_is_none_is_an_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to("gone")
    with pytest.raises(ProjectError, match=r"(file|nowhere) is not a folder"):
        create(tmp_path / folder)
    assert tree(tmp_path) == {"file": b"mine", "nowhere": "gone"}


@pytest.mark.parametrize("name", ["data", "tests"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / name).symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path)
    with pytest.raises(ProjectError, match=f"{name} is a symbolic link"):
        create(tmp_path / "project")
    assert tree(tmp_path) == before


def test_a_file_where_a_folder_is_to_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tests").write_text("mine")
    with pytest.raises(ProjectError, match="tests is not a folder"):
        create(tmp_path)
    assert tree(tmp_path) == {"tests": b"mine"}


def test_a_link_where_a_file_is_to_be_is_as_good_as_what_it_leads_to(tmp_path: Path) -> None:
    folder = create(tmp_path / "project").folder
    (folder / "train.py").rename(tmp_path / "train.py")
    (folder / "train.py").symlink_to(tmp_path / "train.py")
    assert create(folder).written == ()
    (tmp_path / "train.py").unlink()
    with pytest.raises(ProjectError, match=r"train\.py already"):
        create(folder)


def test_a_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert create(tmp_path / "link").name == "link"
    assert (tmp_path / "real" / "train.py").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_that_may_not_be_written_to_is_an_error(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=mode)
    try:
        for folder in (closed, closed / "new"):
            with pytest.raises(ProjectError, match="Permission denied"):
                create(folder)
    finally:
        closed.chmod(0o700)
    assert list(closed.iterdir()) == []


def test_a_name_that_is_too_long_for_the_file_system_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="File name too long"):
        create(tmp_path / "a" / ("x" * 300))
    assert tree(tmp_path) == {}


def test_a_working_folder_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="cannot tell which folder"):
        create()


# --- all or nothing -----------------------------------------------------------------------------------------------


def interrupting(number: int, during: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    """An `os.link` whose call of this number does something else, given the target."""
    link, calls = os.link, iter(range(100))

    def replaced(temporary: Path, target: Path) -> None:
        if next(calls) == number:
            during(target)
        link(temporary, target)

    return replaced


def full_disk(target: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def control_c(target: Path) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", range(len(FILES)))
@pytest.mark.parametrize(("during", "raised"), [(full_disk, ProjectError), (control_c, KeyboardInterrupt)])
@pytest.mark.parametrize("folder", [".", "a/new"])
def test_a_failure_in_the_middle_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    during: Callable[[Path], None],
    raised: type[BaseException],
    folder: str,
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(os, "link", interrupting(number, during))
    with pytest.raises(raised):
        create(folder)
    assert tree(tmp_path) == {"notes.txt": b"mine"}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert create(folder).written == FILES


def test_ctrl_c_right_after_a_file_got_its_name_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_interrupt(temporary: Path, target: Path) -> None:
        link(temporary, target)
        if target.name == "train.py":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", link_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        create()
    assert tree(tmp_path) == {}


def refuse(target: Path) -> None:
    """What Linux answers on exFAT."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV], ids=errno.errorcode.get)
def test_where_hard_links_cannot_be_made_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_link(temporary: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    create(tmp_path / "linked" / "houses")
    monkeypatch.setattr(os, "link", no_link)
    assert create(tmp_path / "copied" / "houses").written == FILES
    assert tree(tmp_path / "copied") == tree(tmp_path / "linked")


@pytest.mark.parametrize("link", [os.link, lambda temporary, target: refuse(target)], ids=["link", "copy"])
@pytest.mark.parametrize("name", ["dataset.py", "tests/test_pipeline.py", "train.py"])
def test_a_file_that_somebody_else_makes_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, link: Callable[[Path, Path], None]
) -> None:
    def late(temporary: Path, target: Path) -> None:
        if target == tmp_path / name:
            target.write_text("theirs")
        link(temporary, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ProjectError, match=f"{name} was made meanwhile by somebody else; nothing was written"):
        create()
    assert {path: content for path, content in tree(tmp_path).items() if content is not None} == {name: b"theirs"}


def test_a_copy_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = Path.read_bytes

    def unreadable(path: Path) -> bytes:
        # The copy's source, which lies in the temporary folder.
        if path.parent.name.startswith(".smkit-tmp-") and path.name == "5":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(path)

    monkeypatch.setattr(os, "link", lambda temporary, target: refuse(target))
    monkeypatch.setattr(Path, "read_bytes", unreadable)
    with pytest.raises(ProjectError, match="Input/output error; nothing was written"):
        create()
    assert tree(tmp_path) == {}


LIMITED = """
import resource, signal, sys
from smkit.errors import ProjectError
from smkit.project import create

# Without this the kernel kills the process before a write can fail.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    create(sys.argv[1])
except ProjectError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "a/new"],
        capture_output=True,
        text=True,
        # The bytecode of what is imported would be cut off too.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120,
        check=True,
    )
    assert "a/new: File too large; nothing was written" in done.stdout
    assert tree(tmp_path) == {}
