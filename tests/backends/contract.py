"""Small words for the tests of the broker contract."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from gotasks.broker import Broker, Envelope, Lease, QueueStats, Record, Write

#: The queue that a test uses where it needs only one.
QUEUE = "orders"

#: A lease that no test waits for. Seconds.
LONG = 60.0

_numbers = itertools.count(1)


def envelope(
    task_id: str | None = None,
    body: bytes = b"body",
    *,
    queue: str = QUEUE,
    delay: float = 0.0,
    priority: int = 0,
    unique: str | None = None,
) -> Envelope:
    """An envelope with an id that no other has, unless one is given."""
    return Envelope(
        id=task_id or f"task-{next(_numbers)}",
        queue=queue,
        body=body,
        delay=delay,
        priority=priority,
        unique=unique,
    )


def put(broker: Broker, count: int = 1, *, queue: str = QUEUE, delay: float = 0.0) -> list[str]:
    """Enqueue that many envelopes; their ids."""
    envelopes = [envelope(queue=queue, delay=delay) for _ in range(count)]
    assert broker.enqueue(envelopes) == {}
    return [each.id for each in envelopes]


def take(
    broker: Broker, limit: int = 1, *, queue: str = QUEUE, wait: float = 0.0, lease_for: float = LONG
) -> list[Lease]:
    """Acquire up to `limit`."""
    return broker.acquire(queue, limit=limit, wait=wait, lease_for=lease_for)


def take_one(
    broker: Broker,
    *,
    queue: str = QUEUE,
    wait: float = 0.0,
    lease_for: float = LONG,
    task_id: str | None = None,
) -> Lease:
    """Acquire exactly one, by its id if one is given."""
    ids = None if task_id is None else [task_id]
    (lease,) = broker.acquire(queue, limit=1, wait=wait, lease_for=lease_for, ids=ids)
    return lease


def write(
    lease: Lease, body: bytes = b"written", *, seq: int = 1, delay: float = 0.0, queue: str | None = None
) -> Write:
    """A write under `lease`."""
    return Write(lease=lease, body=body, seq=seq, delay=delay, queue=queue)


def ids_of(items: Iterable[Lease | Record]) -> list[str]:
    """The ids of leases or records, in their order."""
    return [item.envelope.id if isinstance(item, Lease) else item.id for item in items]


class Expected:
    """Counts that are equal to those of a broker as far as its server can say them."""

    def __init__(self, **counts: int) -> None:
        self._counts = counts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QueueStats):
            return NotImplemented
        found = msgspec.structs.asdict(other)
        return all(found[name] in (count, None) for name, count in self._counts.items())

    def __hash__(self) -> int:
        raise TypeError("what is equal to several isn't to be hashed")

    def __repr__(self) -> str:
        return f"Expected({self._counts})"


def stats(ready: int = 0, scheduled: int = 0, leased: int = 0) -> Any:
    """What a queue is expected to hold."""
    return Expected(ready=ready, scheduled=scheduled, leased=leased)


def let_end(leases: Collection[Lease]) -> None:
    """Let these leases run out. Nothing but the clock can tell, so this waits for the clock.

    Those without a time ended with their connections, when their holders were gone.
    """
    last = max([lease.deadline for lease in leases if math.isfinite(lease.deadline)], default=0.0) + 0.1
    threading.Event().wait(max(0.0, last - time.monotonic()))


def eventually(holds: Callable[[], bool], *, within: float = 10.0, what: str = "it") -> float:
    """Poll until `holds()`; how many seconds that took. Fails after `within` seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within, f"{what} wasn't so within {within:g} s"
        time.sleep(0.005)
    return time.monotonic() - began
