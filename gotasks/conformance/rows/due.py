"""Rows: what is due. Each of a call by its own delay, in its queue, by its priority; and whoever waits has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

from gotasks.broker import Broker, Capability, Envelope, Lease, State
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import PATIENCE, Scene, ids_of

#: A delay that a row waits for. Seconds.
SHORT = 0.3

#: How much later than due an `acquire` that waits may give a task, on a busy machine. Seconds.
LATE = 2.0

#: Delays that a clock, or a number, cuts somewhere: from a minute to ten years. Seconds.
LONG_DELAYS = (60.0, 600.0, 3600.0, 86_400.0, 30 * 86_400.0, 365 * 86_400.0, 3650 * 86_400.0)


@row("DLY-07", needs=Capability.DELAY)
def each_of_an_enqueue_has_its_own_delay(it: Scene) -> None:
    """Given one call that enqueues tasks with a long delay, none, a short one, and none again, then those without come
    at once, that with the short one when it is due, and the first not at all.
    """
    delays = (it.later, 0.0, SHORT, 0.0)
    sent = [it.envelope(delay=delay) for delay in delays]
    it.take()  # to make a queue, where it's made when first used, takes longer than the short delay
    began = time.monotonic()
    _enqueue(it, sent)
    at_once = ids_of(it.take_all(4))
    soon = _soon(it, sent[2].id, it.queue, at_once, began)
    left = it.broker.purge(it.queue)
    seen = sorted(at_once), soon, left
    right = sorted([sent[1].id, sent[3].id]), [sent[2].id], 1
    expect_equal(
        seen, right, f"what came at once, then, and the number left, of delays of {delays} in one call"
    )


@row("DLY-08", needs=Capability.DELAY)
def each_of_a_release_has_its_own_delay_and_queue(it: Scene) -> None:
    """Given one call that releases held tasks, some into other queues, with a long delay, none, a short one and none,
    then each becomes ready when it is due, in the queue that was named for it.
    """
    near, far = it.name("near"), it.name("far")
    for queue in (near, far):  # as above
        it.take(queue=queue)
    sent = it.put(4)
    leases = {each.envelope.id: each for each in it.take_all(4)}
    plan = ((it.later, far), (0.0, None), (SHORT, far), (0.0, near))
    writes = [
        it.write(leases[each], delay=delay, queue=queue)
        for each, (delay, queue) in zip(sent, plan, strict=True)
    ]
    size = it.figures["writes in a call"] = min(len(writes), it.limits.max_batch)
    began = time.monotonic()
    for start in range(0, len(writes), size):
        it.broker.release(writes[start : start + size])
    places = (it.queue, near, far)
    at_once = [ids_of(it.take_all(4, queue=queue)) for queue in places]
    soon = _soon(it, sent[2], far, at_once[2], began)
    left = [it.broker.purge(queue) for queue in places]
    expect_equal(
        (at_once, soon, left),
        ([[sent[1]], [sent[3]], []], [sent[2]], [0, 0, 1]),
        f"what came at once in three queues, then in the last, and how many are left, of releases with {plan}",
    )


@row("DLY-09", needs=Capability.DELAY)
def a_blocked_acquire_gets_what_was_released_with_a_delay(it: Scene) -> None:
    """Given clients that are blocked in `acquire`, when held tasks are released with a delay, one into the queue from
    which it was taken and one into another, then the clients have them as soon as they are due.
    """
    consumer, holder, far = it.client(), it.client(), it.name("far")
    it.put(2)
    leases = it.take_all(2, by=holder)
    waits = [it.begin(partial(_timed_take, it, consumer, queue)) for queue in (it.queue, far)]
    threading.Event().wait(0.05)  # were this too short, it would only be easier
    began = time.monotonic()
    for lease, queue in zip(leases, (None, far), strict=True):
        holder.release([it.write(lease, delay=SHORT, queue=queue)])
    came = [each.result(2 * PATIENCE) for each in waits]
    late = [round(at - began - SHORT, 2) for taken, at in came if not taken or at - began > SHORT + LATE]
    expect(
        not late,
        f"releases with a delay reached a blocked acquire so many seconds after they were due: {late}",
    )


@row("DLY-10", needs=Capability.DELAY | Capability.BROWSE)
def long_delays_are_kept_apart(it: Scene) -> None:
    """Given tasks enqueued or released with delays from a minute to ten years, as far as `limits.max_delay` allows, the
    longest first, then browse shows them the shortest first: none was cut short to another's.
    """
    most = it.limits.max_delay
    delays = list(LONG_DELAYS)
    if most is not None:
        delays = sorted({*(each for each in LONG_DELAYS if each < most), most / 2, most})
    for how in ("enqueue", "release"):
        queue = it.name(how)
        right: list[str] = []
        for delay in reversed(delays):
            (task_id,) = it.put(queue=queue, delay=delay if how == "enqueue" else 0.0)
            if how == "release":
                it.broker.release([it.write(it.take_one(queue=queue), delay=delay)])
            right.insert(0, task_id)
        shown = ids_of(it.broker.browse(queue, state=State.SCHEDULED, limit=len(right)))
        number = dict(zip(right, delays, strict=True))
        expect_equal(
            [number.get(each) for each in shown],
            delays,
            f"delays by {how}, in the order in which browse shows them",
        )


@row("PRI-04", needs=Capability.PRIORITY)
def each_of_an_enqueue_has_its_own_priority(it: Scene) -> None:
    """Given one call that enqueues tasks of different priorities, then they are acquired the higher first."""
    priorities = (3, 0, 9, 5)
    sent = [it.envelope(priority=priority) for priority in priorities]
    _enqueue(it, sent)
    known = {each.id: each.priority for each in sent}
    came = [known[it.take_one().envelope.id] for _ in sent]
    expect_equal(
        came, [9, 5, 3, 0], f"the order in which priorities {priorities} come that were sent in one call"
    )


@row("PRI-05", needs=Capability.PRIORITY | Capability.DELAY)
def what_is_due_goes_by_its_priority(it: Scene) -> None:
    """Given a task that is enqueued with a high priority and a delay, and others that wait, when it is due, it is
    acquired before those of lower priority.
    """
    names = {}
    for name, priority, delay in (("high", 9, SHORT), ("low", 0, 0.0), ("middle", 5, 0.0)):
        sent = it.envelope(priority=priority, delay=delay)
        names[sent.id] = name
        it.broker.enqueue([sent])
    due = time.monotonic() + SHORT
    if it.broker.stats(it.queue).ready is None:
        threading.Event().wait(SHORT + LATE)  # nothing tells that it is due, except the clock
    else:
        it.eventually(
            lambda: it.broker.stats(it.queue).ready == 3 and time.monotonic() > due,
            f"a task with a delay of {SHORT:g} s among what stats counts as ready",
            within=SHORT + LATE,
        )
    came = [names[it.take_one().envelope.id] for _ in names]
    expect_equal(came, ["high", "middle", "low"], "the order in which they come when the high one is due")


def _soon(it: Scene, task_id: str, queue: str, at_once: list[str], began: float) -> list[str]:
    """What comes after the short delay. On a busy machine that may be over by the first look: then out of `at_once`."""
    if time.monotonic() - began >= SHORT and task_id in at_once:
        at_once.remove(task_id)
        return [task_id]
    return ids_of(it.take_all(1, queue=queue, wait=SHORT + LATE))


def _timed_take(it: Scene, client: Broker, queue: str) -> tuple[list[Lease], float]:
    return it.take(by=client, queue=queue, wait=PATIENCE), time.monotonic()


def _enqueue(it: Scene, sent: Sequence[Envelope]) -> None:
    """In one call, if the broker takes as many."""
    size = it.figures["envelopes in a call"] = min(len(sent), it.limits.max_batch)
    for start in range(0, len(sent), size):
        it.broker.enqueue(sent[start : start + size])
