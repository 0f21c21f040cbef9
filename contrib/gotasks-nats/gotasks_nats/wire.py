"""Wire: one connection to a server. Requests with a limit of time; when it breaks, everybody who waits is told."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gotasks.errors import BrokerUnavailable
from gotasks_nats.address import Address

#: Seconds that an orderly good-bye may take.
_GOOD_BYE = 0.3

Reply = Callable[[Msg], Awaitable[None]]


class TooLarge(Exception):
    """The server takes no message of this size."""


class Wire:
    """Made and used on one event loop. It is never mended: what comes after it is another one."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = Client()
        self._inbox = f"_INBOX.gotasks.{secrets.token_hex(8)}"
        self._asked: dict[str, asyncio.Future[Msg]] = {}
        self._number = 0
        self._up = False  #: until then a connection that breaks is one that wasn't made
        self._subscribed: list[Subscription] = []
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.broken.add_done_callback(lambda _: self._tell())

    async def open(self) -> None:
        """Connect to the first server that answers. Raises BrokerUnavailable."""
        why: BaseException | None = None
        for host, port in self._address.servers:
            try:
                await asyncio.wait_for(self._connect(host, port), self._address.timeout)
                self._up = True
                await self.subscribe(f"{self._inbox}.*", self._answered)
                return
            # ValueError: nats-py reads what the server says of itself as JSON, and it may be cut.
            except (OSError, ValueError, nats.errors.Error, asyncio.TimeoutError) as error:
                why = error
                await self._drop()
                self._client = Client()
        raise self.unavailable(_reason(why))

    async def _connect(self, host: str, port: int) -> None:
        login: dict[str, Any] = {}
        if self._address.user is not None and self._address.password is None:
            login = {"token": self._address.user}
        elif self._address.user is not None:
            login = {"user": self._address.user, "password": self._address.password}
        bracketed = f"[{host}]" if ":" in host else host
        await self._client.connect(
            f"{'tls' if self._address.tls else 'nats'}://{bracketed}:{port}",
            name="gotasks",
            error_cb=_ignore,
            closed_cb=self._closed,
            disconnected_cb=self._closed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=math.ceil(self._address.timeout),
            ping_interval=10,
            tls=ssl.create_default_context() if self._address.tls else None,
            **login,
        )
        reading: Any = self._client._reading_task  # noqa: SLF001 - the first to see that a connection breaks
        reading.add_done_callback(self._read)

    async def close(self) -> None:
        """Let go of it, whatever state it is in."""
        self.fail()
        await self._drop()

    async def _drop(self) -> None:
        with suppress(Exception):
            await asyncio.wait_for(self._client.close(), _GOOD_BYE)
        # nats-py gives up half-way where the connection breaks while it says good-bye.
        for each in self._subscribed:
            waiting: Any = each._wait_for_msgs_task  # noqa: SLF001
            waiting.cancel()
        transport: Any = self._client._transport  # noqa: SLF001
        if transport is not None:
            with suppress(Exception):
                transport.close()

    @property
    def version(self) -> str:
        """What the server says of its version."""
        version = self._client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def alive(self) -> bool:
        """Whether anything can be sent."""
        return not self.broken.done() and self._client.is_connected

    def fail(self) -> None:
        """It can't be used any more."""
        if not self.broken.done():
            self.broken.set_result(None)

    def unavailable(self, why: str) -> BrokerUnavailable:
        """The error that says so."""
        return BrokerUnavailable(f"{self._address}: {why}")

    async def subscribe(self, subject: str, reply: Reply) -> None:
        """Have all messages of a subject, however many there are."""
        try:
            made = await self._client.subscribe(
                subject, cb=reply, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except (OSError, nats.errors.Error) as error:
            self.fail()
            raise self.unavailable(_reason(error)) from error
        self._subscribed.append(made)

    async def publish(
        self, subject: str, body: bytes = b"", *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send, and know nothing of what becomes of it."""
        if self.broken.done():
            raise self.unavailable("the connection was lost")
        try:
            await self._client.publish(subject, body, reply=reply, headers=dict(headers) if headers else None)
        except nats.errors.MaxPayloadError:
            raise TooLarge from None
        except (OSError, nats.errors.Error) as error:
            self.fail()
            raise self.unavailable(_reason(error)) from error

    async def ask(
        self, subject: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send, and wait for the answer, a JSON object. Raises BrokerUnavailable."""
        self._number += 1
        token = str(self._number)
        with self.expecting(token) as answer:
            await self.publish(subject, body, reply=f"{self._inbox}.{token}", headers=headers)
            return await self.answer(answer)

    def expecting(self, token: str) -> _Expected:
        """An answer under this token, for as long as the context lasts."""
        return _Expected(self._asked, token)

    async def answer(self, expected: asyncio.Future[Msg]) -> dict[str, Any]:
        """Wait for it."""
        try:
            message = await asyncio.wait_for(expected, self._address.timeout)
        except asyncio.TimeoutError:
            self.fail()  # a server that is silent to one is silent to all
            raise self.unavailable(f"no answer within {self._address.timeout:g} s") from None
        if message.headers and message.headers.get("Status") == "503":
            raise self.unavailable("nobody answers there. Is JetStream enabled (nats-server -js)?")
        found: dict[str, Any] = json.loads(message.data)
        return found

    def arrived(self, token: str, message: Msg) -> None:
        """Whoever expects an answer under this token has it."""
        expected = self._asked.get(token)
        if expected is not None and not expected.done():
            expected.set_result(message)

    async def _answered(self, message: Msg) -> None:
        self.arrived(message.subject.rpartition(".")[2], message)

    def _read(self, reading: asyncio.Task[Any]) -> None:
        if not reading.cancelled():
            reading.exception()  # seen: whoever waits is told
        if self._up:
            self.fail()

    async def _closed(self) -> None:
        if self._up:
            self.fail()

    def _tell(self) -> None:
        for each in self._asked.values():
            if not each.done():
                each.set_exception(self.unavailable("the connection was lost"))


class _Expected:
    """An entry in the book of those who wait."""

    def __init__(self, asked: dict[str, asyncio.Future[Msg]], token: str) -> None:
        self._asked, self._token = asked, token

    def __enter__(self) -> asyncio.Future[Msg]:
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._asked[self._token] = future
        return future

    def __exit__(self, *exc: object) -> None:
        future = self._asked.pop(self._token)
        if future.done() and not future.cancelled():
            future.exception()  # seen, or of no use to anybody
        future.cancel()


async def _ignore(error: Exception) -> None:
    """What nats-py would log; whoever waits is told."""


def _reason(error: BaseException | None) -> str:
    if isinstance(error, nats.errors.AuthorizationError):
        return "it refuses the login. Check user and password in the URL"
    if isinstance(error, (nats.errors.NoServersError, OSError)):
        return f"no connection ({type(error).__name__}). Is it running?"
    if isinstance(error, asyncio.TimeoutError):
        return "no connection in time"
    return str(error) or type(error).__name__
