"""Rows: traces. What is over has no effect any more: on the next lease, the next call, the next task of the same id."""

from __future__ import annotations

import threading
import time

from gotasks.broker import Capability, Lease
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.rows.lapses import let_go
from gotasks.conformance.scene import PATIENCE, Scene, ids_of

RECORDS = Capability.RECORDS


@row("DTH-07")
def a_new_task_of_an_old_id_has_not_died(it: Scene) -> None:
    """Given tasks whose holders died, and that were then acked (and, with CANCEL, cancelled) with nothing kept of them,
    when their ids are enqueued again, the new tasks have no deaths.
    """
    sent = [it.envelope(), it.envelope()]
    again = [it.envelope(b"again", task_id=each.id) for each in sent]
    holder, other = it.client(), it.client()
    for each in sent:
        it.broker.enqueue([each])
    let_go(it, it.take_all(2, by=holder), holder)
    for lease in it.take_all(2, by=other, wait=it.lease + it.grace):
        if lease.envelope.id == sent[0].id and it.claims(Capability.CANCEL):
            other.cancel([lease.envelope.id], keep_for=0)
        else:
            other.ack([it.write(lease)], keep_for=0)
    for each in again:
        it.broker.enqueue([each])
    leases = it.take_all(2, by=other)
    expect_equal(
        sorted((each.envelope.id, each.deaths) for each in leases),
        sorted((each.id, 0) for each in again),
        "ids and deaths of new tasks with ids of tasks that had died once and ended",
    )


@row("DTH-08", needs=Capability.DELAY)
def a_delayed_move_takes_no_deaths_along(it: Scene) -> None:
    """Given a task whose holder died, when the next one moves it into another queue with a delay, it has no deaths
    there.
    """
    it.put()
    holder, other = it.client(), it.client()
    let_go(it, [it.take_one(by=holder)], holder)
    lease = it.take_one(by=other, wait=it.lease + it.grace)
    other.release([it.write(lease, queue=it.fatal, delay=0.01)])
    moved = it.take_one(by=other, queue=it.fatal)
    expect_equal(moved.deaths, 0, "deaths of a task that had died once and was moved with a delay")


@row("DLV-17")
def an_interrupt_ends_no_later_wait(it: Scene) -> None:
    """Given an `acquire` that was interrupted, when the same queue is acquired from again, that call waits: `[]` comes
    after `wait` seconds, and not before.
    """
    call = it.begin(lambda: it.take(wait=1.0))
    threading.Event().wait(0.02)  # were this too short, it would interrupt nobody, which is as good here
    it.broker.interrupt(it.queue)
    call.result(PATIENCE)
    began = time.monotonic()
    it.take(wait=0.2)
    took = time.monotonic() - began
    expect(
        took >= 0.19,
        f"the first acquire(wait=0.2) after an interrupt came back after {took:.3f} s, with nothing",
    )


@row("DLV-18")
def a_limit_of_zero_gives_nothing(it: Scene) -> None:
    """Given a ready task, when `acquire` is called with a `limit` of 0, it gives nothing, and the task is left."""
    (sent,) = it.put()
    given: list[Lease] = it.broker.acquire(it.queue, limit=0, wait=0, lease_for=it.long)
    expect_equal((ids_of(given), ids_of(it.take())), ([], [sent]), "what limits of 0 and then of 1 give")


@row("REC-05", needs=RECORDS)
def a_repeated_ack_lengthens_no_record(it: Scene) -> None:
    """Given a task that is acked with `keep_for`, when the same ack is sent again and again, its record is gone all the
    same when that time is over, and a further repeat doesn't bring it back.
    """
    (sent,) = it.put()
    final = [it.write(it.take_one(), b"final")]
    keep_for = 2 * it.lease
    it.broker.ack(final, keep_for=keep_for)

    def gone() -> bool:
        if not it.broker.get([sent]):
            return True
        it.broker.ack(final, keep_for=keep_for)
        return False

    it.eventually(
        gone, "the end of a record of keep_for whose ack is repeated", within=keep_for + it.grace + 1
    )
    it.broker.ack(final, keep_for=keep_for)
    expect_equal(
        dict(it.broker.get([sent])), {}, "records after the ack of a task that is forgotten was repeated"
    )
