"""The broker contract: what goes in, what comes out, in which order."""

from __future__ import annotations

import pytest

from gotasks.broker import Broker, Capability, Envelope
from tests.backends.contract import (
    LONG,
    QUEUE,
    envelope,
    eventually,
    ids_of,
    put,
    stats,
    take,
    take_one,
    write,
)


def test_what_was_enqueued_comes_out_as_it_was(broker: Broker) -> None:
    body = bytes(range(256)) * 4
    sent = envelope("An-Id_1", body)

    assert broker.enqueue([sent]) == {}

    lease = take_one(broker)
    assert (lease.envelope.id, lease.envelope.queue, lease.envelope.body) == ("An-Id_1", QUEUE, body)
    assert lease.deaths == 0


@pytest.mark.parametrize("body", [b"", b"\x00\r\n\xff", b"x" * 1_000_000], ids=["empty", "binary", "1 MB"])
def test_a_body_is_opaque(broker: Broker, body: bytes) -> None:
    broker.enqueue([envelope("a", body)])
    lease = take_one(broker)
    assert lease.envelope.body == body

    broker.release([write(lease, body)])
    assert take_one(broker).envelope.body == body


def test_ids_and_queues_may_be_as_long_as_the_contract_says_and_are_case_sensitive(broker: Broker) -> None:
    long_id, long_queue = "Aa0_-" * 12 + "Zz9_", "Aa0_.-" * 21 + "Qq"
    assert (len(long_id), len(long_queue)) == (64, 128)
    broker.enqueue([envelope(long_id, queue=long_queue)])
    broker.enqueue([envelope("upper", queue="Q")])
    broker.enqueue([envelope("lower", queue="q"), envelope("UPPER", queue="q")])

    assert ids_of(take(broker, 9, queue=long_queue)) == [long_id]
    assert ids_of(take(broker, 9, queue="Q")) == ["upper"]
    assert ids_of(take(broker, 9, queue="q")) == ["lower", "UPPER"]


def test_queues_are_apart(broker: Broker) -> None:
    (mine,), (other,) = put(broker, queue="a"), put(broker, queue="b")
    assert ids_of(take(broker, 9, queue="a")) == [mine]
    assert take(broker, 9, queue="a") == []
    assert ids_of(take(broker, 9, queue="b")) == [other]


# -- duplicates ---------------------------------------------------------------------------------


def test_an_id_that_is_there_is_not_stored_again(broker: Broker) -> None:
    broker.enqueue([envelope("a", b"first")])

    assert broker.enqueue([envelope("a", b"second"), envelope("b")]) == {"a": "a"}

    assert broker.stats(QUEUE) == stats(ready=2)
    assert [(each.envelope.id, each.envelope.body) for each in take(broker, 9)] == [
        ("a", b"first"),
        ("b", b"body"),
    ]


@pytest.mark.parametrize("state", ["ready", "scheduled", "leased", "expired", "done", "elsewhere"])
def test_an_id_is_known_in_every_state_and_in_every_queue(broker: Broker, short: float, state: str) -> None:
    broker.enqueue([envelope("a", queue="far", delay=LONG if state == "scheduled" else 0)])
    if state in ("leased", "expired", "done"):
        lease = take_one(broker, queue="far", lease_for=short if state == "expired" else LONG)
        if state == "done":
            broker.ack([write(lease)], keep_for=LONG)
    queue = "near" if state == "elsewhere" else "far"
    before = broker.stats(queue)

    assert broker.enqueue([envelope("a", b"again", queue=queue)]) == {"a": "a"}

    assert broker.stats(queue) == before
    assert broker.get(["a"])["a"].body != b"again"


def test_the_same_id_twice_in_one_call_is_stored_once(broker: Broker) -> None:
    broker.enqueue([envelope("a", b"first"), envelope("a", b"second")])
    assert [each.envelope.body for each in take(broker, 9)] == [b"first"]


def test_an_id_whose_task_left_nothing_can_be_used_again(broker: Broker) -> None:
    broker.enqueue([envelope("a")])
    broker.ack([write(take_one(broker))], keep_for=0)
    assert broker.enqueue([envelope("a", b"new")]) == {}
    lease = take_one(broker)
    assert (lease.envelope.body, lease.deaths) == (b"new", 0)


# -- order and limit ----------------------------------------------------------------------------


def test_first_in_first_out(broker: Broker) -> None:
    assert broker.limits.fifo
    sent = put(broker, 40) + [put(broker)[0] for _ in range(20)] + put(broker, 40)

    received: list[str] = []
    for limit in (1, 7, 3, 50, 100):
        received += ids_of(take(broker, limit))

    assert received == sent


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 1000])
def test_acquire_returns_no_more_than_its_limit_and_no_less_than_there_is(broker: Broker, limit: int) -> None:
    sent = put(broker, 5)
    first = take(broker, limit)
    assert ids_of(first) == sent[:limit]
    assert broker.stats(QUEUE) == stats(ready=max(0, 5 - limit), leased=min(limit, 5))


def test_a_limit_counts_what_came_back_and_what_is_due(broker: Broker, short: float) -> None:
    put(broker, 4)
    take(broker, 2, lease_for=short)  # these come back
    assert len(take(broker, 3, wait=0)) == 2
    assert len(take(broker, 1, wait=10)) == 1
    assert len(take(broker, 3, wait=10)) == 1


def test_a_task_is_handed_out_once(broker: Broker) -> None:
    sent = put(broker, 30)
    assert sorted(ids_of([lease for _ in range(60) for lease in take(broker)])) == sorted(sent)


def test_acquire_by_id_takes_these_due_or_not_and_no_others(broker: Broker) -> None:
    first, second, third = put(broker, 3)
    (later,) = put(broker, delay=LONG)

    leases = broker.acquire(QUEUE, limit=9, wait=0, lease_for=LONG, ids=[third, later, "unknown"])

    assert sorted(ids_of(leases)) == sorted([third, later])
    assert broker.stats(QUEUE) == stats(ready=2, leased=2)
    assert ids_of(take(broker, 9)) == [first, second]


def test_acquire_by_id_leaves_alone_what_somebody_holds_what_is_done_and_what_is_elsewhere(
    broker: Broker,
) -> None:
    held, done = put(broker, 2)
    (elsewhere,) = put(broker, queue="other")
    leases = take(broker, 2)
    broker.ack([write(leases[1])], keep_for=LONG)

    ids = [held, done, elsewhere]
    # `wait` is ignored: "held by another" is an answer, not a reason to wait.
    assert broker.acquire(QUEUE, limit=9, wait=30, lease_for=LONG, ids=ids) == []
    assert broker.acquire(QUEUE, limit=9, wait=30, lease_for=LONG, ids=[]) == []
    assert broker.ack([write(leases[0])], keep_for=0) == frozenset()


def test_acquire_by_id_honours_the_limit(broker: Broker) -> None:
    sent = put(broker, 5)
    leases = broker.acquire(QUEUE, limit=2, wait=0, lease_for=LONG, ids=sent)
    assert len(leases) == 2
    assert broker.stats(QUEUE) == stats(ready=3, leased=2)


# -- priorities and unique keys -----------------------------------------------------------------


def need(broker: Broker, capability: Capability) -> None:
    if capability not in broker.capabilities:
        pytest.skip(f"{type(broker).__name__} doesn't claim {capability.name}")


def test_a_higher_priority_leaves_first_and_fifo_holds_within_one(broker: Broker) -> None:
    need(broker, Capability.PRIORITY)
    for name, priority in [("a0", 0), ("a5", 5), ("a9", 9), ("b0", 0), ("b5", 5), ("b9", 9)]:
        broker.enqueue([envelope(name, priority=priority)])
    assert ids_of(take(broker, 9)) == ["a9", "b9", "a5", "b5", "a0", "b0"]


def test_a_priority_is_kept_by_checkpoint_expiry_release_and_delay(broker: Broker, short: float) -> None:
    need(broker, Capability.PRIORITY)
    broker.enqueue([envelope("low"), envelope("high", priority=9)])
    lease = take_one(broker, lease_for=short)
    assert (lease.envelope.id, lease.envelope.priority) == ("high", 9)
    broker.checkpoint([write(lease)])
    low = take_one(broker)
    high = take_one(broker, wait=10)  # its lease ended
    assert (high.envelope.id, high.envelope.priority) == ("high", 9)

    broker.release([write(high), write(low)])  # the last one to the front, but within its priority
    high, low = take(broker, 2)
    assert ids_of([high, low]) == ["high", "low"]

    broker.release([write(low), write(high, delay=short)])
    eventually(lambda: broker.stats(QUEUE).ready == 2, what="due")
    assert ids_of(take(broker, 2)) == ["high", "low"]


def unique(task_id: str, key: str | None) -> list[Envelope]:
    return [envelope(task_id, unique=key)]


def test_a_unique_key_admits_one_living_task(broker: Broker) -> None:
    need(broker, Capability.UNIQUE)
    assert broker.enqueue(unique("a", "order-1")) == {}
    assert broker.enqueue(unique("b", "order-1")) == {"b": "a"}
    assert broker.enqueue(unique("c", "order-2")) == {}
    assert broker.enqueue([envelope("d", unique="order-1", queue="other")]) == {"d": "a"}
    lease = take_one(broker)
    assert lease.envelope.unique == "order-1"
    assert broker.enqueue(unique("e", "order-1")) == {"e": "a"}
    broker.release([write(lease, delay=LONG)])
    assert broker.enqueue(unique("f", "order-1")) == {"f": "a"}


@pytest.mark.parametrize("end", ["ack", "purge", "cancel"])
def test_the_end_of_its_task_frees_a_unique_key(broker: Broker, end: str) -> None:
    need(broker, Capability.UNIQUE)
    broker.enqueue(unique("a", "order-1"))
    if end == "ack":
        broker.ack([write(take_one(broker))], keep_for=LONG)
    elif end == "purge":
        assert broker.purge(QUEUE) == 1
    else:
        broker.cancel(["a"], keep_for=LONG)
    assert broker.enqueue(unique("b", "order-1")) == {}
    assert broker.enqueue(unique("c", "order-1")) == {"c": "b"}


@pytest.mark.parametrize("key", ["", " ", "None"])
def test_a_strange_unique_key_is_no_other_tasks_key(broker: Broker, key: str) -> None:
    need(broker, Capability.UNIQUE)
    assert broker.enqueue(unique("a", key)) == {}
    assert broker.enqueue(unique("b", None)) == {}
    assert broker.enqueue(unique("c", key)) == {"c": "a"}
