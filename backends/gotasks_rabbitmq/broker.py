"""RabbitBroker: quorum queues; a checkpoint puts the new body back and takes the old one away in one transaction."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from gotasks.broker import (
    Broker,
    BrokerURL,
    Capability,
    Envelope,
    Lease,
    Limits,
    QueueStats,
    Write,
)
from gotasks.errors import BrokerClosed, BrokerUnavailable, PayloadTooLarge, Unsupported
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.publisher import Unconfirmed
from gotasks_rabbitmq.session import Session
from gotasks_rabbitmq.thread import IoThread, TimeIsUp

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

#: How long `close` waits for the server's goodbye. Seconds.
_GOODBYE = 0.5

#: What RabbitMQ 4 takes by default; earlier ones take more.
_MAX_PAYLOAD = 16 * 1024 * 1024

#: pika says in its log what it raises as well, some of it several times. Raised, it is one sentence of ours.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class RabbitBroker(Broker):
    """A namespace in a virtual host of a RabbitMQ server (3.10 or later). Thread-safe; connects at the first call.

    `amqp://[user:password@]host[:5672][/vhost]`, `amqps://` for TLS. Parameters: `namespace` (gt), `timeout` and
    `connect_timeout` (10 s), `heartbeat` (10 s), `consumer_timeout` (1800 s, or `none`: what the server is set to),
    `management` (`http://[user:password@]host:15672`: refuse a queue of which a policy would lose tasks), `records`
    (the URL of a record store, see RecordedBroker), and with amqps:// `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
    `ssl_cert_reqs`, `ssl_check_hostname`.

    A lease ends with the channel on which it was delivered: when its holder or the connection dies, and when the
    server finds that it was held for longer than its `consumer_timeout`.
    """

    capabilities = Capability.SHARED | Capability.HANDOFF
    limits = Limits(
        max_payload=_MAX_PAYLOAD,
        max_batch=200,
        max_delay=None,
        max_lease=None,
        recovery=1.0,
        fifo=True,
        returned="any",
        durability="kill",
        server_crash_duplicates="bounded",
        max_leases=2039,  # a channel for each, of 2047
    )

    def __init__(self, address: Address) -> None:
        self.limits = msgspec.structs.replace(type(self).limits, max_lease=address.consumer_timeout)
        self._address = address
        self._closed = False
        self._begin()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """As in `Broker`; with `records=` it is a RecordedBroker, which is none of this class."""
        if "records" in url.params:
            from gotasks_rabbitmq.recorded import RecordedBroker

            return cast("Self", RecordedBroker.from_url(url))
        return cls(Address.of(url))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread = IoThread()
        self._session = Session(self._address)

    def after_fork(self) -> None:
        self._thread.after_fork()
        self._begin()

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._check_open()
        self.refuse_unclaimed(envelopes)
        self._check_sizes({each.id: each.body for each in envelopes})
        if envelopes:
            tasks = [(each.id, each.body) for each in envelopes]
            self._run(lambda: self._session.enqueue(envelopes[0].queue, tasks))
        return {}

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        self._check_open()
        if ids is not None:
            raise Unsupported("RabbitMQ can't look for a task by its id (BROWSE)")
        if limit < 1:
            return []
        most = min(limit, self.limits.max_batch)
        end, since = time.monotonic() + wait, self._session.interrupts(queue)
        try:
            leases = self._run(lambda: self._session.take(queue, most))
            if leases or wait <= 0:
                return leases
            return self._on_thread(lambda: self._session.wait(queue, most, end=end, since=since))
        except BrokerUnavailable:
            self._check_open()  # what it waited on was closed
            raise

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        self._check_open()
        if not leases:
            return frozenset()
        return self._run(lambda: self._session.extend(leases))

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._write(self._session.settler.checkpoint, writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._write(self._session.settler.ack, writes)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self._check_open()
        self.refuse_unclaimed(writes)
        return self._write(self._session.settler.release, writes)

    def stats(self, queue: str) -> QueueStats:
        ready = self._run(lambda: self._session.ready(queue))
        return QueueStats(ready=ready, scheduled=0, leased=None)

    def purge(self, queue: str) -> int:
        return self._run(lambda: self._session.purge(queue))

    def interrupt(self, queue: str) -> None:
        self._thread.soon(self._session.interrupt, queue)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._thread.stop(lambda: self._session.close(_GOODBYE))

    def warnings(self) -> Sequence[str]:
        product, version = self._run(self._session.version)
        if self._address.management is not None:
            self._address.management.policies()  # or it says what has to be done first
        if version < (3, 10):
            shown = ".".join(map(str, version)) or "an unknown version"
            return [
                f"{product or 'The server'} {shown} is too old for durable chains: RabbitMQ 3.10 or later is needed"
            ]
        return []

    # -- how it is done ---------------------------------------------------------------------------

    def _write(self, call: Any, writes: Sequence[Write]) -> frozenset[str]:
        self._check_open()
        self._check_sizes({write.lease.envelope.id: write.body for write in writes})
        if not writes:
            return frozenset()
        lost: frozenset[str] = self._run(lambda: call(writes), goes_on=True)
        return lost

    def _run(self, call: Callable[[], Coroutine[Any, Any, T]], *, goes_on: bool = False) -> T:
        """Do this on the I/O thread, within the time of a call; after that it goes on there, or is stopped."""
        within = self._session.patience()
        try:
            return self._on_thread(call, within, goes_on=goes_on)
        except TimeIsUp:
            raise self._session.late(within) from None

    def _on_thread(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        within: float | None = None,
        *,
        goes_on: bool = False,
    ) -> T:
        try:
            return self._thread.run(work, within, goes_on=goes_on)
        except (Closed, Unconfirmed) as error:
            raise BrokerUnavailable(f"{self._address.shown}: {error}") from None
        except CancelledError:
            raise BrokerClosed(f"the broker {self._address.shown} is closed") from None

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosed(f"the broker {self._address.shown} is closed")

    def _check_sizes(self, bodies: Mapping[str, bytes]) -> None:
        large = [task_id for task_id, body in bodies.items() if len(body) > _MAX_PAYLOAD]
        if large:
            raise PayloadTooLarge(f"a body of more than {_MAX_PAYLOAD} bytes", ids=large)
