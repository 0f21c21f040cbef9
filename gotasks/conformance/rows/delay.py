"""Rows: delays. Not before it is due, soon after, and once."""

from __future__ import annotations

import time
from collections.abc import Callable

from gotasks.broker import Broker, Capability, Lease
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of
from gotasks.errors import Rejected

#: How much earlier than due a task may seem to come: servers and clients count in milliseconds. Seconds.
ROUNDING = 0.01

#: How much later than due an `acquire` that waits may give it, on a busy machine. Seconds.
LATE = 2.0


@row("ACK-05", needs=Capability.DELAY)
def what_is_released_with_a_delay_waits_for_it(it: Scene) -> None:
    """Given a held task, when it is released with a delay, nobody gets it before that is over; then one holder
    does, with the new body and no deaths.
    """
    delay = 0.3
    it.put()
    lease = it.take_one()
    began = time.monotonic()
    it.broker.release([it.write(lease, b"later", delay=delay)])
    lease = it.take_one(wait=delay + LATE)
    waited = time.monotonic() - began
    expect(waited > delay - ROUNDING, f"released with a delay of {delay:g} s, it came after {waited:.3f} s")
    seen = lease.envelope.body, lease.deaths
    expect_equal(seen, (b"later", 0), "body and deaths after a release with a delay")
    expect_equal(
        len(it.take()), 0, "further deliveries of a task that was released with a delay and is held now"
    )


@row("DLY-01", needs=Capability.DELAY)
def a_delayed_task_comes_when_it_is_due(it: Scene) -> None:
    """Given a task that is enqueued with a delay while somebody waits in `acquire`, then it is given to them
    when the delay is over: not before, and soon after.
    """
    delay = 0.4
    waiting = it.begin(lambda: it.take(wait=20.0))
    began = time.monotonic()
    (task_id,) = it.put(delay=delay)
    leases = waiting.result(30.0)
    waited = time.monotonic() - began
    expect_equal(ids_of(leases), [task_id], "what an acquire that waits for 20 s gives")
    expect(waited > delay - ROUNDING, f"enqueued with a delay of {delay:g} s, it came after {waited:.3f} s")
    expect(waited < delay + LATE, f"enqueued with a delay of {delay:g} s, it came after {waited:.1f} s only")


@row("DLY-02", needs=Capability.DELAY)
def a_long_delay_holds_up_no_shorter_one(it: Scene) -> None:
    """Given a task with a long delay, and after it one with a short delay and one with none, then these two
    come when they are due.
    """
    it.put(delay=it.later)
    (soon,) = it.put(delay=0.3)
    (now,) = it.put()
    came = ids_of(it.take(wait=1.0)) + ids_of(it.take(wait=0.3 + LATE))
    expect_equal(
        came, [now, soon], "what comes first: the task without a delay, then that with the short one"
    )


@row("DLY-03", needs=Capability.DELAY)
def a_delay_longer_than_a_lease_is_one_delivery(it: Scene) -> None:
    """Given a task whose delay is longer than the leases that workers take meanwhile, then it is delivered
    once, when it is due, and no death counts against it.
    """
    delay = 1.5 * it.lease
    began = time.monotonic()
    (task_id,) = it.put(delay=delay)
    came: list[tuple[str, int]] = []
    early = False
    clients = [it.client(), it.client()]
    until = began + delay + it.lease + it.grace  # and a lease longer than when it came, for what comes twice
    while time.monotonic() < until:
        for client in clients:
            for lease in it.take(by=client, wait=0.05, lease_for=it.lease):
                until = min(until, max(time.monotonic(), began + delay) + it.lease)
                came.append((lease.envelope.id, lease.deaths))
                early = early or time.monotonic() - began < delay - ROUNDING
                client.ack([it.write(lease)], keep_for=0)
    expect(not early, f"a task with a delay of {delay:g} s was delivered before that was over")
    expect_equal(came, [(task_id, 0)], "deliveries of a delayed task, and the deaths that count against it")


@row("DLY-05", needs=Capability.DELAY)
def what_becomes_due_at_once_is_given_to_one_each(it: Scene) -> None:
    """Given many tasks that become due at the same time, while six acquire, then each task is given to one of
    them.
    """
    count = it.times(quick=60, full=1000)
    sent = it.put(count, delay=0.3)

    def work(client: Broker) -> list[Lease]:
        leases = it.take(3, by=client, wait=1.0)
        while more := it.take(3, by=client):
            leases += more
        return leases

    clients = [it.client() for _ in range(6)]
    leases = [
        lease for part in it.in_threads(*[lambda each=each: work(each) for each in clients]) for lease in part
    ]
    given = sorted(ids_of(leases + it.take_all(count)))
    expect(
        len(given) == len(set(given)), f"{len(given) - len(set(given))} due tasks were given to two at once"
    )
    expect_equal(len(set(given)), len(sent), "tasks that were given, of so many that became due")


@row("DLY-06", needs=Capability.DELAY)
def delays_at_both_ends_are_kept_or_refused(it: Scene) -> None:
    """A delay of 0, or below, is none. One of `limits.max_delay` is kept. A longer one is Rejected, by an
    enqueue and by a release, and nothing is stored or changed.
    """
    longest, at_once = it.name("longest"), it.name("at-once")
    sent = [it.envelope(queue=at_once, delay=delay) for delay in (0.0, -1.0, -1e9)]
    for each in sent:
        it.broker.enqueue([each])
    came = sorted(ids_of(it.take_all(3, queue=at_once)))
    expect_equal(came, sorted(each.id for each in sent), "ids that come at once, of delays of 0 and below")
    most = it.limits.max_delay
    it.put(queue=longest, delay=most or 10 * 365 * 86400.0)
    expect_equal(len(it.take(queue=longest)), 0, "tasks that come at once, of one with the longest delay")
    if most is None:
        it.figures["too long a delay"] = "there is none: limits.max_delay is None"
        return
    (held,) = it.put()
    lease = it.take_one()
    late = it.envelope(queue=longest, delay=most * 1.01)
    refused = (
        _rejected(lambda: it.broker.enqueue([late])),
        _rejected(lambda: it.broker.release([it.write(lease, delay=most * 1.01)])),
    )
    expect_equal(
        refused, ({late.id}, {held}), "ids that are Rejected by enqueue and release for too long a delay"
    )
    lost = it.broker.ack([it.write(lease, seq=2)], keep_for=0)
    expect_equal(lost, frozenset(), "receipts lost by a release that was Rejected")


def _rejected(call: Callable[[], object]) -> frozenset[str] | None:
    try:
        call()
    except Rejected as error:
        return error.ids
    return None
