"""RedisBroker: every change of state is one Lua call, atomic on the server and batched, by the server's clock."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import redis

from gotasks.broker import (
    Broker,
    BrokerURL,
    Capability,
    Envelope,
    Lease,
    Limits,
    QueueStats,
    Record,
    State,
    Write,
)
from gotasks.errors import BrokerUnavailable, PayloadTooLarge, Rejected, Unsupported
from gotasks_redis import scripts
from gotasks_redis.connections import Connections
from gotasks_redis.keys import Keys
from gotasks_redis.scripts import Script

if TYPE_CHECKING:
    from typing_extensions import Self

#: A blocking wait lasts this long at the most, so that `close` is noticed. Seconds.
_LONGEST_WAIT = 1.0

_BROWSABLE = (State.SCHEDULED, State.READY, State.LEASED)


class RedisBroker(Broker):
    """A namespace on a Redis server (6.2 or later). Thread-safe; connects at the first call.

    `redis://[user:password@]host[:6379][/db]`, `rediss://` for TLS, `unix:///path/to.sock?db=0`. Parameters:
    `namespace` (gt), `timeout` and `connect_timeout` (5 s), and with rediss:// `ssl_ca_certs`, `ssl_certfile`,
    `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname` as in redis-py.

    What was confirmed is as durable as the server is told to make it (`appendonly`, `appendfsync`, replicas).
    """

    capabilities = (
        Capability.DELAY
        | Capability.IDEMPOTENT
        | Capability.RECORDS
        | Capability.BROWSE
        | Capability.ATOMIC_MOVE
        | Capability.TIMED_LEASE
        | Capability.SHARED
    )
    limits = Limits(
        max_payload=64 * 1024 * 1024,
        max_batch=1000,
        max_delay=10 * 365 * 86_400.0,
        max_lease=None,
        recovery=1.0,
        fifo=True,
        returned="front",
        durability="none",
        server_crash_duplicates="none",
    )

    def __init__(self, connections: Connections, keys: Keys) -> None:
        self._connections = connections
        self._keys = keys
        self._interrupts: dict[str, int] = {}
        self._begin_session()
        self._refused: tuple[str, ...] = ()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        return cls(Connections(url), Keys.of(url))

    def _begin_session(self) -> None:
        self._session = secrets.token_hex(8)
        self._calls = itertools.count()

    def after_fork(self) -> None:
        self._refused += (self._session,)
        self._begin_session()
        self._connections.after_fork()

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if not envelopes:
            return {}
        self._check_sizes({each.id: each.body for each in envelopes})
        queue = envelopes[0].queue
        args: list[Any] = [self._keys.prefix, queue]
        for each in envelopes:
            args += (each.id, each.body, _ms(each.delay))
        ids = [each.id for each in envelopes]
        return {(known := each.decode()): known for each in self._run(scripts.ENQUEUE, queue, args, ids)}

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if limit < 1:
            return []
        if ids is not None:
            return self._acquire(scripts.ACQUIRE_IDS, queue, limit, lease_for, list(ids))[1]
        end = time.monotonic() + wait
        interrupts = self._interrupts.get(queue, 0)

        def interrupted() -> bool:
            return interrupts != self._interrupts.get(queue, 0)

        while True:
            until_next, leases = self._acquire(scripts.ACQUIRE, queue, limit, lease_for, [])
            left = end - time.monotonic()
            if leases or left <= 0 or interrupted():
                return leases
            # Wait for the token, never for the task: what a broken connection takes with it is only the token.
            pause = min(left, _LONGEST_WAIT)
            if until_next is not None:
                pause = min(pause, until_next)
            woken = self._connections.wait(self._keys.wake(queue), max(pause, 0.001), unless=interrupted)
            if not woken and time.monotonic() >= end:
                return []

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        refused, leases = self._split(leases)
        if not leases:
            return refused
        args: list[Any] = [self._keys.prefix, _ms(lease_for)]
        for lease in leases:
            args += (lease.envelope.id, lease.receipt)
        # A dead connection, of which nobody was told, may cost a part of the lease only: it's repeated on another one.
        within = min(lease_for / 6, self._connections.timeout)
        return refused | self._lost(scripts.EXTEND, leases[0].envelope.queue, args, (), within=within)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._write(scripts.CHECKPOINT, writes, [])

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._write(scripts.ACK, writes, [_ms(keep_for)])

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if not writes:
            return frozenset()
        return self._write(scripts.RELEASE, writes, [writes[0].lease.envelope.queue], targets=True)

    def stats(self, queue: str) -> QueueStats:
        ready, scheduled, leased = self._run(scripts.STATS, queue, [self._keys.prefix, queue])
        return QueueStats(ready=ready, scheduled=scheduled, leased=leased)

    def purge(self, queue: str) -> int:
        stats = self.stats(queue)
        left = (stats.ready or 0) + (stats.scheduled or 0)
        removed = 0
        while left > 0:  # in parts, so that other clients of the server aren't kept waiting
            part = self._run(
                scripts.PURGE, queue, [self._keys.prefix, queue, min(left, self.limits.max_batch)]
            )
            if part == 0:
                break
            removed += part
            left -= part
        return removed

    def interrupt(self, queue: str) -> None:
        self._interrupts[queue] = self._interrupts.get(queue, 0) + 1
        self._connections.interrupt(self._keys.wake(queue))

    def close(self) -> None:
        self._connections.close()

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if state not in _BROWSABLE:
            raise Unsupported("a queue can be browsed for what is scheduled, ready or leased")
        reply = self._run(scripts.BROWSE, queue, [self._keys.prefix, queue, state.value, limit, after or ""])
        return [
            Record(id=_text(task_id), queue=queue, state=state, body=body)
            for task_id, body in zip(reply[::2], reply[1::2], strict=True)
        ]

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        if not ids:
            return {}
        reply = self._run(scripts.GET, "", [self._keys.prefix, *ids])
        records = {}
        for task_id, queue, state, body in zip(*(reply[i::4] for i in range(4)), strict=True):
            name = task_id.decode()
            records[name] = Record(id=name, queue=queue.decode(), state=State(state.decode()), body=body)
        return records

    def warnings(self) -> Sequence[str]:
        found = []
        policy = self._connections.config("maxmemory-policy")
        if policy not in (None, "noeviction"):
            found.append(
                f"Redis: maxmemory-policy is {policy}: a full server throws tasks away. Set it to noeviction"
            )
        if self._connections.config("appendonly") == "no" and not self._connections.config("save"):
            found.append("Redis keeps nothing on disk (appendonly no, no save): a restart loses every task")
        return found

    # -- how it is done ---------------------------------------------------------------------------

    def _acquire(
        self, script: Script, queue: str, limit: int, lease_for: float, ids: list[str]
    ) -> tuple[float | None, list[Lease]]:
        token = f"{self._session}.{next(self._calls)}"
        deadline = time.monotonic() + lease_for
        args = [self._keys.prefix, queue, min(limit, self.limits.max_batch), _ms(lease_for), token, *ids]
        reply = self._run(script, queue, args)
        until_next = None
        if script is scripts.ACQUIRE:
            until_next = reply[0] / 1000 if reply[0] >= 0 else None
            del reply[0]
        leases = []
        for count, start in enumerate(range(0, len(reply), 3), 1):
            envelope = Envelope(id=_text(reply[start]), queue=queue, body=reply[start + 1])
            leases.append(
                Lease(
                    envelope=envelope,
                    receipt=f"{token}.{count}",
                    deaths=int(reply[start + 2]),
                    deadline=deadline,
                )
            )
        return until_next, leases

    def _write(
        self, script: Script, writes: Sequence[Write], head: list[Any], *, targets: bool = False
    ) -> frozenset[str]:
        refused, writes = self._split(writes)
        if not writes:
            return refused
        self._check_sizes({write.lease.envelope.id: write.body for write in writes})
        args: list[Any] = [self._keys.prefix, *head]
        for write in writes:
            args += (write.lease.envelope.id, write.lease.receipt, write.seq, write.body)
            if targets:
                args += (_ms(write.delay), write.queue or write.lease.envelope.queue)
        ids = [write.lease.envelope.id for write in writes]
        return refused | self._lost(script, writes[0].lease.envelope.queue, args, ids)

    def _lost(
        self,
        script: Script,
        queue: str,
        args: list[Any],
        ids: Sequence[str],
        *,
        within: float | None = None,
    ) -> frozenset[str]:
        receipts = self._run(script, queue, args, ids, leased=True, within=within)
        return frozenset(receipt.decode() for receipt in receipts)

    def _run(
        self,
        script: Script,
        queue: str,
        args: list[Any],
        ids: Sequence[str] = (),
        *,
        leased: bool = False,
        within: float | None = None,
    ) -> Any:
        """Run a script. `ids`: the items that a full server certainly didn't write."""
        key = self._keys.leased(queue) if leased else self._keys.ready(queue)
        try:
            return self._connections.run(script, key, args, within=within)
        except redis.exceptions.OutOfMemoryError as error:
            # Checked by the server before a script's first write, so nothing was done.
            if script is scripts.ENQUEUE:
                raise Rejected("the Redis server is out of memory (maxmemory)", ids=ids) from error
            raise BrokerUnavailable("the Redis server is out of memory (maxmemory)") from error
        except redis.exceptions.RedisError as error:
            raise BrokerUnavailable(f"Redis refused {script.name}: {error}") from error

    def _split(self, items: Sequence[Any]) -> tuple[frozenset[str], Sequence[Any]]:
        """The receipts of a parent process, which are lost here, and the items that aren't under one."""
        if not self._refused:
            return frozenset(), items
        receipts = [item.receipt if isinstance(item, Lease) else item.lease.receipt for item in items]
        refused = frozenset(each for each in receipts if each.startswith(self._refused))
        return refused, [
            item for item, receipt in zip(items, receipts, strict=True) if receipt not in refused
        ]

    def _check_sizes(self, bodies: Mapping[str, bytes]) -> None:
        most = self.limits.max_payload
        assert most is not None
        large = [task_id for task_id, body in bodies.items() if len(body) > most]
        if large:
            raise PayloadTooLarge(f"a body of more than {most} bytes", ids=large)


def _ms(seconds: float) -> int:
    """Milliseconds; what is above zero stays so."""
    return max(int(min(seconds * 1000, 1e15)), 1) if seconds > 0 else 0  # more isn't an integer to Redis


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
