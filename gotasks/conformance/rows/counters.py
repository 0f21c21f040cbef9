"""Rows: counters. What a queue is said to hold is what it holds; a purge removes what waits there, and nothing else."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial

from gotasks.broker import Broker, Capability, Lease, QueueStats
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of


@row("CNT-01")
def the_counts_are_true_after_every_call(it: Scene) -> None:
    """Given a queue and another one, when tasks are enqueued, taken, checkpointed, put back, moved, delayed, acked,
    purged and left by dead holders, in any order, the counts of both are exact after every call, as far as the server
    can say them. What was never used counts zero, and a lease that is over counts as leased until it is taken over.
    """
    if it.broker.stats(it.queue) == QueueStats(ready=None, scheduled=None, leased=None):
        raise NotApplicable("its stats say None")
    model = _Model(it)
    model.compare("nothing at all")
    for _ in range(it.times(quick=80, full=500)):
        model.step()
    if it.claims(Capability.TIMED_LEASE):
        model.let_one_end()


class _Model:
    """What two queues must hold."""

    def __init__(self, it: Scene) -> None:
        self.it = it
        self.queues = it.queue, it.name("others")
        self.counts = {queue: Counter[str]() for queue in self.queues}
        self.held: dict[str, list[Lease]] = {queue: [] for queue in self.queues}
        self.seq = 0
        self.delay = it.later
        words = [self.put, self.put, self.take, self.take, self.ack, self.release, self.move, self.checkpoint]
        words += [self.put_later, self.release_later] if it.claims(Capability.DELAY) else []
        self.words = [*words, *words, self.purge]

    def compare(self, what: str) -> None:
        for queue, counts in self.counts.items():
            seen = self.it.broker.stats(queue)
            expected = QueueStats(
                ready=None if seen.ready is None else counts["ready"],
                scheduled=None if seen.scheduled is None else counts["scheduled"],
                leased=None if seen.leased is None else counts["leased"],
            )
            which = "this queue" if queue == self.it.queue else "the other queue"
            expect_equal(seen, expected, f"what is counted after {what} ({which})")

    def step(self) -> None:
        word = self.it.random.choice(self.words)
        queue = self.it.random.choice(self.queues)
        if word(queue):
            self.compare(
                f"{word.__name__.replace('_', ' ')} of {'this' if queue == self.it.queue else 'the other'} queue"
            )

    def put(self, queue: str) -> bool:
        count = self.it.random.choice([1, 2, 5])
        self.it.put(count, queue=queue)
        self.counts[queue]["ready"] += count
        return True

    def put_later(self, queue: str) -> bool:
        self.it.put(queue=queue, delay=self.delay)
        self.counts[queue]["scheduled"] += 1
        return True

    def take(self, queue: str) -> bool:
        leases = self.it.take(min(self.it.random.choice([1, 2]), self.it.limits.max_batch), queue=queue)
        self.held[queue] += leases
        self.counts[queue]["ready"] -= len(leases)
        self.counts[queue]["leased"] += len(leases)
        return True

    def ack(self, queue: str) -> bool:
        return self.end(queue, None, "")

    def release(self, queue: str) -> bool:
        return self.end(queue, queue, "ready")

    def release_later(self, queue: str) -> bool:
        return self.end(queue, queue, "scheduled")

    def move(self, queue: str) -> bool:
        return self.end(queue, next(each for each in self.queues if each != queue), "ready")

    def end(self, queue: str, target: str | None, state: str) -> bool:
        """End one lease: by an ack, or by a release that puts it into `target`."""
        if not self.held[queue]:
            return False
        lease = self.held[queue].pop(self.it.random.randrange(len(self.held[queue])))
        self.counts[queue]["leased"] -= 1
        self.seq += 1
        if target is None:
            self.it.broker.ack([self.it.write(lease, seq=self.seq)], keep_for=0)
            return True
        delay = self.delay if state == "scheduled" else 0.0
        moved = None if target == queue else target
        self.it.broker.release([self.it.write(lease, seq=self.seq, delay=delay, queue=moved)])
        self.counts[target][state] += 1
        return True

    def checkpoint(self, queue: str) -> bool:
        if not self.held[queue]:
            return False
        if self.it.claims(Capability.HANDOFF):
            lease = self.held[queue].pop()
            self.counts[queue]["leased"] -= 1
            self.counts[queue]["ready"] += 1
        else:
            lease = self.it.random.choice(self.held[queue])
        self.seq += 1
        self.it.broker.checkpoint([self.it.write(lease, seq=self.seq)])
        return True

    def purge(self, queue: str) -> bool:
        self.it.broker.purge(queue)
        self.counts[queue]["ready"] = self.counts[queue]["scheduled"] = 0
        return True

    def let_one_end(self) -> None:
        """A lease that is over, and then taken over, counts as leased all the time."""
        queue = self.queues[0]
        self.purge(queue)
        self.it.put(queue=queue)
        lease = self.it.take_one(queue=queue, lease_for=self.it.lease)
        self.counts[queue]["leased"] += 1
        self.it.abandon([lease])
        self.compare("the end of a lease that nobody has taken over")
        heir = self.it.take_one(queue=queue, wait=self.it.grace)
        self.compare("the takeover of a lease that was over")
        self.it.broker.ack([self.it.write(heir)], keep_for=0)
        self.counts[queue]["leased"] -= 1
        self.compare("the ack of what was taken over")


@row("PUR-01")
def a_purge_removes_what_waits_in_its_queue_and_nothing_else(it: Scene) -> None:
    """Given a queue with ready, delayed and held tasks, and others with names like its own, when it is purged, the
    answer is how many were ready or delayed; those never come again, those that are held can be finished, and the other
    queues are as they were.
    """
    neighbours = [
        it.queue + ".late",
        it.queue + "s",
        it.queue + "-",
        it.queue[:-1],
        it.queue.swapcase(),
        "." + it.queue,
    ]
    holder = it.client()
    it.put(2)
    held = [it.take_one(by=holder) for _ in range(2)]
    waiting = it.put(3)
    if it.claims(Capability.DELAY):
        waiting += it.put(2, delay=it.later)
    sent = []
    for each in neighbours:
        it.at_end(partial(it.broker.purge, each))
        sent += it.put(queue=each)
    count = it.client().purge(it.queue)
    expect_equal(count, len(waiting), "how many a purge says that it has removed")
    left = [one for each in neighbours for one in ids_of(it.drain(queue=each))]
    expect_equal(left, sent, "what is left in other queues after a purge")
    lost = [one.envelope.id for one in held if holder.ack([it.write(one)], keep_for=0)]
    expect_equal(lost, [], "held tasks that a purge has taken away from their holder")
    seen = ids_of(it.take_all(9)), it.broker.stats(it.queue)
    expect_equal(seen, ([], it.at_rest()), "what is offered and counted after a purge")


@row("PUR-02")
def a_purge_beside_other_calls_takes_whole_tasks(it: Scene) -> None:
    """Given clients that enqueue and others that acquire and ack, when the queue is purged all the while, each task was
    either acked by its holder or removed by a purge, which counts it: none is in between, and none comes again.
    """
    clients = it.client(), it.client()
    rounds = it.times(quick=30, full=400)
    sent: list[str] = []
    acked: list[str] = []
    lost: list[str] = []
    purged: list[int] = []

    def enqueue(client: Broker) -> None:
        for _ in range(rounds):
            sent.extend(it.put(3, by=client))
            threading.Event().wait(0.001)  # so that it takes long enough for the others

    def work(client: Broker) -> None:
        while len(sent) < rounds * 6:
            leases = it.take(min(2, it.limits.max_batch), by=client)
            threading.Event().wait(0.001)  # hold them for a moment
            gone = client.ack([it.write(lease) for lease in leases], keep_for=0)
            lost.extend(lease.envelope.id for lease in leases if lease.receipt in gone)
            acked.extend(lease.envelope.id for lease in leases if lease.receipt not in gone)

    def purge(client: Broker) -> None:
        while len(sent) < rounds * 6:
            purged.append(client.purge(it.queue))

    it.in_threads(
        *[partial(each, client) for each in (enqueue, work, purge) for client in clients], timeout=50
    )
    expect_equal(lost, [], "held tasks that a purge has taken away from their holders")
    left = ids_of(it.drain())
    total = len(acked) + sum(purged) + len(left)
    parts = f"{len(acked)} tasks acked, {sum(purged)} purged and {len(left)} left, all told,"
    expect(total == len(sent), f"{parts} of {len(sent)} that were enqueued: some are gone, or came again")
    it.figures["purged"], it.figures["acked"] = sum(purged), len(acked)
