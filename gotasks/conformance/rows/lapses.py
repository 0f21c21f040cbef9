"""Rows: lapses. What the clock does to a lease, and what no other call may do to it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gotasks.broker import Broker, Capability, Lease, State
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of

TIMED = Capability.TIMED_LEASE
HANDOFF = Capability.HANDOFF

#: What shortens a lease has done it by then, whatever it shortens it to. Seconds.
A_WHILE = 1.2

#: The longest `limits.max_lease` that is waited for. Seconds.
SHORT = 5.0


@row("LPS-01", needs=TIMED)
def an_extend_serves_all_of_its_leases_though_one_is_lost(it: Scene) -> None:
    """Given three held tasks, the second of which has been settled before, when the leases of all three are extended
    in one call, the other two last as long as the extend says: not one of them is named as lost, and both come back
    when that time is over.
    """
    if it.limits.max_batch < 3:
        raise NotApplicable(f"limits.max_batch is {it.limits.max_batch}")
    it.put(3)
    holder = it.client()
    leases = it.take_all(3, by=holder)
    first, settled, last = leases
    holder.ack([it.write(settled)], keep_for=0)
    lost = holder.extend(leases, lease_for=it.lease)
    expect_equal(
        lost - {settled.receipt}, frozenset(), "receipts that hold, and that an extend of three names as lost"
    )
    back = it.take_all(2, by=it.client(), wait=it.lease + it.grace)
    expect_equal(
        sorted(ids_of(back)),
        sorted(ids_of([first, last])),
        f"what comes back when an extend of three by {it.lease:g} s is over, of which one was lost",
    )


@row("LPS-02", needs=TIMED)
def a_takeover_ends_no_lease_but_that_of_the_task_it_takes(it: Scene) -> None:
    """Given three tasks whose leases are over, when one of them is taken over, the receipts of the other two hold on:
    an ack under one of them counts. The last one has died once when somebody takes it.
    """
    it.put(3)
    holder, other = it.client(), it.client()
    leases = it.take_all(3, by=holder, lease_for=it.lease)
    it.abandon(leases)
    taken = it.take_one(by=other, wait=it.grace).envelope.id
    acked, left = [each for each in leases if each.envelope.id != taken]
    lost = holder.ack([it.write(acked)], keep_for=0)
    expect_equal(
        lost, frozenset(), "receipts lost by an ack after the end of the lease, when another task was taken"
    )
    last = it.take(3, by=it.client(), wait=it.limits.recovery + 0.1)
    expect_equal(
        [(each.envelope.id, each.deaths) for each in last],
        [(left.envelope.id, 1)],
        "id and deaths of what is offered after one of three was taken over, and one acked late",
    )


@row("LPS-03", needs=TIMED)
def a_checkpoint_makes_no_lease_shorter(it: Scene) -> None:
    """Given two held tasks, one under a long lease and one under a short one that was extended, when both are
    checkpointed, both are held on: neither is offered when the time is over for which the short one was acquired.
    """
    if it.claims(HANDOFF):
        raise NotApplicable("a checkpoint ends the lease")
    it.put(2)
    holder = it.client()
    long, extended = it.take_one(by=holder), it.take_one(by=holder, lease_for=it.lease)
    holder.extend([extended], lease_for=it.long)
    for lease in (long, extended):
        holder.checkpoint([it.write(lease)])
    offered = it.take(2, by=it.client(), wait=max(A_WHILE, it.lease + it.limits.recovery + 0.1))
    names = {long.envelope.id: "a long one", extended.envelope.id: "one that was extended"}
    expect_equal([names[each] for each in ids_of(offered)], [], "leases that ended soon after a checkpoint")


@row("LPS-04")
def neither_an_extend_nor_an_overtaken_write_changes_what_is_held(it: Scene) -> None:
    """Given a task that was checkpointed and whose lease was extended then, when a checkpoint, a release and an ack
    with a lower `seq` arrive, all are lost, and the lease goes on: the task is offered to nobody.
    """
    if it.claims(HANDOFF):
        raise NotApplicable("a checkpoint ends the lease, so no other write can follow it")
    it.put()
    holder = it.client()
    lease = it.take_one(by=holder)
    holder.checkpoint([it.write(lease, seq=5)])
    holder.extend([lease], lease_for=it.long)
    old = [it.write(lease, b"old", seq=4)]
    lost = [holder.checkpoint(old), holder.release(old), holder.ack(old, keep_for=0)]
    expect_equal(
        lost,
        [{lease.receipt}] * 3,
        "receipts lost by a checkpoint, a release and an ack with a lower seq, after an extend",
    )
    offered = it.take(by=it.client(), wait=it.limits.recovery + 0.1)
    expect_equal(ids_of(offered), [], "what is offered after writes that had been overtaken")


@row("LPS-05")
def a_purge_forgets_no_lease(it: Scene) -> None:
    """Given a held task and a ready one, when the queue is purged and the holder then dies, the held task comes
    back.
    """
    (held,) = it.put()
    holder, other = it.client(), it.client()
    lease = it.take_one(by=holder, lease_for=it.lease)
    it.put()
    other.purge(it.queue)
    it.abandon([lease], by=holder)
    back = it.take(by=other, wait=it.grace)
    expect_equal(
        ids_of(back), [held], "what comes back after a purge, when the lease of the task held then is over"
    )


@row("LPS-06", needs=Capability.BROWSE | Capability.DELAY)
def what_was_taken_before_it_was_due_is_held_when_it_is_due(it: Scene) -> None:
    """Given a scheduled task that was acquired by its id, when the time comes at which it would have been due, it is
    offered to nobody, and the receipt holds.
    """
    (sent,) = it.put(delay=it.lease)
    holder = it.client()
    lease = it.take_one(by=holder, task_id=sent)
    offered = it.take(by=it.client(), wait=it.lease + 0.3)
    lost = holder.ack([it.write(lease)], keep_for=0)
    expect_equal(
        (ids_of(offered), lost),
        ([], frozenset()),
        "what is offered when a held task would have been due, and receipts lost by an ack of it",
    )


@row("LPS-07", needs=Capability.BROWSE)
def acquire_with_ids_leaves_other_queues_tasks_whose_lease_is_over(it: Scene) -> None:
    """Given a task whose holder has died, when `acquire` names its id for another queue, nothing is given."""
    (sent,) = it.put()
    holder, other = it.client(), it.client()
    it.abandon([it.take_one(by=holder, lease_for=it.lease)], by=holder)
    it.recovered()
    expect_equal(
        ids_of(it.take(by=other, queue=it.fatal, ids=[sent])),
        [],
        "what acquire(ids=…) gives of another queue's task whose lease is over",
    )


@row("LPS-08", needs=Capability.BROWSE | TIMED)
def browse_shows_leases_that_are_over(it: Scene) -> None:
    """Given a task that is held and one whose lease is over, when the queue is browsed for what is leased, both are
    shown, until somebody takes the second one over or it ends.
    """
    it.put(2)
    over, held = it.take_one(lease_for=it.lease), it.take_one()
    it.abandon([over])
    shown = it.broker.browse(it.queue, state=State.LEASED, limit=9)
    expect_equal(
        sorted(ids_of(shown)),
        sorted(ids_of([over, held])),
        "ids that browse shows as leased, of a task that is held and one whose lease is over",
    )


@row("LPS-09")
def a_lease_can_be_held_for_as_long_as_the_limit_says(it: Scene) -> None:
    """Given a broker with a `limits.max_lease` that can be waited for, when a lease is extended again and again for
    nearly that long, the task is offered to nobody, and an ack under the lease counts.
    """
    most = it.limits.max_lease
    if most is None:
        raise NotApplicable("limits.max_lease is None: no lease ends but by its own time")
    if most > SHORT:
        raise NotApplicable(f"limits.max_lease is {most:g} s, which nobody waits for")
    it.put()
    holder, other = it.client(), it.client()
    began = time.monotonic()
    lease = it.take_one(by=holder, lease_for=most / 2)
    offered: list[Lease] = []
    while (left := began + most * 0.9 - time.monotonic()) > 0:
        holder.extend([lease], lease_for=max(min(most / 2, left + most * 0.1), 0.001))
        offered += it.take(by=other, wait=min(most / 10, left))
    lost = holder.ack([it.write(lease)], keep_for=0)
    expect_equal(
        (ids_of(offered), lost),
        ([], frozenset()),
        "what is offered while a lease is extended for 90 % of limits.max_lease, and receipts lost by an ack then",
    )


@row("DTH-06")
def every_death_counts_not_only_the_first_few(it: Scene) -> None:
    """Given a task whose holders die one after the other, each `acquire` says how many have died before."""
    it.put()
    seen = []
    for _ in range(it.times(quick=6, full=20)):
        holder = it.client()
        lease = it.take_one(by=holder, wait=it.lease + it.grace)
        seen.append(lease.deaths)
        let_go(it, [lease], holder)
    expect_equal(seen, [*range(len(seen))], "deaths that the leases of a task say, whose holders die in turn")


def let_go(it: Scene, leases: Sequence[Lease], holder: Broker) -> None:
    """End these leases unsettled, as soon as that can be: by a short `extend`, or with the holder's connection."""
    if it.claims(TIMED):
        for start in range(0, len(leases), it.limits.max_batch):
            holder.extend(leases[start : start + it.limits.max_batch], lease_for=it.lease / 10)
    else:
        it.abandon(leases, by=holder)
