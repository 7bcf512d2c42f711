"""The page of promises: the tests that it names exist, and its policy fits the keys that smkit writes."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smkit.aws import parse_arn
from tests.versioning.helpers import HookedStore, open_log, publish

if TYPE_CHECKING:
    from smkit.storage.s3 import S3Store
    from tests.faulty_proxy import FaultyProxy

TREE = Path(__file__).resolve().parents[2]
PAGE = (TREE / "docs" / "promises.md").read_text(encoding="utf-8")


def block(marker: str) -> dict[str, Any]:
    (text,) = re.findall(rf"<!-- {marker} -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


POLICY = block("bucket policy")
STATEMENTS = {statement["Sid"]: statement for statement in POLICY["Statement"]}


def covers(sid: str, key: str) -> bool:
    return any(
        fnmatchcase(f"arn:aws-cn:s3:::example-bucket/{key}", resource) for resource in STATEMENTS[sid]["Resource"]
    )


def test_the_tests_that_it_names_exist() -> None:
    named = re.findall(r"`((?:versioning|storage)/test_\w+\.py)`(?: \(([^)]*)\))?", PAGE)
    assert len(named) > 20
    for file, listed in named:
        text = (TREE / "tests" / file).read_text(encoding="utf-8")
        for name in re.findall(r"`((?:test_|\.\.\.)\w+(?:\.\.\.)?)`", listed):
            pattern = re.escape(name).replace(re.escape("..."), r"\w*")
            assert re.search(rf"def (?:test\w*)?{pattern}\(", text), f"{file} has no {name}"


def test_every_arn_of_the_policy_is_of_china() -> None:
    arns = re.findall(r'"(arn:[^"]*)"', json.dumps(POLICY))
    assert arns
    assert {parse_arn(arn).partition for arn in arns} == {"aws-cn"}
    assert POLICY["Version"] == "2012-10-17"
    assert all(statement["Effect"] == "Deny" for statement in STATEMENTS.values())


def test_the_policy_uses_the_condition_keys_of_s3() -> None:
    keys = {
        (operator, key)
        for statement in STATEMENTS.values()
        for operator, keys in statement["Condition"].items()
        for key in keys
    }
    assert keys == {
        ("ArnNotEquals", "aws:PrincipalArn"),
        ("Null", "s3:if-none-match"),
        ("Bool", "aws:SecureTransport"),
    }
    assert STATEMENTS["RecordsAreNeverOverwritten"]["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert STATEMENTS["RecordsAreNeverDeleted"]["Action"] == ["s3:DeleteObject", "s3:DeleteObjectVersion"]


@pytest.mark.parametrize("sid", ["RecordsAreNeverDeleted", "RecordsAreNeverOverwritten"])
def test_what_smkit_does_is_allowed(proxied: S3Store, proxy: FaultyProxy, sid: str) -> None:
    """Every record is put on the condition, and none of them is ever deleted."""
    deleted: list[str] = []

    def note(operation: str, key: str) -> None:
        if operation == "delete":
            deleted.append(key)

    log = open_log(HookedStore(proxied, note))
    for number in range(2):
        publish(log, str(number))
    log.aliases.promote("houses", 1, "production")
    log.aliases.promote("houses", 2, "production")
    log.aliases.rollback("houses", "production")
    log.prune("houses", 2)
    puts = [request for request in proxy.requests if request.method == "PUT"]
    protected = 0
    for request in puts:
        key = request.path.split("?")[0].partition("/project/")[2]
        if covers(sid, f"smkit/{key}"):
            protected += 1
            assert request.headers.get("if-none-match") == "*", key
    assert protected == 6
    assert len(deleted) == 2
    assert not [key for key in deleted if covers(sid, f"smkit/{key}")]
    for key in (
        "models/houses/data/x/model.bin",
        "models/houses/data/x/versions/readme.txt",
        "models/versions/data/x/model.bin",
        "models/houses/prunes/9999999998/x.json",
        "models/houses/segments/x.json",
    ):
        assert not covers(sid, f"smkit/{key}")


def test_the_lifecycle_ends_unfinished_uploads() -> None:
    (rule,) = block("lifecycle")["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
