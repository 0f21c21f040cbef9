"""Crowd: whether what a task costs grows with what else is stored: other tasks, records of finished ones, other queues.

Two places on the same server, one crowded and one not, take turns, so that what disturbs the machine disturbs both. In
each, ten tasks at a time are acquired and acked, as a worker of ten slots does it.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Mapping

from gotasks.broker import Broker, Envelope, Write
from gotasks.discovery import open_broker

#: A stored task of usual size.
_BODY = b"x" * 300

_TOGETHER = 10
_MOST = 1000

#: Tasks that wait in the place that isn't crowded.
_FEW = 10_000

#: Of many queues a worker serves so many.
_SERVED = 10

#: Seconds for which what was taken stays taken: it never comes back meanwhile.
_LEASE = 600.0


def crowded(url: str, what: str, size: int, samples: int) -> Mapping[str, float]:
    """Microseconds a task in both places (`few`, `many`), and how many times dearer it is in the crowded one (`times`).

    `size`: of the crowd; `samples`: how often ten tasks are taken in each place.
    """
    few, many = (open_broker(_place(url, name)) for name in ("few", "many"))
    try:
        queues = _CROWDS[what](few, many, size, samples)
        times: dict[Broker, list[float]] = {few: [], many: []}
        for number in range(samples):
            for broker, taken in times.items():
                began = time.perf_counter()
                _finish(broker, queues[number % len(queues)], _TOGETHER)
                taken.append(time.perf_counter() - began)
    finally:
        few.close()
        many.close()
    one, other = (statistics.median(taken) / _TOGETHER * 1e6 for taken in times.values())
    return {"few": one, "many": other, "times": other / one}


def _place(url: str, name: str) -> str:
    """One of two places at the URL, which is the peer's own."""
    if "namespace=" in url:
        return f"{url}-{name}"
    return f"{url}{'&' if '?' in url else '?'}prefix={name}_"


def _backlog(few: Broker, many: Broker, size: int, samples: int) -> list[str]:
    """Tasks that wait."""
    _enqueue(few, "queue", max(_FEW, 2 * _TOGETHER * samples))
    _enqueue(many, "queue", size)
    return ["queue"]


def _records(few: Broker, many: Broker, size: int, samples: int) -> list[str]:
    """Tasks that are finished, and can still be asked for."""
    _enqueue(many, "queue", size)
    for start in range(0, size, _MOST):
        _finish(many, "queue", min(_MOST, size - start))
    for broker in (few, many):
        _enqueue(broker, "queue", max(_FEW, 2 * _TOGETHER * samples))
    return ["queue"]


def _queues(few: Broker, many: Broker, size: int, samples: int) -> list[str]:
    """Queues with a hundred tasks in each."""
    served = [f"served-{number}" for number in range(_SERVED)]
    for name in served:
        for broker in (few, many):
            _enqueue(broker, name, 2 * _TOGETHER * max(1, samples // _SERVED))
    for number in range(size - _SERVED):
        _enqueue(many, f"other-{number}", 100)
    return served


_CROWDS: Mapping[str, Callable[[Broker, Broker, int, int], list[str]]] = {
    "backlog": _backlog,
    "records": _records,
    "queues": _queues,
}


def _enqueue(broker: Broker, queue: str, tasks: int) -> None:
    most = min(_MOST, broker.limits.max_batch)
    for start in range(0, tasks, most):
        count = min(most, tasks - start)
        broker.enqueue([Envelope(id=uuid.uuid4().hex, queue=queue, body=_BODY) for _ in range(count)])


def _finish(broker: Broker, queue: str, limit: int) -> None:
    """Acquire and ack up to `limit` tasks; their records are kept."""
    left = limit
    while left > 0:
        leases = broker.acquire(queue, limit=min(left, broker.limits.max_batch), wait=0, lease_for=_LEASE)
        if not leases:
            raise RuntimeError(f"{left} of {limit} tasks weren't there")
        lost = broker.ack([Write(lease=lease, body=_BODY, seq=1) for lease in leases], keep_for=1000)
        if lost:
            raise RuntimeError(f"{len(lost)} leases were lost")
        left -= len(leases)
