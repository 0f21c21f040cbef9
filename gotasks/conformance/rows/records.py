"""Rows: records. What can be asked of a task by its id: while it lives, for a while after, and not for ever."""

from __future__ import annotations

import threading
import time

from gotasks.broker import Capability, Lease, State
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene


@row("REC-01", needs=Capability.RECORDS)
def get_tells_where_a_task_is_and_what_it_holds(it: Scene) -> None:
    """Given tasks that are ready, scheduled, held, left by a lease that is over, put back, moved, and done,
    `get` gives for each its queue, its state and the body that was written last. An id that was never used is
    left out.
    """
    there = it.name("there")
    right: dict[str, tuple[str, State, bytes]] = {}

    def held(name: str) -> tuple[str, Lease]:
        queue = it.name(name)
        (task_id,) = it.put(body=b"sent", queue=queue)
        right[task_id] = queue, State.LEASED, b"sent"
        return task_id, it.take_one(queue=queue, lease_for=it.lease if name == "over" else LONG)

    (ready,) = it.put(body=b"sent")
    right[ready] = it.queue, State.READY, b"sent"
    checkpointed, lease = held("checkpointed")
    it.broker.checkpoint([it.write(lease, b"checkpointed")])
    state = State.READY if it.claims(Capability.HANDOFF) else State.LEASED
    right[checkpointed] = lease.envelope.queue, state, b"checkpointed"
    released, lease = held("released")
    it.broker.release([it.write(lease, b"released")])
    right[released] = lease.envelope.queue, State.READY, b"released"
    moved, lease = held("moved")
    it.broker.release([it.write(lease, b"moved", queue=there)])
    right[moved] = there, State.READY, b"moved"
    done, lease = held("done")
    it.broker.ack([it.write(lease, b"done")], keep_for=LONG)
    right[done] = lease.envelope.queue, State.DONE, b"done"
    if it.claims(Capability.DELAY):
        later = it.name("later")
        (scheduled,) = it.put(body=b"sent", queue=later, delay=it.later)
        (due,) = it.put(body=b"sent", queue=later, delay=it.lease / 2)
        right |= {scheduled: (later, State.SCHEDULED, b"sent"), due: (later, State.READY, b"sent")}
        it.eventually(
            lambda: due not in it.broker.get([due]) or it.broker.get([due])[due].state is State.READY,
            "a task as ready whose delay is over",
            within=it.lease + it.grace,
        )
    if it.claims(Capability.TIMED_LEASE):
        it.abandon([held("over")[1]])
    records = it.broker.get([*right, it.envelope().id])
    seen = {task_id: (each.queue, each.state, each.body) for task_id, each in records.items()}
    for task_id, where in right.items():
        expect_equal(seen.get(task_id), where, "queue, state and body that get tells")
    expect_equal(len(seen), len(right), "records of that many tasks and of an id that was never used")


@row("REC-02", needs=Capability.RECORDS)
def a_final_body_can_be_read_for_keep_for(it: Scene) -> None:
    """Given a task that is acked with `keep_for`, its record is done and holds the final body for that long,
    and then it is gone. With a `keep_for` of 0 nothing is kept at all.
    """
    keep_for = 2 * it.lease
    (kept,), lease = it.put(), it.take_one()
    began = time.monotonic()
    it.broker.ack([it.write(lease, b"final")], keep_for=keep_for)
    (gone,), lease = it.put(), it.take_one()
    it.broker.ack([it.write(lease)], keep_for=0)
    records = it.broker.get([kept, gone])
    if time.monotonic() < began + keep_for:
        seen = {each.id: (each.state, each.body) for each in records.values()}
        expect(gone not in seen, "there is a record of a task that was acked with keep_for=0")
        expect_equal(
            seen.get(kept), (State.DONE, b"final"), "the record of a task that was acked with keep_for"
        )
    else:
        it.figures["the record"] = "looked for too late to tell"
    it.eventually(lambda: not it.broker.get([kept]), "the end of a record whose keep_for is over")
    lived = time.monotonic() - began
    expect(lived > keep_for - 0.01, f"a record was gone after {lived:.2f} s; keep_for was {keep_for:g} s")


@row("REC-03", needs=Capability.RECORDS | Capability.IDEMPOTENT)
def an_id_is_taken_while_there_is_a_record_of_it(it: Scene) -> None:
    """Given a task that was acked with `keep_for`, when its id is enqueued again, it is there already and isn't
    stored. Once the record is gone, the same id is a new task.
    """
    sent = it.envelope(b"first")
    it.broker.enqueue([sent])
    lease, before = it.take_one(), time.monotonic()
    it.broker.ack([it.write(lease, b"final")], keep_for=2 * it.lease)
    again = it.envelope(b"second", task_id=sent.id)
    there = it.broker.enqueue([again])
    if time.monotonic() < before + 2 * it.lease:
        expect_equal(
            dict(there), {sent.id: sent.id}, "what enqueue returns for an id of which there is a record"
        )
        stored = it.drain()
        expect_equal(len(stored), 0, "tasks that come out after an id was enqueued that is there already")
    else:
        it.figures["the id"] = "enqueued again too late to tell"
        it.drain()

    def taken() -> list[Lease]:
        it.broker.enqueue([again])
        return it.take()

    (lease,) = it.eventually(taken, "a new task with an id whose record is gone")
    seen = lease.envelope.body, lease.deaths
    expect_equal(seen, (b"second", 0), "body and deaths of a new task with an old id")


@row("REC-04", needs=Capability.RECORDS)
def a_purge_leaves_no_record_however_much_it_removes(it: Scene) -> None:
    """Given more waiting tasks than fit in a call, some of them due by now, when their queue is purged, all are
    counted, none has a record any more, and their ids may be used again.
    """
    count = 2 * min(it.limits.max_batch, 5000) + 10
    sent = it.put(count)
    if it.claims(Capability.DELAY):
        sent += it.put(2, delay=0.05)
        it.eventually(lambda: it.broker.get([sent[-1]])[sent[-1]].state is State.READY, "the end of a delay")
    expect_equal(it.broker.purge(it.queue), len(sent), "how many a purge says that it has removed")
    some = [sent[0], sent[count // 2], sent[-1]]
    expect_equal(sorted(it.broker.get(some)), [], "ids of purged tasks of which there is a record")
    again = [it.envelope(b"again", task_id=each) for each in some]
    for each in again:
        it.broker.enqueue([each])
    bodies = {each.envelope.id: each.envelope.body for each in it.drain()}
    expect_equal(
        bodies, dict.fromkeys(some, b"again"), "what comes out after ids of purged tasks are used again"
    )


@row("TTL-01", needs=Capability.RECORDS)
def a_task_that_lives_has_no_time_to_live(it: Scene) -> None:
    """Given tasks that wait, that are held and checkpointed, or that have the id of one that ended before, when
    more time has passed than finished tasks are kept for, all of them are there as they were.
    """
    keep_for = it.lease / 2
    waiting, reused = it.put(body=b"alive"), it.envelope(b"alive")
    busy = it.name("busy")
    held = it.put(queue=busy)
    it.broker.checkpoint([it.write(it.take_one(queue=busy), b"alive")])
    alive = [*waiting, *held, reused.id]
    if it.claims(Capability.DELAY):
        alive += it.put(body=b"alive", queue=busy, delay=it.later)
    other = it.name("other")
    for task_id in (it.envelope().id, reused.id):
        it.broker.enqueue([it.envelope(queue=other, task_id=task_id)])
        it.broker.ack([it.write(it.take_one(queue=other))], keep_for=keep_for)
    it.eventually(lambda: not it.broker.get([reused.id]), "the end of a record whose keep_for is over")
    it.broker.enqueue([reused])
    threading.Event().wait(2 * keep_for)  # nothing but the clock can tell
    bodies = {each.id: each.body for each in it.broker.get(alive).values()}
    expect_equal(bodies, dict.fromkeys(alive, b"alive"), "records of tasks that haven't ended")


@row("TTL-02")
def finished_tasks_leave_nothing_behind(it: Scene) -> None:
    """Given many tasks that went through all that a task can (checkpoints, releases, moves, delays, purges,
    records that are kept for a while), when the last record's time is over, the backend stores no more than
    after the first few.
    """
    it.adapter.dump(it.url)  # skips the row where nobody can look

    def run(count: int) -> None:
        delay = 0.001 if it.claims(Capability.DELAY) else 0.0
        keep_for = 0.2 if it.claims(Capability.RECORDS) else 0.0
        for start in range(0, count, size := min(it.limits.max_batch, 100)):
            it.put(min(size, count - start), delay=delay)
            it.put(1, queue=it.fatal)
            it.broker.purge(it.fatal)
            while leases := it.take(size, wait=0.2):
                it.broker.checkpoint([it.write(each, seq=1) for each in leases])
                if it.claims(Capability.HANDOFF):
                    leases = it.take(size)
                it.broker.release([it.write(each, seq=2, queue=it.fatal) for each in leases])
            while leases := it.take(size, queue=it.fatal):
                it.broker.ack([it.write(each) for each in leases], keep_for=keep_for)

    def stored() -> tuple[int, int]:
        sizes = it.adapter.dump(it.url)
        return len(sizes), sum(sizes.values())

    run(5)
    first = stored()
    run(it.times(quick=200, full=5000))
    end = time.monotonic() + 5.0
    while (last := stored()) > first and time.monotonic() < end:
        time.sleep(0.1)
        it.drain()  # what is over may be thrown away by the calls of others
    it.figures["elements stored"] = last[0]
    seen = f"{last[0]} elements are stored after many tasks have ended, {first[0]} were after the first five"
    expect(last[0] <= first[0], seen)
    expect(last[1] <= first[1] + 4096, f"{seen}; bytes: {last[1]}, {first[1]} before")
