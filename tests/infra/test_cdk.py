"""The snippet for the AWS CDK in docs/infrastructure.md, run with the real CDK.

`SMKIT_TEST_CDK_PYTHON` names a Python that has aws-cdk-lib, default: this one. The CDK runs on node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smkit.infra.templates import read_template
from tests.infra.test_templates import parsed
from tests.test_docs import blocks_of

PYTHON = os.environ.get("SMKIT_TEST_CDK_PYTHON", sys.executable)
PAGE = Path(__file__).parents[2] / "docs" / "infrastructure.md"


def test_the_snippet_synthesises_the_packaged_template(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not found, which the AWS CDK runs on")
    found = subprocess.run([PYTHON, "-c", "import importlib.util as u; assert u.find_spec('aws_cdk')"], check=False)
    if found.returncode:
        pytest.skip(f"{PYTHON} has no aws-cdk-lib: name one that has in SMKIT_TEST_CDK_PYTHON")
    (snippet,) = [one.text for one in blocks_of(PAGE.read_text(encoding="utf-8")) if "aws_cdk" in one.text]
    packaged = read_template("foundation")
    (tmp_path / "foundation.yaml").write_text(packaged, encoding="utf-8")
    (tmp_path / "app.py").write_text(snippet, encoding="utf-8")
    environment = {**os.environ, "CDK_OUTDIR": str(tmp_path / "out"), "HOME": str(tmp_path)}
    run = subprocess.run(
        [PYTHON, "app.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr
    made = json.loads((tmp_path / "out" / "houses-smkit.template.json").read_text(encoding="utf-8"))
    template = parsed(packaged)
    assert set(made["Outputs"]) == set(template["Outputs"])
    assert {name: one["Type"] for name, one in made["Resources"].items()} == {
        name: one["Type"] for name, one in template["Resources"].items()
    }
    assert set(made["Conditions"]) == set(template["Conditions"])
    # What the snippet says is put in, everywhere; the CDK adds one parameter of its own.
    assert set(made["Parameters"]) - {"BootstrapVersion"} == set(template["Parameters"]) - {
        "Project",
        "BucketName",
        "Prefix",
    }
    assert made["Resources"]["Bucket"]["Properties"]["BucketName"] == "houses-data"
