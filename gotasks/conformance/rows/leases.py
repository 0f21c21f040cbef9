"""Rows: leases. How long a task is its holder's, how long a receipt holds, and what `extend` does."""

from __future__ import annotations

import contextlib
import math
import time

from gotasks.broker import Capability
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import WRITES, Scene, ids_of
from gotasks.errors import BrokerUnavailable

TIMED = Capability.TIMED_LEASE


@row("LSE-01", title="a dead holder's task comes back and not before the end of its lease")
def a_dead_holders_task_comes_back_and_not_before_the_end_of_its_lease(it: Scene) -> None:
    """Given a held task, when its holder dies, an `acquire` that waits gets it within `limits.recovery` seconds of
    the end of the lease. A lease that ends by time lasts at least as long as was asked for.
    """
    it.put()
    holder, other = it.client(), it.client()
    began = time.monotonic()
    lease = it.take_one(by=holder, lease_for=it.lease)
    if not it.claims(TIMED):
        it.abandon([lease], by=holder)
    leases = it.take(by=other, wait=it.lease + it.grace)
    after = time.monotonic() - began
    expect(
        leases,
        f"a lease of {it.lease:g} s was over, its holder gone, and {after:.1f} s after it had begun the task is "
        f"offered to nobody (limits.recovery is {it.limits.recovery:g} s)",
    )
    if it.claims(TIMED):
        expect(
            after >= it.lease * 0.95,
            f"a task was given to somebody else {after:.3f} s after it had been leased for {it.lease:g} s",
        )


@row("LSE-02", needs=TIMED)
def an_extended_lease_ends_when_the_extend_says(it: Scene) -> None:
    """Given two tasks under leases of the same length, when one of them is extended, only the other one comes back at
    the end of it. When the extended one is extended again, for a short time, it comes back after that: an `extend`
    counts from now, whether that makes the lease longer or shorter.
    """
    it.put(2)
    holder, other = it.client(), it.client()
    extended, left = it.take_all(2, by=holder, lease_for=it.lease)
    lost = holder.extend([extended], lease_for=it.long)
    expect_equal(lost, frozenset(), "receipts lost by an extend of a lease that holds")
    it.abandon([left])
    back = it.take(2, by=other, wait=it.grace)
    expect_equal(
        ids_of(back), [left.envelope.id], "what comes back at the end of a lease that was not extended"
    )
    holder.extend([extended], lease_for=it.lease)
    back = it.take(by=other, wait=it.lease + it.grace)
    expect(
        back,
        f"a lease was extended by {it.long:g} s, and then by {it.lease:g} s from now; "
        f"{it.lease + it.grace:g} s later its task isn't offered",
    )


@row("LSE-03", needs=TIMED, title="the old holder's extend changes nothing for the new one")
def the_old_holders_extend_changes_nothing_for_the_new_one(it: Scene) -> None:
    """Given two tasks that somebody else has taken over, one for a long and one for a short time, when the old holder
    extends its leases of them, the new ones are neither shorter nor longer for it, and go on.
    """
    it.put(2)
    holder, other = it.client(), it.client()
    old = {lease.envelope.id: lease for lease in it.take_all(2, by=holder, lease_for=it.lease)}
    it.abandon(list(old.values()))
    long = it.take_one(by=other, wait=it.grace)
    short = it.take_one(by=other, wait=it.grace, lease_for=it.lease)
    holder.extend([old[long.envelope.id]], lease_for=it.lease / 10)
    holder.extend([old[short.envelope.id]], lease_for=it.long)
    back = it.take(2, by=it.client(), wait=it.lease + it.grace)
    expect_equal(
        ids_of(back),
        [short.envelope.id],
        "what comes back when only the new holder's short lease is over, after late extends by the old one",
    )
    lost = other.ack([it.write(long)], keep_for=0)
    expect_equal(
        lost, frozenset(), "receipts of the new holder that are lost after late extends by the old one"
    )


@row("LSE-14", title="a deadline is on this process's monotonic clock")
def a_deadline_is_on_this_processs_monotonic_clock(it: Scene) -> None:
    """Given a ready task, when it is acquired at once, `Lease.deadline` is `lease_for` seconds after a moment between
    call and return, by `time.monotonic()` of this process; `inf` for a broker without TIMED_LEASE.
    """
    it.put()
    before = time.monotonic()
    lease = it.take_one(wait=0, lease_for=it.long)
    after = time.monotonic()
    earliest, latest = (before + it.long, after + it.long) if it.claims(TIMED) else (math.inf, math.inf)
    expect(
        lease.deadline >= earliest,
        f"the deadline is {lease.deadline:.3f} where it can't be before {earliest:.3f}",
    )
    expect(
        lease.deadline <= latest,
        f"the deadline is {lease.deadline:.3f} where it can't be after {latest:.3f}",
    )


@row("LSE-15", needs=TIMED, title="a deadline isn't later than the end of the lease")
def a_deadline_isnt_later_than_the_end_of_the_lease(it: Scene) -> None:
    """Given an `acquire` that waits, when a task comes while it does, the deadline of its lease isn't later than the
    moment from which the task is offered to others: a lease begins when it is given, not when it is asked for.
    """
    holder, other = it.client(), it.client()

    def put_later() -> float:
        it.eventually(lambda: time.monotonic() > began + it.lease / 2, "the clock goes on")
        it.put()
        return 0.0

    began = time.monotonic()
    _, deadline = it.in_threads(
        put_later, lambda: it.take_one(by=holder, wait=it.lease + 5, lease_for=it.lease).deadline
    )
    it.take_one(by=other, wait=it.lease + it.grace)
    early = deadline - time.monotonic()
    expect(early <= 0.005, f"a task was given to somebody else {early:.3f} s before its deadline")


@row("LSE-16")
def a_receipt_is_never_used_twice(it: Scene) -> None:
    """Given tasks that are leased and released again and again, by several clients, no two leases have the same
    receipt.
    """
    count = it.times(quick=5, full=50)
    it.put(count)
    receipts: list[str] = []
    for _ in range(4):
        holder = it.client()
        leases = it.take_all(count, by=holder)
        receipts += [lease.receipt for lease in leases]
        for lease in leases:
            holder.release([it.write(lease)])
    expect_equal(len(set(receipts)), 4 * count, f"different receipts of {4 * count} leases")


@row("LSE-17", needs=TIMED)
def a_late_write_that_comes_before_the_takeover_is_accepted(it: Scene) -> None:
    """Given leases that are over, when their holder extends, checkpoints, releases or acks before anybody else has
    taken the tasks, none of it is lost, and all of it takes effect.
    """
    it.put(len(WRITES))
    holder, other = it.client(), it.client()
    leases = dict(zip(WRITES, it.take_all(len(WRITES), by=holder, lease_for=it.lease), strict=True))
    it.abandon(list(leases.values()))
    lost = {name: WRITES[name](it, holder, lease, 1) for name, lease in leases.items()}
    expect_equal(
        [name for name in WRITES if lost[name]],
        [],
        "writes that were lost after the end of the lease, though nobody had taken the task",
    )
    offered = [*it.take_all(2, by=other, wait=it.grace), *it.take(2, by=other)]
    found = {lease.envelope.id: lease for lease in offered}
    seen = {
        name: (found[lease.envelope.id].envelope.body, found[lease.envelope.id].deaths)
        for name, lease in leases.items()
        if lease.envelope.id in found
    }
    deaths = 0 if it.claims(Capability.HANDOFF) else 1
    expect_equal(
        seen,
        {"checkpoint": (b"written", deaths), "release": (b"written", 0)},
        "bodies and deaths of what is offered after an extend, a checkpoint, a release and an ack that came late",
    )


@row("LSE-18")
def a_takeover_whose_reply_is_lost_ends_the_old_receipt_all_the_same(it: Scene) -> None:
    """Given a task whose lease is over, when it is acquired and the connection breaks before the reply, the old
    holder's write is lost: whoever has the task now, it isn't the old holder.
    """
    proxy, url = it.proxy()
    cut, holder, other = it.client(url), it.client(), it.client()
    it.take(by=cut, queue=it.name("empty"))  # so that it's connected
    it.put()
    lease = it.take_one(by=holder, lease_for=it.lease)
    it.abandon([lease], by=holder)
    proxy.cut_after("replies", 0)
    with contextlib.suppress(BrokerUnavailable):
        it.take(by=cut, wait=it.limits.recovery)
    proxy.disarm()
    # If it hasn't taken effect on this server, this is the takeover.
    it.take(by=other, wait=it.limits.recovery + 0.1)
    late = holder if it.claims(TIMED) else other
    lost = late.checkpoint([it.write(lease)])
    expect_equal(lost, {lease.receipt}, "receipts lost by the old holder's checkpoint")


@row("LSE-19", needs=TIMED)
def a_lease_that_is_over_counts_as_leased_until_it_is_taken_over(it: Scene) -> None:
    """Given a lease that is over, `stats` counts its task as leased, before the takeover and after it."""
    it.put()
    lease = it.take_one(lease_for=it.lease)
    it.abandon([lease])
    expect_equal(
        it.broker.stats(it.queue),
        it.at_rest(leased=1),
        "what is counted when a lease is over and nobody took the task",
    )
    it.take_one(wait=it.grace)
    expect_equal(it.broker.stats(it.queue), it.at_rest(leased=1), "what is counted after the takeover")
