"""Rows: priorities. The higher goes first, always, and stays what it is."""

from __future__ import annotations

from typing import Any

from gotasks import App
from gotasks.broker import Capability, Lease
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene, ids_of
from gotasks.errors import ConfigurationError


@row("PRI-01", needs=Capability.PRIORITY)
def the_higher_priority_goes_first(it: Scene) -> None:
    """Given tasks of all priorities from 0 to 9, enqueued in any order, then they are acquired from 9 down to
    0; with `limits.fifo` in the order in which they came within each.
    """
    priorities = [*range(10)] * 2
    it.random.shuffle(priorities)
    sent = [it.envelope(priority=priority) for priority in priorities]
    for each in sent:
        it.broker.enqueue([each])
    leases = [it.take_one() for _ in sent]
    known = {each.id: each.priority for each in sent}
    came = [known[each] for each in ids_of(leases)]
    expect_equal(came, sorted(priorities, reverse=True), "priorities in the order in which they came")
    if it.limits.fifo:
        places = {each.id: number for number, each in enumerate(sent)}
        pairs = [[places[each] for each in ids_of(leases) if known[each] == level] for level in range(10)]
        right = [sorted(each) for each in pairs]
        expect_equal(pairs, right, "places at enqueue, for each priority, in the order in which they came")
    told = [lease.envelope.priority for lease in leases]
    expect_equal(told, came, "priorities in the envelopes of the leases")


@row("PRI-02", needs=Capability.PRIORITY)
def a_priority_is_kept_whatever_happens(it: Scene) -> None:
    """Given a task of high priority and one of low, when both are checkpointed, released, moved, delayed, or
    left by their holder, then the high one is acquired before one of middle priority that waits, and the low
    one after that.
    """
    ways = ["release", "move", "death"]
    ways += ["checkpoint"] if it.claims(Capability.HANDOFF) else ["checkpoint, death"]
    if it.claims(Capability.DELAY) and it.broker.stats(it.queue).ready is not None:
        ways.append("delay")
    orders = {way: _order_after(it, way) for way in ways}
    wrong = {way: order for way, order in orders.items() if order != ["high", "middle", "low"]}
    expect(not wrong, f"it isn't high (9), middle (5), low (0) that come after each of these: {wrong}")


def _order_after(it: Scene, way: str) -> list[str]:
    """Hold a high and a low one, let a middle one wait, give the two back in this way; in which order all three
    come.
    """
    name = way.replace(", ", "-")
    queue, target = it.name(name), it.name(f"after-{name}")
    holder = it.client()
    names: dict[str, str] = {}

    def put(what: str, priority: int, where: str) -> None:
        sent = it.envelope(queue=where, priority=priority)
        names[sent.id] = what
        it.broker.enqueue([sent])

    put("low", 0, queue)
    put("high", 9, queue)
    leases = [
        it.take_one(by=holder, queue=queue, lease_for=it.lease if "death" in way else LONG) for _ in range(2)
    ]
    put("middle", 5, target if way == "move" else queue)
    if "checkpoint" in way:
        for each in leases:
            holder.checkpoint([it.write(each, seq=1)])
    if "death" in way:
        it.abandon(leases, by=holder)
    elif way != "checkpoint":
        delay = 0.1 if way == "delay" else 0.0
        moved = target if way == "move" else None
        for each in leases:
            holder.release([it.write(each, seq=2, delay=delay, queue=moved)])
    if way == "delay":
        it.eventually(lambda: it.broker.stats(queue).ready == 3, "the end of two delays of 0.1 s")
    if "death" in way:
        it.recovered()  # an `acquire` would give the next one
    came: list[Lease] = [it.take_one(queue=target if way == "move" else queue) for _ in range(3)]
    return [names[each] for each in ids_of(came)]


@row("PRI-03", needs=Capability.PRIORITY, engine=True)
def a_priority_out_of_range_is_refused(it: Scene) -> None:
    """Given a priority that isn't a whole number from 0 to 9, when a task is enqueued with it,
    ConfigurationError is raised and nothing is stored.
    """
    app = App(it.broker, fatal_queue=it.fatal)

    def nothing(args: dict[str, Any]) -> None:
        """Never run."""

    app.register("nothing", nothing)
    values: list[Any] = [-1, 10, 256, 2**63, 1.5, "5", None, True]
    accepted = []
    for value in values:
        try:
            app.queue(it.queue).enqueue("nothing", {}, priority=value)
        except ConfigurationError:
            continue
        accepted.append(value)
    seen = accepted, len(it.drain())
    expect_equal(seen, ([], 0), "priorities that were accepted, and tasks that were stored with one")
