"""The broker contract: checkpoint, release and ack, their `seq`, their repeats, and batches of them."""

from __future__ import annotations

import time

import pytest

from gotasks.broker import Broker, Capability, State
from tests.backends.contract import (
    LONG,
    QUEUE,
    WRITES,
    eventually,
    ids_of,
    put,
    stats,
    take,
    take_one,
    write,
)

settling = pytest.mark.parametrize("name", ["release", "ack"])


# -- checkpoint ---------------------------------------------------------------------------------


def test_a_checkpoint_replaces_the_body_and_the_task_stays_held(broker: Broker) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)

    assert broker.checkpoint([write(lease, b"one", seq=1)]) == frozenset()
    assert broker.get([sent])[sent].body == b"one"
    assert broker.checkpoint([write(lease, b"two", seq=2)]) == frozenset()
    assert broker.get([sent])[sent].body == b"two"

    assert broker.stats(QUEUE) == stats(leased=1)
    assert take(broker) == []


def test_what_acquire_returns_is_what_the_last_checkpoint_wrote(broker: Broker, short: float) -> None:
    put(broker)
    lease = take_one(broker, lease_for=short)
    for seq in range(1, 6):
        broker.checkpoint([write(lease, b"%d" % seq, seq=seq)])
    assert take_one(broker, wait=10).envelope.body == b"5"


def test_a_checkpoint_makes_a_lease_neither_longer_nor_shorter(broker: Broker) -> None:
    put(broker)
    began = time.monotonic()
    lease = take_one(broker, lease_for=1.0)
    assert take(broker, wait=0.7) == []
    broker.checkpoint([write(lease)])
    take_one(broker, wait=10)
    assert 0.99 <= time.monotonic() - began < 1.6  # were it renewed: 1.7


# -- release ------------------------------------------------------------------------------------


def test_a_release_puts_the_new_body_where_limits_say(broker: Broker) -> None:
    first, *others = put(broker, 3)
    assert broker.release([write(take_one(broker), b"new")]) == frozenset()
    assert broker.stats(QUEUE) == stats(ready=3)
    leases = take(broker, 9)
    expected = {"front": [first, *others], "back": [*others, first]}.get(broker.limits.returned)
    assert expected is None or ids_of(leases) == expected
    assert {lease.envelope.id: lease.envelope.body for lease in leases}[first] == b"new"


def test_what_was_released_from_the_front_one_by_one_leaves_last_in_first_out(broker: Broker) -> None:
    if broker.limits.returned != "front":
        pytest.skip("only where a release goes to the front")
    sent = put(broker, 3)
    broker.release([write(lease) for lease in take(broker, 3)])
    leases = take(broker, 9)
    assert ids_of(leases) == sent[::-1]
    broker.release([write(lease) for lease in leases])
    assert ids_of(take(broker, 9)) == sent


def test_a_release_with_a_delay_waits_for_it(broker: Broker, short: float) -> None:
    (sent,) = put(broker)
    broker.release([write(take_one(broker), b"later", delay=short)])
    released = time.monotonic()
    assert broker.stats(QUEUE) == stats(scheduled=1)
    assert broker.get([sent])[sent].state is State.SCHEDULED
    lease = take_one(broker, wait=10)
    assert time.monotonic() - released >= short * 0.98
    assert (lease.envelope.body, lease.deaths) == (b"later", 0)


def test_a_release_into_another_queue_goes_to_its_back(broker: Broker) -> None:
    (there,) = put(broker, queue="target")
    (sent,) = put(broker)
    assert broker.release([write(take_one(broker), b"moved", queue="target")]) == frozenset()

    assert broker.stats(QUEUE) == stats()
    assert broker.stats("target") == stats(ready=2)
    record = broker.get([sent])[sent]
    assert (record.queue, record.state, record.body) == ("target", State.READY, b"moved")
    assert ids_of(take(broker, 9, queue="target")) == [there, sent]
    assert take(broker, 9) == []


def test_a_release_may_move_and_delay_at_once(broker: Broker, short: float) -> None:
    (sent,) = put(broker)
    broker.release([write(take_one(broker), queue="target", delay=short)])
    assert (broker.stats(QUEUE), broker.stats("target")) == (stats(), stats(scheduled=1))
    assert take_one(broker, queue="target", wait=10).envelope.id == sent


def test_one_release_may_have_several_targets(broker: Broker) -> None:
    sent = put(broker, 4)
    a, b, c, d = take(broker, 4)
    writes = [write(a), write(b, queue="x"), write(c, queue="y", delay=LONG), write(d, queue=QUEUE)]
    assert broker.release(writes) == frozenset()
    assert broker.stats(QUEUE) == stats(ready=2)
    assert (broker.stats("x"), broker.stats("y")) == (stats(ready=1), stats(scheduled=1))
    assert broker.get(sent).keys() == set(sent)


def test_a_task_that_was_moved_is_written_under_its_new_lease(broker: Broker) -> None:
    (sent,) = put(broker)
    broker.release([write(take_one(broker), queue="target")])
    lease = take_one(broker, queue="target")
    assert broker.checkpoint([write(lease, b"there")]) == frozenset()
    assert broker.release([write(lease, b"back", seq=2, queue=QUEUE)]) == frozenset()
    assert (broker.stats(QUEUE), broker.stats("target")) == (stats(ready=1), stats())
    assert take_one(broker).envelope.id == sent


# -- ack ----------------------------------------------------------------------------------------


def test_an_ack_keeps_the_final_body_for_as_long_as_asked_from_the_end_of_the_task(
    broker: Broker, short: float
) -> None:
    assert Capability.RECORDS in broker.capabilities
    (sent,) = put(broker)
    lease = take_one(broker)
    assert take(broker, wait=2 * short) == []  # a task lives longer than its record ...
    began = time.monotonic()
    assert (
        broker.ack([write(lease, b"final")], keep_for=2 * short) == frozenset()
    )  # ... whose time starts here

    record = broker.get([sent])[sent]
    assert (record.state, record.body, record.queue) == (State.DONE, b"final", QUEUE)
    assert broker.stats(QUEUE) == stats()
    eventually(lambda: broker.get([sent]) == {}, what="the end of the record")
    assert 2 * short * 0.98 <= time.monotonic() - began < 2 * short + 1


def test_an_ack_with_keep_for_0_keeps_nothing(broker: Broker) -> None:
    (sent,) = put(broker)
    assert broker.ack([write(take_one(broker))], keep_for=0) == frozenset()
    assert broker.get([sent]) == {}
    assert broker.stats(QUEUE) == stats()
    assert take(broker, 9) == []


def test_the_record_of_a_living_task_never_expires(broker: Broker, short: float) -> None:
    ended, living = put(broker, 2)
    lease, other = take(broker, 2)
    broker.checkpoint([write(other)])
    broker.release([write(other, seq=2)])
    broker.ack([write(lease)], keep_for=short)
    eventually(lambda: broker.get([ended]) == {}, what="the end of the other one's record")
    assert broker.get([living])[living].state is State.READY


# -- seq ----------------------------------------------------------------------------------------


def test_an_old_checkpoint_that_arrives_late_changes_nothing_and_is_lost(broker: Broker) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    broker.checkpoint([write(lease, b"new", seq=5)])
    assert broker.checkpoint([write(lease, b"old", seq=4)]) == {lease.receipt}
    assert broker.get([sent])[sent].body == b"new"
    assert broker.checkpoint([write(lease, b"newer", seq=6)]) == frozenset()  # the receipt holds all the same


@settling
def test_an_old_settling_write_that_arrives_late_changes_nothing_and_is_lost(
    broker: Broker, name: str
) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    broker.checkpoint([write(lease, b"new", seq=5)])
    assert WRITES[name](broker, lease, 4) == {lease.receipt}
    assert broker.get([sent])[sent].body == b"new"
    assert broker.stats(QUEUE) == stats(leased=1)


def test_seq_begins_anew_under_each_lease(broker: Broker, short: float) -> None:
    put(broker)
    lease = take_one(broker)
    broker.checkpoint([write(lease, seq=7)])
    broker.release([write(lease, seq=8)])
    lease = take_one(broker, lease_for=short)
    assert broker.checkpoint([write(lease, b"a", seq=1)]) == frozenset()
    lease = take_one(broker, wait=10)
    assert lease.envelope.body == b"a"
    assert broker.ack([write(lease, seq=1)], keep_for=0) == frozenset()


# -- repeats ------------------------------------------------------------------------------------


def test_a_repeated_extend_is_held(broker: Broker) -> None:
    put(broker)
    lease = take_one(broker)
    assert [broker.extend([lease], lease_for=LONG) for _ in range(2)] == [frozenset()] * 2


def test_a_repeated_checkpoint_is_held(broker: Broker) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    assert [broker.checkpoint([write(lease, b"one")]) for _ in range(3)] == [frozenset()] * 3
    assert broker.get([sent])[sent].body == b"one"
    assert broker.stats(QUEUE) == stats(leased=1)


@settling
def test_a_repeated_write_that_had_ended_the_lease_is_lost_and_changes_nothing(
    broker: Broker, name: str
) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    assert WRITES[name](broker, lease, 1) == frozenset()
    before = broker.get([sent]), broker.stats(QUEUE)
    assert WRITES[name](broker, lease, 1) == {lease.receipt}
    assert (broker.get([sent]), broker.stats(QUEUE)) == before


def test_a_repeated_move_makes_no_second_copy(broker: Broker) -> None:
    put(broker)
    lease = take_one(broker)
    moves = [write(lease, queue="target")]
    assert broker.release(moves) == frozenset()
    assert broker.release(moves) == {lease.receipt}
    assert len(take(broker, 9, queue="target")) == 1
    assert broker.release(moves) == {lease.receipt}  # nor does it take from whoever holds it now
    assert broker.stats("target") == stats(leased=1)


# -- batches ------------------------------------------------------------------------------------


def test_every_call_takes_a_full_batch(broker: Broker) -> None:
    size = broker.limits.max_batch
    sent = put(broker, size)
    assert broker.stats(QUEUE) == stats(ready=size)

    leases = take(broker, size)
    assert ids_of(leases) == sent
    assert broker.extend(leases, lease_for=LONG) == frozenset()
    assert broker.checkpoint([write(lease, b"one") for lease in leases]) == frozenset()
    assert {record.body for record in broker.get(sent).values()} == {b"one"}
    assert broker.release([write(lease, b"two", seq=2) for lease in leases]) == frozenset()
    assert broker.stats(QUEUE) == stats(ready=size)

    leases = take(broker, size + 1)
    assert len(leases) == size
    assert broker.ack([write(lease, b"three") for lease in leases], keep_for=LONG) == frozenset()
    assert {(record.body, record.state) for record in broker.get(sent).values()} == {(b"three", State.DONE)}
    assert broker.stats(QUEUE) == stats()


@pytest.mark.parametrize("name", list(WRITES))
def test_lost_is_exact_in_a_batch_whose_items_fare_differently(broker: Broker, name: str) -> None:
    put(broker, 4)
    leases = take(broker, 4)
    for index in (1, 3):
        broker.ack([write(leases[index])], keep_for=0)
    calls = {
        "extend": lambda: broker.extend(leases, lease_for=LONG),
        "checkpoint": lambda: broker.checkpoint([write(lease) for lease in leases]),
        "release": lambda: broker.release([write(lease) for lease in leases]),
        "ack": lambda: broker.ack([write(lease) for lease in leases], keep_for=0),
    }
    assert calls[name]() == {leases[1].receipt, leases[3].receipt}
    left = {"release": stats(ready=2), "ack": stats()}.get(name, stats(leased=2))
    assert broker.stats(QUEUE) == left


def test_an_empty_batch_is_a_no_op(broker: Broker) -> None:
    assert broker.enqueue([]) == {}
    assert broker.extend([], lease_for=LONG) == frozenset()
    assert broker.checkpoint([]) == frozenset()
    assert broker.ack([], keep_for=LONG) == frozenset()
    assert broker.release([]) == frozenset()
    assert broker.get([]) == {}
    assert broker.stats(QUEUE) == stats()
