"""RabbitMQ for the tests: is one there, a namespace to work in, a private one to stop and kill."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika

from gotasks.broker import BrokerURL
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.conformance import RabbitAdapter, delete_queues, with_params
from gotasks_rabbitmq.names import USED
from gotasks_rabbitmq.private import PrivateRabbit

__all__ = [
    "FIRST",
    "NAMED",
    "PrivateRabbit",
    "QueueProcess",
    "answers",
    "channel",
    "consumer_timeout",
    "namespaced",
    "private",
]

#: Whether a server is named. Else nothing is tested on RabbitMQ, though one may be found: its tests take as long as all
#: others together.
NAMED = bool(os.environ.get("GOTASKS_TEST_RABBITMQ_URL"))


def answers(url: str) -> str:
    """Return the version of the server at this URL. Raises ConnectionError where none can be used."""
    try:
        product, _, version = RabbitAdapter(url).server_version(url).partition(" ")
    except Exception as error:  # pika has many, without a common base
        raise ConnectionError(_reason(error)) from None
    if product != "RabbitMQ":
        raise ConnectionError(f"it is {product} {version}, not RabbitMQ")
    return version


def _reason(error: BaseException) -> str:
    """What pika means, which it says in the arguments of its errors."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    inner = getattr(error, "exception", None)
    return _reason(inner) if isinstance(inner, BaseException) else str(error) or repr(error)


@contextmanager
def namespaced(url: str) -> Iterator[str]:
    """Give a URL whose namespace nobody else uses; afterwards delete the queues of it.

    Those are the ones that this process has used, and some that its worker processes may have used alone.
    """
    namespace = f"test-{secrets.token_hex(8)}"
    own = with_params(url, namespace=namespace)
    try:
        yield own
    finally:
        USED[namespace] |= {"orders", "fatal"}
        delete_queues(own)


@contextmanager
def channel(url: str) -> Iterator[Any]:
    """A channel of a connection of its own, to the server of a broker URL, as anybody may have one."""
    connection = pika.BlockingConnection(Address.of(BrokerURL(url)).parameters("test"))
    yield connection.channel()
    if connection.is_open:
        connection.close()


@contextmanager
def consumer_timeout(server: PrivateRabbit, seconds: float) -> Iterator[None]:
    """Within the block, what is delivered on new channels of this server may be held for so long."""

    def set_to(milliseconds: int) -> None:
        server.eval(f"application:set_env(rabbit, consumer_timeout, {milliseconds})")

    set_to(int(seconds * 1000))
    try:
        yield
    finally:
        set_to(1_800_000)


@contextmanager
def private(directory: Path) -> Iterator[str]:
    """Run a server of our own on free ports for as long as the context lasts; give its URL."""
    server = PrivateRabbit(directory)
    try:
        yield server.start().url
    finally:
        server.close()


#: A message that it puts off; the question of a channel that has its first one.
MESSAGE, FIRST = "{in, {cast, {command, low, _}}, _}", "{in, {{call, _}, {leader_call, _}}, _}"

#: Has it stand still when something comes, until it's told to go on.
_STANDS = """
fun(_, %s, _) -> put(standing, still), receive go -> erase(standing) end, done;
   (State, _, _) -> State end
"""

#: A question waits.
_ASKED = "lists:any(fun({'$gen_call', _, _}) -> true; (_) -> false end, Messages)"


class QueueProcess:
    """The process of a quorum queue on a private server, which can be made to stand still, and to take its time."""

    def __init__(self, server: PrivateRabbit, queue: str) -> None:
        self._server = server
        self._name = f"'%2F_{queue}'"

    @contextmanager
    def still(self, at: str = MESSAGE) -> Iterator[None]:
        """Within the block it does nothing more once this has come, and then all that has come by then."""
        stands = " ".join((_STANDS % at).split())
        self._server.eval(f"ok = sys:install(whereis({self._name}), {{{stands}, goes}})")
        try:
            yield
        finally:
            own = f"{{_, Own}} = process_info(whereis({self._name}), dictionary)"
            self._server.eval(
                f"{own}, lists:keymember(standing, 1, Own) andalso (whereis({self._name}) ! go)"
            )

    def hop_waits(self) -> None:
        """Return when both parts of a hop have come: the message, which it puts off, and the ack, which it doesn't."""
        self._until("lists:any(fun({'$gen_cast', {command, normal, _}}) -> true; (_) -> false end, Messages)")

    def is_told_of_an_end(self) -> None:
        """Return when it waits to be told that a channel has ended."""
        self._until("lists:any(fun({'DOWN', _, process, _, _}) -> true; (_) -> false end, Messages)")

    def ask(self) -> None:
        """Ask it something that takes it a minute, when it is done with what waits for it now."""
        busy = "fun(_) -> timer:sleep(60000) end"
        self._server.eval(f"spawn(fun() -> ra:local_query({{{self._name}, node()}}, {busy}, 99000) end)")
        self._until(_ASKED)

    def answers(self) -> None:
        """Return when it is at that, and all is written that it has given to the log."""
        log = "process_info(whereis(ra_log_wal), [message_queue_len, status])"
        self._until(
            f"process_info(whereis({self._name}), current_function) =:= {{current_function, {{timer, sleep, 1}}}}"
            f" andalso {log} =:= [{{message_queue_len, 0}}, {{status, waiting}}]"
        )

    def _until(self, condition: str) -> None:
        ask = f"{{messages, Messages}} = process_info(whereis({self._name}), messages), {condition}"
        deadline = time.monotonic() + 30
        while self._server.eval(ask) != "true":
            assert time.monotonic() < deadline, condition
