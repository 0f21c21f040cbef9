"""RecordedAdapter: what the conformance suite has to know of RabbitMQ beside a record store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from gotasks.broker import BrokerURL, Write
from gotasks.conformance.adapter import EmbeddedServer, Server, Transaction
from gotasks.conformance.adapters import adapter_for
from gotasks_rabbitmq.conformance import RabbitAdapter, with_params
from gotasks_rabbitmq.private import PrivateRabbit


class RecordedAdapter(RabbitAdapter):
    """A place is one on RabbitMQ and one in the store. What is killed is both; so is what is looked through at the end.

    The network that is faulty, and the server that is full or set otherwise, are the store's: without RabbitMQ all
    goes on, so no row would see anything. What is foreign, and what has lost its record, is in RabbitMQ.
    """

    def __init__(self, broker_url: str) -> None:
        super().__init__(broker_url)
        self.store = adapter_for(records(broker_url))
        self.lease = max(RabbitAdapter.lease, self.store.lease or 1.0)

    def url(self, namespace: str) -> str:
        return with_params(super().url(namespace), records=self.store.url(namespace))

    def used(self, url: str, queues: Collection[str]) -> None:
        super().used(url, queues)
        self.store.used(records(url), queues)

    def drop(self, url: str) -> None:
        try:
            super().drop(url)
        finally:
            self.store.drop(records(url))

    def server_version(self, url: str) -> str:
        return " and ".join(
            filter(None, (super().server_version(url), self.store.server_version(records(url))))
        )

    def endpoint(self, url: str) -> tuple[str, int]:
        return self.store.endpoint(records(url))

    def through(self, url: str, port: int) -> str:
        return with_params(url, records=self.store.through(records(url), port))

    def impatient(self, url: str) -> tuple[str, float]:
        store, bound = self.store.impatient(records(url))
        return with_params(url, records=store), bound

    @contextmanager
    def server(self, directory: Path) -> Iterator[Server]:
        place = directory / "records"
        place.mkdir()
        with self.store.server(place) as store, self.private(directory, records=store.url) as line:
            yield EmbeddedPair(line, store) if isinstance(store, EmbeddedServer) else Pair(line, store)

    def evict(self, url: str, task_id: str) -> None:
        store = self.store.open(records(url))
        try:
            record = store.get([task_id]).get(task_id)
            if record is None:  # each broker of this URL has a store of its own
                self.store.evict(records(url), task_id)
                return
            leases = store.acquire(record.queue, limit=1, wait=0.0, lease_for=60.0, ids=[task_id])
            store.ack([Write(lease=each, body=b"", seq=1) for each in leases], keep_for=0)
        finally:
            store.close()

    def dump(self, url: str) -> Mapping[str, int]:
        pointers = {f"pointer, {name}": size for name, size in super().dump(url).items()}
        return {**pointers, **self.store.dump(records(url))}

    def disturb(self, server: Server) -> None:
        assert isinstance(server, (Pair, EmbeddedPair))
        super().disturb(server.line)
        self.store.disturb(server.store)

    def full(self, server: Server) -> AbstractContextManager[None]:
        assert isinstance(server, (Pair, EmbeddedPair))
        return self.store.full(server.store)

    def weakened(self, server: Server) -> AbstractContextManager[None]:
        assert isinstance(server, (Pair, EmbeddedPair))
        return self.store.weakened(server.store)

    def transaction(self, url: str) -> AbstractContextManager[Transaction]:
        return self.store.transaction(records(url))


class Pair:
    """A RabbitMQ server and that of a record store, which are started, stopped and killed together.

    Clients can work while the store is there. So it's the first to go, and the last to come.
    """

    def __init__(self, line: PrivateRabbit, store: Server) -> None:
        self.line = line
        self.store = store
        self.url = line.url

    def start(self) -> None:
        """Start both."""
        self.line.start()
        self.store.start()

    def stop(self) -> None:
        """Stop both in an orderly way."""
        self.store.stop()
        self.line.stop()

    def kill(self) -> None:
        """SIGKILL of both."""
        self.store.kill()
        self.line.kill()


class EmbeddedPair(EmbeddedServer):
    """The same where the store's "server" are the processes that call it."""

    def __init__(self, line: PrivateRabbit, store: EmbeddedServer) -> None:
        super().__init__(line.url)
        self.line = line
        self.store = store

    def start(self) -> None:
        self.line.start()

    def stop(self) -> None:
        super().stop()
        self.line.stop()

    def kill(self) -> None:
        super().kill()
        self.line.kill()


def records(url: str) -> str:
    """The URL of the record store in a broker URL."""
    return BrokerURL(url).params["records"]
