from __future__ import annotations

import copy
import json
import pickle
import re
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import smkit
from smkit import PostgresSettings, Settings
from smkit.errors import ConfigError

SECRET = "hunter2-§-correct-horse"

# The folder and the environment are written anew by each example.
rewrites_its_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def origin(values: Settings, name: str) -> str:
    return next(line.origin for line in values.explain() if line.name == name)


def refused(**values: Any) -> str:
    """The message with which Settings refuses its arguments and surroundings."""
    with pytest.raises(ConfigError) as caught:
        Settings(**values)
    return str(caught.value)


def write(name: str, text: str) -> Path:
    path = Path(name).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- precedence -------------------------------------------------------------------------------------------------

PLACES = ("argument", "environment", ".env", "smkit.toml", "pyproject.toml")


def set_up(places: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write text settings into their places, `postgres.host` nested; return the arguments."""
    for name in ("project", "profile", "postgres.host", "postgres.user"):
        monkeypatch.delenv(f"SMKIT_{name.upper().replace('.', '__')}", raising=False)
    lines = dict.fromkeys(PLACES, "")
    arguments: dict[str, Any] = {}
    for place, values in places.items():
        for name, text in values.items():
            variable = f"SMKIT_{name.upper().replace('.', '__')}"
            if place == "environment":
                monkeypatch.setenv(variable, text)
            elif place == ".env":
                lines[place] += f"{variable}={text}\n"
            elif place == "argument" and name.startswith("postgres."):
                arguments.setdefault("postgres", {})[name.removeprefix("postgres.")] = text
            elif place == "argument":
                arguments[name] = text
            else:
                lines[place] += f'{name} = "{text}"\n'
    write(".env", lines[".env"])
    write("smkit.toml", lines["smkit.toml"])
    write("pyproject.toml", f"[tool.smkit]\n{lines['pyproject.toml']}")
    return arguments


@rewrites_its_files
@given(
    defined=st.dictionaries(
        st.sampled_from(PLACES),
        st.dictionaries(
            st.sampled_from(["project", "profile", "postgres.host", "postgres.user"]),
            st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True),
        ),
    )
)
def test_the_highest_place_wins_and_explain_names_it(
    defined: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Settings(**set_up(defined, monkeypatch))
    defaults = {"project": "smkit", "profile": None, "postgres.host": None, "postgres.user": None}
    for name, default in defaults.items():
        value: Any = found
        for part in name.split("."):
            value = getattr(value, part)
        place = next((place for place in PLACES if name in defined.get(place, {})), None)
        variable = f"SMKIT_{name.upper().replace('.', '__')}"
        expected_origin = {
            None: "default",
            "argument": "argument",
            "environment": f"environment {variable}",
            ".env": f"{Path('.env').absolute()} {variable}",
            "smkit.toml": str(Path("smkit.toml").absolute()),
            "pyproject.toml": f"{Path('pyproject.toml').absolute()} [tool.smkit]",
        }[place]
        assert value == (defined[place][name] if place else default)
        assert origin(found, name) == expected_origin


def test_explain_has_a_line_for_every_setting_and_prints_as_a_table() -> None:
    lines = Settings(
        region="eu-west-1", tags={"team": "ml", "cost": "7"}, subnets=("subnet-1",), security_groups=("sg-1",)
    ).explain()
    names = [line.name for line in lines]
    assert len(names) == len(set(names))
    flat = set(Settings.model_fields) - {"postgres"} | {f"postgres.{name}" for name in PostgresSettings.model_fields}
    assert set(names) == flat
    table = str(lines).splitlines()
    assert len(table) == len(lines)
    assert table[0].split() == ["region", "eu-west-1", "argument"]
    assert next(line for line in lines if line.name == "tags").value == "team=ml, cost=7"
    assert next(line for line in lines if line.name == "subnets").value == "subnet-1"
    assert next(line for line in lines if line.name == "profile").value == "-"
    assert repr(lines) == str(lines)


def test_an_empty_table_of_arguments_leaves_the_lower_places_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_POSTGRES__HOST", "db")
    assert Settings(postgres={}).postgres.host == "db"
    assert Settings(postgres=PostgresSettings()).postgres.host == "db"


def test_postgres_merges_per_field_over_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    write("smkit.toml", '[postgres]\nhost = "toml"\nport = 1\nuser = "toml"\ndatabase = "toml"\n')
    write(".env", "SMKIT_POSTGRES__PORT=2\nSMKIT_POSTGRES__USER=dotenv\n")
    monkeypatch.setenv("SMKIT_POSTGRES", json.dumps({"user": "json", "host": "json"}))
    monkeypatch.setenv("SMKIT_POSTGRES__HOST", "variable")
    found = Settings(postgres=PostgresSettings(sslmode="require"))
    assert (found.postgres.host, found.postgres.port, found.postgres.user) == ("variable", 2, "json")
    assert (found.postgres.database, found.postgres.sslmode) == ("toml", "require")
    assert origin(found, "postgres.host") == "environment SMKIT_POSTGRES__HOST"
    assert origin(found, "postgres.user") == "environment SMKIT_POSTGRES"
    assert origin(found, "postgres.port").endswith(".env SMKIT_POSTGRES__PORT")
    assert origin(found, "postgres.sslmode") == "argument"
    assert origin(found, "postgres.connect_timeout") == "default"


def test_tags_are_replaced_whole() -> None:
    write("smkit.toml", '[tags]\nteam = "a"\ncost = "1"\n')
    assert dict(Settings(tags={"team": "b"}).tags) == {"team": "b"}
    assert dict(Settings().tags) == {"team": "a", "cost": "1"}


# --- environment and .env ---------------------------------------------------------------------------------------


def test_variables_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_TAGS", '{"team": "ml"}')
    monkeypatch.setenv("SMKIT_SUBNETS", "subnet-a, subnet-b,")
    monkeypatch.setenv("SMKIT_SECURITY_GROUPS", '["sg-a"]')
    monkeypatch.setenv("SMKIT_ALLOW_PICKLE", "true")
    monkeypatch.setenv("SMKIT_POSTGRES__CONNECT_TIMEOUT", "2.5")
    monkeypatch.setenv("smkit_project", "lower")
    found = Settings()
    assert dict(found.tags) == {"team": "ml"}
    assert (found.subnets, found.security_groups) == (("subnet-a", "subnet-b"), ("sg-a",))
    assert found.allow_pickle is True
    assert found.postgres.connect_timeout == 2.5
    assert found.project == "lower"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    write("smkit.toml", 'region = "eu-west-1"\n')
    write(".env", "SMKIT_PROJECT=\nSMKIT_BACKEND\nSMKIT_POSTGRES__HOST=''\n")
    for name in ("SMKIT_REGION", "SMKIT_POSTGRES", "SMKIT_POSTGRES__USER", "SMKIT_TAGS"):
        monkeypatch.setenv(name, "")
    found = Settings()
    assert (found.region, found.project, found.backend) == ("eu-west-1", "smkit", "local")
    assert (found.postgres.host, found.postgres.user, dict(found.tags)) == (None, None, {})
    assert origin(found, "region").endswith("smkit.toml")


def test_dotenv_syntax_and_other_tools_keys() -> None:
    path = write(
        ".env",
        "# a comment\n\n"
        "export SMKIT_PROJECT='with-export'\n"
        'SMKIT_PROFILE="with spaces"  # a comment\n'
        "SMKIT_REGION=eu-west-1 # another\n"
        "smkit_framework_version = 1.4-2\n"
        'SMKIT_POSTGRES__PASSWORD="p#ss=w\\"rd"\n'
        "REGION=nowhere\nBUCKET=Not_A_Bucket\nROLE=x\nDJANGO_SECRET_KEY=abc\nPOSTGRES__HOST=other\n",
    )
    found = Settings()
    assert (found.project, found.profile, found.region) == ("with-export", "with spaces", "eu-west-1")
    assert (found.framework_version, found.bucket, found.role) == ("1.4-2", None, None)
    assert found.postgres.host is None
    assert found.postgres.password is not None
    assert found.postgres.password.get_secret_value() == 'p#ss=w"rd'
    assert origin(found, "profile") == f"{path} SMKIT_PROFILE"


def test_a_byte_order_mark_does_not_hide_the_first_key() -> None:
    Path(".env").write_bytes(b"\xef\xbb\xbfSMKIT_PROJECT=windows\n")
    assert Settings().project == "windows"


def test_the_tests_own_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_TEST_PG_DSN", "postgresql://u:p@host/db")
    write(".env", "SMKIT_TEST_ANYTHING=1\n")
    assert Settings() == Settings()


def test_a_folder_named_dotenv_is_no_file_of_settings() -> None:
    Path(".env").mkdir()  # a virtual environment
    assert Settings().project == "smkit"


@pytest.mark.parametrize(
    "line",
    [
        f'SMKIT_POSTGRES__PASSWORD="{SECRET}',
        f"SMKIT_POSTGRES__PASSWORD:{SECRET}",
        f"SMKIT POSTGRES__PASSWORD={SECRET}",
        f"smkit-postgres__password={SECRET}",
        f"export SMKIT_POSTGRES__PASSWORD: {SECRET}",
    ],
)
def test_a_malformed_line_of_ours_is_an_error_with_its_number(line: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write(".env", f"# a comment\nSMKIT_PROJECT=houses\n\n{line}\nOTHER=1\n")
    message = refused()
    assert f"{path} line 4: cannot be read: write SMKIT_NAME=value, and close every quote" in message
    assert SECRET.upper() not in message.upper()
    assert caplog.records == []


def test_a_quote_of_another_tool_that_swallows_our_line_is_an_error() -> None:
    path = write(".env", 'OTHER="x\nSMKIT_REGION="eu-west-1"\n')
    assert f"{path} line 1: cannot be read" in refused()


def test_malformed_lines_of_other_tools_are_ignored_without_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    write(".env", 'OTHER="x\nnot a line\nNAME=flats\nSMKIT_PROJECT=${NAME}\n')
    assert Settings().project == "flats"
    assert caplog.records == []


# --- unknown keys -----------------------------------------------------------------------------------------------


def test_an_unknown_argument_names_the_nearest_setting() -> None:
    assert "argument: unknown setting 'regoin'; did you mean 'region'?" in refused(regoin="x")
    assert "argument: unknown setting 'postgres.hots'; did you mean 'host'?" in refused(postgres={"hots": "x"})
    assert "valid keys: region, profile, role" in refused(zzz=1)
    assert "unknown setting '_env_file'" in refused(_env_file="x")


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_an_unknown_variable_names_the_nearest(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "SMKIT_REGOIN": "x",
        "SMKIT_POSTGRES__PASWORD": SECRET,
        "SMKIT_TAGS__TEAM": "ml",
        "SMKIT_POSTGRES": json.dumps({"hots": "x"}),
    }
    for name, value in variables.items():
        if place == "environment":
            monkeypatch.setenv(name, value)
    if place == ".env":
        write(".env", "".join(f"{name}='{value}'\n" for name, value in variables.items()))
    where = "environment" if place == "environment" else str(Path(".env").absolute())
    message = refused()
    assert f"{where}: unknown setting SMKIT_REGOIN; did you mean 'SMKIT_REGION'?" in message
    assert "unknown setting SMKIT_POSTGRES__PASWORD; did you mean 'SMKIT_POSTGRES__PASSWORD'?" in message
    assert "unknown setting SMKIT_TAGS__TEAM; did you mean 'SMKIT_TAGS'?" in message
    assert f"{where} SMKIT_POSTGRES: unknown setting 'postgres.hots'; did you mean 'host'?" in message
    assert SECRET not in message


@pytest.mark.parametrize(("file", "table"), [("smkit.toml", ""), ("pyproject.toml", "tool.smkit")])
def test_an_unknown_key_of_a_file_names_the_nearest(file: str, table: str) -> None:
    header = f"[{table}]\n" if table else ""
    nested = f"[{table}.postgres]" if table else "[postgres]"
    path = write(file, f'{header}Region = "x"\nbuckets = "y"\n{nested}\nhots = "x"\n')
    where = f"{path} [{table}]" if table else str(path)
    message = refused()
    assert f"{where}: unknown setting 'Region'; did you mean 'region'?" in message
    assert f"{where}: unknown setting 'buckets'; did you mean 'bucket'?" in message
    assert f"{where}: unknown setting 'postgres.hots'; did you mean 'host'?" in message


def test_the_prefix_makes_no_variable_look_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_CONFIG", "x")
    message = refused()
    assert "unknown setting SMKIT_CONFIG; valid variables: SMKIT_ALLOW_PICKLE, " in message
    assert "did you mean" not in message


def test_all_problems_are_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMKIT_REGON", "x")
    monkeypatch.setenv("SMKIT_BACKEND", "docker")
    write("smkit.toml", 'instance_type = "m5.large"\n[postgres]\nport = 0\nsslmode = "prefer"\n')
    lines = refused(role="a b", subnets=["subnet-1"]).splitlines()
    assert lines[0] == "invalid settings:"
    assert len(lines) == 8
    toml = Path("smkit.toml").absolute()
    assert "  - backend: expected 'local' or 'sagemaker', got 'docker' (from environment SMKIT_BACKEND)" in lines
    assert (
        f"  - instance_type: 'm5.large' is not allowed: expected an instance such as 'ml.m5.large' (from {toml})"
        in lines
    )
    assert f"  - postgres.port: expected greater than or equal to 1, got 0 (from {toml})" in lines
    assert any(
        line.startswith("  - postgres.sslmode: expected 'verify-full', 'verify-ca', 'require' or") for line in lines
    )
    assert any(line.startswith("  - role: 'a b' is not a role") and line.endswith("(from argument)") for line in lines)
    assert "  - security_groups: subnets and security_groups go together: set both, or neither" in lines


# --- files ------------------------------------------------------------------------------------------------------


def test_toml_is_read_on_every_python() -> None:
    write(
        "smkit.toml",
        'allow_pickle = true\nsubnets = ["subnet-1"]\nsecurity_groups = ["sg-1"]\n[postgres]\nport = 6000\n',
    )
    found = Settings()
    assert (found.allow_pickle, found.subnets, found.postgres.port) == (True, ("subnet-1",), 6000)


@pytest.mark.parametrize("file", ["smkit.toml", "pyproject.toml"])
def test_invalid_toml_is_an_error_that_names_file_and_line(file: str) -> None:
    path = write(file, '[tool.smkit]\nregion = "eu-west-1"\nprofile = \n')
    assert re.search(rf"{re.escape(str(path))} is not valid TOML: .*line 3", refused())


@pytest.mark.parametrize("text", ["tool = 3\n# [tool.smkit", '[tool]\nsmkit = "x"\n# [tool.smkit'])
def test_a_table_that_is_none(text: str) -> None:
    path = write("pyproject.toml", text)
    assert f"{path} [tool.smkit]: expected a table of settings" in refused()


def test_a_pyproject_of_another_tool_is_not_ours() -> None:
    write("pyproject.toml", '[project]\nname = "x"\n')
    assert origin(Settings(), "region") == "default"


def test_text_that_is_not_utf8() -> None:
    path = Path(".env").absolute()
    path.write_bytes(b"SMKIT_PROJECT=caf\xe9\n")
    Path("smkit.toml").write_bytes(b'project = "caf\xe9"\n')
    message = refused()
    assert f"{path} is not UTF-8 text (byte 18): save it as UTF-8" in message
    assert f"{Path('smkit.toml').absolute()} is not valid TOML" in message


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="needs a file that even root cannot read")
@pytest.mark.parametrize("file", [".env", "smkit.toml", "pyproject.toml"])
def test_a_file_that_cannot_be_read(file: str) -> None:
    # Reading the first page of a process's memory fails for every user, root included.
    Path(file).symlink_to("/proc/self/mem")
    path = Path(file).absolute()
    message = refused()
    assert f"cannot read {path}" in message
    assert "make it readable, or remove it" in message


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a working folder from being removed")
def test_a_working_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "the working folder no longer exists" in refused()


# --- root -------------------------------------------------------------------------------------------------------


def test_the_default_root_is_a_folder_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().root == str(tmp_path / ".smkit")
    write("smkit.toml", "")
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert Settings().root == str(tmp_path / ".smkit")


def test_the_default_root_follows_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(bucket="team-data").root == "s3://team-data/smkit"
    assert Settings(bucket="team-data", project="houses").root == "s3://team-data/houses"
    assert Settings(bucket="arn:aws-cn:s3:::team-data").root == "s3://team-data/smkit"
    monkeypatch.setenv("SMKIT_BUCKET", "from-env")
    write("smkit.toml", 'project = "from-toml"\n')
    found = Settings()
    assert found.root == "s3://from-env/from-toml"
    assert origin(found, "root") == "default"


@pytest.mark.parametrize("file", [".env", "smkit.toml", "pyproject.toml"])
def test_relative_paths_of_a_file_start_at_its_folder(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file == ".env":
        write("smkit.toml", "")
        write(file, "SMKIT_ROOT=data/store\nSMKIT_POSTGRES__SSLROOTCERT=certs/rds.pem\n")
    else:
        header = "[tool.smkit]\n" if file == "pyproject.toml" else ""
        write(file, f'{header}root = "data/store"\npostgres = {{sslrootcert = "certs/rds.pem"}}\n')
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    found = Settings()
    assert found.root == str(tmp_path / "data" / "store")
    assert found.postgres.sslrootcert == tmp_path / "certs" / "rds.pem"


def test_other_relative_paths_start_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(root="store").root == str(tmp_path / "store")
    assert Settings(root=Path("store")).root == str(tmp_path / "store")
    assert PostgresSettings(sslrootcert="ca.pem").sslrootcert == tmp_path / "ca.pem"
    monkeypatch.setenv("SMKIT_ROOT", "env-store")
    assert Settings().root == str(tmp_path / "env-store")


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    write("smkit.toml", 'root = "~/store"\n')
    assert Settings().root == str(tmp_path / "home" / "store")
    assert "'~nobody-has-this-name/x' is not allowed" in refused(root="~nobody-has-this-name/x")


def test_root_uris_are_normalised_and_checked() -> None:
    assert Settings(root="S3://team-data/").root == "s3://team-data"
    assert Settings(root="s3://team-data/a/b/").root == "s3://team-data/a/b"
    assert "expected a folder or 's3://<bucket>/<prefix>'" in refused(root="gs://team-data/x")
    assert "expected a folder or 's3://<bucket>/<prefix>'" in refused(root="")
    assert "root: 'Team' is not a bucket name" in refused(root="s3://Team/x")
    assert "name different buckets: set one of them" in refused(root="s3://one-bucket/x", bucket="other-bucket")
    assert Settings(root="s3://one-bucket/x", bucket="one-bucket").root == "s3://one-bucket/x"


# --- rules and cross-checks -------------------------------------------------------------------------------------

ACCOUNT = "123456789012"


@pytest.mark.parametrize(
    "values",
    [
        {"region": "us-gov-west-1"},
        {"role": f"arn:aws-cn:iam::{ACCOUNT}:role/service-role/Train"},
        {"role": "TrainRole"},
        {"region": "us-east-1", "role": f"arn:aws:iam::{ACCOUNT}:role/Train"},
        {"kms_key": "1234abcd-12ab-34cd-56ef-1234567890ab"},
        {"kms_key": "alias/team"},
        {"kms_key": f"arn:aws-cn:kms:cn-northwest-1:{ACCOUNT}:key/1234abcd"},
        {"bucket": f"sagemaker-cn-northwest-1-{ACCOUNT}"},
        {"bucket": "sagemaker-notes"},
        {"framework_version": "1.4-2-py312"},
        {"instance_type": "ml.c7i.metal-24xl"},
        {"subnets": ["subnet-1"], "security_groups": ["sg-1", "sg-2"]},
        {"postgres": {"secret_id": "team/db"}},
        {"postgres": {"secret_id": f"arn:aws-cn:secretsmanager:cn-northwest-1:{ACCOUNT}:secret:db-AbCdEf"}},
    ],
)
def test_values_that_belong_together(values: dict[str, Any]) -> None:
    found = Settings(**values)
    for name, value in values.items():
        if isinstance(value, str):
            assert getattr(found, name) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"region": "cn-northwest1"},
            "region: 'cn-northwest1' is not allowed: expected a region such as 'cn-northwest-1'",
        ),
        ({"region": "CN-NORTH-1"}, "region: 'CN-NORTH-1' is not allowed"),
        ({"region": None}, "region: expected a valid string"),
        ({"profile": ""}, "profile: text should have at least 1 character, got ''"),
        ({"project": "My Project"}, "project: 'My Project' is not allowed: expected 1 to 63 lower-case letters"),
        (
            {"framework_version": "1.2"},
            "framework_version: '1.2' is not allowed: expected an image tag such as '1.2-1'",
        ),
        (
            {"role": f"arn:aws:iam::{ACCOUNT}:role/T"},
            (
                "role: 'arn:aws:iam::123456789012:role/T' belongs to partition aws, but region 'cn-northwest-1' "
                "belongs to aws-cn: use a role of aws-cn, or set region to one of aws (from argument)"
            ),
        ),
        (
            {"role": f"arn:aws-cn:iam::{ACCOUNT}:user/T"},
            "is not a role: expected 'arn:<partition>:iam::<account>:role/<name>'",
        ),
        ({"role": "arn:aws-cn:s3:::bucket"}, "role: 'arn:aws-cn:s3:::bucket' is an ARN of 's3', not of 'iam'"),
        ({"role": "arn:nonsense"}, "role: 'arn:nonsense' is not an ARN"),
        (
            {"kms_key": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k"},
            "aws, but region 'cn-northwest-1' belongs to aws-cn: use a KMS key",
        ),
        (
            {"kms_key": f"arn:aws-cn:kms:cn-north-1:{ACCOUNT}:key/k"},
            "belongs to region 'cn-north-1', but region is 'cn-northwest-1'",
        ),
        ({"kms_key": f"arn:aws-cn:iam::{ACCOUNT}:role/k"}, "is an ARN of 'iam', not of 'kms'"),
        ({"bucket": "arn:aws:s3:::team"}, "bucket: 'arn:aws:s3:::team' belongs to partition aws"),
        ({"bucket": "arn:aws-cn:sqs:cn-northwest-1:123456789012:team"}, "is an ARN of 'sqs', not of 's3'"),
        ({"bucket": "arn:aws-cn:s3:::team/data"}, "bucket: 'team/data' is not a bucket name"),
        ({"bucket": "s3://team"}, "bucket: 's3://team' is not a bucket name"),
        (
            {"bucket": f"sagemaker-us-east-1-{ACCOUNT}"},
            "is of region 'us-east-1', partition aws, but region 'cn-northwest-1' belongs to aws-cn",
        ),
        (
            {"root": f"s3://sagemaker-us-east-1-{ACCOUNT}/x"},
            "root: bucket 'sagemaker-us-east-1-123456789012' is of region",
        ),
        ({"subnets": ["subnet-1"]}, "subnets and security_groups go together: set both, or neither"),
        ({"security_groups": "sg-1"}, "subnets and security_groups go together: set both, or neither"),
        (
            {"subnets": "sg-1", "security_groups": "sg-1"},
            "subnets: 'sg-1' is not allowed: expected ids such as 'subnet-",
        ),
        ({"subnets": "[subnet-1", "security_groups": "sg-1"}, "is not a JSON list"),
        ({"tags": {"aws:x": "y"}}, "tags: tag 'aws:x' is not allowed: a key has 1 to 128 characters"),
        ({"tags": {"cost": 3}}, "tags.cost: expected a valid string, got 3"),
        ({"tags": "a=b"}, "tags: expected a valid"),
        ({"allow_pickle": "maybe"}, "allow_pickle: expected a valid boolean"),
        ({"postgres": {"port": 70000}}, "postgres.port: expected less than or equal to 65535, got 70000"),
        ({"postgres": {"connect_timeout": 0}}, "postgres.connect_timeout: expected greater than 0, got 0"),
        ({"postgres": {"connect_timeout": float("inf")}}, "postgres.connect_timeout: expected a finite number"),
        (
            {"postgres": {"secret_id": f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:db"}},
            "belongs to partition aws, but region 'cn-northwest-1'",
        ),
    ],
)
def test_values_that_do_not(values: dict[str, Any], message: str) -> None:
    text = refused(**values)
    assert message in text
    assert "pattern" not in text
    assert "validation error" not in text


def test_no_cross_check_hides_an_invalid_region() -> None:
    lines = refused(region="nowhere", role=f"arn:aws:iam::{ACCOUNT}:role/T", bucket="arn:aws:s3:::team").splitlines()
    assert lines[1:] == [
        "  - region: 'nowhere' is not allowed: expected a region such as 'cn-northwest-1' (from argument)"
    ]


def test_the_error_of_a_field_names_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    write("smkit.toml", '[postgres]\nport = "x"\n')
    monkeypatch.setenv("SMKIT_POSTGRES__HOST", "db")
    assert f"(from {Path('smkit.toml').absolute()})" in refused()


def test_postgres_settings_on_their_own() -> None:
    with pytest.raises(ConfigError, match=r"port: expected a valid integer.*got 'x'"):
        PostgresSettings(port="x")
    with pytest.raises(ConfigError, match="unknown setting 'hots'; did you mean 'host'"):
        PostgresSettings(hots="x")


# --- values -----------------------------------------------------------------------------------------------------


def test_settings_are_frozen() -> None:
    found = Settings()
    with pytest.raises(ConfigError, match=r"frozen.*use settings\.model_copy\(update=\{'region': \.\.\.\}\)"):
        found.region = "eu-west-1"
    inner = r"settings\.postgres\.model_copy\(update=\{'password': \.\.\.\}\)"
    with pytest.raises(ConfigError, match=rf"use settings\.model_copy\(update=\{{'postgres': {inner}\}}\)") as caught:
        found.postgres.password = SECRET
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="unknown setting 'regoin'; did you mean 'region'"):
        found.regoin = "x"
    with pytest.raises(ConfigError, match="frozen"):
        del found.region
    with pytest.raises(ConfigError, match="frozen"):
        del found.postgres.host
    assert found == Settings()


def test_equal_values_are_equal_whatever_their_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    argument = Settings(project="houses", tags={"a": "b"})
    write("smkit.toml", 'project = "houses"\n[tags]\na = "b"\n')
    assert Settings() == argument
    assert hash(Settings()) == hash(argument)
    assert Settings(project="flats") != argument
    assert argument != "houses"


def test_pickle_and_copies_keep_values_and_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Settings(project="houses", postgres={"password": SECRET})
    monkeypatch.setenv("SMKIT_PROJECT", "changed-since")
    for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), copy.copy(found), found.model_copy()):
        assert twin == found
        assert str(twin.explain()) == str(found.explain())
        assert twin.postgres.password.get_secret_value() == SECRET


def test_a_changed_copy_is_validated_and_computes_its_defaults_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    write("smkit.toml", 'project = "houses"\n')
    found = Settings(postgres={"host": "db"})
    monkeypatch.setenv("SMKIT_PROFILE", "changed-since")
    other = found.model_copy(update={"bucket": "team-data", "region": "eu-west-1", "postgres": {"user": "me"}})
    assert (other.root, other.region, other.profile) == ("s3://team-data/houses", "eu-west-1", None)
    assert (other.postgres.host, other.postgres.user) == ("db", "me")
    assert other._clients._region == "eu-west-1"
    assert origin(other, "project").endswith("smkit.toml")
    assert origin(other, "region") == "argument"
    assert (found.region, found.bucket) == ("cn-northwest-1", None)
    with pytest.raises(ConfigError, match="unknown setting 'bukket'; did you mean 'bucket'"):
        found.model_copy(update={"bukket": "x"})
    with pytest.raises(ConfigError, match="set both, or neither"):
        found.model_copy(update={"subnets": ("subnet-1",)})
    with pytest.raises(ConfigError, match=r"postgres\.port"):
        found.model_copy(update={"postgres": {"port": -1}})
    assert SECRET not in repr(found.postgres.model_copy(update={"password": SECRET}))


def test_settings_validate_as_a_field_of_another_model() -> None:
    class Service(pydantic.BaseModel):
        store: Settings

    assert Service(store={"project": "houses"}).store == Settings(project="houses")  # type: ignore[arg-type]


def test_a_subclass_adds_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    class ServiceSettings(Settings):
        api_key: pydantic.SecretStr | None = None
        workers: int = 1

    monkeypatch.setenv("SMKIT_WORKERS", "3")
    found = ServiceSettings(api_key=SECRET)
    assert found.workers == 3
    assert origin(found, "workers") == "environment SMKIT_WORKERS"
    assert SECRET not in repr(found) + str(found.explain())
    with pytest.raises(ConfigError) as caught:
        ServiceSettings(api_key=[SECRET])
    assert SECRET not in str(caught.value)


def test_constructing_settings_makes_no_session_and_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Settings(profile="there-is-none")
    assert found._clients._session is None
    assert list(Path.cwd().iterdir()) == []


def test_threads_may_build_and_read_settings_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    write("smkit.toml", 'project = "houses"\n')
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: str(Settings().explain()), range(64)))) == 1


def test_the_signature_is_the_fields() -> None:
    import inspect

    assert list(inspect.signature(Settings).parameters) == list(Settings.model_fields)
    assert list(inspect.signature(PostgresSettings).parameters) == list(PostgresSettings.model_fields)
    assert Settings.__doc__ is not None
    for name in Settings.model_fields:
        assert f"\n        {name}: " in Settings.__doc__


# --- secrets ----------------------------------------------------------------------------------------------------

# Without quotes and backslashes, which a repr would escape, so that the search would miss them.
secrets = st.from_regex(r"hunter2[a-zA-Z0-9%$#!;:@/?&=+ ~|-]{4,30}", fullmatch=True)


@settings(max_examples=50)
@given(secret=secrets)
def test_a_secret_is_never_shown(secret: str) -> None:
    index = f"https://user:{secret}@index.example/simple"
    found = smkit.Settings(postgres={"password": secret, "user": "me"}, pip_index_url=index)
    assert found.postgres.password is not None
    assert found.postgres.password.get_secret_value() == secret
    shown = [
        repr(found),
        str(found),
        repr(found.explain()),
        str(found.explain()),
        f"{found.postgres!r}",
        str(found.model_dump()),
    ]
    shown += [found.model_dump_json(), repr(vars(found)), repr(found.__pydantic_private__), repr(found.__rich_repr__)]
    assert all(secret not in text for text in shown)
    assert [line.value for line in found.explain() if line.name in {"postgres.password", "pip_index_url"}] == [
        "********"
    ] * 2


def errors_of(secret: str) -> list[dict[str, Any]]:
    """Arguments that are wrong in the place that holds the secret, or beside it."""
    return [
        {"postgres": {"password": secret, "port": "x"}},
        {"postgres": {"password": [secret]}},
        {"postgres": {"password": secret.encode()}, "region": "x"},
        {"postgres": f"postgresql://me:{secret}@host/db"},
        {"postgres": [secret]},
        {"postgres": {"host": f"postgresql://me:{secret}@host/db"}},
        {"pip_index_url": [f"https://{secret}@host"]},
        {"pip_index_url": {"url": secret}},
        {"pip_index_url": f"https://{secret}@host", "backend": "docker"},
    ]


@pytest.mark.parametrize("number", range(len(errors_of(""))))
@settings(max_examples=20)
@given(secret=secrets)
def test_an_error_never_shows_a_secret(number: int, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**errors_of(secret)[number])
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args) + repr(vars(error))
    assert secret not in shown
    assert error.__cause__ is None
    assert error.__context__ is None, "pydantic's error holds the values"


@pytest.mark.parametrize("place", ["environment", ".env"])
@pytest.mark.parametrize("variable", ["SMKIT_POSTGRES", "SMKIT_TAGS"])
@pytest.mark.parametrize("text", ['{{"password": "{}"', "[{}", "{}", '"{}"', '["{}"]', '{{"password": ["{}"]}}'])
def test_malformed_json_names_the_variable_and_shows_no_secret(
    text: str, variable: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = text.format(SECRET)
    if place == "environment":
        monkeypatch.setenv(variable, value)
    else:
        write(".env", f"{variable}='{value}'\n")
    with pytest.raises(ConfigError) as caught:
        Settings()
    shown = "".join(traceback.format_exception(caught.value))
    assert variable in str(caught.value)
    if variable == "SMKIT_POSTGRES":
        assert SECRET not in shown
    assert caught.value.__context__ is None


def test_no_frame_of_smkit_holds_a_plain_secret_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    # Crash reporters and rich tracebacks show the local variables of every frame.
    write("smkit.toml", f'region = "x"\npip_index_url = "https://{SECRET}@host"\n[postgres]\npassword = "{SECRET}"\n')
    monkeypatch.setenv("SMKIT_POSTGRES__PASSWORD", SECRET)
    with pytest.raises(ConfigError) as caught:
        Settings()
    frames = [
        frame for frame, _ in traceback.walk_tb(caught.value.__traceback__) if "smkit" in frame.f_globals["__name__"]
    ]
    frames = [frame for frame in frames if frame.f_globals["__name__"].startswith("smkit")]
    assert frames
    assert all(SECRET not in repr(frame.f_locals) for frame in frames)
