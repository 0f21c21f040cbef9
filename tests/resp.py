"""A Redis connection of a few lines, so that finding and cleaning servers doesn't rest on the driver under test."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

Reply = bytes | int | list["Reply"] | None


class RespError(Exception):
    """The server answered with an error, or with something that isn't Redis."""


class Resp:
    """One connection to the server at a `redis://`, `rediss://` or `unix://` URL, logged in, its database selected.

    Raises OSError if nothing listens there, RespError if what listens isn't Redis or refuses the login.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        parts = urlsplit(url)
        params = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        database = params.get("db", "" if parts.scheme == "unix" else parts.path.strip("/"))
        self._socket = self._connect(parts.scheme, url, timeout, params)
        self._reader = self._socket.makefile("rb")
        try:
            if parts.password:
                user = [unquote(parts.username)] if parts.username else []
                self.call("AUTH", *user, unquote(parts.password))
            if database:
                self.call("SELECT", database)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _connect(scheme: str, url: str, timeout: float, params: dict[str, str]) -> socket.socket:
        parts = urlsplit(url)
        if scheme == "unix":
            local = socket.socket(socket.AF_UNIX)
            local.settimeout(timeout)
            try:
                local.connect(unquote(parts.path))
            except BaseException:
                local.close()
                raise
            return local
        if scheme not in {"redis", "rediss"}:
            raise RespError(f"the tests can't connect to a {scheme}:// URL")
        host = parts.hostname or "127.0.0.1"
        plain = socket.create_connection((host, parts.port or 6379), timeout)
        if scheme == "redis":
            return plain
        context = ssl.create_default_context(cafile=params.get("ssl_ca_certs"))
        return context.wrap_socket(plain, server_hostname=host)

    def call(self, *words: str | bytes) -> Reply:
        """Send one command, return its reply."""
        encoded = [word.encode() if isinstance(word, str) else word for word in words]
        command = b"*%d\r\n" % len(encoded) + b"".join(
            b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded
        )
        self._socket.sendall(command)
        return self._read()

    def _read(self) -> Reply:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise RespError("the connection was closed" if not line else "what answers isn't Redis")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._reader.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
        if kind == b"-":
            raise RespError(rest.decode(errors="replace"))
        raise RespError("what answers isn't Redis")

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
