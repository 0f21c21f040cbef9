"""RabbitAdapter: what the conformance suite has to know of this backend beyond its URL."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import pika

from gotasks.broker import BrokerURL
from gotasks.conformance.adapter import Adapter, MissingHook, NotApplicable, Server
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.names import USED, Names
from gotasks_rabbitmq.private import PrivateRabbit

if TYPE_CHECKING:
    from typing_extensions import Self


class RabbitAdapter(Adapter):
    """Places are namespaces. Servers of the suite's own are started from the `rabbitmq-server` of this machine.

    AMQP can't list queues. So what a place holds is looked for in those that brokers of this process have used, and in
    those of which `used` tells.
    """

    lease = 0.5

    def __new__(cls, broker_url: str | None = None) -> Self:
        """With `records=` in the URL it is a RecordedAdapter."""
        if cls is RabbitAdapter and broker_url is not None and "records" in BrokerURL(broker_url).params:
            from gotasks_rabbitmq.recorded_adapter import RecordedAdapter

            return cast("Self", super().__new__(RecordedAdapter))
        return super().__new__(cls)

    def url(self, namespace: str) -> str:
        return with_params(self.broker_url, namespace=namespace)

    def used(self, url: str, queues: Collection[str]) -> None:
        USED[_namespace(url)].update(queues)

    def drop(self, url: str) -> None:
        delete_queues(url)

    def server_version(self, url: str) -> str:
        with _channel(url) as channel:
            properties = channel.connection._impl.server_properties  # noqa: SLF001 - there is no other way
        return f"{properties['product']} {properties['version']}"

    def endpoint(self, url: str) -> tuple[str, int]:
        parsed = BrokerURL(url)
        ((host, port),) = parsed.hosts or [("127.0.0.1", None)]
        return host, port or (5671 if parsed.scheme == "amqps" else 5672)

    def through(self, url: str, port: int) -> str:
        leads = super().through(url, port)
        # The certificate is for the server's name, and the proxy has another.
        return with_params(leads, ssl_check_hostname="false") if BrokerURL(url).scheme == "amqps" else leads

    def impatient(self, url: str) -> tuple[str, float]:
        return with_params(url, timeout="2", connect_timeout="2"), 10.0

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        with self.private(directory) as server:
            yield server

    @contextmanager
    def private(self, directory: Path, **more: str) -> Iterator[PrivateRabbit]:
        """A running RabbitMQ server of the suite's own, with the parameters of the broker's URL and `more`."""
        if PrivateRabbit.program() is None:
            raise MissingHook(
                "server(directory)",
                "there is no rabbitmq-server here for a server that the suite may kill. Install rabbitmq-server",
            )
        params = BrokerURL(self.broker_url).params
        elsewhere = ("namespace", "management")  # what is said of the server that isn't this one
        query = {
            name: value for name, value in params.items() if name not in elsewhere and name[:4] != "ssl_"
        }
        server = PrivateRabbit(directory, query=urlencode({**query, **more}))
        try:
            yield server.start()
        finally:
            server.close()

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        name = Names(_namespace(url)).tasks(queue)
        with _channel(url) as channel:
            channel.confirm_delivery()
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
            channel.basic_publish("", name, data, mandatory=True)

    def evict(self, url: str, task_id: str) -> None:
        raise NotApplicable("a task is one message: it is there as a whole, or not at all")

    def dump(self, url: str) -> Mapping[str, int]:
        found = {}
        names = Names(_namespace(url))
        for queue in sorted(USED[names.namespace]):
            with _channel(url) as channel:
                try:
                    answer = channel.queue_declare(names.tasks(queue), passive=True)
                except pika.exceptions.ChannelClosedByBroker:
                    continue  # there is none
                # The server tells how many there are, not how large.
                found.update({f"{queue} {number}": 1 for number in range(answer.method.message_count)})
        return found

    def disturb(self, server: Server) -> None:
        assert isinstance(server, PrivateRabbit)
        server.eval('rabbit_networking:close_all_connections(<<"the suite drops all connections">>)')

    def full(self, server: Server) -> AbstractContextManager[None]:
        assert isinstance(server, PrivateRabbit)
        return server.alarm("disk")

    def weakened(self, server: Server) -> AbstractContextManager[None]:
        raise NotApplicable("no setting makes a quorum queue confirm what it hasn't written")


def delete_queues(url: str) -> None:
    """Delete all queues that this process has used in the namespace of a broker URL."""
    names = Names(_namespace(url))
    queues = USED.pop(names.namespace, set())
    if queues:
        with _channel(url) as channel:
            for queue in queues:
                for name in (names.tasks(queue), names.wake(queue)):
                    channel.queue_delete(name)
        USED.pop(names.namespace, None)


@contextmanager
def _channel(url: str) -> Iterator[Any]:
    """A channel of a connection of its own, to the server of a broker URL."""
    connection = pika.BlockingConnection(Address.of(BrokerURL(url)).parameters("conformance"))
    try:
        yield connection.channel()
    finally:
        connection.close()


def _namespace(url: str) -> str:
    return Address.of(BrokerURL(url)).namespace


def with_params(url: str, **params: str) -> str:
    """The URL with these parameters, and all others as they were."""
    return f"{url.partition('?')[0]}?{urlencode({**BrokerURL(url).params, **params})}"
