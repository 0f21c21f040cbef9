"""Adapter: what the suite has to know of a backend beyond its URL. Every hook is optional, each unlocks rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

from gotasks.broker import Broker, BrokerURL, Capability
from gotasks.discovery import open_broker

if TYPE_CHECKING:
    from typing_extensions import Self


class MissingHook(Exception):
    """The adapter lacks a hook that a row needs: the row can't be run."""

    def __init__(self, hook: str, what: str) -> None:
        super().__init__(f"the adapter has no {hook}: {what}")
        self.hook = hook


class NotApplicable(Exception):
    """What a row is about doesn't exist for this backend. The reason goes into the report."""


class Server(Protocol):
    """A server that the suite may stop, kill, fill and disturb: nobody else uses it.

    A broker without one, which lives in the processes that call it and keeps files, gives an `EmbeddedServer`.
    """

    @property
    def url(self) -> str:
        """A broker URL, with the parameters of the one under test. The same over restarts."""

    def start(self) -> object:
        """Start it again, with what it kept, and return when it answers."""

    def stop(self) -> None:
        """Stop it in an orderly way."""

    def kill(self) -> None:
        """SIGKILL."""


class Killable(Protocol):
    """A process that can be killed."""

    def kill(self) -> None:
        """SIGKILL, and wait until it's gone. Idempotent."""


class Savepoint(Protocol):
    """A place in a transaction to which it can go back."""

    def rollback(self) -> None:
        """Undo all that came after it in the transaction, which goes on."""

    def commit(self) -> None:
        """Keep what came after it, as a part of the transaction."""


class Transaction(Protocol):
    """A transaction that a program has open on a connection of its own. One thread at a time uses it."""

    @property
    def connection(self) -> object:
        """What the program hands to `enqueue_on`: the connection, or whatever else the broker takes for one."""

    @property
    def excludes(self) -> bool:
        """Whether no other connection can write, once this transaction has written, until it ends (SQLite)."""

    def note(self, text: str) -> None:
        """Write `text` into a table of the program's own, in this transaction."""

    def notes(self) -> Sequence[str]:
        """What that table holds, as this transaction sees it, in any order. It is one table for all of a place."""

    def savepoint(self) -> Savepoint:
        """Begin a nested transaction. Raises NotApplicable where there is no such thing."""

    def commit(self) -> None:
        """Commit it. Nothing else is asked of it afterwards."""

    def rollback(self) -> None:
        """Roll it back. Nothing else is asked of it afterwards."""


class EmbeddedServer:
    """The stand-in for the server of a broker that has none: its "server" are the processes that call it.

        def server(self, directory):
            return EmbeddedServer(f"files://{directory}/tasks")

    `kill` is the SIGKILL of all clients that the row has in other processes, in the middle of whatever they do; `stop`
    lets them close the broker before they end. `start` has nothing to do: the next client finds what they left.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.clients: list[Killable] = []  #: filled by `Scene.client_of` and by the rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Have the clients close their brokers, and end them."""
        for each in self.clients:
            if isinstance(each, Broker):
                each.close()
        self.kill()

    def kill(self) -> None:
        """SIGKILL of all clients in other processes."""
        for each in self.clients:
            each.kill()
        self.clients.clear()


class Adapter:
    """The backend behind `broker_url`. Subclass it to give hooks; the defaults do what can be done without any.

    A hook raises NotApplicable(reason) where the backend has no such thing: no network, no server of its own, no
    way in but the broker. A hook that isn't given leaves the rows that need it "not run", and then there is no verdict.
    """

    #: The broker under test.
    broker_url: str = ""

    #: The shortest lease with which rows work, in seconds: long enough for a call on a busy machine.
    #: None: 0.2 for a broker that lives in this process, else 1.
    lease: float | None = None

    #: Rows that are known to fail, each with a link to where that is discussed. They count as failed for the verdict.
    waivers: Mapping[str, str] = {}

    #: The class of broker, where it isn't to be found by the URL's scheme. Importable: processes of the suite do.
    broker_class: type[Broker] | None = None

    def __init__(self, broker_url: str | None = None) -> None:
        if broker_url is not None:
            self.broker_url = broker_url

    # -- what the suite calls -------------------------------------------------------------------------

    def open(self, url: str) -> Broker:
        """A broker for this URL."""
        return open_broker(url) if self.broker_class is None else self.broker_class.from_url(BrokerURL(url))

    def server_version(self, url: str) -> str:
        """What the server says of its version, for the report; empty if there is no server, or no way to ask."""
        return ""

    # -- hooks ----------------------------------------------------------------------------------------

    def url(self, namespace: str) -> str:
        """The URL of an empty place of its own on the same server, named after `namespace` ([a-z0-9-]{1,40}).

        Without it rows share one place, and keep apart by the names of their queues.
        """
        raise MissingHook("url(namespace)", "two namespaces on one server can't be compared")

    def drop(self, url: str) -> None:
        """Remove all that is stored in this place, which `url` gave. Nothing else on the server may be touched."""

    def used(self, url: str, queues: Collection[str]) -> None:
        """These queues of this place may be in use, some by other processes: for a server that can't list them."""

    def endpoint(self, url: str) -> tuple[str, int]:
        """Host and port of the server, for rows that put a faulty network before it."""
        (host, port), *_ = BrokerURL(url).hosts or [("", None)]
        if not host or port is None:
            raise MissingHook("endpoint(url)", "no host and port in the URL, so no proxy can stand before it")
        return host, port

    def through(self, url: str, port: int) -> str:
        """The same URL, by way of a proxy that listens on this port of 127.0.0.1."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{port}"))

    def impatient(self, url: str) -> tuple[str, float]:
        """The same URL, set to give up soon when the server doesn't answer, and how soon that has to be, in seconds.

        Without this hook the rows about it take the 30 s that any broker has.
        """
        return url, 30.0

    def server(self, directory: Path) -> AbstractContextManager[Server]:
        """A running server of the suite's own, which keeps its data in `directory`; gone after the `with` block.

        It keeps what the broker's `limits.durability` says. A broker without a server gives an `EmbeddedServer`.
        """
        raise MissingHook("server(directory)", "there is no server that the suite may stop or kill")

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        """Put bytes into a queue as a stranger would who knows where the backend stores them."""
        raise MissingHook("put_raw(url, queue, data)", "nothing foreign can be put into a queue")

    def evict(self, url: str, task_id: str) -> None:
        """Take a ready task's record away and leave its place in the queue, as an eviction or an operator would."""
        raise MissingHook("evict(url, task_id)", "no record can be taken away from under the broker")

    def dump(self, url: str) -> Mapping[str, int]:
        """All that is stored in this place: the name of each element → its size in bytes."""
        raise MissingHook("dump(url)", "what the backend leaves behind can't be seen")

    def disturb(self, server: Server) -> None:
        """Have this server, which `server` gave, forget what clients prepared on it (scripts, statements), and drop
        their connections.
        """
        raise MissingHook("disturb(server)", "nothing prepared on the server can be dropped")

    def full(self, server: Server) -> AbstractContextManager[None]:
        """Within the block this server, which `server` gave, has no room for anything more."""
        raise MissingHook("full(server)", "no server can be made full")

    def weakened(self, server: Server) -> AbstractContextManager[None]:
        """Within the block this server, which `server` gave, is set to keep less than `limits.durability` says."""
        raise MissingHook("weakened(server)", "no setting of a server can be weakened")

    def transaction(self, url: str) -> AbstractContextManager[Transaction]:
        """A transaction of a program, begun on a new connection to the server of this place. For TRANSACTIONAL.

        What is open at the end of the block is rolled back, and the connection closed. Also called in other processes,
        to which the adapter is pickled. The table of the program's own is there, and goes with `drop`.
        """
        raise MissingHook("transaction(url)", "nobody can have a transaction of their own")


class EmbeddedAdapter(Adapter):
    """For a broker without a server, which lives in the processes that call it: no network, and nothing to set there.

    `url`, `drop`, `put_raw`, `evict`, `dump` and `full` are still its author's to give, and `server` if it keeps
    anything.
    """

    def endpoint(self, url: str) -> tuple[str, int]:
        raise NotApplicable("it has no network")

    def server(self, directory: Path) -> AbstractContextManager[Server]:
        raise NotApplicable("it has no server")

    def disturb(self, server: Server) -> None:
        raise NotApplicable("nothing is prepared anywhere")

    def weakened(self, server: Server) -> AbstractContextManager[None]:
        raise NotApplicable("it has no server that could be set otherwise")


class MemoryAdapter(EmbeddedAdapter):
    """`memory://`: it ends with its process, no other sees it, and there is no way in but the broker."""

    def url(self, namespace: str) -> str:
        return self.broker_url  # each broker object is a place of its own

    def put_raw(self, url: str, queue: str, data: bytes) -> None:
        raise NotApplicable("nobody but the broker can put anything there")

    def evict(self, url: str, task_id: str) -> None:
        raise NotApplicable("nobody but the broker can take anything away")

    def dump(self, url: str) -> Mapping[str, int]:
        raise NotApplicable("what it stores ends with it")

    def full(self, server: Server) -> AbstractContextManager[None]:
        raise NotApplicable("it has no server")


def lease_of(adapter: Adapter, capabilities: Capability) -> float:
    """The shortest lease with which rows work on this backend, in seconds."""
    if adapter.lease is not None:
        return adapter.lease
    return 1.0 if Capability.SHARED in capabilities else 0.2
