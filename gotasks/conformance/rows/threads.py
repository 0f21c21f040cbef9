"""Rows: threads. One client is enough for a process, however many threads it has."""

from __future__ import annotations

import random
import time
from collections import Counter
from queue import Empty, SimpleQueue

from gotasks.broker import Capability, Lease
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene

#: How many threads, and how long they go on while nothing comes. Seconds.
_THREADS, _STALLED = 16, 2.0


@row("THR-01", timeout=90)
def sixteen_threads_share_one_client(it: Scene) -> None:
    """Given one client and 16 threads that enqueue, acquire, extend, checkpoint and release through it, when each task
    is acked by another thread than the one that took it, every task is acked once, and no write is lost.
    """
    each = it.times(quick=6, full=40)
    enqueued: list[str] = []
    acked: list[str] = []
    lost: list[str] = []
    handed: SimpleQueue[tuple[int, Lease]] = SimpleQueue()  #: what a thread has taken, for another one to ack
    seeds = [it.random.randrange(2**32) for _ in range(_THREADS)]

    def main(number: int) -> None:
        rng = random.Random(seeds[number])
        for _ in range(each):
            enqueued.extend(it.put())
        stalled = time.monotonic() + _STALLED
        while len(acked) < each * _THREADS and time.monotonic() < stalled:
            for lease in it.take(rng.randint(1, 3), wait=0.01):
                hold(rng, number, lease)
                stalled = time.monotonic() + _STALLED
            if finish(number):
                stalled = time.monotonic() + _STALLED

    def hold(rng: random.Random, number: int, lease: Lease) -> None:
        chance = rng.random()
        if chance < 0.3:
            note("extend", it.broker.extend([lease], lease_for=it.long))
        if chance < 0.5:
            note("checkpoint", it.broker.checkpoint([it.write(lease)]))
            if it.claims(Capability.HANDOFF):
                return
        if chance < 0.2:
            note("release", it.broker.release([it.write(lease, seq=2)]))
        else:
            handed.put((number, lease))

    def finish(number: int) -> bool:
        try:
            by, lease = handed.get_nowait()
        except Empty:
            return False
        if by == number:
            handed.put((by, lease))
            return False
        note("ack", it.broker.ack([it.write(lease, seq=3)], keep_for=0))
        acked.append(lease.envelope.id)
        return True

    def note(what: str, receipts: frozenset[str]) -> None:
        lost.extend([what] * len(receipts))

    it.in_threads(*(lambda number=number: main(number) for number in range(_THREADS)), timeout=60)
    it.figures["tasks"] = len(acked)
    expect_equal(Counter(lost), Counter(), "writes under leases that held, and were said to be lost")
    wrong = Counter(enqueued)
    wrong.subtract(acked)
    expect_equal(
        {task_id: -count for task_id, count in wrong.items() if count},
        {},
        "tasks that were acked never (-1) or twice (1)",
    )
