"""Rows: what browse shows: the order in which tasks leave, what is due as ready, and no more than was asked for."""

from __future__ import annotations

from gotasks.broker import Capability, State
from gotasks.conformance.adapter import NotApplicable
from gotasks.conformance.expect import expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import Scene, ids_of

#: A delay that a row waits for, and how much later a broker may notice, on a busy machine. Seconds.
SHORT, LATE = 0.2, 2.0


@row("BRW-08", needs=Capability.BROWSE)
def browse_shows_what_acquire_gives_next(it: Scene) -> None:
    """Given ready tasks of which some were put back or moved in, with PRIORITY of several priorities, then browse shows
    them, all at once and page by page, in the order in which `acquire` then gives them; without `limits.fifo` by
    priority at least.
    """
    if not it.limits.fifo and not it.claims(Capability.PRIORITY):
        raise NotApplicable("limits.fifo is False, and PRIORITY isn't claimed: any order is right")
    other = it.name("other")
    priorities: dict[str, int] = {}

    def put(priority: int, queue: str) -> None:
        sent = it.envelope(queue=queue, priority=priority if it.claims(Capability.PRIORITY) else 0)
        priorities[sent.id] = sent.priority
        it.broker.enqueue([sent])

    put(5, other)
    for _ in range(2):
        put(0, it.queue)
    back = it.take_all(2)
    for priority in (0, 9, 5, 9):
        put(priority, it.queue)
    it.broker.release([it.write(it.take_one(queue=other), queue=it.queue)])
    for lease in back:
        it.broker.release([it.write(lease)])
    shown = ids_of(it.broker.browse(it.queue, state=State.READY, limit=20))
    paged: list[str] = []
    while len(paged) < 20 and (page := _page(it, paged)):
        paged += page
    came = [it.take_one().envelope.id for _ in priorities]
    ways = [shown, paged, came]
    seen = ways if it.limits.fifo else [[priorities.get(each) for each in ids] for ids in ways]
    expect_equal(
        seen[:2], [seen[2]] * 2, "tasks, or their priorities, as browse shows them at once, and 2 a page"
    )


@row("BRW-09", needs=Capability.BROWSE | Capability.DELAY)
def what_is_due_is_shown_as_ready(it: Scene) -> None:
    """Given a task whose delay is over, though nobody has acquired since, then browse shows it among what is ready, and
    not among what is scheduled, whichever of the two is asked for first.
    """
    queues = it.queue, it.name("other")
    for queue in queues:
        it.put(queue=queue, delay=SHORT)
    it.eventually(
        lambda: it.broker.browse(queues[0], state=State.READY, limit=9),
        f"a task with a delay of {SHORT:g} s that browse shows as ready",
        within=SHORT + LATE,
    )
    it.eventually(
        lambda: not it.broker.browse(queues[1], state=State.SCHEDULED, limit=9),
        f"that browse shows a task with a delay of {SHORT:g} s as scheduled no more",
        within=LATE,
    )
    shown = [
        len(it.broker.browse(queue, state=state, limit=9))
        for queue in queues
        for state in (State.READY, State.SCHEDULED)
    ]
    expect_equal(
        shown, [1, 0, 1, 0], "tasks shown as ready and as scheduled, in two queues with one that is due"
    )


@row("BRW-10", needs=Capability.BROWSE)
def a_browse_for_none_shows_none(it: Scene) -> None:
    """Given tasks that are ready, scheduled and held, when browse is asked for 0, it shows none of them."""
    it.put(2)
    it.take_one()
    if it.claims(Capability.DELAY):
        it.put(delay=it.later)
    states = (State.READY, State.SCHEDULED, State.LEASED)
    shown = {each.value: len(it.broker.browse(it.queue, state=each, limit=0)) for each in states}
    expect_equal(shown, {each.value: 0 for each in states}, "records that browse(limit=0) gives")


def _page(it: Scene, before: list[str]) -> list[str]:
    after = before[-1] if before else None
    return ids_of(it.broker.browse(it.queue, state=State.READY, limit=2, after=after))
