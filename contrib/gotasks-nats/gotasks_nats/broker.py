"""NatsBroker: the broker contract of gotasks on a stream of NATS JetStream. `nats://127.0.0.1:4222?namespace=shop`"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

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
from gotasks.errors import BrokerClosed, BrokerUnavailable, PayloadTooLarge, Unsupported
from gotasks_nats.address import Address
from gotasks_nats.entry import ENDED, Entry
from gotasks_nats.loop import LoopThread
from gotasks_nats.session import Overtaken, Session, Stored
from gotasks_nats.settings import complaints
from gotasks_nats.taker import Taker
from gotasks_nats.view import Task
from gotasks_nats.wire import TooLarge

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
Item = TypeVar("Item", Write, Lease)

#: What changes a task under its lease: (as it is, the write) → as it will be, with its body.
Change = Callable[[Stored, Write], tuple[Entry, bytes]]

#: Seconds that a call may take, whatever the server does.
_PATIENCE = 28.0

_NS = 1e9

#: What an earlier life of this process had, when it forked. Never let go of: the parent uses the same sockets.
_inherited: list[object] = []


class NatsBroker(Broker):
    """Tasks as messages of one stream, the last of each subject. Thread-safe."""

    capabilities = (
        Capability.DELAY
        | Capability.PRIORITY
        | Capability.IDEMPOTENT
        | Capability.RECORDS
        | Capability.BROWSE
        | Capability.CANCEL
        | Capability.ATOMIC_MOVE
        | Capability.TIMED_LEASE
        | Capability.SHARED
    )
    limits = Limits(
        max_payload=1_000_000,  # a server takes 1 MiB with the headers, unless it's set otherwise
        max_batch=200,
        max_delay=None,
        max_lease=None,
        recovery=0.2,
        fifo=True,
        returned="front",
        durability="kill",
        server_crash_duplicates="none",
    )

    def __init__(self, address: Address) -> None:
        self._address = address
        self._closed = False
        self._refused: tuple[str, ...] = ()
        self._begin()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        return cls(Address.of(url))

    def _begin(self) -> None:
        self._name = secrets.token_hex(8)
        self._calls = itertools.count()
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._session: Session | None = None
        self._opening: asyncio.Lock | None = None
        self._interrupts: dict[str, int] = {}

    def after_fork(self) -> None:
        _inherited.append((self._thread, self._session, self._opening))
        self._refused += (self._name,)  # those leases are the parent's
        self._begin()

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.refuse_unclaimed(envelopes)
        self._refuse_large({each.id: each.body for each in envelopes})
        first = {each.id: each for each in reversed(envelopes)}
        wanted = [each for each in envelopes if first[each.id] is each]

        async def store(session: Session) -> Mapping[str, str]:
            known = await session.each(wanted, lambda each: self._store(session, each))
            there = {each.id: each.id for each, is_there in zip(wanted, known, strict=True) if is_there}
            return there | {each.id: each.id for each in envelopes if first[each.id] is not each}

        return self._run(store)

    async def _store(self, session: Session, envelope: Envelope) -> bool:
        """Whether it was there already."""
        entry = Entry(
            queue=envelope.queue,
            state="scheduled" if envelope.delay > 0 else "ready",
            priority=envelope.priority,
            lasts=max(envelope.delay, 0.0),
        )
        instead_of = 0
        while True:
            try:
                await self._put(session, envelope.id, entry, envelope.body, instead_of)
            except Overtaken:
                there = await session.last(envelope.id)
                if there is not None and not there.task.forgotten(session.clock.now()):
                    return True
                instead_of = there.task.seq if there is not None else 0
            else:
                return False

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        end = time.monotonic() + wait
        since = self._interrupts.setdefault(queue, 0)

        async def lease(session: Session) -> list[Lease]:
            await session.sync()
            if limit <= 0:
                return []
            taker = Taker(session, queue, lease_for, lambda: f"{self._name}-{next(self._calls)}")
            if ids is not None:
                return await taker.named(limit, ids)
            while True:
                async with session.watching(queue) as woken:
                    leases = await taker.ready(limit)
                    left = end - time.monotonic()
                    if leases or left <= 0 or since != self._interrupts[queue]:
                        return leases
                    change = session.view.next_change(queue)
                    session.alarm(queue, change)
                    if change is not None:
                        left = min(left, (change - session.clock.now()) / _NS)
                    await asyncio.wait([woken], timeout=max(left, 0.001))
                if session.lost:
                    raise session.wire.unavailable("the connection was lost")

        try:
            return self._run(lease, wait=0.0 if ids is not None else wait)
        except BrokerUnavailable:
            if self._closed:
                raise BrokerClosed("the NATS broker was closed") from None
            raise

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        async def extend(session: Session, lease: Lease) -> bool:
            while (there := await self._held(session, lease)) is not None:
                entry = replace(there.task.entry, lasts=lease_for, until=0)
                try:
                    await session.write(lease.envelope.id, entry, there.body, instead_of=there.task.seq)
                except Overtaken:
                    continue
                return True
            return False

        return self._each(leases, lambda lease: lease, extend)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        def keep(there: Stored, write: Write) -> tuple[Entry, bytes]:
            return replace(there.task.entry, seq=write.seq, deaths=0, until=there.task.until), write.body

        return self._write(writes, keep)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        def end(there: Stored, write: Write) -> tuple[Entry, bytes]:
            ended = Entry(queue=there.task.entry.queue, state="done", lasts=keep_for)
            return ended, write.body

        return self._write(writes, end)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.refuse_unclaimed(writes)

        def put_back(there: Stored, write: Write) -> tuple[Entry, bytes]:
            before = there.task.entry
            queue = write.queue or before.queue
            entry = Entry(
                queue=queue,
                state="scheduled" if write.delay > 0 else "ready",
                priority=before.priority,
                lasts=max(write.delay, 0.0),
                front=write.delay <= 0 and queue == before.queue,
            )
            return entry, write.body

        return self._write(writes, put_back)

    def stats(self, queue: str) -> QueueStats:
        async def count(session: Session) -> QueueStats:
            await session.sync()
            ready, scheduled, leased = session.view.count(queue, session.clock.now())
            return QueueStats(ready=ready, scheduled=scheduled, leased=leased)

        return self._run(count)

    def purge(self, queue: str) -> int:
        async def purge(session: Session, task: Task) -> bool:
            try:
                await session.end(task.id, task.seq, Entry(queue=queue, state="cancelled"), b"")
            except Overtaken:  # somebody has it now
                return False
            return True

        async def purge_all(session: Session) -> int:
            await session.sync()
            now = session.clock.now()
            waiting = [
                each
                for state in (State.SCHEDULED, State.READY)
                for each in session.view.found(queue, state, now)
            ]
            return sum(await session.each(waiting, lambda each: purge(session, each)))

        return self._run(purge_all)

    def interrupt(self, queue: str) -> None:
        self._interrupts[queue] = self._interrupts.get(queue, 0) + 1
        thread, session = self._thread, self._session
        if thread is not None and session is not None:
            thread.soon(lambda: session.wake(queue))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop(self._end())

    async def _end(self) -> None:
        if self._session is not None:
            await self._session.close()

    def warnings(self) -> Sequence[str]:
        async def settings(session: Session) -> Sequence[str]:
            info = await session.api(f"STREAM.INFO.{self._address.stream}")
            return complaints(self._address.stream, info["config"])

        return self._run(settings)

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if state in ENDED:
            raise Unsupported("what has ended is found by its id only")

        async def look(session: Session) -> Sequence[Record]:
            await session.sync()
            found = [each.id for each in session.view.found(queue, state, session.clock.now())]
            if after is not None:
                found = found[found.index(after) + 1 :] if after in found else []
            stored = await session.each(found[: max(limit, 0)], session.last)
            records = [_record(each, session) for each in stored if each is not None]
            return [each for each in records if each.queue == queue and each.state is state]

        return self._run(look)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        async def find(session: Session) -> Mapping[str, Record]:
            await session.sync()
            stored = await session.each(dict.fromkeys(ids), session.last)
            now = session.clock.now()
            found = [each for each in stored if each is not None and not each.task.forgotten(now)]
            return {each.task.id: _record(each, session) for each in found}

        return self._run(find)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        async def cancel(session: Session, task_id: str) -> bool:
            while (there := await session.last(task_id)) is not None and not there.task.entry.ended:
                entry = Entry(queue=there.task.entry.queue, state="cancelled", lasts=keep_for)
                try:
                    await session.end(task_id, there.task.seq, entry, there.body)
                except Overtaken:
                    continue
                return True
            return False

        async def cancel_all(session: Session) -> Collection[str]:
            wanted = list(dict.fromkeys(ids))
            ended = await session.each(wanted, lambda each: cancel(session, each))
            return [each for each, done in zip(wanted, ended, strict=True) if done]

        return self._run(cancel_all)

    # -- how it is done ---------------------------------------------------------------------------

    def _run(self, work: Callable[[Session], Awaitable[T]], *, wait: float = 0.0) -> T:
        """Do it on the loop's thread, with a session. Raises BrokerClosed, or BrokerUnavailable in time."""
        with self._lock:
            if self._closed:
                raise BrokerClosed("the NATS broker is closed")
            if self._thread is None:
                self._thread = LoopThread()
            thread = self._thread

        async def with_session() -> T:
            return await work(await self._opened())

        return thread.call(with_session(), wait + _PATIENCE)

    async def _opened(self) -> Session:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._session is None or self._session.lost:
                if self._session is not None:
                    await self._session.close()
                    self._session = None
                session = Session(self._address)
                await session.open()
                self._session = session
            return self._session

    async def _held(self, session: Session, lease: Lease) -> Stored | None:
        """The task, if the receipt still holds: time alone doesn't end it."""
        if not lease.receipt or lease.receipt.startswith(self._refused):
            return None
        there = await session.last(lease.envelope.id)
        return there if there is not None and there.task.entry.receipt == lease.receipt else None

    def _write(self, writes: Sequence[Write], change: Change) -> frozenset[str]:
        self._refuse_large({each.lease.envelope.id: each.body for each in writes})

        async def write_one(session: Session, write: Write) -> bool:
            while (there := await self._held(session, write.lease)) is not None:
                task = there.task
                if write.seq <= task.entry.seq:
                    return write.seq == task.entry.seq  # an equal one is a repeat: held, and done already
                entry, body = change(there, write)
                try:
                    await self._put(session, task.id, entry, body, task.seq)
                except Overtaken:
                    continue
                return True
            return False

        return self._each(writes, lambda write: write.lease, write_one)

    def _each(
        self,
        items: Sequence[Item],
        lease_of: Callable[[Item], Lease],
        do: Callable[[Session, Item], Awaitable[bool]],
    ) -> frozenset[str]:
        """The receipts of those for which it gives False."""
        if not items:
            return frozenset()

        async def do_all(session: Session) -> frozenset[str]:
            held = await session.each(items, lambda each: do(session, each))
            return frozenset(
                lease_of(each).receipt for each, holds in zip(items, held, strict=True) if not holds
            )

        return self._run(do_all)

    async def _put(self, session: Session, task_id: str, entry: Entry, body: bytes, instead_of: int) -> None:
        try:
            if entry.ended:
                await session.end(task_id, instead_of, entry, body)
            else:
                await session.write(task_id, entry, body, instead_of=instead_of)
        except TooLarge:
            raise PayloadTooLarge(
                f"task {task_id} is larger than max_payload of the NATS server", ids=[task_id]
            ) from None

    def _refuse_large(self, bodies: Mapping[str, bytes]) -> None:
        limit = self.limits.max_payload or 0
        large = [each for each, body in bodies.items() if len(body) > limit]
        if large:
            raise PayloadTooLarge(f"NATS takes {limit} bytes of a task at the most", ids=large)


def _record(stored: Stored, session: Session) -> Record:
    task = stored.task
    return Record(id=task.id, queue=task.entry.queue, state=task.state(session.clock.now()), body=stored.body)
