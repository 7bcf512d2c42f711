"""A connection to PostgreSQL as `PostgresSettings` describes it."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pg8000.exceptions
import scramp
from botocore.exceptions import BotoCoreError, ClientError

from smkit.errors import ConfigError, SourceConnectionError
from smkit.sources._postgres_wire import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from smkit.config import PostgresSettings, Settings

#: The message that asks for TLS. https://www.postgresql.org/docs/current/protocol-message-formats.html
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)

#: Seconds of silence until a dead server is noticed: after 60, five probes 15 apart. TCP's own default is two hours.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 5}
#: The same, as libpq calls it.
LIBPQ_KEEPALIVE = {"keepalives_idle": 60, "keepalives_interval": 15, "keepalives_count": 5}


@dataclass(frozen=True)
class Target:
    """Where to connect, as whom, everything known."""

    host: str
    port: int
    database: str
    user: str
    password: SecretStr | None = field(repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def connect(settings: Settings, target: Target) -> Connection:
    """Open a connection.

    Args:
        settings: How to connect.
        target: What `resolve` has made of them.

    Raises:
        ConfigError: A setting is missing or contradicts another; the message names its variable.
        SourceConnectionError: The server cannot be reached, is not the one expected, or refuses.
    """
    context = _tls_context(settings.postgres)
    open_channel = partial(_open_channel, target, context, settings.postgres)
    sock = open_channel()
    try:
        connection = _log_in(sock, target, open_channel, encrypted=context is not None)
    except BaseException:
        sock.close()
        raise
    # The timeout was for the connection; a query may take its time.
    sock.settimeout(None)
    return connection


def resolve(settings: Settings) -> Target:
    """Complete the settings by the secret, if there is one.

    Raises:
        ConfigError: A setting is missing, or the secret is not of the expected form.
        SourceConnectionError: The secret cannot be read.
    """
    given = settings.postgres
    secret = _read_secret(settings, given.secret_id) if given.secret_id else {}
    port = given.port
    if "port" not in given.model_fields_set and "port" in secret:
        port = _secret_port(secret["port"], str(given.secret_id))
    values = {
        "host": given.host or secret.get("host"),
        "database": given.database or secret.get("dbname"),
        "user": given.user or secret.get("username"),
    }
    missing = [name for name, value in values.items() if not value]
    if missing:
        variables = ", ".join(f"postgres.{name} (SMKIT_POSTGRES__{name.upper()})" for name in missing)
        beside = f"; the secret {given.secret_id!r} does not hold them either" if secret else ""
        raise ConfigError(f"PostgreSQL needs {variables}: set them in the environment, .env or smkit.toml{beside}")
    password = given.password
    if password is None and secret.get("password") is not None:
        password = secret["password"]
    return Target(str(values["host"]), port, str(values["database"]), str(values["user"]), password)


def _read_secret(settings: Settings, secret_id: str) -> dict[str, Any]:
    from pydantic import SecretStr

    try:
        text = settings.client("secretsmanager").get_secret_value(SecretId=secret_id).get("SecretString", "")
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code == "ResourceNotFoundException":
            raise ConfigError(
                f"postgres.secret_id is {secret_id!r}, but region {settings.region} has no such secret: "
                f"check the name and SMKIT_REGION"
            ) from error
        raise SourceConnectionError(
            f"the secret {secret_id!r} (postgres.secret_id) cannot be read: {error}. "
            f"The caller needs secretsmanager:GetSecretValue on it, and kms:Decrypt on its key"
        ) from error
    except BotoCoreError as error:
        raise SourceConnectionError(
            f"the secret {secret_id!r} (postgres.secret_id) cannot be read: {error}. "
            f"Check the AWS credentials and the network"
        ) from error
    try:
        secret = json.loads(text)
    except ValueError:
        secret = None
    if not isinstance(secret, dict):
        # Without the cause: it would quote the secret.
        raise ConfigError(
            f"the secret {secret_id!r} (postgres.secret_id) is not a JSON object: expected the format of RDS, "
            f'{{"username": ..., "password": ..., "host": ..., "port": ..., "dbname": ...}}'
        ) from None
    if secret.get("password") is not None:
        secret["password"] = SecretStr(str(secret["password"]))
    return secret


def _secret_port(port: object, secret_id: str) -> int:
    text = str(port)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ConfigError(f"the secret {secret_id!r} holds a `port` that is no number from 1 to 65535")
    return int(text)


def _tls_context(settings: PostgresSettings) -> ssl.SSLContext | None:
    if settings.sslmode == "disable":
        return None
    if settings.sslmode == "require":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    root = settings.sslrootcert
    try:
        context = ssl.create_default_context(cafile=None if root is None else str(root))
    except OSError as error:
        raise ConfigError(
            f"postgres.sslrootcert (SMKIT_POSTGRES__SSLROOTCERT) is {str(root)!r}, which is no readable PEM file of "
            f"certificates: {error}"
        ) from error
    context.check_hostname = settings.sslmode == "verify-full"
    return context


def _open_channel(target: Target, context: ssl.SSLContext | None, settings: PostgresSettings) -> socket.socket:
    """Open a socket to the server, encrypted where the settings say so; the timeout is that of connecting."""
    sock = _open_socket(target, settings.connect_timeout)
    if context is None:
        return sock
    try:
        return _start_tls(sock, context, target, settings)
    except BaseException:
        sock.close()
        raise


def _open_socket(target: Target, timeout: float) -> socket.socket:
    try:
        sock = socket.create_connection((target.host, target.port), timeout)
    except socket.gaierror as error:
        raise SourceConnectionError(
            f"PostgreSQL at {target}: the host name cannot be resolved ({error}): check postgres.host and the DNS"
        ) from error
    except TimeoutError as error:
        raise SourceConnectionError(
            f"PostgreSQL at {target}: no answer within {timeout:g} s: check host and port, the security group or "
            f"firewall between, and whether the database is reachable from this network"
        ) from error
    except OSError as error:
        raise SourceConnectionError(
            f"PostgreSQL at {target}: cannot connect ({error}): check that the server runs, and host and port"
        ) from error
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS lacks TCP_KEEPIDLE in older Pythons
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    return sock


def _start_tls(
    sock: socket.socket, context: ssl.SSLContext, target: Target, settings: PostgresSettings
) -> ssl.SSLSocket:
    """Ask for TLS first, as PostgreSQL's protocol does.

    pg8000 could, too, but it leaves the socket open when the certificate is refused.
    """
    try:
        sock.sendall(_SSL_REQUEST)
        answer = sock.recv(1)
        if answer == b"S":
            return context.wrap_socket(sock, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        roots = settings.sslrootcert or "the system's CAs"
        raise SourceConnectionError(
            f"PostgreSQL at {target}: the server's certificate is not accepted: {error.verify_message} "
            f"(sslmode={settings.sslmode}, trusted: {roots}). Connect by the name in the certificate, or set "
            f"postgres.sslrootcert (SMKIT_POSTGRES__SSLROOTCERT) to the PEM file of the server's CA; for Amazon RDS "
            f"that is the certificate bundle of the region"
        ) from error
    except OSError as error:
        raise SourceConnectionError(f"PostgreSQL at {target}: the TLS handshake failed: {error}") from error
    if answer == b"N":
        raise SourceConnectionError(
            f"PostgreSQL at {target}: the server does not offer TLS, but sslmode={settings.sslmode} asks for it: turn "
            f"TLS on in the server; or, where the network in between is trusted, set postgres.sslmode "
            f'(SMKIT_POSTGRES__SSLMODE) to "disable", which sends rows in plain text'
        )
    raise SourceConnectionError(
        f"PostgreSQL at {target}: no answer of PostgreSQL's protocol ({answer!r}): check the port"
    )


def _log_in(
    sock: socket.socket, target: Target, open_channel: Callable[[], socket.socket], *, encrypted: bool
) -> Connection:
    found = _connection_or_error(sock, target, open_channel, encrypted=encrypted)
    if isinstance(found, SourceConnectionError):
        raise found
    return found


def _connection_or_error(
    sock: socket.socket, target: Target, open_channel: Callable[[], socket.socket], *, encrypted: bool
) -> Connection | SourceConnectionError:
    """Return the error instead of raising it: tools that report errors show the variables of each frame it passed.

    Neither this frame, which has the password, nor pg8000's may be among them, so there is no cause either.
    """
    try:
        return Connection(
            target.user,
            database=target.database,
            password=None if target.password is None else target.password.get_secret_value(),
            application_name="smkit",
            sock=sock,
            open_channel=open_channel,
            ssl_context=False,  # the socket is encrypted already, or is not to be
        )
    except pg8000.exceptions.DatabaseError as error:
        return _refused(error.args[0], target, encrypted=encrypted)
    except scramp.ScramException:
        return SourceConnectionError(
            f"PostgreSQL at {target}: the SCRAM exchange failed: the server, or somebody between, "
            f"does not know the password of {target.user!r} itself"
        )
    except (pg8000.exceptions.InterfaceError, OSError) as error:
        # Some versions of pg8000 wrap the system's errors, some do not.
        late = isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)
        what = "the server took too long to log in" if late else f"the connection broke off at login: {error}"
        broken = SourceConnectionError(f"PostgreSQL at {target}: {what}")
        # One that was never raised: it has no frames.
        broken.__cause__ = TimeoutError(what) if late else None
        return broken


def _refused(error: dict[str, str], target: Target, *, encrypted: bool) -> SourceConnectionError:
    code = error.get("C", "")
    advice = ""
    if code == "28P01":
        advice = f": check the password of {target.user!r} (SMKIT_POSTGRES__USER, SMKIT_POSTGRES__PASSWORD)"
    elif code == "28000" and not encrypted:
        advice = ': the server may require TLS: set postgres.sslmode (SMKIT_POSTGRES__SSLMODE) to "verify-full"'
    elif code == "28000":
        advice = f": check the user {target.user!r} and the server's pg_hba.conf"
    elif code == "3D000":
        advice = ": check postgres.database (SMKIT_POSTGRES__DATABASE)"
    elif code == "53300":
        advice = ": close other connections, or raise max_connections"
    return SourceConnectionError(f"PostgreSQL at {target} refused: {error.get('M', '')} [{code}]{advice}")
