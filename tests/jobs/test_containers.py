from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

from smkit.errors import ConfigError
from smkit.jobs import containers
from smkit.jobs.containers import (
    distribution_of,
    image,
    is_of_another_stdlib,
    known_versions,
    missing_name,
    modules_of,
    normalise,
    stdlib_modules,
)
from tests.pythons import python_or_skip

CORE = ("numpy", "pandas", "scipy", "scikit-learn", "joblib", "pyarrow", "boto3")
PYTHONS = sorted({image(version).python for version in known_versions()})
#: Built only where their libraries are: a Python may lack them without being another version.
OPTIONAL = {"_bz2", "_crypt", "_ctypes", "_curses", "_curses_panel", "_dbm", "_gdbm", "_lzma", "_sqlite3", "_ssl"} | {
    "_hashlib", "_tkinter", "_uuid", "bz2", "crypt", "curses", "idlelib", "lzma", "nis", "ossaudiodev", "readline",
    "spwd", "sqlite3", "ssl", "tkinter", "turtle", "turtledemo", "_elementtree", "pyexpat",
}  # fmt: skip
#: Their import does something.
TALKATIVE = {"antigravity", "this"}


@pytest.mark.parametrize(
    ("version", "python", "toolkit", "core"),
    [
        ("0.23-1", (3, 7), "4.0.1", "1.19.2 1.1.3 1.5.3 0.23.2 1.2.0 1.0.0 1.24.17"),
        ("1.0-1", (3, 8), "4.7.4", "1.24.1 1.1.3 1.8.0 1.0.2 1.3.2 14.0.1 1.28.57"),
        ("1.2-1", (3, 9), "4.8.0", "1.24.1 1.1.3 1.8.0 1.2.1 1.5.2 14.0.1 1.28.57"),
        ("1.4-2", (3, 10), "4.8.0", "2.1.0 2.3.2 1.15.3 1.4.2 1.5.3 17.0.0 1.28.57"),
        ("1.4-2-py312", (3, 12), "4.8.0", "2.1.0 2.3.2 1.17.1 1.4.2 1.5.3 17.0.0 1.28.57"),
        ("1.9-0", (3, 12), "4.8.0", "2.5.1 2.2.3 1.18.0 1.9.0 1.5.3 25.0.0 1.43.46"),
    ],
)
def test_what_an_image_contains(version: str, python: tuple[int, int], toolkit: str, core: str) -> None:
    content = image(version)
    assert (content.framework_version, content.python, content.toolkit) == (version, python, toolkit)
    assert [content.packages[name] for name in CORE] == core.split()
    assert content.date >= "2026-01-01"
    assert {"sklearn", "numpy", "dateutil", "sagemaker_training", "sagemaker_sklearn_container"} <= content.modules
    assert {"os", "json", "__future__"} <= content.stdlib


def test_every_known_image_has_its_list() -> None:
    lists = {path.stem for path in containers._DATA.glob("[0-9]*.txt")}
    assert lists == set(known_versions())


def test_an_unknown_image_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"'1.2-2'.*did you mean '1.*known are 0.23-1, 1.0-1"):
        image("1.2-2")


def test_images_differ_in_what_they_bring() -> None:
    assert "yaml" in image("1.9-0").modules
    assert "yaml" not in image("1.2-1").modules
    assert "requests" in image("1.2-1").likely_modules
    assert "requests" not in image("1.4-2").likely_modules


def test_every_package_of_an_image_has_its_modules() -> None:
    for version in known_versions():
        assert [name for name in image(version).packages if modules_of(name) is None] == []


@pytest.mark.parametrize("name", ["scikit-learn", "pillow", "python-dateutil", "pyyaml", "numpy", "jinja2", "cffi"])
def test_the_table_of_modules_agrees_with_what_is_installed(name: str) -> None:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    tops = {str(file).partition("/")[0].partition(".")[0] for file in files}
    assert set(modules_of(name) or ()) - tops == set()


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("PIL", "pillow"),
        ("PIL.Image", "pillow"),
        ("cv2", "opencv-python-headless"),
        ("yaml", "pyyaml"),
        ("sklearn.linear_model", "scikit-learn"),
        ("google.cloud.storage", "google-cloud-storage"),
        ("google.protobuf", "protobuf"),
        ("no_such_module", None),
    ],
)
def test_the_distribution_of_a_module(module: str, distribution: str | None) -> None:
    assert distribution_of(module) == distribution


def test_names_are_compared_as_the_index_does() -> None:
    assert normalise("Scikit_Learn") == normalise("scikit.learn") == "scikit-learn"
    assert modules_of("PyYAML") == modules_of("pyyaml")


def test_the_standard_library_of_no_image_is_not_known() -> None:
    with pytest.raises(ConfigError, match=r"Python 3\.6 are not known"):
        stdlib_modules((3, 6))


@pytest.mark.parametrize("python", PYTHONS)
def test_the_standard_library_is_that_of_the_real_python(python: tuple[int, int]) -> None:
    interpreter = python_or_skip(python)
    code = """
import importlib.util, json, os, sys, sysconfig
folder = sysconfig.get_path("stdlib")
names = {name.partition(".")[0] for name in os.listdir(folder) if name.endswith(".py")}
names |= {n for n in os.listdir(folder) if os.path.exists(os.path.join(folder, n, "__init__.py"))}
found = [name for name in json.load(sys.stdin) if importlib.util.find_spec(name) is not None]
print(json.dumps([found, sorted(names | set(sys.builtin_module_names))]))
"""
    listed = stdlib_modules(python)
    result = subprocess.run(
        [interpreter, "-I", "-c", code], input=json.dumps(sorted(listed)), capture_output=True, text=True, check=True
    )
    importable, present = (set(names) for names in json.loads(result.stdout))
    assert listed - importable - OPTIONAL == set()
    own_tests = {name for name in present if name.startswith(("_test", "_sysconfigdata", "xx", "_xx", "__"))}
    assert present - listed - own_tests == set()


@pytest.mark.parametrize("python", PYTHONS)
def test_names_that_came_and_left_are_those_of_the_real_python(python: tuple[int, int]) -> None:
    interpreter = python_or_skip(python)
    pairs = [(module, name) for module, names in containers._stdlib_names().items() for name in names]
    assert len(pairs) > 300
    code = """
import json, sys
def has(module, name):
    try:
        exec("from %s import %s" % (module, name))
    except ImportError:
        return False
    return True
print(json.dumps([has(*pair) for pair in json.load(sys.stdin)]))
"""
    result = subprocess.run(
        [interpreter, "-I", "-W", "ignore", "-c", code],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
    )
    wrong = [
        pair
        for pair, has in zip(pairs, json.loads(result.stdout), strict=True)
        if has != (missing_name(python, *pair) == "")
    ]
    # Which constants os and signal have depends on the kernel that Python was built on.
    assert [pair for pair in wrong if pair[0] not in {"os", "signal"}] == []


def test_when_a_name_came_or_left() -> None:
    assert missing_name((3, 7), "typing", "Literal") == "came with Python 3.8"
    assert missing_name((3, 8), "typing", "Literal") == ""
    assert missing_name((3, 10), "collections", "Mapping") == "left with Python 3.10"
    assert missing_name((3, 7), "typing", "Any") == missing_name((3, 7), "nowhere", "x") == ""


def test_modules_of_another_python() -> None:
    assert is_of_another_stdlib((3, 9), "tomllib")
    assert is_of_another_stdlib((3, 12), "imp")
    assert not is_of_another_stdlib((3, 9), "json")
    assert not is_of_another_stdlib((3, 9), "pandas")


def test_distutils_stays_where_setuptools_is() -> None:
    assert "distutils" not in stdlib_modules((3, 12))
    assert "distutils" in image("1.9-0").modules


def test_looking_a_module_up_is_quick_to_load() -> None:
    code = "import sys, smkit.jobs.containers; print([n for n in ('boto3', 'pandas', 'sklearn') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
