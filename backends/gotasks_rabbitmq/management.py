"""Management: the HTTP API of a server's management plugin, asked for what AMQP doesn't tell."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import quote

import msgspec

from gotasks.broker import BrokerURL
from gotasks.errors import BrokerUnavailable, ConfigurationError, InvalidURL
from gotasks_rabbitmq.policies import Policy

_EXAMPLE = "http://[user:password@]host:15672 or https://[user:password@]host:15671"

#: What is said when the API can't be asked: whoever gives the parameter wants to be sure.
_INSTEAD = "or leave management= out, and nothing is checked"


class _Refusal(msgspec.Struct):
    """How the API says why."""

    reason: str = ""


class Management:
    """Who is asked, and by whom. Any thread; a call takes a connection of its own. `shown` has no secret."""

    def __init__(
        self,
        text: str,
        *,
        user: str,
        password: str,
        virtual_host: str,
        timeout: float,
        context: Callable[[], ssl.SSLContext],
        secure: bool,
    ) -> None:
        """`text` is the URL; `user` and `password` are for one that names none. Raises InvalidURL.

        `timeout`: seconds for each step of a call. `context`: what https is spoken with. `secure`: the server is spoken
        with by TLS, so that password mustn't go another way.
        """
        try:
            url = BrokerURL(text)
            url.only(())
        except InvalidURL as error:
            raise InvalidURL(f"management= takes {_EXAMPLE}: {error}") from None
        if url.scheme not in ("http", "https") or url.driver is not None or len(url.hosts) != 1:
            raise InvalidURL(f"management= takes {_EXAMPLE}")
        if secure and url.scheme == "http" and url.password is None:
            raise InvalidURL(
                "management=http:// would send the password of the amqps:// URL unencrypted: take https://, or give "
                "management= a user and a password of its own"
            )
        self.shown = str(url)
        (self._host, self._port), *_ = url.hosts
        self._context = context if url.scheme == "https" else None
        self._timeout = timeout
        self._base = f"{quote(url.path.rstrip('/'))}/api"
        self._virtual_host = quote(virtual_host, safe="")
        name = user if url.user is None else url.user
        secret = password if url.password is None else url.password
        self._authorization = f"Basic {base64.b64encode(f'{name}:{secret}'.encode()).decode()}"

    def __repr__(self) -> str:
        return f"Management({self.shown})"

    def policies(self) -> Mapping[str, Sequence[Policy]]:
        """The policies of the virtual host, by their kind. Blocks.

        Raises BrokerUnavailable if it can't be reached, ConfigurationError if a person has to do something first.
        """
        connection: HTTPConnection | None = None
        try:
            connection = self._connection()
            return {
                "policy": self._list(connection, "policies"),
                "operator policy": self._list(connection, "operator-policies"),
            }
        except (OSError, HTTPException, UnicodeError) as error:
            raise BrokerUnavailable(
                f"{self.shown} can't be asked for policies ({str(error) or type(error).__name__}): see that RabbitMQ's "
                f"management plugin runs there, {_INSTEAD}"
            ) from None
        finally:
            if connection is not None:
                connection.close()

    def _connection(self) -> HTTPConnection:
        # No opener of urllib: that one goes by proxies, and takes the password along where it's redirected to.
        if self._context is None:
            return HTTPConnection(self._host, self._port, timeout=self._timeout)
        return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context())

    def _list(self, connection: HTTPConnection, what: str) -> list[Policy]:
        path = f"{self._base}/{what}/{self._virtual_host}"
        connection.request("GET", path, headers={"Authorization": self._authorization})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status in (401, 403):
            raise ConfigurationError(
                f"{self.shown} refuses its user or password{_reason(body)}: give management= a user with the tag "
                f"management and with permissions for the virtual host, {_INSTEAD}"
            )
        if answer.status >= 500:
            raise BrokerUnavailable(f"{self.shown} tells no policies: it answers with {answer.status}")
        try:
            if answer.status == 200:
                return msgspec.json.decode(body, type=list[Policy])
        except (msgspec.MsgspecError, UnicodeError):
            pass
        raise ConfigurationError(
            f"{self.shown} doesn't answer {path} as RabbitMQ's management plugin does (status {answer.status}): "
            f"management= takes {_EXAMPLE}, {_INSTEAD}"
        )


def _reason(body: bytes) -> str:
    try:
        reason = msgspec.json.decode(body, type=_Refusal).reason
    except (msgspec.MsgspecError, UnicodeError):
        return ""
    return f" ({reason[:100]})" if reason else ""
