"""The broker contract: releases into other queues, and full batches. What else it says of writes is in the suite."""

from __future__ import annotations

import pytest

from gotasks.broker import Broker, State
from tests.backends.contract import (
    LONG,
    QUEUE,
    ids_of,
    put,
    stats,
    take,
    take_one,
    write,
)

# -- release ------------------------------------------------------------------------------------


def test_what_was_released_from_the_front_one_by_one_leaves_last_in_first_out(broker: Broker) -> None:
    if broker.limits.returned != "front":
        pytest.skip("only where a release goes to the front")
    sent = put(broker, 3)
    broker.release([write(lease) for lease in take(broker, 3)])
    leases = take(broker, 9)
    assert ids_of(leases) == sent[::-1]
    broker.release([write(lease) for lease in leases])
    assert ids_of(take(broker, 9)) == sent


@pytest.mark.needs("RECORDS")
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


@pytest.mark.needs("DELAY")
def test_a_release_may_move_and_delay_at_once(broker: Broker, short: float) -> None:
    (sent,) = put(broker)
    broker.release([write(take_one(broker), queue="target", delay=short)])
    assert (broker.stats(QUEUE), broker.stats("target")) == (stats(), stats(scheduled=1))
    assert take_one(broker, queue="target", wait=10).envelope.id == sent


@pytest.mark.needs("DELAY")
def test_one_release_may_have_several_targets(broker: Broker) -> None:
    sent = put(broker, 4)
    a, b, c, d = take(broker, 4)
    writes = [write(a), write(b, queue="x"), write(c, queue="y", delay=LONG), write(d, queue=QUEUE)]
    assert broker.release(writes) == frozenset()
    assert broker.stats(QUEUE) == stats(ready=2)
    assert (broker.stats("x"), broker.stats("y")) == (stats(ready=1), stats(scheduled=1))
    assert broker.get(sent).keys() == set(sent)


@pytest.mark.needs("IN_PLACE")
def test_a_task_that_was_moved_is_written_under_its_new_lease(broker: Broker) -> None:
    (sent,) = put(broker)
    broker.release([write(take_one(broker), queue="target")])
    lease = take_one(broker, queue="target")
    assert broker.checkpoint([write(lease, b"there")]) == frozenset()
    assert broker.release([write(lease, b"back", seq=2, queue=QUEUE)]) == frozenset()
    assert (broker.stats(QUEUE), broker.stats("target")) == (stats(ready=1), stats())
    assert take_one(broker).envelope.id == sent


# -- batches ------------------------------------------------------------------------------------


@pytest.mark.needs("RECORDS")
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
