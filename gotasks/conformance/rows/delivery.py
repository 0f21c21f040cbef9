"""Rows: delivery. What was put in comes out: as it was, once, to one holder, with what happened to it before."""

from __future__ import annotations

import time

import msgspec

from gotasks.broker import Capability, Lease
from gotasks.conformance.expect import difference, expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of


@row("DLV-01")
def what_was_enqueued_comes_out_as_it_was(it: Scene) -> None:
    """Given an envelope whose body holds every byte there is, when another client acquires it, the lease carries the
    same id, queue and body, and says that nobody has died with it.
    """
    body = bytes(range(256))
    (sent,) = it.put(body=body)
    lease = it.take_one(by=it.client())
    seen = lease.envelope.id, lease.envelope.queue, lease.envelope.body, lease.deaths
    expect_equal(seen, (sent, it.queue, body, 0), "id, queue, body and deaths of what was enqueued")


@row("DLV-05")
def what_one_holds_nobody_else_gets(it: Scene) -> None:
    """Given a client that holds some tasks, when another acquires all it can, and waits for more, it gets the rest and
    none of those.
    """
    one, other = it.client(), it.client()
    sent = it.put(10)
    taken = [it.take_one(by=one) for _ in range(5)]
    taken += it.take_all(10, by=other)
    taken += it.take(by=other, wait=it.lease)
    differs = difference(sorted(ids_of(taken)), sorted(sent))
    expect(not differs, f"two clients that took all of ten tasks don't hold each of them once: {differs}")


@row("DLV-06")
def what_came_before_the_first_consumer_is_kept_for_him(it: Scene) -> None:
    """Given a queue that nobody has ever acquired from, when something is enqueued there and its producer leaves, the
    first consumer, who connects later, gets it.
    """
    queue = it.name("new")
    producer = it.client()
    sent = it.put(2, queue=queue, by=producer)
    if producer is not it.broker:
        producer.close()
    consumer = it.client()
    taken = it.take(by=consumer, queue=queue, wait=2.0) + it.take(by=consumer, queue=queue, wait=2.0)
    expect_equal(sorted(ids_of(taken)), sorted(sent), "what the first consumer of a queue gets")


@row("DLV-07", needs=Capability.IDEMPOTENT)
def an_id_that_is_there_is_not_stored_again(it: Scene) -> None:
    """Given a task, when its id is enqueued again, by the same client or another, alone or beside new ones, the answer
    names it, the first body stays, and it is delivered once. An id twice in one call is stored once. When its task has
    ended and left no record, an id is free.
    """
    first = it.envelope(b"first")
    again = it.envelope(b"again", task_id=first.id)
    it.broker.enqueue([first])
    expect_equal(it.client().enqueue([again]), {first.id: first.id}, "the answer to an id that is there")
    new = it.envelope(b"new")
    if it.limits.max_batch >= 3:
        it.client().enqueue([again, new, it.envelope(b"twice", task_id=new.id)])
    else:
        it.client().enqueue([new])
    bodies = sorted((lease.envelope.id, lease.envelope.body) for lease in it.drain())
    expect_equal(bodies, sorted([(first.id, b"first"), (new.id, b"new")]), "what is delivered of two ids")
    expect_equal(
        it.broker.enqueue([again]), {}, "the answer to the id of a task that has ended and left no record"
    )


@row("DLV-09", processes=True)
def another_process_sees_the_same_queue(it: Scene) -> None:
    """Given two processes that share nothing but the broker, when either of them enqueues, the other acquires it."""
    other = it.elsewhere()
    there = it.put(by=other)
    here = it.put(queue=it.fatal)
    taken = it.take(wait=5.0) + it.take(wait=5.0, by=other, queue=it.fatal)
    expect_equal(ids_of(taken), there + here, "what two processes get that the other one has enqueued")


@row("DLV-10")
def deaths_are_counted(it: Scene) -> None:
    """Given a task whose holders die one after the other, each next holder is told how many there were: 0, 1, 2."""
    it.put()
    seen = []
    for _ in range(3):
        holder = it.client()
        lease = it.take_one(by=holder, lease_for=it.lease, wait=it.limits.recovery + 5)
        seen.append(lease.deaths)
        if len(seen) < 3:
            it.abandon([lease], by=holder)
    expect_equal(seen, [0, 1, 2], "deaths, as three holders are told")


@row("DLV-12")
def acquire_gives_whatever_is_ready_up_to_its_limit(it: Scene) -> None:
    """Given five ready tasks, `acquire` without waiting gives as many as its limit, or all five if that is higher. One
    that waits comes back as soon as it has one. What was left by a holder that died counts like any other.
    """
    for limit in (1, 2, 5, 6):
        if limit <= it.limits.max_batch:
            queue = it.name(f"limit-{limit}")
            it.put(5, queue=queue)
            expect_equal(
                len(it.take(limit, queue=queue)), min(limit, 5), f"leases that acquire(limit={limit}) gave"
            )
    took = 0.0
    for _ in range(3):  # a machine may stand still for a moment
        it.put(queue=it.fatal)
        began = time.monotonic()
        it.take(min(9, it.limits.max_batch), queue=it.fatal, wait=2.0)
        took = time.monotonic() - began
        if took < 1.0:
            break
    expect(took < 1.0, f"with one task ready, acquire(limit=9) came back only after {took:.2f} s")
    holder = it.client()
    sent = it.put(4)
    left = [it.take_one(by=holder, lease_for=it.lease) for _ in range(2)]
    it.abandon(left, by=holder)
    heir, size = it.client(), min(3, it.limits.max_batch)
    end = time.monotonic() + it.grace
    taken: list[Lease] = []
    most = 0
    while len(taken) < 4 and time.monotonic() < end:
        leases = it.take(size, by=heir, wait=0.2)
        most = max(most, len(leases))
        taken += leases
    well = most <= size and sorted(ids_of(taken)) == sorted(sent)
    what = f"{len(taken)} leases, up to {most} in one call"
    expect(well, f"acquire(limit={size}) gave {what}, of two ready tasks and two that a dead holder left")


@row("DLV-16", needs=Capability.IDEMPOTENT)
def an_id_is_known_whatever_has_become_of_its_task(it: Scene) -> None:
    """Given tasks that are ready, delayed, held, and left by a dead holder, when their ids are enqueued again, into
    another queue, the answer names each, nothing is stored there, and each task is where it was.
    """
    holder = it.client()
    places = {word: it.name(word) for word in ("held", "left", "ready", "delayed")}
    bodies = {place: it.envelope(b"first", queue=place) for place in places.values()}
    if it.claims(Capability.DELAY):
        later = msgspec.structs.replace(bodies[places["delayed"]], delay=it.later)
        bodies[places["delayed"]] = later
    for each in bodies.values():
        it.broker.enqueue([each])
    it.take_one(queue=places["held"])
    left = it.take_one(queue=places["left"], by=holder, lease_for=it.lease)
    it.abandon([left], by=holder)
    for word, place in places.items():
        task_id = bodies[place].id
        there = it.broker.enqueue([it.envelope(b"again", task_id=task_id)])
        expect_equal(there, {task_id: task_id}, f"the answer to the id of a task that is {word}")
    offered = ids_of(it.take_all(len(places)))
    expect_equal(offered, [], "ids that were there and were stored once more")
