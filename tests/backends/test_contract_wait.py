"""The broker contract: how `acquire` waits, what wakes it, and what `close` does."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from gotasks.broker import Broker, Lease, State
from gotasks.errors import BrokerClosed
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


class Waiting:
    """An `acquire` on a thread of its own."""

    def __init__(self, broker: Broker, *, wait: float = 20.0, queue: str = QUEUE, limit: int = 1) -> None:
        self._outcome: Future[list[Lease]] = Future()
        about_to = threading.Event()

        def main() -> None:
            about_to.set()
            try:
                leases = broker.acquire(queue, limit=limit, wait=wait, lease_for=LONG)
            except BaseException as error:
                self.ended = time.monotonic()
                self._outcome.set_exception(error)
            else:
                self.ended = time.monotonic()
                self._outcome.set_result(leases)

        self.ended = 0.0
        self._thread = threading.Thread(target=main, daemon=True)
        self._thread.start()
        about_to.wait(10)
        # Let it get to where it blocks. Were this too short, the test would be easier to pass, not harder.
        threading.Event().wait(0.01)

    def result(self) -> list[Lease]:
        """What it returned, or raised."""
        return self._outcome.result(timeout=25)


def test_wait_0_returns_at_once_and_sees_whatever_is_ready(broker: Broker) -> None:
    take(broker)  # connect
    began = time.monotonic()
    assert take(broker, wait=0) == []
    assert time.monotonic() - began < 0.5
    sent = put(broker, 3)
    assert ids_of(take(broker, 9, wait=0)) == sent


def test_an_empty_queue_is_waited_for_as_long_as_asked_and_no_longer(broker: Broker) -> None:
    take(broker)
    for wait in (0.2, 1.3):  # below and above what a backend may wait for in one piece
        began = time.monotonic()
        assert take(broker, wait=wait) == []
        assert wait * 0.95 <= time.monotonic() - began < wait + 0.5


def test_acquire_returns_as_soon_as_it_has_one(broker: Broker) -> None:
    (sent,) = put(broker)
    began = time.monotonic()
    assert ids_of(take(broker, 10, wait=20)) == [sent]
    assert time.monotonic() - began < 1


def test_an_enqueue_wakes_a_blocked_acquire_within_50_ms_in_the_median_of_50(broker: Broker) -> None:
    latencies = []
    for _ in range(50):
        waiting = Waiting(broker)
        began = time.monotonic()
        (sent,) = put(broker)
        assert ids_of(waiting.result()) == [sent]
        latencies.append(waiting.ended - began)
    assert statistics.median(latencies) < 0.05, sorted(latencies)


def test_every_enqueued_task_wakes_a_worker_of_its_own(broker: Broker) -> None:
    waiting = [Waiting(broker) for _ in range(5)]
    began = time.monotonic()
    sent = put(broker, 5)
    received = [ids_of(each.result()) for each in waiting]
    assert sorted(one for each in received for one in each) == sorted(sent)
    assert [len(each) for each in received] == [1] * 5
    assert max(each.ended for each in waiting) - began < 1


def release_in_place(broker: Broker, lease: Lease) -> None:
    broker.release([write(lease)])


def release_after_a_delay(broker: Broker, lease: Lease) -> None:
    broker.release([write(lease, delay=0.1)])


@pytest.mark.parametrize("put_back", [release_in_place, release_after_a_delay])
def test_a_release_wakes_a_blocked_acquire(broker: Broker, put_back: Callable[[Broker, Lease], None]) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    waiting = Waiting(broker)
    began = time.monotonic()
    put_back(broker, lease)
    assert ids_of(waiting.result()) == [sent]
    assert waiting.ended - began < 0.8


def test_a_move_wakes_an_acquire_that_is_blocked_on_the_target(broker: Broker) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    waiting = Waiting(broker, queue="target")
    began = time.monotonic()
    broker.release([write(lease, queue="target")])
    assert ids_of(waiting.result()) == [sent]
    assert waiting.ended - began < 0.8


def test_a_blocked_acquire_gets_a_delayed_task_when_it_is_due(broker: Broker) -> None:
    waiting = Waiting(broker)
    began = time.monotonic()
    put(broker, delay=40.0)
    (soon,) = put(broker, delay=0.3)  # due before what was known when the wait began
    assert ids_of(waiting.result()) == [soon]
    assert 0.29 <= waiting.ended - began < 0.3 + broker.limits.recovery + 0.7


def test_a_blocked_acquire_gets_a_task_when_its_lease_ends(broker: Broker, short: float) -> None:
    (sent,) = put(broker)
    take_one(broker, lease_for=short)
    began = time.monotonic()
    (lease,) = Waiting(broker).result()
    assert (lease.envelope.id, lease.deaths) == (sent, 1)
    assert time.monotonic() - began < short + broker.limits.recovery + 0.7


def test_delay_counts_from_when_the_server_takes_it(broker: Broker, short: float) -> None:
    began = time.monotonic()
    broker.enqueue([envelope("late", delay=short * 2), envelope("soon", delay=short), envelope("now")])
    assert broker.stats(QUEUE) == stats(ready=1, scheduled=2)
    assert ids_of(take(broker, 9)) == ["now"]
    assert ids_of(take(broker, 1, wait=10)) == ["soon"]
    assert time.monotonic() - began >= short * 0.99
    assert ids_of(take(broker, 1, wait=10)) == ["late"]
    assert time.monotonic() - began >= short * 2 * 0.99


def test_what_came_due_first_leaves_first(broker: Broker, short: float) -> None:
    for index in (3, 1, 2):
        broker.enqueue([envelope(f"n{index}", delay=short * index / 3)])
    eventually(lambda: broker.stats(QUEUE) == stats(ready=3), what="all due")
    assert ids_of(take(broker, 9)) == ["n1", "n2", "n3"]


# -- close --------------------------------------------------------------------------------------


def test_close_wakes_a_blocked_acquire_within_a_second(broker: Broker) -> None:
    take(broker)
    waiting = [Waiting(broker), Waiting(broker, queue="other")]
    began = time.monotonic()
    broker.close()
    for each in waiting:
        with pytest.raises(BrokerClosed):
            each.result()
        assert each.ended - began < 1.5  # 1 s, and room for a busy machine


def test_after_close_every_call_raises_broker_closed_and_does_nothing(broker: Broker) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    broker.close()
    broker.close()  # idempotent

    calls: list[Callable[[], object]] = [
        lambda: broker.enqueue([envelope()]),
        lambda: take(broker),
        lambda: take(broker, wait=5),
        lambda: broker.acquire(QUEUE, limit=1, wait=0, lease_for=LONG, ids=[sent]),
        lambda: broker.extend([lease], lease_for=LONG),
        lambda: broker.checkpoint([write(lease)]),
        lambda: broker.ack([write(lease)], keep_for=0),
        lambda: broker.release([write(lease)]),
        lambda: broker.stats(QUEUE),
        lambda: broker.purge(QUEUE),
        lambda: broker.browse(QUEUE, state=State.READY, limit=1),
        lambda: broker.get([sent]),
    ]
    for call in calls:
        with pytest.raises(BrokerClosed):
            call()


def test_closing_a_broker_that_never_connected_is_fine(broker: Broker) -> None:
    broker.close()
    with pytest.raises(BrokerClosed):
        broker.stats(QUEUE)
