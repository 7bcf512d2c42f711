"""What the doctor says of PostgreSQL."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

import smkit
from tests.doctor.conftest import client
from tests.doctor.front import Front, json_error
from tests.sources.tls_proxy import make_certificates, tls_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from smkit.diagnosis import CheckResult
    from tests.fixtures_postgres import Postgres

SECRET = "correct-horse-battery-staple"


def look(settings: smkit.Settings, **options: Any) -> CheckResult:
    report = smkit.doctor(settings, checks=["postgres"], **{"timeout": 20, **options})
    assert SECRET not in str(report) + json.dumps(report.to_dict()) + report._repr_html_()
    return report["postgres"]


def test_a_server_that_is_ready(pg: Postgres) -> None:
    result = look(pg.settings())
    assert result.ok, result
    assert f"at {pg.host}:{pg.port}/{pg.database} as {pg.user}" in result.finding
    assert "read-only query works" in result.finding
    assert pg.password not in str(result)
    if pg.sslmode == "disable":
        assert "not encrypted" in result.finding


def test_the_session_is_closed(pg: Postgres) -> None:
    look(pg.settings())
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'smkit'"
    deadline = time.monotonic() + 20
    while pg.run(count) != [[0]]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("overrides", "finding", "fix"),
    [
        ({"password": SecretStr(SECRET)}, "28P01", "check the password of"),
        ({"database": "nope"}, 'database "nope" does not exist', "SMKIT_POSTGRES__DATABASE"),
        ({"host": "no-such-host.invalid"}, "the host name cannot be resolved", "the DNS"),
        ({"host": "127.0.0.1", "port": 9}, "refused", "that the server runs"),
        ({"user": None}, "needs postgres.user", "set them in the environment"),
        ({"sslmode": "verify-full"}, "does not offer TLS", "turn TLS on"),
        ({"sslmode": "verify-full", "sslrootcert": "no-such.pem"}, "no readable PEM file", ""),
    ],
)
def test_servers_that_refuse(pg: Postgres, overrides: dict[str, Any], finding: str, fix: str) -> None:
    if pg.sslmode != "disable" and "sslmode" in overrides:
        pytest.skip("the server of SMKIT_TEST_PG_DSN has TLS")
    result = look(pg.settings(**overrides))
    assert result.outcome == "problem"
    assert finding in result.finding
    assert fix in result.fix


def test_a_certificate_that_is_checked(pg: Postgres, tmp_path: Path) -> None:
    if pg.sslmode != "disable":
        pytest.skip("the proxy forwards to a server without TLS")
    certificates = make_certificates(tmp_path, "127.0.0.1")
    with tls_proxy(certificates, pg.host, pg.port) as port:
        result = look(pg.settings(host="127.0.0.1", port=port, sslmode="verify-full", sslrootcert=certificates.ca))
        assert "TLSv1.3, certificate verified for the host" in result.finding
        assert result.fix == ""
        result = look(pg.settings(host="127.0.0.1", port=port, sslmode="verify-full"))
        assert result.outcome == "problem"
        assert "certificate is not accepted" in result.finding
        assert "sslrootcert" in result.fix


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = smkit.Settings(
            postgres={"host": "127.0.0.1", "port": port, "database": "d", "user": "u", "sslmode": "disable"}
        )
        began = time.monotonic()
        result = look(settings, timeout=0.5)
    assert result.outcome == "cannot tell"
    assert result.finding.startswith("no answer in 0.5 s: PostgreSQL at 127.0.0.1")
    assert time.monotonic() - began < 5


def test_no_database_is_set() -> None:
    assert look(smkit.Settings()).finding == "no postgres is set"


# --- the secret --------------------------------------------------------------------------------------------------


def with_secret(aws_env: str, name: str, text: str) -> None:
    secrets = client("secretsmanager", aws_env)
    secrets.create_secret(Name=name, SecretString=text)
    secrets.close()


def test_a_secret_of_rds(pg: Postgres, front: Front, aws_env: str) -> None:
    fields = {"username": pg.user, "password": pg.password, "host": pg.host, "port": pg.port, "dbname": pg.database}
    with_secret(aws_env, "doctor/good", json.dumps(fields))
    settings = smkit.Settings(postgres={"secret_id": "doctor/good", "sslmode": pg.sslmode})
    report = smkit.doctor(settings, checks=["postgres"], timeout=20)
    assert report["secret"].finding == "'doctor/good' can be read and holds username, password, host, port, dbname"
    assert report["postgres"].ok, report
    assert pg.password not in str(report) + json.dumps(report.to_dict())


def test_secrets_that_cannot_be_used(front: Front, aws_env: str) -> None:
    with_secret(aws_env, "doctor/text", f"postgres://me:{SECRET}@db/x")
    settings = smkit.Settings(postgres={"secret_id": "doctor/text", "host": "db"})
    report = smkit.doctor(settings, checks=["postgres"], timeout=20)
    assert "is not a JSON object" in report["secret"].finding
    assert report["postgres"].finding == "needs secret"
    assert SECRET not in str(report)
    report = smkit.doctor(smkit.Settings(postgres={"secret_id": "doctor/nope"}), checks=["secret"], timeout=20)
    assert "cn-northwest-1 has no secret 'doctor/nope'" in report["secret"].finding
    front.answer("secretsmanager:GetSecretValue", json_error(400, "AccessDeniedException"))
    report = smkit.doctor(settings, checks=["secret"], timeout=20)
    assert report["secret"].outcome == "problem"
    assert "secretsmanager:GetSecretValue" in report["secret"].fix
