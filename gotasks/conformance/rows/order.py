"""Rows: order. What comes first leaves first, and what comes back goes where the broker says."""

from __future__ import annotations

from gotasks.broker import Capability
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import difference, expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of


@row("ORD-01")
def first_in_first_out(it: Scene) -> None:
    """Given `limits.fifo`, when one producer enqueues tasks, alone and in batches, and one consumer takes them, in
    batches of other sizes, they leave in the order in which they came.
    """
    if not it.limits.fifo:
        raise NotApplicable("limits.fifo is False")
    total = it.times(quick=100, full=1000)
    sent: list[str] = []
    while len(sent) < total:
        sent += it.put(it.random.choice([1, 1, 2, 7, 40]))
    received: list[str] = []
    while leases := it.take(min(it.random.choice([1, 3, 10, 50]), it.limits.max_batch)):
        received += ids_of(leases)
        it.broker.ack([it.write(lease) for lease in leases], keep_for=0)
    differs = difference(received, sent)
    expect(not differs, f"{total} tasks don't leave in the order in which they came: {differs}")


@row("ORD-02")
def what_comes_back_goes_where_the_broker_says(it: Scene) -> None:
    """Given waiting tasks and one that is held, when it is released, or left by a dead holder, it is offered again
    before all of them where `limits.returned` is "front", after all of them where it is "back".
    """
    if it.limits.returned == "any":
        raise NotApplicable('limits.returned is "any"')
    expected = 0 if it.limits.returned == "front" else 2
    released, expired = it.name("released"), it.name("expired")
    it.put(3, queue=released)
    lease = it.take_one(queue=released)
    it.broker.release([it.write(lease)])
    order = ids_of(it.drain(queue=released))
    expect_equal(
        order.index(lease.envelope.id), expected, f"the place of a released one of three, in {order}"
    )

    it.put(3, queue=expired)
    holder = it.client()
    lease = it.take_one(queue=expired, by=holder, lease_for=it.lease)
    it.abandon([lease], by=holder)
    it.recovered()
    order = ids_of(it.drain(queue=expired, by=it.client()))
    expect_equal(
        order.index(lease.envelope.id), expected, f"the place of one of three that was left, in {order}"
    )


@row("ORD-03")
def new_tasks_do_not_keep_the_old_ones_waiting(it: Scene) -> None:
    """Given tasks that wait, when for each one that is taken a new one comes, the old ones have all been taken by the
    time at which ten times as many have: none is kept waiting for ever, whatever order the broker keeps.
    """
    count = it.times(quick=5, full=50)
    old = set(it.put(count))
    for _ in range(10 * count):
        it.put()
        lease = it.take_one()
        it.broker.ack([it.write(lease)], keep_for=0)
        old.discard(lease.envelope.id)
        if not old:
            break
    expect(not old, f"{len(old)} of {count} old tasks still wait after {10 * count} newer ones were taken")


@row("ORD-04")
def a_chain_goes_on_after_each_checkpoint(it: Scene) -> None:
    """Given a chain of five steps, when each is checkpointed: with HANDOFF the lease ends, the new body is offered
    again with no deaths, and five leases see the chain through. Without it the same lease goes on to the ack, and the
    task is offered to nobody else.
    """
    it.put(body=b"0")
    holder = it.broker
    lease = it.take_one()
    offered = []
    for step in range(1, 6):
        body = str(step).encode()
        holder.checkpoint([it.write(lease, body, seq=step)])
        if it.claims(Capability.HANDOFF):
            lost = holder.ack([it.write(lease, seq=9)], keep_for=0)
            expect_equal(
                lost, {lease.receipt}, "receipts lost after a checkpoint of a broker that claims HANDOFF"
            )
            holder = it.client()
            lease = it.take_one(by=holder)
            seen = lease.envelope.body, lease.deaths
            expect_equal(seen, (body, 0), f"body and deaths after checkpoint {step}")
        else:
            offered += it.take(by=it.client())
    lost = holder.ack([it.write(lease, seq=9)], keep_for=0)
    how = f"it was offered to others {len(offered)} times, and the ack {'is lost' if lost else 'counts'}"
    expect(not lost and not offered, f"a chain of five steps didn't stay with its holder to the end: {how}")
