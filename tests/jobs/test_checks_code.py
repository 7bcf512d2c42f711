from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smkit.config import Settings
from smkit.jobs.checks import check_job
from smkit.jobs.checks.imports import imports_of
from smkit.jobs.checks.resolution import absolute_name
from smkit.jobs.checks.syntax import Unreadable, parse
from smkit.jobs.staging import stage
from tests.jobs.checking import Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def only(findings: list[str]) -> str:
    assert len(findings) == 1, findings
    return findings[0]


USUAL = """
    from __future__ import annotations

    import argparse, json, os
    from collections.abc import Mapping
    from typing import TYPE_CHECKING

    import joblib
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import Ridge

    import features
    from smkit.entrypoint import TrainingScript, hyperparameter
    from lib import cleaning
    from lib.deep.inside import what

    if TYPE_CHECKING:
        import some_types_that_no_image_has
"""


def usual(project: Project) -> Project:
    project.write("train.py", USUAL).write("features.py", "import scipy.stats\n").write("lib/__init__.py")
    project.write("lib/cleaning.py", "from . import deep\nfrom .deep.inside import what\nfrom ..features import x\n")
    project.write("lib/deep/__init__.py").write("lib/deep/inside.py", "from ... import nothing\n")
    return project


@pytest.mark.parametrize("version", ["0.23-1", "1.0-1", "1.2-1", "1.4-2", "1.4-2-py312", "1.9-0"])
def test_nothing_is_found_in_usual_code(project: Project, version: str) -> None:
    usual(project).write("lib/cleaning.py", "from . import deep\nfrom .deep.inside import what\n")
    project.write("lib/deep/inside.py", "from .. import cleaning\nwhat = 1\n")
    assert project.code_report(framework_version=version) == []


def test_a_relative_import_that_leaves_the_code(project: Project) -> None:
    first, second = usual(project).code_report()
    assert first.startswith("problem lib/cleaning.py:3: the relative import of '..features' leaves the code")
    assert first.endswith("import it absolutely: from features import x")
    assert second.startswith("problem lib/deep/inside.py:1: the relative import of '...' leaves the code")


def test_a_script_has_no_package(project: Project) -> None:
    project.write("helpers.py")
    found = only(project.code_report("from . import helpers\n"))
    assert found.startswith("problem train.py:1: the relative import of '.'")
    assert found.endswith("import it absolutely: import helpers")


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("import PIL.ImageX, xgboost", "add the line 'xgboost' to requirements.txt"),
        ("import cv2", "add the line 'opencv-python-headless' to requirements.txt"),
        ("from yaml import safe_load", "add the line 'pyyaml' to requirements.txt"),
        ("from google.cloud import storage", "add the line 'google-cloud-storage' to requirements.txt"),
        ("import pandsa", "did you mean 'pandas'? If not, add the distribution that brings it to requirements.txt"),
    ],
)
def test_a_module_that_is_nowhere(project: Project, line: str, fix: str) -> None:
    found = only(project.code_report(line))
    assert found.startswith("problem train.py:1: no module ")
    assert "neither the image 1.2-1 (Python 3.9), nor requirements.txt, nor the code has it" in found
    assert found.endswith(fix)


def test_a_module_is_found_in_a_module_that_the_script_imports(project: Project) -> None:
    project.write("lib/__init__.py", "from .a import f\n").write("lib/a.py", "\nimport lightgbm\n")
    project.write("never_imported.py", "import xgboost, 1\n")
    assert only(project.code_report("import lib\n")).startswith("problem lib/a.py:2: no module 'lightgbm'")


@pytest.mark.parametrize("path", ["lib/helper.py", "lib/helper/__init__.py"])
def test_a_module_that_sys_path_may_lead_to_is_unknown(project: Project, path: str) -> None:
    project.write(path, "").write("sub/other.txt", "")
    added = "import os, sys\nsys.path.append(os.path.join(os.path.dirname(__file__), 'lib'))\n"
    found = only(project.code_report(added + "import helper\n"))
    assert found.startswith(f"unknown train.py:3: 'helper' is at {path}")
    assert only(project.code_report(added + "import xgboost\n")).startswith("problem train.py:3: no module 'xgboost'")
    # Without that line nothing leads there.
    assert only(project.code_report("import helper\n")).startswith("problem train.py:1: no module 'helper'")


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nif sys.platform == 'win32':\n    import xgboost\n",
        "import os\nif os.name != 'posix':\n    import xgboost\n",
        "import sys\nif sys.platform == 'linux':\n    pass\nelse:\n    import xgboost\n",
    ],
)
def test_another_platforms_import_never_runs(project: Project, code: str) -> None:
    assert not project.code_report(code)


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    import xgboost\n",
        "try:\n    import xgboost\nexcept ImportError:\n    xgboost = None\n",
        "try:\n    import xgboost\nexcept (KeyError, ModuleNotFoundError):\n    pass\n",
        "try:\n    import xgboost\nexcept:\n    pass\n",
        "try:\n    pass\nexcept ValueError:\n    import xgboost\n",
        "from contextlib import suppress\nwith suppress(ImportError):\n    import xgboost\n",
        "import os\nif os.environ.get('X'):\n    import xgboost\n",
        "for i in range(3):\n    import xgboost\n",
        "try:\n    import lib\nexcept ImportError:\n    pass\n",
    ],
)
def test_an_import_that_may_never_run_is_a_warning(project: Project, code: str) -> None:
    project.write("lib.py", "import xgboost\n")
    assert only(project.code_report(code)).startswith("warning ")


@pytest.mark.parametrize(
    "code",
    [
        "if __name__ == '__main__':\n    import xgboost\n",
        "try:\n    import xgboost\nexcept KeyError:\n    pass\n",
        "try:\n    import xgboost\nfinally:\n    pass\n",
        "with open('x') as f:\n    import xgboost\n",
        "class A:\n    import xgboost\n",
        "import sys\nif sys.version_info >= (3, 8):\n    import xgboost\n",
        "import sys\nif sys.version_info < (3, 8):\n    pass\nelse:\n    import xgboost\n",
        "def f():\n    import lib\nimport lib\n",
        "import sys\nif not sys.version_info < (3, 8):\n    import xgboost\n",
    ],
)
def test_an_import_that_runs_for_certain_is_a_problem(project: Project, code: str) -> None:
    project.write("lib.py", "import xgboost\n")
    assert only(project.code_report(code)).startswith("problem ")


@pytest.mark.parametrize(
    "code",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import xgboost\n",
        "import typing\nif typing.TYPE_CHECKING:\n    import xgboost\n",
        "import sys\nif sys.version_info >= (3, 10):\n    import xgboost\n",
        "import sys\nif sys.version_info[:2] < (3, 0) and False:\n    pass\n",
        "if False:\n    import xgboost\n",
        "import lib\n",
        "import __main__\n",
    ],
)
def test_an_import_that_never_runs_is_left_alone(project: Project, code: str) -> None:
    project.write("lib.py", "if __name__ == '__main__':\n    import xgboost\n")
    assert project.code_report(code) == []


def test_the_name_of_a_missing_module_is_said_once(project: Project) -> None:
    project.write("lib.py", "import xgboost\n")
    code = "def f():\n    import xgboost\nimport lib\nfrom xgboost import XGBClassifier\nimport xgboost\n"
    found = project.code_report(code)
    assert len([line for line in found if "'xgboost'" in line]) == 1
    assert found[0].startswith("problem ")


def test_requirements_bring_modules(project: Project) -> None:
    project.write("requirements.txt", "XGBoost>=2 # boosting\nPyYAML\nopencv_python==4.8.0.76\nacme.tools[all]~=1.0\n")
    assert project.code_report("import xgboost, yaml, cv2, acme_tools\n") == []


def test_a_requirement_that_nobody_knows_may_bring_any_module(project: Project) -> None:
    project.write("requirements.txt", "acme-private-models\n")
    found = only(project.code_report("import acme\n"))
    assert found.startswith("warning train.py:1: 'acme' is not named in requirements.txt")


def test_what_a_requirement_needs_is_known_from_this_machine(project: Project) -> None:
    # hypothesis is installed wherever these tests run, and needs sortedcontainers.
    project.write("requirements.txt", "hypothesis\n")
    assert only(project.code_report("import sortedcontainers\n")).startswith("warning ")
    assert only(project.code_report("import xgboost\n")).startswith("problem ")


def test_the_image_has_modules_that_nothing_promises(project: Project) -> None:
    found = only(project.code_report("import requests\n"))
    assert found.startswith("warning train.py:1: 'requests' is in the image 1.2-1 for its own tools only")
    assert project.code_report("import requests\n", framework_version="1.9-0") == []
    assert only(project.code_report("import requests\n", framework_version="1.4-2")).startswith("problem ")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import smkit", "warning train.py:1: import smkit brings nothing but smkit.entrypoint there"),
        ("from smkit import Settings, entrypoint", "problem train.py:1: smkit.Settings does not travel with a job"),
        ("from smkit.errors import ConfigError", "problem train.py:1: smkit.errors does not travel with a job"),
        ("import smkit.entrypoints", "problem train.py:1: smkit.entrypoints does not travel with a job"),
        ("def f():\n    import smkit.aws", "warning train.py:2: smkit.aws does not travel with a job"),
    ],
)
def test_only_the_template_travels(project: Project, line: str, what: str) -> None:
    found = only(project.code_report(line))
    assert found.startswith(what)
    assert found.endswith("import from smkit.entrypoint only: nothing else of smkit is in the container")


@pytest.mark.parametrize(
    "line", ["import smkit.entrypoint", "from smkit import entrypoint", "from smkit.entrypoint.script import x"]
)
def test_the_template_may_be_imported(project: Project, line: str) -> None:
    assert project.code_report(line, framework_version="0.23-1") == []


def test_syntax_that_the_image_lacks(project: Project) -> None:
    project.write("lib/__init__.py").write("lib/new.py", "x = 1\nmatch x:\n    case 1:\n        pass\n")
    found = only(project.code_report("import lib.new\n"))
    assert found == (
        "problem lib/new.py:2: the match statement needs Python 3.10; the image 1.2-1 has 3.9; write it for the older "
        "Python, or choose a newer framework_version"
    )
    assert project.code_report("import lib.new\n", framework_version="1.4-2") == []
    assert only(project.code_report("def f():\n    import lib.new\n")).startswith("warning ")


def test_a_module_that_does_not_compile(project: Project) -> None:
    project.write("lib.py", "x = (\n")
    assert only(project.code_report("import lib\n")) == (
        "problem lib.py:1: SyntaxError: '(' was never closed; correct it"
    )


@pytest.mark.parametrize(
    ("version", "line", "what"),
    [
        ("0.23-1", "from typing import Literal, Any", "typing.Literal came with Python 3.8"),
        ("0.23-1", "import importlib.metadata", "importlib.metadata came with Python 3.8"),
        ("0.23-1", "from importlib import metadata", "importlib.metadata came with Python 3.8"),
        ("1.2-1", "from itertools import pairwise", "itertools.pairwise came with Python 3.10"),
        ("1.4-2", "from collections import Mapping", "collections.Mapping left with Python 3.10"),
        ("1.2-1", "import tomllib", "'tomllib' is not in the standard library of Python 3.9"),
        ("1.9-0", "import imp", "'imp' is not in the standard library of Python 3.12"),
    ],
)
def test_the_standard_library_is_the_images(project: Project, version: str, line: str, what: str) -> None:
    found = only(project.code_report(line, framework_version=version))
    assert found.startswith(f"problem train.py:1: {what}")
    guarded = f"try:\n    {line}\nexcept ImportError:\n    pass\n"
    assert only(project.code_report(guarded, framework_version=version)).startswith("warning ")


def test_distutils_comes_from_setuptools(project: Project) -> None:
    assert project.code_report("import distutils.version", framework_version="1.9-0") == []


def test_a_script_that_travels_alone_leaves_its_neighbours_behind(project: Project) -> None:
    project.write("helpers.py").write("lib/a.py")
    first, second = project.code_report("import helpers\nimport lib.a\n", alone=True)
    assert first.endswith(
        f"helpers.py lies beside the script, but the script travels alone: pass source_dir='{project.folder}', or "
        f"dependencies=['{project.folder}/helpers.py']"
    )
    assert second.startswith("problem train.py:2: no module 'lib.a'")
    assert "lib lies beside the script" in second
    found = only(project.code_report("import yaml\n", alone=True))
    assert found.endswith(
        "add the line 'pyyaml' to a requirements.txt beside the script, and pass that folder as source_dir"
    )


def test_a_module_that_is_not_in_its_package(project: Project) -> None:
    project.write("lib/__init__.py", "value = 1\n").write("lib/a.py", "x = 1\n")
    code = "from lib import value, a\nimport lib.b.c\nfrom lib.a import anything\nimport lib.a.b\n"
    assert [line.partition(";")[0] for line in project.code_report(code)] == [
        "problem train.py:2: there is no module 'lib.b' in the code",
        "problem train.py:4: there is no module 'lib.a.b' in the code",
    ]


def test_folders_without_init_are_packages_too(project: Project) -> None:
    project.write("lib/sub/a.py", "import xgboost\n").write("data/x.csv")
    assert only(project.code_report("from lib.sub import a\n")).startswith(
        "problem lib/sub/a.py:1: no module 'xgboost'"
    )
    assert only(project.code_report("import data\n")).startswith("problem train.py:1: no module 'data'")


def test_compiled_modules_and_scripts_in_folders(project: Project) -> None:
    project.write("fast.cpython-39-x86_64-linux-gnu.so").write(
        "scripts/train.py", "import beside\nimport above\nimport fast\n"
    )
    project.write("scripts/beside.py").write("above.py")
    assert project.code_report(entry_point="scripts/train.py") == []


@pytest.mark.parametrize(
    ("name", "hidden"), [("random", "the standard library's module"), ("joblib", "the image's package")]
)
def test_a_module_that_hides_another(project: Project, name: str, hidden: str) -> None:
    project.write(f"{name}.py")
    found = only(project.code_report(f"import {name}\nfrom {name} import x\n"))
    assert found == f"warning {name}.py: hides {hidden} of that name, from other packages too; rename it"


def test_circles_end(project: Project) -> None:
    project.write("a.py", "import b\nimport train\n").write("b.py", "import a\n")
    assert project.code_report("import a\n") == []


def test_a_shell_script_is_not_read(project: Project) -> None:
    project.write("train.sh", "python3 -c 'import xgboost'\n")
    found = only(project.code_report(entry_point="train.sh"))
    assert found.startswith("unknown train.sh: what a shell script runs is not looked at")


def test_a_package_with_setup_py_may_install_anything(project: Project) -> None:
    project.write("setup.py", "from setuptools import setup\nsetup(install_requires=['xgboost'])\n")
    assert only(project.code_report("import xgboost\n")).startswith("warning ")


def test_an_image_that_is_not_known(project: Project) -> None:
    assert only(project.code_report("import xgboost\n", framework_version="1.5-2")).startswith(
        "unknown framework_version: framework_version '1.5-2': what this image contains is not known"
    )
    own = {"image_uri": "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/own:1"}
    assert only(project.code_report("import xgboost\n", sagemaker=own)).startswith("unknown image_uri: what ")


def test_without_a_network_pip_is_no_way_out(project: Project) -> None:
    found = only(project.code_report("import yaml\n", sagemaker={"network_isolation": True}))
    assert "add the line" not in found
    assert found.endswith(
        "the container has no network: put the module into source_dir, or use an image that has it (image_uri)"
    )


def test_code_runs_nowhere(project: Project, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    project.write("lib.py", f"open({str(marker)!r}, 'w')\n")
    project.code_report(f"import lib\nopen({str(marker)!r}, 'w')\n")
    assert not marker.exists()
    assert "lib" not in sys.modules


class TestOnThisMachine:
    """Here the code runs in this Python: what only the image lacks is a warning."""

    def test_what_only_the_image_lacks(self, project: Project) -> None:
        report = project.check("import hypothesis\nif (n := 1): pass\n", framework_version="0.23-1")
        assert report.ok
        assert {item.subject for item in report.warnings} == {"train.py:1", "train.py:2", "scikit-learn"}

    def test_what_this_python_lacks_too(self, project: Project) -> None:
        project.write("lib.py", "x = (\n").write("requirements.txt", "-r other.txt\n")
        report = project.check("import no_such_module\nimport lib\nimport smkit.errors\n")
        assert [item.subject for item in report.problems] == [
            "train.py:1",
            "train.py:3",
            "lib.py:1",
            "requirements.txt:1",
        ]

    def test_a_path_of_this_machine_is_here(self, project: Project) -> None:
        project.write("requirements.txt", "-e /somewhere/lib\n")
        assert [item.subject for item in project.check("").warnings][:1] == ["requirements.txt:1"]


def test_a_check_is_quick(project: Project) -> None:
    """A usual project, a few hundred lines in ten modules, takes some 30 ms."""
    body = "\n\n".join(f"def f{n}(x):\n    y = [i * x for i in range({n})]\n    return f'{{y}} {n}'" for n in range(20))
    imports = "".join(f"import part{n}\n" for n in range(10))
    for number in range(10):
        project.write(f"part{number}.py", f"import numpy as np\nimport pandas as pd\n{body}\n")
    project.write("requirements.txt", "xgboost==2.0.3\n")
    spec = project.spec()
    project.write("train.py", f"import xgboost\n{imports}{body}\n")
    given_settings, code = Settings(), stage(spec)
    check_job(spec, given_settings, code, backend="local")
    times = []
    for _ in range(5):
        start = time.process_time()
        check_job(spec, given_settings, code, backend="local")
        times.append(time.process_time() - start)
    # The best of five, with room for a slow machine.
    assert min(times) < 0.1


@pytest.mark.parametrize(
    ("package", "level", "module", "name"),
    [
        ("a.b", 1, "c", "a.b.c"),
        ("a.b", 2, "c", "a.c"),
        ("a.b", 2, "", "a"),
        ("a", 2, "c", None),
        ("", 1, "c", None),
    ],
)
def test_relative_names(package: str, level: int, module: str, name: str | None) -> None:
    assert absolute_name(package, level, module) == name


NAMES = st.sampled_from(["os", "xgboost", "a.b", "numpy"])
SIMPLE = NAMES.map(lambda name: f"import {name}")


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        inner,
        inner.map(lambda text: "def f():\n" + indented(text)),
        inner.map(lambda text: "try:\n" + indented(text) + "\nexcept ImportError:\n    pass"),
        inner.map(lambda text: "if unknown:\n" + indented(text)),
        inner.map(lambda text: "with x:\n" + indented(text)),
        st.tuples(inner, inner).map("\n".join),
    )


# Not st.recursive: now and then it warns that its argument is not used.
BLOCKS = nested(nested(nested(SIMPLE)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=BLOCKS)
def test_every_import_is_found_and_judged_by_what_stands_around_it(text: str) -> None:
    tree = parse(text.encode(), "x.py")
    assert not isinstance(tree, Unreadable)
    found = {item.line: item for item in imports_of(tree, (3, 9), is_script=True)}
    lines = text.splitlines()
    assert set(found) == {number for number, line in enumerate(lines, start=1) if "import " in line}
    for number, item in found.items():
        around, depth = [], len(lines[number - 1]) - len(lines[number - 1].lstrip())
        for line in reversed(lines[: number - 1]):
            indent = len(line) - len(line.lstrip())
            if indent < depth:
                around.append(line.strip())
                depth = indent
        assert item.certain == (not [line for line in around if not line.startswith("with")])
