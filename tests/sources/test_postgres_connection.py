"""Connecting to PostgreSQL: settings, secrets, TLS, refusals, and connections that break."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

import smkit
from smkit.errors import ConfigError, SourceConnectionError
from smkit.sources import PostgresSource
from smkit.sources import _postgres_adbc as adbc
from smkit.sources._postgres_connect import resolve
from smkit.sources._postgres_session import PreparedQuery, Transaction
from smkit.sources._postgres_sql import parse_query
from tests.sources.tls_proxy import Certificates, make_certificates, tls_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fixtures_postgres import Postgres

SECRET = "correct-horse-battery-staple"


def select_one(settings: smkit.Settings) -> int:
    return int(PostgresSource("SELECT 1 AS one", settings=settings).read()["one"][0])


def sessions(pg: Postgres) -> int:
    return int(pg.run("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'smkit'")[0][0])


def wait_until(condition: Callable[[], bool], found: Callable[[], object] = lambda: "") -> None:
    """Wait for what happens soon; `found` says what is there instead if it does not."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, found()
        time.sleep(0.01)


def whole_story(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def shown_by_reporters(error: BaseException) -> str:
    """Return what tools that report errors may show: the variables of every frame, of the errors before it as well."""
    chain = [error, error.__context__, error.__cause__]
    shown = [traceback.TracebackException.from_exception(e, capture_locals=True) for e in chain if e is not None]
    return "".join("".join(one.format()) for one in shown)


# --- settings ----------------------------------------------------------------------------------------------------


def test_missing_settings_are_named_with_their_variables() -> None:
    with pytest.raises(ConfigError) as caught:
        select_one(smkit.Settings(postgres={"host": "db.example.com"}))
    assert "postgres.database (SMKIT_POSTGRES__DATABASE)" in str(caught.value)
    assert "postgres.user (SMKIT_POSTGRES__USER)" in str(caught.value)
    assert "postgres.host" not in str(caught.value)


def test_default_settings_are_made_on_the_first_read(pg: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PostgresSource("SELECT 1 AS one")
    for name in ("host", "port", "database", "user", "password", "sslmode"):
        monkeypatch.setenv(f"SMKIT_POSTGRES__{name.upper()}", str(getattr(pg, name)))
    assert source.read()["one"].tolist() == [1]


def test_a_password_that_the_server_asks_for(pg: Postgres) -> None:
    with pytest.raises(ConfigError, match="SMKIT_POSTGRES__PASSWORD"):
        select_one(pg.settings(password=None))


# --- the secret --------------------------------------------------------------------------------------------------


def test_a_secret_of_rds(pg: Postgres, put_secret: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    name = request.node.name
    fields = {"username": pg.user, "password": pg.password, "host": pg.host, "port": pg.port, "dbname": pg.database}
    put_secret(name, json.dumps(fields | {"engine": "postgres"}))
    settings = smkit.Settings(postgres={"secret_id": name, "sslmode": pg.sslmode})
    assert select_one(settings) == 1
    described = PostgresSource("SELECT 1 AS one", settings=settings).describe()
    assert described["secret_id"] == name
    assert described["host"] is described["port"] is None


def test_settings_win_over_the_secret(
    pg: Postgres, put_secret: Callable[[str, str], None], request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    put_secret(name, json.dumps({"username": "x", "password": "x", "host": "x.invalid", "port": 1, "dbname": "x"}))
    assert select_one(pg.settings(secret_id=name)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"not json {SECRET}", "is not a JSON object"),
        (f'["{SECRET}"]', "is not a JSON object"),
        (json.dumps({"password": SECRET}), r"postgres.user \(SMKIT_POSTGRES__USER\).*does not hold them either"),
        (json.dumps({"username": "x", "password": SECRET, "port": f"x{SECRET}"}), "`port` that is no number"),
    ],
)
def test_secrets_of_another_form(
    put_secret: Callable[[str, str], None], text: str, message: str, request: pytest.FixtureRequest
) -> None:
    name = f"malformed-{abs(hash(request.node.name))}"
    put_secret(name, text)
    with pytest.raises(ConfigError, match=message) as caught:
        select_one(smkit.Settings(postgres={"host": "db", "database": "d", "secret_id": name}))
    assert SECRET not in whole_story(caught.value)


@pytest.mark.usefixtures("aws_env")
def test_a_secret_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"'nope'.*cn-northwest-1 has no such secret"):
        select_one(smkit.Settings(postgres={"host": "db", "secret_id": "nope"}))


@pytest.mark.usefixtures("aws_env")
def test_a_secret_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceConnectionError, match=r"'nope' .* cannot be read: .*credentials"):
        select_one(smkit.Settings(postgres={"host": "db", "secret_id": "nope"}))


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"password": SecretStr(SECRET)}, r"28P01.*check the password of '.*SMKIT_POSTGRES__PASSWORD"),
        ({"database": "nope"}, r'database "nope" does not exist.*SMKIT_POSTGRES__DATABASE'),
        ({"host": "no-such-host.invalid"}, "the host name cannot be resolved"),
    ],
)
def test_refusals_say_what_to_check(pg: Postgres, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceConnectionError, match=message) as caught:
        select_one(pg.settings(**overrides))
    assert pg.password not in whole_story(caught.value)
    assert SECRET not in whole_story(caught.value)


@pytest.mark.parametrize("engine", ["copy", "adbc"])
def test_no_variable_of_an_errors_frames_holds_the_password(pg: Postgres, engine: str) -> None:
    settings = pg.settings(password=SecretStr(SECRET))
    with pytest.raises(SourceConnectionError, match="28P01") as caught:
        smkit.PostgresSource("SELECT 1 AS one", settings=settings, engine=engine).read()
    assert "settings = " in shown_by_reporters(caught.value)
    assert SECRET not in shown_by_reporters(caught.value)


def test_a_connection_of_adbc_keeps_the_password_out_of_an_errors_frames(pg: Postgres) -> None:
    settings = pg.settings(password=SecretStr(SECRET))
    prepared = PreparedQuery(parse_query("SELECT 1", {}), {}, [])
    with (
        pytest.raises(SourceConnectionError, match="ADBC cannot connect") as caught,
        adbc.open_session(settings, resolve(settings), prepared, Transaction()),
    ):
        pass
    assert "prepared = " in shown_by_reporters(caught.value)
    assert SECRET not in shown_by_reporters(caught.value)


def test_a_port_that_nobody_listens_on(pg: Postgres) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(SourceConnectionError, match=r"cannot connect \(.*refused"):
            select_one(pg.settings(host="127.0.0.1", port=probe.getsockname()[1]))


@contextmanager
def scripted_server(answer: bytes | None) -> Iterator[int]:
    """Accept one connection and say `answer`; None: say nothing until the client gives up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.settimeout(20)
            client.recv(1024)
            if answer is None:
                client.recv(1024)
            else:
                client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("sslmode", "answer", "message"),
    [
        ("disable", None, "took too long to log in"),
        ("disable", b"", "broke off at login"),
        ("require", None, "the TLS handshake failed: .*timed out"),
        ("require", b"HTTP/1.1 400", "no answer of PostgreSQL's protocol"),
        ("require", b"Snot tls at all", "the TLS handshake failed"),
    ],
)
def test_servers_that_are_no_postgres(pg: Postgres, sslmode: str, answer: bytes | None, message: str) -> None:
    with (
        scripted_server(answer) as port,
        pytest.raises(SourceConnectionError, match=message) as caught,
    ):
        select_one(pg.settings(host="127.0.0.1", port=port, sslmode=sslmode, connect_timeout=0.3))
    assert pg.password not in whole_story(caught.value)


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sslmode", ["verify-full", "verify-ca", "require"])
def test_tls_that_the_server_does_not_offer(pg: Postgres, sslmode: str) -> None:
    with (
        scripted_server(b"N") as port,
        pytest.raises(SourceConnectionError, match=rf'sslmode={sslmode} .*SMKIT_POSTGRES__SSLMODE\) to "disable"'),
    ):
        select_one(pg.settings(host="127.0.0.1", port=port, sslmode=sslmode))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificates]:
    made = {}
    for name, host in (("right", "127.0.0.1"), ("other-host", "db.example.com"), ("other-ca", "127.0.0.1")):
        folder = tmp_path_factory.mktemp(name)
        made[name] = make_certificates(folder, host)
    return made


@pytest.mark.parametrize(
    ("sslmode", "server", "trusted", "error"),
    [
        ("verify-full", "right", "right", None),
        ("verify-full", "other-host", "other-host", "not valid for '127.0.0.1'"),
        ("verify-full", "right", "other-ca", "SMKIT_POSTGRES__SSLROOTCERT"),
        ("verify-full", "right", None, "trusted: the system's CAs"),
        ("verify-ca", "other-host", "other-host", None),
        ("verify-ca", "right", "other-ca", "certificate is not accepted"),
        ("require", "other-host", None, None),
    ],
)
def test_tls(
    pg: Postgres,
    certificates: dict[str, Certificates],
    sslmode: str,
    server: str,
    trusted: str | None,
    error: str | None,
) -> None:
    if pg.sslmode != "disable":
        pytest.skip("the proxy forwards to a server without TLS")
    root = None if trusted is None else certificates[trusted].ca
    with tls_proxy(certificates[server], pg.host, pg.port) as port:
        settings = pg.settings(host="127.0.0.1", port=port, sslmode=sslmode, sslrootcert=root)
        if error is None:
            assert select_one(settings) == 1
        else:
            with pytest.raises(SourceConnectionError, match=error):
                select_one(settings)


def test_verify_full_is_the_default(pg: Postgres, certificates: dict[str, Certificates]) -> None:
    with (
        tls_proxy(certificates["right"], pg.host, pg.port) as port,
        pytest.raises(SourceConnectionError, match="sslmode=verify-full"),
    ):
        select_one(pg.settings(host="127.0.0.1", port=port, sslmode=None))


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_root_certificate_that_cannot_be_read(pg: Postgres, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "root.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"SMKIT_POSTGRES__SSLROOTCERT\) is '.*root\.pem'"):
        select_one(pg.settings(sslmode="verify-full", sslrootcert=path))


# --- connections that break, and those that must not stay --------------------------------------------------------


def test_a_connection_that_is_cut_midway(pg: Postgres) -> None:
    """No word from the server: bytes just end, in the middle of a message."""
    listener = socket.create_server(("127.0.0.1", 0))
    allowed = 200_000

    def forward() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection((pg.host, pg.port)) as server:
            client.settimeout(20)
            up = threading.Thread(target=copy, args=(client, server))
            up.start()
            sent = 0
            while sent < allowed:
                sent += client.send(server.recv(min(65536, allowed - sent)))
            client.shutdown(socket.SHUT_RDWR)
            up.join()

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            return  # the other side of the cut

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        settings = pg.settings(host="127.0.0.1", port=listener.getsockname()[1])
        with pytest.raises(SourceConnectionError, match="broke off while the query was read"):
            PostgresSource("SELECT g, repeat('x', 50) AS t FROM generate_series(1, 9999) g", settings=settings).read()
    finally:
        thread.join()
        listener.close()
    gc.collect()


def test_errors_end_the_session(pg: Postgres) -> None:
    for sql in ("SELECT nope", "SELECT 1/0 AS x", "SELECT 'infinity'::date AS d"):
        with pytest.raises(smkit.SmkitError):
            PostgresSource(sql, settings=pg.settings()).read()
    wait_until(lambda: sessions(pg) == 0)
    gc.collect()


def test_an_uncollected_iterator_ends_the_session_with_the_garbage(pg: Postgres) -> None:
    next(PostgresSource("SELECT g FROM generate_series(1, 1000) g", settings=pg.settings()).batches(batch_size=10))
    gc.collect()
    wait_until(lambda: sessions(pg) == 0)
