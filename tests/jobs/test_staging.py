from __future__ import annotations

import compileall
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from smkit.errors import ConfigError, JobError
from smkit.jobs import staging
from smkit.jobs.spec import JobSpec
from tests.jobs.sagemaker.fixtures_sdk import needs_sdk, quiet_sdk

__all__ = ["quiet_sdk"]

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


def test_smkitignore_keeps_files_at_home(source: Path) -> None:
    for path in ("data/a.csv", "data/keep/b.csv", "notes.md", "lib/notes.md", "lib/scratch/x.py", "big.bin"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("x")
    (source / ".smkitignore").write_text("# data\n/data/\n*.md\n!lib/*.md\nbig.bin\n")
    (source / "lib/.smkitignore").write_text("scratch/\n")
    (source / ".gitignore").write_text("lib/\n")
    code = staging.stage(spec(source_dir=source))
    # What git ignores may be needed all the same, such as a generated module.
    assert set(code.files) == {"train.py", "lib/__init__.py", "lib/notes.md", ".gitignore"} | OWN
    (source / ".smkitignore").write_text("/data/\n*.md\n!lib/*.md\nbig.bin\n# another comment\n")
    assert staging.stage(spec(source_dir=source)).digest == code.digest


def test_what_never_travels_cannot_be_brought_back(source: Path) -> None:
    """`*`, `!*/`, `!*.py` ships only Python: it must not ship a virtual environment's."""
    for path in (".venv/lib/site.py", ".env", "__pycache__/train.py", "data.csv"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("x")
    (source / ".smkitignore").write_text("*\n!*/\n!*.py\n!.env\n")
    assert set(staging.stage(spec(source_dir=source)).files) == {"train.py", "lib/__init__.py"} | OWN


@pytest.mark.parametrize(
    ("rules", "entry_point", "rule"),
    [
        ("# all\n*.py\n", "train.py", r"\.smkitignore, line 2: \*\.py"),
        ("lib/\n!lib/fit.py\n", "lib/fit.py", r"\.smkitignore, line 1: lib/"),
        ("", "venv/fit.py", r"smkit's own rule 'venv'"),
    ],
)
def test_an_entry_point_that_is_left_out(source: Path, rules: str, entry_point: str, rule: str) -> None:
    (source / entry_point).parent.mkdir(exist_ok=True)
    (source / entry_point).write_text("")
    (source / ".smkitignore").write_text(rules)
    with pytest.raises(ConfigError, match=f"entry_point '{entry_point}' is left out of the code by {rule}"):
        staging.stage(spec(entry_point, source_dir=source))


def test_a_rule_of_a_nested_file_is_named_with_its_path(source: Path) -> None:
    (source / "lib/fit.py").write_text("")
    (source / "lib/.smkitignore").write_text("\n/fit.py\n")
    with pytest.raises(ConfigError, match=r"lib/\.smkitignore, line 2: /fit\.py"):
        staging.stage(spec("lib/fit.py", source_dir=source))


def test_what_is_ignored_need_not_be_fit_to_travel(source: Path) -> None:
    (source.parent / "outside").mkdir()
    (source / "data").symlink_to("../outside")
    (source / "gone").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    with pytest.raises(ConfigError, match=r"list it in \.smkitignore"):
        staging.stage(spec(source_dir=source))
    (source / ".smkitignore").write_text("data/\ngone\npipe\n")
    assert set(staging.stage(spec(source_dir=source)).files) == {"train.py", "lib/__init__.py"} | OWN


def test_an_ignore_file_that_cannot_be_read(source: Path) -> None:
    (source / ".smkitignore").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read the code: .*\.smkitignore: Is a directory"):
        staging.stage(spec(source_dir=source))


def test_too_much_code_is_told_how_to_leave_it_out(source: Path) -> None:
    (source / "data.bin").write_bytes(b"x" * 3_000_000)
    with pytest.raises(ConfigError, match=r"list it in \.smkitignore there"):
        staging.stage(spec(source_dir=source), max_bytes=2_000_000)
    (source / ".smkitignore").write_text("*.bin\n")
    assert staging.stage(spec(source_dir=source), max_bytes=2_000_000).size < 2_000_000


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere/shared"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inner/rules.py").write_text("RULE = 1\n")
    (folder / "scratch.csv").write_text("x")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/a.pyc").write_text("x")
    (folder / ".smkitignore").write_text("*.csv\n")
    return folder


def test_dependencies_lie_beside_the_code_under_their_own_names(source: Path, shared: Path) -> None:
    helper = shared.parent / "helper.py"
    helper.write_text("HELP = 1\n")
    expected = {"shared/__init__.py", "shared/inner/rules.py", "helper.py"} | OWN
    given = [str(shared) + "/", helper]
    code = staging.stage(spec(source_dir=source, dependencies=given))
    assert set(code.files) == {"train.py", "lib/__init__.py"} | expected
    alone = staging.stage(spec(str(source / "train.py"), dependencies=given))
    assert set(alone.files) == {"train.py"} | expected
    assert code.describe()["dependencies"] == [str(shared), str(helper)]
    digests = {code.digest, alone.digest, staging.stage(spec(source_dir=source)).digest}
    (shared / "inner/rules.py").write_text("RULE = 2\n")
    digests.add(staging.stage(spec(source_dir=source, dependencies=given)).digest)
    assert len(digests) == 4


def test_dependencies_are_what_a_shell_would_take_them_for(
    source: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared / "inner")
    monkeypatch.setenv("HOME", str(shared.parent))
    for given in ("..", "../../shared", "~/shared"):
        code = staging.stage(spec(source_dir=source, dependencies=[given]))
        assert "shared/inner/rules.py" in code.files
    link = shared.parent / "alias"
    link.symlink_to("shared")
    assert "alias/inner/rules.py" in staging.stage(spec(source_dir=source, dependencies=[link])).files


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["lib"], r"dependency '.*/elsewhere/lib' goes to 'lib' in the code, where .*src/lib lies already"),
        (["train.py"], "goes to 'train.py' in the code, where .*src/train.py lies already"),
        (["shared", "other/shared"], "goes to 'shared' in the code, where .*elsewhere/shared lies already"),
        (["shraed"], r"dependency '.*/shraed' does not exist; did you mean 'shared'\?"),
        (["smkit"], "the name 'smkit' is taken"),
        ([".env"], r"is left out of every job by smkit's own rule '\.env'"),
        (["empty"], "holds no file that travels"),
        (["pipe"], "is neither a file nor a folder"),
        (["leaky"], r"'out' links to .*, outside dependency '.*leaky'"),
    ],
)
def test_dependencies_that_cannot_be(source: Path, shared: Path, given: list[str], message: str) -> None:
    there = shared.parent
    for path in ("lib/a.py", "train.py", "other/shared/a.py", "smkit/a.py", ".env", "empty/a.pyc", "leaky/a.py"):
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        (there / path).write_text("")
    os.mkfifo(there / "pipe")
    (there / "leaky/out").symlink_to("../train.py")
    with pytest.raises(ConfigError, match=message):
        staging.stage(spec(source_dir=source, dependencies=[there / each for each in given]))


def test_dependencies_count_towards_the_size(source: Path, shared: Path) -> None:
    (shared / "big.bin").write_bytes(b"x" * 3_000_000)
    with pytest.raises(ConfigError, match=r"3\.0 MB  shared/big\.bin"):
        staging.stage(spec(source_dir=source, dependencies=[shared]), max_bytes=2_000_000)


def test_git_and_dependencies(source: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(source.parent.parent))
    git(source.parent, "init", "-q")
    git(source.parent, "add", ".")
    git(source.parent, "commit", "-qm", "first")
    job = spec(source_dir=source, dependencies=[shared])
    assert staging.stage(job).git_dirty is False
    (shared / "new.py").write_text("")
    assert staging.stage(job).git_dirty is True
    assert staging.stage(spec(source_dir=source)).git_dirty is False
    # Of what lies outside the checkout git says nothing.
    git(source.parent / "src", "init", "-q")
    git(source.parent / "src", "add", ".")
    git(source.parent / "src", "commit", "-qm", "first")
    assert staging.stage(job).git_commit is not None
    assert staging.stage(job).git_dirty is None


@needs_sdk
@pytest.mark.parametrize("alone", [True, False])
def test_the_archive_has_what_the_sdks_has(
    source: Path, tmp_path: Path, quiet_sdk: None, alone: bool, shared: Path
) -> None:
    from sagemaker.fw_utils import _list_files_to_compress
    from sagemaker.utils import create_tar_file

    helper = shared.parent / "helper.py"
    helper.write_text("")
    shutil.rmtree(shared / "__pycache__")
    for ignored in ("scratch.csv", ".smkitignore"):
        (shared / ignored).unlink()
    script = source / "train.py"
    code = staging.stage(
        spec(str(script), source_dir=None if alone else source, dependencies=[str(shared), str(helper)])
    )
    given = [*_list_files_to_compress(str(script), None if alone else str(source)), str(shared), str(helper)]
    with tarfile.open(create_tar_file(given, str(tmp_path / "sdk.tar.gz"))) as archive:
        theirs = {item.name: archive.extractfile(item).read() for item in archive if item.isfile()}  # type: ignore[union-attr]
    with tarfile.open(fileobj=io.BytesIO(code.archive())) as archive:
        ours = {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]
    assert {name: data for name, data in ours.items() if name not in OWN} == theirs
