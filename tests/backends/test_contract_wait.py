"""What the conformance rows leave out of how `acquire` waits and what `close` does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest

from gotasks.broker import Broker, Lease
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


@pytest.mark.needs("DELAY")
def test_a_release_wakes_a_blocked_acquire_when_its_delay_is_over(broker: Broker) -> None:
    (sent,) = put(broker)
    lease = take_one(broker)
    waiting = Waiting(broker)
    began = time.monotonic()
    broker.release([write(lease, delay=0.1)])
    assert ids_of(waiting.result()) == [sent]
    assert waiting.ended - began < 0.8


@pytest.mark.needs("DELAY")
def test_what_came_due_first_leaves_first(broker: Broker, short: float) -> None:
    for index in (3, 1, 2):
        broker.enqueue([envelope(f"n{index}", delay=short * index / 3)])
    eventually(lambda: broker.stats(QUEUE) == stats(ready=3), what="all due")
    assert ids_of(take(broker, 9)) == ["n1", "n2", "n3"]


def test_closing_a_broker_that_never_connected_is_fine(broker: Broker) -> None:
    broker.close()
    with pytest.raises(BrokerClosed):
        broker.stats(QUEUE)
