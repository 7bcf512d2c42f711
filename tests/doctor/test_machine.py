"""What the doctor says of this machine, with no network at all."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import smkit
from smkit.diagnosis import machine
from smkit.errors import ParityEnvironmentError
from smkit.jobs import containers, environments
from smkit.jobs.sagemaker import sdk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every attempt to use the network, each of which fails."""
    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> Any:
        attempts.append(arguments)
        raise AssertionError(f"the network was used: {arguments}")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    return attempts


def test_a_store_in_a_folder_needs_no_network(network: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    report = smkit.doctor(timeout=30)
    assert network == []
    assert report.problems == report.untold == ()
    assert report.ok
    aws = {result.id for result in report if result.group in {"The way to AWS", "The AWS account"}}
    assert {report[name].outcome for name in aws - {"proxy"}} == {"skipped"}
    assert "need no AWS" in report["credentials"].finding
    assert "no bucket is set" in report["bucket"].finding
    # What was asked for by name is asked all the same.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert smkit.doctor(checks=["reach-s3"], timeout=30)["reach-s3"].outcome != "skipped"
    assert network


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "store"
    report = smkit.doctor(smkit.Settings(root=root), checks=["root"])
    assert report["root"].ok
    assert f"to be made in {tmp_path}" in report["root"].finding
    root.mkdir(parents=True)
    assert smkit.doctor(smkit.Settings(root=root), checks=["root"])["root"].ok
    assert list(root.iterdir()) == []


def test_without_write_the_folder_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FolderStore", None)
    result = smkit.doctor(smkit.Settings(root=tmp_path), checks=["root"], write=False)["root"]
    assert result.outcome == "cannot tell"
    assert "no write was tried" in result.finding


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = smkit.doctor(smkit.Settings(root=tmp_path / "file" / "store"), checks=["root"])["root"]
    assert result.outcome == "problem"
    assert "is a file" in result.finding


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        result = smkit.doctor(smkit.Settings(root=tmp_path / "store"), checks=["root"])["root"]
    finally:
        tmp_path.chmod(0o700)
    assert result.outcome == "problem"
    assert "cannot be written to" in result.finding


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.EPERM, "no hard links"), (errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")],
)
def test_file_systems_that_cannot_put_atomically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    result = smkit.doctor(smkit.Settings(root=tmp_path), checks=["root"])["root"]
    assert result.outcome == "problem"
    assert says in result.finding
    assert result.fix
    assert list(tmp_path.iterdir()) == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("free", "outcome", "says"),
    [
        (machine.DISK_PROBLEM - 1, "problem", "too little for the store"),
        (machine.DISK_PROBLEM, "ok", "little is left for the store"),
        (machine.DISK_ADVICE, "ok", ""),
    ],
)
def test_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, outcome: str, says: str
) -> None:
    def usage(folder: Path) -> Usage:
        return Usage(1 << 40, 0, free if folder == tmp_path else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    result = smkit.doctor(smkit.Settings(root=tmp_path), checks=["disk"])["disk"]
    assert result.outcome == outcome
    assert says in f"{result.finding} {result.fix}"
    assert bool(result.fix) == bool(says)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    result = smkit.doctor(smkit.Settings(root="/"), checks=["disk"], write=False)["disk"]
    assert result.outcome == "problem"
    assert "XDG_CACHE_HOME" in result.fix


@pytest.mark.parametrize(
    ("version", "usable", "says", "advice"),
    [
        (None, False, "not installed: jobs are sent through boto3", False),
        ("2.257.0", True, "by its SKLearn estimator", False),
        ("2.100.0", False, "is older than smkit uses", True),
        ("3.27.0", False, "has no SKLearn estimator", False),
    ],
)
def test_the_sdk(monkeypatch: pytest.MonkeyPatch, version: str | None, usable: bool, says: str, advice: bool) -> None:
    monkeypatch.setattr(sdk, "sdk_version", lambda: version)
    monkeypatch.setattr(sdk, "has_sklearn", lambda: usable)
    result = smkit.doctor(checks=["sdk"])["sdk"]
    assert result.ok
    assert says in result.finding
    assert bool(result.fix) is advice


@pytest.mark.parametrize(
    ("values", "outcome", "says"),
    [
        ({}, "ok", "sagemaker-scikit-learn:1.2-1-cpu-py3"),
        ({"framework_version": "1.4-2"}, "ok", "no inference image"),
        ({"framework_version": "1.3-1"}, "problem", "has no training image"),
        ({"region": "mx-central-1"}, "ok", "jobs run on this machine"),
        ({"region": "mx-central-1", "backend": "sagemaker"}, "problem", "has no scikit-learn images"),
    ],
)
def test_the_image(values: dict[str, str], outcome: str, says: str) -> None:
    result = smkit.doctor(smkit.Settings(**values), checks=["image"])["image"]
    assert result.outcome == outcome
    assert says in f"{result.finding} {result.fix}"


def test_an_image_whose_content_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "known_versions", lambda: ("0.23-1",))
    assert "imports are not checked" in smkit.doctor(checks=["image"])["image"].fix


class Found(NamedTuple):
    is_built: bool
    python_version: str


@pytest.mark.parametrize(
    ("values", "outcome", "begins", "fix"),
    [
        (
            {},
            "ok",
            "1.2-1 no Python, 0.23-1 built, 1.0-1 can be built (Python 3.8)",
            "to run jobs here as in the image",
        ),
        ({"local_environment": "1.2-1"}, "problem", "1.2-1 no Python, 0.23-1 built", "uv python install 3.9"),
        ({"local_environment": "1.2-1[toolkits]"}, "problem", "1.2-1[toolkits] no Python", "uv python install 3.9"),
        ({"local_environment": "0.23-1"}, "ok", "0.23-1 built, 1.0-1 can be", ""),
        ({"framework_version": "1.3-1"}, "cannot tell", "there is no parity environment of 1.3-1", "0.23-1"),
    ],
)
def test_parity_environments(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], outcome: str, begins: str, fix: str
) -> None:
    def locate(name: str) -> Found:
        if name.startswith("1.2-1"):
            raise ParityEnvironmentError("no Python 3.9 here: uv python install 3.9")
        return Found(name == "0.23-1", "3.8")

    monkeypatch.setattr(environments, "locate", locate)
    result = smkit.doctor(smkit.Settings(**values), checks=["parity"])["parity"]
    assert result.outcome == outcome
    assert result.finding.startswith(begins)
    assert fix in result.fix
    assert bool(fix) == bool(result.fix)


def test_parity_environments_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real search, on a machine with no Python but this one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = smkit.doctor(checks=["parity"], timeout=60)["parity"]
    assert result.ok, result
    for version in ("0.23-1", "1.0-1", "1.2-1", "1.4-2", "1.4-2-py312", "1.9-0"):
        assert f"{version} no Python" in result.finding or f"{version} can be built" in result.finding
    # uv may make a cache of its own there.
    assert not (tmp_path / "cache" / "smkit").exists()
    assert f"{sys.version_info[0]}." in result.finding + result.fix
