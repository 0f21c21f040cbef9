"""Scene: where a row plays: an empty place on the broker under test, clients of it, and the contract's words."""

from __future__ import annotations

import itertools
import math
import random
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gotasks.broker import Broker, Capability, Envelope, Lease, Limits, QueueStats, Record, State, Write
from gotasks.conformance.adapter import (
    Adapter,
    EmbeddedServer,
    MissingHook,
    NotApplicable,
    Server,
    lease_of,
)
from gotasks.conformance.expect import Nonconformance
from gotasks.conformance.kit.elsewhere import Elsewhere
from gotasks.conformance.kit.proxy import Proxy
from gotasks.errors import BrokerError, BrokerUnavailable, Unsupported

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

#: A time that no row waits for: of a record, or (`it.long`, `it.later`) of a lease and a delay. Seconds.
LONG = 60.0

#: Nothing takes that long; a busy machine gets the time. Seconds.
PATIENCE = 20.0


class Scene:
    """The stage of one row. `it.broker` is the first client; all names are of this run alone.

    Attributes:
        adapter: what is known of the backend beyond its URL.
        url: the place of this row on the server.
        broker: a client of that place.
        capabilities, limits: what it claims.
        queue, fatal: names of queues that nobody else uses.
        lease: the shortest lease that a row can wait for, in seconds.
        long, later: a lease and a delay that no row waits for, within the limits.
        quick: whether numbers are to be small.
        random: seeded; the seed is in the report.
        figures: numbers for the report: `it.figures["kills"] = 20`.
    """

    def __init__(self, adapter: Adapter, *, quick: bool = False, seed: int = 0) -> None:
        self._stack = ExitStack()
        self._numbers = itertools.count(1)
        self._prefix = f"gtc{secrets.token_hex(5)}"
        self._queues: set[str] = set()
        self._directory: Path | None = None
        self._broken_off = False
        self.adapter = adapter
        self.quick = quick
        self.random = random.Random(seed)
        self.figures: dict[str, float | int | str] = {}
        self.url, self._own_place = self._place()
        self.broker = self._open()
        self.capabilities: Capability = self.broker.capabilities
        self.limits: Limits = self.broker.limits
        self.lease = lease_of(adapter, self.capabilities)
        self.long: float = min(LONG, self.limits.max_lease or LONG)
        self.later: float = min(LONG, self.limits.max_delay or LONG)
        self.queue = self.name("orders")
        self.fatal = self.name("fatal")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def break_off(self) -> None:
        """Take from a row that still runs in another thread all that it has opened, so that it ends soon."""
        self._broken_off = True
        self._stack.close()

    def close(self) -> None:
        """Let go of all clients, and leave nothing on the server."""
        try:
            self._stack.close()
        finally:
            self._clean_up()

    # -- the place and its clients --------------------------------------------------------------------

    def client(self, url: str | None = None) -> Broker:
        """One more client of this place, or of `url`. Of a broker without SHARED there is only one: that one."""
        if url is None and Capability.SHARED not in self.capabilities:
            return self.broker
        return self._open(url)

    def elsewhere(self, url: str | None = None, env: Mapping[str, str] | None = None) -> Elsewhere:
        """A client of this place, or of `url`, in another process that ends with the row. For rows with `processes`."""
        return self._stack.enter_context(Elsewhere(self, url=url, env=env))

    def server(self) -> Server:
        """A server of this row's own, to stop, kill, fill and disturb. Skips the row where there is none."""
        return self._stack.enter_context(self.adapter.server(self.directory))

    def client_of(self, server: Server) -> Elsewhere:
        """A client of a server of this row, in another process: where the broker is embedded, it dies with `server`."""
        client = self.elsewhere(server.url)
        if isinstance(server, EmbeddedServer):
            server.clients.append(client)
        return client

    def again(self, server: Server, client: Elsewhere) -> Elsewhere:
        """`client` once it is answered, after `server` was started again; another one if it died with `server`."""
        if isinstance(server, EmbeddedServer):
            client = self.client_of(server)
        self.eventually(lambda: self.answered(client), "an answer after the server was started again")
        return client

    def answered(self, client: Broker) -> bool:
        """Whether the server answers this client."""
        try:
            client.stats(self.queue)
        except BrokerUnavailable:
            return False
        return True

    def name(self, word: str) -> str:
        """The name of a queue that nobody else uses."""
        name = f"{self._prefix}.{word}"
        self._queues.add(name)
        return name

    @property
    def alone(self) -> bool:
        """Whether this place is the row's own, so that it may use any name there."""
        return self._own_place

    def proxy(self, url: str | None = None) -> tuple[Proxy, str]:
        """A proxy before the server, and the URL that leads through it. Skips the row where there's no network."""
        url = url or self.url
        host, port = self.adapter.endpoint(url)
        proxy = self._stack.enter_context(Proxy(host, port))
        return proxy, self.adapter.through(url, proxy.port)

    @property
    def directory(self) -> Path:
        """An empty directory of this row's own."""
        if self._directory is None:
            self._directory = Path(
                self._stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="gotasks-", ignore_cleanup_errors=True)
                )
            )
        return self._directory

    def enter(self, context: Any) -> Any:
        """Enter a context manager that ends with the row; gives what it gives."""
        return self._stack.enter_context(context)

    def at_end(self, call: Callable[[], object]) -> None:
        """Have this called when the row is over, whatever became of it."""
        self._stack.callback(call)

    def times(self, *, quick: int, full: int) -> int:
        """How often: `quick` in a quick check, else `full`."""
        return quick if self.quick else full

    def claims(self, capability: Capability) -> bool:
        """Whether the broker claims all of these."""
        return capability in self.capabilities

    @property
    def grace(self) -> float:
        """Seconds after a lease's end until its task must be there: the broker's promise, and a busy machine's time."""
        return self.limits.recovery + 2.0

    # -- the contract's words -------------------------------------------------------------------------

    def envelope(
        self,
        body: bytes = b"body",
        *,
        queue: str | None = None,
        task_id: str | None = None,
        delay: float = 0.0,
        priority: int = 0,
        unique: str | None = None,
    ) -> Envelope:
        """An envelope with an id that no other has, unless one is given."""
        return Envelope(
            id=task_id or f"{self._prefix}-{next(self._numbers)}",
            queue=queue or self.queue,
            body=body,
            delay=delay,
            priority=priority,
            unique=unique,
        )

    def put(
        self,
        count: int = 1,
        *,
        body: bytes = b"body",
        queue: str | None = None,
        delay: float = 0.0,
        by: Broker | None = None,
    ) -> list[str]:
        """Enqueue that many, in batches as large as the broker takes; their ids in order."""
        envelopes = [self.envelope(body, queue=queue, delay=delay) for _ in range(count)]
        size = self.limits.max_batch
        for start in range(0, count, size):
            there = (by or self.broker).enqueue(envelopes[start : start + size])
            if there:
                raise Nonconformance(f"an enqueue of new ids says that some are there already: {there!r}")
        return [each.id for each in envelopes]

    def take(
        self,
        limit: int = 1,
        *,
        by: Broker | None = None,
        queue: str | None = None,
        wait: float = 0.0,
        lease_for: float = LONG,
        ids: Collection[str] | None = None,
    ) -> list[Lease]:
        """Acquire up to `limit`, as far as the broker's limits allow; so is `lease_for`."""
        return (by or self.broker).acquire(
            queue or self.queue,
            limit=min(limit, self.limits.max_batch),
            wait=wait,
            lease_for=min(lease_for, self.limits.max_lease or lease_for),
            ids=ids,
        )

    def take_one(
        self,
        *,
        by: Broker | None = None,
        queue: str | None = None,
        wait: float = 5.0,
        lease_for: float = LONG,
        task_id: str | None = None,
    ) -> Lease:
        """Acquire the one that has to be there; with `task_id`, that one by its id (BROWSE)."""
        ids = None if task_id is None else [task_id]
        leases = self.take(by=by, queue=queue, wait=wait, lease_for=lease_for, ids=ids)
        if len(leases) != 1:
            raise Nonconformance(
                f"acquire(limit=1, wait={wait:g}) gave {len(leases)} leases where a task was waiting"
            )
        return leases[0]

    def take_all(
        self,
        count: int,
        *,
        by: Broker | None = None,
        queue: str | None = None,
        wait: float = 0.0,
        lease_for: float = LONG,
    ) -> list[Lease]:
        """Acquire `count`, in as many calls as that takes; fewer if for `wait` seconds none came."""
        leases: list[Lease] = []
        while len(leases) < count:
            limit = min(count - len(leases), self.limits.max_batch)
            more = self.take(limit, by=by, queue=queue, wait=wait, lease_for=lease_for)
            if not more:
                break
            leases += more
        return leases

    def write(
        self,
        lease: Lease,
        body: bytes = b"written",
        *,
        seq: int = 1,
        delay: float = 0.0,
        queue: str | None = None,
    ) -> Write:
        """A write under `lease`."""
        return Write(lease=lease, body=body, seq=seq, delay=delay, queue=queue)

    def abandon(self, leases: Sequence[Lease], *, by: Broker | None = None) -> None:
        """Do as their holder that dies: when this returns, the leases are over and nobody has settled them.

        `by` must be the client that holds them. Leases with a time are waited for, so take them with
        `lease_for=it.lease`; without TIMED_LEASE the client's connection is closed, so it must be one that the row
        needs no longer.
        """
        if Capability.TIMED_LEASE in self.capabilities:
            last = max((lease.deadline for lease in leases), default=-math.inf)
            # Nothing but the clock can tell. The server's may have started later than ours.
            threading.Event().wait(max(0.0, last + self.lease / 4 - time.monotonic()))
        else:
            if by is None or by is self.broker:
                if not self.claims(Capability.SHARED):
                    raise NotApplicable("leases end with their only client, and its tasks with it")
                raise ValueError("name the client that dies with its leases: it.client()")
            by.close()

    def recovered(self) -> None:
        """Wait until what a dead holder left must be offered again, where nothing but the clock can tell."""
        threading.Event().wait(self.limits.recovery)

    def drain(self, *, by: Broker | None = None, queue: str | None = None) -> list[Lease]:
        """Acquire and ack until nothing is offered any more; the leases in the order in which they came."""
        broker = by or self.broker
        drained: list[Lease] = []
        while leases := self.take(self.limits.max_batch, by=broker, queue=queue):
            lost = broker.ack([self.write(lease) for lease in leases], keep_for=0)
            if lost:
                raise Nonconformance(f"{len(lost)} of {len(leases)} acks were lost right after acquire")
            drained += leases
        return drained

    def at_rest(self, *, ready: int = 0, scheduled: int = 0, leased: int = 0) -> QueueStats:
        """What a queue is expected to hold; None where this broker can't say."""
        seen = self.broker.stats(self.queue)
        return QueueStats(
            ready=None if seen.ready is None else ready,
            scheduled=None if seen.scheduled is None else scheduled,
            leased=None if seen.leased is None else leased,
        )

    # -- waiting --------------------------------------------------------------------------------------

    def eventually(self, holds: Callable[[], T], what: str, *, within: float = PATIENCE) -> T:
        """Poll until `holds()` is true; what it gave. Raises Nonconformance after `within` seconds."""
        end = time.monotonic() + within
        while not (value := holds()):
            if time.monotonic() > end:
                raise Nonconformance(f"within {within:g} s not seen: {what}")
            time.sleep(0.005)
        return value

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Call this in a thread of its own, and don't wait for it."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True, name="row-begun").start()
        return future

    def in_threads(self, *calls: Callable[[], T], timeout: float = 30.0) -> list[T]:
        """Call these at the same time, each in a thread; their results. The first error is raised."""
        results: dict[int, T] = {}
        errors: list[BaseException] = []
        start = threading.Barrier(len(calls))

        def run(index: int, call: Callable[[], T]) -> None:
            try:
                start.wait(timeout)
                results[index] = call()
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=run, args=each, daemon=True, name=f"row-{index}")
            for index, each in enumerate(enumerate(calls))
        ]
        end = time.monotonic() + timeout
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if errors:
            raise errors[0]
        if len(results) < len(calls):
            raise Nonconformance(f"{len(calls) - len(results)} of {len(calls)} threads hang")
        return [results[index] for index in range(len(calls))]

    # -- inside ---------------------------------------------------------------------------------------

    def _place(self) -> tuple[str, bool]:
        try:
            return self.adapter.url(self._prefix), True
        except MissingHook:
            return self.adapter.broker_url, False

    def _open(self, url: str | None = None) -> Broker:
        if self._broken_off:
            raise Nonconformance("its time was over")
        broker = self.adapter.open(url or self.url)
        self._stack.callback(broker.close)
        return broker

    def _clean_up(self) -> None:
        if self._own_place:
            self.adapter.used(self.url, self._queues)
            self.adapter.drop(self.url)
            return
        broker = self.adapter.open(self.url)
        try:
            for queue in self._queues:
                broker.purge(queue)
                while leases := broker.acquire(
                    queue, limit=self.limits.max_batch, wait=0, lease_for=self.long
                ):
                    broker.ack([self.write(lease) for lease in leases], keep_for=0)
        except BrokerError:
            pass  # a row that broke its server has said so itself
        finally:
            broker.close()


def ids_of(items: Iterable[Lease | Record]) -> list[str]:
    """The ids of leases or records, in their order."""
    return [item.envelope.id if isinstance(item, Lease) else item.id for item in items]


#: The four writes under a lease, as functions of a scene, a broker, a lease and a seq; each returns the lost receipts.
WRITES: Mapping[str, Callable[[Scene, Broker, Lease, int], frozenset[str]]] = {
    "extend": lambda it, broker, lease, _: broker.extend([lease], lease_for=it.long),
    "checkpoint": lambda it, broker, lease, seq: broker.checkpoint([it.write(lease, seq=seq)]),
    "release": lambda it, broker, lease, seq: broker.release([it.write(lease, seq=seq)]),
    "ack": lambda it, broker, lease, seq: broker.ack([it.write(lease, seq=seq)], keep_for=0),
}

__all__ = [
    "LONG",
    "PATIENCE",
    "WRITES",
    "MissingHook",
    "NotApplicable",
    "Scene",
    "State",
    "Unsupported",
    "ids_of",
]
