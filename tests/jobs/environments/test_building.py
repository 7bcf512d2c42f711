"""Building: once, whole or not at all, whatever happens meanwhile. The installers are real; the packages are small."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from pydantic import SecretStr

from smkit.errors import ConfigError, ParityEnvironmentError
from smkit.jobs.environments import (
    Environment,
    EnvironmentName,
    ensure_built,
    hold,
    locate,
    record,
    remove,
    remove_all,
)
from smkit.jobs.environments.bytecode import is_compiled
from smkit.jobs.environments.contents import Contents
from smkit.jobs.environments.installers import choose_installer
from smkit.jobs.environments.uv import find_uv
from tests.jobs.environments.wheels import make_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUILD = """
import json, sys
from pathlib import Path
from smkit.jobs.environments import Environment, EnvironmentName, ensure_built
from smkit.jobs.environments.bytecode import is_compiled
from smkit.jobs.environments.contents import Contents
python, pins, wanted, root = json.loads(sys.argv[1])
environment = Environment(EnvironmentName("1.2-1"), Contents(tuple(python), pins, tuple(wanted)), Path(root))
print(ensure_built(environment).built.packages["tiny"])
"""


def building(environment: Environment) -> subprocess.Popen[str]:
    """Another process that wants the environment."""
    contents = environment.contents
    what = [contents.python, dict(contents.pins), contents.wanted, str(environment.root)]
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, json.dumps(what)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def content(root: Path) -> list[str]:
    """What lies beside the locks."""
    return sorted(path.name for path in root.iterdir() if path.name != ".locks") if root.exists() else []


def run_in(environment: Environment, code: str) -> str:
    done = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.01)


@pytest.fixture
def uv() -> Path:
    found = find_uv()
    if found is None:
        pytest.skip("there is no uv")
    return found.path


@pytest.fixture
def watched_uv(uv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real uv, behind a program that notes each call, and that waits while `hold` exists before it installs."""
    folder = tmp_path / "uv-on-path"
    folder.mkdir()
    program = folder / "uv"
    program.write_text(
        f"""#!/bin/sh
        echo "$1 $2" >> {folder}/calls
        if [ "$1" = pip ]; then while [ -e {folder}/hold ]; do sleep 0.05; done; fi
        exec {uv} "$@"
        """
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def calls(folder: Path, what: str) -> int:
    path = folder / "calls"
    return path.read_text().split("\n").count(what) if path.exists() else 0


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smkit.jobs.environments.installers.find_uv", lambda: None)


def test_what_is_built_is_what_was_asked_for(tiny: Environment, uv: Path) -> None:
    before = time.time()
    assert ensure_built(tiny, progress=False, compiled=True) is tiny
    facts = tiny.built
    assert facts is not None
    assert dict(facts.packages) == {"tiny": "1.0", "tiny-dependency": "0.1"}
    assert facts.python_version == ".".join(map(str, sys.version_info[:3]))
    assert (facts.name, facts.digest) == ("1.2-1", tiny.digest)
    assert facts.installer.startswith("uv ")
    assert Path(facts.base).is_file()
    assert facts.size > len("version = '1.0'\n")
    assert facts.built_at.startswith(time.strftime("%Y-%m", time.gmtime(before)))
    assert run_in(tiny, "import tiny, tiny_dependency as d, sys; print(tiny.version, d.version, sys.prefix)") == (
        f"1.0 0.1 {tiny.folder}"
    )
    # A job writes none.
    assert list(tiny.folder.rglob("tiny/__pycache__/*.pyc"))
    assert json.loads(json.dumps(facts.to_dict()))["packages"]["tiny"] == "1.0"


@pytest.mark.usefixtures("without_uv")
def test_without_uv_the_pythons_own_venv_and_pip_build(tiny: Environment) -> None:
    ensure_built(tiny, progress=False)
    facts = tiny.built
    assert facts is not None
    assert facts.installer == "pip"
    assert facts.packages["tiny"] == "1.0"
    assert facts.packages["tiny-dependency"] == "0.1"
    assert "pip" in facts.packages
    assert run_in(tiny, "import tiny; print(tiny.version)") == "1.0"


def test_the_whole_list_is_installed_even_where_it_does_not_fit_together(tiny: Environment, uv: Path) -> None:
    make_wheel(Path(os.environ["PIP_FIND_LINKS"]), "picky", "1.0", needs="tiny>=5")
    contents = Contents(tiny.contents.python, {"picky": "1.0", "tiny": "1.0"})
    environment = Environment(EnvironmentName("1.9-0", toolkits=True), contents, tiny.root)
    ensure_built(environment, progress=False)
    assert environment.built is not None
    assert dict(environment.built.packages) == {"picky": "1.0", "tiny": "1.0"}


def test_what_is_built_needs_no_process_and_no_network(
    tiny: Environment, uv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_built(tiny, progress=False)
    monkeypatch.setattr("smkit.jobs.environments.environment.contents_of", lambda _: tiny.contents)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setenv("PATH", "")
    located = locate("1.2-1", folder=tiny.root)
    assert located.is_built
    assert ensure_built(located, progress=False) is located


def test_ten_at_once_build_once(tiny: Environment, watched_uv: Path) -> None:
    (watched_uv / "hold").touch()
    processes = [building(tiny) for _ in range(10)]
    wait_for(lambda: calls(watched_uv, "pip install") == 1)
    # Until the last of them has come to the lock, nothing is built; what it waits for, it says.
    waiting = [process for process in processes if _first_line(process).startswith("smkit: waiting for another")]
    assert len(waiting) == 9
    (watched_uv / "hold").unlink()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["1.0\n"] * 10
    assert calls(watched_uv, "pip install") == 1
    assert content(tiny.root) == [tiny.folder.name]


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def test_a_builder_that_is_killed_leaves_nothing_that_is_used(tiny: Environment, watched_uv: Path) -> None:
    (watched_uv / "hold").touch()
    killed = building(tiny)
    wait_for(lambda: calls(watched_uv, "pip install") == 1)
    killed.kill()
    killed.communicate(timeout=60)
    assert tiny.folder.exists()
    assert not tiny.is_built
    # Its installer lives on, and may write for as long as it does: the next builder waits for its end.
    following = building(tiny)
    assert _first_line(following).startswith("smkit: waiting for another")
    (watched_uv / "hold").unlink()
    assert following.communicate(timeout=60)[0] == "1.0\n"
    assert calls(watched_uv, "pip install") == 2
    assert content(tiny.root) == [tiny.folder.name]


@pytest.mark.parametrize("moment", range(4))
def test_at_whatever_moment_it_is_killed_the_next_one_builds(tiny: Environment, uv: Path, moment: int) -> None:
    """Killed before each of the steps that change the disk."""
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys\n"
            "from smkit.jobs.environments import building, installers, record\n"
            "def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
            "owner, name = [(building, 'choose_installer'), (installers.Installer, '_install'),\n"
            "    (building, '_facts_of'), (record.Path if False else record.os, 'fsync')][int(sys.argv[2])]\n"
            "setattr(owner, name, die)\n" + BUILD,
            json.dumps([tiny.contents.python, dict(tiny.contents.pins), tiny.contents.wanted, str(tiny.root)]),
            str(moment),
        ],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not tiny.is_built
    ensure_built(tiny, progress=False)
    assert run_in(tiny, "import tiny; print(tiny.version)") == "1.0"
    assert not list(tiny.folder.glob(".smkit*"))


def test_ctrl_c_leaves_nothing(tiny: Environment, watched_uv: Path) -> None:
    (watched_uv / "hold").touch()
    process = building(tiny)
    wait_for(lambda: calls(watched_uv, "pip install") == 1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert "KeyboardInterrupt" in errors
    assert content(tiny.root) == []
    # And nobody who still holds the lock.
    (watched_uv / "hold").unlink()
    ensure_built(tiny, progress=False)
    assert tiny.is_built


def test_a_package_that_there_is_not_fails_with_its_name_and_leaves_nothing(tiny: Environment, uv: Path) -> None:
    contents = Contents(tiny.contents.python, {"tiny": "3.0"}, ("tiny",))
    environment = Environment(tiny.name, contents, tiny.root)
    with pytest.raises(ParityEnvironmentError, match=r"(?s)'1\.2-1' could not be built: uv .*tiny==3\.0"):
        ensure_built(environment, progress=False)
    assert content(tiny.root) == []


@pytest.mark.usefixtures("without_uv")
def test_a_package_that_is_only_a_source_is_refused_at_once(tiny: Environment) -> None:
    """A package of the core would have to be compiled: the error says so, and for which platform."""
    links = Path(os.environ["PIP_FIND_LINKS"])
    make_wheel(links, "tiny", "4.0").unlink()
    shutil.make_archive(str(links / "tiny-4.0"), "gztar", links, ".")
    contents = Contents(tiny.contents.python, {"tiny": "4.0"}, ("tiny",))
    environment = Environment(tiny.name, contents, tiny.root)
    with pytest.raises(
        ParityEnvironmentError,
        # In between pip's words, which differ between its versions.
        match=r"(?s)could not be built.*tiny==4\.0.*no ready-made package of this version for Python 3\.\d+ on \w+ \w+",
    ):
        ensure_built(environment, progress=False)
    assert content(tiny.root) == []


@pytest.mark.parametrize(
    ("index", "proxy"),
    [
        ("http://127.0.0.1:9/simple", None),
        ("https://no-such-host.invalid/simple", None),
        ("https://index.invalid/simple", "http://127.0.0.1:9"),
        ("https://index.invalid/simple", "refuses"),
    ],
    ids=["refused", "no such name", "no proxy", "a proxy that refuses"],
)
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_an_index_that_is_not_reached_is_told_from_one_without_the_package(
    tiny: Environment,
    guarded_index: tuple[str, list[str]],
    index: str,
    proxy: str | None,
    installer: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("uv" if installer == "uv" else "without_uv")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    if proxy is not None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{guarded_index[0]}" if proxy == "refuses" else proxy)
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ParityEnvironmentError, match=r"index was not reached.*pip_index_url") as caught:
        ensure_built(tiny, index_url=index, progress=False)
    assert "ready-made" not in str(caught.value)
    assert "Images are made for" not in str(caught.value)


@pytest.mark.parametrize("machine", ["x86_64", "arm64"])
def test_the_platform_is_blamed_only_where_it_is_another(
    tiny: Environment, uv: Path, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "here", "6", "#1", machine)))
    contents = Contents(tiny.contents.python, {"tiny": "3.0"}, ("tiny",))
    with pytest.raises(ParityEnvironmentError, match=rf"no ready-made package .* Linux {machine}\.") as caught:
        ensure_built(Environment(tiny.name, contents, tiny.root), progress=False)
    assert ("Images are made for Linux x86_64" in str(caught.value)) == (machine != "x86_64")


@pytest.fixture
def guarded_index() -> Iterator[tuple[str, list[str]]]:
    """An index that refuses everybody, and what it was told: its address, and the credentials of each request."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_the_given_index_is_asked_and_its_password_is_never_shown(
    tiny: Environment,
    guarded_index: tuple[str, list[str]],
    installer: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("uv" if installer == "uv" else "without_uv")
    host, seen = guarded_index
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    url = SecretStr(f"http://deployer:hunter2-very@{host}/t0k3n-in-the-path/simple")
    with pytest.raises(ParityEnvironmentError) as caught:
        ensure_built(tiny, index_url=url)
    expected = "Basic " + base64.b64encode(b"deployer:hunter2-very").decode()
    assert expected in seen
    shown = (
        str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__) + "".join(capfd.readouterr())
    )
    assert "hunter2" not in shown
    assert "t0k3n" not in shown
    assert "tiny" in shown
    assert content(tiny.root) == []


@pytest.mark.parametrize("url", ["mirrors.example.cn/simple", "https://a b", "", "ftp://x/y", "https://"])
def test_an_index_that_is_no_url_is_refused_unseen(tiny: Environment, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ensure_built(tiny, index_url=url)
    assert not url or url not in str(caught.value).replace("'https://mirrors.example.cn/pypi/simple'", "")
    assert not tiny.root.exists()


def test_where_the_disk_is_full_nothing_is_left(tiny: Environment, uv: Path) -> None:
    """A limit on the size of a file fails a write as a full disk does."""
    make_wheel(Path(os.environ["PIP_FIND_LINKS"]), "large", "1.0", size=4 << 20)
    contents = Contents(tiny.contents.python, {"large": "1.0"}, ("large",))
    environment = Environment(tiny.name, contents, tiny.root)
    what = [contents.python, dict(contents.pins), contents.wanted, str(tiny.root)]
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n{BUILD}"
    done = subprocess.run(
        [sys.executable, "-c", limited, json.dumps(what)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert re.search(r"could not be built: uv \S+ was killed by SIGXFSZ \(it wrote a file larger", done.stderr)
    assert content(tiny.root) == []
    assert not environment.is_built


@pytest.mark.usefixtures("without_uv")
def test_what_keeps_pip_from_being_installed_is_told(tiny: Environment, tmp_path: Path) -> None:
    """The standard library's venv says only that it failed; on a full disk that is no help."""
    reason = "OSError: [Errno 28] No space left on device"
    real = shutil.which(sys.executable)
    wrapper = tmp_path / "python-on-a-full-disk"
    wrapper.write_text(
        f"""#!/bin/sh
        case "$*" in
        *"venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"
            echo "Error: Command '['$4/bin/python', '-m', 'ensurepip', '--upgrade']' returned non-zero exit status 1."
            exit 1;;
        *"ensurepip"*) echo "{reason}"; exit 1;;
        *) exec {real} "$@";;
        esac
        """
    )
    wrapper.chmod(0o755)
    with pytest.raises(ParityEnvironmentError, match=re.escape(reason)):
        ensure_built(replace(tiny, base=wrapper), progress=False)
    assert content(tiny.root) == []


def test_a_record_that_cannot_be_written_is_no_environment(
    tiny: Environment, uv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smkit.jobs.environments.record.os.fsync", full)
    with pytest.raises(ParityEnvironmentError, match=r"cannot be built: No space left on device"):
        ensure_built(tiny, progress=False)
    assert content(tiny.root) == []


def test_a_folder_that_cannot_be_made_is_told(tiny: Environment, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = Environment(tiny.name, tiny.contents, tmp_path / "file")
    with pytest.raises(ParityEnvironmentError, match=r"cannot be built: .*XDG_CACHE_HOME"):
        ensure_built(environment, progress=False)


def test_a_package_that_was_installed_into_it_is_noticed_and_undone(tiny: Environment, uv: Path) -> None:
    ensure_built(tiny, progress=False)
    site = next(tiny.folder.glob("lib/*/site-packages"))
    shutil.copytree(site / "tiny-1.0.dist-info", site / "extra-7.0.dist-info")
    assert tiny.changes == ("extra 7.0 was installed into it",)
    assert not tiny.is_built
    with pytest.raises(ParityEnvironmentError, match="not built, or was removed or changed"), hold(tiny):
        pass
    ensure_built(tiny, progress=False)
    assert tiny.changes == ()
    assert not list(tiny.folder.glob("lib/*/site-packages/extra*"))


PATCH = """
import os, tiny
os.chmod(tiny.__file__, 0o644)
with open(tiny.__file__, "a") as file:
    file.write("PATCHED = True\\n")
"""


def cached_by_uv() -> dict[Path, bytes]:
    cache = Path(os.environ["UV_CACHE_DIR"])
    return {path: path.read_bytes() for path in cache.rglob("tiny/__init__.py")}


@pytest.fixture
def no_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gives no process mounts of its own, so that jobs could write into an environment."""
    monkeypatch.setattr("smkit.jobs.environments.building.why_no_private_mount", lambda *_: "not here")


def links_of(environment: Environment) -> int:
    (module,) = environment.folder.glob("lib/*/site-packages/tiny/__init__.py")
    return module.stat().st_nlink


@pytest.mark.usefixtures("no_mounts")
@pytest.mark.parametrize("mode", [None, "hardlink", "symlink", "clone"])
def test_where_jobs_could_write_uvs_cache_is_not_shared(
    tiny: Environment, uv: Path, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode is not None:
        monkeypatch.setenv("UV_LINK_MODE", mode)
    ensure_built(tiny, progress=False)
    assert links_of(tiny) == 1
    cached = cached_by_uv()
    assert cached
    with hold(tiny):
        run_in(tiny, PATCH)
    assert cached_by_uv() == cached
    assert tiny.changes == ("files in it were changed",)
    ensure_built(tiny, progress=False)
    assert tiny.changes == ()
    assert run_in(tiny, "import tiny; print(hasattr(tiny, 'PATCHED'))") == "False"


@pytest.fixture
def linked(tiny: Environment, uv: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment that is built, of files that are also those in uv's cache."""
    monkeypatch.setattr("smkit.jobs.environments.building.why_no_private_mount", lambda *_: "")
    ensure_built(tiny, progress=False)
    if links_of(tiny) == 1:
        pytest.skip("this file system clones: uv links nothing")
    return tiny


def test_what_is_changed_outside_a_job_is_not_taken_from_uvs_cache_again(
    linked: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = cached_by_uv()
    run_in(linked, PATCH)
    assert cached_by_uv() != cached
    assert linked.changes == ("files in it were changed",)
    ensure_built(linked)
    assert "`uv cache clean` undoes that" in capsys.readouterr().err
    assert linked.changes == ()
    assert run_in(linked, "import tiny; print(hasattr(tiny, 'PATCHED'))") == "False"


@pytest.mark.parametrize("damage", ["half built", "a time", "installed"])
def test_whatever_else_happens_uvs_cache_is_used(
    linked: Environment, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = next(linked.folder.glob("lib/*/site-packages"))
    if damage == "half built":
        (linked.folder / "smkit-environment.json").unlink()
    elif damage == "a time":
        os.utime(site / "tiny" / "__init__.py", ns=(1, 1))
    else:
        shutil.copytree(site / "tiny-1.0.dist-info", site / "extra-7.0.dist-info")
    told: list[dict[str, bool]] = []
    monkeypatch.setattr(
        "smkit.jobs.environments.building.choose_installer",
        lambda url, **options: told.append(options) or choose_installer(url, **options),
    )
    ensure_built(linked, progress=False)
    assert told == [{"linked": True, "cached": True}]
    assert linked.is_built


@pytest.fixture
def slow(only_wheels_of: Path, tmp_path: Path) -> Environment:
    """An environment that takes about a second to compile."""
    lines = "".join(f"def f{number}(a, b=[1, 2, 3]): return [a + c for c in b]\n" for number in range(10_000))
    make_wheel(only_wheels_of, "slow", "1.0", code=lines)
    contents = Contents(sys.version_info[:2], {"slow": "1.0"}, ("slow",))
    return Environment(EnvironmentName("1.2-1"), contents, tmp_path / "environments")


def compilers_of(environment: Environment) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if str(environment.folder) in command and any(part.endswith("compile_folder.py") for part in command):
                found.append(process)
    return found


def bytecode_of(environment: Environment) -> list[Path]:
    return list(environment.folder.glob("lib/*/site-packages/slow/__pycache__/*.pyc"))


def test_jobs_need_not_wait_until_it_is_compiled(slow: Environment, uv: Path) -> None:
    ensure_built(slow, progress=False)
    assert slow.is_built
    assert compilers_of(slow)
    assert not is_compiled(slow.folder)
    # Who wants it finds it, and starts no second one.
    before = {process.pid for process in compilers_of(slow)}
    ensure_built(slow, progress=False)
    assert {process.pid for process in compilers_of(slow)} <= before
    ensure_built(slow, progress=False, compiled=True)
    assert is_compiled(slow.folder)
    assert bytecode_of(slow)
    assert not compilers_of(slow)


def test_a_compiler_that_was_killed_is_followed_by_another(slow: Environment, uv: Path) -> None:
    ensure_built(slow, progress=False)
    (process,) = compilers_of(slow)
    process.kill()
    process.wait()
    assert not is_compiled(slow.folder)
    # Not before its lock is free.
    wait_for(lambda: ensure_built(slow, progress=False) is slow and bool(compilers_of(slow)))
    wait_for(lambda: is_compiled(slow.folder))
    assert bytecode_of(slow)
    assert slow.changes == ()


def test_removing_waits_for_the_compiler(slow: Environment, uv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensure_built(slow, progress=False)
    assert compilers_of(slow)
    assert remove("1.2-1", folder=slow.root) > 0
    assert "waiting for another process that builds, compiles or removes environment '1.2-1'" in capsys.readouterr().err
    assert not compilers_of(slow)
    assert content(slow.root) == []


def test_where_nothing_can_be_compiled_that_is_told(
    slow: Environment, uv: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smkit.jobs.environments.bytecode._SCRIPT", slow.root / "nowhere.py")
    ensure_built(slow, compiled=True)
    assert "environment '1.2-1' was not compiled to bytecode: jobs in it start more slowly" in capsys.readouterr().err
    assert slow.is_built


def test_packages_tests_are_not_compiled_wherever_the_environment_lies(
    only_wheels_of: Path, tmp_path: Path, uv: Path
) -> None:
    make_wheel(only_wheels_of, "tested", "1.0", modules=("core", "tests/test_core"))
    contents = Contents(sys.version_info[:2], {"tested": "1.0"}, ("tested",))
    environment = Environment(EnvironmentName("1.2-1"), contents, tmp_path / "tests" / "environments")
    ensure_built(environment, progress=False, compiled=True)
    compiled = {path.name.partition(".")[0] for path in environment.folder.glob("lib/*/site-packages/tested/**/*.pyc")}
    assert compiled == {"__init__", "core"}


@pytest.mark.parametrize(
    "change",
    [
        lambda site: (site / "tiny" / "data").unlink(),
        lambda site: (site / "sitecustomize.py").write_text(""),
        lambda site: (site.parents[2] / "bin" / "more").write_text(""),
        lambda site: os.utime(site / "tiny" / "__init__.py", ns=(1, 1)),
    ],
    ids=["deleted", "added", "a program", "a time"],
)
def test_every_file_counts(tiny: Environment, uv: Path, change: Callable[[Path], None]) -> None:
    ensure_built(tiny, progress=False)
    record.unprotect(tiny.folder)
    assert tiny.changes == ()
    change(next(tiny.folder.glob("lib/*/site-packages")))
    assert tiny.changes == ("files in it were changed",)


def test_bytecode_is_no_change(tiny: Environment, uv: Path) -> None:
    ensure_built(tiny, progress=False)
    record.unprotect(tiny.folder)
    cache = next(tiny.folder.glob("lib/*/site-packages/tiny")) / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "more.pyc").touch()
    assert tiny.changes == ()


@pytest.fixture
def as_user() -> list[str]:
    """What starts a program that heeds the modes of files, as those of root do not."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv, to give up the rights of root")
    without = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}"]


@pytest.mark.usefixtures("no_mounts")
def test_a_user_cannot_change_it_by_accident_and_can_remove_it(tiny: Environment, uv: Path, as_user: list[str]) -> None:
    ensure_built(tiny, progress=False, compiled=True)
    for code in (PATCH.replace("os.chmod", "#"), "import os, tiny; os.unlink(tiny.__file__)"):
        job = subprocess.run([*as_user, tiny.python, "-c", code], capture_output=True, text=True, check=False)
        assert "PermissionError" in job.stderr
    assert tiny.changes == ()
    code = "import sys; from pathlib import Path; from smkit.jobs.environments import remove\n"
    code += "print(remove('1.2-1', folder=Path(sys.argv[1])))"
    done = subprocess.run(
        [*as_user, sys.executable, "-c", code, tiny.root], capture_output=True, text=True, check=False, timeout=60
    )
    assert int(done.stdout) > 0, done.stderr
    assert content(tiny.root) == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up early on an environment that is in use throughout the test."""
    monkeypatch.setattr("smkit.jobs.environments.locking._BRIEF_SECONDS", 0.2)


@pytest.mark.usefixtures("impatient")
def test_one_that_was_changed_while_a_job_runs_in_it_is_not_touched(tiny: Environment, uv: Path) -> None:
    ensure_built(tiny, progress=False)
    with hold(tiny):
        site = next(tiny.folder.glob("lib/*/site-packages"))
        shutil.rmtree(site / "tiny-1.0.dist-info")
        with pytest.raises(ParityEnvironmentError, match=r"tiny 1\.0 was removed from it\) while a job runs in it"):
            ensure_built(tiny, progress=False)
        assert (site / "tiny" / "__init__.py").exists()
    ensure_built(tiny, progress=False)
    assert tiny.is_built


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema_version": 2}', "\x00"])
def test_a_damaged_record_means_to_build_again(tiny: Environment, uv: Path, text: str) -> None:
    ensure_built(tiny, progress=False)
    (tiny.folder / "smkit-environment.json").write_text(text)
    assert not tiny.is_built
    ensure_built(tiny, progress=False)
    assert tiny.is_built


@pytest.fixture
def movable_python(tiny: Environment, uv: Path, tmp_path: Path) -> tuple[Environment, Path]:
    """An environment that stands on a Python of its own, as one that pyenv installed and may uninstall."""
    home = tmp_path / "pythons" / "bin"
    home.mkdir(parents=True)
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    python = home / f"python{tiny.python_version}"
    # Not a copy: only beside its library does a Python find it.
    python.symlink_to(base)
    environment = Environment(tiny.name, tiny.contents, tiny.root, base=python)
    ensure_built(environment, progress=False)
    link = environment.folder / "bin" / "python"
    link.unlink()
    link.symlink_to(python)
    from smkit.jobs.environments.record import write_record

    assert environment.built is not None or environment.changes
    write_record(environment.folder, read_facts(environment))
    assert environment.is_built
    return environment, python


def read_facts(environment: Environment):  # type: ignore[no-untyped-def]
    from smkit.jobs.environments.record import read_record

    record = read_record(environment.folder)
    assert record is not None
    return record.facts


def test_a_python_that_was_uninstalled_is_noticed(movable_python: tuple[Environment, Path]) -> None:
    environment, python = movable_python
    python.unlink()
    assert not environment.is_built
    assert "is gone" in environment.changes[0]
    ensure_built(environment, progress=False)
    assert run_in(environment, "import tiny; print(tiny.version)") == "1.0"


def test_a_python_that_got_a_bug_fix_release_needs_no_network(
    movable_python: tuple[Environment, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, python = movable_python
    real = python.resolve()
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    python.chmod(0o755)
    assert not environment.is_built
    assert "was replaced" in environment.changes[0]
    monkeypatch.setattr(
        "smkit.jobs.environments.building.choose_installer", lambda *_, **__: pytest.fail("it was built again")
    )
    ensure_built(environment, progress=False)
    assert environment.is_built


def test_a_replaced_python_does_not_launder_what_was_installed(movable_python: tuple[Environment, Path]) -> None:
    environment, python = movable_python
    site = next(environment.folder.glob("lib/*/site-packages"))
    shutil.copytree(site / "tiny-1.0.dist-info", site / "extra-7.0.dist-info")
    real = python.resolve()
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    python.chmod(0o755)
    ensure_built(environment, progress=False)
    assert not list(environment.folder.glob("lib/*/site-packages/extra*"))


def test_a_replaced_python_does_not_launder_what_was_changed_in_place(
    movable_python: tuple[Environment, Path],
) -> None:
    environment, python = movable_python
    run_in(environment, PATCH)
    real = python.resolve()
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    python.chmod(0o755)
    ensure_built(environment, progress=False)
    assert run_in(environment, "import tiny; print(hasattr(tiny, 'PATCHED'))") == "False"


def test_a_python_of_another_version_is_no_base(tiny: Environment, uv: Path, tmp_path: Path) -> None:
    other = Contents((3, 1), tiny.contents.pins, tiny.contents.wanted)
    environment = Environment(tiny.name, other, tiny.root, base=Path(sys.executable))
    with pytest.raises(ParityEnvironmentError, match=r"its Python is 3\.\d+\.\d+, not 3\.1"):
        ensure_built(environment, progress=False)
    assert content(tiny.root) == []


def test_removing_deletes_all_there_is_of_it(tiny: Environment, uv: Path) -> None:
    ensure_built(tiny, progress=False)
    older = tiny.root / f"1.2-1-{'0' * 16}"
    half = tiny.root / f".1.2-1-{'1' * 16}.{'2' * 32}"
    others = [f"1.2-1-toolkits-{'0' * 16}", f"1.2-10-{'0' * 16}", "1.2-1-notes", f"x1.2-1-{'0' * 16}"]
    for folder in (older, half, *(tiny.root / name for name in others)):
        folder.mkdir()
        (folder / "file").write_bytes(b"12345")
    size = tiny.built.size if tiny.built else 0
    freed = remove("1.2-1", folder=tiny.root)
    assert freed > size + 9
    assert content(tiny.root) == sorted(others)
    assert remove("1.2-1", folder=tiny.root) == 0
    assert remove_all(folder=tiny.root) == 15
    assert content(tiny.root) == ["1.2-1-notes"]


@pytest.mark.usefixtures("impatient")
def test_nothing_is_removed_while_a_job_runs_in_it(tiny: Environment, uv: Path) -> None:
    ensure_built(tiny, progress=False)
    other = tiny.root / f"9.9-1-{'0' * 16}"
    other.mkdir()
    with hold(tiny) as lock:
        job = subprocess.Popen([tiny.python, "-c", "input(); import tiny"], stdin=subprocess.PIPE, pass_fds=[lock])
    # Whoever started it is gone; the lock is the job's own.
    with pytest.raises(ParityEnvironmentError, match="a job is running in it"):
        remove("1.2-1", folder=tiny.root)
    with pytest.raises(ParityEnvironmentError, match="a job is running in it"):
        remove_all(folder=tiny.root)
    assert content(tiny.root) == [tiny.folder.name]
    job.communicate(b"\n", timeout=60)
    assert job.returncode == 0
    assert remove("1.2-1", folder=tiny.root) > 0
    assert content(tiny.root) == []


def test_several_may_use_one_at_once(tiny: Environment, uv: Path) -> None:
    ensure_built(tiny, progress=False)
    with hold(tiny) as first, hold(tiny) as second:
        assert first != second
    assert remove("1.2-1", folder=tiny.root) > 0


def test_progress_is_told_on_stderr_once(tiny: Environment, uv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensure_built(tiny)
    out, errors = capsys.readouterr()
    assert out == ""
    first, last = errors.splitlines()
    assert first.startswith("smkit: building environment '1.2-1' with uv ")
    assert last.startswith("smkit: built environment '1.2-1' in ")
    ensure_built(tiny)
    assert capsys.readouterr() == ("", "")
    remove("1.2-1", folder=tiny.root, progress=False)
    ensure_built(tiny, progress=False)
    assert capsys.readouterr() == ("", "")
