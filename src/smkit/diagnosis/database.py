"""Checks of PostgreSQL: the secret, the way to the server, the login, a query."""

from __future__ import annotations

import json
import re
import ssl
from typing import TYPE_CHECKING, Any

import pg8000.exceptions

from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.diagnosis.calls import failed_call
from smkit.diagnosis.findings import Finding, no_answer, ok, problem
from smkit.errors import ConfigError, SourceConnectionError
from smkit.jobs.checks.calls import is_denied
from smkit.sources._postgres_connect import connect, resolve

if TYPE_CHECKING:
    from smkit.diagnosis.context import Context

#: Fields of a secret that RDS writes and that are none.
_OPEN_FIELDS = frozenset({"username", "host", "port", "dbname", "engine", "dbInstanceIdentifier", "masterarn"})
#: Where the messages of a failed connection turn from what happened to what to do.
_ADVICE = re.compile(r"(?:: |\. |; )(?=(?:check|close|connect by|set|the server may|turn)\b)", re.IGNORECASE)
_FACTS = (
    "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('transaction_read_only'), "
    "pg_catalog.current_user()::text"
)


def check_secret(context: Context) -> Finding:
    """Can the secret be read, and is it of the form of RDS? Its values are never shown."""
    secret_id = str(context.settings.postgres.secret_id)
    action = "secretsmanager:GetSecretValue"
    try:
        text = context.client("secretsmanager").get_secret_value(SecretId=secret_id).get("SecretString", "")
    except AWS_ERRORS as error:
        if error_code(error) == "ResourceNotFoundException":
            return problem(
                f"{context.settings.region} has no secret {secret_id!r}", "correct postgres.secret_id, or region"
            )
        if is_denied(error):
            # Elsewhere a denial leaves a question open; here it is the answer.
            return problem(
                f"the caller may not read the secret {secret_id!r} ({error_code(error)})",
                f"allow {action} on it, and kms:Decrypt on its key",
            )
        return failed_call(error, f"read the secret {secret_id}", seconds=context.timeout)
    context.secrets.add(text)
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return problem(
            f"the secret {secret_id!r} is not a JSON object",
            'store it as RDS does: {"username": ..., "password": ..., "host": ..., "port": ..., "dbname": ...}',
        )
    context.secrets.add(*(str(value) for name, value in fields.items() if name not in _OPEN_FIELDS))
    names = [name for name in ("username", "password", "host", "port", "dbname") if name in fields]
    return ok(f"{secret_id!r} can be read and holds {', '.join(names) or 'none of the fields that smkit reads'}")


def check_postgres(context: Context) -> Finding:
    """Can the server be reached, by TLS as the settings ask, logged in to, and read from?"""
    settings = context.settings
    try:
        target = resolve(settings)
        if target.password is not None:
            context.secrets.add(target.password.get_secret_value())
        connection = connect(settings, target)
    except (ConfigError, SourceConnectionError) as error:
        if _is_timeout(error):
            return no_answer(settings.postgres.connect_timeout, str(error))
        said, fix = _said_and_fix(str(error))
        return problem(said, fix)
    sock: Any = connection._usock
    encryption = _encryption(sock, context)
    try:
        sock.settimeout(context.timeout)
        connection.execute_simple(
            f"BEGIN READ ONLY; SET LOCAL statement_timeout = {max(1, int(context.timeout * 1000))}"
        )
        version, read_only, user = connection.execute_simple(_FACTS).rows[0]
    except pg8000.exceptions.DatabaseError as error:
        return problem(
            f"PostgreSQL at {target} refuses a query: {error.args[0].get('M', '')}", "check the user's rights"
        )
    except (pg8000.exceptions.InterfaceError, OSError) as error:
        if _is_timeout(error):
            return no_answer(context.timeout, f"PostgreSQL at {target} to a query")
        return problem(f"PostgreSQL at {target} broke off the connection: {error}", "check the server's log")
    finally:
        connection.close()
    return ok(
        f"PostgreSQL {version} at {target}/{target.database} as {user}, {encryption}, "
        f"read-only query {'works' if read_only == 'on' else 'ran, but not read-only'}",
        _tls_advice(context),
    )


def _is_timeout(error: BaseException | None) -> bool:
    """Whether an error, or one that it was made of, is that of a timeout."""
    while error is not None:
        if isinstance(error, TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _said_and_fix(text: str) -> tuple[str, str]:
    match = _ADVICE.search(text)
    return (text, "see the page on sources") if match is None else (text[: match.start()], text[match.end() :])


def _encryption(sock: Any, context: Context) -> str:
    if not isinstance(sock, ssl.SSLSocket):
        return "not encrypted"
    checked = {
        "verify-full": "certificate verified for the host",
        "verify-ca": "certificate verified, not the host",
        "require": "certificate not verified",
    }
    return f"{sock.version()}, {checked[context.settings.postgres.sslmode]}"


def _tls_advice(context: Context) -> str:
    postgres = context.settings.postgres
    if postgres.sslmode == "verify-full" or postgres.host in {"localhost", "127.0.0.1", "::1"}:
        return ""
    return f"sslmode {postgres.sslmode!r} does not prove who the server is: set postgres.sslmode to 'verify-full'"
