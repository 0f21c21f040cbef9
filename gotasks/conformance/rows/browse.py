"""Rows: browse. A person looks into a queue, and takes out of it what they mean."""

from __future__ import annotations

from functools import partial

from gotasks.broker import Capability, Record, State
from gotasks.conformance.expect import expect, expect_equal
from gotasks.conformance.row import row
from gotasks.conformance.scene import LONG, Scene, ids_of
from gotasks.errors import Unsupported


@row("BRW-01", needs=Capability.BROWSE)
def browse_goes_through_a_queue_page_by_page(it: Scene) -> None:
    """Given tasks that are ready, scheduled and held, when each of these states is browsed in pages of any
    size, each after the last id of the one before, then every task is met once, the next to leave first, with
    its queue and its body.
    """
    held_in, later_in = it.name("held"), it.name("later")
    right = {
        State.READY: (it.queue, it.put(5, body=b"b")),
        State.LEASED: (held_in, it.put(5, body=b"b", queue=held_in)),
    }
    for index in range(5):
        it.take_one(queue=held_in, lease_for=LONG + index)
    if it.claims(Capability.DELAY):
        ids = [
            it.put(body=b"b", queue=later_in, delay=it.later - (5 - index) / 2)[0]
            for index in (3, 1, 2, 5, 4)
        ]
        right[State.SCHEDULED] = later_in, [ids[index] for index in (1, 2, 0, 4, 3)]
    for state, (queue, expected) in right.items():
        what = f"ids that browse gives of a queue in which all is {state.value}"
        pages = {limit: ids_of(_pages(it, queue, state, limit)) for limit in (1, 2, 5, 9)}
        ordered = {
            State.READY: it.limits.fifo,
            State.LEASED: it.claims(Capability.TIMED_LEASE),
            State.SCHEDULED: True,
        }[state]
        if not ordered:
            pages = {limit: sorted(ids) for limit, ids in pages.items()}
        for limit, found in pages.items():
            expect_equal(found, expected if ordered else sorted(expected), f"{what}, {limit} a page")
        records = it.broker.browse(queue, state=state, limit=9)
        shown = {(each.queue, each.state, each.body) for each in records}
        expect_equal(shown, {(queue, state, b"b")}, "queue, state and body that browse tells")


@row("BRW-02", needs=Capability.BROWSE)
def looking_changes_nothing(it: Scene) -> None:
    """Given tasks in a queue, when it is browsed in each state, then each task is shown in its own state only,
    and all can be acquired as before, with no death counted.
    """
    sent = it.put(3)
    held = it.take_one()
    states = (State.READY, State.SCHEDULED, State.LEASED)
    shown = [len(it.broker.browse(it.queue, state=state, limit=9)) for state in states]
    expect_equal(
        shown, [2, 0, 1], "tasks that browse shows as ready, scheduled and leased, of two ready and one held"
    )
    left = {(lease.envelope.id, lease.deaths) for lease in it.take_all(3)}
    right = {(each, 0) for each in sent if each != held.envelope.id}
    expect_equal(left, right, "ids and deaths of what can be acquired after browsing")
    lost = it.broker.ack([it.write(held)], keep_for=0)
    expect_equal(lost, frozenset(), "receipts lost by browsing")


@row("BRW-03", needs=Capability.BROWSE)
def acquire_with_ids_takes_these_and_no_others(it: Scene) -> None:
    """Given tasks that are ready, scheduled and left by a dead holder, among others, when `acquire` names them
    by id, then it gives these, due or not. What is held, in another queue, or unknown isn't given, and all
    others are untouched.
    """
    ready, other = it.put(2)
    (far,) = it.put(queue=it.name("far"))
    (held,), busy = it.put(queue=it.name("busy")), it.name("busy")
    it.take_one(queue=busy)
    later = it.put(delay=it.later) if it.claims(Capability.DELAY) else []
    (left,) = it.put(queue=it.name("left"))
    holder = it.client()
    it.abandon([it.take_one(by=holder, queue=it.name("left"), lease_for=it.lease)], by=holder)
    named = [ready, *later, far, held, it.envelope().id]
    came = [lease for _ in named for lease in it.take(9, ids=named)]
    expect_equal(sorted(ids_of(came)), sorted([ready, *later]), "ids that acquire(ids=…) gives")
    seen = [len(it.take(queue=busy, ids=[held])), len(it.take(queue=it.name("far"), ids=[ready]))]
    expect_equal(
        seen, [0, 0], "leases that acquire(ids=…) gives of what is held, and of what is in another queue"
    )
    (lease,) = it.eventually(
        lambda: it.take(queue=it.name("left"), ids=[left]),
        "a task whose lease is over can be acquired by its id",
        within=it.grace,
    )
    expect_equal(lease.deaths, 1, "deaths of a task whose holder had died, taken by its id")
    after = ids_of(it.take_all(9)), ids_of(it.take_all(9, queue=it.name("far")))
    expect_equal(after, ([other], [far]), "what is left of both queues")


@row("BRW-04", needs=Capability.BROWSE)
def acquire_with_ids_gives_at_most_limit_and_never_waits(it: Scene) -> None:
    """Given an `acquire` with ids, it gives no more than `limit`, and where none of them can be had it returns
    at once, however long it might wait.
    """
    sent, limit = it.put(3), min(2, it.limits.max_batch)
    expect_equal(
        len(it.take(limit, ids=sent)), limit, f"leases that acquire(limit={limit}) gives of three ids"
    )
    call = it.begin(lambda: it.take(wait=30.0, ids=[it.envelope().id]))
    it.eventually(call.done, "the return of an acquire(ids=…, wait=30) of an unknown id", within=5.0)


@row("BRW-05", needs=Capability.BROWSE)
def nothing_follows_an_id_that_has_left(it: Scene) -> None:
    """Given an id that isn't in the browsed state any more, when a queue is browsed after it, then nothing is
    shown, not all from the start again.
    """
    it.put(3)
    gone = it.take_one().envelope.id
    shown = [
        len(it.broker.browse(it.queue, state=State.READY, limit=9, after=each)) for each in (gone, "never")
    ]
    expect_equal(
        shown, [0, 0], "records that browse gives after an id that has left, and after an unknown one"
    )


@row("BRW-06", needs=Capability.BROWSE)
def what_has_ended_is_in_no_queue(it: Scene) -> None:
    """When a queue is browsed for what is done or cancelled, Unsupported is raised: that is found by its id."""
    for state in (State.DONE, State.CANCELLED):
        try:
            found = it.broker.browse(it.queue, state=state, limit=9)
        except Unsupported:
            continue
        expect(False, f"browse of what is {state.value} gave {len(found)} records and no Unsupported")


@row("BRW-07", needs=Capability.BROWSE)
def of_two_who_name_the_same_task_one_gets_it(it: Scene) -> None:
    """Given several who acquire the same task by its id at the same time, then one gets it."""
    clients = [it.client() for _ in range(4)]
    rounds = it.times(quick=25, full=500)
    taken = []
    for _ in range(rounds):
        (task_id,) = it.put()
        calls = [partial(it.take, by=client, ids=[task_id]) for client in clients]
        leases = [lease for part in it.in_threads(*calls) for lease in part]
        taken.append(len(leases))
        it.broker.ack([it.write(each) for each in leases[-1:]], keep_for=0)
    expect_equal(set(taken), {1}, f"how many of four got a task by its id, in {rounds} rounds")


def _pages(it: Scene, queue: str, state: State, limit: int) -> list[Record]:
    """All that browse gives, page by page; ends where it should have ended long ago."""
    found: list[Record] = []
    while page := it.broker.browse(queue, state=state, limit=limit, after=found[-1].id if found else None):
        found += page
        expect(len(page) <= limit, f"browse(limit={limit}) gave {len(page)} records")
        if len(found) > 20:
            break
    return found
