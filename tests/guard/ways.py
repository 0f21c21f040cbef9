"""Ways: what an app has its broker do, in one thread, so that each time the same is done.

How a worker groups its calls, so that it comes to these, is seen in `test_worker.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from gotasks import App, ArgsMap
from gotasks.broker import Broker, Capability, Lease, Write
from tests.guard.costs import Costs

#: A way is carried out for so many tasks, so that what is dear only now and then counts too.
TASKS = 100

_ARGS: Mapping[str, object] = MappingProxyType({"order": 4711, "customer": "a-customer", "items": [1, 2, 3]})
_QUEUE = "guarded"
_BATCH = 100
_TIMES = 3


def step(args: ArgsMap) -> None:
    """A handler that does nothing, so that nothing is counted but the way of the task."""


class Ways:
    """An app on a broker that nobody else uses."""

    def __init__(self, broker: str | Broker) -> None:
        self.app = App(broker)
        self.app.register("one", step)
        self.queue = self.app.queue(_QUEUE)

    def counted(self, count: Callable[[Callable[[], None]], Costs]) -> Mapping[str, Costs]:
        """The costs of each way for a task; `count` carries it out for all of them.

        Each is gone several times, and the least counts: what is done once (connections, tables, scripts, prepared
        statements) or by the clock (records that are over) is no matter of tasks.
        """
        found: dict[str, Costs] = {}
        for name, before, way in self._each():
            times = []
            for _ in range(_TIMES):
                before()
                times.append(count(way))
                self.app.dispatch.broker.purge(_QUEUE)
            found[name] = {what: min(each[what] for each in times) / TASKS for what in times[0]}
        return found

    def _each(self) -> Iterator[tuple[str, Callable[[], object], Callable[[], None]]]:
        yield "enqueue, one by one", lambda: None, self.enqueue
        yield "enqueue, by 100", lambda: None, self._enqueue_many
        yield "one step, one by one", self._enqueue_many, lambda: self._work(steps=1, together=1)
        yield "one step, by 10", self._enqueue_many, lambda: self._work(steps=1, together=10)
        yield "three steps, by 10", self._enqueue_many, lambda: self._work(steps=3, together=10)

    def enqueue(self) -> None:
        for _ in range(TASKS):
            self.queue.enqueue("one", dict(_ARGS))

    def _enqueue_many(self) -> None:
        for _ in range(TASKS // _BATCH):
            self.queue.enqueue_many("one", [dict(_ARGS)] * _BATCH)

    def _work(self, *, steps: int, together: int) -> None:
        """As a worker of so many slots does it whose handlers all end at the same moment."""
        broker = self.app.dispatch.broker
        for _ in range(TASKS // together):
            leases = self._acquire(together)
            for number in range(1, steps):
                assert not broker.checkpoint(_writes(leases, number))
                if Capability.HANDOFF in broker.capabilities:
                    leases = self._acquire(together)
            assert not broker.ack(_writes(leases, steps), keep_for=self.app.keep_for)

    def _acquire(self, count: int) -> list[Lease]:
        leases = self.app.dispatch.broker.acquire(_QUEUE, limit=count, wait=0, lease_for=30)
        assert len(leases) == count
        return leases


def _writes(leases: list[Lease], seq: int) -> list[Write]:
    return [Write(lease=lease, body=lease.envelope.body, seq=seq) for lease in leases]
