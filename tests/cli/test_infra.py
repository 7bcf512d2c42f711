"""`smkit infra`: what is shown, what is asked, and that nothing is done without consent."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from moto.cloudformation import models

from smkit.infra import read_template
from tests.cli.conftest import Cli
from tests.fixtures_s3 import REGION
from tests.infra.moto_cloudformation import (
    ACCOUNT,
    change_sets_of,
    complete,
    fail_next_operation,
    stack_of,
    stacks_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def project(aws_env: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project of its own in an account that moto plays."""
    complete(monkeypatch)
    name = f"c{uuid.uuid4().hex[:10]}"
    monkeypatch.setenv("SMKIT_PROJECT", name)
    return name


@pytest.fixture
def cli() -> Cli:
    return Cli()


def stack_name(project: str, kind: str = "foundation") -> str:
    return f"smkit-{project}-{kind}"


def test_template_prints_what_is_deployed(cli: Cli) -> None:
    assert cli("infra", "template", "foundation").out == read_template("foundation")
    users = cli("infra", "template", "studio", "--user", "anna", "--user", "bo").out
    assert users == read_template("studio", users=["anna", "bo"])
    assert "did you mean 'studio'" in cli("infra", "template", "stuido", code=2).err
    assert "is not a user profile's name" in cli("infra", "template", "studio", "--user", "a b", code=2).err


def test_deploy_shows_makes_and_writes_down(cli: Cli, project: str, tmp_path: Path) -> None:
    done = cli("infra", "deploy", "foundation", "--yes")
    assert "Add\tExecutionRole\tAWS::IAM::Role\t-\t-" in done.out.splitlines()
    assert f"BucketName        smkit-{project}-{ACCOUNT}-{REGION}" in done.out.splitlines()
    assert "CREATE_COMPLETE" in done.err
    assert f'+bucket = "smkit-{project}-{ACCOUNT}-{REGION}"' in done.err
    written = (tmp_path / "smkit.toml").read_text()
    assert f'project = "{project}"' in written
    assert 'role = "arn:aws-cn:iam::' in written

    again = cli("infra", "deploy", "foundation", "--yes")
    assert "is up to date: nothing to change" in again.err
    assert (tmp_path / "smkit.toml").read_text() == written
    assert change_sets_of(stack_name(project), REGION) == []

    # Nobody need consent to what changes nothing.
    assert "is up to date" in cli("infra", "deploy", "foundation").err


def test_deploy_as_json_is_one_document(cli: Cli, project: str, tmp_path: Path) -> None:
    document = cli("infra", "deploy", "foundation", "--yes", "--json", "--read-bucket", "raw-data").json
    assert document["stack"] == stack_name(project)
    assert document["status"] == "CREATE_COMPLETE"
    assert document["parameters"]["ReadBucketArns"] == "arn:aws-cn:s3:::raw-data"
    assert {change["logical_id"] for change in document["changes"]} >= {"Bucket", "ExecutionRole"}
    assert document["settings_file"] == str(tmp_path / "smkit.toml")
    empty = cli("infra", "deploy", "foundation", "--json", "--no-write-settings").json
    assert (empty["changes"], empty["settings_file"]) == ([], None)
    cleared = cli("infra", "deploy", "foundation", "--yes", "--json", "--read-bucket", "").json
    assert cleared["parameters"]["ReadBucketArns"] == ""


def test_dry_run_changes_nothing(cli: Cli, project: str, tmp_path: Path) -> None:
    assert "Add\tBucket\t" in cli("infra", "deploy", "foundation", "--dry-run").out
    document = cli("infra", "deploy", "foundation", "--dry-run", "--json").json
    assert document["dry_run"]
    assert stack_name(project) not in stacks_in(REGION)
    assert list(tmp_path.iterdir()) == []


def test_without_consent_nothing_is_left(cli: Cli, project: str, tmp_path: Path) -> None:
    done = cli("infra", "deploy", "foundation", code=1)
    assert "Add\tBucket\t" in done.out
    assert "nothing was changed: nobody can be asked here; say --yes to consent" in done.err
    assert cli("infra", "deploy", "foundation", "--json", code=1).out == ""
    assert stack_name(project) not in stacks_in(REGION)
    assert list(tmp_path.iterdir()) == []

    cli("infra", "deploy", "foundation", "--yes")
    cli("infra", "delete", "foundation", code=1)
    cli("infra", "deploy", "foundation", "--noncurrent-days", "3", code=1)
    assert change_sets_of(stack_name(project), REGION) == []
    assert cli("infra", "status", "foundation", "--json").json[0]["status"] == "CREATE_COMPLETE"


def test_an_existing_settings_file_is_changed_with_consent_only(cli: Cli, project: str, tmp_path: Path) -> None:
    cli("infra", "deploy", "foundation", "--yes", "--no-write-settings")
    file = tmp_path / "smkit.toml"
    assert not file.exists()
    file.write_text("# ours\nallow_pickle = true\n")
    done = cli("infra", "deploy", "foundation")
    assert "stays as it is, without what is shown above" in done.err
    assert file.read_text() == "# ours\nallow_pickle = true\n"
    cli("infra", "deploy", "foundation", "--yes")
    assert file.read_text().startswith("# ours\nallow_pickle = true\n")
    assert f'project = "{project}"' in file.read_text()


def test_what_overrules_the_settings_file_is_told(cli: Cli, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_ROLE", "another-role")
    assert "role: a variable or .env says otherwise" in cli("infra", "deploy", "foundation", "--yes").err


def test_status_shows_what_is_there_and_what_failed(cli: Cli, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("infra", "status").out.count("not deployed") == 2
    with monkeypatch.context() as failing:
        fail_next_operation(failing, end="ROLLBACK_COMPLETE", failures=[("ExecutionRole", "not allowed \u202e")])
        failed = cli("infra", "deploy", "foundation", "--yes", code=1)
        assert "was not deployed (ROLLBACK_COMPLETE): ExecutionRole: not allowed" in failed.err
    shown = cli("infra", "status", "foundation", code=1).out
    assert "failed  ExecutionRole: not allowed" in shown
    assert "to do   its first creation failed: delete it with `smkit infra delete foundation`" in shown
    document = cli("infra", "status", "--json", code=1).json
    assert [one["status"] for one in document] == ["ROLLBACK_COMPLETE", None]


def test_a_failed_creation_is_deleted_first_with_consent_only(
    cli: Cli, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing:
        fail_next_operation(failing, end="ROLLBACK_COMPLETE", failures=[("ExecutionRole", "not allowed")])
        cli("infra", "deploy", "foundation", "--yes", code=1)
    first = stack_of(stack_name(project), REGION).stack_id
    refused = cli("infra", "deploy", "foundation", code=1)
    assert "its first creation failed" in refused.err
    assert "ExecutionRole: not allowed" in refused.err
    assert stack_of(stack_name(project), REGION).stack_id == first
    cli("infra", "deploy", "foundation", "--dry-run", code=1)
    assert stack_of(stack_name(project), REGION).stack_id == first
    cli("infra", "deploy", "foundation", "--yes")
    assert stack_of(stack_name(project), REGION).stack_id != first


def test_delete_says_what_stays(cli: Cli, project: str) -> None:
    cli("infra", "deploy", "foundation", "--yes")
    bucket = f"smkit-{project}-{ACCOUNT}-{REGION}"
    done = cli("infra", "delete", "foundation", "--yes", "--json")
    assert f"stays  AWS::S3::Bucket  {bucket}" in done.err
    assert "goes   AWS::IAM::Role" in done.err
    assert done.json == {"stack": stack_name(project), "deleted": True, "stays": [bucket]}
    assert "there is no stack" in cli("infra", "delete", "foundation", "--yes", code=1).err
    again = cli("infra", "deploy", "foundation", "--yes", code=1)
    assert "--existing-bucket import" in again.err
    # smkit.toml, which the first deployment wrote, names the bucket.
    cli("infra", "deploy", "foundation", "--yes", "--existing-bucket", "use")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("foundation", "--user", "anna"), "--user says nothing about the stack 'foundation'"),
        (("studio", "--read-bucket", "a", "--noncurrent-days", "3"), "--read-bucket, --noncurrent-days says nothing"),
        (("foundation", "--existing-bucket", "maybe"), "expected use or import"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_asked(
    cli: Cli, project: str, words: tuple[str, ...], message: str
) -> None:
    assert message in " ".join(cli("infra", "deploy", *words, code=2).err.split())
    assert not {name for name in stacks_in(REGION) if project in name}


def test_replacements_and_removals_are_warned_of(cli: Cli, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from smkit.infra import Change, Plan, Stack

    cli("infra", "deploy", "foundation", "--yes")
    changes = (
        Change("Modify", "Bucket", "AWS::S3::Bucket", "b", "True", ("Properties",), "ReplaceAndRetain"),
        Change("Modify", "ExecutionRole", "AWS::IAM::Role", "r", "False", ("Properties", "Tags")),
        Change("Remove", "CallerPolicy", "AWS::IAM::ManagedPolicy", "p", "", (), "Delete"),
    )
    monkeypatch.setattr(Stack, "plan", lambda *_: Plan("s", "i", "c", creates=False, changes=changes))
    monkeypatch.setattr(Stack, "discard", lambda *_: None)
    shown = cli("infra", "deploy", "foundation", "--dry-run")
    assert shown.out.splitlines()[1:] == [
        "Modify\tBucket\tAWS::S3::Bucket\tTrue\tProperties",
        "Modify\tExecutionRole\tAWS::IAM::Role\tFalse\tProperties, Tags",
        "Remove\tCallerPolicy\tAWS::IAM::ManagedPolicy\t-\tDelete",
    ]
    assert "warning: removed or replaced: Bucket, CallerPolicy" in shown.err


def test_without_credentials_the_fix_is_told(cli: Cli, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for words in (("deploy", "foundation", "--yes"), ("status",), ("delete", "foundation", "--yes")):
        assert "no AWS credentials found; set `profile`" in cli("infra", *words, code=1).err


# --- as a process, in a terminal -----------------------------------------------------------------------------------


class Terminal:
    """A command whose stdin is a terminal."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smkit", "infra", *words],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=60)
        os.close(self._ours)
        return self.process.returncode, out + err


@pytest.fixture
def quiet() -> Iterator[None]:
    """The requests of a process are answered by this one, whose log they would fill."""
    import logging

    logger = logging.getLogger("werkzeug")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


def test_no_is_no_and_yes_is_yes(project: str, quiet: None, tmp_path: Path) -> None:
    refused = Terminal("deploy", "foundation")
    refused.type("n\n")
    code, said = refused.end()
    assert (code, "nothing was changed" in said) == (1, True), said
    assert "Make these changes?" in said
    assert stack_name(project) not in stacks_in(REGION)
    agreed = Terminal("deploy", "foundation")
    agreed.type("y\n")
    code, said = agreed.end()
    assert code == 0, said
    assert stack_of(stack_name(project), REGION).status == "CREATE_COMPLETE"
    assert (tmp_path / "smkit.toml").exists()


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come about within a minute"
        time.sleep(0.05)


def test_ctrl_c_at_the_question_leaves_nothing(project: str, quiet: None) -> None:
    asked = Terminal("deploy", "foundation")
    wait_until(lambda: change_sets_of(stack_name(project), REGION))
    time.sleep(0.5)  # the plan is read, and the question asked
    asked.process.send_signal(signal.SIGINT)
    code, said = asked.end()
    assert code == 130, said
    assert said.endswith("smkit: nothing was changed\n")
    assert "Traceback" not in said
    assert stack_name(project) not in stacks_in(REGION)


def test_ctrl_c_while_waiting_leaves_cloudformation_at_work(
    project: str, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def execute(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
        begun.append(change_set_name)
        self.stacks[self.change_sets[change_set_name].stack_id].status = "CREATE_IN_PROGRESS"

    monkeypatch.setattr(models.CloudFormationBackend, "execute_change_set", execute)
    waiting = Terminal("deploy", "foundation", "--yes")
    wait_until(lambda: begun)
    time.sleep(0.3)  # the answer is read, and the first events asked for
    waiting.process.send_signal(signal.SIGINT)
    code, said = waiting.end()
    assert code == 130, said
    assert "it goes on; `smkit infra status foundation` shows how far it is" in said
    assert "Traceback" not in said
    assert stack_of(stack_name(project), REGION).status == "CREATE_IN_PROGRESS"
