from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smkit.errors import ConfigError, JobError
from smkit.jobs import staging
from smkit.jobs.spec import JobSpec

PACKAGE = Path(staging.__file__).parent.parent
TEMPLATE = {f"smkit/entrypoint/{module.name}" for module in (PACKAGE / "entrypoint").iterdir() if module.is_file()}
OWN = {"smkit/__init__.py"} | TEMPLATE


def spec(entry_point: str = "train.py", **values: Any) -> JobSpec:
    return JobSpec(name="job", entry_point=entry_point, **values)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    (folder / "lib").mkdir(parents=True)
    (folder / "train.py").write_text("import lib\n")
    (folder / "lib/__init__.py").write_text("x = 1\n")
    return folder


def test_the_script_alone(source: Path) -> None:
    code = staging.stage(spec(str(source / "train.py")))
    assert (code.entry_point, set(code.files)) == ("train.py", {"train.py"} | OWN)


def test_what_never_travels(source: Path) -> None:
    excluded = """
        .git/config lib/__pycache__/a.pyc b.pyc .venv/x venv/y .env .smkit/jobs/z node_modules/m.js a.egg-info/PKG
        .DS_Store .ipynb_checkpoints/c .mypy_cache/d
    """
    for path in excluded.split():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("secret")
    (source / "environment.py").write_text("")
    code = staging.stage(spec(source_dir=source))
    assert set(code.files) == {"train.py", "lib/__init__.py", "environment.py"} | OWN


def test_the_template_works_where_nothing_else_of_smkit_is(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "code"
    target.mkdir()
    staging.stage(spec(source_dir=source)).write(target)
    code = "import smkit.entrypoint, sys; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('smkit')))"
    # -S: no site-packages, so no installed smkit either.
    result = subprocess.run(
        [sys.executable, "-S", "-B", "-c", code], cwd=target, check=True, capture_output=True, text=True, timeout=60
    )
    assert {os.path.relpath(path, target) for path in result.stdout.split()} == OWN


def test_only_the_sources_of_the_template_travel(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = staging.stage(spec(source_dir=source))
    assert first.files["smkit/entrypoint/__init__.py"].data == (PACKAGE / "entrypoint/__init__.py").read_bytes()
    elsewhere = tmp_path / "site-packages/smkit"
    shutil.copytree(PACKAGE / "entrypoint", elsewhere / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    for module in (elsewhere / "entrypoint").iterdir():
        module.chmod(0o755)
    compileall.compile_dir(elsewhere, quiet=1)
    (elsewhere / "entrypoint/notes.txt").touch()
    monkeypatch.setattr(staging, "__file__", str(elsewhere / "jobs/staging.py"))
    again = staging.stage(spec(source_dir=source))
    assert (again.digest, again.archive()) == (first.digest, first.archive())


def test_the_digest_is_of_names_bits_and_bytes(source: Path, tmp_path: Path) -> None:
    first = staging.stage(spec(source_dir=source))
    (source / "lib/__init__.py").touch()
    again = staging.stage(spec(source_dir=source))
    assert (again.digest, again.archive()) == (first.digest, first.archive())
    digests = {first.digest}
    (source / "train.py").chmod(0o755)
    digests.add(staging.stage(spec(source_dir=source)).digest)
    (source / "lib/__init__.py").write_text("x = 2\n")
    digests.add(staging.stage(spec(source_dir=source)).digest)
    (source / "lib/__init__.py").rename(source / "lib/other.py")
    last = staging.stage(spec(source_dir=source))
    digests.add(last.digest)
    assert len(digests) == 4
    target = tmp_path / "out"
    target.mkdir()
    last.write(target)
    assert (target / "train.py").stat().st_mode & 0o111
    assert (target / "lib/other.py").read_text() == "x = 2\n"


def test_entry_points_inside_a_source_dir(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "lib/fit.py").write_text("")
    monkeypatch.chdir(source.parent)
    for given in ("lib/fit.py", "src/lib/fit.py", str(source / "lib/fit.py")):
        assert staging.stage(spec(given, source_dir=Path("src"))).entry_point == "lib/fit.py"


@pytest.mark.parametrize("given", ["missing.py", "../outside.py", "lib/../../outside.py"])
def test_an_entry_point_must_be_inside(source: Path, given: str) -> None:
    (source.parent / "outside.py").write_text("")
    with pytest.raises(ConfigError, match="is not a file inside source_dir"):
        staging.stage(spec(given, source_dir=source))


def test_a_missing_script_names_the_nearest(source: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist.*did you mean 'train\.py'"):
        staging.stage(spec(str(source / "trian.py")))


def test_a_syntax_error_is_told_before_anything_starts(source: Path) -> None:
    (source / "train.py").write_text("x = 1\nreturn (\n")
    with pytest.raises(JobError, match=r"train\.py, line 2: SyntaxError"):
        staging.stage(spec(source_dir=source))
    (source / "train.py").write_bytes(b"x = 1\0")
    with pytest.raises(JobError, match=r"train\.py"):
        staging.stage(spec(source_dir=source))


def test_links(source: Path) -> None:
    (source / "alias").symlink_to("lib")
    code = staging.stage(spec(source_dir=source))
    assert code.files["alias/__init__.py"].data == b"x = 1\n"
    (source.parent / "secret.txt").write_text("s")
    (source / "leak").symlink_to("../secret.txt")
    with pytest.raises(ConfigError, match=r"'leak' links to .*secret\.txt, outside source_dir"):
        staging.stage(spec(source_dir=source))
    (source / "leak").unlink()
    (source / "lib/up").symlink_to("..")
    with pytest.raises(ConfigError, match="links to a folder that holds it"):
        staging.stage(spec(source_dir=source))


@pytest.mark.parametrize("name", ["smkit/a.py", "smkit.py"])
def test_the_name_smkit_is_taken(source: Path, name: str) -> None:
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("")
    with pytest.raises(ConfigError, match="the name 'smkit' is taken"):
        staging.stage(spec(source_dir=source))


def test_too_much_code_lists_the_largest_files(source: Path) -> None:
    (source / "data.bin").write_bytes(b"x" * 3_000_000)
    with pytest.raises(ConfigError, match=r"(?s)3\.0 MB; at most 2\.0 MB.*3\.0 MB  data\.bin.*as a channel"):
        staging.stage(spec(source_dir=source), max_bytes=2_000_000)


def git(folder: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    variables = {**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=variables, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_git_says_which_commit_and_whether_it_is_dirty(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(source.parent.parent))
    git(source, "init", "-q")
    assert staging.stage(spec(source_dir=source)).git_commit is None
    git(source, "add", ".")
    git(source, "commit", "-qm", "first")
    commit = git(source, "rev-parse", "HEAD")
    clean = staging.stage(spec(source_dir=source))
    assert (clean.git_commit, clean.git_dirty) == (commit, False)
    (source / "new.py").write_text("")
    assert staging.stage(spec(source_dir=source)).git_dirty is True
    alone = staging.stage(spec(str(source / "train.py")))
    assert (alone.git_commit, alone.git_dirty) == (commit, False)
    monkeypatch.setenv("PATH", "")
    gone = staging.stage(spec(source_dir=source))
    assert (gone.git_commit, gone.git_dirty) == (None, None)
