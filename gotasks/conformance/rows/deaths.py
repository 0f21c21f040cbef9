"""Rows: deaths. By their number an engine tells a task that kills its workers from one that had bad luck."""

from __future__ import annotations

import contextlib

from gotasks.broker import Broker, Capability, Lease
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.kit.proxy import Proxy
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene
from gotasks.errors import BrokerUnavailable


@row("DTH-01")
def deaths_are_exact_and_each_tasks_own(it: Scene) -> None:
    """Given three tasks, when the first one's holder dies twice, the second one's once and the third one's never, the
    next leases of them say so.
    """
    sent = []
    for _ in range(2):
        sent += it.put()
        holder = it.client()
        it.abandon(it.take_all(len(sent), by=holder, wait=it.grace, lease_for=it.lease), by=holder)
    sent += it.put()
    deaths = {lease.envelope.id: lease.deaths for lease in it.take_all(3, by=it.client(), wait=it.grace)}
    expect_equal(
        [deaths.get(each) for each in sent],
        [2, 1, 0],
        "deaths of tasks whose leases ended twice, once and never",
    )


@row("DTH-02")
def a_new_body_has_no_deaths(it: Scene) -> None:
    """Given tasks whose holder died, when the next one checkpoints the first and releases the others, one of them into
    another queue and (with DELAY) one with a delay, the deaths of all start at 0 again. In place the checkpointed one's
    lease goes on, and if it ends unsettled, that is one.
    """
    moved_to = it.name("other")
    it.put(4)
    holder, other, third = it.client(), it.client(), it.client()
    it.abandon(it.take_all(4, by=holder, lease_for=it.lease), by=holder)
    leases = it.take_all(4, by=other, wait=it.grace, lease_for=it.lease)
    checkpointed, released, moved, delayed = leases
    other.checkpoint([it.write(checkpointed)])
    other.release([it.write(released)])
    other.release([it.write(moved, queue=moved_to)])
    other.release([it.write(delayed, delay=0.01 if it.claims(Capability.DELAY) else 0)])
    handoff = it.claims(Capability.HANDOFF)
    if not handoff:
        it.abandon([checkpointed], by=other)
    found = [*it.take_all(3, by=third, wait=it.grace), *it.take(by=third, queue=moved_to)]
    deaths = {lease.envelope.id: lease.deaths for lease in found}
    expect_equal(
        [deaths.get(lease.envelope.id) for lease in leases],
        [0 if handoff else 1, 0, 0, 0],
        "deaths since a checkpoint, a release, a move and a release with a delay",
    )


@row("DTH-03")
def no_other_write_takes_a_death_away(it: Scene) -> None:
    """Given a task that was checkpointed before its holder died, when that checkpoint is repeated after the takeover,
    and the new holder extends its lease and dies too, both deaths count.
    """
    it.put()
    holder, other = it.client(), it.client()
    old = it.take_one(by=holder, lease_for=it.lease)
    checkpoint = [it.write(old)]
    holder.checkpoint(checkpoint)
    handoff = it.claims(Capability.HANDOFF)
    if not handoff:
        it.abandon([old], by=holder)
    new = it.take_one(by=other, wait=it.grace, lease_for=it.lease)
    (holder if it.claims(Capability.TIMED_LEASE) or handoff else other).checkpoint(checkpoint)
    other.extend([new], lease_for=it.lease)
    it.abandon([new], by=other)
    last = it.take_one(by=it.client(), wait=it.grace)
    expect_equal(last.deaths, 1 if handoff else 2, "deaths since the body was last written")


@row("DTH-04", needs=Capability.BROWSE)
def a_takeover_by_id_counts_a_death_too(it: Scene) -> None:
    """Given a task whose holder died, when it is acquired by its id, the lease says so."""
    (sent,) = it.put()
    holder, other = it.client(), it.client()
    it.abandon([it.take_one(by=holder, lease_for=it.lease)], by=holder)
    leases = it.eventually(
        lambda: it.take(by=other, ids=[sent]),
        "a task whose lease is over can be acquired by its id",
        within=it.grace,
    )
    expect_equal(leases[0].deaths, 1, "deaths of a task that was taken over by its id")


@row("DTH-05")
def a_lease_whose_reply_is_lost_ends_as_a_death(it: Scene) -> None:
    """Given a ready task, when it is acquired and the connection breaks before the reply, it comes back when that lease
    is over, and the lease counts as a death.
    """
    proxy, url = it.proxy()
    cut, other = it.client(url), it.client()
    it.eventually(lambda: it.answered(cut), "an answer on a new connection")
    total = min(_bytes_of_an_acquire(it, proxy, cut) for _ in range(3))
    seen, tries = [0], 0
    while seen == [0] and tries < 8:  # a server may see that the client is gone before it leases
        tries += 1
        it.eventually(lambda: it.answered(cut), "an answer on a new connection")
        it.put()
        # Of an acquire that is several exchanges the first may have leased nothing yet: then the last ones are cut.
        proxy.cut_after("replies", 0 if tries == 1 else max(total - 1 - 8 * (tries - 2), 0))
        given: list[Lease] = []
        with contextlib.suppress(BrokerUnavailable):
            given = it.take(by=cut, lease_for=it.lease)
        proxy.disarm()
        if given:  # it came on another connection
            cut.ack([it.write(each) for each in given], keep_for=0)
            continue
        leases = it.take(by=other, wait=it.lease + it.grace)
        seen = [lease.deaths for lease in leases]
        other.ack([it.write(lease) for lease in leases], keep_for=0)
    it.figures["tries"] = tries
    expect_equal(
        seen,
        [1],
        f"deaths of what is offered within {it.lease + it.grace:g} s after an acquire for {it.lease:g} s whose reply "
        f"was lost (the last of {tries} tries)",
    )


def _bytes_of_an_acquire(it: Scene, proxy: Proxy, broker: Broker) -> int:
    it.put()
    before = proxy.passed["replies"]
    lease = it.take_one(by=broker)
    total = proxy.passed["replies"] - before
    broker.ack([it.write(lease)], keep_for=0)
    return total
