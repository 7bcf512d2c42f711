"""Where packages come from: what pip and uv are told of the user's configuration, and what nobody is told."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.jobs.environments.index import PackageIndex, index_for_pip, index_for_uv, pip_options

if TYPE_CHECKING:
    from pathlib import Path

MIRROR = "https://mirrors.example.cn/pypi/simple"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any configuration."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "XDG_")) or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "etc"))
    return tmp_path


@pytest.fixture
def no_system_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine itself has an /etc/pip.conf, what is told is more than these tests expect."""
    from smkit.jobs.environments import index

    files = index._pip_files
    monkeypatch.setattr(index, "_pip_files", lambda: [path for path in files() if str(path) != "/etc/pip.conf"])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def of_uv(index: PackageIndex) -> dict[str, str]:
    return {name: value for name, value in index.variables.items() if name.startswith("UV_")}


def of_pip(index: PackageIndex) -> dict[str, str]:
    return {name: value for name, value in index.variables.items() if name.startswith("PIP_")}


@pytest.mark.usefixtures("no_system_files")
def test_a_mirror_that_only_pip_was_told_of_is_used_by_uv(home: Path) -> None:
    write(
        home / ".config/pip/pip.conf",
        f"[global]\nindex-url = {MIRROR}\ntrusted-host = mirrors.example.cn\n  other.example.cn\n"
        "timeout = 30.5\n[install]\nextra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n",
    )
    assert of_uv(index_for_uv()) == {
        "UV_DEFAULT_INDEX": MIRROR,
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "mirrors.example.cn other.example.cn",
        "UV_HTTP_TIMEOUT": "30",
    }


@pytest.mark.usefixtures("no_system_files")
def test_nothing_is_said_where_nothing_is_configured() -> None:
    assert of_uv(index_for_uv()) == {}
    assert of_pip(index_for_pip()) == {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("UV_DEFAULT_INDEX", None),
        ("UV_INDEX_URL", None),
        ("UV_EXTRA_INDEX_URL", None),
        ("", '[[index]]\nurl = "https://uv.example/simple"\n'),
        ("", 'index-url = "https://uv.example/simple"\n'),
        ("", '[pip]\nextra-index-url = ["https://uv.example/simple"]\n'),
    ],
)
def test_an_index_that_uv_was_told_of_is_left_to_uv(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None
) -> None:
    write(home / ".config/pip/pip.conf", f"[global]\nindex-url = {MIRROR}\n")
    if text is None:
        monkeypatch.setenv(name, "https://uv.example/simple")
    else:
        write(home / ".config/uv/uv.toml", text)
    told = of_uv(index_for_uv())
    assert MIRROR not in told.values()
    assert told == ({name: "https://uv.example/simple"} if name else {})


@pytest.mark.usefixtures("no_system_files")
def test_a_file_of_uv_that_names_no_index_leaves_pips(home: Path) -> None:
    write(home / ".config/uv/uv.toml", 'cache-dir = "/tmp/uv"\n# index-url = "x"\n')
    write(home / ".pip/pip.conf", f"[global]\nindex_url = {MIRROR}\n")
    assert of_uv(index_for_uv()) == {"UV_DEFAULT_INDEX": MIRROR}


def test_the_given_index_wins_and_the_others_stay(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", MIRROR)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://one.example/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    given = "https://given.example/simple"
    told = of_uv(index_for_uv(given))
    assert (told["UV_DEFAULT_INDEX"], told["UV_INDEX"]) == (given, "https://one.example/simple")
    assert "UV_NO_INDEX" not in told
    told = of_pip(index_for_pip(given))
    assert (told["PIP_INDEX_URL"], told["PIP_EXTRA_INDEX_URL"]) == (given, "https://one.example/simple")
    assert "PIP_NO_INDEX" not in told
    monkeypatch.setenv("UV_INDEX_URL", MIRROR)
    assert of_uv(index_for_uv(given))["UV_DEFAULT_INDEX"] == given
    assert MIRROR not in of_uv(index_for_uv(given)).values()


@pytest.mark.usefixtures("no_system_files")
def test_what_is_no_matter_of_the_index_stays_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".config/pip/pip.conf", "[global]\nuser = true\nno-binary = :all:\nrequire-virtualenv = true\n")
    names = [
        *("PIP_TARGET", "PIP_USER", "PIP_NO_DEPS", "PIP_CONSTRAINT", "PIP_PRE", "PIP_NO_BINARY"),
        *("UV_TARGET", "UV_CONSTRAINT", "UV_EXCLUDE_NEWER", "UV_NO_BINARY", "UV_SYSTEM_PYTHON", "UV_RESOLUTION"),
        *("UV_PYTHON", "UV_COMPILE_BYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"),
    ]
    for name in names:
        monkeypatch.setenv(name, "1")
    for index in (index_for_uv(), index_for_pip()):
        assert set(names) & set(index.variables) == set()
    assert set(of_pip(index_for_pip())) == {"PIP_CONFIG_FILE", "PIP_DISABLE_PIP_VERSION_CHECK"}


def test_relative_paths_mean_the_users_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels https://links.example/ ~/more")
    monkeypatch.setenv("PIP_CERT", "ca.pem")
    expected = [f"{home}/wheels", "https://links.example/", f"{home}/more"]
    assert index_for_pip().variables["PIP_FIND_LINKS"].split() == expected
    told = index_for_uv().variables
    assert told["UV_FIND_LINKS"].split(",") == expected
    if "SSL_CERT_FILE" not in os.environ:
        assert told["SSL_CERT_FILE"] == f"{home}/ca.pem"
    monkeypatch.setenv("UV_FIND_LINKS", "here,https://links.example/")
    assert index_for_uv().variables["UV_FIND_LINKS"] == f"{home}/here,https://links.example/"


@pytest.mark.parametrize(("given", "option"), [(None, "index-url"), (None, "retries"), ("extra.conf", "index-url")])
def test_pips_files_are_read_as_pip_reads_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, option: str
) -> None:
    write(home / "etc/pip/pip.conf", "[global]\nindex-url = https://system/simple\nretries = 1\n")
    write(home / ".pip/pip.conf", "[global]\nindex-url = https://legacy/simple\nretries = 2\n")
    write(home / ".config/pip/pip.conf", "[global]\nretries = 3\n[install]\ntimeout = 4\n")
    if given:
        path = write(home / given, "[global]\nindex-url = https://given/simple\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    assert pip_options()[option] == configured_for_pip(f"global.{option}")


def configured_for_pip(name: str) -> str:
    """What this Python's pip itself says of an option."""
    command = [sys.executable, "-m", "pip", "config"]
    got = subprocess.run([*command, "get", name], capture_output=True, text=True, check=False, timeout=120)
    if "No module named pip" in got.stderr:
        pytest.skip("this Python has no pip to compare with")
    if got.returncode == 0:
        return got.stdout.strip()
    # `get` of pip 23.0 does not see PIP_CONFIG_FILE, `list` does. Not always `list`: that of a later pip shows what
    # each file says, and not in the order in which they win.
    listed = subprocess.check_output([*command, "list"], text=True, timeout=120)
    values = [line.partition("=")[2] for line in listed.splitlines() if line.startswith(f"{name}=")]
    assert len(values) == 1, listed
    return str(ast.literal_eval(values[0]))


def test_a_broken_file_of_pip_does_not_keep_uv_from_working(home: Path) -> None:
    write(home / ".config/pip/pip.conf", "index-url = without a section\n")
    assert pip_options().get("index-url") != "without a section"


@pytest.mark.parametrize("told", [index_for_uv, index_for_pip])
def test_credentials_are_masked(told, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PIP_INDEX_URL", "https://tea%20m:s3cr%21t@index.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://t0k3n@extra.example/simple")
    monkeypatch.setenv("PIP_PROXY", "http://me:hunter2@proxy.example:3128")
    index = told("https://given:p4ssw0rd@given.example/repository/k3y/simple/")
    if told is index_for_uv:
        # Where it is not used, it may not be known, but cannot be said either.
        assert "s3cr" not in str(of_uv(index))
    said = index.masked(
        "401 for https://given:p4ssw0rd@given.example/repository/k3y/simple/numpy/ and "
        "https://given:****@given.example/repository/k3y/simple: p4ssw0rd; https://t0k3n@extra.example/simple/six, "
        "token t0k3n, proxy http://me:hunter2@proxy.example:3128 hunter2; https://files.example/numpy.whl"
    )
    for secret in ("p4ssw0rd", "k3y", "t0k3n", "hunter2"):
        assert secret not in said
    assert "given.example" in said
    assert "https://files.example/numpy.whl" in said
    assert "p4ssw0rd" not in repr(index)


@given(
    user=st.text("abcXYZ019-_.~%", min_size=1, max_size=12),
    password=st.text("abcXYZ019-_.~%!$&'()*+,;=", min_size=6, max_size=20),
)
def test_no_password_of_a_url_is_ever_shown(user: str, password: str) -> None:
    url = f"https://{user}:{password}@index.example/simple"
    index = index_for_pip(url)
    assert password not in index.masked(f"Looking in indexes: {url}").replace("****", "")
    assert password not in index.masked(f"invalid credentials {password}").replace("****", "")
    assert index.masked("nothing to hide") == "nothing to hide" or password in "nothing to hide"
