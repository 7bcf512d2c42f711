"""`smkit doctor`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from smkit.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--only", "settings", "--only", "root", "--only", "bucket")


def call(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["doctor", *words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_a_table_for_people() -> None:
    lines = call(*QUICK).stdout.splitlines()
    assert lines[0] == "This machine"
    assert lines[1].startswith("  ✓ settings")
    assert any(line.startswith("  ✓ folder") for line in lines)
    assert lines[-1].startswith("no problems, 2 ok, ")


def test_json_for_programs() -> None:
    result = call(*QUICK, "--json")
    report = json.loads(result.stdout)
    assert report["schema_version"] == 1
    assert report["ok"] is True
    assert {check["id"] for check in report["checks"]} >= {"settings", "root", "bucket"}


def test_a_problem_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "✗ folder" in call("--root", str(tmp_path / "file" / "store"), *QUICK, code=1).stdout
    monkeypatch.setenv("SMKIT_REGOIN", "x")
    result = call("--json", *QUICK, code=1)
    assert [check["id"] for check in json.loads(result.stdout)["checks"] if check["outcome"] == "problem"] == [
        "settings"
    ]
    assert result.stderr == ""


def test_without_a_write() -> None:
    report = json.loads(call("--only", "root", "--no-write", "--json").stdout)
    assert "no write was tried" in report["checks"][-1]["finding"]


def test_further_buckets(aws_env: str, bucket: str) -> None:
    words = ("--only", "sdk", "--bucket", bucket, "--bucket", f"{bucket}-2", "--json", "--timeout", "20")
    checks = {check["id"]: check["outcome"] for check in json.loads(call(*words, code=1).stdout)["checks"]}
    assert checks[f"bucket:{bucket}"] == "ok"
    assert checks[f"bucket:{bucket}-2"] == "problem"
    assert "disk" not in checks


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--only", "bukket"), "did you mean 'bucket'"),
        (("--bucket", "raw_data"), "is not a bucket name"),
        (("--timeout", "0"), "timeout"),
        (("--timeout", "soon"), "timeout"),
    ],
)
def test_wrong_words(words: tuple[str, ...], says: str) -> None:
    result = call(*words, code=2)
    assert says in result.stderr
    assert result.stdout == ""


def run(environment: dict[str, str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "smkit", "doctor", "--only", "settings"],
        env={**os.environ, **environment},
        timeout=120,
        check=True,
        **options,
    )


def test_a_poor_encoding_gets_ascii() -> None:
    out = run({"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, stdout=subprocess.PIPE).stdout
    assert out.isascii()
    assert b"  + settings" in out


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal_only(no_color: str, coloured: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        run({"NO_COLOR": no_color, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}, stdout=theirs)
        out = os.read(ours, 1 << 16)
    finally:
        os.close(theirs)
        os.close(ours)
    assert (b"\x1b[32m" in out) is coloured
    assert "✓".encode() in out
