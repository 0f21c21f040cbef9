"""Rows: checkpoints. What a chain has done is what the next holder finds, whatever happened in between."""

from __future__ import annotations

import time
from functools import partial

from gotasks.broker import Capability
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of

HANDOFF = Capability.HANDOFF


@row("CKP-01")
def what_a_checkpoint_wrote_is_what_the_next_holder_gets(it: Scene) -> None:
    """Given a held task, when it is checkpointed with a new body and its holder then dies, the next `acquire` returns
    it with that body.
    """
    it.put(body=b"old")
    holder = it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    lost = holder.checkpoint([it.write(lease, b"new")])
    expect_equal(lost, frozenset(), "receipts lost by a checkpoint under a lease that holds")
    if not it.claims(HANDOFF):
        it.abandon([lease], by=holder)
    next_one = it.take_one(by=it.client(), wait=it.grace)
    expect_equal(next_one.envelope.body, b"new", "the body that the next holder gets")


@row("CKP-05", title="a former holder's checkpoint is lost")
def a_former_holders_checkpoint_is_lost(it: Scene) -> None:
    """Given a task that somebody else has taken over, when the former holder checkpoints it, that is lost, and the body
    stays as it was, also for whoever comes next.
    """
    it.put(body=b"as it was")
    holder, other = it.client(), it.client()
    old = it.take_one(by=holder, lease_for=it.lease)
    it.abandon([old], by=holder)
    new = it.take_one(by=other, wait=it.grace, lease_for=it.lease)
    late = holder if it.claims(Capability.TIMED_LEASE) else other
    lost = late.checkpoint([it.write(old, b"late", seq=9)])
    expect_equal(lost, {old.receipt}, "receipts lost by a former holder's checkpoint")
    it.abandon([new], by=other)
    last = it.take_one(by=it.client(), wait=it.grace)
    expect_equal(last.envelope.body, b"as it was", "the body after a former holder's checkpoint")


@row("CKP-06")
def a_write_that_was_overtaken_is_lost(it: Scene) -> None:
    """Given a held task with a checkpoint, when a checkpoint, a release or an ack with a lower `seq` arrives after it,
    that is lost and changes nothing, and the receipt still holds. One with the same `seq` is a repeat, and held.
    """
    if it.claims(HANDOFF):
        raise NotApplicable("a checkpoint ends the lease, so no other write can follow it")
    it.put()
    holder = it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    newest = [it.write(lease, b"newest", seq=5)]
    old = [it.write(lease, b"old", seq=4)]
    holder.checkpoint(newest)
    answers = [holder.checkpoint(old), holder.release(old), holder.ack(old, keep_for=0)]
    expect_equal(
        answers, [{lease.receipt}] * 3, "receipts lost by a checkpoint, a release and an ack with a lower seq"
    )
    lost = holder.checkpoint(newest)
    expect_equal(
        lost, frozenset(), "receipts lost by a repeated checkpoint, after writes that had been overtaken"
    )
    it.abandon([lease], by=holder)
    last = it.take_one(by=it.client(), wait=it.grace)
    expect_equal(last.envelope.body, b"newest", "the body after writes that had been overtaken")


@row("CKP-07")
def checkpoints_leave_nothing_behind(it: Scene) -> None:
    """Given a task, when it is checkpointed many times, what is stored is as much as after a few."""
    few, many = 5, it.times(quick=100, full=1000)
    it.put()
    it.adapter.dump(it.url)  # or there's nothing to compare
    lease = it.take_one()
    before: dict[str, int] = {}
    for seq in range(1, many + 1):
        it.broker.checkpoint([it.write(lease, b"%09d" % seq, seq=seq)])
        if it.claims(HANDOFF):
            lease = it.take_one()
        if seq == few:
            before = dict(it.adapter.dump(it.url))
    after = it.adapter.dump(it.url)
    grown = sum(after.values()) - sum(before.values())
    it.figures["bytes"] = sum(after.values())
    expect(
        len(after) <= len(before) + 2 and grown < 4 * many,
        f"{many - few} more checkpoints of one task made {len(before)} stored elements {len(after)}, "
        f"and {sum(before.values())} bytes {sum(after.values())}",
    )


@row("CKP-09")
def one_receipt_serves_for_all_writes_of_a_lease(it: Scene) -> None:
    """Given a checkpointed task, the lease goes on: it is offered to nobody, and its receipt serves for the next
    checkpoint and the ack. With HANDOFF it is offered at once, the old receipt is lost, and the next one serves.
    """
    it.put()
    holder, other = it.client(), it.client()
    lease = it.take_one(by=holder)
    holder.checkpoint([it.write(lease, seq=1)])
    if it.claims(HANDOFF):
        next_one = it.take_one(by=other)
        lost = holder.checkpoint([it.write(lease, seq=2)])
        expect_equal(
            lost, {lease.receipt}, "receipts lost by a checkpoint under the receipt that a checkpoint ended"
        )
        lost = other.ack([it.write(next_one, seq=1)], keep_for=0)
        expect_equal(lost, frozenset(), "receipts lost by an ack under the lease after a checkpoint")
    else:
        expect_equal(ids_of(it.take(by=other)), [], "what is offered after a checkpoint in place")
        lost = holder.checkpoint([it.write(lease, seq=2)])
        lost |= holder.ack([it.write(lease, seq=3)], keep_for=0)
        expect_equal(lost, frozenset(), "receipts lost by a second checkpoint and an ack under one lease")


@row("CKP-10")
def of_two_checkpoints_at_once_one_is_what_stays(it: Scene) -> None:
    """Given a held task, when two threads checkpoint it at the same time, the body is then wholly that of the one with
    the higher `seq`, which isn't lost. (With HANDOFF: of the one that isn't lost.)
    """
    count = it.times(quick=20, full=200)
    it.put(count)
    holder = it.client()
    length = it.lease + count / 100
    leases = it.take_all(count, by=holder, lease_for=length)
    expected = {}
    for number, lease in enumerate(leases):
        writes = [it.write(lease, b"%d" % seq * 5000, seq=seq) for seq in (1, 2)]
        order = writes if number % 2 else writes[::-1]  # a thread that is started first isn't always first
        lost = it.in_threads(*(partial(holder.checkpoint, [write]) for write in order))
        held = [write for write, gone in zip(order, lost, strict=True) if not gone]
        expected[lease.envelope.id] = max(held, key=lambda write: write.seq).body if held else b"none of them"
    if not it.claims(HANDOFF):
        it.abandon(leases, by=holder)
    last = it.take_all(count, by=it.client(), wait=it.grace)
    wrong = sum(lease.envelope.body != expected[lease.envelope.id] for lease in last)
    expect_equal(
        (len(last), wrong),
        (count, 0),
        "tasks after races of two checkpoints, and those with a body that isn't the last",
    )


@row("CKP-11", needs=Capability.TIMED_LEASE)
def a_checkpoint_makes_no_lease_longer(it: Scene) -> None:
    """Given a held task, when it is checkpointed again and again but never extended, its lease ends when it would have
    ended, and somebody else gets the task.
    """
    if it.claims(HANDOFF):
        raise NotApplicable("a checkpoint ends the lease")
    it.put()
    holder, other = it.client(), it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    ended = lease.deadline + it.grace

    def checkpoint() -> bool:
        seq = 0
        while time.monotonic() < ended + 1:
            seq += 1
            if holder.checkpoint([it.write(lease, seq=seq)]):
                return True
            time.sleep(it.lease / 20)  # not to keep the server busy
        return False

    was_lost, _ = it.in_threads(checkpoint, lambda: bool(it.take(by=other, wait=it.lease + it.grace)))
    expect(
        was_lost,
        f"a task was leased for {it.lease:g} s and checkpointed again and again, and {it.grace:g} s after the end of "
        "the lease nobody else has got it",
    )


@row("CKP-12")
def seq_begins_anew_with_each_lease(it: Scene) -> None:
    """Given a task that was written with a high `seq`, when it is leased again, writes from 1 on count again."""
    it.put()
    holder, other = it.client(), it.client()
    lease = it.take_one(by=holder)
    holder.checkpoint([it.write(lease, seq=7)])
    if not it.claims(HANDOFF):
        holder.release([it.write(lease, seq=8)])
    lease = it.take_one(by=other)
    lost = other.ack([it.write(lease, seq=1)], keep_for=0)
    expect_equal(lost, frozenset(), "receipts lost by the first write under a new lease")
