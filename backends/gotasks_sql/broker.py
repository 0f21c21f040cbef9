"""SQLBroker: tasks are rows of one table, and a change of a task's state is a change of its row."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from gotasks.broker import (
    Broker,
    BrokerURL,
    Capability,
    Envelope,
    Lease,
    QueueStats,
    Record,
    State,
    Write,
)
from gotasks.errors import GotasksError, PayloadTooLarge, Rejected, Unsupported
from gotasks_sql import callers
from gotasks_sql.address import Address
from gotasks_sql.chunks import chunks, parts
from gotasks_sql.database import Database
from gotasks_sql.dialects import dialect_of
from gotasks_sql.enqueues import Enqueues
from gotasks_sql.operations import SOME
from gotasks_sql.receipts import Tokens, held_by, lease_of, token_of
from gotasks_sql.rows import Held, microseconds
from gotasks_sql.wakeups import Wakeups

if TYPE_CHECKING:
    from typing_extensions import Self

#: At the most so often a broker looks for records whose time is over. Seconds.
_TIDY = 1.0

_BROWSABLE = (State.SCHEDULED, State.READY, State.LEASED)


class SQLBroker(Broker):
    """A set of tables in a database. Thread-safe; connects at the first call.

    `sqlite:///tasks.db`, `postgresql+psycopg://user:password@host/database`, `mysql+pymysql://…`,
    `mariadb+pymysql://…`. Parameters: `prefix` of the tables' names (gotasks_), `migrate=empty|never`, `timeout`
    (10 s); on a server also `connect_timeout` (5 s), `pool_size` (5) and what its driver takes for TLS; `schema` and
    `notify=off` on PostgreSQL; `synchronous=full|normal` on SQLite.
    """

    capabilities = (
        Capability.DELAY
        | Capability.PRIORITY
        | Capability.IDEMPOTENT
        | Capability.UNIQUE
        | Capability.RECORDS
        | Capability.BROWSE
        | Capability.CANCEL
        | Capability.TRANSACTIONAL
        | Capability.ATOMIC_MOVE
        | Capability.TIMED_LEASE
        | Capability.SHARED
    )

    def __init__(self, address: Address) -> None:
        self._dialect = dialect_of(address)
        self.limits = self._dialect.limits
        self._database = Database(address, self._dialect)
        self._enqueues = Enqueues(self._dialect, self._database)
        self._tokens = Tokens()
        self._parents: list[Wakeups] = []
        self._begin()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        return cls(Address.of(url))

    def _begin(self) -> None:
        self._wakeups = self._dialect.wakeups(lambda: self._database.engine)
        self._interrupts: dict[str, int] = {}
        self._tidied = 0.0

    def after_fork(self) -> None:
        self._tokens.after_fork()
        self._parents.append(self._wakeups)  # its connection too: it mustn't end with an object of ours
        self._database.after_fork()
        self._begin()

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._check_new(envelopes)
        there = self._enqueues.enqueue(envelopes)
        if envelopes:
            self._wakeups.wake(envelopes[0].queue)
            self._tidy()
        return there

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        limit = min(limit, self.limits.max_batch)
        if limit < 1:
            return []
        if ids is not None:
            return self._claim_ids(queue, list(ids), limit, lease_for)
        end = time.monotonic() + wait
        interrupts = self._interrupts.get(queue, 0)
        self._database.ready()
        while True:
            ticket = self._wakeups.ticket(queue)
            leases, next_in = self._claim(queue, limit, lease_for)
            self._wakeups.found(queue, something=bool(leases))
            if leases:
                return leases
            self._tidy()
            left = end - time.monotonic()
            if left <= 0 or interrupts != self._interrupts.get(queue, 0):
                return []
            # What is over and couldn't be taken is locked by somebody else.
            self._wakeups.wait(queue, ticket, min(left, next_in) if next_in else left)

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        ours = [each for each in leases if not self._tokens.is_refused(each)]
        helds = [Held(each.envelope.id, token_of(each)) for each in ours]
        held = (
            self._database.at_once(self._dialect.extend, helds, lease=microseconds(lease_for)) if ours else ()
        )
        return frozenset(
            each.receipt for each in leases if self._tokens.is_refused(each) or each.envelope.id not in held
        )

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._write(writes, self._dialect.checkpoint)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = self._write(writes, partial(self._dialect.ack, keep=microseconds(keep_for)))
        self._tidy()
        return lost

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if not writes:
            return frozenset()
        self._check_delays({write.lease.envelope.id: write.delay for write in writes})
        queue = writes[0].lease.envelope.queue
        lost = self._write(writes, partial(self._dialect.release, queue=queue))
        for each in {write.queue or queue for write in writes}:
            self._wakeups.wake(each)
        return lost

    def stats(self, queue: str) -> QueueStats:
        return self._database.read(self._dialect.stats, queue)

    def purge(self, queue: str) -> int:
        left = self._database.read(self._dialect.waiting, queue)
        removed = 0
        while left > 0:  # in parts, so that nobody else waits for long
            part = self._database.run(self._dialect.purge, queue, most=min(left, SOME))
            if part == 0:
                break
            removed += part
            left -= part
        return removed

    def interrupt(self, queue: str) -> None:
        self._interrupts[queue] = self._interrupts.get(queue, 0) + 1
        self._wakeups.wake(queue)

    def close(self) -> None:
        self._database.close()
        self._wakeups.close()

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if state not in _BROWSABLE:
            raise Unsupported("what has ended is in no queue: `get` finds it by its id")
        if limit < 1:
            return []
        if state is State.READY and self._database.read(self._dialect.look, queue).due:
            self._database.run(self._dialect.promote, queue)
        return self._database.read(self._dialect.browse, queue, state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        records: dict[str, Record] = {}
        for some in parts(list(ids)):
            records |= self._database.read(self._dialect.get, some)
        return records

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        ended: list[str] = []
        for some in parts(list(dict.fromkeys(ids))):
            ended += self._database.run(self._dialect.cancel, some, keep=microseconds(keep_for))
        return ended

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        theirs = self._database.connection_of(connection)
        self._check_new(envelopes)
        return self._enqueues.enqueue_on(theirs, envelopes)

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        connection = callers.here(connection)  # on a thread there may be another one
        if not callers.is_async(connection):
            return await super().aenqueue_on(connection, envelopes)
        return await callers.on_its_loop(connection, lambda theirs: self.enqueue_on(theirs, envelopes))

    def warnings(self) -> Sequence[str]:
        return self._database.read(self._dialect.warnings)

    def migrate(self) -> Sequence[str]:
        return self._database.migrate()

    # -- how it is done ---------------------------------------------------------------------------

    def _claim(self, queue: str, limit: int, lease_for: float) -> tuple[list[Lease], float | None]:
        dialect, database = self._dialect, self._database
        if dialect.looks_first and not self._wakeups.is_busy(queue):
            seen = database.read(dialect.look, queue)
            if not seen.something:
                return [], seen.next_in
        asked, token = time.monotonic(), self._tokens.new()
        claimed = database.at_once(
            dialect.claim, queue, limit=limit, lease=microseconds(lease_for), token=token
        )
        return [lease_of(each, queue, token, asked + lease_for) for each in claimed.taken], claimed.next_in

    def _claim_ids(self, queue: str, ids: list[str], limit: int, lease_for: float) -> list[Lease]:
        token, lease = self._tokens.new(), microseconds(lease_for)
        leases: list[Lease] = []
        for some in parts(ids):
            asked, left = time.monotonic(), limit - len(leases)
            taken = self._database.run(
                self._dialect.claim_ids, queue, some, limit=left, lease=lease, token=token
            )
            leases += [lease_of(each, queue, token, asked + lease_for) for each in taken]
            if len(leases) == limit:
                break
        return leases

    def _write(
        self, writes: Sequence[Write], work: Callable[[sa.Connection, Sequence[Held]], set[str]]
    ) -> frozenset[str]:
        lost = {write.lease.receipt for write in writes if self._tokens.is_refused(write.lease)}
        ours = [write for write in writes if write.lease.receipt not in lost]
        self._check_sizes({write.lease.envelope.id: write.body for write in ours})
        for part in chunks(ours, lambda write: (write.lease.envelope.id,), lambda write: write.body):
            held = self._database.at_once(work, [held_by(write) for write in part])
            lost |= {write.lease.receipt for write in part if write.lease.envelope.id not in held}
        return frozenset(lost)

    def _tidy(self) -> None:
        """Remove records whose time is over. What was asked for is done by then, so nothing of this is told."""
        now = time.monotonic()
        if now - self._tidied < _TIDY:
            return
        self._tidied = now
        with suppress(GotasksError):
            old = self._database.read(self._dialect.has_old_records)
            if old and self._database.attempt(self._dialect.forget) >= SOME:
                self._tidied = 0.0  # there are more

    def _check_new(self, envelopes: Sequence[Envelope]) -> None:
        self._check_delays({each.id: each.delay for each in envelopes})
        self._check_sizes({each.id: each.body for each in envelopes})

    def _check_sizes(self, bodies: Mapping[str, bytes]) -> None:
        most = self.limits.max_payload
        large = [task_id for task_id, body in bodies.items() if most is not None and len(body) > most]
        if large:
            raise PayloadTooLarge(f"a body of more than {most} bytes", ids=large)

    def _check_delays(self, delays: Mapping[str, float]) -> None:
        most = self.limits.max_delay
        long = [task_id for task_id, delay in delays.items() if most is not None and delay > most]
        if long:
            raise Rejected(f"a delay of more than {most:g} s", ids=long)
