"""Rows: concurrency. Many clients at once do what one would have done: nothing is lost, doubled, or over a limit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gotasks.broker import Broker, Lease, Write
from gotasks.conformance.expect import difference, expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene, ids_of


@row("CON-01", processes=True, timeout=180)
def many_processes_drain_a_queue(it: Scene) -> None:
    """Given a full queue, when eight processes with four threads each drain it, acquiring a few at a time, each task
    is delivered once, and no ack is lost.
    """
    others = [it.elsewhere() for _ in range(it.times(quick=3, full=8))]
    total = it.times(quick=300, full=5000)
    sent = it.put(total)
    for other in others:
        other.stats(it.queue)  # it is there
    draining = [other.start(drain_in_threads, it.queue, min(5, it.limits.max_batch)) for other in others]
    results = [each.result(150) for each in draining]
    delivered = [task for tasks, _ in results for task in tasks]
    differs = difference(sorted(delivered), sorted(sent))
    expect(
        not differs,
        f"of {total} tasks that {len(others)} processes drained, wrong ones were delivered: {differs}",
    )
    lost = sum(lost for _, lost in results)
    expect_equal(lost, 0, f"acks lost of {total} tasks whose leases held, by {len(others)} processes")
    it.figures["tasks"] = total
    it.figures["least of one process"] = min(len(tasks) for tasks, _ in results)


def drain_in_threads(broker: Broker, queue: str, limit: int) -> tuple[list[str], int]:
    """Drain `queue` with four threads; the ids that were delivered, and how many acks were lost. Runs elsewhere."""
    delivered: list[str] = []
    lost: list[str] = []

    def drain() -> None:
        while leases := broker.acquire(queue, limit=limit, wait=0.2, lease_for=LONG):
            delivered.extend(ids_of(leases))
            lost.extend(broker.ack([Write(lease=each, body=b"", seq=1) for each in leases], keep_for=0))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(drain) for _ in range(4)]:
            done.result()
    return delivered, len(lost)


@row("CON-02")
def under_load_no_acquire_gets_more_than_its_limit(it: Scene) -> None:
    """Given clients that acquire at the same time while others enqueue, none is given more leases than it asked for,
    and none is held beyond what was given: at rest the queue counts as leased exactly those.
    """
    clients = it.client(), it.client()
    rounds = it.times(quick=15, full=250)
    over: list[str] = []
    taken: list[Lease] = []
    enqueued: list[str] = []

    def acquire(client: Broker, limit: int) -> None:
        while len(enqueued) < 8 * rounds:
            leases = it.take(limit, by=client, wait=0.05)
            taken.extend(leases)
            if len(leases) > limit:
                over.append(f"acquire(limit={limit}) gave {len(leases)}")

    def enqueue(client: Broker) -> None:
        for _ in range(rounds):
            enqueued.extend(it.put(4, by=client))
            threading.Event().wait(0.001)  # so that it takes long enough for the others

    acquiring = [
        partial(acquire, clients[limit % 2], min(limit, it.limits.max_batch)) for limit in (1, 2, 3, 6)
    ]
    it.in_threads(*acquiring, *[partial(enqueue, client) for client in clients])
    expect(not over, f"{len(over)} calls gave more leases than they asked for, the first: {over[:1]}")
    rest = it.at_rest(ready=len(enqueued) - len(taken), leased=len(taken))
    expect_equal(it.broker.stats(it.queue), rest, f"what is counted with {len(taken)} leases given")


@row("CON-03")
def writers_at_the_same_time_do_not_see_each_other(it: Scene) -> None:
    """Given sixteen threads of several clients, when all enqueue, acquire, extend, checkpoint, release, ack and count
    in one queue, no call raises (what the server can't do at the same time is repeated inside), and no task is lost.
    """
    clients = it.client(), it.client(), it.client()
    rounds = it.times(quick=6, full=100)
    errors: list[str] = []
    sent: list[str] = []
    ended: list[str] = []

    def work(client: Broker) -> None:
        for turn in range(rounds):
            try:
                sent.extend(it.put(2, by=client))
                leases = it.take(min(3, it.limits.max_batch), by=client)
                client.extend(leases, lease_for=it.long)
                if turn % 2:
                    lost = client.checkpoint([it.write(lease) for lease in leases[:1]])
                    lost |= client.release([it.write(lease, seq=2) for lease in leases[1:2]])
                rest = leases[2:] if turn % 2 else leases
                lost = client.ack([it.write(lease, seq=3) for lease in rest], keep_for=0)
                ended.extend(lease.envelope.id for lease in rest if lease.receipt not in lost)
                if turn % 2:
                    client.release([it.write(lease, seq=4) for lease in leases[:1]])
                client.stats(it.queue)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

    it.in_threads(*[partial(work, clients[index % 3]) for index in range(16)], timeout=50)
    expect(not errors, f"{len(errors)} rounds of sixteen writers raised, the first: {errors[:1]}")
    ended += ids_of(it.drain())
    differs = difference(sorted(ended), sorted(sent))
    expect(
        not differs, f"of {len(sent)} tasks that sixteen writers shared, not all ended, and once: {differs}"
    )


@row("CON-04")
def many_threads_get_each_task_once(it: Scene) -> None:
    """Given two clients with four threads each, when all take what they can get of one queue while it is filled, and no
    lease ends, every task is delivered once, and to one of them only.
    """
    clients = it.client(), it.client()
    total = it.times(quick=200, full=1000)
    sent: list[str] = []
    delivered: list[str] = []

    def take(client: Broker, limit: int) -> None:
        idle = False
        while not idle or len(sent) < total:
            idle = len(sent) == total
            while leases := it.take(limit, by=client, wait=0.05):
                delivered.extend(ids_of(leases))

    def fill() -> None:
        while len(sent) < total:
            sent.extend(it.put(4))

    sizes = [min(size, it.limits.max_batch) for size in (1, 1, 3, 10)]
    it.in_threads(fill, *[partial(take, client, size) for client in clients for size in sizes], timeout=50)
    differs = difference(sorted(delivered), sorted(sent))
    expect(not differs, f"of {total} tasks that eight threads took, wrong ones were delivered: {differs}")
