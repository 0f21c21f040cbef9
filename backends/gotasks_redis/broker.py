"""RedisBroker: every change of state is one Lua call, atomic on the server and batched, by the server's clock."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
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
from gotasks_redis import durability, scripts
from gotasks_redis.connections import Connections
from gotasks_redis.durability import Durability
from gotasks_redis.keys import Keys
from gotasks_redis.scripts import Script
from gotasks_redis.wire import delay_and_options, ms, text, with_options

if TYPE_CHECKING:
    from typing_extensions import Self

#: A server that is there replies within this, on a busy machine too. Seconds.
_SURELY_REPLIED = 0.2

#: A blocking wait lasts this long at the most, so that `close` is noticed. Seconds.
_LONGEST_WAIT = 1.0

#: Who takes what the Go library enqueues looks for it this often, since Go wakes nobody. Seconds.
_GO_WAIT = 0.25

#: What `acquire.lua` says instead of a time if it found nothing so far and there is more to look at.
_MORE = -2

_BROWSABLE = (State.SCHEDULED, State.READY, State.LEASED)


class RedisBroker(Broker):
    """A namespace on a Redis server (6.2 or later). Thread-safe; connects at the first call.

    `redis://[user:password@]host[:6379][/db]`, `rediss://` for TLS, `unix:///path/to.sock?db=0`. Parameters:
    `namespace` (gt), `timeout` and `connect_timeout` (5 s), and with rediss:// `ssl_ca_certs`, `ssl_certfile`,
    `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname` as in redis-py. `valkey` and `valkeys` are other names for
    `redis` and `rediss`.

    `redis+sentinel://[user:password@]host[:26379][,host…]/service[/db]` asks sentinels for the master, and again after
    a fail-over; `sentinel_user` and `sentinel_password` are for them. `redis+cluster://host[:6379][,host…]` finds the
    node that has the slot of the namespace: all keys of a namespace are in one, so it's one node at a time that serves
    it, and more nodes serve more namespaces.

    With `go=true`, `acquire` also takes what the Go library has put into its list of that queue, `gt:queue:<queue>`, in
    whatever namespace this is. `stats` counts it and `purge` removes it; `browse`, `get` and `cancel` know of it after
    an `acquire` has come to it. Then each call of `acquire` takes one round trip more.

    What was confirmed is as durable as the server is told to make it (`appendonly`, `appendfsync`, replicas). With
    `durability=none|restart|kill` (none) the deployer says what the server keeps; `warnings` sees whether it does.

    A task of priority 0 without a unique key is stored as it was before there were any; the others take one more list
    for each priority in use, and one more key for each unique key. To cancel a task, or to acquire it by its id, takes
    the same however many wait: its place in the queue stays behind until somebody comes to it, or until there are more
    such places than tasks. Workers from before there were priorities don't see those above 0: replace them first.
    While more than 1000 leases of a queue are over and not yet taken over, the priority counts among the 1000 oldest.
    """

    capabilities = (
        Capability.DELAY
        | Capability.PRIORITY
        | Capability.IDEMPOTENT
        | Capability.UNIQUE
        | Capability.RECORDS
        | Capability.BROWSE
        | Capability.CANCEL
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

    def __init__(
        self, connections: Connections, keys: Keys, keeps: Durability = "none", *, go: bool = False
    ) -> None:
        self.limits = msgspec.structs.replace(type(self).limits, durability=keeps)
        self._connections = connections
        self._keys = keys
        self._go = go
        self._interrupts: dict[str, int] = {}
        self._begin_session()
        self._refused: tuple[str, ...] = ()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        keys = Keys.of(url)
        go = url.boolean("go", default=False)
        return cls(Connections(url, keys), keys, durability.of(url), go=go)

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
        self.refuse_unclaimed(envelopes)
        self._check_delays({each.id: each.delay for each in envelopes})
        self._check_sizes({each.id: each.body for each in envelopes})
        queue = envelopes[0].queue
        args: list[Any] = [self._keys.prefix, queue]
        for each in envelopes:
            args += (each.id, each.body, delay_and_options(each))
        ids = [each.id for each in envelopes]
        there = self._run(scripts.ENQUEUE, queue, args, ids)
        if not there:
            return {}
        return {new.decode(): known.decode() for new, known in zip(there[::2], there[1::2], strict=True)}

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
            if self._go:
                self._take_from_go(queue, limit)
            until_next, leases = self._acquire(scripts.ACQUIRE, queue, limit, lease_for, [])
            if until_next == _MORE:
                continue
            left = end - time.monotonic()
            if leases or left <= 0 or interrupted():
                return leases
            # Wait for the token, never for the task: what a broken connection takes with it is only the token.
            pause = min(left, _GO_WAIT if self._go else _LONGEST_WAIT)
            if until_next is not None:
                pause = min(pause, until_next)
            woken = self._connections.wait(self._keys.wake(queue), max(pause, 0.001), unless=interrupted)
            if not woken and time.monotonic() >= end:
                return []

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        refused, leases = self._split(leases)
        if not leases:
            return refused
        args: list[Any] = [self._keys.prefix, ms(lease_for)]
        for lease in leases:
            args += (lease.envelope.id, lease.receipt)
        # A dead connection, of which nobody was told, may cost a part of the lease only: it's repeated on another one.
        within = min(max(lease_for / 6, _SURELY_REPLIED), self._connections.timeout)
        return refused | self._lost(scripts.EXTEND, leases[0].envelope.queue, args, (), within=within)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._write(scripts.CHECKPOINT, writes, [])

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._write(scripts.ACK, writes, [ms(keep_for)])

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if not writes:
            return frozenset()
        self.refuse_unclaimed(writes)
        self._check_delays({write.lease.envelope.id: write.delay for write in writes})
        return self._write(scripts.RELEASE, writes, [writes[0].lease.envelope.queue], targets=True)

    def stats(self, queue: str) -> QueueStats:
        # Go's list first: what is taken from it meanwhile is counted twice, not overlooked.
        in_go = self._count_go(queue) if self._go else 0
        ready, scheduled, leased = self._run(scripts.STATS, queue, [self._keys.prefix, queue])
        return QueueStats(ready=ready + in_go, scheduled=scheduled, leased=leased)

    def purge(self, queue: str) -> int:
        while self._go and self._take_from_go(queue, self.limits.max_batch):
            pass
        stats = self.stats(queue)
        left = (stats.ready or 0) + (stats.scheduled or 0)
        removed = 0
        while left > 0:  # in parts, so that other clients of the server aren't kept waiting
            args = [self._keys.prefix, queue, self.limits.max_batch]
            part, seen = self._run(scripts.PURGE, queue, args)
            if seen == 0:
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
            raise Unsupported("what has ended is in no queue: `get` finds it by its id")
        reply = self._run(scripts.BROWSE, queue, [self._keys.prefix, queue, state.value, limit, after or ""])
        return [
            Record(id=text(task_id), queue=queue, state=state, body=body)
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

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        named, size = list(ids), self.limits.max_batch
        ended = []
        for start in range(0, len(named), size):  # in parts, as above
            args = [self._keys.prefix, ms(keep_for), *named[start : start + size]]
            ended += [each.decode() for each in self._run(scripts.CANCEL, "", args)]
        return ended

    def warnings(self) -> Sequence[str]:
        ask = self._connections.config
        found = []
        policy = ask("maxmemory-policy")
        if policy not in (None, "noeviction"):
            found.append(
                f"Redis: maxmemory-policy is {policy}: a full server throws tasks away. Set it to noeviction"
            )
        weaker = durability.weaker(self.limits.durability, ask)
        return [*found, weaker] if weaker else found

    # -- how it is done ---------------------------------------------------------------------------

    def _take_from_go(self, queue: str, most: int) -> int:
        """Make tasks of up to `most` documents of the Go library. Returns how many are left in its list."""
        token = f"{self._session}-{next(self._calls)}"
        args = [self._keys.prefix, queue, min(most, self.limits.max_batch), token]
        left: int = self._run(scripts.FROM_GO, queue, args, key=self._keys.of_go(queue))
        return left

    def _count_go(self, queue: str) -> int:
        count: int = self._run(scripts.COUNT_GO, queue, [self._keys.prefix], key=self._keys.of_go(queue))
        return count

    def _acquire(
        self, script: Script, queue: str, limit: int, lease_for: float, ids: list[str]
    ) -> tuple[float | None, list[Lease]]:
        token = f"{self._session}.{next(self._calls)}"
        deadline = time.monotonic() + lease_for
        args = [self._keys.prefix, queue, min(limit, self.limits.max_batch), ms(lease_for), token, *ids]
        reply = self._run(script, queue, args)
        until_next = None
        if script is scripts.ACQUIRE:
            until_next = _MORE if reply[0] == _MORE else reply[0] / 1000 if reply[0] >= 0 else None
            del reply[0]
        leases = []
        for count, start in enumerate(range(0, len(reply), 3), 1):
            envelope = Envelope(id=text(reply[start]), queue=queue, body=reply[start + 1])
            deaths = reply[start + 2]
            if not deaths.isdigit():
                envelope, deaths = with_options(envelope, deaths)
            leases.append(
                Lease(envelope=envelope, receipt=f"{token}.{count}", deaths=int(deaths), deadline=deadline)
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
                args += (ms(write.delay), write.queue or write.lease.envelope.queue)
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
        receipts = self._run(script, queue, args, ids, key=self._keys.leased(queue), within=within)
        return frozenset(receipt.decode() for receipt in receipts)

    def _run(
        self,
        script: Script,
        queue: str,
        args: list[Any],
        ids: Sequence[str] = (),
        *,
        key: str | None = None,
        within: float | None = None,
    ) -> Any:
        """Run a script. `ids`: what a full server certainly didn't write. `key`: the ready list's if None."""
        key = key or self._keys.ready(queue)
        try:
            return self._connections.run(script, key, args, within=within)
        except redis.exceptions.RedisError as error:
            # Checked by the server before a script's first write, so nothing was done. Redis 6.2 tells of the script.
            if isinstance(error, redis.exceptions.OutOfMemoryError) or "-OOM " in str(error):
                full = "the Redis server is out of memory (maxmemory)"
                if script is scripts.ENQUEUE:
                    raise Rejected(full, ids=ids) from error
                raise BrokerUnavailable(full) from error
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

    def _check_delays(self, delays: Mapping[str, float]) -> None:
        most = self.limits.max_delay
        assert most is not None
        long = [task_id for task_id, delay in delays.items() if delay > most]
        if long:
            raise Rejected(f"a delay of more than {most:g} s", ids=long)
