"""An app on a broker, and the ways in which its tasks are run: what the tests of the engine work with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gotasks import App
from gotasks.broker import Broker, Capability, Lease, QueueStats
from gotasks.conformance.kit import engine as kit
from gotasks.conformance.kit.engine import Watch
from gotasks.conformance.kit.handlers import Gate, Steps
from gotasks.conformance.kit.tap import Tap
from gotasks.discovery import open_broker
from tests.backends.contract import eventually

__all__ = ["PATIENCE", "QUEUE", "Engine", "Faulty", "Gate", "Steps", "Watch", "times"]

#: The queue that a test uses where it needs only one.
QUEUE = "orders"

#: Nothing takes that long; a busy machine gets the time. Seconds.
PATIENCE = 20.0


def short_lease(url: str | Broker) -> float:
    """A lease that a test can wait for, and in which a busy machine gets a call of this broker done. Seconds.

    A broker that is given as an object is one in memory.
    """
    return 0.5 if isinstance(url, str) and not url.startswith("memory") else 0.2


class Engine(kit.Engine):
    """An app, and one of the ways in which its tasks are run."""

    def __init__(self, url: str | Broker, *, how: str = "worker", **options: Any) -> None:
        super().__init__(App(url, **options), QUEUE)
        self.how = how
        self._url = url if isinstance(url, str) else ""
        self._timed = Capability.TIMED_LEASE in self.app.capabilities
        #: A lease that a test can wait for. Seconds.
        self.short = short_lease(url)

    def run(self, *tasks: Any, within: float = PATIENCE) -> None:
        """Run tasks until no queue holds any but the fatal one."""
        queues = list(self.app.queues)

        def done() -> bool:
            if self.how == "drain":
                self.app.drain(raises=False)
            return all(at_rest(self.app.stats(name)) for name in queues)

        if self.how == "drain":
            eventually(done, within=within, what="an empty queue")
            return
        looks = 0

        def over() -> bool:
            # What a worker is just being given is in no count of a server that doesn't count leases.
            nonlocal looks
            looks = looks + 1 if done() and not any(map(worker.in_flight, queues)) else 0
            return looks >= (1 if self._timed else 5)

        with self.app.worker() as worker:
            eventually(over, within=within, what="an empty queue")

    def crash(self, *, times: int = 1, queue: str = QUEUE) -> list[Lease]:
        """Do as a worker that takes a task and is killed, that many times; the leases that it leaves behind."""
        leases: list[Lease] = []
        for _ in range(times):
            holder = self.broker if self._timed else open_broker(self._url)
            there = self.broker.stats(queue).ready
            leases += holder.acquire(queue, limit=1, wait=PATIENCE, lease_for=self.short)
            if not self._timed:  # the lease ends with its connection, as soon as the server notices
                holder.close()
                eventually(lambda: self.broker.stats(queue).ready == there, what="the task back in its queue")  # noqa: B023
        assert len(leases) == times
        return leases

    def close(self) -> None:
        self.app.close()


class Faulty(Tap):
    """A real broker whose calls can be made to fail: before they are carried out, or after (a lost reply)."""

    def __init__(self, url: str) -> None:
        super().__init__(open_broker(url))


def at_rest(found: QueueStats) -> bool:
    """Whether a queue holds nothing, as far as the server can say."""
    return not (found.ready or found.scheduled or found.leased)


def times(count: int, error: Callable[[], BaseException]) -> Callable[[], None]:
    """For `Faulty`: raise `error()` the first `count` times."""
    left = iter(range(count))

    def fail() -> None:
        if next(left, None) is not None:
            raise error()

    return fail
