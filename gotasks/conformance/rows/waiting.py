"""Rows: waiting. How long `acquire` waits, what wakes it, and what becomes of a task that comes as it ends."""

from __future__ import annotations

import threading
import time
from functools import partial

from gotasks.broker import Broker, Lease
from gotasks.conformance.adapter import MissingHook, NotApplicable
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import PATIENCE, Scene, ids_of
from gotasks.errors import BrokerClosed

#: What wakes a blocked `acquire` must do so within this, on a busy machine. Seconds.
SOON = 1.0

#: Whoever is blocked takes less of the processor's time than this, beside all else that this process does. Seconds.
BUSY = 0.15

#: On a machine on which that much is not to be had in the time: less than half of what is, but this is always allowed.
CALM = 0.05


@row("DLV-03")
def an_empty_queue_is_waited_for_as_long_as_asked(it: Scene) -> None:
    """Given a queue that is empty, when it is acquired from, `[]` comes after `wait` seconds: not before, and not much
    later; with `wait=0` at once. Whoever waits is blocked: he neither keeps the processor busy nor talks to the server
    all the time.
    """
    client, proxy = it.broker, None
    try:
        proxy, url = it.proxy()
        client = it.client(url)
    except (MissingHook, NotApplicable) as error:
        it.figures["bytes sent while waiting"] = f"not counted: {error}"
    it.take(by=client)  # connect
    took = work = most = 0.0
    for wait in (0.0, 0.2, 1.2):  # below and above what a broker may wait for in one piece
        for _ in range(3):  # a machine may stand still for a moment
            sent = proxy.passed["requests"] if proxy is not None else 0
            began, work = time.monotonic(), time.process_time()
            leases = it.take(by=client, wait=wait)
            took, work = time.monotonic() - began, time.process_time() - work
            expect_equal(leases, [], "what acquire gives of an empty queue")
            expect(took >= wait * 0.95, f"acquire(wait={wait:g}) came back after {took:.2f} s, with nothing")
            most = min(BUSY, max(CALM, wait * _share() / 2))
            if took < wait + SOON and work < most:
                break
        expect(took < wait + SOON, f"acquire(wait={wait:g}) came back only after {took:.2f} s")
        expect(work < most, f"acquire(wait={wait:g}) kept the processor busy for {work:.2f} s: it spins")
    if proxy is not None:
        sent = proxy.passed["requests"] - sent
        it.figures["bytes sent while waiting"] = sent
        expect(sent < 10_000, f"acquire(wait={wait:g}) sent {sent} bytes: it polls")


def _share() -> float:
    """How much of a processor somebody who never waits has here at the moment."""
    began, work = time.monotonic(), time.thread_time()
    while time.monotonic() < began + 0.05:
        pass
    return (time.thread_time() - work) / (time.monotonic() - began)


@row("DLV-04")
def an_enqueue_wakes_a_blocked_acquire(it: Scene) -> None:
    """Given a client that is blocked in `acquire` on an empty queue, when another one enqueues a task, the first has
    it at once, however near to each other the two calls are: not only when its `wait` is over.
    """
    consumer, producer = it.client(), it.client()
    late, latencies = 0, []
    for _ in range(it.times(quick=30, full=200)):
        waiting = it.begin(lambda: it.take_one(by=consumer, wait=2 * SOON))
        # From before it has asked to when it is blocked.
        threading.Event().wait(it.random.uniform(0.0, 0.01))
        began = time.monotonic()
        it.put(by=producer)
        waiting.result(PATIENCE)
        latencies.append(time.monotonic() - began)
        late += latencies[-1] > SOON
        if late > 2:  # a machine may stand still for a moment, now and then
            break
    expect(late <= 2, f"{late} of {len(latencies)} tasks reached a blocked acquire only after {SOON:g} s")
    it.figures["median of wake-ups in ms"] = round(sorted(latencies)[len(latencies) // 2] * 1000, 2)
    it.figures["slowest wake-up in ms"] = round(max(latencies) * 1000, 2)


@row("DLV-11")
def an_acquire_that_ends_as_a_task_arrives_loses_nothing(it: Scene) -> None:
    """Given a task that arrives at the moment at which an `acquire` ends, because its `wait` is over, it is interrupted
    or its client is closed, the task is either returned by that call or offered again, every time.
    """
    sent: set[str] = set()
    seen: set[str] = set()
    producer, consumer = it.client(), it.client()

    def race(client: Broker, wait: float, lease_for: float, cut: str) -> None:
        waiting = it.begin(lambda: it.take(by=client, wait=wait, lease_for=lease_for))
        threading.Event().wait(it.random.uniform(0.0, 0.004))
        cutting = it.begin(lambda: client.interrupt(it.queue) if cut == "interrupt" else None)
        sent.update(it.put(by=producer))
        if cut == "close":
            client.close()
        cutting.result(PATIENCE)
        try:
            leases: list[Lease] = waiting.result(PATIENCE)
        except BrokerClosed:
            return
        seen.update(ids_of(leases))
        if cut != "close":
            client.ack([it.write(lease) for lease in leases], keep_for=0)

    for _ in range(it.times(quick=40, full=500)):
        race(consumer, it.random.uniform(0.0, 0.006), 60.0, "time")
        race(consumer, 0.3, 60.0, "interrupt")
    if consumer is not it.broker:
        for _ in range(it.times(quick=10, full=100)):
            race(it.client(), 0.3, it.lease, "close")
    end = time.monotonic() + it.lease + it.grace
    while not seen >= sent and time.monotonic() < end:
        leases = it.take(by=producer, wait=0.2)
        if leases:  # as slow a broker as it may be
            end = time.monotonic() + it.lease + it.grace
        seen.update(ids_of(leases))
        producer.ack([it.write(lease) for lease in leases], keep_for=0)
    expect(seen >= sent, f"{len(sent - seen)} of {len(sent)} tasks are gone: they came as an acquire ended")


@row("DLV-13")
def every_task_of_a_batch_wakes_a_worker_of_its_own(it: Scene) -> None:
    """Given six calls of `acquire` that are blocked, through two clients, when six tasks are enqueued in one call, all
    six return at once, each with one of them.
    """
    clients = it.client(), it.client()
    in_time = 0
    for _ in range(3):  # a machine may stand still for a moment
        waiting = [it.begin(partial(_timed_take, it, each)) for each in clients * 3]
        threading.Event().wait(0.02)  # were this too short, it would only be easier
        began = time.monotonic()
        it.put(6)
        results = [each.result(PATIENCE) for each in waiting]
        in_time = sum(len(leases) == 1 and at - began < SOON for leases, at in results)
        if in_time == 6:
            break
        it.drain()
    expect_equal(in_time, 6, f"how many of six blocked calls had one of six new tasks within {SOON:g} s")


def _timed_take(it: Scene, client: Broker) -> tuple[list[Lease], float]:
    return it.take(by=client, wait=2 * SOON), time.monotonic()


@row("DLV-14")
def a_release_wakes_a_blocked_acquire(it: Scene) -> None:
    """Given a client that is blocked in `acquire`, when a held task is released into its queue, be it from there or
    from another queue, the client has it at once.
    """
    holder, consumer = it.client(), it.client()
    for target in (it.queue, it.fatal):
        late: list[float] = []
        while len(late) < 3:  # a machine may stand still for a moment
            it.put()
            lease = it.take_one(by=holder)
            waiting = it.begin(partial(it.take_one, by=consumer, queue=target, wait=2 * SOON))
            threading.Event().wait(0.02)  # were this too short, it would only be easier
            began = time.monotonic()
            holder.release([it.write(lease, queue=None if target == it.queue else target)])
            consumer.ack([it.write(waiting.result(PATIENCE))], keep_for=0)
            took = time.monotonic() - began
            if took < SOON:
                break
            late.append(took)
        how = "a release" if target == it.queue else "a release from another queue"
        expect(len(late) < 3, f"{how} didn't wake a blocked acquire: it had the task {late} s later")


@row("DLV-15")
def a_blocked_acquire_gets_what_a_dead_holder_leaves(it: Scene) -> None:
    """Given a client that is blocked in `acquire` while another one holds the only task, when that one dies, the first
    has the task as soon as the lease is over, and `limits.recovery` seconds later at most.
    """
    holder, heir = it.client(), it.client()
    it.put()
    lease = it.take_one(by=holder, lease_for=it.lease)
    recovery = it.limits.recovery
    waiting = it.begin(
        lambda: (it.take_one(by=heir, wait=it.lease + recovery + 3 * SOON), time.monotonic()),
    )
    it.abandon([lease], by=holder)
    ended = min(lease.deadline, time.monotonic())
    _, at = waiting.result(recovery + PATIENCE)
    late = at - ended - recovery
    expect(late < 1.5 * SOON, f"a lease ended {late + recovery:.2f} s before a blocked acquire had the task")
