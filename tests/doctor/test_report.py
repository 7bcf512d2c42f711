"""The report, the scheduling, and that no secret gets out."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
import subprocess
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import smkit
from smkit.diagnosis import CheckResult, DoctorReport
from smkit.diagnosis.catalogue import catalogue
from smkit.diagnosis.context import Context
from smkit.diagnosis.findings import Check, Finding, ok, problem
from smkit.diagnosis.masking import Secrets
from smkit.diagnosis.report import ASCII_SYMBOLS
from smkit.diagnosis.scheduling import run_checks
from smkit.errors import ConfigError, ProblemsFound
from tests.doctor.conftest import client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doctor.front import Front

GOOD = CheckResult("disk", "This machine", "disk space", "ok", "plenty")
BAD = CheckResult("role", "The AWS account", "execution role", "problem", "<b>no</b> role", "set role", 0.25)
OPEN = CheckResult("kms", "The AWS account", "KMS key", "cannot tell", "no answer in 5 s")
LEFT = CheckResult("bucket", "The store", "bucket", "skipped", "no bucket is set")
LEFT_TOO = CheckResult("bucket-read", "The store", "reading", "skipped", "no bucket is set")
REPORT = DoctorReport((GOOD, BAD, OPEN, LEFT, LEFT_TOO), 1.5)


# --- the report --------------------------------------------------------------------------------------------------


def test_a_report_is_asked() -> None:
    assert not REPORT.ok
    assert REPORT.problems == (BAD,)
    assert REPORT.untold == (OPEN,)
    assert list(REPORT) == [GOOD, BAD, OPEN, LEFT, LEFT_TOO]
    assert REPORT["role"] is BAD
    assert "role" in REPORT
    assert BAD in REPORT
    assert "rule" not in REPORT
    with pytest.raises(KeyError, match="did you mean 'role'"):
        REPORT["rule"]
    with pytest.raises(TypeError, match=r"ask report\.ok"):
        bool(REPORT)
    assert pickle.loads(pickle.dumps(REPORT)) == REPORT


def test_problems_are_raised_with_their_fixes() -> None:
    with pytest.raises(ProblemsFound, match=r"found 1 problem:\n  - role: problem: <b>no</b> role; set role") as caught:
        REPORT.raise_for_problems()
    assert caught.value.problems == (BAD,)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.problems, str(copy)) == ((BAD,), str(caught.value))
    DoctorReport((GOOD, OPEN, LEFT)).raise_for_problems()


def test_the_text_is_a_table_by_group() -> None:
    assert str(REPORT).splitlines() == [
        "This machine",
        "  ✓ disk space      plenty",
        "",
        "The AWS account",
        "  ✗ execution role  <b>no</b> role",
        "                    fix: set role",
        "  ? KMS key         no answer in 5 s",
        "",
        "The store",
        "  - bucket, reading: no bucket is set",
        "",
        "1 problem, 1 ok, 1 cannot be told, 2 skipped (1.5 s)",
    ]
    assert REPORT.to_text(symbols=ASCII_SYMBOLS).isascii()


def test_the_text_fits_a_terminal() -> None:
    long = DoctorReport((CheckResult("disk", "This machine", "disk space", "ok", "word " * 60, "advice " * 40),))
    lines = long.to_text(width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("word") for line in lines) == 60
    assert all(line.startswith(" " * 16) for line in lines[2:-2])


def test_the_html_is_escaped() -> None:
    html = REPORT._repr_html_()
    assert "&lt;b&gt;no&lt;/b&gt; role" in html
    assert "<b>" not in html
    assert html.count("<tr>") == 5  # the head, and skipped neighbours together


def test_the_json_has_a_version() -> None:
    found = json.loads(json.dumps(REPORT.to_dict()))
    assert (found["schema_version"], found["ok"], found["smkit_version"]) == (1, False, smkit.__version__)
    assert found["checks"][1] == {
        "id": "role",
        "group": "The AWS account",
        "title": "execution role",
        "outcome": "problem",
        "finding": "<b>no</b> role",
        "fix": "set role",
        "seconds": 0.25,
    }


# --- which checks run --------------------------------------------------------------------------------------------


def test_only_what_is_asked_for_and_needed() -> None:
    assert [result.id for result in smkit.doctor(checks=["image"])] == ["settings", "image"]
    assert [result.id for result in smkit.doctor(checks="sdk")] == ["sdk"]
    assert [result.id for result in smkit.doctor(checks=["root", "bucket"])] == [
        *("settings", "reach-sts", "reach-s3", "profile", "credentials", "identity", "root", "bucket")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checks": ["bukket"]}, "there is no check 'bukket'; did you mean 'bucket'"),
        ({"checks": [1]}, "checks: 1 is not a name"),
        ({"timeout": 0}, "timeout 0 is not allowed"),
        ({"timeout": float("nan")}, "timeout nan is not allowed"),
        ({"timeout": "5"}, "timeout '5' is not allowed"),
        ({"buckets": ["a_b"]}, "is not a bucket name"),
        ({"buckets": ["https://a.example/b"]}, "is not an S3 URI"),
        ({"settings": "smkit.toml"}, "expected smkit.Settings, got str"),
    ],
)
def test_arguments_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smkit.doctor(**options)


def test_settings_that_cannot_be_read_are_the_first_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_REGOIN", "cn-north-1")
    monkeypatch.setenv("SMKIT_PROJECT", "NO")
    report = smkit.doctor()
    assert [result.id for result in report.problems] == ["settings"]
    assert "SMKIT_REGOIN" in report["settings"].finding
    assert "project: 'NO'" in report["settings"].finding
    assert report["bucket"].finding == "needs settings"
    assert report["sdk"].ok


def test_settings_say_where_they_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smkit.toml").write_text('project = "houses"\ninstance_type = "ml.m5.xlarge"\n', encoding="utf-8")
    monkeypatch.setenv("SMKIT_REGION", "cn-north-1")
    found = smkit.doctor(checks=["settings"])["settings"].finding
    assert f"2 from {tmp_path / 'smkit.toml'}" in found
    assert "1 from environment" in found


def test_the_function_stays_a_function_whatever_is_imported() -> None:
    code = (
        "import smkit.diagnosis, smkit.diagnosis.examination, smkit.cli.doctor, smkit, types\n"
        "from smkit import doctor\n"
        "assert doctor is smkit.doctor and isinstance(smkit.doctor, types.FunctionType)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert isinstance(smkit.doctor, types.FunctionType)


def test_every_need_is_a_check() -> None:
    every = catalogue(Context(smkit.Settings(postgres={"secret_id": "x"}), timeout=1, buckets={"abc": ("abc", "")}))
    ids = [check.id for check in every]
    assert len(ids) == len(set(ids))
    for check in every:
        assert {*check.needs, *check.after, *check.behind} <= {"settings", *ids}, check.id
    groups = [check.group for check in every]
    # Each group is one block.
    assert [group for group, _ in itertools.groupby(groups)] == list(dict.fromkeys(groups))


# --- scheduling --------------------------------------------------------------------------------------------------


def scheduled(*checks: Check, timeout: float = 20) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    context = Context(smkit.Settings(), timeout=timeout)
    first = Check("settings", "g", "settings", lambda _: ok("read"), needs=())
    run_checks((first, *checks), context, finished=lambda check, finding, _: found.setdefault(check.id, finding))
    return found


def test_checks_run_side_by_side() -> None:
    together = threading.Barrier(3)

    def meet(_: Context) -> Finding:
        together.wait(20)
        return ok("met")

    found = scheduled(*(Check(name, "g", name, meet) for name in "abc"))
    assert {found[name].outcome for name in "abc"} == {"ok"}


def test_checks_wait_for_what_they_need() -> None:
    order = []

    def note(name: str, finding: Finding) -> Any:
        def run(_: Context) -> Finding:
            order.append(name)
            return finding

        return run

    found = scheduled(
        Check("last", "g", "last", note("last", ok("")), needs=("settings", "first"), behind=("bad",)),
        Check("never", "g", "never", note("never", ok("")), needs=("settings", "open")),
        Check("not", "g", "not", note("not", ok("")), after=("bad", "open")),
        Check("still", "g", "still", note("still", ok("")), after=("open", "never")),
        Check("first", "g", "first", note("first", ok(""))),
        Check("bad", "g", "bad", note("bad", problem("bad"))),
        Check("open", "g", "open", note("open", Finding("cannot tell", "open"))),
    )
    assert found["never"] == Finding("skipped", "needs open")
    assert found["not"] == Finding("skipped", "needs bad")
    assert found["still"].outcome == found["last"].outcome == "ok"
    assert order.index("last") > max(order.index("first"), order.index("bad"))
    assert "never" not in order
    assert "not" not in order


def test_a_late_answer_does_not_count() -> None:
    done = threading.Event()

    def slow(_: Context) -> Finding:
        done.wait(20)
        return ok("late")

    began = time.monotonic()
    try:
        found = scheduled(Check("slow", "g", "slow", slow), Check("fast", "g", "fast", lambda _: ok("")), timeout=0.1)
    finally:
        done.set()
    assert found["slow"].text == "no answer in 0.1 s"
    assert found["fast"].outcome == "ok"
    assert time.monotonic() - began < 10


def test_a_check_that_fails_itself_does_not_take_the_others_away() -> None:
    def fail(_: Context) -> Finding:
        raise ZeroDivisionError("by 0")

    found = scheduled(Check("fails", "g", "fails", fail), Check("works", "g", "works", lambda _: ok("")))
    assert found["fails"].outcome == "cannot tell"
    assert "the check itself failed: ZeroDivisionError: by 0" in found["fails"].text
    assert found["works"].outcome == "ok"


def test_checks_that_wait_for_one_another_are_a_bug_that_is_seen() -> None:
    with pytest.raises(RuntimeError, match="wait for one another"):
        scheduled(
            Check("a", "g", "a", lambda _: ok(""), needs=("settings", "b")),
            Check("b", "g", "b", lambda _: ok(""), needs=("settings", "a")),
        )


# --- secrets -----------------------------------------------------------------------------------------------------

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=6, max_size=20)


@given(secret=PRINTABLE, before=PRINTABLE, after=PRINTABLE)
def test_a_known_secret_is_hidden(secret: str, before: str, after: str) -> None:
    secrets = Secrets()
    secrets.add(secret)
    for text in (f"{before} {secret} {after}", f"'{secret}'", repr(secret), f"{before}={secret}"):
        assert secret not in secrets.hide(text)
    assert secret not in repr(secrets)


@given(login=PRINTABLE, host=st.from_regex(r"[a-z]{3,9}\.example", fullmatch=True))
def test_the_login_of_a_url_is_hidden_known_or_not(login: str, host: str) -> None:
    url = f"http://me:{login}@{host}:3128/x"
    secrets = Secrets()
    secrets.add_url(url)
    assert f":{login}@" not in secrets.hide(f"cannot reach {url}")
    assert "hush" not in Secrets().hide("cannot reach https://me:hush@db.example/x")
    assert "db.example" in Secrets().hide("cannot reach https://me:hush@db.example/x")


WORDS = st.text(st.characters(categories=["L", "N"]), min_size=4, max_size=12)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(WORDS, min_size=6, max_size=6, unique=True),
    mark=st.sampled_from(["", "@", "/", "%40", "'", '"', ":"]),
)
def test_no_secret_gets_out(
    front: Front, aws_env: str, caplog: pytest.LogCaptureFixture, words: list[str], mark: str
) -> None:
    password, index, proxy, key, token, stored = (f"Sentinel{mark}{word}" for word in words)
    name = f"doctor/sentinel-{time.time_ns()}"
    manager = client("secretsmanager", aws_env)
    manager.create_secret(Name=name, SecretString=json.dumps({"username": "u", "password": stored, "note": stored}))
    manager.close()
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.DEBUG, "smkit"):
        patch.setenv("AWS_SECRET_ACCESS_KEY", key)
        # HTTP forbids other characters in the header that it travels in.
        patch.setenv("AWS_SESSION_TOKEN", token.encode("ascii", "replace").decode())
        patch.setenv("HTTPS_PROXY", f"http://me:{proxy}@127.0.0.1:9")
        patch.setenv("ALL_PROXY", f"{proxy}:{proxy}@[bad")
        given_ = {"host": "127.0.0.1", "port": 9, "database": "d", "secret_id": name}
        reports = []
        for postgres in (given_, {**given_, "password": password}):
            chosen = smkit.Settings(pip_index_url=f"https://me:{index}@mirror.example/simple", postgres=postgres)
            reports.append(smkit.doctor(chosen, checks=["settings", "proxy", "credentials", "postgres"], timeout=20))
        # A URL where a host belongs, with the password in it, is an error of the settings.
        patch.setenv("SMKIT_POSTGRES__HOST", f"postgres://me:{password}@db/x")
        reports.append(smkit.doctor(checks=["settings", "proxy", "bucket"], timeout=20))
    assert reports[0]["secret"].ok, reports[0]
    assert reports[0]["postgres"].outcome == "problem"
    said = caplog.text
    for report in reports:
        said += str(report) + repr(report) + json.dumps(report.to_dict(), ensure_ascii=False) + report._repr_html_()
        with pytest.raises(ProblemsFound) as caught:
            report.raise_for_problems()
        said += str(caught.value) + repr(caught.value)
    assert "Sentinel" not in said
