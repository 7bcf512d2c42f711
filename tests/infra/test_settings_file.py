"""`smkit.toml` after a deployment: what is wanted is in it, and nothing else was touched."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smkit import Settings
from smkit.errors import ConfigError
from smkit.infra import SettingsFile, StackStatus, settings_of_foundation
from smkit.infra.settings_file import _edited

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROLE = "arn:aws-cn:iam::123456789012:role/smkit-houses-foundation-ExecutionRole-ABC"


def stack() -> StackStatus:
    return StackStatus(
        name="smkit-houses-foundation",
        stack_id="arn:aws-cn:cloudformation:cn-northwest-1:123456789012:stack/smkit-houses-foundation/1",
        status="CREATE_COMPLETE",
        reason="",
        outputs={"BucketName": "houses-bucket", "ExecutionRoleArn": ROLE},
        parameters={},
        updated=datetime.now(timezone.utc),
    )


def planned(**values: Any) -> SettingsFile:
    settings = Settings(**values)
    return SettingsFile.plan(settings, settings_of_foundation(settings, stack()))


def test_a_file_is_made_and_read_back(tmp_path: Path) -> None:
    values = {
        "project": "houses",
        "kms_key": "alias/houses",
        "subnets": ("subnet-1", "subnet-2"),
        "security_groups": ("sg-1",),
        "tags": {"team": "pricing", "cost center": '4"2\\', "名": "值"},
        "postgres": {"secret_id": "houses/db", "password": "opens-everything"},
    }
    file = planned(**values)
    assert file.before is None
    assert not (tmp_path / "smkit.toml").exists()
    file.write()
    text = (tmp_path / "smkit.toml").read_text(encoding="utf-8")
    assert "opens-everything" not in text + repr(file)
    settings = Settings()
    assert settings.role == ROLE
    assert settings.root == "s3://houses-bucket/houses"
    assert settings.tags == values["tags"]
    assert settings.subnets == values["subnets"]
    assert settings.postgres.secret_id == "houses/db"
    assert not planned().is_changed
    mode = stat.S_IMODE((tmp_path / "smkit.toml").stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    assert mode == 0o666 & ~mask


EXISTING = """\
# Ours. Do not touch.

# about the region
region = "cn-northwest-1"   # Ningxia
bucket="old-bucket" # the old one, # twice
subnets = [
    "subnet-1",  # a
    "subnet-2",
]
security_groups = ["sg-1"]

# about the database
[postgres]
host = "db.example.com"  # comment
# the last one
"""


def test_only_the_wanted_lines_change(tmp_path: Path) -> None:
    path = tmp_path / "smkit.toml"
    path.write_text(EXISTING, encoding="utf-8")
    path.chmod(0o640)
    file = planned(postgres={"secret_id": "houses/db"}, bucket="houses-bucket")
    file.write()
    assert path.read_text(encoding="utf-8") == textwrap.dedent(
        f"""\
        # Ours. Do not touch.

        # about the region
        region = "cn-northwest-1"   # Ningxia
        bucket = "houses-bucket" # the old one, # twice
        subnets = [
            "subnet-1",  # a
            "subnet-2",
        ]
        security_groups = ["sg-1"]
        project = "smkit"
        role = "{ROLE}"

        # about the database
        [postgres]
        host = "db.example.com"  # comment
        secret_id = "houses/db"
        # the last one
        """
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["smkit.toml"]
    again = planned()
    assert not again.is_changed
    assert again.diff() == ""


def test_the_diff_shows_what_changes(tmp_path: Path) -> None:
    (tmp_path / "smkit.toml").write_text(EXISTING, encoding="utf-8")
    diff = planned().diff().splitlines()
    assert [line for line in diff if line.startswith("-") and not line.startswith("---")] == [
        '-bucket="old-bucket" # the old one, # twice'
    ]
    assert f'+role = "{ROLE}"' in diff


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "a = 1\n"),
        ("# only this", "# only this\na = 1\n"),
        ("b = 2", "b = 2\na = 1\n"),
        ("[t]\nx = 1\n", "a = 1\n\n[t]\nx = 1\n"),
        ("# license\n\n# of t\n[t]\nx = 1\n", "# license\n\na = 1\n\n# of t\n[t]\nx = 1\n"),
        ('b = """\n[t]\na = 0\n"""\n[t]\n', 'b = """\n[t]\na = 0\n"""\na = 1\n[t]\n'),
        ("b = 2\r\n\r\n[t]\r\n", "b = 2\r\na = 1\r\n\r\n[t]\r\n"),
        ("a = 3 # c\n", "a = 1 # c\n"),
        ('a = "#" # c\n', "a = 1 # c\n"),
        ("'a' = [\n  1,\n  2,\n]\nb = 2\n", "a = 1\nb = 2\n"),
        ("[[rows]]\na = 2\n", "a = 1\n\n[[rows]]\na = 2\n"),
    ],
)
def test_a_key_finds_its_place(before: str, after: str) -> None:
    assert _edited(before, {"a": "1"}, Path("smkit.toml")) == after.replace("a = 1", 'a = "1"', 1)


def test_a_key_of_a_table_finds_its_place() -> None:
    wanted = {"postgres": {"secret_id": "s"}}
    assert _edited("a = 1\n", wanted, Path("x")) == 'a = 1\n\n[postgres]\nsecret_id = "s"\n'
    assert _edited("[postgres]\n\n[other]\n", wanted, Path("x")) == '[postgres]\nsecret_id = "s"\n\n[other]\n'
    before = '[postgres]\nsecret_id = "t" # c\nport = 1\n'
    assert _edited(before, wanted, Path("x")) == before.replace('"t"', '"s"')


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('postgres = { host = "h" }\n', {"postgres": {"secret_id": "s"}}),
        ('postgres.host = "h"\n', {"postgres": {"secret_id": "s"}}),
        ('[tags]\nteam = "a"\n', {"tags": {"team": "b"}}),
        ('tags.team = "a"\ntags.cost = "c"\n', {"tags": {"team": "b"}}),
    ],
)
def test_what_cannot_be_edited_line_by_line_is_left_for_its_owner(text: str, wanted: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="set them by hand: "):
        _edited(text, wanted, Path("smkit.toml"))


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VALUES = st.one_of(TEXTS, st.lists(TEXTS, max_size=3), st.dictionaries(TEXTS, TEXTS, max_size=3))
LINES = st.lists(
    st.sampled_from(
        [
            "# comment [x]",
            "",
            "b = 1 # two",
            'c = """\n[a]\na = 1\n"""',
            'd = [\n  "]", # "\n]',
            "role = 'x' # keep",
            '"bucket" = "y"',
        ]
    ),
    unique=True,
)
TABLES = st.sampled_from(["", "[t]\nrole = 2\n", "# of p\n[postgres]\nport = 1\n\n[z]\n", "[[q]]\nbucket = 3\n"])


@hypothesis_settings(max_examples=100)
@given(LINES, TABLES, st.dictionaries(st.sampled_from(["role", "bucket", "tags", "project"]), VALUES, max_size=3))
def test_whatever_stood_there_still_does(lines: list[str], tables: str, wanted: dict[str, Any]) -> None:
    before = "\n".join([*lines, tables])
    after = _edited(before, wanted, Path("smkit.toml"))
    assert tomllib.loads(after) == {**tomllib.loads(before), **wanted}
    assert after.count("#") >= before.count("#") or any(isinstance(value, str) for value in wanted.values())
    for line in ("# comment [x]", "# of p"):
        assert (line in before.splitlines()) == (line in after.splitlines())
    assert _edited(after, wanted, Path("smkit.toml")) == after


def test_what_another_file_of_the_project_says_already_is_not_said_twice(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.smkit]\nproject = "houses"\nbucket = "houses-bucket"\n')
    file = planned()
    file.write()
    written = tomllib.loads((tmp_path / "smkit.toml").read_text())
    assert set(written) == {"region", "role"}
    assert not planned().is_changed


def test_what_overrules_the_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_ROLE", "another-role")
    (tmp_path / ".env").write_text("SMKIT_BUCKET=another-bucket\n")
    assert planned().overruled == ("bucket", "role")
    monkeypatch.setenv("SMKIT_ROLE", ROLE)
    assert planned().overruled == ("bucket",)


def test_a_change_meanwhile_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "smkit.toml"
    path.write_text(EXISTING)
    file = planned()
    path.write_text(EXISTING + "\n[new]\n")
    with pytest.raises(ConfigError, match="was changed meanwhile"):
        file.write()
    assert path.read_text() == EXISTING + "\n[new]\n"
    path.unlink()
    with pytest.raises(ConfigError, match="was changed meanwhile"):
        file.write()


def test_a_file_that_cannot_be_written_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = planned()

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        file.write()
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    real = tmp_path / "shared" / "team.toml"
    real.write_text('region = "cn-northwest-1"\n')
    (tmp_path / "smkit.toml").symlink_to(real)
    planned().write()
    assert (tmp_path / "smkit.toml").is_symlink()
    assert "houses-bucket" in real.read_text()


def test_a_file_that_is_no_toml_is_left_alone(tmp_path: Path) -> None:
    settings = Settings()
    wanted = settings_of_foundation(settings, stack())
    for text in (b"region = \n", b"\xff\xfe"):
        (tmp_path / "smkit.toml").write_bytes(text)
        with pytest.raises(ConfigError, match=r"not valid TOML|cannot be read"):
            SettingsFile.plan(settings, wanted)
