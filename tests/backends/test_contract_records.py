"""The broker contract: what can be asked of a queue and of a task, purge and cancel."""

from __future__ import annotations

import pytest

from gotasks.broker import Broker, Capability, Record, State
from tests.backends.contract import (
    LONG,
    QUEUE,
    envelope,
    eventually,
    ids_of,
    let_end,
    put,
    stats,
    take,
    take_one,
    write,
)

# -- stats --------------------------------------------------------------------------------------


def test_stats_of_a_queue_that_was_never_used_are_zeros(broker: Broker) -> None:
    assert broker.stats("never-used") == stats()


def test_stats_follow_a_task_through_its_life(broker: Broker, short: float) -> None:
    def now(ready: int = 0, scheduled: int = 0, leased: int = 0) -> None:
        assert broker.stats(QUEUE) == stats(ready, scheduled, leased)

    put(broker)
    now(ready=1)
    put(broker, delay=short)
    now(ready=1, scheduled=1)
    eventually(lambda: broker.stats(QUEUE) == stats(ready=2), what="due, though nobody acquires")
    leases = take(broker, 2, lease_for=short)
    now(leased=2)
    let_end(leases)
    now(leased=2)  # until they are taken over
    leases = take(broker, 2)
    now(leased=2)
    broker.checkpoint([write(leases[0])])
    now(leased=2)
    broker.release([write(leases[0], seq=2)])
    now(ready=1, leased=1)
    broker.ack([write(leases[1])], keep_for=LONG)
    now(ready=1)
    broker.release([write(take_one(broker), delay=LONG)])
    now(scheduled=1)
    assert broker.purge(QUEUE) == 1
    now()


# -- purge --------------------------------------------------------------------------------------


def test_purge_removes_what_waits_and_leaves_alone_what_is_held(broker: Broker, short: float) -> None:
    held, over = put(broker, 2)
    leases = [take_one(broker), take_one(broker, lease_for=short)]
    let_end(leases[1:])
    waiting = [*put(broker, 3), *put(broker, 2, delay=LONG)]
    (elsewhere,) = put(broker, queue="other")

    assert broker.purge(QUEUE) == 5

    assert broker.stats(QUEUE) == stats(leased=2)
    assert broker.get(waiting) == {}
    assert broker.get([held, over, elsewhere]).keys() == {held, over, elsewhere}
    assert broker.ack([write(lease) for lease in leases], keep_for=0) == frozenset()
    assert broker.purge(QUEUE) == 0
    assert broker.enqueue([envelope(waiting[0])]) == {}  # its id is free


def test_purge_counts_what_is_due(broker: Broker, short: float) -> None:
    put(broker, 2, delay=short)
    eventually(lambda: broker.stats(QUEUE).ready == 2, what="due")
    assert broker.purge(QUEUE) == 2
    assert take(broker, 9) == []


def test_a_purge_of_many(broker: Broker) -> None:
    size = broker.limits.max_batch
    for _ in range(2):
        put(broker, size)
    put(broker, 10)
    assert broker.purge(QUEUE) == 2 * size + 10
    assert broker.stats(QUEUE) == stats()


# -- get ----------------------------------------------------------------------------------------


def test_get_leaves_out_what_isnt_known(broker: Broker) -> None:
    (sent,) = put(broker)
    assert broker.get([sent, "unknown"]) == {
        sent: Record(id=sent, queue=QUEUE, state=State.READY, body=b"body")
    }


def test_get_tells_the_state(broker: Broker, short: float) -> None:
    ready, held, over, done = put(broker, 4)
    (later,) = put(broker, delay=LONG)
    (due,) = put(broker, delay=short)
    leases = {each: take_one(broker, task_id=each, lease_for=LONG) for each in (held, done)}
    let_end([take_one(broker, task_id=over, lease_for=short)])
    broker.ack([write(leases[done])], keep_for=LONG)
    eventually(lambda: broker.stats(QUEUE).scheduled == 1, what="due")

    records = broker.get([ready, held, over, done, later, due])

    assert {each: record.state for each, record in records.items()} == {
        ready: State.READY,
        held: State.LEASED,
        over: State.LEASED,
        done: State.DONE,
        later: State.SCHEDULED,
        due: State.READY,
    }


# -- browse -------------------------------------------------------------------------------------


def browse_all(broker: Broker, state: State, limit: int) -> list[Record]:
    found: list[Record] = []
    while True:
        page = broker.browse(QUEUE, state=state, limit=limit, after=found[-1].id if found else None)
        assert len(page) <= limit
        if not page:
            return found
        found += page


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
@pytest.mark.parametrize("state", [State.READY, State.SCHEDULED, State.LEASED])
def test_browse_goes_through_a_queue_page_by_page_the_next_to_leave_first(
    broker: Broker, state: State, limit: int
) -> None:
    if state is State.SCHEDULED:
        ids = [put(broker, delay=LONG + index)[0] for index in (3, 1, 2, 5, 4, 7, 6)]
        expected = [ids[index] for index in (1, 2, 0, 4, 3, 6, 5)]
    else:
        expected = put(broker, 7)
    if state is State.LEASED:
        for index in range(7):
            take_one(broker, lease_for=LONG + index)
    put(broker, 2, queue="other")
    before = broker.stats(QUEUE)

    found = browse_all(broker, state, limit)

    assert ids_of(found) == expected
    assert {(record.queue, record.state, record.body) for record in found} == {(QUEUE, state, b"body")}
    assert broker.stats(QUEUE) == before  # looking changes nothing
    for other in {State.READY, State.SCHEDULED, State.LEASED} - {state}:
        assert list(broker.browse(QUEUE, state=other, limit=limit)) == []


def test_browse_shows_what_is_due_as_ready(broker: Broker, short: float) -> None:
    (sent,) = put(broker, delay=short)
    eventually(lambda: ids_of(broker.browse(QUEUE, state=State.READY, limit=9)) == [sent], what="due")
    assert list(broker.browse(QUEUE, state=State.SCHEDULED, limit=9)) == []


def test_browse_after_an_id_that_left_gives_nothing_rather_than_everything_again(broker: Broker) -> None:
    put(broker, 3)
    assert list(broker.browse(QUEUE, state=State.READY, limit=9, after="gone")) == []


# -- cancel -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.READY, State.SCHEDULED, State.LEASED])
@pytest.mark.parametrize("keep_for", [0, LONG])
def test_cancel_ends_a_task_in_every_state(broker: Broker, state: State, keep_for: float) -> None:
    if Capability.CANCEL not in broker.capabilities:
        pytest.skip(f"{type(broker).__name__} doesn't claim CANCEL")
    (sent,) = put(broker, delay=LONG if state is State.SCHEDULED else 0)
    lease = take_one(broker) if state is State.LEASED else None

    assert list(broker.cancel([sent, "unknown"], keep_for=keep_for)) == [sent]

    assert broker.stats(QUEUE) == stats()
    assert take(broker, 9) == []
    assert [record.state for record in broker.get([sent]).values()] == ([State.CANCELLED] if keep_for else [])
    if lease is not None:
        assert broker.ack([write(lease)], keep_for=LONG) == {lease.receipt}
        assert sent not in broker.get([sent]) or broker.get([sent])[sent].state is State.CANCELLED
    assert list(broker.cancel([sent], keep_for=keep_for)) == []  # once only


def test_cancel_leaves_alone_what_has_ended(broker: Broker) -> None:
    if Capability.CANCEL not in broker.capabilities:
        pytest.skip(f"{type(broker).__name__} doesn't claim CANCEL")
    (sent,) = put(broker)
    broker.ack([write(take_one(broker), b"final")], keep_for=LONG)
    assert list(broker.cancel([sent], keep_for=LONG)) == []
    assert broker.get([sent])[sent].state is State.DONE
