"""PostgreSQL's protocol: pg8000's connection, with what it lacks."""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pg8000.core
import pg8000.exceptions
import pg8000.native

from smkit.errors import ConfigError, SourceConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_PASSWORD_REQUESTS = frozenset({3, 5, 10})  # clear text, MD5, SASL
#: The code of a request to cancel, which goes over a connection of its own.
_CANCEL_REQUEST = 80877102
#: Every message starts with one byte that says which it is, and its length without that byte.
_HEADER = struct.Struct("!BI")
_COPY_DATA, _READY_FOR_QUERY = ord("d"), ord("Z")
#: Bytes asked of the socket at once.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Description:
    """What the server says of a statement before it runs it.

    Args:
        parameters: The OIDs of the types that the parameters have where they stand.
        columns: pg8000's fields of each column; None where the statement returns no rows at all.
    """

    parameters: tuple[int, ...]
    columns: list[dict[str, Any]] | None


class _Unused:
    """Where pg8000 would write the rows of a COPY, if it read them."""

    def write(self, data: bytes) -> None:
        raise NotImplementedError


class Connection(pg8000.native.Connection):  # type: ignore[misc] # pg8000 has no types
    """pg8000's connection, with what it lacks.

    It remembers why the server hung up, says which setting is missing, tells the types of parameters, reads a COPY as
    fast as Python can, and can be interrupted by another thread.
    """

    def __init__(self, *args: Any, open_channel: Callable[[], socket.socket], **kwargs: Any) -> None:
        self.last_error: dict[str, str] = {}
        self._open_channel = open_channel
        self._parameter_oids: tuple[int, ...] = ()
        self._is_interrupted = False
        super().__init__(*args, **kwargs)
        # Values stay text: Arrow decodes a column faster than Python decodes its values one by one.
        self.pg_types.clear()

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802 - overrides pg8000's name
        """Keep the error: where the server closes the connection behind it, pg8000 says "network error" only."""
        super().handle_ERROR_RESPONSE(data, context)
        self.last_error = context.error.args[0]

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802 - overrides pg8000's name
        """Refuse clearly where the server wants a password and none is known."""
        if self.password is None and struct.unpack_from("!i", data)[0] in _PASSWORD_REQUESTS:
            raise ConfigError(
                "PostgreSQL asks for a password: set postgres.password (SMKIT_POSTGRES__PASSWORD) "
                "or postgres.secret_id (SMKIT_POSTGRES__SECRET_ID)"
            )
        super().handle_AUTHENTICATION_REQUEST(data, context)

    def handle_PARAMETER_DESCRIPTION(self, data: bytes, context: Any) -> None:  # noqa: ARG002, N802 - pg8000's signature
        """Keep the types of the parameters, which pg8000 drops."""
        (count,) = struct.unpack_from("!H", data)
        self._parameter_oids = struct.unpack_from(f"!{count}I", data, 2)

    def describe(self, statement: str, parameters: tuple[int, ...] = ()) -> Description:
        """Let the server parse a statement, without running it; 0 leaves a parameter's type to the server."""
        self._parameter_oids = ()
        _, columns, _ = self.prepare_statement(statement, parameters)
        return Description(self._parameter_oids, columns)

    def copy_out(self, statement: str) -> Generator[list[bytes], None, None]:
        """Run a `COPY ... TO STDOUT` and yield its rows as they come, some at a time.

        The server sends each row as one message, so rows need not be found in the text. pg8000's own loop takes two
        reads and four calls a row; this one takes what the socket has.
        """
        context = pg8000.core.Context(statement, stream=_Unused())
        self.send_QUERY(statement)
        self._sock.flush()
        ready = False
        while not ready:
            data = self._sock.read1(_CHUNK)
            if not data:
                raise pg8000.exceptions.InterfaceError("the server closed the connection")
            while data:
                rows: list[bytes] = []
                position, size, missing = 0, len(data), 0
                # What comes after the end, such as the farewell of a server that stops, takes nothing from the rows.
                while position < size and not ready:
                    if size - position < _HEADER.size:
                        missing = position + _HEADER.size - size
                        break
                    code, length = _HEADER.unpack_from(data, position)
                    end = position + 1 + length
                    if end > size:
                        missing = end - size
                        break
                    if code == _COPY_DATA:
                        rows.append(data[position + 5 : end])
                    else:
                        self.message_types[bytes((code,))](data[position + 5 : end], context)
                        ready = code == _READY_FOR_QUERY
                    position = end
                if rows:
                    yield rows
                data = data[position:] + self._read_exactly(missing) if missing else b""
        if context.error is not None:
            raise context.error

    def _read_exactly(self, size: int) -> bytes:
        data: bytes = self._sock.read(size)
        if len(data) < size:
            raise pg8000.exceptions.InterfaceError("the server closed the connection")
        return data

    def interrupt(self) -> None:
        """Have the server stop what it does for this connection, and wake up the thread that waits for its rows.

        Any thread may call it, also when another one has. The connection cannot be used afterwards, only closed.
        """
        raw = self._usock
        if raw is None or self._is_interrupted:
            return
        self._is_interrupted = True
        key: bytes = self._backend_key_data or b""  # some poolers give none
        # A server that cannot be asked finds out by the connection that ends.
        with contextlib.suppress(SourceConnectionError, OSError), self._open_channel() as channel:
            channel.sendall(struct.pack("!ii", 8 + len(key), _CANCEL_REQUEST) + key)
            channel.recv(1)  # the server hangs up once it has passed the request on
        with contextlib.suppress(OSError):
            # Not the method of an SSLSocket: it would pull TLS from under the thread that reads.
            socket.socket.shutdown(raw, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, also one that is broken or closed already."""
        if self._usock is None:
            return
        buffered = self._sock
        try:
            # Nobody is there to say goodbye to where the server is gone; pg8000 has closed its side even so.
            with contextlib.suppress(pg8000.exceptions.Error, OSError):
                super().close()
        finally:
            # pg8000 drops the file that it has made of the socket. The socket would stay open for as long as a
            # traceback knows that file, and the server would wait for its reader.
            with contextlib.suppress(OSError):
                buffered.close()
