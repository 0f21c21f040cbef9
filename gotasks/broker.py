"""The broker contract: what a backend stores, and the nine methods with which it does so.

This module is all that a plug-in imports, together with `gotasks.errors`. A broker moves opaque *envelopes*
through queues; it knows nothing of jobs, handlers or JSON. What it must get right:

* **Leases.** `acquire` hands an envelope to one holder. The holder proves itself by the lease's `receipt`,
  which was never used before. A receipt holds until `ack`, `release`, a HANDOFF checkpoint, a `cancel`, the
  loss of its connection (brokers without TIMED_LEASE), or until another `acquire` has taken the envelope.
  Expiry alone only makes the envelope eligible again: a late write that comes before the takeover is accepted.
  Without TIMED_LEASE a receipt is good only through the broker object that acquired it.
* **Fencing.** A write whose receipt no longer holds changes nothing and is answered as `lost`.
* **Deaths.** `Lease.deaths` counts the leases of this envelope that ended unsettled since its body was last
  written. `enqueue`, `checkpoint` and `release` start it at 0. It is exact over any kind of end.
* **Unknown outcomes.** A call that raises `BrokerUnavailable`, or anything unforeseen, may have been carried
  out or not, item by item. `Rejected(ids=…)` is certain: these items were not written. `Unsupported` and
  `BrokerClosed` mean that nothing was done. A driver's own exceptions never leave a backend. A server that
  doesn't answer is unavailable after 30 s at the most (`acquire`: after its `wait`).
* **Repeating is safe.** An `extend`, `checkpoint`, `ack` or `release` sent again unchanged (same `seq`) harms
  nothing. A repeated in-place checkpoint is held if its receipt holds; a repeated write that had ended the
  lease is `lost`, which then means "took effect, or was taken over".
* **Refusal.** What isn't claimed is refused, never imitated: its method raises `Unsupported`, and so do `acquire`
  with `ids`, and an `enqueue` or `release` whose `delay`, `priority` or `unique` isn't at its default. Then nothing
  was stored or changed (see `Broker.refuse_unclaimed`). What is beyond a limit is `Rejected`, and unchanged too.
* **Batches.** One call holds envelopes of one queue (the targets of a release may differ), `limits.max_batch`
  at the most. Each item is atomic, the batch needn't be. An empty batch is a no-op.

Every method may be called from any thread. A broker connects lazily. After a fork the child's broker is
unconnected and answers writes under the parent's leases with `lost` (see `Broker.after_fork`).

The contract has a version, `BROKER_API`. Within a version dataclasses gain only fields with defaults and
methods only keywords with defaults, and both reach only brokers that claim the capability that brought them.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, Flag, auto
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from gotasks.errors import Unsupported
from gotasks.url import BrokerURL

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BROKER_API",
    "Broker",
    "BrokerURL",
    "Capability",
    "Envelope",
    "Lease",
    "Limits",
    "QueueStats",
    "Record",
    "State",
    "Write",
]

#: Version of this contract. A plug-in states the one it was written for in `Broker.api`.
BROKER_API = 1


class Capability(Flag):
    """What a broker can do beyond the nine methods. What isn't claimed is refused, never imitated."""

    DELAY = auto()  #: an envelope can wait `delay` seconds before it becomes ready
    PRIORITY = (
        auto()
    )  #: 0 to 9, higher first, FIFO within one; kept by release, a move, expiry and checkpoint
    IDEMPOTENT = auto()  #: an id that is there already isn't stored again; else each enqueue stores one more
    UNIQUE = auto()  #: at most one live envelope for each unique key
    RECORDS = auto()  #: `get` finds a task by id, also for `keep_for` seconds after it ended
    BROWSE = auto()  #: `browse`, and `acquire(ids=…)`
    CANCEL = auto()  #: `cancel`
    TRANSACTIONAL = auto()  #: `enqueue_on` the caller's own connection
    ATOMIC_MOVE = auto()  #: a release into another queue is one atomic step
    TIMED_LEASE = auto()  #: a lease ends by time; else it ends with its connection, which counts as a death
    SHARED = auto()  #: all brokers of one URL, in any process, see the same queues; else each has its own
    HANDOFF = auto()  #: a checkpoint ends the lease and puts the new body back into its queue


class State(str, Enum):
    """Where an envelope is."""

    SCHEDULED = "scheduled"  #: waits for its delay
    READY = "ready"
    LEASED = "leased"  #: held, or its lease is over and nobody has taken it yet
    DONE = "done"
    CANCELLED = "cancelled"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a broker stores: an opaque body under an id, in a queue."""

    id: str  #: `[A-Za-z0-9_-]{1,64}`, case-sensitive, unique in the broker's namespace
    queue: str  #: `[A-Za-z0-9_.-]{1,128}`, case-sensitive
    body: bytes
    delay: float = 0.0  #: seconds from when the server takes it, at once from 0 down; DELAY
    priority: int = 0  #: 0 to 9, higher first; PRIORITY
    unique: str | None = None  #: any text, one for all queues of the namespace; UNIQUE


class Lease(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """The right to run one envelope. Equal and hashed by its receipt."""

    envelope: Envelope
    receipt: str  #: never used before
    deaths: int  #: leases of this envelope that ended unsettled since its body was last written
    deadline: (
        float  #: `time.monotonic()` of this process at which it ends; `inf` if only the connection ends it
    )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lease) and other.receipt == self.receipt

    def __hash__(self) -> int:
        return hash(self.receipt)


class Write(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One write under a lease: a checkpoint, an ack or a release."""

    lease: Lease
    body: bytes
    seq: int  #: rises with each new write under the lease; a repeat carries the same one
    delay: float = 0.0  #: seconds; release only, DELAY
    queue: str | None = None  #: release only: move there


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a broker knows of one task."""

    id: str
    queue: str
    state: State
    body: bytes


class QueueStats(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How many envelopes a queue holds. None: the server can't say. Exact at rest."""

    ready: int | None
    scheduled: int | None
    leased: int | None  #: includes leases that are over but not yet taken over


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can't exceed, and what it promises. Tested at the boundary by the conformance suite."""

    max_payload: int | None  #: bytes of a body; a larger one is PayloadTooLarge. None = no limit of its own
    max_batch: int  #: envelopes, leases or writes in one call; ids aren't counted
    max_delay: float | None  #: seconds; a longer one is Rejected. None = no limit of its own
    max_lease: float | None  #: the longest that a lease can be asked for, or be held by extending it; seconds
    recovery: float  #: seconds from a lease's end (or the worker's death, without TIMED_LEASE) until it's offered again
    fifo: bool  #: one producer, one consumer: out in the order in which they came in
    returned: Literal["front", "back", "any"]  #: where release (without a move) and expiry put an envelope
    durability: Literal[
        "none", "restart", "kill"
    ]  #: what of the confirmed outlives: nothing, a restart, SIGKILL
    server_crash_duplicates: Literal["none", "bounded"]
    max_leases: int | None = None  #: that a client can hold at once; it's given no more then. None = no limit


class Broker(ABC):
    """Storage for envelopes. Subclass it, and name the class in the entry-point group `gotasks.brokers`."""

    #: The contract version that the class was written for; checked when it is loaded.
    api: ClassVar[int] = BROKER_API

    #: Fixed for an instance: the URL decides it.
    capabilities: Capability
    limits: Limits

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        self = super().__new__(cls)
        _living.add(self)
        return self

    @classmethod
    @abstractmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """A broker for `url`. Parses and validates; never connects.

        Raises InvalidURL on anything not understood (call `url.only(…)` for unknown parameters).
        """

    @abstractmethod
    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """Store them; return when all are durable.

        Returns those *not* stored because the same id (IDEMPOTENT) or unique key (UNIQUE) is there already, as
        a mapping from their id to the id that is there; `{}` otherwise. An id is known while its task lives and
        for `keep_for` seconds after. Raises Rejected (PayloadTooLarge) or BrokerUnavailable.
        """

    @abstractmethod
    def acquire(
        self,
        queue: str,
        *,
        limit: int,
        wait: float,
        lease_for: float,
        ids: Collection[str] | None = None,
    ) -> list[Lease]:
        """Lease up to `limit` envelopes that are ready, due, or left by a lease that is over.

        Returns as soon as it has one, never more than `limit`, and `[]` after `wait` seconds; `wait=0` sees
        whatever is ready now. Blocks on a wake-up where the server allows, and holds nothing while nobody asks.
        What was leased but couldn't be returned ends as a death. Content never makes it raise: an element that
        isn't this broker's own gets a stable id. `close` from another thread wakes it within 1 s.

        With `ids` (BROWSE): only these, due or not; all others are untouched, and `wait` is ignored.
        """

    @abstractmethod
    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        """Make the leases last `lease_for` seconds from now. Returns receipts that no longer hold (maybe not all)."""

    @abstractmethod
    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        """Replace the stored bodies and set deaths to 0. Returns exactly the receipts that no longer hold.

        The lease stays held, no longer and no shorter. `seq` is stored: a lower one than stored changes nothing
        and is lost, an equal one is a repeat. With HANDOFF the new body goes back to its queue and the lease
        ends, in one atomic step.
        """

    @abstractmethod
    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        """End the tasks. Returns exactly the receipts that no longer hold.

        With RECORDS the final body stays readable for `keep_for` seconds; 0 keeps nothing. Frees the unique key.
        """

    @abstractmethod
    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        """Put them back with a new body, `delay` and deaths 0, atomically. Returns exactly the lost receipts.

        Priority is kept. With `queue`, unless that is its own, it moves to the back of that queue: atomically where
        ATOMIC_MOVE is claimed, else it is stored there before it is gone here.
        """

    @abstractmethod
    def stats(self, queue: str) -> QueueStats:
        """Count what `queue` holds; zeros for a queue that was never used."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Remove what is ready or scheduled, never what is leased. Returns how many. Frees their unique keys."""

    def interrupt(self, queue: str) -> None:  # noqa: B027 - doing nothing is a fair answer to a hint
        """Let the calls of `acquire` that wait on `queue` through this object return at once. Any thread.

        A hint, so that a worker stops without waiting for its fetcher's time to be over. Never raises.
        """

    def close(self) -> None:
        """Let go of all connections. Idempotent. Every later call raises BrokerClosed, but `interrupt` does nothing."""
        return

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        """BROWSE: up to `limit` records of `queue` in `state`, the next to leave first, following the id `after`.

        `state` is scheduled, ready or leased; Unsupported for what has ended, which is found by its id only (`get`).
        Nothing follows an id that has left this state.
        """
        raise Unsupported(f"{type(self).__name__} can't browse a queue (BROWSE)")

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        """RECORDS: the records of these tasks; ids that aren't known are left out."""
        raise Unsupported(f"{type(self).__name__} keeps no records (RECORDS)")

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        """CANCEL: end these tasks as cancelled, held or not. Returns the ids that it ended."""
        raise Unsupported(f"{type(self).__name__} can't cancel a task (CANCEL)")

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """TRANSACTIONAL: like `enqueue`, inside the transaction that the caller has open on `connection`.

        The tasks are there if and only if that commits, from then on; before, nobody but the caller sees them or waits
        for them, unless it is to store one of these ids or unique keys. A delay counts from this call. The transaction
        and the connection stay the caller's: neither is committed, rolled back, closed or kept. What is answered as
        there, and what is Rejected, leaves the transaction usable, with all that the caller has done in it;
        BrokerUnavailable may leave nothing to do with it but a rollback. Raises ConfigurationError for a connection of
        a kind, or of a server, that isn't this broker's own; then nothing was done. Nobody but the caller uses the
        connection at the same time.
        """
        raise Unsupported(f"{type(self).__name__} can't enqueue in your transaction (TRANSACTIONAL)")

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        """TRANSACTIONAL: `enqueue_on`, on the event loop that `connection` belongs to.

        Calls `enqueue_on` on a thread, which is right for a connection that any thread may use. A broker whose callers
        have asynchronous connections overrides this for them; its `enqueue_on` refuses those (ConfigurationError).
        """
        return await asyncio.to_thread(self.enqueue_on, connection, envelopes)

    def refuse_unclaimed(self, items: Sequence[Envelope] | Sequence[Write]) -> None:
        """Raise Unsupported if an item has a delay, a priority or a unique key, and this broker doesn't claim it.

        For backends: `enqueue` and `release` call it before they do anything.
        """
        claimed = self.capabilities
        if _ASKED in claimed:
            return
        delays, priorities, keys = (each in claimed for each in _EACH_ASKED)
        for item in items:
            if item.delay and not delays:
                raise Unsupported(f"{type(self).__name__} can't delay a task (DELAY)")
            if isinstance(item, Envelope):
                if item.priority and not priorities:
                    raise Unsupported(f"{type(self).__name__} has no priorities (PRIORITY)")
                if item.unique is not None and not keys:
                    raise Unsupported(f"{type(self).__name__} has no unique keys (UNIQUE)")

    def warnings(self) -> Sequence[str]:
        """Sentences about settings of the server that weaken its promises; asked once, when a worker starts.

        May connect, and may raise BrokerUnavailable.
        """
        return ()

    def migrate(self) -> Sequence[str]:
        """Bring what it has set up on the server (tables, say) to what this version needs; say what was done.

        Safe beside workers, and beside others that do the same. For `gotasks migrate`; most brokers have nothing to do.
        """
        return ()

    def after_fork(self) -> None:
        """Called in the child of a fork: forget connections and locks, and refuse the parent's leases from now on."""
        return


#: What an envelope or a write asks for by one of its fields.
_EACH_ASKED = (Capability.DELAY, Capability.PRIORITY, Capability.UNIQUE)
_ASKED = Capability.DELAY | Capability.PRIORITY | Capability.UNIQUE

_living: weakref.WeakSet[Broker] = weakref.WeakSet()


def _after_fork() -> None:
    for broker in list(_living):
        broker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
